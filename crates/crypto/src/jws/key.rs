//! A P-256 key pair that signs, and its public half that verifies.

use ring::agreement::{self, ECDH_P256, EphemeralPrivateKey};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use serde::Serialize;

use super::ALG;
use crate::chance::ChanceUnavailable;
use crate::encoding::push_base64url;
use crate::secret::{Secret, SecretBytes};

const COORDINATE_LEN: usize = 32;
const POINT_LEN: usize = 1 + 2 * COORDINATE_LEN;

/// A zone's private key, parsed and checked once.
pub struct SigningKey {
    pair: EcdsaKeyPair,
    public: PublicKey,
    random: SystemRandom,
}

/// Bytes that are not a P-256 private key in PKCS#8 with its public key inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a P-256 private key in PKCS#8 form")]
pub struct NotASigningKey;

/// Claims that were not signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The claims or the `kid` have no JSON form.
    #[error("the claims cannot be written as JSON")]
    NotJson(#[from] serde_json::Error),
    /// The claims are JSON, but not an object: no verifier would take them.
    #[error("the claims are not a JSON object")]
    NotAnObject,
    /// The provider could not sign, for want of randomness.
    #[error("signing failed")]
    NotSigned,
}

impl SigningKey {
    /// A new random key, with its PKCS#8 form to seal into the store.
    pub fn generate() -> Result<(Self, SecretBytes), ChanceUnavailable> {
        let random = SystemRandom::new();
        let document =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).map_err(|_| ChanceUnavailable)?;
        let pkcs8 = Secret::new(document.as_ref().to_vec());
        // What the provider just wrote, it can read; an error here can only mean that chance gave nothing usable.
        let key = Self::from_pkcs8(pkcs8.expose()).map_err(|NotASigningKey| ChanceUnavailable)?;
        Ok((key, pkcs8))
    }

    /// From an opened PKCS#8 document. Fails unless it is P-256 and its public half belongs to its private half.
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, NotASigningKey> {
        let random = SystemRandom::new();
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8, &random).map_err(|_| NotASigningKey)?;
        let point = pair.public_key().as_ref().try_into().map_err(|_| NotASigningKey)?;
        Ok(Self { pair, public: PublicKey { point }, random })
    }

    /// The half that verifies.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs `claims` (any type whose JSON is an object) as a compact JWS with the header
    /// `{"alg":"ES256","kid":…,"typ":"JWT"}`.
    pub fn sign(&self, kid: &str, claims: &impl Serialize) -> Result<String, SignError> {
        self.sign_as("JWT", kid, claims)
    }

    /// The same with another `typ`, which tells what the claims are where that is no mandate (RFC 8725 §3.11).
    pub fn sign_as(&self, typ: &str, kid: &str, claims: &impl Serialize) -> Result<String, SignError> {
        #[derive(Serialize)]
        struct Header<'k> {
            alg: &'static str,
            kid: &'k str,
            typ: &'k str,
        }
        let header = serde_json::to_vec(&Header { alg: ALG, kid, typ })?;
        let claims = serde_json::to_vec(claims)?;
        if claims.first() != Some(&b'{') {
            return Err(SignError::NotAnObject);
        }
        let mut token = String::with_capacity((header.len() + claims.len()) * 4 / 3 + 4 + 2 + 86);
        push_base64url(&mut token, &header);
        token.push('.');
        push_base64url(&mut token, &claims);
        self.append_signature(token)
    }

    /// Signs header and payload as they stand in `token`.
    pub(super) fn append_signature(&self, mut token: String) -> Result<String, SignError> {
        let signature = self.pair.sign(&self.random, token.as_bytes()).map_err(|_| SignError::NotSigned)?;
        token.push('.');
        push_base64url(&mut token, signature.as_ref());
        Ok(token)
    }
}

/// A P-256 point that verifies signatures. Holding one means that the point is on the curve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    /// Uncompressed, as the provider takes it: 04, x, y.
    point: [u8; POINT_LEN],
}

/// Coordinates that are no point of P-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a point on P-256")]
pub struct NotOnCurve;

/// A signature that does not belong to the message and key, in any way at all. There is nothing finer to tell: the
/// cause would only help whoever forges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature is not valid")]
pub struct BadSignature;

impl PublicKey {
    /// From big-endian coordinates.
    pub fn from_coordinates(x: &[u8; COORDINATE_LEN], y: &[u8; COORDINATE_LEN]) -> Result<Self, NotOnCurve> {
        let mut point = [4; POINT_LEN];
        point[1..=COORDINATE_LEN].copy_from_slice(x);
        point[1 + COORDINATE_LEN..].copy_from_slice(y);
        if on_curve(&point) { Ok(Self { point }) } else { Err(NotOnCurve) }
    }

    /// The coordinates, big-endian, left-padded to 32 bytes each.
    pub fn coordinates(&self) -> (&[u8], &[u8]) {
        self.point[1..].split_at(COORDINATE_LEN)
    }

    /// Whether `signature` (64 bytes, r then s, either of the two equivalent s) is this key's over `message`.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.point)
            .verify(message, signature)
            .map_err(|_| BadSignature)
    }
}

/// The provider checks points whenever it uses one, but offers no check alone. Key agreement uses the point without
/// needing a signature; its result is thrown away. Costs about one verification, once per fetched key. Without
/// randomness the answer is "no".
fn on_curve(point: &[u8; POINT_LEN]) -> bool {
    EphemeralPrivateKey::generate(&ECDH_P256, &SystemRandom::new()).is_ok_and(|private| {
        agreement::agree_ephemeral(private, &agreement::UnparsedPublicKey::new(&ECDH_P256, point), |_| ()).is_ok()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::encoding::from_base64url;

    #[test]
    fn a_token_is_header_claims_and_64_bytes() {
        let (key, _) = SigningKey::generate().unwrap();
        let token = key.sign("k\"1", &json!({"sub": "app-1"})).unwrap();
        let parts: Vec<_> = token.split('.').map(|part| from_base64url(part).unwrap()).collect();
        assert_eq!(parts.len(), 3);
        assert_eq!(parts[0], br#"{"alg":"ES256","kid":"k\"1","typ":"JWT"}"#);
        assert_eq!(parts[1], br#"{"sub":"app-1"}"#);
        assert_eq!(parts[2].len(), 64);
    }

    #[test]
    fn a_kept_key_is_the_same_key() {
        let (key, pkcs8) = SigningKey::generate().unwrap();
        let restored = SigningKey::from_pkcs8(pkcs8.expose()).unwrap();
        assert_eq!(restored.public(), key.public());
        let (message, signature) = signed(&restored, &json!({"sub": "app-1"}));
        assert_eq!(key.public().verify(message.as_bytes(), &signature), Ok(()));
        assert_ne!(SigningKey::generate().unwrap().0.public(), key.public());
    }

    fn signed(key: &SigningKey, claims: &serde_json::Value) -> (String, Vec<u8>) {
        let token = key.sign("k-1", claims).unwrap();
        let (message, signature) = token.rsplit_once('.').unwrap();
        (message.to_owned(), from_base64url(signature).unwrap())
    }

    #[test]
    fn only_objects_are_signed() {
        let (key, _) = SigningKey::generate().unwrap();
        for claims in [json!([]), json!("{"), json!(null), json!(1)] {
            assert!(matches!(key.sign("k-1", &claims), Err(SignError::NotAnObject)), "{claims}");
        }
    }

    mod t02_sts_keys {
        use super::*;

        #[test]
        fn only_a_whole_p256_pkcs8_document_becomes_a_signing_key() {
            let (_, pkcs8) = SigningKey::generate().unwrap();
            let pkcs8 = pkcs8.expose();
            for length in 0..pkcs8.len() {
                assert!(SigningKey::from_pkcs8(&pkcs8[..length]).is_err(), "{length}");
            }
            assert!(SigningKey::from_pkcs8(&[pkcs8.as_slice(), b"\0"].concat()).is_err());
            // The last bytes are the public key: a pair whose halves do not belong together is no pair.
            let mut mismatched = pkcs8.clone();
            *mismatched.last_mut().unwrap() ^= 1;
            assert!(SigningKey::from_pkcs8(&mismatched).is_err());
            let p384 =
                EcdsaKeyPair::generate_pkcs8(&ring::signature::ECDSA_P384_SHA384_FIXED_SIGNING, &SystemRandom::new())
                    .unwrap();
            assert!(SigningKey::from_pkcs8(p384.as_ref()).is_err());
        }
    }

    mod t16_verify {
        use super::*;

        #[test]
        fn a_point_off_the_curve_is_no_key() {
            let (key, _) = SigningKey::generate().unwrap();
            let (x, y) = key.public().coordinates();
            let (x, mut y): ([u8; 32], [u8; 32]) = (x.try_into().unwrap(), y.try_into().unwrap());
            assert_eq!(PublicKey::from_coordinates(&x, &y).as_ref(), Ok(key.public()));
            y[31] ^= 1;
            assert_eq!(PublicKey::from_coordinates(&x, &y), Err(NotOnCurve));
            assert_eq!(PublicKey::from_coordinates(&[0; 32], &[0; 32]), Err(NotOnCurve));
            assert_eq!(PublicKey::from_coordinates(&[0xff; 32], &[0xff; 32]), Err(NotOnCurve));
        }

        #[test]
        fn both_forms_of_s_verify_and_no_other_length_does() {
            let (key, _) = SigningKey::generate().unwrap();
            let (message, signature) = signed(&key, &json!({}));
            let message = message.as_bytes();
            assert_eq!(key.public().verify(message, &signature), Ok(()));
            let other_s = [&signature[..32], &order_minus(&signature[32..])].concat();
            assert_ne!(other_s, signature);
            assert_eq!(key.public().verify(message, &other_s), Ok(()));
            for wrong in [&signature[..63], &[&signature[..], b"\0"].concat(), &[], &[0; 64]] {
                assert_eq!(key.public().verify(message, wrong), Err(BadSignature), "{} bytes", wrong.len());
            }
            let (other, _) = SigningKey::generate().unwrap();
            assert_eq!(other.public().verify(message, &signature), Err(BadSignature));
        }

        /// The group order of P-256 minus `s`: the s of the equivalent signature.
        fn order_minus(s: &[u8]) -> Vec<u8> {
            let order = crate::encoding::from_hex("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551");
            let mut borrow = 0;
            let mut difference: Vec<u8> = (order.unwrap().iter().zip(s).rev())
                .map(|(order, s)| {
                    let digit = i16::from(*order) - i16::from(*s) - borrow;
                    borrow = i16::from(digit < 0);
                    u8::try_from(digit.rem_euclid(256)).unwrap()
                })
                .collect();
            difference.reverse();
            difference
        }
    }
}
