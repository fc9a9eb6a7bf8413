//! The edge cases of the contract (audit-and-streams.md §13), row by row, and the tests that show them. What a row says of a
//! part that is another here (0054, D6, no partitions) is shown of ours.

use caracal_testkit::{Row, unproved};

const ROWS: &[Row] = &[
    (
        "Stream entry without `data`",
        &["ingest::what_is_forged_or_no_event_is_put_aside_with_its_reason_and_never_stored"],
    ),
    (
        "`data` = `{`; or `{\"id\":\"e\"}`",
        &[
            "ingest::what_is_forged_or_no_event_is_put_aside_with_its_reason_and_never_stored",
            "ledger/src/foreign::what_is_no_event_says_why",
        ],
    ),
    ("valid JSON, no event_type/decision", &["ingest::an_event_without_type_and_decision_is_stored"]),
    (
        "`\"decision\":5` or trailing bytes after the object",
        &[
            "ingest::what_is_forged_or_no_event_is_put_aside_with_its_reason_and_never_stored",
            "ledger/src/foreign::what_is_no_event_says_why",
        ],
    ),
    (
        "`sig` = `bad` with key; `sig` empty with key (there is always a key)",
        &[
            "ingest::what_is_forged_or_no_event_is_put_aside_with_its_reason_and_never_stored",
            "crypto/src/hmac::only_64_hex_digits_of_the_right_tag_verify",
        ],
    ),
    ("`sig` uppercase hex of the right MAC", &["ingest::a_signed_frame_becomes_one_event_however_often_it_comes"]),
    ("DLQ write fails for a parse failure", &["ingest::what_can_not_be_put_aside_is_kept_uncounted_until_it_can"]),
    (
        "deadline error at delivery 1 / at max",
        &[
            "ingest::an_event_is_there_once_wherever_its_reader_was_killed",
            "ingest::a_frame_that_nobody_came_to_an_end_with_is_put_aside_in_the_end",
        ],
    ),
    (
        "SQLSTATE 23505 at delivery 1",
        &["ingest::what_the_store_refuses_for_good_is_put_aside_and_can_be_offered_again"],
    ),
    ("same message twice", &["ingest::a_signed_frame_becomes_one_event_however_often_it_comes"]),
    (
        "same id+time, decision changed, valid sig",
        &["ingest::other_content_under_a_known_name_changes_nothing_and_is_an_incident"],
    ),
    (
        "same id, time differs below 1 microsecond",
        &["ingest::an_instant_that_differs_below_a_microsecond_or_in_its_offset_is_the_same"],
    ),
    (
        "occurred_at with +02:00 and 9 decimals",
        &[
            "ingest::an_instant_that_differs_below_a_microsecond_or_in_its_offset_is_the_same",
            "ledger/src/foreign::an_instant_has_any_offset_and_anything_else_is_none",
        ],
    ),
    (
        "JSON with unordered/duplicate keys, `1.0`, `1e3`, `<&>`, emoji",
        &[
            "ledger/tests/canonical::our_text_is_postgresqls_text",
            "ledger/tests/canonical::any_bytes_are_answered_and_canonical_text_is_its_own_canonical_text",
            "search::t06_evidence_an_archive_can_recompute_every_hash_link_and_seal_from_what_it_was_sent",
        ],
    ),
    (
        "strings and nested keys with NUL escapes",
        &[
            "ledger/src/foreign::nul_is_taken_out_and_an_escaped_backslash_survives",
            "ledger/tests/canonical::nul_is_removed_from_strings_and_keys_and_nothing_else_is",
        ],
    ),
    (
        "absent vs `null` policies",
        &[
            "ledger/src/foreign::t06_evidence_the_contracts_events_have_the_contracts_hashes",
            "ledger/tests/canonical::absent_and_null_are_one",
        ],
    ),
    (
        "change any of the 13 hashed fields",
        &[
            "ledger::every_changed_column_is_found_at_its_row",
            "ledger/tests/store::whichever_column_is_altered_the_event_is_named",
        ],
    ),
    (
        "two replicas ingest one zone concurrently",
        &[
            "ingest::replicas_make_one_chain_without_gaps",
            "ledger/tests/store::two_hundred_recorders_of_one_zone_make_one_chain_without_gaps",
        ],
    ),
    (
        "sweep over rows: good, then wrong hash + wrong prev + wrong HMAC",
        &["ledger::a_good_row_then_three_faults_count_one_each"],
    ),
    ("sweep query error", &["sweep::a_sweep_that_could_not_run_counts_nothing_and_clears_no_verdict"]),
    (
        "fresh install export with 2 events in last hour",
        &["export::a_fresh_archive_begins_with_the_last_hour_and_goes_on_by_the_hour"],
    ),
    ("watermark 2 h behind", &["export::a_fresh_archive_begins_with_the_last_hour_and_goes_on_by_the_hour"]),
    (
        "empty hour / 412 on PUT / query error",
        &[
            "export::a_fresh_archive_begins_with_the_last_hour_and_goes_on_by_the_hour",
            "export::an_object_of_somebody_else_is_left_alone",
            "export::what_can_t_be_read_is_an_error_and_moves_no_mark",
        ],
    ),
    (
        "retention override 10 with ceiling 30; 90 with 30; read error",
        &["retention::operators_can_only_shorten_it", "retention::what_they_set_and_can_t_be_read_leaves_the_ceiling"],
    ),
    (
        "partition list has `not_a_partition` (what goes, goes behind an anchor: no partitions)",
        &["retention::what_is_older_than_the_ceiling_goes_behind_an_anchor_and_the_rest_verifies"],
    ),
    (
        "lock connection lost while another replica waits",
        &["store/tests/postgres::one_process_at_a_time_does_a_job_and_another_takes_over"],
    ),
    ("search with limit=5000, cursor=3", &["search::pages_follow_the_chain_and_are_never_larger_than_a_thousand"]),
    ("search limit=bad, cursor=bad", &["search::what_can_t_be_read_falls_back_to_its_default"]),
    ("search wrong bearer without zone_id", &["access::the_token_is_asked_for_before_the_parameters"]),
    ("DLQ list limit=0", &["dead_letters::a_page_begins_with_the_entry_that_it_is_asked_for"]),
    (
        "DLQ replay of [missing_data_field, pg_permanent_error]",
        &["dead_letters::t06_evidence_what_is_offered_again_is_judged_as_if_it_came_for_the_first_time"],
    ),
    ("received_at `not-ms`, `-1`, empty", &["dead_letters::dead_letters_are_shown_with_what_can_be_read_of_them"]),
    (
        "`/metrics` published, no bearer configured",
        &["access::without_a_bearer_they_are_open_in_dev_and_closed_when_published"],
    ),
    (
        "PORT=8080; stable without AUDIT_HMAC_KEY; 31-byte key",
        &[
            "caracal/src/settings/tests/distributed::a_process_of_one_role_may_be_told_its_port",
            "caracal/src/settings/tests::on_servers_every_key_that_a_role_uses_has_to_be_given",
            "caracal/src/settings/tests::weak_keys_stop_the_start_and_no_message_holds_one",
        ],
    ),
    (
        "buffer capacity 2, 10 events, no flusher (0054: new calls wait, no event is lost)",
        &[
            "gateway/src/evidence/tests::new_calls_wait_while_too_much_waits_and_begun_ones_never_lose_their_event",
            "gateway/src/evidence/tests::what_waits_at_a_stop_goes_on_disk_and_is_lost_only_with_the_disk",
        ],
    ),
    (
        "replay dir removed while Redis is down (0054: the store)",
        &[
            "gateway/src/evidence/tests::what_waits_at_a_stop_goes_on_disk_and_is_lost_only_with_the_disk",
            "gateway/tests/gateway/evidence::an_event_that_the_chain_refuses_is_lost_alone_and_the_process_is_never_ready_again",
        ],
    ),
    (
        "replay file: bad line + good line",
        &[
            "gateway/src/evidence/tests::a_line_that_was_torn_or_forged_is_put_aside_and_keeps_no_other_from_its_chain",
            "gateway/src/evidence/tests::a_line_that_no_chain_takes_is_put_aside_as_it_is_and_keeps_no_other_from_its_chain",
        ],
    ),
    (
        "replay with sink error on first line",
        &[
            "gateway/src/evidence/tests::a_store_that_fails_in_the_middle_of_a_file_costs_and_doubles_nothing",
            "gateway/src/evidence/tests::a_process_that_is_killed_while_the_store_is_away_loses_no_event",
        ],
    ),
    (
        "outbox payload value null",
        &["coordinator/tests/coordinator/sessions::a_task_starts_with_the_contracts_defaults"],
    ),
    (
        "nested object in Coordinator payload",
        &["coordinator/tests/coordinator/retention::lapsed_delegations_expire_together_and_the_epoch_rises_once"],
    ),
    (
        "signature over fields plus an old `_sig`",
        &["stream/src/entry::a_payload_overrides_neither_id_nor_key_nor_signature"],
    ),
    (
        "same values, other stream name",
        &["crypto/src/hmac::the_signature_covers_the_stream_and_every_field_in_any_order"],
    ),
    (
        "revocation message with all five anchors, one repeated",
        &["gateway/src/revocation/tests::one_message_may_mark_three_anchors_and_one_without_any_marks_nothing"],
    ),
    (
        "only `reason` present, valid sig",
        &["stream/tests/redis::t06_evidence_hostile_entries_are_counted_put_aside_once_and_never_acted_on"],
    ),
    (
        "epoch 9 then 4; 4 and 9 concurrently; `not-a-number`; -1 (what is published only rises)",
        &["coordinator/tests/coordinator/revocation::the_epoch_rises_by_one_with_each_shrinking_and_never_otherwise"],
    ),
    (
        "Redis down during is-revoked / epoch lookup",
        &["caracal/tests/replicas::without_redis_nothing_is_granted_and_revocations_hold"],
    ),
    ("empty anchor", &["gateway/src/revocation/tests::each_anchor_alone_refuses_and_a_missing_claim_is_none"]),
    (
        "Gateway: mark during snapshot read",
        &["gateway/src/revocation/tests::a_reading_replaces_what_was_known_but_not_what_arrived_meanwhile"],
    ),
    (
        "Gateway: Session suspended then resumed, no marks meanwhile",
        &["gateway::a_suspension_blocks_here_then_at_the_sts_and_a_resume_lets_through"],
    ),
    (
        "Gateway: 5 failures on a poison message; dead-letter fails (D6: it follows without a group)",
        &[
            "stream/tests/redis::t06_evidence_hostile_entries_are_counted_put_aside_once_and_never_acted_on",
            "caracal/tests/topics::t07_streams_dead_letters_on_a_server_are_listed_and_tried_again",
        ],
    ),
    (
        "KEK hex of 00.., aa.., 00..1f, 1f..00, aa55 repeated, 31 bytes",
        &["crypto/src/envelope::a_weak_kek_is_refused_with_its_reason"],
    ),
    (
        "envelope sealed with previous KEK, previous removed",
        &[
            "crypto/src/envelope::envelopes_of_the_previous_kek_open_only_while_it_is_kept",
            "crypto/src/envelope::an_envelope_says_which_kek_it_needs",
        ],
    ),
    ("empty plaintext", &["crypto/src/envelope::an_empty_value_makes_the_shortest_envelope"]),
    (
        "CARACAL_SECRET_BACKEND `  Vault `, ``, `consul`",
        &[
            "caracal/src/settings/tests/backends::t05_secrets_a_backend_that_has_what_it_needs_is_read_in_any_spelling_of_its_name_and_no_other",
        ],
    ),
    (
        "http backend URL on a routable host / localhost",
        &["broker/tests/broker/backends::a_backend_is_reached_over_tls_or_on_loopback"],
    ),
    (
        "backend error after cached value, within / beyond 10 min of expiry",
        &[
            "broker/tests/broker/backends::t08_availability_what_was_read_counts_for_a_minute_and_through_an_outage_for_ten",
        ],
    ),
    (
        "by-request explain with allow events only",
        &["admin/tests/it/audit::an_explanation_names_the_cause_and_the_input_to_try_again"],
    ),
    ("CSV subject `=HYPERLINK(\"x\")`", &["admin/src/audit/csv::t05_secrets_no_cell_is_a_formula"]),
    (
        "`fields=metadata_json`",
        &["admin/tests/it/audit::t05_secrets_metadata_is_redacted_at_any_depth_wherever_it_is_shown"],
    ),
    (
        "Admin mutation succeeds, audit insert fails",
        &["admin/tests/it/evidence::a_change_whose_record_can_t_be_written_does_not_happen"],
    ),
    (
        "log line with `https://h/p?api_key=sk-live-abc123def456`",
        &[
            "http/src/redact::secrets_are_masked_by_what_they_look_like",
            "http/src/redact::ordinary_text_is_left_alone_and_not_copied",
            "http/src/redact::a_json_line_stays_json",
        ],
    ),
    (
        "webhook body altered or timestamp changed",
        &[
            "admin/tests/it/notifications::what_is_sent_is_signed_over_its_time_and_every_byte_of_it",
            "crypto/src/hmac::webhook_signatures_match_the_contract",
        ],
    ),
];

#[test]
fn every_row_of_the_contract_has_its_tests() {
    assert_eq!(unproved("audit/tests/audit", ROWS, 62), Vec::<String>::new());
}
