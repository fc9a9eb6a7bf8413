//! `PATCH /zones/:zoneId/delegations/:id/revoke`: taking a delegation back, with all that was built on it
//! (contract: coordinator.md §6.5, §9). A delegation that has lapsed can still be revoked.

use std::sync::Arc;

use axum::http::StatusCode;
use caracal_authority::EdgeId;
use caracal_authority::session::TerminationReason;
use caracal_cascade::{Fallen, revoke_edges};
use caracal_http::Problem;
use caracal_ledger::Ledger;
use caracal_store::{StoreError, ZoneWrite, delegations};
use serde_json::json;

use crate::Coordinator;
use crate::auth::IdentityRevoked;
use crate::evidence::{Caller, record_success};
use crate::outage::Outage;
use crate::wire::{Answer, refusal};

/// Why a delegation is not revoked, in the contract's order.
#[derive(Debug, thiserror::Error)]
enum RevokeRefused {
    #[error(transparent)]
    Caller(#[from] IdentityRevoked),
    #[error("no such delegation, or it is not active")]
    NotFound,
    #[error("the delegation was issued by another application")]
    Ownership,
    #[error(transparent)]
    Outage(#[from] Outage),
}

impl From<StoreError> for RevokeRefused {
    fn from(error: StoreError) -> Self {
        Self::Outage(error.into())
    }
}

impl From<RevokeRefused> for Problem {
    fn from(error: RevokeRefused) -> Self {
        let message = error.to_string();
        let (status, code) = match error {
            RevokeRefused::Caller(revoked) => return revoked.into(),
            RevokeRefused::NotFound => (StatusCode::NOT_FOUND, "delegation_not_found"),
            RevokeRefused::Ownership => (StatusCode::FORBIDDEN, "issuer_ownership_required"),
            RevokeRefused::Outage(outage) => return outage.problem(),
        };
        refusal(status, code).describe(message)
    }
}

struct Revoke {
    caller: Arc<Caller>,
    ledger: Ledger,
    id: EdgeId,
}

/// Revokes a delegation.
pub(crate) async fn revoke(coordinator: &Coordinator, caller: Arc<Caller>, id: EdgeId) -> Result<Answer, Problem> {
    let zone = caller.principal.zone().clone();
    let revoke = Revoke { caller, ledger: coordinator.ledger.clone(), id };
    let fallen: Result<Fallen, RevokeRefused> =
        coordinator.store.commit(&zone, revoke, |tx, revoke| Box::pin(revoke.commit(tx))).await;
    let fallen = fallen?;
    Ok(Answer::ok(json!({
        "revoked_edges": fallen.edges,
        "affected_sessions": fallen.records,
        "terminated_sessions": fallen.sessions,
    })))
}

impl Revoke {
    async fn commit(&self, tx: &mut ZoneWrite<'_>) -> Result<Fallen, RevokeRefused> {
        let principal = &self.caller.principal;
        principal.check_alive(tx).await??;
        let edge = delegations::lookup(tx, &self.id).await?.ok_or(RevokeRefused::NotFound)?;
        let issuer = edge.issuer_application_id.as_str();
        if !principal.is_admin() && !principal.may_for("coordinator.delegate_from", issuer) {
            return Err(RevokeRefused::Ownership);
        }
        if edge.status != "active" {
            return Err(RevokeRefused::NotFound);
        }
        let fallen = revoke_edges(tx, &[edge], &TerminationReason::DelegationRevoked).await.map_err(Outage::from)?;
        record_success(tx, &self.ledger, &self.caller, StatusCode::OK.as_u16()).await?;
        Ok(fallen)
    }
}
