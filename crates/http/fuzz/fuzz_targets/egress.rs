//! Hostile bytes for the rules of `attacks/egress.rs`, which the suite gives the committed corpus.
#![no_main]

#[path = "../attacks/egress.rs"]
mod egress;

libfuzzer_sys::fuzz_target!(|data: &[u8]| egress::attack(data));
