//! Where a request belongs: the caller's trace (W3C Trace Context), and the span that stands for the request here
//! (contract: sts.md §15, gateway.md §4, coordinator.md §1, admin-api.md §1.2).
//!
//! The span does two things. Every log line written while the request is worked on gets its ids from it, so that one
//! search finds them all. And where the process exports traces, it is what is exported; where it does not, nothing is
//! formatted for it but those ids.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use tracing::Span;
use tracing::field::Empty;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::redact;
use crate::request_id::RequestId;

/// `traceparent`.
pub const HEADER: HeaderName = HeaderName::from_static("traceparent");

/// The target of every span of this module: what a subscriber selects them by.
pub const TARGET: &str = "caracal::request";

/// The attribute that names the service a span belongs to: one process may run several.
pub const SERVICE: &str = "caracal.service";

/// A valid `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent<'a> {
    trace_id: &'a str,
    span_id: &'a str,
    flags: u8,
}

impl<'a> TraceParent<'a> {
    /// Reads one: 32 and 16 lower-case hexadecimal digits, neither all zero; version `00` has exactly four fields, higher
    /// ones may have more, `ff` is none (contract: gateway.md §4).
    pub fn parse(line: &'a HeaderValue) -> Option<Self> {
        let mut fields = line.to_str().ok()?.split('-');
        let mut next = |len: usize| fields.next().filter(|field| field.len() == len && field.bytes().all(is_lower_hex));
        let (version, trace_id, span_id, flags) = (next(2)?, next(32)?, next(16)?, next(2)?);
        let is_zero = |field: &str| field.bytes().all(|byte| byte == b'0');
        let well_versed = if version == "00" { fields.next().is_none() } else { version != "ff" };
        let flags = u8::from_str_radix(flags, 16).ok()?;
        (well_versed && !is_zero(trace_id) && !is_zero(span_id)).then_some(Self { trace_id, span_id, flags })
    }

    /// The only valid one among a request's headers. Two of them are none: nobody could say which is meant.
    pub fn of(headers: &'a HeaderMap) -> Option<Self> {
        let mut lines = headers.get_all(HEADER).iter();
        match (lines.next(), lines.next()) {
            (Some(line), None) => Self::parse(line),
            _ => None,
        }
    }

    /// The trace, 32 hexadecimal digits.
    pub fn trace_id(&self) -> &'a str {
        self.trace_id
    }

    fn context(&self) -> Option<SpanContext> {
        let trace = TraceId::from_hex(self.trace_id).ok()?;
        let span = SpanId::from_hex(self.span_id).ok()?;
        Some(SpanContext::new(trace, span, TraceFlags::new(self.flags), true, TraceState::default()))
    }
}

fn is_lower_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

/// The span of a request to `service`. Of its target only the path is in it, and that redacted: a query may be secret.
///
/// It is at the level of errors so that no log level switches it off: an error's line needs its ids most.
pub fn request(service: &'static str, method: &Method, path: &str, headers: &HeaderMap, id: &RequestId) -> Span {
    let span = tracing::error_span!(
        target: TARGET,
        "request",
        otel.name = %method,
        otel.kind = "server",
        otel.status_code = Empty,
        caracal.service = service,
        http.request.method = %method,
        http.response.status_code = Empty,
        url.path = %Redacted(path),
        request_id = %id,
        trace_id = Empty,
        span_id = Empty,
    );
    let parent = TraceParent::of(headers);
    if let Some(context) = parent.and_then(|parent| parent.context()) {
        // Without an exporter there is nothing to be a parent of.
        let _ = span.set_parent(opentelemetry::Context::new().with_remote_span_context(context));
    }
    let context = span.context();
    let own = context.span().span_context().clone();
    if own.is_valid() {
        span.record("trace_id", own.trace_id().to_string());
        span.record("span_id", own.span_id().to_string());
    } else if let Some(parent) = parent {
        span.record("trace_id", parent.trace_id);
        span.record("span_id", parent.span_id);
    }
    span
}

/// A part of a request's work that somebody who reads a trace wants to see by itself, `name`d in the words of the docs.
pub fn step(service: &'static str, name: &'static str) -> Span {
    tracing::error_span!(target: TARGET, "step", otel.name = name, caracal.service = service)
}

/// A call of `service` to a server, by its host and port. Its target is not in it: path and query may be secret.
pub fn call(service: &'static str, name: &'static str, method: &Method, (host, port): (&str, u16)) -> Span {
    tracing::error_span!(
        target: TARGET,
        "call",
        otel.name = name,
        otel.kind = "client",
        otel.status_code = Empty,
        caracal.service = service,
        "error.type" = Empty,
        http.request.method = %method,
        http.response.status_code = Empty,
        server.address = host,
        server.port = i64::from(port),
    )
}

/// Says what a call returned. To its caller, a refusal is an error, too (OpenTelemetry, HTTP spans of clients).
pub fn returned(span: &Span, status: StatusCode) {
    span.record("http.response.status_code", i64::from(status.as_u16()));
    if status.is_client_error() || status.is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
}

/// Says why a call returned nothing, by one of a few names.
pub fn failed(span: &Span, why: &'static str) {
    span.record("error.type", why);
    span.record("otel.status_code", "ERROR");
}

/// Says how a request ended. Only what is this side's fault is an error (OpenTelemetry, HTTP spans of servers).
pub fn answered(span: &Span, status: StatusCode) {
    span.record("http.response.status_code", i64::from(status.as_u16()));
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
}

/// The `traceparent` by which another process continues the trace of the work at hand; `None` where traces are not
/// exported.
pub fn onward() -> Option<HeaderValue> {
    let context = Span::current().context();
    let span = context.span().span_context().clone();
    let (trace_id, span_id, flags) = (span.trace_id(), span.span_id(), span.trace_flags().to_u8());
    span.is_valid().then(|| HeaderValue::from_str(&format!("00-{trace_id}-{span_id}-{flags:02x}")).ok())?
}

struct Redacted<'a>(&'a str);

impl fmt::Display for Redacted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&redact::field("path", self.0, redact::DEFAULT_MAX_BYTES))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    fn parsed(lines: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(HEADER, line.parse().unwrap());
        }
        TraceParent::of(&headers).map(|parent| format!("{} {} {}", parent.trace_id, parent.span_id, parent.flags))
    }

    #[test]
    fn a_parent_is_read_where_the_standard_calls_it_one() {
        let valid = format!("00-{TRACE}-{SPAN}-01");
        assert_eq!(parsed(&[&valid]), Some(format!("{TRACE} {SPAN} 1")));
        assert!(parsed(&[&format!("01-{TRACE}-{SPAN}-00-more")]).is_some());
        for bad in [
            String::new(),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{}-{SPAN}-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00-{TRACE}-{SPAN}-0g"),
            format!("0-{TRACE}-{SPAN}-01"),
        ] {
            assert_eq!(parsed(&[&bad]), None, "{bad}");
        }
        assert_eq!(parsed(&[&valid, &valid]), None, "two parents are none");
    }

    #[test]
    fn without_an_exporter_there_is_nothing_to_continue() {
        let id = RequestId::parse(b"r").unwrap();
        let span = request("caracal-sts", &Method::GET, "/health", &HeaderMap::new(), &id);
        assert_eq!(span.in_scope(onward), None);
    }
}
