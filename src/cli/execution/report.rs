//! A failed execution in words, for standard error.

use serde_json::Value;

use crate::cli::error::printable;

/// Why an execution failed, what the runtime said, and where to look next.
#[must_use]
pub fn failure_report(function: &str, failure: &Value, execution: Option<&str>, request_id: &str) -> String {
    let text = |value: &Value| printable(value.as_str().unwrap_or("unknown")).into_owned();
    let (component, phase) = (text(&failure["component"]), text(&failure["phase"]));
    let mut report = format!("'{}' failed: {} ({component}, {phase})", printable(function), text(&failure["reason"]));
    let error = &failure["error"];
    let (kind, message) = (error["type"].as_str().unwrap_or_default(), error["message"].as_str().unwrap_or_default());
    if !kind.is_empty() || !message.is_empty() {
        let colon = if kind.is_empty() || message.is_empty() { "" } else { ": " };
        report.push_str(&indented(&format!("{kind}{colon}{message}"), "  "));
    }
    for call in error["trace"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        report.push_str(&indented(call, "    "));
    }
    if let Some(id) = execution {
        report.push_str(&format!("\n  log: lambda execution log {}", printable(id)));
    }
    report.push_str(&format!("\n  request id: {}", printable(request_id)));
    report
}

/// What became of an execution that did not succeed.
#[must_use]
pub fn outcome_report(record: &Value) -> String {
    let text = |value: &Value| printable(value.as_str().unwrap_or("unknown")).into_owned();
    let failure = &record["failure"];
    if failure.is_object() {
        let request_id = failure["request_id"].as_str().unwrap_or("unknown");
        return failure_report(&text(&record["function_name"]), failure, record["id"].as_str(), request_id);
    }
    format!("execution {} is {}", text(&record["id"]), text(&record["state"]))
}

fn indented(text: &str, by: &str) -> String {
    printable(text.trim_end()).lines().map(|line| format!("\n{by}{line}")).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_failure_says_who_when_why_and_where_to_look() {
        let failure = json!({
            "request_id": "req-1", "component": "function", "phase": "invoke", "reason": "handler_error",
            "error": {"type": "ValueError", "message": "two\nlines", "trace": ["  File \"main.py\", line 3, in handler\n    fail()\n"]},
        });
        let report = failure_report("thumb", &failure, Some("e1"), "req-1");
        let expected = "'thumb' failed: handler_error (function, invoke)\n  ValueError: two\n  lines\n      File \"main.py\", \
                        line 3, in handler\n        fail()\n  log: lambda execution log e1\n  request id: req-1";
        assert_eq!(report, expected);
        let record = json!({"id": "e1", "function_name": "thumb", "state": "failed", "failure": failure});
        assert_eq!(outcome_report(&record), expected);
        assert_eq!(outcome_report(&json!({"id": "e1", "state": "cancelled"})), "execution e1 is cancelled");
    }
}
