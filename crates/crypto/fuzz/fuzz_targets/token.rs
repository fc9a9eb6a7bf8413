//! Hostile bytes for the rules of `attacks/token.rs`, which the suite gives the committed corpus.
#![no_main]

#[path = "../attacks/token.rs"]
mod token;

libfuzzer_sys::fuzz_target!(|data: &[u8]| token::attack(data));
