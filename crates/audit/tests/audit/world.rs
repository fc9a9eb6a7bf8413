//! One deployment, and the one door to it: [`World::send`].

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use caracal_audit::{Archive, Audit, AuditConfig, Capabilities, FrameKeys, Verifier};
use caracal_authority::{EventId, Timestamp, ZoneId};
use caracal_crypto::hmac::{HmacKey, HmacRing};
use caracal_crypto::{Secret, SecretText};
use caracal_ledger::{
    AnonymousDenials, Begin, Chain, ChainKey, Decision, EvaluationStatus, EventType, Evidence, HeadsObserver, Ledger,
    LedgerReport, Marks, SweepMarks, read_heads, verify_store_marked,
};
use caracal_store::{Clock, ManualClock, SqliteOptions, Store, StoreError, conformance, inspect};
use caracal_stream::Streams;
use caracal_testkit::Place;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::sync::watch;
use tower::ServiceExt;

pub(crate) const TOKEN: &str = "audit-secret-0123456789";
pub(crate) const BEARER: &str = "metrics-bearer";
/// Noon of the first day of 2026: when every test starts.
pub(crate) const NOON: i64 = 1_767_268_800;

pub(crate) struct World {
    pub(crate) audit: Arc<Audit>,
    pub(crate) store: Store,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) denials: Arc<AnonymousDenials>,
    pub(crate) ledger: Ledger,
    pub(crate) streams: Streams,
    pub(crate) place: Place,
    /// Makes the next verification fail, which sets it back.
    pub(crate) fails: Arc<AtomicBool>,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not json: {:?}", self.text))
    }

    #[track_caller]
    pub(crate) fn is(&self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        self.json()
    }

    /// Status and code of a refusal, which must have the envelope.
    #[track_caller]
    pub(crate) fn is_refused(&self, status: u16, code: &str) -> &Self {
        let body = self.is(status);
        let id = self.headers["x-request-id"].to_str().unwrap();
        assert_eq!((body["requestId"].as_str(), body["request_id"].as_str()), (Some(id), Some(id)), "{body}");
        assert_eq!(self.headers["content-type"], "application/json");
        assert_eq!(body["error"], code, "{body}");
        self
    }
}

fn secret(text: &str) -> SecretText {
    Secret::new(text.to_owned())
}

pub(crate) fn configured() -> AuditConfig {
    AuditConfig { admin_token: Some(secret(TOKEN)), metrics_bearer: Some(secret(BEARER)), ..AuditConfig::default() }
}

/// A service, and what it is made of.
pub(crate) struct Parts {
    pub(crate) audit: Arc<Audit>,
    pub(crate) store: Store,
    denials: Arc<AnonymousDenials>,
    ledger: Ledger,
    streams: Streams,
    fails: Arc<AtomicBool>,
}

impl Parts {
    pub(crate) async fn over(
        directory: &Path,
        url: Option<&str>,
        clock: Arc<dyn Clock>,
        config: AuditConfig,
        marks: bool,
        archive: Option<Arc<dyn Archive>>,
    ) -> Self {
        let store = conformance::open(directory, url, clock).await;
        store.observe(Arc::new(HeadsObserver::open(directory, key()).unwrap()));
        let (denials, fails) = (Arc::new(AnonymousDenials::default()), Arc::new(AtomicBool::new(false)));
        let verifier = Arc::new(Outsider {
            data_dir: directory.to_owned(),
            shared: store.is_shared().then(|| store.clone()),
            fails: fails.clone(),
        });
        let ledger = Ledger::new(Some(key()));
        let streams = Streams::in_store(store.clone(), Arc::new(HmacKey::from_bytes(&[9; 32]).unwrap()));
        let capabilities = Capabilities {
            store: store.clone(),
            ledger: ledger.clone(),
            denials: denials.clone(),
            verifier,
            marks: marks.then(|| SweepMarks::open(directory, key(), false).unwrap()),
            streams: streams.clone(),
            frame_keys: FrameKeys::new(Arc::new(HmacRing::new(own_key(), vec![previous_key()])), store.now()),
            archive,
        };
        let audit = Arc::new(Audit::new(config, capabilities));
        Self { audit, store, denials, ledger, streams, fails }
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(configured()).await
    }

    pub(crate) async fn with(config: AuditConfig) -> Self {
        Self::build(Place::new(), NOON, config, false, None).await
    }

    /// Another process over what an earlier one left at `place`, at another time.
    pub(crate) async fn again(place: Place, now: i64, config: AuditConfig, archive: Option<Arc<dyn Archive>>) -> Self {
        Self::build(place, now, config, false, archive).await
    }

    /// Closes the store, and gives what it leaves.
    pub(crate) async fn end(self) -> Place {
        self.store.close().await;
        self.place
    }

    /// One that exports.
    pub(crate) async fn with_archive(config: AuditConfig, archive: Arc<dyn Archive>) -> Self {
        Self::build(Place::new(), NOON, config, false, Some(archive)).await
    }

    /// One whose sweep keeps in mind what it saw.
    pub(crate) async fn with_marks(config: AuditConfig) -> Self {
        Self::build(Place::new(), NOON, config, true, None).await
    }

    async fn build(
        place: Place,
        now: i64,
        config: AuditConfig,
        marks: bool,
        archive: Option<Arc<dyn Archive>>,
    ) -> Self {
        let clock = Arc::new(ManualClock::at(Timestamp::from_seconds(now)));
        let url = place.database_url();
        let Parts { audit, store, denials, ledger, streams, fails } =
            Parts::over(place.path(), url.as_deref(), clock.clone(), config, marks, archive).await;
        Self { audit, store, clock, denials, ledger, streams, place, fails }
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.audit.clone().router().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Answer { status: parts.status, headers: parts.headers, text: String::from_utf8(bytes.to_vec()).unwrap() }
    }

    /// A request with this `Authorization`, if any.
    pub(crate) async fn ask(&self, method: &str, path: &str, authorization: Option<&str>) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(line) = authorization {
            request = request.header("authorization", line);
        }
        self.send(request.body(Body::empty()).unwrap()).await
    }

    /// A request by somebody who has the token.
    pub(crate) async fn operator(&self, method: &str, path: &str) -> Answer {
        self.ask(method, path, Some(&format!("Bearer {TOKEN}"))).await
    }

    /// A search by somebody who has the token.
    pub(crate) async fn search(&self, query: &str) -> Answer {
        self.ask("GET", &format!("/api/audit/search?{query}"), Some(&format!("Bearer {TOKEN}"))).await
    }

    pub(crate) async fn metrics(&self) -> Value {
        self.ask("GET", "/metrics.json", Some(&format!("Bearer {BEARER}"))).await.is(200)
    }

    pub(crate) async fn record(&self, events: Vec<Evidence>) {
        let zone = events[0].zone.clone();
        let recorded: Result<(), StoreError> = self
            .store
            .commit(&zone, (self.ledger.clone(), events), |tx, (ledger, events): &(Ledger, Vec<Evidence>)| {
                Box::pin(async move { ledger.record(tx, events).await })
            })
            .await;
        recorded.unwrap();
    }

    /// One pass of the sweep, to its end.
    pub(crate) async fn sweep(&self) {
        let before = self.metrics().await["tamper_last_full_unix"].as_i64().unwrap();
        self.clock.advance(1);
        let (stop, stopped) = watch::channel(false);
        let sweeping = tokio::spawn(self.audit.clone().run_sweep(stopped));
        tokio::time::timeout(std::time::Duration::from_secs(30), async {
            while self.metrics().await["tamper_last_full_unix"].as_i64().unwrap() == before {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("the sweep never ended");
        stop.send_replace(true);
        sweeping.await.unwrap();
    }

    /// What somebody does who has the file, or the database as its owner.
    pub(crate) fn tamper(&self, sql: &str) {
        if let Some(database) = self.place.database() {
            let free =
                "ALTER TABLE audit_events DISABLE TRIGGER USER; ALTER TABLE audit_events NO FORCE ROW LEVEL SECURITY;";
            database.run(&format!("{free} {sql}")).unwrap();
            return;
        }
        let outside = rusqlite::Connection::open(self.place.path().join("caracal.db")).unwrap();
        let free =
            "DROP TRIGGER IF EXISTS audit_events_are_not_changed; DROP TRIGGER IF EXISTS audit_events_are_not_removed;";
        outside.execute_batch(&format!("{free} {sql}")).unwrap();
    }
}

fn key() -> Arc<dyn ChainKey> {
    frame_key()
}

/// What producers sign with, and what seals the chain.
pub(crate) fn frame_key() -> Arc<HmacKey> {
    Arc::new(own_key())
}

/// What producers signed with before the world began.
pub(crate) fn previous_key() -> HmacKey {
    HmacKey::from_bytes(&[6; 32]).unwrap()
}

fn own_key() -> HmacKey {
    HmacKey::from_bytes(&[7; 32]).unwrap()
}

/// Waits for what a job brings about.
pub(crate) async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// An event of `zone` at noon plus `micros`.
pub(crate) fn event(zone: &str, id: &str, micros: i64) -> Evidence {
    let at = Timestamp::from_micros(NOON * 1_000_000 + micros);
    let (id, zone) = (EventId::parse(id).unwrap(), ZoneId::parse(zone).unwrap());
    Evidence::new(id, zone, EventType::TokenExchange, Decision::Allow, EvaluationStatus::Complete, at)
}

/// Verifies as the command does: opens the store without its lock, heads first.
struct Outsider {
    data_dir: PathBuf,
    /// The store, where it is a server's: whoever looks is one more client.
    shared: Option<Store>,
    fails: Arc<AtomicBool>,
}

impl Verifier for Outsider {
    fn verify(&self, marks: &Marks, begin: Begin) -> Result<LedgerReport, String> {
        if self.fails.swap(false, Ordering::SeqCst) {
            return Err("the file can't be read".to_owned());
        }
        let said = |error: &dyn std::error::Error| error.to_string();
        let key = key();
        let heads = read_heads(&self.data_dir, key.as_ref()).map_err(|error| said(&error))?.unwrap_or_default();
        if let Some(store) = &self.shared {
            let reading = async {
                let mut snapshot = store.snapshot().await?;
                let mut reading = snapshot.deployment();
                let unseen = &mut |_: &Chain, _: i64| {};
                verify_store_marked(&mut reading, Some(key.as_ref()), &heads, (marks, begin), unseen).await
            };
            return tokio::runtime::Handle::current().block_on(reading).map_err(|error| said(&error));
        }
        let database = SqliteOptions::in_directory(&self.data_dir).database();
        let mut inspection = inspect(&database).map_err(|error| said(&error))?;
        let verified = inspection
            .run(async |tx| verify_store_marked(tx, Some(key.as_ref()), &heads, (marks, begin), |_, _| {}).await);
        verified.map_err(|error| said(&error))
    }
}
