//! Client authentication (contract: sts.md §3.4). One answer for everything that is wrong, at one cost: an unknown
//! application, a wrong secret and an application without one are told apart by nobody who does not hold a right
//! secret (D17).
//!
//! Ids of applications are unique in the deployment, so one look by id finds the application wherever it is, and one
//! derivation judges the secret whatever was found.
//!
//! A secret that was right within the last hour needs neither: which stored hash it was right for is remembered, and whether
//! the application has that hash is seen with everything else that the decision needs ([`AuthenticatedClient::recalled`]).
//! If it has not, nothing was decided, and the client is authenticated as if nothing had been remembered.

use caracal_authority::control::ControlKey;
use caracal_authority::exchange::Refusal;
use caracal_authority::{ApplicationId, Timestamp, ZoneId};
use caracal_crypto::client_secret::{SecretVerifier, VerifierUnavailable};
use caracal_store::applications::{self, Application};
use caracal_store::{Store, StoreError};

/// An application that proved who it is, or that a Gateway speaks for, in a zone.
pub(crate) struct AuthenticatedClient {
    zone: ZoneId,
    application: ApplicationId,
    proof: Proof,
}

/// What an application was authenticated by.
enum Proof {
    /// The secret behind this stored hash, which was the application's when it was verified.
    Secret(String),
    /// The secret behind this stored hash, which has still to be seen to be the application's.
    Recalled(String),
    /// A Gateway's word.
    Gateway,
}

/// Why a client was not authenticated.
pub(crate) enum NotAuthenticated {
    /// It proved nothing: the generic answer.
    Unproven,
    /// It proved itself in a zone that is not the one it named, which was `requested`, if it was one.
    Misplaced { client: AuthenticatedClient, requested: Option<ZoneId> },
    /// It proved itself and named no zone, which is for control keys alone: it is one by its traits.
    Zoneless(AuthenticatedClient),
    /// Says nothing about the secret, and is no guess.
    Verifier(VerifierUnavailable),
    /// Likewise.
    Store(StoreError),
}

impl From<VerifierUnavailable> for NotAuthenticated {
    fn from(error: VerifierUnavailable) -> Self {
        Self::Verifier(error)
    }
}

impl From<StoreError> for NotAuthenticated {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
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

    /// Whether the proof still holds for the application as a later snapshot has it: a secret that was replaced while
    /// it was being verified proves nothing any more.
    pub(crate) fn still_holds(&self, row: &Application) -> bool {
        match &self.proof {
            Proof::Secret(verified) | Proof::Recalled(verified) => row.secret_hash.as_ref() == Some(verified),
            Proof::Gateway => true,
        }
    }

    /// Whether it is only remembered that the secret was right: without the row that says for whom, nothing is proven.
    pub(crate) fn is_recalled(&self) -> bool {
        matches!(self.proof, Proof::Recalled(_))
    }

    /// A client whose secret was right for some stored hash within the last hour, in the zone that it names.
    pub(crate) fn recalled(presented: &Credentials<'_>, verifier: &SecretVerifier, now: Timestamp) -> Option<Self> {
        let zone = ZoneId::parse(presented.zone?).ok()?;
        let application = ApplicationId::parse(presented.application?).ok()?;
        let stored = verifier.recall(presented.secret?, now)?;
        Some(Self { zone, application, proof: Proof::Recalled(stored) })
    }

    /// Verifies a client's secret.
    pub(crate) async fn by_secret(
        presented: &Credentials<'_>,
        store: &Store,
        verifier: &SecretVerifier,
    ) -> Result<Self, NotAuthenticated> {
        let secret = presented.secret.unwrap_or_default();
        let application = presented.application.and_then(|id| ApplicationId::parse(id).ok());
        let requested = presented.zone.and_then(|zone| ZoneId::parse(zone).ok());
        let now = store.now();
        let found = match &application {
            Some(id) => {
                // Given back before the derivation, which may have to wait for its turn.
                let mut snapshot = store.snapshot().await?;
                applications::find_in_any_zone(&mut snapshot.deployment(), id).await?
            }
            None => None,
        };
        let known = found
            .filter(|application| application.is_live(now))
            .and_then(|Application { zone_id, id, secret_hash, traits, .. }| Some((zone_id, id, secret_hash?, traits)));
        let stored = known.as_ref().map(|(_, _, stored, _)| stored.as_str());
        let proven = verifier.verify(stored, secret, now).await?;
        let Some((zone, application, stored, traits)) = known.filter(|_| proven) else {
            return Err(NotAuthenticated::Unproven);
        };
        let client = Self { zone, application, proof: Proof::Secret(stored) };
        if requested.as_ref() == Some(&client.zone) {
            return Ok(client);
        }
        if presented.zone.is_none() && ControlKey::of(&traits).is_some() {
            return Err(NotAuthenticated::Zoneless(client));
        }
        Err(NotAuthenticated::Misplaced { client, requested })
    }

    /// Takes the Gateway's word for the application; that it exists and lives is looked at with the other facts.
    pub(crate) fn by_gateway(zone: Option<&str>, application: Option<&str>) -> Result<Self, Refusal> {
        let zone = zone.and_then(|zone| ZoneId::parse(zone).ok());
        let application = application.and_then(|id| ApplicationId::parse(id).ok());
        match (zone, application) {
            (Some(zone), Some(application)) => Ok(Self { zone, application, proof: Proof::Gateway }),
            _ => Err(Refusal::ClientUnauthenticated),
        }
    }
}

/// What a client in another zone than the one it named is told. Without a zone only a control key may come: the generic
/// answer.
pub(crate) fn misplaced(actual: &ZoneId, requested: Option<ZoneId>) -> Refusal {
    match requested {
        Some(requested) => Refusal::ClientOfAnotherZone { actual: actual.clone(), requested },
        None => Refusal::ClientUnauthenticated,
    }
}
