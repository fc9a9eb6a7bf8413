//! The committed corpus of each fuzz target, in the suite: what a target starts from, and what one has found, keeps its rules
//! in every build.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail by panicking")]

#[path = "../fuzz/attacks/decision.rs"]
mod decision;
#[path = "../fuzz/attacks/document.rs"]
mod document;
#[path = "../fuzz/attacks/evaluated.rs"]
mod evaluated;

use caracal_testkit::corpora::committed;

#[test]
fn t02_corpus_of_decision_keeps_every_rule() {
    committed(env!("CARGO_MANIFEST_DIR"), "decision").iter().for_each(|input| decision::attack(input));
}

#[test]
fn t02_corpus_of_document_keeps_every_rule() {
    committed(env!("CARGO_MANIFEST_DIR"), "document").iter().for_each(|input| document::attack(input));
}

#[test]
fn t02_corpus_of_evaluated_keeps_every_rule() {
    committed(env!("CARGO_MANIFEST_DIR"), "evaluated").iter().for_each(|input| evaluated::attack(input));
}
