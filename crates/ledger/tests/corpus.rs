//! The committed corpus of each fuzz target, in the suite: what a target starts from, and what one has found, keeps its rules
//! in every build.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail by panicking")]

#[path = "../fuzz/attacks/canonical.rs"]
mod canonical;

use caracal_testkit::corpora::committed;

#[test]
fn t06_corpus_of_canonical_keeps_every_rule() {
    committed(env!("CARGO_MANIFEST_DIR"), "canonical").iter().for_each(|input| canonical::attack(input));
}
