//! The committed corpus of each fuzz target, in the suite: what a target starts from, and what one has found, keeps its rules
//! in every build.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail by panicking")]

#[path = "../fuzz/attacks/envelope.rs"]
mod envelope;
#[path = "../fuzz/attacks/keyset.rs"]
mod keyset;
#[path = "../fuzz/attacks/token.rs"]
mod token;

use caracal_testkit::corpora::committed;

#[test]
fn t05_corpus_of_envelope_keeps_every_rule() {
    committed(env!("CARGO_MANIFEST_DIR"), "envelope").iter().for_each(|input| envelope::attack(input));
}

#[test]
fn t02_corpus_of_keyset_keeps_every_rule() {
    committed(env!("CARGO_MANIFEST_DIR"), "keyset").iter().for_each(|input| keyset::attack(input));
}

#[test]
fn t02_corpus_of_token_keeps_every_rule() {
    committed(env!("CARGO_MANIFEST_DIR"), "token").iter().for_each(|input| token::attack(input));
}
