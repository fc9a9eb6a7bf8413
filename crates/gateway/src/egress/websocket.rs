//! The one upgrade that is forwarded: a WebSocket's (RFC 6455 §4). It is asked for by a whole handshake and nothing less;
//! what is less goes upstream as the plain request that it is without its hop-by-hop headers.
//!
//! An upstream that answers 101 without having understood the handshake might go on reading what it takes for requests,
//! and a caller could then write them behind the Gateway's back. So the answer must prove, by the digest of the key,
//! that it is one.

use caracal_crypto::encoding::{base64url, from_base64url};
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};

use super::request::listed_by_connection;

/// What the digest of the answer is salted with (RFC 6455 §1.3).
const SALT: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const UPGRADED: HeaderValue = HeaderValue::from_static("Upgrade");
const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");

/// A handshake that a caller has begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Handshake {
    /// What the upstream has to say in `Sec-WebSocket-Accept`.
    accept: String,
}

impl Handshake {
    /// The handshake in a request, if it is one.
    pub(crate) fn of(request: &Parts, has_body: bool) -> Option<Self> {
        let headers = &request.headers;
        let asked = request.method == Method::GET
            && request.version == Version::HTTP_11
            && !has_body
            && upgrades_to_websocket(headers)
            && only(headers, &SEC_WEBSOCKET_VERSION).is_some_and(|version| version == "13");
        let key = only(headers, &SEC_WEBSOCKET_KEY).filter(|key| asked && is_key(key))?;
        let mut salted = ring::digest::Context::new(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY);
        salted.update(key.as_bytes());
        salted.update(SALT);
        // Twenty bytes in the other alphabet, with the one character of padding that they take.
        let digest = base64url(salted.finish().as_ref()).replace('-', "+").replace('_', "/");
        Some(Self { accept: format!("{digest}=") })
    }

    /// Whether the head of a 101 answers this handshake.
    pub(crate) fn is_answered_by(&self, headers: &HeaderMap) -> bool {
        upgrades_to_websocket(headers)
            && only(headers, &SEC_WEBSOCKET_ACCEPT).is_some_and(|accept| accept.as_bytes() == self.accept.as_bytes())
    }

    /// Puts the hop-by-hop part of the handshake, or of its answer, into headers that have lost it.
    pub(crate) fn put_into(headers: &mut HeaderMap) {
        headers.insert(CONNECTION, UPGRADED);
        headers.insert(UPGRADE, WEBSOCKET);
    }
}

fn upgrades_to_websocket(headers: &HeaderMap) -> bool {
    only(headers, &UPGRADE).is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(b"websocket"))
        && listed_by_connection(headers).iter().any(|name| name == "upgrade")
}

/// The only line of a name.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h HeaderValue> {
    let mut lines = headers.get_all(name).iter();
    lines.next().filter(|_| lines.next().is_none())
}

/// Whether text is the base64 of sixteen bytes.
fn is_key(key: &HeaderValue) -> bool {
    let digits = key.to_str().ok().and_then(|text| text.strip_suffix("=="));
    let digits = digits.map(|digits| digits.replace('+', "-").replace('/', "_"));
    digits.and_then(|digits| from_base64url(&digits)).is_some_and(|bytes| bytes.len() == 16)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn request(lines: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().uri("/chat");
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    const WHOLE: [(&str, &str); 4] = [
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "WebSocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    #[test]
    fn the_digest_is_the_one_of_the_rfc() {
        let handshake = Handshake::of(&request(&WHOLE), false).unwrap();
        assert_eq!(handshake.accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn less_than_a_whole_handshake_is_none() {
        for missing in 0..WHOLE.len() {
            let mut lines = WHOLE.to_vec();
            let (name, value) = lines.remove(missing);
            assert_eq!(Handshake::of(&request(&lines), false), None, "without {name}");
            lines.extend([(name, value), (name, value)]);
            let twice = Handshake::of(&request(&lines), false);
            assert_eq!(twice.is_some(), name == "connection", "twice {name}");
        }
        for (name, value) in [
            ("connection", "close"),
            ("upgrade", "websocket, h2c"),
            ("upgrade", "h2c"),
            ("sec-websocket-version", "8"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25j"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25j!!=="),
        ] {
            let lines: Vec<_> =
                WHOLE.iter().map(|(known, old)| (*known, if *known == name { value } else { *old })).collect();
            assert_eq!(Handshake::of(&request(&lines), false), None, "{name}: {value}");
        }
        assert_eq!(Handshake::of(&request(&WHOLE), true), None);
        let mut other = request(&WHOLE);
        other.method = Method::POST;
        assert_eq!(Handshake::of(&other, false), None);
        let mut other = request(&WHOLE);
        other.version = Version::HTTP_2;
        assert_eq!(Handshake::of(&other, false), None);
    }

    #[test]
    fn only_the_digest_of_the_key_answers_a_handshake() {
        let handshake = Handshake::of(&request(&WHOLE), false).unwrap();
        let good = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
        let answered = |lines: &[(&str, &str)]| handshake.is_answered_by(&request(lines).headers);
        assert!(answered(&[("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-accept", good)]));
        assert!(!answered(&[("connection", "upgrade"), ("upgrade", "websocket")]));
        assert!(!answered(&[("upgrade", "websocket"), ("sec-websocket-accept", good)]));
        assert!(!answered(&[("connection", "upgrade"), ("upgrade", "h2c"), ("sec-websocket-accept", good)]));
        let other = "AAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        assert!(!answered(&[("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-accept", other)]));
    }
}
