//! What is bound to a workload, told to itself (contract: sts.md §11).

use caracal_authority::exchange::Refusal;
use caracal_authority::{WorkloadId, ZoneId};
use caracal_ledger::MetadataKey;
use caracal_store::workloads::{self, Binding};
use caracal_store::zones;
use serde::Serialize;

use super::LaunchIds;
use super::evidence::Account;
use super::workload::AuthenticatedWorkload;
use crate::{ExchangeError, Sts};

/// The answer.
#[derive(Serialize)]
pub(super) struct Manifest {
    zone_id: ZoneId,
    workload_id: WorkloadId,
    bindings: Vec<Binding>,
}

impl Sts {
    /// Tells what is bound, in the commit that says so: neither without the other.
    pub(super) async fn manifest(
        &self,
        workload: &AuthenticatedWorkload,
        launch: &LaunchIds,
    ) -> Result<Manifest, ExchangeError> {
        let now = self.store.now();
        let account = Account::of(workload.row(), launch, now);
        // Whichever it will be: nothing random is drawn in a change, which may run twice.
        let told = account.of_launch(None)?;
        let nothing = account.of_launch(Some(&Refusal::NothingBound))?;
        let unproven = account.of_launch(Some(&Refusal::WorkloadUnauthenticated))?;
        let input = (workload.row().clone(), [told, nothing, unproven], self.ledger.clone());
        let told: Result<Result<Vec<Binding>, Refusal>, ExchangeError> = self
            .store
            .commit(workload.zone(), input, |tx, (proven, [told, nothing, unproven], ledger)| {
                Box::pin(async move {
                    // Nobody is launched in a zone that was archived (difference D19).
                    let zone_lives = zones::lookup(tx).await?.is_some_and(|zone| zone.archived_at.is_none());
                    let now = workloads::lookup(tx, &proven.id).await?;
                    let now = now.filter(|now| zone_lives && now.secret_hash == proven.secret_hash);
                    let Some(now) = now else {
                        ledger.record(tx, std::slice::from_ref(unproven)).await?;
                        return Ok(Err(Refusal::WorkloadUnauthenticated));
                    };
                    let bindings = now.bindings.read().map_err(ExchangeError::damaged)?;
                    if bindings.is_empty() {
                        ledger.record(tx, std::slice::from_ref(nothing)).await?;
                        return Ok(Err(Refusal::NothingBound));
                    }
                    let told = told.clone().attribute(MetadataKey::BindingCount, bindings.len());
                    ledger.record(tx, &[told]).await?;
                    Ok(Ok(bindings))
                })
            })
            .await;
        let bindings = told??;
        Ok(Manifest { zone_id: workload.zone().clone(), workload_id: workload.id().clone(), bindings })
    }
}
