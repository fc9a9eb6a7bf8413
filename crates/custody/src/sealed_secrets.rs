//! Plaintext goes in and out of here only. Envelopes lie in the store, where they change with the row they belong to; or,
//! where the operator says so, in a backend that knows of no transaction. Then a change is staged: the backend gets the new
//! envelope before the row is committed, so that a backend that is down fails the change, and the former one back if the
//! commit fails. Which envelope it is to have is known to the store: see [`crate::versions`]. Reads of a backend take as long as it does, and never happen inside a snapshot.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use caracal_authority::{ApplicationId, NotificationSinkId, ProviderId, WorkloadId, ZoneId};
use caracal_crypto::envelope::{KekRing, OpenError, SealError};
use caracal_crypto::{SecretBytes, SecretText};
use caracal_store::provider_connections::Connection;
use caracal_store::{Store, ZoneRead, ZoneWrite, sealed_secrets};

use crate::versions::{self, Versions, versions_ref};
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
    outside: Option<Outside>,
    counts: Arc<Counts>,
}

/// Where secrets lie that do not lie in the store, and the store that knows which.
#[derive(Clone)]
struct Outside {
    backend: Arc<dyn SecretBackend>,
    store: Store,
}

#[derive(Default)]
struct Counts {
    reads: AtomicU64,
    errors: AtomicU64,
}

/// An envelope that a backend has got, and the one that it had.
#[must_use]
pub struct Staged {
    ring: Arc<KekRing>,
    outside: Outside,
    reference: String,
    former: Option<Vec<u8>>,
    /// That of the envelope, which goes away with it.
    version: Option<String>,
}

impl Staged {
    /// Gives the backend back what it had: the change did not come about.
    pub async fn undo(self) {
        let Self { ring, outside: Outside { backend, store }, reference, former, version } = self;
        match Versions::look(&ring, &store, &reference).await {
            // It did, and only the word of it was lost.
            Ok(versions) if version.is_some() && versions.is_current(version.as_deref()) => return,
            Ok(_) => {}
            Err(error) if version.is_some() => {
                // Nobody knows. What lies there opens either way, and what lay there may not.
                tracing::error!(%reference, %error, "a secret in the backend may be newer than its row");
                return;
            }
            Err(_) => {}
        }
        let undone = match &former {
            Some(envelope) => backend.write(&reference, envelope).await,
            None => backend.remove(&reference).await,
        };
        // What may still lie there has to open.
        let version = match undone {
            Ok(()) => version,
            Err(error) => {
                tracing::error!(%reference, %error, "a secret in the backend may be newer than its row");
                None
            }
        };
        if let Err(error) = Versions::withdraw(&ring, &store, &reference, version).await {
            tracing::error!(%reference, %error, "that a change of a secret has ended could not be noted");
        }
    }
}

impl SealedSecrets {
    /// Over the given key-encryption keys.
    pub fn new(ring: Arc<KekRing>) -> Self {
        Self { ring, outside: None, counts: Arc::default() }
    }

    /// The same with envelopes in `backend`, and their versions in `store`.
    #[must_use]
    pub fn in_backend(self, backend: Arc<dyn SecretBackend>, store: Store) -> Self {
        Self { outside: Some(Outside { backend, store }), ..self }
    }

    /// The backend outside the store, if secrets lie there.
    pub fn backend(&self) -> Option<&Arc<dyn SecretBackend>> {
        self.outside.as_ref().map(|outside| &outside.backend)
    }

    /// Whether secrets lie outside the store, so that they are read with [`fetch`](Self::fetch) and not within a snapshot.
    pub fn is_external(&self) -> bool {
        self.outside.is_some()
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
        let Some(outside) = &self.outside else { return Ok(None) };
        let Outside { backend, store } = outside;
        let version = match plaintext {
            Some(_) => Some(Versions::announce(&self.ring, store, reference).await?),
            None => {
                Versions::announce_removal(&self.ring, store, reference).await?;
                None
            }
        };
        let before = async {
            let place = version.as_ref().map(|version| versions::place(reference, version));
            let sealed = plaintext.zip(place).map(|(plaintext, place)| self.ring.seal(&place, plaintext));
            Ok::<_, CustodyError>((sealed.transpose()?, backend.read_now(reference).await?))
        };
        let (envelope, former) = match before.await {
            Ok(before) => before,
            Err(error) => {
                // Nothing was written, and so nothing needs to open.
                Versions::withdraw(&self.ring, store, reference, version).await?;
                return Err(error);
            }
        };
        let (ring, outside) = (self.ring.clone(), outside.clone());
        let staged = Staged { ring, outside, reference: reference.to_owned(), former, version };
        let written = match &envelope {
            Some(envelope) => backend.write(reference, envelope).await,
            None => backend.remove(reference).await,
        };
        if let Err(error) = written {
            // What was asked may have been done all the same, and only its answer been lost.
            staged.undo().await;
            return Err(error.into());
        }
        Ok(Some(staged))
    }

    /// Opens what a backend has under `reference`; `None` when there is nothing, or secrets lie in the store.
    pub async fn fetch(&self, reference: &str) -> Result<Option<SecretBytes>, CustodyError> {
        let Some(outside) = &self.outside else { return Ok(None) };
        self.counted(self.fetched(outside, reference).await)
    }

    async fn fetched(&self, outside: &Outside, reference: &str) -> Result<Option<SecretBytes>, CustodyError> {
        let Outside { backend, store } = outside;
        let Some(envelope) = backend.read(reference).await? else { return Ok(None) };
        let versions = Versions::look(&self.ring, store, reference).await?;
        match versions.open(&self.ring, reference, &envelope) {
            Err(CustodyError::OtherVersion { .. }) => {}
            opened => return opened.map(|(plaintext, _)| Some(plaintext)),
        }
        // It may have been changed in this moment, or be remembered from before the change.
        let Some(envelope) = backend.read_now(reference).await? else { return Ok(None) };
        let versions = Versions::look(&self.ring, store, reference).await?;
        versions.open(&self.ring, reference, &envelope).map(|(plaintext, _)| Some(plaintext))
    }

    fn opened(&self, reference: &str, envelope: &[u8]) -> Result<SecretBytes, CustodyError> {
        let opened = self.ring.open(reference, envelope);
        opened.map_err(|reason| CustodyError::Sealed { place: reference.to_owned(), reason })
    }

    /// Seals `plaintext` under `reference` as part of the caller's change; in a backend it is already, see
    /// [`stage`](Self::stage), and becomes the one that counts.
    pub async fn put(&self, tx: &mut ZoneWrite<'_>, reference: &str, plaintext: &[u8]) -> Result<(), CustodyError> {
        if self.is_external() {
            return Versions::settle(&self.ring, tx, reference).await;
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
            return Ok(sealed_secrets::remove(tx, &versions_ref(reference)).await?);
        }
        Ok(sealed_secrets::remove(tx, reference).await?)
    }

    /// Seals a token of an account for whose it is.
    pub fn seal_token(
        &self,
        token: ConnectionToken,
        account: Account<'_>,
        plaintext: &SecretText,
    ) -> Result<Vec<u8>, SealError> {
        self.ring.seal(&token.place(account), plaintext.expose().as_bytes())
    }

    /// Opens a token of an account.
    pub fn open_token(
        &self,
        token: ConnectionToken,
        account: Account<'_>,
        envelope: &[u8],
    ) -> Result<SecretText, CustodyError> {
        let place = token.place(account);
        let opened = open_at(&self.ring, &place, token.former_place(), envelope).map(|opened| opened.plaintext);
        text_of(place, opened)
    }

    /// Seals a secret of a row.
    pub fn seal_of_row(&self, secret: RowSecret<'_>, plaintext: &SecretText) -> Result<Vec<u8>, SealError> {
        self.ring.seal(&secret.place(), plaintext.expose().as_bytes())
    }

    /// Opens a secret of a row.
    pub fn open_of_row(&self, secret: RowSecret<'_>, envelope: &[u8]) -> Result<SecretText, CustodyError> {
        let place = secret.place();
        let opened = match secret.former_place() {
            Some(former) => open_at(&self.ring, &place, former, envelope).map(|opened| opened.plaintext),
            None => self.ring.open(&place, envelope),
        };
        text_of(place, opened)
    }
}

fn text_of(place: String, opened: Result<SecretBytes, OpenError>) -> Result<SecretText, CustodyError> {
    let opened = match opened {
        Ok(opened) => opened,
        Err(reason) => return Err(CustodyError::Sealed { place, reason }),
    };
    match std::str::from_utf8(opened.expose()) {
        Ok(text) => Ok(SecretText::new(text.to_owned())),
        Err(_) => Err(CustodyError::Foreign { place }),
    }
}

/// A secret that lies in a row of its own kind, and is bound to that row: moved into another it does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowSecret<'a> {
    /// What a notification sink's messages are signed with.
    Sink {
        /// The zone.
        zone: &'a ZoneId,
        /// The sink.
        sink: &'a NotificationSinkId,
    },
    /// The verifier of the code challenge of a consent under way.
    Verifier {
        /// The zone.
        zone: &'a ZoneId,
        /// The digest of the consent's state.
        digest: &'a str,
    },
}

impl RowSecret<'_> {
    pub(crate) fn place(self) -> String {
        match self {
            Self::Sink { zone, sink } => format!("zones/{zone}/notificationSinks/{sink}/secret"),
            Self::Verifier { zone, digest } => format!("zones/{zone}/oauthStates/{digest}/verifier"),
        }
    }

    /// What all of a kind were once bound to (contract: admin-api.md §6).
    pub(crate) fn former_place(self) -> Option<&'static str> {
        match self {
            Self::Sink { .. } => Some("caracal/notificationSinks/secret"),
            Self::Verifier { .. } => None,
        }
    }
}

/// What was opened, and whether it has to be sealed anew for its place.
pub(crate) struct Opened {
    pub(crate) plaintext: SecretBytes,
    pub(crate) was_elsewhere: bool,
}

impl Opened {
    pub(crate) fn in_place(plaintext: SecretBytes) -> Self {
        Self { plaintext, was_elsewhere: false }
    }
}

/// Opens an envelope that is bound to `place`, or, as all envelopes of its column once were, to `former`.
pub(crate) fn open_at(ring: &KekRing, place: &str, former: &str, envelope: &[u8]) -> Result<Opened, OpenError> {
    match ring.open(place, envelope) {
        Ok(plaintext) => Ok(Opened::in_place(plaintext)),
        Err(OpenError::Tampered) => {
            ring.open(former, envelope).map(|plaintext| Opened { plaintext, was_elsewhere: true })
        }
        Err(other) => Err(other),
    }
}

/// Whose account it is: what its tokens are bound to, so that whoever can write to the store can't have one subject act
/// with the token of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account<'a> {
    /// The zone.
    pub zone: &'a ZoneId,
    /// The provider.
    pub provider: &'a ProviderId,
    /// The subject.
    pub subject: &'a str,
}

impl<'a> From<&'a Connection> for Account<'a> {
    fn from(row: &'a Connection) -> Self {
        Self { zone: &row.zone_id, provider: &row.provider_id, subject: &row.subject_id }
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
    /// The subject comes last: it can be any text, and must not be able to look like the rest of a place.
    pub(crate) fn place(self, Account { zone, provider, subject }: Account<'_>) -> String {
        let token = match self {
            Self::Access => "accessToken",
            Self::Refresh => "refreshToken",
        };
        format!("zones/{zone}/providers/{provider}/{token}/{subject}")
    }

    /// What tokens were bound to before they were bound to their account (contract: sts.md §10.6).
    pub(crate) fn former_place(self) -> &'static str {
        match self {
            Self::Access => "caracal/providerConnections/accessToken",
            Self::Refresh => "caracal/providerConnections/refreshToken",
        }
    }
}
