//! `application/x-www-form-urlencoded` as the STS accepts it (contract: sts.md §3.1; RFC 6749 §3.2: no parameter more
//! than once).
//!
//! Two parsers of one form must not see two requests. So everything on which they are known to disagree is refused: a
//! query string beside the body, a field that appears twice, `;` as a separator, escapes that are none, bytes that are
//! not UTF-8. The first failing rule, in the contract's order, is the answer.

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, Request, StatusCode};
use http_body::Body;
use zeroize::Zeroizing;

use crate::body::{self, BodyError, media_type};
use crate::percent::{self, Plus};
use crate::problem::Problem;

/// Largest form accepted, in bytes.
pub const MAX_BYTES: usize = 65_536;

/// Why a request carries no form. One variant per rule, in the order in which the rules apply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    /// Parameters in the target as well.
    #[error("query parameters are not accepted")]
    Query,
    /// Not, or not readably, `application/x-www-form-urlencoded`.
    #[error("content type must be application/x-www-form-urlencoded")]
    MediaType,
    /// More than [`MAX_BYTES`].
    #[error("request body too large")]
    TooLarge,
    /// Broken off, late or badly framed.
    #[error("request body could not be read")]
    Unreadable,
    /// A raw `;`, which some parsers take for `&`.
    #[error("a raw semicolon is not accepted")]
    Semicolon,
    /// `%` without two hex digits.
    #[error("bad percent-encoding")]
    Encoding,
    /// Decoded bytes that are not UTF-8.
    #[error("a field is not utf-8")]
    NotUtf8,
    /// This field, known or not, appears more than once.
    #[error("field `{0}` appears more than once")]
    Repeated(String),
}

impl FormError {
    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Query | Self::Unreadable | Self::Semicolon | Self::Encoding | Self::NotUtf8 | Self::Repeated(_) => {
                StatusCode::BAD_REQUEST
            }
        }
    }

    /// The code of the answer: the contract says `invalid_token` for every malformed request.
    pub fn code(&self) -> &'static str {
        if *self == Self::TooLarge { "payload_too_large" } else { "invalid_token" }
    }
}

impl From<BodyError> for FormError {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TooLarge => Self::TooLarge,
            BodyError::Unreadable | BodyError::TimedOut => Self::Unreadable,
        }
    }
}

impl From<FormError> for Problem {
    fn from(error: FormError) -> Self {
        Self::new(error.status(), error.code()).describe(error.to_string())
    }
}

/// A parsed form: its fields in order. Values may be secrets; they are wiped on drop and never printed.
pub struct Form {
    fields: Vec<(String, Zeroizing<String>)>,
}

impl Form {
    /// Reads and parses the form of `request`: at most [`MAX_BYTES`], within `deadline`. Fields named in `repeatable`
    /// may appear more than once.
    pub async fn read<B>(request: Request<B>, deadline: Duration, repeatable: &[&str]) -> Result<Self, FormError>
    where
        B: Body,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (parts, body) = request.into_parts();
        check_head(parts.uri.query(), &parts.headers)?;
        Self::parse_fields(&body::read(body, MAX_BYTES, deadline).await?, repeatable)
    }

    /// The rules that need no body: first of all, and before a byte of it is read.
    pub fn check_head(query: Option<&str>, headers: &HeaderMap) -> Result<(), FormError> {
        check_head(query, headers)
    }

    /// All rules over a request that is already in memory.
    pub fn parse(
        query: Option<&str>,
        headers: &HeaderMap,
        body: &[u8],
        repeatable: &[&str],
    ) -> Result<Self, FormError> {
        check_head(query, headers)?;
        Self::parse_fields(body, repeatable)
    }

    /// The rules on the body alone.
    pub fn parse_fields(body: &[u8], repeatable: &[&str]) -> Result<Self, FormError> {
        if body.len() > MAX_BYTES {
            return Err(FormError::TooLarge);
        }
        if body.contains(&b';') {
            return Err(FormError::Semicolon);
        }
        let mut fields = Vec::new();
        for pair in body.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
            let at = pair.iter().position(|byte| *byte == b'=');
            let (name, value) = at.map_or((pair, &b""[..]), |at| (&pair[..at], &pair[at + 1..]));
            fields.push((decode(name)?, Zeroizing::new(decode(value)?)));
        }
        let form = Self { fields };
        match form.first_repeated(repeatable) {
            Some(name) => Err(FormError::Repeated(name)),
            None => Ok(form),
        }
    }

    /// A set, not a scan per field: 64 KiB hold more than 20,000 field names.
    fn first_repeated(&self, repeatable: &[&str]) -> Option<String> {
        let mut seen = HashSet::with_capacity(self.fields.len());
        let name = self.names().find(|name| !seen.insert(*name) && !repeatable.contains(name))?;
        Some(name.chars().take(64).collect())
    }

    /// The value of a field that appears at most once; the first one of a repeatable field.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Every value of a repeatable field, in order.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.fields.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Takes a value out of the form, so that a secret is moved and not copied.
    pub fn take(&mut self, name: &str) -> Option<Zeroizing<String>> {
        let at = self.fields.iter().position(|(known, _)| known == name)?;
        Some(self.fields.remove(at).1)
    }

    /// The names of all fields, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(|(name, _)| name.as_str())
    }
}

/// Names only.
impl fmt::Debug for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

/// Writes a form body: the counterpart of [`Form::parse_fields`].
pub fn encode<N: AsRef<str>, V: AsRef<str>>(fields: impl IntoIterator<Item = (N, V)>) -> String {
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish()
}

fn check_head(query: Option<&str>, headers: &HeaderMap) -> Result<(), FormError> {
    if query.is_some_and(|query| !query.is_empty()) {
        return Err(FormError::Query);
    }
    let mut lines = headers.get_all(CONTENT_TYPE).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else {
        return Err(FormError::MediaType);
    };
    match media_type(line.as_bytes()) {
        Some(kind) if kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") => Ok(()),
        _ => Err(FormError::MediaType),
    }
}

/// Decodes one name or value: what is form-encoded outside a form is, too (RFC 6749 §2.3.1).
pub fn decode(text: &[u8]) -> Result<String, FormError> {
    let bytes = percent::decode(text, Plus::Space).ok_or(FormError::Encoding)?;
    String::from_utf8(bytes.into_owned()).map_err(|_| FormError::NotUtf8)
}

#[cfg(test)]
mod t02_sts_form {
    use bytes::Bytes;
    use http::HeaderValue;
    use http_body_util::Full;
    use proptest::prelude::*;

    use super::*;

    const FORM: &str = "application/x-www-form-urlencoded";

    fn check(query: Option<&str>, content_type: &[&str], body: &[u8]) -> Result<Form, FormError> {
        let mut headers = HeaderMap::new();
        for line in content_type {
            headers.append(CONTENT_TYPE, HeaderValue::from_str(line).unwrap());
        }
        Form::parse(query, &headers, body, &["resource"])
    }

    #[test]
    fn the_first_failing_rule_is_the_answer() {
        let oversized = [b"a=%zz;".as_slice(), &[b'x'; MAX_BYTES]].concat();
        for (query, content_type, body, expected) in [
            (Some("x=1"), &["text/plain"][..], &oversized[..], FormError::Query),
            (None, &["application/json"], &oversized, FormError::MediaType),
            (None, &[], b"a=b", FormError::MediaType),
            (None, &[FORM, FORM], b"a=b", FormError::MediaType),
            (None, &["application/x-www-form-urlencoded; charset"], b"a=b", FormError::MediaType),
            (None, &[FORM], &oversized, FormError::TooLarge),
            (None, &[FORM], &[b'a'; MAX_BYTES + 1], FormError::TooLarge),
            (None, &[FORM], b"a=1&a=2;b=%zz", FormError::Semicolon),
            (None, &[FORM], b"a=1&a=%zz", FormError::Encoding),
            (None, &[FORM], b"%=1", FormError::Encoding),
            (None, &[FORM], b"a=%f", FormError::Encoding),
            (None, &[FORM], b"a=%ff", FormError::NotUtf8),
            (None, &[FORM], b"a=\xff", FormError::NotUtf8),
            (None, &[FORM], b"scope=a&scope=b", FormError::Repeated("scope".to_owned())),
            (None, &[FORM], b"foo=&resource=x&foo", FormError::Repeated("foo".to_owned())),
            (None, &[FORM], b"%73cope=a&scope=b", FormError::Repeated("scope".to_owned())),
        ] {
            assert_eq!(check(query, content_type, body).err(), Some(expected), "{:?}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn each_rule_has_its_status_and_code() {
        for (error, status, code) in [
            (FormError::Query, 400, "invalid_token"),
            (FormError::MediaType, 415, "invalid_token"),
            (FormError::TooLarge, 413, "payload_too_large"),
            (FormError::Unreadable, 400, "invalid_token"),
            (FormError::Semicolon, 400, "invalid_token"),
            (FormError::Encoding, 400, "invalid_token"),
            (FormError::NotUtf8, 400, "invalid_token"),
            (FormError::Repeated("scope".to_owned()), 400, "invalid_token"),
        ] {
            assert_eq!((error.status().as_u16(), error.code()), (status, code), "{error}");
        }
        assert_eq!(FormError::from(BodyError::TooLarge), FormError::TooLarge);
        assert_eq!(FormError::from(BodyError::TimedOut), FormError::Unreadable);
    }

    #[test]
    fn a_well_formed_form_reads_as_it_was_meant() {
        let body = b"&grant_type=a%20b+c&&empty=&bare&resource=x&resource=+x+&e=a=b&%C3%A4=%3B%26";
        let kinds = ["application/x-www-form-urlencoded; charset=UTF-8"];
        let form = check(Some(""), &kinds, body).unwrap();
        assert_eq!(form.get("grant_type"), Some("a b c"));
        assert_eq!((form.get("empty"), form.get("bare"), form.get("absent")), (Some(""), Some(""), None));
        assert_eq!(form.all("resource").collect::<Vec<_>>(), ["x", " x "]);
        assert_eq!((form.get("e"), form.get("ä")), (Some("a=b"), Some(";&")));
        assert!(check(None, &["APPLICATION/X-WWW-Form-Urlencoded"], &[b'a'; MAX_BYTES]).is_ok());
    }

    #[test]
    fn values_are_moved_out_and_never_printed() {
        let mut form = Form::parse_fields(b"client_secret=hunter2&scope=a", &[]).unwrap();
        assert_eq!(format!("{form:?}"), r#"{"client_secret", "scope"}"#);
        assert_eq!(form.take("client_secret").as_deref().map(String::as_str), Some("hunter2"));
        assert_eq!(form.get("client_secret"), None);
    }

    #[tokio::test]
    async fn the_head_is_judged_before_the_body_is_read() {
        let request = |uri: &str, kind: &str| {
            let builder = Request::builder().method("POST").uri(uri).header(CONTENT_TYPE, kind);
            builder.body(Full::new(Bytes::from(vec![b'a'; MAX_BYTES + 1]))).unwrap()
        };
        for (uri, kind, expected) in [
            ("/oauth/2/token?x=1", "application/json", FormError::Query),
            ("/oauth/2/token", "application/json", FormError::MediaType),
            ("/oauth/2/token", FORM, FormError::TooLarge),
        ] {
            let form = Form::read(request(uri, kind), Duration::from_secs(1), &[]).await;
            assert_eq!(form.err(), Some(expected));
        }
    }

    #[test]
    fn twenty_thousand_fields_are_judged_in_linear_time() {
        let body: String = (0..12_000).map(|n| format!("{n:x}&")).collect();
        assert_eq!(Form::parse_fields(body.as_bytes(), &[]).unwrap().names().count(), 12_000);
    }

    proptest! {
        #[test]
        fn what_is_written_is_what_is_read(fields in prop::collection::btree_map(".{1,12}", ".{0,24}", 0..8)) {
            let form = Form::parse_fields(encode(&fields).as_bytes(), &[]).unwrap();
            let read: Vec<_> = form.fields.iter().map(|(name, value)| (name.clone(), value.to_string())).collect();
            prop_assert_eq!(read, fields.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn no_bytes_make_it_panic_or_let_a_name_through_twice(body in prop::collection::vec(prop_oneof![
            any::<u8>(), Just(b'&'), Just(b'='), Just(b'%'), Just(b'a'), Just(b'4'), Just(b'1'),
        ], 0..60)) {
            if let Ok(form) = Form::parse_fields(&body, &[]) {
                prop_assert_eq!(form.names().collect::<HashSet<_>>().len(), form.fields.len());
            }
        }
    }
}
