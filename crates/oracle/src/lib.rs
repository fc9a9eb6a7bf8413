//! A second opinion on every decision.
//!
//! The ladder of `caracal-policy` decides in production. This crate holds the same contract once more, as Rego text
//! (`decision.rego`), and lets an interpreter answer: [`Oracle`] takes a zone's documents, [`Zone`] an input. The two
//! share a table of the contract and no line of code, so a defect in one of them shows as a difference.
//!
//! [`run`] asks both the same questions, as many as wanted, made from a seed: zones of all shapes that documents may
//! have, requests of all shapes that inputs may have. The first difference is made small and written as a [`Case`]
//! that can be run again.
//!
//! What must stay absent: any way from here into a binary that decides. `cargo xtask tidy` and a test of this crate
//! watch over that. An interpreter costs a thousand times what the ladder costs, and its parser can be brought down by
//! text; it is asked about text of our own making only.

mod case;
mod chance;
mod engine;
mod evaluated;
mod literal;
pub mod opa;
mod opinions;
mod programs;
mod requests;
mod run;
mod shrink;
mod zones;

pub use case::Case;
pub use engine::{Answer, MODULE, NoAnswer, Oracle, Questions, Zone};
pub use literal::{Literal, Root, same_json};
pub use opinions::{Difference, Ladder, Opinion, Outcome, compare};
pub use run::{Evaluated, Plan, Progress, Report, case_of, run};
