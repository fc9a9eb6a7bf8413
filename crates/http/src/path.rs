//! Request paths at the Gateway (contract: gateway.md §2.1 and §7).
//!
//! Between the path that is authorised and the path that an upstream acts on stand other parsers: the browser that
//! follows a redirect, the framework that decodes once more, the file system that resolves `..`. Two pure functions take
//! their freedom away. [`canonical`] cleans the raw path lexically, before anything else; [`check`] then refuses
//! whatever would still mean something else after any number of decodings.

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::percent::{self, Plus};

/// Decoding passes after which a path is refused. Nobody encodes eight times for a reason, and without a bound a path of
/// `%252525…` costs time that grows with the square of its length.
const MAX_DECODINGS: usize = 8;

/// What lexical cleaning says about a raw path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Canonical {
    /// The path is what it seems.
    Clean,
    /// Answer 307 with this `Location`: an absolute path on the same origin, query included.
    Redirect(String),
}

/// Cleans the raw, still encoded `path`: leading `/` ensured, repeated `/` collapsed, `.` dropped, `..` resolved and
/// never above the root, a trailing `/` kept. Encoded dots and slashes are no separators here, and escapes stay as they
/// are.
///
/// The location never begins with `//` or with a backslash behind its slash, both of which browsers take for a host.
pub fn canonical(path: &str, query: Option<&str>) -> Canonical {
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            other => segments.push(other),
        }
    }
    let mut cleaned = String::with_capacity(path.len() + 1);
    for segment in &segments {
        cleaned.push('/');
        cleaned.push_str(segment);
    }
    if segments.is_empty() || path.ends_with('/') {
        cleaned.push('/');
    }
    if cleaned == path {
        return Canonical::Clean;
    }
    let mut location = header_safe(&cleaned);
    if let Some(query) = query.filter(|query| !query.is_empty()) {
        location.push('?');
        location.push_str(&header_safe(query));
    }
    Canonical::Redirect(location)
}

/// Escapes what may not stand in a `Location`: backslash, space, control and non-ASCII bytes. `%` stays: encoding it
/// again would point somewhere else.
fn header_safe(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for byte in text.bytes() {
        if matches!(byte, 0x21..=0x7e) && byte != b'\\' {
            safe.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(safe, "%{byte:02X}");
        }
    }
    safe
}

/// Why a path is not forwarded: 400 `invalid_token` "path traversal not permitted".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnsafePath {
    /// `%` without two hex digits, in the path itself or after decoding.
    #[error("bad percent-encoding in the path")]
    BadEscape,
    /// A backslash, which some systems take for a slash.
    #[error("backslash in the path")]
    Backslash,
    /// A segment that is `.` or `..`.
    #[error("dot segment in the path")]
    DotSegment,
    /// Encoded more often than any honest path.
    #[error("path is encoded too many times")]
    TooManyEncodings,
}

/// Whether the raw `path` (query excluded) still means the same after every further decoding; `+` is literal.
pub fn check(path: &str) -> Result<(), UnsafePath> {
    let mut current = Cow::Borrowed(path.as_bytes());
    for _ in 0..MAX_DECODINGS {
        let decoded = percent::decode(&current, Plus::Literal).ok_or(UnsafePath::BadEscape)?;
        if decoded.contains(&b'\\') {
            return Err(UnsafePath::Backslash);
        }
        // Borrowed means that there was no escape left.
        let Cow::Owned(changed) = decoded else {
            let dots = |segment: &[u8]| segment == b"." || segment == b"..";
            return if current.split(|byte| *byte == b'/').any(dots) { Err(UnsafePath::DotSegment) } else { Ok(()) };
        };
        current = Cow::Owned(changed);
    }
    Err(UnsafePath::TooManyEncodings)
}

#[cfg(test)]
mod t03_gateway_path {
    use http::Uri;
    use proptest::prelude::*;

    use super::*;

    fn redirected(path: &str) -> Option<String> {
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        match canonical(path, query) {
            Canonical::Clean => None,
            Canonical::Redirect(location) => Some(location),
        }
    }

    #[test]
    fn unclean_paths_are_sent_to_their_clean_form() {
        for (path, location) in [
            ("/v1/../admin", "/admin"),
            ("/a//b/", "/a/b/"),
            ("/a/.", "/a"),
            ("/a/./", "/a/"),
            ("/a/..", "/"),
            ("/a/b/..", "/a"),
            ("/../../x", "/x"),
            ("/..", "/"),
            ("", "/"),
            ("a", "/a"),
            ("//", "/"),
            ("//evil.example/x", "/evil.example/x"),
            ("///evil.example", "/evil.example"),
            ("/./\\evil.example", "/%5Cevil.example"),
            ("/a%20b//c", "/a%20b/c"),
            ("/a//b?x=%2F&y=//..", "/a/b?x=%2F&y=//.."),
            ("/a//b?", "/a/b"),
            ("/ä//b", "/%C3%A4/b"),
            ("/a//\r\nSet-Cookie: x", "/a/%0D%0ASet-Cookie:%20x"),
        ] {
            assert_eq!(redirected(path).as_deref(), Some(location), "{path}");
        }
    }

    #[test]
    fn clean_paths_and_encoded_separators_are_left_alone() {
        for path in ["/", "/a", "/a/", "/a/%2e%2e/b", "/a%2Fb", "/...", "/a..b", "/..a", "/.env", "/a?x=//../", "/\\x"]
        {
            assert_eq!(redirected(path), None, "{path}");
        }
    }

    #[test]
    fn whatever_still_means_something_else_is_refused() {
        for (path, expected) in [
            ("/a/%2e%2e/b", UnsafePath::DotSegment),
            ("/a/%2e./b", UnsafePath::DotSegment),
            ("/a/%252e%252e/b", UnsafePath::DotSegment),
            ("/a/..%2fb", UnsafePath::DotSegment),
            ("/a/%2e", UnsafePath::DotSegment),
            ("/..", UnsafePath::DotSegment),
            ("/a%5cb", UnsafePath::Backslash),
            ("/a%255cb", UnsafePath::Backslash),
            ("/a\\b", UnsafePath::Backslash),
            ("/100%25", UnsafePath::BadEscape),
            ("/%2525", UnsafePath::BadEscape),
            ("/%zz", UnsafePath::BadEscape),
            ("/%", UnsafePath::BadEscape),
            ("/%2", UnsafePath::BadEscape),
            ("/%u002e", UnsafePath::BadEscape),
            ("/%25252525252525252541", UnsafePath::TooManyEncodings),
        ] {
            assert_eq!(check(path), Err(expected), "{path}");
        }
    }

    #[test]
    fn odd_but_harmless_paths_pass() {
        for path in [
            "/",
            "",
            "/..;/x",
            "/.../x",
            "/foo..bar",
            "/.env",
            "/a%00/b",
            "/a%0d%0ab",
            "/a%2Fb",
            "/a;b=1/c",
            "/a+b",
            "/%2541",
            "/ä",
            "/%ff",
        ] {
            assert_eq!(check(path), Ok(()), "{path}");
        }
    }

    #[test]
    fn t08_availability_a_path_of_escaped_escapes_is_cheap() {
        assert_eq!(check(&format!("/%{}41", "25".repeat(30_000))), Err(UnsafePath::TooManyEncodings));
    }

    proptest! {
        #[test]
        fn a_location_is_a_clean_path_on_this_origin(path in r"/?[/.a%2eE5cC\\ä]{0,24}") {
            if let Canonical::Redirect(location) = canonical(&path, None) {
                prop_assert!(location.starts_with('/') && !location.starts_with("//") && !location.contains('\\'));
                prop_assert!(location.parse::<Uri>().is_ok());
                prop_assert_eq!(canonical(&location, None), Canonical::Clean);
                let base = url::Url::parse("https://gateway.example/").unwrap();
                let host = base.join(&location).unwrap().host_str().map(str::to_owned);
                prop_assert_eq!(host.as_deref(), Some("gateway.example"));
            }
        }

        /// The reader that most upstreams and clients are written after resolves nothing in a path that is let through: it
        /// sees the segments that we see.
        #[test]
        fn a_path_that_passes_is_the_same_place_to_the_url_standard(path in r"/(/|[.]|%2e|%2E|%2f|%5c|%25|[ab;:@&=+$,!~*'()|^-]){0,10}") {
            if canonical(&path, None) == Canonical::Clean && check(&path).is_ok() && path.parse::<Uri>().is_ok() {
                let standard = url::Url::parse(&format!("https://upstream.example{path}")).unwrap();
                prop_assert_eq!(standard.host_str(), Some("upstream.example"));
                // It writes a few characters as escapes; what they are stays the same.
                let decoded = |text: &str| percent::decode(text.as_bytes(), Plus::Literal).unwrap().into_owned();
                let segments = |path: &str| path.split('/').map(decoded).collect::<Vec<_>>();
                prop_assert_eq!(segments(standard.path()), segments(&path));
                let joined = url::Url::parse("https://upstream.example/base/").unwrap().join(&path).unwrap();
                prop_assert_eq!(joined, standard);
            }
        }

        #[test]
        fn a_safe_path_has_no_dot_segment_at_any_depth_of_decoding(path in r"/[/.a%2eE5cCfF\\]{0,24}") {
            if check(&path).is_ok() {
                let mut current = path.into_bytes();
                loop {
                    prop_assert!(!current.split(|byte| *byte == b'/').any(|segment| segment == b".." || segment == b"."));
                    prop_assert!(!current.contains(&b'\\'));
                    match percent::decode(&current, Plus::Literal) {
                        Some(Cow::Owned(next)) => current = next,
                        Some(Cow::Borrowed(_)) => break,
                        None => prop_assert!(false, "bad escape"),
                    }
                }
            }
        }
    }
}
