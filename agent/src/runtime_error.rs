//! The error object of the Runtime API: what runtimes send, made whole and kept within bounds.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::runtime_api::RESPONSE_MAX;

/// Largest message and largest line of a trace that go into a frame's header, in characters.
const MESSAGE_MAX: usize = 16 << 10;
const LINE_MAX: usize = 1 << 10;
/// Most lines of a trace that go into a frame's header.
const LINES_MAX: usize = 64;

/// An error as a runtime reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeError {
    /// Lambda's error type, or the exception's class.
    pub error_type: String,
    /// A sentence.
    pub message: String,
    /// The stack.
    pub trace: Vec<String>,
    body: Bytes,
}

impl RuntimeError {
    /// One of our own.
    #[must_use]
    pub fn new(error_type: Option<&str>, message: &str) -> Self {
        let error_type = acceptable(error_type);
        let body = json!({ "errorType": error_type, "errorMessage": message, "stackTrace": [] });
        Self {
            error_type: error_type.to_owned(),
            message: message.to_owned(),
            trace: Vec::new(),
            body: body.to_string().into(),
        }
    }

    /// What a runtime sent, with the error type's header. A body that already is an error object is kept as it is.
    #[must_use]
    pub fn parse(body: &Bytes, header: Option<&str>) -> Self {
        let Ok(Value::Object(mut object)) = serde_json::from_slice(body) else {
            let text: String = String::from_utf8_lossy(body).chars().take(MESSAGE_MAX).collect();
            return Self::new(header, if text.is_empty() { "the runtime reported an error" } else { &text });
        };
        let text = |name: &str| object.get(name).and_then(Value::as_str).map(str::to_owned);
        let (error_type, message) = (text("errorType"), text("errorMessage"));
        let trace = match object.get("stackTrace").or_else(|| object.get("trace")) {
            Some(Value::Array(lines)) => lines.iter().map(line).collect(),
            Some(Value::String(trace)) => trace.lines().map(str::to_owned).collect(),
            _ => Vec::new(),
        };
        let is_whole = error_type.is_some() && message.is_some();
        let error_type = error_type.unwrap_or_else(|| acceptable(header).to_owned());
        let message = message.unwrap_or_default();
        let body = if is_whole {
            body.clone()
        } else {
            object.insert("errorType".to_owned(), error_type.clone().into());
            object.insert("errorMessage".to_owned(), message.clone().into());
            let body = Value::Object(object).to_string();
            if body.len() > RESPONSE_MAX {
                // It has grown by being written again.
                return Self::new(header, &message.chars().take(MESSAGE_MAX).collect::<String>());
            }
            body.into()
        };
        Self { error_type, message, trace, body }.bounded()
    }

    /// The error object as JSON.
    #[must_use]
    pub fn into_body(self) -> Bytes {
        self.body
    }

    fn bounded(mut self) -> Self {
        let cut = |text: &mut String, max| {
            if let Some((at, _)) = text.char_indices().nth(max) {
                text.truncate(at);
                text.push('…');
            }
        };
        cut(&mut self.error_type, 256);
        cut(&mut self.message, MESSAGE_MAX);
        self.trace.truncate(LINES_MAX);
        self.trace.iter_mut().for_each(|line| cut(line, LINE_MAX));
        self
    }
}

/// A line of a trace: a text, or what Java, Go and Rust clients send.
fn line(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The header's error type when it is `Runtime.Reason` or `Function.Reason`; what AWS puts otherwise.
fn acceptable(header: Option<&str>) -> &str {
    let is_reason = |reason: &str| {
        reason.len() > 1
            && reason.starts_with(|first: char| first.is_ascii_uppercase())
            && reason.chars().all(|letter| letter.is_ascii_alphabetic())
    };
    match header {
        Some(header) => match header.split_once('.') {
            Some(("Runtime" | "Function", reason)) if is_reason(reason) => header,
            Some(("Runtime", _)) => "Runtime.Unknown",
            _ => "Function.Unknown",
        },
        None => "Function.Unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &str, header: Option<&str>) -> RuntimeError {
        RuntimeError::parse(&Bytes::from(body.to_owned()), header)
    }

    #[test]
    fn an_error_object_is_kept_as_it_is() {
        let body = r#"{"errorMessage":"no","errorType":"ValueError","stackTrace":["a","b"],"more":1}"#;
        let error = parse(body, Some("Function.Other"));
        assert_eq!((error.error_type.as_str(), error.message.as_str()), ("ValueError", "no"));
        assert_eq!(error.trace, ["a", "b"]);
        assert_eq!(&error.into_body()[..], body.as_bytes());
    }

    #[test]
    fn what_is_missing_is_filled_in_from_the_header() {
        for (body, header, error_type, message) in [
            ("", None, "Function.Unknown", "the runtime reported an error"),
            ("plain text", Some("Runtime.Crash"), "Runtime.Crash", "plain text"),
            ("[1]", Some("Runtime.bad"), "Runtime.Unknown", "[1]"),
            (r#"{"errorMessage":"x"}"#, Some("Function.Broke"), "Function.Broke", "x"),
            (r#"{"errorMessage":"x"}"#, Some("Something"), "Function.Unknown", "x"),
        ] {
            let error = parse(body, header);
            assert_eq!((error.error_type.as_str(), error.message.as_str()), (error_type, message), "{body}");
            let object: Value = serde_json::from_slice(&error.into_body()).unwrap();
            assert_eq!(object["errorType"], error_type);
            assert_eq!(object["errorMessage"], message);
        }
    }

    #[test]
    fn what_goes_into_a_header_is_bounded() {
        let trace: Vec<_> = (0..1000).map(|_| "y".repeat(10_000)).collect();
        let body = json!({ "errorType": "E", "errorMessage": "ž".repeat(1 << 20), "stackTrace": trace }).to_string();
        let error = parse(&body, None);
        assert_eq!(error.message.chars().count(), MESSAGE_MAX + 1);
        assert_eq!(error.trace.len(), LINES_MAX);
        assert!(error.trace.iter().all(|line| line.chars().count() <= LINE_MAX + 1));
    }
}
