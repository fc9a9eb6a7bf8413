//! The contract's "Edge cases worth a test" (admin-api.md §16), row by row, each with the tests that show it. The one test here
//! holds the table to the tests that there are: a row loses its proof only together with a line of this file.
//!
//! Where a row is decided otherwise on purpose, the difference of the contract's README stands beside it.

use caracal_testkit::{Row, unproved};

/// A row, and `file::test` of what shows it; a file of another room is named by its path from `crates`.
const ROWS: &[Row] = &[
    (
        "`/%761/zones`, `/v%31/zones`, an absolute target, without token",
        &[
            "gates::no_spelling_of_the_target_gets_around_the_gates",
            "loopback::t01_control_plane_target_over_the_wire_no_request_line_skips_the_gates",
        ],
    ),
    (
        "write token, `approvals/a/%61pprove`",
        &[
            "gates::unknown_routes_and_methods_are_401_first_and_404_then",
            "approvals::only_approve_tokens_and_the_bootstrap_token_decide",
        ],
    ),
    ("write token, `DELETE /v1/%7Aones/<system zone>`", &["gates::an_encoded_letter_does_not_free_the_system_zone"]),
    (
        "`bearer`, `Basic`, an empty one, 4097 characters, part of a good one and more than one",
        &["gates::only_the_exact_bearer_form_is_a_credential"],
    ),
    (
        "malformed JSON without token",
        &["gates::a_body_that_can_t_be_read_is_refused_before_anyone_is_asked_who_they_are"],
    ),
    ("unknown `/v1/x`, without token and with one", &["gates::unknown_routes_and_methods_are_401_first_and_404_then"]),
    (
        "`x-request-id: bad id!` (D16: visible ASCII is kept)",
        &["gates::a_request_id_is_kept_when_well_formed_and_replaced_otherwise"],
    ),
    (
        "zone token: own zone, other zone, `/v1/zones`, a broken escape, validation",
        &[
            "gates::every_route_of_a_zone_is_closed_to_tokens_of_other_zones",
            "gates::a_zone_token_can_t_reach_another_zone_by_encoding",
        ],
    ),
    (
        "read token: every method, validation",
        &[
            "gates::every_write_is_closed_to_read_and_approve_tokens",
            "policies::read_and_foreign_tokens_may_validate_and_not_create",
        ],
    ),
    (
        "approve token: an approval, a new zone",
        &[
            "approvals::only_approve_tokens_and_the_bootstrap_token_decide",
            "gates::every_write_is_closed_to_read_and_approve_tokens",
        ],
    ),
    ("the bootstrap token approves", &["approvals::only_approve_tokens_and_the_bootstrap_token_decide"]),
    ("derived token, an assertion that has just expired", &["gates::a_derived_token_alone_is_nobody"]),
    ("account on an unowned zone, on a missing one", &["gates::an_account_reaches_its_own_zones_and_no_other"]),
    (
        "account `POST /v1/admin-tokens`",
        &["admin_tokens::zone_tokens_and_console_accounts_never_reach_the_deployments_own_routes"],
    ),
    (
        "a revoked token, used again (at once, not after 6 s); another env token after a restart",
        &[
            "foothold::a_revoked_token_is_refused_at_once",
            "gates::a_changed_admin_token_ends_the_whole_old_family",
            "gates::a_restart_does_not_bring_a_revoked_token_back",
        ],
    ),
    (
        "`DELETE` of the same admin token twice",
        &["admin_tokens::a_token_is_shown_once_works_is_listed_and_ends_when_it_is_revoked"],
    ),
    ("zone `  Ops  ` twice", &["zones::a_zone_gets_a_slug_from_its_name_and_a_number_when_it_is_taken"]),
    ("the explicit slug of an archived zone", &["archived::a_slug_stays_taken_when_its_zone_is_archived"]),
    ("zone `Caracal Sys Foo`", &["zones::only_the_bootstrap_token_makes_a_system_zone_by_whatever_name"]),
    ("zone PATCH to a slug in use", &["registration::a_change_of_a_zone_is_refused_in_the_contracts_order"]),
    (
        "zone with `foo`, `Bad_Slug`, an empty slug, a name of 121 characters, of blanks",
        &["zones::what_is_no_zone_is_refused_and_leaves_nothing"],
    ),
    ("zone PATCH `dcr_shutdown` alone", &["registration::a_change_of_a_zone_is_refused_in_the_contracts_order"]),
    (
        "zone PATCH `dcr_enabled: false` over three live applications",
        &["registration::registration_is_not_switched_off_over_the_heads_of_the_living"],
    ),
    (
        "the same with `revoke_live` when registration was already off",
        &["registration::t04_state_what_registered_itself_ends_with_registration_when_that_is_asked_for"],
    ),
    ("application `CARACAL.SYS/x`", &["applications::an_application_is_refused_in_the_contracts_order"]),
    (
        "applications `Bot` and `bot`; again after the first is archived",
        &[
            "applications::an_application_is_refused_in_the_contracts_order",
            "archived::an_archived_application_is_absent_and_its_name_is_free",
            "applications::of_two_that_want_one_name_at_once_one_gets_it",
        ],
    ),
    (
        "traits: 64 and 65, one twice, malformed ones, `control:invoke` by a zone token",
        &[
            "admin/src/applications/traits::traits_are_judged_by_the_contracts_table",
            "admin/src/applications/traits::t12_foothold_a_zone_token_gives_no_control_traits",
            "applications::a_change_of_an_application_is_refused_in_the_contracts_order",
        ],
    ),
    (
        "a client secret of 31 and of 32 characters",
        &[
            "applications::a_change_of_an_application_is_refused_in_the_contracts_order",
            "applications::an_application_is_created_found_renamed_and_given_another_secret",
        ],
    ),
    ("DCR `expires_in` 0, 3601, 1.5", &["registration::a_registration_is_refused_in_the_contracts_order"]),
    (
        "11 DCR calls within a second",
        &["registration::t08_availability_registrations_are_few_per_second_and_the_living_are_counted"],
    ),
    (
        "reveal: a DCR application, no copy, the store of secrets down",
        &[
            "registration::an_application_registers_itself_for_an_hour_at_most",
            "registration::a_secret_is_shown_to_who_may_write_and_the_showing_is_on_record_first",
            "workloads::a_copy_that_is_not_kept_or_not_had_is_said_so",
        ],
    ),
    (
        "the store of secrets refuses a create, a rotation, a patch",
        &[
            "secrets::when_a_secret_can_t_be_kept_nothing_changes_and_the_old_one_works",
            "workloads::when_a_workloads_secret_cannot_be_kept_nothing_changes_and_the_old_one_works",
        ],
    ),
    (
        "an application is archived while the store of secrets is down",
        &["caracal/tests/providers::a_backend_holds_ciphertext_and_a_change_it_refuses_does_not_happen"],
    ),
    ("workload env `ld_preload`, `1A`, one twice", &["workloads::a_workload_is_refused_in_the_contracts_order"]),
    ("workload PUT `{}`", &["workloads::a_workload_is_refused_in_the_contracts_order"]),
    ("provider `none` without name and identifier", &["providers::a_provider_is_refused_in_the_contracts_order"]),
    (
        "provider `none` with an `api_key`",
        &[
            "providers::a_provider_is_refused_in_the_contracts_order",
            "admin/src/providers/config/tests::kinds_without_credential_take_no_configuration",
        ],
    ),
    (
        "api_key ` sk-1\\n`, `sk\\n1`, `Bearer sk` with and without scheme",
        &[
            "providers::each_built_kind_is_created_and_shows_its_public_part_only",
            "admin/src/providers/config/tests::a_configuration_outside_its_row_is_refused",
            "admin/src/providers/config/tests::a_pasted_scheme_is_refused_where_a_scheme_is_added",
        ],
    ),
    (
        "header_name `X-Caracal-Foo`, `Host`, `traceparent`",
        &["admin/src/providers/config/tests::t03_gateway_headers_that_frame_or_route_carry_no_credential"],
    ),
    (
        "api_key in the query with `auth_scheme`",
        &["admin/src/providers/config/tests::a_configuration_outside_its_row_is_refused"],
    ),
    (
        "OAuth provider without `allowed_token_hosts`",
        &["admin/src/providers/config/tests::what_is_left_out_is_stored_as_its_default"],
    ),
    (
        "OAuth create without check, with a passing one",
        &[
            "checks::a_check_says_how_the_endpoint_answered_and_the_provider_keeps_it",
            "checks::a_provider_that_is_checked_first_is_there_only_if_it_answers",
        ],
    ),
    (
        "check answered 200 `error=incorrect_client_credentials` as a form",
        &["broker/src/check::an_answer_is_judged_by_what_was_asked"],
    ),
    (
        "check with a token endpoint outside the list",
        &["checks::t03_egress_nothing_is_sent_where_a_provider_may_not_send"],
    ),
    (
        "token endpoint at loopback, mapped and NAT64 metadata, one good and one private address",
        &[
            "checks::t03_egress_nothing_is_sent_where_a_provider_may_not_send",
            "http/src/egress/policy::loopback_needs_development_or_its_host_listed",
            "http/src/egress/policy::metadata_is_refused_in_every_spelling",
            "http/src/egress/policy::one_bad_answer_refuses_all_and_the_hopeless_one_is_reported",
        ],
    ),
    (
        "a listed private host at 10.0.0.1, at 169.254.169.254",
        &[
            "http/src/egress/policy::private_addresses_need_their_exact_host_listed",
            "http/src/egress/policy::some_addresses_are_never_admitted",
        ],
    ),
    ("provider PATCH with public members only", &["providers::a_new_public_part_keeps_the_sealed_secret"]),
    ("provider PATCH to kind `none`", &["providers::a_new_public_part_keeps_the_sealed_secret"]),
    ("a discovery document of another issuer", &["checks::an_identity_provider_is_discovered_by_its_issuer"]),
    (
        "callback with a state that was used",
        &["consents::t13_browser_a_state_is_good_for_one_presentation_whatever_comes_of_it"],
    ),
    (
        "callback for a browser with script in `error_description`",
        &["consents::t13_browser_a_browser_sees_a_page_without_markup_of_others"],
    ),
    (
        "`token_type: mac` without and with `auth_scheme`",
        &["consents::what_the_token_endpoint_answers_is_told_in_words_of_ours"],
    ),
    ("revocation answered 503 upstream", &["connections::a_revocation_counts_here_and_is_told_to_the_provider"]),
    ("revoked twice", &["connections::a_revocation_counts_here_and_is_told_to_the_provider"]),
    ("resource without provider, without upstream", &["resources::a_resource_is_refused_in_the_contracts_order"]),
    (
        "identifiers `pipernet`, `provider://x`, `https://u:p@h/`",
        &["resources::a_resource_is_refused_in_the_contracts_order"],
    ),
    ("operations `get /a` and `GET /a`", &["resources::a_resource_is_refused_in_the_contracts_order"]),
    ("PATCH of scopes below a stored operation", &["resources::a_change_is_judged_as_the_whole_it_makes"]),
    (
        "control resource: zone token list, get, create; DELETE by anyone",
        &[
            "resources::the_control_resource_is_for_global_tokens_only",
            "endings::only_the_bootstrap_token_archives_what_is_reserved_and_nobody_the_control_resource",
        ],
    ),
    (
        "issuers over http, with user, query, fragment",
        &["subject_issuers::a_registration_is_refused_in_the_contracts_order"],
    ),
    (
        "the 21st issuer, the 21st sink",
        &["subject_issuers::a_zone_has_twenty_issuers_at_most", "notifications::what_is_no_sink_is_refused"],
    ),
    (
        "kill switch of `auth0|507f…`, again, of an unknown subject",
        &["endings::the_kill_switch_leaves_nothing_of_the_subject_and_says_how_much_there_was"],
    ),
    (
        "kill switch while another transaction holds a record",
        &[
            "endings::what_another_change_holds_while_the_switch_is_thrown_is_waited_for_and_ended",
            "endings::what_is_minted_while_the_switch_is_thrown_is_ended_or_was_minted_after",
        ],
    ),
    (
        "approve: expired, consumed, class subject, twice at once",
        &[
            "approvals::what_cannot_be_decided_is_said_with_its_state",
            "approvals::of_operators_who_decide_at_once_one_has_decided",
        ],
    ),
    (
        "a reason of 501 characters; no body",
        &["approvals::a_body_that_does_not_fit_decides_nothing", "approvals::an_operator_rejects_without_a_word"],
    ),
    ("sink urls", &["notifications::what_is_no_sink_is_refused"]),
    ("event_types in another order", &["notifications::what_is_no_sink_is_refused"]),
    (
        "a sink that answers 302, and 500 eight times",
        &["notifications::a_receiver_that_fails_is_tried_eight_times_with_growing_pauses_and_then_given_up"],
    ),
    (
        "audit `event_type=,`, `fields=payload_json`, `fields=`, `limit=1001`, `since` with an offset",
        &["audit::a_query_is_refused_in_the_contracts_order"],
    ),
    ("CSV cell `=HYPERLINK(\"x\")`", &["audit::t05_secrets_a_csv_export_is_a_file_that_runs_nothing"]),
    ("a list of exactly `limit` rows", &["lists::a_full_page_has_a_next_one_which_may_be_empty"]),
    ("600 rows of one millisecond", &["lists::t16_clients_six_hundred_rows_of_one_instant_come_once_each"]),
    ("a cursor with an unparseable time", &["lists::a_query_that_can_t_be_meant_is_refused_on_every_list"]),
    (
        "PUT retention above the ceiling, 0, 1.5, with another member",
        &["audit_retention::what_is_no_number_of_days_or_above_the_ceiling_changes_nothing"],
    ),
    (
        "stored retention above a ceiling that was lowered later",
        &["audit_retention::it_is_the_ceiling_until_somebody_sets_fewer_days"],
    ),
    (
        "a mutation while the audit table can't be written",
        &[
            "evidence::a_change_whose_record_can_t_be_written_does_not_happen",
            "endings::an_end_whose_record_can_t_be_written_ends_nothing",
        ],
    ),
    (
        "PATCH with a secret: `secret_rotation`, names without values",
        &["evidence::every_kind_of_change_leaves_its_record"],
    ),
    ("NUL in the keys of a body", &["evidence::t06_evidence_the_chains_verify_from_what_is_stored"]),
    (
        "`/ready` with Redis that does not answer, with a database that hangs",
        &[
            "gates::readiness_is_limited_drains_and_follows_the_store",
            "gates::readiness_names_what_is_down_beside_the_store",
            "caracal/tests/replicas::without_redis_nothing_is_granted_and_revocations_hold",
            "caracal/tests/partitions::the_coordinator_loses_the_database_and_nobody_says_so",
        ],
    ),
    (
        "`/metrics` published without bearer",
        &["gates::t12_foothold_metrics_are_for_their_own_bearer_and_closed_without_one"],
    ),
];

#[test]
fn every_row_of_the_contract_names_tests_that_there_are() {
    // As many as the contract's table has.
    assert_eq!(unproved("admin/tests/it", ROWS, 80), Vec::<String>::new());
}
