//! The constraints of a delegation, as a caller may send them or a store may hold them.
//!
//! What is accepted is within its bounds, says the same when it is written and read again, and knows no member that nobody
//! knows; what is refused has a code.

use caracal_authority::delegation::{Constraints, MAX_BUDGET, MAX_HOPS};
use serde_json::Value;

/// Panics where a rule is broken.
pub(crate) fn attack(data: &[u8]) {
    let Ok(value) = serde_json::from_slice::<Value>(data) else { return };
    match Constraints::parse_value(&value) {
        Ok(constraints) => {
            assert!((1..=MAX_HOPS).contains(&constraints.hops()));
            assert!(constraints.budget().is_none_or(|budget| (1..=MAX_BUDGET).contains(&budget)));
            assert!(constraints.ttl_seconds().is_none_or(|ttl| (1..=86_400).contains(&ttl)));
            assert!(constraints.resources().len() <= 64);
            let written = constraints.to_json();
            let sent = value.as_object().expect("only objects are accepted");
            assert!(sent.keys().all(|key| written.contains_key(key)));
            assert_eq!(Constraints::parse(&written).as_ref(), Ok(&constraints));
        }
        Err(fault) => assert!(fault.code().starts_with("invalid_")),
    }
}
