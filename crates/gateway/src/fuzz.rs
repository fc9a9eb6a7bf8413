//! The rules for what callers send, from the bytes of a connection to the request that would go upstream, without anything that
//! decides: what the fuzz target `gateway/ingress` drives, and the tests with its corpus.
//!
//! Whatever comes in, one of three things comes out: no head, an answer of our own, or a request about which everything here
//! holds that its permit would rely on.

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};

use bytes::Bytes;
use caracal_crypto::Secret;
use caracal_http::egress::{TargetUrl, folded};
use caracal_http::{RequestId, path};
use http::header::{CONTENT_LENGTH, CONTENT_LOCATION, LOCATION};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use crate::egress::{self, credential, request, response, target};
use crate::exchange::Directive;
use crate::ingress;
use crate::trace;

const OURS: &str = "of-the-provider";
const BASES: [&str; 3] = ["http://up.example/", "https://up.example:8443/base/", "http://up.example/base?fixed=1"];

/// Reads `connection` as a listener does and holds every head in it to the rules. Panics where one is broken.
pub fn ingress(connection: &[u8]) {
    let heads: RefCell<Vec<(Parts, Option<u64>)>> = RefCell::default();
    let service = service_fn(|request: Request<Incoming>| {
        let (parts, body) = request.into_parts();
        heads.borrow_mut().push((parts, body.size_hint().exact()));
        async { Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())) }
    });
    let io = TokioIo::new(tokio::io::join(connection, tokio::io::sink()));
    let mut server = http1::Builder::new();
    server.header_read_timeout(None);
    if let Ok(runtime) = tokio::runtime::Builder::new_current_thread().build() {
        // What is no HTTP is an error, which is as good an end as any.
        let _ = runtime.block_on(server.serve_connection(io, service));
    }
    for (head, length) in heads.into_inner() {
        request_head(head, length);
    }
}

/// One head, as the Gateway treats it.
fn request_head(mut head: Parts, length: Option<u64>) {
    ingress::settle_method(&mut head);
    assert!(!head.method.as_str().bytes().any(|byte| byte.is_ascii_lowercase()), "a method has one spelling");
    response_head(&head.headers);
    if let Some(answer) = ingress::settle_target(&head) {
        return ours(&answer);
    }
    let route = head.uri.path();
    assert!(route.starts_with('/') && !route.contains("//") && egress::escapes_are_whole(route), "{route}");
    if path::check(route).is_err() {
        return;
    }
    for base in BASES {
        for (mode, location) in [("provider_oauth", ""), ("provider_apikey", "query"), ("none", "")] {
            upstream(&head, length, base, mode, location);
        }
    }
}

/// An answer that cost nothing: never a way to another origin.
fn ours(answer: &Response<impl Body>) {
    let location = answer.headers().get(LOCATION).map(HeaderValue::as_bytes);
    match answer.status() {
        StatusCode::TEMPORARY_REDIRECT => {
            let location = location.unwrap_or_default();
            assert!(location.starts_with(b"/") && !location.starts_with(b"//") && !location.contains(&b'\\'));
        }
        other => assert!(location.is_none() && matches!(other.as_u16(), 200 | 400 | 404), "{other}"),
    }
}

/// The request that would go to `base`.
#[allow(clippy::panic, reason = "what fuzzing drives fails by panicking")]
fn upstream(head: &Parts, length: Option<u64>, base: &str, mode: &str, location: &str) {
    let directive = Directive {
        url: base.to_owned(),
        auth_mode: mode.to_owned(),
        auth_location: location.to_owned(),
        auth_header: "X-Api-Key".to_owned(),
        query_param_name: "key".to_owned(),
        provider_token: Some(Secret::new(OURS.to_owned())),
        ..Directive::default()
    };
    let access_token = Secret::new("a.b.c".to_owned());
    let (Ok(placed), Ok(place)) = (credential::place(&directive, &access_token), TargetUrl::parse(base)) else {
        panic!("a directive of ours is one")
    };
    let in_query = placed.query.as_deref().map(|name| (name, OURS));
    if let Ok(address) = target::address(&place, head.uri.path(), head.uri.query(), in_query) {
        assert_eq!(address.authority().map(http::uri::Authority::as_str), Some(place.authority()));
        let (sent, asked) = (address.path(), head.uri.path());
        assert!(sent.ends_with(asked) || asked == "/", "`{asked}` goes out byte for byte, not as `{sent}`");
        assert!(sent.starts_with(place.path().trim_end_matches('/')), "{sent}");
        let keys = address.query().unwrap_or_default().split('&').filter(|pair| pair.starts_with("key="));
        let keys: Vec<&str> = keys.collect();
        assert!(in_query.is_none() || keys == [format!("key={OURS}")], "{keys:?}");
    }
    let (Some(id), traceparent) = (RequestId::parse(b"r-1"), trace::parent(&head.headers)) else { return };
    let facts = request::Facts {
        peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
        trust_proxy: false,
        id: &id,
        traceparent: traceparent.as_ref(),
        content_length: length,
    };
    headers_upstream(&request::headers(head, &placed, &facts), &head.headers, &placed, &facts);
}

/// Nothing of one hop, nothing that poses as ours, our own once.
fn headers_upstream(sent: &HeaderMap, asked: &HeaderMap, placed: &credential::Placed, facts: &request::Facts<'_>) {
    let listed = request::listed_by_connection(asked);
    let set_here = ["x-request-id", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "content-length"];
    for name in sent.keys() {
        let plain = folded(name.as_str());
        assert!(!request::is_hop_by_hop(&plain) && !plain.starts_with("x-caracal-"), "{name}");
        assert!(!matches!(&*plain, "authorization" | "host" | "forwarded" | "x-real-ip" | "expect"), "{name}");
        assert!(!plain.contains("override") || !plain.contains("method"), "{name}");
        if set_here.contains(&&*plain) || plain.starts_with("x-forwarded-") {
            assert_eq!(*plain, *name.as_str(), "another spelling of what is set here");
            assert!(set_here.contains(&name.as_str()) && sent.get_all(name).iter().count() == 1, "{name}");
        } else if plain == "x-api-key" {
            assert_eq!(sent.get_all(name).iter().collect::<Vec<_>>(), placed.value.iter().collect::<Vec<_>>());
        } else {
            let is_ours = name == trace::TRACEPARENT;
            assert!(is_ours || !listed.iter().any(|listed| *listed == plain), "{name} was listed by Connection");
        }
    }
    assert_eq!(sent.get("x-request-id"), Some(&facts.id.to_header()));
    assert_eq!(sent.get(CONTENT_LENGTH).cloned(), facts.content_length.map(HeaderValue::from));
    let baggage = sent.get("baggage").map(HeaderValue::as_bytes).unwrap_or_default().to_ascii_lowercase();
    assert!(!baggage.split(|byte| *byte == b',').any(|entry| entry.trim_ascii().starts_with(b"caracal.")));
}

/// The same lines as an upstream's: it cannot speak as we do nor lead away.
fn response_head(given: &HeaderMap) {
    for passed in [response::headers(given), response::trailers(given)] {
        for (name, value) in &passed {
            let plain = folded(name.as_str());
            assert!(!request::is_hop_by_hop(&plain) && !plain.starts_with("x-caracal-"), "{name}");
            assert!(!matches!(&*plain, "server" | "refresh" | "x-request-id" | "content-length"), "{name}");
            let leads: &[HeaderName] = &[LOCATION, CONTENT_LOCATION];
            if leads.contains(name) {
                let scheme = value.as_bytes().split(|byte| matches!(byte, b'/' | b'?' | b'#')).next();
                assert!(!value.as_bytes().starts_with(b"//") && !scheme.unwrap_or_default().contains(&b':'));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    /// Every input that fuzzing begins with keeps the rules, and together they reach each kind of end.
    #[test]
    fn t03_gateway_ingress_the_corpus_keeps_every_rule() {
        let seeds = caracal_testkit::corpora::committed(env!("CARGO_MANIFEST_DIR"), "ingress");
        assert!(seeds.len() >= 10, "{}", seeds.len());
        seeds.iter().for_each(|seed| super::ingress(seed));
    }

    proptest::proptest! {
        #[test]
        fn t03_gateway_ingress_no_line_of_a_head_breaks_a_rule(
            name in "(x[-_]caracal|x-forwarded|proxy|connection|authorization|x_api_key|baggage|[a-zA-Z_.-]{1,12})[-_a-zA-Z]{0,8}",
            value in "[ -~]{0,24}",
            path in r"/[/.a%2eE5cC\\?&=;key-]{0,16}",
            method in "[a-zA-Z]{1,6}",
        ) {
            super::ingress(format!("{method} {path} HTTP/1.1\r\nHost: g\r\n{name}: {value}\r\nConnection: {value}\r\n\r\n").as_bytes());
        }
    }
}
