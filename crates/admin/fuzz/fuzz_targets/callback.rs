//! The query of a browser that comes back from a provider with a consent, or from wherever somebody has sent it.
//!
//! It is refused in one way or read within its bounds, nothing of its state but a digest goes any further, and whatever the page says of it is
//! text between our own words.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| caracal_admin::fuzz::callback(data));
