//! An identity provider of somebody else: it signs id_tokens, and publishes its keys over TLS on a port of the loopback
//! address. What it answers, and when, is up to the test.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use caracal_crypto::encoding::base64url;
use caracal_http::egress::{AddressPolicy, GuardedConnector, PrivateHosts, SystemResolver, TlsTrust};
use rcgen::{CertificateParams, KeyPair as CertificateKey};
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256,
    RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RsaKeyPair,
};
use rustls::ServerConfig;
use rustls_pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::START;

pub(crate) const IDP: &str = "https://idp.example";
pub(crate) const AUDIENCE: &str = "caracal";

/// A key that signs id_tokens.
#[derive(Clone)]
pub(crate) struct IdpKey {
    pub(crate) kid: String,
    pair: Pair,
}

#[derive(Clone)]
enum Pair {
    Rsa(Arc<RsaKeyPair>),
    P256(Arc<EcdsaKeyPair>),
    P384(Arc<EcdsaKeyPair>),
}

impl IdpKey {
    /// The one RSA key there is: making one takes longer than any test.
    pub(crate) fn rsa(kid: &str) -> Self {
        let text: String = include_str!("rsa_2048.txt").split_whitespace().collect();
        let pair = RsaKeyPair::from_pkcs8(&STANDARD.decode(text).unwrap()).unwrap();
        Self { kid: kid.to_owned(), pair: Pair::Rsa(Arc::new(pair)) }
    }

    pub(crate) fn p256(kid: &str) -> Self {
        Self { kid: kid.to_owned(), pair: Pair::P256(Arc::new(ec(&ECDSA_P256_SHA256_FIXED_SIGNING))) }
    }

    pub(crate) fn p384(kid: &str) -> Self {
        Self { kid: kid.to_owned(), pair: Pair::P384(Arc::new(ec(&ECDSA_P384_SHA384_FIXED_SIGNING))) }
    }

    /// The same key under another name.
    pub(crate) fn named(&self, kid: &str) -> Self {
        Self { kid: kid.to_owned(), ..self.clone() }
    }

    /// The published form.
    pub(crate) fn jwk(&self) -> Value {
        let (curve, pair) = match &self.pair {
            Pair::Rsa(pair) => {
                let public = PublicKeyComponents::<Vec<u8>>::from(pair.public());
                let (n, e) = (base64url(&public.n), base64url(&public.e));
                return json!({"kty": "RSA", "use": "sig", "kid": self.kid, "n": n, "e": e});
            }
            Pair::P256(pair) => ("P-256", pair),
            Pair::P384(pair) => ("P-384", pair),
        };
        let point = &pair.public_key().as_ref()[1..];
        let (x, y) = point.split_at(point.len() / 2);
        json!({"kty": "EC", "crv": curve, "kid": self.kid, "x": base64url(x), "y": base64url(y)})
    }

    /// Signs header and payload as they stand.
    pub(crate) fn sign(&self, header: &str, payload: &str) -> String {
        let signed = format!("{}.{}", base64url(header.as_bytes()), base64url(payload.as_bytes()));
        let (random, message) = (SystemRandom::new(), signed.as_bytes());
        let signature = match &self.pair {
            Pair::Rsa(pair) => {
                let padding = match serde_json::from_str::<Value>(header).unwrap()["alg"].as_str() {
                    Some("RS384") => &RSA_PKCS1_SHA384,
                    Some("RS512") => &RSA_PKCS1_SHA512,
                    _ => &RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(padding, &random, message, &mut signature).unwrap();
                signature
            }
            Pair::P256(pair) | Pair::P384(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
        };
        format!("{signed}.{}", base64url(&signature))
    }

    /// An id_token with the key's own algorithm.
    pub(crate) fn token(&self, claims: &Value) -> String {
        let alg = match self.pair {
            Pair::Rsa(_) => "RS256",
            Pair::P256(_) => "ES256",
            Pair::P384(_) => "ES384",
        };
        self.sign(&json!({"alg": alg, "kid": self.kid, "typ": "JWT"}).to_string(), &claims.to_string())
    }
}

fn ec(algorithm: &'static ring::signature::EcdsaSigningAlgorithm) -> EcdsaKeyPair {
    let random = SystemRandom::new();
    let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
    EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).unwrap()
}

/// What the provider says of `user-1`, for an hour.
pub(crate) fn id_claims() -> Value {
    json!({"iss": IDP, "aud": AUDIENCE, "sub": "user-1", "exp": START + 3_600, "iat": START})
}

/// What is answered at a path.
#[derive(Clone)]
pub(crate) enum Reply {
    /// A whole answer.
    With { status: u16, headers: &'static str, body: Vec<u8> },
    /// The connection is closed.
    Nothing,
    /// Nothing ever comes.
    Silence,
}

impl Reply {
    pub(crate) fn keys(keys: &[&IdpKey]) -> Self {
        let keys: Vec<Value> = keys.iter().map(|key| key.jwk()).collect();
        Self::body(json!({ "keys": keys }).to_string())
    }

    pub(crate) fn body(body: impl Into<Vec<u8>>) -> Self {
        Self::With { status: 200, headers: "", body: body.into() }
    }

    pub(crate) fn status(status: u16) -> Self {
        Self::With { status, headers: "", body: Vec::new() }
    }
}

/// A running provider.
pub(crate) struct IdentityProvider {
    pub(crate) port: u16,
    shared: Arc<Shared>,
    serving: tokio::task::JoinHandle<()>,
}

struct Shared {
    replies: Mutex<HashMap<String, Reply>>,
    asked: AtomicUsize,
    /// Whether answers go out.
    open: watch::Sender<bool>,
}

/// The certificate of all providers, with the key for it, and what trusts it.
fn certificate() -> &'static (ServerConfig, Vec<u8>) {
    static MADE: OnceLock<(ServerConfig, Vec<u8>)> = OnceLock::new();
    MADE.get_or_init(|| {
        let key = CertificateKey::generate().unwrap();
        let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        let private = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)
            .unwrap();
        let text = STANDARD.encode(certificate.der());
        (config, format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n").into_bytes())
    })
}

/// The way out of a service that may reach loopback addresses, and that trusts the providers of these tests or nobody.
pub(crate) fn way_out(loopback: bool, trusting: bool) -> GuardedConnector {
    let trust = TlsTrust::from_pem(false, trusting.then(|| certificate().1.as_slice()));
    let policy = AddressPolicy::new(loopback, PrivateHosts::default());
    GuardedConnector::new(policy, Arc::new(SystemResolver::new()), trust)
}

impl IdentityProvider {
    /// One that publishes `keys` at `/keys`.
    pub(crate) async fn publishing(keys: &[&IdpKey]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared =
            Arc::new(Shared { replies: Mutex::default(), asked: AtomicUsize::new(0), open: watch::Sender::new(true) });
        let acceptor = TlsAcceptor::from(Arc::new(certificate().0.clone()));
        let serving = tokio::spawn(serve(listener, acceptor, shared.clone()));
        let provider = Self { port, shared, serving };
        provider.answer("/keys", Reply::keys(keys));
        provider
    }

    /// What is at `path` from now on.
    pub(crate) fn answer(&self, path: &str, reply: Reply) {
        self.shared.replies.lock().unwrap().insert(path.to_owned(), reply);
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}{path}", self.port)
    }

    /// How often anything was asked of it.
    pub(crate) fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::SeqCst)
    }

    /// Waits until it was asked `times`.
    pub(crate) async fn until_asked(&self, times: usize) {
        let asked = async {
            while self.asked() < times {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), asked).await.unwrap();
    }

    /// From now on answers wait for [`Self::release`].
    pub(crate) fn hold_back(&self) {
        self.shared.open.send_replace(false);
    }

    pub(crate) fn release(&self) {
        self.shared.open.send_replace(true);
    }
}

impl Drop for IdentityProvider {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, shared) = (acceptor.clone(), shared.clone());
        tokio::spawn(async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let (mut head, mut buffer) = (Vec::new(), [0; 4096]);
            while !head.ends_with(b"\r\n\r\n") {
                match stream.read(&mut buffer).await {
                    Ok(read) if read > 0 => head.extend_from_slice(&buffer[..read]),
                    _ => return,
                }
            }
            shared.asked.fetch_add(1, Ordering::SeqCst);
            let _ = shared.open.subscribe().wait_for(|open| *open).await;
            let head = String::from_utf8_lossy(&head).into_owned();
            let path = head.split(' ').nth(1).unwrap_or_default();
            let reply = shared.replies.lock().unwrap().get(path).cloned().unwrap_or(Reply::status(404));
            match reply {
                Reply::With { status, headers, body } => {
                    let length = body.len();
                    let head = format!(
                        "HTTP/1.1 {status} x\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n"
                    );
                    let _ = stream.write_all(head.as_bytes()).await;
                    let _ = stream.write_all(&body).await;
                    let _ = stream.shutdown().await;
                }
                Reply::Nothing => {}
                Reply::Silence => std::future::pending().await,
            }
        });
    }
}
