//! Client authentication (contract: sts.md §3.4). One answer for everything that is wrong, at one cost: an unknown
//! application, a wrong secret and an application without one are told apart by nobody who does not hold a right
//! secret (D17).

use caracal_authority::exchange::Refusal;
use caracal_authority::{ApplicationId, ZoneId};
use caracal_crypto::client_secret::{SecretVerifier, VerifierUnavailable};
use caracal_store::applications::{self, Application};
use caracal_store::{Store, StoreError};

/// An application that proved who it is, in the zone it named.
pub(crate) struct AuthenticatedClient {
    zone: ZoneId,
    application: ApplicationId,
}

/// Why a client was not authenticated.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotAuthenticated {
    /// The generic answer, or the zone it really belongs to once it has proved itself.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Says nothing about the secret, and is no guess.
    #[error(transparent)]
    Verifier(#[from] VerifierUnavailable),
    /// Likewise.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a client presents.
pub(crate) struct Credentials<'c> {
    pub(crate) zone: Option<&'c str>,
    pub(crate) application: Option<&'c str>,
    pub(crate) secret: Option<&'c str>,
}

impl AuthenticatedClient {
    /// The zone.
    pub(crate) fn zone(&self) -> &ZoneId {
        &self.zone
    }

    /// The application.
    pub(crate) fn application(&self) -> &ApplicationId {
        &self.application
    }

    /// Verifies a client's secret.
    pub(crate) async fn by_secret(
        presented: &Credentials<'_>,
        store: &Store,
        verifier: &SecretVerifier,
    ) -> Result<Self, NotAuthenticated> {
        let secret = presented.secret.unwrap_or_default();
        let application = presented.application.and_then(|id| ApplicationId::parse(id).ok());
        let zone = presented.zone.and_then(|zone| ZoneId::parse(zone).ok());
        let now = store.now();
        let found = match &application {
            Some(id) => {
                let mut snapshot = store.snapshot().await?;
                applications::find_in_any_zone(&mut snapshot.deployment(), id).await?
            }
            None => None,
        };
        let found = found.filter(|application| application.is_live(now));
        let hash = found.as_ref().and_then(|application| application.secret_hash.as_deref());
        if !verifier.verify(hash, secret, now).await? {
            return Err(Refusal::ClientUnauthenticated.into());
        }
        match (found, zone) {
            (Some(Application { zone_id, id, .. }), Some(zone)) if zone_id == zone => {
                Ok(Self { zone, application: id })
            }
            (Some(Application { zone_id, .. }), Some(requested)) => {
                Err(Refusal::ClientOfAnotherZone { actual: zone_id, requested }.into())
            }
            // Without a zone only a control key may come, and there are none to come.
            _ => Err(Refusal::ClientUnauthenticated.into()),
        }
    }

    /// Takes the Gateway's word for the application; that it exists and lives is looked at with the other facts.
    pub(crate) fn by_gateway(zone: Option<&str>, application: Option<&str>) -> Result<Self, Refusal> {
        let zone = zone.and_then(|zone| ZoneId::parse(zone).ok());
        let application = application.and_then(|id| ApplicationId::parse(id).ok());
        match (zone, application) {
            (Some(zone), Some(application)) => Ok(Self { zone, application }),
            _ => Err(Refusal::ClientUnauthenticated),
        }
    }
}
