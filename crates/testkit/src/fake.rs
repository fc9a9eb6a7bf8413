//! A server that says what a test wants, over real TLS on a loopback port: a token endpoint, a vault, a cloud's API.
//!
//! One thread per connection, so what answers may wait for the test. It speaks HTTP/1.1 with `Content-Length`, which is
//! what the clients under test send.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::PrivateKeyDer;

/// A request as it came.
#[derive(Debug, Clone, Default)]
pub struct Received {
    /// The method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Header fields, names in lower case, in their order.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Received {
    /// The first header of this name, in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// The target's path.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// A parameter of the target's query.
    pub fn query(&self, name: &str) -> Option<String> {
        find(self.target.split_once('?')?.1, name)
    }

    /// A field of the body, a form.
    pub fn field(&self, name: &str) -> Option<String> {
        find(&self.text(), name)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

fn find(form: &str, name: &str) -> Option<String> {
    let mut pairs = form.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(found, _)| decoded(found) == name).map(|(_, value)| decoded(value))
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        let escaped = behind.get(..2).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match (byte, escaped) {
            (b'%', Some(value)) => {
                bytes.push(value);
                rest = behind.get(2..).unwrap_or_default();
            }
            (b'+', _) => bytes.push(b' '),
            _ => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What is answered.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// Header fields beside the length.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Reply {
    /// A JSON text with this status.
    pub fn json(status: u16, text: impl Into<String>) -> Self {
        let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
        Self { status, headers, body: text.into().into_bytes() }
    }

    /// Bytes with this status.
    pub fn bytes(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    /// The connection is closed without a word.
    pub fn hang_up() -> Self {
        Self::bytes(0, "")
    }

    /// With one more header.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

type Answer = dyn Fn(&Received) -> Reply + Send + Sync;

struct Inner {
    answer: Box<Answer>,
    seen: Mutex<Vec<Received>>,
    stopped: AtomicBool,
    tls: Option<Arc<ServerConfig>>,
}

/// The server. Stops with its value.
pub struct FakeServer {
    inner: Arc<Inner>,
    address: SocketAddr,
    authority: String,
}

impl FakeServer {
    /// Over TLS, as `localhost`, `127.0.0.1` and any name of `names`; whoever trusts [`FakeServer::authority`] believes
    /// it.
    #[allow(clippy::panic, reason = "a test fails by panicking")]
    pub fn https(names: &[&str], answer: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        let (config, authority) = identity(names).unwrap_or_else(|error| panic!("no certificate for a test: {error}"));
        Self::start(Some(Arc::new(config)), authority, Box::new(answer))
    }

    /// Without TLS.
    pub fn http(answer: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        Self::start(None, String::new(), Box::new(answer))
    }

    #[allow(clippy::panic, reason = "a test fails by panicking")]
    fn start(tls: Option<Arc<ServerConfig>>, authority: String, answer: Box<Answer>) -> Self {
        let listener =
            TcpListener::bind(("127.0.0.1", 0)).unwrap_or_else(|error| panic!("no port for a test: {error}"));
        let address = listener.local_addr().unwrap_or_else(|error| panic!("no port for a test: {error}"));
        let inner = Arc::new(Inner { answer, seen: Mutex::default(), stopped: AtomicBool::new(false), tls });
        let serving = inner.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                if serving.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(stream), serving) = (stream, serving.clone()) else { continue };
                thread::spawn(move || serving.serve(stream));
            }
        });
        Self { inner, address, authority }
    }

    /// `https://localhost:port` or `http://127.0.0.1:port`.
    pub fn url(&self) -> String {
        match self.inner.tls {
            Some(_) => format!("https://localhost:{}", self.port()),
            None => format!("http://{}", self.address),
        }
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// PEM of the certificate authority that vouches for it.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Every request so far, in the order of their arrival.
    pub fn seen(&self) -> Vec<Received> {
        self.inner.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        self.inner.stopped.store(true, Ordering::SeqCst);
        // Wakes up whoever waits for the next connection.
        let _ = TcpStream::connect(self.address);
    }
}

impl Inner {
    fn serve(&self, stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        match &self.tls {
            None => self.converse(BufReader::new(stream)),
            Some(config) => {
                let Ok(connection) = ServerConnection::new(config.clone()) else { return };
                self.converse(BufReader::new(StreamOwned::new(connection, stream)));
            }
        }
    }

    fn converse<S: Read + Write>(&self, mut stream: BufReader<S>) {
        while let Some(request) = receive(&mut stream) {
            self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(request.clone());
            let reply = (self.answer)(&request);
            if reply.status == 0 || self.stopped.load(Ordering::SeqCst) {
                return;
            }
            let mut head = format!("HTTP/1.1 {} Said\r\ncontent-length: {}\r\n", reply.status, reply.body.len());
            for (name, value) in &reply.headers {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
            head.push_str("\r\n");
            let mut answer = head.into_bytes();
            answer.extend_from_slice(&reply.body);
            if stream.get_mut().write_all(&answer).and_then(|()| stream.get_mut().flush()).is_err() {
                return;
            }
        }
    }
}

fn receive(stream: &mut impl BufRead) -> Option<Received> {
    let mut line = String::new();
    let mut next = || {
        line.clear();
        stream.read_line(&mut line).ok().filter(|read| *read > 0)?;
        Some(line.trim_end().to_owned())
    };
    let first = next()?;
    let mut words = first.split(' ');
    let mut request =
        Received { method: words.next()?.to_owned(), target: words.next()?.to_owned(), ..Received::default() };
    loop {
        let line = next()?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':')?;
        request.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = request.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    request.body = vec![0; length];
    stream.read_exact(&mut request.body).ok()?;
    Some(request)
}

/// A certificate for these names, and the authority it is from, in PEM.
fn identity(names: &[&str]) -> Result<(ServerConfig, String), Box<dyn std::error::Error>> {
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    let names = ["localhost", "127.0.0.1"].iter().chain(names).map(|name| (*name).to_owned());
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(names.collect::<Vec<_>>())?.signed_by(&key, &issuer)?;
    let private = PrivateKeyDer::try_from(key.serialize_der())?;
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)?;
    // Without line breaks inside: readers take any length, and nobody else reads it.
    let pem = pem("CERTIFICATE", issuer.der());
    Ok((config, pem))
}

/// A self-signed certificate that a client can show, and its key, both PEM.
pub fn client_pair() -> Result<(String, String), rcgen::Error> {
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(["client".to_owned()])?.self_signed(&key)?;
    Ok((pem("CERTIFICATE", certificate.der()), pem("PRIVATE KEY", &key.serialize_der())))
}

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}
