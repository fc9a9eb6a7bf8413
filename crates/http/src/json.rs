//! JSON bodies as the Admin API and the Coordinator accept them (contract: admin-api.md §1.3, coordinator.md §1).
//!
//! Two readers of one document must not see two meanings: a repeated member name is refused rather than won by the
//! last, and so are the names with which scripts in the browser or the SDKs could be made to change an object's
//! prototype. Nesting is bounded by the parser (128 levels).

use std::fmt;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::body::{BodyError, media_type};
use crate::problem::Problem;

/// Why a body is not a JSON document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// The content type promises JSON, and nothing follows.
    #[error("request body must not be empty")]
    Empty,
    /// Not JSON, nested too deeply, or a member name appears twice in one object.
    #[error("request body is not valid json")]
    Malformed,
    /// An object with `__proto__`, with `constructor` holding `prototype`, or with a name of the parser's own.
    #[error("request body holds a forbidden member name")]
    ForbiddenKey,
    /// A body that is neither JSON nor plain text, or does not say what it is.
    #[error("request body has an unsupported media type")]
    UnsupportedMediaType,
}

/// The service-level answer: 400 or 415 with the code `internal_error`.
impl From<JsonError> for Problem {
    fn from(error: JsonError) -> Self {
        let status = match error {
            JsonError::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            JsonError::Empty | JsonError::Malformed | JsonError::ForbiddenKey => StatusCode::BAD_REQUEST,
        };
        Self::new(status, "internal_error").describe(error.to_string())
    }
}

/// The service-level answer of the JSON services: 413, 400 or 408 with the code `internal_error`.
impl From<BodyError> for Problem {
    fn from(error: BodyError) -> Self {
        let status = match error {
            BodyError::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            BodyError::Unreadable => StatusCode::BAD_REQUEST,
            BodyError::TimedOut => StatusCode::REQUEST_TIMEOUT,
        };
        Self::new(status, "internal_error").describe(error.to_string())
    }
}

/// The document in `body`, judged with the request's `Content-Type`.
///
/// `None` when there is neither a body nor a content type, which is legal where a route needs none. `text/plain` yields
/// a JSON string, for the route's schema to refuse with the route's own code.
pub fn document(headers: &HeaderMap, body: &[u8]) -> Result<Option<Value>, JsonError> {
    let mut lines = headers.get_all(CONTENT_TYPE).iter();
    let kind = match (lines.next(), lines.next()) {
        (None, _) if body.is_empty() => return Ok(None),
        (Some(line), None) => media_type(line.as_bytes()).ok_or(JsonError::UnsupportedMediaType)?,
        _ => return Err(JsonError::UnsupportedMediaType),
    };
    if kind.eq_ignore_ascii_case("application/json") {
        parse(body).map(Some)
    } else if kind.eq_ignore_ascii_case("text/plain") {
        let text = std::str::from_utf8(body).map_err(|_| JsonError::Malformed)?;
        Ok(Some(Value::from(text)))
    } else {
        Err(JsonError::UnsupportedMediaType)
    }
}

/// One JSON document, without repeated member names and forbidden ones.
pub fn parse(bytes: &[u8]) -> Result<Value, JsonError> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(JsonError::Empty);
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Strict.deserialize(&mut deserializer).map_err(|_| JsonError::Malformed)?;
    deserializer.end().map_err(|_| JsonError::Malformed)?;
    reject_proto_keys(&value)?;
    Ok(value)
}

/// What `serde_json` begins the names with by which its own types are handed through as objects. Text that holds one is
/// another document to whoever reads it once more: what stands behind the name as a string becomes JSON.
const PRIVATE_NAMES: &str = "$serde_json::private::";

/// Refuses a document in which any object has the member `__proto__`, or `constructor` holding an object with
/// `prototype`, or a member that the parser of the field keeps to itself.
pub fn reject_proto_keys(value: &Value) -> Result<(), JsonError> {
    match value {
        Value::Array(items) => items.iter().try_for_each(reject_proto_keys),
        Value::Object(members) => {
            let constructor = members.get("constructor").and_then(Value::as_object);
            let is_private = members.keys().any(|name| name.starts_with(PRIVATE_NAMES));
            let changes_prototype =
                members.contains_key("__proto__") || constructor.is_some_and(|inner| inner.contains_key("prototype"));
            if is_private || changes_prototype {
                return Err(JsonError::ForbiddenKey);
            }
            members.values().try_for_each(reject_proto_keys)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

/// Builds a [`Value`] as `serde_json` does, but refuses a member name that appears twice.
struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a json value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = sequence.next_element_seed(Strict)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            let value = map.next_value_seed(Strict)?;
            if members.insert(name, value).is_some() {
                return Err(A::Error::custom("a member name appears twice"));
            }
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn check(content_type: Option<&'static str>, body: &str) -> Result<Option<Value>, JsonError> {
        let mut headers = HeaderMap::new();
        if let Some(content_type) = content_type {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        document(&headers, body.as_bytes())
    }

    #[test]
    fn the_media_type_decides_what_a_body_is() {
        const JSON: Option<&str> = Some("application/json; charset=utf-8");
        assert_eq!(check(None, ""), Ok(None));
        assert_eq!(check(JSON, "{\"a\":[1,2.5,null,true,\"x\"]}"), Ok(Some(json!({"a": [1, 2.5, null, true, "x"]}))));
        assert_eq!(check(JSON, "null"), Ok(Some(Value::Null)));
        assert_eq!(check(JSON, ""), Err(JsonError::Empty));
        assert_eq!(check(JSON, " \n"), Err(JsonError::Empty));
        assert_eq!(check(Some("text/plain"), "{}"), Ok(Some(json!("{}"))));
        assert_eq!(check(None, "{}"), Err(JsonError::UnsupportedMediaType));
        assert_eq!(check(Some("application/x-www-form-urlencoded"), "a=b"), Err(JsonError::UnsupportedMediaType));
        assert_eq!(check(Some("json"), "{}"), Err(JsonError::UnsupportedMediaType));
    }

    #[test]
    fn a_document_has_one_meaning_or_is_refused() {
        for (body, error) in [
            (r#"{"a":1,"a":2}"#, JsonError::Malformed),
            (r#"{"x":{"a":1,"\u0061":2}}"#, JsonError::Malformed),
            (r#"{"a":1}x"#, JsonError::Malformed),
            (r#"{"a":01}"#, JsonError::Malformed),
            ("{", JsonError::Malformed),
            (r#"{"__proto__":{}}"#, JsonError::ForbiddenKey),
            (r#"{"\u005f_proto__":1}"#, JsonError::ForbiddenKey),
            (r#"[{"a":{"__proto__":null}}]"#, JsonError::ForbiddenKey),
            (r#"{"constructor":{"prototype":{}}}"#, JsonError::ForbiddenKey),
            (r#"{"a":{"$serde_json::private::RawValue":"{\"scopes\":[]}"}}"#, JsonError::ForbiddenKey),
            (r#"[{"\u0024serde_json::private::Number":"1"}]"#, JsonError::ForbiddenKey),
        ] {
            assert_eq!(parse(body.as_bytes()), Err(error), "{body}");
        }
        assert!(parse(br#"{"constructor":{"name":"x"},"prototype":1}"#).is_ok());
        assert_eq!(parse("[".repeat(200).as_bytes()), Err(JsonError::Malformed));
        assert_eq!(parse(format!("{}{}", "[".repeat(200), "]".repeat(200)).as_bytes()), Err(JsonError::Malformed));
    }

    proptest! {
        #[test]
        fn what_is_accepted_reads_as_the_parser_of_the_field_reads_it(text in r#"[\[\]{}:,"a-c0-9.\-etrufalsn ]{0,40}"#) {
            if let Ok(value) = parse(text.as_bytes()) {
                prop_assert_eq!(value, serde_json::from_str::<Value>(&text).unwrap());
            }
        }
    }
}
