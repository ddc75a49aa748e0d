//! Everything that can end a command badly: what is said about it on standard error, and the exit code.

use serde_json::Value;

/// A command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The command line, or a file or variable that it names, is wrong. Nothing was changed.
    #[error("{0}")]
    Usage(String),
    /// No answer came from the service.
    #[error("no answer from {endpoint}: {why}")]
    Unreachable {
        /// Where it was looked for.
        endpoint: String,
        /// What happened instead, as a lower-case fragment.
        why: String,
        /// Whether the request may have arrived all the same.
        sent: bool,
    },
    /// The service refused.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// What the service answered is not what its API promises.
    #[error("{endpoint} does not answer as a Lambda service would: {why}")]
    NotOurs {
        /// Who answered.
        endpoint: String,
        /// What is wrong with the answer.
        why: String,
    },
    /// The service did as it was asked and the outcome is bad; everything about it is in the text.
    #[error("{0}")]
    Failed(String),
    /// The reader of standard output has gone; there is nobody to tell.
    #[error("standard output was closed")]
    OutputClosed,
}

/// An answer with an error status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.detail)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The error's code, such as `function.function.not_found`; empty when the answer is not the service's own.
    pub code: String,
    /// What the service said: what kind of error it is, and what is wrong this time.
    pub detail: String,
    /// By which the operator finds the request in the logs; empty when the answer had none.
    pub request_id: String,
    /// The execution that failed, of an invocation.
    pub execution_id: Option<String>,
    /// Why it failed, of an invocation.
    pub failure: Option<Value>,
}

/// What a command answers.
pub type Result<T> = std::result::Result<T, CliError>;

impl CliError {
    /// The exit code: 1 the service refused or the function failed, 2 the command was not understood.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Unreachable { .. } | Self::Refused(_) | Self::NotOurs { .. } | Self::Failed(_) => 1,
            // As `head` expects of what it reads from: not an error.
            Self::OutputClosed => 0,
        }
    }

    /// Whether the same request may succeed a moment later.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused(refusal) => matches!(refusal.status, 429 | 502 | 503 | 504),
            Self::Usage(_) | Self::NotOurs { .. } | Self::Failed(_) | Self::OutputClosed => false,
        }
    }

    /// Whether the service answered with this status.
    #[must_use]
    pub fn is_status(&self, status: u16) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.status == status)
    }

    /// The lines for standard error: what happened, what to do about it, what to search for in the logs.
    #[must_use]
    pub fn report(&self) -> String {
        let mut text = format!("lambda: {}", printable(&self.to_string()));
        if let Self::Refused(refusal) = self {
            let code = if refusal.code.is_empty() { String::new() } else { format!(", {}", printable(&refusal.code)) };
            text.push_str(&format!(" (HTTP {}{code})", refusal.status));
        }
        if let Some(advice) = self.advice() {
            text.push_str(&format!("\n  {advice}"));
        }
        if let Self::Refused(refusal) = self
            && !refusal.request_id.is_empty()
        {
            text.push_str(&format!("\n  request id: {}", printable(&refusal.request_id)));
        }
        text
    }

    fn advice(&self) -> Option<String> {
        match self {
            Self::Unreachable { sent: true, .. } => {
                Some("It may have been done all the same: look before you repeat it.".to_owned())
            }
            Self::Unreachable { endpoint, sent: false, .. } => {
                Some(format!("Is the service running at {endpoint}? If it is elsewhere, set OS_ENDPOINT."))
            }
            Self::NotOurs { .. } => Some("Check OS_ENDPOINT: it is the address of the REST service.".to_owned()),
            Self::Refused(refusal) => refusal.advice().map(str::to_owned),
            Self::Usage(_) | Self::Failed(_) | Self::OutputClosed => None,
        }
    }
}

impl Refusal {
    /// Reads an error answer: ours, and those of the proxies and middleware that may stand in front of the service.
    #[must_use]
    pub fn read(status: u16, request_id: Option<&str>, body: &[u8]) -> Self {
        let value: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
        let ours = &value["errors"][0];
        let text = |value: &Value| value.as_str().map(str::trim).unwrap_or_default().to_owned();
        let (title, detail) = (text(&ours["title"]), text(&ours["detail"]));
        let detail = match (title.is_empty(), detail.is_empty()) {
            (false, false) => format!("{title}: {detail}"),
            (false, true) => title,
            (true, false) => detail,
            (true, true) => {
                let theirs = [&value["error"]["message"], &value["error"]["title"], &value["title"]];
                theirs.into_iter().map(text).find(|text| !text.is_empty()).unwrap_or("no reason was given".to_owned())
            }
        };
        let mut id = text(&ours["request_id"]);
        if id.is_empty() {
            id = request_id.unwrap_or_default().to_owned();
        }
        Self {
            status,
            code: text(&ours["code"]),
            detail,
            request_id: id,
            execution_id: ours["execution_id"].as_str().map(str::to_owned),
            failure: Some(ours["failure"].clone()).filter(Value::is_object),
        }
    }

    /// Our own details say what to change; advice is for what the service cannot know, and for the answers of others.
    const fn advice(&self) -> Option<&'static str> {
        match (self.status, self.code.is_empty()) {
            (401, _) => {
                Some("The service wants you to authenticate; OS_AUTH_TYPE=none fits only a service with noauth.")
            }
            (404, false) => Some("`list` shows what your project has; OS_PROJECT_ID says which project that is."),
            (404, true) => Some("Check OS_ENDPOINT: it is the address of the REST service."),
            (412, _) => Some("Somebody changed it meanwhile: look at it again, then repeat."),
            (502..=504, true) => Some("Something in front of the service cannot reach it: try again."),
            _ => None,
        }
    }
}

/// Text from elsewhere as it may be shown on a terminal: control characters, which could move the cursor or change what
/// was written before, are written as escapes. Line ends and tabs stay.
#[must_use]
pub fn printable(text: &str) -> std::borrow::Cow<'_, str> {
    let is_harmless = |c: char| !c.is_control() || c == '\n' || c == '\t';
    if text.chars().all(is_harmless) {
        return text.into();
    }
    text.chars()
        .fold(String::with_capacity(text.len() + 16), |mut shown, c| {
            if is_harmless(c) {
                shown.push(c)
            } else {
                shown.extend(c.escape_default())
            }
            shown
        })
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_read_from_our_shape_and_from_others() {
        let ours = br#"{"errors":[{"request_id":"req-1","code":"function.function.not_found","status":404,
                        "title":"There is no such function","detail":"'x' is not there"}]}"#;
        let refusal = Refusal::read(404, Some("req-header"), ours);
        assert_eq!(refusal.detail, "There is no such function: 'x' is not there");
        assert_eq!(refusal.request_id, "req-1");
        let keystone = br#"{"error":{"code":401,"title":"Unauthorized","message":"Please authenticate."}}"#;
        assert_eq!(Refusal::read(401, None, keystone).detail, "Please authenticate.");
        let proxy = Refusal::read(502, Some("req-2"), b"<html>Bad Gateway</html>");
        assert_eq!((proxy.detail.as_str(), proxy.request_id.as_str()), ("no reason was given", "req-2"));
    }

    #[test]
    fn a_report_says_what_to_do_and_what_to_search_for() {
        let body = br#"{"errors":[{"request_id":"req-7","code":"function.function.stale","title":"The function has changed"}]}"#;
        let report = CliError::Refused(Box::new(Refusal::read(412, None, body))).report();
        assert_eq!(
            report,
            "lambda: The function has changed (HTTP 412, function.function.stale)\n  \
             Somebody changed it meanwhile: look at it again, then repeat.\n  request id: req-7"
        );
    }

    #[test]
    fn an_answer_cannot_play_tricks_on_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\r\n\tc"), "a\\u{1b}[2Jb\\r\n\tc");
        assert_eq!(printable("naïve"), "naïve");
    }
}
