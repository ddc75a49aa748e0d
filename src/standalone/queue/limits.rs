//! The numbers of Zaqar's `[transport]` group, at their defaults, and what they are checked with.

use serde_json::Value;

use super::fault::{Fault, Result};

/// Longest project id, in bytes.
pub(super) const PROJECT_MAX: usize = 256;
/// Longest queue name, in bytes.
const QUEUE_NAME_MAX: usize = 64;
/// Elements of a page, of a list of ids, of a claim and of a pop.
const PAGE_MAX: i64 = 20;
/// Elements of a page, and messages of a claim, when the request does not say.
const PAGE_DEFAULT: i64 = 10;
/// Largest body of a post, in bytes.
pub(super) const POST_MAX: usize = 256 * 1024;
/// Largest metadata of a queue, in bytes.
pub(super) const METADATA_MAX: usize = 64 * 1024;
/// Largest of the small bodies: those of claims, purges and the like. Zaqar names no limit for them.
pub(super) const SMALL_MAX: usize = 64 * 1024;

/// Seconds for which a message lives when neither it nor its queue says.
pub(super) const MESSAGE_TTL_DEFAULT: i64 = 3600;
/// Seconds of a claim that does not say.
pub(super) const CLAIM_TTL_DEFAULT: i64 = 300;
/// Seconds of grace of a claim that does not say.
pub(super) const CLAIM_GRACE_DEFAULT: i64 = 60;

const MESSAGE_TTL: (i64, i64) = (60, 1_209_600);
const MESSAGE_DELAY: (i64, i64) = (0, 900);
const CLAIM_TTL: (i64, i64) = (60, 43_200);
const CLAIM_GRACE: (i64, i64) = (60, 43_200);

/// 1 to 64 ASCII letters, digits, `_`, `-` and `.`.
pub(super) fn is_queue_name(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    !name.is_empty() && name.len() <= QUEUE_NAME_MAX && name.bytes().all(legal)
}

/// Seconds that a message may live.
pub(super) fn message_ttl(ttl: i64) -> Result<i64> {
    within(ttl, MESSAGE_TTL, "The TTL for a message")
}

/// Seconds that a message may be held back.
pub(super) fn message_delay(delay: i64) -> Result<i64> {
    within(delay, MESSAGE_DELAY, "The Delay TTL for a message")
}

/// Seconds that a claim may hold.
pub(super) fn claim_ttl(ttl: i64) -> Result<i64> {
    within(ttl, CLAIM_TTL, "The TTL for a claim")
}

/// Seconds that claimed messages may live on after the claim.
pub(super) fn claim_grace(grace: i64) -> Result<i64> {
    within(grace, CLAIM_GRACE, "The grace for a claim")
}

fn within(value: i64, (min, max): (i64, i64), what: &str) -> Result<i64> {
    if (min..=max).contains(&value) {
        return Ok(value);
    }
    Err(Fault::request(format!("{what} may not exceed {max} seconds, and must be at least {min} seconds long.")))
}

/// How many elements are asked for.
pub(super) fn page(limit: Option<i64>) -> Result<i64> {
    match limit {
        None => Ok(PAGE_DEFAULT),
        Some(limit) if (1..=PAGE_MAX).contains(&limit) => Ok(limit),
        Some(_) => Err(Fault::request(format!("Limit must be at least 1 and may not be greater than {PAGE_MAX}."))),
    }
}

/// How many messages are popped.
pub(super) fn pop(count: i64) -> Result<i64> {
    if (1..=PAGE_MAX).contains(&count) {
        return Ok(count);
    }
    Err(Fault::request(format!("Pop value must be at least 1 and may not be greater than {PAGE_MAX}.")))
}

/// A list of ids of a length that is allowed.
pub(super) fn ids<T>(ids: Vec<T>) -> Result<Vec<T>> {
    if (1..=PAGE_MAX).contains(&i64::try_from(ids.len()).unwrap_or(i64::MAX)) {
        return Ok(ids);
    }
    Err(Fault::request(format!("ids parameter should have at least 1 and not greater than {PAGE_MAX} values.")))
}

/// A whole number in a body.
pub(super) fn integer(name: &str, value: &Value) -> Result<i64> {
    value.as_i64().ok_or_else(|| not_an_integer(name))
}

/// 400: the field is there and is no whole number.
pub(super) fn not_an_integer(name: &str) -> Fault {
    Fault::body(format!("The value of the \"{name}\" field must be a int."))
}
