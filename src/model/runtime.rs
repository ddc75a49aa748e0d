//! What the operator offers to run code in.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Invalid;

/// A runtime's name, as a function names it: 1 to 32 letters, digits, `.`, `_` and `-`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RuntimeName(String);

impl RuntimeName {
    /// # Errors
    /// When the text is not such a name.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if text.is_empty() || text.len() > 32 || !text.chars().all(legal) {
            return Err(Invalid::new("runtime", "must be 1 to 32 letters, digits, '.', '_' or '-'"));
        }
        Ok(Self(text.to_owned()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for RuntimeName {
    type Error = Invalid;
    fn try_from(text: String) -> Result<Self, Invalid> {
        Self::parse(&text)
    }
}

impl From<RuntimeName> for String {
    fn from(name: RuntimeName) -> Self {
        name.0
    }
}

impl fmt::Display for RuntimeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a sandbox of a runtime comes to life inside an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuntimeKind {
    /// Forked from a Python interpreter that is kept ready; the built-in bootstrap calls the handler.
    Python,
    /// The package brings a program named `bootstrap`, which speaks the Lambda Runtime API.
    Provided,
}

/// A runtime.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runtime {
    /// Its name.
    pub name: RuntimeName,
    /// How it starts.
    pub kind: RuntimeKind,
    /// One line for people.
    pub description: String,
}

impl Runtime {
    /// The runtimes that this release brings.
    #[must_use]
    pub fn built_in() -> Vec<Self> {
        [
            ("python3", RuntimeKind::Python, "Python 3; handler is module.function, called as handler(event, context)"),
            ("provided", RuntimeKind::Provided, "Any program named bootstrap that speaks the AWS Lambda Runtime API"),
        ]
        .into_iter()
        .map(|(name, kind, description)| Self {
            name: RuntimeName(name.to_owned()),
            kind,
            description: description.to_owned(),
        })
        .collect()
    }
}
