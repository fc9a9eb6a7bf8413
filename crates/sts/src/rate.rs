//! How many mandates an application may have for a resource in a minute (contract: sts.md §12), counted in this process or
//! by all replicas together.
//!
//! The decision is pure and can't wait for a counter. So it is made once as if every mint were within its limit, which
//! shows what would have to be counted; that is counted; and only where something was not within, it is made again.

use std::time::Duration;

use caracal_authority::exchange::Rate;
use caracal_authority::{ApplicationId, ResourceId, Timestamp, ZoneId};
use caracal_http::limits::{FixedWindow, Slot};
use caracal_store::{BoxFuture, Store, StoreError, evidence};

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
