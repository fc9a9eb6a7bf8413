//! What the processes that decide have loaded, and what they would decide (contract: policy.md §10.4, §10.5; README D32).

use caracal_authority::{PolicySetVersionId, ReplicaId, Timestamp, ZoneId};
use caracal_store::BoxFuture;
use serde_json::{Map, Value};

/// The bundle that a process has for a zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The set version it was loaded as; none when nothing is active and everything is denied.
    pub policy_set_version_id: Option<PolicySetVersionId>,
    /// The manifest's hash, or `no_active_policy_set`.
    pub manifest_sha256: String,
    /// Since when.
    pub loaded_at: Timestamp,
}

/// How far one process has come with a zone's policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuntimeState {
    /// A bundle is loaded.
    Loaded(Loaded),
    /// It has not said anything of the zone yet.
    NotLoaded,
    /// What it found active can't be loaded; decisions fail.
    Failed {
        /// The version it found active.
        policy_set_version_id: Option<PolicySetVersionId>,
        /// For the operator.
        detail: String,
    },
}

/// One process that decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// Its id, new with every start.
    pub id: ReplicaId,
    /// When it was heard of last.
    pub seen_at: Timestamp,
    /// How far it has come.
    pub state: RuntimeState,
}

/// Who would know did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unreachable(pub String);

/// A question about documents that need not be active.
#[derive(Debug, Clone)]
pub struct Simulation {
    /// The documents with the ids of their versions, in the order of the manifest.
    pub documents: Vec<(String, String)>,
    /// What is asked.
    pub input: Map<String, Value>,
}

/// Why a simulation has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotSimulated {
    /// Nobody answered.
    #[error("{0}")]
    Unreachable(String),
    /// The answer was none: the input or the documents have no verdict.
    #[error("{text}")]
    Failed {
        /// The contract's code.
        code: &'static str,
        /// For the operator.
        text: String,
    },
}

/// Who knows what decides. The binary implements it over the STS.
pub trait PolicyRuntime: Send + Sync + 'static {
    /// The processes that decide now, each with what it has loaded of `zone`. One in the caller's own process looks before
    /// it answers, so that an activation is seen as loaded as soon as a decision would be made by it.
    fn replicas<'a>(&'a self, zone: &'a ZoneId) -> BoxFuture<'a, Result<Vec<Replica>, Unreachable>>;

    /// The result document (policy.md §4.3) of one question. Changes nothing and counts nothing.
    fn simulate<'a>(&'a self, zone: &'a ZoneId, simulation: Simulation) -> BoxFuture<'a, Result<Value, NotSimulated>>;
}
