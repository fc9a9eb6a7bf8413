//! Ground values: what a data document may say.
//!
//! JSON extended by sets and by keys that are not strings, with the position of every value, so that a defect
//! found later still names its line. Equality and order ignore positions and are those of the Rego language:
//! null, booleans, numbers, strings, arrays, objects, sets.

use std::cmp::Ordering;

use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};

use crate::number::Number;

/// A place in a document, both counted from 1; columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Line, counted from 1.
    pub line: u32,
    /// Column in characters, counted from 1.
    pub column: u32,
}

/// A value and where it was written.
#[derive(Debug, Clone)]
pub struct Literal {
    /// Where the value starts.
    pub at: Position,
    /// The value.
    pub value: Value,
}

/// A ground value.
#[derive(Debug, Clone)]
pub enum Value {
    /// `null`.
    Null,
    /// `true` or `false`.
    Boolean(bool),
    /// A number, as its text.
    Number(Number),
    /// A string, escapes resolved.
    String(Box<str>),
    /// An array, in the order written.
    Array(Vec<Literal>),
    /// An object, sorted by key, every key once (the last of equal keys wins).
    Object(Vec<Member>),
    /// A set, sorted, every element once.
    Set(Vec<Literal>),
}

/// One member of an object.
#[derive(Debug, Clone)]
pub struct Member {
    /// The key; usually, not always, a string.
    pub key: Literal,
    /// The value.
    pub value: Literal,
}

impl Literal {
    /// The text of a string, `None` for anything else.
    pub fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The value under a string key of an object; `None` for anything else.
    pub fn get(&self, name: &str) -> Option<&Literal> {
        let Value::Object(members) = &self.value else {
            return None;
        };
        // Sorted by key, and strings are the fourth rank: see `rank`.
        members
            .binary_search_by(|member| match &member.key.value {
                Value::String(key) => key.as_bytes().cmp(name.as_bytes()),
                other => rank(other).cmp(&STRING_RANK),
            })
            .ok()
            .map(|index| &members[index].value)
    }

    /// The values a search looks through: elements of arrays and sets, values of objects; `None` for a scalar.
    pub fn elements(&self) -> Option<impl Iterator<Item = &Literal>> {
        let (plain, members): (&[Literal], &[Member]) = match &self.value {
            Value::Array(elements) | Value::Set(elements) => (elements, &[]),
            Value::Object(members) => (&[], members),
            _ => return None,
        };
        Some(plain.iter().chain(members.iter().map(|member| &member.value)))
    }

    /// What kind of value this is, for messages.
    pub fn kind(&self) -> &'static str {
        match &self.value {
            Value::Null => "null",
            Value::Boolean(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::Array(_) => "an array",
            Value::Object(_) => "an object",
            Value::Set(_) => "a set",
        }
    }
}

const STRING_RANK: u8 = 3;

fn rank(value: &Value) -> u8 {
    match value {
        Value::Null => 0,
        Value::Boolean(_) => 1,
        Value::Number(_) => 2,
        Value::String(_) => STRING_RANK,
        Value::Array(_) => 4,
        Value::Object(_) => 5,
        Value::Set(_) => 6,
    }
}

impl Ord for Value {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Value::Boolean(a), Value::Boolean(b)) => a.cmp(b),
            (Value::Number(a), Value::Number(b)) => a.cmp(b),
            (Value::String(a), Value::String(b)) => a.as_bytes().cmp(b.as_bytes()),
            (Value::Array(a), Value::Array(b)) | (Value::Set(a), Value::Set(b)) => a.cmp(b),
            // Members pairwise, first key then its value; the shorter object first on a tie (policy.md §4.4).
            (Value::Object(a), Value::Object(b)) => a.cmp(b),
            _ => rank(self).cmp(&rank(other)),
        }
    }
}

impl Ord for Member {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key.cmp(&other.key).then_with(|| self.value.cmp(&other.value))
    }
}

impl Ord for Literal {
    fn cmp(&self, other: &Self) -> Ordering {
        self.value.cmp(&other.value)
    }
}

macro_rules! equality_follows_order {
    ($($name:ident)+) => {$(
        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }
        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.cmp(other) == Ordering::Equal
            }
        }
        impl Eq for $name {}
    )+};
}

equality_follows_order! { Value Member Literal }

impl Serialize for Literal {
    /// As the engine answers in JSON: sets become arrays, a key that is no string becomes its own JSON text.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.value {
            Value::Null => serializer.serialize_unit(),
            Value::Boolean(value) => serializer.serialize_bool(*value),
            Value::Number(value) => value.serialize(serializer),
            Value::String(value) => serializer.serialize_str(value),
            Value::Array(elements) | Value::Set(elements) => {
                let mut sequence = serializer.serialize_seq(Some(elements.len()))?;
                for element in elements {
                    sequence.serialize_element(element)?;
                }
                sequence.end()
            }
            Value::Object(members) => {
                let mut map = serializer.serialize_map(Some(members.len()))?;
                for Member { key, value } in members {
                    match key.as_str() {
                        Some(key) => map.serialize_entry(key, value)?,
                        None => {
                            let key = serde_json::to_string(key).map_err(serde::ser::Error::custom)?;
                            map.serialize_entry(&key, value)?;
                        }
                    }
                }
                map.end()
            }
        }
    }
}
