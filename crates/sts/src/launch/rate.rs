//! How often something may be asked for in the name of a workload (contract: sts.md §12), counted in this process or by
//! all replicas together. Counted is before anything is proven: what one name costs us has an end, whoever uses it.

use std::fmt;

use caracal_authority::Timestamp;
use caracal_authority::exchange::Rate;
use caracal_http::limits::FixedWindow;
use caracal_store::BoxFuture;

/// What is asked for. Each has a budget of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LaunchStep {
    /// What is bound.
    Manifest,
    /// One credential.
    Credential,
}

impl fmt::Display for LaunchStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Manifest => "manifest",
            Self::Credential => "credential",
        })
    }
}

/// What is counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LaunchKey {
    /// What is asked for.
    pub step: LaunchStep,
    /// `workload_id` as it was sent: any text.
    pub workload: String,
}

/// A counter of launches.
pub trait LaunchRate: Send + Sync + 'static {
    /// Counts one request, and says whether it is among the first `limit` of its minute. A counter that can't be reached
    /// says [`Rate::Unavailable`]: then nothing is told and nothing released.
    fn count<'a>(&'a self, launch: &'a LaunchKey, limit: u32, now: Timestamp) -> BoxFuture<'a, Rate>;
}

/// Counts in this process alone, and forgets with it: for a token service that is not served.
pub struct ProcessLaunchRate(FixedWindow);

impl Default for ProcessLaunchRate {
    fn default() -> Self {
        Self(FixedWindow::per_minute())
    }
}

impl LaunchRate for ProcessLaunchRate {
    fn count<'a>(&'a self, launch: &'a LaunchKey, limit: u32, now: Timestamp) -> BoxFuture<'a, Rate> {
        let within = self.0.hit(launch, limit, now).is_allowed();
        Box::pin(std::future::ready(if within { Rate::Within } else { Rate::Exceeded }))
    }
}
