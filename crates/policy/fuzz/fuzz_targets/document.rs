//! Hostile bytes for the rules of `attacks/document.rs`, which the suite gives the committed corpus.
#![no_main]

#[path = "../attacks/document.rs"]
mod document;

libfuzzer_sys::fuzz_target!(|data: &[u8]| document::attack(data));
