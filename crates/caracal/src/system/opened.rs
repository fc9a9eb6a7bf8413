//! The engine, opened: store, keys, streams, and what is known of the ledger's heads. Everything that can refuse a start
//! for the state of things is here, in the order in which a failure costs least.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use caracal_authority::Timestamp;
use caracal_custody::{CustodyError, kek};
use caracal_ledger::{ChainKey, HeadsObserver, check_keys, find_rollback, heads, note_keys, read_heads};
use caracal_store::{Clock, SqliteOptions, SteadyClock, Store, StoreError, SystemClock, WrongClock};
use caracal_stream::Redis;

use super::StartError;
use crate::settings::{Engine, Environment, KeyMaterial, SecretFiles, Servers, Settings, SharedTuning};

/// What services are made of.
pub(super) struct Opened {
    pub(super) store: Store,
    pub(super) keys: KeyMaterial,
    pub(super) heads: Arc<HeadsObserver>,
    /// Where the heads lie.
    pub(super) heads_dir: PathBuf,
    /// Since when the audit key is the one in use.
    pub(super) audit_key_since: Timestamp,
    /// The way to other processes, on servers.
    pub(super) shared: Option<(Arc<Redis>, SharedTuning)>,
}

impl Opened {
    pub(super) async fn open(settings: &Settings, environment: &Environment) -> Result<Self, StartError> {
        match &settings.engine {
            Engine::Embedded => Self::embedded(settings, environment).await,
            Engine::Shared(tuning) => Self::on_servers(settings, tuning, environment).await,
        }
    }

    async fn embedded(settings: &Settings, environment: &Environment) -> Result<Self, StartError> {
        // The store's lock is taken before keys are made, so that two first starts can't both make them.
        let options = SqliteOptions::in_directory(&settings.data_dir);
        let store = Store::open(&options, clock(settings))?;
        let keys = SecretFiles::in_data_dir(&settings.data_dir).load_or_create(environment)?;
        check_kek(&store, &keys).await?;
        let mut snapshot = store.snapshot().await?;
        if !heads::is_kept_in(&settings.data_dir) && !caracal_ledger::is_empty(&mut snapshot.deployment()).await? {
            return Err(StartError::HeadsMissing { data_dir: settings.data_dir.clone() });
        }
        drop(snapshot);
        let (heads, audit_key_since) = open_heads(&store, &keys, &settings.data_dir).await?;
        let heads_dir = settings.data_dir.clone();
        Ok(Self { store, keys, heads, heads_dir, audit_key_since, shared: None })
    }

    async fn on_servers(
        settings: &Settings,
        tuning: &SharedTuning,
        environment: &Environment,
    ) -> Result<Self, StartError> {
        // Keys first: they are at hand or they are not, and nobody has to be asked.
        let keys = SecretFiles::load_given(environment, &settings.roles)?;
        let servers = Servers::read(environment).map_err(|mistakes| StartError::Setting(mistakes.to_string()))?;
        let redis = Redis::open(tuning.redis(&servers)).await?;
        let mut options = tuning.postgres(&servers, settings.mode)?;
        options.local_clock = clock(settings);
        let place = options.place();
        let store = Store::open_postgres(options).await?;
        if settings.holds_kek() {
            check_kek(&store, &keys).await?;
        }
        // Each process is a witness of its own: it remembers the heads of what it committed, and none of what others
        // did. A new one remembers nothing yet.
        let heads_dir = heads_dir(&settings.data_dir, &place);
        std::fs::create_dir_all(&heads_dir).map_err(|error| {
            StartError::Setting(format!("`{}` can't be made: {error}; give another --data-dir", heads_dir.display()))
        })?;
        let (heads, audit_key_since) = open_heads(&store, &keys, &heads_dir).await?;
        Ok(Self { store, keys, heads, heads_dir, audit_key_since, shared: Some((redis, tuning.clone())) })
    }
}

/// This machine's clock, which may be set back without the store's time going back with it.
fn clock(settings: &Settings) -> Arc<dyn Clock> {
    Arc::new(SteadyClock::of(machine(settings)))
}

/// This machine's clock, wrong by what was asked for.
fn machine(settings: &Settings) -> Arc<dyn Clock> {
    match settings.clock_offset_ms {
        0 => Arc::new(SystemClock),
        ahead_millis => {
            tracing::warn!(ahead_millis, "this process runs with a clock that is wrong on purpose");
            Arc::new(WrongClock { ahead_millis })
        }
    }
}

async fn check_kek(store: &Store, keys: &KeyMaterial) -> Result<(), StartError> {
    kek::check(store, &keys.kek).await.map_err(|error| match error {
        CustodyError::Store(error) => StartError::Failed(error),
        other => StartError::WrongKek(other),
    })
}

/// Opens the heads, and says since when the audit key is in use. That key is noted as the one in use only after all else
/// was found in order: under a key that is noted the ledger has to go on.
async fn open_heads(
    store: &Store,
    keys: &KeyMaterial,
    dir: &Path,
) -> Result<(Arc<HeadsObserver>, Timestamp), StartError> {
    let audit_key: Arc<dyn ChainKey> = keys.audit.clone();
    let mut snapshot = store.snapshot().await?;
    check_keys(&mut snapshot.deployment(), audit_key.as_ref()).await?.map_err(StartError::AuditKeys)?;
    let recorded = read_heads(dir, audit_key.as_ref())?.unwrap_or_default();
    if let Some((chain, problem)) =
        find_rollback(&mut snapshot.deployment(), Some(keys.audit.as_ref()), &recorded).await?
    {
        return Err(StartError::RolledBack { data_dir: dir.to_owned(), chain, problem });
    }
    drop(snapshot);
    let heads = Arc::new(HeadsObserver::open(dir, audit_key.clone())?);
    let noted = store.commit_deployment((audit_key, store.now()), |tx, (audit_key, now)| {
        Box::pin(async move { note_keys(tx, audit_key.as_ref(), *now).await })
    });
    let since: Result<_, StoreError> = noted.await;
    let since = since?.map_err(StartError::AuditKeys)?;
    store.observe(heads.clone());
    Ok((heads, since))
}

/// Where a process keeps the heads of what it committed to the database at `place`.
pub(crate) fn heads_dir(data_dir: &Path, place: &str) -> PathBuf {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') { c } else { '_' };
    data_dir.join("databases").join(place.chars().map(plain).collect::<String>())
}
