//! The audit key is replaced: what was sealed before is known by the key that sealed it, what comes after is sealed with the
//! new one, and there is no way back.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use caracal_authority::{Timestamp, ZoneId};
use caracal_crypto::hmac::{HmacKey, HmacRing};
use caracal_ledger::{
    Chain, ChainKey, Head, HeadsObserver, KeysRefused, Ledger, LedgerReport, Marks, Problem, Spool, SweepMarks,
    check_keys, note_keys, read_heads, verify_store,
};
use caracal_store::{Store, StoreError, SystemClock, conformance, retention};
use caracal_testkit::Place;

use support::{change, event, evidence_of, named, open, problems, zone};

fn key(number: u8) -> HmacKey {
    HmacKey::from_bytes(&[number; 32]).unwrap()
}

/// A key with those before it, by their numbers.
fn ring(current: u8, previous: &[u8]) -> Arc<dyn ChainKey> {
    Arc::new(HmacRing::new(key(current), previous.iter().map(|number| key(*number)).collect()))
}

fn name(number: u8) -> String {
    ChainKey::id(&key(number), 0).unwrap()
}

/// One event and two changes.
async fn append(store: &Store, key: &Arc<dyn ChainKey>, of: &str, id: &str) -> Result<(), StoreError> {
    let (ledger, z) = (Ledger::new(Some(key.clone())), zone(of));
    store
        .commit(&z, (ledger.clone(), z.clone(), id.to_owned()), |tx, (ledger, z, id)| {
            Box::pin(async move {
                ledger.record(tx, &[event(z, &format!("e-{id}"))]).await?;
                ledger.record_change(tx, &change(Some(z), &format!("a-{id}"))).await
            })
        })
        .await?;
    store
        .commit_deployment((ledger, change(None, &format!("n-{id}"))), |tx, (ledger, record)| {
            Box::pin(async move { ledger.record_zoneless_change(tx, record).await })
        })
        .await
}

async fn anchor(store: &Store, key: &Arc<dyn ChainKey>, through: i64) {
    let ledger = Ledger::new(Some(key.clone()));
    let anchored: Result<bool, StoreError> = store
        .commit(&zone("z-1"), (ledger, through), |tx, (ledger, through)| {
            Box::pin(async move { ledger.anchor(tx, Timestamp::from_seconds(4_000_000_000), *through).await })
        })
        .await;
    assert!(anchored.unwrap());
    let removed: Result<usize, StoreError> =
        store.commit(&zone("z-1"), (), |tx, ()| Box::pin(retention::remove_anchored(tx, 100))).await;
    assert_eq!(removed.unwrap(), 1);
}

/// A store that went through key 1, 2 and 3, two rows of each chain under each of them, opened anew for each; with its heads.
async fn rotated(place: &Place) -> BTreeMap<Chain, Head> {
    for (turn, key) in [ring(1, &[]), ring(2, &[1]), ring(3, &[2, 1])].into_iter().enumerate() {
        let store = open(place).await;
        let heads = Arc::new(HeadsObserver::open(place.path(), key.clone()).unwrap());
        store.observe(heads.clone());
        for number in [1, 2] {
            append(&store, &key, "z-1", &format!("{}", turn * 2 + number)).await.unwrap();
        }
        heads.close().unwrap();
        store.close().await;
    }
    read_heads(place.path(), ring(3, &[]).as_ref()).unwrap().unwrap()
}

async fn verified(copy: &support::Stored, key: &Arc<dyn ChainKey>, heads: &BTreeMap<Chain, Head>) -> LedgerReport {
    copy.read(async |tx| verify_store(tx, Some(key.as_ref()), heads, |_, _| {}).await).await.unwrap()
}

fn all_chains() -> [Chain; 3] {
    [evidence_of("z-1"), Chain::Admin(Some(zone("z-1"))), Chain::Admin(None)]
}

/// Seals the row at `seq` anew with another key, as somebody would who has it.
fn sealed_anew(place: &Place, number: u8, seq: i64) -> String {
    let find = |column: &str| {
        let sql =
            format!("SELECT coalesce({column}, '') FROM audit_events WHERE zone_id = 'z-1' AND chain_seq = {seq}");
        match place.database() {
            Some(database) => database.run(&sql).unwrap().trim().to_owned(),
            None => {
                let connection = rusqlite::Connection::open(place.path().join("caracal.db")).unwrap();
                connection.query_row(&sql, [], |row| row.get::<_, String>(0)).unwrap()
            }
        }
    };
    let (content, prev) = (find("content_sha256"), find("prev_content_sha256"));
    let seal = key(number).sign_hex(&[content.as_bytes(), b"|", prev.as_bytes()]);
    let id = name(number);
    format!(
        "UPDATE audit_events SET chain_hmac = '{seal}', key_id = '{id}' WHERE zone_id = 'z-1' AND chain_seq = {seq};"
    )
}

mod t06_evidence_rotation {
    use super::*;

    #[tokio::test]
    async fn what_was_sealed_under_each_key_verifies_with_the_keys_at_hand() {
        let place = Place::new();
        let heads = rotated(&place).await;
        let copy = support::Stored::of(&place);
        let report = verified(&copy, &ring(3, &[2, 1]), &heads).await;
        assert!(report.is_intact() && report.rows() == 18, "{report}");
        assert!(heads.values().all(|head| head.chain_seq == 6), "{heads:?}");
        // One more key changes nothing, wherever it is.
        let report = verified(&copy, &ring(4, &[3, 2, 7, 1]), &heads).await;
        assert!(report.is_intact(), "{report}");
    }

    #[tokio::test]
    async fn a_key_that_is_not_at_hand_is_named_and_is_not_called_tampering() {
        let place = Place::new();
        let heads = rotated(&place).await;
        let copy = support::Stored::of(&place);
        for (at_hand, missing, seqs) in
            [(ring(3, &[2]), 1, [1, 2]), (ring(3, &[1]), 2, [3, 4]), (ring(2, &[1]), 3, [5, 6])]
        {
            let report = verified(&copy, &at_hand, &heads).await;
            assert!(!report.is_intact() && report.lacks_keys_only(), "{report}");
            for chain in all_chains() {
                let found = problems(&report, &chain);
                assert_eq!(found, vec![Problem::UnknownKey { key_id: name(missing) }; 2]);
                let report = report.chains.iter().find(|report| report.chain == chain).unwrap();
                assert_eq!(report.findings.iter().map(|at| at.chain_seq.unwrap()).collect::<Vec<_>>(), seqs);
            }
            let said = report.to_string();
            assert!(said.contains(&name(missing)) && said.contains("AUDIT_HMAC_KEY_PREVIOUS"), "{said}");
            assert!(said.contains("NOT VERIFIED") && !said.contains("BROKEN"), "{said}");
        }
    }

    #[tokio::test]
    async fn a_row_that_was_altered_is_found_under_whichever_key_and_whoever_it_says_sealed_it() {
        let place = Place::new();
        let heads = rotated(&place).await;
        for seq in 1..=6 {
            for named_as in [None, Some(1), Some(9)] {
                let copy = support::Stored::of(&place);
                let also = named_as.map_or(String::new(), |number| format!(", key_id = '{}'", name(number)));
                copy.tamper(&format!("UPDATE audit_events SET decision = 'deny'{also} WHERE chain_seq = {seq}"));
                let report = verified(&copy, &ring(3, &[2, 1]), &heads).await;
                let found = problems(&report, &evidence_of("z-1"));
                assert!(found.contains(&Problem::ContentMismatch) && !report.lacks_keys_only(), "{seq}: {report}");
                assert!(named(&report).contains(format!("e-{seq}").as_str()) && report.to_string().contains("BROKEN"));
            }
        }
    }

    #[tokio::test]
    async fn a_row_under_a_key_that_was_replaced_is_found_behind_one_of_a_later_key() {
        let place = Place::new();
        let heads = rotated(&place).await;
        let keys = ring(3, &[2, 1]);
        for (number, seq, later) in [(1, 3, None), (1, 4, Some(2)), (1, 6, Some(3)), (2, 6, Some(3)), (3, 5, None)] {
            let copy = support::Stored::of(&place);
            copy.tamper(&sealed_anew(&place, number, seq));
            let report = verified(&copy, &keys, &heads).await;
            let found = problems(&report, &evidence_of("z-1"));
            match later {
                // The place where the key changed is not laid down anywhere but in the rows.
                None => assert!(report.is_intact(), "{report}"),
                Some(later) => {
                    assert_eq!(found[0], Problem::ReplacedKey { key_id: name(number), later: name(later) }, "{report}");
                }
            }
        }
        // Not even unnamed.
        let copy = support::Stored::of(&place);
        copy.tamper(&format!(
            "{} UPDATE audit_events SET key_id = NULL WHERE chain_seq = 6",
            sealed_anew(&place, 1, 6)
        ));
        let report = verified(&copy, &keys, &heads).await;
        assert!(matches!(problems(&report, &evidence_of("z-1"))[0], Problem::ReplacedKey { .. }), "{report}");
        // Nor can it be kept quiet who sealed.
        let copy = support::Stored::of(&place);
        copy.tamper("UPDATE audit_events SET key_id = NULL WHERE chain_seq = 4");
        let report = verified(&copy, &keys, &heads).await;
        assert_eq!(problems(&report, &evidence_of("z-1")), [Problem::UnnamedKey]);
    }

    #[tokio::test]
    async fn a_process_that_still_has_the_old_key_adds_nothing_behind_the_new_one() {
        let place = Place::new();
        rotated(&place).await;
        let store = open(&place).await;
        for old in [ring(1, &[]), ring(2, &[1])] {
            let refused = append(&store, &old, "z-1", "late").await.unwrap_err();
            let StoreError::Unavailable { reason } = &refused else { panic!("{refused:?}") };
            assert!(reason.contains(&name(3)) && reason.contains("AUDIT_HMAC_KEY_PREVIOUS"), "{reason}");
        }
        append(&store, &ring(3, &[2, 1]), "z-1", "7").await.unwrap();
        store.close().await;
        let report = verified(&support::Stored::of(&place), &ring(3, &[2, 1]), &BTreeMap::new()).await;
        assert!(report.is_intact() && report.rows() == 21, "{report}");
    }

    #[tokio::test]
    async fn an_anchor_of_an_old_key_stands_and_none_is_made_with_it_any_more() {
        let place = Place::new();
        let (old, new) = (ring(1, &[]), ring(2, &[1]));
        let store = open(&place).await;
        for number in 1..=3 {
            append(&store, &old, "z-1", &number.to_string()).await.unwrap();
        }
        anchor(&store, &old, 1).await;
        append(&store, &new, "z-1", "4").await.unwrap();
        anchor(&store, &new, 2).await;
        anchor(&store, &old, 3).await;
        store.close().await;
        let (copy, none) = (support::Stored::of(&place), BTreeMap::new());
        let report = verified(&copy, &new, &none).await;
        assert_eq!(problems(&report, &evidence_of("z-1"))[0], Problem::ForgedAnchor { anchored: 3 }, "{report}");
        copy.tamper("DELETE FROM audit_anchors WHERE chain_seq = 3");
        let report = verified(&copy, &ring(2, &[]), &none).await;
        assert_eq!(problems(&report, &evidence_of("z-1"))[0], Problem::UnknownKey { key_id: name(1) }, "{report}");
        // The row that the last of them stands for is gone; what is left belongs behind it only with that anchor in force.
        let report = verified(&copy, &new, &none).await;
        assert_eq!(
            problems(&report, &evidence_of("z-1"))[0],
            Problem::SequenceGap { expected: 3, found: 4 },
            "{report}"
        );
    }

    /// The heads, and how far the sweep came: three files. A rotation that was cut off has renewed some of them.
    #[tokio::test]
    async fn a_rotation_that_was_cut_off_between_any_two_files_goes_on() {
        const FILES: [&str; 3] = ["heads.log", "swept/heads.log", "swept/trees/heads.log"];
        let (old, new) = (ring(1, &[]), ring(2, &[1]));
        let head = |seq: i64| Head { chain_seq: seq, content_sha256: "a".repeat(64) };
        let chains: BTreeMap<Chain, Head> = all_chains().into_iter().map(|chain| (chain, head(5))).collect();
        let marks = || Marks { events: chains.clone(), trees: BTreeMap::from([(evidence_of("z-1"), head(4))]) };
        let made = |key: &Arc<dyn ChainKey>, directory: &Path| {
            let mut heads = caracal_ledger::HeadsFile::open(directory, key.clone()).unwrap();
            heads.record(&chains.clone().into_iter().collect::<Vec<_>>()).unwrap();
            heads.close().unwrap();
            SweepMarks::open(directory, key.clone(), false).unwrap().record(&marks()).unwrap();
        };
        let (before, after) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        made(&old, before.path());
        made(&new, after.path());
        for renewed in 0..8 {
            let directory = tempfile::tempdir().unwrap();
            fs::create_dir_all(directory.path().join("swept/trees")).unwrap();
            for (at, file) in FILES.into_iter().enumerate() {
                let from = if renewed & (1 << at) == 0 { before.path() } else { after.path() };
                fs::copy(from.join(file), directory.path().join(file)).unwrap();
                // What was being written beside it when the process ended.
                fs::write(directory.path().join(format!("{file}.new")), "evidence z-1 5 ").unwrap();
            }
            let files = || FILES.map(|file| fs::read_to_string(directory.path().join(file)).unwrap());
            let heads = caracal_ledger::HeadsFile::open(directory.path(), new.clone()).unwrap();
            assert_eq!(*heads.heads(), chains, "{renewed}");
            assert_eq!(SweepMarks::open(directory.path(), new.clone(), false).unwrap().read(), marks(), "{renewed}");
            for text in files() {
                assert!(text.contains(&name(2)) && !text.contains(&name(1)), "{renewed}: {text}");
            }
            // From then on without the old key, and only so.
            let alone = ring(2, &[]);
            assert_eq!(read_heads(directory.path(), alone.as_ref()).unwrap().unwrap(), chains);
            assert_eq!(SweepMarks::open(directory.path(), alone, false).unwrap().read(), marks());
            let refused = read_heads(directory.path(), old.as_ref()).unwrap_err();
            assert!(refused.to_string().contains(&name(2)), "{refused}");
        }
    }

    #[tokio::test]
    async fn lines_of_heads_under_a_key_that_was_replaced_do_not_follow_those_of_a_later_one() {
        let (directory, new) = (tempfile::tempdir().unwrap(), ring(2, &[1]));
        let head = |seq: i64| Head { chain_seq: seq, content_sha256: "a".repeat(64) };
        let mut heads = caracal_ledger::HeadsFile::open(directory.path(), new.clone()).unwrap();
        heads.record(&[(Chain::Admin(None), head(1))]).unwrap();
        heads.close().unwrap();
        let path = directory.path().join("heads.log");
        let text = fs::read_to_string(&path).unwrap();
        let last_mac = text.trim_end().rsplit(' ').next().unwrap();
        let body = format!("admin (none) 2 {} {}", "b".repeat(64), name(1));
        let mac = key(1).sign_hex(&[format!("caracal ledger heads v1\n{last_mac}\n{body}").as_bytes()]);
        fs::write(&path, format!("{text}{body} {mac}\n")).unwrap();
        let refused = read_heads(directory.path(), new.as_ref()).unwrap_err().to_string();
        assert!(refused.contains("line 2") && refused.contains("replaced"), "{refused}");
        assert!(read_heads(directory.path(), ring(1, &[2]).as_ref()).is_ok(), "but for the order it is in order");
    }

    /// As every file was before keys had names.
    #[tokio::test]
    async fn heads_without_names_are_read_and_named_from_then_on() {
        for (at_hand, number) in [(ring(1, &[]), 1), (ring(2, &[1]), 2)] {
            let directory = tempfile::tempdir().unwrap();
            let body = format!("admin (none) 2 {}", "b".repeat(64));
            let mac = key(1).sign_hex(&[format!("caracal ledger heads v1\n\n{body}").as_bytes()]);
            fs::write(directory.path().join("heads.log"), format!("{body} {mac}\n")).unwrap();
            let heads = caracal_ledger::HeadsFile::open(directory.path(), at_hand).unwrap();
            assert_eq!(heads.heads()[&Chain::Admin(None)].chain_seq, 2);
            let text = fs::read_to_string(directory.path().join("heads.log")).unwrap();
            assert!(text.contains(&name(number)) && text.lines().count() == 1, "{text}");
        }
    }

    #[test]
    fn evidence_that_waited_on_disk_while_the_key_was_replaced_is_not_lost() {
        let directory = tempfile::tempdir().unwrap();
        let place: PathBuf = directory.path().join("spool");
        let waits = event(&ZoneId::parse("z-1").unwrap(), "waits");
        let old = Spool::open(place.clone(), ring(1, &[])).unwrap();
        old.write(std::slice::from_ref(&waits), Timestamp::from_seconds(1)).unwrap();
        let new = Spool::open(place.clone(), ring(2, &[1])).unwrap();
        let batch = new.read(&new.list().unwrap()[0]).unwrap();
        assert_eq!((batch.events.len(), batch.bad.len()), (1, 0));
        let without = Spool::open(place, ring(2, &[])).unwrap();
        let batch = without.read(&without.list().unwrap()[0]).unwrap();
        assert_eq!((batch.events.len(), batch.bad.len()), (0, 1));
    }
}

mod t06_evidence_key_history {
    use super::*;

    async fn checked(store: &Store, key: &Arc<dyn ChainKey>) -> Result<(), KeysRefused> {
        let mut snapshot = store.snapshot().await.unwrap();
        check_keys(&mut snapshot.deployment(), key.as_ref()).await.unwrap()
    }

    async fn noted(store: &Store, key: &Arc<dyn ChainKey>, at: i64) -> Result<i64, KeysRefused> {
        let noted: Result<_, StoreError> = store
            .commit_deployment((key.clone(), Timestamp::from_seconds(at)), |tx, (key, at)| {
                Box::pin(async move { note_keys(tx, key.as_ref(), *at).await })
            })
            .await;
        noted.unwrap().map(Timestamp::as_seconds)
    }

    #[tokio::test]
    async fn a_start_needs_every_key_that_was_used_and_the_newest_of_them_or_a_new_one() {
        let place = Place::new();
        let store = open(&place).await;
        assert_eq!(checked(&store, &ring(1, &[])).await, Ok(()));
        assert_eq!(noted(&store, &ring(1, &[]), 100).await, Ok(100));
        assert_eq!(noted(&store, &ring(1, &[]), 200).await, Ok(100), "since when it is in use");
        assert_eq!(checked(&store, &ring(2, &[])).await, Err(KeysRefused::Unknown(name(1))));
        assert_eq!(noted(&store, &ring(2, &[]), 200).await, Err(KeysRefused::Unknown(name(1))));
        assert_eq!(noted(&store, &ring(2, &[1]), 300).await, Ok(300));
        assert_eq!(checked(&store, &ring(1, &[])).await, Err(KeysRefused::Unknown(name(2))));
        let back = KeysRefused::Replaced { replaced: name(1), by: name(2) };
        assert_eq!(checked(&store, &ring(1, &[2])).await, Err(back.clone()));
        assert_eq!(noted(&store, &ring(1, &[2]), 400).await, Err(back));
        assert!(matches!(checked(&store, &ring(3, &[1, 2])).await, Err(KeysRefused::Order(_))));
        assert_eq!(noted(&store, &ring(3, &[2, 1]), 500).await, Ok(500));
        store.close().await;
    }

    /// A ledger from before keys had names, whose process is given another key by mistake.
    #[tokio::test]
    async fn a_ledger_without_names_is_not_gone_on_with_under_keys_that_sealed_none_of_it() {
        let place = Place::new();
        let store = open(&place).await;
        append(&store, &ring(1, &[]), "z-1", "1").await.unwrap();
        store.close().await;
        let copy = support::Stored::of(&place);
        copy.tamper(
            "UPDATE audit_events SET key_id = NULL; UPDATE audit_heads SET key_id = NULL;
             UPDATE admin_audit_events SET key_id = NULL; UPDATE admin_audit_heads SET key_id = NULL",
        );
        let store = copy.open().await;
        assert_eq!(checked(&store, &ring(2, &[])).await, Err(KeysRefused::Others));
        assert_eq!(checked(&store, &ring(1, &[])).await, Ok(()));
        assert_eq!(checked(&store, &ring(2, &[1])).await, Ok(()));
        assert_eq!(noted(&store, &ring(2, &[1]), 100).await, Ok(100));
        // What was said to have been used before has to be at hand from then on, too.
        assert_eq!(checked(&store, &ring(2, &[])).await, Err(KeysRefused::Unknown(name(1))));
        append(&store, &ring(2, &[1]), "z-1", "2").await.unwrap();
        store.close().await;
        let report = verified(&copy, &ring(2, &[1]), &BTreeMap::new()).await;
        assert!(report.is_intact() && report.rows() == 6, "{report}");
    }

    /// A backup, or a data directory, that an older version wrote, read by an outsider who changes nothing.
    #[tokio::test]
    async fn a_store_of_an_older_schema_verifies_as_it_lies() {
        // A file on either engine: a server's schema is brought up to date before anybody reads.
        let directory = tempfile::tempdir().unwrap();
        let store = conformance::open(directory.path(), None, Arc::new(SystemClock)).await;
        append(&store, &ring(1, &[]), "z-1", "1").await.unwrap();
        store.close().await;
        let copy = support::Stored::File(directory);
        let older: String = ["audit_events", "audit_heads", "admin_audit_events", "admin_audit_heads", "audit_anchors"]
            .map(|table| format!("ALTER TABLE {table} DROP COLUMN key_id;"))
            .concat();
        copy.tamper(&format!("{older} DELETE FROM schema_migrations WHERE version >= 25"));
        for at_hand in [ring(1, &[]), ring(2, &[1])] {
            let report = verified(&copy, &at_hand, &BTreeMap::new()).await;
            assert!(report.is_intact() && report.rows() == 3, "{report}");
        }
        let report = verified(&copy, &ring(2, &[]), &BTreeMap::new()).await;
        assert_eq!(problems(&report, &evidence_of("z-1")), [Problem::WrongHmac]);
    }
}
