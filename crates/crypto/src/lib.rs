//! Everything that needs a key or a random number, and the only place that has either.
//!
//! One story runs through it. The process starts with a key-encryption key ([`envelope`]) and a few HMAC keys
//! ([`hmac`]). A zone's first mint draws a signing key from [`chance`], seals it for the store, and signs mandates
//! ([`jws`]) that the Gateway and resource servers verify with the published key set. Applications prove who they are
//! by secrets whose slow hashes are checked inside a memory budget ([`client_secret`]); admin tokens, being 256 random
//! bits, need only a fast keyed digest ([`fast_hash`]). Whatever is secret on the way is a [`Secret`]: it cannot be
//! printed or serialised, and is wiped when dropped.
//!
//! Absent on purpose: I/O, clocks (time is an argument), SQL, HTTP, and any algorithm other than the contract's.
//!
//! A limit worth knowing: keys prepared by the crypto provider (HMAC, AEAD and ECDSA contexts) live in types that do
//! not wipe themselves. They exist once per key, for as long as the process uses the key; every buffer of ours that
//! held key bytes before that is wiped.

pub mod chance;
pub mod client_secret;
pub mod ed25519;
pub mod encoding;
pub mod envelope;
pub mod fast_hash;
pub mod hmac;
pub mod jws;
pub mod secret;

pub use secret::{Secret, SecretBytes, SecretText, constant_time_eq};
