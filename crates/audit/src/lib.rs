//! The evidence service (contract: audit-and-streams.md §4, §5, §7): evidence in chain order for those who archive it, the
//! frames that clients bring, the sweep that verifies every chain while the system runs, the export to an archive, and the end
//! of what is too old.
//!
//! Absent on purpose: evidence of what others do (every service writes that itself, in its own commits), and anything that
//! could change a chain. What this service appends are events that clients signed and incidents; what it removes goes
//! behind an anchor.

mod dlq;
mod export;
mod gauges;
mod incidents;
mod ingest;
mod metrics;
mod retention;
mod routes;
mod search;
mod sweep;

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use caracal_crypto::SecretText;
use caracal_http::health::{Probe, Probes};
use caracal_http::limits::Backoff;
use caracal_ledger::{AnonymousDenials, Begin, Ledger, LedgerReport, Marks, SweepMarks};
use caracal_store::Store;
use caracal_stream::Streams;
use tokio::time::Instant;

pub use export::{
    Archive, ArchiveError, DirectoryArchive, EventsFile, Object, OnDemandError, Positions, Put, Written, write_events,
};
pub use gauges::Thresholds;
pub use ingest::FrameKeys;
use metrics::Metrics;
use sweep::Sweeps;

/// Settings of the evidence service.
pub struct AuditConfig {
    /// `AUDIT_ADMIN_TOKEN`: opens the search; without it, or when it is empty, the route does not exist.
    pub admin_token: Option<SecretText>,
    /// `METRICS_BEARER`; empty is none.
    pub metrics_bearer: Option<SecretText>,
    /// Whether metrics are open without a bearer: in dev only.
    pub open_metrics: bool,
    /// `TRUST_PROXY`: whether callers are told apart by what the proxy before us wrote into `X-Forwarded-For`.
    pub trust_proxy: bool,
    /// `AUDIT_RETENTION_DAYS`: for how many days evidence is kept at most.
    pub retention_days: u32,
    /// Whether trees are kept of the chains: then nothing is removed that is in none yet.
    pub keeps_trees: bool,
    /// `HOSTNAME`: by which name this process reads frames. No other process may have it.
    pub consumer_name: String,
    /// `AUDIT_MAX_DELIVERIES`: how often a frame is handed out that nobody comes to an end with.
    pub max_deliveries: u64,
    /// `AUDIT_CLAIM_IDLE_SECS`: for how long a frame may be held.
    pub claim_idle: Duration,
    /// From how much on the service is not ready.
    pub thresholds: Thresholds,
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self {
            admin_token: None,
            metrics_bearer: None,
            open_metrics: false,
            trust_proxy: false,
            retention_days: 365,
            keeps_trees: false,
            consumer_name: "audit-worker-0".to_owned(),
            max_deliveries: 8,
            claim_idle: Duration::from_secs(30),
            thresholds: Thresholds::default(),
        }
    }
}

/// Verifies every chain of the store against the heads kept outside it. Blocks for as long as that takes; the sweep
/// gives it a thread of its own.
pub trait Verifier: Send + Sync + 'static {
    /// The verdict, or why there is none. Events that were marked have to be where they were.
    fn verify(&self, marks: &Marks, begin: Begin) -> Result<LedgerReport, String>;
}

/// What the evidence service is made of.
pub struct Capabilities {
    /// The store whose evidence it is.
    pub store: Store,
    /// The way into the chains.
    pub ledger: Ledger,
    /// Counts callers without credential.
    pub denials: Arc<AnonymousDenials>,
    /// What the sweep runs.
    pub verifier: Arc<dyn Verifier>,
    /// Where the sweep keeps in mind what it saw; without, each pass goes over everything.
    pub marks: Option<SweepMarks>,
    /// Where clients' frames come from.
    pub streams: Streams,
    /// What they are signed with: `AUDIT_HMAC_KEY`.
    pub frame_keys: FrameKeys,
    /// Where evidence is exported to, if it is.
    pub archive: Option<Arc<dyn Archive>>,
}

/// The evidence service.
pub struct Audit {
    config: AuditConfig,
    store: Store,
    ledger: Ledger,
    denials: Arc<AnonymousDenials>,
    verifier: Arc<dyn Verifier>,
    marks: Option<SweepMarks>,
    streams: Streams,
    frame_keys: FrameKeys,
    archive: Option<Arc<dyn Archive>>,
    /// Who guesses the token is made to wait: it opens every zone's evidence, and the Admin API's limits do not cover
    /// this port.
    guesses: Backoff,
    sweeps: Sweeps,
    metrics: Metrics,
    /// Whether frames could be read when that was last tried.
    consuming: AtomicBool,
    /// Until when it counts that a frame could not be put aside.
    kept_until: Mutex<Option<Instant>>,
    probes: Probes,
}

impl Audit {
    /// Over the store's evidence.
    pub fn new(mut config: AuditConfig, capabilities: Capabilities) -> Self {
        // Compared with nothing, an empty secret would be right.
        config.admin_token = config.admin_token.filter(|token| !token.expose().is_empty());
        config.metrics_bearer = config.metrics_bearer.filter(|bearer| !bearer.expose().is_empty());
        let Capabilities { store, ledger, denials, verifier, marks, streams, frame_keys, archive } = capabilities;
        Self {
            config,
            store,
            ledger,
            denials,
            verifier,
            marks,
            streams,
            frame_keys,
            archive,
            guesses: Backoff::for_credentials(),
            sweeps: Sweeps::default(),
            metrics: Metrics::default(),
            consuming: AtomicBool::new(true),
            kept_until: Mutex::new(None),
            probes: Probes::default(),
        }
    }

    /// Whether there is an archive.
    pub fn exports(&self) -> bool {
        self.archive.is_some()
    }

    /// What readiness looks at beside the store.
    pub fn probe_with(&self, probe: Arc<dyn Probe>) {
        self.probes.set(probe);
    }
}
