//! Hostile bytes for the rules of `attacks/json.rs`, which the suite gives the committed corpus.
#![no_main]

#[path = "../attacks/json.rs"]
mod json;

libfuzzer_sys::fuzz_target!(|data: &[u8]| json::attack(data));
