//! Governed sessions and delegations: who is at work for whom, with what, and until when.
//!
//! An application starts a *session*, anchored to the authority record it acts on, and perhaps a child under it. One
//! session lends another a part of what it may do: a *delegation*, never wider than what it was cut from. Mandates are
//! minted through these by the STS; what the Coordinator owns is that they are true: that limits hold exactly, that no
//! circle and no widening ever commits, and that an end is the end of everything that hung on it.
//!
//! Each change is one commit of the store: the state, the zone's epoch where authority shrank, the messages for those
//! who verify elsewhere, the receipt of an idempotency key, and the management record. Either all of it is there or
//! nothing is, and a mint, which is a commit too, comes wholly before or wholly after (contract: coordinator.md §11,
//! README D4).
//!
//! - [`Coordinator`]: the service; [`CoordinatorConfig`]: its settings; [`ROUTES`]: its routes.
//! - One operation, one file: `start`, `terminate`, `suspension`, `lease`, `read_session`, `session_lists`, `delegate`,
//!   `revoke`. What is done without being asked is in `jobs`.
//! - `delegation_reads`: lists of delegations, and what hangs on one. `agent_services` and `invocations`: what agents ask of
//!   services. `verify`: what a mandate is worth, for those who can't verify it. `operations`: what operators watch.
//! - What falls with a session or an edge is [`caracal_cascade`]'s. `idempotency`: one key, at most one effect. `subject_proof`: who may
//!   act for a user. `evidence`: what is on record of it all.
//!
//! What must be absent here: narrowing, lineage and graph rules (they live in `caracal_authority`), SQL, the clock,
//! signing, and anything of another service.

mod agent_services;
mod auth;
mod canonical;
mod config;
mod delegate;
mod delegation_reads;
mod evidence;
mod facts;
mod front;
mod idempotency;
mod invocations;
mod jobs;
mod lease;
mod operations;
mod outage;
mod outbox;
mod overload;
mod page;
mod read_session;
mod revoke;
mod route;
mod schema;
mod session_lists;
mod start;
mod subject_proof;
mod suspension;
mod terminate;
mod verify;
mod wire;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::Request;
use caracal_crypto::chance;
use caracal_custody::VerificationKeys;
use caracal_http::admission::Gate;
use caracal_http::health::{Probe, Probes};
use caracal_http::rate::{RateLimit, SharedWindows};
use caracal_http::{Face, FreshId, Profile};
use caracal_ledger::{AnonymousDenials, Ledger};
use caracal_store::Store;
use tokio::sync::watch;

pub use config::CoordinatorConfig;
pub use jobs::{JobCounts, Jobs, Removed};
pub use route::ROUTES;

use evidence::FailureRecords;
use jobs::retention::Kept;
use operations::{CountedCache, KeyOutcomes};

/// Says what was removed by others so far.
type Removals = Box<dyn Fn() -> Removed + Send + Sync>;

/// The Coordinator: its router and its jobs over the capabilities it was given.
pub struct Coordinator {
    config: CoordinatorConfig,
    store: Store,
    keys: Arc<dyn VerificationKeys>,
    ledger: Ledger,
    denials: Arc<AnonymousDenials>,
    requests: RateLimit,
    probes: RateLimit,
    verifications: RateLimit,
    invocations: RateLimit,
    failures: FailureRecords,
    jobs: Jobs,
    removals: OnceLock<Removals>,
    outcomes: KeyOutcomes,
    counted: CountedCache,
    dependencies: Probes,
    gate: OnceLock<Arc<Gate>>,
    draining: AtomicBool,
}

impl Coordinator {
    /// Over the product state, the zones' keys, and the ledger. `denials` takes what callers are refused who proved
    /// nothing; whoever composes the services summarises it.
    pub fn new(
        config: CoordinatorConfig,
        store: Store,
        keys: Arc<dyn VerificationKeys>,
        ledger: Ledger,
        denials: Arc<AnonymousDenials>,
    ) -> Self {
        Self {
            requests: RateLimit::per_minute("coordinator:source", config.rate_limit_per_minute),
            probes: RateLimit::per_minute("coordinator:probe", config.ready_rate_limit_per_minute),
            verifications: RateLimit::per_minute("coordinator:verify", config.verify_rate_limit_per_minute),
            invocations: RateLimit::per_minute("coordinator:invocation", config.invocation_rate_limit_per_minute),
            config,
            store,
            keys,
            ledger,
            denials,
            failures: FailureRecords::default(),
            jobs: Jobs::default(),
            removals: OnceLock::new(),
            outcomes: KeyOutcomes::default(),
            counted: CountedCache::default(),
            dependencies: Probes::default(),
            gate: OnceLock::new(),
            draining: AtomicBool::new(false),
        }
    }

    /// Counts requests together with the other replicas: all but probes, which ask about this process.
    pub fn count_with(&self, windows: &Arc<dyn SharedWindows>) {
        for limit in [&self.requests, &self.verifications, &self.invocations] {
            limit.share(windows.clone());
        }
    }

    /// Where to ask what others in this process remove on the Coordinator's behalf. The first answer stays.
    pub fn count_removals_with(&self, removals: impl Fn() -> Removed + Send + Sync + 'static) {
        let _ = self.removals.set(Box::new(removals));
    }

    fn removed(&self) -> Removed {
        self.removals.get().map_or_else(Removed::default, |removals| removals())
    }

    /// What readiness looks at beside the store.
    pub fn probe_with(&self, probe: Arc<dyn Probe>) {
        self.dependencies.set(probe);
    }

    /// Every route of the contract that is built, behind the service's [`Face`]: request ids and error bodies included.
    /// Requests should carry [`caracal_http::PeerAddr`], as those of [`caracal_http::server`] do; without it all callers
    /// share one rate limit.
    pub fn router(self: Arc<Self>) -> Router {
        let fresh = FreshId::new(|| chance::uuid_v4().map(|id| id.to_string()).unwrap_or_default());
        let inner = Router::new().fallback(move |request: Request| front::serve(self.clone(), request));
        Router::new().fallback_service(Face::new(Profile::COORDINATOR, fresh).wrap(inner))
    }

    /// Answers readiness with 503 from now on: the first step of a shutdown.
    pub fn start_draining(&self) {
        self.draining.store(true, Ordering::SeqCst);
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// Job: writes down the failures of authenticated callers until `shutdown` turns true, then what is left of them.
    /// Signal it after the listener has ended, or the last ones are lost. Runs once; a second call returns at once.
    pub async fn run_failure_records(self: Arc<Self>, shutdown: watch::Receiver<bool>) {
        self.failures.run(&self.store, &self.ledger, shutdown).await;
    }

    /// Job: ends tasks whose time is up, with all that falls with them, until `shutdown` turns true.
    pub async fn run_ttl_sweeper(self: Arc<Self>, shutdown: watch::Receiver<bool>) {
        let (store, batch, counts) = (&self.store, self.config.sweep_batch, &self.jobs.ttl);
        let once = || jobs::ttl::sweep(store, batch, counts);
        jobs::every("ttl-sweeper", self.config.ttl_sweep_interval, counts, shutdown, once).await;
    }

    /// Job: suspends services whose lease was missed, with what runs below them, until `shutdown` turns true.
    pub async fn run_lease_sweeper(self: Arc<Self>, shutdown: watch::Receiver<bool>) {
        let (store, batch, counts) = (&self.store, self.config.sweep_batch, &self.jobs.leases);
        let once = || jobs::leases::sweep(store, batch, counts);
        jobs::every("service-lease-sweeper", self.config.lease_sweep_interval, counts, shutdown, once).await;
    }

    /// Job: ends attempts of invocations whose deadline has passed, and what nobody began in time, until `shutdown` turns
    /// true. For one process at a time.
    pub async fn run_invocation_deadlines(self: Arc<Self>, shutdown: watch::Receiver<bool>) {
        let (store, batch, counts) = (&self.store, self.config.sweep_batch, &self.jobs.deadlines);
        let waits = self.config.pending_invocations;
        let once = || jobs::deadlines::enforce(store, waits, batch, counts);
        jobs::every("invocation-deadlines", self.config.deadline_sweep_interval, counts, shutdown, once).await;
    }

    /// Job: marks delegations that lapsed and removes what ended long ago, until `shutdown` turns true.
    pub async fn run_retention(self: Arc<Self>, shutdown: watch::Receiver<bool>) {
        let (store, counts) = (&self.store, &self.jobs.retention);
        let kept = Kept {
            edges: self.config.delegation_retention,
            sessions: self.config.session_retention,
            batch: self.config.retention_batch,
        };
        let once = || jobs::retention::clean(store, kept, counts);
        jobs::every("retention", self.config.retention_interval, counts, shutdown, once).await;
    }

    /// Job: gives records of heartbeats their places in the chain, until `shutdown` turns true.
    pub async fn run_heartbeat_records(self: Arc<Self>, shutdown: watch::Receiver<bool>) {
        let (store, counts) = (&self.store, &self.jobs.records);
        let once = || jobs::records::chain(store, &self.ledger, counts);
        jobs::every("heartbeat-records", self.config.record_interval, counts, shutdown, once).await;
    }

    /// What the jobs of this process did so far.
    pub fn jobs(&self) -> &Jobs {
        &self.jobs
    }
}

/// Waits for the signal to stop, or for whoever could give it to be gone.
async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|stop| *stop).await;
}
