use caracal_store::admin_evidence::{self, ZONELESS_CHAIN};
use caracal_store::{SqliteOptions, SystemClock, evidence};
use futures_util::FutureExt;
use serde_json::json;

use super::*;

fn log(directory: &std::path::Path, capacity: usize) -> Arc<EvidenceLog> {
    let store = Store::open(&SqliteOptions::in_directory(directory), Arc::new(SystemClock)).unwrap();
    let (denials, metrics) = (Arc::new(AnonymousDenials::default()), Arc::new(Metrics::default()));
    let mut log = EvidenceLog::new((store, Ledger::new(None)), denials, metrics, None);
    log.capacity = capacity;
    Arc::new(log)
}

fn caller(zone: &str, n: usize) -> Caller {
    Caller {
        zone: ZoneId::parse(zone).unwrap(),
        client: ApplicationId::parse("app-1").unwrap(),
        jti: MandateId::parse("m-1").unwrap(),
        resource: "resource://items".to_owned(),
        fingerprint: "ce887a8eece06ba3".to_owned(),
        method: "GET".to_owned(),
        subject_kind: None,
        request_id: RequestId::parse(format!("r-{n}").as_bytes()).unwrap(),
    }
}

/// What was counted instead of being recorded.
async fn summary(log: &EvidenceLog) -> Value {
    log.anonymous.summarise(&log.store, &log.ledger).await.unwrap();
    let mut snapshot = log.store.snapshot().await.unwrap();
    let rows = admin_evidence::list_chain(&mut snapshot.deployment(), ZONELESS_CHAIN, 1, 10).await.unwrap();
    let [evidence::ChainRow::Read(summary)] = rows.as_slice() else { panic!("{rows:?}") };
    serde_json::from_str(summary.payload.as_deref().unwrap()).unwrap()
}

mod t06_evidence {
    use super::*;

    #[tokio::test]
    async fn new_calls_wait_while_too_much_waits_and_begun_ones_never_lose_their_event() {
        let directory = tempfile::tempdir().unwrap();
        let log = log(directory.path(), 3);
        let mut begun: Vec<Attempt> = (0..5).map(|n| log.attempt(caller("z-1", n))).collect();
        assert!(log.has_room().now_or_never().is_some());
        begun.iter_mut().for_each(|attempt| attempt.end(Outcome::Executed));
        assert_eq!(log.depth(), 5);
        let waiting = tokio::spawn({
            let log = log.clone();
            async move { log.has_room().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        let (stop, stopped) = watch::channel(false);
        let writing = tokio::spawn({
            let log = log.clone();
            async move { log.write(stopped).await }
        });
        waiting.await.unwrap();
        stop.send(true).unwrap();
        writing.await.unwrap();
        assert_eq!((log.depth(), log.persisted.get(), log.dropped.get()), (0, 5, 0));
    }

    #[tokio::test]
    async fn events_keep_their_order_within_a_zone() {
        let directory = tempfile::tempdir().unwrap();
        let log = log(directory.path(), CAPACITY);
        for n in 0..40 {
            log.attempt(caller(if n % 2 == 0 { "z-1" } else { "z-2" }, n)).end(Outcome::Executed);
        }
        let (stop, stopped) = watch::channel(true);
        log.write(stopped).await;
        drop(stop);
        let mut snapshot = log.store.snapshot().await.unwrap();
        let zone = ZoneId::parse("z-1").unwrap();
        let rows = evidence::list_chain(&mut snapshot.zone(&zone), 1, 100).await.unwrap();
        let ids = rows.into_iter().map(|row| match row {
            evidence::ChainRow::Read(row) => row.request_id,
            unreadable => panic!("{unreadable:?}"),
        });
        let expected: Vec<String> = (0..40).step_by(2).map(|n| format!("r-{n}")).collect();
        assert_eq!(ids.collect::<Vec<_>>(), expected);
        assert_eq!(log.drained.get(), 40);
    }

    /// The store was lost before it could say that it had committed.
    #[tokio::test]
    async fn events_that_are_there_already_are_not_added_again() {
        let directory = tempfile::tempdir().unwrap();
        let log = log(directory.path(), CAPACITY);
        (0..3).for_each(|n| log.attempt(caller("z-1", n)).end(Outcome::Executed));
        let (zone, events) = (ZoneId::parse("z-1").unwrap(), drawn(&log.take()).await);
        log.try_commit(&zone, &events).await.unwrap();
        log.commit_at_last(&zone, &events, (0, true)).await.unwrap();
        // Whoever has not tried before and finds them there has lost something else.
        assert!(log.commit_at_last(&zone, &events, (0, false)).await.unwrap_err().is_conflict());
        let mut snapshot = log.store.snapshot().await.unwrap();
        assert_eq!(evidence::list_chain(&mut snapshot.zone(&zone), 1, 100).await.unwrap().len(), 3);
    }

    #[test]
    fn an_attempt_that_is_dropped_says_how_far_it_came() {
        let directory = tempfile::tempdir().unwrap();
        let log = log(directory.path(), CAPACITY);
        drop(log.attempt(caller("z-1", 0)));
        let mut answered = log.attempt(caller("z-1", 1));
        answered.answered(StatusCode::OK, Duration::ZERO);
        drop(answered);
        let mut ended = log.attempt(caller("z-1", 2));
        ended.end(Outcome::Executed);
        ended.end(Outcome::CopyFailed);
        drop(ended);
        let waiting = log.lock();
        let kind = |event: &Draft| {
            let text = |key| event.metadata.get(key).map(ToString::to_string);
            (event.evaluation_status.as_str(), text(Key::ErrorKind), text(Key::GatewayStatus))
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            waiting.events.iter().map(kind).collect::<Vec<_>>(),
            [
                ("upstream_error", some("\"transport_error\""), some("499")),
                ("upstream_error", some("\"response_copy_failed\""), some("200")),
                ("executed", None, some("502")),
            ]
        );
        assert_eq!(log.metrics.upstream_errors.get(), 2);
    }
}

mod t08_availability {
    use super::*;

    #[tokio::test]
    async fn refusals_find_no_room_where_there_is_none_and_are_counted() {
        let directory = tempfile::tempdir().unwrap();
        let log = log(directory.path(), 3);
        for n in 0..5 {
            log.replayed(&caller("z-1", n));
        }
        for n in 5..9 {
            log.denied(
                &caller("z-1", n),
                StatusCode::UNAUTHORIZED,
                EvaluationStatus::SessionRevoked,
                "session revoked",
            );
        }
        assert_eq!(log.depth(), 3);
        // What has begun still finds room.
        log.attempt(caller("z-1", 9)).end(Outcome::Executed);
        assert_eq!(log.depth(), 4);
        assert_eq!(summary(&log).await, json!({"gateway": {"replay_detected": 2, "session_revoked": 4}}));
    }

    #[tokio::test]
    async fn a_mandate_that_comes_back_for_ever_writes_no_chain_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let log = log(directory.path(), CAPACITY);
        (0..130).for_each(|n| log.replayed(&caller("z-1", n)));
        assert_eq!(log.depth(), 100);
        assert_eq!(summary(&log).await, json!({"gateway": {"replay_detected": 30}}));
        let other = Caller { jti: MandateId::parse("m-2").unwrap(), ..caller("z-1", 0) };
        log.replayed(&other);
        assert_eq!(log.depth(), 101, "another mandate has its own");
    }
}

mod t06_evidence_on_disk {
    use std::fs;
    use std::path::Path;

    use caracal_crypto::hmac::HmacKey;
    use caracal_ledger::{ChainKey, verify_store};

    use super::*;

    mod crash;

    fn key() -> Arc<dyn ChainKey> {
        Arc::new(HmacKey::from_bytes(&[7; 32]).unwrap())
    }

    /// A log over the store in `root`, with a spool beside it.
    fn log(root: &Path) -> Arc<EvidenceLog> {
        let store = Store::open(&SqliteOptions::in_directory(root.join("store")), Arc::new(SystemClock)).unwrap();
        let (denials, metrics) = (Arc::new(AnonymousDenials::default()), Arc::new(Metrics::default()));
        let spool = Spool::open(root.join("spool"), key()).unwrap();
        Arc::new(EvidenceLog::new((store, Ledger::new(Some(key()))), denials, metrics, Some(Arc::new(spool))))
    }

    fn end(log: &Arc<EvidenceLog>, calls: std::ops::Range<usize>) {
        calls.for_each(|n| log.attempt(caller(if n % 2 == 0 { "z-1" } else { "z-2" }, n)).end(Outcome::Executed));
    }

    fn files(root: &Path, extension: &str) -> Vec<std::path::PathBuf> {
        let entries = fs::read_dir(root.join("spool")).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.extension().is_some_and(|found| found == extension)).collect()
    }

    /// Fails to commit six calls' evidence, and is killed while it tries again.
    async fn killed(root: &Path) {
        fs::create_dir(root.join("store")).unwrap();
        let log = log(root);
        end(&log, 0..6);
        log.store.close().await;
        let (_stop, stopped) = watch::channel(false);
        let writing = tokio::spawn({
            let log = log.clone();
            async move { log.write(stopped).await }
        });
        while files(root, "ndjson").len() < 2 {
            tokio::task::yield_now().await;
        }
        writing.abort();
        let _ = writing.await;
    }

    /// The requests that the two chains tell of, in their order, once nothing lies on disk any more.
    async fn after(root: &Path) -> (Vec<String>, u64) {
        let log = log(root);
        let (stop, stopped) = watch::channel(false);
        let draining = tokio::spawn({
            let log = log.clone();
            async move { log.drain(stopped).await }
        });
        while !files(root, "ndjson").is_empty() {
            tokio::task::yield_now().await;
        }
        stop.send_replace(true);
        draining.await.unwrap();
        let mut requests = Vec::new();
        let mut snapshot = log.store.snapshot().await.unwrap();
        for zone in ["z-1", "z-2"] {
            let zone = ZoneId::parse(zone).unwrap();
            let rows = evidence::list_between(&mut snapshot.zone(&zone), 0, 10_000, 10_000).await.unwrap();
            requests.extend(rows.into_iter().map(|row| row.request_id));
        }
        let intact = verify_store(&mut snapshot.deployment(), Some(&*key()), &Default::default(), |_, _| ()).await;
        assert!(intact.unwrap().is_intact());
        drop(snapshot);
        log.store.close().await;
        (requests, log.parked.replayed.get())
    }

    #[tokio::test]
    async fn a_process_that_is_killed_while_the_store_is_away_loses_no_event() {
        let root = tempfile::tempdir().unwrap();
        killed(root.path()).await;
        #[cfg(unix)]
        for (path, mode) in [(root.path().join("spool"), 0o700), (files(root.path(), "ndjson")[0].clone(), 0o600)] {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, mode);
        }
        let copies: Vec<_> =
            files(root.path(), "ndjson").iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect();
        let all = ["r-0", "r-2", "r-4", "r-1", "r-3", "r-5"].map(str::to_owned).to_vec();
        assert_eq!(after(root.path()).await, (all.clone(), 6));
        // It was killed before it could remove the files, or its commit was made and it never heard of that.
        copies.iter().for_each(|(path, content)| fs::write(path, content).unwrap());
        assert_eq!(after(root.path()).await, (all, 0));
        assert!(files(root.path(), "quarantined").is_empty());
    }

    #[tokio::test]
    async fn a_line_that_was_torn_or_forged_is_put_aside_and_keeps_no_other_from_its_chain() {
        let root = tempfile::tempdir().unwrap();
        killed(root.path()).await;
        let paths = files(root.path(), "ndjson");
        let of = |zone: &str| {
            let said = |path: &&std::path::PathBuf| fs::read_to_string(path).unwrap().contains(zone);
            paths.iter().find(said).unwrap().clone()
        };
        let (one, two) = (of("z-1"), of("z-2"));
        let forged = fs::read_to_string(&one).unwrap().replacen("allow", "denied", 1);
        fs::write(&one, forged).unwrap();
        let torn = fs::read(&two).unwrap();
        fs::write(&two, &torn[..torn.len() - 40]).unwrap();
        fs::write(root.path().join("spool/notes.txt"), "not ours").unwrap();
        let expected = ["r-2", "r-4", "r-1", "r-3"].map(str::to_owned).to_vec();
        assert_eq!(after(root.path()).await, (expected, 4));
        let aside: Vec<String> =
            files(root.path(), "quarantined").iter().map(|path| fs::read_to_string(path).unwrap()).collect();
        assert_eq!(aside.len(), 2);
        assert!(aside.iter().any(|text| text.contains("denied")) && aside.iter().all(|text| text.lines().count() == 1));
        assert!(root.path().join("spool/notes.txt").exists());
    }

    /// A line under our seal, whatever it says: of another version of this program, or of one that had a defect.
    fn sealed(data: &str) -> String {
        let sig: String = key()
            .sign(&[b"caracal ledger spool v1\n", data.as_bytes()].concat())
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        json!({"data": data, "sig": sig}).to_string()
    }

    /// The event of a line on disk, with some of its members changed, under our seal.
    fn changed(line: &str, members: &[(&str, Value)]) -> String {
        let line: Value = serde_json::from_str(line).unwrap();
        let mut event: Value = serde_json::from_str(line["data"].as_str().unwrap()).unwrap();
        members.iter().for_each(|(name, value)| event[*name] = value.clone());
        sealed(&event.to_string())
    }

    #[tokio::test]
    async fn a_line_that_no_chain_takes_is_put_aside_as_it_is_and_keeps_no_other_from_its_chain() {
        let root = tempfile::tempdir().unwrap();
        killed(root.path()).await;
        let of_one = files(root.path(), "ndjson")
            .into_iter()
            .find(|path| fs::read_to_string(path).unwrap().contains("z-1"))
            .unwrap();
        let lines: Vec<String> = fs::read_to_string(&of_one).unwrap().lines().map(str::to_owned).collect();
        let refused = [
            changed(&lines[0], &[("id", json!("e-1")), ("zone_id", json!("no zone"))]),
            changed(&lines[0], &[("id", json!("e-2")), ("zone_id", json!(""))]),
            // The same event, told otherwise.
            changed(&lines[0], &[("decision", json!("deny"))]),
            changed(&lines[1], &[("id", json!("e-3")), ("occurred_at_micros", json!("yesterday"))]),
            changed(&lines[1], &[("id", json!("e-4")), ("metadata_json", json!("{\"a\":\u{1f}1}"))]),
        ];
        let text = [&lines[..1], &refused, &lines[1..]].concat().join("\n");
        fs::write(&of_one, text).unwrap();
        let all = ["r-0", "r-2", "r-4", "r-1", "r-3", "r-5"].map(str::to_owned).to_vec();
        assert_eq!(after(root.path()).await, (all, 6));
        let [aside] = files(root.path(), "quarantined").try_into().unwrap();
        let mut aside: Vec<String> = fs::read_to_string(aside).unwrap().lines().map(str::to_owned).collect();
        aside.sort();
        let mut expected = refused.to_vec();
        expected.sort();
        assert_eq!(aside, expected);
    }

    /// Such as one that a rule of a later schema forbids.
    #[tokio::test]
    async fn a_line_that_the_store_itself_refuses_is_put_aside_and_keeps_no_other_from_its_chain() {
        let root = tempfile::tempdir().unwrap();
        killed(root.path()).await;
        let outside = rusqlite::Connection::open(root.path().join("store/caracal.db")).unwrap();
        let refuses = "CREATE TRIGGER refuses BEFORE INSERT ON audit_events WHEN NEW.request_id = 'r-2'
                       BEGIN SELECT RAISE(ABORT, 'refused'); END";
        outside.execute_batch(refuses).unwrap();
        drop(outside);
        let expected = ["r-0", "r-4", "r-1", "r-3", "r-5"].map(str::to_owned).to_vec();
        assert_eq!(after(root.path()).await, (expected, 5));
        let [aside] = files(root.path(), "quarantined").try_into().unwrap();
        let aside = fs::read_to_string(aside).unwrap();
        assert!(aside.lines().count() == 1 && aside.contains("r-2"), "{aside}");
    }

    /// What the store refuses of what is in hand has no file that it could be left in.
    #[tokio::test]
    async fn an_event_that_the_store_refuses_for_good_is_put_aside_and_not_lost() {
        for has_disk in [true, false] {
            let root = tempfile::tempdir().unwrap();
            fs::create_dir(root.path().join("store")).unwrap();
            let log = log(root.path());
            let outside = rusqlite::Connection::open(root.path().join("store/caracal.db")).unwrap();
            let refuses = "CREATE TRIGGER refuses BEFORE INSERT ON audit_events WHEN NEW.request_id = 'r-2'
                           BEGIN SELECT RAISE(ABORT, 'refused'); END";
            outside.execute_batch(refuses).unwrap();
            drop(outside);
            if !has_disk {
                fs::remove_dir(root.path().join("spool")).unwrap();
            }
            end(&log, 0..6);
            let (_stop, stopped) = watch::channel(true);
            log.write(stopped).await;
            let counts = (log.persisted.get(), log.parked.aside.get(), log.dropped.get());
            assert_eq!(counts, if has_disk { (5, 1, 0) } else { (5, 0, 1) });
            if has_disk {
                let [aside] = files(root.path(), "quarantined").try_into().unwrap();
                let aside = fs::read_to_string(aside).unwrap();
                let line: Value = serde_json::from_str(aside.trim_end()).unwrap();
                let data = line["data"].as_str().unwrap();
                assert_eq!(sealed(data), line.to_string());
                let event: Value = serde_json::from_str(data).unwrap();
                assert_eq!((&event["request_id"], &event["evaluation_status"]), (&json!("r-2"), &json!("executed")));
                log.store.close().await;
                drop(log);
                let others = ["r-0", "r-4", "r-1", "r-3", "r-5"].map(str::to_owned).to_vec();
                assert_eq!(after(root.path()).await, (others, 0));
            }
        }
    }

    #[tokio::test]
    async fn evidence_waits_on_disk_while_the_store_is_damaged_and_comes_into_its_chain_afterwards() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("store")).unwrap();
        let log = log(root.path());
        end(&log, 0..2);
        let (_stop, stopped) = watch::channel(true);
        log.write(stopped.clone()).await;
        let outside = rusqlite::Connection::open(root.path().join("store/caracal.db")).unwrap();
        // Text where the store only ever has a number.
        let damages = "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = replace(sql, 'STRICT, ', '')
                       WHERE name = 'audit_heads'; PRAGMA writable_schema = RESET;
                       UPDATE audit_heads SET chain_seq = 'x' || chain_seq";
        outside.execute_batch(damages).unwrap();
        end(&log, 2..6);
        log.write(stopped).await;
        assert_eq!((log.persisted.get(), log.parked.aside.get(), log.dropped.get()), (2, 0, 0));
        // One chain that is damaged keeps no other from what is its.
        outside.execute_batch("UPDATE audit_heads SET chain_seq = substr(chain_seq, 2) WHERE zone_id = 'z-2'").unwrap();
        let (stop, stopped) = watch::channel(false);
        let draining = tokio::spawn({
            let log = log.clone();
            async move { log.drain(stopped).await }
        });
        while log.parked.replayed.get() < 2 {
            tokio::task::yield_now().await;
        }
        stop.send_replace(true);
        draining.await.unwrap();
        assert_eq!((log.parked.replayed.get(), files(root.path(), "ndjson").len()), (2, 1));
        outside.execute_batch("UPDATE audit_heads SET chain_seq = substr(chain_seq, 2) WHERE zone_id = 'z-1'").unwrap();
        drop(outside);
        log.store.close().await;
        drop(log);
        let all = ["r-0", "r-2", "r-4", "r-1", "r-3", "r-5"].map(str::to_owned).to_vec();
        assert_eq!(after(root.path()).await, (all, 2));
        assert!(files(root.path(), "quarantined").is_empty());
    }

    /// Two zones' events in one file, of which one is in its chain when the store goes away.
    #[tokio::test]
    async fn a_store_that_fails_in_the_middle_of_a_file_costs_and_doubles_nothing() {
        let root = tempfile::tempdir().unwrap();
        killed(root.path()).await;
        let [one, two] = files(root.path(), "ndjson").try_into().unwrap();
        let both = [fs::read(&one).unwrap(), b"not ours\n".to_vec(), fs::read(&two).unwrap()].concat();
        fs::write(&one, &both).unwrap();
        fs::remove_file(&two).unwrap();
        let log = log(root.path());
        let closing = Mutex::new(Some(log.store.clone()));
        log.store.observe(Arc::new(move |_: &caracal_store::Committed| {
            // From its first step on nothing more is taken.
            if let Some(store) = closing.lock().unwrap().take() {
                let _ = store.close().now_or_never();
            }
        }));
        let (stop, stopped) = watch::channel(false);
        let draining = tokio::spawn({
            let log = log.clone();
            async move { log.drain(stopped).await }
        });
        while log.parked.replayed.get() < 3 {
            tokio::task::yield_now().await;
        }
        stop.send_replace(true);
        draining.await.unwrap();
        assert_eq!(log.parked.replayed.get(), 3);
        assert_eq!(fs::read(&one).unwrap(), both, "and waits whole");
        assert!(files(root.path(), "quarantined").is_empty());
        log.store.close().await;
        drop(log);
        let all = ["r-0", "r-2", "r-4", "r-1", "r-3", "r-5"].map(str::to_owned).to_vec();
        assert_eq!(after(root.path()).await, (all, 3));
        let [aside] = files(root.path(), "quarantined").try_into().unwrap();
        assert_eq!(fs::read_to_string(aside).unwrap(), "not ours\n");
    }

    #[tokio::test]
    async fn what_waits_at_a_stop_goes_on_disk_and_is_lost_only_with_the_disk() {
        for has_disk in [true, false] {
            let root = tempfile::tempdir().unwrap();
            fs::create_dir(root.path().join("store")).unwrap();
            let log = log(root.path());
            assert!(log.parked.is_available());
            end(&log, 0..6);
            log.store.close().await;
            if !has_disk {
                fs::remove_dir(root.path().join("spool")).unwrap();
            }
            log.give_up();
            assert_eq!((log.dropped.get(), log.parked.is_available()), (if has_disk { 0 } else { 6 }, has_disk));
            if has_disk {
                let backlog = log.parked.backlog(log.store.now());
                assert_eq!(backlog.files, 2);
                assert!(backlog.bytes > 0);
                drop(log);
                assert_eq!(after(root.path()).await.1, 6);
            }
        }
    }
}
