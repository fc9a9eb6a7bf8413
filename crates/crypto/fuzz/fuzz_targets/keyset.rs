//! Hostile bytes for the rules of `attacks/keyset.rs`, which the suite gives the committed corpus.
#![no_main]

#[path = "../attacks/keyset.rs"]
mod keyset;

libfuzzer_sys::fuzz_target!(|data: &[u8]| keyset::attack(data));
