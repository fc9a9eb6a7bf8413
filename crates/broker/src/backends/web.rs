//! What the backends have in common: a URL, a deadline, a largest answer, and how an answer is read.

use std::net::IpAddr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use caracal_crypto::SecretText;
use caracal_custody::BackendError;
use caracal_http::egress::{Host, OperatorClient, SimpleRequest, SimpleResponse, TargetUrl};
use caracal_http::json;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde_json::Value;
use zeroize::Zeroizing;

const DEADLINE: Duration = Duration::from_secs(10);
const MOST_BYTES: usize = 1024 * 1024;

/// Where a backend lies: `https`, or `http` on loopback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendUrl(String);

/// A text that is no such URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "is not an absolute https URL without user, query and fragment (http is for localhost, 127.0.0.1 and ::1 only)"
)]
pub struct BadBackendUrl;

impl BackendUrl {
    /// Reads it; a slash at its end makes no difference.
    pub fn parse(text: &str) -> Result<Self, BadBackendUrl> {
        Self::parse_beside(text, &[])
    }

    /// The same, with addresses of the platform that this process runs on, which speaks no TLS there.
    pub(super) fn parse_beside(text: &str, platform: &[IpAddr]) -> Result<Self, BadBackendUrl> {
        let url = TargetUrl::parse(text.trim()).map_err(|_| BadBackendUrl)?;
        let may_be_plain = match url.host() {
            Host::Name(name) => name == "localhost",
            Host::Address(address) => address.is_loopback() || platform.contains(address),
        };
        if (url.is_https() || may_be_plain) && url.query().is_none() && !text.contains('#') {
            Ok(Self(url.as_str().trim_end_matches('/').to_owned()))
        } else {
            Err(BadBackendUrl)
        }
    }

    /// A URL that stands in this code.
    pub(super) fn fixed(text: &'static str) -> Self {
        Self(text.to_owned())
    }

    /// Without a slash at its end.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Host and, unless it is the scheme's own, port.
    pub(super) fn authority(&self) -> &str {
        let behind = self.0.split_once("://").map_or(self.0.as_str(), |(_, rest)| rest);
        behind.split('/').next().unwrap_or_default()
    }

    /// What is before the path of a request: empty, or a slash and more.
    pub(super) fn path(&self) -> &str {
        let behind = self.0.split_once("://").map_or(self.0.as_str(), |(_, rest)| rest);
        behind.find('/').and_then(|at| behind.get(at..)).unwrap_or_default()
    }
}

/// One server of a backend as HTTP reaches it.
pub(super) struct Web {
    pub(super) kind: &'static str,
    client: OperatorClient,
    pub(super) base: BackendUrl,
    deadline: Duration,
}

impl Web {
    pub(super) fn new(kind: &'static str, client: OperatorClient, base: BackendUrl) -> Self {
        Self { kind, client, base, deadline: DEADLINE }
    }

    /// The same with more time for what is large.
    pub(super) fn with_deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    pub(super) fn failed(&self, doing: &'static str, reason: impl Into<String>) -> BackendError {
        BackendError { kind: self.kind, doing, reason: reason.into() }
    }

    /// Asks at `path`, which is empty or starts with a slash.
    pub(super) async fn ask(
        &self,
        doing: &'static str,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: impl Into<Bytes>,
    ) -> Result<SimpleResponse, BackendError> {
        let url = TargetUrl::parse(&format!("{}{path}", self.base.0));
        let request = SimpleRequest {
            method,
            url: url.map_err(|error| self.failed(doing, error.to_string()))?,
            headers,
            body: body.into(),
            deadline: self.deadline,
            max_response_bytes: MOST_BYTES,
        };
        self.client.send(request).await.map_err(|error| self.failed(doing, error.to_string()))
    }

    /// What is wrong with an answer is its status, and the word for it if the backend's protocol has one; its other words
    /// may be about anything.
    pub(super) fn refused(&self, doing: &'static str, answer: &SimpleResponse) -> BackendError {
        let code = error_code(answer).map(|code| format!(" ({code})")).unwrap_or_default();
        self.failed(doing, format!("status {}{code}", answer.status.as_u16()))
    }

    /// Whether it was done. `or` is a status that means it, too.
    pub(super) fn done(
        &self,
        doing: &'static str,
        answer: &SimpleResponse,
        or: Option<StatusCode>,
    ) -> Result<(), BackendError> {
        if answer.status.is_success() || Some(answer.status) == or { Ok(()) } else { Err(self.refused(doing, answer)) }
    }

    /// The envelope that a JSON answer has at `pointer` in base64; none with 404.
    pub(super) fn envelope(&self, answer: &SimpleResponse, pointer: &str) -> Result<Option<Vec<u8>>, BackendError> {
        match answer.status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            _ => return Err(self.refused("read", answer)),
        }
        let said = json::parse(&answer.body).unwrap_or_default();
        let value = said.pointer(pointer).and_then(Value::as_str);
        let envelope = value.and_then(|value| STANDARD.decode(value).ok());
        envelope.map(Some).ok_or_else(|| self.failed("read", "an answer without a value in base64"))
    }

    /// What stands for `reference` among `names`.
    pub(super) fn name(&self, doing: &'static str, reference: &str, names: &Names) -> Result<String, BackendError> {
        let good = |sign: char| sign == '/' || sign.is_ascii_alphanumeric() || names.signs.contains(sign);
        if reference.len() <= names.longest && reference.chars().all(good) {
            Ok(reference.replace('/', names.separator))
        } else {
            let longest = names.longest;
            Err(self.failed(doing, format!("`{reference}` has signs that no name there has, or more than {longest}")))
        }
    }
}

/// What names of secrets are like.
pub(super) struct Names {
    /// Stands for a slash.
    pub(super) separator: &'static str,
    /// What they may have beside letters and digits.
    pub(super) signs: &'static str,
    pub(super) longest: usize,
}

/// The word for an error, as the protocols of the backends have it: letters, never more than a few.
pub(super) fn error_code(answer: &SimpleResponse) -> Option<String> {
    let said = json::parse(&answer.body).ok()?;
    let found = ["/error/innererror/code", "/error/status", "/error/code", "/error", "/__type"]
        .iter()
        .find_map(|pointer| said.pointer(pointer).and_then(Value::as_str))?;
    let code = found.rsplit('#').next().unwrap_or(found);
    let good = (1..=64).contains(&code.len()) && code.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    good.then(|| code.to_owned())
}

/// A header with a secret in it.
pub(super) fn secret_header(name: HeaderName, prefix: &str, secret: &SecretText) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let text = Zeroizing::new(format!("{prefix}{}", secret.expose()));
    if let Ok(mut value) = HeaderValue::from_str(&text) {
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    headers
}

pub(super) fn bearer(secret: &SecretText) -> HeaderMap {
    secret_header(AUTHORIZATION, "Bearer ", secret)
}

/// A text that stands as one segment in a path as it is.
pub(super) fn is_segment(text: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':');
    !text.is_empty() && text.len() <= 128 && text.bytes().all(good) && !text.bytes().all(|byte| byte == b'.')
}
