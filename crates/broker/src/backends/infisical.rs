//! Infisical, whose secrets have a name within a project, an environment and a folder.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use caracal_crypto::SecretText;
use caracal_custody::{BackendError, SecretBackend};
use caracal_http::egress::{OperatorClient, SimpleResponse};
use caracal_http::form;
use caracal_store::BoxFuture;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, StatusCode};
use serde_json::{Value, json};

use super::web::{BackendUrl, Names, Web, bearer};

const NAMES: Names = Names { separator: ".", signs: "-_.", longest: 255 };

/// How an Infisical is reached, and where in it secrets lie.
#[derive(Clone)]
pub struct InfisicalSettings {
    /// `CARACAL_INFISICAL_URL`.
    pub url: BackendUrl,
    /// `CARACAL_INFISICAL_TOKEN`.
    pub token: std::sync::Arc<SecretText>,
    /// `CARACAL_INFISICAL_PROJECT_ID`.
    pub project: String,
    /// `CARACAL_INFISICAL_ENV`.
    pub environment: String,
    /// `CARACAL_INFISICAL_PATH`.
    pub path: String,
}

/// `infisical`.
pub struct InfisicalBackend {
    web: Web,
    settings: InfisicalSettings,
}

impl InfisicalBackend {
    /// With these settings.
    pub fn new(client: OperatorClient, settings: InfisicalSettings) -> Self {
        Self { web: Web::new("infisical", client, settings.url.clone()), settings }
    }

    fn path(&self, doing: &'static str, reference: &str) -> Result<String, BackendError> {
        let name = self.web.name(doing, reference, &NAMES)?;
        Ok(format!("/api/v3/secrets/raw/{name}"))
    }

    /// A change: which secret is meant stands in the body.
    async fn change(
        &self,
        doing: &'static str,
        method: Method,
        path: &str,
        value: Option<&str>,
    ) -> Result<SimpleResponse, BackendError> {
        let InfisicalSettings { project, environment, path: folder, token, .. } = &self.settings;
        let mut body =
            json!({"workspaceId": project, "environment": environment, "secretPath": folder, "type": "shared"});
        if let Some(value) = value {
            body["secretValue"] = Value::from(value);
        }
        let mut headers = bearer(token);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        self.web.ask(doing, method, path, headers, body.to_string()).await
    }
}

impl SecretBackend for InfisicalBackend {
    fn read<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, BackendError>> {
        Box::pin(async move {
            let InfisicalSettings { project, environment, path: folder, token, .. } = &self.settings;
            let place = form::encode([("workspaceId", project), ("environment", environment), ("secretPath", folder)]);
            let path = format!("{}?{place}", self.path("read", reference)?);
            let answer = self.web.ask("read", Method::GET, &path, bearer(token), Vec::new()).await?;
            self.web.envelope(&answer, "/secret/secretValue")
        })
    }

    fn write<'a>(&'a self, reference: &'a str, envelope: &'a [u8]) -> BoxFuture<'a, Result<(), BackendError>> {
        Box::pin(async move {
            let (path, value) = (self.path("write", reference)?, STANDARD.encode(envelope));
            let made = self.change("write", Method::POST, &path, Some(&value)).await?;
            // It is there already.
            if matches!(made.status, StatusCode::BAD_REQUEST | StatusCode::CONFLICT) {
                let changed = self.change("write", Method::PATCH, &path, Some(&value)).await?;
                return self.web.done("write", &changed, None);
            }
            self.web.done("write", &made, None)
        })
    }

    fn remove<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<(), BackendError>> {
        Box::pin(async move {
            let path = self.path("remove", reference)?;
            let answer = self.change("remove", Method::DELETE, &path, None).await?;
            self.web.done("remove", &answer, Some(StatusCode::NOT_FOUND))
        })
    }
}
