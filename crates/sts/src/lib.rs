//! The token service: it decides, and signs what it decided.
//!
//! - [`exchange`]: the exchange from request to mandate. Read this first.
//! - `request`: every malformed form ends there. `client`, `gateway_auth`: who is asking. `rate`, `guesses`: how often.
//! - `facts`, `policy`: what a decision knows and whom it asks. The decision itself is `caracal_authority::exchange`.
//! - `federation`: users whom a zone's identity provider vouches for.
//! - `directive`: how a Gateway reaches an upstream. `evidence`: what is recorded. `commit`: what becomes durable, and
//!   is signed only then.
//! - `approvals`: what waits for a human, who asks after it, and who decides it.
//! - `standards`: what OAuth clients that know nothing of us expect; nothing there grants what an exchange would not.
//! - `launch`: what a workload is started with. `credential`: what is made of a provider's secret, for it as for a Gateway.
//! - `rotate`: a zone's next signing key, for operators.
//! - [`loads`]: what this replica has loaded of each zone. `policy_routes`: what other processes may ask of policy.
//! - `routes`, `wire`, `metrics`: the HTTP face. `overload`: what of it is turned away when there is too much.
//!
//! Credentials of providers come from `caracal_broker`, once a decision has granted them.
//!
//! Absent on purpose: sessions and delegations are read here, never changed; no upstream is ever called, and nobody
//! else but identity providers, for their keys; nothing that grants authority is remembered between requests, but for
//! bundles and our own keys, which never change under their hash, and identity providers' keys, for ten minutes.

mod approvals;
mod client;
mod commit;
mod credential;
mod directive;
mod evidence;
pub mod exchange;
mod facts;
mod federation;
mod gateway_auth;
pub mod guesses;
mod launch;
pub mod loads;
mod metrics;
mod overload;
mod policy;
mod policy_routes;
mod public_reads;
mod rate;
mod request;
mod rotate;
mod routes;
mod standards;
mod wire;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use caracal_authority::ZoneId;
use caracal_broker::Broker;
use caracal_crypto::SecretText;
use caracal_crypto::client_secret::SecretVerifier;
use caracal_crypto::hmac::HmacKey;
use caracal_custody::{SealedSecrets, SigningKeys};
use caracal_http::admission::Gate;
use caracal_http::egress::GuardedConnector;
use caracal_http::health::{Probe, Probes};
use caracal_http::limits::FixedWindow;
use caracal_ledger::{AnonymousDenials, Ledger};
use caracal_policy::Verdict;
use caracal_store::{Message, Store, StoreError};
use tokio::sync::{Semaphore, watch};

use approvals::waiters::Waiters;
use federation::IssuerKeys;
use metrics::Metrics;
use policy::PolicyRuntime;
use public_reads::PublicReads;
use rate::WorkingLimit;

pub use approvals::waiters::Waiting;
pub use directive::Directive;
pub use exchange::{GatewayCall, Granted};
pub use guesses::{CountUnavailable, Guessed, Guesser, Guesses, ProcessGuesses};
pub use launch::{LaunchKey, LaunchRate, LaunchStep, ProcessLaunchRate};
pub use policy::{NotSimulated, Simulation};
pub use rate::{MintKey, MintRate, ProcessMintRate};
pub use wire::{Decision, ExchangeError};

/// Settings of the token service.
pub struct StsConfig {
    /// `ISSUER_URL`, verbatim: `iss` of every mandate, `aud` of those presented here.
    pub issuer: String,
    /// `CONTROL_AUDIENCE`: the identifier only control keys may ask for.
    pub control_audience: String,
    /// `STS_MINT_RATE_LIMIT_PER_MIN`, per zone, resource and application. Operators can set a lower one at run time.
    pub mint_rate_limit_per_min: u32,
    /// `STS_PUBLIC_RATE_LIMIT_PER_MIN`: key sets, and approvals, that one address may ask for in a minute.
    pub public_rate_limit_per_min: u32,
    /// `GATEWAY_STS_HMAC_KEY`: proves a Gateway in another process. Without it none is believed.
    pub gateway_key: Option<Arc<HmacKey>>,
    /// `STS_ADMIN_TOKEN`: the operators' bearer. Without it their routes are not there.
    pub admin_token: Option<SecretText>,
    /// `METRICS_BEARER`.
    pub metrics_bearer: Option<SecretText>,
    /// Whether metrics are open without a bearer: in dev only.
    pub open_metrics: bool,
    /// `TRUST_PROXY`: whether guesses are counted for the caller that the proxy before us names.
    pub trust_proxy: bool,
    /// How long a request's body may take to arrive.
    pub body_deadline: Duration,
    /// How those wait who ask after an approval.
    pub waiting: Waiting,
    /// How long an identity provider's keys may take to arrive.
    pub issuer_keys_deadline: Duration,
}

impl StsConfig {
    /// The contract's settings for an issuer.
    pub fn for_issuer(issuer: impl Into<String>) -> Self {
        Self {
            issuer: issuer.into(),
            control_audience: "caracal-control".to_owned(),
            mint_rate_limit_per_min: 1_000,
            public_rate_limit_per_min: 6_000,
            gateway_key: None,
            admin_token: None,
            metrics_bearer: None,
            open_metrics: false,
            trust_proxy: false,
            body_deadline: Duration::from_secs(5),
            waiting: Waiting::default(),
            issuer_keys_deadline: Duration::from_secs(5),
        }
    }
}

/// What the token service works with.
pub struct Capabilities {
    /// Product state.
    pub store: Store,
    /// Zone signing keys.
    pub keys: Arc<SigningKeys>,
    /// Provider secrets.
    pub secrets: SealedSecrets,
    /// Evidence.
    pub ledger: Arc<Ledger>,
    /// Counts of those who proved nothing.
    pub denials: Arc<AnonymousDenials>,
    /// Client secrets, inside the process's one budget.
    pub verifier: Arc<SecretVerifier>,
    /// The counter of mints.
    pub mint_rate: Arc<dyn MintRate>,
    /// The counter of wrong client secrets.
    pub guesses: Arc<dyn Guesses>,
    /// The counter of what workloads ask for.
    pub launch_rate: Arc<dyn LaunchRate>,
    /// The way out, to the keys of identity providers.
    pub egress: GuardedConnector,
    /// What asks providers for credentials.
    pub broker: Arc<Broker>,
}

/// The token service.
pub struct Sts {
    config: StsConfig,
    store: Store,
    keys: Arc<SigningKeys>,
    secrets: SealedSecrets,
    ledger: Arc<Ledger>,
    denials: Arc<AnonymousDenials>,
    verifier: Arc<SecretVerifier>,
    policy: PolicyRuntime,
    mint_rate: Arc<dyn MintRate>,
    mint_limit: WorkingLimit,
    broker: Arc<Broker>,
    guesses: Arc<dyn Guesses>,
    launch_rate: Arc<dyn LaunchRate>,
    /// Wrong secrets of workloads that are on record by name, one a minute of each.
    named_failures: FixedWindow,
    issuer_keys: IssuerKeys,
    metrics: Metrics,
    probes: Probes,
    gate: OnceLock<Arc<Gate>>,
    waiters: Arc<Waiters>,
    public_reads: PublicReads,
    /// How often each application asked for everything that is revoked.
    snapshots: FixedWindow,
    simulations: Semaphore,
}

impl Sts {
    /// A token service; nothing is opened or started.
    pub fn new(config: StsConfig, capabilities: Capabilities) -> Self {
        let Capabilities {
            store,
            keys,
            secrets,
            ledger,
            denials,
            verifier,
            mint_rate,
            guesses,
            launch_rate,
            egress,
            broker,
        } = capabilities;
        let mint_limit = WorkingLimit::below(config.mint_rate_limit_per_min);
        let waiters = Waiters::over(store.clone(), config.waiting);
        let policy = PolicyRuntime::over(&store);
        let issuer_keys = IssuerKeys::new(egress, config.issuer_keys_deadline);
        Self {
            config,
            store,
            keys,
            secrets,
            ledger,
            denials,
            verifier,
            policy,
            mint_rate,
            mint_limit,
            broker,
            guesses,
            launch_rate,
            named_failures: FixedWindow::per_minute(),
            issuer_keys,
            metrics: Metrics::default(),
            probes: Probes::default(),
            gate: OnceLock::new(),
            waiters,
            public_reads: PublicReads::default(),
            snapshots: FixedWindow::per_minute(),
            simulations: Semaphore::new(policy_routes::simulate::AT_ONCE),
        }
    }

    /// What readiness looks at beside the store.
    pub fn probe_with(&self, probe: Arc<dyn Probe>) {
        self.probes.set(probe);
    }

    /// What documents that need not be active would decide, with all bounds of the zone. Changes and counts nothing.
    pub async fn simulate(&self, zone: &ZoneId, simulation: Simulation) -> Result<Verdict, NotSimulated> {
        self.policy.simulate(zone.as_str(), simulation).await
    }

    /// Notes what another process committed: who waits here for an approval that was decided there is told at once, and a
    /// zone in which something else was activated is looked at.
    pub fn hear(&self, message: &Message) {
        self.waiters.hear(message);
        self.policy.loads.hear(message);
    }

    /// From when `stopping` turns true, whoever waits for an approval is answered at once. Called once, before serving.
    pub fn end_waits_on(&self, stopping: watch::Receiver<bool>) {
        self.waiters.end_on(stopping);
    }

    /// Whether exchanges can be expected to succeed.
    pub async fn check(&self) -> Result<(), StoreError> {
        self.store.check().await
    }
}
