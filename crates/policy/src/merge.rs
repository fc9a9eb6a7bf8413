//! One root out of many documents (contract: policy.md §2.1 last row, §7.3).
//!
//! Complete rules must agree, partial rules merge, the two do not mix, and a root has at most one default. Every
//! contradiction is a defect here, whichever root it is in: the reference notices some only at run time (D31).

use crate::defect::{DefectKind, Defects};
use crate::literal::{Literal, Position, Value};
use crate::parse::{Form, ParsedDocument, Rule, shortened};
use crate::root::Root;

/// A root's value with the document every part came from.
pub(crate) struct Merged<'d> {
    pub(crate) kind: Kind,
    pub(crate) items: Vec<Item<'d>>,
    /// Where the root is defined first.
    pub(crate) document: usize,
    pub(crate) at: Position,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Scalar(&'static str),
    Array,
    Object,
    Set,
}

/// An element, or a member's value with its key.
#[derive(Clone, Copy)]
pub(crate) struct Item<'d> {
    pub(crate) document: usize,
    pub(crate) key: Option<&'d Literal>,
    pub(crate) value: &'d Literal,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Scalar(name) => name,
            Kind::Array => "an array",
            Kind::Object => "an object",
            Kind::Set => "a set",
        }
    }
}

/// The value of a root, `None` if no document defines it or its definitions contradict each other.
pub(crate) fn merge<'d>(root: Root, documents: &[&'d ParsedDocument], defects: &mut Defects<'_>) -> Option<Merged<'d>> {
    let mut rules = Rules::default();
    for (document, parsed) in documents.iter().enumerate() {
        for rule in parsed.rules.iter().filter(|rule| rule.root == root) {
            rules.add(document, rule, defects);
        }
    }
    if let Some((document, value)) = rules.complete {
        return Some(whole(document, value));
    }
    if let Some((document, value)) = rules.default {
        return Some(whole(document, value));
    }
    let (document, at) = rules.first_part?;
    let (kind, items) = match rules.elements.is_empty() {
        false => (Kind::Set, rules.elements),
        true => (Kind::Object, one_per_key(root, rules.members, defects)),
    };
    Some(Merged { kind, items, document, at })
}

#[derive(Default)]
struct Rules<'d> {
    /// The first partial rule.
    first_part: Option<(usize, Position)>,
    default: Option<(usize, &'d Literal)>,
    complete: Option<(usize, &'d Literal)>,
    members: Vec<Item<'d>>,
    elements: Vec<Item<'d>>,
}

impl<'d> Rules<'d> {
    fn add(&mut self, document: usize, rule: &'d Rule, defects: &mut Defects<'_>) {
        let root = rule.root;
        // A default is a complete rule: beside parts it has no meaning.
        let other_form = match rule.form {
            Form::Default(_) | Form::Complete(_) => self.members.first().or(self.elements.first()).copied(),
            Form::Member(_) => self.elements.first().copied(),
            Form::Element(_) => self.members.first().copied(),
        }
        .map(|item| (item.document, item.key.unwrap_or(item.value).at))
        .or_else(|| match rule.form {
            Form::Default(_) | Form::Complete(_) => None,
            _ => self.complete.or(self.default).map(|(document, value)| (document, value.at)),
        });
        if let Some((first, at)) = other_form {
            let policy_version_id = defects.id(first);
            return defects.add(document, rule.at, DefectKind::MixedForms { root, policy_version_id, at });
        }
        match &rule.form {
            Form::Default(value) => match self.default {
                None => self.default = Some((document, value)),
                Some((first, earlier)) => {
                    let policy_version_id = defects.id(first);
                    defects.add(document, rule.at, DefectKind::TwoDefaults { root, policy_version_id, at: earlier.at });
                }
            },
            Form::Complete(value) => match self.complete {
                None => self.complete = Some((document, value)),
                Some((first, earlier)) if earlier != value => {
                    let policy_version_id = defects.id(first);
                    defects.add(document, rule.at, DefectKind::Conflict { root, policy_version_id, at: earlier.at });
                }
                Some(_) => {}
            },
            Form::Member(member) => {
                self.members.push(Item { document, key: Some(&member.key), value: &member.value });
            }
            Form::Element(value) => self.elements.push(Item { document, key: None, value }),
        }
        if matches!(rule.form, Form::Member(_) | Form::Element(_)) {
            self.first_part.get_or_insert((document, rule.at));
        }
    }
}

fn whole(document: usize, literal: &Literal) -> Merged<'_> {
    let (kind, items) = match &literal.value {
        Value::Array(elements) => (Kind::Array, elements.iter().map(|value| (None, value)).collect::<Vec<_>>()),
        Value::Set(elements) => (Kind::Set, elements.iter().map(|value| (None, value)).collect()),
        Value::Object(members) => {
            (Kind::Object, members.iter().map(|member| (Some(&member.key), &member.value)).collect())
        }
        _ => (Kind::Scalar(literal.kind()), Vec::new()),
    };
    let items = items.into_iter().map(|(key, value)| Item { document, key, value }).collect();
    Merged { kind, items, document, at: literal.at }
}

fn one_per_key<'d>(root: Root, mut members: Vec<Item<'d>>, defects: &mut Defects<'_>) -> Vec<Item<'d>> {
    members.sort_by(|a, b| a.key.cmp(&b.key));
    let mut kept: Vec<Item<'d>> = Vec::with_capacity(members.len());
    for member in members {
        match (kept.last(), member.key) {
            (Some(first), Some(key)) if first.key == Some(key) => {
                if first.value != member.value {
                    let policy_version_id = defects.id(first.document);
                    let key_text = shortened(&serde_json::to_string(key).unwrap_or_default());
                    let at = first.value.at;
                    let kind = DefectKind::ConflictingKey { root, key: key_text, policy_version_id, at };
                    defects.add(member.document, key.at, kind);
                }
            }
            _ => kept.push(member),
        }
    }
    kept
}
