//! What stock Open Policy Agent answered to the reference's contract, against the oracle: see
//! `crates/policy/tests/vectors/README.md` for where the file comes from.

use std::collections::BTreeMap;

use caracal_oracle::{Case, NoAnswer, Oracle, same_json};
use serde::Deserialize;
use serde_json::Value;

const VECTORS: &str = include_str!("../../policy/tests/vectors/policy-decisions.jsonl");

/// Documents that the interpreter cannot judge, because it has no compiler that checks them, or would not survive:
/// contradictions and calls that only a compiler refuses, and recursion.
/// A bundle of this kind never reaches an evaluation in the product.
const NOT_FOR_AN_INTERPRETER: [&str; 7] = [
    // A whole rule and a part of the same root.
    "kind conflict",
    // A call that must not exist.
    "builtin rand",
    // A document that speaks of itself, or of the decision: the interpreter may end the process.
    "recursion",
    "ref result",
    // A document that speaks of the reference's private rules.
    "ref helper",
    // Two defaults; a root that is a function.
    "two default same",
    "function root",
];

/// What the interpreter lacks with its minimal features, and refuses: three functions, and strings that are templates.
const LACKING: [&str; 4] = ["builtin uuid", "builtin cidr_matches", "time parse ok", "template str"];

/// Where this project differs on purpose, as `crates/policy/tests/vectors.rs` says with reasons: the oracle holds what
/// the ladder holds.
const DELIBERATE: [&str; 5] =
    ["conf prefix num", "two app_ids diff empty input", "two conf diff empty", "wl lifecycle owned", "app num"];

#[derive(Deserialize)]
struct Vector {
    #[serde(flatten)]
    case: Case,
    result: Option<Value>,
    #[serde(default)]
    error: bool,
}

mod t02_policy_oracle {
    use super::*;

    #[test]
    fn every_answer_of_the_stock_engine_is_the_oracles_too() {
        let oracle = Oracle::new().expect("the contract's own text");
        let mut wrong = Vec::new();
        let mut rows: BTreeMap<u8, usize> = BTreeMap::new();
        let mut left_out = Vec::new();
        for line in VECTORS.lines() {
            let vector: Vector = serde_json::from_str(line).expect("a vector");
            let name = vector.case.name.as_str();
            if NOT_FOR_AN_INTERPRETER.contains(&name) || DELIBERATE.contains(&name) {
                left_out.push(name.to_owned());
                continue;
            }
            let documents: Vec<(&str, &str)> =
                vector.case.documents.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
            let answer = oracle.live_zone(&documents).and_then(|mut zone| zone.answer(&vector.case.input));
            match (&answer, &vector.result) {
                (Ok(answer), Some(result)) if same_json(&answer.result, result) => {
                    *rows.entry(answer.row).or_default() += 1;
                }
                (Err(_), None) if vector.error => {}
                (Err(NoAnswer::Refused(_)), Some(_)) if LACKING.contains(&name) => {}
                _ => wrong.push(format!("{name}: {answer:?} instead of {:?}", vector.result)),
            }
        }
        assert!(wrong.is_empty(), "{} lines differ:\n{}", wrong.len(), wrong.join("\n"));
        assert_eq!(left_out.len(), NOT_FOR_AN_INTERPRETER.len() + DELIBERATE.len(), "{left_out:?}");
        assert_eq!(rows.len(), 15, "every row is hit: {rows:?}");
    }

    #[test]
    fn on_deliberate_differences_the_oracle_is_of_one_mind_with_the_ladder() {
        let oracle = Oracle::new().expect("the contract's own text");
        for line in VECTORS.lines() {
            let vector: Vector = serde_json::from_str(line).expect("a vector");
            if DELIBERATE.contains(&vector.case.name.as_str()) {
                let outcome = caracal_oracle::compare(&oracle, &vector.case).expect("an input of the schema");
                assert!(outcome.agrees(), "{}: {} against {}", vector.case.name, outcome.ladder, outcome.oracle);
            }
        }
    }

    #[test]
    fn an_oracle_refuses_shapes_before_it_decides() {
        let oracle = Oracle::new().expect("the contract's own text");
        let head = "package caracal.authz\nimport rego.v1\n";
        for rules in ["restrict := 1", "restrict := \"x\"", "app_ids := null", "grants := [1]", "grants := {\"x\": {}}"]
        {
            let text = format!("{head}{rules}\n");
            assert!(matches!(oracle.zone(&[("d", &text)]), Err(NoAnswer::Refused(_))), "{rules}");
            assert!(matches!(oracle.live_zone(&[("d", &text)]), Err(NoAnswer::Refused(_))), "{rules}");
        }
    }
}
