//! The management API: `/v1` on port 3000 (contract: admin-api.md, policy.md §§7–10, audit-and-streams.md §8).
//!
//! An operator creates a zone, an application, a provider with its secret, a resource, writes a policy and activates
//! it. Every one of those calls takes the same way: the router finds a [`Route`](gate::Route) in one table
//! ([`routes`]), the gate decides on that route whether the token may ([`gate`]), the handler changes the store in one
//! commit, and the record of the change is part of that commit ([`evidence`]). There is one file per operation; what
//! they share is small and beside them.
//!
//! What must be absent here: statements, the keys that sign mandates, what a mandate is. A secret passes through once, on its way to
//! its hash and its envelope, and no answer but the one that created it shows it.

mod account;
mod admin;
mod admin_audit;
mod admin_tokens;
mod answer;
mod applications;
mod approvals;
mod attribution;
mod audit;
mod audit_retention;
mod authority_records;
mod custody;
mod desired_state;
mod endings;
mod evidence;
mod export;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod gate;
mod grants;
mod hand;
mod health;
mod idempotency;
mod input;
mod ledger;
mod limits;
mod metrics;
mod mint_rate_limit;
mod notification_sinks;
mod notifications;
mod openapi;
mod page;
mod policies;
mod policy_sets;
mod problem;
mod provider_connections;
mod providers;
mod reserved;
mod resources;
mod reveal;
mod routes;
mod runtime;
mod seed;
mod sessions;
mod slug;
mod subject_issuers;
mod subjects;
mod token_uses;
mod workloads;
mod zones;

pub use admin::{Admin, AdminConfig, Capabilities, SetupError};
pub use audit::explain::recorded_question;
pub use gate::Needs;
pub use openapi::document;
pub use routes::{RouteInfo, route_list};
pub use runtime::{Loaded, NotSimulated, PolicyRuntime, Replica, RuntimeState, Simulation, Unreachable};
pub use seed::SeedError;
