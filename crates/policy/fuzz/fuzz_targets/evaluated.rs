//! Hostile bytes for the rules of `attacks/evaluated.rs`, which the suite gives the committed corpus.
#![no_main]

#[path = "../attacks/evaluated.rs"]
mod evaluated;

libfuzzer_sys::fuzz_target!(|data: &[u8]| evaluated::attack(data));
