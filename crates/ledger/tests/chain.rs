//! The chain against whoever can write to the store: every change shows, and an honest chain never looks broken.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::collections::BTreeMap;

use caracal_authority::{EventId, PolicySetId, PolicySetVersionId, Timestamp, ZoneId};
use caracal_ledger::verify::{MAX_FINDINGS, chains_to_verify, holds_recorded};
use caracal_ledger::{
    AdminRecord, AdminVerifier, Chain, ChainKey, ChainRecord, ChainReport, Decision, EvaluationStatus, EventType,
    Evidence, Head, LedgerReport, MetadataKey, Problem, StoredAdminRecord, StoredEvent, StoredRow, ZoneVerifier,
    next_link,
};
use proptest::prelude::*;
use ring::hmac;
use serde_json::json;

type EventRow = StoredRow<StoredEvent>;

fn key() -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &[7; 32])
}

fn zone() -> ZoneId {
    ZoneId::parse("z-1").unwrap()
}

fn event(number: usize) -> StoredEvent {
    let id = EventId::parse(&format!("ev-{number}")).unwrap();
    let at = Timestamp::from_micros(1_767_323_045_123_456 + number as i64);
    Evidence::new(id, zone(), EventType::TokenExchange, Decision::Allow, EvaluationStatus::Complete, at)
        .request(format!("req-{number}"))
        .under_policy(
            Some(PolicySetId::parse("set-1").unwrap()),
            Some(PolicySetVersionId::parse("version-1").unwrap()),
            Some("00ff".to_owned()),
        )
        .determined_by("p1")
        .because("ok")
        .attribute(MetadataKey::Resource, "resource://api")
        .to_stored()
        .unwrap()
}

fn linked<R: ChainRecord>(key: Option<&dyn ChainKey>, records: impl IntoIterator<Item = R>) -> Vec<StoredRow<R>> {
    let mut head: Option<Head> = None;
    let mut rows = Vec::new();
    for record in records {
        let link = next_link(key, head.as_ref(), &record);
        head = Some(link.head());
        rows.push(StoredRow { record, link, key_id: key.and_then(|key| key.id(0)) });
    }
    rows
}

fn chain_of(events: usize) -> Vec<EventRow> {
    linked(Some(&key()), (1..=events).map(event))
}

fn head_of(rows: &[EventRow]) -> Option<Head> {
    rows.last().map(|row| row.link.head())
}

fn verify(rows: &[EventRow], recorded: Option<Head>) -> ChainReport {
    let key = key();
    let mut verifier = ZoneVerifier::new(zone(), Some(&key), recorded);
    for row in rows {
        verifier.next(row);
    }
    verifier.finish()
}

fn problems(report: &ChainReport) -> Vec<(Option<i64>, Problem)> {
    report.findings.iter().map(|finding| (finding.chain_seq, finding.problem.clone())).collect()
}

/// Every column of an evidence row, as text that can be changed.
fn columns(row: &mut EventRow) -> Vec<(&'static str, &mut String)> {
    let record = &mut row.record;
    let mut columns = vec![
        ("id", &mut record.id),
        ("zone_id", &mut record.zone_id),
        ("event_type", &mut record.event_type),
        ("request_id", &mut record.request_id),
        ("decision", &mut record.decision),
        ("policy_set_id", &mut record.policy_set_id),
        ("policy_set_version_id", &mut record.policy_set_version_id),
        ("manifest_sha", &mut record.manifest_sha),
        ("evaluation_status", &mut record.evaluation_status),
        ("determining_policies_json", &mut record.determining_policies),
        ("diagnostics_json", &mut record.diagnostics),
        ("metadata_json", &mut record.metadata),
        ("content_sha256", &mut row.link.content_sha256),
        ("chain_hmac", &mut row.link.chain_hmac),
    ];
    columns.extend(row.link.prev_content_sha256.as_mut().map(|prev| ("prev_content_sha256", prev)));
    columns
}

mod t06_evidence {
    use super::*;

    #[test]
    fn an_honest_chain_of_any_length_verifies() {
        for length in [0, 1, 2, 3, 50] {
            let rows = chain_of(length);
            for recorded in [None, head_of(&rows[..length / 2]), head_of(&rows)] {
                let report = verify(&rows, recorded);
                assert!(report.is_intact(), "{length}: {report}");
                assert_eq!(report.rows, length as u64);
                assert_eq!(report.head, head_of(&rows));
            }
        }
    }

    #[test]
    fn every_changed_column_is_found_at_its_row() {
        let honest = chain_of(3);
        let count = columns(&mut honest[1].clone()).len();
        assert_eq!(count, 15);
        for at in 0..count {
            for change in [
                |text: &mut String| text.push('x'),
                |text: &mut String| text.clear(),
                |text: &mut String| {
                    let upper = text.to_uppercase();
                    *text = if upper == *text { text.to_lowercase() } else { upper };
                },
            ] {
                let mut rows = honest.clone();
                let name = {
                    let mut columns = columns(&mut rows[1]);
                    change(columns[at].1);
                    columns[at].0
                };
                if rows == honest {
                    continue;
                }
                let report = verify(&rows, None);
                let first = report.first().unwrap_or_else(|| panic!("changed {name} unseen"));
                assert_eq!(first.chain_seq, Some(2), "{name}: {report}");
                assert_eq!(first.event_id.as_deref(), Some(rows[1].record.id.as_str()), "{name}");
            }
        }
    }

    #[test]
    fn a_changed_instant_number_or_first_link_is_found() {
        let honest = chain_of(3);
        type Change = fn(&mut [EventRow]);
        let changes: [(&str, Change); 7] = [
            ("a later instant", |rows| rows[1].record.occurred_at_micros += 1),
            ("an instant that would be clamped", |rows| rows[1].record.occurred_at_micros = -1),
            ("a higher number", |rows| rows[1].link.chain_seq = 9),
            ("a lower number", |rows| rows[1].link.chain_seq = 0),
            ("a first row with a predecessor", |rows| rows[0].link.prev_content_sha256 = Some("0".repeat(64))),
            ("an empty predecessor of the first row", |rows| rows[0].link.prev_content_sha256 = Some(String::new())),
            ("a later row without predecessor", |rows| rows[1].link.prev_content_sha256 = None),
        ];
        for (name, change) in changes {
            let mut rows = honest.clone();
            change(&mut rows);
            assert!(!verify(&rows, None).is_intact(), "{name}");
        }
    }

    #[test]
    fn each_change_is_called_what_it_is() {
        let mut rows = chain_of(3);
        rows[1].record.decision = "deny".to_owned();
        assert_eq!(problems(&verify(&rows, None)), [(Some(2), Problem::ContentMismatch)]);

        // Repairing the hash moves the break to the seal and to the next link.
        rows[1].link.content_sha256 = rows[1].record.content_sha256();
        assert_eq!(problems(&verify(&rows, None)), [(Some(2), Problem::WrongHmac), (Some(3), Problem::BrokenLink)]);

        let mut rows = chain_of(3);
        rows.remove(1);
        assert_eq!(problems(&verify(&rows, None)), [(Some(3), Problem::SequenceGap { expected: 2, found: 3 })]);

        let mut rows = chain_of(3);
        rows.remove(0);
        assert_eq!(problems(&verify(&rows, None)), [(Some(2), Problem::SequenceGap { expected: 1, found: 2 })]);

        let mut rows = chain_of(2);
        rows[0].link.chain_hmac.clear();
        assert_eq!(problems(&verify(&rows, None)), [(Some(1), Problem::WrongHmac)]);

        let mut rows = chain_of(2);
        rows[1].record.zone_id = "z-2".to_owned();
        rows[1].link.content_sha256 = rows[1].record.content_sha256();
        let wrong_zone = Problem::WrongZone { found: Some("z-2".to_owned()) };
        assert_eq!(problems(&verify(&rows, None))[0], (Some(2), wrong_zone));
    }

    #[test]
    fn a_good_row_then_three_faults_count_one_each() {
        let mut rows = chain_of(2);
        rows[1].link.content_sha256 = "0".repeat(64);
        rows[1].link.prev_content_sha256 = Some("1".repeat(64));
        rows[1].link.chain_hmac = "2".repeat(64);
        let report = verify(&rows, None);
        assert_eq!(report.rows, 2);
        assert_eq!(
            problems(&report),
            [(Some(2), Problem::ContentMismatch), (Some(2), Problem::BrokenLink), (Some(2), Problem::WrongHmac)]
        );
    }

    #[test]
    fn a_cut_tail_shows_against_the_recorded_head() {
        let rows = chain_of(5);
        let recorded = head_of(&rows);
        assert!(verify(&rows[..3], None).is_intact(), "without a recorded head a shorter chain is a chain");
        assert_eq!(
            problems(&verify(&rows[..3], recorded.clone())),
            [(None, Problem::TailCut { recorded: 5, found: 3 })]
        );
        assert_eq!(problems(&verify(&[], recorded)), [(None, Problem::TailCut { recorded: 5, found: 0 })]);
    }

    #[test]
    fn a_chain_rewritten_with_the_key_shows_against_the_recorded_head() {
        let recorded = head_of(&chain_of(3));
        let rewritten = linked(Some(&key()), (11..=15).map(event));
        assert!(verify(&rewritten, None).is_intact());
        assert_eq!(problems(&verify(&rewritten, recorded.clone())), [(Some(3), Problem::HeadMismatch { recorded: 3 })]);
        let report = verify(&rewritten, recorded);
        assert_eq!(report.first().unwrap().event_id.as_deref(), Some("ev-13"));
    }

    #[test]
    fn without_the_key_a_rewritten_chain_has_wrong_seals_from_its_first_row() {
        let other = hmac::Key::new(hmac::HMAC_SHA256, &[8; 32]);
        let mut as_ours = linked(Some(&other), (1..=2).map(event));
        as_ours.iter_mut().for_each(|row| row.key_id = key().id(0));
        for forged in [as_ours, linked(None, (1..=2).map(event))] {
            assert_eq!(
                problems(&verify(&forged, None)),
                [(Some(1), Problem::WrongHmac), (Some(2), Problem::WrongHmac)]
            );
        }
        let theirs = verify(&linked(Some(&other), (1..=2).map(event)), None);
        let unknown = || Problem::UnknownKey { key_id: other.id(0).unwrap() };
        assert_eq!(problems(&theirs), [(Some(1), unknown()), (Some(2), unknown())]);
    }

    #[test]
    fn fields_cannot_be_split_differently_under_one_hash() {
        let mut event = event(1);
        event.event_type = "a".to_owned();
        event.request_id = "b\u{1f}c".to_owned();
        let (honest_hash, key) = (event.content_sha256(), key());
        event.event_type = "a\u{1f}b".to_owned();
        event.request_id = "c".to_owned();
        assert_eq!(event.content_sha256(), honest_hash, "the contract's hash alone cannot tell");
        let rows = linked(Some(&key), [event]);
        let report = verify(&rows, None);
        assert!(
            matches!(&report.first().unwrap().problem, Problem::UnreadableRow { reason } if reason.contains("event_type"))
        );
    }

    #[test]
    fn an_unreadable_row_breaks_the_chain_once_and_the_rest_is_still_checked() {
        let rows = chain_of(4);
        let key = key();
        let mut verifier = ZoneVerifier::new(zone(), Some(&key), head_of(&rows));
        verifier.next(&rows[0]);
        verifier.next_unreadable(Some(2), Some("ev-2"), "occurred_at is not a number");
        verifier.next(&rows[2]);
        let mut changed = rows[3].clone();
        changed.record.metadata.push(' ');
        verifier.next(&changed);
        let report = verifier.finish();
        assert_eq!(
            problems(&report),
            [
                (Some(2), Problem::UnreadableRow { reason: "occurred_at is not a number".to_owned() }),
                (Some(4), Problem::ContentMismatch)
            ]
        );
        assert_eq!(report.rows, 4);
    }

    #[test]
    fn a_pass_can_resume_behind_a_checkpoint() {
        let rows = chain_of(6);
        let key = key();
        let resume = |checkpoint: &EventRow, rows: &[EventRow], recorded| {
            let mut verifier = ZoneVerifier::new(zone(), Some(&key), recorded).resuming_behind(checkpoint.link.head());
            rows.iter().for_each(|row| verifier.next(row));
            verifier.finish()
        };
        assert!(resume(&rows[2], &rows[3..], head_of(&rows)).is_intact());
        assert!(resume(&rows[5], &[], head_of(&rows)).is_intact());
        assert!(!resume(&rows[2], &rows[4..], None).is_intact(), "a row is missing behind the checkpoint");
        assert!(!resume(&rows[2], &rows[3..5], head_of(&rows)).is_intact(), "the tail is cut");
        let other = linked(Some(&key), (11..=16).map(event));
        assert!(!resume(&other[2], &rows[3..], None).is_intact(), "the checkpoint is of another history");
        assert!(!resume(&other[2], &other[3..], head_of(&rows[..3])).is_intact(), "it differs from what was recorded");
    }

    #[test]
    fn a_chain_whose_rows_are_all_gone_is_still_to_be_verified() {
        let rows = chain_of(2);
        let recorded: BTreeMap<_, _> = [(Chain::Evidence(zone()), head_of(&rows).unwrap())].into();
        let other = Chain::Admin(None);
        let chains = chains_to_verify([other.clone()], &recorded);
        assert!(chains.contains(&other) && chains.contains(&Chain::Evidence(zone())));
    }

    #[test]
    fn one_look_at_the_recorded_row_tells_an_older_store() {
        let rows = chain_of(3);
        let recorded = head_of(&rows[..2]).unwrap();
        let hash = recorded.content_sha256.as_str();
        assert_eq!(holds_recorded(&recorded, Some(hash), 3), Ok(()));
        assert_eq!(holds_recorded(&recorded, Some(hash), 2), Ok(()));
        assert_eq!(holds_recorded(&recorded, None, 1), Err(Problem::TailCut { recorded: 2, found: 1 }));
        assert_eq!(holds_recorded(&recorded, None, 0), Err(Problem::TailCut { recorded: 2, found: 0 }));
        assert_eq!(holds_recorded(&recorded, None, 3), Err(Problem::SequenceGap { expected: 2, found: 3 }));
        assert_eq!(holds_recorded(&recorded, Some("x"), 3), Err(Problem::HeadMismatch { recorded: 2 }));
    }

    #[test]
    fn a_chain_broken_everywhere_does_not_fill_memory() {
        let rows = linked(None, (1..=MAX_FINDINGS + 5).map(event));
        let report = verify(&rows, None);
        assert_eq!(report.findings.len(), MAX_FINDINGS);
        assert_eq!(report.findings_total, MAX_FINDINGS as u64 + 5);
        assert!(report.to_string().ends_with("- and 5 more"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        /// One change of any row, column and character, whoever the row belongs to.
        #[test]
        fn any_changed_character_is_found(
            length in 1_usize..8, row in any::<prop::sample::Index>(), column in any::<prop::sample::Index>(),
            place in any::<prop::sample::Index>(), with in any::<char>(),
        ) {
            let honest = chain_of(length);
            let mut rows = honest.clone();
            let row = row.index(length);
            {
                let mut columns = columns(&mut rows[row]);
                let at = column.index(columns.len());
                let mut characters: Vec<char> = columns[at].1.chars().collect();
                let place = place.index(characters.len());
                characters[place] = with;
                *columns[at].1 = characters.into_iter().collect();
            }
            let report = verify(&rows, head_of(&honest));
            prop_assert_eq!(report.is_intact(), rows == honest);
            if let Some(first) = report.first() {
                prop_assert_eq!(first.chain_seq, Some(row as i64 + 1));
            }
        }

        /// Rows removed, repeated, moved or cut off, with or without new numbers.
        #[test]
        fn any_other_selection_of_rows_is_found(
            length in 1_usize..7, picks in prop::collection::vec(any::<prop::sample::Index>(), 0..8), renumber in any::<bool>(),
        ) {
            let honest = chain_of(length);
            let mut rows: Vec<_> = picks.iter().map(|pick| honest[pick.index(length)].clone()).collect();
            if renumber {
                for (seq, row) in (1..).zip(&mut rows) {
                    row.link.chain_seq = seq;
                }
            }
            prop_assert_eq!(verify(&rows, head_of(&honest)).is_intact(), rows == honest);
        }
    }
}

mod t06_evidence_admin {
    use super::*;

    fn record(number: i64, zone: Option<&str>) -> AdminRecord {
        AdminRecord {
            id: format!("id-{number}"),
            request_id: "req-1".to_owned(),
            actor_id: Some("tok-1".to_owned()),
            actor_name: Some("bootstrap".to_owned()),
            actor_scope: Some("global".to_owned()),
            action: "DELETE /v1/zones/z1/providers/p1".to_owned(),
            method: "DELETE".to_owned(),
            path: "/v1/zones/z1/providers/p1".to_owned(),
            zone: zone.map(|zone| ZoneId::parse(zone).unwrap()),
            entity_type: Some("providers".to_owned()),
            entity_id: Some("p1".to_owned()),
            status_code: 204,
            payload: json!({"rls_zone_guc": "*", "change_kind": "delete", "changed_fields": []}).as_object().cloned(),
            occurred_at: Timestamp::from_micros(1_767_225_600_000_000 + number),
        }
    }

    fn stored(number: i64, zone: Option<&str>) -> StoredAdminRecord {
        record(number, zone).to_stored().unwrap()
    }

    fn verify_admin(zone: Option<&str>, rows: &[StoredRow<StoredAdminRecord>]) -> ChainReport {
        let key = key();
        let mut verifier = AdminVerifier::new(zone.map(|zone| ZoneId::parse(zone).unwrap()), Some(&key), None);
        rows.iter().for_each(|row| verifier.next(row));
        verifier.finish()
    }

    #[test]
    fn the_management_apis_vector_holds() {
        let record = StoredAdminRecord {
            payload_json: Some(
                r#"{"rls_mode":"control_plane_wildcard","rls_zone_guc":"*","change_kind":"delete","changed_fields":[]}"#
                    .to_owned(),
            ),
            occurred_at_micros: Timestamp::parse("2026-01-01T00:00:00.000Z").unwrap().as_micros(),
            ..stored(1, Some("z1"))
        };
        let link = next_link(Some(&key()), None, &record);
        assert_eq!(link.content_sha256, "9ad609dc0a5811971b132bd1eb6f54bce1880b964192f086b85c463aa51e9427");
        assert_eq!(link.chain_hmac, "5f24450b4f135c307edf73099b9170e533cdcf6479a577c2517fe4ee904dffb3");
    }

    #[test]
    fn the_coordinators_vector_holds() {
        let record = AdminRecord {
            id: "id-1".to_owned(),
            request_id: "req-1".to_owned(),
            actor_id: Some("app-1".to_owned()),
            actor_name: Some("app-1".to_owned()),
            actor_scope: Some("agent:lifecycle".to_owned()),
            action: "POST /zones/z-1/agents".to_owned(),
            method: "POST".to_owned(),
            path: "/zones/z-1/agents".to_owned(),
            zone: Some(ZoneId::parse("z-1").unwrap()),
            entity_type: None,
            entity_id: None,
            status_code: 201,
            payload: None,
            occurred_at: Timestamp::parse("2026-01-02T03:04:05.678999Z").unwrap(),
        };
        let bytes: Vec<u8> = (0..32).collect();
        let key = hmac::Key::new(hmac::HMAC_SHA256, &bytes);
        let link = next_link(Some(&key), None, &record.to_stored().unwrap());
        assert_eq!(link.content_sha256, "f25ee2416eb8b88d0307b550b95303be1c01de6c2cd6de8bfe2eb4118a0a0df1");
        assert_eq!(link.chain_hmac, "c79d5af0cb50b9610833b8f5e20e79ec5bc443d4dbc678505b828793c4c00e53");
    }

    #[test]
    fn a_record_verifies_from_what_is_stored() {
        let stored = stored(1_999, None);
        assert_eq!(
            stored.payload_json.as_deref(),
            Some(r#"{"change_kind": "delete", "rls_zone_guc": "*", "changed_fields": []}"#)
        );
        assert_eq!(stored.occurred_at_micros, 1_767_225_600_001_000, "milliseconds, as under the hash");
        let rows = linked(Some(&key()), [stored, super::t06_evidence_admin::stored(2, None)]);
        assert!(verify_admin(None, &rows).is_intact());
        assert!(!verify_admin(Some("z1"), &rows).is_intact(), "the chain without zone is not a zone's");
    }

    #[test]
    fn empty_texts_are_absent_and_nul_and_separators_are_gone() {
        let mut record = record(1, None);
        record.actor_name = Some("\0\u{1f}".to_owned());
        record.path = "/v1/\0zones\u{1f}".to_owned();
        let stored = record.to_stored().unwrap();
        assert_eq!(stored.actor_name, None);
        assert_eq!(stored.path, "/v1/zones");
        assert!(verify_admin(None, &linked(Some(&key()), [stored])).is_intact());
    }

    #[test]
    fn every_changed_column_is_found_at_its_row() {
        let honest = linked(Some(&key()), (1..=3).map(|number| stored(number, Some("z1"))));
        assert!(verify_admin(Some("z1"), &honest).is_intact());
        type Change = fn(&mut StoredAdminRecord);
        let changes: [(&str, Change); 25] = [
            ("id", |record| record.id.push('x')),
            ("request_id", |record| record.request_id.push('x')),
            ("actor_id", |record| record.actor_id = Some("other".to_owned())),
            ("actor_id removed", |record| record.actor_id = None),
            ("actor_id emptied", |record| record.actor_id = Some(String::new())),
            ("actor_name", |record| record.actor_name = Some("other".to_owned())),
            ("actor_name removed", |record| record.actor_name = None),
            ("actor_scope", |record| record.actor_scope = Some("other".to_owned())),
            ("actor_scope removed", |record| record.actor_scope = None),
            ("action", |record| record.action.push('x')),
            ("method", |record| record.method.push('x')),
            ("path", |record| record.path.push('x')),
            ("zone_id", |record| record.zone_id = Some("z2".to_owned())),
            ("zone_id removed", |record| record.zone_id = None),
            ("entity_type", |record| record.entity_type = Some("zones".to_owned())),
            ("entity_type removed", |record| record.entity_type = None),
            ("entity_id", |record| record.entity_id = Some("p2".to_owned())),
            ("entity_id removed", |record| record.entity_id = None),
            ("status_code", |record| record.status_code = 200),
            ("negative status_code", |record| record.status_code = -204),
            ("payload", |record| record.payload_json = Some("{}".to_owned())),
            ("payload spacing", |record| record.payload_json.as_mut().unwrap().push(' ')),
            ("payload removed", |record| record.payload_json = None),
            ("a millisecond", |record| record.occurred_at_micros += 1_000),
            ("a microsecond", |record| record.occurred_at_micros += 1),
        ];
        for (name, change) in changes {
            let mut rows = honest.clone();
            change(&mut rows[1].record);
            let report = verify_admin(Some("z1"), &rows);
            assert_eq!(report.first().map(|first| first.chain_seq), Some(Some(2)), "{name}: {report}");
        }
    }

    #[test]
    fn an_absent_text_cannot_become_an_empty_one() {
        let bare = AdminRecord { actor_id: None, entity_id: None, payload: None, ..record(1, None) };
        let rows = linked(Some(&key()), [bare.to_stored().unwrap()]);
        type Change = fn(&mut StoredAdminRecord);
        let changes: [Change; 4] = [
            |record| record.actor_id = Some(String::new()),
            |record| record.entity_id = Some(String::new()),
            |record| record.payload_json = Some(String::new()),
            |record| record.zone_id = Some(String::new()),
        ];
        for change in changes {
            let mut rows = rows.clone();
            change(&mut rows[0].record);
            assert!(!verify_admin(None, &rows).is_intact());
        }
        assert!(verify_admin(None, &rows).is_intact());
    }
}

#[test]
fn a_report_names_the_first_broken_event_to_people_and_programs() {
    let mut rows = chain_of(3);
    rows[1].record.decision = "deny".to_owned();
    let broken = verify(&rows, head_of(&rows));
    assert_eq!(
        broken.to_string(),
        "evidence chain of zone z-1: BROKEN at event ev-2 (seq 2): the stored columns do not match their content hash"
    );
    let key = key();
    let empty = AdminVerifier::new(None, Some(&key), None).finish();
    let unsealed = ZoneVerifier::new(zone(), None, None).finish();
    assert_eq!(unsealed.to_string(), "evidence chain of zone z-1: 0 events verify (seals not checked: no audit key)");
    let ledger = LedgerReport { chains: vec![empty, broken] };
    assert!(!ledger.is_intact());
    assert!(ledger.to_string().starts_with("admin chain without zone: 0 events verify\nevidence chain"));
    assert!(ledger.to_string().ends_with("\nledger BROKEN: 1 of 2 chains, 3 events"));

    let head = serde_json::to_value(head_of(&rows)).unwrap();
    let finding = json!({"chain_seq": 2, "event_id": "ev-2", "problem": "content_mismatch"});
    assert_eq!(
        serde_json::to_value(&ledger).unwrap(),
        json!({
            "intact": false,
            "events": 3,
            "first_broken":
                {"chain": "evidence", "zone_id": "z-1", "chain_seq": 2, "event_id": "ev-2", "problem": "content_mismatch"},
            "chains": [
                {"chain": "admin", "zone_id": null, "intact": true, "events": 0, "head": null, "recorded_head": null,
                 "seals_checked": true, "first_broken": null, "findings_total": 0, "findings": []},
                {"chain": "evidence", "zone_id": "z-1", "intact": false, "events": 3, "head": head, "recorded_head": head,
                 "seals_checked": true, "first_broken": finding, "findings_total": 1, "findings": [finding]},
            ],
        })
    );
}

#[test]
fn what_was_tampered_with_cannot_steer_a_terminal() {
    let mut rows = chain_of(1);
    rows[0].record.id = "\u{1b}[2Jev".to_owned();
    rows[0].record.zone_id = "z\n\u{202e}".to_owned();
    let shown = verify(&rows, None).to_string();
    assert!(!shown.contains(['\u{1b}', '\u{202e}']), "{shown:?}");
    assert!(shown.contains(r"event \u{1b}[2Jev (seq 1)"), "{shown:?}");
}
