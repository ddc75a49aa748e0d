//! Pages of lists: `limit`, `marker` and `sort`, and the links to the next page.

use axum::http::Uri;

use super::error::{ApiError, Code, Result, shown};
use super::links::Link;
use crate::config::ApiOptions;
use crate::store::{Direction, PageRequest};

/// What can be sorted by.
pub(super) trait SortKey: Copy + 'static {
    /// The names of the keys; the first is the default.
    const KEYS: &'static [(&'static str, Self)];
    /// Which way a list runs when nothing is said.
    const DEFAULT_DIRECTION: Direction;
}

/// Turns the parameters of a list into what the store is asked.
pub(super) fn page<K: SortKey>(
    options: &ApiOptions,
    limit: Option<usize>,
    marker: Option<String>,
    sort: Option<&str>,
) -> Result<PageRequest<K>> {
    let limit = limit.unwrap_or(options.default_limit);
    if limit == 0 || limit > options.max_limit {
        return Err(ApiError::new(Code::InvalidQuery, format!("limit: must be 1 to {}", options.max_limit)));
    }
    let names = || K::KEYS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let wrong = |why: String| ApiError::new(Code::InvalidQuery, format!("sort: {why}"));
    let (sort, direction) = match sort {
        None => (K::KEYS.first().map(|(_, key)| *key), K::DEFAULT_DIRECTION),
        Some(text) => {
            if text.contains(',') {
                return Err(wrong("only one key is supported".to_owned()));
            }
            let (name, direction) = text.split_once(':').unwrap_or((text, "asc"));
            let direction = match direction {
                "asc" => Direction::Ascending,
                "desc" => Direction::Descending,
                other => return Err(wrong(format!("the direction '{}' is neither asc nor desc", shown(other)))),
            };
            let key = K::KEYS.iter().find(|(known, _)| *known == name).map(|(_, key)| *key);
            if key.is_none() {
                return Err(wrong(format!("'{}' is none of the keys {}", shown(name), names())));
            }
            (key, direction)
        }
    };
    let sort = sort.ok_or_else(|| ApiError::internal("a list has no key to sort by"))?;
    Ok(PageRequest { limit, marker, sort, direction })
}

/// The links of a page: to the next one, if there is one. It keeps all other parameters.
pub(super) fn next_link(base: &str, uri: &Uri, next: Option<&str>) -> Vec<Link> {
    let Some(marker) = next else { return Vec::new() };
    let pairs: Vec<(String, String)> = serde_urlencoded::from_str(uri.query().unwrap_or_default()).unwrap_or_default();
    let mut pairs: Vec<_> = pairs.into_iter().filter(|(name, _)| name != "marker").collect();
    pairs.push(("marker".to_owned(), marker.to_owned()));
    let query = serde_urlencoded::to_string(pairs).unwrap_or_default();
    vec![Link::new("next", base, &format!("{}?{query}", uri.path()))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Key {
        Age,
        Name,
    }

    impl SortKey for Key {
        const KEYS: &'static [(&'static str, Self)] = &[("age", Self::Age), ("name", Self::Name)];
        const DEFAULT_DIRECTION: Direction = Direction::Descending;
    }

    #[test]
    fn a_page_is_within_its_bounds_and_sorted_by_a_known_key() {
        let options = ApiOptions::default();
        let ask = |limit, sort| page::<Key>(&options, limit, None, sort);
        let plain = ask(None, None).unwrap();
        assert_eq!((plain.limit, plain.sort, plain.direction), (100, Key::Age, Direction::Descending));
        let sorted = ask(Some(1000), Some("name")).unwrap();
        assert_eq!((sorted.sort, sorted.direction), (Key::Name, Direction::Ascending));
        assert_eq!(ask(None, Some("name:desc")).unwrap().direction, Direction::Descending);
        for (limit, sort) in [
            (Some(0), None),
            (Some(1001), None),
            (None, Some("colour")),
            (None, Some("age:up")),
            (None, Some("age,name")),
        ] {
            assert_eq!(ask(limit, sort).unwrap_err().code(), Code::InvalidQuery, "{limit:?} {sort:?}");
        }
    }

    #[test]
    fn the_next_link_keeps_the_other_parameters() {
        let uri = "/v1/functions?limit=2&marker=old&name=a%26b".parse().unwrap();
        let links = next_link("http://h", &uri, Some("n/1"));
        assert_eq!(links[0].href, "http://h/v1/functions?limit=2&name=a%26b&marker=n%2F1");
        assert!(next_link("http://h", &uri, None).is_empty());
    }
}
