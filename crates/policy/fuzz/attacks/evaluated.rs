//! The body of a rule as a tenant would write it, evaluated for one request.
//!
//! Whatever it is, it is refused, or it comes to an answer or an error: nothing panics, nothing recurses into the end of the
//! stack, nothing takes longer than its budget and a margin. One text has one answer; and where no rule can freeze the zone or
//! grant anything, the request is decided as without the document.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use caracal_policy::{Budget, Bundle, Document, EvaluationError, Evaluators, Input, Verdict, decide_evaluated};
use serde_json::json;

/// So much longer than the budget may anything take, reading included.
const MARGIN: Duration = Duration::from_secs(2);

fn input() -> Input {
    serde_json::from_value(json!({
        "principal": {"type": "Application", "id": "app-1", "zone_id": "z", "agent_session_id": "s-1", "labels": ["exec"]},
        "resource": {"type": "Resource", "id": "r", "identifier": "resource://n", "scopes": ["n:pay", "n:read"]},
        "action": {"id": "TokenExchange"},
        "delegation_edge": {"id": "e-1", "scopes": ["n:pay"]},
        "context": {"agent_session_id": "s-1", "delegation_edge_id": "e-1", "requested_scopes": ["n:pay"]},
    }))
    .expect("an input document")
}

fn answer(content: &str) -> Option<Result<Verdict, EvaluationError>> {
    let bundle = Bundle::load(&[Document { policy_version_id: "pv-1", content }]).ok()?;
    let input = input();
    Some(bundle.evaluate(&input, Budget::QUESTION).and_then(|values| decide_evaluated(&bundle, &values, &input)))
}

/// Panics where a rule is broken.
pub(crate) fn attack(data: &[u8]) {
    let Ok(body) = std::str::from_utf8(data) else { return };
    let content =
        format!("package caracal.authz\nimport rego.v1\nrestrict contains \"x\" if {{\ninput.principal\n{body}\n}}\n");
    // On a thread as deep as the product's.
    let (sender, answers) = mpsc::channel();
    let job = move || {
        let started = Instant::now();
        let answers = (answer(&content), answer(&content));
        drop(sender.send((answers, started.elapsed())));
    };
    Evaluators::of_process().submit("z", job).expect("an idle thread");
    let ((one, two), taken) = answers.recv().expect("an evaluation that does not panic");
    assert!(taken < 2 * (Budget::BUNDLE.time + Budget::QUESTION.time + MARGIN), "{taken:?}");
    if let (Some(Ok(one)), Some(Ok(two))) = (&one, &two) {
        assert_eq!(one, two);
    }
    assert!(!matches!(one, Some(Ok(verdict)) if verdict.is_allow()), "no document grants anything");
}
