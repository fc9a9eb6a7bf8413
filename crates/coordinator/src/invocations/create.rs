//! `POST /zones/:zoneId/invocations`: asking something of a service.
//!
//! The key that makes a repetition harmless is part of the body, and is looked for before the request is counted: who
//! repeats a request that was heard is answered, however much it asks. Counting may ask another server, which no change
//! may wait for; so what is decided before it is decided once more in the change.

use std::sync::Arc;

use axum::http::StatusCode;
use caracal_authority::invocation::InvocationStatus;
use caracal_authority::session::Lifecycle;
use caracal_authority::{AgentSessionId, ApplicationId, ServiceId};
use caracal_cascade::events;
use caracal_http::Problem;
use caracal_http::rate::Kind;
use caracal_ledger::Ledger;
use caracal_store::agent_services;
use caracal_store::invocations::{self, Invocation};
use caracal_store::{ZoneRead, ZoneWrite, sessions};
use serde_json::{Map, Value, json};

use super::{InvocationRefused, invocation_json, may_invoke};
use crate::Coordinator;
use crate::auth::Application;
use crate::evidence::{Caller, record_success};
use crate::facts::session_id;
use crate::idempotency::{Keyed, Operation, check_key, remembered_body};
use crate::outage::{Outage, new_id};
use crate::schema::{Fields, Issues};
use crate::wire::{Answer, refusal};

const TIMEOUT_MS: std::ops::RangeInclusive<u64> = 1..=900_000;
const DEFAULT_TIMEOUT_MS: u64 = 30_000;
const MAX_ATTEMPTS: std::ops::RangeInclusive<u64> = 1..=10;
const DEFAULT_MAX_ATTEMPTS: u64 = 3;
const BACKOFF_MS: std::ops::RangeInclusive<u64> = 0..=300_000;
const DEFAULT_BACKOFF_MS: u64 = 1_000;
const MAX_KEY_CHARS: usize = 255;

/// A request body that matches the schema.
struct Wanted {
    service: String,
    key: String,
    source: Option<String>,
    target: Option<String>,
    method: String,
    params: Value,
    metadata: Map<String, Value>,
    timeout_ms: i64,
    max_attempts: i64,
    backoff_ms: i64,
    /// Whether the pause is the caller's wish. It is part of no comparison: who leaves it out asks the same.
    backoff_named: bool,
}

/// Who does the work, and who asks for it.
#[derive(Clone)]
struct Parties {
    service: ServiceId,
    owner: ApplicationId,
    acting: ApplicationId,
    source: Option<AgentSessionId>,
    target: Option<AgentSessionId>,
}

/// One request, ready to be decided and written.
struct Create {
    caller: Arc<Caller>,
    ledger: Ledger,
    wanted: Wanted,
    key: Keyed,
}

/// Asks something of a service.
pub(crate) async fn create(
    coordinator: &Coordinator,
    caller: Arc<Caller>,
    body: Option<&Value>,
) -> Result<Answer, Problem> {
    let wanted = read(body).map_err(InvocationRefused::Body)?;
    check_key(wanted.key.as_bytes()).map_err(InvocationRefused::from)?;
    let Some(own) = caller.principal.application() else {
        return Err(refusal(StatusCode::UNAUTHORIZED, "invalid_token"));
    };
    let (key, known) = judge(coordinator, &caller, own, &wanted).await?;
    if !known {
        coordinator.count_invocation(&caller.principal, Kind::Other).await?;
    }
    let zone = caller.principal.zone().clone();
    let create = Create { caller, ledger: coordinator.ledger.clone(), wanted, key };
    let created: Result<Answer, InvocationRefused> =
        coordinator.store.commit(&zone, create, |tx, create| Box::pin(create.commit(tx))).await;
    Ok(created?)
}

fn read(body: Option<&Value>) -> Result<Wanted, Issues> {
    let mut fields = Fields::of(body)?;
    let service = fields.required_text("service_id");
    let key = fields.required_text("idempotency_key");
    if key.chars().count() > MAX_KEY_CHARS {
        fields.fault("idempotency_key", None, "must be 1 to 255 characters");
    }
    let method = fields.required_text("method");
    let source = fields.nullable_text("source_session_id", 0);
    let target = fields.nullable_text("target_session_id", 0);
    let params = fields.raw("params").cloned().unwrap_or_else(|| json!({}));
    let metadata = fields.object("metadata");
    let timeout_ms = fields.optional_whole("timeout_ms", TIMEOUT_MS).unwrap_or(DEFAULT_TIMEOUT_MS);
    let (max_attempts, backoff) = retry_policy(&mut fields);
    let (backoff_ms, backoff_named) = (backoff.unwrap_or(DEFAULT_BACKOFF_MS), backoff.is_some());
    fields.finish()?;
    // All within their bounds.
    let [timeout_ms, max_attempts, backoff_ms] = [timeout_ms, max_attempts, backoff_ms].map(u64::cast_signed);
    Ok(Wanted {
        service,
        key,
        source,
        target,
        method,
        params,
        metadata,
        timeout_ms,
        max_attempts,
        backoff_ms,
        backoff_named,
    })
}

/// Attempts, and the pause between two of them where one is named.
fn retry_policy(fields: &mut Fields<'_>) -> (u64, Option<u64>) {
    let (mut attempts, mut backoff) = (DEFAULT_MAX_ATTEMPTS, None);
    fields.within("retry_policy", |policy| {
        attempts = policy.optional_whole("max_attempts", MAX_ATTEMPTS).unwrap_or(attempts);
        backoff = policy.optional_whole("backoff_ms", BACKOFF_MS);
    });
    (attempts, backoff)
}

/// What makes two requests the same (contract: coordinator.md §10).
fn content(wanted: &Wanted) -> Value {
    json!({
        "service_id": wanted.service,
        "source_session_id": wanted.source,
        "target_session_id": wanted.target,
        "method": wanted.method,
        "params": wanted.params,
        "metadata": wanted.metadata,
        "timeout_ms": wanted.timeout_ms,
        "retry_policy": {"max_attempts": wanted.max_attempts, "backoff_ms": wanted.backoff_ms},
    })
}

/// Everything that comes before the count, and whether the request was heard before.
async fn judge(
    coordinator: &Coordinator,
    caller: &Caller,
    own: &Application,
    wanted: &Wanted,
) -> Result<(Keyed, bool), InvocationRefused> {
    let mut snapshot = coordinator.store.snapshot().await?;
    let zone = &mut snapshot.zone(caller.principal.zone());
    let parties = parties(zone, caller, wanted).await?;
    let operation = Operation::CreateInvocation;
    let key = Keyed::explicit(&wanted.key, &coordinator.config, operation, &parties.acting, own, content(wanted));
    let known = key.find_receipt(zone).await?.is_some();
    Ok((key, known))
}

/// The service and the sessions that are named, and whether the caller may ask.
async fn parties(tx: &mut ZoneRead<'_>, caller: &Caller, wanted: &Wanted) -> Result<Parties, InvocationRefused> {
    let service = ServiceId::parse(&wanted.service).map_err(|_| InvocationRefused::ServiceNotFound)?;
    let service = agent_services::lookup(tx, &service).await?.ok_or(InvocationRefused::ServiceNotFound)?;
    if wanted.source.is_some() && wanted.source == wanted.target {
        return Err(InvocationRefused::SessionNotFound);
    }
    let source = endpoint(tx, wanted.source.as_deref()).await?;
    let target = endpoint(tx, wanted.target.as_deref()).await?;
    let acting = source.as_ref().map_or_else(|| service.application_id.clone(), |(_, of)| of.clone());
    if !may_invoke(&caller.principal, acting.as_str()) {
        return Err(InvocationRefused::Ownership);
    }
    let id = |endpoint: Option<(AgentSessionId, ApplicationId)>| endpoint.map(|(id, _)| id);
    Ok(Parties { service: service.id, owner: service.application_id, acting, source: id(source), target: id(target) })
}

/// A task that is at work now, with its application. A service's session is no end of an invocation (contract: §7).
async fn endpoint(
    tx: &mut ZoneRead<'_>,
    named: Option<&str>,
) -> Result<Option<(AgentSessionId, ApplicationId)>, InvocationRefused> {
    let Some(named) = named else { return Ok(None) };
    let now = tx.now();
    let id = session_id(named).ok_or(InvocationRefused::SessionNotFound)?;
    let row = sessions::lookup(tx, &id).await?.ok_or(InvocationRefused::SessionNotFound)?;
    let facts = row.facts()?;
    let fits = facts.is_active(now) && facts.life.lifecycle() == Lifecycle::Task;
    if fits { Ok(Some((facts.id, facts.application))) } else { Err(InvocationRefused::SessionNotFound) }
}

impl Create {
    async fn commit(&self, tx: &mut ZoneWrite<'_>) -> Result<Answer, InvocationRefused> {
        self.caller.principal.check_alive(tx).await??;
        let parties = parties(tx, &self.caller, &self.wanted).await?;
        let answer = match self.key.find_receipt(tx).await? {
            // Whatever became of it since: whoever asks twice wants to know which invocation it was.
            Some(receipt) => Answer::created(remembered_body(&receipt)?, true),
            None => self.add(tx, parties).await?,
        };
        record_success(tx, &self.ledger, &self.caller, answer.status.as_u16()).await?;
        Ok(answer)
    }

    async fn add(&self, tx: &mut ZoneWrite<'_>, parties: Parties) -> Result<Answer, InvocationRefused> {
        let now = tx.now();
        let invocation = Invocation {
            zone_id: tx.zone().clone(),
            id: new_id(now)?,
            service_id: parties.service,
            service_application_id: parties.owner,
            acting_application_id: parties.acting,
            source_session_id: parties.source,
            target_session_id: parties.target,
            method: self.wanted.method.clone(),
            params: self.wanted.params.clone(),
            metadata: self.wanted.metadata.clone(),
            status: InvocationStatus::Pending,
            attempts: 0,
            max_attempts: self.wanted.max_attempts,
            backoff_ms: self.wanted.backoff_ms,
            backoff_named: self.wanted.backoff_named,
            timeout_ms: self.wanted.timeout_ms,
            deadline_at: None,
            cancel_requested_at: None,
            started_at: None,
            completed_at: None,
            error: None,
            created_at: now,
            updated_at: now,
        };
        invocations::add(tx, &invocation).await?;
        events::invocation_moved(tx, "invocation.created", &invocation).await.map_err(Outage::from)?;
        let body = invocation_json(&invocation);
        self.key.add_receipt(tx, invocation.id.as_str(), StatusCode::CREATED, &body).await?;
        Ok(Answer::created(body, false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(name: &str, value: Value) -> Value {
        let mut body = json!({"service_id": "v-1", "idempotency_key": "k", "method": "m"});
        body[name] = value;
        body
    }

    fn paths(body: &Value) -> Vec<String> {
        let issues = read(Some(body)).err().map_or(json!([]), |issues| issues.to_json());
        issues.as_array().unwrap().iter().map(|issue| issue["path"].to_string()).collect()
    }

    #[test]
    fn a_request_has_a_form() {
        let none: [&str; 0] = [];
        for (name, value, expected) in [
            ("other", json!(1), &none[..]),
            ("params", json!(null), &none),
            ("source_session_id", json!(null), &none),
            ("target_session_id", json!(1), &[r#"["target_session_id"]"#]),
            ("method", json!(""), &[r#"["method"]"#]),
            ("idempotency_key", json!(""), &[r#"["idempotency_key"]"#]),
            ("idempotency_key", json!("x".repeat(256)), &[r#"["idempotency_key"]"#]),
            ("timeout_ms", json!(0), &[r#"["timeout_ms"]"#]),
            ("timeout_ms", json!(900_000), &none),
            ("timeout_ms", json!(900_001), &[r#"["timeout_ms"]"#]),
            ("metadata", json!(null), &[r#"["metadata"]"#]),
            ("retry_policy", json!({"max_attempts": 10, "backoff_ms": 0}), &none),
            (
                "retry_policy",
                json!({"max_attempts": 11, "backoff_ms": 300_001}),
                &[r#"["retry_policy","max_attempts"]"#, r#"["retry_policy","backoff_ms"]"#],
            ),
            ("retry_policy", json!(3), &[r#"["retry_policy"]"#]),
        ] {
            assert_eq!(paths(&body(name, value.clone())), expected, "{name}: {value}");
        }
        assert_eq!(paths(&json!({})), [r#"["service_id"]"#, r#"["idempotency_key"]"#, r#"["method"]"#],);
    }

    #[test]
    fn what_is_left_out_is_the_same_request_as_what_the_contract_assumes() {
        let short = read(Some(&body("other", json!(1)))).unwrap();
        let long = json!({
            "service_id": "v-1", "idempotency_key": "k", "method": "m", "source_session_id": null, "params": {},
            "target_session_id": null, "metadata": {}, "timeout_ms": 30_000.0,
            "retry_policy": {"max_attempts": 3, "backoff_ms": 1000},
        });
        assert_eq!(content(&short), content(&read(Some(&long)).unwrap()));
    }
}
