//! The operator's part: what is provisioned through the Admin API.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::client::{Answer, HttpClient};
use super::upstream::{KEY_HEADER, Upstream};
use crate::commands::Failure;
use caracal_crypto::SecretText;

/// How long the announcement of a policy may take.
const ANNOUNCED_WITHIN: Duration = Duration::from_secs(10);

/// The resource as agents name it.
pub(crate) const NOTES: &str = "resource://notes";
/// The label, and so the role, of the agent's sessions.
pub(crate) const ROLE: &str = "assistant";

/// What the operator hands out and keeps.
pub(crate) struct Provisioned {
    pub(crate) zone: String,
    pub(crate) application: String,
    /// What the agent has instead of a key to the upstream.
    pub(crate) client_secret: String,
    /// How many calls it took.
    pub(crate) calls: usize,
    /// The policy that decides, and the set it is in force in.
    policy: String,
    policy_set: String,
}

/// Speaks to the Admin API.
pub(crate) struct Operator<'d> {
    client: &'d HttpClient,
    api: String,
    authorization: String,
}

impl<'d> Operator<'d> {
    /// Speaks to the Admin API at `api` with its bootstrap token.
    pub(crate) fn new(client: &'d HttpClient, api: &str, token: &SecretText) -> Self {
        Self { client, api: api.to_owned(), authorization: format!("Bearer {}", token.expose()) }
    }

    pub(crate) async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer, Failure> {
        let headers = [("authorization", self.authorization.as_str())];
        self.client.send(method, &format!("{}{path}", self.api), &headers, body).await
    }

    async fn create(&self, path: &str, body: Value) -> Result<Answer, Failure> {
        self.call(Method::POST, path, Some(&body)).await?.expect_success(&format!("POST {path}"))
    }

    /// Waits until a policy that was activated decides, and its announcement is out.
    async fn in_force(&self, status_url: &str) -> Result<(), Failure> {
        let until = Instant::now() + ANNOUNCED_WITHIN;
        loop {
            let status = self.call(Method::GET, status_url, None).await?.expect_success("the status")?;
            match status.text("propagation_status")?.as_str() {
                "loaded" => return Ok(()),
                "failed" => {}
                _ if Instant::now() < until => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    continue;
                }
                _ => {}
            }
            return Err(Failure(format!("the policy was activated but is not in force: {}", status.json())));
        }
    }

    /// A zone with one application, one resource behind the upstream's key, and a policy that says who may do what.
    pub(crate) async fn provision(
        &self,
        zone_name: &str,
        upstream: &Upstream,
        upstream_key: &str,
    ) -> Result<Provisioned, Failure> {
        let zone = self.create("/v1/zones", json!({"name": zone_name})).await?.text("id")?;
        let of_zone = |rest: &str| format!("/v1/zones/{zone}{rest}");
        let application = self
            .create(&of_zone("/applications"), json!({"name": "notes-bot", "registration_method": "managed"}))
            .await?;
        let provider = json!({
            "name": "Notes API key", "kind": "api_key",
            "config_json": {"header_name": KEY_HEADER, "api_key": upstream_key}
        });
        let provider = self.create(&of_zone("/providers"), provider).await?.text("id")?;
        let resource = json!({
            "name": "Notes", "identifier": NOTES, "upstream_url": upstream.url,
            "credential_provider_id": provider,
            "scopes": ["notes:read", "notes:write", "notes:delete"],
            "operations": [
                {"method": "GET", "path": "/notes", "scope": "notes:read"},
                {"method": "POST", "path": "/notes", "scope": "notes:write"},
                {"method": "DELETE", "path": "/notes/{id}", "scope": "notes:delete"}
            ]
        });
        self.create(&of_zone("/resources"), resource).await?;
        let application_id = application.text("id")?;
        let policy = json!({"name": "who may do what", "content": document(&application_id, 1)});
        let policy = self.create(&of_zone("/policies"), policy).await?;
        let policy_set = self.create(&of_zone("/policy-sets"), json!({"name": "in force"})).await?.text("id")?;
        self.activate(&zone, &policy_set, &policy.text("version_id")?).await?;
        Ok(Provisioned {
            zone,
            application: application_id,
            client_secret: application.text("client_secret")?,
            calls: 9,
            policy: policy.text("id")?,
            policy_set,
        })
    }

    /// Puts one version of a policy in force, alone.
    async fn activate(&self, zone: &str, set: &str, policy_version: &str) -> Result<(), Failure> {
        let path = format!("/v1/zones/{zone}/policy-sets/{set}");
        let manifest = json!({"manifest": [{"policy_version_id": policy_version}]});
        let version = self.create(&format!("{path}/versions"), manifest).await?.text("version_id")?;
        let activated = self.create(&format!("{path}/activate"), json!({"version_id": version})).await?;
        self.in_force(&activated.text("status_url")?).await
    }

    /// Lets the policy grant what it did, among so many grants.
    pub(crate) async fn decide_among(&self, at: &Provisioned, grants: u64) -> Result<(), Failure> {
        let path = format!("/v1/zones/{}/policies/{}/versions", at.zone, at.policy);
        let version = self.create(&path, json!({"content": document(&at.application, grants)})).await?;
        self.activate(&at.zone, &at.policy_set, &version.text("version_id")?).await
    }
}

/// The application owns the resource; its assistants may read and write notes. Nobody may delete any. Of `count` grants
/// that is one; the others are of resources that nobody asks for.
fn document(application: &str, count: u64) -> String {
    let app_ids = json!({"notes-bot": application, "n": application});
    let mut grants = serde_json::Map::new();
    grants
        .insert(NOTES.to_owned(), json!({"application": "notes-bot", "roles": {ROLE: ["notes:read", "notes:write"]}}));
    // Short, so that five thousand of them are a document that is allowed.
    let others = (1..count).map(|number| (format!("r:{number}"), json!({"application": "n", "roles": {"r": ["s"]}})));
    grants.extend(others);
    let grants = serde_json::Value::Object(grants);
    format!(
        "# caracal:data-document\npackage caracal.authz\nimport rego.v1\napp_ids := {app_ids}\ngrants := {grants}\n"
    )
}
