//! Requests as clients and Gateways send them, and what comes back.

use std::net::SocketAddr;

use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use caracal_authority::resource::UpstreamCall;
use caracal_authority::{ApplicationId, Timestamp};
use caracal_crypto::hmac::gateway_signature;
use caracal_crypto::{SecretText, chance};
use caracal_http::{PeerAddr, form};
use caracal_sts::GatewayCall;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, Request};
use serde_json::Value;

use super::{APP, DOCS, SECRET, WORKLOAD, World, ZONE, gateway_key, zone};

pub(crate) const GRANT: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
pub(crate) const ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";
pub(crate) const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) json: Value,
}

impl Answer {
    pub(crate) fn text(&self, name: &str) -> &str {
        self.json[name].as_str().unwrap_or_default()
    }

    /// `status code`.
    pub(crate) fn outcome(&self) -> String {
        format!("{} {}", self.status, self.text("error"))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    #[track_caller]
    pub(crate) fn token(&self) -> &str {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.body));
        self.text("access_token")
    }

    #[track_caller]
    pub(crate) fn claims(&self) -> Value {
        claims_of(self.token())
    }
}

/// The payload of a token, without any opinion on its signature.
pub(crate) fn claims_of(token: &str) -> Value {
    let payload = caracal_crypto::encoding::from_base64url(token.split('.').nth(1).unwrap()).unwrap();
    serde_json::from_slice(&payload).unwrap()
}

/// A token request. Fields are sent in the order given; `set` replaces.
#[derive(Clone)]
pub(crate) struct Ask {
    target: String,
    fields: Vec<(String, String)>,
    authorization: Option<String>,
    source: Option<SocketAddr>,
}

impl Ask {
    fn to(target: &str) -> Self {
        Self { target: target.to_owned(), fields: Vec::new(), authorization: None, source: None }
    }

    /// What is bound to the workload `w-1`.
    pub(crate) fn manifest() -> Self {
        Self::to("/v1/run/manifest").set("workload_id", WORKLOAD).set("secret", SECRET)
    }

    /// What its variable `env` is bound to.
    pub(crate) fn credential(env: &str) -> Self {
        Self { target: "/v1/run/credential".to_owned(), ..Self::manifest() }.set("env", env)
    }

    /// Nothing but the grant type and the client.
    pub(crate) fn by(application: &str, secret: &str) -> Self {
        Self::to("/oauth/2/token")
            .set("grant_type", GRANT)
            .set("zone_id", ZONE)
            .set("application_id", application)
            .set("client_secret", secret)
    }

    /// A bootstrap of `app-docs`.
    pub(crate) fn bootstrap() -> Self {
        Self::by(APP, SECRET).set("resource", DOCS).set("scope", "agent:lifecycle")
    }

    /// A delegated mint of `docs:read` for session `s-1` through edge `e-1`.
    pub(crate) fn mint() -> Self {
        Self::by(APP, SECRET)
            .set("resource", DOCS)
            .set("scope", "docs:read")
            .set("agent_session_id", "s-1")
            .set("delegation_edge_id", "e-1")
    }

    /// A direct exchange of a session mandate.
    pub(crate) fn direct(token: &str) -> Self {
        Self::by(APP, SECRET).set("resource", DOCS).set("subject_token", token).set("subject_token_type", ACCESS_TOKEN)
    }

    /// An id_token, relayed by `app-docs`.
    pub(crate) fn relay(token: &str) -> Self {
        Self::by(APP, SECRET).set("subject_token", token).set("subject_token_type", ID_TOKEN)
    }

    /// What a zone's own endpoint is asked about a mandate, by `app-docs` with Basic.
    pub(crate) fn about(endpoint: &str, token: &str) -> Self {
        Self::to("/oauth/2/token")
            .at(&format!("/zones/{ZONE}/oauth/2/{endpoint}"))
            .basic(APP, SECRET)
            .set("token", token)
    }

    /// A bootstrap of `app-docs` as a generic client asks for it: with Basic, at its zone's own endpoint.
    pub(crate) fn generic() -> Self {
        Self::to("/oauth/2/token")
            .at(&format!("/zones/{ZONE}/oauth/2/token"))
            .basic(APP, SECRET)
            .set("grant_type", "client_credentials")
            .set("resource", DOCS)
            .set("scope", "agent:lifecycle")
    }

    pub(crate) fn at(mut self, target: &str) -> Self {
        self.target = target.to_owned();
        self
    }

    /// The `Authorization` line.
    pub(crate) fn authorization(mut self, line: &str) -> Self {
        self.authorization = Some(line.to_owned());
        self
    }

    /// Basic, form-encoded as RFC 6749 §2.3.1 wants it.
    pub(crate) fn basic(self, application: &str, secret: &str) -> Self {
        let encoded = |text: &str| form::encode([("", text)]).split_off(1);
        let pair = format!("{}:{}", encoded(application), encoded(secret));
        self.authorization(&format!("Basic {}", STANDARD.encode(pair)))
    }

    pub(crate) fn set(mut self, name: &str, value: &str) -> Self {
        self.fields.retain(|(known, _)| known != name);
        self.add(name, value)
    }

    pub(crate) fn add(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.fields.retain(|(known, _)| known != name);
        self
    }

    pub(crate) fn from(mut self, source: &str) -> Self {
        self.source = Some(source.parse().unwrap());
        self
    }

    pub(crate) fn encoded(&self) -> String {
        form::encode(self.fields.iter().map(|(name, value)| (name, value)))
    }

    pub(crate) fn request(&self) -> Request<Body> {
        let mut request = Request::post(&self.target)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Body::from(self.encoded()))
            .unwrap();
        if let Some(line) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, line.parse().unwrap());
        }
        if let Some(source) = self.source {
            request.extensions_mut().insert(PeerAddr(source));
        }
        request
    }

    pub(crate) async fn send(&self, world: &World) -> Answer {
        world.send(self.request()).await
    }
}

/// A Gateway's signed exchange, with everything about its signature to be varied.
#[derive(Clone)]
pub(crate) struct Signed {
    pub(crate) ask: Ask,
    pub(crate) nonce: String,
    pub(crate) request_id: String,
    pub(crate) timestamp: i64,
}

impl Signed {
    /// The exchange of `mandate` for `GET /items` of `resource://docs`.
    pub(crate) fn exchange(world: &World, mandate: &str) -> Self {
        let request_id = chance::uuid_v4().unwrap().to_string();
        let ask = Ask::to("/oauth/2/token")
            .set("application_id", APP)
            .set("gateway_request_id", &request_id)
            .set("grant_type", GRANT)
            .set("request_method", "GET")
            .set("request_path", "/items")
            .set("resource", DOCS)
            .set("subject_token", mandate)
            .set("subject_token_type", ACCESS_TOKEN)
            .set("zone_id", ZONE);
        let nonce = chance::uuid_v4().unwrap().to_string();
        Self { ask, nonce, request_id, timestamp: world.store.now().as_seconds() }
    }

    pub(crate) fn set(mut self, name: &str, value: &str) -> Self {
        self.ask = self.ask.set(name, value);
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.ask = self.ask.without(name);
        self
    }

    pub(crate) fn signature(&self) -> String {
        let body = self.ask.encoded();
        gateway_signature(&gateway_key(), self.timestamp, &self.nonce, "POST", "/oauth/2/token", body.as_bytes())
    }

    /// The three headers and the request id, signed by the right key.
    pub(crate) fn request(&self) -> Request<Body> {
        let mut request = self.ask.request();
        let headers = request.headers_mut();
        headers.insert("x-request-id", self.request_id.parse().unwrap());
        headers.insert("x-caracal-gateway-timestamp", self.timestamp.to_string().parse().unwrap());
        headers.insert("x-caracal-gateway-request", self.nonce.parse().unwrap());
        headers.insert("x-caracal-gateway-signature", self.signature().parse().unwrap());
        request
    }

    pub(crate) async fn send(&self, world: &World) -> Answer {
        world.send(self.request()).await
    }
}

/// The same exchange as a function call, as a Gateway in this process makes it.
pub(crate) fn gateway_call(mandate: &str) -> GatewayCall {
    GatewayCall {
        zone: zone(),
        application: ApplicationId::parse(APP).unwrap(),
        mandate: SecretText::new(mandate.to_owned()),
        resource: DOCS.to_owned(),
        call: UpstreamCall { method: "GET".to_owned(), path: "/items".to_owned() },
        request_id: chance::uuid_v7(Timestamp::from_seconds(super::START)).unwrap().to_string(),
    }
}
