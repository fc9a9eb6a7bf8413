//! A store of envelopes that is not ours: a vault, a cloud's secret manager. It gets ciphertext alone; the plaintext stays
//! where the key-encryption key is.

use caracal_store::BoxFuture;

/// A backend that did not do what it was asked. Its words may be about anything, so they are not in here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the secret backend {kind} did not {doing}: {reason}")]
pub struct BackendError {
    /// Which backend.
    pub kind: &'static str,
    /// What it was asked.
    pub doing: &'static str,
    /// Status, or what became of the connection.
    pub reason: String,
}

/// Keeps envelopes by reference.
pub trait SecretBackend: Send + Sync + 'static {
    /// The envelope under `reference`; `None` when there is none.
    fn read<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, BackendError>>;

    /// The same, past anything that is remembered of it: for who is about to change it, and may have to put it back.
    fn read_now<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, BackendError>> {
        self.read(reference)
    }

    /// Puts an envelope under `reference`, in place of any other.
    fn write<'a>(&'a self, reference: &'a str, envelope: &'a [u8]) -> BoxFuture<'a, Result<(), BackendError>>;

    /// Puts `new` in the place of exactly `old`. `false`: something else is there by now, or nothing. A backend that can
    /// compare and write in one step should; this asks once more and then writes, so a change within that moment is lost.
    fn replace<'a>(
        &'a self,
        reference: &'a str,
        old: &'a [u8],
        new: &'a [u8],
    ) -> BoxFuture<'a, Result<bool, BackendError>> {
        Box::pin(async move {
            if self.read(reference).await?.as_deref() != Some(old) {
                return Ok(false);
            }
            self.write(reference, new).await.map(|()| true)
        })
    }

    /// Removes what is under `reference`, if there is something.
    fn remove<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<(), BackendError>>;
}
