//! Hostile bytes for the rules of `attacks/envelope.rs`, which the suite gives the committed corpus.
#![no_main]

#[path = "../attacks/envelope.rs"]
mod envelope;

libfuzzer_sys::fuzz_target!(|data: &[u8]| envelope::attack(data));
