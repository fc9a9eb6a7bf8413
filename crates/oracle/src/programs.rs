//! Zones whose documents are programs: conditions on the question, comprehensions, `default` and `else`, one root that
//! reads another (policy.md §2, §14.2).
//!
//! They are made out of zones of literals, so that requests climb as high on the ladder: some rules get a condition, some
//! roots are computed. What a program may be at all is not the subject here; every text is one that may be handed in.

use crate::chance::Chance;
use crate::literal::{Document, Form, Literal, Root, Rule};
use crate::zones::{self, Zone};

/// Conditions, most of which hold for some requests and not for others.
///
/// The interpreter is not the language where something is missing under `not` or `every`, and where something is iterated
/// that is no collection (policy.md §14.2 rows 4 and 5). Production mends that; the oracle has the interpreter as it is, so
/// what may be missing is bound before.
const CONDITIONS: &[&str] = &[
    r#"input.principal.id == "app-1""#,
    r#"input.principal.type != "Workload""#,
    r#"input.action.id == "TokenExchange""#,
    r#"input.resource.identifier != "resource://m""#,
    r#"startswith(input.resource.identifier, "resource://")"#,
    r#"lower(input.resource.identifier) == "resource://n""#,
    r#""exec" in input.principal.labels"#,
    r#"v9 := input.principal.labels; not "ro" in v9"#,
    r#"some l9 in input.principal.labels; startswith(l9, "ex")"#,
    r#"v9 := input.principal.labels; every l in v9 { l != "customer:a" }"#,
    "count(input.principal.labels) > 0",
    "count({s | some s in input.context.requested_scopes}) < 3",
    r#"input.context.requested_scopes[_] == "n:pay""#,
    r#"input.context.requested_scopes[0] != "m:read""#,
    r#"w9 := input.context.requested_scopes; every s in w9 { endswith(s, ":read") }"#,
    "input.delegation_edge",
    "not input.delegation_edge",
    r#"some s9 in input.delegation_edge.scopes; s9 == "n:read""#,
    "not input.context.challenge_resolved",
    "input.context.challenge_resolved == false",
    r#"c9 := object.get(input.context, "subject_claims", {}); d9 := object.get(c9, "sub", ""); not d9 == "user-2""#,
    r#"object.get(input.principal, "lifecycle", "none") == "task""#,
    r#"split(input.principal.id, "-")[1] == "1""#,
    r#"sprintf("%s/%s", [input.principal.type, input.action.id]) != "Workload/Other""#,
    r#"n9 := count(input.context.requested_scopes); n9 * 2 < 7"#,
    "is_string(input.context.agent_session_id)",
    "input.session",
    "1 < 2",
    r#""a" == "b""#,
];

/// The same, where other roots may be read: only by roots that no other reads. By their whole names: one that no document
/// gives has no short one, and which are given is the first thing that is made smaller of a difference.
const READING: &[&str] = &[
    "data.caracal.authz.grants[input.resource.identifier]",
    "i9 := input.resource.identifier; not data.caracal.authz.grants[i9]",
    "data.caracal.authz.app_ids.pay == input.principal.id",
    r#"some r9; data.caracal.authz.grants[r9].application == "ops"; r9 == input.resource.identifier"#,
    "count(data.caracal.authz.grants) > 1",
    "some k9; data.caracal.authz.app_ids[k9] == input.principal.id",
    "data.caracal.authz.app_ids.ops",
];

/// What conditions call their variables; nobody else does.
const VARIABLES: [&str; 9] = ["c9", "i9", "k9", "l9", "n9", "r9", "s9", "v9", "w9"];

/// Roots that are read.
const READ: &[Root] = &["app_ids", "grants"];

pub(crate) fn zone(chance: &mut Chance) -> Zone {
    let mut made = zones::zone(chance);
    for document in &mut made.documents {
        document.rules.retain(|rule| !matches!(&rule.form, Form::Default(value) if cannot_be(rule.root, value)));
        for rule in &mut document.rules {
            if chance.percent(35)
                && let Some(program) = conditioned(chance, rule)
            {
                rule.form = Form::Program(program);
            }
        }
    }
    for _ in 0..chance.weighted(&[20, 50, 30]) {
        if let Some(rule) = computed(chance, &made.documents) {
            put(chance, &mut made.documents, rule);
        }
    }
    made
}

/// Into a document that is there, or one of its own.
fn put(chance: &mut Chance, documents: &mut Vec<Document>, rule: Rule) {
    if documents.is_empty() || chance.percent(20) {
        documents.push(Document { rules: vec![rule], spelling: 0 });
    } else {
        let at = chance.below(documents.len());
        documents[at].rules.push(rule);
    }
}

fn condition(chance: &mut Chance, root: Root) -> String {
    let one = |chance: &mut Chance| {
        let reads = !READ.contains(&root) && chance.percent(15);
        chance.word(if reads { READING } else { CONDITIONS })
    };
    let first = one(chance);
    if chance.percent(80) {
        return first.to_owned();
    }
    let second = one(chance);
    // The same variable twice would be another question.
    let shared = VARIABLES.iter().any(|name| first.contains(name) && second.contains(name));
    if shared { first.to_owned() } else { format!("{first}; {second}") }
}

fn spelt(chance: &mut Chance, value: &Literal) -> String {
    let mut text = String::new();
    value.spell(&mut text, chance);
    text
}

/// A body in one of its spellings.
fn body(chance: &mut Chance, condition: &str, braced: bool) -> String {
    let single = !braced && !condition.contains(';');
    match chance.below(3) {
        0 if single => format!("if {condition}"),
        1 => format!("if {{ {condition} }}"),
        _ => format!("if {{\n  {}\n}}", condition.replace("; ", "\n  ")),
    }
}

/// What an author is told at once, whatever the condition: a value that the root can't have, written out (policy.md §7.3).
fn cannot_be(root: Root, value: &Literal) -> bool {
    match (root, value) {
        ("grants", value) => !matches!(value, Literal::Object(_)),
        ("restrict" | "app_ids", value) => !matches!(value, Literal::Object(_) | Literal::Array(_) | Literal::Set(_)),
        _ => false,
    }
}

/// The rule under a condition.
fn conditioned(chance: &mut Chance, rule: &Rule) -> Option<String> {
    let root = rule.root;
    let holds = condition(chance, root);
    let braced = matches!(rule.form, Form::Complete(_));
    let body = body(chance, &holds, braced);
    Some(match &rule.form {
        Form::Default(_) | Form::Program(_) => return None,
        Form::Element(value) => format!("{root} contains {} {body}", spelt(chance, value)),
        Form::Member(key, value) => format!("{root}[{}] := {} {body}", spelt(chance, key), spelt(chance, value)),
        Form::Complete(value) if cannot_be(root, value) => return None,
        Form::Complete(value) => {
            let text = spelt(chance, value);
            match (chance.weighted(&[40, 20, 20, 20]), value) {
                (1, _) => format!("{root} := {text} {body} else := {text}"),
                (2, _) => {
                    let otherwise = condition(chance, root);
                    let empty = if matches!(value, Literal::Object(_)) { "{}" } else { "[]" };
                    format!("{root} := {empty} {body} else := {text} if {{ {otherwise} }}")
                }
                (3, Literal::Array(elements)) if !elements.is_empty() => {
                    let elements: Vec<String> = elements.iter().map(|element| spelt(chance, element)).collect();
                    format!("{root} := [e | some e in [{}]; {holds}]", elements.join(", "))
                }
                (3, Literal::Set(elements)) if !elements.is_empty() => {
                    let elements: Vec<String> = elements.iter().map(|element| spelt(chance, element)).collect();
                    format!("{root} := {{e | some e in [{}]; {holds}}}", elements.join(", "))
                }
                (3, Literal::Object(members)) if !members.is_empty() => {
                    format!("{root} := {{k: v | some k, v in {text}; {holds}}}")
                }
                _ => format!("{root} := {text} {body}"),
            }
        }
    })
}

/// How a zone gives a root so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Given {
    Not,
    Whole,
    Members,
    Elements,
}

fn given(documents: &[Document], root: Root) -> Given {
    let rules = documents.iter().flat_map(|document| &document.rules);
    let mut forms = rules.filter(|rule| rule.root == root).map(|rule| match &rule.form {
        Form::Default(_) | Form::Complete(_) => Given::Whole,
        Form::Member(..) => Given::Members,
        Form::Element(_) => Given::Elements,
        Form::Program(text) if text.starts_with(&format!("{root} contains ")) => Given::Elements,
        Form::Program(text) if text.starts_with(&format!("{root}[")) => Given::Members,
        Form::Program(_) => Given::Whole,
    });
    forms.next_back().unwrap_or(Given::Not)
}

/// Programs for each root, in the form they give it.
const COMPUTED: &[(Root, Given, &str)] = &[
    ("restrict", Given::Elements, r#"restrict contains "night" if { COND; input.principal.id == "app-3" }"#),
    ("restrict", Given::Elements, r#"restrict contains l if { some l in input.principal.labels; l == "exec2" }"#),
    (
        "restrict",
        Given::Elements,
        r#"restrict contains s if { some s in input.context.requested_scopes; not startswith(s, "n:"); COND }"#,
    ),
    (
        "restrict",
        Given::Elements,
        r#"restrict contains r if { some r, g in data.caracal.authz.grants; g.application == "k-3"; r == input.resource.identifier }"#,
    ),
    (
        "restrict",
        Given::Whole,
        "restrict := {x | some x in input.principal.labels; startswith(x, \"customer:\"); COND}",
    ),
    (
        "restrict",
        Given::Members,
        r#"restrict[k] := true if { some k, v in {"a": 0, "b": 4}; v > count(input.principal.labels); COND }"#,
    ),
    (
        "risk",
        Given::Whole,
        r#"risk := [{"scope": s, "tier": "money"} | some s in input.context.requested_scopes; COND]"#,
    ),
    (
        "risk",
        Given::Whole,
        r#"risk := [{"scope": "n:pay", "tier": "money"}] if { COND } else := [{"scope": "n:pay", "tier": "low"}]"#,
    ),
    (
        "risk",
        Given::Whole,
        r#"risk := array.concat([{"scope": "n:read", "tier": "low"}], [{"scope": s, "tier": t} | some s in input.delegation_edge.scopes; t := substring(s, 0, 1)])"#,
    ),
    ("risk", Given::Whole, r#"risk := input.context.requested_scopes if { COND }"#),
    (
        "approval_tiers",
        Given::Whole,
        r#"approval_tiers := [{"tier": "money", "approver": a, "ttl_seconds": n} | a := "operator"; n := 60 * (1 + count(input.principal.labels)); COND]"#,
    ),
    (
        "approval_tiers",
        Given::Whole,
        r#"approval_tiers := [{"tier": e.tier} | is_array(data.caracal.authz.risk); some e in data.caracal.authz.risk; is_object(e); is_string(e.tier)]"#,
    ),
    (
        "approval_tiers",
        Given::Whole,
        r#"approval_tiers := [{"tier": "low", "approver": "any"}] if { COND } else := [{"tier": "money", "approver": "subject"}]"#,
    ),
    (
        "approval_tiers",
        Given::Whole,
        r#"approval_tiers := [{"tier": "money", "ttl_seconds": count(input.principal.labels)}] if { COND }"#,
    ),
    (
        "confinement",
        Given::Elements,
        r#"confinement contains {"label_prefix": l, "scopes": ["n:read", "n:pay"]} if { some l in input.principal.labels; COND }"#,
    ),
    (
        "confinement",
        Given::Whole,
        r#"confinement := [{"label_prefix": "ex", "scopes": s}] if { s := input.delegation_edge.scopes; COND }"#,
    ),
    (
        "confinement",
        Given::Whole,
        r#"confinement := [{"label_prefix": upper(substring(l, 0, 1)), "scopes": []} | some l in input.principal.labels; COND]"#,
    ),
    (
        "confinement",
        Given::Whole,
        r#"confinement := [{"label_prefix": count(input.principal.labels), "scopes": []}] if { COND; input.principal.id == "app-2" }"#,
    ),
    (
        "grants",
        Given::Members,
        r#"grants[i] := {"application": "pay", "roles": {l: input.context.requested_scopes | some l in input.principal.labels}} if { i := input.resource.identifier; COND; i == "resource://é" }"#,
    ),
    (
        "grants",
        Given::Whole,
        r#"grants := {r: {"application": "pay", "roles": {"exec": ["n:pay", "n:read"], "ro": ["n:read"]}} | some r in ["resource://n", "resource://m"]; COND}"#,
    ),
    ("app_ids", Given::Whole, r#"app_ids := {"pay": input.principal.id, "ops": "app-2"} if { COND }"#),
    ("app_ids", Given::Members, r#"app_ids["k-3"] := input.principal.id if { COND }"#),
];

/// A program for a root that the zone does not give yet, or gives in the same form.
fn computed(chance: &mut Chance, documents: &[Document]) -> Option<Rule> {
    for _ in 0..8 {
        let (root, form, text) = *chance.pick(COMPUTED);
        let found = given(documents, root);
        // As a whole twice is mostly a contradiction, which is wanted, but not always.
        let fits = found == Given::Not || (found == form && (form != Given::Whole || chance.percent(10)));
        if fits {
            let holds = condition(chance, root);
            return Some(Rule { root, form: Form::Program(text.replace("COND", &holds)) });
        }
    }
    None
}
