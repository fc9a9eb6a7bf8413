//! One deployment with a store of its own, and one Gateway on a port of its own.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use caracal_authority::{OutboxId, Timestamp, ZoneId};
use caracal_crypto::envelope::{Kek, KekRing};
use caracal_custody::SigningKeys;
use caracal_gateway::{Capabilities, Directive, Exchange, Gateway, GatewayConfig, MetricsAccess, Served};
use caracal_http::egress::{AddressPolicy, GuardedConnector, PrivateHosts, Resolver, Timeouts, TlsTrust};
use caracal_ledger::{AnonymousDenials, ChainKey, EventType, Ledger};
use caracal_store::evidence::{self, EvidenceRow};
use caracal_store::{ManualClock, Store, StoreError, conformance, outbox};
use caracal_testkit::Place;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::caller::{Answer, Caller};
use crate::sts::{Said, ScriptedSts};
use crate::upstream::Upstream;

pub(crate) const NOW: i64 = 1_800_000_000;
pub(crate) const ZONE: &str = "z-1";
const STUCK: Duration = Duration::from_secs(10);

/// A name whose server never answers.
pub(crate) const SILENT: &str = "silent.test";

/// Names for tests that need some; everything else does not resolve.
#[derive(Default)]
pub(crate) struct Names(Mutex<HashMap<String, Vec<IpAddr>>>);

impl Names {
    pub(crate) fn point(&self, name: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        self.0.lock().unwrap().insert(name.to_owned(), addresses);
    }
}

impl Resolver for Names {
    fn resolve<'a>(&'a self, host: &'a str) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>> {
        if host == SILENT {
            return Box::pin(std::future::pending());
        }
        let found = self.0.lock().unwrap().get(host).cloned();
        Box::pin(async move { found.ok_or_else(|| io::Error::other("no such name")) })
    }
}

/// A key of the chain that can stop working.
pub(crate) struct LedgerKey(pub(crate) AtomicBool);

impl ChainKey for LedgerKey {
    fn sign(&self, message: &[u8]) -> [u8; 32] {
        assert!(self.0.load(Ordering::SeqCst), "the chain takes no more");
        let digest = ring::digest::digest(&ring::digest::SHA256, message);
        digest.as_ref().try_into().unwrap()
    }
}

/// What several Gateways share.
pub(crate) struct Deployment {
    pub(crate) store: Store,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) keys: Arc<SigningKeys>,
    pub(crate) sts: Arc<ScriptedSts>,
    pub(crate) names: Arc<Names>,
    pub(crate) denials: Arc<AnonymousDenials>,
    pub(crate) ledger_key: Arc<LedgerKey>,
    committed: Arc<Notify>,
    minted: AtomicUsize,
    _place: Place,
}

pub(crate) struct World {
    pub(crate) deployment: Arc<Deployment>,
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) address: SocketAddr,
    stop: watch::Sender<bool>,
    serving: JoinHandle<Result<Served, StoreError>>,
}

impl std::ops::Deref for World {
    type Target = Deployment;

    fn deref(&self) -> &Deployment {
        &self.deployment
    }
}

impl Deployment {
    pub(crate) async fn new(
        script: impl Fn(&caracal_gateway::ExchangeRequest) -> Said + Send + Sync + 'static,
    ) -> Arc<Self> {
        caracal_testkit::logs::capture();
        let place = Place::new();
        let clock = Arc::new(ManualClock::at(Timestamp::from_seconds(NOW)));
        let store = conformance::open(place.path(), place.database_url().as_deref(), clock.clone()).await;
        let committed = Arc::new(Notify::new());
        let told = committed.clone();
        store.observe(Arc::new(move |_: &caracal_store::Committed| told.notify_waiters()));
        let ring = Arc::new(KekRing::new(Kek::generate().unwrap().0, None));
        Arc::new(Self {
            keys: Arc::new(SigningKeys::new(store.clone(), ring)),
            sts: Arc::new(ScriptedSts::new(store.clone(), script)),
            names: Arc::new(Names::default()),
            denials: Arc::new(AnonymousDenials::default()),
            ledger_key: Arc::new(LedgerKey(AtomicBool::new(true))),
            store,
            clock,
            committed,
            minted: AtomicUsize::new(0),
            _place: place,
        })
    }

    /// Claims as the STS would mint them, with a `jti` of their own.
    pub(crate) fn claims(&self) -> Value {
        let n = self.minted.fetch_add(1, Ordering::SeqCst);
        json!({
            "iss": "http://sts", "sub": "app-1", "aud": ["http://sts"], "exp": NOW + 300, "iat": NOW,
            "jti": format!("m-{n}"), "zone_id": ZONE, "client_id": "app-1", "sid": "r-1", "root_sid": "r-0",
            "agent_session_id": "s-1", "delegation_edge_id": "e-1", "use": "gateway", "sub_type": "application",
            "scope": "items:read", "target": ["resource://items"],
        })
    }

    /// A mandate with some claims changed; `null` removes one.
    pub(crate) async fn mandate(&self, changes: Value) -> String {
        let mut claims = self.claims();
        for (name, value) in changes.as_object().unwrap() {
            match value {
                Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
                value => claims[name] = value.clone(),
            }
        }
        self.sign(ZONE, &claims).await
    }

    /// Any claims whatever, signed by the key of `zone`.
    pub(crate) async fn sign(&self, zone: &str, claims: &Value) -> String {
        let zone = ZoneId::parse(zone).unwrap();
        let mut snapshot = self.store.snapshot().await.unwrap();
        let key = self.keys.signing_key(&mut snapshot.zone(&zone)).await.unwrap();
        drop(snapshot);
        let key = match key {
            Some(key) => key,
            None => self.keys.create(&zone).await.unwrap(),
        };
        key.sign(claims).unwrap()
    }

    /// Commits a message, as the Coordinator does when it ends something.
    pub(crate) async fn publish(&self, topic: &'static str, fields: &[(&str, &str)]) {
        let n = self.minted.fetch_add(1, Ordering::SeqCst);
        let fields: Vec<(String, String)> =
            fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let added: Result<bool, StoreError> = self
            .store
            .commit(&ZoneId::parse(ZONE).unwrap(), (n, topic, fields), |tx, (n, topic, fields)| {
                Box::pin(async move {
                    let id = OutboxId::parse(&format!("o-{n}")).unwrap();
                    outbox::add(tx, id, topic, &format!("k-{n}"), fields.clone()).await
                })
            })
            .await;
        assert!(added.unwrap());
    }

    pub(crate) async fn revoke(&self, field: &str, id: &str) {
        self.publish("caracal.sessions.revoke", &[(field, id)]).await;
    }

    /// The events of one request that are on record.
    pub(crate) async fn events_now(&self, request_id: &str) -> Vec<EvidenceRow> {
        let mut snapshot = self.store.snapshot().await.unwrap();
        let zone = ZoneId::parse(ZONE).unwrap();
        let events = evidence::find_by_request(&mut snapshot.zone(&zone), request_id).await.unwrap();
        for event in &events {
            let (event_type, metadata) = (EventType::parse(&event.event_type), &event.metadata);
            let members: serde_json::Map<String, Value> = serde_json::from_str(metadata).unwrap();
            let unknown = members.keys().find(|key| !event_type.may_have(key));
            assert_eq!(unknown, None, "a key that events of its type do not have: {metadata}");
        }
        events
    }

    /// The events of one request, once there are `count`.
    pub(crate) async fn events(&self, request_id: &str, count: usize) -> Vec<EvidenceRow> {
        let waiting = async {
            loop {
                let mut committed = std::pin::pin!(self.committed.notified());
                committed.as_mut().enable();
                let events = self.events_now(request_id).await;
                if events.len() >= count {
                    return events;
                }
                committed.await;
            }
        };
        let events = timeout(STUCK, waiting).await.unwrap_or_else(|_| panic!("evidence of {request_id}"));
        assert_eq!(events.len(), count, "{events:?}");
        events
    }

    /// The only event of one request: `decision`, `evaluation_status` and metadata.
    pub(crate) async fn event(&self, request_id: &str) -> (String, String, Value) {
        let event = self.events(request_id, 1).await.remove(0);
        (event.decision, event.evaluation_status, serde_json::from_str(&event.metadata).unwrap())
    }
}

/// The defaults, with open metrics. The timer of heads is far away, so that nothing but what a test does wakes a
/// connection.
pub(crate) fn config() -> GatewayConfig {
    let read_header_timeout = Duration::from_secs(600);
    GatewayConfig { metrics: MetricsAccess::Open, read_header_timeout, ..GatewayConfig::default() }
}

pub(crate) fn to(url: impl Into<String>) -> Directive {
    Directive { url: url.into(), auth_mode: "caracal_jwt".to_owned(), ..Directive::default() }
}

impl World {
    /// A Gateway whose STS sends every call to `upstream`.
    pub(crate) async fn before(upstream: &Upstream) -> Self {
        let url = upstream.url("");
        Self::scripted(move |_| Said::Go(to(url.clone()))).await
    }

    pub(crate) async fn scripted(
        script: impl Fn(&caracal_gateway::ExchangeRequest) -> Said + Send + Sync + 'static,
    ) -> Self {
        Self::with(config(), script).await
    }

    pub(crate) async fn with(
        config: GatewayConfig,
        script: impl Fn(&caracal_gateway::ExchangeRequest) -> Said + Send + Sync + 'static,
    ) -> Self {
        Self::join(Deployment::new(script).await, config).await
    }

    /// One more Gateway of a deployment.
    pub(crate) async fn join(deployment: Arc<Deployment>, config: GatewayConfig) -> Self {
        let exchange = deployment.sts.clone();
        Self::asking(exchange, deployment, config).await
    }

    /// The same, which asks another STS.
    pub(crate) async fn asking(
        exchange: Arc<dyn Exchange>,
        deployment: Arc<Deployment>,
        config: GatewayConfig,
    ) -> Self {
        let private = PrivateHosts::parse("private.test").unwrap();
        let short = Duration::from_millis(200);
        let timeouts = Timeouts { resolve: short, connect: short, ..Timeouts::default() };
        let connector = GuardedConnector::with_timeouts(
            AddressPolicy::new(true, private),
            deployment.names.clone(),
            TlsTrust::from_pem(false, None),
            timeouts,
        );
        let capabilities = Capabilities {
            store: deployment.store.clone(),
            keys: deployment.keys.clone(),
            ledger: Ledger::new(Some(deployment.ledger_key.clone())),
            denials: deployment.denials.clone(),
            exchange,
            connector,
            tls: None,
            spool: None,
        };
        let gateway = Gateway::new(config, capabilities).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let serving = tokio::spawn(gateway.clone().serve(listener, stopped));
        // Once it answers, it has read what is revoked.
        Caller::connect(address).await.ask("OPTIONS * HTTP/1.1\r\nHost: g\r\n\r\n").await;
        Self { deployment, gateway, address, stop, serving }
    }

    pub(crate) async fn caller(&self) -> Caller {
        Caller::connect(self.address).await
    }

    /// One request on a connection of its own.
    pub(crate) async fn ask(&self, request: &str) -> Answer {
        self.caller().await.ask(request).await
    }

    /// A request with a fresh mandate; `headers` are whole lines.
    pub(crate) async fn request(&self, method: &str, target: &str, headers: &str) -> String {
        let mandate = self.mandate(json!({})).await;
        request(method, target, &mandate, headers)
    }

    /// The answer to `GET target` with a fresh mandate.
    pub(crate) async fn get(&self, target: &str) -> Answer {
        let request = self.request("GET", target, "").await;
        self.ask(&request).await
    }

    pub(crate) async fn metric(&self, key: &str) -> u64 {
        let answer = self.ask("GET /metrics.json HTTP/1.1\r\nHost: g\r\n\r\n").await;
        answer.json()[key].as_u64().unwrap_or_else(|| panic!("no {key}"))
    }

    /// Stops the Gateway and says how it ended.
    pub(crate) async fn stop(self) -> Served {
        let _ = self.stop.send(true);
        timeout(STUCK, self.serving).await.expect("an end").unwrap().unwrap()
    }

    pub(crate) fn begin_stop(&self) {
        self.stop.send(true).unwrap();
    }
}

/// A request with this mandate. A header `X-Request-Id` may be among `headers`.
pub(crate) fn request(method: &str, target: &str, mandate: &str, headers: &str) -> String {
    format!(
        "{method} {target} HTTP/1.1\r\nHost: gateway.test\r\nAuthorization: Bearer {mandate}\r\n\
         X-Caracal-Resource: resource://items\r\n{headers}\r\n"
    )
}
