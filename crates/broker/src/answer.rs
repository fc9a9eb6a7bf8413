//! What a token endpoint answers (contract: sts.md §10.3).

use caracal_crypto::SecretText;
use caracal_http::egress::SimpleResponse;
use caracal_http::json;
use http::StatusCode;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::error::BrokerError;

/// The flaw of an answer whose token is of a type that nobody has said how to use.
pub(crate) const NOT_BEARER: &str = "the token_type is not bearer, and no auth_scheme is configured";
/// Largest answer that is read.
pub(crate) const MOST_BYTES: usize = 64 * 1024;
/// No token lives longer than what `expires_in` can say in a year; larger numbers are nonsense or an overflow to be.
const MOST_SECONDS: u64 = 365 * 86_400;

/// A token that was issued.
pub struct Issued {
    /// `access_token`.
    pub access_token: SecretText,
    /// `refresh_token`, where there is one.
    pub refresh_token: Option<SecretText>,
    /// `expires_in`, in seconds.
    pub expires_in: Option<u64>,
}

/// Reads an answer. `names_scheme` admits types other than `bearer`.
pub(crate) fn read(answer: &SimpleResponse, names_scheme: bool) -> Result<Issued, BrokerError> {
    let status = answer.status.as_u16();
    let bad = |what| Err(BrokerError::BadAnswer { status, what });
    let members = members(&answer.body);
    if answer.status.is_client_error() {
        return Err(BrokerError::Refused { status, code: members.as_ref().and_then(error_code) });
    }
    if answer.status != StatusCode::OK {
        return bad("the status is not 200");
    }
    let Some(mut members) = members else { return bad("the body is not a JSON object") };
    let access_token = take(&mut members, "access_token");
    let refresh_token = take(&mut members, "refresh_token");
    let Some(access_token) = access_token else {
        // Some endpoints say 200 and mean no.
        return match error_code(&members) {
            Some(code) => Err(BrokerError::Refused { status, code: Some(code) }),
            None => bad("there is no access_token"),
        };
    };
    // It is to be a header's value or a parameter's.
    if !access_token.expose().bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
        return bad("the access_token has characters that none may have");
    }
    match members.get("token_type") {
        None | Some(Value::Null) => {}
        Some(Value::String(kind)) if kind.is_empty() || kind.eq_ignore_ascii_case("bearer") || names_scheme => {}
        Some(Value::String(_)) => return bad(NOT_BEARER),
        Some(_) => return bad("the token_type is not a text"),
    }
    let expires_in = match members.get("expires_in") {
        None | Some(Value::Null) => None,
        Some(said) => match seconds(said) {
            Some(seconds) => Some(seconds.min(MOST_SECONDS)),
            None => return bad("the expires_in is not a number of seconds"),
        },
    };
    Ok(Issued { access_token, refresh_token, expires_in })
}

/// The members of a JSON object that no two readers read in two ways: which of two tokens is meant nobody has to guess.
pub(crate) fn members(body: &[u8]) -> Option<Map<String, Value>> {
    match json::parse(body) {
        Ok(Value::Object(members)) => Some(members),
        _ => None,
    }
}

/// A number; some endpoints write it as a text, some with a fraction.
fn seconds(said: &Value) -> Option<u64> {
    match said {
        Value::Number(number) => number.as_u64().or_else(|| {
            // A fraction is cut off, and what is too large to be counted is as large as can be.
            let whole = number.as_f64().filter(|seconds| *seconds >= 0.0)?.trunc();
            Some(format!("{whole:.0}").parse().unwrap_or(u64::MAX))
        }),
        Value::String(text) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(text.parse().unwrap_or(u64::MAX))
        }
        _ => None,
    }
}

fn take(members: &mut Map<String, Value>, name: &str) -> Option<SecretText> {
    match members.remove(name) {
        Some(Value::String(text)) if !text.trim().is_empty() => Some(SecretText::new(text)),
        Some(Value::String(text)) => {
            drop(Zeroizing::new(text));
            None
        }
        _ => None,
    }
}

/// An error code of the protocol. Anything that does not look like one may be anything, a secret included.
pub(crate) fn error_code(members: &Map<String, Value>) -> Option<String> {
    let code = members.get("error")?.as_str()?;
    is_error_code(code).then(|| code.to_owned())
}

pub(crate) fn is_error_code(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderMap;
    use proptest::prelude::*;

    use super::*;

    fn answer(status: u16, body: &str) -> SimpleResponse {
        SimpleResponse {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            body: Bytes::copy_from_slice(body.as_bytes()),
        }
    }

    fn issued(body: &str, names_scheme: bool) -> Result<(String, Option<String>, Option<u64>), BrokerError> {
        let issued = read(&answer(200, body), names_scheme)?;
        let text = |secret: &SecretText| secret.expose().clone();
        Ok((text(&issued.access_token), issued.refresh_token.as_ref().map(text), issued.expires_in))
    }

    #[test]
    fn a_token_is_read_with_its_life_and_its_successor() {
        let full = r#"{"access_token":"a","token_type":"bEARER","expires_in":60,"refresh_token":"r","x":{}}"#;
        assert_eq!(issued(full, false), Ok(("a".to_owned(), Some("r".to_owned()), Some(60))));
        for (said, expected) in [
            ("\"3599\"", 3_599),
            ("59.9", 59),
            ("0", 0),
            ("1e300", MOST_SECONDS),
            ("\"99999999999999999999\"", MOST_SECONDS),
        ] {
            let body = format!(r#"{{"access_token":"a","expires_in":{said}}}"#);
            assert_eq!(issued(&body, false), Ok(("a".to_owned(), None, Some(expected))), "{said}");
        }
        for untyped in [r#"{"access_token":"a"}"#, r#"{"access_token":"a","token_type":"","expires_in":null}"#] {
            assert_eq!(issued(untyped, false), Ok(("a".to_owned(), None, None)));
        }
    }

    #[test]
    fn a_token_of_another_type_needs_a_configured_scheme() {
        let mac = r#"{"access_token":"a","token_type":"mac"}"#;
        assert!(matches!(issued(mac, false), Err(BrokerError::BadAnswer { status: 200, .. })));
        assert!(issued(mac, true).is_ok());
        assert!(issued(r#"{"access_token":"a","token_type":1}"#, true).is_err());
    }

    #[test]
    fn an_answer_without_a_usable_token_is_none() {
        for body in [
            "",
            "[]",
            "null",
            "{}",
            "<html>",
            r#"{"access_token":""}"#,
            r#"{"access_token":" "}"#,
            r#"{"access_token":1}"#,
            r#"{"access_token":"a","access_token":"b"}"#,
            r#"{"access_token":"a","access\u005ftoken":"a"}"#,
            r#"{"access_token":"a","expires_in":60,"expires_in":6000000}"#,
            r#"{"access_token":{"$serde_json::private::RawValue":"\"a\""}}"#,
            r#"{"access_token":"a","expires_in":{"$serde_json::private::Number":"60"}}"#,
            r#"{"access_token":"a","x":{"$serde_json::private::RawValue":"1"}}"#,
            "{\"access_token\":\"a\\nb\"}",
            "{\"access_token\":\"\u{e4}\"}",
            r#"{"access_token":"a","expires_in":-1}"#,
            r#"{"access_token":"a","expires_in":"soon"}"#,
            r#"{"access_token":"a","expires_in":""}"#,
        ] {
            assert!(matches!(issued(body, false), Err(BrokerError::BadAnswer { status: 200, .. })), "{body}");
        }
        for status in [201, 204, 302, 500, 503] {
            let refused = read(&answer(status, r#"{"access_token":"a"}"#), false).err().unwrap();
            assert!(refused.counts() && refused.may_pass() == (status >= 500), "{status}");
        }
    }

    #[test]
    fn a_refusal_is_about_us_and_repeats_nothing_but_a_code() {
        for (body, code) in [
            (r#"{"error":"invalid_client","error_description":"secret s3cr3t is wrong"}"#, Some("invalid_client")),
            (r#"{"error":"Your secret s3cr3t is wrong"}"#, None),
            ("no", None),
        ] {
            let refused = read(&answer(401, body), false).err().unwrap();
            assert_eq!(refused, BrokerError::Refused { status: 401, code: code.map(str::to_owned) });
            assert!(!refused.counts() && !refused.may_pass() && !refused.to_string().contains("s3cr3t"));
        }
        assert!(matches!(issued(r#"{"error":"invalid_grant"}"#, false), Err(BrokerError::Refused { status: 200, .. })));
    }

    proptest! {
        #[test]
        fn whatever_is_answered_is_a_token_or_an_error(body in ".*", status in 200_u16..600) {
            if let Ok(issued) = read(&answer(status, &body), false) {
                prop_assert!(status == 200 && !issued.access_token.expose().is_empty());
            }
        }

        #[test]
        fn any_number_of_seconds_is_bounded(said in any::<f64>().prop_filter("a number", |said| said.is_finite())) {
            let body = format!(r#"{{"access_token":"a","expires_in":{said:?}}}"#);
            match issued(&body, false) {
                Ok((_, _, Some(seconds))) => prop_assert!(said > -1.0 && seconds <= MOST_SECONDS),
                Ok(_) => prop_assert!(false, "the number was lost"),
                Err(_) => prop_assert!(said < 0.0),
            }
        }
    }
}
