//! Trace context (contract: gateway.md §4): a caller's `traceparent` is passed on when it is one, else replaced.

use caracal_crypto::chance;
use caracal_crypto::encoding::hex;
use caracal_http::trace::{TraceParent, onward};
use http::{HeaderMap, HeaderValue};

/// `traceparent`.
pub(crate) use caracal_http::trace::HEADER as TRACEPARENT;

/// The `traceparent` that goes upstream: the caller's only one when it is valid, else one of our own, independent of the
/// request's id. `None` only when the system has no randomness.
pub(crate) fn parent(headers: &HeaderMap) -> Option<HeaderValue> {
    match TraceParent::of(headers) {
        Some(_) => headers.get(TRACEPARENT).cloned(),
        // Where traces are exported, the upstream's part belongs to ours.
        None => onward().or_else(fresh),
    }
}

/// The trace's id: second field of a `traceparent`.
pub(crate) fn trace_id(parent: &HeaderValue) -> Option<&str> {
    parent.to_str().ok()?.split('-').nth(1)
}

fn fresh() -> Option<HeaderValue> {
    // A zero span, which would be none, comes up once in 2^64 draws.
    let ids = chance::random_bytes::<24>().ok()?;
    let (trace, span) = ids.split_at(16);
    HeaderValue::from_str(&format!("00-{}-{}-01", hex(trace), hex(span))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    fn passed_on(lines: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(TRACEPARENT, line.parse().unwrap());
        }
        let parent = parent(&headers).unwrap();
        assert!(TraceParent::parse(&parent).is_some(), "{parent:?}");
        lines.first().is_some_and(|line| parent == *line)
    }

    #[test]
    fn valid_parents_are_passed_on() {
        for parent in [
            format!("00-{TRACE}-{SPAN}-01"),
            format!("00-{TRACE}-{SPAN}-ff"),
            format!("01-{TRACE}-{SPAN}-01-more"),
            format!("fe-{TRACE}-{SPAN}-00-"),
        ] {
            assert!(passed_on(&[&parent]), "{parent}");
        }
    }

    #[test]
    fn anything_else_is_replaced() {
        for parent in [
            String::new(),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("00-{TRACE}-{SPAN}-0"),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{}-{SPAN}-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00-{}-{SPAN}-01", &TRACE[1..]),
            format!("0-{TRACE}-{SPAN}-01"),
        ] {
            assert!(!passed_on(&[&parent]), "{parent}");
        }
        let twice = format!("00-{TRACE}-{SPAN}-01");
        assert!(!passed_on(&[&twice, &twice]));
        assert!(!passed_on(&[]));
    }

    #[test]
    fn a_fresh_parent_names_a_fresh_trace() {
        let (one, two) = (parent(&HeaderMap::new()).unwrap(), parent(&HeaderMap::new()).unwrap());
        assert_eq!(trace_id(&one).unwrap().len(), 32);
        assert_ne!(trace_id(&one), trace_id(&two));
    }
}
