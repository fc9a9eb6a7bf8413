//! A line of `tests/vectors/policy-decisions.jsonl` or something like it: documents and the input to decide on.
//!
//! Nothing panics, one question has one answer, an input written and read again asks the same, and without an active
//! policy set there is no input that is allowed.

use caracal_policy::{Bundle, Document, Input, decide};
use serde_json::{Map, Value};

/// Panics where a rule is broken.
pub(crate) fn attack(data: &[u8]) {
    let Ok(mut line) = serde_json::from_slice::<Map<String, Value>>(data) else { return };
    let Some(Value::Object(documents)) = line.remove("documents") else { return };
    let Some(input) = line.remove("input") else { return };
    let documents: Vec<(String, String)> =
        documents.into_iter().filter_map(|(name, content)| Some((name, content.as_str()?.to_owned()))).collect();
    let documents: Vec<Document<'_>> =
        documents.iter().map(|(policy_version_id, content)| Document { policy_version_id, content }).collect();
    let bundle = Bundle::load(&documents);
    if let Ok(built) = Bundle::build(&documents) {
        assert_eq!(Some(built.manifest()), bundle.as_ref().ok().map(Bundle::manifest));
    }
    let simulated = input.as_object().cloned().and_then(|members| Input::for_simulation(members).ok());
    for input in [serde_json::from_value::<Input>(input).ok(), simulated].into_iter().flatten() {
        let again: Input = serde_json::to_value(&input).and_then(serde_json::from_value).expect("its own JSON");
        assert!(decide(&Bundle::no_active_policy_set(), &input).is_ok_and(|verdict| !verdict.is_allow()));
        let Ok(bundle) = &bundle else { continue };
        let decided = decide(bundle, &input);
        assert_eq!(decide(bundle, &again), decided);
        if let Ok(verdict) = decided {
            let json = serde_json::to_value(&verdict).expect("a verdict has a JSON form");
            assert_eq!(json["decision"] == "allow", verdict.is_allow(), "{json}");
            assert_eq!(verdict.is_allow(), verdict.reason().is_none(), "{json}");
        }
    }
}
