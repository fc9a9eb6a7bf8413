//! One root out of many documents (contract: policy.md §2.1 last row, §7.3).
//!
//! Complete rules must agree, partial rules merge, the two do not mix, and a root has at most one default. Every
//! contradiction is a defect here, whichever root it is in: the reference notices some only at run time (D31).
//!
//! What was evaluated comes in as the rules that would have said it, so the same holds between it and what is written.

use std::sync::Arc;

use crate::defect::{DefectKind, Defects};
use crate::literal::{Literal, Member, Position, Value};
use crate::parse::{Form, ParsedDocument, Rule, shortened};
use crate::rego::{Evaluation, Given, PartForm};
use crate::root::Root;

/// The documents of a bundle, and what evaluating them gave: once for all, and for one question.
#[derive(Clone, Copy)]
pub(crate) struct Sources<'d> {
    pub(crate) documents: &'d [Arc<ParsedDocument>],
    pub(crate) ground: &'d Evaluation,
    pub(crate) fresh: Option<&'d Evaluation>,
}

impl<'d> Sources<'d> {
    fn given(&self, root: Root) -> Option<&'d Given> {
        self.fresh.and_then(|fresh| fresh.of(root)).or_else(|| self.ground.of(root))
    }
}

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

impl Merged<'_> {
    /// The whole as one value, in whatever order.
    pub(crate) fn to_literal(&self) -> Literal {
        let values = || self.items.iter().map(|item| item.value.clone()).collect();
        let value = match self.kind {
            // A scalar has no items; who reads one reads nothing of use.
            Kind::Scalar(_) => Value::Null,
            Kind::Array => Value::Array(values()),
            Kind::Set => Value::Set(values()),
            Kind::Object => Value::Object(
                self.items
                    .iter()
                    .filter_map(|item| Some(Member { key: item.key?.clone(), value: item.value.clone() }))
                    .collect(),
            ),
        };
        Literal { at: self.at, value }
    }
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
pub(crate) fn merge<'d>(root: Root, sources: &Sources<'d>, defects: &mut Defects<'_>) -> Option<Merged<'d>> {
    let mut rules = Rules::default();
    for (document, parsed) in sources.documents.iter().enumerate() {
        for rule in parsed.rules.iter().filter(|rule| rule.root == root) {
            rules.add(document, rule, defects);
        }
    }
    let given = sources.given(root);
    for given in given.iter() {
        given.rules.iter().for_each(|rule| rules.add(given.document, rule, defects));
    }
    if let Some((document, value)) = rules.complete.or(rules.default) {
        return Some(whole(document, value));
    }
    // Rules that add to a root make it one, even if none of them holds.
    let added_to = given.filter(|given| given.form != PartForm::Whole);
    let (document, at) = rules.first_part.or(added_to.map(|given| (given.document, given.at)))?;
    let is_set = !rules.elements.is_empty() || added_to.is_some_and(|given| given.form == PartForm::Elements);
    let (kind, items) = match is_set {
        true => (Kind::Set, rules.elements),
        false => (Kind::Object, one_per_key(root, rules.members, defects)),
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
