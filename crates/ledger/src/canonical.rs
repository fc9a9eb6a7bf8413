//! One text per JSON value: the text PostgreSQL prints for a `jsonb` (contract: audit-and-streams.md §5.2).
//!
//! A content hash covers text, and two engines must give the same text for the same event: PostgreSQL keeps JSON
//! columns as `jsonb` and prints them in its own way, so that way is the canonical one, also where SQLite keeps the
//! text. What PostgreSQL prints was frozen first (`tests/vectors`); this module reproduces it.
//!
//! Everything happens on text: a number never becomes a floating-point value, so `1.50` keeps its zero and a
//! 40-digit integer keeps its digits. Nesting is bounded by [`MAX_DEPTH`] and the result by about
//! [`MAX_CANONICAL_BYTES`], because an exponent of three characters can ask for a hundred thousand digits.

mod decimal;
mod parse;

use std::borrow::Cow;

use serde_json::{Map, Value};

use decimal::Decimal;
use parse::Nul;

/// Deepest accepted nesting of arrays and objects. PostgreSQL accepts more, until its stack runs out.
pub const MAX_DEPTH: usize = 512;

/// Longest canonical text. Evidence is far smaller; what comes near it is an attack on memory.
pub const MAX_CANONICAL_BYTES: usize = 4 << 20;

/// Text that has no canonical form. Offsets are bytes from the start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotCanonical {
    /// Not JSON.
    #[error("not JSON at byte {0}")]
    Syntax(usize),
    /// A `\u` escape names half of a surrogate pair without its other half.
    #[error("half a surrogate pair at byte {0}")]
    HalfPair(usize),
    /// U+0000 in a string or key, which `jsonb` cannot hold. Only [`jsonb_text`] refuses it.
    #[error("U+0000 at byte {0}")]
    Nul(usize),
    /// A number outside PostgreSQL's `numeric`: over 131072 digits before or 16383 after the decimal point.
    #[error("number out of range at byte {0}")]
    NumberOutOfRange(usize),
    /// Nested deeper than [`MAX_DEPTH`].
    #[error("nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// Longer than [`MAX_CANONICAL_BYTES`].
    #[error("longer than {MAX_CANONICAL_BYTES} bytes in canonical form")]
    TooLong,
}

/// The canonical form of JSON text as it arrived in an event: U+0000 is taken out of strings and keys (§2.1), then
/// the value is written as `jsonb` would print it. Absent JSON, which is the empty text, is `null`.
///
/// Where removing U+0000 makes two keys of an object equal, the last one wins, as with any duplicate.
pub fn canonical(text: &str) -> Result<String, NotCanonical> {
    if text.is_empty() {
        return Ok("null".to_owned());
    }
    write(&parse::parse(text, Nul::Remove)?, text.len())
}

/// The canonical form of a value we built ourselves: equal to [`canonical`] of its JSON text, without writing and
/// parsing that text.
pub fn canonical_value(value: &Value) -> Result<String, NotCanonical> {
    write(&Node::of_value(value, 0)?, 64)
}

/// [`canonical_value`] of a list.
pub fn canonical_list(items: &[Value]) -> Result<String, NotCanonical> {
    write(&Node::of_items(items, 0)?, 64)
}

/// [`canonical_value`] of an object.
pub fn canonical_object(members: &Map<String, Value>) -> Result<String, NotCanonical> {
    write(&Node::of_members(members, 0)?, 256)
}

/// What PostgreSQL answers to `$1::jsonb::text`, refusals included (beyond our bounds on depth and length).
pub fn jsonb_text(text: &str) -> Result<String, NotCanonical> {
    write(&parse::parse(text, Nul::Refuse)?, text.len())
}

/// A JSON value with its strings decoded and its numbers still digits.
enum Node<'a> {
    Literal(&'static str),
    Number(Decimal<'a>),
    /// A number that is already in its final form.
    Digits(String),
    Text(Cow<'a, str>),
    Array(Vec<Node<'a>>),
    /// In order of appearance, duplicates included.
    Object(Vec<(Cow<'a, str>, Node<'a>)>),
}

impl<'a> Node<'a> {
    fn of_value(value: &'a Value, depth: usize) -> Result<Self, NotCanonical> {
        if depth == MAX_DEPTH && (value.is_array() || value.is_object()) {
            return Err(NotCanonical::TooDeep);
        }
        Ok(match value {
            Value::Null => Self::Literal("null"),
            Value::Bool(true) => Self::Literal("true"),
            Value::Bool(false) => Self::Literal("false"),
            Value::Number(number) => {
                let text = number.to_string();
                let (decimal, _) = Decimal::parse(&text, 0)?;
                let mut digits = String::with_capacity(text.len());
                decimal.write(&mut digits);
                Self::Digits(digits)
            }
            Value::String(text) => Self::Text(without_nul(text)),
            Value::Array(items) => Self::of_items(items, depth)?,
            Value::Object(members) => Self::of_members(members, depth)?,
        })
    }

    fn of_items(items: &'a [Value], depth: usize) -> Result<Self, NotCanonical> {
        items.iter().map(|item| Self::of_value(item, depth + 1)).collect::<Result<_, _>>().map(Self::Array)
    }

    fn of_members(members: &'a Map<String, Value>, depth: usize) -> Result<Self, NotCanonical> {
        let member = |(key, value): (&'a String, &'a Value)| {
            Ok::<_, NotCanonical>((without_nul(key), Self::of_value(value, depth + 1)?))
        };
        members.iter().map(member).collect::<Result<_, _>>().map(Self::Object)
    }
}

fn without_nul(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "")) } else { Cow::Borrowed(text) }
}

fn write(node: &Node<'_>, about: usize) -> Result<String, NotCanonical> {
    let mut out = String::with_capacity(about.min(MAX_CANONICAL_BYTES));
    write_node(node, &mut out)?;
    Ok(out)
}

fn write_node(node: &Node<'_>, out: &mut String) -> Result<(), NotCanonical> {
    match node {
        Node::Literal(word) => out.push_str(word),
        Node::Number(decimal) => decimal.write(out),
        Node::Digits(digits) => out.push_str(digits),
        Node::Text(text) => write_text(text, out),
        Node::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                write_node(item, out)?;
            }
            out.push(']');
        }
        Node::Object(members) => write_object(members, out)?,
    }
    // Checked after every node: what one node adds is bounded by the input or by the range of `numeric`.
    if out.len() > MAX_CANONICAL_BYTES { Err(NotCanonical::TooLong) } else { Ok(()) }
}

fn write_object(members: &[(Cow<'_, str>, Node<'_>)], out: &mut String) -> Result<(), NotCanonical> {
    let mut ordered: Vec<_> = members.iter().collect();
    // Stable, so that duplicates stay in order of appearance and the last of them is the last of its run.
    ordered.sort_by(|(a, _), (b, _)| a.len().cmp(&b.len()).then_with(|| a.as_bytes().cmp(b.as_bytes())));
    out.push('{');
    let mut first = true;
    for (index, (key, value)) in ordered.iter().enumerate() {
        if ordered.get(index + 1).is_some_and(|(next, _)| next == key) {
            continue;
        }
        if !first {
            out.push_str(", ");
        }
        first = false;
        write_text(key, out);
        out.push_str(": ");
        write_node(value, out)?;
    }
    out.push('}');
    Ok(())
}

fn write_text(text: &str, out: &mut String) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push('"');
    let mut plain_from = 0;
    for (at, byte) in text.bytes().enumerate() {
        let short = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            0x08 => "\\b",
            0x0c => "\\f",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0x00..=0x1f => "",
            _ => continue,
        };
        // Both ends are at ASCII bytes, hence at character boundaries.
        out.push_str(&text[plain_from..at]);
        plain_from = at + 1;
        if short.is_empty() {
            out.push_str("\\u00");
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 0xf)]));
        } else {
            out.push_str(short);
        }
    }
    out.push_str(&text[plain_from..]);
    out.push('"');
}
