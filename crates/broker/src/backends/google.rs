//! Google Secret Manager. A token comes from Google for a service account's key, or from the metadata server for the
//! account that the machine was given.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use caracal_crypto::SecretText;
use caracal_custody::{BackendError, SecretBackend};
use caracal_http::egress::OperatorClient;
use caracal_http::{form, json};
use caracal_store::{BoxFuture, Clock};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde_json::{Map, Value, json};

use super::lent::Source;
use super::oauth::{self, Api, LENDING};
use super::web::{BackendUrl, Names, Web, is_segment};
use crate::assertion::Signer;
use crate::key::AssertionKey;

const KIND: &str = "gcpsecretmanager";
const NAMES: Names = Names { separator: "-", signs: "-_", longest: 255 };
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const ASSERTION_SECONDS: i64 = 3_600;
const TOKEN_PATH: &str = "/computeMetadata/v1/instance/service-accounts/default/token";
const METADATA: &[IpAddr] = &[IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254))];

/// In which project secrets lie, and who asks.
#[derive(Clone)]
pub struct GoogleSettings {
    /// `CARACAL_GCP_PROJECT`: its id or number.
    pub project: String,
    /// The API.
    pub endpoint: BackendUrl,
    /// Who asks.
    pub credentials: GoogleCredentials,
}

impl GoogleSettings {
    /// Google's own API.
    pub fn endpoint() -> BackendUrl {
        BackendUrl::fixed("https://secretmanager.googleapis.com")
    }
}

/// Who asks.
#[derive(Clone)]
pub enum GoogleCredentials {
    /// A service account, by its key.
    ServiceAccount(Arc<ServiceAccount>),
    /// The account of the machine, by the metadata server at this URL.
    Machine(BackendUrl),
}

impl GoogleCredentials {
    /// The account of the machine that this process runs on.
    pub fn of_machine() -> Self {
        Self::Machine(BackendUrl::fixed("http://169.254.169.254"))
    }
}

/// A service account with its key.
pub struct ServiceAccount {
    email: String,
    key_id: Option<String>,
    key: AssertionKey,
    endpoint: BackendUrl,
    /// As the file has it: what an assertion is for.
    audience: String,
}

/// A text that is no key file of a service account. Says nothing of its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadServiceAccount {
    /// Not even JSON.
    #[error("is not a JSON object")]
    NotJson,
    /// Credentials of another kind.
    #[error("is no key file of a service account: its `type` must be `service_account`")]
    Type,
    /// Something is missing or not usable.
    #[error("has no usable `{0}`")]
    Field(&'static str),
}

impl ServiceAccount {
    /// Reads a key file.
    pub fn from_json(text: &str) -> Result<Self, BadServiceAccount> {
        let file: Map<String, Value> = serde_json::from_str(text).map_err(|_| BadServiceAccount::NotJson)?;
        let field = |name: &'static str| {
            let text = file.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
            text.ok_or(BadServiceAccount::Field(name))
        };
        if field("type") != Ok("service_account") {
            return Err(BadServiceAccount::Type);
        }
        let key = AssertionKey::from_pem(field("private_key")?).ok().filter(|key| key.algorithm() == "RS256");
        let audience = field("token_uri")?;
        Ok(Self {
            email: field("client_email")?.to_owned(),
            key_id: field("private_key_id").ok().map(str::to_owned),
            key: key.ok_or(BadServiceAccount::Field("private_key"))?,
            endpoint: BackendUrl::parse(audience).map_err(|_| BadServiceAccount::Field("token_uri"))?,
            audience: audience.to_owned(),
        })
    }
}

/// `gcpsecretmanager`.
pub struct GoogleBackend {
    api: Api,
    project: String,
}

impl GoogleBackend {
    /// With these settings. Tokens last by the time of `clock`.
    pub fn new(client: OperatorClient, clock: Arc<dyn Clock>, settings: GoogleSettings) -> Self {
        let GoogleSettings { project, endpoint, credentials } = settings;
        let source = source(client.clone(), clock.clone(), credentials);
        Self { api: Api::new(Web::new(KIND, client, endpoint), clock, source), project }
    }

    fn name(&self, doing: &'static str, reference: &str) -> Result<String, BackendError> {
        self.api.web.name(doing, reference, &NAMES)
    }

    fn secrets(&self) -> String {
        format!("/v1/projects/{}/secrets", self.project)
    }

    /// Destroys the versions before `latest`, which is what is read: whoever may read old versions could else put back what
    /// was replaced. A version that is left over harms nobody meanwhile, so that failing here fails no write.
    async fn destroy_before(&self, secret: &str, latest: u64) -> Result<(), BackendError> {
        let mut page = String::new();
        loop {
            let query = [("filter", "state:(ENABLED OR DISABLED)"), ("pageSize", "100"), ("pageToken", &page)];
            let query = form::encode(query.into_iter().filter(|(_, value)| !value.is_empty()));
            let list = format!("{secret}/versions?{query}");
            let answer = self.api.ask("list versions", Method::GET, &list, None).await?;
            self.api.web.done("list versions", &answer, None)?;
            let said = json::parse(&answer.body).unwrap_or_default();
            let versions = said["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
            for version in versions.iter().filter_map(|version| number(&version["name"])) {
                if version < latest {
                    let destroy = format!("{secret}/versions/{version}:destroy");
                    let answer =
                        self.api.ask("destroy a version", Method::POST, &destroy, Some("{}".to_owned())).await?;
                    self.api.web.done("destroy a version", &answer, Some(StatusCode::NOT_FOUND))?;
                }
            }
            let next = said["nextPageToken"].as_str().filter(|token| !token.is_empty());
            let Some(next) = next else { return Ok(()) };
            page = next.to_owned();
        }
    }
}

impl SecretBackend for GoogleBackend {
    fn read<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, BackendError>> {
        Box::pin(async move {
            let path = format!("{}/{}/versions/latest:access", self.secrets(), self.name("read", reference)?);
            let answer = self.api.ask("read", Method::GET, &path, None).await?;
            self.api.web.envelope(&answer, "/payload/data")
        })
    }

    fn write<'a>(&'a self, reference: &'a str, envelope: &'a [u8]) -> BoxFuture<'a, Result<(), BackendError>> {
        Box::pin(async move {
            let name = self.name("write", reference)?;
            let secret = format!("{}/{name}", self.secrets());
            let add = async || {
                let version = json!({"payload": {"data": STANDARD.encode(envelope)}}).to_string();
                self.api.ask("write", Method::POST, &format!("{secret}:addVersion"), Some(version)).await
            };
            let mut added = add().await?;
            if added.status == StatusCode::NOT_FOUND {
                let create = format!("{}?secretId={name}", self.secrets());
                let made = json!({"replication": {"automatic": {}}}).to_string();
                let made = self.api.ask("write", Method::POST, &create, Some(made)).await?;
                // Somebody else may have made it meanwhile.
                self.api.web.done("write", &made, Some(StatusCode::CONFLICT))?;
                added = add().await?;
            }
            self.api.web.done("write", &added, None)?;
            let said = json::parse(&added.body).unwrap_or_default();
            if let Some(latest) = number(&said["name"])
                && let Err(error) = self.destroy_before(&secret, latest).await
            {
                tracing::warn!(reference, %error, "older versions of a secret are left over");
            }
            Ok(())
        })
    }

    fn remove<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<(), BackendError>> {
        Box::pin(async move {
            let path = format!("{}/{}", self.secrets(), self.name("remove", reference)?);
            let answer = self.api.ask("remove", Method::DELETE, &path, None).await?;
            self.api.web.done("remove", &answer, Some(StatusCode::NOT_FOUND))
        })
    }
}

/// Of a version, by its name `projects/…/secrets/…/versions/5`.
fn number(name: &Value) -> Option<u64> {
    name.as_str()?.rsplit_once("/versions/")?.1.parse().ok()
}

/// Whether `text` is the id or the number of a project.
pub fn is_google_project(text: &str) -> bool {
    is_segment(text)
}

fn source(client: OperatorClient, clock: Arc<dyn Clock>, credentials: GoogleCredentials) -> Source<SecretText> {
    match credentials {
        GoogleCredentials::ServiceAccount(account) => {
            let endpoint = Arc::new(Web::new(KIND, client, account.endpoint.clone()));
            Box::new(move || {
                let (endpoint, account, clock) = (endpoint.clone(), account.clone(), clock.clone());
                Box::pin(async move {
                    let now = clock.now().as_seconds();
                    let signer = Signer { key: &account.key, key_id: account.key_id.as_deref(), certificate: None };
                    // Without a subject: that would ask for somebody else's authority.
                    let claims = json!({
                        "iss": account.email,
                        "scope": SCOPE,
                        "aud": account.audience,
                        "iat": now,
                        "exp": now + ASSERTION_SECONDS,
                    });
                    let signed = signer.sign(&signer.header(), &claims);
                    let signed = signed.map_err(|error| endpoint.failed(LENDING, error.to_string()))?;
                    let fields = [("grant_type", JWT_BEARER), ("assertion", signed.expose())];
                    oauth::issue(&endpoint, "", &fields, &clock).await
                })
            })
        }
        GoogleCredentials::Machine(metadata) => {
            let service = Arc::new(Web::new(KIND, client.reaching(METADATA), metadata));
            Box::new(move || {
                let (service, clock) = (service.clone(), clock.clone());
                Box::pin(async move {
                    let flavor = HeaderName::from_static("metadata-flavor");
                    let google = HeaderValue::from_static("Google");
                    let headers = HeaderMap::from_iter([(flavor.clone(), google.clone())]);
                    let answer = service.ask(LENDING, Method::GET, TOKEN_PATH, headers, Vec::new()).await?;
                    if answer.headers.get(flavor) != Some(&google) {
                        return Err(service.failed(LENDING, "who answered is not Google's metadata server"));
                    }
                    oauth::read(&service, &answer, &clock)
                })
            })
        }
    }
}
