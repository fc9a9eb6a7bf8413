//! A client secret on its way to where it is kept: its slow hash for the STS, and the sealed copy for the operator who
//! has to see it again (contract: admin-api.md §6). Both are part of one change.

use caracal_authority::{ApplicationId, ZoneId};
use caracal_crypto::{SecretText, chance};
use caracal_custody::{SealedSecrets, application_secret_ref};
use caracal_store::ZoneWrite;

use crate::Admin;
use crate::custody::{Keeps, staged};
use crate::problem::Refusal;

/// A secret with the hash to store for it.
pub(super) struct NewSecret {
    pub(super) value: SecretText,
    pub(super) hash: String,
    sealed: SealedSecrets,
}

impl NewSecret {
    /// `cs_` and 256 random bits. The hash is derived off the async threads, within the memory budget.
    pub(super) async fn draw(admin: &Admin) -> Result<Self, Refusal> {
        Self::of(admin, chance::token("cs_")?).await
    }

    /// A secret that the caller chose.
    pub(super) async fn of(admin: &Admin, value: SecretText) -> Result<Self, Refusal> {
        let hash = admin.secrets.hash(value.expose()).await?;
        Ok(Self { value, hash, sealed: admin.sealed.clone() })
    }

    /// Carries the change out with the sealed copy staged, where copies lie outside the store. Only managed applications
    /// have one.
    pub(super) async fn staged<T>(
        &self,
        zone: &ZoneId,
        application: &ApplicationId,
        is_managed: bool,
        change: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<T, Refusal> {
        let keeps = if is_managed { Keeps::This(self.value.expose().as_bytes()) } else { Keeps::AsItIs };
        staged(&self.sealed, &application_secret_ref(zone, application), keeps, change).await
    }

    /// Puts the sealed copy into the change. Only managed applications have one.
    pub(super) async fn keep(
        &self,
        tx: &mut ZoneWrite<'_>,
        zone: &ZoneId,
        application: &ApplicationId,
    ) -> Result<(), Refusal> {
        let reference = application_secret_ref(zone, application);
        Ok(self.sealed.put(tx, &reference, self.value.expose().as_bytes()).await?)
    }
}
