//! Recognises a wrong key-encryption key at start, before anything is sealed under it.
//!
//! The first start seals a known text into the store. Every later start must be able to open it; if the key was
//! exchanged by mistake, nothing that is already sealed could be read, and new envelopes would join old ones under
//! a key nobody expects.

use std::sync::Arc;

use caracal_crypto::encoding::{base64url, from_base64url};
use caracal_crypto::envelope::{KekRing, OpenError};
use caracal_store::{DeploymentRead, Store, StoreError, deployment};

use crate::CustodyError;

const NAME: &str = "kek_check";
pub(crate) const PLACE: &str = "caracal/deployment/kekCheck";
const TEXT: &[u8] = b"caracal";

/// Makes sure that `ring` opens what this store holds, or marks a new store as belonging to it.
pub async fn check(store: &Store, ring: &Arc<KekRing>) -> Result<(), CustodyError> {
    let mut snapshot = store.snapshot().await?;
    let state = state(&mut snapshot.deployment(), ring).await?;
    drop(snapshot);
    match state {
        State::None => put(store, None, base64url(&ring.seal(PLACE, TEXT)?)).await.map(|_| ()),
        State::Current | State::Behind | State::Rewrapped => Ok(()),
    }
}

/// How the check is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// There is none yet.
    None,
    /// Under the current key.
    Current,
    /// Under the previous key.
    Behind,
    /// Under the previous key until a moment ago.
    Rewrapped,
}

/// The stored text.
pub(crate) async fn read(tx: &mut DeploymentRead<'_>) -> Result<Option<String>, StoreError> {
    deployment::lookup(tx, NAME).await
}

pub(crate) async fn state(tx: &mut DeploymentRead<'_>, ring: &KekRing) -> Result<State, CustodyError> {
    read(tx).await?.map_or(Ok(State::None), |stored| judge(&stored, ring))
}

/// What a stored text says, if it opens.
pub(crate) fn judge(stored: &str, ring: &KekRing) -> Result<State, CustodyError> {
    let refused = |reason| CustodyError::Sealed { place: PLACE.to_owned(), reason };
    let envelope = from_base64url(stored).ok_or_else(|| refused(OpenError::Malformed))?;
    if ring.open(PLACE, &envelope).map_err(refused)?.expose() != TEXT {
        return Err(CustodyError::Foreign { place: PLACE.to_owned() });
    }
    Ok(if ring.is_current(&envelope) { State::Current } else { State::Behind })
}

/// Seals the check under the current key. From then on a start without the previous one is let pass.
pub(crate) async fn rewrap(store: &Store, ring: &KekRing) -> Result<State, CustodyError> {
    let mut snapshot = store.snapshot().await?;
    let stored = read(&mut snapshot.deployment()).await?;
    drop(snapshot);
    let state = stored.as_ref().map_or(Ok(State::None), |stored| judge(stored, ring))?;
    if state != State::Behind {
        return Ok(state);
    }
    let replaced = put(store, stored, base64url(&ring.seal(PLACE, TEXT)?)).await?;
    Ok(if replaced { State::Rewrapped } else { State::Behind })
}

/// Puts `new` where `old` lies. `false`: something else does by now.
async fn put(store: &Store, old: Option<String>, new: String) -> Result<bool, CustodyError> {
    let done: Result<bool, StoreError> = store
        .commit_deployment((old, new), |tx, (old, new)| {
            Box::pin(async move {
                if read(tx).await? != *old {
                    return Ok(false);
                }
                deployment::put(tx, NAME, new).await.map(|()| true)
            })
        })
        .await;
    Ok(done?)
}
