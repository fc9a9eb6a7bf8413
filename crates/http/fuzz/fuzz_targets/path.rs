//! Hostile bytes for the rules of `attacks/path.rs`, which the suite gives the committed corpus.
#![no_main]

#[path = "../attacks/path.rs"]
mod path;

libfuzzer_sys::fuzz_target!(|data: &[u8]| path::attack(data));
