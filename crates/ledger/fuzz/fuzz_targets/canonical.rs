//! Hostile bytes for the rules of `attacks/canonical.rs`, which the suite gives the committed corpus.
#![no_main]

#[path = "../attacks/canonical.rs"]
mod canonical;

libfuzzer_sys::fuzz_target!(|data: &[u8]| canonical::attack(data));
