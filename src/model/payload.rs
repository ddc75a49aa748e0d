//! JSON that passes through the service unread.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use super::Invalid;

/// A JSON text that is known to be well-formed and is otherwise left alone: what a handler gets, and what it returns.
/// Cloning is cheap. Stored as a string, because documents may have keys that a database refuses.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload(Bytes);

impl Payload {
    /// Takes one JSON value.
    ///
    /// # Errors
    /// When the bytes are not UTF-8 or not exactly one JSON value; the reason says where.
    pub fn parse(bytes: Bytes) -> Result<Self, Invalid> {
        serde_json::from_slice::<&RawValue>(&bytes)
            .map_err(|error| Invalid::new("body", format!("is not JSON: {error}")))?;
        Ok(Self(bytes))
    }

    /// The JSON text of a value.
    #[must_use]
    pub fn from_value(value: &serde_json::Value) -> Self {
        Self(Bytes::from(value.to_string()))
    }

    /// The text as bytes.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Well-formed JSON is UTF-8; `parse` has checked it.
        std::str::from_utf8(&self.0).unwrap_or("null")
    }

    /// The text as a value that serializes as JSON rather than as a string; for answers.
    #[must_use]
    pub fn to_raw(&self) -> Box<RawValue> {
        RawValue::from_string(self.as_str().to_owned()).unwrap_or_else(|_| RawValue::NULL.to_owned())
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.0.len())
    }
}

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(Bytes::from(text)).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_json_value_is_a_payload() {
        for good in ["{}", "null", " [1, 2] ", "\"é\""] {
            assert!(Payload::parse(Bytes::from_static(good.as_bytes())).is_ok(), "{good}");
        }
        for bad in ["", "{", "1 2", "nul", "{'a':1}"] {
            assert!(Payload::parse(Bytes::from_static(bad.as_bytes())).is_err(), "{bad}");
        }
        assert!(Payload::parse(Bytes::from_static(b"\"\xff\"")).is_err());
    }

    #[test]
    fn debug_does_not_show_the_content() {
        assert_eq!(format!("{:?}", Payload::from_value(&serde_json::json!({"secret": 1}))), "Payload(12 bytes)");
    }
}
