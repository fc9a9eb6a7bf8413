//! The composition: the services of one process, on the embedded store or on servers that it shares with others.
//!
//! Starting reads like a checklist, in the order in which a failure costs least: keys, store, key check, services,
//! listeners. Stopping goes the other way: readiness says no, listeners close, requests in flight finish, evidence in
//! flight is written, the store commits its last group, the ledger's heads are synced.

mod client_certificates;
mod descriptors;
mod listeners;
mod opened;
mod secrets;
mod services;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use caracal_admin::Admin;
use caracal_coordinator::Coordinator;
use caracal_crypto::SecretText;
use caracal_custody::{CustodyError, SecretBackend};
use caracal_ledger::{Chain, HeadsError, HeadsObserver, KeysRefused, Problem};
use caracal_store::{OpenError, Store, StoreError, SystemClock};
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use listeners::{Listeners, Urls};
use opened::Opened;
pub(crate) use opened::heads_dir;
use services::Services;

use crate::settings::{Environment, Mistakes, Mode, SecretsError, Service, Settings, secret_backend};

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
    /// The streams can't be used.
    #[error(transparent)]
    Streams(#[from] caracal_stream::OpenError),
    /// The store was sealed with another key-encryption key.
    #[error(
        "the key-encryption key is not the one this store was sealed with ({0}); give the right SECRET_STORE_KEK, or the \
         former one as SECRET_STORE_KEK_PREVIOUS. Nothing was changed"
    )]
    WrongKek(CustodyError),
    /// The ledger can't go on under the audit keys that were given.
    #[error("{0}. Nothing was changed")]
    AuditKeys(KeysRefused),
    /// What was granted in the last minute can't be read.
    #[error("what was granted in the last minute, which counts against rate limits, can't be read: {0}")]
    Count(caracal_store::StoreError),
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
    admin: Option<Arc<Admin>>,
    coordinator: Option<Arc<Coordinator>>,
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
        let shares = descriptors::shares(settings.runs(Service::Gateway), listeners.beside_callers())?;
        let opened = Opened::open(&settings, environment).await?;
        let (store, heads) = (opened.store.clone(), opened.heads.clone());
        let urls = listeners.urls();
        let issuer = settings.issuer.clone().unwrap_or_else(|| urls.sts.clone());
        let (admin_token, admin_token_file) = (copy(&opened.keys.admin_token), opened.keys.admin_token_file.clone());
        let mut services = Services::compose(&settings, opened, issuer, shares).await?;
        if let Some(admin) = &services.admin {
            admin.seed().await.map_err(|error| StartError::Setting(error.to_string()))?;
        }
        let (stop, stopping) = watch::channel(false);
        let (stop_jobs, jobs_stopping) = watch::channel(false);
        let (admin, coordinator) = (services.admin.clone(), services.coordinator.clone());
        let jobs = services.jobs(&jobs_stopping).await?;
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
        if let Some(admin) = &self.admin {
            admin.drain();
        }
        if let Some(coordinator) = &self.coordinator {
            coordinator.start_draining();
        }
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

/// The backend outside the store that `environment` names, if it names one.
pub(crate) fn backend_of(environment: &Environment) -> Result<Option<Arc<dyn SecretBackend>>, Mistakes> {
    let (settings, extra_ca_file) = secret_backend(environment)?;
    Ok(secrets::backend(settings, extra_ca_file.as_deref(), Arc::new(SystemClock)))
}

fn copy(secret: &SecretText) -> SecretText {
    SecretText::new(secret.expose().clone())
}
