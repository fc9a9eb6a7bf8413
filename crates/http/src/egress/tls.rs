//! Whom we believe at the other end of TLS (contract: sts.md §10.5, `CARACAL_TLS_EXTRA_CA_FILE`).

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::{ClientConfig, Resumption};
use rustls::{RootCertStore, crypto};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::identity::ClientIdentity;

/// TLS sessions of one identity that are remembered.
const SESSIONS: usize = 256;

/// Why no trust could be set up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsTrustError {
    /// The extra bundle exists but cannot be read.
    #[error("extra ca file could not be read: {0}")]
    Unreadable(String),
    /// The extra bundle is not PEM, or holds no certificate that could be a root.
    #[error("extra ca file holds no usable certificate")]
    Garbage,
    /// The TLS library refused its own defaults.
    #[error("tls could not be configured: {0}")]
    Setup(String),
}

/// The system's roots, and an operator's own.
///
/// An operator who names a bundle wants what it holds to count. When it cannot be read, every handshake fails and says
/// so: falling back to the system's roots would trust parties whom the operator may have meant to leave behind.
#[derive(Clone)]
pub struct TlsTrust(Result<Arc<ClientConfig>, TlsTrustError>);

impl TlsTrust {
    /// Reads the system's roots and appends the PEM bundle at `extra`. A path at which nothing exists counts as none.
    pub fn load(extra: Option<&Path>) -> Self {
        let bundle = match extra.map(std::fs::read) {
            None => None,
            Some(Ok(bundle)) => Some(bundle),
            Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => {
                tracing::warn!("the extra ca file does not exist: only the system's roots are trusted");
                None
            }
            Some(Err(error)) => return Self(Err(TlsTrustError::Unreadable(error.to_string()))),
        };
        Self::from_pem(true, bundle.as_deref())
    }

    /// Trusts the system's roots, if `system`, and every certificate of a PEM bundle.
    pub fn from_pem(system: bool, bundle: Option<&[u8]>) -> Self {
        Self(configure(system, bundle).map(Arc::new))
    }

    /// Why every handshake will fail, for the log at start and for readiness.
    pub fn fault(&self) -> Option<&TlsTrustError> {
        self.0.as_ref().err()
    }

    /// The same, that shows `identity` to servers which ask for a certificate.
    pub(super) fn presenting(&self, identity: &ClientIdentity) -> Self {
        Self(self.0.clone().map(|config| {
            let mut config = ClientConfig::clone(&config);
            config.client_auth_cert_resolver = identity.resolver();
            // A session that is resumed is still that of whoever began it: nobody else may find it.
            config.resumption = Resumption::in_memory_sessions(SESSIONS);
            Arc::new(config)
        }))
    }

    pub(super) fn config(&self) -> Result<Arc<ClientConfig>, TlsTrustError> {
        self.0.clone()
    }
}

fn configure(system: bool, bundle: Option<&[u8]>) -> Result<ClientConfig, TlsTrustError> {
    let mut roots = RootCertStore::empty();
    if system {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "some of the system's root certificates could not be read");
        }
        roots.add_parsable_certificates(found.certs);
    }
    if let Some(bundle) = bundle {
        let certificates: Vec<_> =
            CertificateDer::pem_slice_iter(bundle).collect::<Result<_, _>>().map_err(|_| TlsTrustError::Garbage)?;
        if certificates.is_empty() {
            return Err(TlsTrustError::Garbage);
        }
        for certificate in certificates {
            roots.add(certificate).map_err(|_| TlsTrustError::Garbage)?;
        }
    }
    // The provider is named here: a process-wide default would be whatever some dependency installed first.
    let builder = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsTrustError::Setup(error.to_string()))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
