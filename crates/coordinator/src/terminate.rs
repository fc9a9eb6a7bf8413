//! `DELETE /zones/:zoneId/agents/:id`: ending a session and all that falls with it (contract: coordinator.md §4.4, §9).

use std::sync::Arc;

use axum::http::StatusCode;
use caracal_authority::AgentSessionId;
use caracal_authority::session::{Life, TerminationReason};
use caracal_cascade::end_sessions;
use caracal_http::Problem;
use caracal_ledger::Ledger;
use caracal_store::{StoreError, ZoneWrite, sessions};
use serde_json::Value;

use crate::Coordinator;
use crate::auth::IdentityRevoked;
use crate::evidence::{Caller, record_success};
use crate::outage::Outage;
use crate::schema::{Fields, whole};
use crate::wire::{Answer, invalid_query, query_value, refusal};

const DEFAULT_REASON: &str = "requested";
const MAX_REASON_CHARS: usize = 256;

/// Why a session is not ended, in the contract's order.
#[derive(Debug, thiserror::Error)]
enum TerminateRefused {
    #[error(transparent)]
    Caller(#[from] IdentityRevoked),
    #[error("no such session, or it has ended")]
    NotFound,
    #[error("the session is another application's")]
    Ownership,
    #[error("a service is ended by the holder of its lease")]
    LeaseRequired,
    #[error("the lease has passed to another holder")]
    LeaseFenced,
    #[error(transparent)]
    Outage(#[from] Outage),
}

impl From<StoreError> for TerminateRefused {
    fn from(error: StoreError) -> Self {
        Self::Outage(error.into())
    }
}

impl From<TerminateRefused> for Problem {
    fn from(error: TerminateRefused) -> Self {
        let message = error.to_string();
        let (status, code) = match error {
            TerminateRefused::Caller(revoked) => return revoked.into(),
            TerminateRefused::NotFound => (StatusCode::NOT_FOUND, "session_not_found"),
            TerminateRefused::Ownership => (StatusCode::FORBIDDEN, "application_ownership_required"),
            TerminateRefused::LeaseRequired => (StatusCode::BAD_REQUEST, "lease_generation_required"),
            TerminateRefused::LeaseFenced => (StatusCode::CONFLICT, "session_lease_fenced"),
            TerminateRefused::Outage(outage) => return outage.problem(),
        };
        refusal(status, code).describe(message)
    }
}

struct Terminate {
    caller: Arc<Caller>,
    ledger: Ledger,
    id: AgentSessionId,
    lease_generation: Option<u64>,
    reason: TerminationReason,
}

/// Ends a session.
pub(crate) async fn terminate(
    coordinator: &Coordinator,
    caller: Arc<Caller>,
    id: AgentSessionId,
    query: Option<&str>,
    body: Option<&Value>,
) -> Result<Answer, Problem> {
    let reason = reason(query)?;
    let lease_generation = lease_generation(body)?;
    let zone = caller.principal.zone().clone();
    let terminate = Terminate { caller, ledger: coordinator.ledger.clone(), id, lease_generation, reason };
    let ended: Result<(), TerminateRefused> =
        coordinator.store.commit(&zone, terminate, |tx, terminate| Box::pin(terminate.commit(tx))).await;
    ended?;
    Ok(Answer::done())
}

fn reason(query: Option<&str>) -> Result<TerminationReason, Problem> {
    let reason = query_value(query, "reason")?.unwrap_or_else(|| DEFAULT_REASON.to_owned());
    let fits = (1..=MAX_REASON_CHARS).contains(&reason.chars().count());
    // The reason goes into signed lines of text, where a line feed could pass for another field (W12).
    if fits && !reason.chars().any(char::is_control) {
        Ok(TerminationReason::Asked(reason))
    } else {
        Err(invalid_query())
    }
}

/// An absent body and `null` say nothing; one client sends the latter for every task (sdk-and-verify.md D9).
fn lease_generation(body: Option<&Value>) -> Result<Option<u64>, Problem> {
    let Some(body) = body.filter(|body| !body.is_null()) else { return Ok(None) };
    let invalid = || refusal(StatusCode::BAD_REQUEST, "invalid_body");
    let fields = Fields::of(Some(body)).map_err(|_| invalid())?;
    let generation = fields.raw("lease_generation");
    fields.finish().map_err(|_| invalid())?;
    match generation {
        None => Ok(None),
        Some(generation) => whole(generation).filter(|generation| *generation >= 1).map(Some).ok_or_else(invalid),
    }
}

impl Terminate {
    async fn commit(&self, tx: &mut ZoneWrite<'_>) -> Result<(), TerminateRefused> {
        let principal = &self.caller.principal;
        principal.check_alive(tx).await??;
        let session = sessions::lookup(tx, &self.id).await?.ok_or(TerminateRefused::NotFound)?;
        let owner = session.application_id.as_str();
        if !principal.is_admin() && !principal.may_for("coordinator.spawn_for", owner) {
            return Err(TerminateRefused::Ownership);
        }
        let facts = session.facts()?;
        if let Life::Service(lease) = facts.life
            && !principal.is_admin()
        {
            let held = self.lease_generation.ok_or(TerminateRefused::LeaseRequired)?;
            lease.held_by(held).map_err(|_| TerminateRefused::LeaseFenced)?;
        }
        if facts.status.is_terminal() {
            return Err(TerminateRefused::NotFound);
        }
        end_sessions(tx, &[session], &self.reason).await.map_err(Outage::from)?;
        Ok(record_success(tx, &self.ledger, &self.caller, StatusCode::NO_CONTENT.as_u16()).await?)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_reason_is_1_to_256_printable_characters_given_once() {
        for (query, expected) in [
            (None, Some("requested")),
            (Some(""), Some("requested")),
            (Some("other=1"), Some("requested")),
            (Some("reason=all+done%21"), Some("all done!")),
            (Some("reason="), None),
            (Some("reason=a&reason=a"), None),
            (Some("reason=a%0Ab"), None),
            (Some("reason=%00"), None),
        ] {
            let reason = reason(query).ok();
            assert_eq!(reason.as_ref().map(TerminationReason::as_str), expected, "{query:?}");
        }
        assert!(reason(Some(&format!("reason={}", "é".repeat(256)))).is_ok());
        assert!(reason(Some(&format!("reason={}", "x".repeat(257)))).is_err());
    }

    #[test]
    fn a_generation_is_a_whole_number_from_1() {
        for (body, expected) in [
            (None, Ok(None)),
            (Some(json!(null)), Ok(None)),
            (Some(json!({})), Ok(None)),
            (Some(json!({"lease_generation": 2, "other": "x"})), Ok(Some(2))),
            (Some(json!({"lease_generation": 0})), Err(())),
            (Some(json!({"lease_generation": "1"})), Err(())),
            (Some(json!({"lease_generation": null})), Err(())),
            (Some(json!([])), Err(())),
            (Some(json!("{}")), Err(())),
        ] {
            assert_eq!(lease_generation(body.as_ref()).map_err(|_| ()), expected, "{body:?}");
        }
    }
}
