//! Changes whose secret lies in a backend outside the store (contract: admin-api.md §6): if the backend refuses, nothing is
//! changed; if the change fails, the backend gets back what it had.

use caracal_custody::SealedSecrets;

use crate::problem::Refusal;

/// What a change does to a secret.
#[derive(Clone, Copy)]
pub(crate) enum Keeps<'s> {
    /// Another one takes its place.
    This(&'s [u8]),
    /// It goes.
    Nothing,
    /// It stays as it is.
    AsItIs,
}

/// Carries out `change` with the secret under `reference` staged.
pub(crate) async fn staged<T>(
    sealed: &SealedSecrets,
    reference: &str,
    keeps: Keeps<'_>,
    change: impl Future<Output = Result<T, Refusal>>,
) -> Result<T, Refusal> {
    let staged = match keeps {
        Keeps::This(secret) => sealed.stage(reference, Some(secret)).await?,
        Keeps::Nothing => sealed.stage(reference, None).await?,
        Keeps::AsItIs => None,
    };
    let done = change.await;
    if let (Err(_), Some(staged)) = (&done, staged) {
        staged.undo().await;
    }
    done
}

/// Removes the copy of a secret whose owner is gone from its backend. That it stays behind when the backend is down opens
/// nothing: nobody is authenticated by it, and nobody is given it.
pub(crate) async fn forget(sealed: &SealedSecrets, reference: &str) {
    if let Err(error) = sealed.stage(reference, None).await {
        tracing::warn!(reference, %error, "a secret whose owner is gone is still in the backend");
    }
}
