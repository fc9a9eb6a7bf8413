//! `GET /v1/zones/{zone}/workloads/{id}/secret`: shows the secret once more, to a token that may write (difference D12). The
//! event of it is in the zone's chain before anything is shown; where that can't be, nothing is (contract: admin-api.md §6).

use std::sync::Arc;

use caracal_authority::EventId;
use caracal_custody::workload_secret_ref;
use caracal_ledger::{Decision, EventType, Evidence, Ledger, Metadata};
use caracal_store::StoreError;
use http::{Method, StatusCode};
use serde::Serialize;

use super::existing;
use crate::Admin;
use crate::admin::fresh;
use crate::answer::Answer;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::problem::Refusal;

pub(crate) const ROUTE: Route = Route {
    method: Method::GET,
    path: "/v1/zones/{zone}/workloads/{id}/secret",
    needs: Needs::Write,
    reach: Reach::Zone(Run::Read(|admin, call| Box::pin(reveal(admin, call)))),
};

#[derive(Serialize)]
struct Revealed<'s> {
    secret: &'s str,
}

async fn reveal(admin: Arc<Admin>, call: Call<InZone>) -> Result<Answer, Refusal> {
    let (id, zone) = (call.id("id")?, &call.place.zone);
    let reference = workload_secret_ref(zone, &id);
    let mut snapshot = admin.store.snapshot().await?;
    let mut tx = snapshot.zone(zone);
    let workload = existing(&mut tx, &id).await?;
    let kept = admin.sealed.open(&mut tx, &reference).await?;
    // A backend is asked when no snapshot is held.
    drop(snapshot);
    let kept = if admin.sealed.is_external() { admin.sealed.fetch(&reference).await? } else { kept };
    let kept = kept.ok_or_else(|| {
        Refusal::missing("workload_secret_not_stored").describe("no copy is kept; rotate the secret to have a new one")
    })?;
    let Ok(secret) = std::str::from_utf8(kept.expose()) else {
        return Err(Refusal::secrets_unavailable("the kept secret is no text"));
    };
    let metadata = Metadata::new()
        .with("credential", "workload_secret")
        .with("workload_id", workload.id.as_str())
        .with("workload_name", workload.name.as_str())
        .with("actor", call.caller.actor());
    let event = Evidence::new(
        fresh::<EventId>(call.now)?,
        zone.clone(),
        EventType::CredentialRevealed,
        Decision::Allow,
        "complete",
        call.now,
    );
    let event = event.request(call.trace.request_id()).with_metadata(metadata);
    let recorded: Result<(), StoreError> = admin
        .store
        .commit(zone, (admin.ledger.clone(), event), |tx, (ledger, event): &(Ledger, Evidence)| {
            Box::pin(async move { ledger.record(tx, std::slice::from_ref(event)).await })
        })
        .await;
    recorded.map_err(unrecorded)?;
    Ok(Answer::ok(&Revealed { secret }))
}

/// A reveal that left no evidence does not happen. A store that is down says so itself.
fn unrecorded(error: StoreError) -> Refusal {
    match error {
        StoreError::Unavailable { .. } => error.into(),
        _ => {
            let mut refusal = Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "audit_unavailable")
                .describe("the secret was not shown, because the event of it could not be written");
            refusal.cause = Some(error.to_string());
            refusal
        }
    }
}
