//! The services of this process, made of an opened engine.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use caracal_admin::{Admin, AdminConfig};
use caracal_audit::{Archive, Audit, AuditConfig, DirectoryArchive, FrameKeys, Verifier};
use caracal_authority::Timestamp;
use caracal_broker::Broker;
use caracal_broker::backends::Bucket;
use caracal_coordinator::{Coordinator, CoordinatorConfig, Removed};
use caracal_crypto::SecretText;
use caracal_crypto::chance;
use caracal_crypto::client_secret::SecretVerifier;
use caracal_crypto::hmac::HmacKey;
use caracal_custody::rewrap::Rewrap;
use caracal_custody::{KeySets, LogKeys, SealedSecrets, SigningKeys, VerificationKeys, Withdrawals};
use caracal_gateway::{Exchange, FeedCounts, Gateway, GatewayConfig, RemoteSts, RemoteStsConfig};
use caracal_http::FreshId;
use caracal_http::admission::{Admission, Gate};
use caracal_http::egress::{AddressPolicy, GuardedConnector, OperatorClient, PrivateHosts, SystemResolver, TlsTrust};
use caracal_http::health::Probe;
use caracal_http::rate::SharedWindows;
use caracal_http::server::{self, Ended, HeadFault, Limits, ServerTls, Transport};
use caracal_ledger::transparency::{TransparencyLog, checkpoint};
use caracal_ledger::{AnonymousDenials, ChainKey, Ledger, Spool, SweepMarks};
use caracal_store::{Message, Store, StoreError};
use caracal_stream::{
    APPROVALS, Counters, DELEGATIONS, KEYS, POLICIES, REVOCATIONS, Redis, Rejection, Relay, RelayOptions, Streams, Tail,
};
use caracal_sts::{Capabilities, Guesses, LaunchRate, MintRate, ProcessGuesses, ProcessMintRate, Sts, StsConfig};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::descriptors::Shares;
use super::listeners::Listeners;
use super::opened::Opened;
use super::{StartError, client_certificates, copy, secrets};
use crate::adapters::{
    BucketArchive, InProcessSts, OfflineVerifier, SharedVerifier, StoreTime, StreamsProbe, StsPolicyRuntime,
};
use crate::kept_counters::KeptRequests;
use crate::settings::{ExportSettings, KeyMaterial, Mode, Service, Settings};
use crate::shared_counters::{SharedGuesses, SharedLaunchRate, SharedMintRate, SharedRequests};
use crate::{elected, housekeeping, log_growth, rewrapping, witness};

/// What every service is made of.
struct Parts {
    store: Store,
    ledger: Ledger,
    denials: Arc<AnonymousDenials>,
    signing_keys: Arc<SigningKeys>,
    sealed: SealedSecrets,
    verifier: Arc<SecretVerifier>,
    open_metrics: bool,
    counts: Counts,
    /// The one way out of this process: upstreams, identity providers and token endpoints alike.
    egress: GuardedConnector,
    broker: Arc<Broker>,
}

/// The way to other processes.
struct Shared {
    redis: Arc<Redis>,
    key: Arc<HmacKey>,
}

/// The services that this process runs, and what they share.
pub(super) struct Services {
    store: Store,
    ledger: Ledger,
    denials: Arc<AnonymousDenials>,
    pub(super) admin: Option<Arc<Admin>>,
    sts: Option<Arc<Sts>>,
    pub(super) gateway: Option<Arc<Gateway>>,
    audit: Option<Arc<Audit>>,
    pub(super) coordinator: Option<Arc<Coordinator>>,
    shared: Option<Shared>,
    /// Where no others share the counts of requests.
    requests: Option<Arc<KeptRequests>>,
    relay: Relay,
    /// Idempotency receipts that this process forgot.
    forgotten: Arc<AtomicU64>,
    withdrawals: Arc<Withdrawals>,
    /// Where what lies there is sealed under another key, and no command can mend that beside this process.
    rewrap: Option<Rewrap>,
    /// Where log keys can be opened.
    log: Option<Arc<TransparencyLog>>,
    policy_poll: Duration,
    shares: Shares,
}

/// What the STS counts, with the other replicas or alone.
struct Counts {
    mint_rate: Arc<dyn MintRate>,
    guesses: Arc<dyn Guesses>,
    launch_rate: Arc<dyn LaunchRate>,
}

impl Counts {
    fn with_others(redis: &Arc<Redis>) -> Self {
        let counters = || Counters::new(redis.clone());
        Self {
            mint_rate: Arc::new(SharedMintRate(counters())),
            guesses: Arc::new(SharedGuesses(counters())),
            launch_rate: Arc::new(SharedLaunchRate(counters())),
        }
    }

    /// Each goes on where the process that had the store before left off.
    async fn alone(store: &Store, requests: Arc<KeptRequests>) -> Result<Self, StoreError> {
        Ok(Self {
            mint_rate: Arc::new(ProcessMintRate::resumed(store).await?),
            guesses: Arc::new(ProcessGuesses::resumed(store.clone()).await?),
            launch_rate: requests,
        })
    }
}

impl Services {
    pub(super) async fn compose(
        settings: &Settings,
        opened: Opened,
        issuer: String,
        shares: Shares,
    ) -> Result<Self, StartError> {
        let Opened { store, keys, heads, heads_dir, audit_key_since, shared } = opened;
        let audit_key: Arc<dyn ChainKey> = keys.audit.clone();
        let ledger = Ledger::new(Some(audit_key.clone()));
        let denials = Arc::new(AnonymousDenials::default());
        let (egress, sealed) =
            (egress(settings)?, secrets::placed(settings, &store, SealedSecrets::new(keys.kek.clone())));
        let broker = Arc::new(Broker::new(caracal_broker::Capabilities {
            connector: egress.clone(),
            store: store.clone(),
            sealed: sealed.clone(),
            longest_life: settings.max_grant_ttl,
        }));
        let (counts, requests) = match &shared {
            Some((redis, _)) => (Counts::with_others(redis), None),
            None => {
                let kept = Arc::new(KeptRequests::resumed(store.clone()).await.map_err(StartError::Count)?);
                (Counts::alone(&store, kept.clone()).await.map_err(StartError::Count)?, Some(kept))
            }
        };
        let parts = Parts {
            store: store.clone(),
            ledger: ledger.clone(),
            denials: denials.clone(),
            signing_keys: Arc::new(SigningKeys::new(store.clone(), keys.kek.clone())),
            sealed,
            verifier: Arc::new(SecretVerifier::new(settings.secret_verify_concurrency)),
            open_metrics: settings.mode == Mode::Dev,
            egress,
            broker,
            counts,
        };
        // The Admin API says what decides in a zone, and asks the code that decides, also where no STS is served.
        let decides = settings.runs(Service::Sts) || settings.runs(Service::Api);
        let sts = decides.then(|| Arc::new(sts(settings, &parts, &keys, &issuer)));
        let remote = remote_sts(settings, &keys, &store)?;
        let verification: Arc<dyn VerificationKeys> = match &remote {
            Some(remote) if !settings.holds_kek() => {
                Arc::new(KeySets::new(remote.clone(), Arc::new(StoreTime(store.clone()))))
            }
            _ => parts.signing_keys.clone(),
        };
        let rewraps = shared.is_none() && keys.kek.has_previous();
        let rewrap = rewraps.then(|| Rewrap::new(keys.kek.clone(), parts.sealed.backend().cloned()));
        let log = settings.holds_kek().then(|| {
            let keys = LogKeys::new(store.clone(), keys.kek.clone(), checkpoint::key_names);
            Arc::new(TransparencyLog::new(store.clone(), Arc::new(log_growth::Signers(keys))))
        });
        let withdrawals = Arc::new(Withdrawals::new(vec![parts.signing_keys.clone(), verification.clone()]));
        store.observe(withdrawals.clone());
        let beside = sts.clone().filter(|_| settings.runs(Service::Sts));
        let exchange = beside.map(|sts| -> Arc<dyn Exchange> { Arc::new(InProcessSts(sts)) });
        let exchange = exchange.or_else(|| remote.map(|remote| -> Arc<dyn Exchange> { remote }));
        let gateway = match (settings.runs(Service::Gateway), exchange) {
            (true, Some(exchange)) => {
                let directory = settings.gateway.replay_dir.clone().unwrap_or_else(|| heads_dir.join("audit-replay"));
                let spool = Spool::open(directory.clone(), audit_key.clone()).map_err(|error| {
                    StartError::Setting(format!("AUDIT_REPLAY_DIR: can't make `{}`: {error}", directory.display()))
                })?;
                Some(gateway(settings, &keys, &parts, verification.clone(), (exchange, Arc::new(spool)), shares)?)
            }
            (true, None) => {
                return Err(StartError::Setting("STS_URL is needed by a gateway without an sts".to_owned()));
            }
            (false, _) => None,
        };
        let streams = match &shared {
            Some((redis, _)) => Streams::on_redis(redis.clone(), keys.streams.clone()),
            None => Streams::in_store(store.clone(), keys.streams.clone()),
        };
        let audit = if settings.runs(Service::Audit) {
            // On an embedded store heads without any entry are what an operator put there to go on knowingly. A process
            // beside a server may never have written anything.
            let forget = shared.is_none() && heads.recorded().is_empty();
            let marks = SweepMarks::open(&heads_dir, audit_key.clone(), forget)?;
            let verifier: Arc<dyn Verifier> = match &shared {
                None => Arc::new(OfflineVerifier { data_dir: settings.data_dir.clone(), key: audit_key }),
                Some(_) => {
                    Arc::new(SharedVerifier { store: store.clone(), heads_dir: heads_dir.clone(), key: audit_key })
                }
            };
            let archive = archive(settings, &store)?;
            Some(Arc::new(audit(
                settings,
                &parts,
                &keys,
                (verifier, marks, streams.clone()),
                (archive, audit_key_since),
            )))
        } else {
            None
        };
        let relaying = shared.as_ref().map_or_else(RelayOptions::default, |(_, tuning)| tuning.relay);
        let relay = Relay::new(store.clone(), streams, relaying);
        let shared = shared.map(|(redis, _)| Shared { redis, key: keys.streams.clone() });
        let runtime = sts.clone().filter(|_| settings.runs(Service::Api));
        let metrics_bearer = keys.metrics_bearer.as_ref().map(copy);
        let admin_keys =
            AdminKeys { token: copy(&keys.admin_token), digests: keys.admin_token_digests, metrics_bearer };
        let admin = match runtime {
            Some(runtime) => Some(Arc::new(admin(settings, &parts, admin_keys, (runtime, issuer.clone()))?)),
            None => None,
        };
        let coordinator = settings.runs(Service::Coordinator).then(|| {
            let own = CoordinatorKeys {
                token: keys.coordinator_token,
                metrics_bearer: keys.metrics_bearer.as_ref().map(copy),
                idempotency: keys.idempotency,
                previous: keys.idempotency_previous,
            };
            Arc::new(coordinator(settings, &parts, verification, own, issuer))
        });
        let sts = sts.filter(|_| settings.runs(Service::Sts));
        let policy_poll = settings.policy_poll;
        let services = Self {
            store,
            ledger,
            denials,
            admin,
            sts,
            gateway,
            audit,
            coordinator,
            shared,
            requests,
            relay,
            forgotten: Arc::default(),
            withdrawals,
            rewrap,
            log,
            policy_poll,
            shares,
        };
        services.probe();
        services.count_requests();
        services.count_removals();
        Ok(services)
    }

    /// Readiness looks at more than whether the store answers.
    fn probe(&self) {
        let redis = self.shared.as_ref().map(|shared| shared.redis.clone());
        let probe: Arc<dyn Probe> = Arc::new(StreamsProbe { redis, store: self.store.clone() });
        if let Some(admin) = &self.admin {
            admin.probe_with(probe.clone());
        }
        if let Some(sts) = &self.sts {
            sts.probe_with(probe.clone());
        }
        if let Some(gateway) = &self.gateway {
            gateway.probe_with(probe.clone());
        }
        if let Some(audit) = &self.audit {
            audit.probe_with(probe.clone());
        }
        if let Some(coordinator) = &self.coordinator {
            coordinator.probe_with(probe);
        }
    }

    /// Requests are counted together with other replicas or, where there are none, with the process before this one.
    fn count_requests(&self) {
        let shared = self
            .shared
            .as_ref()
            .map(|shared| -> Arc<dyn SharedWindows> { Arc::new(SharedRequests(Counters::new(shared.redis.clone()))) });
        let kept = || self.requests.clone().map(|kept| -> Arc<dyn SharedWindows> { kept });
        let Some(requests) = shared.or_else(kept) else { return };
        if let Some(admin) = &self.admin {
            admin.count_with(&requests);
        }
        if let Some(coordinator) = &self.coordinator {
            coordinator.count_with(&requests);
        }
    }

    /// What leaves the Coordinator's tables by other hands is shown among its own counts.
    fn count_removals(&self) {
        let Some(coordinator) = &self.coordinator else { return };
        let (relay, forgotten) = (self.relay.state(), self.forgotten.clone());
        coordinator.count_removals_with(move || Removed {
            messages: relay.removed(),
            receipts: forgotten.load(Ordering::Relaxed),
        });
    }

    /// What runs beside the listeners, until it is told to finish.
    pub(super) async fn jobs(&mut self, stopping: &watch::Receiver<bool>) -> Result<JoinSet<()>, StartError> {
        let mut jobs = JoinSet::new();
        let stop = || stopping.clone();
        if let Some(admin) = self.admin.clone() {
            let on = stop();
            let recording = admin.clone();
            jobs.spawn(async move { recording.run_refusal_records(on).await });
            let notify = move |on| admin.clone().run_notifications(on);
            jobs.spawn(elected::run(self.store.clone(), "notifications", stop(), notify));
        }
        if let Some(coordinator) = self.coordinator.clone() {
            jobs.spawn(coordinator.clone().run_failure_records(stop()));
            let of = coordinator.clone();
            let enforce = move |on| of.clone().run_invocation_deadlines(on);
            jobs.spawn(elected::run(self.store.clone(), "invocation-deadlines", stop(), enforce));
            let of = coordinator.clone();
            let sweep = move |on| of.clone().run_ttl_sweeper(on);
            jobs.spawn(elected::run(self.store.clone(), "ttl-sweeper", stop(), sweep));
            let of = coordinator.clone();
            let sweep = move |on| of.clone().run_lease_sweeper(on);
            jobs.spawn(elected::run(self.store.clone(), "service-lease-sweeper", stop(), sweep));
            let of = coordinator.clone();
            let clean = move |on| of.clone().run_retention(on);
            jobs.spawn(elected::run(self.store.clone(), "coordinator-retention", stop(), clean));
            let chain = move |on| coordinator.clone().run_heartbeat_records(on);
            jobs.spawn(elected::run(self.store.clone(), "heartbeat-records", stop(), chain));
        }
        if let Some(audit) = self.audit.clone() {
            if self.shared.is_some() {
                // Clients can bring evidence only where they can reach what it comes on.
                jobs.spawn(audit.clone().run_ingest(stop()));
                jobs.spawn(audit.clone().run_gauges(stop()));
            }
            if audit.exports() {
                let of = audit.clone();
                let export = move |on| of.clone().run_export(on);
                jobs.spawn(elected::run(self.store.clone(), "audit-export", stop(), export));
            }
            let sweep = move |on| audit.clone().run_sweep(on);
            jobs.spawn(elected::run(self.store.clone(), "ledger-sweep", stop(), sweep));
        }
        if let Some(gateway) = self.gateway.clone() {
            if let Some(shared) = &self.shared {
                // Before the state is read, so that nothing is missed between the two.
                let tail = Tail::begin(shared.redis.clone(), shared.key.clone(), &[REVOCATIONS, DELEGATIONS, KEYS]);
                let tail = tail.await.map_err(|error| StartError::Setting(error.to_string()))?;
                let state = tail.state();
                gateway.count_feed_with(move || FeedCounts {
                    caught_up: state.caught_up(),
                    dead_letters: state.dead_letters(),
                    invalid_signatures: state.bad_signatures(),
                });
                let (hearing, on) = (gateway.clone(), stop());
                let hear = move |message: &Message| hearing.hear(message).then_some(()).ok_or(Rejection::NoAnchor);
                jobs.spawn(async move { tail.run(on, hear).await });
            }
            // Nobody may be answered before it is known what is revoked.
            gateway.refresh_revocations().await?;
            let on = stop();
            let renewing = gateway.clone();
            jobs.spawn(async move { gateway.run_snapshot_refresh(on).await });
            let on = stop();
            jobs.spawn(async move { renewing.run_certificate_renewal(on).await });
        }
        if let (Some(sts), Some(shared)) = (self.sts.clone(), &self.shared) {
            let tail = Tail::begin(shared.redis.clone(), shared.key.clone(), &[APPROVALS, POLICIES]);
            let tail = tail.await.map_err(|error| StartError::Setting(error.to_string()))?;
            let on = stop();
            let hear = move |message: &Message| {
                sts.hear(message);
                Ok(())
            };
            jobs.spawn(async move { tail.run(on, hear).await });
        }
        if let Some(requests) = self.requests.clone() {
            let on = stop();
            jobs.spawn(async move { requests.run(on).await });
        }
        if let Some(shared) = &self.shared {
            let tail = Tail::begin(shared.redis.clone(), shared.key.clone(), &[KEYS]);
            let tail = tail.await.map_err(|error| StartError::Setting(error.to_string()))?;
            let (withdrawals, on) = (self.withdrawals.clone(), stop());
            let hear = move |message: &Message| {
                withdrawals.hear(message);
                Ok(())
            };
            jobs.spawn(async move { tail.run(on, hear).await });
            let (withdrawals, of, on) = (self.withdrawals.clone(), self.store.clone(), stop());
            jobs.spawn(async move { withdrawals.run(of, on).await });
        }
        if let Some(rewrap) = self.rewrap.take() {
            jobs.spawn(rewrapping::run(rewrap, self.store.clone(), stop()));
        }
        if let Some(log) = self.log.clone() {
            let grow = move |on| log_growth::run(log.clone(), on);
            jobs.spawn(elected::run(self.store.clone(), "ledger-log", stop(), grow));
        }
        if let Some(sts) = self.sts.clone() {
            jobs.spawn(sts.run_policy_reports(self.policy_poll, stop()));
        }
        if let Some(shared) = &self.shared {
            jobs.spawn(witness::run(self.store.clone(), shared.redis.clone(), stop()));
        }
        jobs.spawn(self.relay.clone().run(stop()));
        let (denials, of, ledger, on) = (self.denials.clone(), self.store.clone(), self.ledger.clone(), stop());
        jobs.spawn(async move { denials.run(&of, &ledger, on).await });
        let (of, forgotten) = (self.store.clone(), self.forgotten.clone());
        let clean = move |on| housekeeping::run(of.clone(), forgotten.clone(), on);
        jobs.spawn(elected::run(self.store.clone(), "housekeeping", stop(), clean));
        Ok(jobs)
    }

    pub(super) fn serve(self, mut listeners: Listeners, stopping: &watch::Receiver<bool>) -> JoinSet<bool> {
        let mut serving = JoinSet::new();
        if let Some(sts) = &self.sts {
            sts.end_waits_on(stopping.clone());
        }
        let limits = Limits { max_connections: self.shares.others, ..Limits::default() };
        let fresh = || FreshId::new(|| chance::uuid_v4().map(|id| id.to_string()).unwrap_or_default());
        let counting = |service: Service| {
            let denials = self.denials.clone();
            let name = if service == Service::Api { "admin" } else { service.name() };
            let hear = move |fault: HeadFault| denials.count(name, fault.reason());
            Transport { on_head_fault: Some(Arc::new(hear)), ..Transport::default() }
        };
        // The operators' interfaces are behind no gate: they are what one turns to when there is too much, and have limits of
        // their own.
        let routers = [(Service::Api, self.admin.map(Admin::router)), (Service::Audit, self.audit.map(Audit::router))];
        for (service, router) in routers {
            let (Some(router), Some(listener)) = (router, listeners.take(service)) else { continue };
            let ended = server::serve_over(listener, router, fresh(), limits, counting(service), stopping.clone());
            serving.spawn(async move { ended.await == Ended::Drained });
        }
        let admission = admission();
        let gate = |service: &'static str| {
            let denials = self.denials.clone();
            Gate::new(admission.clone(), move || denials.count(service, "overloaded"))
        };
        let guarded = [
            (Service::Sts, self.sts.map(|sts| sts.guarded(&gate("sts")))),
            (Service::Coordinator, self.coordinator.map(|coordinator| coordinator.guarded(&gate("coordinator")))),
        ];
        for (service, guarded) in guarded {
            let (Some(guarded), Some(listener)) = (guarded, listeners.take(service)) else { continue };
            let ended = server::serve_over(listener, guarded, fresh(), limits, counting(service), stopping.clone());
            serving.spawn(async move { ended.await == Ended::Drained });
        }
        if let (Some(gateway), Some(listener)) = (self.gateway, listeners.take(Service::Gateway)) {
            gateway.admit_with(gate("gateway"));
            if let Some(operators) = listeners.take_gateway_operators() {
                let operators = gateway.clone().serve_operators(operators, stopping.clone());
                serving.spawn(async move { operators.await == Ended::Drained });
            }
            let gateway = gateway.serve(listener, stopping.clone());
            serving.spawn(async move {
                gateway.await.is_ok_and(|served| served.connections == Ended::Drained && served.evidence_lost == 0)
            });
        }
        serving
    }
}

/// How much this process works on at a time.
fn admission() -> Arc<Admission> {
    let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let begun = tokio::time::Instant::now();
    Admission::new(processors, move || begun.elapsed())
}

fn sts(settings: &Settings, parts: &Parts, keys: &KeyMaterial, issuer: &str) -> Sts {
    Sts::new(
        StsConfig {
            control_audience: settings.control_audience.clone(),
            mint_rate_limit_per_min: settings.mint_rate_limit_per_min,
            public_rate_limit_per_min: settings.public_rate_limit_per_min,
            gateway_key: Some(keys.gateway_sts.clone()),
            admin_token: keys.sts_admin_token.as_ref().map(copy),
            metrics_bearer: keys.metrics_bearer.as_ref().map(copy),
            open_metrics: parts.open_metrics,
            trust_proxy: settings.trust_proxy,
            ..StsConfig::for_issuer(issuer)
        },
        Capabilities {
            store: parts.store.clone(),
            keys: parts.signing_keys.clone(),
            secrets: parts.sealed.clone(),
            ledger: Arc::new(parts.ledger.clone()),
            denials: parts.denials.clone(),
            verifier: parts.verifier.clone(),
            mint_rate: parts.counts.mint_rate.clone(),
            guesses: parts.counts.guesses.clone(),
            launch_rate: parts.counts.launch_rate.clone(),
            egress: parts.egress.clone(),
            broker: parts.broker.clone(),
        },
    )
}

/// Keys that the Admin API alone uses.
struct AdminKeys {
    token: SecretText,
    digests: HmacKey,
    metrics_bearer: Option<SecretText>,
}

fn admin(
    settings: &Settings,
    parts: &Parts,
    keys: AdminKeys,
    (runtime, issuer): (Arc<Sts>, String),
) -> Result<Admin, StartError> {
    let AdminKeys { token, digests, metrics_bearer } = keys;
    let admin = Admin::new(
        AdminConfig {
            bootstrap_token: Some(token),
            body_limit: settings.api.body_limit,
            body_deadline: settings.body_deadline,
            requests_per_minute: settings.api.requests_per_minute,
            auth_failures_per_minute: settings.api.auth_failures_per_minute,
            ready_per_minute: settings.ready_per_minute,
            max_resources_per_zone: settings.api.max_resources_per_zone,
            mint_rate_ceiling: settings.mint_rate_limit_per_min,
            last_used_debounce: settings.api.last_used_debounce,
            metrics_bearer,
            open_metrics: parts.open_metrics,
            control_audience: settings.control_audience.clone(),
            issuer: Some(issuer),
            trust_proxy: settings.trust_proxy,
            retention_ceiling: settings.audit.retention_days,
            docs: settings.mode == Mode::Dev && settings.api.docs,
        },
        caracal_admin::Capabilities {
            store: parts.store.clone(),
            ledger: parts.ledger.clone(),
            denials: parts.denials.clone(),
            sealed: parts.sealed.clone(),
            broker: parts.broker.clone(),
            egress: parts.egress.clone(),
            secrets: parts.verifier.clone(),
            token_key: digests,
            runtime: Some(Arc::new(StsPolicyRuntime {
                sts: runtime,
                serves: settings.runs(Service::Sts),
                store: parts.store.clone(),
            })),
        },
    );
    admin.map_err(|error| StartError::Setting(error.to_string()))
}

/// Keys that the Coordinator alone uses.
struct CoordinatorKeys {
    token: SecretText,
    metrics_bearer: Option<SecretText>,
    idempotency: HmacKey,
    previous: Option<HmacKey>,
}

fn coordinator(
    settings: &Settings,
    parts: &Parts,
    verification: Arc<dyn VerificationKeys>,
    keys: CoordinatorKeys,
    issuer: String,
) -> Coordinator {
    Coordinator::new(
        CoordinatorConfig {
            operator_token: Some(keys.token),
            metrics_bearer: keys.metrics_bearer,
            idempotency_hmac_key_previous: keys.previous,
            idempotency_retention: settings.coordinator.idempotency_retention,
            generated_idempotency_retention: settings.coordinator.generated_idempotency_retention,
            idempotency_max_receipts: settings.coordinator.idempotency_max_receipts,
            max_sessions_per_zone: settings.coordinator.max_sessions_per_zone,
            max_sessions_per_application: settings.coordinator.max_sessions_per_application,
            body_limit: settings.coordinator.body_limit,
            body_deadline: settings.body_deadline,
            rate_limit_per_minute: settings.coordinator.requests_per_minute,
            ready_rate_limit_per_minute: settings.ready_per_minute,
            verify_rate_limit_per_minute: settings.coordinator.verifications_per_minute,
            invocation_rate_limit_per_minute: settings.coordinator.invocations_per_minute,
            deadline_sweep_interval: settings.coordinator.deadline_sweep_interval,
            pending_invocations: settings.coordinator.pending_invocations,
            ttl_sweep_interval: settings.coordinator.ttl_sweep_interval,
            sweep_batch: settings.coordinator.sweep_batch,
            service_lease: settings.coordinator.service_lease,
            lease_sweep_interval: settings.coordinator.lease_sweep_interval,
            retention_interval: settings.coordinator.retention_interval,
            retention_batch: settings.coordinator.retention_batch,
            session_retention: settings.coordinator.session_retention,
            delegation_retention: settings.coordinator.delegation_retention,
            trust_proxy: settings.trust_proxy,
            ..CoordinatorConfig::new(issuer, keys.idempotency)
        },
        parts.store.clone(),
        verification,
        parts.ledger.clone(),
        parts.denials.clone(),
    )
}

fn audit(
    settings: &Settings,
    parts: &Parts,
    keys: &KeyMaterial,
    (verifier, marks, streams): (Arc<dyn Verifier>, SweepMarks, Streams),
    (archive, audit_key_since): (Option<Arc<dyn Archive>>, Timestamp),
) -> Audit {
    Audit::new(
        AuditConfig {
            admin_token: Some(copy(keys.audit_admin_token.as_ref().unwrap_or(&keys.admin_token))),
            metrics_bearer: keys.metrics_bearer.as_ref().map(copy),
            open_metrics: parts.open_metrics,
            trust_proxy: settings.trust_proxy,
            retention_days: settings.audit.retention_days,
            keeps_trees: true,
            consumer_name: settings.audit.consumer_name.clone(),
            max_deliveries: settings.audit.max_deliveries,
            claim_idle: settings.audit.claim_idle,
            thresholds: settings.audit.thresholds,
        },
        caracal_audit::Capabilities {
            store: parts.store.clone(),
            ledger: parts.ledger.clone(),
            denials: parts.denials.clone(),
            verifier,
            marks: Some(marks),
            streams,
            frame_keys: FrameKeys::new(keys.audit.clone(), audit_key_since),
            archive,
        },
    )
}

/// Where evidence is exported to.
fn archive(settings: &Settings, store: &Store) -> Result<Option<Arc<dyn Archive>>, StartError> {
    let bucket = match &settings.audit.export {
        ExportSettings::Off => return Ok(None),
        ExportSettings::Directory(root) => return Ok(Some(Arc::new(DirectoryArchive::new(root.clone())))),
        ExportSettings::Bucket(bucket) => bucket.clone(),
    };
    let trust = TlsTrust::load(settings.extra_ca_file.as_deref());
    let client = OperatorClient::new(Arc::new(SystemResolver::new()), trust);
    let bucket = Bucket::new(client, Arc::new(StoreTime(store.clone())), bucket);
    let bucket = bucket.ok_or_else(|| StartError::Setting("AUDIT_EXPORT_S3_BUCKET names no bucket".to_owned()))?;
    Ok(Some(Arc::new(BucketArchive(bucket))))
}

/// The STS in another process, where settings say that it is needed.
fn remote_sts(settings: &Settings, keys: &KeyMaterial, store: &Store) -> Result<Option<Arc<RemoteSts>>, StartError> {
    let Some(url) = settings.sts_url.clone() else { return Ok(None) };
    let remote = RemoteSts::new(RemoteStsConfig {
        url,
        key: Some(keys.gateway_sts.clone()),
        timeout: settings.gateway.sts_timeout,
        clock: Arc::new(StoreTime(store.clone())),
        resolver: Arc::new(SystemResolver::new()),
        trust: TlsTrust::load(settings.extra_ca_file.as_deref()),
    });
    remote.map(|remote| Some(Arc::new(remote))).map_err(|error| StartError::Setting(error.to_string()))
}

/// How late a changed address of a name that works is noticed.
const NAMES_REMEMBERED: Duration = Duration::from_secs(10);

/// The one way out of this process: to upstreams, identity providers and token endpoints.
fn egress(settings: &Settings) -> Result<GuardedConnector, StartError> {
    let private = PrivateHosts::parse(&settings.private_egress_hosts.join(","))
        .map_err(|error| StartError::Setting(format!("CARACAL_PRIVATE_EGRESS_HOSTS: {error}")))?;
    // Difference D9: loopback is for one person's machine only.
    let admit_loopback = settings.mode == Mode::Dev && settings.bind.is_loopback();
    let trust = TlsTrust::load(settings.extra_ca_file.as_deref());
    if let Some(fault) = trust.fault() {
        tracing::error!(error = %fault, "calls out over TLS will fail");
    }
    let policy = AddressPolicy::new(admit_loopback, private);
    Ok(GuardedConnector::new(policy, Arc::new(SystemResolver::remembering(NAMES_REMEMBERED)), trust))
}

fn gateway(
    settings: &Settings,
    keys: &KeyMaterial,
    parts: &Parts,
    verification: Arc<dyn VerificationKeys>,
    (exchange, spool): (Arc<dyn Exchange>, Arc<Spool>),
    shares: Shares,
) -> Result<Arc<Gateway>, StartError> {
    let config = GatewayConfig {
        max_connections: shares.callers,
        sts_timeout: settings.gateway.sts_timeout,
        upstream_timeout: settings.gateway.upstream_timeout,
        read_header_timeout: settings.gateway.read_header_timeout,
        read_timeout: settings.gateway.read_timeout,
        write_timeout: settings.gateway.write_timeout,
        stream_idle_timeout: settings.gateway.stream_idle_timeout,
        idle_timeout: settings.gateway.idle_timeout,
        max_request_bytes: settings.gateway.max_request_bytes,
        client_certificates: match &settings.client_certs_file {
            Some(file) => client_certificates::read(file)?,
            None => Vec::new(),
        },
        max_upstream_connections: settings.gateway.max_upstream_connections,
        upstream_host_allowlist: settings.upstream_host_allowlist.clone(),
        trust_proxy: settings.trust_proxy,
        admin_token: Some(copy(&keys.admin_token)),
        metrics: match &keys.metrics_bearer {
            Some(bearer) => caracal_gateway::MetricsAccess::Bearer(copy(bearer)),
            None if settings.mode == Mode::Dev => caracal_gateway::MetricsAccess::Open,
            None => caracal_gateway::MetricsAccess::Closed,
        },
        separate_operators: settings.gateway.operator_address.is_some(),
        cleartext_http2: settings.gateway.cleartext_http2,
        ..GatewayConfig::default()
    };
    let tls = match &settings.gateway.tls {
        Some(files) => Some(
            ServerTls::load(&files.certificate, &files.key)
                .map_err(|error| StartError::Setting(format!("TLS_CERT_FILE and TLS_KEY_FILE: {error}")))?,
        ),
        None => None,
    };
    let gateway = Gateway::new(
        config,
        caracal_gateway::Capabilities {
            store: parts.store.clone(),
            keys: verification,
            ledger: parts.ledger.clone(),
            denials: parts.denials.clone(),
            exchange,
            connector: parts.egress.clone(),
            tls,
            spool: Some(spool),
        },
    );
    gateway.map_err(|error| StartError::Setting(error.to_string()))
}
