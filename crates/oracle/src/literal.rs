//! Ground values and rules as the generator makes them, and their spelling as Rego text.

use std::fmt::Write as _;

use serde_json::Value;

use crate::chance::Chance;

/// A ground value.
#[derive(Debug, Clone, PartialEq)]
pub enum Literal {
    /// `null`.
    Null,
    /// `true` or `false`.
    Boolean(bool),
    /// A number, as its text.
    Number(&'static str),
    /// A string.
    Text(String),
    /// An array.
    Array(Vec<Literal>),
    /// An object, in the order written.
    Object(Vec<(Literal, Literal)>),
    /// A set.
    Set(Vec<Literal>),
}

/// One of the six names that a document may define.
pub type Root = &'static str;

/// How a rule defines its root.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Form {
    /// `default root := value`
    Default(Literal),
    /// `root := value`
    Complete(Literal),
    /// `root[key] := value`
    Member(Literal, Literal),
    /// `root contains value`
    Element(Literal),
    /// A rule that has to be evaluated, spelt.
    Program(String),
}

/// One rule.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rule {
    pub(crate) root: Root,
    pub(crate) form: Form,
}

/// One document of a zone.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Document {
    pub(crate) rules: Vec<Rule>,
    /// How it is spelt; the meaning is the same for every number.
    pub(crate) spelling: u64,
}

impl Literal {
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    pub(crate) fn object<const N: usize>(members: [(&str, Literal); N]) -> Self {
        Self::Object(members.into_iter().map(|(name, value)| (Self::text(name), value)).collect())
    }

    pub(crate) fn spell(&self, out: &mut String, chance: &mut Chance) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Boolean(value) => out.push_str(if *value { "true" } else { "false" }),
            Self::Number(text) => out.push_str(text),
            Self::Text(text) if !text.contains('`') && chance.percent(3) => {
                let _ = write!(out, "`{text}`");
            }
            Self::Text(text) => out.push_str(&Value::from(text.as_str()).to_string()),
            Self::Array(elements) => list(out, chance, ('[', ']'), elements, Self::spell),
            Self::Set(elements) if elements.is_empty() => out.push_str("set()"),
            Self::Set(elements) => list(out, chance, ('{', '}'), elements, Self::spell),
            Self::Object(members) => list(out, chance, ('{', '}'), members, |(key, value), out, chance| {
                key.spell(out, chance);
                out.push_str(if chance.percent(80) { ": " } else { ":" });
                value.spell(out, chance);
            }),
        }
    }
}

fn list<T>(
    out: &mut String,
    chance: &mut Chance,
    (open, close): (char, char),
    elements: &[T],
    mut spell: impl FnMut(&T, &mut String, &mut Chance),
) {
    out.push(open);
    for (index, element) in elements.iter().enumerate() {
        if index > 0 {
            out.push_str(if chance.percent(90) { ", " } else { ",\n  # a comment, with ] and }\n  " });
        }
        spell(element, out, chance);
    }
    if !elements.is_empty() && chance.percent(5) {
        out.push_str(",\n");
    }
    out.push(close);
}

impl Rule {
    fn spell(&self, out: &mut String, chance: &mut Chance) {
        let root = self.root;
        let assignment = if chance.percent(85) { ":=" } else { "=" };
        let (head, value) = match &self.form {
            Form::Program(text) => {
                out.push_str(text);
                out.push('\n');
                return;
            }
            Form::Default(value) => (format!("default {root} {assignment} "), value),
            Form::Complete(value) => (format!("{root} {assignment} "), value),
            Form::Element(value) => (format!("{root} contains "), value),
            Form::Member(key, value) => {
                let mut head = format!("{root}[");
                key.spell(&mut head, chance);
                (head + &format!("] {assignment} "), value)
            }
        };
        out.push_str(&head);
        value.spell(out, chance);
        out.push('\n');
    }
}

impl Document {
    /// The document's text.
    pub(crate) fn spelt(&self) -> String {
        let mut chance = Chance::of(self.spelling, 0);
        let mut out = String::from("# caracal:data-document\npackage caracal.authz\n\nimport rego.v1\n");
        for rule in &self.rules {
            if chance.percent(70) {
                out.push('\n');
            }
            rule.spell(&mut out, &mut chance);
        }
        out
    }
}

/// Whether two JSON values are the same to the language: numbers count by value, however they are written.
pub fn same_json(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one == other || one.as_f64() == other.as_f64(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same_json(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one.iter().all(|(key, value)| other.get(key).is_some_and(|other| same_json(value, other)))
        }
        _ => one == other,
    }
}
