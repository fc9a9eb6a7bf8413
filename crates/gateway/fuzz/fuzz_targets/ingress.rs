//! The bytes of a connection to the Gateway: heads, one behind the other, with whatever stands between them.
//!
//! A head that comes through is held to everything its permit would rely on: one spelling of the method, a path that goes out byte for
//! byte and to the directive's host alone, no header of one hop, none that poses as ours, the credential once and in its place.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| caracal_gateway::fuzz::ingress(data));
