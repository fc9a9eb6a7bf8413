//! Zones by chance: documents of every shape that the contract tolerates or refuses (policy.md §2.1).
//!
//! Most of a zone makes sense, so that requests climb high on the ladder; some part of it often does not. The words are
//! few, so that labels, scopes, tiers and keys meet and collide.

use crate::chance::Chance;
use crate::literal::{Document, Form, Literal, Root, Rule};

pub(crate) const RESOURCES: &[&str] = &["resource://n", "resource://m", "resource://N", "resource://é", ""];
pub(crate) const APPLICATIONS: &[&str] = &["app-1", "app-2", "app-3"];
pub(crate) const SCOPES: &[&str] =
    &["n:pay", "n:read", "n:pa", "n:pay2", "m:read", "agent:lifecycle", "é:x", "A", "a b", "n:pay\tn:read", ""];
pub(crate) const LABELS: &[&str] = &["exec", "ro", "exec2", "exe", "customer:a", "customer:", "Customer:a", "é", ""];
/// What most requests ask for and most documents speak of.
const COMMON: &[&str] = &["n:pay", "n:read", "m:read"];
const KEYS: &[&str] = &["pay", "ops", "k-3", "k 4", ""];
const PREFIXES: &[&str] = &["customer:", "ex", "exec", "", "c", "zzz", "é", "Customer:a"];
const TIERS: &[&str] = &["money", "high", "low", "m"];

/// A scope; mostly one that is spoken of elsewhere, too.
pub(crate) fn scope(chance: &mut Chance) -> &'static str {
    if chance.percent(75) { chance.word(COMMON) } else { chance.word(SCOPES) }
}

/// Some scopes, in any order, some perhaps twice.
pub(crate) fn scopes(chance: &mut Chance, most: usize) -> Vec<String> {
    (0..chance.below(most + 1)).map(|_| scope(chance).to_owned()).collect()
}

fn tier(chance: &mut Chance) -> Literal {
    Literal::text(if chance.percent(60) { TIERS[0] } else { chance.word(TIERS) })
}

/// A zone, and what requests should know of it to get far.
#[derive(Debug, Clone)]
pub(crate) struct Zone {
    pub(crate) documents: Vec<Document>,
    pub(crate) known: Vec<Known>,
}

/// An entry of `grants` that makes sense: who owns the resource, and who may hold what on it.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) resource: String,
    pub(crate) application: String,
    pub(crate) roles: Vec<(String, Vec<String>)>,
}

pub(crate) fn zone(chance: &mut Chance) -> Zone {
    let bindings = bindings(chance);
    let mut known = Vec::new();
    let mut rules = Vec::new();
    if let Some(value) = app_ids(chance, &bindings) {
        spread(chance, "app_ids", value, &mut rules);
    }
    if let Some(value) = grants(chance, &bindings, &mut known) {
        spread(chance, "grants", value, &mut rules);
    }
    let others: [(Root, Make); 4] =
        [("confinement", confinement), ("restrict", restrict), ("risk", risk), ("approval_tiers", approval_tiers)];
    for (root, make) in others {
        if let Some(value) = make(chance) {
            spread(chance, root, value, &mut rules);
        }
    }
    let mut documents = vec![Document::default(); 1 + chance.weighted(&[50, 30, 15, 5])];
    for document in &mut documents {
        document.spelling = u64::try_from(chance.below(1 << 30)).unwrap_or(0);
    }
    let count = documents.len();
    for rule in rules {
        documents[chance.below(count)].rules.push(rule);
    }
    documents.retain(|document| !document.rules.is_empty());
    Zone { documents, known }
}

/// What makes the value of a root, if the zone has one.
type Make = fn(&mut Chance) -> Option<Literal>;

/// Binding keys and the applications they stand for.
fn bindings(chance: &mut Chance) -> Vec<(&'static str, &'static str)> {
    let count = chance.weighted(&[3, 40, 40, 12, 5]);
    let mut bindings: Vec<(&str, &str)> = Vec::new();
    for _ in 0..count {
        let key = *chance.pick(KEYS);
        if bindings.iter().all(|(known, _)| *known != key) {
            bindings.push((key, *chance.pick(APPLICATIONS)));
        }
    }
    bindings
}

fn app_ids(chance: &mut Chance, bindings: &[(&str, &str)]) -> Option<Literal> {
    let ids = || bindings.iter().map(|(_, id)| Literal::text(*id)).collect::<Vec<_>>();
    Some(match chance.weighted(&[85, 3, 2, 1, 2, 7]) {
        0 => object_of(bindings.iter().map(|(key, id)| (Literal::text(*key), Literal::text(*id)))),
        1 => return None,
        2 => Literal::Array(ids()),
        3 => Literal::Set(ids()),
        4 => scalar(chance),
        _ => {
            let mut members: Vec<_> =
                bindings.iter().map(|(key, id)| (Literal::text(*key), Literal::text(*id))).collect();
            members.push((odd_key(chance), odd(chance)));
            Literal::Object(members)
        }
    })
}

fn grants(chance: &mut Chance, bindings: &[(&str, &str)], known: &mut Vec<Known>) -> Option<Literal> {
    match chance.weighted(&[91, 2, 2, 2, 1, 2]) {
        0 => {}
        1 => return None,
        2 => return Some(scalar(chance)),
        3 => return Some(Literal::Array(vec![Literal::text("resource://n")])),
        4 => return Some(Literal::Set(vec![Literal::text("resource://n")])),
        _ => return Some(Literal::Object(Vec::new())),
    }
    let mut members: Vec<(Literal, Literal)> = Vec::new();
    for _ in 0..=chance.weighted(&[45, 35, 20]) {
        let resource = *chance.pick(RESOURCES);
        if members.iter().any(|(key, _)| *key == Literal::text(resource)) {
            continue;
        }
        let entry = entry(chance, bindings, resource, known);
        members.push((Literal::text(resource), entry));
    }
    if chance.percent(4) {
        members.push((odd_key(chance), odd(chance)));
    }
    Some(Literal::Object(members))
}

fn entry(chance: &mut Chance, bindings: &[(&str, &str)], resource: &str, known: &mut Vec<Known>) -> Literal {
    let binding = (!bindings.is_empty() && chance.percent(94)).then(|| *chance.pick(bindings));
    let application = match binding {
        Some((key, _)) => Some(Literal::text(key)),
        None => match chance.below(3) {
            0 => None,
            1 => Some(Literal::text("nobody")),
            _ => Some(odd(chance)),
        },
    };
    let (roles, holders) = roles(chance);
    if let Some((_, application)) = binding {
        let (resource, application) = (resource.to_owned(), application.to_owned());
        known.push(Known { resource, application, roles: holders });
    }
    let mut members = Vec::new();
    members.extend(application.map(|value| (Literal::text("application"), value)));
    members.extend(roles.map(|value| (Literal::text("roles"), value)));
    if chance.percent(5) {
        members.push((Literal::text("note"), odd(chance)));
    }
    if chance.percent(2) { odd(chance) } else { Literal::Object(members) }
}

type Holders = Vec<(String, Vec<String>)>;

fn roles(chance: &mut Chance) -> (Option<Literal>, Holders) {
    match chance.weighted(&[94, 3, 3]) {
        0 => {}
        1 => return (None, Vec::new()),
        _ => return (Some(odd(chance)), Vec::new()),
    }
    let mut members: Vec<(Literal, Literal)> = Vec::new();
    let mut holders = Vec::new();
    for _ in 0..chance.weighted(&[4, 36, 40, 20]) {
        let label = *chance.pick(LABELS);
        if members.iter().any(|(key, _)| *key == Literal::text(label)) {
            continue;
        }
        let scopes = scopes(chance, 4);
        holders.push((label.to_owned(), scopes.clone()));
        members.push((Literal::text(label), collection(chance, scopes)));
    }
    (Some(Literal::Object(members)), holders)
}

/// A list of scopes in one of the spellings that hold them, or in one that holds nothing.
fn collection(chance: &mut Chance, scopes: Vec<String>) -> Literal {
    let scopes: Vec<Literal> = scopes.into_iter().map(Literal::Text).collect();
    match chance.weighted(&[72, 8, 8, 4, 8]) {
        0 => Literal::Array(scopes),
        1 => set_of(scopes),
        2 => object_of(scopes.into_iter().enumerate().map(|(at, scope)| (Literal::text(format!("k{at}")), scope))),
        3 => {
            let mut mixed = scopes;
            mixed.push(odd(chance));
            Literal::Array(mixed)
        }
        _ => scalar(chance),
    }
}

fn confinement(chance: &mut Chance) -> Option<Literal> {
    let kind = chance.weighted(&[55, 33, 4, 4, 4]);
    if kind == 0 {
        return None;
    }
    if kind == 4 {
        return Some(scalar(chance));
    }
    let rules: Vec<Literal> = (0..chance.weighted(&[5, 65, 30])).map(|_| confinement_rule(chance)).collect();
    Some(match kind {
        1 => Literal::Array(rules),
        2 => set_of(rules),
        _ => object_of(rules.into_iter().enumerate().map(|(at, rule)| (Literal::text(format!("r{at}")), rule))),
    })
}

fn confinement_rule(chance: &mut Chance) -> Literal {
    if chance.percent(2) {
        return odd(chance);
    }
    let mut members = Vec::new();
    match chance.weighted(&[94, 4, 2]) {
        0 => members.push((Literal::text("label_prefix"), Literal::text(*chance.pick(PREFIXES)))),
        1 => {}
        _ => members.push((Literal::text("label_prefix"), odd(chance))),
    }
    if chance.percent(95) {
        let mut scopes = scopes(chance, 4);
        scopes.extend(["n:pay".to_owned(), "n:read".to_owned()].into_iter().take(chance.below(3)));
        members.push((Literal::text("scopes"), collection(chance, scopes)));
    }
    Literal::Object(members)
}

fn restrict(chance: &mut Chance) -> Option<Literal> {
    Some(match chance.weighted(&[80, 8, 10, 2]) {
        0 => return None,
        1 => chance.pick(&[Literal::Array(Vec::new()), Literal::Object(Vec::new()), Literal::Set(Vec::new())]).clone(),
        2 => match chance.below(3) {
            0 => Literal::Array(vec![odd(chance)]),
            1 => Literal::Set(vec![odd(chance)]),
            _ => Literal::Object(vec![(odd_key(chance), odd(chance))]),
        },
        _ => scalar(chance),
    })
}

fn risk(chance: &mut Chance) -> Option<Literal> {
    let kind = chance.weighted(&[40, 52, 2, 2, 4]);
    if kind == 0 {
        return None;
    }
    let mut elements = Vec::new();
    for _ in 0..chance.weighted(&[8, 40, 32, 20]) {
        if chance.percent(4) {
            elements.push(odd(chance));
            continue;
        }
        let scope = if chance.percent(99) { Literal::text(scope(chance)) } else { odd(chance) };
        let tier = if chance.percent(99) { tier(chance) } else { odd(chance) };
        let mut members = vec![(Literal::text("scope"), scope), (Literal::text("tier"), tier)];
        if chance.percent(4) {
            members.remove(chance.below(2));
        }
        if chance.percent(5) {
            members.push((Literal::text("note"), odd(chance)));
        }
        elements.push(Literal::Object(members));
    }
    Some(sequence(chance, kind, elements))
}

fn approval_tiers(chance: &mut Chance) -> Option<Literal> {
    let kind = chance.weighted(&[40, 52, 2, 2, 4]);
    if kind == 0 {
        return None;
    }
    let elements = (0..chance.weighted(&[6, 38, 36, 20])).map(|_| declaration(chance)).collect();
    Some(sequence(chance, kind, elements))
}

/// An array, or what stands where one should.
fn sequence(chance: &mut Chance, kind: usize, elements: Vec<Literal>) -> Literal {
    match kind {
        1 => Literal::Array(elements),
        2 => set_of(elements),
        3 => {
            object_of(elements.into_iter().enumerate().map(|(at, element)| (Literal::text(format!("e{at}")), element)))
        }
        _ => scalar(chance),
    }
}

fn declaration(chance: &mut Chance) -> Literal {
    if chance.percent(2) {
        return odd(chance);
    }
    let mut members = Vec::new();
    if chance.percent(98) {
        let tier = if chance.percent(99) { tier(chance) } else { odd(chance) };
        members.push((Literal::text("tier"), tier));
    }
    if chance.percent(40) {
        let named = *chance.pick(&["operator", "subject", "any"]);
        let value = if chance.percent(95) { Literal::text(named) } else { odd(chance) };
        members.push((Literal::text("approver"), value));
    }
    if chance.percent(30) {
        let named = *chance.pick(&["identified", "pseudonymous", "anonymous"]);
        let value = if chance.percent(95) { Literal::text(named) } else { odd(chance) };
        members.push((Literal::text("privacy"), value));
    }
    if chance.percent(40) {
        let number = *chance.pick(&["1", "60", "900", "900.0", "9e2", "604800", "9007199254740992"]);
        let wrong = *chance.pick(&["0", "-1", "1.5", "0.5", "1e20", "9007199254740994", "-0", "1e-3"]);
        let value = match chance.weighted(&[92, 5, 3]) {
            0 => Literal::Number(number),
            1 => Literal::Number(wrong),
            _ => odd(chance),
        };
        members.push((Literal::text("ttl_seconds"), value));
    }
    if chance.percent(10) {
        members.push((Literal::text("team"), odd(chance)));
    }
    // The order in which members are written means nothing.
    let turned = chance.below(members.len().max(1));
    members.rotate_left(turned);
    Literal::Object(members)
}

/// Puts a root's value into rules: as a whole, in parts, with a default, twice, or against itself.
fn spread(chance: &mut Chance, root: Root, value: Literal, rules: &mut Vec<Rule>) {
    let mut add = |form| rules.push(Rule { root, form });
    match (chance.weighted(&[84, 10, 2, 2, 2]), value) {
        (1, Literal::Object(members)) if !members.is_empty() => {
            members.into_iter().for_each(|(key, value)| add(Form::Member(key, value)));
        }
        (1, Literal::Set(elements)) => elements.into_iter().for_each(|element| add(Form::Element(element))),
        (2, value) => {
            add(Form::Default(odd(chance)));
            add(Form::Complete(value));
        }
        (3, value) => {
            add(Form::Complete(value.clone()));
            add(Form::Complete(value));
        }
        (4, value) if chance.percent(60) => add(Form::Default(value)),
        (4, value) => {
            add(Form::Complete(value));
            add(Form::Complete(Literal::Array(vec![odd(chance)])));
        }
        (_, value) => add(Form::Complete(value)),
    }
}

fn object_of(members: impl Iterator<Item = (Literal, Literal)>) -> Literal {
    Literal::Object(members.collect())
}

/// A set, each element once; one without elements cannot be written with braces.
fn set_of(elements: Vec<Literal>) -> Literal {
    let mut once: Vec<Literal> = Vec::new();
    for element in elements {
        if !once.contains(&element) {
            once.push(element);
        }
    }
    Literal::Set(once)
}

fn scalar(chance: &mut Chance) -> Literal {
    chance
        .pick(&[
            Literal::Null,
            Literal::Boolean(true),
            Literal::Boolean(false),
            Literal::Number("1"),
            Literal::Text("n:pay".to_owned()),
            Literal::Text(String::new()),
        ])
        .clone()
}

/// Any value at all.
fn odd(chance: &mut Chance) -> Literal {
    match chance.weighted(&[60, 10, 10, 10, 10]) {
        0 => scalar(chance),
        1 => Literal::Array(vec![scalar(chance)]),
        2 => Literal::Set(vec![scalar(chance)]),
        3 => Literal::object([("a", scalar(chance)), ("label_prefix", scalar(chance))]),
        _ => Literal::Number(chance.word(&["1.5", "-3", "0", "10"])),
    }
}

/// A key of an object; sometimes no string.
fn odd_key(chance: &mut Chance) -> Literal {
    if chance.percent(70) { Literal::text("odd") } else { Literal::Number("7") }
}
