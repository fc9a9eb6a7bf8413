//! The contract's "Edge cases worth a test" (policy.md), row by row, each with the tests that show it, in this room and in
//! those that authors and agents speak to. The one test here holds the table to the tests that there are.
//!
//! Where a row is decided otherwise on purpose, what is so stands beside it.

use caracal_testkit::{Row, unproved};

/// A row, and `file::test` of what shows it; a file of another room is named by its path from `crates`.
const ROWS: &[Row] = &[
    ("mint", &["decisions::a_mint_inside_every_bound_is_allowed"]),
    (
        "bootstrap, the scope twice; by another, with an extra scope, with none",
        &["decisions::bootstrap_needs_the_lifecycle_scope_alone_and_an_owned_resource"],
    ),
    ("mint by another application, unknown resource", &["decisions::a_mint_needs_the_owner_and_a_known_resource"]),
    ("mint beyond its edge, edge without scopes", &["decisions::t02_sts_policy_a_mint_never_exceeds_its_edge"]),
    (
        "a label that lacks a scope, no label, an unknown one; two labels that would cover together",
        &["decisions::one_label_must_hold_every_wanted_scope"],
    ),
    (
        "mint with the lifecycle scope, empty or null scopes, subject claims",
        &["decisions::what_is_no_mint_matches_no_rule"],
    ),
    (
        "two binding keys of one application; a resource of another's",
        &["decisions::ownership_goes_through_the_binding_key_of_the_grant"],
    ),
    ("empty grants and app_ids", &["decisions::empty_data_grants_nothing"]),
    ("restrict, empty and not, for every shape", &["decisions::restrict_freezes_every_shape_when_it_has_an_element"]),
    ("restrict for one application", &["rego::conditions_on_the_question_decide"]),
    (
        "confinement by a label's prefix; as array, set, object",
        &["decisions::confinement_caps_sessions_that_carry_the_label"],
    ),
    (
        "confinement null, 5, \"x\"; without prefix; without scopes",
        &["decisions::an_unreadable_confinement_denies_every_mint"],
    ),
    ("an empty prefix and no label", &["decisions::an_empty_prefix_spares_only_sessions_without_labels"]),
    (
        "risk only; with its tier; a scope and a tier twice; a tier without a scope",
        &["decisions::classified_scopes_are_reported_and_declared_tiers_hold_the_mint"],
    ),
    ("malformed risk", &["decisions::malformed_risk_fails_every_mint_and_nothing_else"]),
    ("a bad declaration of an unused tier", &["decisions::one_bad_declaration_fails_every_mint"]),
    ("both malformed, with restrict, not owned", &["decisions::malformed_data_is_looked_at_in_the_ladders_order"]),
    ("one scope with two tiers", &["decisions::a_scope_with_two_tiers_has_no_answer_where_it_is_minted"]),
    ("use: the target", &["decisions::a_presented_mandate_is_checked_against_its_target"]),
    ("use: the scope claim", &["decisions::carried_scopes_are_separated_by_spaces_alone"]),
    (
        "use with a requested scope, without an edge's id",
        &["decisions::use_asks_for_no_scopes_and_names_its_delegation"],
    ),
    (
        "use after the role lost the scope; by another",
        &["security::narrowing_a_grant_stops_presented_mandates", "decisions::use_by_a_non_owner_is_not_granted"],
    ),
    (
        "workload without data, null scopes, a gated scope; with another action, a subject, an edge",
        &["decisions::workload_launches_need_no_grant_and_can_be_held"],
    ),
    ("documents of version 0 without import", &["rego::older_text_means_what_it_meant"]),
    ("`if` without import", &["literals::keyword_rules_need_their_import"]),
    ("no active set", &["decisions::a_zone_without_active_set_denies_everything"]),
    (
        "text that is no data document, in every way of the table",
        &[
            "text_check::the_first_failing_row_names_the_code",
            "admin/tests/it/policies::the_text_check_answers_with_its_code_and_the_place",
        ],
    ),
    ("strings and comments with brackets", &["text_check::strings_and_comments_hide_what_is_in_them"]),
    ("262,144 and 262,145 characters", &["text_check::length_is_counted_in_utf16_units_and_bounded"]),
    ("two forbidden calls", &["text_check::forbidden_calls_are_reported_in_list_order"]),
    (
        "a version of an unknown policy, bad and good content",
        &["admin/tests/it/policies::a_policy_is_refused_in_the_contracts_order"],
    ),
    ("two versions at once", &["admin/tests/it/policies::concurrent_versions_get_consecutive_numbers"]),
    (
        "a policy of the active set is archived",
        &["admin/tests/it/simulations::a_policy_that_is_archived_goes_on_deciding_in_the_sets_that_have_it"],
    ),
    (
        "manifests: duplicate, unknown, another zone's, mixed or unsupported schema, 257 entries",
        &[
            "admin/tests/it/policy_sets::t02_sts_policy_a_manifest_must_name_this_zones_versions_once",
            "admin/tests/it/policy_sets::documents_of_another_schema_make_no_set",
        ],
    ),
    (
        "grants defined differently, as a whole and in part",
        &[
            "bundles::contradicting_documents_are_refused_with_both_places",
            "admin/tests/it/policy_sets::documents_that_contradict_each_other_are_refused_with_the_place",
        ],
    ),
    (
        "the runtime is busy: a version, an activation",
        &["admin/tests/it/policy_sets::a_zone_whose_evaluations_wait_can_still_activate_what_was_judged_before"],
    ),
    (
        "B is activated while A is active",
        &["admin/tests/it/policy_sets::t02_sts_policy_activating_one_set_ends_the_other"],
    ),
    (
        "archived between check and lock",
        &["admin/tests/it/policy_sets::\
           t02_sts_policy_a_set_that_is_archived_on_the_way_is_not_activated_and_nobody_is_told"],
    ),
    (
        "DELETE of an active, an inactive, an unknown set",
        &["admin/tests/it/policy_sets::archiving_the_active_set_leaves_nothing_that_decides"],
    ),
    (
        "activation status: unknown, nothing active, the event missing",
        &["admin/tests/it/policy_sets::activation_status_follows_the_first_thing_that_is_missing"],
    ),
    (
        "a second version with the same manifest reaches `loaded`",
        &["admin/tests/it/policy_sets::a_version_with_an_unchanged_manifest_is_loaded_under_its_own_id"],
    ),
    (
        "a simulation without input, of another zone and nothing else",
        &[
            "admin/tests/it/simulations::without_an_input_nothing_is_evaluated_and_nothing_is_odd",
            "admin/tests/it/simulations::\
             what_is_odd_about_an_input_is_told_in_order_and_it_is_asked_all_the_same",
        ],
    ),
    (
        "a simulation without a result (no runtime of another process is asked, so none answers garbage)",
        &["admin/tests/it/simulations::an_evaluation_that_brings_no_result_is_an_answer_with_a_warning"],
    ),
    (
        "a read token and a foreign zone's validate and create",
        &["admin/tests/it/policies::read_and_foreign_tokens_may_validate_and_not_create"],
    ),
    ("a reserved name", &["admin/tests/it/policies::t12_foothold_only_the_bootstrap_token_touches_a_reserved_policy"]),
    (
        "loaded with another hash, without a version, with `result`",
        &[
            "caching::a_manifest_or_text_that_does_not_hash_as_promised_is_refused",
            "caching::a_stored_document_that_defines_a_decision_is_refused_on_load",
            "sts/tests/sts/availability::policy_that_cannot_be_loaded_denies_and_uses_a_mandate_up",
        ],
    ),
    (
        "the store flaps after a good load (a decision reads the store, D4, so an outage is 503 and the set stays the same)",
        &["sts/tests/sts/availability::without_its_store_it_grants_nothing"],
    ),
    (
        "hostile documents",
        &[
            "security::hostile_documents_are_refused_and_the_process_lives",
            "sts/tests/sts/evaluated_policy::a_hostile_zone_is_given_up_and_no_other_zone_notices",
            "admin/tests/it/policy_sets::t08_availability_a_hostile_document_is_refused_in_no_time",
        ],
    ),
    (
        "grants: another zone's application and resource, scopes, the control resource",
        &["admin/tests/it/grants::t02_sts_policy_what_can_not_be_granted_is_refused_in_the_contracts_order"],
    ),
    (
        "grants: deleted with 1001 active records",
        &["admin/tests/it/grants::revoking_a_grant_ends_all_that_its_user_holds_and_says_so_of_each"],
    ),
    ("grants: deleted twice", &["admin/tests/it/grants::a_grant_can_be_revoked_again_and_ends_what_came_since"]),
    (
        "mint with and without a grant",
        &["sts/tests/sts/policy_operations::a_grant_to_represent_a_user_changes_no_decision"],
    ),
];

#[test]
fn every_row_of_the_contract_names_tests_that_there_are() {
    // Some rows of the contract's tables are one here.
    assert_eq!(unproved("policy/tests", ROWS, 52), Vec::<String>::new());
}
