//! Where this service is, as seen by the caller: what every link in an answer begins with.

use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use serde::Serialize;
use utoipa::ToSchema;

use crate::config::ApiOptions;

/// A link in an answer.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct Link {
    /// What it leads to: `self`, `next`, `help`, …
    pub rel: String,
    /// The absolute address.
    pub href: String,
}

impl Link {
    /// A link to a path of this service.
    pub fn new(rel: &str, base: &str, path: &str) -> Self {
        Self { rel: rel.to_owned(), href: format!("{base}{path}") }
    }
}

/// The address that links begin with, without a slash at its end: the configured one; else what a proxy says, if it is
/// to be believed (oslo.middleware's `HTTPProxyToWSGI`: the first hop of `Forwarded`, else `X-Forwarded-*`); else `Host`.
pub(super) fn base(options: &ApiOptions, parts: &Parts) -> String {
    if let Some(endpoint) = &options.public_endpoint {
        return endpoint.trim_end_matches('/').to_owned();
    }
    let headers = &parts.headers;
    let direct = text(headers, header::HOST.as_str()).or_else(|| parts.uri.authority().map(|host| host.as_str()));
    let (mut scheme, mut host, mut prefix) = ("http", direct, "");
    if options.enable_proxy_headers_parsing {
        if let Some(hop) = text(headers, "forwarded").and_then(|all| all.split(',').next()) {
            for (name, value) in hop.split(';').filter_map(|pair| pair.split_once('=')) {
                let value = value.trim().trim_matches('"');
                if name.trim().eq_ignore_ascii_case("proto") {
                    scheme = value;
                } else if name.trim().eq_ignore_ascii_case("host") {
                    host = Some(value);
                }
            }
        } else {
            let first = |name| text(headers, name).and_then(|all| all.split(',').next()).map(str::trim);
            scheme = first("x-forwarded-proto").unwrap_or(scheme);
            host = first("x-forwarded-host").or(host);
        }
        prefix = text(headers, "x-forwarded-prefix").map_or("", |prefix| prefix.trim_end_matches('/'));
    }
    // What stands in a header is not put into an answer unless it can only be an address.
    let scheme = if scheme.eq_ignore_ascii_case("https") { "https" } else { "http" };
    let host = host.filter(|host| is_authority(host)).unwrap_or(&options.bind);
    let prefix = if is_prefix(prefix) { prefix } else { "" };
    format!("{scheme}://{host}{prefix}")
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn is_authority(host: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
    !host.is_empty() && host.len() <= 255 && host.chars().all(legal)
}

fn is_prefix(prefix: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_' | '.' | '~');
    prefix.starts_with('/') && !prefix.starts_with("//") && prefix.len() <= 255 && prefix.chars().all(legal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(options: &ApiOptions, headers: &[(&str, &str)]) -> String {
        let mut request = axum::http::Request::builder().uri("/v1");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        base(options, &request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn links_begin_with_what_the_caller_can_reach() {
        let mut options = ApiOptions::default();
        let forwarded =
            [("host", "inside:9070"), ("x-forwarded-proto", "https"), ("x-forwarded-host", "cloud.example")];
        assert_eq!(seen(&options, &forwarded), "http://inside:9070");
        options.enable_proxy_headers_parsing = true;
        assert_eq!(seen(&options, &forwarded), "https://cloud.example");
        assert_eq!(seen(&options, &[("host", "h"), ("x-forwarded-prefix", "/function/")]), "http://h/function");
        let rfc = [("host", "h"), ("forwarded", "for=1.2.3.4;proto=https;host=\"a.example:443\", proto=http;host=b")];
        assert_eq!(seen(&options, &rfc), "https://a.example:443");
        options.public_endpoint = Some("https://functions.example/v/".to_owned());
        assert_eq!(seen(&options, &forwarded), "https://functions.example/v");
    }

    #[test]
    fn a_host_that_is_none_is_not_repeated() {
        let options = ApiOptions { enable_proxy_headers_parsing: true, ..ApiOptions::default() };
        assert_eq!(seen(&options, &[("host", "a\"><script>")]), "http://127.0.0.1:9070");
        assert_eq!(seen(&options, &[]), "http://127.0.0.1:9070");
        assert_eq!(seen(&options, &[("host", "h"), ("x-forwarded-prefix", "//evil.example")]), "http://h");
        assert_eq!(seen(&options, &[("host", "h"), ("x-forwarded-proto", "javascript")]), "http://h");
    }
}
