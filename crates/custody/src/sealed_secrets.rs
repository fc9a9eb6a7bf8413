//! The built-in secret backend. Plaintext goes in and out of here only; the store holds envelopes.

use std::sync::Arc;

use caracal_authority::{ApplicationId, ProviderId, ZoneId};
use caracal_crypto::envelope::{KekRing, SealError};
use caracal_crypto::{SecretBytes, SecretText};
use caracal_store::{ZoneRead, ZoneWrite, sealed_secrets};

use crate::CustodyError;

/// Where a provider's secret document lies (contract: audit-and-streams.md §9.1).
pub fn provider_secret_ref(zone: &ZoneId, provider: &ProviderId) -> String {
    format!("zones/{zone}/providers/{provider}/secretConfig")
}

/// Where the custody copy of an application's client secret lies.
pub fn application_secret_ref(zone: &ZoneId, application: &ApplicationId) -> String {
    format!("zones/{zone}/applications/{application}/clientSecret")
}

/// Seals and opens secrets. The reference is authenticated with the value, so an envelope moved elsewhere won't open.
#[derive(Clone)]
pub struct SealedSecrets {
    ring: Arc<KekRing>,
}

impl SealedSecrets {
    /// Over the given key-encryption keys.
    pub fn new(ring: Arc<KekRing>) -> Self {
        Self { ring }
    }

    /// Seals `plaintext` under `reference` as part of the caller's change.
    pub async fn put(&self, tx: &mut ZoneWrite<'_>, reference: &str, plaintext: &[u8]) -> Result<(), CustodyError> {
        let envelope = self.ring.seal(reference, plaintext)?;
        Ok(sealed_secrets::put(tx, reference, &envelope).await?)
    }

    /// Opens what lies under `reference`; `None` when nothing does.
    pub async fn open(&self, tx: &mut ZoneRead<'_>, reference: &str) -> Result<Option<SecretBytes>, CustodyError> {
        let Some(envelope) = sealed_secrets::lookup(tx, reference).await? else { return Ok(None) };
        let opened = self.ring.open(reference, &envelope);
        opened.map(Some).map_err(|reason| CustodyError::Sealed { place: reference.to_owned(), reason })
    }

    /// Removes what lies under `reference`.
    pub async fn remove(&self, tx: &mut ZoneWrite<'_>, reference: &str) -> Result<(), CustodyError> {
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
