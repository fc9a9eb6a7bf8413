//! The text of a request under its digest: object keys in UTF-16 order, no white space, numbers and strings as
//! ECMAScript writes them (contract: coordinator.md §10). Two requests that mean the same have one text.

use serde_json::{Number, Value};

/// The canonical text of `value`.
pub(crate) fn canonical(value: &Value) -> String {
    let mut text = String::new();
    write(&mut text, value);
    text
}

fn write(text: &mut String, value: &Value) {
    match value {
        Value::Null => text.push_str("null"),
        Value::Bool(true) => text.push_str("true"),
        Value::Bool(false) => text.push_str("false"),
        Value::Number(number) => write_number(text, number),
        Value::String(string) => write_string(text, string),
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write(text, item);
            }
            text.push(']');
        }
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by(|(one, _), (other, _)| one.encode_utf16().cmp(other.encode_utf16()));
            text.push('{');
            for (index, (name, member)) in members.into_iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write_string(text, name);
                text.push(':');
                write(text, member);
            }
            text.push('}');
        }
    }
}

/// The JSON writer escapes exactly what ECMAScript's does: `"`, `\`, and control characters, those in lower-case hex.
fn write_string(text: &mut String, string: &str) {
    text.push_str(&Value::from(string).to_string());
}

/// Integers keep all their digits, also beyond what a double can tell apart: two different requests must not share a
/// digest.
fn write_number(text: &mut String, number: &Number) {
    match number.as_f64() {
        Some(double) if number.is_f64() => write_double(text, double),
        _ => text.push_str(&number.to_string()),
    }
}

/// `Number::toString` (ECMA-262 §6.1.6.1.20): the shortest digits that read back as the same double, in plain notation
/// from 1e-6 up to below 1e21.
fn write_double(text: &mut String, double: f64) {
    let scientific = format!("{:e}", double.abs());
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let digits = mantissa.replace('.', "");
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if double < 0.0 {
        text.push('-');
    }
    let count = i32::try_from(digits.len()).unwrap_or(i32::MAX);
    // The decimal point stands behind this many digits.
    let point = exponent + 1;
    let zeros = |count: i32| "0".repeat(usize::try_from(count).unwrap_or(0));
    match point {
        _ if digits == "0" => text.push('0'),
        point if count <= point && point <= 21 => {
            text.push_str(&digits);
            text.push_str(&zeros(point - count));
        }
        point if 0 < point && point <= 21 => {
            let (whole, fraction) = digits.split_at(usize::try_from(point).unwrap_or(0));
            text.push_str(whole);
            text.push('.');
            text.push_str(fraction);
        }
        point if -6 < point && point <= 0 => {
            text.push_str("0.");
            text.push_str(&zeros(-point));
            text.push_str(&digits);
        }
        _ => {
            let (first, rest) = digits.split_at(1);
            text.push_str(first);
            if !rest.is_empty() {
                text.push('.');
                text.push_str(rest);
            }
            text.push_str(if exponent < 0 { "e-" } else { "e+" });
            text.push_str(&exponent.unsigned_abs().to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use caracal_crypto::hmac::sha256_hex;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_contracts_vector_holds() {
        let request = json!({
            "ttl_seconds": 3600, "subject_authority_record_id": "rec-1", "parent_id": null, "application_id": "app-1",
            "principal": {"subject": "app-1", "client_id": "app-1"}, "parent_authority": "inherit", "metadata": {},
            "lifecycle": "task", "labels": ["a"], "inherit_parent_edge_id": null,
        });
        let text = canonical(&request);
        assert_eq!(
            text,
            concat!(
                r#"{"application_id":"app-1","inherit_parent_edge_id":null,"labels":["a"],"lifecycle":"task","#,
                r#""metadata":{},"parent_authority":"inherit","parent_id":null,"#,
                r#""principal":{"client_id":"app-1","subject":"app-1"},"#,
                r#""subject_authority_record_id":"rec-1","ttl_seconds":3600}"#
            )
        );
        let digest = "d7a39bb3c841f8ed47661193a91303b0c66b8f5e2b0acf5b9dfdec59a46e66fa";
        assert_eq!(sha256_hex(text.as_bytes()), digest);
    }

    #[test]
    fn numbers_read_as_ecmascript_writes_them() {
        for (number, expected) in [
            ("0", "0"),
            ("-0.0", "0"),
            ("1.0", "1"),
            ("-1.50", "-1.5"),
            ("123.456", "123.456"),
            ("1e2", "100"),
            ("1e20", "100000000000000000000"),
            ("1.5e20", "150000000000000000000"),
            ("1e21", "1e+21"),
            ("1.25e22", "1.25e+22"),
            ("0.000001", "0.000001"),
            ("0.00000125", "0.00000125"),
            ("1e-7", "1e-7"),
            ("1.5e-9", "1.5e-9"),
            ("5e-324", "5e-324"),
            ("1.7976931348623157e308", "1.7976931348623157e+308"),
            ("9007199254740993", "9007199254740993"),
            ("18446744073709551615", "18446744073709551615"),
        ] {
            let value: Value = serde_json::from_str(number).unwrap();
            assert_eq!(canonical(&value), expected, "{number}");
        }
    }

    #[test]
    fn keys_are_in_utf16_order_and_strings_are_escaped_sparingly() {
        // U+1F600 is above U+FFFD as a code point and below it as UTF-16.
        let value = json!({"\u{fffd}": 1, "\u{1f600}": 2, "a": "\u{1}\u{8}\n\"\\/\u{7f}é", "B": [true, null]});
        assert_eq!(
            canonical(&value),
            "{\"B\":[true,null],\"a\":\"\\u0001\\b\\n\\\"\\\\/\u{7f}é\",\"\u{1f600}\":2,\"\u{fffd}\":1}"
        );
    }
}
