//! Tokens of somebody else: what identity providers sign, and the keys they publish (contract: sts.md §4).
//!
//! Unlike our own mandates these come in six algorithms, all of them asymmetric: with `HS256` a key that everybody may
//! fetch would sign, and `none` needs no key. What a token says of its algorithm only chooses how its `kid`'s key is
//! used; a key that is of another type, or that names another algorithm, verifies nothing.

use std::collections::HashMap;

use p521::ecdsa::signature::Verifier;
use ring::agreement::{self, ECDH_P256, ECDH_P384, EphemeralPrivateKey};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde_json::{Map, Value};

use super::keyset::{UnusableKeySet, entries, may_verify};
use super::token::Compact;
use super::{BadSignature, UnverifiedToken};
use crate::encoding::from_base64url;

/// Bits of an RSA modulus that can be used.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2_048..=8_192;
/// RSA exponents that can be used.
const RSA_EXPONENTS: std::ops::RangeInclusive<u64> = 3..=0x7FFF_FFFF;

/// How a foreign token may be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ForeignAlg {
    /// RSA PKCS#1 v1.5 with SHA-256.
    Rs256,
    /// The same with SHA-384.
    Rs384,
    /// The same with SHA-512.
    Rs512,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// ECDSA on P-521 with SHA-512.
    Es512,
}

impl ForeignAlg {
    /// From the name in a header or key; any other name is none we accept.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "RS256" => Some(Self::Rs256),
            "RS384" => Some(Self::Rs384),
            "RS512" => Some(Self::Rs512),
            "ES256" => Some(Self::Es256),
            "ES384" => Some(Self::Es384),
            "ES512" => Some(Self::Es512),
            _ => None,
        }
    }
}

/// What is wrong with the header of a foreign token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ForeignHeaderFault {
    /// No `alg`, or one that is not accepted.
    #[error("the algorithm is not accepted")]
    Algorithm,
    /// No `kid`.
    #[error("no key is named")]
    NoKeyNamed,
    /// `crit` demands that somebody understands an extension, and nobody here does (RFC 7515 §4.1.11).
    #[error("an extension is critical")]
    Critical,
}

/// How and with which key a foreign token claims to be signed: enough to know whether its keys are worth fetching.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForeignHeader<'t> {
    /// The algorithm.
    pub alg: ForeignAlg,
    /// The key's id; not empty.
    pub kid: &'t str,
}

impl<'t> ForeignHeader<'t> {
    /// Reads the header of `token`.
    pub fn of(token: &'t UnverifiedToken<'_>) -> Result<Self, ForeignHeaderFault> {
        if token.compact().has_member("crit") {
            return Err(ForeignHeaderFault::Critical);
        }
        let alg = token.alg().and_then(ForeignAlg::parse).ok_or(ForeignHeaderFault::Algorithm)?;
        let kid = token.kid().filter(|kid| !kid.is_empty()).ok_or(ForeignHeaderFault::NoKeyNamed)?;
        Ok(Self { alg, kid })
    }
}

/// The usable keys of an identity provider by `kid`.
pub struct ForeignKeySet {
    /// Two keys may share a `kid` when they are of different types (RFC 7517 §4.5).
    keys: HashMap<String, Vec<ForeignKey>>,
}

struct ForeignKey {
    /// What the key is meant for, where it says so.
    alg: Option<ForeignAlg>,
    material: Material,
}

enum Material {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// Uncompressed points, as the provider takes them.
    P256(Vec<u8>),
    P384(Vec<u8>),
    P521(Box<p521::ecdsa::VerifyingKey>),
}

impl ForeignKeySet {
    /// From a fetched document. Keys that can't be used are skipped: without `kid`, for another purpose or algorithm,
    /// of another type, or invalid. The document's size is the caller's to bound.
    pub fn from_jwks(document: &[u8]) -> Result<Self, UnusableKeySet> {
        let mut keys: HashMap<String, Vec<ForeignKey>> = HashMap::new();
        for jwk in entries(document)?.iter().filter_map(Value::as_object) {
            let Some((kid, key)) = usable(jwk) else { continue };
            keys.entry(kid).or_default().push(key);
        }
        if keys.is_empty() { Err(UnusableKeySet::NoUsableKey) } else { Ok(Self { keys }) }
    }

    /// Whether a key goes by this id.
    pub fn contains(&self, kid: &str) -> bool {
        self.keys.contains_key(kid)
    }

    /// Whether a key of the id and type that `header` names signed exactly this header and payload. That the claims are
    /// in force is still to be checked.
    pub fn verify(&self, token: &UnverifiedToken<'_>, header: &ForeignHeader<'_>) -> Result<(), BadSignature> {
        self.verify_compact(token.compact(), header)
    }

    pub(super) fn verify_compact(&self, token: &Compact<'_>, header: &ForeignHeader<'_>) -> Result<(), BadSignature> {
        let signature = token.signature().ok_or(BadSignature)?;
        let message = token.signed().as_bytes();
        let keys = self.keys.get(header.kid).map(Vec::as_slice).unwrap_or_default();
        let verifies = |key: &ForeignKey| {
            key.alg.is_none_or(|alg| alg == header.alg) && key.material.verifies(header.alg, message, &signature)
        };
        if keys.iter().any(verifies) { Ok(()) } else { Err(BadSignature) }
    }
}

impl Material {
    fn verifies(&self, alg: ForeignAlg, message: &[u8], signature: &[u8]) -> bool {
        let rsa = |parameters: &'static RsaParameters| match self {
            Self::Rsa { n, e } => RsaPublicKeyComponents { n, e }.verify(parameters, message, signature).is_ok(),
            _ => false,
        };
        match (alg, self) {
            (ForeignAlg::Rs256, _) => rsa(&RSA_PKCS1_2048_8192_SHA256),
            (ForeignAlg::Rs384, _) => rsa(&RSA_PKCS1_2048_8192_SHA384),
            (ForeignAlg::Rs512, _) => rsa(&RSA_PKCS1_2048_8192_SHA512),
            (ForeignAlg::Es256, Self::P256(point)) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature).is_ok()
            }
            (ForeignAlg::Es384, Self::P384(point)) => {
                UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point).verify(message, signature).is_ok()
            }
            (ForeignAlg::Es512, Self::P521(key)) => p521::ecdsa::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify(message, &signature).is_ok()),
            _ => false,
        }
    }
}

fn usable(jwk: &Map<String, Value>) -> Option<(String, ForeignKey)> {
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    let kid = text("kid").filter(|kid| !kid.is_empty())?;
    if !may_verify(jwk)? {
        return None;
    }
    let alg = match jwk.get("alg") {
        None => None,
        Some(alg) => Some(ForeignAlg::parse(alg.as_str()?)?),
    };
    let bytes = |name: &str| from_base64url(text(name)?);
    let material = match (text("kty")?, text("crv")) {
        ("RSA", _) => rsa(&bytes("n")?, &bytes("e")?)?,
        ("EC", Some("P-256")) => Material::P256(point::<32>(&bytes("x")?, &bytes("y")?, &ECDH_P256)?),
        ("EC", Some("P-384")) => Material::P384(point::<48>(&bytes("x")?, &bytes("y")?, &ECDH_P384)?),
        ("EC", Some("P-521")) => {
            let point = uncompressed::<66>(&bytes("x")?, &bytes("y")?)?;
            Material::P521(Box::new(p521::ecdsa::VerifyingKey::from_sec1_bytes(&point).ok()?))
        }
        _ => return None,
    };
    Some((kid.to_owned(), ForeignKey { alg, material }))
}

/// Numbers that some write with zeros in front, and the provider takes without.
fn rsa(n: &[u8], e: &[u8]) -> Option<Material> {
    let (n, e) = (without_leading_zeros(n), without_leading_zeros(e));
    let bits = n.len() * 8 - usize::try_from(n.first()?.leading_zeros()).ok()?;
    if e.len() > 4 || !RSA_BITS.contains(&bits) {
        return None;
    }
    let exponent = e.iter().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
    let odd = n.last()? & 1 == 1 && exponent & 1 == 1;
    (odd && RSA_EXPONENTS.contains(&exponent)).then(|| Material::Rsa { n: n.to_vec(), e: e.to_vec() })
}

fn without_leading_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

fn uncompressed<const LEN: usize>(x: &[u8], y: &[u8]) -> Option<Vec<u8>> {
    (x.len() == LEN && y.len() == LEN).then(|| [&[4], x, y].concat())
}

/// A point that is on its curve. How that is found out: see [`super::key`].
fn point<const LEN: usize>(x: &[u8], y: &[u8], curve: &'static agreement::Algorithm) -> Option<Vec<u8>> {
    let point = uncompressed::<LEN>(x, y)?;
    let private = EphemeralPrivateKey::generate(curve, &SystemRandom::new()).ok()?;
    let agreed = agreement::agree_ephemeral(private, &agreement::UnparsedPublicKey::new(curve, &point), |_| ());
    agreed.is_ok().then_some(point)
}

#[cfg(test)]
mod tests;
