//! The name under which one request appears in answers, logs and evidence (contract: README D16 and D28, gateway.md §4).

use std::fmt;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::problem::Problem;

/// `x-request-id`, in both directions.
pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// Longest id that is adopted from a caller, in bytes.
pub const MAX_BYTES: usize = 128;

/// 1 to 128 visible ASCII bytes (0x21 to 0x7E): safe in a header, a log line and a JSON string as it is.
///
/// The caller may have chosen it, so it correlates and never identifies: evidence carries ids of its own beside it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// Takes bytes from outside; `None` unless they are 1 to 128 visible ASCII bytes.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let visible = (1..=MAX_BYTES).contains(&bytes.len()) && bytes.iter().all(|byte| (0x21..=0x7e).contains(byte));
        let text = std::str::from_utf8(bytes).ok()?;
        visible.then(|| Self(Arc::from(text)))
    }

    /// The caller's id when its first `X-Request-Id` line is well formed, else a fresh one.
    pub fn adopt(headers: &HeaderMap, fresh: &FreshId) -> Self {
        headers.get(HEADER).and_then(|value| Self::parse(value.as_bytes())).unwrap_or_else(|| fresh.next())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id as the value of an `X-Request-Id` header.
    pub fn to_header(&self) -> HeaderValue {
        // Visible ASCII is always a valid header value; the fallback is unreachable.
        HeaderValue::from_str(&self.0).unwrap_or(HeaderValue::from_static("-"))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RequestId({})", self.0)
    }
}

/// Handlers take their request's id as an argument. Missing only when a router is served without its
/// [`Face`](crate::Face), which is answered as an internal error.
impl<S: Sync> FromRequestParts<S> for RequestId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        parts.extensions.get::<Self>().cloned().ok_or_else(Problem::internal)
    }
}

/// Where fresh request ids come from: UUIDv4 text, lower case with hyphens.
#[derive(Clone)]
pub struct FreshId(Arc<dyn Fn() -> String + Send + Sync>);

impl FreshId {
    /// `draw` must return a new id on every call.
    pub fn new(draw: impl Fn() -> String + Send + Sync + 'static) -> Self {
        Self(Arc::new(draw))
    }

    /// Draws the next id.
    pub fn next(&self) -> RequestId {
        // A source that yields something unusable must not take the service down with it.
        RequestId::parse((self.0)().as_bytes()).unwrap_or_else(|| RequestId(Arc::from("unidentified")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adopted(inbound: &[u8]) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER, HeaderValue::from_bytes(inbound).unwrap());
        RequestId::adopt(&headers, &FreshId::new(|| "fresh".to_owned())).to_string()
    }

    #[test]
    fn a_well_formed_inbound_id_is_kept() {
        for kept in ["a", "!", "~", "0199c0de-0000", "a,b;c=\"d\"", &"x".repeat(128)] {
            assert_eq!(adopted(kept.as_bytes()), kept);
        }
    }

    #[test]
    fn anything_else_is_replaced() {
        for replaced in [&b""[..], b" ", b"a b", b"a\tb", "ä".as_bytes(), b"\xff", &[b'x'; 129]] {
            assert_eq!(adopted(replaced), "fresh", "{replaced:?}");
        }
        assert_eq!(RequestId::adopt(&HeaderMap::new(), &FreshId::new(|| "fresh".to_owned())).as_str(), "fresh");
    }

    #[test]
    fn an_unusable_source_still_yields_an_id() {
        assert_eq!(FreshId::new(String::new).next().as_str(), "unidentified");
    }
}
