//! A Coordinator in a temporary directory, and what it needs around it: zones' keys, applications, records, resources.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use caracal_authority::{AgentSessionId, ApplicationId, AuthorityRecordId, EdgeId, ResourceId, Timestamp, ZoneId};
use caracal_coordinator::{Coordinator, CoordinatorConfig};
use caracal_crypto::Secret;
use caracal_crypto::envelope::{Kek, KekRing};
use caracal_crypto::hmac::HmacKey;
use caracal_custody::SigningKeys;
use caracal_ledger::{AnonymousDenials, Ledger};
use caracal_store::admin_evidence::{self, AdminEvidenceRow};
use caracal_store::applications::Application;
use caracal_store::delegations::EdgeRow;
use caracal_store::evidence::ChainRow;
use caracal_store::records::RecordRow;
use caracal_store::resources::{CallLimits, Resource};
use caracal_store::sessions::SessionRow;
use caracal_store::{
    Attribution, Committed, ManualClock, Message, Store, StoreError, applications, conformance, delegations, records,
    resources, sessions,
};
use caracal_testkit::Place;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

pub(crate) const ISSUER: &str = "https://issuer.test";
pub(crate) const OPERATOR: &str = "operator-token-0123456789";
pub(crate) const START: i64 = 1_800_000_000;

/// A running Coordinator. Its clock stands still until it is moved.
pub(crate) struct House {
    pub(crate) store: Store,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) keys: Arc<SigningKeys>,
    pub(crate) coordinator: Arc<Coordinator>,
    pub(crate) router: Router,
    pub(crate) denials: Arc<AnonymousDenials>,
    pub(crate) ledger: Ledger,
    pub(crate) directory: Place,
    messages: Arc<Mutex<Vec<Message>>>,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Reply {
    pub(crate) fn code(&self) -> &str {
        self.body["error"].as_str().unwrap_or("")
    }

    /// Status and code.
    pub(crate) fn refusal(&self) -> (u16, &str) {
        (self.status.as_u16(), self.code())
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.body[name].as_str().unwrap_or_else(|| panic!("`{name}` in {}", self.body)).to_owned()
    }

    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        self
    }

    #[track_caller]
    pub(crate) fn refused(&self, status: u16, code: &str) {
        assert_eq!(self.refusal(), (status, code), "{}", self.body);
    }
}

pub(crate) fn zone() -> ZoneId {
    ZoneId::parse("z-1").unwrap()
}

pub(crate) fn hmac(first: u8) -> HmacKey {
    HmacKey::from_bytes(&(first..first + 32).collect::<Vec<u8>>()).unwrap()
}

impl House {
    /// Two applications `app-1` and `app-2` with their records `rec-1` and `rec-2`, and a resource.
    pub(crate) async fn open() -> Self {
        Self::with(|_| ()).await
    }

    pub(crate) async fn with(configure: impl FnOnce(&mut CoordinatorConfig)) -> Self {
        let house = Self::empty(configure).await;
        for (application, record) in [("app-1", "rec-1"), ("app-2", "rec-2")] {
            house.add_application(application, "managed").await;
            house.add_record(record, "application", application, application).await;
        }
        house.add_resource("res-docs", "resource://docs", &["read", "write", "list"]).await;
        house
    }

    async fn empty(configure: impl FnOnce(&mut CoordinatorConfig)) -> Self {
        let directory = Place::new();
        let clock = Arc::new(ManualClock::at(Timestamp::from_seconds(START)));
        let url = directory.database_url();
        let store = conformance::open(directory.path(), url.as_deref(), clock.clone()).await;
        let messages = Arc::new(Mutex::new(Vec::new()));
        let heard = messages.clone();
        store.observe(Arc::new(move |committed: &Committed| heard.lock().unwrap().extend(committed.messages.clone())));
        let ring = Arc::new(KekRing::new(Kek::generate().unwrap().0, None));
        let keys = Arc::new(SigningKeys::new(store.clone(), ring));
        let mut config = CoordinatorConfig::new(ISSUER, hmac(0));
        config.operator_token = Some(Secret::new(OPERATOR.to_owned()));
        // Most tests ask more often than a caller may; the limit has a test of its own.
        config.rate_limit_per_minute = 0;
        configure(&mut config);
        let ledger = Ledger::new(Some(Arc::new(hmac(100))));
        let denials = Arc::new(AnonymousDenials::default());
        let coordinator =
            Arc::new(Coordinator::new(config, store.clone(), keys.clone(), ledger.clone(), denials.clone()));
        let router = coordinator.clone().router();
        Self { store, clock, keys, coordinator, router, denials, ledger, directory, messages }
    }

    /// The same store and keys behind other settings, as after a restart.
    pub(crate) fn reconfigured(&self, configure: impl FnOnce(&mut CoordinatorConfig)) -> Router {
        let mut config = CoordinatorConfig::new(ISSUER, hmac(0));
        config.rate_limit_per_minute = 0;
        configure(&mut config);
        let coordinator =
            Coordinator::new(config, self.store.clone(), self.keys.clone(), self.ledger.clone(), self.denials.clone());
        Arc::new(coordinator).router()
    }

    pub(crate) fn now(&self) -> i64 {
        self.store.now().as_seconds()
    }

    // What is there before.

    pub(crate) async fn add_application(&self, id: &str, method: &str) {
        self.add_application_in(&zone(), id, method).await;
    }

    pub(crate) async fn add_application_in(&self, zone: &ZoneId, id: &str, method: &str) {
        let application = Application {
            zone_id: zone.clone(),
            id: ApplicationId::parse(id).unwrap(),
            name: id.to_owned(),
            registration_method: method.to_owned(),
            traits: Vec::new(),
            secret_hash: None,
            expires_at: None,
            archived_at: None,
            attribution: Attribution::created("test", self.store.now()),
        };
        let added: Result<(), StoreError> =
            self.store.commit(zone, application, |tx, row| Box::pin(applications::add(tx, row))).await;
        added.unwrap();
    }

    pub(crate) async fn add_record(&self, id: &str, kind: &str, subject: &str, client: &str) {
        self.add_record_in(&zone(), id, kind, subject, client, None).await;
    }

    pub(crate) async fn add_record_in(
        &self,
        zone: &ZoneId,
        id: &str,
        kind: &str,
        subject: &str,
        client: &str,
        parent: Option<&str>,
    ) {
        let now = self.store.now();
        let record = RecordRow {
            zone_id: zone.clone(),
            id: AuthorityRecordId::parse(id).unwrap(),
            kind: kind.to_owned(),
            subject_id: subject.to_owned(),
            client_id: ApplicationId::parse(client).unwrap(),
            use_class: "session".to_owned(),
            jti: format!("jti-{id}"),
            status: "active".to_owned(),
            parent_id: parent.map(|parent| AuthorityRecordId::parse(parent).unwrap()),
            agent_session_id: None,
            delegation_edge_id: None,
            expires_at: now.plus(std::time::Duration::from_secs(7 * 86_400)),
            created_at: now,
            revoked_at: None,
            revoked_reason: None,
            provenance: None,
        };
        let added: Result<(), StoreError> =
            self.store.commit(zone, record, |tx, row| Box::pin(records::add(tx, row))).await;
        added.unwrap();
    }

    pub(crate) async fn revoke_record(&self, id: &str) {
        let id = AuthorityRecordId::parse(id).unwrap();
        let revoked: Result<Vec<_>, StoreError> =
            self.store.commit(&zone(), id, |tx, id| Box::pin(records::revoke_with_descendants(tx, id, "test"))).await;
        revoked.unwrap();
    }

    pub(crate) async fn add_resource(&self, id: &str, identifier: &str, scopes: &[&str]) {
        let resource = Resource {
            zone_id: zone(),
            id: ResourceId::parse(id).unwrap(),
            name: id.to_owned(),
            identifier: identifier.to_owned(),
            upstream_url: None,
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
            credential_provider_id: None,
            operations: Vec::new(),
            operation_enforcement: "enforced".to_owned(),
            limits: CallLimits::default(),
            archived_at: None,
            attribution: Attribution::created("test", self.store.now()),
        };
        let added: Result<(), StoreError> =
            self.store.commit(&zone(), resource, |tx, row| Box::pin(resources::add(tx, row))).await;
        added.unwrap();
    }

    /// A session written past the Coordinator: states that no built route can bring about.
    pub(crate) async fn add_session(&self, id: &str, change: impl FnOnce(&mut SessionRow)) {
        self.add_session_in(&zone(), id, change).await;
    }

    pub(crate) async fn add_session_in(&self, zone: &ZoneId, id: &str, change: impl FnOnce(&mut SessionRow)) {
        let now = self.store.now();
        let mut session = SessionRow {
            zone_id: zone.clone(),
            id: AgentSessionId::parse(id).unwrap(),
            application_id: ApplicationId::parse("app-1").unwrap(),
            parent_id: None,
            subject_record_id: AuthorityRecordId::parse("rec-1").unwrap(),
            lifecycle: "task".to_owned(),
            labels: Vec::new(),
            metadata: serde_json::Map::new(),
            status: "active".to_owned(),
            depth: 0,
            ttl_seconds: Some(3_600),
            started_at: now,
            last_active_at: now,
            last_heartbeat_at: None,
            heartbeat_deadline_at: None,
            lease_generation: 0,
            terminated_at: None,
            termination_reason: None,
            updated_at: now,
        };
        change(&mut session);
        let added: Result<(), StoreError> =
            self.store.commit(zone, session, |tx, row| Box::pin(sessions::add(tx, row))).await;
        added.unwrap();
    }

    /// An edge written past the Coordinator.
    pub(crate) async fn add_edge(&self, id: &str, source: &str, target: &str, change: impl FnOnce(&mut EdgeRow)) {
        let now = self.store.now();
        let application = || ApplicationId::parse("app-1").unwrap();
        let mut edge = EdgeRow {
            zone_id: zone(),
            id: EdgeId::parse(id).unwrap(),
            source_session_id: AgentSessionId::parse(source).unwrap(),
            target_session_id: AgentSessionId::parse(target).unwrap(),
            issuer_application_id: application(),
            receiver_application_id: application(),
            parent_edge_id: None,
            mirrored: false,
            resource_id: Some(ResourceId::parse("res-docs").unwrap()),
            scopes: vec!["read".to_owned()],
            constraints: serde_json::Map::new(),
            status: "active".to_owned(),
            expires_at: now.plus(std::time::Duration::from_secs(600)),
            edge_version: 0,
            broad_reason: None,
            revoked_at: None,
            created_at: now,
        };
        change(&mut edge);
        let added: Result<(), StoreError> =
            self.store.commit(&zone(), edge, |tx, row| Box::pin(delegations::add(tx, row))).await;
        added.unwrap();
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

    // Who asks.

    /// Claims of a session mandate of `application` with the record of the same number.
    pub(crate) fn claims(&self, application: &str) -> Value {
        let record = application.replace("app", "rec");
        json!({
            "iss": ISSUER, "sub": application, "aud": [ISSUER], "iat": self.now(), "exp": self.now() + 900,
            "jti": "jti-1", "zone_id": "z-1", "client_id": application, "sid": record, "root_sid": record,
            "use": "session", "sub_type": "application", "scope": "agent:lifecycle",
        })
    }

    /// Signs claims with the key of the zone they name.
    pub(crate) async fn sign(&self, claims: &Value) -> String {
        let zone = ZoneId::parse(claims["zone_id"].as_str().unwrap_or("z-1")).unwrap_or_else(|_| zone());
        let mut snapshot = self.store.snapshot().await.unwrap();
        let known = self.keys.signing_key(&mut snapshot.zone(&zone)).await.unwrap();
        drop(snapshot);
        let key = match known {
            Some(key) => key,
            None => self.keys.create(&zone).await.unwrap(),
        };
        key.sign(claims).unwrap()
    }

    pub(crate) async fn mandate(&self, application: &str) -> String {
        self.sign(&self.claims(application)).await
    }

    /// A mandate of `application` with further scopes.
    pub(crate) async fn mandate_with(&self, application: &str, scopes: &str) -> String {
        let mut claims = self.claims(application);
        claims["scope"] = json!(format!("agent:lifecycle {scopes}"));
        self.sign(&claims).await
    }

    // What is asked.

    pub(crate) async fn send(&self, request: Request<Body>) -> Reply {
        send(&self.router, request).await
    }

    pub(crate) async fn call(&self, method: &str, path: &str, token: &str, body: Option<Value>) -> Reply {
        self.send(request(method, path, token, body, &[])).await
    }

    pub(crate) async fn get(&self, path: &str, token: &str) -> Reply {
        self.call("GET", path, token, None).await
    }

    pub(crate) async fn post(&self, path: &str, token: &str, body: Value) -> Reply {
        self.call("POST", path, token, Some(body)).await
    }

    pub(crate) async fn start(&self, token: &str, body: Value) -> Reply {
        self.post("/zones/z-1/agents", token, body).await
    }

    pub(crate) async fn start_keyed(&self, token: &str, key: &str, body: Value) -> Reply {
        self.send(request("POST", "/zones/z-1/agents", token, Some(body), &[("idempotency-key", key)])).await
    }

    /// Starts a task of `app-1` and returns its id.
    pub(crate) async fn task(&self) -> String {
        let token = self.mandate("app-1").await;
        self.start(&token, json!({"application_id": "app-1"})).await.expect(201).text("agent_session_id")
    }

    /// Starts a task of `app-1` under `parent` without inheriting and returns its id.
    pub(crate) async fn child(&self, parent: &str) -> String {
        let token = self.mandate("app-1").await;
        let body = json!({"application_id": "app-1", "parent_id": parent, "parent_authority": "none"});
        self.start(&token, body).await.expect(201).text("agent_session_id")
    }

    pub(crate) async fn delegate(&self, body: Value) -> Reply {
        let token = self.mandate("app-1").await;
        self.post("/zones/z-1/delegations", &token, body).await
    }

    /// Makes a delegation of `read` on the resource between sessions of `app-1` and returns its id.
    pub(crate) async fn edge(&self, source: &str, target: &str, change: impl FnOnce(&mut Value)) -> String {
        let mut body = delegation(source, target);
        change(&mut body);
        self.delegate(body).await.expect(201).text("delegation_edge_id")
    }

    pub(crate) async fn terminate(&self, token: &str, id: &str) -> Reply {
        self.call("DELETE", &format!("/zones/z-1/agents/{id}"), token, None).await
    }

    pub(crate) async fn revoke(&self, token: &str, id: &str) -> Reply {
        self.call("PATCH", &format!("/zones/z-1/delegations/{id}/revoke"), token, None).await
    }

    // What became of it.

    pub(crate) async fn session(&self, id: &str) -> SessionRow {
        let mut snapshot = self.store.snapshot().await.unwrap();
        let id = AgentSessionId::parse(id).unwrap();
        sessions::lookup(&mut snapshot.zone(&zone()), &id).await.unwrap().unwrap()
    }

    pub(crate) async fn edge_row(&self, id: &str) -> EdgeRow {
        let mut snapshot = self.store.snapshot().await.unwrap();
        let id = EdgeId::parse(id).unwrap();
        delegations::lookup(&mut snapshot.zone(&zone()), &id).await.unwrap().unwrap()
    }

    pub(crate) async fn record_row(&self, id: &str) -> RecordRow {
        let mut snapshot = self.store.snapshot().await.unwrap();
        let id = AuthorityRecordId::parse(id).unwrap();
        records::lookup(&mut snapshot.zone(&zone()), &id).await.unwrap().unwrap()
    }

    pub(crate) async fn epoch(&self) -> i64 {
        let mut snapshot = self.store.snapshot().await.unwrap();
        delegations::epoch(&mut snapshot.zone(&zone())).await.unwrap()
    }

    /// Sessions in the zone that hold a slot.
    pub(crate) async fn holding(&self) -> i64 {
        let mut snapshot = self.store.snapshot().await.unwrap();
        let mut read = snapshot.zone(&zone());
        sessions::count_holding_capacity(&mut read, sessions::Among::Zone, i64::MAX).await.unwrap()
    }

    /// Messages published since the last call.
    pub(crate) fn messages(&self) -> Vec<Message> {
        std::mem::take(&mut *self.messages.lock().unwrap())
    }

    /// Management records of a chain, oldest first.
    pub(crate) async fn changes(&self, chain: &str) -> Vec<AdminEvidenceRow> {
        let mut snapshot = self.store.snapshot().await.unwrap();
        let rows = admin_evidence::list_chain(&mut snapshot.deployment(), chain, 1, 10_000).await.unwrap();
        let readable = |row| match row {
            ChainRow::Read(row) => row,
            ChainRow::Unreadable { what, .. } => panic!("a damaged record: {what}"),
        };
        rows.into_iter().map(readable).collect()
    }
}

/// The body of a delegation of `read` on the resource between sessions of `app-1`.
pub(crate) fn delegation(source: &str, target: &str) -> Value {
    json!({
        "source_session_id": source, "target_session_id": target, "issuer_application_id": "app-1",
        "receiver_application_id": "app-1", "resource_id": "resource://docs", "scopes": ["read"], "ttl_seconds": 600,
    })
}

pub(crate) fn request(
    method: &str,
    path: &str,
    token: &str,
    body: Option<Value>,
    headers: &[(&str, &str)],
) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    if !token.is_empty() {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    match body {
        None => request.body(Body::empty()).unwrap(),
        Some(body) => request.header("content-type", "application/json").body(Body::from(body.to_string())).unwrap(),
    }
}

pub(crate) async fn send(router: &Router, request: Request<Body>) -> Reply {
    let (parts, body) = router.clone().oneshot(request).await.unwrap().into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() };
    Reply { status: parts.status, headers: parts.headers, body }
}

/// Messages of `topic` about `field` = `value`.
pub(crate) fn about<'m>(messages: &'m [Message], topic: &str, field: &str, value: &str) -> Vec<&'m Message> {
    messages.iter().filter(|message| message.topic == topic && message.field(field) == Some(value)).collect()
}

pub(crate) const LIFECYCLE: &str = "caracal.agents.lifecycle";
pub(crate) const REVOKE: &str = "caracal.sessions.revoke";
pub(crate) const INVALIDATE: &str = "caracal.delegations.invalidate";
