//! Hostile bytes for the rules of `attacks/constraints.rs`, which the suite gives the committed corpus.
#![no_main]

#[path = "../attacks/constraints.rs"]
mod constraints;

libfuzzer_sys::fuzz_target!(|data: &[u8]| constraints::attack(data));
