//! JSON objects in which no member appears twice, at any depth.
//!
//! RFC 8259 leaves open which of two members of one name counts. If a signed payload said `"aud"` twice, the Gateway
//! could authorise one and an upstream believe the other; so there is no such payload here.
//!
//! Nor is there a member with a name that `serde_json` keeps to itself: it hands its own types through as objects with one.
//! Claims go on as text, into evidence and to policy, and whoever reads that text by the same parser would find JSON where
//! the signed payload has a string.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// What the names begin with that the parser keeps to itself.
const PRIVATE_NAMES: &str = "$serde_json::private::";

/// The object that `bytes` are, the whole of them. `None` for anything else, for repeated members and for private names.
pub(super) fn parse(bytes: &[u8]) -> Option<Map<String, Value>> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Unrepeated.deserialize(&mut deserializer).ok()?;
    deserializer.end().ok()?;
    match value {
        Value::Object(object) => Some(object),
        _ => None,
    }
}

struct Unrepeated;

impl<'de> DeserializeSeed<'de> for Unrepeated {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unrepeated {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without repeated members")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("not a finite number"))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element_seed(Unrepeated)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some(name) = access.next_key::<String>()? {
            if name.starts_with(PRIVATE_NAMES) {
                return Err(A::Error::custom("a member has a name of the parser's own"));
            }
            let value = access.next_value_seed(Unrepeated)?;
            if members.insert(name, value).is_some() {
                return Err(A::Error::custom("a member appears twice"));
            }
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_accepted_reads_like_any_json() {
        let text =
            r#" {"n":null,"t":true,"i":-1,"u":18446744073709551615,"f":1.5,"e":1e3,"s":"a\u00e9\n","a":[1,{"b":[]}]} "#;
        let expected: Value = serde_json::from_str(text).unwrap();
        assert_eq!(parse(text.as_bytes()).map(Value::Object), Some(expected));
        // Would fail if some other crate of a build switched on number forms that the visitor does not see through.
        assert!(parse(br#"{"exp":1}"#).unwrap()["exp"].is_i64());
    }

    mod t16_verify {
        use super::*;

        #[test]
        fn repeated_members_and_anything_but_one_object_are_refused() {
            let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(200), "]".repeat(200));
            for refused in [
                r#"{"a":1,"a":1}"#,
                r#"{"a":1,"\u0061":2}"#,
                r#"{"b":{"a":1,"a":2}}"#,
                r#"{"b":[{"a":1,"a":2}]}"#,
                "",
                "{",
                "[]",
                "null",
                "\"a\"",
                "{}{}",
                "{} x",
                "{'a':1}",
                r#"{"a":1,}"#,
                r#"{"a":NaN}"#,
                r#"{"a":1e999}"#,
                r#"{"a":"\ud800"}"#,
                r#"{"$serde_json::private::RawValue":"{}"}"#,
                r#"{"a":[{"$serde_json::private::RawValue":"{\"sub\":\"admin\"}"}]}"#,
                r#"{"a":{"\u0024serde_json::private::Number":"1"}}"#,
                deep.as_str(),
            ] {
                assert_eq!(parse(refused.as_bytes()), None, "{refused}");
            }
            assert_eq!(parse(b"{\"a\":\"\xff\"}"), None);
            assert_eq!(parse(b"\xef\xbb\xbf{}"), None);
        }
    }
}
