//! A queue's metadata: any JSON object, in which some names that begin with `_` mean something to the service.

use serde_json::{Map, Value, json};

use super::fault::{Fault, Result};
use super::limits;

/// What a queue's metadata means to messages and claims.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Settings {
    /// Most bytes of one post.
    pub(super) post_max: Option<i64>,
    /// Seconds that a message lives which does not say.
    pub(super) message_ttl: Option<i64>,
    /// Seconds that a message is held back which does not say; without it no message is held back at all.
    pub(super) delay: Option<i64>,
    /// Claims that a message may have, and where it goes instead of a further one.
    pub(super) dead_letters: Option<DeadLetters>,
}

/// Where a message goes that was claimed too often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DeadLetters {
    /// Claims that it may have.
    pub(super) max_claims: i64,
    /// The queue that takes it.
    pub(super) queue: String,
    /// Seconds that it lives there; as long as it would have lived when absent.
    pub(super) ttl: Option<i64>,
}

impl Settings {
    /// Reads them from metadata that [`check`] has passed.
    pub(super) fn of(metadata: &Map<String, Value>) -> Self {
        let number = |name: &str| metadata.get(name).and_then(Value::as_i64).filter(|number| *number > 0);
        let queue = metadata.get("_dead_letter_queue").and_then(Value::as_str);
        let dead_letters = number("_max_claim_count").zip(queue).map(|(max_claims, queue)| DeadLetters {
            max_claims,
            queue: queue.to_owned(),
            ttl: number("_dead_letter_queue_messages_ttl"),
        });
        Self {
            post_max: number("_max_messages_post_size"),
            message_ttl: number("_default_message_ttl"),
            delay: number("_default_message_delay"),
            dead_letters,
        }
    }
}

/// The reserved names, each with what a queue shows that has not set it.
fn reserved() -> [(&'static str, Value); 7] {
    [
        ("_max_messages_post_size", json!(limits::POST_MAX)),
        ("_default_message_ttl", json!(limits::MESSAGE_TTL_DEFAULT)),
        ("_default_message_delay", json!(0)),
        ("_dead_letter_queue", Value::Null),
        ("_dead_letter_queue_messages_ttl", Value::Null),
        ("_max_claim_count", Value::Null),
        ("_enable_encrypt_messages", json!(false)),
    ]
}

/// The metadata as it is shown: with the reserved names that were not set.
pub(super) fn shown(mut metadata: Map<String, Value>) -> Map<String, Value> {
    for (name, default) in reserved() {
        let set = metadata.get(name).is_some_and(|value| *value != Value::Null && *value != json!(0));
        if !set {
            metadata.insert(name.to_owned(), default);
        }
    }
    metadata
}

/// Refuses reserved names with values that mean nothing.
pub(super) fn check(metadata: &Map<String, Value>) -> Result<()> {
    let number = |name: &str| match metadata.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_i64().map(Some).ok_or_else(|| Fault::request(format!("{name} must be integer."))),
    };
    if let Some(ttl) = number("_default_message_ttl")? {
        limits::message_ttl(ttl)?;
    }
    if let Some(ttl) = number("_dead_letter_queue_messages_ttl")? {
        limits::message_ttl(ttl)?;
    }
    if let Some(delay) = number("_default_message_delay")? {
        limits::message_delay(delay)?;
    }
    if let Some(size) = number("_max_messages_post_size")?
        && !usize::try_from(size).is_ok_and(|size| (1..=limits::POST_MAX).contains(&size))
    {
        return Err(Fault::request(format!(
            "_max_messages_post_size can not exceed {}, and must be at least greater than 0.",
            limits::POST_MAX
        )));
    }
    number("_max_claim_count")?;
    match metadata.get("_dead_letter_queue") {
        None | Some(Value::Null) => {}
        Some(Value::String(name)) if limits::is_queue_name(name) => {}
        Some(_) => return Err(Fault::request("_dead_letter_queue must be the name of a queue.")),
    }
    match metadata.get("_enable_encrypt_messages") {
        None | Some(Value::Null | Value::Bool(false)) => {}
        Some(Value::Bool(true)) => {
            return Err(Fault::request("_enable_encrypt_messages is not supported by this service."));
        }
        Some(_) => return Err(Fault::request("_enable_encrypt_messages must be boolean.")),
    }
    match metadata.get("_retry_policy") {
        None | Some(Value::Null | Value::Object(_)) => Ok(()),
        Some(_) => Err(Fault::request("retry_policy must be a dict.")),
    }
}

/// One change of a PATCH.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Change {
    Add(String, Value),
    Replace(String, Value),
    Remove(String),
}

/// Reads the body of a PATCH: JSON-Patch operations on `/metadata/<key>`.
pub(super) fn changes(document: Value) -> Result<Vec<Change>> {
    let Value::Array(operations) = document else {
        return Err(Fault::document_type());
    };
    operations.into_iter().map(change).collect()
}

fn change(operation: Value) -> Result<Change> {
    let Value::Object(mut operation) = operation else {
        return Err(Fault::body("Operations must be JSON objects."));
    };
    let path = match operation.get("path") {
        Some(Value::String(path)) => key(path)?,
        Some(_) => return Err(Fault::body("'path' must be a string.")),
        None => return Err(Fault::body("Unable to find 'path' in JSON Schema change")),
    };
    let value = operation.remove("value");
    let value =
        |op: &str| value.ok_or_else(|| Fault::body(format!("Operation \"{op}\" requires a member named \"value\".")));
    match operation.get("op").and_then(Value::as_str) {
        Some("add") => Ok(Change::Add(path, value("add")?)),
        Some("replace") => Ok(Change::Replace(path, value("replace")?)),
        Some("remove") => Ok(Change::Remove(path)),
        _ => Err(Fault::body("Invalid operation. It must be one of the following: add, remove, replace.")),
    }
}

/// The key that a JSON pointer of the form `/metadata/<key>` names.
fn key(pointer: &str) -> Result<String> {
    let bad = || Fault::body("Invalid JSON pointer for this resource; it must be of the form /metadata/key.");
    let token = pointer.strip_prefix("/metadata/").ok_or_else(bad)?;
    let escaped = token.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    if token.trim().is_empty() || token.contains('/') || !escaped {
        return Err(bad());
    }
    Ok(token.replace("~1", "/").replace("~0", "~"))
}

/// The metadata after the changes, all or none.
pub(super) fn patched(mut metadata: Map<String, Value>, changes: Vec<Change>) -> Result<Map<String, Value>> {
    let is_reserved = |key: &str| reserved().iter().any(|(name, _)| *name == key);
    for change in changes {
        match change {
            Change::Add(key, value) => {
                metadata.insert(key, value);
            }
            Change::Replace(key, value) => {
                if !metadata.contains_key(&key) && !is_reserved(&key) {
                    return Err(Fault::conflict(format!("Can't replace non-existent object {key}.")));
                }
                metadata.insert(key, value);
            }
            Change::Remove(key) => {
                if metadata.remove(&key).is_none() && !is_reserved(&key) {
                    return Err(Fault::conflict(format!("Can't remove non-existent object {key}.")));
                }
            }
        }
    }
    check(&metadata)?;
    Ok(metadata)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn reserved_names_are_checked_and_others_are_free() {
        for good in [
            json!({}),
            json!({"color": "blue", "n": [1]}),
            json!({"_default_message_ttl": 60, "_default_message_delay": 900, "_max_messages_post_size": 262_144}),
            json!({"_max_claim_count": 3, "_dead_letter_queue": "dead", "_dead_letter_queue_messages_ttl": 1_209_600}),
            json!({"_dead_letter_queue": null}),
        ] {
            assert_eq!(check(&map(good.clone())), Ok(()), "{good}");
        }
        for bad in [
            json!({"_default_message_ttl": 59}),
            json!({"_default_message_ttl": "60"}),
            json!({"_default_message_ttl": 60.5}),
            json!({"_default_message_delay": 901}),
            json!({"_default_message_delay": -1}),
            json!({"_max_messages_post_size": 0}),
            json!({"_max_messages_post_size": 262_145}),
            json!({"_max_claim_count": "3"}),
            json!({"_dead_letter_queue": "no/queue"}),
            json!({"_dead_letter_queue_messages_ttl": 1}),
            json!({"_enable_encrypt_messages": true}),
            json!({"_retry_policy": 1}),
        ] {
            assert!(check(&map(bad.clone())).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_patch_applies_as_a_whole_or_not_at_all() {
        let old = map(json!({"a": 1}));
        let apply = |patch: Value| changes(patch).and_then(|changes| patched(old.clone(), changes));
        assert_eq!(
            apply(
                json!([{"op": "add", "path": "/metadata/b~1c", "value": 2}, {"op": "remove", "path": "/metadata/a"}])
            ),
            Ok(map(json!({"b/c": 2})))
        );
        assert!(apply(json!([{"op": "replace", "path": "/metadata/_default_message_ttl", "value": 60}])).is_ok());
        for (bad, status) in [
            (json!({}), 400),
            (json!([1]), 400),
            (json!([{"op": "add", "path": "/a", "value": 1}]), 400),
            (json!([{"op": "add", "path": "/metadata/a/b", "value": 1}]), 400),
            (json!([{"op": "add", "path": "/metadata/a~2", "value": 1}]), 400),
            (json!([{"op": "add", "path": "/metadata/", "value": 1}]), 400),
            (json!([{"op": "add", "path": 7, "value": 1}]), 400),
            (json!([{"op": "add", "path": "/metadata/a"}]), 400),
            (json!([{"op": "move", "path": "/metadata/a", "value": 1}]), 400),
            (json!([{"op": "add", "path": "/metadata/_max_claim_count", "value": "x"}]), 400),
            (json!([{"op": "replace", "path": "/metadata/z", "value": 1}]), 409),
            (json!([{"op": "remove", "path": "/metadata/z"}]), 409),
        ] {
            assert_eq!(apply(bad.clone()).map_err(|fault| fault.status.as_u16()), Err(status), "{bad}");
        }
    }

    #[test]
    fn a_queue_shows_the_defaults_of_what_it_has_not_set() {
        let shown = shown(map(json!({"_default_message_ttl": 60})));
        assert_eq!(shown["_default_message_ttl"], 60);
        assert_eq!(shown["_max_messages_post_size"], 262_144);
        assert_eq!(shown["_dead_letter_queue"], Value::Null);
    }

    #[test]
    fn dead_letters_need_a_count_and_a_queue() {
        let of = |metadata: Value| Settings::of(&map(metadata)).dead_letters;
        assert_eq!(of(json!({"_max_claim_count": 3})), None);
        assert_eq!(of(json!({"_dead_letter_queue": "d"})), None);
        assert_eq!(
            of(json!({"_max_claim_count": 3, "_dead_letter_queue": "d"})),
            Some(DeadLetters { max_claims: 3, queue: "d".to_owned(), ttl: None })
        );
    }
}
