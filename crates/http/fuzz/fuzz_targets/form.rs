//! Hostile bytes for the rules of `attacks/form.rs`, which the suite gives the committed corpus.
#![no_main]

#[path = "../attacks/form.rs"]
mod form;

libfuzzer_sys::fuzz_target!(|data: &[u8]| form::attack(data));
