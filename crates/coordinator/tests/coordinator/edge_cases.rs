//! The contract's "Edge cases worth a test" (coordinator.md §18), row by row, each with the tests that show it. The one test
//! here holds the table to the tests that there are: a row loses its proof only together with a line of this file.
//!
//! Where a row is decided otherwise on purpose, the difference of the contract's README, or the weakness of the reference
//! (§19), stands beside it.

use caracal_testkit::{Row, unproved};

/// Who is heard, and starting sessions.
#[rustfmt::skip]
const SESSIONS: &[Row] = &[
    ("a bearer of 4097 characters, `bearer x`", &["authentication::a_bearer_has_1_to_4096_characters_behind_its_exact_scheme"]),
    ("a bearer that names the zone `../z`", &["authentication::only_a_session_mandate_of_this_issuer_in_force_is_heard"]),
    ("two spaces behind `Bearer`", &["authentication::a_bearer_has_1_to_4096_characters_behind_its_exact_scheme"]),
    ("a mandate without `sid` (W13: nothing could be revoked behind it, so it is not heard)", &["authentication::a_mandate_without_sid_is_not_heard_because_nothing_could_be_revoked_behind_it", "t04_state_leases::only_the_holder_of_a_live_record_of_the_sessions_application_holds_a_lease"]),
    ("the operator's token on an invocation, on a start, on HEAD", &["authentication::the_operators_token_opens_its_list_and_nothing_else"]),
    ("start: bodies outside the schema, none at all", &["sessions::a_body_outside_the_schema_writes_nothing", "face::bodies_are_json_or_refused_by_their_kind"]),
    ("start: a service with a ttl", &["sessions::a_body_outside_the_schema_writes_nothing"]),
    ("start twice under one key, defaults spelt out", &["idempotency::a_repeated_request_gets_the_first_answer_and_has_no_effect_of_its_own"]),
    ("the same key with other labels, metadata, subject", &["idempotency::a_different_request_under_the_key_is_refused_and_never_executed"]),
    ("the same key after the session ended or lapsed", &["idempotency::a_dead_result_is_never_replayed"]),
    ("a key of 256 bytes, an empty one, a blank before it", &["idempotency::keys_have_a_form_and_come_alone", "invocations::what_is_named_must_exist_and_a_session_must_be_a_task_at_work"]),
    ("at the cap: an old key, a new one", &["idempotency::only_explicit_keys_count_against_the_cap_and_replays_do_not", "invocations::explicit_keys_are_remembered_up_to_their_cap"]),
    ("a receipt under the previous digest key", &["idempotency::rotating_the_digest_key_loses_no_receipt"]),
    ("the eleventh child, and after one ended", &["sessions::ten_children_at_a_time_and_ten_levels_below_the_root"]),
    ("a parent at depth 10", &["sessions::ten_children_at_a_time_and_ten_levels_below_the_root"]),
    ("a zone full of suspended services", &["sessions::suspended_services_hold_their_slots_and_lapsed_tasks_do_not"]),
    ("a self-registered application: second session, service, with a parent, as a parent", &["sessions::a_self_registered_application_has_one_task_and_no_relatives"]),
    ("a child under a suspended or ended parent", &["sessions::a_child_needs_a_parent_at_work", "t04_state_suspension::a_suspended_session_starts_lends_and_receives_nothing"]),
    ("a child of another application, without and with `spawn_under`", &["sessions::a_child_under_another_applications_session_needs_the_scope_that_names_it", "inheritance::a_child_of_another_application_inherits_nothing"]),
    ("inheriting: never lent, lapsed, two live, a stale id, an id and `none`", &["inheritance::a_child_of_a_parent_that_was_lent_nothing_inherits_nothing", "inheritance::a_lapsed_ended_or_ambiguous_delegation_is_not_inherited_silently"]),
    ("an inherited edge", &["inheritance::an_inherited_edge_is_its_parents_in_everything"]),
];

/// What becomes of sessions and leases.
#[rustfmt::skip]
const LIVES: &[Row] = &[
    ("suspend a child, then its parent, resume the parent", &["t04_state_suspension::a_suspension_reaches_all_below_through_active_sessions_and_a_resumption_takes_it_all_back"]),
    ("suspend twice; suspend, resume, suspend", &["t04_state_suspension::each_way_goes_once_and_only_from_its_own_state", "t04_state_suspension::a_suspension_revokes_nothing_and_is_published_every_time"]),
    ("DELETE of a service: no generation, an old one, the right one, an admin without", &["termination::a_service_is_ended_by_the_holder_of_its_lease_or_an_admin"]),
    ("DELETE of what has ended; `?reason=`", &["termination::what_has_ended_is_not_found", "termination::a_reason_of_the_wrong_kind_is_refused_before_anything_else"]),
    ("lease twice, a heartbeat with the first generation", &["t04_state_leases::a_take_over_fences_off_whoever_held_the_lease"]),
    ("heartbeat: task, ended, suspended, without a generation, for an unknown service", &["t04_state_leases::tasks_and_ended_sessions_have_no_lease", "t04_state_leases::a_suspended_service_is_heard_and_stays_suspended", "t04_state_leases::a_heartbeat_of_the_wrong_shape_is_refused_and_nothing_is_renewed", "t04_state_leases::a_heartbeat_speaks_for_a_service_of_its_own_application"]),
    ("a heartbeat behind the deadline, before the sweeper", &["t04_state_leases::a_heartbeat_that_comes_too_late_finds_its_service_suspended_with_all_below"]),
    ("a heartbeat with a revoked user behind it", &["t04_state_leases::a_service_whose_user_is_gone_ends_at_its_next_heartbeat_with_all_below"]),
    ("a task of one second with a child of an hour", &["sweep::a_lapsed_task_expires_and_its_children_end_with_it"]),
    ("two sessions on one user's record (D15)", &["termination::a_users_record_ends_with_the_last_session_that_acts_for_the_user", "termination::descendants_end_with_their_ancestor_and_siblings_do_not"]),
];

/// Delegations, and what is read of them.
#[rustfmt::skip]
const DELEGATIONS: &[Row] = &[
    ("no expiry, constraints of the wrong kind, hops, resources, budget, dates", &["delegations::the_body_the_constraints_and_the_end_are_judged_in_that_order"]),
    ("an unknown key and bad `max_hops`", &["delegations::the_body_the_constraints_and_the_end_are_judged_in_that_order"]),
    ("to itself; broad without the scope and with it", &["delegations::the_body_the_constraints_and_the_end_are_judged_in_that_order", "delegations::lending_everything_needs_a_permission_of_its_own"]),
    ("an identifier as `resource_id`, replayed with the row's id", &["delegations::a_delegation_is_answered_with_all_it_lends", "idempotency::a_delegation_is_replayed_while_it_is_live"]),
    ("scopes of two resources, one foreign scope", &["delegations::named_resources_exist_agree_and_cover_the_scopes"]),
    ("a child in each dimension wider, and narrower", &["delegations::a_child_never_holds_more_than_its_parent"]),
    ("a parent without `max_hops`", &["delegations::a_parent_without_hops_is_lent_no_further"]),
    ("a parent with a budget of 1", &["delegations::a_budget_bounds_every_child_below"]),
    ("two live inbound edges: none named, a valid one, an unknown one", &["delegations::with_several_delegations_at_hand_the_one_to_narrow_is_named"]),
    ("A to B, B to C, then C to A", &["delegations::no_circle_is_ever_closed", "t04_state_races::two_edges_that_would_close_a_circle_together_are_not_both_made"]),
    ("an end in the past", &["delegations::a_delegation_ends_at_the_earliest_of_all_its_bounds"]),
    ("a ttl of 600 in the body and of 500 in the constraints", &["delegations::a_delegation_ends_at_the_earliest_of_all_its_bounds"]),
    ("the middle is revoked, twice, and by the receiver", &["revocation::everything_downstream_falls_and_the_source_goes_on", "revocation::only_the_issuer_or_an_admin_takes_back_and_unknown_comes_before_foreign", "delegation_graph::an_application_lends_to_another_which_lends_on_less_and_never_more"]),
    ("a diamond", &["revocation::in_a_diamond_each_edge_falls_once"]),
    ("traverse and impact with a runtime mandate", &["delegation_graph::how_delegations_hang_together_is_told_to_administrators_only"]),
    ("inbound list of a foreign session", &["delegation_lists::a_foreign_sessions_delegations_do_not_exist_for_the_caller"]),
    ("effective authority of two edges", &["delegation_graph::two_delegations_allow_together_only_what_both_allow"]),
];

/// Invocations, verification, messages, and whatever the request is about.
#[rustfmt::skip]
const REST: &[Row] = &[
    ("an invocation from a service session, and to its own source", &["invocations::what_is_named_must_exist_and_a_session_must_be_a_task_at_work"]),
    ("fails, is started again, meets its last deadline", &["invocations::a_failed_attempt_is_followed_by_another_until_none_is_left", "invocations::an_attempt_that_nobody_answers_fails_and_the_last_one_times_out"]),
    ("cancel: pending, running, failed, twice", &["invocations::what_is_pending_is_withdrawn_and_what_runs_is_asked_to_stop", "invocations::a_failed_attempt_is_followed_by_another_until_none_is_left"]),
    ("a replay above the rate limit", &["invocations::requests_are_counted_per_application_and_a_repetition_is_not"]),
    ("verify: what is no request, and what is no mandate", &["verification::a_request_that_is_none_says_so_and_every_refusal_says_valid_false"]),
    ("requeue: not dead, not an admin's", &["outbox::an_operator_lists_the_dead_of_a_zone_and_requeues_one_or_all", "outbox::t01_control_plane_nobody_else_sees_or_moves_them"]),
    ("a message that is given up, `/ready`, requeue (D27: an outage gives up nothing)", &["face::readiness_names_what_is_wrong_beside_the_store_and_dead_messages_first", "stream/tests/redis::a_message_that_the_stream_refuses_holds_nobody_back_and_ends_dead", "caracal/tests/replicas::a_message_that_was_given_up_is_seen_by_operators_and_sent_when_they_say_so"]),
    ("relay: a bad `_sig`, the same `outbox_id` twice", &["stream/tests/redis::t06_evidence_hostile_entries_are_counted_put_aside_once_and_never_acted_on"]),
    ("the audit store is down: change, read, refusal (W10: the change does not happen)", &["evidence::a_change_whose_record_cannot_be_written_does_not_happen_and_all_else_goes_on"]),
    ("Redis or PostgreSQL down (D7: 503 and not 500)", &["face::while_requests_cannot_be_counted_every_route_is_closed_but_those_that_only_take_away", "authentication::an_outage_of_keys_or_store_is_never_the_callers_fault", "caracal/tests/partitions::the_coordinator_loses_redis", "caracal/tests/partitions::the_coordinator_loses_the_database_and_nobody_says_so"]),
    ("U+0000 in any text; `parent_id` empty", &["face::a_nul_in_any_text_is_the_callers_mistake", "sessions::names_that_can_name_nothing_are_not_found"]),
    ("`Idempotency-Key` twice", &["idempotency::keys_have_a_form_and_come_alone"]),
    ("`__proto__`, text/plain, a form, JSON of nothing", &["face::bodies_are_json_or_refused_by_their_kind"]),
    ("an edge that has lapsed and was not swept", &["delegation_lists::a_list_is_paged_newest_first_and_shows_every_status", "delegation_lists::only_what_lends_now_is_active", "delegation_graph::a_traversal_is_a_bare_array_nearest_first_with_each_edge_once", "delegation_graph::two_delegations_allow_together_only_what_both_allow"]),
    ("resume below a suspended session", &["t04_state_suspension::a_resumption_does_not_prolong_a_task_and_looks_at_no_ancestor"]),
    ("a GET that fails behind authentication", &["evidence::every_failure_of_an_authenticated_caller_is_on_record_once"]),
    ("keys that cannot be read any more (D8: an outage, and nothing is believed on old ones)", &["authentication::an_outage_of_keys_or_store_is_never_the_callers_fault", "verification::an_outage_is_no_verdict"]),
];

#[test]
fn every_row_of_the_contract_has_its_tests() {
    // As many as the contract's table has, in its order.
    let rows = [SESSIONS, LIVES, DELEGATIONS, REST].concat();
    assert_eq!(unproved("coordinator/tests/coordinator", &rows, 65), Vec::<String>::new());
}
