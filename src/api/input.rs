//! How requests are read: bodies within a bound, JSON whose every fault has a place, query parameters of which each is
//! known, and preconditions.

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, header};
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Deserializer};

use super::error::{ApiError, Code, Result, shown};
use crate::task::chain;

/// Largest body of an ordinary request, in bytes.
pub(super) const ORDINARY_BODY: usize = 1 << 20;

/// Reads a body of at most `limit` bytes; more of it is not even received.
pub(super) async fn read_body(headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes> {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit as u64) {
        return Err(too_large(limit));
    }
    let mut stream = body.into_data_stream();
    let mut whole = BytesMut::new();
    while let Some(piece) = stream.next().await {
        let piece = piece.map_err(|error| {
            ApiError::new(Code::Malformed, "the body ended before it was complete").caused_by(error)
        })?;
        if whole.len() + piece.len() > limit {
            return Err(too_large(limit));
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole.freeze())
}

/// A body over its limit.
pub(super) fn too_large(limit: usize) -> ApiError {
    ApiError::new(Code::TooLarge, format!("send at most {limit} bytes"))
}

/// The media type of the body without its parameters, in lower case; none when the header is missing.
pub(super) fn media_type(headers: &HeaderMap) -> Result<Option<String>> {
    headers
        .get(header::CONTENT_TYPE)
        .map(|value| value.to_str())
        .transpose()
        .map_err(|_| ApiError::new(Code::InvalidHeader, "Content-Type: must be plain text"))
        .map(|value| value.map(|text| text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()))
}

/// The answer to a body of another type.
pub(super) fn unsupported(found: Option<&str>, wanted: &str) -> ApiError {
    let found = found.map_or_else(|| "none".to_owned(), |found| format!("'{}'", shown(found)));
    ApiError::new(Code::UnsupportedMediaType, format!("the Content-Type is {found}; send {wanted}"))
}

/// A JSON body of at most [`ORDINARY_BODY`] bytes.
pub(super) struct JsonBody<T>(pub T);

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self> {
        let (parts, body) = request.into_parts();
        read_json(&parts.headers, body, ORDINARY_BODY).await.map(Self)
    }
}

/// Reads a JSON body of at most `limit` bytes.
pub(super) async fn read_json<T: DeserializeOwned>(headers: &HeaderMap, body: Body, limit: usize) -> Result<T> {
    let found = media_type(headers)?;
    if found.as_deref() != Some("application/json") {
        return Err(unsupported(found.as_deref(), "application/json"));
    }
    parse_json(&read_body(headers, body, limit).await?)
}

/// Reads a JSON text; what is wrong with it is told with its line and column, or with the path to the attribute.
pub(super) fn parse_json<T: DeserializeOwned>(text: &[u8]) -> Result<T> {
    let text = std::str::from_utf8(text).map_err(|error| {
        ApiError::new(Code::MalformedJson, format!("is not UTF-8 behind byte {}", error.valid_up_to()))
    })?;
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        // A text that is no JSON is told as such, even where an attribute before the fault is wrong too.
        if let Err(syntax) = serde_json::from_str::<IgnoredAny>(text) {
            return malformed(&syntax);
        }
        if inner.is_data() {
            let at = if path == "." { String::new() } else { format!("{}: ", shown(&path)) };
            // serde_json closes the message with the place; the path says it better.
            let said = inner.to_string();
            let said = said.rsplit_once(" at line ").map_or(said.as_str(), |(said, _)| said);
            ApiError::new(Code::InvalidBody, format!("{at}{}", bounded(said)))
        } else {
            malformed(&inner)
        }
    })?;
    reader.end().map_err(|error| malformed(&error))?;
    Ok(value)
}

fn malformed(error: &serde_json::Error) -> ApiError {
    ApiError::new(Code::MalformedJson, bounded(&error.to_string()))
}

/// A library's message, which may repeat what the caller sent.
fn bounded(message: &str) -> String {
    let mut short: String = message.chars().filter(|c| !c.is_control()).take(300).collect();
    if message.chars().nth(300).is_some() {
        short.push('…');
    }
    short
}

/// Tells an attribute that is null from one that is absent: `Some(None)` and `None`.
pub(super) fn present<'de, D, T>(deserializer: D) -> std::result::Result<Option<Option<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::<T>::deserialize(deserializer).map(Some)
}

/// The query's parameters. Unknown ones, and known ones that are given twice, are refused by name.
pub(super) struct Query<T>(pub T);

/// What can stand in a query.
pub(super) trait QueryParameters: DeserializeOwned {
    /// Parameters that may be repeated; their values are joined with commas.
    const REPEATABLE: &'static [&'static str] = &[];
}

impl<S: Sync, T: QueryParameters> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        parse_query(parts.uri.query().unwrap_or_default()).map(Self)
    }
}

fn parse_query<T: QueryParameters>(query: &str) -> Result<T> {
    let wrong = |detail: String| ApiError::new(Code::InvalidQuery, detail);
    let pairs: Vec<(String, String)> =
        serde_urlencoded::from_str(query).map_err(|error| wrong(bounded(&error.to_string())))?;
    let mut single: Vec<(String, String)> = Vec::new();
    for (name, value) in pairs {
        match single.iter_mut().find(|(known, _)| *known == name) {
            None => single.push((name, value)),
            Some((_, values)) if T::REPEATABLE.contains(&name.as_str()) => {
                values.push(',');
                values.push_str(&value);
            }
            Some(_) => return Err(wrong(format!("{}: is given more than once", shown(&name)))),
        }
    }
    let joined = serde_urlencoded::to_string(&single).map_err(ApiError::internal)?;
    let reader = serde_urlencoded::Deserializer::new(form_urlencoded::parse(joined.as_bytes()));
    serde_path_to_error::deserialize(reader).map_err(|error| {
        let path = error.path().to_string();
        let said = bounded(&error.into_inner().to_string());
        wrong(if path == "." || said.contains(&path) { said } else { format!("{}: {said}", shown(&path)) })
    })
}

/// A query without parameters.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NoParameters {}

impl QueryParameters for NoParameters {}

/// What `If-Match` demands of a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Precondition {
    /// Nothing: the header is not there.
    None,
    /// `*`: that there is one.
    Any,
    /// One of these.
    Revisions(Vec<u64>),
}

impl Precondition {
    /// Whether a revision meets it.
    pub fn holds(&self, revision: u64) -> bool {
        match self {
            Self::None | Self::Any => true,
            Self::Revisions(revisions) => revisions.contains(&revision),
        }
    }

    /// Whether the caller wants exactly one state to be changed, so that a race must be told rather than tried again.
    pub const fn is_strict(&self) -> bool {
        matches!(self, Self::Revisions(_))
    }
}

/// Reads `If-Match`.
pub(super) fn if_match(headers: &HeaderMap) -> Result<Precondition> {
    let mut revisions = Vec::new();
    let mut found = false;
    for value in headers.get_all(header::IF_MATCH) {
        found = true;
        let wrong =
            || ApiError::new(Code::InvalidHeader, "If-Match: must be '*' or ETags of the function, such as \"3\"");
        for tag in value.to_str().map_err(|_| wrong())?.split(',').map(str::trim) {
            if tag == "*" {
                return Ok(Precondition::Any);
            }
            let inner = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).ok_or_else(wrong)?;
            // A tag that is none of ours matches nothing, which is not the same as a malformed one.
            revisions.extend(inner.parse::<u64>().ok());
        }
    }
    Ok(if found { Precondition::Revisions(revisions) } else { Precondition::None })
}

/// Whether `If-None-Match` has the tag: the caller has what it asks for.
pub(super) fn has_already(headers: &HeaderMap, etag: &str) -> bool {
    headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok()).any(|value| {
        value.split(',').map(|tag| tag.trim().trim_start_matches("W/")).any(|tag| tag == "*" || tag == etag)
    })
}

/// The ETag of a revision.
pub(super) fn etag(revision: u64) -> String {
    format!("\"{revision}\"")
}

/// A header value that is known to be plain text; an empty one if it is not.
pub(super) fn header_value(text: &str) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// What the caller wants to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accepted {
    /// Plain text.
    Text,
    /// JSON.
    Json,
}

/// Whether plain text or JSON is wanted; text when nothing is said. Quality values are honoured.
pub(super) fn text_or_json(headers: &HeaderMap) -> Result<Accepted> {
    let mut best: Option<(f32, Accepted)> = None;
    let mut said = false;
    for value in headers.get_all(header::ACCEPT) {
        let Ok(value) = value.to_str() else { continue };
        for range in value.split(',') {
            said = true;
            let mut parts = range.split(';').map(str::trim);
            let kind = match parts.next().unwrap_or_default().to_ascii_lowercase().as_str() {
                "*/*" | "text/*" | "text/plain" => Accepted::Text,
                "application/json" | "application/*" => Accepted::Json,
                _ => continue,
            };
            let quality = parts.find_map(|part| part.strip_prefix("q=")?.parse::<f32>().ok()).unwrap_or(1.0);
            if quality > 0.0 && best.is_none_or(|(known, _)| quality > known) {
                best = Some((quality, kind));
            }
        }
    }
    match best {
        Some((_, kind)) => Ok(kind),
        None if !said => Ok(Accepted::Text),
        None => Err(ApiError::new(Code::NotAcceptable, "accept text/plain or application/json")),
    }
}

/// The name or id in a path, as text. What is no UTF-8 cannot name anything.
pub(super) struct Named(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        axum::extract::Path::<String>::from_request_parts(parts, state).await.map(|path| Self(path.0)).map_err(
            |error| {
                ApiError::new(Code::RouteNotFound, "the path must be percent-encoded UTF-8").caused_by(chain(&error))
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[expect(dead_code, reason = "only its reading is tested")]
        number: u8,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        #[expect(dead_code, reason = "only its reading is tested")]
        inner: Vec<Inner>,
    }

    #[test]
    fn what_is_wrong_with_a_body_is_told_with_its_place() {
        for (text, code, says) in [
            ("{\n  \"inner\": [,]}", Code::MalformedJson, "line 2 column 13"),
            ("{\"inner\": []} x", Code::MalformedJson, "line 1 column 15"),
            ("", Code::MalformedJson, "line 1 column 0"),
            ("[]", Code::InvalidBody, "invalid length 0"),
            ("{}", Code::InvalidBody, "missing field `inner`"),
            ("{\"inner\": [{\"number\": \"x\"}]}", Code::InvalidBody, "inner[0].number: invalid type: string \"x\""),
            ("{\"inner\": [{\"number\": 256}]}", Code::InvalidBody, "inner[0].number: invalid value"),
            ("{\"inner\": [{\"other\": 1}]}", Code::InvalidBody, "unknown field `other`"),
            ("{\"inner\": [], \"inner\": []}", Code::InvalidBody, "duplicate field `inner`"),
        ] {
            let error = parse_json::<Outer>(text.as_bytes()).unwrap_err();
            assert_eq!(error.code(), code, "{text}: {}", error.chain());
            assert!(error.chain().contains(says), "{text}: {}", error.chain());
        }
        assert!(parse_json::<Outer>(&[0xff]).is_err());
        assert!(parse_json::<Outer>("[".repeat(100_000).as_bytes()).is_err());
    }

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Parameters {
        limit: Option<usize>,
        state: Option<String>,
    }

    impl QueryParameters for Parameters {
        const REPEATABLE: &'static [&'static str] = &["state"];
    }

    #[test]
    fn each_parameter_is_known_and_of_its_type() {
        let good: Parameters = parse_query("limit=5&state=a&state=b%2Cc").unwrap();
        assert_eq!((good.limit, good.state.as_deref()), (Some(5), Some("a,b,c")));
        for (query, says) in [
            ("colour=red", "unknown field `colour`, expected `limit` or `state`"),
            ("limit=x", "limit: invalid digit"),
            ("limit=-1", "limit: invalid digit"),
            ("limit=1&limit=2", "limit: is given more than once"),
        ] {
            let error = parse_query::<Parameters>(query).unwrap_err();
            assert!(error.chain().contains(says), "{query}: {}", error.chain());
        }
        let error = parse_query::<NoParameters>("limit=1").unwrap_err();
        assert!(error.chain().contains("`limit`"), "{}", error.chain());
    }

    #[test]
    fn a_precondition_is_a_star_or_tags() {
        let read = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_MATCH, HeaderValue::from_static(value));
            if_match(&headers)
        };
        assert_eq!(read("*").unwrap(), Precondition::Any);
        assert_eq!(read("\"3\", \"4\"").unwrap(), Precondition::Revisions(vec![3, 4]));
        assert!(!read("\"other\"").unwrap().holds(3));
        assert!(!read("W/\"3\"").is_ok_and(|precondition| precondition.holds(3)));
        assert_eq!(read("3").unwrap_err().code(), Code::InvalidHeader);
        assert_eq!(if_match(&HeaderMap::new()).unwrap(), Precondition::None);
    }

    #[test]
    fn the_answer_is_text_unless_json_is_wanted_more() {
        for (accept, wanted) in [
            (None, Some(Accepted::Text)),
            (Some("*/*"), Some(Accepted::Text)),
            (Some("application/json"), Some(Accepted::Json)),
            (Some("text/plain;q=0.5, application/json"), Some(Accepted::Json)),
            (Some("application/json;q=0, text/plain"), Some(Accepted::Text)),
            (Some("image/png"), None),
        ] {
            let mut headers = HeaderMap::new();
            headers.extend(accept.map(|value| (header::ACCEPT, HeaderValue::from_static(value))));
            assert_eq!(text_or_json(&headers).ok(), wanted, "{accept:?}");
        }
    }
}
