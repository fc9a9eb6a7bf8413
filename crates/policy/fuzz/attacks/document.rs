//! One text as a tenant's document, read by everything that reads documents.
//!
//! Besides "no panic": a text has one reading; what an author may hand in is read the same way when it is stored; and a
//! text that says nothing of applications and grants allows no application anything.

use std::sync::LazyLock;

use caracal_policy::{Bundle, Document, Input, ParsedDocument, Root, Verdict, decide, text};
use serde_json::{Value, json};

const ROOTS: [Root; 6] =
    [Root::AppIds, Root::Grants, Root::Confinement, Root::Restrict, Root::Risk, Root::ApprovalTiers];

/// One request of each shape the ladder knows, and one of none.
static INPUTS: LazyLock<Vec<Input>> = LazyLock::new(|| {
    let resource = json!({"type": "Resource", "id": "r", "identifier": "resource://n", "scopes": ["n:pay", "n:read"]});
    let edge = json!({"id": "e-1", "scopes": ["n:pay"]});
    let claims = json!({"delegation_edge_id": "e-1", "target": ["resource://n"], "scope": "n:pay", "sub": "app-1"});
    let agent =
        json!({"type": "Application", "id": "app-1", "zone_id": "z", "agent_session_id": "s-1", "labels": ["exec"]});
    [
        json!({"principal": agent, "action": {"id": "TokenExchange"}, "delegation_edge": edge, "context":
            {"agent_session_id": "s-1", "delegation_edge_id": "e-1", "requested_scopes": ["n:pay"]}}),
        json!({"principal": {"type": "Application", "id": "app-1", "zone_id": "z"}, "action": {"id": "TokenExchange"},
            "context": {"requested_scopes": ["agent:lifecycle"]}}),
        json!({"principal": agent, "action": {"id": "TokenExchange"}, "delegation_edge": edge, "context":
            {"agent_session_id": "s-1", "delegation_edge_id": "e-1", "subject_claims": claims}}),
        json!({"principal": {"type": "Workload", "id": "wl", "zone_id": "z"}, "action": {"id": "CredentialInjection"},
            "context": {"requested_scopes": ["n:read"]}}),
        json!({"principal": agent, "action": {"id": "TokenExchange"}, "context": {"requested_scopes": ["n:pay"]}}),
    ]
    .into_iter()
    .map(|mut input| {
        input["resource"] = resource.clone();
        serde_json::from_value(input).expect("an input document")
    })
    .collect()
});

fn decided(bundle: &Bundle) -> Vec<Option<Verdict>> {
    INPUTS.iter().map(|input| decide(bundle, input).ok()).collect()
}

/// Panics where a rule is broken.
pub(crate) fn attack(data: &[u8]) {
    let Ok(content) = std::str::from_utf8(data) else { return };
    let _ = text::check(content);

    match (ParsedDocument::parse(content), ParsedDocument::parse(content)) {
        (Ok(one), Ok(two)) => {
            assert_eq!(format!("{one:?}"), format!("{two:?}"));
            for value in ROOTS.iter().filter_map(|root| one.value_of(*root)) {
                let json = serde_json::to_string(value).expect("a ground value has a JSON form");
                assert!(serde_json::from_str::<serde::de::IgnoredAny>(&json).is_ok(), "{json}");
            }
        }
        (Err(one), Err(two)) => {
            assert_eq!(one, two);
            let lines = u32::try_from(content.split('\n').count()).expect("short input");
            assert!((1..=lines).contains(&one.at.line) && one.at.column >= 1, "{one:?}");
        }
        (one, two) => panic!("{one:?} and {two:?}"),
    }

    let documents = [Document { policy_version_id: "pv-1", content }];
    let (built, loaded) = (Bundle::build(&documents), Bundle::load(&documents));
    let Ok(loaded) = loaded else {
        assert!(built.is_err(), "an author may hand in what can't be loaded");
        return;
    };
    let verdicts = decided(&loaded);
    for verdict in verdicts.iter().flatten() {
        let json: Value = serde_json::to_value(verdict).expect("a verdict has a JSON form");
        assert_eq!(json["decision"] == "allow", verdict.is_allow(), "{json}");
        // What a workload receives is bound elsewhere, so its request needs no grant here (policy.md §4.2).
        let granted = content.contains("grants") || content.contains("app_ids");
        let workload = verdict.determining() == Some("caracal-workload-mint");
        assert!(!verdict.is_allow() || granted || workload, "{json}");
    }
    if let Ok(built) = built {
        assert_eq!(decided(&built), verdicts);
        assert_eq!(built.manifest(), loaded.manifest());
    }
}
