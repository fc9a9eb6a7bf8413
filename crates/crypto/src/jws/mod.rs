//! Mandates as bytes: compact JWS signed with ES256, and the key sets they are verified with.
//!
//! The STS holds a [`SigningKey`] per zone and signs claims with it; its public half is published as a [`Jwk`]. A
//! verifier splits what a caller presented into an [`UnverifiedToken`], reads from it which zone's keys and which
//! `kid` it *claims*, takes that key from a [`KeySet`] it fetched itself, and only then believes the claims.
//!
//! For them there is one algorithm. The header's `alg` must say `ES256` and nothing in a token can choose another, supply its
//! own key or point to one: `typ`, `crit`, `jku`, `jwk` and `x5u` are not looked at (contract: gateway.md §8). JSON
//! with a member twice is refused, because two readers may believe different ones.
//!
//! Tokens of identity providers are another matter: [`ForeignKeySet`].

mod foreign;
#[cfg(test)]
mod hostile;
mod key;
mod keyset;
mod object;
mod proven;
mod token;
#[cfg(test)]
mod wycheproof;

pub use foreign::{ForeignAlg, ForeignHeader, ForeignHeaderFault, ForeignKeySet};
pub use key::{BadSignature, NotASigningKey, NotOnCurve, PublicKey, SignError, SigningKey};
pub use keyset::{Jwk, Jwks, KeySet, UnusableKeySet};
pub use proven::verifications;
pub use token::{MalformedToken, Part, UnverifiedToken};

/// The only algorithm, as it stands in headers and keys.
pub const ALG: &str = "ES256";
