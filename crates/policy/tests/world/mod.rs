//! The base data and the four request shapes that the tests vary.

#![allow(dead_code, reason = "every test file uses its own part")]
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "test code")]

use caracal_policy::{
    Action, ActionId, Bundle, BundleDefect, Context, DelegationEdge, Document, Input, Principal, PrincipalKind,
    Resource, Verdict, decide,
};
use serde_json::{Value, json};

/// What the tables of the contract call the base data.
pub(crate) const BASE: &str = r#"
app_ids := {"pay": "app-1"}
grants := {"resource://n": {"application": "pay", "roles": {"exec": ["n:pay", "n:read"], "ro": ["n:read"]}}}
"#;

/// A data document with the usual head.
pub(crate) fn document(rules: &str) -> String {
    format!("# caracal:data-document\npackage caracal.authz\n\nimport rego.v1\n\n{rules}\n")
}

/// One document per text, each with the usual head, as stored.
pub(crate) fn load(rules: &[&str]) -> Result<Bundle, Vec<BundleDefect>> {
    with_documents(rules, Bundle::load)
}

/// The same, as an author's.
pub(crate) fn build(rules: &[&str]) -> Result<Bundle, Vec<BundleDefect>> {
    with_documents(rules, Bundle::build)
}

fn with_documents(
    rules: &[&str],
    make: fn(&[Document<'_>]) -> Result<Bundle, Vec<BundleDefect>>,
) -> Result<Bundle, Vec<BundleDefect>> {
    let texts: Vec<String> = rules.iter().map(|rules| document(rules)).collect();
    let ids: Vec<String> = (1..=texts.len()).map(|number| format!("pv-{number}")).collect();
    let documents: Vec<Document<'_>> =
        ids.iter().zip(&texts).map(|(policy_version_id, content)| Document { policy_version_id, content }).collect();
    make(&documents)
}

/// The base data and one more document.
pub(crate) fn base_and(rules: &str) -> Bundle {
    load(&[BASE, rules]).expect("a bundle")
}

/// A delegated mint of `n:pay` by `app-1` in a session labelled `exec`.
pub(crate) fn mint() -> Input {
    Input {
        principal: Principal {
            kind: PrincipalKind::Application,
            id: "app-1".into(),
            zone_id: "z".into(),
            agent_session_id: Some("s-1".into()),
            labels: vec!["exec".into()],
            ..Principal::default()
        },
        resource: Resource {
            kind: Resource::KIND.into(),
            id: "r".into(),
            identifier: "resource://n".into(),
            scopes: strings(&["n:pay", "n:read"]),
        },
        action: Action { id: ActionId::TokenExchange, ..Action::default() },
        delegation_edge: Some(DelegationEdge {
            id: "e-1".into(),
            scopes: strings(&["n:pay"]),
            ..DelegationEdge::default()
        }),
        context: Context {
            agent_session_id: Some("s-1".into()),
            delegation_edge_id: Some("e-1".into()),
            requested_scopes: strings(&["n:pay"]),
            ..Context::default()
        },
        ..Input::default()
    }
}

/// A mint of these scopes over an edge of those.
pub(crate) fn mint_of(wanted: &[&str], edge: &[&str]) -> Input {
    let mut input = mint();
    input.context.requested_scopes = strings(wanted);
    input.delegation_edge.as_mut().expect("an edge").scopes = strings(edge);
    input
}

/// A mint in a session with these labels.
pub(crate) fn mint_as(labels: &[&str]) -> Input {
    let mut input = mint();
    input.principal.labels = strings(labels);
    input
}

/// `app-1` starting out: the lifecycle scope, no session, no edge, no subject.
pub(crate) fn bootstrap() -> Input {
    let mut input = mint();
    input.principal.agent_session_id = None;
    input.principal.labels.clear();
    input.delegation_edge = None;
    input.context = Context { requested_scopes: strings(&[caracal_policy::LIFECYCLE_SCOPE]), ..Context::default() };
    input
}

/// A mandate for `n:pay` on `resource://n`, presented for use by `app-1`.
pub(crate) fn presented() -> Input {
    presented_with(json!({"delegation_edge_id": "e-1", "target": ["resource://n"], "scope": "n:pay", "sub": "app-1"}))
}

/// The same with these claims.
pub(crate) fn presented_with(claims: Value) -> Input {
    let mut input = mint();
    input.context.requested_scopes.clear();
    input.context.subject_claims = Some(claims.as_object().expect("claims").clone());
    input
}

/// A workload that is to receive a credential for `n:read`.
pub(crate) fn workload() -> Input {
    let mut input = bootstrap();
    input.principal =
        Principal { kind: PrincipalKind::Workload, id: "wl".into(), zone_id: "z".into(), ..Principal::default() };
    input.action.id = ActionId::CredentialInjection;
    input.context.requested_scopes = strings(&["n:read"]);
    input
}

/// A request of no shape at all.
pub(crate) fn shapeless() -> Input {
    let mut input = mint();
    input.delegation_edge = None;
    input
}

/// `allow <policy> <diagnostics>`, `deny <reason>` or `error`.
pub(crate) fn outcome(bundle: &Bundle, input: &Input) -> String {
    decide(bundle, input).map_or_else(|_| "error".into(), |verdict| outcome_of(&verdict))
}

/// The same of a verdict.
pub(crate) fn outcome_of(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Deny(reason) => format!("deny {reason}"),
        verdict => format!(
            "allow {} {}",
            verdict.determining().expect("an allowance names its policy"),
            serde_json::to_string(&verdict.diagnostics()).expect("JSON")
        ),
    }
}

pub(crate) fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}
