//! Plaintext goes in and out of here only. Envelopes lie in the store, where they change with the row they belong to; or,
//! where the operator says so, in a backend that knows of no transaction. Then a change is staged: the backend gets the new
//! envelope before the row is committed, so that a backend that is down fails the change, and the former one back if the
//! commit fails. Reads of a backend take as long as it does, and never happen inside a snapshot.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use caracal_authority::{ApplicationId, ProviderId, WorkloadId, ZoneId};
use caracal_crypto::envelope::{KekRing, SealError};
use caracal_crypto::{SecretBytes, SecretText};
use caracal_store::{ZoneRead, ZoneWrite, sealed_secrets};

use crate::{CustodyError, SecretBackend};

/// Where a provider's secret document lies (contract: audit-and-streams.md §9.1).
pub fn provider_secret_ref(zone: &ZoneId, provider: &ProviderId) -> String {
    format!("zones/{zone}/providers/{provider}/secretConfig")
}

/// Where the custody copy of an application's client secret lies.
pub fn application_secret_ref(zone: &ZoneId, application: &ApplicationId) -> String {
    format!("zones/{zone}/applications/{application}/clientSecret")
}

/// Where the custody copy of a workload's secret lies.
pub fn workload_secret_ref(zone: &ZoneId, workload: &WorkloadId) -> String {
    format!("zones/{zone}/workloads/{workload}/secret")
}

/// Seals and opens secrets. The reference is authenticated with the value, so an envelope moved elsewhere won't open.
#[derive(Clone)]
pub struct SealedSecrets {
    ring: Arc<KekRing>,
    backend: Option<Arc<dyn SecretBackend>>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    reads: AtomicU64,
    errors: AtomicU64,
}

/// An envelope that a backend has got, and the one that it had.
#[must_use]
pub struct Staged {
    backend: Arc<dyn SecretBackend>,
    reference: String,
    former: Option<Vec<u8>>,
}

impl Staged {
    /// Gives the backend back what it had: the change did not come about.
    pub async fn undo(self) {
        let undone = match &self.former {
            Some(envelope) => self.backend.write(&self.reference, envelope).await,
            None => self.backend.remove(&self.reference).await,
        };
        if let Err(error) = undone {
            tracing::error!(reference = %self.reference, %error, "a secret was changed in the backend, but its row was not");
        }
    }
}

impl SealedSecrets {
    /// Over the given key-encryption keys.
    pub fn new(ring: Arc<KekRing>) -> Self {
        Self { ring, backend: None, counts: Arc::default() }
    }

    /// The same with envelopes in `backend`.
    #[must_use]
    pub fn in_backend(self, backend: Arc<dyn SecretBackend>) -> Self {
        Self { backend: Some(backend), ..self }
    }

    /// Whether secrets lie outside the store, so that they are read with [`fetch`](Self::fetch) and not within a snapshot.
    pub fn is_external(&self) -> bool {
        self.backend.is_some()
    }

    /// Reads of secrets so far, and how many of them failed.
    pub fn counts(&self) -> (u64, u64) {
        (self.counts.reads.load(Ordering::Relaxed), self.counts.errors.load(Ordering::Relaxed))
    }

    fn counted<T>(&self, read: Result<T, CustodyError>) -> Result<T, CustodyError> {
        self.counts.reads.fetch_add(1, Ordering::Relaxed);
        if read.is_err() {
            self.counts.errors.fetch_add(1, Ordering::Relaxed);
        }
        read
    }

    /// Before a change: gives a backend `plaintext` for `reference`, or has it remove what is there. `None`: secrets lie in
    /// the store, and are put there within the change.
    pub async fn stage(&self, reference: &str, plaintext: Option<&[u8]>) -> Result<Option<Staged>, CustodyError> {
        let Some(backend) = &self.backend else { return Ok(None) };
        let former = backend.read(reference).await?;
        match plaintext {
            Some(plaintext) => backend.write(reference, &self.ring.seal(reference, plaintext)?).await?,
            None => backend.remove(reference).await?,
        }
        Ok(Some(Staged { backend: backend.clone(), reference: reference.to_owned(), former }))
    }

    /// Opens what a backend has under `reference`; `None` when there is nothing, or secrets lie in the store.
    pub async fn fetch(&self, reference: &str) -> Result<Option<SecretBytes>, CustodyError> {
        let Some(backend) = &self.backend else { return Ok(None) };
        let read = backend.read(reference).await.map_err(CustodyError::from);
        self.counted(read.and_then(|envelope| envelope.map(|envelope| self.opened(reference, &envelope)).transpose()))
    }

    fn opened(&self, reference: &str, envelope: &[u8]) -> Result<SecretBytes, CustodyError> {
        let opened = self.ring.open(reference, envelope);
        opened.map_err(|reason| CustodyError::Sealed { place: reference.to_owned(), reason })
    }

    /// Seals `plaintext` under `reference` as part of the caller's change; in a backend it is already, see
    /// [`stage`](Self::stage).
    pub async fn put(&self, tx: &mut ZoneWrite<'_>, reference: &str, plaintext: &[u8]) -> Result<(), CustodyError> {
        if self.is_external() {
            return Ok(());
        }
        let envelope = self.ring.seal(reference, plaintext)?;
        Ok(sealed_secrets::put(tx, reference, &envelope).await?)
    }

    /// Opens what lies under `reference` in the store; `None` when nothing does.
    pub async fn open(&self, tx: &mut ZoneRead<'_>, reference: &str) -> Result<Option<SecretBytes>, CustodyError> {
        if self.is_external() {
            return Ok(None);
        }
        let Some(envelope) = sealed_secrets::lookup(tx, reference).await? else { return Ok(None) };
        self.counted(self.opened(reference, &envelope)).map(Some)
    }

    /// Removes what lies under `reference`.
    pub async fn remove(&self, tx: &mut ZoneWrite<'_>, reference: &str) -> Result<(), CustodyError> {
        if self.is_external() {
            return Ok(());
        }
        Ok(sealed_secrets::remove(tx, reference).await?)
    }

    /// Seals a token of an account for where it lies (contract: sts.md §10.6).
    pub fn seal_token(&self, token: ConnectionToken, plaintext: &SecretText) -> Result<Vec<u8>, SealError> {
        self.ring.seal(token.place(), plaintext.expose().as_bytes())
    }

    /// Opens a token of an account.
    pub fn open_token(&self, token: ConnectionToken, envelope: &[u8]) -> Result<SecretText, CustodyError> {
        let place = token.place();
        let opened = self.ring.open(place, envelope);
        let opened = opened.map_err(|reason| CustodyError::Sealed { place: place.to_owned(), reason })?;
        match std::str::from_utf8(opened.expose()) {
            Ok(text) => Ok(SecretText::new(text.to_owned())),
            Err(_) => Err(CustodyError::Foreign { place: place.to_owned() }),
        }
    }
}

/// Which token of an account at a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionToken {
    /// What an upstream is shown.
    Access,
    /// What the next one is asked for with.
    Refresh,
}

impl ConnectionToken {
    fn place(self) -> &'static str {
        match self {
            Self::Access => "caracal/providerConnections/accessToken",
            Self::Refresh => "caracal/providerConnections/refreshToken",
        }
    }
}
