//! The token service from outside: through its whole router, over a real store, with real keys and evidence.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod support;

mod availability;
mod bootstrap;
mod clients;
mod delegated_mint;
mod direct_exchange;
mod directives;
mod evidence;
mod form;
mod gateway_exchange;
mod gateway_signature;
mod jwks;
mod operations;
mod over_a_socket;
mod races;
mod secrets;
