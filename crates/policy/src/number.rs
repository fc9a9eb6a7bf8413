//! Numbers as written: decimal text, compared by value.
//!
//! The reference's engine keeps the text of a number (`900.0` stays `900.0`) and compares values, so a binary
//! float would both print differently and confuse neighbours beyond 2^53. An exponent is never expanded:
//! `1e999999999` costs as much as its text.

use std::cmp::Ordering;

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

/// Largest integer of which every neighbour is still distinct for a reader that uses binary floats.
const MAX_SAFE_INTEGER: u64 = 1 << 53;

/// A JSON number, kept as its text. Equality and order are by value: `900.0` equals `900`.
#[derive(Debug, Clone)]
pub struct Number(Box<str>);

impl Number {
    /// Takes text that follows the JSON grammar of numbers; `None` otherwise.
    pub fn parse(text: &str) -> Option<Self> {
        is_json_number(text.as_bytes()).then(|| Self(Box::from(text)))
    }

    /// As it was written.
    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    /// The value, if it is an integer from 1 to 2^53. Larger ones differ between engines, so they count as
    /// unreadable (policy.md §14.2 row 10).
    pub fn as_positive_integer(&self) -> Option<u64> {
        let normal = self.normal();
        let length = i64::try_from(normal.digits.len()).ok()?;
        if normal.negative || normal.digits.is_empty() || normal.point < length || normal.point > 16 {
            return None;
        }
        let mut value = normal.digits.iter().fold(0_u64, |value, digit| value * 10 + u64::from(*digit));
        for _ in length..normal.point {
            value *= 10;
        }
        (value <= MAX_SAFE_INTEGER).then_some(value)
    }

    fn normal(&self) -> Normal {
        let (negative, rest) = match self.0.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, &*self.0),
        };
        let (mantissa, exponent) = rest.split_once(['e', 'E']).unwrap_or((rest, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let mut digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).map(|digit| digit - b'0').collect();
        let leading = digits.iter().take_while(|digit| **digit == 0).count();
        digits.drain(..leading);
        while digits.last() == Some(&0) {
            digits.pop();
        }
        if digits.is_empty() {
            return Normal { negative: false, point: 0, digits };
        }
        let written = i64::try_from(whole.len()).unwrap_or(i64::MAX);
        let leading = i64::try_from(leading).unwrap_or(i64::MAX);
        Normal { negative, point: written.saturating_sub(leading).saturating_add(exponent_of(exponent)), digits }
    }
}

/// `±0.d1d2d3… × 10^point`, without leading or trailing zeros; zero has no digits.
struct Normal {
    negative: bool,
    point: i64,
    digits: Vec<u8>,
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        if self.0 == other.0 {
            return Ordering::Equal;
        }
        let (a, b) = (self.normal(), other.normal());
        let sign = |number: &Normal| match (number.digits.is_empty(), number.negative) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        };
        sign(&a).cmp(&sign(&b)).then_with(|| {
            let magnitude = a.point.cmp(&b.point).then_with(|| a.digits.cmp(&b.digits));
            if a.negative { magnitude.reverse() } else { magnitude }
        })
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Number {}

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Ok(value) = self.0.parse::<u64>() {
            return serializer.serialize_u64(value);
        }
        if let Ok(value) = self.0.parse::<i64>()
            && value != 0
        {
            return serializer.serialize_i64(value);
        }
        RawValue::from_string(self.0.to_string()).map_err(serde::ser::Error::custom)?.serialize(serializer)
    }
}

/// The exponent, saturated at 2^56: no document means a larger one, and arithmetic on it must not overflow.
fn exponent_of(text: &str) -> i64 {
    const BOUND: i64 = 1 << 56;
    let digits = text.trim_start_matches(['+', '-']);
    let size = digits.bytes().fold(0_i64, |value, digit| (value * 10 + i64::from(digit - b'0')).min(BOUND));
    if text.starts_with('-') { -size } else { size }
}

fn is_json_number(text: &[u8]) -> bool {
    fn digits(text: &[u8]) -> usize {
        text.iter().take_while(|byte| byte.is_ascii_digit()).count()
    }
    let mut rest = text.strip_prefix(b"-").unwrap_or(text);
    let whole = digits(rest);
    if whole == 0 || (whole > 1 && rest[0] == b'0') {
        return false;
    }
    rest = &rest[whole..];
    if let Some(fraction) = rest.strip_prefix(b".") {
        let length = digits(fraction);
        if length == 0 {
            return false;
        }
        rest = &fraction[length..];
    }
    if let [b'e' | b'E', exponent @ ..] = rest {
        let exponent = match exponent {
            [b'+' | b'-', unsigned @ ..] => unsigned,
            _ => exponent,
        };
        let length = digits(exponent);
        if length == 0 {
            return false;
        }
        rest = &exponent[length..];
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Number {
        Number::parse(text).unwrap()
    }

    #[test]
    fn only_json_numbers_are_numbers() {
        for text in ["0", "-0", "10", "1.5", "1e3", "1E-3", "1.25e+10"] {
            assert!(Number::parse(text).is_some(), "{text}");
        }
        for text in ["", "-", "01", "1.", ".5", "1e", "1e+", "+1", "1x", "0x1", "1_000", " 1"] {
            assert!(Number::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn numbers_compare_by_value() {
        for (a, b) in [("900", "900.0"), ("9e2", "900"), ("0", "-0.0"), ("0e5", "0"), ("1e-2", "0.01")] {
            assert_eq!(number(a), number(b), "{a} {b}");
        }
        let ascending = [
            "-1e999999999999999999999",
            "-10",
            "-9.5",
            "-1e-5",
            "0",
            "1e-5",
            "0.5",
            "1",
            "2",
            "10",
            "9007199254740993",
            "9007199254740994",
            "1e99",
            "1e999999999999999999999",
        ];
        for pair in ascending.windows(2) {
            assert!(number(pair[0]) < number(pair[1]), "{pair:?}");
        }
    }

    #[test]
    fn whole_positive_numbers_are_read_exactly() {
        for (text, value) in [
            ("1", Some(1)),
            ("900", Some(900)),
            ("900.0", Some(900)),
            ("9e2", Some(900)),
            ("9007199254740992", Some(9_007_199_254_740_992)),
            ("9007199254740993", None),
            ("99999999999999999999", None),
            ("1e999999999999", None),
            ("0", None),
            ("-0", None),
            ("-1", None),
            ("1.5", None),
            ("0.1", None),
        ] {
            assert_eq!(number(text).as_positive_integer(), value, "{text}");
        }
    }

    #[test]
    fn a_number_is_written_as_it_was_read() {
        for text in ["0", "900", "-7", "900.0", "1.5", "18446744073709551615", "99999999999999999999", "1.50"] {
            assert_eq!(serde_json::to_string(&number(text)).unwrap(), text);
        }
    }
}
