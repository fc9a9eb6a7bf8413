//! What the backends have in common: a URL, a deadline, a largest answer.

use bytes::Bytes;
use caracal_crypto::SecretText;
use caracal_custody::BackendError;
use caracal_http::egress::{Host, OperatorClient, SimpleRequest, SimpleResponse, TargetUrl};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use zeroize::Zeroizing;

const DEADLINE: std::time::Duration = std::time::Duration::from_secs(10);
const MOST_BYTES: usize = 1024 * 1024;

/// Where a backend lies: `https`, or `http` on loopback.
#[derive(Debug, Clone)]
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
        let url = TargetUrl::parse(text.trim()).map_err(|_| BadBackendUrl)?;
        let loopback = match url.host() {
            Host::Name(name) => name == "localhost",
            Host::Address(address) => address.is_loopback(),
        };
        if (url.is_https() || loopback) && url.query().is_none() && !text.contains('#') {
            Ok(Self(url.as_str().trim_end_matches('/').to_owned()))
        } else {
            Err(BadBackendUrl)
        }
    }
}

/// One backend as HTTP reaches it.
pub(super) struct Web {
    pub(super) kind: &'static str,
    client: OperatorClient,
    base: BackendUrl,
}

impl Web {
    pub(super) fn new(kind: &'static str, client: OperatorClient, base: BackendUrl) -> Self {
        Self { kind, client, base }
    }

    pub(super) fn failed(&self, doing: &'static str, reason: impl Into<String>) -> BackendError {
        BackendError { kind: self.kind, doing, reason: reason.into() }
    }

    /// Asks at `path`, which starts with a slash.
    pub(super) async fn ask(
        &self,
        doing: &'static str,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Vec<u8>,
    ) -> Result<SimpleResponse, BackendError> {
        let url = TargetUrl::parse(&format!("{}{path}", self.base.0));
        let request = SimpleRequest {
            method,
            url: url.map_err(|error| self.failed(doing, error.to_string()))?,
            headers,
            body: Bytes::from(body),
            deadline: DEADLINE,
            max_response_bytes: MOST_BYTES,
        };
        self.client.send(request).await.map_err(|error| self.failed(doing, error.to_string()))
    }

    /// What is wrong with an answer is its status; its words may be about anything.
    pub(super) fn refused(&self, doing: &'static str, status: StatusCode) -> BackendError {
        self.failed(doing, format!("status {}", status.as_u16()))
    }
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
