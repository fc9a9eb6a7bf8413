//! Reading delegations (contract: coordinator.md §6.4, §6.6): what a session lends and was lent, what lends now, what
//! hangs on an edge, and what a session may do with all that it was lent.
//!
//! The reader rule: an application reads of its own sessions, and only edges that it issued or received. Another's
//! session does not exist for it. With `coordinator.admin` all of the zone can be seen; how the graph hangs together is
//! for such readers alone, because it tells of other applications.

mod effective;
mod lists;
mod reach;

pub(crate) use effective::effective_authority;
pub(crate) use lists::{edge_json, list_active, list_inbound, list_outbound, read_inbound};
pub(crate) use reach::{impact, traverse};

use axum::http::StatusCode;
use caracal_authority::AgentSessionId;
use caracal_http::Problem;
use caracal_store::{StoreError, ZoneRead, delegations, sessions};
use serde_json::json;

use crate::Coordinator;
use crate::auth::Principal;
use crate::outage::Outage;
use crate::page::invalid_cursor;
use crate::wire::{Answer, refusal};

/// Why there is nothing to read.
#[derive(Debug, thiserror::Error)]
enum ReadRefused {
    #[error("no such session")]
    SessionNotFound,
    #[error("no such delegation, or it is not active")]
    DelegationNotFound,
    #[error("the cursor names no delegation of the list")]
    Cursor,
    #[error(transparent)]
    Outage(#[from] Outage),
}

impl From<StoreError> for ReadRefused {
    fn from(error: StoreError) -> Self {
        Self::Outage(error.into())
    }
}

impl From<ReadRefused> for Problem {
    fn from(error: ReadRefused) -> Self {
        let message = error.to_string();
        let (status, code) = match error {
            ReadRefused::SessionNotFound => (StatusCode::NOT_FOUND, "session_not_found"),
            ReadRefused::DelegationNotFound => (StatusCode::NOT_FOUND, "delegation_not_found"),
            ReadRefused::Cursor => return invalid_cursor(),
            ReadRefused::Outage(outage) => return outage.problem(),
        };
        refusal(status, code).describe(message)
    }
}

/// The reader rule: the session in the path is the caller's own, or the caller sees all of the zone.
async fn check_reader(
    zone: &mut ZoneRead<'_>,
    principal: &Principal,
    session: &AgentSessionId,
) -> Result<(), ReadRefused> {
    if principal.is_admin() {
        return Ok(());
    }
    let session = sessions::lookup(zone, session).await?;
    let own = session.is_some_and(|session| principal.is(session.application_id.as_str()));
    if own { Ok(()) } else { Err(ReadRefused::SessionNotFound) }
}

/// `GET /zones/:zoneId/delegations/epoch`: the zone's graph epoch. A verifier that has just started asks once, and from
/// then on hears of it with every `caracal.delegations.invalidate`; without it, mandates from before the last revocation
/// would look fresh to it. It says nothing of anybody's delegations, so every caller of the zone may ask.
pub(crate) async fn read_epoch(coordinator: &Coordinator, principal: &Principal) -> Result<Answer, Problem> {
    let outage = |error: StoreError| Outage::from(error).problem();
    let mut snapshot = coordinator.store.snapshot().await.map_err(outage)?;
    let epoch = delegations::epoch(&mut snapshot.zone(principal.zone())).await.map_err(outage)?;
    Ok(Answer::ok(json!({"zone_id": principal.zone(), "epoch": epoch})))
}
