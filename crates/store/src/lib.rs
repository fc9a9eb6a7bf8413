//! Product state behind one seam. See [`Store`] for the contract in words; the module `conformance` (a feature of that
//! name, for tests) and `tests/` hold every engine to it.
//!
//! - [`Store`], [`Snapshot`], [`ZoneRead`], [`ZoneWrite`], [`DeploymentRead`], [`DeploymentWrite`]: transactions.
//! - One module per kind of row, each a handful of functions over a transaction. They speak one vocabulary: `lookup`
//!   by id, `find_by_…`, `list`, `add`, `update`, `archive`, `revoke`, `consume`, `purge_…`.
//! - [`Named`]: what a decision will look at, as far as it is known before, so that a server is asked once.
//! - [`Committed`] and [`Observer`]: what a commit means to those who do not read the store.
//!
//! No statement leaves this crate, and no function here decides anything: it stores and finds.

pub mod admin_evidence;
pub mod admin_tokens;
pub mod agent_services;
mod ahead;
pub mod applications;
pub mod approvals;
mod asked;
mod attribution;
pub mod backup;
pub mod clock;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod counts;
pub mod delegation_reads;
pub mod delegations;
pub mod deployment;
mod directory;
mod effects;
mod embedded;
pub mod envelopes;
mod error;
pub mod evidence;
pub mod exports;
mod facts;
pub mod forgetting;
pub mod grants;
pub mod holdings;
pub mod incidents;
pub mod invocations;
pub mod leases;
mod migrations;
pub mod mint_limit;
pub mod moving;
pub mod notification_deliveries;
pub mod notification_sinks;
pub mod oauth_states;
pub mod outbox;
pub mod oversight;
mod page;
pub mod policies;
pub mod policy_replicas;
pub mod policy_sets;
mod postgres;
pub mod provider_connections;
pub mod providers;
pub mod receipts;
pub mod records;
pub mod resources;
pub mod retention;
pub mod revocations;
pub mod sealed_secrets;
pub mod sessions;
pub mod signing_keys;
mod sqlite;
mod store;
pub mod streams;
pub mod subject_issuers;
pub mod subjects;
pub mod transparency;
mod tx;
pub mod used_mandates;
mod value;
mod version;
pub mod waiting_changes;
pub mod workloads;
mod writer;
pub mod zones;

pub use ahead::Named;
pub use attribution::Attribution;
pub use clock::{Clock, ManualClock, SteadyClock, SystemClock, WrongClock};
pub use effects::{ChainHead, ChainKind, Committed, Message, Observer};
pub use error::{OpenError, StoreError};
pub use migrations::known_version;
pub use page::{Page, Position};
pub use postgres::{MigrationReport, PostgresOptions};
pub use sqlite::SqliteOptions;
pub use store::{BoxFuture, Connections, Election, Inspection, Snapshot, Store, inspect};
pub use tx::{DeploymentRead, DeploymentWrite, ZoneRead, ZoneWrite};
pub use version::ZoneVersion;

/// JSON text of a value whose keys are strings, which serialisation can't refuse.
pub(crate) fn json_text<T: serde::Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
