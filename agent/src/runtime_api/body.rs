//! Reading what a runtime posts: bounded, whole or streamed, with trailers.

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::Request;
use hyper::body::Incoming;
use hyper::header::HeaderMap;

use super::{Payload, RESPONSE_MAX};

/// The body of a response, whichever mode it comes in.
pub async fn response(request: Request<Incoming>) -> Payload {
    let mode = header(request.headers(), "lambda-runtime-function-response-mode");
    match mode.as_deref() {
        None => collect(request.into_body()).await.0,
        Some(mode) if mode.eq_ignore_ascii_case("streaming") => {
            let (payload, trailers) = collect(request.into_body()).await;
            match header(&trailers, "lambda-runtime-function-error-type") {
                Some(error_type) => {
                    let body = header(&trailers, "lambda-runtime-function-error-body").unwrap_or_default();
                    let body = decode_base64(&body).unwrap_or_default().into();
                    Payload::Failed { error_type, body }
                }
                None => payload,
            }
        }
        Some(_) => {
            // Read, so that the connection can go on.
            collect(request.into_body()).await;
            Payload::UnknownMode
        }
    }
}

/// Reads a body to its end, and keeps it unless it is too large.
pub async fn collect(mut incoming: Incoming) -> (Payload, HeaderMap) {
    let mut trailers = HeaderMap::new();
    let mut whole = BytesMut::new();
    let mut first = Bytes::new();
    let mut is_too_large = false;
    while let Some(frame) = incoming.frame().await {
        let Ok(frame) = frame else { return (Payload::Truncated, trailers) };
        match frame.into_data() {
            Ok(data) => {
                is_too_large |= first.len() + whole.len() + data.len() > RESPONSE_MAX;
                if is_too_large {
                    (first, whole) = (Bytes::new(), BytesMut::new());
                } else if first.is_empty() && whole.is_empty() {
                    // Most bodies come in one piece, which need not be copied.
                    first = data;
                } else {
                    whole.extend_from_slice(&std::mem::take(&mut first));
                    whole.extend_from_slice(&data);
                }
            }
            Err(frame) => trailers.extend(frame.into_trailers().unwrap_or_default()),
        }
    }
    let payload = match (is_too_large, whole.is_empty()) {
        (true, _) => Payload::TooLarge,
        (false, true) => Payload::Whole(first),
        (false, false) => Payload::Whole(whole.freeze()),
    };
    (payload, trailers)
}

pub fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// Standard base64, padded or not; none when it is not that.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0_u32, 0);
    for digit in text.trim_end_matches('=').bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from((bits >> count) & 0xff).ok()?);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_decoded() {
        for (text, bytes) in [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9vYmFy", "foobar")] {
            assert_eq!(decode_base64(text).as_deref(), Some(bytes.as_bytes()));
        }
        assert_eq!(decode_base64("Zm9*"), None);
    }
}
