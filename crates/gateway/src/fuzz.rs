//! The rules for what callers send, from the bytes of a connection to the request that would go upstream, without anything that
//! decides: what the fuzz target `gateway/ingress` drives, and the tests with its corpus.
//!
//! Whatever comes in, one of three things comes out: no head, an answer of our own, or a request about which everything here
//! holds that its permit would rely on.

mod strict;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use caracal_crypto::Secret;
use caracal_http::egress::{TargetUrl, folded};
use caracal_http::server::{Limits, Socket, serve_socket};
use caracal_http::{FreshId, PeerAddr, RequestId, path};
use http::header::{CONTENT_LENGTH, CONTENT_LOCATION, LOCATION};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri};
use http_body::Body;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

use crate::egress::{self, credential, request, response, target};
use crate::exchange::Directive;
use crate::ingress;
use crate::trace;

const OURS: &str = "of-the-provider";
const BASES: [&str; 3] = ["http://up.example/", "https://up.example:8443/base/", "http://up.example/base?fixed=1"];

/// Serves `connection` as a listener does and holds every head that comes through to the rules. Panics where one is broken.
pub fn ingress(connection: &[u8]) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_time().build() else { return };
    let _timers = runtime.enter();
    let served = served(connection, usize::MAX);
    unambiguous(connection, &served);
    let asked = |served: &Served| {
        let Served { head, length, whole } = served;
        (head.method.clone(), head.uri.clone(), head.headers.clone(), *length, *whole)
    };
    let whole: Vec<_> = served.iter().map(asked).collect();
    for size in [1, 7] {
        let again: Vec<_> = self::served(connection, size).iter().map(asked).collect();
        assert_eq!(again, whole, "in pieces of {size}, something else is served");
    }
    for Served { head, length, .. } in served {
        request_head(head, length);
    }
}

/// A request that reached the service.
struct Served {
    head: Parts,
    length: Option<u64>,
    /// The body came to its end.
    whole: bool,
}

/// Whatever is served stands where a reader who forgives nothing finds a head, and says the same; and a body that came to its
/// end has one for that reader too.
#[allow(clippy::panic, reason = "what fuzzing drives fails by panicking")]
fn unambiguous(connection: &[u8], served: &[Served]) {
    let mut strict = strict::heads(connection).into_iter();
    for Served { head, whole, .. } in served {
        let Some(found) = strict.next() else { panic!("an ambiguous head is served: {head:?}") };
        assert_eq!(head.method.as_str().as_bytes(), found.method);
        assert_eq!(Some(&head.uri), Uri::try_from(found.target).ok().as_ref());
        assert_eq!(head.headers, found.fields);
        assert!(!whole || found.whole, "a body ends where another reader sees no end: {head:?}");
    }
}

/// What a listener passes on of a connection whose bytes come in pieces of this size.
fn served(connection: &[u8], size: usize) -> Vec<Served> {
    let heads = Arc::new(Mutex::new(Vec::<Served>::new()));
    let seen = heads.clone();
    let service = tower::service_fn(move |request: Request<Incoming>| {
        let (head, body) = request.into_parts();
        let seen = seen.clone();
        let length = body.size_hint().exact();
        seen.lock().unwrap_or_else(PoisonError::into_inner).push(Served { head, length, whole: false });
        async move {
            let whole = body.collect().await.is_ok();
            // The latest is this one: the next is not looked at before it is answered.
            if let Some(served) = seen.lock().unwrap_or_else(PoisonError::into_inner).last_mut() {
                served.whole = whole;
            }
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let wire = Box::new(Wire { bytes: connection.iter().copied().collect(), size, closed: false });
    let (_stop, stopped) = watch::channel(false);
    let peer = PeerAddr((Ipv4Addr::LOCALHOST, 1).into());
    let fresh = FreshId::new(|| "fresh".to_owned());
    let woken = Arc::new(Woken(AtomicBool::new(true)));
    let waker = Waker::from(woken.clone());
    let mut serving = pin!(serve_socket(wire, peer, service, fresh, Limits::default(), stopped));
    // As far as these bytes carry; then it would wait for more, or for a clock.
    while woken.0.swap(false, Ordering::Relaxed) && serving.as_mut().poll(&mut Context::from_waker(&waker)).is_pending()
    {
    }
    let mut heads = heads.lock().unwrap_or_else(PoisonError::into_inner);
    std::mem::take(&mut *heads)
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A caller who takes every answer and stays until the other side closes.
struct Wire {
    bytes: VecDeque<u8>,
    size: usize,
    closed: bool,
}

impl Socket for Wire {
    fn break_off(&self) {}
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let count = self.size.min(self.bytes.len()).min(buffer.remaining());
        if count == 0 && !self.closed {
            return Poll::Pending;
        }
        let piece: Vec<u8> = self.bytes.drain(..count).collect();
        buffer.put_slice(&piece);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.closed = true;
        Poll::Ready(Ok(()))
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

    /// The two readers agree about the good, or their disagreement would mean nothing.
    #[test]
    fn t03_gateway_ingress_good_requests_are_served_one_behind_the_other() {
        let seeds = caracal_testkit::corpora::committed(env!("CARGO_MANIFEST_DIR"), "ingress");
        let (mut served, mut most) = (0, 0);
        for case in caracal_testkit::corpora::requests().into_iter().filter(|case| case.verdict == "two") {
            let heads = super::strict::heads(&case.bytes).len();
            assert_eq!((heads, count(&case.bytes)), (2, 2), "{}", case.name);
        }
        for seed in seeds {
            let count = count(&seed);
            served += usize::from(count > 0);
            most = most.max(count);
        }
        assert!(served >= 8 && most >= 4, "{served}, {most}");
    }

    fn count(connection: &[u8]) -> usize {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _timers = runtime.enter();
        super::served(connection, 1).len()
    }

    /// What others were misled by, alone and behind each other.
    #[test]
    fn t03_gateway_ingress_no_request_that_two_readers_cut_in_two_ways_is_served() {
        let cases = caracal_testkit::corpora::requests();
        for case in &cases {
            super::ingress(&case.bytes);
            for good in [
                "GET /a HTTP/1.1\r\nHost: g\r\n\r\n",
                "POST /a HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
            ] {
                super::ingress(&[good.as_bytes(), &case.bytes].concat());
            }
        }
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
