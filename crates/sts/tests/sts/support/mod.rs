//! A whole token service over a real store in a temporary directory, and a zone in which `app-docs` owns
//! `resource://docs` and works through the delegation `e-1` from session `s-root` to session `s-1`.

mod approvals;
mod ask;
mod identity_provider;
pub(crate) mod launches;
pub(crate) mod providers;
mod rows;
mod socket;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use caracal_authority::{AuthorityRecordId, Timestamp, ZoneId};
use caracal_broker::Broker;
use caracal_crypto::SecretText;
use caracal_crypto::client_secret::SecretVerifier;
use caracal_crypto::envelope::{Kek, KekRing};
use caracal_crypto::hmac::HmacKey;
use caracal_custody::{SealedSecrets, SigningKeys};
use caracal_http::egress::GuardedConnector;
use caracal_ledger::{AnonymousDenials, EventType, Ledger};
use caracal_store::evidence::{self, ChainRow, EvidenceFilter, EvidenceRow};
use caracal_store::records::{self, RecordRow};
use caracal_store::{
    Clock, ManualClock, Page, SqliteOptions, Store, StoreError, SystemClock, admin_evidence, conformance, used_mandates,
};
use caracal_sts::{
    Capabilities, Guesses, LaunchRate, MintRate, ProcessGuesses, ProcessLaunchRate, ProcessMintRate, Sts, StsConfig,
};
use caracal_testkit::Place;
use http::Request;
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;

pub(crate) use approvals::*;
pub(crate) use ask::{Answer, Ask, GRANT, ID_TOKEN, Signed, claims_of, gateway_call};
pub(crate) use caracal_testkit::logs::logged;
pub(crate) use identity_provider::*;
pub(crate) use rows::*;
pub(crate) use socket::Listening;

pub(crate) const ISSUER: &str = "https://sts.example";
pub(crate) const ZONE: &str = "z-1";
pub(crate) const OTHER_ZONE: &str = "z-2";
pub(crate) const APP: &str = "app-docs";
pub(crate) const WORKLOAD: &str = "w-1";
/// The contract's vector, so that no test has to derive a hash before it can begin.
pub(crate) const SECRET: &str = "cs_example";
pub(crate) const SECRET_HASH: &str = "argon2id$AAECAwQFBgcICQoLDA0ODw$cN8d+MA2MSpRadHc1LUI8rahALniJ9ZzUBgSih/Wovo";
pub(crate) const DOCS: &str = "resource://docs";
pub(crate) const NOTES: &str = "resource://notes";
pub(crate) const METRICS_BEARER: &str = "metrics-bearer-of-this-test";
/// When every clock that stands still stands: 2026-01-01T00:00:00Z.
pub(crate) const START: i64 = 1_767_225_600;

/// What everything in these tests runs in.
pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) secrets: SealedSecrets,
    pub(crate) keys: Arc<SigningKeys>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) denials: Arc<AnonymousDenials>,
    pub(crate) verifier: Arc<SecretVerifier>,
    pub(crate) sts: Arc<Sts>,
    ring: Arc<KekRing>,
    egress: GuardedConnector,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) directory: Place,
}

pub(crate) fn gateway_key() -> HmacKey {
    HmacKey::from_bytes(&std::array::from_fn::<u8, 32, _>(|index| u8::try_from(index).unwrap())).unwrap()
}

pub(crate) fn ledger_key() -> Arc<HmacKey> {
    Arc::new(HmacKey::from_bytes(&[9; 32]).unwrap())
}

/// One for all worlds: the right secret is derived once, not once a test.
fn shared_verifier() -> Arc<SecretVerifier> {
    static SHARED: OnceLock<Arc<SecretVerifier>> = OnceLock::new();
    SHARED.get_or_init(Arc::default).clone()
}

pub(crate) fn zone() -> ZoneId {
    ZoneId::parse(ZONE).unwrap()
}

impl World {
    /// With a clock that stands still at [`START`].
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}, shared_verifier()).await
    }

    /// The same with other settings.
    pub(crate) async fn configured(change: impl FnOnce(&mut StsConfig)) -> Self {
        Self::with(change, shared_verifier()).await
    }

    /// The same with a count of derivations of its own.
    pub(crate) async fn counting_derivations() -> Self {
        Self::with(|_| {}, Arc::default()).await
    }

    /// With a way out, and other settings.
    pub(crate) async fn reaching(egress: GuardedConnector, change: impl FnOnce(&mut StsConfig)) -> Self {
        let clock = Arc::new(ManualClock::at(Timestamp::from_seconds(START)));
        Box::pin(Self::at(clock.clone(), clock, change, shared_verifier(), egress)).await
    }

    async fn with(change: impl FnOnce(&mut StsConfig), verifier: Arc<SecretVerifier>) -> Self {
        let clock = Arc::new(ManualClock::at(Timestamp::from_seconds(START)));
        Box::pin(Self::at(clock.clone(), clock, change, verifier, way_out(false, false))).await
    }

    /// With a broker that waits for nobody for long.
    pub(crate) async fn impatient(patience: Duration) -> Self {
        Self::new().await.tuned(|broker| broker.with_patience(patience))
    }

    /// With a broker that has other times.
    pub(crate) fn tuned(mut self, tune: impl FnOnce(Broker) -> Broker) -> Self {
        let mut config = StsConfig::for_issuer(ISSUER);
        config.gateway_key = Some(Arc::new(gateway_key()));
        let broker = providers::tuned_broker(&self.store, &self.secrets, tune);
        self.sts = self.replica_with(
            config,
            Arc::new(ProcessMintRate::default()),
            Arc::new(ProcessGuesses::new(self.store.clone())),
            broker,
        );
        self
    }

    /// With the system's clock, for races.
    pub(crate) async fn in_real_time() -> Self {
        Self::in_real_time_with(|_| {}).await
    }

    /// The same with other settings.
    pub(crate) async fn in_real_time_with(change: impl FnOnce(&mut StsConfig)) -> Self {
        let unused = Arc::new(ManualClock::at(Timestamp::EPOCH));
        Box::pin(Self::at(Arc::new(SystemClock), unused, change, shared_verifier(), way_out(false, false))).await
    }

    /// The zones' keys as another process knows them.
    pub(crate) fn other_keys(&self) -> Arc<SigningKeys> {
        Arc::new(SigningKeys::new(self.store.clone(), self.ring.clone()))
    }

    async fn at(
        time: Arc<dyn Clock>,
        clock: Arc<ManualClock>,
        change: impl FnOnce(&mut StsConfig),
        verifier: Arc<SecretVerifier>,
        egress: GuardedConnector,
    ) -> Self {
        caracal_testkit::logs::capture();
        let directory = Place::new();
        let url = directory.database_url();
        let store = conformance::open(directory.path(), url.as_deref(), time).await;
        let kek: String = (0..32).map(|index| format!("{:02x}", index * 7 + 3)).collect();
        let ring = Arc::new(KekRing::new(Kek::from_hex(&kek).unwrap(), None));
        let keys = Arc::new(SigningKeys::new(store.clone(), ring.clone()));
        let secrets = SealedSecrets::new(ring.clone());
        let ledger = Arc::new(Ledger::new(Some(ledger_key())));
        let denials = Arc::new(AnonymousDenials::default());
        let mut config = StsConfig::for_issuer(ISSUER);
        config.gateway_key = Some(Arc::new(gateway_key()));
        config.metrics_bearer = Some(SecretText::new(METRICS_BEARER.to_owned()));
        change(&mut config);
        let capabilities = Capabilities {
            store: store.clone(),
            keys: keys.clone(),
            secrets: secrets.clone(),
            ledger: ledger.clone(),
            denials: denials.clone(),
            verifier: verifier.clone(),
            mint_rate: Arc::new(ProcessMintRate::default()),
            guesses: Arc::new(ProcessGuesses::new(store.clone())),
            launch_rate: Arc::new(ProcessLaunchRate::default()),
            egress: egress.clone(),
            broker: providers::broker(&store, &secrets),
        };
        let sts = Arc::new(Sts::new(config, capabilities));
        let world = Self { store, secrets, keys, ledger, denials, verifier, sts, ring, egress, clock, directory };
        Box::pin(rows::seed(&world)).await;
        world
    }

    /// A second token service over the same store, as after a restart: it remembers nothing.
    pub(crate) fn restarted(&self) -> Arc<Sts> {
        self.replica(StsConfig::for_issuer(ISSUER), Arc::new(ProcessMintRate::default()))
    }

    /// Another token service over the same store, with a counter of mints that it may share.
    pub(crate) fn replica(&self, config: StsConfig, mint_rate: Arc<dyn MintRate>) -> Arc<Sts> {
        let broker = providers::broker(&self.store, &self.secrets);
        self.replica_with(config, mint_rate, Arc::new(ProcessGuesses::new(self.store.clone())), broker)
    }

    /// Another token service over the same store, with counters that it may share.
    pub(crate) fn replica_counting(
        &self,
        config: StsConfig,
        mint_rate: Arc<dyn MintRate>,
        guesses: Arc<dyn Guesses>,
    ) -> Arc<Sts> {
        let broker = providers::broker(&self.store, &self.secrets);
        self.replica_with(config, mint_rate, guesses, broker)
    }

    fn replica_with(
        &self,
        config: StsConfig,
        mint_rate: Arc<dyn MintRate>,
        guesses: Arc<dyn Guesses>,
        broker: Arc<Broker>,
    ) -> Arc<Sts> {
        self.replica_of(config, (mint_rate, guesses, Arc::new(ProcessLaunchRate::default())), broker)
    }

    /// Another token service over the same store, with a counter of launches that it may share.
    pub(crate) fn launcher(&self, config: StsConfig, launch_rate: Arc<dyn LaunchRate>) -> Arc<Sts> {
        let (mint_rate, guesses) =
            (Arc::new(ProcessMintRate::default()), Arc::new(ProcessGuesses::new(self.store.clone())));
        self.replica_of(config, (mint_rate, guesses, launch_rate), providers::broker(&self.store, &self.secrets))
    }

    fn replica_of(
        &self,
        config: StsConfig,
        (mint_rate, guesses, launch_rate): (Arc<dyn MintRate>, Arc<dyn Guesses>, Arc<dyn LaunchRate>),
        broker: Arc<Broker>,
    ) -> Arc<Sts> {
        let capabilities = Capabilities {
            store: self.store.clone(),
            keys: Arc::new(SigningKeys::new(self.store.clone(), self.ring.clone())),
            secrets: self.secrets.clone(),
            ledger: self.ledger.clone(),
            denials: self.denials.clone(),
            verifier: self.verifier.clone(),
            mint_rate,
            guesses,
            launch_rate,
            egress: self.egress.clone(),
            broker,
        };
        Arc::new(Sts::new(config, capabilities))
    }

    /// Sends one request through the whole router.
    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        send_to(&self.sts, request).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }

    /// The counters, as a scraper reads them.
    pub(crate) async fn metrics(&self) -> String {
        let bearer = format!("Bearer {METRICS_BEARER}");
        let request = Request::get("/metrics").header(http::header::AUTHORIZATION, bearer);
        String::from_utf8(self.send(request.body(Body::empty()).unwrap()).await.body).unwrap()
    }

    /// The zone's evidence, oldest first.
    pub(crate) async fn evidence(&self) -> Vec<Event> {
        self.evidence_of(ZONE).await
    }

    pub(crate) async fn evidence_of(&self, zone: &str) -> Vec<Event> {
        let zone = ZoneId::parse(zone).unwrap();
        let mut snapshot = self.store.snapshot().await.unwrap();
        let page = Page::first(100_000);
        let rows = evidence::list(&mut snapshot.zone(&zone), &EvidenceFilter::default(), &page).await.unwrap();
        let mut events: Vec<Event> = rows.into_iter().map(Event::of).collect();
        events.sort_by_key(|event| event.row.chain_seq);
        events
    }

    /// The newest event.
    pub(crate) async fn last_event(&self) -> Event {
        self.evidence().await.pop().unwrap()
    }

    pub(crate) async fn record(&self, id: &str) -> Option<RecordRow> {
        let id = AuthorityRecordId::parse(id).unwrap();
        let mut snapshot = self.store.snapshot().await.unwrap();
        records::lookup(&mut snapshot.zone(&zone()), &id).await.unwrap()
    }

    /// How many anonymous denials were counted for `reason` since the last time somebody asked.
    pub(crate) async fn counted(&self, reason: &str) -> u64 {
        let head = |store: Store| async move {
            let mut snapshot = store.snapshot().await.unwrap();
            let head = admin_evidence::zoneless_head(&mut snapshot.deployment()).await.unwrap();
            head.map_or(0, |head| head.chain_seq)
        };
        let before = head(self.store.clone()).await;
        self.denials.summarise(&self.store, &self.ledger).await.unwrap();
        let after = head(self.store.clone()).await;
        if after == before {
            return 0;
        }
        let mut snapshot = self.store.snapshot().await.unwrap();
        let mut tx = snapshot.deployment();
        let rows = admin_evidence::list_chain(&mut tx, admin_evidence::ZONELESS_CHAIN, after, 1).await.unwrap();
        let [ChainRow::Read(row)] = &rows[..] else { panic!("no readable summary") };
        let payload: Value = serde_json::from_str(row.payload.as_deref().unwrap()).unwrap();
        payload["sts"][reason].as_u64().unwrap_or(0)
    }

    /// Forgets uses and nonces as the retention job does.
    pub(crate) async fn forget_what_is_over(&self) {
        let now = self.store.now();
        let done: Result<usize, StoreError> = self
            .store
            .commit_deployment(now, |tx, now| {
                Box::pin(async move { used_mandates::purge_expired(tx, *now, 100).await })
            })
            .await;
        done.unwrap();
    }

    /// Ids of all authority records of the zone, as whoever holds the disk sees them.
    pub(crate) fn record_ids(&self) -> Vec<String> {
        if let Some(database) = self.directory.database() {
            let ids = database.run("SELECT id FROM authority_records WHERE zone_id = 'z-1'").unwrap();
            return ids.lines().map(str::to_owned).collect();
        }
        let database = self.database();
        let mut statement = database.prepare("SELECT id FROM authority_records WHERE zone_id = 'z-1'").unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    /// Changes the store behind its back: rows that no repository writes yet, or ever.
    pub(crate) fn tamper(&self, sql: &str) {
        if let Some(database) = self.directory.database() {
            let changed = database.run(&sql.replace("x'00'", r"'\x00'")).unwrap();
            assert!(changed.trim().rsplit(' ').next().is_some_and(|rows| rows != "0"), "{sql}: {changed}");
            return;
        }
        assert!(self.database().execute(sql, []).unwrap() > 0, "{sql}");
        // What somebody else has written is seen with the next change, whoever makes it.
        let store = self.store.clone();
        let next = async move {
            store.commit_deployment((), |_, ()| Box::pin(async { Ok::<_, caracal_store::StoreError>(()) })).await
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        std::thread::spawn(move || runtime.block_on(next)).join().unwrap().unwrap();
    }

    fn database(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(SqliteOptions::in_directory(self.directory.path()).database()).unwrap()
    }

    /// Signs claims with the zone's key, as only the service itself should.
    pub(crate) async fn sign(&self, claims: &Value) -> String {
        let mut snapshot = self.store.snapshot().await.unwrap();
        let key = self.keys.signing_key(&mut snapshot.zone(&zone())).await.unwrap().unwrap();
        key.sign(claims).unwrap()
    }

    /// A one-shot mandate for `docs:read`, minted through `e-1`.
    pub(crate) async fn mandate(&self) -> String {
        Ask::mint().send(self).await.token().to_owned()
    }

    /// Runs one change of the zone.
    pub(crate) async fn change<I: Send + Sync + 'static, T: Send + 'static>(
        &self,
        input: I,
        change: impl for<'t> Fn(
            &'t mut caracal_store::ZoneWrite<'_>,
            &'t I,
        ) -> caracal_store::BoxFuture<'t, Result<T, StoreError>>
        + Send
        + Sync
        + 'static,
    ) -> T {
        self.store.commit(&zone(), input, change).await.unwrap()
    }
}

/// An evidence event with its JSON columns read.
pub(crate) struct Event {
    pub(crate) row: EvidenceRow,
    pub(crate) metadata: Value,
    pub(crate) diagnostics: Value,
}

impl Event {
    fn of(row: EvidenceRow) -> Self {
        let (metadata, diagnostics) =
            (serde_json::from_str::<Value>(&row.metadata).unwrap(), serde_json::from_str(&row.diagnostics).unwrap());
        let event_type = EventType::parse(&row.event_type);
        for key in metadata.as_object().into_iter().flat_map(|members| members.keys()) {
            assert!(event_type.may_have(key), "a key that events of its type do not have: {key} in {event_type:?}");
        }
        Self { row, metadata, diagnostics }
    }

    /// `decision status`.
    pub(crate) fn outcome(&self) -> String {
        format!("{} {}", self.row.decision, self.row.evaluation_status)
    }

    pub(crate) fn text(&self, name: &str) -> &str {
        self.metadata[name].as_str().unwrap_or_default()
    }
}

pub(crate) async fn send_to(sts: &Arc<Sts>, request: Request<Body>) -> Answer {
    let response: Response = sts.clone().router().oneshot(request).await.unwrap();
    Answer::of(response).await
}

impl Answer {
    async fn of(response: Response) -> Self {
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let json = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Self { status: parts.status.as_u16(), headers: parts.headers, body: bytes.to_vec(), json }
    }
}

/// Polls `future` once, and says whether it waits for something.
pub(crate) async fn waits<F: Future>(future: std::pin::Pin<&mut F>) -> bool {
    tokio::select! {
        biased;
        _ = future => false,
        () = std::future::ready(()) => true,
    }
}
