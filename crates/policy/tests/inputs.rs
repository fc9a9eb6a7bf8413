//! The input document on the wire (contract: policy.md §3) and its normalisation for simulation (§10.5).

#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of a test file are test code")]

mod world;

use caracal_policy::{Input, PrincipalKind, SimulationInputError, decide};
use serde_json::{Map, Value, json};
use world::*;

fn object(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

#[test]
fn optional_members_that_are_empty_are_left_out() {
    assert_eq!(
        serde_json::to_value(bootstrap()).unwrap(),
        json!({
            "schema_version": "2026-05-20",
            "principal": {"type": "Application", "id": "app-1", "zone_id": "z"},
            "resource": {"type": "Resource", "id": "r", "identifier": "resource://n", "scopes": ["n:pay", "n:read"]},
            "action": {"id": "TokenExchange"},
            "context": {"actor_claims": {}, "challenge_resolved": false, "requested_scopes": ["agent:lifecycle"]}
        })
    );
}

#[test]
fn every_member_has_its_wire_name() {
    let full = json!({
        "schema_version": "2026-05-20",
        "principal": {"type": "Application", "id": "app-1", "zone_id": "z", "registration_method": "dcr",
                      "agent_session_id": "s", "lifecycle": "task", "labels": ["exec"]},
        "resource": {"type": "Resource", "id": "r", "identifier": "resource://n", "scopes": ["n:pay"]},
        "action": {"id": "TokenExchange", "method": "GET", "path": "/x"},
        "session": {"id": "rec"},
        "delegation_edge": {"id": "e", "source_session_id": "a", "target_session_id": "b",
            "issuer_application_id": "c", "receiver_application_id": "d", "resource_id": "r", "scopes": ["n:pay"],
            "edge_version": 3, "graph_epoch": 4, "path": ["e0", "e"], "constraints_json": {"max_hops": 1}},
        "context": {"actor_claims": {"caracal_client_id": "app-1"}, "subject_claims": {"sub": "u"}, "trace_id": "t",
                    "session_id": "rec", "agent_session_id": "s", "delegation_edge_id": "e",
                    "challenge_resolved": true, "requested_scopes": ["n:pay"]}
    });
    let input: Input = serde_json::from_value(full.clone()).unwrap();
    assert_eq!(serde_json::to_value(&input).unwrap(), full);
}

/// The ladder and the JSON of an input can never disagree about what is present.
#[test]
fn an_empty_optional_member_decides_as_none() {
    let bundle = load(&[BASE]).unwrap();
    let mut odd = bootstrap();
    odd.context.agent_session_id = Some(String::new());
    odd.context.subject_claims = Some(Map::new());
    let written: Input = serde_json::from_value(serde_json::to_value(&odd).unwrap()).unwrap();
    assert_eq!(decide(&bundle, &odd), decide(&bundle, &written));
    assert!(decide(&bundle, &odd).unwrap().is_allow());
}

#[test]
fn a_simulation_is_normalised() {
    let input = Input::for_simulation(object(json!({
        "schema_version": "",
        "unknown": {"dropped": true},
        "principal": {"type": "Application", "id": "app-1", "labels": null, "agent_session_id": "", "extra": 1},
        "resource": null,
        "delegation_edge": {},
        "context": {"subject_claims": {}, "requested_scopes": null}
    })))
    .unwrap();
    assert_eq!(
        serde_json::to_value(&input).unwrap(),
        json!({
            "schema_version": "2026-05-20",
            "principal": {"type": "Application", "id": "app-1", "zone_id": ""},
            "resource": {"type": "", "id": "", "identifier": "", "scopes": []},
            "action": {"id": ""},
            "delegation_edge": {"id": ""},
            "context": {"actor_claims": {}, "challenge_resolved": false, "requested_scopes": []}
        })
    );
    assert_eq!(Input::for_simulation(Map::new()).unwrap(), Input::default());
    assert_eq!(Input::default().principal.kind, PrincipalKind::Other(String::new()));
}

#[test]
fn a_member_of_the_wrong_type_fails_the_simulation() {
    for wrong in [
        json!({"principal": []}),
        json!({"principal": "app-1"}),
        json!({"principal": {"id": 5}}),
        json!({"principal": {"type": {}}}),
        json!({"principal": {"labels": "exec"}}),
        json!({"principal": {"labels": [5]}}),
        json!({"resource": ["Resource", "r", "resource://n", []]}),
        json!({"action": 1}),
        json!({"session": "s"}),
        json!({"delegation_edge": []}),
        json!({"delegation_edge": {"edge_version": "1"}}),
        json!({"delegation_edge": {"edge_version": 1.5}}),
        json!({"context": {"subject_claims": []}}),
        json!({"context": {"challenge_resolved": "yes"}}),
        json!({"context": {"requested_scopes": "n:pay"}}),
        json!({"schema_version": 5}),
        json!({"schema_version": "2025-01-01", "principal": []}),
    ] {
        let found = Input::for_simulation(object(wrong.clone()));
        assert!(matches!(found, Err(SimulationInputError::WrongType(_))), "{wrong}");
    }
}

#[test]
fn another_schema_version_fails_the_simulation() {
    let found = Input::for_simulation(object(json!({"schema_version": "2025-01-01"})));
    assert!(matches!(found, Err(SimulationInputError::UnsupportedSchema(version)) if version == "2025-01-01"));
    assert!(serde_json::from_value::<Input>(json!({"schema_version": "2025-01-01"})).is_err());
}

/// An explained denial can be sent back: what it recorded is what it decides by.
#[test]
fn an_input_survives_its_record() {
    let bundle = load(&[BASE]).unwrap();
    for input in [mint(), presented(), bootstrap(), workload(), shapeless(), mint_as(&[])] {
        let record = serde_json::to_value(&input).unwrap();
        let again = Input::for_simulation(object(record)).unwrap();
        assert_eq!(again, input);
        assert_eq!(decide(&bundle, &again), decide(&bundle, &input));
    }
}
