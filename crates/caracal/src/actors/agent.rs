//! The agent's part: it has a client secret, asks for mandates and calls through the Gateway.

use caracal_crypto::chance;
use caracal_crypto::encoding::hex;
use caracal_crypto::hmac::{HmacKey, gateway_signature};
use caracal_http::form;
use caracal_store::{Clock, SystemClock};
use http::Method;
use serde_json::{Value, json};

use super::client::{Answer, HttpClient};
use super::operator::{NOTES, Provisioned, ROLE};
use crate::commands::Failure;
use crate::system::Urls;

const GRANT: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

/// Speaks to STS, Coordinator and Gateway.
pub(crate) struct Agent<'d> {
    client: &'d HttpClient,
    urls: Urls,
    pub(crate) at: &'d Provisioned,
    /// What it shows the Coordinator.
    lifecycle: String,
}

/// A governed session and the delegation it acts through.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) id: String,
    pub(crate) edge: Option<String>,
}

impl<'d> Agent<'d> {
    /// Bootstraps: trades the client secret for a lifecycle mandate.
    pub(crate) async fn bootstrap(client: &'d HttpClient, urls: &Urls, at: &'d Provisioned) -> Result<Self, Failure> {
        let mut agent = Self { client, urls: urls.clone(), at, lifecycle: String::new() };
        let answer = agent.exchange(&[("resource", NOTES), ("scope", "agent:lifecycle")]).await?;
        agent.lifecycle = answer.expect_success("the bootstrap")?.text("access_token")?;
        Ok(agent)
    }

    /// Sends the form of a mint with a grant type that nobody knows: it is read, and refused.
    pub(crate) async fn ask_nothing(&self, session: &Session) -> Result<Answer, Failure> {
        let edge = session.edge.as_deref().unwrap_or_default();
        let fields = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:no-such-thing"),
            ("zone_id", self.at.zone.as_str()),
            ("application_id", self.at.application.as_str()),
            ("client_secret", self.at.client_secret.as_str()),
            ("resource", NOTES),
            ("scope", "notes:read"),
            ("agent_session_id", &session.id),
            ("delegation_edge_id", edge),
        ];
        self.client.post_form(&format!("{}/oauth/2/token", self.urls.sts), &fields).await
    }

    /// Asks the STS for the final authority of a call with a mandate, as a Gateway does that holds `key` (sts.md §10.1).
    pub(crate) async fn exchange_as_gateway(&self, mandate: &str, key: &HmacKey) -> Result<Answer, Failure> {
        let nonce = hex(&chance::random_bytes::<32>()?);
        let request_id = nonce.clone();
        let body = form::encode([
            ("application_id", self.at.application.as_str()),
            ("gateway_request_id", request_id.as_str()),
            ("grant_type", GRANT),
            ("request_method", "GET"),
            ("request_path", "/notes"),
            ("resource", NOTES),
            ("subject_token", mandate),
            ("subject_token_type", "urn:ietf:params:oauth:token-type:access_token"),
            ("zone_id", self.at.zone.as_str()),
        ]);
        let now = SystemClock.now().as_seconds();
        let signature = gateway_signature(key, now, &nonce, "POST", "/oauth/2/token", body.as_bytes());
        let headers = [
            ("x-request-id", request_id),
            ("x-caracal-gateway-timestamp", now.to_string()),
            ("x-caracal-gateway-request", nonce),
            ("x-caracal-gateway-signature", signature),
        ];
        self.client.post_text_form(&format!("{}/oauth/2/token", self.urls.sts), &headers, body).await
    }

    async fn exchange(&self, asked: &[(&str, &str)]) -> Result<Answer, Failure> {
        let mut fields = vec![
            ("grant_type", GRANT),
            ("zone_id", self.at.zone.as_str()),
            ("application_id", self.at.application.as_str()),
            ("client_secret", self.at.client_secret.as_str()),
        ];
        fields.extend_from_slice(asked);
        self.client.post_form(&format!("{}/oauth/2/token", self.urls.sts), &fields).await
    }

    /// Asks for a one-shot mandate to call the resource with `scope`.
    pub(crate) async fn mint(&self, session: &Session, scope: &str) -> Result<Answer, Failure> {
        let edge = session.edge.as_deref().unwrap_or_default();
        self.exchange(&[
            ("resource", NOTES),
            ("scope", scope),
            ("agent_session_id", &session.id),
            ("delegation_edge_id", edge),
        ])
        .await
    }

    /// Calls the resource with a mandate.
    pub(crate) async fn call(&self, mandate: &str, method: Method, path: &str) -> Result<Answer, Failure> {
        let bearer = format!("Bearer {mandate}");
        let headers = [("authorization", bearer.as_str()), ("x-caracal-resource", NOTES)];
        self.client.send(method, &format!("{}{path}", self.urls.gateway), &headers, None).await
    }

    async fn coordinate(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer, Failure> {
        let bearer = format!("Bearer {}", self.lifecycle);
        let headers = [("authorization", bearer.as_str())];
        let url = format!("{}/zones/{}{path}", self.urls.coordinator, self.at.zone);
        self.client.send(method, &url, &headers, body).await
    }

    /// Starts a session, under a parent or as a root, without inheriting anything.
    pub(crate) async fn start(&self, parent: Option<&Session>) -> Result<Session, Failure> {
        let answer = self.ask_to_start(parent).await?.expect_success("starting a session")?;
        Ok(Session { id: answer.text("agent_session_id")?, edge: None })
    }

    /// The same, and the answer as it is.
    pub(crate) async fn ask_to_start(&self, parent: Option<&Session>) -> Result<Answer, Failure> {
        let body = json!({
            "application_id": self.at.application, "labels": [ROLE], "ttl_seconds": 600,
            "parent_id": parent.map(|parent| parent.id.as_str()), "parent_authority": "none"
        });
        self.coordinate(Method::POST, "/agents", Some(&body)).await
    }

    /// Ends a session.
    pub(crate) async fn terminate(&self, session: &Session) -> Result<Answer, Failure> {
        self.coordinate(Method::DELETE, &format!("/agents/{}", session.id), None).await
    }

    /// Asks the Coordinator whether the lifecycle mandate is genuine.
    pub(crate) async fn verify_own(&self) -> Result<Answer, Failure> {
        let body = json!({"zone_id": self.at.zone, "token": self.lifecycle});
        self.client.send(Method::POST, &format!("{}/v1/verify", self.urls.coordinator), &[], Some(&body)).await
    }

    /// Lends `scopes` of the resource from one session to another, over at most `hops` further edges, this one included.
    pub(crate) async fn delegate(
        &self,
        from: &Session,
        to: &Session,
        scopes: &[&str],
        hops: u8,
    ) -> Result<Answer, Failure> {
        let mut body = json!({
            "issuer_application_id": self.at.application, "source_session_id": from.id,
            "receiver_application_id": self.at.application, "target_session_id": to.id,
            "scopes": scopes, "constraints": {"resources": [NOTES], "max_hops": hops},
            // What is lent on must end before what it was cut from.
            "ttl_seconds": if from.edge.is_some() { 300 } else { 600 }
        });
        if let Some(parent) = &from.edge {
            body["parent_edge_id"] = json!(parent);
        }
        self.coordinate(Method::POST, "/delegations", Some(&body)).await
    }

    /// Takes a delegation back, and with it everything that was started or lent through it.
    pub(crate) async fn revoke(&self, edge: &str) -> Result<Answer, Failure> {
        self.coordinate(Method::PATCH, &format!("/delegations/{edge}/revoke"), None).await
    }
}
