//! The service: its settings, what it stands on, and its router.

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::routing::{MethodFilter, get, on};
use caracal_authority::Timestamp;
use caracal_broker::Broker;
use caracal_crypto::SecretText;
use caracal_crypto::chance::{uuid_v4, uuid_v7};
use caracal_crypto::client_secret::SecretVerifier;
use caracal_crypto::hmac::{HmacKey, KeyError};
use caracal_custody::SealedSecrets;
use caracal_http::egress::{GuardedConnector, SimpleClient};
use caracal_http::health::{Probe, Probes};
use caracal_http::rate::SharedWindows;
use caracal_http::{Face, FreshId, Problem, Profile};
use caracal_ledger::{AnonymousDenials, Ledger};
use caracal_store::Store;
use tokio::sync::watch;

use crate::evidence::Recorder;
use crate::limits::Limits;
use crate::notifications::Tally;
use crate::problem::Refusal;
use crate::routes::ROUTES;
use crate::runtime::PolicyRuntime;
use crate::token_uses::TokenUses;
use crate::{account, gate, health, metrics, openapi};

/// Settings, with the contract's defaults (admin-api.md §13).
pub struct AdminConfig {
    /// `CARACAL_ADMIN_TOKEN`: any text. Without it no token is seeded, and console accounts are not bound.
    pub bootstrap_token: Option<SecretText>,
    /// `API_BODY_LIMIT_BYTES`: largest body. 1 MiB.
    pub body_limit: usize,
    /// `REQUEST_TIMEOUT_MS`: how long a body may take to arrive. 30 s.
    pub body_deadline: Duration,
    /// `API_V1_RATE_LIMIT_PER_MIN`: requests per address, and requests per token; 0 switches both limits off. 600.
    pub requests_per_minute: u32,
    /// `ADMIN_AUTH_FAIL_LIMIT_PER_MIN`: failed authentications per address; 0 switches the limit off. 60.
    pub auth_failures_per_minute: u32,
    /// `READY_RATE_LIMIT_PER_MIN`: readiness probes per address; 0 switches the limit off. 120.
    pub ready_per_minute: u32,
    /// `API_MAX_RESOURCES_PER_ZONE`: resources that are not archived; 0 switches the limit off. 100,000.
    pub max_resources_per_zone: u32,
    /// `STS_MINT_RATE_LIMIT_PER_MIN`: the highest limit of mints that operators can set. 1,000.
    pub mint_rate_ceiling: u32,
    /// `AUDIT_RETENTION_DAYS`: the most days of evidence that operators can have kept. 365.
    pub retention_ceiling: u32,
    /// `ADMIN_TOKEN_LAST_USED_DEBOUNCE_SEC`: how long a token's last use may be out of date. 60 s.
    pub last_used_debounce: Duration,
    /// `CONTROL_AUDIENCE`: the identifier of the control resource. `caracal-control`.
    pub control_audience: String,
    /// `STS_ISSUER_URL`, else `STS_URL`: who issues mandates. Without it no upstream can be probed. None.
    pub issuer: Option<String>,
    /// `METRICS_BEARER`: who may read `/metrics`.
    pub metrics_bearer: Option<SecretText>,
    /// Whether metrics are open without a bearer: in dev only.
    pub open_metrics: bool,
    /// Whether the description of the API is served at `/docs`: in dev only, unless `API_ENABLE_DOCS` says no.
    pub docs: bool,
    /// `TRUST_PROXY`: whether the last address of `X-Forwarded-For`, which the proxy before us wrote, is the caller's.
    /// Only behind such a proxy: otherwise any caller chooses the address it is counted under. Off.
    pub trust_proxy: bool,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self {
            bootstrap_token: None,
            body_limit: 1024 * 1024,
            body_deadline: Duration::from_secs(30),
            requests_per_minute: 600,
            auth_failures_per_minute: 60,
            ready_per_minute: 120,
            max_resources_per_zone: 100_000,
            mint_rate_ceiling: 1_000,
            retention_ceiling: 365,
            last_used_debounce: Duration::from_secs(60),
            control_audience: "caracal-control".to_owned(),
            issuer: None,
            metrics_bearer: None,
            open_metrics: false,
            docs: false,
            trust_proxy: false,
        }
    }
}

/// What the service stands on.
pub struct Capabilities {
    /// Product state.
    pub store: Store,
    /// Where evidence goes.
    pub ledger: Ledger,
    /// Where denials of callers are counted that proved nothing.
    pub denials: Arc<AnonymousDenials>,
    /// Custody of secrets.
    pub sealed: SealedSecrets,
    /// What speaks to providers.
    pub broker: Arc<Broker>,
    /// The way out, for notifications.
    pub egress: GuardedConnector,
    /// Hashes client secrets; the same instance that verifies them, or the memory budget is none.
    pub secrets: Arc<SecretVerifier>,
    /// Keys the digests of admin tokens. It has to outlive the process, or every stored token is unknown after it.
    pub token_key: HmacKey,
    /// What the STS decides by. Without it, activation status says `not_configured`.
    pub runtime: Option<Arc<dyn PolicyRuntime>>,
}

/// The service can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The admin token can't serve as a key for account assertions.
    #[error("the admin token can't be used as a key")]
    AccountKey(#[from] KeyError),
}

/// The management API.
pub struct Admin {
    pub(crate) config: AdminConfig,
    pub(crate) store: Store,
    pub(crate) ledger: Ledger,
    pub(crate) denials: Arc<AnonymousDenials>,
    pub(crate) sealed: SealedSecrets,
    pub(crate) broker: Arc<Broker>,
    pub(crate) outgoing: SimpleClient,
    pub(crate) secrets: Arc<SecretVerifier>,
    pub(crate) token_key: HmacKey,
    pub(crate) runtime: Option<Arc<dyn PolicyRuntime>>,
    pub(crate) account_key: Option<HmacKey>,
    pub(crate) limits: Limits,
    pub(crate) recorder: Recorder,
    pub(crate) token_uses: TokenUses,
    pub(crate) notified: Tally,
    pub(crate) fresh_id: FreshId,
    pub(crate) probes: Probes,
    draining: AtomicBool,
}

impl Admin {
    /// What readiness looks at beside the store.
    pub fn probe_with(&self, probe: Arc<dyn Probe>) {
        self.probes.set(probe);
    }

    /// Counts requests together with the other replicas.
    pub fn count_with(&self, windows: &Arc<dyn SharedWindows>) {
        self.limits.share(windows);
    }

    /// Sets the service up. Nothing is stored yet: see [`Admin::seed`].
    pub fn new(config: AdminConfig, capabilities: Capabilities) -> Result<Self, SetupError> {
        let account_key = config.bootstrap_token.as_ref().map(account::key).transpose()?;
        let Capabilities { store, ledger, denials, sealed, broker, egress, secrets, token_key, runtime } = capabilities;
        let limits = Limits::new(&config);
        let token_uses = TokenUses::new(config.last_used_debounce);
        // An id that can't be drawn is replaced by the face; see `FreshId::next`.
        let fresh_id = FreshId::new(|| uuid_v4().map(|id| id.to_string()).unwrap_or_default());
        Ok(Self {
            config,
            store,
            ledger,
            denials,
            sealed,
            broker,
            outgoing: SimpleClient::new(egress),
            secrets,
            token_key,
            runtime,
            account_key,
            limits,
            recorder: Recorder::new(),
            token_uses,
            notified: Tally::default(),
            fresh_id,
            probes: Probes::default(),
            draining: AtomicBool::new(false),
        })
    }

    /// Everything this service answers, request ids and error bodies included. Serve it with `PeerAddr` as an extension
    /// of every request, or all callers share one limit.
    pub fn router(self: Arc<Self>) -> Router {
        let mut inner = Router::new();
        for route in ROUTES {
            let admin = self.clone();
            let serve = move |request: Request| gate::serve(admin.clone(), route, request);
            // Every method of the table is one the router knows; the coverage test asks for each route.
            if let Ok(filter) = MethodFilter::try_from(route.method.clone()) {
                inner = inner.route(route.path, on(filter, serve));
            }
        }
        let (health, ready) = (health::alive, self.clone());
        inner = inner.route("/health", get(health));
        inner = inner.route("/ready", get(move |request: Request| health::ready(ready.clone(), request)));
        let metrics = self.clone();
        inner = inner.route("/metrics", get(move |request: Request| metrics::metrics(metrics.clone(), request)));
        if self.config.docs {
            inner = inner.route("/docs", get(openapi::as_page)).route("/docs/openapi.json", get(openapi::as_json));
        }
        let (unknown, unallowed) = (self.clone(), self.clone());
        inner = inner
            .fallback(move |request: Request| gate::unmatched(unknown.clone(), request))
            .method_not_allowed_fallback(move |request: Request| gate::unmatched(unallowed.clone(), request));
        let face = Face::new(Profile::ADMIN, self.fresh_id.clone());
        Router::new().fallback_service(face.wrap(inner))
    }

    /// Records refusals of known callers, and when tokens were used, until `shutdown` turns true, then what is left.
    pub async fn run_refusal_records(&self, shutdown: watch::Receiver<bool>) {
        let refusals = self.recorder.run(&self.store, shutdown.clone());
        tokio::join!(refusals, self.token_uses.run(&self.store, shutdown));
    }

    /// From now on `/ready` says that the service is going down.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// Whether `identifier` names the control resource.
    pub(crate) fn is_control(&self, identifier: &str) -> bool {
        identifier == self.config.control_audience
    }
}

/// A fresh id (UUIDv7) for something created at `now`.
pub(crate) fn fresh<T: FromStr>(now: Timestamp) -> Result<T, Refusal> {
    let id = uuid_v7(now)?.to_string();
    id.parse().map_err(|_| Problem::internal().into())
}
