use caracal_store::admin_evidence::{self, ZONELESS_CHAIN};
use caracal_store::{SqliteOptions, SystemClock, evidence};
use futures_util::FutureExt;
use serde_json::json;

use super::*;

fn log(directory: &std::path::Path, capacity: usize) -> Arc<EvidenceLog> {
    let store = Store::open(&SqliteOptions::in_directory(directory), Arc::new(SystemClock)).unwrap();
    let (denials, metrics) = (Arc::new(AnonymousDenials::default()), Arc::new(Metrics::default()));
    let mut log = EvidenceLog::new(store, Ledger::new(None), denials, metrics);
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
        log.commit_at_last(&zone, &events, true).await.unwrap();
        // Whoever has not tried before and finds them there has lost something else.
        assert!(log.commit_at_last(&zone, &events, false).await.unwrap_err().is_conflict());
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
            (event.evaluation_status, text("error_kind"), text("gateway_status"))
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
            log.denied(&caller("z-1", n), StatusCode::UNAUTHORIZED, "session_revoked", "session revoked");
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
