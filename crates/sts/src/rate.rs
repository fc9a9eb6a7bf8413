//! How many mandates an application may have for a resource in a minute (contract: sts.md §12), counted in this process or
//! by all replicas together.
//!
//! The decision is pure and can't wait for a counter. So it is made once as if every mint were within its limit, which
//! shows what would have to be counted; that is counted; and only where something was not within, it is made again.

use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::time::Duration;

use caracal_authority::exchange::Rate;
use caracal_authority::{ApplicationId, ResourceId, Timestamp, ZoneId};
use caracal_http::limits::{FixedWindow, Slot};
use caracal_store::{BoxFuture, Store, StoreError, evidence, mint_limit};

const WINDOW: Duration = Duration::from_secs(60);

/// What is counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MintKey {
    /// The zone.
    pub zone: ZoneId,
    /// The resource.
    pub resource: ResourceId,
    /// The application that asks.
    pub application: ApplicationId,
}

/// A counter of mints.
pub trait MintRate: Send + Sync + 'static {
    /// Counts one mint under each key, and says of each whether it is among the first `limit` of its minute. A counter
    /// that can't be reached says [`Rate::Unavailable`]: then nothing is minted.
    fn count<'a>(&'a self, mints: &'a [MintKey], limit: u32, now: Timestamp) -> BoxFuture<'a, Vec<Rate>>;
}

/// Counts in this process alone.
///
/// A process that is started again knows what it granted: every grant is in the ledger. So what was granted in the last
/// minute counts against the limit of a window that began with the first of it. Attempts that were counted but not
/// granted are forgotten, and two windows that met in that minute are taken for one.
pub struct ProcessMintRate(FixedWindow);

impl ProcessMintRate {
    /// Goes on counting where the process that had this store before left off.
    pub async fn resumed(store: &Store) -> Result<Self, StoreError> {
        let windows = FixedWindow::per_minute();
        let mut snapshot = store.snapshot().await?;
        let since = snapshot.now().minus(WINDOW);
        for grants in evidence::count_grants(&mut snapshot.deployment(), since).await? {
            let key =
                MintKey { zone: grants.zone_id, resource: grants.resource_id, application: grants.application_id };
            let count = u32::try_from(grants.count).unwrap_or(u32::MAX);
            windows.resume(&key, Slot { born: grants.first, count, blocked: false });
        }
        Ok(Self(windows))
    }
}

impl Default for ProcessMintRate {
    fn default() -> Self {
        Self(FixedWindow::per_minute())
    }
}

impl MintRate for ProcessMintRate {
    fn count<'a>(&'a self, mints: &'a [MintKey], limit: u32, now: Timestamp) -> BoxFuture<'a, Vec<Rate>> {
        let within = |key| if self.0.hit(key, limit, now).is_allowed() { Rate::Within } else { Rate::Exceeded };
        Box::pin(std::future::ready(mints.iter().map(within).collect()))
    }
}

/// How old the working limit is at most when it is used.
const READ_EVERY: Duration = Duration::from_secs(15);

/// The limit that operators set at run time, as this process knows it. Read again by whoever counts once it is fifteen
/// seconds old; while it can't be read, the last one known holds.
pub(crate) struct WorkingLimit {
    ceiling: u32,
    known: AtomicU32,
    /// When it was last read, or somebody began to; microseconds. Before the first time, the earliest there is.
    read_at: AtomicI64,
}

impl WorkingLimit {
    /// Never above `ceiling`, and at it until something else is known.
    pub(crate) fn below(ceiling: u32) -> Self {
        Self { ceiling, known: AtomicU32::new(ceiling), read_at: AtomicI64::new(i64::MIN) }
    }

    /// The limit at `now`.
    pub(crate) async fn at(&self, now: Timestamp, store: &Store) -> u32 {
        let read_at = self.read_at.load(Ordering::Acquire);
        let age = now.as_micros().saturating_sub(read_at);
        // A clock that was put back would else make it last for longer.
        let is_fresh = age >= 0 && u128::try_from(age).is_ok_and(|age| age < READ_EVERY.as_micros());
        let claim = || self.read_at.compare_exchange(read_at, now.as_micros(), Ordering::AcqRel, Ordering::Acquire);
        // One of those who find it old reads it; the others go on with what is known.
        if !is_fresh && claim().is_ok() {
            match self.read(store).await {
                Ok(limit) => self.known.store(limit, Ordering::Release),
                Err(error) => {
                    let limit = self.known.load(Ordering::Acquire);
                    tracing::warn!(%error, limit, "the limit of mints can't be read; the last one known holds");
                }
            }
        }
        self.known.load(Ordering::Acquire)
    }

    async fn read(&self, store: &Store) -> Result<u32, StoreError> {
        let set = mint_limit::find(&mut store.snapshot().await?.deployment()).await?;
        Ok(set.map_or(self.ceiling, |limit| limit.per_minute.min(self.ceiling)))
    }
}
