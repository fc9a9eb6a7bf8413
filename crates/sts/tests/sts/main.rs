//! The token service from outside: through its whole router, over a real store, with real keys and evidence.
//!
//! Where the contract's security properties (sts.md, "Security properties to hold") are shown:
//!
//! | Property | Where |
//! |---|---|
//! | 1 no mint without client, references, policy, evidence | `bootstrap`, `delegated_mint`, `evidence`, `races` |
//! | 2 classes of mandate never stand in for one another | `direct_exchange`, `gateway_exchange`, `directives` |
//! | 3 an unsigned caller's operation is not heard | `delegated_mint` |
//! | 4 what a Gateway's signature is bound to | `gateway_signature` |
//! | 5 undeclared operations | `gateway_exchange`: `t02_sts_operations` |
//! | 6 the control audience | `control_keys`, `bootstrap` |
//! | 7 existence is not disclosed | `clients`, `launches`, `standards` |
//! | 8 secrets | `secrets`, `clients` |
//! | 9 an approval releases one record, or one credential, for one request | `approvals`, `launch_approvals` |
//! | 10 who may approve | `approval_decisions` |
//! | 11 a delegation bounds scopes and life | `delegated_mint` |
//! | 12 external subjects and the keys they are verified with | `federation`, `issuer_keys` |
//! | 13 everything fails closed | `availability`, `gateway_signature`, `launches` |
//! | 14 egress to token endpoints | `service_tokens`, and the tests of `caracal-broker` |
//! | 15 keys that were rotated away still verify; one renewal of an account at a time | `rotation`, `accounts` |
//!
//! The contract's edge cases are listed in `edge_cases`, each with the tests that show it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod support;

mod accounts;
mod approval_decisions;
mod approval_waits;
mod approvals;
mod availability;
mod bootstrap;
mod clients;
mod control_keys;
mod cost;
mod delegated_mint;
mod direct_exchange;
mod directives;
mod edge_cases;
mod edges;
mod emergency_rotation;
mod evaluated_policy;
mod evidence;
mod federation;
mod form;
mod gateway_exchange;
mod gateway_signature;
mod held_edges;
mod hostile;
mod issuer_keys;
mod jwks;
mod launch_approvals;
mod launch_credentials;
mod launches;
mod operations;
mod over_a_socket;
mod policy_operations;
mod public_reads;
mod races;
mod recorded;
mod recorded_keys;
mod rotation;
mod secrets;
mod service_tokens;
mod standards;
