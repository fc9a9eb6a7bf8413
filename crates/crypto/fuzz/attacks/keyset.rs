//! A fetched key set: what is usable of it can be published again and read back as the same key.

use caracal_crypto::jws::{Jwk, Jwks, KeySet};
use serde_json::Value;

/// Panics where a rule is broken.
pub(crate) fn attack(data: &[u8]) {
    let Ok(set) = KeySet::from_jwks(data) else { return };
    let document: Value = serde_json::from_slice(data).expect("JSON to everybody");
    let named = document["keys"].as_array().expect("a list of keys").iter();
    let mut kids: Vec<&str> =
        named.filter_map(|key| key["kid"].as_str()).filter(|kid| set.get(kid).is_some()).collect();
    kids.sort_unstable();
    kids.dedup();
    assert!(!kids.is_empty() && set.get("").is_none());
    assert_eq!(kids.len(), set.len());
    let keys = kids.iter().filter_map(|kid| Some(Jwk::new(kid, set.get(kid)?))).collect();
    let published = serde_json::to_vec(&Jwks { keys }).expect("a key set has a JSON form");
    assert_eq!(KeySet::from_jwks(&published), Ok(set));
}
