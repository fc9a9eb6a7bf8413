//! The evidence service from outside: a real store in a directory of its own, a real ledger with its heads beside it, and
//! the router as the listener gets it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod access;
mod crash;
mod dead_letters;
mod edge_cases;
mod export;
mod ingest;
mod on_demand;
#[path = "../../../ledger/tests/support/outsider.rs"]
mod outsider;
mod parquet;
mod retention;
mod search;
mod sweep;
mod world;
