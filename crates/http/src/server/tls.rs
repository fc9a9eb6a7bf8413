//! TLS towards callers: a certificate chain and its key, read from files, that can be renewed while connections run
//! (contract: gateway.md §2, `TLS_CERT_FILE`, `TLS_KEY_FILE`).
//!
//! A certificate that is renewed on disk is picked up without a restart. One that can't be used never replaces one that
//! can: connections go on with what there was, and the operator is told.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::crypto::ring::default_provider;
use rustls::server::{ClientHello, ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use zeroize::Zeroizing;

/// Why files make no identity. Says which, and quotes nothing of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServerTlsError {
    /// A file is not there, or may not be read.
    #[error("`{path}` could not be read: {reason}")]
    Unreadable {
        /// Which file.
        path: String,
        /// What the system says.
        reason: String,
    },
    /// No certificate in PEM form.
    #[error("`{path}` holds no certificate in PEM form")]
    NoCertificate {
        /// Which file.
        path: String,
    },
    /// No private key in PEM form.
    #[error("`{path}` holds no private key in PEM form")]
    NoKey {
        /// Which file.
        path: String,
    },
    /// The key is not the certificate's, or of a kind that is not known.
    #[error("`{key}` is not the key of the certificate in `{certificate}`: {reason}")]
    Mismatch {
        /// The file of the chain.
        certificate: String,
        /// The file of the key.
        key: String,
        /// What does not fit.
        reason: String,
    },
    /// The TLS library refused its own defaults.
    #[error("tls could not be configured: {0}")]
    Setup(String),
}

/// The identity of a listener. At least TLS 1.2; HTTP/2 where the caller offers it, else HTTP/1.1.
pub struct ServerTls {
    certificate: PathBuf,
    key: PathBuf,
    current: Arc<Current>,
    config: Arc<ServerConfig>,
}

#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl Current {
    fn get(&self) -> Arc<CertifiedKey> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.get())
    }
}

impl ServerTls {
    /// Reads a PEM chain, leaf first, and the leaf's PEM key.
    pub fn load(certificate: &Path, key: &Path) -> Result<Arc<Self>, ServerTlsError> {
        let current = Arc::new(Current(RwLock::new(Arc::new(read(certificate, key)?))));
        // The provider is named here: a process-wide default would be whatever some dependency installed first.
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|error| ServerTlsError::Setup(error.to_string()))?
            .with_no_client_auth()
            .with_cert_resolver(current.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let (certificate, key) = (certificate.to_owned(), key.to_owned());
        Ok(Arc::new(Self { certificate, key, current, config: Arc::new(config) }))
    }

    /// Reads the files again. Says whether they hold another certificate; connections from now on get it. An error leaves
    /// everything as it was.
    pub fn reload(&self) -> Result<bool, ServerTlsError> {
        let read = read(&self.certificate, &self.key)?;
        let changed = read.cert != self.current.get().cert;
        if changed {
            *self.current.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(read);
        }
        Ok(changed)
    }

    /// Reads the files every `period` until `stop` turns true (or its sender is gone).
    pub async fn keep_reloading(self: Arc<Self>, period: Duration, mut stop: watch::Receiver<bool>) {
        let mut last_fault = None;
        loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(period) => {}
            }
            let this = self.clone();
            // Two small files, but a file system can hang.
            let Ok(outcome) = tokio::task::spawn_blocking(move || this.reload()).await else { continue };
            match outcome {
                Ok(true) => tracing::info!("the certificate was renewed"),
                Ok(false) => {}
                // Said once for as long as it stays the same.
                Err(fault) => {
                    if last_fault.as_ref() != Some(&fault) {
                        tracing::error!(error = %fault, "the certificate could not be renewed: the one before is still used");
                    }
                    last_fault = Some(fault);
                    continue;
                }
            }
            last_fault = None;
        }
    }

    /// The handshake. Says whether HTTP/2 was agreed on.
    pub(super) async fn accept(&self, stream: TcpStream) -> std::io::Result<(TlsStream<TcpStream>, bool)> {
        let stream = TlsAcceptor::from(self.config.clone()).accept(stream).await?;
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok((stream, http2))
    }
}

fn read(certificate: &Path, key: &Path) -> Result<CertifiedKey, ServerTlsError> {
    let name = |path: &Path| path.display().to_string();
    let unreadable =
        |path: &Path, error: std::io::Error| ServerTlsError::Unreadable { path: name(path), reason: error.to_string() };
    let chain = std::fs::read(certificate).map_err(|error| unreadable(certificate, error))?;
    let secret = Zeroizing::new(std::fs::read(key).map_err(|error| unreadable(key, error))?);
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&chain)
        .collect::<Result<_, _>>()
        .map_err(|_| ServerTlsError::NoCertificate { path: name(certificate) })?;
    if chain.is_empty() {
        return Err(ServerTlsError::NoCertificate { path: name(certificate) });
    }
    let secret = PrivateKeyDer::from_pem_slice(&secret).map_err(|_| ServerTlsError::NoKey { path: name(key) })?;
    CertifiedKey::from_der(chain, secret, &default_provider()).map_err(|error| ServerTlsError::Mismatch {
        certificate: name(certificate),
        key: name(key),
        reason: error.to_string(),
    })
}
