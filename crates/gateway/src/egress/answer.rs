//! The upstream has answered: what the caller gets of it (contract: gateway.md §10.6, §17).

use std::sync::Arc;

use caracal_authority::Timestamp;
use caracal_http::server::Takeover;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, TE, TRAILER};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version};
use http_body::Body;
use hyper::body::Incoming;
use tokio::time::Instant;

use super::bounds::Bounds;
use super::{Kind, response, websocket::Handshake};
use crate::Gateway;
use crate::evidence::{Attempt, Outcome};
use crate::outgoing::Answer;
use crate::relay::{Ending, Patience, RelayBody};
use crate::revocation::Watch;
use crate::tunnel::Tunnel;
use crate::upload::{Pulse, Upload};

const EXPIRES_IN: HeaderName = HeaderName::from_static("x-caracal-token-expires-in");
const REVOKED: &str = "X-Caracal-Revoked";

/// What is known of a call when its response comes.
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) version: Version,
    /// Whether the caller reads fields behind a body.
    pub(super) takes_trailers: bool,
    pub(super) kind: Kind,
    pub(super) upload: Arc<Upload>,
    pub(super) pulse: Arc<Pulse>,
    pub(super) bounds: Bounds,
    /// When the presented mandate ends.
    pub(super) expires_at: Timestamp,
}

/// Whether a caller has said that it reads fields behind a body, as every caller of HTTP/2 does.
pub(super) fn takes_trailers(version: Version, headers: &HeaderMap) -> bool {
    let said = |line: &HeaderValue| {
        let codings = line.to_str().unwrap_or_default().split(',');
        codings.into_iter().any(|coding| coding.trim().eq_ignore_ascii_case("trailers"))
    };
    version == Version::HTTP_2 || headers.get_all(TE).iter().any(said)
}

/// Turns an upstream's response into the caller's.
pub(super) fn relay(
    gateway: &Gateway,
    asked: Asked,
    mut upstream: Response<Incoming>,
    mut attempt: Attempt,
    watch: Watch,
) -> Answer {
    let upgrade = hyper::upgrade::on(&mut upstream);
    let (head, body) = upstream.into_parts();
    let mut relayed = Response::new(());
    *relayed.status_mut() = head.status;
    *relayed.headers_mut() = response::headers(&head.headers);
    let headers = relayed.headers_mut();
    let left = asked.expires_at.as_seconds() - gateway.store.now().as_seconds();
    if left >= 0 {
        headers.insert(EXPIRES_IN, HeaderValue::from(left));
    }
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        Handshake::put_into(headers);
        let until = Instant::now() + gateway.store.now().until(asked.expires_at);
        let (idle, metrics) = (asked.bounds.idle, gateway.metrics.clone());
        let tunnel = Tunnel { attempt, watch, idle, until, metrics };
        relayed.extensions_mut().insert(Takeover::new(|taken| tunnel.run(upgrade, taken)));
        return relayed.map(|()| None);
    }
    let announced = response::announced(&head.headers).filter(|_| asked.takes_trailers);
    let trailer = announced.fold(REVOKED.to_owned(), |line, name| format!("{line}, {name}"));
    headers.insert(TRAILER, HeaderValue::from_str(&trailer).unwrap_or(HeaderValue::from_static(REVOKED)));
    let bodiless = asked.method == Method::HEAD
        || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED | StatusCode::RESET_CONTENT);
    let length = body.size_hint().exact();
    if bodiless || body.is_end_stream() {
        let length = if bodiless { response::length_without_body(&head.headers) } else { length };
        // A response of HTTP/2 that ends with its head, as those of gRPC that failed do, promises no length.
        let unsaid = head.status == StatusCode::NO_CONTENT || asked.kind == Kind::Grpc;
        if let Some(length) = length.filter(|_| !unsaid) {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        attempt.end(Outcome::Executed);
        return relayed.map(|()| None);
    }
    if let Some(length) = length {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    let streaming = length.is_none() || is_event_stream(headers.get(CONTENT_TYPE));
    let patience =
        Patience { idle: asked.bounds.idle, pulse: asked.pulse, progress: (!streaming).then_some(asked.bounds.write) };
    let ending = match (length, asked.version) {
        (None, Version::HTTP_11) => Ending::Chunked,
        (None, Version::HTTP_2) => Ending::Trailers { grpc: asked.kind == Kind::Grpc },
        _ => Ending::BrokenOff,
    };
    let body = RelayBody::new(body, watch, attempt, asked.upload, patience, ending);
    relayed.map(|()| Some(Box::new(body)))
}

fn is_event_stream(content_type: Option<&HeaderValue>) -> bool {
    super::essence(content_type).is_some_and(|essence| essence.eq_ignore_ascii_case("text/event-stream"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_stream_is_one_whatever_its_parameters() {
        let is = |text: &'static str| is_event_stream(Some(&HeaderValue::from_static(text)));
        assert!(is("text/event-stream") && is("Text/Event-Stream; charset=utf-8"));
        assert!(!is("text/event-streams") && !is("application/json") && !is_event_stream(None));
    }

    #[test]
    fn fields_behind_a_body_are_read_by_who_says_so_and_over_http2() {
        let said = |version, line: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(TE, HeaderValue::from_static(line));
            takes_trailers(version, &headers)
        };
        assert!(said(Version::HTTP_11, "trailers") && said(Version::HTTP_11, "gzip, Trailers"));
        assert!(said(Version::HTTP_2, "") && !said(Version::HTTP_11, "gzip"));
        assert!(!takes_trailers(Version::HTTP_11, &HeaderMap::new()));
    }
}
