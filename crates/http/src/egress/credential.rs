//! Where a credential may travel (contract: gateway.md §15.4, admin-api.md §5): asked when a provider is saved and again
//! when its credential is placed.

use std::borrow::Cow;

use http::HeaderName;

/// Headers that frame, route, trace or forward: a credential in one of them would be lost, break the request, or be
/// taken for something else.
const RESERVED: [&str; 18] = [
    "baggage",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-real-ip",
    "x-request-id",
];

const RESERVED_PREFIXES: [&str; 3] = ["x-caracal-", "x-forwarded-", "proxy-"];

/// Whether a credential may travel in this header, in the eyes of careless readers too.
pub fn may_carry_credential(name: &HeaderName) -> bool {
    let name = folded(name.as_str());
    !RESERVED.contains(&&*name) && !RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// A lower-case header name as careless readers see it: whatever is neither letter nor digit counts as `-`.
pub fn folded(name: &str) -> Cow<'_, str> {
    if name.contains(is_folded) { Cow::Owned(name.replace(is_folded, "-")) } else { Cow::Borrowed(name) }
}

fn is_folded(character: char) -> bool {
    !character.is_ascii_alphanumeric() && character != '-'
}
