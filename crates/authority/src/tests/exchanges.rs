//! The four exchanges, and the rows of the contract's edge-case tables that a decision alone can answer.

use serde_json::json;

use super::fixtures::*;
use crate::exchange::{
    Asserted, Caller, Class, Connection, Decision, Found, Rate, RefreshFailure, Refusal, Request, ResourceNames, Skip,
};
use crate::mandate::Use;
use crate::record::{RecordFacts, RecordStatus, SubjectKind};
use crate::resource::{ProviderKind, UpstreamCall};
use crate::scope::{Requested, Scopes};
use crate::session::{Lease, Life};

type Change = fn(&mut Case);
type Assert = fn(&mut Request);

fn claims_of(case: &mut Case) -> serde_json::Value {
    let outcome = case.decide();
    let grant = outcome.grant().unwrap();
    serde_json::to_value(grant.claims("http://issuer", &id("rec-new"), &id("jti-new"))).unwrap()
}

fn asking(scope: &str) -> Requested<Scopes> {
    Requested::new(Scopes::from_text(scope))
}

fn expires_in(case: &mut Case) -> u64 {
    case.decide().grant().unwrap().lifetime().expires_in()
}

#[test]
fn a_bootstrap_ends_in_a_session_mandate_of_the_application() {
    let mut case = bootstrap();
    let expected = json!({
        "iss": "http://issuer", "sub": "app-1", "aud": ["http://issuer"], "exp": 10_900, "iat": 10_000,
        "jti": "jti-new", "zone_id": "z-1", "client_id": "app-1", "sid": "rec-new", "root_sid": "rec-new",
        "use": "session", "sub_type": "application", "scope": "agent:lifecycle", "target": ["resource://docs"],
    });
    assert_eq!(claims_of(&mut case), expected);
    let outcome = case.decide();
    assert_eq!((outcome.class, outcome.grant().unwrap().r#use()), (Class::Bootstrap, Use::Session));
    assert_eq!(outcome.grant().unwrap().record().expires_at, later(900));
    assert_eq!(outcome.grant().unwrap().record().parent, None);
}

#[test]
fn a_delegated_mint_ends_in_a_gateway_mandate_of_the_lineage() {
    let mut case = mint();
    let expected = json!({
        "iss": "http://issuer", "sub": "app-1", "aud": ["http://issuer"], "exp": 10_900, "iat": 10_000,
        "jti": "jti-new", "zone_id": "z-1", "client_id": "app-1", "sid": "rec-new", "root_sid": "rec-new",
        "use": "gateway", "sub_type": "application", "scope": "docs:read", "target": ["resource://docs"],
        "agent_session_id": "s-2", "delegation_edge_id": "e-1", "source_session_id": "s-1", "target_session_id": "s-2",
        "delegation_path": ["e-1"], "hop_count": 1, "delegation_graph_epoch": 7,
        "delegation_chain": [
            {"application_id": "app-1", "agent_session_id": "s-1", "delegation_edge_id": "e-1"},
            {"application_id": "app-1", "agent_session_id": "s-2"},
        ],
    });
    assert_eq!(claims_of(&mut case), expected);
    case.facts.epoch = Some(0);
    assert!(claims_of(&mut case).get("delegation_graph_epoch").is_none());
}

#[test]
fn a_gateway_exchange_ends_in_a_resource_mandate_under_the_presented_root() {
    let mut case = gateway();
    case.subject().subject = "user-1".into();
    case.subject().kind = SubjectKind::User;
    case.record("rec-mint").subject = "user-1".into();
    let claims = claims_of(&mut case);
    for (claim, expected) in [
        ("aud", json!(["resource://docs"])),
        ("use", json!("resource")),
        ("sub", json!("user-1")),
        ("sub_type", json!("user")),
        ("sid", json!("rec-new")),
        ("root_sid", json!("rec-root")),
        ("scope", json!("docs:read")),
        ("agent_session_id", json!("s-2")),
        ("delegation_path", json!(["e-1"])),
    ] {
        assert_eq!(claims[claim], expected, "{claim}");
    }
    let outcome = case.decide();
    let record = outcome.grant().unwrap().record();
    assert_eq!((record.kind, &*record.subject), (SubjectKind::User, "user-1"));
    assert_eq!(record.parent, Some(id("rec-mint")));
    case.subject().root_record = None;
    assert_eq!(claims_of(&mut case)["root_sid"], json!("rec-mint"));
}

#[test]
fn a_record_hangs_on_the_record_it_was_asked_with_in_every_class() {
    for fresh in [bootstrap, mint] {
        let mut case = fresh();
        case.request.record = Asserted::Id(id("rec-own"));
        case.facts.records.push(record("rec-own"));
        assert_eq!(case.decide().grant().unwrap().record().parent, Some(id("rec-own")));
        case.record("rec-own").status = RecordStatus::Revoked;
        assert_eq!(case.name(), "RecordNotLive");
    }
}

#[test]
fn the_scope_is_minted_as_it_was_written() {
    let mut case = mint();
    case.request.scope = asking(" docs:write  docs:read docs:read ");
    assert_eq!(claims_of(&mut case)["scope"], json!(" docs:write  docs:read docs:read "));
}

#[test]
fn an_asserted_record_is_the_applications_own_and_live() {
    let own = || {
        let mut case = bootstrap();
        case.request.record = Asserted::Id(id("rec-own"));
        case.facts.records.push(record("rec-own"));
        case
    };
    assert_eq!(own().name(), "granted");
    type OnRecord = fn(&mut RecordFacts);
    let rows: [(OnRecord, &str); 5] = [
        (|record| record.kind = SubjectKind::User, "RecordNotOfApplication"),
        (|record| record.subject = "app-2".into(), "RecordOfAnotherSubject"),
        (|record| record.zone = id("z-2"), "RecordUnknown"),
        (|record| record.status = RecordStatus::Revoked, "RecordNotLive"),
        (|record| record.expires_at = now(), "RecordNotLive"),
    ];
    for (change, expected) in rows {
        let mut case = own();
        change(case.record("rec-own"));
        assert_eq!(case.name(), expected);
    }
    let mut case = own();
    case.request.record = Asserted::parse(Some("not an id"));
    assert_eq!(case.name(), "RecordUnknown");
}

#[test]
fn the_presented_mandate_overrides_empty_fields_and_contradicts_others() {
    let contradict: [(Assert, &str); 8] = [
        (|request| request.session = Asserted::Id(id("s-2")), "granted"),
        (|request| request.delegation = Asserted::Id(id("e-1")), "granted"),
        (|request| request.record = Asserted::Id(id("rec-mint")), "granted"),
        (|request| request.session = Asserted::Id(id("s-1")), "SessionDiffersFromToken"),
        (|request| request.session = Asserted::NotAnId, "SessionDiffersFromToken"),
        (|request| request.delegation = Asserted::Id(id("e-2")), "DelegationDiffersFromToken"),
        (|request| request.record = Asserted::Id(id("rec-anchor")), "RecordDiffersFromToken"),
        (|request| request.record = Asserted::NotAnId, "RecordDiffersFromToken"),
    ];
    for (assert, expected) in contradict {
        let mut case = gateway();
        assert(&mut case.request);
        assert_eq!(case.name(), expected);
    }
}

#[test]
fn references_are_refused_one_by_one() {
    let rows: [(Change, &str); 9] = [
        (|case| case.request.session = Asserted::Absent, "DelegationWithoutSession"),
        (|case| case.request.session = Asserted::NotAnId, "SessionUnknown"),
        (|case| case.request.delegation = Asserted::NotAnId, "DelegationUnknown"),
        // Target ≠ session: the source's own application uses the edge for its source.
        (|case| case.request.session = Asserted::Id(id("s-1")), "DelegationUnknown"),
        // A third application.
        (|case| case.session("s-2").application = id("app-2"), "SessionUnknown"),
        (|case| case.leaf().expires_at = now(), "DelegationUnusable"),
        (|case| case.request.scope = asking("docs:delete"), "ScopesExceedDelegation"),
        (|case| case.facts.epoch = None, "EpochUnreadable"),
        (|case| case.request.approval_id = Some("any".into()), "ApprovalUnknown"),
    ];
    for (change, expected) in rows {
        let mut case = mint();
        change(&mut case);
        assert_eq!(case.name(), expected);
    }
}

#[test]
fn a_delegations_ttl_refuses_what_is_asked_and_caps_what_is_not() {
    let mut case = mint();
    case.leaf().constraints = Some(constraints(json!({"resources": ["resource://docs"], "ttl_seconds": 30})));
    for (asked, expected) in
        [(Some(60), Err("TtlExceedsDelegation")), (Some(30), Ok(30)), (None, Ok(30)), (Some(0), Ok(30))]
    {
        case.request.ttl_seconds = asked;
        match expected {
            Ok(seconds) => assert_eq!(expires_in(&mut case), seconds, "{asked:?}"),
            Err(name) => assert_eq!(case.name(), name, "{asked:?}"),
        }
    }
}

#[test]
fn an_unlisted_budget_no_longer_stops_a_mint_and_broken_constraints_do() {
    let mut case = mint();
    case.leaf().constraints = Some(constraints(json!({"budget": 1})));
    assert_eq!(case.name(), "granted");
    case.leaf().constraints = None;
    assert_eq!(case.name(), "DelegationUnusable");
}

#[test]
fn liveness_of_a_session_is_that_of_its_time_its_lease_and_its_user() {
    let stale = Life::Service(Lease { generation: 1, deadline: now() });
    let leased = Life::Service(Lease { generation: 1, deadline: later(1) });
    for (life, expected) in [(stale, "SessionNotLive"), (leased, "granted")] {
        let mut case = mint();
        case.session("s-2").life = life;
        assert_eq!(case.name(), expected);
    }
    for (kind, expires_at, status, expected) in [
        (SubjectKind::User, later(100), RecordStatus::Revoked, "SessionNotLive"),
        (SubjectKind::User, now(), RecordStatus::Active, "SessionNotLive"),
        (SubjectKind::User, later(100), RecordStatus::Active, "granted"),
        (SubjectKind::Application, now(), RecordStatus::Revoked, "granted"),
    ] {
        let mut case = mint();
        *case.record("rec-anchor") = RecordFacts { kind, expires_at, status, ..record("rec-anchor") };
        assert_eq!(case.name(), expected, "{kind:?} {status:?}");
    }
}

#[test]
fn a_session_without_delegation_ends_where_policy_ends_it() {
    let mut case = mint();
    case.request.delegation = Asserted::Absent;
    case.advice.answer = deny("no_rule_matched");
    assert_eq!(case.decide().class, Class::SessionBound);
    assert_eq!(case.name(), "NothingGranted");
    case.advice.answer = allow();
    assert_eq!(claims_of(&mut case)["use"], json!("session"));
    assert_eq!(claims_of(&mut case)["agent_session_id"], json!("s-2"));
}

#[test]
fn names_are_trimmed_distinct_and_sorted() {
    let names = ResourceNames::parse(["x", " b ", "x ", "a"]).unwrap();
    assert_eq!(names.iter().collect::<Vec<_>>(), ["a", "b", "x"]);
    assert!(ResourceNames::parse(["x", "  "]).is_err());
    let mut case = bootstrap();
    case.request.resources = ResourceNames::default();
    assert_eq!(case.name(), "NoResource");
}

#[test]
fn a_resource_asked_for_by_id_and_identifier_is_granted_and_evaluated_once() {
    let mut case = bootstrap();
    case.request.resources = ResourceNames::parse(["res-1", "resource://docs"]).unwrap();
    case.facts.resources.push(found("res-1", resource("res-1", "resource://docs")));
    assert_eq!(claims_of(&mut case)["target"], json!(["resource://docs"]));
    assert_eq!((case.advice.asked.len(), case.advice.counted.len()), (1, 1));
    assert_eq!(case.decide().findings.len(), 1);
}

#[test]
fn one_of_two_resources_unknown_grants_the_other() {
    let mut case = bootstrap();
    case.request.resources = ResourceNames::parse(["resource://docs", "resource://gone"]).unwrap();
    assert_eq!(claims_of(&mut case)["target"], json!(["resource://docs"]));
    let findings: Vec<_> = case.decide().findings;
    let seen: Vec<_> = findings.iter().map(|finding| (finding.decision, finding.evaluation_status.as_str())).collect();
    assert_eq!(seen, [(Decision::Allow, "complete"), (Decision::Deny, "resource_not_found")]);
    assert_eq!(findings[1].resource.as_deref(), Some("resource://gone"));
}

#[test]
fn the_lifecycle_scope_needs_an_upstream_or_a_declaration() {
    let mut case = bootstrap();
    case.resource().has_upstream = false;
    assert_eq!(case.name(), "NothingGranted");
    assert_eq!(case.decide().findings[0].found, Found::Skipped(Skip::ScopeMismatch));
    case.resource().scopes = scopes("agent:lifecycle");
    assert_eq!(case.name(), "granted");
}

#[test]
fn a_delegation_of_another_resource_grants_nothing() {
    let rows: [Change; 3] = [
        |case| case.leaf().resource = Some(row("res-9", "resource://docs")),
        |case| case.leaf().constraints = Some(constraints(json!({"resources": ["resource://other"]}))),
        |case| case.leaf().constraints = Some(constraints(json!({"resources": ["Resource://docs"]}))),
    ];
    for change in rows {
        let mut case = mint();
        change(&mut case);
        let outcome = case.decide();
        assert_eq!(outcome.refusal(), Some(&Refusal::NothingGranted { reason: None }));
        assert_eq!(outcome.findings[0].evaluation_status.as_str(), "resource_outside_delegation");
        assert!(outcome.context.delegation.is_some());
    }
}

#[test]
fn an_operation_must_be_declared_and_carried() {
    let upstream =
        |method: &str, path: &str| Caller::Gateway(UpstreamCall { method: method.into(), path: path.into() });
    for (caller, carried, expected) in [
        (upstream("GET", "/docs/7"), "docs:read", "granted"),
        (upstream("GET", "/admin"), "docs:read", "OperationNotPermitted"),
        (upstream("get", "/docs/7"), "docs:read", "OperationNotPermitted"),
        (upstream("GET", "/docs/7"), "docs:write", "OperationNotPermitted"),
    ] {
        let mut case = gateway();
        case.request.caller = caller;
        case.subject().scope = Scopes::from_text(carried);
        assert_eq!(case.name(), expected);
        assert_eq!(case.advice.asked.is_empty(), expected != "granted", "policy cannot relax the floor");
    }
}

#[test]
fn provider_rows_are_skips_with_their_reasons() {
    let by_code = |kind, connection| {
        let mut case = gateway();
        case.resource().provider.as_mut().unwrap().kind = kind;
        case.facts.resources[0].connection = connection;
        let outcome = case.decide();
        let (status, reason) = (outcome.findings[0].evaluation_status.as_str(), outcome.findings[0].reason());
        (outcome.refusal().map(|refusal| (refusal.status(), refusal.code())), status, reason)
    };
    let oauth = Some(ProviderKind::Oauth2AuthorizationCode);
    let failed = Connection::RefreshFailed(RefreshFailure::NotRenewable);
    let denied = Some((403, "access_denied"));
    assert_eq!(by_code(None, Connection::Ready), (denied, "provider_unavailable", None));
    let missing = (denied, "credential_not_provisioned", Some("no_provider_connection"));
    assert_eq!(by_code(oauth, Connection::NotProvisioned), missing);
    let code = "credential_expired_not_renewable";
    assert_eq!(by_code(oauth, failed), (Some((403, code)), "credential_refresh_failed", Some(code)));
    assert_eq!(by_code(oauth, Connection::Ready), (None, "complete", None));
    assert_eq!(by_code(Some(ProviderKind::Unrecognised), Connection::NotProvisioned).0, None);
}

#[test]
fn only_the_rate_is_429_and_a_lost_counter_503() {
    let mut case = bootstrap();
    case.advice.rate = Rate::Exceeded;
    assert_eq!(case.name(), "RateLimited");
    case.request.resources = ResourceNames::parse(["resource://docs", "resource://gone"]).unwrap();
    assert_eq!(case.name(), "NothingGranted");
    case.advice.rate = Rate::Unavailable;
    assert_eq!(case.name(), "RateUnavailable");
}

#[test]
fn a_failed_policy_ends_the_exchange_even_after_an_allow() {
    let mut case = bootstrap();
    case.request.resources = ResourceNames::parse(["resource://docs", "resource://more"]).unwrap();
    case.facts.resources.push(found("resource://more", resource("res-2", "resource://more")));
    let mut answers = vec![crate::exchange::PolicyAnswer::Failed { error: "odd".into() }, allow()];
    let mut counsel = (
        |_: &crate::resource::Resource| Rate::Within,
        |_: &crate::exchange::PolicyQuestion<'_>| answers.pop().unwrap(),
    );
    let outcome = crate::exchange::decide(&case.request, &case.facts, &mut counsel);
    assert_eq!(outcome.refusal(), Some(&Refusal::PolicyFailed));
    let found: Vec<_> = outcome.findings.into_iter().map(|finding| finding.found).collect();
    assert_eq!(found, [Found::Refused("PolicyFailed"), Found::Stopped("PolicyFailed")]);
}
