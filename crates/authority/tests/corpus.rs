//! The committed corpus of each fuzz target, in the suite: what a target starts from, and what one has found, keeps its rules
//! in every build.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail by panicking")]

#[path = "../fuzz/attacks/constraints.rs"]
mod constraints;

use caracal_testkit::corpora::committed;

#[test]
fn t02_corpus_of_constraints_keeps_every_rule() {
    committed(env!("CARGO_MANIFEST_DIR"), "constraints").iter().for_each(|input| constraints::attack(input));
}
