//! Evidence as it arrives: canonical text is its own canonical text, is JSON with the value of what was written, and
//! both entries agree wherever U+0000 plays no part.

use caracal_ledger::canonical::{MAX_CANONICAL_BYTES, NotCanonical, canonical, canonical_value, jsonb_text};
use serde_json::Value;

/// Equal as JSON, where numbers may come back as another kind: canonical text has no exponent and no sign of zero, and
/// a number with many digits may be read with its last bit changed.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => match (a.as_f64(), b.as_f64()) {
            (Some(x), Some(y)) => a == b || (x - y).abs() <= y.abs() * 1e-12 || (x - y).abs() < f64::MIN_POSITIVE,
            _ => false,
        },
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(members) => members.iter().any(|(key, value)| key.contains('\0') || has_nul(value)),
        _ => false,
    }
}

/// Panics where a rule is broken.
pub(crate) fn attack(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (ours, postgresqls) = (canonical(text), jsonb_text(text));
    if !text.is_empty() && !matches!(postgresqls, Err(NotCanonical::Nul(_))) {
        assert_eq!(ours, postgresqls);
    }
    let Ok(once) = ours else { return };
    assert!(once.len() <= MAX_CANONICAL_BYTES);
    assert_eq!(canonical(&once).as_ref(), Ok(&once));
    assert_eq!(jsonb_text(&once).as_ref(), Ok(&once));
    // The other reader has bounds of its own: 128 levels, and numbers that fit 64 bits of floating point.
    if let Ok(value) = serde_json::from_str::<Value>(text)
        && !has_nul(&value)
    {
        match serde_json::from_str::<Value>(&once) {
            Ok(back) => assert!(same(&back, &value), "{back} is not {value}"),
            // The largest of all, rounded up by that reader once its digits are written out.
            Err(error) => assert!(error.to_string().starts_with("number out of range"), "{error}"),
        }
        let built = canonical_value(&value).expect("shorter than what was accepted");
        assert_eq!(canonical(&built).as_ref(), Ok(&built));
    }
}
