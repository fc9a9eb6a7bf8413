//! One question to a token endpoint (contract: sts.md §10.3–§10.5).

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use caracal_authority::Timestamp;
use caracal_crypto::{SecretText, chance};
use caracal_http::egress::{
    EgressError, GuardedConnector, SimpleClient, SimpleError, SimpleRequest, SimpleResponse, TargetUrl,
};
use caracal_http::form;
use caracal_store::Store;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use zeroize::Zeroizing;

use crate::answer::{self, Issued};
use crate::assertion::Signer;
use crate::document::SecretDocument;
use crate::error::BrokerError;
use crate::key::AssertionKey;
use crate::settings::{ClientAuth, Grant, TokenSettings};

const CLIENT_ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// All attempts together. A Gateway waits five seconds for its STS: an answer that comes later helps nobody, and the one
/// who waits for it would be told that the STS is down, when it is the provider.
pub(crate) const PATIENCE: Duration = Duration::from_secs(4);
const ATTEMPTS: u32 = 2;

/// The way to token endpoints.
#[derive(Clone)]
pub(crate) struct Endpoints {
    client: SimpleClient,
    store: Store,
    pub(crate) patience: Duration,
}

/// A form that is wiped when it was sent.
pub(crate) struct Form(Vec<(&'static str, Zeroizing<String>)>);

impl Form {
    pub(crate) fn set(&mut self, name: &'static str, value: impl Into<String>) {
        self.0.push((name, Zeroizing::new(value.into())));
    }

    /// Parameters of the operator's come last, and stand for fields of the same name.
    fn encode(self, params: &[(String, String)]) -> Zeroizing<String> {
        let own = self.0.iter().filter(|(name, _)| params.iter().all(|(param, _)| param != name));
        let own = own.map(|(name, value)| (*name, value.as_str()));
        Zeroizing::new(form::encode(own.chain(params.iter().map(|(name, value)| (name.as_str(), value.as_str())))))
    }
}

impl Endpoints {
    pub(crate) fn new(connector: GuardedConnector, store: Store) -> Self {
        Self { client: SimpleClient::new(connector), store, patience: PATIENCE }
    }

    /// Asks for a token of the client's own.
    pub(crate) async fn client_credentials(
        &self,
        settings: &TokenSettings,
        secrets: &SecretDocument,
    ) -> Result<Issued, BrokerError> {
        self.ask(settings, secrets, |form, now| own_grant(settings, secrets, form, now)).await
    }

    /// Sends what `fill` puts into the form, with the client's proof, once, and gives the answer whatever it is: for what
    /// can be used only once, and for whoever judges answers otherwise.
    pub(crate) async fn ask_once(
        &self,
        settings: &TokenSettings,
        secrets: &SecretDocument,
        deadline: Duration,
        fill: impl FnOnce(&mut Form, Timestamp) -> Result<(), BrokerError>,
    ) -> Result<SimpleResponse, BrokerError> {
        let now = self.store.now();
        let mut form = Form(Vec::new());
        fill(&mut form, now)?;
        let headers = prove(settings, secrets, &mut form, now)?;
        self.post(settings.endpoint.clone(), form.encode(&settings.params), headers, deadline).await
    }

    /// Reads a document at `url`, which is `https`.
    pub(crate) async fn get(&self, url: TargetUrl, deadline: Duration) -> Result<SimpleResponse, BrokerError> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        self.send_request(Method::GET, url, headers, Bytes::new(), deadline).await
    }

    /// Asks for the successor of a connection's token.
    pub(crate) async fn refresh(
        &self,
        settings: &TokenSettings,
        secrets: &SecretDocument,
        refresh_token: &SecretText,
    ) -> Result<Issued, BrokerError> {
        self.ask(settings, secrets, |form, _| {
            form.set("grant_type", "refresh_token");
            form.set("refresh_token", refresh_token.expose().as_str());
            Ok(())
        })
        .await
    }

    /// Says at `url` that `token` is to be good for nothing any more. Whether the answer was 200.
    pub(crate) async fn revoke(
        &self,
        settings: &TokenSettings,
        url: TargetUrl,
        secrets: &SecretDocument,
        token: &SecretText,
        hint: &str,
    ) -> Result<bool, BrokerError> {
        let mut form = Form(Vec::new());
        form.set("token", token.expose().as_str());
        form.set("token_type_hint", hint);
        let headers = prove(settings, secrets, &mut form, self.store.now())?;
        let answer = self.post(url, form.encode(&[]), headers, self.patience).await?;
        Ok(answer.status == StatusCode::OK)
    }

    /// Sends what `fill` puts into the form, with the client's proof. At most twice, when it can help, and all of it
    /// within the deadline.
    async fn ask(
        &self,
        settings: &TokenSettings,
        secrets: &SecretDocument,
        fill: impl Fn(&mut Form, Timestamp) -> Result<(), BrokerError>,
    ) -> Result<Issued, BrokerError> {
        let begun = Instant::now();
        let mut attempt = 1;
        loop {
            // Made anew for each attempt: an assertion is good for one.
            let now = self.store.now();
            let mut form = Form(Vec::new());
            fill(&mut form, now)?;
            let headers = prove(settings, secrets, &mut form, now)?;
            let left = self.patience.saturating_sub(begun.elapsed());
            let failed = match self.send(settings, form, headers, left).await {
                Ok(issued) => return Ok(issued),
                Err(failed) => failed,
            };
            let pause = jitter()?;
            if attempt == ATTEMPTS || !failed.may_pass() || begun.elapsed() + pause >= self.patience {
                return Err(failed);
            }
            tokio::time::sleep(pause).await;
            attempt += 1;
        }
    }

    async fn send(
        &self,
        settings: &TokenSettings,
        form: Form,
        headers: HeaderMap,
        deadline: Duration,
    ) -> Result<Issued, BrokerError> {
        let answer = self.post(settings.endpoint.clone(), form.encode(&settings.params), headers, deadline).await?;
        answer::read(&answer, settings.names_scheme)
    }

    async fn post(
        &self,
        url: TargetUrl,
        mut form: Zeroizing<String>,
        headers: HeaderMap,
        deadline: Duration,
    ) -> Result<SimpleResponse, BrokerError> {
        let body = Bytes::from_owner(Zeroizing::new(std::mem::take(&mut *form).into_bytes()));
        self.send_request(Method::POST, url, headers, body, deadline).await
    }

    async fn send_request(
        &self,
        method: Method,
        url: TargetUrl,
        headers: HeaderMap,
        body: Bytes,
        deadline: Duration,
    ) -> Result<SimpleResponse, BrokerError> {
        let max_response_bytes = answer::MOST_BYTES;
        let request = SimpleRequest { method, url, headers, body, deadline, max_response_bytes };
        self.client.send(request).await.map_err(|error| match error {
            SimpleError::Egress(refused @ (EgressError::Refused { .. } | EgressError::Target(_))) => {
                BrokerError::NotReachable(refused)
            }
            other => BrokerError::Unreachable(other),
        })
    }
}

/// What a client asks for with when it asks for a token of its own.
pub(crate) fn own_grant(
    settings: &TokenSettings,
    secrets: &SecretDocument,
    form: &mut Form,
    now: Timestamp,
) -> Result<(), BrokerError> {
    match settings.grant {
        Grant::ClientCredentials => {
            form.set("grant_type", "client_credentials");
            for (name, value) in [
                ("scope", settings.scope()),
                ("audience", settings.audience.clone()),
                ("resource", settings.resource.clone()),
            ] {
                if let Some(value) = value {
                    form.set(name, value);
                }
            }
        }
        Grant::JwtBearer => {
            let key = private_key(secrets)?;
            let signer = Signer { key: &key, key_id: settings.key_id.as_deref(), certificate: None };
            let subject = settings.assertion_subject.as_deref().unwrap_or(&settings.client_id);
            let audience = settings.assertion_audience.as_deref().unwrap_or(&settings.endpoint_text);
            let scope = settings.scope();
            let assertion = signer.grant(&settings.client_id, subject, audience, scope.as_deref(), now)?;
            form.set("grant_type", JWT_BEARER);
            form.set("assertion", assertion.expose().as_str());
        }
    }
    Ok(())
}

/// Adds the client's proof to the form or to the headers.
fn prove(
    settings: &TokenSettings,
    secrets: &SecretDocument,
    form: &mut Form,
    now: Timestamp,
) -> Result<HeaderMap, BrokerError> {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
    let client_secret = || secrets.get("client_secret").ok_or(BrokerError::Secret("client_secret"));
    match settings.auth {
        ClientAuth::Basic => {
            let pair = Zeroizing::new(format!("{}:{}", settings.client_id, client_secret()?.expose()));
            let text = Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())));
            let mut value = HeaderValue::from_str(&text).map_err(|_| BrokerError::Secret("client_secret"))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        ClientAuth::Post => {
            form.set("client_id", settings.client_id.as_str());
            form.set("client_secret", client_secret()?.expose().as_str());
        }
        ClientAuth::PrivateKeyJwt => {
            let key = private_key(secrets)?;
            let certificate = settings.certificate.as_ref();
            let signer = Signer { key: &key, key_id: settings.key_id.as_deref(), certificate };
            let assertion = signer.client(&settings.client_id, &settings.endpoint_text, now)?;
            form.set("client_id", settings.client_id.as_str());
            form.set("client_assertion_type", CLIENT_ASSERTION);
            form.set("client_assertion", assertion.expose().as_str());
        }
        ClientAuth::None => form.set("client_id", settings.client_id.as_str()),
    }
    Ok(headers)
}

fn private_key(secrets: &SecretDocument) -> Result<AssertionKey, BrokerError> {
    let pem = secrets.get("private_key").ok_or(BrokerError::Secret("private_key"))?;
    AssertionKey::from_pem(pem.expose()).map_err(|_| BrokerError::Secret("private_key"))
}

/// Between 100 and 200 ms, so that those who failed together do not come back together.
fn jitter() -> Result<Duration, BrokerError> {
    let [random] = chance::random_bytes::<1>()?;
    Ok(Duration::from_millis(100 + u64::from(random) * 100 / 255))
}
