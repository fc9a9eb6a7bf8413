//! Keys and secrets at rest, and what is done with them.
//!
//! - [`kek`]: that the key-encryption key at hand is the one this store was sealed with.
//! - [`SigningKeys`]: ES256 key pairs per zone, the first made at the zone's first mint, sealed in the store, opened once.
//! - [`KeySets`]: the public halves, from the STS, where there is no key-encryption key.
//! - [`Withdrawals`]: that nobody goes on believing a key that was withdrawn.
//! - [`schedule`]: when each of a zone's keys signs, and for how long it is believed.
//! - [`LogKeys`]: Ed25519 key pairs per zone that sign the ledger's checkpoints, made once.
//! - [`SealedSecrets`]: secrets of providers, applications and workloads, bound to where they lie: in the store, or as
//!   ciphertext in a [`SecretBackend`].
//! - [`rewrap`]: sealing all of it anew under another key-encryption key.
//! - [`mandate`]: a token is trusted only after the key of the very zone it names has verified it.
//!
//! Absent on purpose: HTTP, policy, and any opinion on what a mandate may be used for.

mod backend;
pub mod kek;
mod key_sets;
mod log_keys;
pub mod mandate;
pub mod rewrap;
pub mod schedule;
mod sealed_secrets;
mod signing_keys;
mod versions;
mod withdrawals;

pub use backend::{BackendError, SecretBackend};
pub use key_sets::{FetchKeySet, KeySetUnreachable, KeySets, VerificationKeys};
pub use log_keys::LogKeys;
pub use sealed_secrets::{
    Account, ConnectionToken, RowSecret, SealedSecrets, Staged, application_secret_ref, provider_secret_ref,
    workload_secret_ref,
};
pub use signing_keys::{NewKey, Replacement, Rotation, SigningKeys, ZoneKey};
pub use withdrawals::Withdrawals;

use caracal_crypto::chance::ChanceUnavailable;
use caracal_crypto::envelope::{OpenError, SealError};
use caracal_store::StoreError;

/// A key or secret that could not be had. Always a reason to refuse, never to go on without.
#[derive(Debug, thiserror::Error)]
pub enum CustodyError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Secrets lie in a store that is not ours, and it failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// Public keys are had from the STS, and it can't be reached.
    #[error(transparent)]
    Unreachable(#[from] KeySetUnreachable),
    /// An envelope did not open.
    #[error("can't open `{place}`: {reason}")]
    Sealed {
        /// Where the envelope lies.
        place: String,
        /// Why it did not open.
        reason: OpenError,
    },
    /// An envelope in a backend is not of the version that its row points to.
    #[error(
        "the secret backend has another version of `{place}` than its row points to, or the envelope was altered. Was the \
         backend, or the store, brought back from a backup? Put the newest back, or give the secret anew"
    )]
    OtherVersion {
        /// Where the envelope lies.
        place: String,
    },
    /// A secret in a backend is being changed by another.
    #[error("another change of `{place}` goes on; try again when it has ended, at the latest in two minutes")]
    UnderWay {
        /// Where the secret lies.
        place: String,
    },
    /// Something could not be sealed.
    #[error(transparent)]
    Unsealed(#[from] SealError),
    /// No randomness.
    #[error(transparent)]
    Chance(#[from] ChanceUnavailable),
    /// A zone has as many keys as its verifiers can take in.
    #[error("zone {zone} publishes as many keys as a key set may hold; none is added before one of them has retired")]
    Crowded {
        /// The zone.
        zone: caracal_authority::ZoneId,
        /// When that will be.
        retry_after: std::time::Duration,
    },
    /// What was opened is not what was sealed there.
    #[error("`{place}` does not hold what belongs there")]
    Foreign {
        /// Where it lies.
        place: String,
    },
}
