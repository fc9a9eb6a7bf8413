//! A cloud's API that wants an access token, and where that comes from.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use caracal_crypto::SecretText;
use caracal_custody::BackendError;
use caracal_http::egress::SimpleResponse;
use caracal_http::form;
use caracal_store::Clock;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use zeroize::Zeroizing;

use super::lent::{Credential, Lent, Source};
use super::web::{Web, bearer};
use crate::answer;

/// What getting a token is called in errors.
pub(super) const LENDING: &str = "issue an access token";

/// An API with its token.
pub(super) struct Api {
    pub(super) web: Web,
    token: Credential<SecretText>,
}

impl Api {
    pub(super) fn new(web: Web, clock: Arc<dyn Clock>, source: Source<SecretText>) -> Self {
        Self { web, token: Credential::new(clock, source) }
    }

    /// Asks at `path`, with JSON if there is a body. A token that is not accepted was taken back: with the next one it is
    /// asked once more.
    pub(super) async fn ask(
        &self,
        doing: &'static str,
        method: Method,
        path: &str,
        body: Option<String>,
    ) -> Result<SimpleResponse, BackendError> {
        let body = body.map(Bytes::from);
        let mut is_second = false;
        loop {
            let token = self.token.get().await?;
            let mut headers = bearer(&token.value);
            if body.is_some() {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            }
            let sent = body.clone().unwrap_or_default();
            let answer = self.web.ask(doing, method.clone(), path, headers, sent).await?;
            if answer.status != StatusCode::UNAUTHORIZED || is_second {
                return Ok(answer);
            }
            self.token.forget(&token);
            is_second = true;
        }
    }
}

/// Sends a form to a token endpoint.
pub(super) async fn issue(
    endpoint: &Web,
    path: &str,
    fields: &[(&str, &str)],
    clock: &Arc<dyn Clock>,
) -> Result<Lent<SecretText>, BackendError> {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
    let body = Bytes::from_owner(Zeroizing::new(form::encode(fields.iter().copied()).into_bytes()));
    let answer = endpoint.ask(LENDING, Method::POST, path, headers, body).await?;
    read(endpoint, &answer, clock)
}

/// Reads the answer of a token endpoint, or of a metadata service, which answers alike.
pub(super) fn read(
    web: &Web,
    answer: &SimpleResponse,
    clock: &Arc<dyn Clock>,
) -> Result<Lent<SecretText>, BackendError> {
    let issued = answer::read(answer, false).map_err(|error| web.failed(LENDING, error.to_string()))?;
    // One of which nobody says how long it lasts is used once.
    let life = issued.expires_in.map_or(Duration::ZERO, Duration::from_secs);
    Ok(Lent { value: issued.access_token, expires_at: Some(clock.now().plus(life)) })
}
