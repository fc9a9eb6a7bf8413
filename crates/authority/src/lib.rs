//! What authority *is*: ids, scopes, narrowing, lineage, lifetimes, mandate claims and the exchange decision.
//!
//! Facts in, outcome out. Nothing here reads a clock, draws a random number or does I/O; time and ids are
//! arguments. This is the part a security reviewer reads first.

pub mod delegation;
pub mod exchange;
pub mod ids;
pub mod lifetime;
pub mod mandate;
pub mod record;
pub mod resource;
pub mod scope;
pub mod session;
pub mod time;

pub use ids::*;
pub use time::Timestamp;

#[cfg(test)]
mod tests;
