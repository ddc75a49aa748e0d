//! The ids of messages and claims: 24 hexadecimal digits, as Zaqar's MongoDB driver hands them out.
//!
//! An id names a row without an index of its own: 4 bytes of seconds, 2 bytes drawn when the file was made, 6 bytes of
//! row number. All three have to fit, so an id of another file, or a guess, names nothing.

use std::fmt;

/// Largest row number that an id can carry.
const NUMBER_MAX: i64 = (1 << 48) - 1;

/// The public name of a message or a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PublicId {
    seconds: u32,
    salt: u16,
    number: i64,
}

impl PublicId {
    /// Names the row with this number, made at that time, in the file with that salt.
    pub(super) fn new(created_ms: i64, salt: u16, number: i64) -> Self {
        let seconds = u32::try_from(created_ms.div_euclid(1000)).unwrap_or(u32::MAX);
        Self { seconds, salt, number: number & NUMBER_MAX }
    }

    /// Reads an id; none: the text is no id, so nothing has that name.
    pub(super) fn parse(text: &str) -> Option<Self> {
        // Every byte is checked, because `from_str_radix` takes a leading sign.
        if text.len() != 24 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        Some(Self {
            seconds: u32::from_str_radix(text.get(..8)?, 16).ok()?,
            salt: u16::from_str_radix(text.get(8..12)?, 16).ok()?,
            number: i64::from_str_radix(text.get(12..)?, 16).ok()?,
        })
    }

    /// The number of the row that it may name; [`Self::names`] says whether it does.
    pub(super) const fn number(self) -> i64 {
        self.number
    }

    /// Whether it can be the name of a row in the file with that salt.
    pub(super) const fn is_of(self, salt: u16) -> bool {
        self.salt == salt
    }

    /// Whether it is the name of the row with this number, made at that time, in the file with that salt.
    pub(super) fn names(self, created_ms: i64, salt: u16, number: i64) -> bool {
        self == Self::new(created_ms, salt, number)
    }
}

impl fmt::Display for PublicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}{:04x}{:012x}", self.seconds, self.salt, self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_its_text() {
        let id = PublicId::new(1_795_000_000_123, 0xabcd, 7);
        assert_eq!(id.to_string().len(), 24);
        assert_eq!(PublicId::parse(&id.to_string()), Some(id));
        assert!(id.names(1_795_000_000_999, 0xabcd, 7), "the same second");
    }

    #[test]
    fn an_id_of_another_time_file_or_row_names_nothing() {
        let id = PublicId::new(1_795_000_000_123, 0xabcd, 7);
        assert!(!id.names(1_795_000_001_123, 0xabcd, 7));
        assert!(!id.names(1_795_000_000_123, 0xabce, 7));
        assert!(!id.names(1_795_000_000_123, 0xabcd, 8));
    }

    #[test]
    fn what_is_not_24_hexadecimal_digits_is_no_id() {
        for text in ["", "0", "+00000000000000000000001", "00000000000000000000000g", "0000000000000000000000000", "é0"]
        {
            assert_eq!(PublicId::parse(text), None, "{text}");
        }
    }
}
