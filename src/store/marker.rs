//! Where a page ended, as text that goes out to callers and comes back, and where a page is cut.
//!
//! A marker holds the sort value and the id of the last element, so it still points between its neighbours when that
//! element is gone. It is opaque to callers, who may also name an element by its id.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Direction, Page, StoreError};

/// Payloads and results that one page carries at most, in bytes, beyond its first element.
pub(super) const PAGE_BYTES: usize = 16 << 20;

/// Longest marker that is looked at.
const MARKER_MAX: usize = 1024;

/// The value that a list is ordered by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum SortValue {
    /// A time, in milliseconds since the epoch.
    #[serde(rename = "t")]
    Time(i64),
    /// A text, compared by its bytes.
    #[serde(rename = "s")]
    Text(String),
}

/// A place between two elements of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    /// What the list is ordered by, so that a marker of another order is told apart.
    #[serde(rename = "k")]
    pub key: String,
    /// The value of the last element.
    #[serde(rename = "v")]
    pub value: SortValue,
    /// The id of the last element.
    #[serde(rename = "i")]
    pub id: String,
}

/// What a caller gave as a marker.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Marker {
    /// The end of a page.
    Position(Position),
    /// The id of an element, which has to be looked up.
    Element(String),
}

impl Position {
    fn encode(&self) -> String {
        // A struct of strings and a number always serializes.
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }
}

impl Marker {
    /// Reads what a caller gave for a list that is ordered by `key`.
    pub(super) fn parse(text: &str, key: &str) -> Result<Self, StoreError> {
        if text.len() > MARKER_MAX {
            return Err(StoreError::BadMarker);
        }
        if let Ok(id) = Uuid::try_parse(text) {
            return Ok(Self::Element(id.to_string()));
        }
        let json = URL_SAFE_NO_PAD.decode(text).map_err(|_| StoreError::BadMarker)?;
        let position: Position = serde_json::from_slice(&json).map_err(|_| StoreError::BadMarker)?;
        if position.key == key { Ok(Self::Position(position)) } else { Err(StoreError::BadMarker) }
    }
}

impl Direction {
    /// Whether the smallest comes first.
    pub(super) const fn is_ascending(self) -> bool {
        match self {
            Self::Ascending => true,
            Self::Descending => false,
        }
    }
}

/// Gathers the elements of one page until it is full.
pub(super) struct PageBuilder<T> {
    limit: usize,
    bytes: usize,
    items: Vec<T>,
    last: Option<Position>,
    more: bool,
}

impl<T> PageBuilder<T> {
    /// An empty page of at most `limit` elements.
    pub(super) const fn new(limit: usize) -> Self {
        Self { limit, bytes: 0, items: Vec::new(), last: None, more: false }
    }

    /// Offers the next element, with its place and the bytes it carries. `false`: the page is full without it, and
    /// whatever follows need not be read.
    pub(super) fn offer(&mut self, item: T, position: Position, bytes: usize) -> bool {
        let full =
            self.items.len() >= self.limit || (!self.items.is_empty() && self.bytes.saturating_add(bytes) > PAGE_BYTES);
        if full {
            self.more = true;
            return false;
        }
        self.bytes = self.bytes.saturating_add(bytes);
        self.items.push(item);
        self.last = Some(position);
        true
    }

    /// The page.
    pub(super) fn finish(self) -> Page<T> {
        let next = self.last.filter(|_| self.more).map(|position| position.encode());
        Page { items: self.items, next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position() -> Position {
        Position { key: "name".to_owned(), value: SortValue::Text("thumb".to_owned()), id: "x".to_owned() }
    }

    #[test]
    fn a_marker_survives_its_text_and_fits_a_url() {
        let text = position().encode();
        assert!(text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')), "{text}");
        assert_eq!(Marker::parse(&text, "name").unwrap(), Marker::Position(position()));
    }

    #[test]
    fn a_marker_of_another_order_or_of_no_list_is_refused() {
        let other = position().encode();
        for bad in [other.as_str(), "", "x", "e30", "!!", &"A".repeat(5000)] {
            assert!(matches!(Marker::parse(bad, "created_at"), Err(StoreError::BadMarker)), "{bad}");
        }
    }

    #[test]
    fn an_id_is_a_marker_in_any_of_its_spellings() {
        let id = "67e55044-10b1-426f-9247-bb680e5fe0c8";
        for text in [id, "67E5504410B1426F9247BB680E5FE0C8"] {
            assert_eq!(Marker::parse(text, "name").unwrap(), Marker::Element(id.to_owned()));
        }
    }

    #[test]
    fn a_page_ends_at_its_bytes_but_has_one_element_at_least() {
        let mut page = PageBuilder::new(10);
        assert!(page.offer(1, position(), PAGE_BYTES * 2));
        assert!(!page.offer(2, position(), 1));
        let page = page.finish();
        assert_eq!((page.items, page.next.is_some()), (vec![1], true));
    }
}
