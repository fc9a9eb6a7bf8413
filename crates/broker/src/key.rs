//! The private keys that sign assertions, and the certificates that name them (contract: sts.md §10.3).
//!
//! Everything but P-521 is signed by the provider that does all other cryptography here; it has no P-521.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use p521::ecdsa::signature::Signer;
use ring::digest;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256,
    RsaKeyPair,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::der::{Der, INTEGER, OBJECT_ID, OCTET_STRING, SEQUENCE, context, public_key_of_certificate};

const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const RSA_ENCRYPTION: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
const P521: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x23];

/// A text that is no key or certificate that can be used. Says nothing of its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    /// No PEM section with a private key that is not encrypted.
    #[error("is not a PEM private key (PKCS#8, PKCS#1 or SEC1, not encrypted)")]
    NotPem,
    /// Neither RSA of 2048 to 4096 bits nor one of three curves.
    #[error("must be an RSA key of 2048 to 4096 bits, or an EC key on P-256, P-384 or P-521")]
    Unsupported,
    /// An EC key whose file leaves out the public half.
    #[error("leaves out its public key; write it again with `openssl pkey`")]
    WithoutPublic,
    /// No PEM section with a certificate.
    #[error("is not a PEM X.509 certificate")]
    NotACertificate,
    /// The signature failed.
    #[error("could not sign")]
    NotSigned,
}

/// A private key that signs assertions.
pub struct AssertionKey(Kind);

enum Kind {
    Rsa(Box<RsaKeyPair>),
    Ec { algorithm: &'static str, pair: Box<EcdsaKeyPair> },
    P521 { key: Box<p521::ecdsa::SigningKey>, public: Vec<u8> },
}

impl AssertionKey {
    /// Reads PKCS#8, PKCS#1 or SEC1 in PEM.
    pub fn from_pem(pem: &str) -> Result<Self, BadKey> {
        match PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| BadKey::NotPem)? {
            PrivateKeyDer::Pkcs1(der) => {
                let pair = RsaKeyPair::from_der(der.secret_pkcs1_der()).map_err(|_| BadKey::Unsupported)?;
                Ok(Self(Kind::Rsa(Box::new(pair))))
            }
            PrivateKeyDer::Sec1(der) => Self::from_sec1(der.secret_sec1_der(), None),
            PrivateKeyDer::Pkcs8(der) => Self::from_pkcs8(der.secret_pkcs8_der()),
            _ => Err(BadKey::NotPem),
        }
    }

    fn from_pkcs8(der: &[u8]) -> Result<Self, BadKey> {
        let read = || {
            let mut outer = Der(Der(der).take(SEQUENCE)?);
            outer.take(INTEGER)?;
            let mut algorithm = Der(outer.take(SEQUENCE)?);
            let kind = algorithm.take(OBJECT_ID)?;
            Some((kind, algorithm.take_if(OBJECT_ID), outer.take(OCTET_STRING)?))
        };
        match read().ok_or(BadKey::NotPem)? {
            (RSA_ENCRYPTION, _, _) => {
                let pair = RsaKeyPair::from_pkcs8(der).map_err(|_| BadKey::Unsupported)?;
                Ok(Self(Kind::Rsa(Box::new(pair))))
            }
            (EC_PUBLIC_KEY, curve, key) => Self::from_sec1(key, curve),
            _ => Err(BadKey::Unsupported),
        }
    }

    /// RFC 5915; `curve` where the key stands inside PKCS#8.
    fn from_sec1(der: &[u8], curve: Option<&[u8]>) -> Result<Self, BadKey> {
        let read = || {
            let mut key = Der(Der(der).take(SEQUENCE)?);
            key.take(INTEGER)?;
            let number = key.take(OCTET_STRING)?;
            let named = key.take_if(context(0)).and_then(|curve| Der(curve).take(OBJECT_ID));
            let public = key.take_if(context(1)).and_then(|public| Der(public).take_bits());
            Some((number, named, public))
        };
        let (number, named, public) = read().ok_or(BadKey::NotPem)?;
        let (signing, algorithm) = match curve.or(named) {
            Some(P256) => (&ECDSA_P256_SHA256_FIXED_SIGNING, "ES256"),
            Some(P384) => (&ECDSA_P384_SHA384_FIXED_SIGNING, "ES384"),
            Some(P521) => {
                let key = p521::ecdsa::SigningKey::from_slice(number).map_err(|_| BadKey::Unsupported)?;
                let public = key.verifying_key().to_sec1_point(false).as_bytes().to_vec();
                return Ok(Self(Kind::P521 { key: Box::new(key), public }));
            }
            _ => return Err(BadKey::Unsupported),
        };
        let public = public.ok_or(BadKey::WithoutPublic)?;
        let pair = EcdsaKeyPair::from_private_key_and_public_key(signing, number, public, &SystemRandom::new())
            .map_err(|_| BadKey::Unsupported)?;
        Ok(Self(Kind::Ec { algorithm, pair: Box::new(pair) }))
    }

    /// `alg` of what it signs.
    pub fn algorithm(&self) -> &'static str {
        match &self.0 {
            Kind::Rsa(_) => "RS256",
            Kind::Ec { algorithm, .. } => algorithm,
            Kind::P521 { .. } => "ES512",
        }
    }

    /// The signature as JWS has it: of an EC key both numbers, one after the other.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, BadKey> {
        let random = SystemRandom::new();
        match &self.0 {
            Kind::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).map_err(|_| BadKey::NotSigned)?;
                Ok(signature)
            }
            Kind::Ec { pair, .. } => Ok(pair.sign(&random, message).map_err(|_| BadKey::NotSigned)?.as_ref().to_vec()),
            Kind::P521 { key, .. } => {
                let signature: p521::ecdsa::Signature = key.try_sign(message).map_err(|_| BadKey::NotSigned)?;
                Ok(signature.to_bytes().to_vec())
            }
        }
    }

    /// The public half, as a certificate has it.
    pub fn public_key(&self) -> &[u8] {
        match &self.0 {
            Kind::Rsa(pair) => pair.public_key().as_ref(),
            Kind::Ec { pair, .. } => pair.public_key().as_ref(),
            Kind::P521 { public, .. } => public,
        }
    }
}

/// The certificate that names a key at its token endpoint.
#[derive(Debug, Clone)]
pub struct Certificate {
    public_key: Vec<u8>,
    /// `x5t`.
    pub sha1: String,
    /// `x5t#S256`.
    pub sha256: String,
}

impl Certificate {
    /// The first certificate of a PEM text.
    pub fn from_pem(pem: &str) -> Result<Self, BadKey> {
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| BadKey::NotACertificate)?;
        let public_key = public_key_of_certificate(&der).ok_or(BadKey::NotACertificate)?.to_vec();
        let thumbprint = |algorithm| URL_SAFE_NO_PAD.encode(digest::digest(algorithm, &der));
        Ok(Self {
            public_key,
            sha1: thumbprint(&digest::SHA1_FOR_LEGACY_USE_ONLY),
            sha256: thumbprint(&digest::SHA256),
        })
    }

    /// Whether it is of this key.
    pub fn is_of(&self, key: &AssertionKey) -> bool {
        self.public_key == key.public_key()
    }
}
