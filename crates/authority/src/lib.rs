//! What authority *is*: ids, scopes, narrowing, lineage, lifetimes, mandate claims and the exchange decision.
//!
//! Facts in, outcome out. Nothing here reads a clock, draws a random number or does I/O; time and ids are
//! arguments. This is the part a security reviewer reads first.

pub mod ids;
pub mod time;

pub use ids::*;
pub use time::Timestamp;
