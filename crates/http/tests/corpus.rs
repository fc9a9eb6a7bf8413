//! The committed corpus of each fuzz target, in the suite: what a target starts from, and what one has found, keeps its rules
//! in every build.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail by panicking")]

#[path = "../fuzz/attacks/egress.rs"]
mod egress;
#[path = "../fuzz/attacks/form.rs"]
mod form;
#[path = "../fuzz/attacks/json.rs"]
mod json;
#[path = "../fuzz/attacks/path.rs"]
mod path;

use caracal_testkit::corpora::committed;

#[test]
fn t03_corpus_of_egress_keeps_every_rule() {
    committed(env!("CARGO_MANIFEST_DIR"), "egress").iter().for_each(|input| egress::attack(input));
}

#[test]
fn t02_corpus_of_form_keeps_every_rule() {
    committed(env!("CARGO_MANIFEST_DIR"), "form").iter().for_each(|input| form::attack(input));
}

#[test]
fn t08_corpus_of_json_keeps_every_rule() {
    committed(env!("CARGO_MANIFEST_DIR"), "json").iter().for_each(|input| json::attack(input));
}

#[test]
fn t03_corpus_of_path_keeps_every_rule() {
    committed(env!("CARGO_MANIFEST_DIR"), "path").iter().for_each(|input| path::attack(input));
}
