//! What a caller of gRPC is told when its call is refused.
//!
//! The contract's JSON (gateway.md §18) means nothing to such a caller, whose library would show its user a status guessed
//! from the number of the HTTP answer, and no reason. So a refusal has the shape that gRPC knows for calls that fail before
//! anything was said: one head that ends the stream ("Trailers-Only"), with `grpc-status` and `grpc-message`. The HTTP status stays
//! the contract's, for everything between that counts them; clients that look at it first guess the same class.

use std::fmt::Write as _;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Version};
use http_body_util::Full;

pub(crate) const STATUS: HeaderName = HeaderName::from_static("grpc-status");
pub(crate) const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");

/// Whether a request is a call of gRPC: HTTP/2 and its media type.
pub(crate) fn is_call(parts: &Parts) -> bool {
    parts.version == Version::HTTP_2 && is_media_type(parts.headers.get(CONTENT_TYPE))
}

fn is_media_type(content_type: Option<&HeaderValue>) -> bool {
    let essence = crate::egress::essence(content_type).map(str::to_ascii_lowercase);
    essence.is_some_and(|essence| essence == "application/grpc" || essence.starts_with("application/grpc+"))
}

/// Gives a rendered refusal the shape for callers of gRPC, with `message` for whoever reads their logs.
pub(crate) fn shape(refusal: Response<Full<Bytes>>, message: &str) -> Response<Full<Bytes>> {
    let status = status(refusal.status());
    let mut response = refusal.map(|_| Full::new(Bytes::new()));
    let headers = response.headers_mut();
    headers.remove(CONTENT_LENGTH);
    headers.insert(CONTENT_TYPE, MEDIA_TYPE);
    put(headers, status, message);
    response
}

/// How a call ended.
pub(crate) fn put(headers: &mut HeaderMap, status: u8, message: &str) {
    headers.insert(STATUS, HeaderValue::from(u16::from(status)));
    if let Ok(message) = HeaderValue::from_str(&encoded(message)) {
        headers.insert(MESSAGE, message);
    }
}

/// `UNAUTHENTICATED`.
pub(crate) const UNAUTHENTICATED: u8 = 16;

/// The status of gRPC with the meaning of one of HTTP.
fn status(status: StatusCode) -> u8 {
    match status.as_u16() {
        // INVALID_ARGUMENT
        400 => 3,
        401 => UNAUTHENTICATED,
        // PERMISSION_DENIED
        403 => 7,
        // UNIMPLEMENTED: what the published mapping says of a method that is not there.
        404 => 12,
        // RESOURCE_EXHAUSTED
        413 | 429 => 8,
        // CANCELLED
        499 => 1,
        // UNAVAILABLE
        502 | 503 => 14,
        // DEADLINE_EXCEEDED: the call may have had its effect. UNAVAILABLE would invite to try again.
        504 => 4,
        // INTERNAL
        500 => 13,
        // UNKNOWN
        _ => 2,
    }
}

/// A message as its header carries it: visible ASCII and blanks stand for themselves, the rest and `%` are escaped.
fn encoded(message: &str) -> String {
    let mut encoded = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b'%' | ..0x20 | 0x7f.. => {
                // Writing to a string does not fail.
                let _ = write!(encoded, "%{byte:02X}");
            }
            visible => encoded.push(char::from(visible)),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_is_known_by_its_media_type_and_not_by_one_that_only_begins_like_it() {
        let is = |text: &'static str| is_media_type(Some(&HeaderValue::from_static(text)));
        assert!(is("application/grpc") && is("application/grpc+proto") && is("Application/gRPC; x=y"));
        assert!(!is("application/grpc-web") && !is("application/grpc-web+proto") && !is("application/grpcs"));
        assert!(!is("text/grpc") && !is_media_type(None));
    }

    #[test]
    fn a_message_is_escaped_as_the_protocol_says() {
        assert_eq!(encoded("policy denied (x)"), "policy denied (x)");
        assert_eq!(encoded("100% \u{fc}\n"), "100%25 %C3%BC%0A");
    }

    #[test]
    fn what_cannot_be_known_to_have_had_no_effect_invites_to_no_second_try() {
        let of = |code: u16| status(StatusCode::from_u16(code).unwrap());
        let found = [400, 401, 403, 413, 429, 499, 500, 502, 503, 504, 418].map(of);
        assert_eq!(found, [3, 16, 7, 8, 8, 1, 13, 14, 14, 4, 2]);
    }
}
