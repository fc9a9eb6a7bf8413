//! The headers that go upstream (contract: gateway.md §15.2, §15.3; README D18, D21).
//!
//! Framing is made anew for each hop, forwarding headers are ours alone, and nothing a caller sends can pose as one of
//! Caracal's own headers, as the credential, or as another method or target. Names are judged in the form in which
//! careless upstreams read them: case does not count, and whatever is no letter or digit counts as `-`, because stacks
//! that hand headers on as variables fold `_`, and some all of them, into one character.

use std::net::IpAddr;

use caracal_http::RequestId;
use caracal_http::egress::folded;
use caracal_http::server::Tls;
use http::header::{self, CONTENT_LENGTH, COOKIE, HOST};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Version};

use super::credential::Placed;
use super::query::QueryFault;
use super::response::announcements;
use crate::trace::TRACEPARENT;

const BAGGAGE: &str = "baggage";
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Hop-by-hop names beside what `Connection` lists; every `Proxy-*` name is one, too.
const HOP_BY_HOP: [&str; 7] =
    ["connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "http2-settings"];

/// Headers by which some stacks take another method or target than the request line's, which would defeat the check of
/// the operation (D18).
const OVERRIDES: [&str; 10] = [
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-method",
    "x-original-url",
    "x-original-uri",
    "x-original-path",
    "x-override-url",
    "x-rewrite-url",
    "x-rewrite-uri",
];

/// Why a request can't be built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BuildFault {
    /// The method asks the upstream to show the request, and with it the credential (RFC 9110 §9.3.8).
    #[error("the method would show the credential")]
    Method,
    /// The caller's query.
    #[error(transparent)]
    Query(#[from] QueryFault),
    /// Path and query do not make an address.
    #[error("path and query make no address")]
    Address,
    /// The directive's credential can't be placed as it says.
    #[error("the credential can't be placed: {0}")]
    Credential(&'static str),
}

/// What is known of a request beside its headers.
pub(crate) struct Facts<'r> {
    /// The address the caller connected from.
    pub(crate) peer: IpAddr,
    /// Whether that address is a proxy of ours, whose word counts.
    pub(crate) trust_proxy: bool,
    /// The request's name.
    pub(crate) id: &'r RequestId,
    /// The `traceparent` that goes upstream.
    pub(crate) traceparent: Option<&'r HeaderValue>,
    /// Length of the body, when it is known and framed by length.
    pub(crate) content_length: Option<u64>,
}

/// Everything that goes upstream but `Host`, which the target gives.
pub(crate) fn headers(request: &Parts, placed: &Placed, facts: &Facts<'_>) -> HeaderMap {
    let client = &request.headers;
    let listed = listed_by_connection(client);
    let credential = folded(placed.header.as_str());
    let mut upstream = HeaderMap::with_capacity(client.len() + 8);
    for (name, value) in client {
        let plain = folded(name.as_str());
        let is_credential = plain == credential;
        // HTTP/2 may send its pieces on lines of their own; HTTP/1 has one line (RFC 9113 §8.2.3).
        if name == COOKIE && request.version == Version::HTTP_2 && !is_credential {
            continue;
        }
        if !is_credential && !is_removed(&plain) && !listed.iter().any(|listed| *listed == plain) && plain != BAGGAGE {
            upstream.append(name.clone(), value.clone());
        }
    }
    if request.version == Version::HTTP_2
        && credential != "cookie"
        && let Some(cookie) = cookie(client)
    {
        upstream.insert(COOKIE, cookie);
    }
    if let Some(baggage) = baggage(client) {
        upstream.insert(HeaderName::from_static(BAGGAGE), baggage);
    }
    upstream.insert(caracal_http::request_id::HEADER, facts.id.to_header());
    match facts.traceparent {
        Some(parent) => upstream.insert(TRACEPARENT, parent.clone()),
        None => upstream.remove(TRACEPARENT),
    };
    set_forwarding(&mut upstream, request, facts);
    if let Some(length) = facts.content_length {
        upstream.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    if let Some(value) = &placed.value {
        upstream.insert(placed.header.clone(), value.clone());
    }
    if let Some(identity) = &placed.identity {
        upstream.insert(super::IDENTITY, identity.clone());
    }
    upstream
}

/// The fields behind a body that may go upstream: nothing passes behind it that may not stand before it, the credential's own
/// name included. Some stacks read both as one.
pub(crate) fn trailers(given: &HeaderMap, credential: &HeaderName) -> HeaderMap {
    let credential = folded(credential.as_str());
    let mut passed = super::response::trailers(given);
    let refused = |plain: &str| plain == credential || is_removed(plain) || plain == BAGGAGE || plain == TRACEPARENT;
    let refused: Vec<HeaderName> = passed.keys().filter(|name| refused(&folded(name.as_str()))).cloned().collect();
    refused.iter().for_each(|name| drop(passed.remove(name)));
    passed
}

/// The line that announces those of them that the caller announces.
pub(crate) fn announced(client: &HeaderMap, credential: &HeaderName) -> Option<HeaderValue> {
    let given: HeaderMap = announcements(client).map(|name| (name, HeaderValue::from_static("-"))).collect();
    let passed = trailers(&given, credential);
    let names: Vec<&str> = passed.keys().map(HeaderName::as_str).collect();
    if names.is_empty() { None } else { HeaderValue::from_str(&names.join(", ")).ok() }
}

/// Names that `Connection` lists, on any of its lines.
pub(crate) fn listed_by_connection(headers: &HeaderMap) -> Vec<String> {
    let lines = headers.get_all(header::CONNECTION).iter().filter_map(|line| line.to_str().ok());
    let names =
        lines.flat_map(|line| line.split(',')).map(|name| folded(&name.trim().to_ascii_lowercase()).into_owned());
    names.filter(|name| !name.is_empty()).collect()
}

/// Whether a plain name belongs to one hop only.
pub(crate) fn is_hop_by_hop(plain: &str) -> bool {
    HOP_BY_HOP.contains(&plain) || plain.starts_with("proxy-") || plain == "proxy"
}

/// However it is spelt: no upstream is known to read these, and none is to find out.
fn asks_for_another_method(plain: &str) -> bool {
    plain.contains("override") && plain.contains("method")
}

fn is_removed(plain: &str) -> bool {
    is_hop_by_hop(plain)
        || plain.starts_with("x-caracal-")
        || plain.starts_with("x-forwarded-")
        || OVERRIDES.contains(&plain)
        || asks_for_another_method(plain)
        || matches!(
            plain,
            "authorization" | "content-length" | "expect" | "forwarded" | "host" | "x-real-ip" | "x-request-id"
        )
}

/// The pieces of a cookie as one line.
fn cookie(headers: &HeaderMap) -> Option<HeaderValue> {
    let pieces: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if pieces.is_empty() { None } else { HeaderValue::from_bytes(&pieces.join(&b"; "[..])).ok() }
}

/// The entries that are not Caracal's, of all lines, as one.
fn baggage(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut kept: Vec<u8> = Vec::new();
    for line in headers.get_all(BAGGAGE) {
        for entry in line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            let ours = entry.get(..8).is_some_and(|start| start.eq_ignore_ascii_case(b"caracal."));
            if entry.is_empty() || ours {
                continue;
            }
            if !kept.is_empty() {
                kept.push(b',');
            }
            kept.extend_from_slice(entry);
        }
    }
    if kept.is_empty() { None } else { HeaderValue::from_bytes(&kept).ok() }
}

fn set_forwarding(upstream: &mut HeaderMap, request: &Parts, facts: &Facts<'_>) {
    let said = |name: &HeaderName| {
        let line = request.headers.get(name).filter(|_| facts.trust_proxy)?;
        line.to_str().ok().map(str::trim)
    };
    let first = said(&FORWARDED_FOR).and_then(|line| line.split(',').next()?.trim().parse::<IpAddr>().ok());
    if let Ok(address) = HeaderValue::from_str(&first.unwrap_or(facts.peer).to_string()) {
        upstream.insert(FORWARDED_FOR, address);
    }
    let over_tls = request.extensions.get::<Tls>().is_some();
    let secure = match said(&FORWARDED_PROTO) {
        Some(scheme) if scheme.eq_ignore_ascii_case("https") => true,
        Some(scheme) if scheme.eq_ignore_ascii_case("http") => false,
        _ => over_tls,
    };
    upstream.insert(FORWARDED_PROTO, HeaderValue::from_static(if secure { "https" } else { "http" }));
    // A target in absolute form names the host, whatever the header says (RFC 9112 §3.2.2). Who asks is no part of it.
    let host = match request.uri.authority() {
        Some(authority) => {
            let named = authority.as_str();
            HeaderValue::from_str(named.rsplit_once('@').map_or(named, |(_, host)| host)).ok()
        }
        None => request.headers.get(HOST).cloned(),
    };
    if let Some(host) = host {
        upstream.insert(FORWARDED_HOST, host);
    }
}

#[cfg(test)]
mod t03_gateway_headers {
    use http::Request;

    use super::*;

    fn placed(header: &'static str) -> Placed {
        let value = Some(HeaderValue::from_static("the credential"));
        Placed { header: HeaderName::from_static(header), value, query: None, identity: None }
    }

    fn sent(lines: &[(&str, &str)], credential: &'static str, trust_proxy: bool) -> HeaderMap {
        let mut request = Request::builder().uri("/x").header("host", "gateway.example");
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let id = RequestId::parse(b"r-1").unwrap();
        let parent = HeaderValue::from_static("parent");
        let facts = Facts {
            peer: "192.0.2.7".parse().unwrap(),
            trust_proxy,
            id: &id,
            traceparent: Some(&parent),
            content_length: None,
        };
        headers(&parts, &placed(credential), &facts)
    }

    #[test]
    fn what_is_ours_or_of_one_hop_never_comes_from_the_caller() {
        for name in [
            "connection",
            "proxy-connection",
            "keep-alive",
            "proxy-authenticate",
            "proxy-authorization",
            "te",
            "trailer",
            "transfer-encoding",
            "upgrade",
            "x-caracal-identity",
            "X-Caracal-Anything",
            "x_caracal_identity",
            "x-caracal_x",
            "x-forwarded-server",
            "x_forwarded_user",
            "forwarded",
            "x-real-ip",
            "x_real_ip",
            "authorization",
            "x-api-key",
            "X_Api_Key",
            "expect",
            "proxy",
            "proxy-x",
            "x-http-method-override",
            "X-HTTP-Method",
            "x-method-override",
            "x_http_method_override",
            "x-original-url",
            "x-rewrite-url",
            "content_length",
            "transfer_encoding",
            // Some stacks fold every character that is no letter or digit into one.
            "x.caracal.identity",
            "x~forwarded~for",
            "x!api!key",
            "x-http.method'override",
            "x-|ttp-method-override",
            "x^real|ip",
        ] {
            let upstream = sent(&[(name, "forged")], "x-api-key", false);
            assert!(!upstream.values().any(|value| value == "forged"), "{name}");
        }
    }

    #[test]
    fn everything_else_passes_with_its_repetitions() {
        for name in [
            "cookie",
            "via",
            "accept-encoding",
            "range",
            "if-none-match",
            "tracestate",
            "mcp-session-id",
            "user-agent",
            "sec-websocket-key",
            "content-type",
            "x-custom_name",
            "accept",
        ] {
            let upstream = sent(&[(name, "one"), (name, "two")], "authorization", false);
            assert_eq!(upstream.get_all(name).iter().collect::<Vec<_>>(), ["one", "two"], "{name}");
        }
        assert!(sent(&[], "authorization", false).get("user-agent").is_none());
        assert!(sent(&[], "authorization", false).get("accept-encoding").is_none());
    }

    #[test]
    fn names_on_every_connection_line_are_of_one_hop() {
        let lines = [
            ("connection", "X-Hop, close"),
            ("connection", "x_other, x.third"),
            ("x-hop", "1"),
            ("x-other", "1"),
            ("x_third", "1"),
        ];
        let upstream = sent(&lines, "authorization", false);
        for name in ["x-hop", "x-other", "x_third"] {
            assert!(upstream.get(name).is_none(), "{name}");
        }
    }

    #[test]
    fn a_target_in_absolute_form_names_the_host_without_its_user() {
        for (target, host) in [
            ("http://other.example:81/x", "other.example:81"),
            ("http://user:password@other.example/x", "other.example"),
            ("/x", "gateway.example"),
        ] {
            let request = Request::builder().uri(target).header("host", "gateway.example");
            let (parts, ()) = request.body(()).unwrap().into_parts();
            let id = RequestId::parse(b"r-1").unwrap();
            let peer = "192.0.2.7".parse().unwrap();
            let facts = Facts { peer, trust_proxy: false, id: &id, traceparent: None, content_length: None };
            let upstream = headers(&parts, &placed("authorization"), &facts);
            assert_eq!(upstream["x-forwarded-host"], host, "{target}");
        }
    }

    #[test]
    fn the_gateway_sets_its_own() {
        let forged = [
            ("x-request-id", "forged"),
            ("traceparent", "forged"),
            ("x-forwarded-for", "203.0.113.10"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "forged"),
        ];
        let upstream = sent(&forged, "authorization", false);
        for (name, expected) in [
            ("x-request-id", "r-1"),
            ("traceparent", "parent"),
            ("x-forwarded-for", "192.0.2.7"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "gateway.example"),
            ("authorization", "the credential"),
        ] {
            assert_eq!(upstream.get_all(name).iter().collect::<Vec<_>>(), [expected], "{name}");
        }
    }

    #[test]
    fn a_trusted_proxy_is_believed_when_it_makes_sense() {
        for (address, expected) in
            [("203.0.113.10, 10.0.0.2", "203.0.113.10"), ("junk", "192.0.2.7"), ("", "192.0.2.7"), ("::1", "::1")]
        {
            let upstream = sent(&[("x-forwarded-for", address)], "authorization", true);
            assert_eq!(upstream["x-forwarded-for"], expected, "{address}");
        }
        for (scheme, expected) in [("HTTPS", "https"), ("http", "http"), ("gopher", "http")] {
            assert_eq!(sent(&[("x-forwarded-proto", scheme)], "authorization", true)["x-forwarded-proto"], expected);
        }
    }

    #[test]
    fn baggage_loses_what_poses_as_ours() {
        for (lines, expected) in [
            (&["caracal.hop=1, t=1", "caracal.session=x"][..], Some("t=1")),
            (&["caracal.hop=1", " caracal.x=2 ,, "], None),
            (&["a=1", " b=2;p , c"], Some("a=1,b=2;p,c")),
            (&["xcaracal.hop=1,Caracal.hop=2"], Some("xcaracal.hop=1")),
        ] {
            let lines: Vec<(&str, &str)> = lines.iter().map(|line| ("baggage", *line)).collect();
            let upstream = sent(&lines, "authorization", false);
            assert_eq!(upstream.get("baggage").map(|value| value.to_str().unwrap()), expected);
        }
    }
}
