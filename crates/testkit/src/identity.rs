//! Certificates for servers that have to speak real TLS.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// A self-signed certificate for one name, and its key, both in PEM form.
pub struct Identity {
    /// The certificate; whoever trusts it as a root believes the server.
    pub certificate: String,
    /// The private key.
    pub key: String,
}

impl Identity {
    /// A fresh one.
    pub fn of(name: &str) -> Self {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate for a name");
        let pem = |label: &str, der: &[u8]| {
            format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
        };
        Self {
            certificate: pem("CERTIFICATE", made.cert.der()),
            key: pem("PRIVATE KEY", &made.signing_key.serialize_der()),
        }
    }
}
