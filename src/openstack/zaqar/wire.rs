//! The shapes of Zaqar's bodies. Whatever comes is read or refused as [`OpenStackError::Protocol`].

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Claim, Message, NewMessage, SERVICE, Stats};
use crate::openstack::OpenStackError;

fn odd(detail: impl Into<String>) -> OpenStackError {
    OpenStackError::protocol(SERVICE.name(), detail)
}

/// Says where, but not what: the parser's own words quote the body.
fn unreadable(what: &str, error: &serde_json::Error) -> OpenStackError {
    odd(format!("{what}: {:?} error at line {} column {}", error.classify(), error.line(), error.column()))
}

#[derive(Serialize)]
struct Posting<'a> {
    ttl: u64,
    body: &'a RawValue,
}

/// A message as it stands in a post.
pub(super) fn encode(message: &NewMessage) -> Vec<u8> {
    let posting = Posting { ttl: message.ttl.as_secs(), body: &message.body };
    // Numbers and raw JSON always serialize; an empty body would be refused by the service.
    serde_json::to_vec(&posting).unwrap_or_default()
}

#[derive(Deserialize)]
struct Posted {
    resources: Vec<String>,
}

/// The ids in the answer to a post.
pub(super) fn posted(body: &[u8]) -> Result<Vec<String>, OpenStackError> {
    let posted: Posted = serde_json::from_slice(body).map_err(|error| unreadable("to a post", &error))?;
    posted.resources.iter().map(|href| last_segment(href).ok_or_else(|| odd("a message's address has no id"))).collect()
}

#[derive(Deserialize)]
struct Claimed<'a> {
    #[serde(borrow)]
    messages: Vec<ClaimedMessage<'a>>,
}

#[derive(Deserialize)]
struct ClaimedMessage<'a> {
    id: Option<String>,
    href: String,
    #[serde(default)]
    age: f64,
    #[serde(default)]
    ttl: f64,
    #[serde(borrow)]
    body: &'a RawValue,
}

/// The answer to a claim; none when it holds nothing. The claim's id stands in `Location`, else behind each message.
pub(super) fn claimed(body: &[u8], location: Option<&str>) -> Result<Option<Claim>, OpenStackError> {
    let text = std::str::from_utf8(body).map_err(|_| odd("to a claim: not UTF-8"))?;
    let mut text = Cow::Borrowed(text);
    if serde_json::from_str::<&RawValue>(&text).is_err() {
        text = Cow::Owned(without_bare_numbers(&text));
    }
    let claimed: Claimed = serde_json::from_str(&text).map_err(|error| unreadable("to a claim", &error))?;
    let Some(first) = claimed.messages.first() else {
        return Ok(None);
    };
    let id = location
        .and_then(last_segment)
        .or_else(|| claim_in(&first.href))
        .ok_or_else(|| odd("a claim without an id"))?;
    let messages = claimed
        .messages
        .into_iter()
        .map(|message| {
            Ok(Message {
                id: message.id.or_else(|| last_segment(&message.href)).ok_or_else(|| odd("a message without an id"))?,
                claim_id: id.clone(),
                age: seconds(message.age),
                ttl: seconds(message.ttl),
                body: value(message.body),
            })
        })
        .collect::<Result<_, OpenStackError>>()?;
    Ok(Some(Claim { id, messages }))
}

/// The value, or its text where it is JSON only for others. One such body must not keep the whole claim from us: it
/// would come back for ever and stand in the way of all behind it.
fn value(raw: &RawValue) -> Value {
    serde_json::from_str(raw.get()).unwrap_or_else(|_| Value::String(raw.get().to_owned()))
}

/// Makes strings of `NaN`, `Infinity` and `-Infinity`, which Python writes and takes for numbers and JSON does not know.
fn without_bare_numbers(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text;
    let mut in_string = false;
    while let Some(next) = rest.chars().next() {
        let length = match next {
            '\\' if in_string => rest.chars().take(2).map(char::len_utf8).sum(),
            '"' => {
                in_string = !in_string;
                1
            }
            '-' | 'N' | 'I' if !in_string => {
                let word = ["NaN", "Infinity", "-Infinity"].into_iter().find(|word| rest.starts_with(word));
                if let Some(word) = word {
                    out.push('"');
                    out.push_str(word);
                    out.push('"');
                    rest = rest.get(word.len()..).unwrap_or_default();
                    continue;
                }
                1
            }
            other => other.len_utf8(),
        };
        let (taken, left) = rest.split_at(length);
        out.push_str(taken);
        rest = left;
    }
    out
}

#[derive(Deserialize)]
struct StatsBody {
    messages: StatsMessages,
}

#[derive(Deserialize)]
struct StatsMessages {
    free: u64,
    claimed: u64,
    total: u64,
    oldest: Option<Oldest>,
}

#[derive(Deserialize)]
struct Oldest {
    age: f64,
}

/// The answer to a question for stats.
pub(super) fn stats(body: &[u8]) -> Result<Stats, OpenStackError> {
    let StatsBody { messages } = serde_json::from_slice(body).map_err(|error| unreadable("to stats", &error))?;
    Ok(Stats {
        free: messages.free,
        claimed: messages.claimed,
        total: messages.total,
        oldest_age: messages.oldest.map(|oldest| seconds(oldest.age)),
    })
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

/// `5c69` of `/v2/queues/q/messages/5c69?claim_id=63c9`.
fn last_segment(href: &str) -> Option<String> {
    let path = href.split(['?', '#']).next()?;
    let segment = path.rsplit('/').next()?;
    (!segment.is_empty()).then(|| segment.to_owned())
}

/// `63c9` of `/v2/queues/q/messages/5c69?claim_id=63c9`.
fn claim_in(href: &str) -> Option<String> {
    let (_, query) = href.split_once('?')?;
    query.split('&').find_map(|pair| pair.strip_prefix("claim_id=")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const LOCATION: Option<&str> = Some("/v2/queues/q/claims/c1");

    fn claim_with(body: &str) -> Result<Option<Claim>, OpenStackError> {
        let text = format!(
            r#"{{"messages":[{{"id":"m","href":"/v2/queues/q/messages/m?claim_id=c2","ttl":60,"age":1,"body":{body}}}]}}"#
        );
        claimed(text.as_bytes(), LOCATION)
    }

    #[test]
    fn a_body_of_any_json_type_comes_through() {
        for body in [json!(null), json!(true), json!(1.5), json!("é"), json!([1, [2]]), json!({"a": {"b": null}})] {
            let claim = claim_with(&body.to_string()).unwrap().unwrap();
            assert_eq!((claim.id.as_str(), &claim.messages[0].body), ("c1", &body));
        }
    }

    #[test]
    fn a_body_that_we_cannot_hold_comes_as_its_text() {
        let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
        for body in [deep.as_str(), "1e999", r#""\ud800""#] {
            let claim = claim_with(body).unwrap().unwrap();
            assert_eq!(claim.messages[0].body, Value::String(body.to_owned()));
        }
    }

    #[test]
    fn numbers_that_only_python_writes_do_not_spoil_a_claim() {
        let claim = claim_with(r#"{"a": NaN, "b": [-Infinity, Infinity, -1], "c": "NaN \" Infinity", "é": "\\"}"#);
        assert_eq!(
            claim.unwrap().unwrap().messages[0].body,
            json!({"a": "NaN", "b": ["-Infinity", "Infinity", -1], "c": "NaN \" Infinity", "é": "\\"})
        );
    }

    #[test]
    fn the_claim_s_id_is_found_without_a_location() {
        let text = r#"{"messages":[{"href":"/v2/queues/q/messages/m1?claim_id=c2","ttl":60,"age":0,"body":1}]}"#;
        let claim = claimed(text.as_bytes(), None).unwrap().unwrap();
        assert_eq!((claim.id.as_str(), claim.messages[0].id.as_str()), ("c2", "m1"));
        assert_eq!(claimed(br#"{"messages":[]}"#, LOCATION).unwrap(), None);
    }

    #[test]
    fn odd_answers_are_protocol_errors() {
        for body in ["", "null", "[]", "{}", "<html>", r#"{"messages":1}"#, r#"{"messages":[{}]}"#, r#"{"messages":["#]
        {
            assert!(matches!(claimed(body.as_bytes(), LOCATION), Err(OpenStackError::Protocol { .. })), "{body}");
            assert!(matches!(posted(body.as_bytes()), Err(OpenStackError::Protocol { .. })), "{body}");
            assert!(matches!(stats(body.as_bytes()), Err(OpenStackError::Protocol { .. })), "{body}");
        }
        assert!(claimed(b"{\"messages\":\xff}", LOCATION).is_err());
        assert!(posted(br#"{"resources":["/v2/queues/q/messages/"]}"#).is_err());
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(text in r#"[\[\]{}",:\\NaIinfty1e\-é ]{0,80}"#, body in any::<Vec<u8>>()) {
            let _ = claim_with(&text);
            let _ = claimed(&body, LOCATION);
            let _ = posted(&body);
            let _ = stats(&body);
        }
    }
}
