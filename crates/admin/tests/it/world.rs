//! One deployment, and the one door to it: [`World::call`].

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use axum::body::Body;
use caracal_admin::{
    Admin, AdminConfig, Capabilities, Loaded, NotSimulated, PolicyRuntime, Replica, RuntimeState, Simulation,
    Unreachable,
};
use caracal_authority::{AdminTokenId, ApplicationId, ProviderId, ReplicaId, Timestamp, ZoneId};
use caracal_broker::Broker;
use caracal_crypto::chance;
use caracal_crypto::client_secret::SecretVerifier;
use caracal_crypto::envelope::{Kek, KekRing};
use caracal_crypto::fast_hash::{ConsoleToken, token_digest};
use caracal_crypto::hmac::HmacKey;
use caracal_crypto::{Secret, encoding};
use caracal_custody::{SealedSecrets, application_secret_ref, provider_secret_ref};
use caracal_http::egress::{AddressPolicy, GuardedConnector, PrivateHosts, Resolver, SystemResolver, TlsTrust};
use caracal_ledger::{AnonymousDenials, Ledger};
use caracal_policy::Document;
use caracal_store::admin_evidence::{self, AdminEvidenceRow, ZONELESS_CHAIN};
use caracal_store::admin_tokens::{self, AdminToken};
use caracal_store::evidence::ChainRow;
use caracal_store::{BoxFuture, Committed, ManualClock, Message, Store, StoreError, conformance, outbox, policy_sets};
use caracal_testkit::{FakeServer, Place, Reply};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::sync::watch;
use tower::ServiceExt;

use crate::authorization_server::AuthorizationServer;
use crate::openapi;

/// The deployment's admin token in all tests: the contract's.
pub(crate) const BOOTSTRAP: &str = "admin-secret-0123456789";
/// When every test starts.
pub(crate) const START: i64 = 1_767_225_600;
const KEY: [u8; 32] = [7; 32];
pub(crate) const KEK: &str = "8f3d9a712c45e6b0d18f2a4c6e9b3d57a1c4f8020e6a9c3d5b7f1a2c4e6d8b90";

pub(crate) struct World {
    pub(crate) admin: Arc<Admin>,
    pub(crate) store: Store,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) sealed: SealedSecrets,
    pub(crate) secrets: Arc<SecretVerifier>,
    pub(crate) denials: Arc<AnonymousDenials>,
    pub(crate) ledger: Ledger,
    pub(crate) runtime: Arc<TestRuntime>,
    pub(crate) messages: Arc<Mutex<Vec<Message>>>,
    stop: watch::Sender<bool>,
    recording: Mutex<Option<tokio::task::JoinHandle<()>>>,
    pub(crate) directory: Place,
}

/// One identity provider for all worlds. At `/revoke` it answers 200 to refresh tokens, and 503 to all others.
pub(crate) fn idp() -> &'static FakeServer {
    static IDP: OnceLock<FakeServer> = OnceLock::new();
    IDP.get_or_init(|| {
        let server = AuthorizationServer::default();
        FakeServer::https(&[], move |request| match (request.path(), request.field("token_type_hint").as_deref()) {
            ("/revoke", Some("refresh_token")) => Reply::bytes(200, ""),
            ("/revoke", _) => Reply::bytes(503, ""),
            _ => server.answer(request),
        })
    })
}

/// One receiver of notifications for all worlds, over TLS. It takes everything.
pub(crate) fn hooks() -> &'static FakeServer {
    static HOOKS: OnceLock<FakeServer> = OnceLock::new();
    HOOKS.get_or_init(|| FakeServer::https(&[], |_| Reply::bytes(204, "")))
}

/// What the names of these tests lead to; all others to what the system says.
struct Names(SystemResolver);

impl Resolver for Names {
    fn resolve<'a>(&'a self, host: &'a str) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>> {
        let addresses: &[&str] = match host {
            "metadata.example" => &["169.254.169.254"],
            "nat64.example" => &["64:ff9b::a9fe:a9fe"],
            "private.example" => &["10.1.2.3"],
            "mixed.example" => &["93.184.216.34", "10.1.2.3"],
            _ => return self.0.resolve(host),
        };
        Box::pin(async move { Ok(addresses.iter().map(|address| address.parse().unwrap()).collect()) })
    }
}

/// The way out: to loopback, too.
pub(crate) fn connector() -> GuardedConnector {
    let authorities = [idp().authority(), hooks().authority()].concat();
    GuardedConnector::new(
        AddressPolicy::new(true, PrivateHosts::default()),
        Arc::new(Names(SystemResolver::new())),
        TlsTrust::from_pem(false, Some(authorities.as_bytes())),
    )
}

fn broker(store: &Store, sealed: &SealedSecrets) -> Arc<Broker> {
    let connector = connector();
    let (store, sealed, longest_life) = (store.clone(), sealed.clone(), Duration::from_secs(3_600));
    Arc::new(Broker::new(caracal_broker::Capabilities { connector, store, sealed, longest_life }))
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not json: {:?}", self.text))
    }

    /// Status and code of a refusal, which must have the envelope.
    #[track_caller]
    pub(crate) fn refused(&self) -> (u16, String) {
        let body = self.json();
        assert_eq!(self.headers["content-type"], "application/json; charset=utf-8");
        let id = self.headers["x-request-id"].to_str().unwrap();
        assert_eq!((body["requestId"].as_str(), body["request_id"].as_str()), (Some(id), Some(id)), "{body}");
        (self.status.as_u16(), body["error"].as_str().unwrap_or_else(|| panic!("no code: {body}")).to_owned())
    }

    #[track_caller]
    pub(crate) fn is(&self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        if self.text.is_empty() { Value::Null } else { self.json() }
    }

    #[track_caller]
    pub(crate) fn is_refused(&self, status: u16, code: &str) -> &Self {
        assert_eq!(self.refused(), (status, code.to_owned()), "{}", self.text);
        self
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(AdminConfig::default()).await
    }

    pub(crate) async fn with(config: AdminConfig) -> Self {
        let directory = Place::new();
        let clock = Arc::new(ManualClock::at(Timestamp::from_seconds(START)));
        let url = directory.database_url();
        let store = conformance::open(directory.path(), url.as_deref(), clock.clone()).await;
        Self::over(store, clock, directory, config, BOOTSTRAP).await
    }

    /// The same store under a process with another admin token.
    pub(crate) async fn restarted(self, token: &str) -> Self {
        let Self { store, clock, directory, .. } = self;
        Self::over(store, clock, directory, AdminConfig::default(), token).await
    }

    async fn over(store: Store, clock: Arc<ManualClock>, directory: Place, config: AdminConfig, token: &str) -> Self {
        let sealed = SealedSecrets::new(Arc::new(KekRing::new(Kek::from_hex(KEK).unwrap(), None)));
        let secrets = Arc::new(SecretVerifier::new(2));
        let ledger = Ledger::new(Some(Arc::new(HmacKey::from_bytes(&KEY).unwrap())));
        let denials = Arc::new(AnonymousDenials::default());
        let runtime =
            Arc::new(TestRuntime { store: store.clone(), states: Mutex::default(), simulated: Mutex::default() });
        let messages = Arc::new(Mutex::new(Vec::new()));
        let heard = messages.clone();
        store.observe(Arc::new(move |committed: &Committed| {
            heard.lock().unwrap().extend(committed.messages.iter().cloned());
        }));
        let config = AdminConfig { bootstrap_token: Some(Secret::new(token.to_owned())), ..config };
        let capabilities = Capabilities {
            store: store.clone(),
            ledger: ledger.clone(),
            denials: denials.clone(),
            sealed: sealed.clone(),
            broker: broker(&store, &sealed),
            egress: connector(),
            secrets: secrets.clone(),
            token_key: HmacKey::from_bytes(&KEY).unwrap(),
            runtime: Some(runtime.clone()),
        };
        let admin = Arc::new(Admin::new(config, capabilities).unwrap());
        admin.seed().await.unwrap();
        let (stop, stopped) = watch::channel(false);
        let recorder = admin.clone();
        let recording = tokio::spawn(async move { recorder.run_refusal_records(stopped).await });
        let recording = Mutex::new(Some(recording));
        Self { admin, store, clock, sealed, secrets, denials, ledger, runtime, messages, stop, recording, directory }
    }

    /// A request as the bootstrap token.
    pub(crate) async fn call(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        self.call_as(Some(BOOTSTRAP), method, path, body).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, None).await
    }

    pub(crate) async fn call_as(&self, token: Option<&str>, method: &str, path: &str, body: Option<Value>) -> Answer {
        let answer = self.exchange(request(token, method, path, body.clone())).await;
        openapi::hold(method, path, body.as_ref(), &answer);
        answer
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let (method, path) = (request.method().to_string(), request.uri().path().to_owned());
        let answer = self.exchange(request).await;
        openapi::hold(&method, &path, None, &answer);
        answer
    }

    async fn exchange(&self, request: Request<Body>) -> Answer {
        let response = self.admin.clone().router().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Answer { status: parts.status, headers: parts.headers, text, body: bytes.to_vec() }
    }

    /// A token as it would be minted: random, stored by its digest.
    pub(crate) async fn mint(&self, capability: &str, zone: Option<&str>) -> String {
        self.mint_row(if zone.is_some() { "zone" } else { "global" }, capability, zone).await
    }

    /// A token row as it may be in a store, whether or not anybody would mint it.
    pub(crate) async fn mint_row(&self, scope: &str, capability: &str, zone: Option<&str>) -> String {
        let token = chance::token("cat_").unwrap().expose().clone();
        let now = self.store.now();
        let row = AdminToken {
            id: AdminTokenId::parse(&chance::uuid_v7(now).unwrap().to_string()).unwrap(),
            name: format!("test {capability}"),
            scope: scope.to_owned(),
            capability: capability.to_owned(),
            zone_id: zone.map(|zone| ZoneId::parse(zone).unwrap()),
            created_by: "admin:test".to_owned(),
            created_at: now,
            last_used_at: None,
            revoked_at: None,
            expires_at: None,
        };
        let digest = token_digest(&HmacKey::from_bytes(&KEY).unwrap(), &token);
        let minted: Result<(), StoreError> = self
            .store
            .commit_deployment((row, digest), |tx, (row, digest)| {
                Box::pin(async move { admin_tokens::add(tx, row, digest).await })
            })
            .await;
        minted.unwrap();
        token
    }

    /// A zone's id.
    pub(crate) async fn zone(&self, name: &str) -> String {
        let zone = self.call("POST", "/v1/zones", Some(json!({"name": name}))).await.is(201);
        zone["id"].as_str().unwrap().to_owned()
    }

    /// Id of a new object.
    #[track_caller]
    pub(crate) fn create(&self, path: &str, body: Value) -> impl Future<Output = String> {
        let path = path.to_owned();
        async move {
            let created = self.call("POST", &path, Some(body)).await.is(201);
            created["id"].as_str().unwrap().to_owned()
        }
    }

    /// What is sealed for a provider.
    pub(crate) async fn provider_secrets(&self, zone: &str, provider: &str) -> Option<Value> {
        let (zone, provider) = (ZoneId::parse(zone).unwrap(), ProviderId::parse(provider).unwrap());
        let mut snapshot = self.store.snapshot().await.unwrap();
        let reference = provider_secret_ref(&zone, &provider);
        let opened = self.sealed.open(&mut snapshot.zone(&zone), &reference).await.unwrap();
        opened.map(|document| serde_json::from_slice(document.expose()).unwrap())
    }

    /// The sealed copy of an application's secret.
    pub(crate) async fn application_secret(&self, zone: &str, application: &str) -> Option<String> {
        let (zone, application) = (ZoneId::parse(zone).unwrap(), ApplicationId::parse(application).unwrap());
        let mut snapshot = self.store.snapshot().await.unwrap();
        let reference = application_secret_ref(&zone, &application);
        let opened = self.sealed.open(&mut snapshot.zone(&zone), &reference).await.unwrap();
        opened.map(|secret| String::from_utf8(secret.expose().clone()).unwrap())
    }

    /// Whether the STS would accept this secret.
    pub(crate) async fn secret_is_right(&self, zone: &str, application: &str, secret: &str) -> bool {
        let (zone, application) = (ZoneId::parse(zone).unwrap(), ApplicationId::parse(application).unwrap());
        let mut snapshot = self.store.snapshot().await.unwrap();
        let row = caracal_store::applications::lookup(&mut snapshot.zone(&zone), &application).await.unwrap().unwrap();
        self.secrets.verify(row.secret_hash.as_deref(), secret, self.store.now()).await.unwrap()
    }

    /// The management records of a zone, or of what has no zone, oldest first; refusals that wait are written first.
    pub(crate) async fn records(&self, zone: Option<&str>) -> Vec<AdminEvidenceRow> {
        self.stop.send_replace(true);
        let waiting = self.recording.lock().unwrap().take();
        if let Some(waiting) = waiting {
            waiting.await.unwrap();
        }
        let mut snapshot = self.store.snapshot().await.unwrap();
        let chain = zone.unwrap_or(ZONELESS_CHAIN);
        let rows = admin_evidence::list_chain(&mut snapshot.deployment(), chain, 0, 10_000).await.unwrap();
        rows.into_iter()
            .map(|row| match row {
                ChainRow::Read(row) => row,
                ChainRow::Unreadable { what, .. } => panic!("{what}"),
            })
            .collect()
    }

    /// Everything the store holds on disk.
    pub(crate) fn bytes_on_disk(&self) -> Vec<u8> {
        self.directory.everything_stored()
    }

    /// Runs a statement behind the store's back.
    pub(crate) fn outside(&self, sql: &str) {
        if let Some(database) = self.directory.database() {
            database.run(sql).unwrap();
            return;
        }
        let outside = rusqlite::Connection::open(self.directory.path().join("caracal.db")).unwrap();
        outside.execute_batch(sql).unwrap();
    }

    /// What a relay does: messages are sent, and gone.
    pub(crate) async fn relay(&self) {
        let mut snapshot = self.store.snapshot().await.unwrap();
        let due = outbox::list_due(&mut snapshot.deployment(), 1_000).await.unwrap();
        drop(snapshot);
        let ids: Vec<_> = due.into_iter().map(|waiting| waiting.message.id).collect();
        let sent: Result<(), StoreError> = self
            .store
            .commit_upkeep(ids, |tx, ids| {
                Box::pin(async move {
                    for id in ids {
                        outbox::remove_sent(tx, id).await?;
                    }
                    Ok(())
                })
            })
            .await;
        sent.unwrap();
    }
}

pub(crate) fn request(token: Option<&str>, method: &str, path: &str, body: Option<Value>) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    match body {
        None => request.body(Body::empty()).unwrap(),
        Some(body) => request.header("content-type", "application/json").body(Body::from(body.to_string())).unwrap(),
    }
}

/// One of the console's tokens.
pub(crate) fn derived(token: ConsoleToken) -> String {
    token.derive(BOOTSTRAP).expose().clone()
}

/// An assertion that a console account is behind a request, good until `end`.
pub(crate) fn assertion(account: &str, end: i64) -> String {
    let mut key = BOOTSTRAP.as_bytes().to_vec();
    key.resize(64, 0);
    let mac = HmacKey::from_bytes(&key).unwrap().sign(&[format!("caracal:account:v1:{account}:{end}").as_bytes()]);
    format!("v1.{}.{end}.{}", encoding::base64url(account.as_bytes()), encoding::base64url(&mac))
}

/// Two processes that decide by what the store says, unless a test says otherwise.
pub(crate) struct TestRuntime {
    store: Store,
    pub(crate) states: Mutex<Option<Result<Vec<RuntimeState>, Unreachable>>>,
    pub(crate) simulated: Mutex<Option<Result<Value, NotSimulated>>>,
}

/// Ids of the processes of a [`TestRuntime`].
pub(crate) const REPLICAS: [&str; 2] = ["sts-a", "sts-b"];

impl TestRuntime {
    async fn loaded(&self, zone: &ZoneId) -> Vec<RuntimeState> {
        let mut snapshot = self.store.snapshot().await.unwrap();
        let active = policy_sets::find_active(&mut snapshot.zone(zone)).await.unwrap();
        let manifest = active.as_ref().map_or("no_active_policy_set", |active| active.manifest_sha256.as_str());
        let loaded = RuntimeState::Loaded(Loaded {
            manifest_sha256: manifest.to_owned(),
            loaded_at: snapshot.now(),
            policy_set_version_id: active.map(|active| active.version_id),
        });
        vec![loaded.clone(), loaded]
    }
}

impl PolicyRuntime for TestRuntime {
    fn replicas<'a>(&'a self, zone: &'a ZoneId) -> BoxFuture<'a, Result<Vec<Replica>, Unreachable>> {
        Box::pin(async move {
            let told = self.states.lock().unwrap().clone();
            let states = match told {
                Some(states) => states?,
                None => self.loaded(zone).await,
            };
            let replica = |(id, state): (&str, RuntimeState)| {
                let id = ReplicaId::parse(id).unwrap();
                Replica { id, seen_at: Timestamp::from_seconds(START), state }
            };
            Ok(REPLICAS.into_iter().zip(states).map(replica).collect())
        })
    }

    fn simulate<'a>(&'a self, _: &'a ZoneId, simulation: Simulation) -> BoxFuture<'a, Result<Value, NotSimulated>> {
        Box::pin(async move {
            if let Some(told) = self.simulated.lock().unwrap().clone() {
                return told;
            }
            let Simulation { documents, input } = simulation;
            let documents: Vec<Document<'_>> =
                documents.iter().map(|(policy_version_id, content)| Document { policy_version_id, content }).collect();
            match caracal_policy::simulate(&documents, Some(input)) {
                Ok(verdict) => Ok(serde_json::to_value(verdict).unwrap()),
                Err(error) => Err(NotSimulated::Failed { code: error.code(), text: error.to_string() }),
            }
        })
    }
}

/// A data document that grants nothing.
pub(crate) const EMPTY_GRANTS: &str =
    "# caracal:data-document\npackage caracal.authz\nimport rego.v1\napp_ids := {}\ngrants := {}\n";

/// Objects of one kind by name, for readable assertions.
pub(crate) fn by_name(items: &Value) -> BTreeMap<String, Value> {
    let items = items["items"].as_array().unwrap();
    items.iter().map(|item| (item["name"].as_str().unwrap().to_owned(), item.clone())).collect()
}
