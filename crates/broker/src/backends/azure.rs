//! Azure Key Vault. A token comes from the vault's cloud: for a client with a secret, or for the identity of the machine.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use caracal_crypto::SecretText;
use caracal_custody::{BackendError, SecretBackend};
use caracal_http::egress::{OperatorClient, SimpleResponse};
use caracal_http::form;
use caracal_store::{BoxFuture, Clock};
use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde_json::json;

use super::lent::Source;
use super::oauth::{self, Api, LENDING};
use super::web::{BackendUrl, Names, Web, error_code, is_segment};

const KIND: &str = "azurekeyvault";
const NAMES: Names = Names { separator: "-", signs: "-", longest: 127 };
const API: &str = "api-version=7.4";
const IDENTITY_API: &str = "2018-02-01";
const METADATA: &[IpAddr] = &[IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254))];
/// Hosts of vaults, and who issues tokens for them.
const CLOUDS: [(&str, &str); 3] = [
    ("vault.azure.net", "https://login.microsoftonline.com"),
    ("vault.azure.cn", "https://login.chinacloudapi.cn"),
    ("vault.usgovcloudapi.net", "https://login.microsoftonline.us"),
];
/// How long a name that was deleted may take to be usable again.
const RECOVERY: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(250);

/// How a vault is reached, and as whom.
#[derive(Clone)]
pub struct AzureSettings {
    /// `CARACAL_AZURE_VAULT_URL`.
    pub vault: BackendUrl,
    /// Where its tokens come from.
    pub cloud: AzureCloud,
    /// As whom.
    pub credentials: AzureCredentials,
}

/// The cloud that a vault lies in.
#[derive(Clone)]
pub struct AzureCloud {
    /// Issues tokens for clients.
    pub authority: BackendUrl,
    /// Issues tokens for machines.
    pub metadata: BackendUrl,
    /// What a token is for.
    pub resource: String,
}

impl AzureCloud {
    /// By the vault's name; the public cloud if that says nothing.
    pub fn of(vault: &BackendUrl) -> Self {
        let host = vault.authority().split(':').next().unwrap_or_default();
        let is_in = |domain: &str| host.strip_suffix(domain).is_some_and(|name| name.ends_with('.'));
        let [public, ..] = CLOUDS;
        let (domain, authority) = CLOUDS.into_iter().find(|(domain, _)| is_in(domain)).unwrap_or(public);
        Self {
            authority: BackendUrl::fixed(authority),
            metadata: BackendUrl::fixed("http://169.254.169.254"),
            resource: format!("https://{domain}"),
        }
    }
}

/// Who asks.
#[derive(Clone)]
pub enum AzureCredentials {
    /// An application with a secret.
    Client {
        /// `CARACAL_AZURE_TENANT_ID`.
        tenant: String,
        /// `CARACAL_AZURE_CLIENT_ID`.
        client_id: String,
        /// `CARACAL_AZURE_CLIENT_SECRET`.
        secret: Arc<SecretText>,
    },
    /// The identity that the machine was given.
    ManagedIdentity {
        /// `CARACAL_AZURE_CLIENT_ID`: which, if there are several.
        client_id: Option<String>,
    },
}

/// `azurekeyvault`.
pub struct AzureBackend {
    api: Api,
    resource: String,
    tenant: Option<String>,
}

impl AzureBackend {
    /// With these settings. Tokens last by the time of `clock`.
    pub fn new(client: OperatorClient, clock: Arc<dyn Clock>, settings: AzureSettings) -> Self {
        let AzureSettings { vault, cloud, credentials } = settings;
        let tenant = match &credentials {
            AzureCredentials::Client { tenant, .. } => Some(tenant.clone()),
            AzureCredentials::ManagedIdentity { .. } => None,
        };
        let resource = cloud.resource.clone();
        let source = source(client.clone(), clock.clone(), cloud, credentials);
        Self { api: Api::new(Web::new(KIND, client, vault), clock, source), resource, tenant }
    }

    fn name(&self, doing: &'static str, reference: &str) -> Result<String, BackendError> {
        self.api.web.name(doing, reference, &NAMES)
    }

    /// Why an answer is none. A vault that accepts no token says whose tokens it accepts.
    fn explained(&self, error: BackendError, answer: &SimpleResponse) -> BackendError {
        let challenge = answer.headers.get(WWW_AUTHENTICATE).and_then(|value| value.to_str().ok());
        let Some(challenge) = challenge.filter(|_| answer.status == StatusCode::UNAUTHORIZED) else { return error };
        let said = |name: &str| {
            let behind = challenge.split_once(&format!("{name}=\""))?.1;
            behind.split_once('"').map(|(value, _)| value.trim_end_matches('/'))
        };
        let owner = said("authorization").and_then(|authority| authority.rsplit('/').next());
        let owner = owner.filter(|owner| owner.len() == 36 && is_segment(owner));
        let why = match (owner, &self.tenant) {
            (Some(owner), Some(tenant)) if !owner.eq_ignore_ascii_case(tenant) => {
                format!("the vault belongs to tenant {owner}, and CARACAL_AZURE_TENANT_ID says another")
            }
            _ if said("resource").is_some_and(|resource| resource != self.resource) => {
                format!("the vault wants tokens for another cloud than {}", self.resource)
            }
            _ => return error,
        };
        BackendError { reason: format!("{}: {why}", error.reason), ..error }
    }

    async fn put(&self, path: &str, body: &str) -> Result<SimpleResponse, BackendError> {
        self.api.ask("write", Method::PUT, path, Some(body.to_owned())).await
    }
}

impl SecretBackend for AzureBackend {
    fn read<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, BackendError>> {
        Box::pin(async move {
            let path = format!("/secrets/{}?{API}", self.name("read", reference)?);
            let answer = self.api.ask("read", Method::GET, &path, None).await?;
            self.api.web.envelope(&answer, "/value").map_err(|error| self.explained(error, &answer))
        })
    }

    /// A name that was deleted is kept for a while by every vault, and its secret has to be recovered before the name can
    /// be used again.
    fn write<'a>(&'a self, reference: &'a str, envelope: &'a [u8]) -> BoxFuture<'a, Result<(), BackendError>> {
        Box::pin(async move {
            let name = self.name("write", reference)?;
            let path = format!("/secrets/{name}?{API}");
            let body = json!({"value": STANDARD.encode(envelope)}).to_string();
            let begun = Instant::now();
            let mut answer = self.put(&path, &body).await?;
            while answer.status == StatusCode::CONFLICT && begun.elapsed() < RECOVERY {
                match error_code(&answer).as_deref() {
                    Some("ObjectIsDeletedButRecoverable") => {
                        let recover = format!("/deletedsecrets/{name}/recover?{API}");
                        let recovered = self.api.ask("write", Method::POST, &recover, Some("{}".to_owned())).await?;
                        if !recovered.status.is_success() && recovered.status != StatusCode::CONFLICT {
                            return Err(self.api.web.refused("recover the deleted name for", &recovered));
                        }
                    }
                    // Not yet deleted, or not yet recovered.
                    Some("ObjectIsBeingDeleted" | "ObjectIsBeingRecovered") => {}
                    _ => break,
                }
                tokio::time::sleep(PAUSE).await;
                answer = self.put(&path, &body).await?;
            }
            self.api.web.done("write", &answer, None).map_err(|error| self.explained(error, &answer))
        })
    }

    fn remove<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<(), BackendError>> {
        Box::pin(async move {
            let path = format!("/secrets/{}?{API}", self.name("remove", reference)?);
            let answer = self.api.ask("remove", Method::DELETE, &path, None).await?;
            let gone = self.api.web.done("remove", &answer, Some(StatusCode::NOT_FOUND));
            gone.map_err(|error| self.explained(error, &answer))
        })
    }
}

fn source(
    client: OperatorClient,
    clock: Arc<dyn Clock>,
    cloud: AzureCloud,
    credentials: AzureCredentials,
) -> Source<SecretText> {
    let AzureCloud { authority, metadata, resource } = cloud;
    match credentials {
        AzureCredentials::Client { tenant, client_id, secret } => {
            let endpoint = Arc::new(Web::new(KIND, client, authority));
            Box::new(move || {
                let (endpoint, clock, client_id) = (endpoint.clone(), clock.clone(), client_id.clone());
                let (path, scope) = (format!("/{tenant}/oauth2/v2.0/token"), format!("{resource}/.default"));
                let secret = secret.clone();
                Box::pin(async move {
                    let fields = [
                        ("grant_type", "client_credentials"),
                        ("client_id", &client_id),
                        ("client_secret", secret.expose()),
                        ("scope", &scope),
                    ];
                    oauth::issue(&endpoint, &path, &fields, &clock).await
                })
            })
        }
        AzureCredentials::ManagedIdentity { client_id } => {
            let service = Arc::new(Web::new(KIND, client.reaching(METADATA), metadata));
            let mut query = vec![("api-version", IDENTITY_API.to_owned()), ("resource", resource)];
            query.extend(client_id.map(|id| ("client_id", id)));
            let path = format!("/metadata/identity/oauth2/token?{}", form::encode(query));
            Box::new(move || {
                let (service, clock, path) = (service.clone(), clock.clone(), path.clone());
                Box::pin(async move {
                    let headers = HeaderMap::from_iter([(
                        http::HeaderName::from_static("metadata"),
                        HeaderValue::from_static("true"),
                    )]);
                    let answer = service.ask(LENDING, Method::GET, &path, headers, Vec::new()).await?;
                    oauth::read(&service, &answer, &clock)
                })
            })
        }
    }
}
