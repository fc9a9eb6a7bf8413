//! A workload's secret on its way to where it is kept: its slow hash for the STS, and the sealed copy for the operator who
//! has to see it again (contract: admin-api.md §6). Both are part of one change.

use caracal_authority::{WorkloadId, ZoneId};
use caracal_crypto::{SecretText, chance};
use caracal_custody::{SealedSecrets, workload_secret_ref};
use caracal_store::ZoneWrite;

use crate::Admin;
use crate::custody::{Keeps, staged};
use crate::problem::Refusal;

/// A secret with the hash to store for it.
pub(super) struct NewSecret {
    pub(super) value: SecretText,
    pub(super) hash: String,
    sealed: SealedSecrets,
    reference: String,
}

impl NewSecret {
    /// `ws_` and 256 random bits. The hash is derived off the async threads, within the memory budget.
    pub(super) async fn draw(admin: &Admin, zone: &ZoneId, workload: &WorkloadId) -> Result<Self, Refusal> {
        let value = chance::token("ws_")?;
        let hash = admin.secrets.hash(value.expose()).await?;
        Ok(Self { value, hash, sealed: admin.sealed.clone(), reference: workload_secret_ref(zone, workload) })
    }

    /// Carries the change out with the sealed copy staged, where copies lie outside the store.
    pub(super) async fn staged<T>(&self, change: impl Future<Output = Result<T, Refusal>>) -> Result<T, Refusal> {
        staged(&self.sealed, &self.reference, Keeps::This(self.value.expose().as_bytes()), change).await
    }

    /// Puts the sealed copy into the change.
    pub(super) async fn keep(&self, tx: &mut ZoneWrite<'_>) -> Result<(), Refusal> {
        Ok(self.sealed.put(tx, &self.reference, self.value.expose().as_bytes()).await?)
    }
}
