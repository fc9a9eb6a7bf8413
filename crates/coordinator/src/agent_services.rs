//! `POST` and `GET /zones/:zoneId/agent-services`: services that applications offer to agents (contract: coordinator.md
//! §5.1). What is registered says where a service is and what it speaks; nothing here ever calls it.

use std::sync::Arc;

use axum::http::StatusCode;
use caracal_authority::{ApplicationId, ServiceId};
use caracal_http::Problem;
use caracal_ledger::Ledger;
use caracal_store::agent_services::{self, AgentService};
use caracal_store::{StoreError, ZoneWrite, applications};
use serde_json::{Map, Value, json};
use url::Url;

use crate::Coordinator;
use crate::auth::{IdentityRevoked, Principal};
use crate::evidence::{Caller, record_success};
use crate::facts::application_id;
use crate::outage::{Outage, new_id};
use crate::page::{Page, invalid_cursor};
use crate::schema::{Fields, Issues};
use crate::wire::{Answer, instant, invalid_body, refusal};

/// What a service is until it says more.
const FIRST_HEALTH: &str = "starting";

/// A request body that matches the schema.
struct Wanted {
    application: String,
    endpoint: String,
    protocol_versions: Vec<String>,
    framework: Option<(String, Option<String>)>,
    capabilities: Vec<String>,
    metadata: Map<String, Value>,
}

/// Why nothing is registered or listed, in the contract's order.
#[derive(Debug, thiserror::Error)]
enum ServiceRefused {
    #[error(transparent)]
    Caller(#[from] IdentityRevoked),
    #[error("the application is another's")]
    ApplicationOwnership,
    #[error("no such application")]
    ApplicationNotFound,
    #[error("the cursor names no service of the list")]
    Cursor,
    #[error(transparent)]
    Outage(#[from] Outage),
}

impl From<StoreError> for ServiceRefused {
    fn from(error: StoreError) -> Self {
        Self::Outage(error.into())
    }
}

impl From<ServiceRefused> for Problem {
    fn from(error: ServiceRefused) -> Self {
        let message = error.to_string();
        let (status, code) = match error {
            ServiceRefused::Caller(revoked) => return revoked.into(),
            ServiceRefused::Cursor => return invalid_cursor(),
            ServiceRefused::Outage(outage) => return outage.problem(),
            ServiceRefused::ApplicationOwnership => (StatusCode::FORBIDDEN, "application_ownership_required"),
            ServiceRefused::ApplicationNotFound => (StatusCode::NOT_FOUND, "application_not_found"),
        };
        refusal(status, code).describe(message)
    }
}

struct Register {
    caller: Arc<Caller>,
    ledger: Ledger,
    application: ApplicationId,
    wanted: Wanted,
}

/// Registers the service of an application at an endpoint, or replaces what it said of itself.
pub(crate) async fn register(
    coordinator: &Coordinator,
    caller: Arc<Caller>,
    body: Option<&Value>,
) -> Result<Answer, Problem> {
    let wanted = read(body).map_err(|issues| invalid_body(&issues))?;
    if !caller.principal.may_for("coordinator.spawn_for", &wanted.application) {
        return Err(ServiceRefused::ApplicationOwnership.into());
    }
    let application = application_id(&wanted.application).ok_or(ServiceRefused::ApplicationNotFound)?;
    let zone = caller.principal.zone().clone();
    let register = Register { caller, ledger: coordinator.ledger.clone(), application, wanted };
    let service: Result<AgentService, ServiceRefused> =
        coordinator.store.commit(&zone, register, |tx, register| Box::pin(register.commit(tx))).await;
    Ok(Answer::created(service_json(&service?), false))
}

fn read(body: Option<&Value>) -> Result<Wanted, Issues> {
    let mut fields = Fields::of(body)?;
    let application = fields.required_text("application_id");
    let endpoint = fields.required_text("endpoint_url").trim().to_owned();
    if fields.raw("endpoint_url").is_some_and(Value::is_string) && !is_absolute_url(&endpoint) {
        fields.fault("endpoint_url", None, "expected an absolute URL");
    }
    let protocol_versions = filled_texts(&mut fields, "protocol_versions");
    let framework = framework(&mut fields);
    let capabilities = filled_texts(&mut fields, "capabilities");
    let metadata = fields.object("metadata");
    fields.finish()?;
    Ok(Wanted { application, endpoint, protocol_versions, framework, capabilities, metadata })
}

/// Any scheme will do. A parser drops control characters where it finds them, so that another endpoint would be read than
/// is stored.
fn is_absolute_url(text: &str) -> bool {
    !text.chars().any(char::is_control) && Url::parse(text).is_ok()
}

fn filled_texts(fields: &mut Fields<'_>, name: &str) -> Vec<String> {
    let texts = fields.text_list(name);
    for (index, text) in texts.iter().enumerate() {
        if text.is_empty() {
            fields.fault(name, Some(index), "must not be empty");
        }
    }
    texts.into_iter().map(str::to_owned).collect()
}

fn framework(fields: &mut Fields<'_>) -> Option<(String, Option<String>)> {
    let mut framework = None;
    fields.within("framework", |members| {
        framework = Some((members.required_text("name"), members.optional_text("version", 0)));
    });
    framework
}

impl Register {
    async fn commit(&self, tx: &mut ZoneWrite<'_>) -> Result<AgentService, ServiceRefused> {
        self.caller.principal.check_alive(tx).await??;
        let now = tx.now();
        let application = applications::lookup(tx, &self.application).await?;
        application.filter(|application| application.is_live(now)).ok_or(ServiceRefused::ApplicationNotFound)?;
        let (framework_name, framework_version) = match &self.wanted.framework {
            Some((name, version)) => (Some(name.clone()), version.clone()),
            None => (None, None),
        };
        let known = agent_services::find_by_endpoint(tx, &self.application, &self.wanted.endpoint).await?;
        let service = AgentService {
            zone_id: tx.zone().clone(),
            id: known.as_ref().map_or_else(|| new_id(now), |known| Ok(known.id.clone()))?,
            application_id: self.application.clone(),
            endpoint_url: self.wanted.endpoint.clone(),
            protocol_versions: self.wanted.protocol_versions.clone(),
            framework_name,
            framework_version,
            capabilities: self.wanted.capabilities.clone(),
            health: known.as_ref().map_or_else(|| FIRST_HEALTH.to_owned(), |known| known.health.clone()),
            metadata: self.wanted.metadata.clone(),
            last_heartbeat_at: known.as_ref().and_then(|known| known.last_heartbeat_at),
            created_at: known.as_ref().map_or(now, |known| known.created_at),
            updated_at: now,
        };
        if known.is_some() {
            agent_services::update(tx, &service).await?;
        } else {
            agent_services::add(tx, &service).await?;
        }
        record_success(tx, &self.ledger, &self.caller, StatusCode::CREATED.as_u16()).await?;
        Ok(service)
    }
}

/// Lists services, newest first: the caller's own application's, or all of the zone (difference D26).
pub(crate) async fn list(
    coordinator: &Coordinator,
    principal: &Principal,
    query: Option<&str>,
) -> Result<Answer, Problem> {
    let page = Page::read(query)?;
    let rows = of_caller(coordinator, principal, &page).await?;
    Ok(Answer::ok(page.body(&rows, |row| row.id.as_str(), service_json)))
}

async fn of_caller(
    coordinator: &Coordinator,
    principal: &Principal,
    page: &Page,
) -> Result<Vec<AgentService>, ServiceRefused> {
    let mut snapshot = coordinator.store.snapshot().await?;
    let zone = &mut snapshot.zone(principal.zone());
    let before = match &page.cursor {
        None => None,
        Some(cursor) => {
            let id = ServiceId::parse(cursor).map_err(|_| ServiceRefused::Cursor)?;
            let row = agent_services::lookup(zone, &id).await?;
            let visible = |row: &AgentService| principal.is_admin() || principal.is(row.application_id.as_str());
            row.filter(visible).ok_or(ServiceRefused::Cursor)?;
            Some(id)
        }
    };
    let own = principal.application().filter(|_| !principal.is_admin()).map(|application| &application.id);
    Ok(agent_services::list(zone, own, before.as_ref(), page.limit).await?)
}

/// A service as its registration, lists and heartbeats show it.
pub(crate) fn service_json(service: &AgentService) -> Value {
    json!({
        "id": service.id,
        "zone_id": service.zone_id,
        "application_id": service.application_id,
        "endpoint_url": service.endpoint_url,
        "protocol_versions": service.protocol_versions,
        "framework_name": service.framework_name,
        "framework_version": service.framework_version,
        "capabilities": service.capabilities,
        "health": service.health,
        "metadata_json": service.metadata,
        "last_heartbeat_at": instant(service.last_heartbeat_at),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(body: &Value) -> Vec<String> {
        let issues = read(Some(body)).err().map_or(json!([]), |issues| issues.to_json());
        issues.as_array().unwrap().iter().map(|issue| issue["path"].to_string()).collect()
    }

    #[test]
    fn a_registration_has_a_form() {
        let with = |name: &str, value: Value| {
            let mut body = json!({"application_id": "app-1", "endpoint_url": " https://a.example/x "});
            body[name] = value;
            body
        };
        let none: [&str; 0] = [];
        for (name, value, expected) in [
            ("other", json!(1), &none[..]),
            ("endpoint_url", json!("stdio:worker"), &none),
            ("endpoint_url", json!("/relative"), &[r#"["endpoint_url"]"#]),
            ("endpoint_url", json!("https://a\nb.example"), &[r#"["endpoint_url"]"#]),
            ("endpoint_url", json!(1), &[r#"["endpoint_url"]"#]),
            ("application_id", json!(""), &[r#"["application_id"]"#]),
            ("protocol_versions", json!(["1", ""]), &[r#"["protocol_versions","1"]"#]),
            ("capabilities", json!("x"), &[r#"["capabilities"]"#]),
            ("framework", json!({"name": "f"}), &none),
            ("framework", json!({"name": "f", "version": "1"}), &none),
            ("framework", json!({"version": "1"}), &[r#"["framework","name"]"#]),
            ("framework", json!({"name": "f", "version": 1}), &[r#"["framework","version"]"#]),
            ("framework", json!(null), &[r#"["framework"]"#]),
            ("metadata", json!([]), &[r#"["metadata"]"#]),
        ] {
            assert_eq!(paths(&with(name, value.clone())), expected, "{name}: {value}");
        }
        assert_eq!(read(Some(&with("x", json!(1)))).unwrap().endpoint, "https://a.example/x");
        assert_eq!(paths(&json!({})), [r#"["application_id"]"#, r#"["endpoint_url"]"#]);
    }
}
