//! AWS Secrets Manager. Requests are signed with keys that the operator gave, or that the container's platform lends.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use caracal_authority::Timestamp;
use caracal_crypto::{SecretText, chance};
use caracal_custody::{BackendError, SecretBackend};
use caracal_http::egress::{OperatorClient, SimpleResponse};
use caracal_http::json;
use caracal_store::{BoxFuture, Clock};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::lent::{Credential, Lent, Source};
use super::sigv4::{self, Scope, Signed};
use super::web::{BackendUrl, BadBackendUrl, Names, Web, error_code, secret_header};

const KIND: &str = "awssecretsmanager";
const NAMES: Names = Names { separator: "/", signs: "_+=.@-", longest: 512 };
const SERVICE: &str = "secretsmanager";
const JSON: &str = "application/x-amz-json-1.1";
const LENDING: &str = "lend keys to this container";
const MISSING: &str = "ResourceNotFoundException";
/// What says that keys are no good any more, while others may be.
const STALE_KEYS: [&str; 3] = ["ExpiredTokenException", "UnrecognizedClientException", "InvalidClientTokenId"];
/// Where ECS and EKS lend keys to their containers.
const CONTAINERS: &[IpAddr] = &[
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 2)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 23)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0023)),
];

/// Where secrets lie, and whose keys sign.
#[derive(Clone)]
pub struct AwsSettings {
    /// `CARACAL_AWS_REGION`.
    pub region: String,
    /// The API.
    pub endpoint: BackendUrl,
    /// Whose keys.
    pub credentials: AwsCredentials,
}

impl AwsSettings {
    /// AWS' own API in `region`; `None` when that can't be the name of one.
    pub fn endpoint(region: &str) -> Option<BackendUrl> {
        let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if region.is_empty() || region.len() > 32 || !region.bytes().all(good) {
            return None;
        }
        let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
        BackendUrl::parse(&format!("https://{SERVICE}.{region}.{domain}")).ok()
    }
}

/// Whose keys sign.
#[derive(Clone)]
pub enum AwsCredentials {
    /// These.
    Static(Arc<AwsKeys>),
    /// Those that the container's platform lends.
    Container {
        /// Where it lends them.
        endpoint: BackendUrl,
        /// What it wants to be shown, if anything.
        authorization: Option<ContainerAuthorization>,
    },
}

impl AwsCredentials {
    /// `AWS_CONTAINER_CREDENTIALS_FULL_URI`: `https`, or without TLS on loopback and at the platform's own addresses.
    pub fn full_uri(text: &str) -> Result<BackendUrl, BadBackendUrl> {
        BackendUrl::parse_beside(text, CONTAINERS)
    }

    /// `AWS_CONTAINER_CREDENTIALS_RELATIVE_URI`: a path at the platform's own address.
    pub fn relative_uri(path: &str) -> Result<BackendUrl, BadBackendUrl> {
        if path.starts_with('/') { Self::full_uri(&format!("http://169.254.170.2{path}")) } else { Err(BadBackendUrl) }
    }
}

/// A key with its id.
pub struct AwsKeys {
    /// `AWS_ACCESS_KEY_ID`.
    pub id: String,
    /// `AWS_SECRET_ACCESS_KEY`.
    pub secret: SecretText,
    /// `AWS_SESSION_TOKEN`, with keys that were lent.
    pub session: Option<SecretText>,
}

/// What a container's platform is shown.
#[derive(Clone)]
pub enum ContainerAuthorization {
    /// `AWS_CONTAINER_AUTHORIZATION_TOKEN`.
    Token(Arc<SecretText>),
    /// `AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE`: read each time, since the platform writes it anew.
    File(PathBuf),
}

/// `awssecretsmanager`.
pub struct AwsBackend {
    web: Web,
    clock: Arc<dyn Clock>,
    region: String,
    keys: Credential<Arc<AwsKeys>>,
}

impl AwsBackend {
    /// With these settings. Signatures carry the time of `clock`.
    pub fn new(client: OperatorClient, clock: Arc<dyn Clock>, settings: AwsSettings) -> Self {
        let AwsSettings { region, endpoint, credentials } = settings;
        let keys = Credential::new(clock.clone(), source(client.clone(), credentials));
        Self { web: Web::new(KIND, client, endpoint), clock, region, keys }
    }

    fn name(&self, doing: &'static str, reference: &str) -> Result<String, BackendError> {
        self.web.name(doing, reference, &NAMES)
    }

    /// Asks for `action`. Keys that have run out meanwhile are replaced once.
    async fn ask(&self, doing: &'static str, action: &str, body: &Value) -> Result<SimpleResponse, BackendError> {
        let body = body.to_string();
        let mut is_second = false;
        loop {
            let keys = self.keys.get().await?;
            let headers = self.signed(doing, action, &body, &keys.value)?;
            let answer = self.web.ask(doing, Method::POST, "/", headers, body.clone()).await?;
            let is_stale = error_code(&answer).is_some_and(|code| STALE_KEYS.contains(&code.as_str()));
            if !is_stale || is_second || keys.expires_at.is_none() {
                return Ok(answer);
            }
            self.keys.forget(&keys);
            is_second = true;
        }
    }

    fn signed(&self, doing: &'static str, action: &str, body: &str, keys: &AwsKeys) -> Result<HeaderMap, BackendError> {
        let at = self.clock.now();
        let (date, target) = (sigv4::date(at), format!("{SERVICE}.{action}"));
        let mut fields = vec![("content-type", JSON), ("host", self.web.base.authority()), ("x-amz-date", &date)];
        if let Some(session) = &keys.session {
            fields.push(("x-amz-security-token", session.expose()));
        }
        fields.push(("x-amz-target", &target));
        let signed = Signed { method: "POST", path: "/", query: "", headers: &fields, body: body.as_bytes() };
        let scope = Scope { region: &self.region, service: SERVICE, at };
        let authorization = sigv4::authorization(&keys.id, &keys.secret, &signed, &scope);
        let mut headers = match &keys.session {
            Some(session) => secret_header(HeaderName::from_static("x-amz-security-token"), "", session),
            None => HeaderMap::new(),
        };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
        for (name, value) in [
            (HeaderName::from_static("x-amz-date"), date.as_str()),
            (HeaderName::from_static("x-amz-target"), target.as_str()),
            (AUTHORIZATION, authorization.as_str()),
        ] {
            let value = HeaderValue::from_str(value);
            headers.insert(name, value.map_err(|_| self.web.failed(doing, "its key id is not one"))?);
        }
        Ok(headers)
    }

    /// The service wants to know a request again that it gets twice.
    fn once(&self) -> Result<String, BackendError> {
        let id = chance::uuid_v4().map_err(|error| self.web.failed("write", error.to_string()))?;
        Ok(id.to_string())
    }
}

impl SecretBackend for AwsBackend {
    fn read<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, BackendError>> {
        Box::pin(async move {
            let wanted = json!({"SecretId": self.name("read", reference)?});
            let answer = self.ask("read", "GetSecretValue", &wanted).await?;
            if is(&answer, MISSING) {
                return Ok(None);
            }
            if answer.status == StatusCode::NOT_FOUND {
                // What is missing is said with a word here; this is not the service.
                return Err(self.web.refused("read", &answer));
            }
            self.web.envelope(&answer, "/SecretString")
        })
    }

    fn write<'a>(&'a self, reference: &'a str, envelope: &'a [u8]) -> BoxFuture<'a, Result<(), BackendError>> {
        Box::pin(async move {
            let (name, value) = (self.name("write", reference)?, STANDARD.encode(envelope));
            let put = async || {
                let put = json!({"SecretId": name, "SecretString": value, "ClientRequestToken": self.once()?});
                self.ask("write", "PutSecretValue", &put).await
            };
            let mut answer = put().await?;
            if is(&answer, MISSING) {
                let create = json!({"Name": name, "SecretString": value, "ClientRequestToken": self.once()?});
                answer = self.ask("write", "CreateSecret", &create).await?;
                // Somebody else made it meanwhile.
                if is(&answer, "ResourceExistsException") {
                    answer = put().await?;
                }
            }
            self.web.done("write", &answer, None)
        })
    }

    fn remove<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<(), BackendError>> {
        Box::pin(async move {
            let gone = json!({"SecretId": self.name("remove", reference)?, "ForceDeleteWithoutRecovery": true});
            let answer = self.ask("remove", "DeleteSecret", &gone).await?;
            if is(&answer, MISSING) { Ok(()) } else { self.web.done("remove", &answer, None) }
        })
    }
}

/// Whether an answer is this error.
fn is(answer: &SimpleResponse, code: &str) -> bool {
    answer.status == StatusCode::BAD_REQUEST && error_code(answer).as_deref() == Some(code)
}

pub(super) fn source(client: OperatorClient, credentials: AwsCredentials) -> Source<Arc<AwsKeys>> {
    match credentials {
        AwsCredentials::Static(keys) => Box::new(move || {
            let lent = Lent { value: keys.clone(), expires_at: None };
            Box::pin(std::future::ready(Ok(lent)))
        }),
        AwsCredentials::Container { endpoint, authorization } => {
            let platform = Arc::new(Web::new(KIND, client.reaching(CONTAINERS), endpoint));
            Box::new(move || Box::pin(lend(platform.clone(), authorization.clone())))
        }
    }
}

/// Asks the container's platform for keys.
async fn lend(
    platform: Arc<Web>,
    authorization: Option<ContainerAuthorization>,
) -> Result<Lent<Arc<AwsKeys>>, BackendError> {
    let headers = match authorization {
        None => HeaderMap::new(),
        Some(ContainerAuthorization::Token(token)) => secret_header(AUTHORIZATION, "", &token),
        Some(ContainerAuthorization::File(path)) => {
            let read = tokio::fs::read_to_string(&path).await.map(Zeroizing::new);
            let failed = |error| platform.failed(LENDING, format!("can't read `{}`: {error}", path.display()));
            secret_header(AUTHORIZATION, "", &SecretText::new(read.map_err(failed)?.trim_end().to_owned()))
        }
    };
    let answer = platform.ask(LENDING, Method::GET, "", headers, Vec::new()).await?;
    if answer.status != StatusCode::OK {
        return Err(platform.refused(LENDING, &answer));
    }
    let said = json::parse(&answer.body).unwrap_or_default();
    let text = |name: &str| said[name].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let ends = text("Expiration").and_then(|end| Timestamp::parse(&end).ok());
    match (text("AccessKeyId"), text("SecretAccessKey"), ends) {
        (Some(id), Some(secret), Some(ends)) => {
            let keys = AwsKeys { id, secret: SecretText::new(secret), session: text("Token").map(SecretText::new) };
            Ok(Lent { value: Arc::new(keys), expires_at: Some(ends) })
        }
        _ => Err(platform.failed(LENDING, "an answer without keys and their end")),
    }
}
