//! Which versions of the API there are: the documents at `/` and `/v1`, and what `OpenStack-API-Version` asks for.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use serde::Serialize;
use utoipa::ToSchema;

use super::error::{ApiError, Code, Result, shown};
use super::layers::RequestContext;
use super::links::Link;
use super::{Api, SERVICE_TYPE};

/// Lowest microversion, and the one of a request that names none.
pub(super) const MINIMUM: &str = "1.0";
/// Highest microversion.
pub(super) const MAXIMUM: &str = "1.0";

const MINIMUM_NUMBER: (u32, u32) = (1, 0);
const MAXIMUM_NUMBER: (u32, u32) = (1, 0);

const VERSION_HEADER: HeaderName = HeaderName::from_static("openstack-api-version");

/// What versions there are.
#[derive(Serialize, ToSchema)]
struct Versions {
    /// The versions; exactly one is current.
    versions: Vec<Version>,
}

/// One version.
#[derive(Serialize, ToSchema)]
struct Version {
    /// Its id.
    id: &'static str,
    /// `CURRENT`, `SUPPORTED`, `DEPRECATED` or `EXPERIMENTAL`.
    status: &'static str,
    /// Lowest microversion.
    min_version: &'static str,
    /// Highest microversion.
    max_version: &'static str,
    /// Highest microversion, by the name that older clients read.
    version: &'static str,
    /// `self`: where the version begins; `collection`: where all versions are listed.
    links: Vec<Link>,
}

fn document(base: &str) -> Json<Versions> {
    Json(Versions {
        versions: vec![Version {
            id: "v1.0",
            status: "CURRENT",
            min_version: MINIMUM,
            max_version: MAXIMUM,
            version: MAXIMUM,
            links: vec![
                Link::new("self", base, "/v1/"),
                Link::new("collection", base, "/"),
                Link::new("describedby", base, "/v1/openapi.json"),
            ],
        }],
    })
}

/// What versions of the API there are.
#[utoipa::path(get, path = "/", tag = "discovery", operation_id = "list_versions", security(()),
    responses((status = 200, description = "The versions.", body = Versions)))]
pub(super) async fn root(Extension(context): Extension<RequestContext>) -> Response {
    document(&context.base).into_response()
}

/// What versions of the API there are; the same document as at the root.
#[utoipa::path(get, path = "/v1", tag = "discovery", operation_id = "show_version", security(()),
    responses((status = 200, description = "The versions.", body = Versions)))]
pub(super) async fn v1(Extension(context): Extension<RequestContext>) -> Response {
    document(&context.base).into_response()
}

/// What versions of the API there are; clients that join paths ask with the slash.
#[utoipa::path(get, path = "/v1/", tag = "discovery", operation_id = "show_version_slash", security(()),
    responses((status = 200, description = "The versions.", body = Versions)))]
pub(super) async fn v1_slash(Extension(context): Extension<RequestContext>) -> Response {
    document(&context.base).into_response()
}

/// Finds the version that a request asks for and names it in the answer.
pub(super) async fn negotiate(State(_): State<Api>, request: Request, next: Next) -> Response {
    // Below the root only: discovery is how a client learns which versions it may ask for.
    let versioned = request.uri().path().starts_with("/v1/") && request.uri().path() != "/v1/";
    if !versioned {
        return next.run(request).await;
    }
    let (version, mut response) = match wanted(request.headers()) {
        Ok(version) => (version, next.run(request).await),
        Err(error) => (MINIMUM_NUMBER, error.into_response()),
    };
    let named = format!("{SERVICE_TYPE} {}.{}", version.0, version.1);
    if let Ok(value) = HeaderValue::try_from(named) {
        response.headers_mut().insert(VERSION_HEADER, value);
    }
    response.headers_mut().append(header::VARY, HeaderValue::from_static("OpenStack-API-Version"));
    response
}

/// The version in the headers: they may be repeated, and each may list several services.
fn wanted(headers: &HeaderMap) -> Result<(u32, u32)> {
    for value in headers.get_all(VERSION_HEADER) {
        let text = value.to_str().map_err(|_| malformed("…"))?;
        for part in text.split(',') {
            let mut words = part.split_whitespace();
            if words.next() != Some(SERVICE_TYPE) {
                continue;
            }
            let version = words.next().unwrap_or_default();
            if words.next().is_some() {
                return Err(malformed(part));
            }
            if version == "latest" {
                return Ok(MAXIMUM_NUMBER);
            }
            let number = parse(version).ok_or_else(|| malformed(part))?;
            if !(MINIMUM_NUMBER..=MAXIMUM_NUMBER).contains(&number) {
                return Err(ApiError::new(
                    Code::VersionNotSupported,
                    format!("ask for a version from {MINIMUM} to {MAXIMUM}, or for 'latest'"),
                ));
            }
            return Ok(number);
        }
    }
    Ok(MINIMUM_NUMBER)
}

/// `^([1-9]\d*)\.([1-9]\d*|0)$`, as api-sig has it.
fn parse(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let plain = |text: &str| digits(text) && (text == "0" || !text.starts_with('0'));
    if !plain(major) || major == "0" || !plain(minor) {
        return None;
    }
    // More digits than a number holds: a version that there is not, not a malformed one.
    Some((major.parse().unwrap_or(u32::MAX), minor.parse().unwrap_or(u32::MAX)))
}

fn malformed(text: &str) -> ApiError {
    ApiError::new(
        Code::VersionMalformed,
        format!(
            "OpenStack-API-Version '{}' must read '{SERVICE_TYPE} {MINIMUM}' or '{SERVICE_TYPE} latest'",
            shown(text.trim())
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_negotiated_as_api_sig_says() {
        for (values, answer) in [
            (&[][..], Ok(MINIMUM_NUMBER)),
            (&["compute 2.90"], Ok(MINIMUM_NUMBER)),
            (&["function 1.0"], Ok((1, 0))),
            (&["function latest"], Ok(MAXIMUM_NUMBER)),
            (&["compute 2.1, function 1.0"], Ok((1, 0))),
            (&["compute 2.1", "function 1.0"], Ok((1, 0))),
            (&["function 1.1"], Err(Code::VersionNotSupported)),
            (&["function 2.0"], Err(Code::VersionNotSupported)),
            (&["function 1.99999999999"], Err(Code::VersionNotSupported)),
            (&["function"], Err(Code::VersionMalformed)),
            (&["function 1"], Err(Code::VersionMalformed)),
            (&["function 01.0"], Err(Code::VersionMalformed)),
            (&["function 1.00"], Err(Code::VersionMalformed)),
            (&["function 0.1"], Err(Code::VersionMalformed)),
            (&["function 1.0 x"], Err(Code::VersionMalformed)),
            (&["function +1.0"], Err(Code::VersionMalformed)),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(VERSION_HEADER, HeaderValue::from_static(value));
            }
            assert_eq!(wanted(&headers).map_err(|error| error.code()), answer, "{values:?}");
        }
    }
}
