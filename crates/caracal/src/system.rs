//! The composition: every service in one process on the embedded store.
//!
//! Starting reads like a checklist, in the order in which a failure costs least: keys, store, key check, services,
//! listeners. Stopping goes the other way: readiness says no, listeners close, requests in flight finish, evidence in
//! flight is written, the store commits its last group, the ledger's heads are synced.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use caracal_admin::{Admin, AdminConfig};
use caracal_audit::{Audit, AuditConfig};
use caracal_coordinator::{Coordinator, CoordinatorConfig};
use caracal_crypto::SecretText;
use caracal_crypto::chance;
use caracal_crypto::client_secret::SecretVerifier;
use caracal_custody::{CustodyError, SealedSecrets, SigningKeys, kek};
use caracal_gateway::{Gateway, GatewayConfig};
use caracal_http::FreshId;
use caracal_http::egress::{AddressPolicy, GuardedConnector, PrivateHosts, SystemResolver, TlsTrust};
use caracal_http::server::{self, Ended, Limits};
use caracal_ledger::{
    AnonymousDenials, Chain, ChainKey, HeadsError, HeadsObserver, Ledger, Problem, find_rollback, heads,
};
use caracal_store::{OpenError, SqliteOptions, Store, StoreError, SystemClock};
use caracal_sts::{Capabilities, Sts, StsConfig};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::adapters::{InProcessSts, OfflineVerifier, StsPolicyRuntime};
use crate::housekeeping;
use crate::settings::{Environment, KeyMaterial, Mode, SecretFiles, SecretsError, Service, Settings};

/// Why a system did not start. Nothing that was there before was damaged.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port can't be had.
    #[error("can't listen on {address} for {service}: {reason}")]
    Port {
        /// Where.
        address: SocketAddr,
        /// What for.
        service: &'static str,
        /// What the operating system said, and what to do.
        reason: String,
    },
    /// The data directory can't be used.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The keys can't be used.
    #[error(transparent)]
    Keys(#[from] SecretsError),
    /// The store was sealed with another key-encryption key.
    #[error(
        "the key-encryption key is not the one this store was sealed with ({0}); give the right SECRET_STORE_KEK, or the \
         former one as SECRET_STORE_KEK_PREVIOUS. Nothing was changed"
    )]
    WrongKek(CustodyError),
    /// The ledger's heads can't be kept.
    #[error("the ledger's heads can't be kept")]
    Heads(#[from] HeadsError),
    /// The store is older than, or another than, what was recorded outside it.
    #[error(
        "the store in `{data_dir}` is not the one that was last used here: {chain}: {problem}. An older store would revive \
         revoked authority and used mandates. Put the newest store back; or, to go on with this one knowingly, put an \
         empty file in the place of heads.log. Nothing was changed"
    )]
    RolledBack {
        /// Where.
        data_dir: PathBuf,
        /// Which chain shows it.
        chain: Chain,
        /// How.
        problem: Problem,
    },
    /// The store has records, and what was recorded outside it is gone.
    #[error(
        "the store in `{}` has a ledger, and its heads.log is missing: without it an older store, or one whose last \
         events were cut off, can't be told from the newest. Put it back; or, to go on without it knowingly, put an empty \
         file in its place. Nothing was changed",
        .data_dir.display()
    )]
    HeadsMissing {
        /// Where.
        data_dir: PathBuf,
    },
    /// The store failed while the system was set up.
    #[error("the store failed while starting")]
    Failed(#[from] StoreError),
    /// A setting that only a service can judge.
    #[error("{0}")]
    Setting(String),
}

/// One bound socket per service.
pub struct Listeners {
    api: TcpListener,
    sts: TcpListener,
    gateway: TcpListener,
    audit: TcpListener,
    coordinator: TcpListener,
}

impl Listeners {
    /// Binds the contract's ports, moved by the offset.
    pub async fn bind(settings: &Settings) -> Result<Self, StartError> {
        let on = |service| listen(settings.bind, settings.port(service), service);
        Ok(Self {
            api: on(Service::Api).await?,
            sts: on(Service::Sts).await?,
            gateway: on(Service::Gateway).await?,
            audit: on(Service::Audit).await?,
            coordinator: on(Service::Coordinator).await?,
        })
    }

    /// Binds ports that happen to be free.
    pub async fn on_free_ports(address: IpAddr) -> Result<Self, StartError> {
        let on = |service| listen(address, 0, service);
        Ok(Self {
            api: on(Service::Api).await?,
            sts: on(Service::Sts).await?,
            gateway: on(Service::Gateway).await?,
            audit: on(Service::Audit).await?,
            coordinator: on(Service::Coordinator).await?,
        })
    }

    fn urls(&self) -> Urls {
        let url = |listener: &TcpListener| {
            listener.local_addr().map(|address| format!("http://{}", reachable(address))).unwrap_or_default()
        };
        Urls {
            api: url(&self.api),
            sts: url(&self.sts),
            gateway: url(&self.gateway),
            coordinator: url(&self.coordinator),
            audit: url(&self.audit),
        }
    }
}

/// An address that a client on this machine can use: nobody connects to "any".
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::from(([127, 0, 0, 1], address.port())),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], address.port())),
        _ => address,
    }
}

async fn listen(address: IpAddr, port: u16, service: Service) -> Result<TcpListener, StartError> {
    let address = SocketAddr::new(address, port);
    TcpListener::bind(address).await.map_err(|error| StartError::Port {
        address,
        service: service.name(),
        reason: match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                "the port is in use; stop whatever uses it, or move all ports with --port-offset".to_owned()
            }
            _ => error.to_string(),
        },
    })
}

/// Where each service is reached.
#[derive(Debug, Clone, Serialize)]
pub struct Urls {
    /// The Admin API.
    pub api: String,
    /// The token service.
    pub sts: String,
    /// The Gateway.
    pub gateway: String,
    /// The Coordinator.
    pub coordinator: String,
    /// The evidence service.
    pub audit: String,
}

impl Urls {
    /// Name and URL of each, in the order they are announced.
    pub fn pairs(&self) -> [(&'static str, &str); 5] {
        [
            ("api", &self.api),
            ("sts", &self.sts),
            ("gateway", &self.gateway),
            ("coordinator", &self.coordinator),
            ("audit", &self.audit),
        ]
    }
}

/// A running system.
pub struct System {
    urls: Urls,
    mode: Mode,
    data_dir: PathBuf,
    admin_token: SecretText,
    admin_token_file: Option<PathBuf>,
    started_in: Duration,
    stop: watch::Sender<bool>,
    stop_jobs: watch::Sender<bool>,
    listeners: JoinSet<bool>,
    jobs: JoinSet<()>,
    admin: Arc<Admin>,
    coordinator: Arc<Coordinator>,
    store: Store,
    heads: Arc<HeadsObserver>,
}

impl System {
    /// Starts everything. When it returns, every service answers.
    #[allow(clippy::disallowed_methods, reason = "how long a start took is no fact of authority")]
    pub async fn start(
        settings: Settings,
        environment: &Environment,
        listeners: Listeners,
    ) -> Result<Self, StartError> {
        let begun = Instant::now();
        // The store's lock is taken before keys are made, so that two first starts can't both make them.
        let options = SqliteOptions::in_directory(&settings.data_dir);
        let store = Store::open(&options, Arc::new(SystemClock))?;
        let keys = SecretFiles::in_data_dir(&settings.data_dir).load_or_create(environment)?;
        kek::check(&store, &keys.kek).await.map_err(|error| match error {
            CustodyError::Store(error) => StartError::Failed(error),
            other => StartError::WrongKek(other),
        })?;
        let audit_key: Arc<dyn ChainKey> = keys.audit.clone();
        let mut snapshot = store.snapshot().await?;
        if !heads::is_kept_in(&settings.data_dir) && !caracal_ledger::is_empty(&mut snapshot.deployment()).await? {
            return Err(StartError::HeadsMissing { data_dir: settings.data_dir });
        }
        let heads = Arc::new(HeadsObserver::open(&settings.data_dir, audit_key.clone())?);
        if let Some((chain, problem)) = find_rollback(&mut snapshot.deployment(), &heads.recorded()).await? {
            return Err(StartError::RolledBack { data_dir: settings.data_dir, chain, problem });
        }
        drop(snapshot);
        store.observe(heads.clone());
        let urls = listeners.urls();
        let issuer = settings.issuer.clone().unwrap_or_else(|| urls.sts.clone());
        let (admin_token, admin_token_file) = (copy(&keys.admin_token), keys.admin_token_file.clone());
        let services = Services::compose(&settings, keys, &store, audit_key, issuer)?;
        services.admin.seed().await.map_err(|error| StartError::Setting(error.to_string()))?;
        // Nobody may be answered before it is known what is revoked.
        services.gateway.refresh_revocations().await?;
        let (stop, stopping) = watch::channel(false);
        let (stop_jobs, jobs_stopping) = watch::channel(false);
        let (admin, coordinator) = (services.admin.clone(), services.coordinator.clone());
        let jobs = services.jobs(&store, &jobs_stopping);
        let listeners = services.serve(listeners, &stopping);
        Ok(Self {
            urls,
            mode: settings.mode,
            data_dir: settings.data_dir,
            admin_token,
            admin_token_file,
            started_in: begun.elapsed(),
            stop,
            stop_jobs,
            listeners,
            jobs,
            admin,
            coordinator,
            store,
            heads,
        })
    }

    /// Where it is reached.
    pub fn urls(&self) -> &Urls {
        &self.urls
    }

    /// How strict it is.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Where its data lies.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The bootstrap admin token.
    pub fn admin_token(&self) -> &SecretText {
        &self.admin_token
    }

    /// Where that token lies, unless the environment gave it.
    pub fn admin_token_file(&self) -> Option<&Path> {
        self.admin_token_file.as_deref()
    }

    /// How long the start took.
    pub fn started_in(&self) -> Duration {
        self.started_in
    }

    /// Stops accepting, finishes what is in flight, closes. `true` when nothing had to be cut off.
    pub async fn stop(mut self) -> bool {
        self.admin.drain();
        self.coordinator.start_draining();
        self.stop.send_replace(true);
        let mut clean = true;
        while let Some(ended) = self.listeners.join_next().await {
            clean &= matches!(ended, Ok(true));
        }
        // Jobs come second: what the last requests left behind is still theirs to write.
        self.stop_jobs.send_replace(true);
        while let Some(ended) = self.jobs.join_next().await {
            clean &= ended.is_ok();
        }
        self.store.close().await;
        if let Err(error) = self.heads.close() {
            tracing::error!(%error, "the ledger's heads could not be synced");
            clean = false;
        }
        clean
    }
}

struct Services {
    admin: Arc<Admin>,
    sts: Arc<Sts>,
    gateway: Arc<Gateway>,
    audit: Arc<Audit>,
    coordinator: Arc<Coordinator>,
    denials: Arc<AnonymousDenials>,
    ledger: Ledger,
}

impl Services {
    fn compose(
        settings: &Settings,
        keys: KeyMaterial,
        store: &Store,
        audit_key: Arc<dyn ChainKey>,
        issuer: String,
    ) -> Result<Self, StartError> {
        let ledger = Ledger::new(Some(audit_key.clone()));
        let shared_ledger = Arc::new(ledger.clone());
        let denials = Arc::new(AnonymousDenials::default());
        let signing_keys = Arc::new(SigningKeys::new(store.clone(), keys.kek.clone()));
        let sealed = SealedSecrets::new(keys.kek.clone());
        let verifier = Arc::new(SecretVerifier::new(settings.secret_verify_concurrency));
        let open_metrics = settings.mode == Mode::Dev;
        let sts = Arc::new(Sts::new(
            StsConfig {
                control_audience: settings.control_audience.clone(),
                mint_rate_limit_per_min: settings.mint_rate_limit_per_min,
                gateway_key: Some(keys.gateway_sts.clone()),
                metrics_bearer: keys.metrics_bearer.as_ref().map(copy),
                open_metrics,
                trust_proxy: settings.trust_proxy,
                ..StsConfig::for_issuer(issuer.clone())
            },
            Capabilities {
                store: store.clone(),
                keys: signing_keys.clone(),
                secrets: sealed.clone(),
                ledger: shared_ledger.clone(),
                denials: denials.clone(),
                verifier: verifier.clone(),
            },
        ));
        let gateway = gateway(settings, &keys, store, signing_keys.clone(), &ledger, &denials, &sts)?;
        let admin = Admin::new(
            AdminConfig {
                bootstrap_token: Some(copy(&keys.admin_token)),
                body_limit: settings.api.body_limit,
                body_deadline: settings.body_deadline,
                requests_per_minute: settings.api.requests_per_minute,
                auth_failures_per_minute: settings.api.auth_failures_per_minute,
                ready_per_minute: settings.ready_per_minute,
                max_resources_per_zone: settings.api.max_resources_per_zone,
                control_audience: settings.control_audience.clone(),
                trust_proxy: settings.trust_proxy,
            },
            caracal_admin::Capabilities {
                store: store.clone(),
                ledger: ledger.clone(),
                denials: denials.clone(),
                sealed,
                secrets: verifier,
                token_key: keys.admin_token_digests,
                runtime: Some(Arc::new(StsPolicyRuntime(sts.clone()))),
            },
        );
        let admin = Arc::new(admin.map_err(|error| StartError::Setting(error.to_string()))?);
        let coordinator = Arc::new(Coordinator::new(
            CoordinatorConfig {
                operator_token: Some(copy(&keys.coordinator_token)),
                idempotency_hmac_key_previous: keys.idempotency_previous,
                idempotency_retention: settings.coordinator.idempotency_retention,
                generated_idempotency_retention: settings.coordinator.generated_idempotency_retention,
                idempotency_max_receipts: settings.coordinator.idempotency_max_receipts,
                max_sessions_per_zone: settings.coordinator.max_sessions_per_zone,
                max_sessions_per_application: settings.coordinator.max_sessions_per_application,
                body_limit: settings.coordinator.body_limit,
                body_deadline: settings.body_deadline,
                rate_limit_per_minute: settings.coordinator.requests_per_minute,
                ready_rate_limit_per_minute: settings.ready_per_minute,
                ttl_sweep_interval: settings.coordinator.ttl_sweep_interval,
                sweep_batch: settings.coordinator.sweep_batch,
                trust_proxy: settings.trust_proxy,
                ..CoordinatorConfig::new(issuer, keys.idempotency)
            },
            store.clone(),
            signing_keys,
            ledger.clone(),
            denials.clone(),
        ));
        let audit = Arc::new(Audit::new(
            AuditConfig {
                admin_token: Some(copy(&keys.admin_token)),
                metrics_bearer: keys.metrics_bearer.as_ref().map(copy),
                open_metrics,
                trust_proxy: settings.trust_proxy,
            },
            store.clone(),
            denials.clone(),
            Arc::new(OfflineVerifier { data_dir: settings.data_dir.clone(), key: audit_key }),
        ));
        Ok(Self { admin, sts, gateway, audit, coordinator, denials, ledger })
    }

    /// What runs beside the listeners, until it is told to finish.
    fn jobs(&self, store: &Store, stopping: &watch::Receiver<bool>) -> JoinSet<()> {
        let mut jobs = JoinSet::new();
        let stop = || stopping.clone();
        let (admin, on) = (self.admin.clone(), stop());
        jobs.spawn(async move { admin.run_refusal_records(on).await });
        jobs.spawn(self.coordinator.clone().run_failure_records(stop()));
        jobs.spawn(self.coordinator.clone().run_ttl_sweeper(stop()));
        let (gateway, on) = (self.gateway.clone(), stop());
        jobs.spawn(async move { gateway.run_snapshot_refresh(on).await });
        jobs.spawn(self.audit.clone().run_sweep(stop()));
        let (denials, of, ledger, on) = (self.denials.clone(), store.clone(), self.ledger.clone(), stop());
        jobs.spawn(async move { denials.run(&of, &ledger, on).await });
        jobs.spawn(housekeeping::run(store.clone(), stop()));
        jobs
    }

    fn serve(self, listeners: Listeners, stopping: &watch::Receiver<bool>) -> JoinSet<bool> {
        let mut serving = JoinSet::new();
        let fresh = || FreshId::new(|| chance::uuid_v4().map(|id| id.to_string()).unwrap_or_default());
        let routers = [
            (listeners.api, self.admin.clone().router()),
            (listeners.sts, self.sts.clone().router()),
            (listeners.audit, self.audit.clone().router()),
            (listeners.coordinator, self.coordinator.clone().router()),
        ];
        for (listener, router) in routers {
            let ended = server::serve(listener, router, fresh(), Limits::default(), stopping.clone());
            serving.spawn(async move { ended.await == Ended::Drained });
        }
        let gateway = self.gateway.serve(listeners.gateway, stopping.clone());
        serving.spawn(async move {
            gateway.await.is_ok_and(|served| served.connections == Ended::Drained && served.evidence_lost == 0)
        });
        serving
    }
}

fn gateway(
    settings: &Settings,
    keys: &KeyMaterial,
    store: &Store,
    signing_keys: Arc<SigningKeys>,
    ledger: &Ledger,
    denials: &Arc<AnonymousDenials>,
    sts: &Arc<Sts>,
) -> Result<Arc<Gateway>, StartError> {
    let private = PrivateHosts::parse(&settings.private_egress_hosts.join(","))
        .map_err(|error| StartError::Setting(format!("CARACAL_PRIVATE_EGRESS_HOSTS: {error}")))?;
    // Difference D9: loopback upstreams are for one person's machine only.
    let admit_loopback = settings.mode == Mode::Dev && settings.bind.is_loopback();
    let trust = TlsTrust::load(settings.extra_ca_file.as_deref());
    if let Some(fault) = trust.fault() {
        tracing::error!(error = %fault, "TLS upstreams will fail");
    }
    let connector =
        GuardedConnector::new(AddressPolicy::new(admit_loopback, private), Arc::new(SystemResolver::new()), trust);
    let config = GatewayConfig {
        sts_timeout: settings.gateway.sts_timeout,
        upstream_timeout: settings.gateway.upstream_timeout,
        read_header_timeout: settings.gateway.read_header_timeout,
        read_timeout: settings.gateway.read_timeout,
        write_timeout: settings.gateway.write_timeout,
        stream_idle_timeout: settings.gateway.stream_idle_timeout,
        idle_timeout: settings.gateway.idle_timeout,
        max_request_bytes: settings.gateway.max_request_bytes,
        upstream_host_allowlist: settings.upstream_host_allowlist.clone(),
        trust_proxy: settings.trust_proxy,
        admin_token: Some(copy(&keys.admin_token)),
        metrics: match &keys.metrics_bearer {
            Some(bearer) => caracal_gateway::MetricsAccess::Bearer(copy(bearer)),
            None if settings.mode == Mode::Dev => caracal_gateway::MetricsAccess::Open,
            None => caracal_gateway::MetricsAccess::Closed,
        },
        ..GatewayConfig::default()
    };
    let gateway = Gateway::new(
        config,
        caracal_gateway::Capabilities {
            store: store.clone(),
            keys: signing_keys,
            ledger: ledger.clone(),
            denials: denials.clone(),
            exchange: Arc::new(InProcessSts(sts.clone())),
            connector,
        },
    );
    gateway.map_err(|error| StartError::Setting(error.to_string()))
}

fn copy(secret: &SecretText) -> SecretText {
    SecretText::new(secret.expose().clone())
}
