//! The contract's "Edge cases worth a test" (sts.md), row by row, each with the tests that show it. The one test here holds
//! the table to the tests that there are: a row loses its proof only together with a line of this file.
//!
//! Where a row is decided otherwise on purpose, the difference of the contract's README stands beside it.

use caracal_testkit::{Row, unproved};

/// A row, and `file::test` of what shows it; a file of another room is named by its path from `crates`.
const ROWS: &[Row] = &[
    (
        "POST with a query, JSON, 65537 bytes, `a=%zz`",
        &["form::every_malformed_form_has_its_status_and_writes_nothing"],
    ),
    ("`scope=a&scope=b`, unknown `foo` twice", &["form::every_malformed_form_has_its_status_and_writes_nothing"]),
    ("`resource=x&resource= x `", &["bootstrap::a_resource_named_twice_or_by_both_its_names_is_one_resource"]),
    ("`resource=`, `actor_token=`", &["form::every_malformed_form_has_its_status_and_writes_nothing"]),
    (
        "`ttl_seconds` abc, 0, -1, 3601; 901 via a Gateway",
        &[
            "bootstrap::the_life_is_what_was_asked_for_within_its_class",
            "gateway_exchange::the_life_asked_for_has_a_lower_bound_than_elsewhere",
        ],
    ),
    ("subject token types, one without the other", &["form::every_malformed_form_has_its_status_and_writes_nothing"]),
    (
        "wrong secret, unknown application, none at all",
        &["clients::whatever_is_wrong_the_answer_and_its_cost_are_the_same"],
    ),
    (
        "the 61st wrong secret, the right one after it, another application (D17: for that source)",
        &["clients::the_sixty_first_wrong_secret_locks_that_application_for_that_source_alone"],
    ),
    (
        "an application of another zone, right secret and wrong secret",
        &[
            "clients::the_right_secret_in_the_wrong_zone_is_told_the_right_one_with_evidence_there",
            "clients::whatever_is_wrong_the_answer_and_its_cost_are_the_same",
        ],
    ),
    (
        "a control key without zone, for its audience and for another resource",
        &[
            "control_keys::a_control_key_gets_a_mandate_for_the_control_audience_and_policy_is_not_asked",
            "control_keys::what_is_no_control_request_needs_a_zone_and_counts_as_a_guess",
        ],
    ),
    (
        "a control key with `control:max-ttl:120`",
        &["control_keys::the_life_of_a_control_mandate_is_cut_by_its_key_and_never_refused_for_it"],
    ),
    (
        "an ordinary application asks for the control audience",
        &["bootstrap::the_control_audience_is_not_for_ordinary_applications"],
    ),
    ("one of two resources unknown", &["bootstrap::of_two_resources_the_unknown_one_is_left_out"]),
    (
        "`agent:lifecycle` on a resource without upstream",
        &["bootstrap::the_lifecycle_scope_is_implied_by_an_upstream_and_otherwise_has_to_be_declared"],
    ),
    (
        "a session mandate as direct subject token, policy allows",
        &["edges::a_session_mandate_that_policy_allows_is_not_minted_for_outside_the_gateway"],
    ),
    (
        "a mandate of a retired key, of an unknown one, of none (D5: retired is what nothing can rest on any more)",
        &[
            "rotation::a_retired_key_is_neither_published_nor_believed",
            "direct_exchange::a_token_that_does_not_verify_is_refused_with_evidence",
        ],
    ),
    (
        "the record has expired by the store's clock, the token has not",
        &["edges::a_record_that_has_ended_by_the_store_s_clock_ends_its_mandate"],
    ),
    (
        "form and token name other sessions, other delegations",
        &["gateway_exchange::a_form_that_contradicts_the_mandate_is_refused"],
    ),
    (
        "Gateway: replayed nonce, changed body, skew of 61 s, another request id, one header alone",
        &[
            "gateway_signature::a_nonce_serves_once",
            "gateway_signature::a_signature_is_bound_to_method_path_body_time_and_key",
            "gateway_signature::a_minute_of_skew_is_borne_in_either_direction_and_no_second_more",
            "gateway_signature::the_request_id_in_the_form_is_that_of_the_request",
            "gateway_signature::all_three_headers_are_needed_once_as_soon_as_one_is_there",
        ],
    ),
    (
        "Gateway: `get /items`, `/admin` undeclared, scope missing in the mandate",
        &["gateway_exchange::an_undeclared_operation_is_refused_whatever_policy_says"],
    ),
    (
        "Gateway exchange without scope",
        &["gateway_exchange::a_gateway_mandate_becomes_a_resource_mandate_and_a_directive"],
    ),
    (
        "delegation: other target, source application, third application, expired edge, scope, ttl over and omitted",
        &[
            "delegated_mint::a_delegation_serves_the_session_it_was_given_to_and_its_application_alone",
            "delegated_mint::a_delegation_that_was_taken_back_or_has_lapsed_lends_nothing",
            "delegated_mint::neither_scopes_nor_life_exceed_what_is_lent",
        ],
    ),
    (
        "constraints: malformed, contradicting, 11 hops (D24: `budget` is known and narrows)",
        &["delegated_mint::constraints_that_cannot_be_read_lend_nothing"],
    ),
    (
        "a path beyond max_hops, without the edge, with a gap",
        &[
            "delegated_mint::a_lineage_that_breaks_anywhere_lends_nothing",
            "delegated_mint::a_lineage_of_more_than_ten_edges_lends_nothing",
        ],
    ),
    (
        "a stale service, a session of a revoked user, one of an application whose record has lapsed",
        &["delegated_mint::a_session_acts_only_while_it_lives"],
    ),
    ("an edge bound to another resource", &["delegated_mint::a_resource_outside_the_delegation_is_not_granted"]),
    ("a gated mint twice at once", &["approvals::gated_mints_that_race_are_told_of_one_hold_and_one_is_issued"]),
    (
        "again after the approval, without `approval_id`",
        &["approvals::an_approval_is_spent_by_the_same_request_though_it_names_none"],
    ),
    ("scopes in another order, repeated", &["approvals::order_and_repetition_of_scopes_are_the_same_request"]),
    ("an approval after an activation", &["approvals::an_activation_voids_what_was_approved_before_it"]),
    (
        "a consumed approval after 60 s, after 121 s, after its record was revoked",
        &[
            "approvals::a_lost_answer_is_given_again_for_two_minutes_under_the_same_record",
            "approvals::what_was_revoked_is_not_issued_again",
        ],
    ),
    (
        "two consumers at once",
        &[
            "approvals::of_two_that_decided_at_the_same_moment_one_is_told_that_it_lost",
            "approvals::of_consumers_that_race_one_is_granted_a_record",
        ],
    ),
    ("a rejected hold, before and after its expiry", &["approvals::a_no_stands_until_the_hold_is_over"]),
    (
        "expired but approved, rejected and past expiry, consumed and past expiry",
        &[
            "approvals::what_is_over_is_neither_spent_nor_surfaced",
            "approvals::a_no_stands_until_the_hold_is_over",
            "held_edges::what_was_spent_stays_spent_when_its_time_is_over",
        ],
    ),
    (
        "tiers operator and subject, any and subject, ttl of 1, ttl of 30 days",
        &[
            "approvals::tiers_that_no_one_person_can_serve_are_refused",
            "held_edges::who_may_be_anybody_yields_to_who_has_to_be_the_subject",
            "approvals::tiers_decide_who_may_approve_and_for_how_long",
        ],
    ),
    (
        "`wait` of -1, oops, 99",
        &[
            "approval_waits::a_wait_that_is_no_number_is_refused",
            "sts/src/approvals/status::a_wait_is_a_plain_number_of_seconds_and_has_an_end",
        ],
    ),
    (
        "a decision by an application, another user, the own lineage, upper case, a second one, 501 bytes",
        &[
            "approval_decisions::each_check_refuses_with_its_own_status",
            "approval_decisions::who_works_for_a_user_waits_for_that_user_signed_in_anew",
        ],
    ),
    (
        "id_token: HS256, audience, expired, `caracal:shared`, newline, beside a scope",
        &[
            "federation::tokens_that_must_not_be_believed_are_refused_each_with_its_reason",
            "federation::a_token_beside_anything_but_a_lifetime_is_a_malformed_request",
        ],
    ),
    (
        "JWKS of `oct` keys, over http, by redirect, at a private address",
        &[
            "issuer_keys::what_is_no_key_set_of_a_trusted_server_is_refused",
            "issuer_keys::addresses_that_must_not_be_reached_are_not",
        ],
    ),
    (
        "provider kind `API_KEY`, `api_key `, unset",
        &["directives::a_kind_in_another_case_with_a_space_or_unset_is_no_kind"],
    ),
    (
        "api_key with `auth_header` alone, in the query with a scheme, in a cookie",
        &["directives::an_api_key_has_a_header_name_or_a_parameter_and_no_scheme_in_the_query_and_goes_into_no_cookie"],
    ),
    (
        "a token endpoint over http, not listed, leading to metadata by either spelling",
        &[
            "broker/src/settings::t03_egress_a_token_endpoint_is_https_and_its_exact_host_is_listed",
            "broker/tests/broker/service_tokens::a_name_that_leads_where_none_may_go_is_refused_and_nothing_is_sent",
            "service_tokens::a_token_that_is_not_had_grants_nothing_and_says_why_in_evidence_alone",
        ],
    ),
    (
        "`token_type: mac` without and with `auth_scheme`",
        &["service_tokens::a_token_of_another_type_goes_with_a_configured_scheme_only"],
    ),
    (
        "100 calls at once on a connection that is about to expire, several replicas",
        &["accounts::a_hundred_calls_on_several_replicas_renew_an_account_once"],
    ),
    (
        "a renewal without a new refresh token",
        &["accounts::a_refresh_token_that_is_not_replaced_is_kept_and_no_life_is_the_longest"],
    ),
    (
        "five failing fetches, a sixth within 30 s",
        &[
            "service_tokens::what_is_counted_of_providers_is_shown",
            "broker/tests/broker/service_tokens::an_outage_is_asked_twice_and_then_left_alone",
        ],
    ),
    (
        "run: unknown variable, injection disabled, http_basic, authorization code, gated",
        &[
            "launch_credentials::each_row_that_fails_is_told_and_recorded_as_the_contract_has_it",
            "launch_approvals::a_gated_credential_waits_for_a_human_and_is_released_once",
        ],
    ),
    ("run: `X-Caracal-Launch-Id: nope`", &["launches::only_a_uuid_is_recorded_as_the_id_of_a_launch"]),
    (
        "the counter store is down: token, manifest (D7: 503)",
        &[
            "availability::a_counter_that_is_down_refuses_every_mint_and_says_so",
            "availability::while_guesses_cannot_be_counted_no_secret_is_looked_at",
            "launches::a_counter_that_is_down_launches_nothing_and_says_so",
        ],
    ),
    (
        "JWKS without zone, one of three keys damaged, all of them",
        &[
            "jwks::a_zone_has_to_be_named_and_known",
            "jwks::a_damaged_key_is_left_out_and_nothing_is_published_when_all_are",
        ],
    ),
    (
        "the audit stream is down, then up (D11: evidence lies in the commit, no stream is needed for it)",
        &[
            "evidence::every_record_has_its_allow_and_every_allow_its_record",
            "evidence::a_mint_whose_evidence_cannot_be_written_is_none",
        ],
    ),
];

#[test]
fn every_row_of_the_contract_names_tests_that_there_are() {
    // Two rows of the contract's table are one here.
    assert_eq!(unproved("sts/tests/sts", ROWS, 51), Vec::<String>::new());
}
