//! Values on their way into the engine and out of it.

use regorus::Value as Engine;

use super::meter;
use super::outline::is_small;
use crate::literal::{Literal, Member, Position, Value};
use crate::number::Number;

/// Deepest value that is taken out.
const MAX_DEPTH: usize = 64;

/// A literal for the engine. A number that could not be computed with in bounded time is none: `None`.
pub(crate) fn to_engine(literal: &Literal) -> Option<Engine> {
    Some(match &literal.value {
        Value::Null => Engine::Null,
        Value::Boolean(value) => Engine::Bool(*value),
        Value::Number(number) => {
            let text = number.text();
            if !is_small(text) {
                return None;
            }
            Engine::from_numeric_string(text).ok()?
        }
        Value::String(text) => Engine::from(&**text),
        Value::Array(elements) => Engine::from(elements.iter().map(to_engine).collect::<Option<Vec<_>>>()?),
        Value::Set(elements) => {
            let mut set = Engine::new_set();
            let inner = set.as_set_mut().ok()?;
            for element in elements {
                inner.insert(to_engine(element)?);
            }
            set
        }
        Value::Object(members) => {
            let mut object = Engine::new_object();
            let inner = object.as_object_mut().ok()?;
            for Member { key, value } in members {
                inner.insert(to_engine(key)?, to_engine(value)?);
            }
            object
        }
    })
}

/// JSON for the engine.
pub(super) fn from_json(value: &serde_json::Value) -> Engine {
    match value {
        serde_json::Value::Null => Engine::Null,
        serde_json::Value::Bool(value) => Engine::Bool(*value),
        serde_json::Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
            (Some(value), ..) => Engine::from(value),
            (_, Some(value), _) => Engine::from(value),
            (.., Some(value)) => Engine::from(value),
            _ => Engine::Null,
        },
        serde_json::Value::String(text) => Engine::from(text.as_str()),
        serde_json::Value::Array(elements) => Engine::from(elements.iter().map(from_json).collect::<Vec<_>>()),
        serde_json::Value::Object(members) => {
            let mut object = Engine::new_object();
            if let Ok(inner) = object.as_object_mut() {
                inner.extend(members.iter().map(|(key, value)| (Engine::from(key.as_str()), from_json(value))));
            }
            object
        }
    }
}

/// A value out of the engine, as if written at `at`. `None` for one that is too large, or no value.
pub(super) fn to_literal(value: &Engine, at: Position) -> Option<Literal> {
    if meter::size(value, meter::MAX_VALUE) > meter::MAX_VALUE {
        return None;
    }
    literal(value, at, MAX_DEPTH)
}

fn literal(value: &Engine, at: Position, depth: usize) -> Option<Literal> {
    let inner = |value: &Engine| literal(value, at, depth.checked_sub(1)?);
    let value = match value {
        Engine::Null => Value::Null,
        Engine::Bool(value) => Value::Boolean(*value),
        Engine::Number(number) => Value::Number(Number::parse(&number.format_decimal())?),
        Engine::String(text) => Value::String(Box::from(&**text)),
        Engine::Array(elements) => Value::Array(elements.iter().map(inner).collect::<Option<_>>()?),
        Engine::Set(elements) => {
            let mut elements = elements.iter().map(inner).collect::<Option<Vec<_>>>()?;
            elements.sort();
            elements.dedup();
            Value::Set(elements)
        }
        Engine::Object(members) => {
            let member = |(key, value): (&Engine, &Engine)| Some(Member { key: inner(key)?, value: inner(value)? });
            let mut members = members.iter().map(member).collect::<Option<Vec<_>>>()?;
            members.sort_by(|a, b| a.key.cmp(&b.key));
            Value::Object(members)
        }
        Engine::Undefined => return None,
    };
    Some(Literal { at, value })
}

/// Nanoseconds since 1970 of a time as RFC 3339 writes it, if 64 bits hold them.
pub(super) fn rfc3339_nanoseconds(text: &str) -> Option<i64> {
    let digits = |from: usize, to: usize| -> Option<i64> {
        let piece = text.get(from..to)?;
        piece.bytes().all(|byte| byte.is_ascii_digit()).then(|| piece.parse().ok())?
    };
    let mark = |at: usize, marks: &str| text.get(at..at + 1).filter(|mark| marks.contains(*mark));
    let (year, month, day) = (digits(0, 4)?, digits(5, 7)?, digits(8, 10)?);
    let (hour, minute, second) = (digits(11, 13)?, digits(14, 16)?, digits(17, 19)?);
    let marks = mark(4, "-").and(mark(7, "-")).and(mark(10, "T")).and(mark(13, ":")).and(mark(16, ":"));
    marks?;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=days).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut at = 19;
    let mut fraction = 0;
    if mark(at, ".").is_some() {
        let length = text.get(at + 1..)?.bytes().take_while(u8::is_ascii_digit).count();
        let kept = length.min(9);
        if length == 0 {
            return None;
        }
        fraction = digits(at + 1, at + 1 + kept)? * 10_i64.pow(u32::try_from(9 - kept).ok()?);
        at += 1 + length;
    }
    let offset = match text.get(at..)? {
        "Z" => 0,
        zone if zone.len() == 6 => {
            let sign = if mark(at, "+").is_some() { 1 } else { mark(at, "-").map(|_| -1)? };
            mark(at + 3, ":")?;
            let (hours, minutes) = (digits(at + 1, at + 3)?, digits(at + 4, at + 6)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            sign * (hours * 60 + minutes) * 60
        }
        _ => return None,
    };
    // Days since 1970 by the months of a year that begins in March.
    let (march_year, march_month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let era = march_year.div_euclid(400);
    let of_era = march_year.rem_euclid(400);
    let of_year = (153 * march_month + 2) / 5 + day - 1;
    let since = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    let seconds = since * 86_400 + hour * 3_600 + minute * 60 + second - offset;
    seconds.checked_mul(1_000_000_000)?.checked_add(fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_rfc_3339_means_them() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2026-01-01T00:00:00Z", Some(1_767_225_600_000_000_000)),
            ("2024-02-29T12:30:15.25+02:00", Some(1_709_202_615_250_000_000)),
            ("1969-12-31T23:59:59.999999999Z", Some(-1)),
            ("2023-02-29T00:00:00Z", None),
            ("2026-13-01T00:00:00Z", None),
            ("2026-01-01 00:00:00Z", None),
            ("2026-01-01T00:00:00", None),
            ("2026-01-01T24:00:00Z", None),
            ("9999-01-01T00:00:00Z", None),
            ("", None),
        ] {
            assert_eq!(rfc3339_nanoseconds(text), expected, "{text}");
        }
    }
}
