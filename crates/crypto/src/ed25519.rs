//! Ed25519 (RFC 8032), for what is verified far away and for a long time: the ledger's checkpoints.

use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

use crate::chance::{self, ChanceUnavailable};
use crate::secret::Secret;

/// Bytes of a public key.
pub const PUBLIC_BYTES: usize = 32;
/// Bytes of a signature.
pub const SIGNATURE_BYTES: usize = 64;

/// The 32 bytes that a private key is made of.
pub type Seed = Secret<[u8; 32]>;

/// Draws the seed of a new key.
pub fn new_seed() -> Result<Seed, ChanceUnavailable> {
    chance::random_bytes().map(Secret::new)
}

/// A private key, opened.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    public: [u8; PUBLIC_BYTES],
}

impl SigningKey {
    /// The key that `seed` makes; `None` when that is not 32 bytes.
    pub fn from_seed(seed: &[u8]) -> Option<Self> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).ok()?;
        let public = pair.public_key().as_ref().try_into().ok()?;
        Some(Self { pair, public })
    }

    /// Its public half.
    pub fn public(&self) -> [u8; PUBLIC_BYTES] {
        self.public
    }

    /// Signs `message`. The same message gets the same signature.
    pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
        let mut bytes = [0; SIGNATURE_BYTES];
        for (to, from) in bytes.iter_mut().zip(self.pair.sign(message).as_ref()) {
            *to = *from;
        }
        bytes
    }
}

/// Whether `signature` is one of `message` by the owner of `public`.
pub fn verifies(public: &[u8; PUBLIC_BYTES], message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ED25519, public).verify(message, signature).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::{array_from_hex, hex};

    /// RFC 8032 §7.1, tests 1 and 2.
    #[test]
    fn keys_and_signatures_are_those_of_rfc_8032() {
        for (seed, public, message, signature) in [
            (
                "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
                "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
                &b""[..],
                "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
            ),
            (
                "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
                "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
                &b"\x72"[..],
                "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
            ),
        ] {
            let key = SigningKey::from_seed(&array_from_hex::<32>(seed).unwrap()).unwrap();
            assert_eq!(hex(&key.public()), public);
            let signed = key.sign(message);
            assert_eq!(hex(&signed), signature);
            assert!(verifies(&key.public(), message, &signed));
            assert!(!verifies(&key.public(), b"another", &signed));
            assert!(!verifies(&key.public(), message, &signed[..63]));
        }
        assert!(SigningKey::from_seed(&[0; 31]).is_none());
    }
}
