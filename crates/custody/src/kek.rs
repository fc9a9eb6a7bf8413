//! Recognises a wrong key-encryption key at start, before anything is sealed under it.
//!
//! The first start seals a known text into the store. Every later start must be able to open it; if the key was
//! exchanged by mistake, nothing that is already sealed could be read, and new envelopes would join old ones under
//! a key nobody expects.

use std::sync::Arc;

use caracal_crypto::encoding::{base64url, from_base64url};
use caracal_crypto::envelope::{KekRing, OpenError};
use caracal_store::{Store, StoreError, deployment};

use crate::CustodyError;

const NAME: &str = "kek_check";
const PLACE: &str = "caracal/deployment/kekCheck";
const TEXT: &[u8] = b"caracal";

/// Makes sure that `ring` opens what this store holds, or marks a new store as belonging to it.
pub async fn check(store: &Store, ring: &Arc<KekRing>) -> Result<(), CustodyError> {
    let mut snapshot = store.snapshot().await?;
    let stored = deployment::lookup(&mut snapshot.deployment(), NAME).await?;
    drop(snapshot);
    let Some(stored) = stored else {
        let sealed = base64url(&ring.seal(PLACE, TEXT)?);
        let done: Result<(), StoreError> = store
            .commit_deployment(sealed, |tx, sealed| Box::pin(async move { deployment::put(tx, NAME, sealed).await }))
            .await;
        return Ok(done?);
    };
    let envelope = from_base64url(&stored)
        .ok_or_else(|| CustodyError::Sealed { place: PLACE.to_owned(), reason: OpenError::Malformed })?;
    let opened =
        ring.open(PLACE, &envelope).map_err(|reason| CustodyError::Sealed { place: PLACE.to_owned(), reason })?;
    if opened.expose() == TEXT { Ok(()) } else { Err(CustodyError::Foreign { place: PLACE.to_owned() }) }
}
