//! How the service knows what it has posted itself. Whoever has a role in the service's project can post to the platform
//! queue, so that a message lies there proves nothing: what the API posts carries a code made with a secret that only the
//! API and the workers share, over everything that the event says.
//!
//! The code names the post too. A message that is taken off the queue and posted again is the same post, and becomes no
//! second execution for as long as the record of the first is kept.

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::Event;
use super::event::SIGNATURE_ATTRIBUTE;

/// The form of the attribute: `v1.<name of the post>.<code>`.
const VERSION: &str = "v1";
/// The block of SHA-256, in bytes.
const BLOCK: usize = 64;

/// The secret, made ready.
#[derive(Clone)]
pub struct PostingKey {
    inner: [u8; BLOCK],
    outer: [u8; BLOCK],
}

impl std::fmt::Debug for PostingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostingKey").finish_non_exhaustive()
    }
}

/// Who posted a message, as far as it can be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Poster {
    /// The service, in the post of this name.
    Service(String),
    /// Somebody else, or the service with another secret.
    Unknown,
}

impl PostingKey {
    /// Of a secret.
    #[must_use]
    pub fn new(secret: &str) -> Self {
        let digest = Sha256::digest(secret.as_bytes());
        let pad = |with: u8| {
            let mut block = [with; BLOCK];
            for (byte, key) in block.iter_mut().zip(digest) {
                *byte ^= key;
            }
            block
        };
        Self { inner: pad(0x36), outer: pad(0x5c) }
    }

    /// The event with the code of the post of that name, which is used for nothing else and has no dot in it.
    #[must_use]
    pub fn sign(&self, event: Event, post: &str) -> Event {
        let code = self.code(event.object(), post);
        event.with(SIGNATURE_ATTRIBUTE, &format!("{VERSION}.{post}.{code}"))
    }

    /// Who posted an event. The attribute is taken out: it is not for handlers.
    pub fn verify(&self, event: &mut Event) -> Poster {
        let signature = event.remove(SIGNATURE_ATTRIBUTE);
        let mut parts = signature.as_ref().and_then(Value::as_str).unwrap_or_default().splitn(3, '.');
        let (Some(VERSION), Some(post), Some(code)) = (parts.next(), parts.next(), parts.next()) else {
            return Poster::Unknown;
        };
        if is_same(code.as_bytes(), self.code(event.object(), post).as_bytes()) {
            Poster::Service(post.to_owned())
        } else {
            Poster::Unknown
        }
    }

    /// HMAC-SHA-256, in hexadecimal.
    fn code(&self, object: &Map<String, Value>, post: &str) -> String {
        let mut text = format!("{VERSION}\n{post}\n");
        write_object(object, &mut text);
        let inner = Sha256::new().chain_update(self.inner).chain_update(text.as_bytes()).finalize();
        let code = Sha256::new().chain_update(self.outer).chain_update(inner).finalize();
        code.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Compares without telling by its time where the first difference is.
fn is_same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differences, (a, b)| differences | (a ^ b)) == 0
}

/// Writes JSON that comes out the same after a queue has read and written it: with sorted names, without space.
fn write_object(object: &Map<String, Value>, text: &mut String) {
    let mut entries: Vec<_> = object.iter().collect();
    entries.sort_unstable_by_key(|(name, _)| *name);
    text.push('{');
    for (name, value) in entries {
        text.push_str(&Value::from(name.as_str()).to_string());
        text.push(':');
        write_value(value, text);
        text.push(',');
    }
    text.push('}');
}

fn write_value(value: &Value, text: &mut String) {
    match value {
        Value::Object(object) => write_object(object, text),
        Value::Array(items) => {
            text.push('[');
            for item in items {
                write_value(item, text);
                text.push(',');
            }
            text.push(']');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => text.push_str(&value.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event() -> Event {
        let body = json!({"source": "s", "type": "t", "projectid": "p1",
                          "data": {"b": [1, 2.5, -0.0, 1e300, "é\u{1}\"", null], "a": {"z": true, "y": 9_007_199_254_740_993_u64}}});
        Event::from_value(body, "m1").unwrap()
    }

    #[test]
    fn what_the_service_signed_is_known_after_the_queue_has_written_it_anew() {
        let key = PostingKey::new("secret");
        let signed = key.sign(event(), "post1");
        // Names in another order, other space, other escapes.
        let text = serde_json::to_string(signed.object()).unwrap();
        let mut entries: Vec<_> = serde_json::from_str::<Map<String, Value>>(&text).unwrap().into_iter().collect();
        entries.reverse();
        let body: Vec<_> =
            entries.iter().map(|(name, value)| format!("{}: {value}", Value::from(name.as_str()))).collect();
        let body = format!("{{ {} }}", body.join(" , ")).replace('é', "\\u00e9");
        let mut read = Event::from_value(serde_json::from_str(&body).unwrap(), "other").unwrap();
        assert_eq!(key.verify(&mut read), Poster::Service("post1".to_owned()));
        assert_eq!(read, event(), "the handler gets what was posted");
    }

    #[test]
    fn what_was_changed_or_signed_by_others_is_not_the_services() {
        let key = PostingKey::new("secret");
        let signed = key.sign(event(), "post1");
        let object = signed.object().clone();
        let verify = |object: Map<String, Value>| key.verify(&mut Event::from_value(object.into(), "m").unwrap());
        assert_eq!(verify(object.clone()), Poster::Service("post1".to_owned()));
        for (name, value) in [
            ("projectid", json!("p2")),
            ("id", json!("m2")),
            ("subject", json!("more")),
            ("data", json!({"b": []})),
            (SIGNATURE_ATTRIBUTE, json!("v1.post2.00")),
            (SIGNATURE_ATTRIBUTE, json!("")),
            (SIGNATURE_ATTRIBUTE, json!(1)),
        ] {
            let mut changed = object.clone();
            changed.insert(name.to_owned(), value);
            assert_eq!(verify(changed), Poster::Unknown, "{name}");
        }
        let mut other = PostingKey::new("other").sign(event(), "post1");
        assert_eq!(key.verify(&mut other), Poster::Unknown);
        assert_eq!(key.verify(&mut event()), Poster::Unknown);
        // Nobody gets the code of one post for another.
        let mut moved = object;
        let text = moved[SIGNATURE_ATTRIBUTE].as_str().unwrap().replace("post1", "post2");
        moved.insert(SIGNATURE_ATTRIBUTE.to_owned(), text.into());
        assert_eq!(verify(moved), Poster::Unknown);
    }

    #[test]
    fn the_code_is_hmac_sha_256_under_the_digest_of_the_secret() {
        // Computed with Python's hmac.
        let known = "9e32e6c219e339c50ae8e1af18e0a955b6b844705680930048d91b630e9016cd";
        assert_eq!(PostingKey::new("k").code(&Map::new(), "p"), known);
    }
}
