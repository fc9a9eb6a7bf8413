//! Stores of sealed envelopes that are not ours (contract: sts.md §10.6, audit-and-streams.md §9.3). Each speaks its own
//! protocol; all get ciphertext, are reached over TLS or on loopback, and have ten seconds.

mod cached;
mod custom;
mod vault;
mod web;

pub use cached::CachedBackend;
pub use custom::CustomBackend;
pub use vault::{VaultBackend, VaultSettings};
pub use web::{BackendUrl, BadBackendUrl};
