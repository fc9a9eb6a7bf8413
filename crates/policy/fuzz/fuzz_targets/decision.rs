//! Hostile bytes for the rules of `attacks/decision.rs`, which the suite gives the committed corpus.
#![no_main]

#[path = "../attacks/decision.rs"]
mod decision;

libfuzzer_sys::fuzz_target!(|data: &[u8]| decision::attack(data));
