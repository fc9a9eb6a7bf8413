//! The management API from outside: a real store in a directory of its own, real custody, real evidence, and the router
//! as the listener gets it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod admin_tokens;
mod applications;
mod approvals;
mod archived;
mod audit;
mod audit_retention;
mod authorization_server;
mod bounds;
mod checks;
mod connections;
mod consents;
mod desired_state;
mod edge_cases;
mod edges;
mod endings;
mod evidence;
mod foothold;
mod gates;
mod grants;
mod hostile_bodies;
mod idempotency;
mod ledger;
mod lists;
mod loopback;
mod mint_rate_limit;
mod notifications;
mod openapi;
mod oversight;
mod policies;
mod policy_sets;
mod probes;
mod providers;
mod registration;
mod resources;
mod secrets;
mod simulations;
mod standing;
mod subject_issuers;
mod workloads;
mod world;
mod zones;
