//! A JSON body: whatever is accepted means the same to the parser of the field and holds none of the names that change
//! prototypes; whatever is refused is no JSON, or says something twice, or holds such a name.

use caracal_http::json::{JsonError, parse};
use serde_json::Value;

fn has_forbidden_name(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().any(has_forbidden_name),
        Value::Object(members) => members.iter().any(|(name, value)| {
            name == "__proto__"
                || name.starts_with("$serde_json::private::")
                || (name == "constructor" && value.get("prototype").is_some())
                || has_forbidden_name(value)
        }),
        _ => false,
    }
}

/// The parser of the field may miss the last bit of a fraction that it wrote itself.
fn has_fraction(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().any(has_fraction),
        Value::Object(members) => members.values().any(has_fraction),
        other => other.is_f64(),
    }
}

/// Panics where a rule is broken.
pub(crate) fn attack(data: &[u8]) {
    let field = serde_json::from_slice::<Value>(data);
    match parse(data) {
        Ok(value) => {
            assert_eq!(Some(&value), field.as_ref().ok());
            assert!(!has_forbidden_name(&value));
            let written = serde_json::to_vec(&value).expect("a value has a JSON form");
            let again = parse(&written).expect("our own spelling");
            assert!(again == value || has_fraction(&value), "{again} is not {value}");
        }
        Err(JsonError::Empty) => assert!(data.trim_ascii().is_empty()),
        // The field's parser has taken its own names for what they stand for.
        Err(JsonError::ForbiddenKey) => {
            let is_private = data.windows(12).any(|bytes| bytes == b"$serde_json:") || data.contains(&b'\\');
            assert!(is_private || field.is_ok_and(|value| has_forbidden_name(&value)));
        }
        // Not JSON to anybody, or a repetition, for which the text needs an object of two members.
        Err(JsonError::Malformed) => assert!(field.is_err() || data.contains(&b',')),
        Err(JsonError::UnsupportedMediaType) => panic!("there is no media type here"),
    }
}
