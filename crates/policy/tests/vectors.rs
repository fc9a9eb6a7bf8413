//! Every decision an independent engine computed, against the ladder. The file's origin is in `vectors/README.md`.

#![allow(clippy::expect_used, clippy::panic, reason = "the helpers of a test file are test code")]

use std::collections::BTreeMap;
use std::time::Duration;

use caracal_policy::{Budget, Bundle, Document, Input, decide, decide_evaluated};
use serde::Deserialize;
use serde_json::{Value, json};

/// Tests share their processors with other tests.
const UNHURRIED: Budget = Budget { time: Duration::from_secs(20) };

const VECTORS: &str = include_str!("vectors/policy-decisions.jsonl");

/// Lines whose answer must be the engine's.
const EQUAL: usize = 2196;

/// Where we differ on purpose: the line, what we do, and why.
const DELIBERATE: [(&str, Ours, &str); 9] = [
    (
        "conf prefix num",
        Ours::Refused("malformed_data"),
        "policy.md §2.1: a rule whose `label_prefix` is no string is ignored by the reference, which loses the cap; \
         ours is refused",
    ),
    (
        "two app_ids diff empty input",
        Ours::Refused("conflicting_definitions"),
        "policy.md §7.3 and D31: contradicting `app_ids` are refused when the bundle is made, not when they are read",
    ),
    (
        "two conf diff empty",
        Ours::Refused("conflicting_definitions"),
        "policy.md §7.3 and D31: contradicting `confinement` likewise",
    ),
    (
        "wl lifecycle owned",
        Ours::Answers("allow", "caracal-workload-mint"),
        "policy.md §4.2: two rules of the reference match an impossible id and raise an error; ours may answer row 10",
    ),
    (
        "app num",
        Ours::Answers("deny", "resource_not_granted"),
        "policy.md §2 and §2.1: a binding key is a string and an array names none; the reference finds number 5 in an \
         array and answers with a policy name that is a formatting accident",
    ),
    (
        "builtin uuid",
        Ours::Refused("function_not_available"),
        "policy.md §7.2: no source of chance is reachable from a document, and this function is one",
    ),
    (
        "builtin cidr_matches",
        Ours::Refused("function_not_available"),
        "policy.md §14.1: not one of the functions that the evaluator has, nor plausible in a data document",
    ),
    (
        "ref helper",
        Ours::Refused("foreign_reference"),
        "policy.md §2: references to the contract's private helper rules are not supported",
    ),
    (
        "template str",
        Ours::Refused("not_evaluable"),
        "policy.md §14.1: the evaluator has no template strings; the author is told to write `sprintf`",
    ),
];

#[derive(Clone, Copy, Debug)]
enum Ours {
    /// Refused as a bundle, with this code.
    Refused(&'static str),
    /// Decision, and policy or reason.
    Answers(&'static str, &'static str),
}

#[derive(Deserialize)]
struct Vector {
    name: String,
    documents: BTreeMap<String, String>,
    input: Value,
    result: Option<Value>,
    #[serde(default)]
    error: bool,
}

enum Outcome {
    /// The bundle is refused, with the code of its first defect.
    Refused(&'static str),
    /// The evaluation has no answer.
    Failed,
    Answered(Value),
}

fn run(vector: &Vector) -> Outcome {
    let documents: Vec<Document<'_>> =
        vector.documents.iter().map(|(policy_version_id, content)| Document { policy_version_id, content }).collect();
    let bundle = match Bundle::load(&documents) {
        Ok(bundle) => bundle,
        Err(defects) => return Outcome::Refused(defects[0].kind.code()),
    };
    let input: Input = serde_json::from_value(vector.input.clone()).expect("an input of the schema");
    let decided = match bundle.must_be_evaluated() {
        true => bundle.evaluate(&input, UNHURRIED).and_then(|values| decide_evaluated(&bundle, &values, &input)),
        false => decide(&bundle, &input),
    };
    match decided {
        Ok(verdict) => Outcome::Answered(serde_json::to_value(&verdict).expect("a verdict is JSON")),
        Err(_) => Outcome::Failed,
    }
}

fn vectors() -> impl Iterator<Item = Vector> {
    VECTORS.lines().map(|line| serde_json::from_str(line).expect("a vector"))
}

#[test]
fn every_decision_is_the_engines() {
    let (mut equal, mut deliberate) = (0, 0);
    let mut wrong = Vec::new();
    for vector in vectors() {
        let outcome = run(&vector);
        if let Some((_, ours, reason)) = DELIBERATE.iter().find(|(name, ..)| *name == vector.name) {
            deliberate += 1;
            if !is_ours(&outcome, *ours) {
                wrong.push(format!("{}: {ours:?} expected: {reason}", vector.name));
            }
            continue;
        }
        match (&outcome, vector.error) {
            (Outcome::Refused(_) | Outcome::Failed, true) => equal += 1,
            (Outcome::Answered(answer), false) if Some(answer) == vector.result.as_ref() => equal += 1,
            (Outcome::Answered(answer), _) => {
                wrong.push(format!("{}: {answer} instead of {:?}", vector.name, vector.result));
            }
            (Outcome::Refused(code), false) => wrong.push(format!("{}: refused as {code}", vector.name)),
            (Outcome::Failed, false) => wrong.push(format!("{}: no answer", vector.name)),
        }
    }
    assert!(wrong.is_empty(), "{} lines differ:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!((equal, deliberate), (EQUAL, DELIBERATE.len()));
}

fn is_ours(outcome: &Outcome, ours: Ours) -> bool {
    match (outcome, ours) {
        (Outcome::Refused(code), Ours::Refused(expected)) => *code == expected,
        (Outcome::Answered(answer), Ours::Answers(decision, detail)) => {
            let named = [json!([{"policy": detail}]), json!([{"reason": detail}])];
            answer["decision"] == decision
                && (named.contains(&answer["determining_policies"]) || named.contains(&answer["diagnostics"]))
        }
        _ => false,
    }
}

#[test]
fn an_input_is_written_as_it_was_read() {
    for vector in vectors() {
        let input: Input = serde_json::from_value(vector.input.clone()).expect("an input of the schema");
        let mut expected = vector.input;
        // Lists are lists: `null` for an empty one is the reference's accident (D3). Empty optional members vanish.
        for (object, member, empty) in [
            ("resource", "scopes", json!([])),
            ("context", "requested_scopes", json!([])),
            ("context", "actor_claims", json!({})),
        ] {
            if expected[object][member].is_null() {
                expected[object][member] = empty;
            }
        }
        for (object, member) in [("principal", "labels"), ("delegation_edge", "scopes")] {
            if let Some(object) = expected.get_mut(object).and_then(Value::as_object_mut)
                && object.get(member) == Some(&json!([]))
            {
                object.remove(member);
            }
        }
        assert_eq!(serde_json::to_value(&input).expect("an input is JSON"), expected, "{}", vector.name);
    }
}
