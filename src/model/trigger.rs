//! Which events go to which function.

pub mod queue;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::queue::{QueueBinding, QueueKey};
use super::{Event, FunctionId, Invalid, ProjectId, Timestamp, TriggerId};

/// Binds events to a function: an event matches when its `source` and `type` do and the filter holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trigger {
    /// Its id.
    pub id: TriggerId,
    /// The owner; only events of the same project match.
    pub project_id: ProjectId,
    /// The function that gets the event.
    pub function_id: FunctionId,
    /// Which `source` matches.
    pub source: Pattern,
    /// Which `type` matches.
    #[serde(rename = "type")]
    pub event_type: Pattern,
    /// What else has to hold.
    #[serde(default)]
    pub filter: Filter,
    /// The project's own queue that the events come from; none: the platform's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueueBinding>,
    /// When it was made.
    pub created_at: Timestamp,
}

impl Trigger {
    /// Whether the event goes to this trigger's function. The project is the caller's to check.
    #[must_use]
    pub fn matches(&self, event: &Event) -> bool {
        self.source.matches(event.source()) && self.event_type.matches(event.event_type()) && self.filter.matches(event)
    }

    /// The project's own queue that it listens to, if it does.
    #[must_use]
    pub fn queue_key(&self) -> Option<QueueKey> {
        let queue = self.queue.as_ref()?.name.clone();
        Some(QueueKey { project_id: self.project_id.clone(), queue })
    }
}

/// A text that must be met exactly, or up to a closing `*`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern(String);

/// Longest pattern, in bytes.
const PATTERN_MAX: usize = 256;

impl Pattern {
    /// Takes 1 to 256 bytes without control characters; `*` only at the end.
    ///
    /// # Errors
    /// When the text is not such a pattern; `field` names it in the message.
    pub fn parse(field: &str, text: &str) -> Result<Self, Invalid> {
        if text.is_empty() || text.len() > PATTERN_MAX || text.contains(char::is_control) {
            return Err(Invalid::new(field, "must be 1 to 256 bytes without control characters"));
        }
        if text.strip_suffix('*').unwrap_or(text).contains('*') {
            return Err(Invalid::new(field, "may have '*' only at its end"));
        }
        Ok(Self(text.to_owned()))
    }

    /// Whether `text` meets it.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        match self.0.strip_suffix('*') {
            Some(prefix) => text.starts_with(prefix),
            None => self.0 == text,
        }
    }

    /// The pattern as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Pattern {
    type Error = Invalid;
    fn try_from(text: String) -> Result<Self, Invalid> {
        Self::parse("pattern", &text)
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.0
    }
}

/// Conditions on an event, in the dialects of the CloudEvents Subscriptions specification (`exact`, `prefix`,
/// `suffix`, `all`, `any`, `not`). A condition's key is an attribute, or a dotted path into `data`, such as
/// `data.name`. Everything that is given must hold; an empty filter holds for every event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// The value is equal to this text (numbers and booleans are compared as JSON writes them).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub exact: BTreeMap<String, String>,
    /// The value begins with this text.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub prefix: BTreeMap<String, String>,
    /// The value ends with this text.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub suffix: BTreeMap<String, String>,
    /// Each of these holds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub all: Vec<Filter>,
    /// At least one of these holds; none given: no condition.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub any: Vec<Filter>,
    /// This does not hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not: Option<Box<Filter>>,
}

/// Deepest nesting of filters.
const FILTER_DEPTH_MAX: usize = 8;
/// Most conditions of one filter, nested ones included.
const FILTER_CONDITIONS_MAX: usize = 64;

impl Filter {
    /// Whether it says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Checks the bounds that keep matching cheap.
    ///
    /// # Errors
    /// When it is nested deeper than 8 or has more than 64 conditions.
    pub fn check(&self) -> Result<(), Invalid> {
        fn count(filter: &Filter, depth: usize) -> Result<usize, Invalid> {
            if depth > FILTER_DEPTH_MAX {
                return Err(Invalid::new("filter", format!("is nested deeper than {FILTER_DEPTH_MAX}")));
            }
            let own = filter.exact.len() + filter.prefix.len() + filter.suffix.len();
            filter
                .all
                .iter()
                .chain(&filter.any)
                .chain(filter.not.as_deref())
                .try_fold(own, |sum, inner| Ok(sum + 1 + count(inner, depth + 1)?))
        }
        if count(self, 1)? > FILTER_CONDITIONS_MAX {
            return Err(Invalid::new("filter", format!("has more than {FILTER_CONDITIONS_MAX} conditions")));
        }
        Ok(())
    }

    /// Whether it holds for the event.
    #[must_use]
    pub fn matches(&self, event: &Event) -> bool {
        let holds = |conditions: &BTreeMap<String, String>, test: fn(&str, &str) -> bool| {
            conditions.iter().all(|(path, wanted)| {
                event.at(path).is_some_and(|value| match value {
                    Value::String(text) => test(text, wanted),
                    Value::Number(number) => test(&number.to_string(), wanted),
                    Value::Bool(flag) => test(if *flag { "true" } else { "false" }, wanted),
                    Value::Null | Value::Array(_) | Value::Object(_) => false,
                })
            })
        };
        holds(&self.exact, |text, wanted| text == wanted)
            && holds(&self.prefix, |text, wanted| text.starts_with(wanted))
            && holds(&self.suffix, |text, wanted| text.ends_with(wanted))
            && self.all.iter().all(|inner| inner.matches(event))
            && (self.any.is_empty() || self.any.iter().any(|inner| inner.matches(event)))
            && !self.not.as_ref().is_some_and(|inner| inner.matches(event))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event() -> Event {
        Event::from_value(
            json!({"source": "store", "type": "file.created", "subject": "photos/cat.png",
                   "data": {"name": "cat.png", "size": 12, "meta": {"public": true}}}),
            "m1",
        )
        .unwrap()
    }

    fn filter(value: Value) -> Filter {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_star_ends_a_prefix() {
        let pattern = |text| Pattern::parse("type", text).unwrap();
        assert!(pattern("*").matches(""));
        assert!(pattern("file.*").matches("file.created"));
        assert!(!pattern("file.*").matches("dir.created"));
        assert!(!pattern("file").matches("file.created"));
        assert!(Pattern::parse("type", "a*b").is_err());
        assert!(Pattern::parse("type", "").is_err());
    }

    #[test]
    fn conditions_reach_attributes_and_data() {
        for (conditions, holds) in [
            (json!({}), true),
            (json!({"exact": {"subject": "photos/cat.png"}}), true),
            (json!({"prefix": {"subject": "photos/"}, "suffix": {"data.name": ".png"}}), true),
            (json!({"suffix": {"data.name": ".jpg"}}), false),
            (json!({"exact": {"data.size": "12", "data.meta.public": "true"}}), true),
            (json!({"exact": {"data.absent": ""}}), false),
            (json!({"any": [{"suffix": {"data.name": ".jpg"}}, {"suffix": {"data.name": ".png"}}]}), true),
            (json!({"all": [{"suffix": {"data.name": ".jpg"}}, {"suffix": {"data.name": ".png"}}]}), false),
            (json!({"not": {"exact": {"data.meta.public": "true"}}}), false),
        ] {
            assert_eq!(filter(conditions.clone()).matches(&event()), holds, "{conditions}");
        }
    }

    #[test]
    fn a_filter_that_would_be_dear_is_refused() {
        let mut deep = json!({});
        for _ in 0..9 {
            deep = json!({ "not": deep });
        }
        assert!(filter(deep).check().is_err());
        let wide: BTreeMap<_, _> = (0..65).map(|n| (format!("data.{n}"), "x".to_owned())).collect();
        assert!(filter(json!({ "exact": wide })).check().is_err());
        assert!(serde_json::from_value::<Filter>(json!({"regex": {}})).is_err());
    }
}
