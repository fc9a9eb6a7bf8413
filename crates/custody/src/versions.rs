//! Which version of a secret its row points to, where the secret lies in a backend.
//!
//! A backend that is restored from a backup gives back what a secret once was: sealed by us, for that very place. So an
//! envelope in a backend is bound to a version as well, and the store, which changes with the row, knows the version. It
//! lies sealed beside the secrets of the store, under the reference and a word more, and so is sealed anew and moved with them.
//!
//! A backend knows of no transaction. A change is announced before the backend gets the envelope, and what was announced
//! opens too: whoever dies between the two leaves a secret that can be read, whichever envelope lies there. The commit of the
//! change makes its version the only one. To have that mean something, one change of a secret goes on at a time.

use std::time::Duration;

use caracal_authority::{Timestamp, ZoneId};
use caracal_crypto::SecretBytes;
use caracal_crypto::chance;
use caracal_crypto::envelope::{KekRing, OpenError};
use caracal_store::{Store, ZoneRead, ZoneWrite, sealed_secrets};
use serde::{Deserialize, Serialize};

use crate::CustodyError;

/// For how long a change may go on before another may. Longer than any request has.
const CLAIM: Duration = Duration::from_secs(120);

/// Announcements that are kept, the latest. Each is of somebody who died on the way.
const KEPT: usize = 16;

/// The versions that the secret under one reference may have.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Versions {
    /// That of the row; none before the first change since secrets have versions.
    current: Option<String>,
    /// Of changes that were begun since, oldest first.
    announced: Vec<String>,
    /// Until when the change goes on that was announced last, in microseconds.
    claimed_until: Option<i64>,
}

/// Where the versions of what lies under `reference` are.
pub(crate) fn versions_ref(reference: &str) -> String {
    format!("{reference}#versions")
}

/// What an envelope of one version is bound to.
pub(crate) fn place(reference: &str, version: &str) -> String {
    format!("{reference}#{version}")
}

/// The zone that a reference lies in.
pub(crate) fn zone_of(reference: &str) -> Result<ZoneId, CustodyError> {
    let zone = reference.strip_prefix("zones/").and_then(|rest| rest.split('/').next());
    let zone = zone.and_then(|zone| ZoneId::parse(zone).ok());
    zone.ok_or_else(|| CustodyError::Foreign { place: reference.to_owned() })
}

impl Versions {
    /// From what lies in the store; where nothing does, the secret has no version yet.
    pub(crate) fn opened(ring: &KekRing, reference: &str, stored: Option<&[u8]>) -> Result<Self, CustodyError> {
        let Some(envelope) = stored else { return Ok(Self::default()) };
        let place = versions_ref(reference);
        match ring.open(&place, envelope) {
            Ok(opened) => {
                serde_json::from_slice(opened.expose()).map_err(|_| CustodyError::Foreign { place: place.clone() })
            }
            Err(reason) => Err(CustodyError::Sealed { place, reason }),
        }
    }

    async fn read(ring: &KekRing, tx: &mut ZoneRead<'_>, reference: &str) -> Result<Self, CustodyError> {
        let stored = sealed_secrets::lookup(tx, &versions_ref(reference)).await?;
        Self::opened(ring, reference, stored.as_deref())
    }

    async fn write(&self, ring: &KekRing, tx: &mut ZoneWrite<'_>, reference: &str) -> Result<(), CustodyError> {
        let place = versions_ref(reference);
        let text = serde_json::to_vec(self).map_err(|_| CustodyError::Foreign { place: place.clone() })?;
        Ok(sealed_secrets::put(tx, &place, &ring.seal(&place, &text)?).await?)
    }

    /// As they are in `store`.
    pub(crate) async fn look(ring: &KekRing, store: &Store, reference: &str) -> Result<Self, CustodyError> {
        let zone = zone_of(reference)?;
        let mut snapshot = store.snapshot().await?;
        Self::read(ring, &mut snapshot.zone(&zone), reference).await
    }

    /// Opens an envelope of one of them; says to which place it is bound.
    pub(crate) fn open(
        &self,
        ring: &KekRing,
        reference: &str,
        envelope: &[u8],
    ) -> Result<(SecretBytes, String), CustodyError> {
        let unversioned = self.current.is_none().then(|| reference.to_owned());
        let versioned = self.current.iter().chain(&self.announced).map(|version| place(reference, version));
        for place in versioned.chain(unversioned) {
            match ring.open(&place, envelope) {
                Ok(plaintext) => return Ok((plaintext, place)),
                Err(OpenError::Tampered) => {}
                Err(reason) => return Err(CustodyError::Sealed { place: reference.to_owned(), reason }),
            }
        }
        Err(CustodyError::OtherVersion { place: reference.to_owned() })
    }

    pub(crate) fn is_current(&self, version: Option<&str>) -> bool {
        self.current.as_deref() == version
    }

    fn claim(&mut self, reference: &str, now: Timestamp) -> Result<(), CustodyError> {
        if self.claimed_until.is_some_and(|until| now.as_micros() < until) {
            return Err(CustodyError::UnderWay { place: reference.to_owned() });
        }
        self.claimed_until = Some(now.plus(CLAIM).as_micros());
        Ok(())
    }

    /// Announces a new version, and that a change goes on.
    pub(crate) async fn announce(ring: &Ring, store: &Store, reference: &str) -> Result<String, CustodyError> {
        let version = chance::uuid_v4()?.to_string();
        let input = (ring.clone(), reference.to_owned(), version.clone());
        store
            .commit(&zone_of(reference)?, input, |tx, (ring, reference, version)| {
                Box::pin(async move {
                    let mut versions = Self::read(ring, tx, reference).await?;
                    versions.claim(reference, tx.now())?;
                    versions.announced.push(version.clone());
                    let forgotten = versions.announced.len().saturating_sub(KEPT);
                    versions.announced.drain(..forgotten);
                    versions.write(ring, tx, reference).await
                })
            })
            .await
            .map(|()| version)
    }

    /// Announces that what is there goes. Where no version was ever given, nothing needs to be known of it.
    pub(crate) async fn announce_removal(ring: &Ring, store: &Store, reference: &str) -> Result<(), CustodyError> {
        let zone = zone_of(reference)?;
        if Self::look(ring, store, reference).await? == Self::default() {
            return Ok(());
        }
        let input = (ring.clone(), reference.to_owned());
        store
            .commit(&zone, input, |tx, (ring, reference)| {
                Box::pin(async move {
                    let mut versions = Self::read(ring, tx, reference).await?;
                    versions.claim(reference, tx.now())?;
                    versions.write(ring, tx, reference).await
                })
            })
            .await
    }

    /// Ends a change that did not come about; `version`, if it had one, lies nowhere.
    pub(crate) async fn withdraw(
        ring: &Ring,
        store: &Store,
        reference: &str,
        version: Option<String>,
    ) -> Result<(), CustodyError> {
        let input = (ring.clone(), reference.to_owned(), version);
        store
            .commit(&zone_of(reference)?, input, |tx, (ring, reference, version)| {
                Box::pin(async move {
                    let mut versions = Self::read(ring, tx, reference).await?;
                    if versions == Self::default() {
                        return Ok(());
                    }
                    versions.announced.retain(|announced| Some(announced) != version.as_ref());
                    versions.claimed_until = None;
                    if versions == Self::default() {
                        return Ok(sealed_secrets::remove(tx, &versions_ref(reference)).await?);
                    }
                    versions.write(ring, tx, reference).await
                })
            })
            .await
    }

    /// Part of the change itself: what was announced last is now the only version.
    pub(crate) async fn settle(ring: &KekRing, tx: &mut ZoneWrite<'_>, reference: &str) -> Result<(), CustodyError> {
        let mut versions = Self::read(ring, tx, reference).await?;
        let Some(version) = versions.announced.pop() else {
            return Err(CustodyError::UnderWay { place: reference.to_owned() });
        };
        Self { current: Some(version), ..Self::default() }.write(ring, tx, reference).await
    }
}

type Ring = std::sync::Arc<KekRing>;
