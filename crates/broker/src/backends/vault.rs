//! HashiCorp Vault and OpenBao, the key-value engine of version 2.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use caracal_crypto::SecretText;
use caracal_custody::{BackendError, SecretBackend};
use caracal_http::egress::OperatorClient;
use caracal_store::BoxFuture;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde_json::json;

use super::web::{BackendUrl, Web, secret_header};

/// How a vault is reached.
pub struct VaultSettings {
    /// `CARACAL_VAULT_ADDR`.
    pub address: BackendUrl,
    /// `CARACAL_VAULT_TOKEN`.
    pub token: SecretText,
    /// `CARACAL_VAULT_MOUNT`.
    pub mount: String,
    /// `CARACAL_VAULT_NAMESPACE`.
    pub namespace: Option<String>,
}

/// `vault`.
pub struct VaultBackend {
    web: Web,
    token: SecretText,
    mount: String,
    namespace: Option<String>,
}

impl VaultBackend {
    /// With these settings.
    pub fn new(client: OperatorClient, settings: VaultSettings) -> Self {
        let VaultSettings { address, token, mount, namespace } = settings;
        Self { web: Web::new("vault", client, address), token, mount: mount.trim_matches('/').to_owned(), namespace }
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = secret_header(HeaderName::from_static("x-vault-token"), "", &self.token);
        let namespace = self.namespace.as_ref().and_then(|namespace| HeaderValue::from_str(namespace).ok());
        if let Some(namespace) = namespace {
            headers.insert("x-vault-namespace", namespace);
        }
        headers
    }

    fn path(&self, kind: &str, reference: &str) -> String {
        format!("/v1/{}/{kind}/{reference}", self.mount)
    }
}

impl SecretBackend for VaultBackend {
    fn read<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, BackendError>> {
        Box::pin(async move {
            let path = self.path("data", reference);
            let answer = self.web.ask("read", Method::GET, &path, self.headers(), Vec::new()).await?;
            self.web.envelope(&answer, "/data/data/value")
        })
    }

    fn write<'a>(&'a self, reference: &'a str, envelope: &'a [u8]) -> BoxFuture<'a, Result<(), BackendError>> {
        Box::pin(async move {
            let mut headers = self.headers();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            let body = json!({"data": {"value": STANDARD.encode(envelope)}}).to_string().into_bytes();
            let answer = self.web.ask("write", Method::POST, &self.path("data", reference), headers, body).await?;
            self.web.done("write", &answer, None)
        })
    }

    fn remove<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<(), BackendError>> {
        Box::pin(async move {
            let path = self.path("metadata", reference);
            let answer = self.web.ask("remove", Method::DELETE, &path, self.headers(), Vec::new()).await?;
            self.web.done("remove", &answer, Some(StatusCode::NOT_FOUND))
        })
    }
}
