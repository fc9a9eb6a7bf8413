//! Backends against servers that speak their protocols, and what is remembered of them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use caracal_authority::Timestamp;
use caracal_broker::backends::{BackendUrl, CachedBackend, CustomBackend, ServiceAccount, VaultBackend, VaultSettings};
use caracal_crypto::envelope::{Kek, KekRing};
use caracal_crypto::{Secret, SecretText};
use caracal_custody::{BackendError, SealedSecrets, SecretBackend};
use caracal_http::egress::{OperatorClient, SystemResolver, TlsTrust};
use caracal_store::{BoxFuture, ManualClock, Store, conformance};
use caracal_testkit::{FakeServer, Place, Received, Reply};
use proptest::prelude::*;
use serde_json::{Value, json};

mod aws;
mod azure;
mod bucket;
mod google;
mod infisical;

const PLACE: &str = "zones/z-1/providers/p-1/secretConfig";

fn client(server: &FakeServer) -> OperatorClient {
    let trust = TlsTrust::from_pem(false, Some(server.authority().as_bytes()));
    OperatorClient::new(Arc::new(SystemResolver::new()), trust)
}

fn secret(text: &str) -> SecretText {
    Secret::new(text.to_owned())
}

/// A store whose clock is put where a test wants it.
struct Time {
    store: Store,
    clock: Arc<ManualClock>,
    place: Place,
}

impl Time {
    async fn new() -> Self {
        let (place, clock) = (Place::new(), Arc::new(ManualClock::at(Timestamp::from_seconds(1_767_225_600))));
        let store = conformance::open(place.path(), place.database_url().as_deref(), clock.clone()).await;
        Self { store, clock, place }
    }
}

/// How often `path` was asked for.
fn asked(server: &FakeServer, path: &str) -> usize {
    server.seen().iter().filter(|request| request.path() == path).count()
}

/// Twenty readers at once, and how often they asked for a credential at `path`, where the server answers only when it is
/// released.
async fn read_by_twenty(
    backend: Arc<dyn SecretBackend>,
    server: &FakeServer,
    path: &str,
    release: mpsc::Sender<()>,
) -> usize {
    let reading: Vec<_> = (0..20)
        .map(|_| {
            let backend = backend.clone();
            tokio::spawn(async move { backend.read(PLACE).await.unwrap() })
        })
        .collect();
    while asked(server, path) == 0 {
        tokio::task::yield_now().await;
    }
    drop(release);
    for reading in reading {
        assert_eq!(reading.await.unwrap(), None);
    }
    asked(server, path)
}

/// Everything an error says of `backend` is a status or a word of its protocol.
async fn says_nothing_of(backend: &dyn SecretBackend, status: &str, secrets: &[&str]) {
    let errors = [
        backend.read(PLACE).await.unwrap_err(),
        backend.write(PLACE, b"x").await.unwrap_err(),
        backend.remove(PLACE).await.unwrap_err(),
    ];
    for error in errors {
        let text = format!("{error} {error:?}");
        assert!(text.contains(status), "{text}");
        assert!(secrets.iter().all(|secret| !text.contains(secret)), "{text}");
    }
}

/// A server that keeps bytes by path for whoever bears `secret-token`.
fn custom_server() -> FakeServer {
    let kept = Mutex::new(HashMap::<String, Vec<u8>>::new());
    FakeServer::https(&[], move |request| {
        if request.header("authorization") != Some("Bearer secret-token") {
            return Reply::bytes(401, "who?");
        }
        let (mut kept, path) = (kept.lock().unwrap(), request.path().to_owned());
        match request.method.as_str() {
            "GET" => kept.get(&path).map_or_else(|| Reply::bytes(404, ""), |bytes| Reply::bytes(200, bytes.clone())),
            "PUT" if request.header("content-type") == Some("application/octet-stream") => {
                kept.insert(path, request.body.clone());
                Reply::bytes(204, "")
            }
            "DELETE" => Reply::bytes(if kept.remove(&path).is_some() { 204 } else { 404 }, ""),
            _ => Reply::bytes(400, ""),
        }
    })
}

fn vault_server() -> FakeServer {
    let kept = Mutex::new(HashMap::<String, Value>::new());
    FakeServer::https(&[], move |request: &Received| {
        let allowed =
            request.header("x-vault-token") == Some("hvs.token") && request.header("x-vault-namespace") == Some("team");
        if !allowed {
            return Reply::json(403, r#"{"errors":["permission denied"]}"#);
        }
        let mut kept = kept.lock().unwrap();
        let at = |kind: &str| request.path().strip_prefix(&format!("/v1/kv/{kind}/")).map(str::to_owned);
        match (request.method.as_str(), at("data"), at("metadata")) {
            ("GET", Some(name), _) => match kept.get(&name) {
                Some(data) => Reply::json(200, json!({"data": {"data": data, "metadata": {"version": 1}}}).to_string()),
                None => Reply::json(404, r#"{"errors":[]}"#),
            },
            ("POST", Some(name), _) => {
                let body: Value = serde_json::from_slice(&request.body).unwrap();
                kept.insert(name, body["data"].clone());
                Reply::json(200, r#"{"data":{"version":1}}"#)
            }
            ("DELETE", _, Some(name)) => {
                kept.remove(&name);
                Reply::bytes(204, "")
            }
            _ => Reply::json(400, "{}"),
        }
    })
}

/// What every backend promises.
async fn check(backend: &dyn SecretBackend) {
    assert_eq!(backend.read(PLACE).await.unwrap(), None);
    backend.remove(PLACE).await.unwrap();
    for envelope in [&[0_u8, 1, 255][..], b"another"] {
        backend.write(PLACE, envelope).await.unwrap();
        assert_eq!(backend.read(PLACE).await.unwrap().as_deref(), Some(envelope));
    }
    assert_eq!(backend.read("zones/z-1/providers/p-2/secretConfig").await.unwrap(), None);
    backend.remove(PLACE).await.unwrap();
    assert_eq!(backend.read(PLACE).await.unwrap(), None);
}

fn vault(server: &FakeServer, token: &str) -> VaultBackend {
    let settings = VaultSettings {
        address: BackendUrl::parse(&server.url()).unwrap(),
        token: secret(token),
        mount: "kv/".to_owned(),
        namespace: Some("team".to_owned()),
    };
    VaultBackend::new(client(server), settings)
}

fn custom(server: &FakeServer, token: &str) -> CustomBackend {
    CustomBackend::new(client(server), BackendUrl::parse(&format!("{}/", server.url())).unwrap(), secret(token))
}

#[tokio::test]
async fn envelopes_come_back_from_every_backend_as_they_were() {
    let server = custom_server();
    check(&custom(&server, "secret-token")).await;
    assert_eq!(server.seen()[0].path(), format!("/secrets/{PLACE}"));
    let server = vault_server();
    check(&vault(&server, "hvs.token")).await;
    let written = server.seen().into_iter().find(|request| request.method == "POST").unwrap();
    assert_eq!(written.path(), format!("/v1/kv/data/{PLACE}"));
    let body: Value = serde_json::from_slice(&written.body).unwrap();
    assert_eq!(body, json!({"data": {"value": STANDARD.encode([0_u8, 1, 255])}}));
}

#[tokio::test]
async fn t05_secrets_a_backend_that_refuses_is_an_error_without_its_words() {
    let (one, two) = (custom_server(), vault_server());
    let refusing: [&dyn SecretBackend; 2] = [&custom(&one, "wrong"), &vault(&two, "wrong")];
    for backend in refusing {
        let read = backend.read(PLACE).await.unwrap_err().to_string();
        assert!(read.contains("status 40") && !read.contains("who?") && !read.contains("wrong"), "{read}");
        assert!(backend.write(PLACE, b"x").await.is_err() && backend.remove(PLACE).await.is_err());
    }
}

#[test]
fn a_backend_is_reached_over_tls_or_on_loopback() {
    for good in
        ["https://vault.internal:8200", "https://10.0.0.1/", "http://localhost:1", "http://127.0.0.1", "http://[::1]:2"]
    {
        assert!(BackendUrl::parse(good).is_ok(), "{good}");
    }
    for bad in
        ["", "vault", "http://vault.internal", "http://10.0.0.1", "https://u:p@vault", "https://vault/?a=b", "ftp://x"]
    {
        assert!(BackendUrl::parse(bad).is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn whatever_url_is_accepted_is_https_or_lies_on_loopback(
        text in "(https?|ftp)://(localhost|127[.]0[.]0[.]1|\\[::1\\]|10[.]0[.]0[.]1|169[.]254[.]169[.]254)?[a-z0-9.@:/?#%-]{0,24}",
    ) {
        if let Ok(url) = BackendUrl::parse(&text) {
            let (scheme, rest) = url.as_str().split_once("://").unwrap();
            let authority = rest.split('/').next().unwrap();
            let host = authority.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')).map_or(authority, |(host, _)| host);
            let is_loopback = host == "localhost" || host == "[::1]" || host.starts_with("127.");
            prop_assert!(scheme == "https" || (scheme == "http" && is_loopback), "{text}: {host}");
            prop_assert!(!url.as_str().contains(['?', '#']) && !authority.contains('@'), "{text}");
        }
    }

    #[test]
    fn no_text_makes_the_reader_of_key_files_panic(text in ".*", kind in "service_account|[a-z_]*", key in ".{0,40}") {
        let file = json!({"type": kind, "client_email": text, "private_key": key, "token_uri": text}).to_string();
        for text in [text, file] {
            prop_assert!(ServiceAccount::from_json(&text).is_err());
        }
    }
}

#[tokio::test]
async fn t08_availability_what_was_read_counts_for_a_minute_and_through_an_outage_for_ten() {
    let (server, down) = (custom_server(), Arc::new(AtomicBool::new(false)));
    let (url, is_down) = (server.url(), down.clone());
    // In front of the server, so that it can be taken away.
    let inner: Arc<dyn SecretBackend> = Arc::new(custom(&server, "secret-token"));
    struct Switch(Arc<dyn SecretBackend>, Arc<AtomicBool>);
    impl SecretBackend for Switch {
        fn read<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, BackendError>> {
            let down = self.1.load(Ordering::SeqCst);
            let error = BackendError { kind: "custom", doing: "read", reason: "down".to_owned() };
            if down { Box::pin(std::future::ready(Err(error))) } else { self.0.read(reference) }
        }
        fn write<'a>(&'a self, reference: &'a str, envelope: &'a [u8]) -> BoxFuture<'a, Result<(), BackendError>> {
            self.0.write(reference, envelope)
        }
        fn remove<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<(), BackendError>> {
            self.0.remove(reference)
        }
    }
    let Time { store, clock, place: _place } = Time::new().await;
    let cached = CachedBackend::new(Arc::new(Switch(inner.clone(), is_down)), store);
    assert_eq!(cached.read(PLACE).await.unwrap(), None);
    inner.write(PLACE, b"behind its back").await.unwrap();
    assert_eq!(cached.read(PLACE).await.unwrap(), None);
    clock.advance(61);
    assert_eq!(cached.read(PLACE).await.unwrap().as_deref(), Some(&b"behind its back"[..]));
    cached.write(PLACE, b"new").await.unwrap();
    assert_eq!(cached.read(PLACE).await.unwrap().as_deref(), Some(&b"new"[..]));
    down.store(true, Ordering::SeqCst);
    clock.advance(659);
    assert_eq!(cached.read(PLACE).await.unwrap().as_deref(), Some(&b"new"[..]));
    clock.advance(1);
    assert!(cached.read(PLACE).await.is_err());
    assert!(url.starts_with("https://"));
}

/// The one that is asked has the request and says nothing, until the test has ended.
#[tokio::test]
async fn t08_availability_a_backend_that_says_nothing_is_waited_for_no_longer_than_allowed() {
    let (release, waits) = mpsc::channel::<()>();
    let waits = Mutex::new(waits);
    let server = FakeServer::https(&[], move |_| {
        let _ = waits.lock().unwrap().recv();
        Reply::bytes(200, "too late")
    });
    // Long enough for a request to arrive, handshake and all, on a machine that is busy.
    let patience = Duration::from_secs(1);
    let patient = |patience| Arc::new(custom(&server, "secret-token").with_patience(patience));
    let time = Time::new().await;
    let cached = CachedBackend::new(patient(patience), time.store.clone());
    let begun = Instant::now();
    let asking = async {
        let (read, written) = (cached.read(PLACE).await, cached.write(PLACE, b"new").await);
        [read.unwrap_err(), written.unwrap_err(), cached.remove(PLACE).await.unwrap_err()]
    };
    let errors = tokio::time::timeout(Duration::from_secs(10), asking).await.expect("it is waited for without end");
    assert!(begun.elapsed() >= patience * 3, "it was not waited for");
    for error in errors {
        assert!(
            error.to_string().contains("no complete answer in time") && !error.to_string().contains("secret-token"),
            "{error}"
        );
    }
    let asked: Vec<String> = server.seen().iter().map(|request| request.method.clone()).collect();
    assert_eq!(asked, ["GET", "PUT", "DELETE"], "each once, and not again when it was given up");
    // What is to be kept there is not kept otherwise: nothing of a change that was given up is remembered.
    drop(release);
    let late = CachedBackend::new(patient(Duration::from_secs(10)), time.store.clone());
    assert_eq!(late.read(PLACE).await.unwrap().as_deref(), Some(&b"too late"[..]));
    assert_eq!(cached.read(PLACE).await.ok().flatten().as_deref(), Some(&b"too late"[..]));
}

/// A backend that a test holds: what it has, and what it is to do next.
#[derive(Default)]
struct Held {
    has: Mutex<Option<Vec<u8>>>,
    /// Reads wait for this, once they have looked.
    gate: Mutex<Option<mpsc::Receiver<()>>>,
    reads: AtomicUsize,
}

impl SecretBackend for Held {
    fn read<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, BackendError>> {
        Box::pin(async move {
            let (found, gate) = (self.has.lock().unwrap().clone(), self.gate.lock().unwrap().take());
            self.reads.fetch_add(1, Ordering::SeqCst);
            if let Some(gate) = gate {
                while gate.try_recv() == Err(mpsc::TryRecvError::Empty) {
                    tokio::task::yield_now().await;
                }
            }
            Ok(found)
        })
    }

    fn write<'a>(&'a self, _: &'a str, envelope: &'a [u8]) -> BoxFuture<'a, Result<(), BackendError>> {
        *self.has.lock().unwrap() = Some(envelope.to_vec());
        Box::pin(std::future::ready(Ok(())))
    }

    fn remove<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<(), BackendError>> {
        *self.has.lock().unwrap() = None;
        Box::pin(std::future::ready(Ok(())))
    }
}

#[tokio::test]
async fn what_a_change_may_have_to_put_back_is_asked_past_what_is_remembered() {
    let (time, held) = (Time::new().await, Arc::new(Held::default()));
    let cached: Arc<dyn SecretBackend> = Arc::new(CachedBackend::new(held.clone(), time.store.clone()));
    cached.write(PLACE, b"mine").await.unwrap();
    *held.has.lock().unwrap() = Some(b"of another process".to_vec());
    assert_eq!(cached.read(PLACE).await.unwrap().as_deref(), Some(&b"mine"[..]));
    let ring = Arc::new(KekRing::new(Kek::generate().unwrap().0, None));
    let sealed = SealedSecrets::new(ring).in_backend(cached.clone(), time.store.clone());
    let staged = sealed.stage(PLACE, Some(b"new")).await.unwrap().unwrap();
    assert_ne!(held.has.lock().unwrap().as_deref(), Some(&b"of another process"[..]));
    staged.undo().await;
    assert_eq!(held.has.lock().unwrap().as_deref(), Some(&b"of another process"[..]));
    assert_eq!(cached.read(PLACE).await.unwrap().as_deref(), Some(&b"of another process"[..]));
}

#[tokio::test]
async fn a_read_that_was_under_way_does_not_bring_back_what_was_replaced() {
    let (time, held) = (Time::new().await, Arc::new(Held::default()));
    let (release, gate) = mpsc::channel();
    *held.gate.lock().unwrap() = Some(gate);
    *held.has.lock().unwrap() = Some(b"old".to_vec());
    let cached = Arc::new(CachedBackend::new(held.clone(), time.store.clone()));
    let reading = tokio::spawn({
        let cached = cached.clone();
        async move { cached.read(PLACE).await.unwrap() }
    });
    while held.reads.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    cached.write(PLACE, b"new").await.unwrap();
    release.send(()).unwrap();
    assert_eq!(reading.await.unwrap().as_deref(), Some(&b"old"[..]));
    assert_eq!(cached.read(PLACE).await.unwrap().as_deref(), Some(&b"new"[..]));
}
