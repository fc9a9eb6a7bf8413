//! Token endpoints over real TLS, and what is sent to them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod backends;
mod keys;
mod service_tokens;
mod world;
