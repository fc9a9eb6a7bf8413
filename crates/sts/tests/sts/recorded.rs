//! Every type, decision and status of an event that the contract has (audit-and-streams.md §2.2), each with a test in which a
//! real request leaves one. Held to the ledger's own words and to the tests that there are, and to what those look for: the
//! third part of a row stands in its test. Of the statuses that are ours, each has such a test too.
//!
//! Who takes in users is asked by a helper of `federation`, which looks at the event of each refusal.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use caracal_ledger::{Decision, EvaluationStatus, EventType};
use caracal_testkit::{Row, unproved};

/// Type, decision and status; the test; what it looks for.
const ROWS: &[(&str, &[&str; 1], &str)] = &[
    ("token_exchange allow complete", &["evidence::of_several_resources_each_has_its_own_event"], "allow complete"),
    ("token_exchange deny complete", &["evidence::of_several_resources_each_has_its_own_event"], "deny complete"),
    (
        "token_exchange deny policy_eval_failed",
        &["evaluated_policy::an_evaluation_that_fails_denies_says_so_and_uses_a_mandate_up"],
        "deny policy_eval_failed",
    ),
    (
        "token_exchange deny approval_invalid",
        &["approvals::an_approval_is_good_for_its_request_alone"],
        "deny approval_invalid",
    ),
    (
        "token_exchange deny approval_already_consumed",
        &["approvals::a_lost_answer_is_given_again_for_two_minutes_under_the_same_record"],
        "deny approval_already_consumed",
    ),
    (
        "token_exchange deny approval_rejected",
        &["approvals::a_no_stands_until_the_hold_is_over"],
        "deny approval_rejected",
    ),
    (
        "token_exchange deny approval_expired",
        &["approvals::what_is_over_is_neither_spent_nor_surfaced"],
        "deny approval_expired",
    ),
    (
        "token_exchange deny approval_policy_changed",
        &["launch_approvals::a_policy_that_changes_while_an_approval_is_used_refuses_it"],
        "deny approval_policy_changed",
    ),
    (
        "token_exchange deny approval_class_conflict",
        &["approvals::tiers_that_no_one_person_can_serve_are_refused"],
        "deny approval_class_conflict",
    ),
    (
        "token_exchange deny resource_not_found",
        &["launch_credentials::each_row_that_fails_is_told_and_recorded_as_the_contract_has_it"],
        "\"resource_not_found\"",
    ),
    (
        "token_exchange deny scope_mismatch",
        &["launch_credentials::each_row_that_fails_is_told_and_recorded_as_the_contract_has_it"],
        "\"scope_mismatch\"",
    ),
    (
        "token_exchange deny resource_outside_delegation",
        &["delegated_mint::a_resource_outside_the_delegation_is_not_granted"],
        "deny resource_outside_delegation",
    ),
    (
        "token_exchange deny operation_not_permitted",
        &["evidence::whoever_proved_who_they_are_leaves_evidence_of_every_refusal"],
        "\"operation_not_permitted\"",
    ),
    (
        "token_exchange deny rate_limited",
        &["evaluated_policy::a_mint_that_is_decided_twice_is_counted_once"],
        "deny rate_limited",
    ),
    (
        "token_exchange deny control_resource_requires_control_key",
        &["bootstrap::the_control_audience_is_not_for_ordinary_applications"],
        "deny control_resource_requires_control_key",
    ),
    (
        "token_exchange deny provider_unavailable",
        &["directives::a_provider_that_is_gone_or_not_connected_is_a_refusal"],
        "deny provider_unavailable",
    ),
    (
        "token_exchange deny credential_not_provisioned",
        &["launch_credentials::each_row_that_fails_is_told_and_recorded_as_the_contract_has_it"],
        "\"credential_not_provisioned\"",
    ),
    (
        "token_exchange deny credential_refresh_failed",
        &["accounts::a_renewal_that_fails_refuses_and_leaves_the_account_as_it_was"],
        "deny credential_refresh_failed",
    ),
    (
        "token_exchange deny credential_injection_denied",
        &["launch_credentials::each_row_that_fails_is_told_and_recorded_as_the_contract_has_it"],
        "\"credential_injection_denied\"",
    ),
    (
        "token_exchange deny provider_credential_unavailable",
        &["service_tokens::a_token_that_is_not_had_grants_nothing_and_says_why_in_evidence_alone"],
        "deny provider_credential_unavailable",
    ),
    (
        "token_exchange deny exchange_denied",
        &["evidence::whoever_proved_who_they_are_leaves_evidence_of_every_refusal"],
        "\"exchange_denied\"",
    ),
    (
        "token_exchange deny subject_federation_invalid",
        &["evidence::whoever_proved_who_they_are_leaves_evidence_of_every_refusal"],
        "\"subject_federation_invalid\"",
    ),
    (
        "token_exchange deny subject_federation_rejected",
        &["federation::tokens_that_must_not_be_believed_are_refused_each_with_its_reason"],
        "rejected(&world",
    ),
    (
        "run_launch allow complete",
        &["launches::a_workload_is_told_what_is_bound_to_it_and_that_is_on_record"],
        "allow complete",
    ),
    (
        "run_launch deny workload_auth_failed",
        &["launches::a_rotated_secret_and_an_archived_zone_launch_nothing"],
        "run_launch deny workload_auth_failed",
    ),
    (
        "step_up_issued pending complete",
        &["approvals::its_evidence_is_a_denial_and_the_hold_that_was_issued"],
        "step_up_issued pending complete",
    ),
    (
        "step_up_decided approved complete",
        &["approval_decisions::its_evidence_names_the_sign_in_and_not_the_person"],
        "approved complete",
    ),
    ("step_up_decided rejected complete", &["approval_decisions::a_user_rejects"], "rejected complete"),
    (
        "step_up_consumed consumed complete",
        &["approvals::what_was_approved_is_minted_once_and_its_evidence_tells_all_of_it"],
        "step_up_consumed consumed complete",
    ),
    (
        "jti_collision deny anomaly",
        &["evidence::a_mandate_whose_id_is_taken_is_none_and_that_is_on_record"],
        "deny anomaly",
    ),
    (
        "replay_detected deny anomaly",
        &["gateway/tests/gateway/t03_gateway_replay::the_second_presentation_is_refused_and_leaves_one_event"],
        "replay_detected",
    ),
    (
        "gateway_resource_request allow executed",
        &["gateway/tests/gateway/evidence::a_call_leaves_one_event_with_everything_but_secrets"],
        "\"executed\"",
    ),
    (
        "gateway_resource_request allow upstream_rejected",
        &[
            "gateway/tests/gateway/t03_gateway_egress::an_upstream_that_must_not_be_reached_is_not_and_the_operator_learns_why",
        ],
        "\"upstream_rejected\"",
    ),
    (
        "gateway_resource_request allow build_failed",
        &["gateway/tests/gateway/t03_gateway_headers::a_directive_that_would_misplace_a_credential_builds_no_request"],
        "\"build_failed\"",
    ),
    (
        "gateway_resource_request allow upstream_error",
        &["gateway/tests/gateway/t03_gateway_stream::a_caller_who_goes_away_cancels_the_upstream"],
        "\"upstream_error\"",
    ),
    (
        "credential_revealed allow complete",
        &["admin/tests/it/registration::a_secret_is_shown_to_who_may_write_and_the_showing_is_on_record_first"],
        "credential_revealed",
    ),
];

/// Statuses of ours (README D11), which the contract's table does not have.
const OURS: &[(&str, &[&str; 1], &str)] = &[
    (
        "client_unauthenticated",
        &["clients::a_secret_that_is_rotated_while_it_is_verified_proves_nothing_any_more"],
        "deny client_unauthenticated",
    ),
    (
        "zone_invalid",
        &["clients::the_right_secret_in_the_wrong_zone_is_told_the_right_one_with_evidence_there"],
        "deny zone_invalid",
    ),
    ("request_invalid", &["direct_exchange::the_first_failing_step_is_the_answer"], "deny request_invalid"),
    (
        "subject_token_invalid",
        &["evidence::whoever_proved_who_they_are_leaves_evidence_of_every_refusal"],
        "\"subject_token_invalid\"",
    ),
    (
        "reference_invalid",
        &["evidence::whoever_proved_who_they_are_leaves_evidence_of_every_refusal"],
        "\"reference_invalid\"",
    ),
    (
        "approval_required",
        &["approvals::its_evidence_is_a_denial_and_the_hold_that_was_issued"],
        "token_exchange deny approval_required",
    ),
    (
        "gateway_required",
        &["edges::a_session_mandate_that_policy_allows_is_not_minted_for_outside_the_gateway"],
        "deny gateway_required",
    ),
    ("ttl_invalid", &["evidence::what_was_allowed_and_then_refused_as_a_whole_is_no_allow"], "deny ttl_invalid"),
    (
        "lifetime_exhausted",
        &["edges::whatever_ends_within_the_second_lends_nothing_and_a_whole_second_is_lent"],
        "deny lifetime_exhausted",
    ),
    (
        "mandate_too_large",
        &["bootstrap::what_no_mandate_can_carry_is_refused_with_evidence_and_leaves_no_record"],
        "deny mandate_too_large",
    ),
    ("binding_not_found", &["launches::a_workload_without_bindings_is_told_so"], "run_launch deny binding_not_found"),
    (
        "approver_refused",
        &["approval_decisions::what_waits_for_an_operator_is_not_the_user_s"],
        "deny approver_refused",
    ),
    (
        "mandate_of_another_application",
        &[
            "sts/tests/sts/standards/revocation::another_application_s_mandate_stays_as_it_is_and_the_attempt_is_on_record",
        ],
        "deny mandate_of_another_application",
    ),
    (
        "session_revoked",
        &["gateway/tests/gateway/t03_gateway_revocation::a_revoked_mandate_is_not_used_up_and_leaves_evidence"],
        "(\"deny\", \"session_revoked\")",
    ),
    (
        "request_too_large",
        &["gateway/tests/gateway/t03_gateway_checks::a_body_that_says_it_is_too_large_does_not_cost_the_mandate"],
        "(\"deny\", \"request_too_large\")",
    ),
    (
        "sts_circuit_open",
        &[
            "gateway/tests/gateway/t08_availability::after_three_outages_a_zone_is_turned_away_at_once_and_keeps_its_mandates",
        ],
        "world.event(\"r-1\").await.1, \"sts_circuit_open\"",
    ),
    (
        "sts_unavailable",
        &["gateway/tests/gateway/evidence::the_sts_records_its_denials_and_the_gateway_what_the_sts_could_not"],
        "\"sts_unavailable\"",
    ),
    (
        "sts_timeout",
        &["gateway/tests/gateway/remote::every_trouble_of_a_remote_sts_has_its_answer_and_leaves_evidence"],
        "\"sts_timeout\"",
    ),
    (
        "sts_outcome_unknown",
        &["gateway/tests/gateway/remote::every_trouble_of_a_remote_sts_has_its_answer_and_leaves_evidence"],
        "\"sts_outcome_unknown\"",
    ),
    (
        "upstream_not_configured",
        &["gateway/tests/gateway/evidence::the_sts_records_its_denials_and_the_gateway_what_the_sts_could_not"],
        "\"upstream_not_configured\"",
    ),
];
/// Statuses that a decision can end in and no request does: where the store can't say the time or the rate, it takes no
/// event either, and the request fails before it is decided.
const NEVER: &[EvaluationStatus] = &[EvaluationStatus::TimeUnavailable, EvaluationStatus::RateUnavailable];

/// Words of the contract that nothing leaves, by name: Control is not there yet.
const NOT_YET: &[&str] = &["control.invoke"];
/// Not of the contract; the audit service's own tests, `standards::revocation` and `approval_decisions` show them.
const BEYOND: &[&str] = &["ledger_incident", "mandate_revoked", "step_up_refused"];

/// The text of a test.
pub(crate) fn text_of(test: &str) -> String {
    let (place, function) = test.rsplit_once("::").unwrap();
    let below = Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = if place.contains('/') { below.join("..").join(place) } else { below.join("tests/sts").join(place) };
    let text = fs::read_to_string(file.with_extension("rs")).unwrap();
    let (before, after) =
        text.split_once(&format!("fn {function}(")).unwrap_or_else(|| panic!("there is no test {test}"));
    // It ends at the brace that stands below its beginning.
    let beginning = before.lines().last().unwrap();
    let indent = " ".repeat(beginning.len() - beginning.trim_start().len());
    after.split(&format!("\n{indent}}}")).next().unwrap().to_owned()
}

#[test]
fn each_status_of_the_contract_has_a_test_and_the_test_looks_for_it() {
    let rows: Vec<Row> = ROWS.iter().map(|(row, test, _)| (*row, test.as_slice())).collect();
    // The table of §2.2 without `control.invoke`.
    assert_eq!(unproved("sts/tests/sts", &rows, 36), Vec::<String>::new());
    let ours: Vec<Row> = OURS.iter().map(|(row, test, _)| (*row, test.as_slice())).collect();
    assert_eq!(unproved("sts/tests/sts", &ours, OURS.len()), Vec::<String>::new());
    for (row, [test], sought) in ROWS.iter().chain(OURS) {
        assert!(text_of(test).contains(sought), "{row}: {test} does not look for {sought}");
    }
}

#[test]
fn no_status_of_the_ledger_is_left_out() {
    let contract: BTreeSet<_> = ROWS.iter().map(|(row, ..)| row.split(' ').nth(2).unwrap()).collect();
    let ours: BTreeSet<_> = OURS.iter().map(|(row, ..)| *row).chain(NEVER.iter().map(|of| of.as_str())).collect();
    for (rows, of_the_contract) in [(contract, true), (ours, false)] {
        let all = EvaluationStatus::ALL.iter().filter(|status| status.is_of_the_contract() == of_the_contract);
        assert_eq!(rows, all.map(|status| status.as_str()).collect());
    }
}

#[test]
fn no_type_and_no_decision_of_the_ledger_is_left_out() {
    let words = |at: usize| ROWS.iter().filter_map(move |(row, _, _)| row.split(' ').nth(at)).collect::<Vec<_>>();
    let types = words(0);
    let mut missing: Vec<&str> =
        EventType::ALL.iter().map(EventType::as_str).filter(|of| !types.contains(of)).collect();
    missing.sort_unstable();
    assert_eq!(missing, [NOT_YET, BEYOND].concat());
    let decisions = words(1);
    assert!(Decision::ALL.iter().all(|of| decisions.contains(&of.as_str())));
    assert!(types.iter().all(|of| !matches!(EventType::parse(of), EventType::Other(_))));
    assert!(decisions.iter().all(|of| !matches!(Decision::parse(of), Decision::Other(_))));
}
