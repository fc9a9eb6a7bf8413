//! Keys of every form, and certificates.

use caracal_broker::{AssertionKey, BadKey, Certificate};
use caracal_crypto::encoding::hex;
use p521::ecdsa::signature::Verifier;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
    VerificationAlgorithm,
};

pub(crate) const RSA: &str = include_str!("../keys/rsa.pkcs8.pem");
pub(crate) const P256: &str = include_str!("../keys/p256.pkcs8.pem");
pub(crate) const P384: &str = include_str!("../keys/p384.pkcs8.pem");
pub(crate) const P521: &str = include_str!("../keys/p521.pkcs8.pem");
pub(crate) const P256_CERTIFICATE: &str = include_str!("../keys/p256.crt.pem");

/// Whether `signature` of `message` is one of `key`, by somebody who only knows its public half.
pub(crate) fn is_signed(key: &AssertionKey, message: &[u8], signature: &[u8]) -> bool {
    let algorithm: &'static dyn VerificationAlgorithm = match key.algorithm() {
        "RS256" => &RSA_PKCS1_2048_8192_SHA256,
        "ES256" => &ECDSA_P256_SHA256_FIXED,
        "ES384" => &ECDSA_P384_SHA384_FIXED,
        _ => {
            let public = p521::ecdsa::VerifyingKey::from_sec1_bytes(key.public_key()).unwrap();
            let signature = p521::ecdsa::Signature::from_slice(signature).unwrap();
            return public.verify(message, &signature).is_ok();
        }
    };
    UnparsedPublicKey::new(algorithm, key.public_key()).verify(message, signature).is_ok()
}

#[test]
fn every_form_of_a_key_signs_what_its_public_half_verifies() {
    for (pem, algorithm, length) in [
        (RSA, "RS256", 256),
        (include_str!("../keys/rsa.pkcs1.pem"), "RS256", 256),
        (P256, "ES256", 64),
        (include_str!("../keys/p256.sec1.pem"), "ES256", 64),
        (include_str!("../keys/p256.params.pem"), "ES256", 64),
        (P384, "ES384", 96),
        (include_str!("../keys/p384.sec1.pem"), "ES384", 96),
        (P521, "ES512", 132),
        (include_str!("../keys/p521.sec1.pem"), "ES512", 132),
    ] {
        let key = AssertionKey::from_pem(pem).unwrap();
        assert_eq!(key.algorithm(), algorithm);
        let signature = key.sign(b"message").unwrap();
        assert_eq!(signature.len(), length, "{algorithm}");
        assert!(is_signed(&key, b"message", &signature), "{algorithm}");
        assert!(!is_signed(&key, b"massage", &signature), "{algorithm}");
    }
}

#[test]
fn a_text_that_is_no_usable_key_says_why() {
    for (pem, why) in [
        ("", BadKey::NotPem),
        ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", BadKey::NotPem),
        (P256_CERTIFICATE, BadKey::NotPem),
        (include_str!("../keys/rsa1024.pem"), BadKey::Unsupported),
        (include_str!("../keys/ed25519.pem"), BadKey::Unsupported),
        (include_str!("../keys/p256.bare.pem"), BadKey::WithoutPublic),
    ] {
        assert_eq!(AssertionKey::from_pem(pem).err(), Some(why));
    }
    assert_eq!(Certificate::from_pem(RSA).err(), Some(BadKey::NotACertificate));
}

#[test]
fn a_certificate_has_the_thumbprints_that_others_compute_and_knows_its_key() {
    for (certificate, key, sha1, sha256) in [
        (
            include_str!("../keys/rsa.crt.pem"),
            RSA,
            "b2e5184741f5da4bb2c5ada2e78796849dbd65df",
            "f6a5f57353468d4384fcf025dd0b5ab75cd44466ad03512b49d54c4f071a586a",
        ),
        (
            P256_CERTIFICATE,
            P256,
            "66fc026dc4d68606e508f2e670e96fbb72508f4e",
            "8bd72b20ab786685928020c6642d95e59fece018c2e63e94eb1331b8c29d4b7c",
        ),
        (
            include_str!("../keys/p521.crt.pem"),
            P521,
            "1ded78c287acfe42bc321f936a59114650988617",
            "46f0051f6fe7440d8f660cd0af5cb8da4e23a20be1469911573ef295a56d8d46",
        ),
    ] {
        let read = Certificate::from_pem(certificate).unwrap();
        let bytes = |text: &str| hex(&caracal_crypto::encoding::from_base64url(text).unwrap());
        assert_eq!((bytes(&read.sha1), bytes(&read.sha256)), (sha1.to_owned(), sha256.to_owned()));
        assert!(read.is_of(&AssertionKey::from_pem(key).unwrap()));
        assert!(!read.is_of(&AssertionKey::from_pem(P384).unwrap()));
    }
}
