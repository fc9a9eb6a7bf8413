//! Every key of metadata that the contract has (audit-and-streams.md §2.3), by the type of event, with a test in which a real
//! request leaves it. Held to the ledger's own list, to the tests that there are, and to what those look for: the key stands in
//! its test. Each event that any test of this service or of the Gateway reads is held to the list as well: it has no key that
//! its type has not.

use std::collections::BTreeSet;

use caracal_ledger::{EventType, MetadataKey};
use caracal_testkit::unproved;
use serde_json::{Value, json};

use crate::approval_decisions::mint_for;
use crate::recorded::text_of;
use crate::support::*;

const MINT: &[&str] =
    &["delegated_mint::its_evidence_says_who_asked_for_which_session_through_whom_and_what_it_became"];
const HELD: &[&str] = &["recorded_keys::every_event_about_a_user_s_hold_tells_all_of_it"];
const HOLD: &[&str] = &[
    "challenge_id",
    "tier",
    "approver_class",
    "privacy_mode",
    "binding",
    "expires_at",
    "subject_anchor",
    "application_id",
    "session_id",
    "agent_session_id",
    "delegation_edge_id",
    "agent_labels",
];

/// Type; the test; keys.
const ROWS: &[(&str, &[&str], &[&str])] = &[
    (
        "token_exchange",
        MINT,
        &[
            "application_id",
            "application_name",
            "application_registration_method",
            "resource",
            "requested_scopes",
            "session_id",
            "agent_session_id",
            "delegation_edge_id",
            "subject_kind",
            "agent_lifecycle",
            "agent_labels",
            "agent_depth",
            "agent_parent_id",
            "delegation_chain",
            "delegation_hop_count",
            "delegation_graph_epoch",
        ],
    ),
    (
        "token_exchange",
        &["clients::the_right_secret_in_the_wrong_zone_is_told_the_right_one_with_evidence_there"],
        &["requested"],
    ),
    ("token_exchange", &["edges::a_denied_exchange_tells_what_the_presented_mandate_carried"], &["method", "path"]),
    (
        "token_exchange",
        &["federation::the_evidence_names_the_issuer_and_the_record_and_never_the_user"],
        &["federated_user_issuer", "session_id", "subject_kind"],
    ),
    (
        "token_exchange",
        &["launch_credentials::a_stored_credential_is_released_with_evidence_and_nothing_else"],
        &["workload_id", "workload_name", "env", "resource", "requested_scopes"],
    ),
    (
        "token_exchange",
        &["launch_credentials::each_row_that_fails_is_told_and_recorded_as_the_contract_has_it"],
        &["reason"],
    ),
    ("token_exchange", &["launches::only_a_uuid_is_recorded_as_the_id_of_a_launch"], &["launch_id"]),
    ("token_exchange", HELD, HOLD),
    (
        "run_launch",
        &["launches::a_workload_is_told_what_is_bound_to_it_and_that_is_on_record"],
        &["workload_id", "workload_name", "binding_count"],
    ),
    ("run_launch", &["launches::a_rotated_secret_and_an_archived_zone_launch_nothing"], &["env", "requested_scopes"]),
    ("run_launch", &["launches::only_a_uuid_is_recorded_as_the_id_of_a_launch"], &["launch_id"]),
    ("step_up_issued", HELD, HOLD),
    ("step_up_decided", HELD, HOLD),
    (
        "step_up_decided",
        &["approval_decisions::its_evidence_names_the_sign_in_and_not_the_person"],
        &["approver_plane", "approver_session_id"],
    ),
    (
        "step_up_decided",
        &["admin/tests/it/approvals::an_operator_approves_and_all_that_belongs_to_it_is_there"],
        &["approver_plane", "approver_subject_id", "reason"],
    ),
    ("step_up_consumed", HELD, HOLD),
    (
        "step_up_consumed",
        &["approvals::a_lost_answer_is_given_again_for_two_minutes_under_the_same_record"],
        &["challenge_id", "reissued", "authority_record_id"],
    ),
    (
        "jti_collision",
        &["evidence::a_mandate_whose_id_is_taken_is_none_and_that_is_on_record"],
        &["jti", "app_id", "request_id"],
    ),
    (
        "replay_detected",
        &["gateway/tests/gateway/t03_gateway_replay::the_second_presentation_is_refused_and_leaves_one_event"],
        &["jti", "resource", "client_id", "subject_fp", "request_id"],
    ),
    (
        "gateway_resource_request",
        &["gateway/tests/gateway/evidence::a_call_leaves_one_event_with_everything_but_secrets"],
        &[
            "application_id",
            "resource",
            "subject_fingerprint",
            "method",
            "gateway_status",
            "latency_ms",
            "response_bytes",
            "trace_id",
            "subject_kind",
            "upstream_host",
            "auth_mode",
            "provider_id",
            "connection_id",
            "upstream_status",
            "result_class",
        ],
    ),
    (
        "gateway_resource_request",
        &["gateway/tests/gateway/t03_gateway_revocation::a_stream_ends_in_order_and_with_the_trailer"],
        &["revocation_interrupted"],
    ),
    (
        "gateway_resource_request",
        &["gateway/tests/gateway/t03_gateway_egress::a_credential_is_sent_only_to_the_hosts_it_is_pinned_to"],
        &["error_kind"],
    ),
    (
        "credential_revealed",
        &["admin/tests/it/registration::a_secret_is_shown_to_who_may_write_and_the_showing_is_on_record_first"],
        &["credential", "application_id", "application_name", "actor"],
    ),
    (
        "credential_revealed",
        &["admin/tests/it/workloads::a_reveal_needs_write_and_is_on_record_before_it_is_shown"],
        &["credential", "workload_id", "workload_name", "actor"],
    ),
];

#[test]
fn each_key_of_the_contract_has_a_test_and_the_test_looks_for_it() {
    for (of, test, keys) in ROWS {
        assert_eq!(unproved("sts/tests/sts", &[(*of, *test)], 1), Vec::<String>::new());
        for key in *keys {
            let looks = text_of(test[0]).contains(&format!("\"{key}\""));
            assert!(looks, "{of} {key}: {} does not look for it", test[0]);
        }
    }
}

#[test]
fn no_key_of_the_ledger_is_left_out() {
    // Control is not there yet.
    for of in EventType::ALL.iter().filter(|of| **of != EventType::ControlInvoke) {
        let rows = ROWS.iter().filter(|(name, ..)| *name == of.as_str());
        let shown: BTreeSet<&str> = rows.flat_map(|(_, _, keys)| keys.iter().copied()).collect();
        let listed = of.contract_keys().iter().flat_map(|group| group.iter().map(|key| key.as_str())).collect();
        assert_eq!(shown, listed, "{of:?}");
    }
    assert!(ROWS.iter().all(|(.., keys)| keys.iter().all(|key| MetadataKey::parse(key).is_some())));
}

/// What a denial, a hold, its decision and its end say of the hold; in the reference's words and in no others.
#[tokio::test]
async fn every_event_about_a_user_s_hold_tells_all_of_it() {
    let world = World::held_by("subject").await;
    world.sign_in("user-1", "rec-u").await;
    let ask = mint_for(&world, "rec-u").await.set("session_id", "rec-app");
    let hold = ask.send(&world).await;
    assert_eq!(hold.outcome(), "401 interaction_required");
    let id = hold.text("approval_id").to_owned();
    let anew = world.sign_in("user-1", "rec-anew").await;
    let decision = json!({"decision": "approved", "binding": hold.text("binding")});
    assert_eq!(world.say(&anew.mandate, &id, &decision).await.status, 200);
    assert_eq!(ask.send(&world).await.status, 200);
    let row = world.approval(&id).await.unwrap();
    let expected = json!({
        "challenge_id": id,
        "tier": "reading",
        "approver_class": "subject",
        "privacy_mode": "identified",
        "binding": row.binding,
        "expires_at": row.expires_at.to_seconds_text(),
        "subject_anchor": "user-1",
        "application_id": APP,
        "session_id": "rec-app",
        "agent_session_id": "s-u",
        "delegation_edge_id": "e-u",
        "agent_labels": ["reader"],
    });
    let told: Vec<(String, Value)> = world
        .evidence()
        .await
        .iter()
        .filter(|event| event.metadata.get("challenge_id").is_some())
        .map(|event| {
            let of_hold = |(key, _): &(&String, &Value)| HOLD.contains(&key.as_str());
            let members = event.metadata.as_object().unwrap().iter().filter(of_hold);
            let members = members.map(|(key, value)| (key.clone(), value.clone())).collect();
            (format!("{} {}", event.row.event_type, event.row.decision), members)
        })
        .collect();
    let types =
        ["token_exchange deny", "step_up_issued pending", "step_up_decided approved", "step_up_consumed consumed"];
    assert_eq!(told, types.map(|of| (of.to_owned(), expected.clone())));
}
