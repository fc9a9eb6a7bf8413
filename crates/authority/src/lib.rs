//! What authority *is*: ids, scopes, narrowing, lineage, lifetimes, mandate claims and the exchange decision.
//!
//! Facts in, outcome out. Nothing here reads a clock, draws a random number or does I/O; time and ids are
//! arguments. This is the part a security reviewer reads first, best in this order: [`exchange`] for the decision as
//! one sequence, [`delegation`] for the algebra and the walk it relies on, [`lifetime`], [`resource`] for the
//! operation floor, [`session`] and [`record`] for who is live, [`lease`] for who goes on running a
//! service, [`approval`] for what a human has to agree to and who
//! may, [`control`] for keys to the Control endpoint, [`federation`] for users from outside, [`mandate`] for what is signed
//! in the end, [`evidence`] for the words it is recorded in.
//!
//! What has been checked is a type that only its check can make: a live record or session, a walked lineage, a
//! narrowed edge, a fixed lifetime, granted scopes, a grant. What is unknown denies.

pub mod approval;
pub mod control;
pub mod delegation;
pub mod evidence;
pub mod exchange;
pub mod federation;
pub mod ids;
pub mod invocation;
pub mod launch;
pub mod lease;
pub mod lifetime;
pub mod mandate;
pub mod record;
pub mod resource;
pub mod scope;
pub mod session;
pub mod time;

pub use evidence::{EvaluationStatus, MetadataKey};
pub use ids::*;
pub use time::Timestamp;

#[cfg(test)]
mod tests;
