//! What every service's HTTP face shares.
//!
//! Inwards: a connection is accepted and paced by [`server`], every request gets its [`request_id`], bodies are read
//! under a limit and a deadline ([`body`], [`form`]), callers are counted ([`limits`]), and whatever a handler refuses
//! leaves as one error envelope ([`problem`]) through one outermost wrapper ([`face`]), which also gives the request its span
//! ([`trace`]).
//!
//! Outwards: nothing in this system opens a connection except through [`egress`], which judges the very address it
//! then dials.
//!
//! What must be absent here: routes, product state, the clock and randomness (both are arguments).

pub mod admission;
pub mod body;
#[cfg(test)]
mod corpora;
pub mod egress;
pub mod face;
pub mod form;
pub mod health;
pub mod idempotency;
pub mod json;
pub mod limits;
pub mod log_counts;
pub mod path;
mod percent;
pub mod problem;
pub mod rate;
pub mod redact;
pub mod request_id;
pub mod server;
pub mod trace;

pub use face::Face;
pub use problem::{Problem, Profile};
pub use request_id::{FreshId, RequestId};
pub use server::PeerAddr;
