//! The edge cases of the contract (gateway.md, "Edge cases worth a test"), row by row, and the tests that hold them. A row whose
//! test is renamed or removed fails here. Where the README's differences (D7 to D21) say otherwise than the row, the test holds
//! the difference.

use caracal_testkit::{Row, unproved};

#[rustfmt::skip]
const BEARER: &[Row] = &[
    ("no headers at all, snapshot stale", &["gateway::stale_revocation_state_refuses_everything_before_anything_else"]),
    ("Basic, no token, blanks, a tab", &["gateway::a_request_without_a_usable_bearer_is_refused", "gateway::only_the_first_line_with_the_scheme_and_one_space_is_a_bearer"]),
    ("BEARER and blanks around", &["gateway::the_scheme_has_no_case_and_blanks_do_not_count"]),
    ("two Authorization lines", &["gateway::a_request_without_a_usable_bearer_is_refused"]),
    ("4096 and 4097 bytes", &["gateway::a_bearer_that_is_no_mandate_is_refused"]),
    ("parts, padding, kinds of exp", &["gateway::a_bearer_that_is_no_mandate_is_refused"]),
    ("exp 34, 36, past", &["gateway::a_mandate_must_live_for_thirty_five_seconds_more"]),
    ("expiring and no resource", &["gateway::a_mandate_must_live_for_thirty_five_seconds_more"]),
    ("client-id header", &["gateway::routing_needs_a_resource_and_no_client_id"]),
    ("resource blank, twice", &["gateway::routing_needs_a_resource_and_no_client_id"]),
    ("zone_id malformed", &["gateway::zone_and_client_must_be_ids"]),
    ("traversal and bad signature", &["gateway::the_path_is_judged_before_the_signature"]),
    ("algorithms, kid, short or changed signature", &["gateway::only_an_es256_signature_of_a_key_of_the_zone_is_one"]),
    ("signed by zone B naming zone A", &["gateway::only_an_es256_signature_of_a_key_of_the_zone_is_one"]),
    ("JWKS unusable or away (D8)", &["gateway::keys_that_cannot_be_read_are_an_outage_and_not_a_bad_signature", "custody::an_outage_is_no_verdict_and_those_who_wait_do_not_ask_again", "custody::a_set_without_a_usable_key_keeps_no_older_one"]),
    ("same token twice, one fetch", &["custody::a_set_is_used_for_five_minutes_without_asking"]),
    ("unknown kid twice", &["custody::a_kid_that_is_in_no_set_is_asked_for_once_in_thirty_seconds"]),
    ("key rotated", &["custody::a_rotated_key_is_accepted_at_its_first_use_whatever_strangers_make_up"]),
];

#[rustfmt::skip]
const REPLAY_AND_REVOCATION: &[Row] = &[
    ("same mandate twice, fifty times on two replicas", &["gateway::the_second_presentation_is_refused_and_leaves_one_event", "gateway::of_fifty_presentations_at_two_gateways_exactly_one_passes", "caracal::a_mandate_is_used_once_whichever_gateway_it_is_shown_to"]),
    ("use=session twice", &["gateway::what_the_sts_calls_invalid_is_not_called_a_replay", "sts/tests/sts/gateway_exchange::only_a_gateway_mandate_of_this_zone_in_force_may_be_presented"]),
    ("refused by policy, then resent", &["gateway::a_denied_mandate_is_used_up"]),
    ("forged jti, then the genuine one", &["gateway::a_forged_token_uses_up_no_genuine_one"]),
    ("replay store down (D7, D8)", &["gateway::an_sts_that_could_not_decide_costs_no_mandate", "gateway::whatever_is_unavailable_nothing_is_forwarded"]),
    ("each anchor alone", &["gateway::each_anchor_alone_refuses_before_the_sts_is_asked"]),
    ("message with edge_id alone, three anchors, none, bad signature", &["gateway::each_anchor_alone_refuses_and_a_missing_claim_is_none", "gateway::one_message_may_mark_three_anchors_and_one_without_any_marks_nothing", "stream::t06_evidence_hostile_entries_are_counted_put_aside_once_and_never_acted_on", "caracal::forged_and_missed_revocations_are_counted_where_operators_look"]),
    ("a mark during the reading", &["gateway::a_reading_replaces_what_was_known_but_not_what_arrived_meanwhile"]),
    ("suspended, snapshot, resumed", &["gateway::a_suspension_blocks_here_then_at_the_sts_and_a_resume_lets_through"]),
    ("snapshot 69 s, 71 s, from the future", &["gateway::the_state_is_fresh_for_seventy_seconds_after_a_reading_and_never_from_the_future"]),
    ("revoke during SSE", &["gateway::a_stream_ends_in_order_and_with_the_trailer"]),
    ("revoke during a body of known length", &["gateway::a_body_of_known_length_breaks_off_short"]),
    ("revoke while the upstream is silent", &["caracal::a_revocation_ends_a_stream_whose_upstream_is_silent"]),
    ("stream outliving exp", &["gateway::neither_the_mandates_end_nor_stale_state_ends_a_running_stream"]),
];

#[rustfmt::skip]
const EXCHANGE_AND_CIRCUIT: &[Row] = &[
    ("STS 403, 429 with extras", &["gateway::a_refusal_of_the_sts_is_relayed_with_our_request_id", "gateway::other_answers_keep_status_code_text_and_time_to_wait_and_nothing_else"]),
    ("STS 302, 500, 503", &["gateway::other_answers_keep_status_code_text_and_time_to_wait_and_nothing_else", "gateway::every_trouble_of_a_remote_sts_has_its_answer_and_leaves_evidence"]),
    ("STS 200 of the wrong kind", &["gateway::nothing_malformed_grants_anything", "gateway::an_answer_without_the_resource_names_no_upstream", "gateway::an_answer_without_upstream_or_token_forwards_nothing"]),
    ("STS hangs, refuses", &["gateway::an_sts_that_hangs_costs_the_deadline_and_no_more", "gateway::an_sts_that_is_not_there_is_an_outage_in_which_nothing_was_used"]),
    ("three outages, later a 4xx, then one more", &["gateway::three_failures_in_a_row_open_it_for_ten_seconds", "gateway::denials_neither_count_nor_reset", "gateway::one_probe_at_a_time_decides"]),
    ("two outages, a success, two outages", &["gateway::a_success_forgets_two_outages"]),
    ("bearer resent after a fast-fail (D8: it was not used up)", &["gateway::after_three_outages_a_zone_is_turned_away_at_once_and_keeps_its_mandates"]),
    ("mandate for A, header B", &["sts/tests/sts/gateway_exchange::a_mandate_is_good_for_its_target_alone"]),
    ("the resource's internal id", &["gateway::an_answer_without_the_resource_names_no_upstream"]),
    ("operations", &["sts/tests/sts/gateway_exchange::an_undeclared_operation_is_refused_whatever_policy_says", "gateway::the_method_that_is_authorised_is_the_one_that_is_sent", "gateway::the_path_that_is_authorised_is_sent_byte_for_byte"]),
];

#[rustfmt::skip]
const GUARD_AND_PATH: &[Row] = &[
    ("directive URL of the wrong kind", &["gateway::only_absolute_urls_of_permitted_addresses_are_addressable"]),
    ("blocked addresses", &["gateway::only_absolute_urls_of_permitted_addresses_are_addressable", "http::some_addresses_are_never_admitted", "http::metadata_is_refused_in_every_spelling"]),
    ("permitted addresses (D9: with the operator's word)", &["http::private_addresses_need_their_exact_host_listed", "http::loopback_needs_development_or_its_host_listed"]),
    ("one public and one link-local address", &["http::a_bad_answer_among_good_ones_refuses_all_before_anything_is_dialled"]),
    ("public at check, link-local at connect", &["gateway::a_name_is_judged_at_every_connection_not_once", "http::a_name_is_resolved_once_and_the_address_that_was_judged_is_dialled"]),
    ("numeric spellings of hosts", &["http::targets_are_read_as_browsers_read_them", "http::metadata_is_refused_in_every_spelling"]),
    ("allow-list", &["gateway::an_allowlist_names_exact_hosts_without_port", "gateway::with_an_allowlist_only_its_exact_hosts_are_reached"]),
    ("allowed_token_hosts without the host", &["gateway::a_credential_is_sent_only_to_the_hosts_it_is_pinned_to"]),
    ("upstream redirects, Refresh", &["gateway::only_relative_targets_are_shown", "gateway::a_relative_target_is_shown_and_not_followed", "gateway::an_upstream_cannot_speak_as_the_gateway_nor_lead_away"]),
    ("unclean paths", &["gateway::unclean_paths_are_redirected_on_this_origin_and_cost_nothing"]),
    ("encoded dots, backslash, /100%25", &["gateway::whatever_still_means_something_else_is_refused"]),
    ("base path", &["gateway::base_path_and_fixed_query_are_the_operators"]),
    ("base query, client query, credential", &["gateway::a_caller_can_neither_supply_nor_override_a_credential_in_the_query", "gateway::the_operators_pairs_win_and_the_credential_replaces_all_of_its_name"]),
    ("`;` or a bad escape in the query", &["gateway::a_query_that_readers_read_differently_is_refused"]),
];

#[rustfmt::skip]
const HEADERS_BODY_RESPONSE: &[Row] = &[
    ("the caller sends what is ours", &["gateway::the_callers_bearer_and_everything_that_poses_as_ours_stays_here"]),
    ("Connection: X-Hop, Upgrade", &["gateway::names_on_every_connection_line_are_of_one_hop", "gateway::less_than_a_whole_handshake_goes_upstream_as_a_plain_request"]),
    ("Baggage", &["gateway::baggage_loses_what_poses_as_ours"]),
    ("TRUST_PROXY", &["gateway::a_trusted_proxy_says_where_the_caller_is", "gateway::a_trusted_proxy_is_believed_when_it_makes_sense"]),
    ("directive header reserved, auth_mode unknown", &["gateway::a_directive_that_would_misplace_a_credential_builds_no_request", "gateway::no_directive_puts_a_credential_where_it_must_not_be"]),
    ("mode none", &["gateway::each_mode_places_the_credential_where_the_contract_says"]),
    ("X-Request-Id", &["gateway::the_request_id_is_kept_when_it_is_one"]),
    ("traceparent", &["gateway::valid_parents_are_passed_on", "gateway::anything_else_is_replaced", "gateway::the_trace_goes_on_when_it_is_one"]),
    ("body over the limit", &["gateway::a_chunked_body_over_the_limit_is_refused_and_never_complete_upstream", "gateway::a_body_that_says_it_is_too_large_does_not_cost_the_mandate"]),
    ("POST with an empty body, GET, DELETE", &["gateway::a_request_without_a_body_has_none_upstream"]),
    ("SSE, three events", &["gateway::an_event_is_delivered_before_the_next_is_produced"]),
    ("SSE with gaps, a slow body of known length", &["gateway::an_upstream_that_falls_silent_is_cut", "gateway::a_known_length_has_to_make_progress_and_may_take_its_time_as_a_whole"]),
    ("SSE longer than READ_TIMEOUT", &["gateway::a_long_stream_outlives_the_time_for_reading_requests"]),
    ("no answer, garbage, late head", &["gateway::failures_of_the_upstream_are_told_apart_and_tried_once"]),
    ("upstream breaks mid-chunked (D10)", &["gateway::a_body_that_its_upstream_breaks_off_breaks_off_for_the_caller"]),
    ("upstream sends Server and the like", &["gateway::an_upstream_cannot_speak_as_the_gateway_or_of_itself"]),
    ("upstream speaks as we do", &["gateway::an_upstream_cannot_speak_as_the_gateway_nor_lead_away"]),
    ("204, 304, HEAD", &["gateway::responses_without_a_body_have_their_heads"]),
    ("client disconnects during SSE", &["gateway::a_caller_who_goes_away_cancels_the_upstream"]),
];

#[rustfmt::skip]
const OPERATIONS: &[Row] = &[
    ("POST and HEAD /health", &["gateway::health_answers_any_method_with_an_empty_200"]),
    ("GET reload", &["gateway::the_reload_route_does_not_exist_without_the_token"]),
    ("POST reload: token, none, wrong, database down", &["gateway::the_reload_route_does_not_exist_without_the_token"]),
    ("/metrics without or with a wrong bearer", &["gateway::metrics_are_closed_unless_the_bearer_is_exact"]),
    ("each readiness dependency in turn", &["gateway::readiness_names_the_first_thing_that_fails", "caracal::without_redis_nothing_is_granted_and_revocations_hold"]),
    ("one event lost", &["gateway::an_event_that_the_chain_refuses_is_lost_alone_and_the_process_is_never_ready_again"]),
    ("settings that refuse the start", &["caracal::a_process_of_one_role_may_be_told_its_port", "caracal::a_certificate_comes_with_its_key_and_operators_with_an_address", "caracal::times_need_a_unit_and_a_length_and_a_request_outlasts_its_parts", "caracal::weak_keys_stop_the_start_and_no_message_holds_one", "caracal::every_mistake_is_reported_at_once"]),
    ("http STS in stable", &["caracal::a_gateway_alone_is_told_where_an_sts_is_and_reaches_it_safely"]),
    ("database or Redis down at start", &["gateway::a_gateway_that_cannot_read_revocations_does_not_start", "store::what_is_wrong_is_said_with_what_to_do", "stream::what_is_wrong_with_a_server_is_said_with_what_to_do"]),
];

/// Smuggling and desync (the Gateway's own list), beside the contract's rows.
#[rustfmt::skip]
const DESYNC: &[Row] = &[
    ("both framings, several lengths, odd codings, obsolete folding, bare LF", &["gateway::what_could_be_framed_in_two_ways_reaches_nobody", "gateway::what_could_be_framed_in_two_ways_reaches_nobody_behind_a_good_call_either"]),
    ("the same in an answer", &["gateway::an_answer_that_is_framed_in_two_ways_is_read_in_one_or_refused"]),
    ("malformed chunks, both ways", &["gateway::a_body_whose_chunks_are_none_never_arrives_whole", "gateway::a_chunked_answer_whose_chunks_are_none_never_ends_in_order"]),
    ("underscore headers", &["gateway::headers_that_only_look_like_others_do_not_reach_who_could_mistake_them"]),
    ("hop-by-hop lists", &["gateway::names_on_every_connection_line_are_of_one_hop"]),
    ("bytes behind an answer", &["gateway::what_an_upstream_sends_behind_its_answer_reaches_no_other_caller", "gateway::an_answer_to_head_has_no_body_whatever_follows_it"]),
    ("callers and upstreams that lie about length", &["gateway::a_caller_who_sends_less_than_it_said_completes_nothing_upstream", "gateway::a_body_that_its_upstream_breaks_off_breaks_off_for_the_caller"]),
    ("upstreams that never answer", &["gateway::failures_of_the_upstream_are_told_apart_and_tried_once"]),
    ("floods of HTTP/2: heads without end, resets, empty bodies, heads that unpack, questions, no room", &[
        "caracal::a_head_that_never_ends_ends_its_connection",
        "caracal::requests_that_are_taken_back_at_once_end_their_connection",
        "gateway::calls_that_are_taken_back_while_they_are_decided_reach_no_upstream_and_cost_no_mandate",
        "http::a_caller_who_takes_back_most_of_what_it_asks_is_cut_off",
        "caracal::a_hundred_frames_of_a_body_may_hold_nothing_and_one_more_ends_the_connection",
        "caracal::a_head_that_unpacks_to_far_more_than_was_sent_reaches_nobody",
        "caracal::a_head_may_unpack_to_just_under_twenty_kib_and_a_byte_more_reaches_nobody",
        "caracal::after_two_hundred_and_fifty_six_streams_that_were_reset_for_what_they_said_the_next_ends_its_connection",
        "caracal::questions_without_end_are_answered_one_by_one",
        "caracal::questions_whose_answers_nobody_takes_end_their_connection",
        "caracal::answers_that_are_given_no_room_are_given_up_and_on_record",
        "http::a_stream_that_was_given_no_room_is_reset_when_it_is_given_up",
    ]),
    ("slow bodies and readers", &["gateway::a_slow_upload_is_given_up", "gateway::a_caller_who_takes_nothing_is_given_up", "gateway::a_head_that_does_not_come_and_an_idle_connection_are_given_up"]),
    ("header floods", &["gateway::a_flood_of_header_lines_is_refused_and_costs_no_mandate", "gateway::heads_that_name_no_host_or_several_or_are_too_large_are_refused", "gateway::a_head_without_bounds_is_given_up"]),
    ("compression bombs", &["gateway::a_compressed_body_is_passed_on_as_it_came"]),
    ("pipelining", &["gateway::one_connection_carries_many_calls_and_pipelined_ones_stay_in_order"]),
];

/// Requests forged through the Gateway, what a call may cost, and what nobody may read.
#[rustfmt::skip]
const REACH: &[Row] = &[
    ("every address family", &["http::registries_are_covered_completely", "http::what_lies_just_outside_a_range_is_public", "http::nothing_outside_global_unicast_is_public"]),
    ("every encoding of an address", &["http::metadata_is_refused_in_every_spelling", "http::an_address_in_the_uri_is_judged_without_any_resolver", "caracal::production_reaches_no_loopback_in_any_spelling_until_the_exact_host_is_admitted"]),
    ("transition prefixes", &["http::an_embedded_address_is_judged_like_itself"]),
    ("redirects", &["http::redirects_are_handed_back_and_not_followed", "gateway::an_upstream_cannot_speak_as_the_gateway_nor_lead_away"]),
    ("rebinding", &["gateway::a_name_is_judged_at_every_connection_not_once", "http::a_name_is_resolved_once_and_the_address_that_was_judged_is_dialled", "http::a_bad_answer_among_good_ones_refuses_all_before_anything_is_dialled"]),
    ("name servers that never answer", &[
        "gateway::a_name_server_that_never_answers_costs_the_resolvers_deadline_and_is_no_timeout_of_the_upstream",
        "http::a_name_server_that_never_answers_is_given_up_and_asked_no_more_by_who_comes_at_once",
        "http::names_of_one_domain_that_never_answers_leave_threads_for_others",
    ]),
    ("templates and escaped bytes (D18)", &["gateway::a_template_is_matched_with_the_very_bytes_that_go_upstream", "caracal::every_kind_of_credential_and_every_denial_is_the_same_from_both"]),
    ("slow readers, over both versions", &["gateway::a_caller_who_takes_nothing_is_given_up", "http::a_stream_of_which_nothing_is_taken_is_given_up"]),
    ("what a call costs", &[
        "caracal::a_call_costs_one_verification_one_mark_one_exchange_and_one_commit_before_it_goes_out",
        "caracal::on_a_server_a_call_costs_the_same_and_a_gateway_elsewhere_verifies_for_itself_and_spends_a_nonce",
    ]),
    ("each refusal has a name", &["gateway::each_refusal_is_counted_under_its_own_name", "gateway::a_refused_call_is_told_why_in_its_own_terms_and_others_in_the_contracts"]),
    ("no secret in answers, logs, evidence", &["gateway::neither_logs_nor_answers_nor_evidence_show_a_secret_however_a_call_ends", "gateway::a_call_leaves_one_event_with_everything_but_secrets"]),
];

#[test]
fn every_row_of_the_contract_has_its_tests() {
    let tables =
        [BEARER, REPLAY_AND_REVOCATION, EXCHANGE_AND_CIRCUIT, GUARD_AND_PATH, HEADERS_BODY_RESPONSE, OPERATIONS];
    for (table, rows_of_the_contract) in tables.into_iter().zip([18, 14, 10, 14, 19, 9]) {
        assert_eq!(unproved("gateway/tests/gateway", table, rows_of_the_contract), Vec::<String>::new());
    }
    assert_eq!(unproved("gateway/tests/gateway", DESYNC, 13), Vec::<String>::new());
    assert_eq!(unproved("gateway/tests/gateway", REACH, 11), Vec::<String>::new());
}
