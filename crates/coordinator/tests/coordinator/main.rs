//! The Coordinator from outside: its router over a real store, real zone keys and a real ledger, one test over a socket.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod agent_services;
mod authentication;
mod delegation_graph;
mod delegation_lists;
mod delegations;
mod edge_cases;
mod evidence;
mod face;
mod idempotency;
mod inheritance;
mod invocations;
mod operations;
mod outbox;
mod retention;
mod revocation;
mod session_lists;
mod sessions;
mod socket;
mod subjects;
mod support;
mod sweep;
mod t04_state_cascades;
mod t04_state_cost;
mod t04_state_interleavings;
mod t04_state_lease_races;
mod t04_state_leases;
mod t04_state_races;
mod t04_state_suspension;
mod termination;
mod verification;
