//! Any server that keeps bytes under `{base}/secrets/{reference}`.

use std::time::Duration;

use caracal_crypto::SecretText;
use caracal_custody::{BackendError, SecretBackend};
use caracal_http::egress::OperatorClient;
use caracal_store::BoxFuture;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, StatusCode};

use super::web::{BackendUrl, Web, bearer};

/// `custom`.
pub struct CustomBackend {
    web: Web,
    token: SecretText,
}

impl CustomBackend {
    /// At `base`, with this bearer.
    pub fn new(client: OperatorClient, base: BackendUrl, token: SecretText) -> Self {
        Self { web: Web::new("custom", client, base), token }
    }

    /// The same with another time for an answer than ten seconds.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { web: self.web.with_deadline(patience), ..self }
    }
}

impl SecretBackend for CustomBackend {
    fn read<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, BackendError>> {
        Box::pin(async move {
            let path = format!("/secrets/{reference}");
            let answer = self.web.ask("read", Method::GET, &path, bearer(&self.token), Vec::new()).await?;
            match answer.status {
                StatusCode::OK => Ok(Some(answer.body.to_vec())),
                StatusCode::NOT_FOUND => Ok(None),
                _ => Err(self.web.refused("read", &answer)),
            }
        })
    }

    fn write<'a>(&'a self, reference: &'a str, envelope: &'a [u8]) -> BoxFuture<'a, Result<(), BackendError>> {
        Box::pin(async move {
            let mut headers = bearer(&self.token);
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
            let path = format!("/secrets/{reference}");
            let answer = self.web.ask("write", Method::PUT, &path, headers, envelope.to_vec()).await?;
            self.web.done("write", &answer, None)
        })
    }

    fn remove<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<(), BackendError>> {
        Box::pin(async move {
            let path = format!("/secrets/{reference}");
            let answer = self.web.ask("remove", Method::DELETE, &path, bearer(&self.token), Vec::new()).await?;
            self.web.done("remove", &answer, Some(StatusCode::NOT_FOUND))
        })
    }
}
