//! A kept secret on its way out (contract: admin-api.md §6; README D12): shown to a token that may write, and only once the
//! event of it is in the zone's chain. Where that can't be, nothing is shown.

use caracal_authority::{EventId, Timestamp, ZoneId};
use caracal_crypto::{Secret, SecretText};
use caracal_ledger::{Decision, EvaluationStatus, EventType, Evidence, Ledger, Metadata};
use caracal_store::{Snapshot, StoreError};
use http::StatusCode;

use crate::Admin;
use crate::admin::fresh;
use crate::problem::Refusal;

/// Whose secret is shown, and to whom.
pub(crate) struct Reveal<'r> {
    pub(crate) zone: &'r ZoneId,
    /// Where the copy is kept.
    pub(crate) reference: &'r str,
    /// What is answered when there is none.
    pub(crate) missing: &'static str,
    /// What the event says of it.
    pub(crate) metadata: Metadata,
    pub(crate) request_id: &'r str,
    pub(crate) now: Timestamp,
}

impl Reveal<'_> {
    /// The secret, with the event of it on record. `snapshot` is what the owner was looked up in.
    pub(crate) async fn secret(self, admin: &Admin, mut snapshot: Snapshot) -> Result<SecretText, Refusal> {
        let kept = admin.sealed.open(&mut snapshot.zone(self.zone), self.reference).await?;
        // A backend is asked when no snapshot is held.
        drop(snapshot);
        let kept = if admin.sealed.is_external() { admin.sealed.fetch(self.reference).await? } else { kept };
        let kept = kept.ok_or_else(|| {
            Refusal::missing(self.missing).describe("no copy is kept; rotate the secret to have a new one")
        })?;
        let Ok(secret) = std::str::from_utf8(kept.expose()) else {
            return Err(Refusal::secrets_unavailable("the kept secret is no text"));
        };
        let secret = Secret::new(secret.to_owned());
        let event = Evidence::new(
            fresh::<EventId>(self.now)?,
            self.zone.clone(),
            EventType::CredentialRevealed,
            Decision::Allow,
            EvaluationStatus::Complete,
            self.now,
        );
        let event = event.request(self.request_id).with_metadata(self.metadata);
        let recorded: Result<(), StoreError> = admin
            .store
            .commit(self.zone, (admin.ledger.clone(), event), |tx, (ledger, event): &(Ledger, Evidence)| {
                Box::pin(async move { ledger.record(tx, std::slice::from_ref(event)).await })
            })
            .await;
        recorded.map_err(unrecorded)?;
        Ok(secret)
    }
}

/// A reveal that left no evidence does not happen. A store that is down says so itself.
fn unrecorded(error: StoreError) -> Refusal {
    match error {
        StoreError::Unavailable { .. } => error.into(),
        _ => {
            let mut refusal = Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "audit_unavailable")
                .describe("the secret was not shown, because the event of it could not be written");
            refusal.cause = Some(error.to_string().into());
            refusal
        }
    }
}
