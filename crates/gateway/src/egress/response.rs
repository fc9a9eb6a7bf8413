//! The response head that goes back to the caller (contract: gateway.md §17.1; README D21).
//!
//! An upstream is not the Gateway: it can't speak in Caracal's headers, nor send the caller to another place with an
//! absolute target, nor name the software it runs on. Everything else is the caller's business and passes unchanged,
//! repetitions included.

use caracal_http::egress::folded;
use http::header::{CONTENT_LENGTH, CONTENT_LOCATION, LOCATION, TRAILER};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::request::{is_hop_by_hop, listed_by_connection};

/// Headers that describe the upstream's software or lead the caller away.
const REMOVED: [&str; 6] =
    ["server", "x-powered-by", "x-aspnet-version", "x-aspnetmvc-version", "refresh", "x-request-id"];

/// The upstream's headers without what must not pass. `Content-Length` is left out, too: framing is made anew.
pub(crate) fn headers(upstream: &HeaderMap) -> HeaderMap {
    let listed = listed_by_connection(upstream);
    let mut relayed = HeaderMap::with_capacity(upstream.len() + 4);
    for (name, value) in upstream {
        let plain = folded(name.as_str());
        let removed = is_hop_by_hop(&plain)
            || listed.iter().any(|listed| *listed == plain)
            || plain.starts_with("x-caracal-")
            || plain == "content-length"
            || REMOVED.contains(&&*plain);
        let leads_away = (name == LOCATION || name == CONTENT_LOCATION) && !is_relative(value);
        if !removed && !leads_away {
            relayed.append(name.clone(), value.clone());
        }
    }
    relayed
}

/// Fields that mean nothing, or something else, behind a body (RFC 9110 §6.5.1): what frames or routes a message, what says
/// how to read it, and what a recipient acts on before it has it whole.
const NOT_BEHIND: [&str; 20] = [
    "authorization",
    "cache-control",
    "content-encoding",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "expect",
    "expires",
    "forwarded",
    "host",
    "location",
    "content-location",
    "max-forwards",
    "range",
    "retry-after",
    "set-cookie",
    "vary",
    "www-authenticate",
    "x-real-ip",
];

/// The fields behind a body that may pass, in either direction.
pub(crate) fn trailers(given: &HeaderMap) -> HeaderMap {
    let mut passed = headers(given);
    let refused: Vec<_> = passed.keys().filter(|name| !may_trail(name.as_str())).cloned().collect();
    refused.iter().for_each(|name| drop(passed.remove(name)));
    passed
}

fn may_trail(name: &str) -> bool {
    let plain = folded(name);
    !NOT_BEHIND.contains(&&*plain) && !plain.starts_with("x-forwarded-")
}

/// The fields that a head announces behind its body.
pub(crate) fn announcements(head: &HeaderMap) -> impl Iterator<Item = HeaderName> + '_ {
    let lines = head.get_all(TRAILER).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).filter_map(|name| name.trim().parse::<HeaderName>().ok())
}

/// Those that an upstream announces and that may pass.
pub(crate) fn announced(upstream: &HeaderMap) -> impl Iterator<Item = HeaderName> + '_ {
    announcements(upstream).filter(|name| {
        let mut one = HeaderMap::with_capacity(1);
        one.insert(name, HeaderValue::from_static("-"));
        !trailers(&one).is_empty()
    })
}

/// The upstream's `Content-Length`, where a body of that length would be but none is sent (`HEAD`, 304).
pub(crate) fn length_without_body(upstream: &HeaderMap) -> Option<u64> {
    let mut lines = upstream.get_all(CONTENT_LENGTH).iter();
    match (lines.next(), lines.next()) {
        (Some(line), None) => line.to_str().ok()?.parse().ok(),
        _ => None,
    }
}

/// Whether every reader takes a reference for one within the origin it came from. Browsers read `\` as `/` and drop
/// tabs, so what holds either is not.
fn is_relative(value: &HeaderValue) -> bool {
    let bytes = value.as_bytes();
    if !bytes.iter().all(|byte| (0x21..=0x7e).contains(byte) && *byte != b'\\') || bytes.starts_with(b"//") {
        return false;
    }
    let first = bytes.split(|byte| matches!(byte, b'/' | b'?' | b'#')).next().unwrap_or_default();
    !first.contains(&b':')
}

#[cfg(test)]
mod t03_gateway_headers {
    use super::*;

    fn relayed(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut upstream = HeaderMap::new();
        for (name, value) in lines {
            upstream.append(*name, value.parse().unwrap());
        }
        headers(&upstream)
    }

    #[test]
    fn behind_a_body_passes_only_what_means_something_there() {
        let mut given = HeaderMap::new();
        for name in ["grpc-status", "grpc-message", "x-checksum", "set-cookie", "content-type", "x-caracal-revoked"] {
            given.insert(HeaderName::from_static(name), HeaderValue::from_static("1"));
        }
        given.append("transfer-encoding", HeaderValue::from_static("chunked"));
        given.append("x_forwarded_for", HeaderValue::from_static("1"));
        given.append("authorization", HeaderValue::from_static("1"));
        let mut passed: Vec<_> = trailers(&given).keys().map(ToString::to_string).collect();
        passed.sort();
        assert_eq!(passed, ["grpc-message", "grpc-status", "x-checksum"]);
        let mut announcing = HeaderMap::new();
        announcing.append("trailer", HeaderValue::from_static("X-Checksum, Set-Cookie, , bad name"));
        announcing.append("trailer", HeaderValue::from_static("grpc-status"));
        assert_eq!(announced(&announcing).collect::<Vec<_>>(), ["x-checksum", "grpc-status"]);
    }

    #[test]
    fn an_upstream_cannot_speak_as_the_gateway_or_of_itself() {
        for name in [
            "server",
            "x-powered-by",
            "x-aspnet-version",
            "x-aspnetmvc-version",
            "refresh",
            "x-request-id",
            "x-caracal-identity",
            "x-caracal-revoked",
            "x-caracal-token-expires-in",
            "x_caracal_revoked",
            "connection",
            "keep-alive",
            "proxy-authenticate",
            "te",
            "trailer",
            "transfer-encoding",
            "upgrade",
            "content-length",
        ] {
            assert!(relayed(&[(name, "1")]).is_empty(), "{name}");
        }
        assert!(relayed(&[("connection", "x-a"), ("connection", "x-b"), ("x-a", "1"), ("x-b", "1")]).is_empty());
    }

    #[test]
    fn everything_else_is_relayed_with_repetitions() {
        for name in [
            "set-cookie",
            "www-authenticate",
            "alt-svc",
            "date",
            "content-encoding",
            "content-type",
            "etag",
            "access-control-allow-origin",
            "mcp-session-id",
            "retry-after",
        ] {
            let relayed = relayed(&[(name, "one"), (name, "two")]);
            assert_eq!(relayed.get_all(name).iter().collect::<Vec<_>>(), ["one", "two"], "{name}");
        }
    }

    #[test]
    fn only_relative_targets_are_shown() {
        for kept in ["/x", "x/y:z", "?q=http://h/", "#f", "", "../up", "/x//y", "./a:b"] {
            for name in ["location", "content-location"] {
                assert_eq!(relayed(&[(name, kept)])[name], kept);
            }
        }
        for removed in [
            "http://h/",
            "HTTPS://h",
            "//h/x",
            "javascript:x",
            "mailto:a@b",
            "/\\h",
            "\\\\h",
            "a:b",
            "/ x",
            "/\t/h",
            "///h",
        ] {
            for name in ["location", "content-location"] {
                assert!(relayed(&[(name, removed)]).is_empty(), "{removed}");
            }
        }
    }
}
