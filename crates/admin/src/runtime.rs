//! What decides right now, as the STS of this process knows it (contract: policy.md §10.4; README D32).

use caracal_authority::{PolicySetVersionId, Timestamp, ZoneId};
use caracal_store::BoxFuture;

/// The bundle that a decision in a zone would use now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The set version it was loaded as; none when nothing is active and everything is denied.
    pub policy_set_version_id: Option<PolicySetVersionId>,
    /// The manifest's hash, or `no_active_policy_set`.
    pub manifest_sha256: String,
    /// Since when.
    pub loaded_at: Timestamp,
}

/// How far a zone's policy has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuntimeState {
    /// A bundle is loaded.
    Loaded(Loaded),
    /// The zone has not been asked for yet.
    NotLoaded,
    /// What is active can't be loaded; decisions deny or use the last bundle that could.
    Failed {
        /// For the operator.
        detail: String,
    },
    /// The STS did not answer.
    Unreachable {
        /// For the operator.
        detail: String,
    },
}

/// Who knows what decides. The binary implements it over the STS.
pub trait PolicyRuntime: Send + Sync + 'static {
    /// The state of `zone` now. An implementation that loads on demand loads what is active before it answers, so that
    /// an activation is seen as loaded as soon as a decision would be made by it.
    fn status<'a>(&'a self, zone: &'a ZoneId) -> BoxFuture<'a, RuntimeState>;
}
