//! Who this side of TLS is, where a server asks for a certificate.

use std::fmt;
use std::sync::Arc;

use rustls::client::ResolvesClientCert;
use rustls::crypto::ring;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// Why two texts are no identity. What they hold is never quoted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientIdentityError {
    /// Not PEM, or without a certificate.
    #[error("no certificate in PEM was found")]
    Certificate,
    /// Not PEM, or without a private key.
    #[error("no private key in PEM was found")]
    Key,
    /// A kind of key that is not supported, or one that is not the certificate's.
    #[error("the private key can't be used with the certificate: {0}")]
    Pair(String),
}

/// A certificate with its chain and its private key. Cloning shares them.
#[derive(Clone)]
pub struct ClientIdentity(Arc<SingleCertAndKey>);

impl ClientIdentity {
    /// Reads a chain, the client's own certificate first, and its private key (PKCS #8, PKCS #1 or SEC 1), both PEM.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, ClientIdentityError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(|_| ClientIdentityError::Certificate)?;
        if chain.is_empty() {
            return Err(ClientIdentityError::Certificate);
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| ClientIdentityError::Key)?;
        let pair = CertifiedKey::from_der(chain, key, &ring::default_provider())
            .map_err(|error| ClientIdentityError::Pair(error.to_string()))?;
        Ok(Self(Arc::new(pair.into())))
    }

    pub(super) fn resolver(&self) -> Arc<dyn ResolvesClientCert> {
        self.0.clone()
    }
}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientIdentity(..)")
    }
}
