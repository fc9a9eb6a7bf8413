mod t03_gateway_revocation {
    use std::sync::atomic::AtomicUsize;
    use std::task::{Wake, Waker};

    use caracal_authority::OutboxId;
    use caracal_store::{Clock, ManualClock, SqliteOptions};

    use super::super::*;

    struct World {
        revocations: Arc<Revocations>,
        store: Store,
        clock: Arc<ManualClock>,
        _directory: tempfile::TempDir,
    }

    fn world() -> World {
        let directory = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(Timestamp::from_seconds(1_800_000_000)));
        let store = Store::open(&SqliteOptions::in_directory(directory.path()), clock.clone()).unwrap();
        World { revocations: Arc::new(Revocations::new(store.clone())), store, clock, _directory: directory }
    }

    fn zone(id: &str) -> ZoneId {
        ZoneId::parse(id).unwrap()
    }

    fn anchors(zone_id: &str, claims: &'static [(&'static str, &'static str)]) -> Anchors {
        Anchors::of(zone(zone_id), "k-1", |name| claims.iter().find(|(claim, _)| *claim == name).map(|(_, id)| *id))
    }

    const ALL: &[(&str, &str)] =
        &[("sid", "r-1"), ("root_sid", "r-0"), ("agent_session_id", "s-1"), ("delegation_edge_id", "e-1")];

    fn message(topic: &str, fields: &[(&str, &str)]) -> Committed {
        let message = Message {
            id: OutboxId::parse("o-1").unwrap(),
            zone: zone("z"),
            topic: topic.to_owned(),
            dedupe_key: "k".to_owned(),
            fields: fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            created_at: Timestamp::from_seconds(1_799_999_999),
        };
        Committed { messages: vec![message], heads: Vec::new(), statements: 0 }
    }

    fn anchor(kind: AnchorKind, id: &str) -> Anchor {
        Anchor { zone: zone("z"), kind, id: id.to_owned() }
    }

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[tokio::test]
    async fn each_anchor_alone_refuses_and_a_missing_claim_is_none() {
        for fields in [
            &[("session_id", "r-1")],
            &[("session_id", "r-0")],
            &[("agent_session_id", "s-1")],
            &[("delegation_edge_id", "e-1")],
            &[("edge_id", "e-1")],
        ] {
            let world = world();
            world.revocations.committed(&message(REVOKE_TOPIC, fields));
            assert!(world.revocations.watch(anchors("z", ALL)).is_err(), "{fields:?}");
            assert!(world.revocations.watch(anchors("other", ALL)).is_ok(), "another zone");
            assert!(world.revocations.watch(anchors("z", &[])).is_ok());
            assert!(world.revocations.watch(anchors("z", &[("sid", "s-1"), ("agent_session_id", "r-1")])).is_ok());
        }
    }

    #[tokio::test]
    async fn one_message_may_mark_three_anchors_and_one_without_any_marks_nothing() {
        let world = world();
        let three =
            [("session_id", "r-9"), ("agent_session_id", "s-9"), ("delegation_edge_id", "e-9"), ("reason", "x")];
        world.revocations.committed(&message(REVOKE_TOPIC, &three));
        assert_eq!(world.revocations.active(), 3);
        world.revocations.committed(&message(REVOKE_TOPIC, &[("reason", "x"), ("session_id", "")]));
        world.revocations.committed(&message("caracal.policy.invalidate", &[("session_id", "r-1")]));
        assert_eq!((world.revocations.active(), world.revocations.applied()), (3, (1, Duration::from_secs(1))));
    }

    #[tokio::test]
    async fn a_revoked_edge_is_marked_and_a_new_one_is_not() {
        let world = world();
        world.revocations.committed(&message(EDGES_TOPIC, &[("event", "edge_create"), ("edge_id", "e-1")]));
        assert!(world.revocations.watch(anchors("z", ALL)).is_ok());
        world.revocations.committed(&message(EDGES_TOPIC, &[("event", "edge_revoke"), ("edge_id", "e-1")]));
        assert!(world.revocations.watch(anchors("z", ALL)).is_err());
    }

    #[tokio::test]
    async fn a_withdrawn_key_ends_all_that_it_let_in_and_nothing_else() {
        let world = world();
        let watched = world.revocations.watch(anchors("z", ALL)).ok().unwrap();
        let elsewhere = world.revocations.watch(anchors("other", ALL)).ok().unwrap();
        world.revocations.committed(&message(KEYS_TOPIC, &[("kid", "k-2")]));
        assert!(!watched.is_revoked(), "another key of the zone");
        world.revocations.committed(&message(KEYS_TOPIC, &[("kid", "k-1")]));
        assert!(watched.is_revoked() && !elsewhere.is_revoked());
        assert!(world.revocations.watch(anchors("z", &[])).is_err(), "the key alone refuses");
        // Who missed the message finds it in the store.
        world.revocations.replace(&[]);
        let watched = world.revocations.watch(anchors("z", &[])).ok().unwrap();
        world.revocations.replace(&[anchor(AnchorKind::Key, "k-1")]);
        assert!(watched.is_revoked());
    }

    #[tokio::test]
    async fn a_revocation_sets_and_wakes_exactly_those_who_hold_the_anchor() {
        let world = world();
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(wakes.clone());
        let watched = world.revocations.watch(anchors("z", ALL)).ok().unwrap();
        let other = world.revocations.watch(anchors("z", &[("agent_session_id", "s-2")])).ok().unwrap();
        assert!(!watched.poll_revoked(&Context::from_waker(&waker)));
        world.revocations.committed(&message(REVOKE_TOPIC, &[("agent_session_id", "s-1")]));
        assert!(watched.is_revoked() && !other.is_revoked());
        assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_reading_replaces_what_was_known_but_not_what_arrived_meanwhile() {
        let world = world();
        let revocations = &world.revocations;
        // A suspension was announced, and has been lifted by the time of the reading.
        revocations.committed(&message(REVOKE_TOPIC, &[("agent_session_id", "s-1")]));
        revocations.lock().arriving = Some(Vec::new());
        revocations.committed(&message(REVOKE_TOPIC, &[("session_id", "during")]));
        let count = revocations.replace(&[anchor(AnchorKind::Edge, "stored")]);
        assert_eq!(count, 2);
        let known = |claims| revocations.watch(anchors("z", claims)).is_err();
        assert!(known(&[("sid", "during")]) && known(&[("delegation_edge_id", "stored")]));
        assert!(!known(&[("agent_session_id", "s-1")]));
    }

    #[tokio::test]
    async fn a_reading_reaches_those_under_way() {
        let world = world();
        let watched = world.revocations.watch(anchors("z", ALL)).ok().unwrap();
        world.revocations.replace(&[anchor(AnchorKind::Session, "s-2")]);
        assert!(!watched.is_revoked());
        world.revocations.replace(&[anchor(AnchorKind::Edge, "e-1")]);
        assert!(watched.is_revoked());
    }

    #[tokio::test]
    async fn after_a_pause_nothing_is_fresh_until_it_was_read_again() {
        let world = world();
        let (revocations, clock) = (&world.revocations, &world.clock);
        let fresh = || revocations.is_fresh(clock.now());
        revocations.refresh().await.unwrap();
        assert!(fresh(), "who does not beat is not asked to");
        let pause = Duration::from_millis(PAUSE_MILLIS);
        let began = Instant::now();
        assert!(!revocations.beat(began));
        assert!(!revocations.beat(began + pause), "as long as that it may be busy");
        assert!(fresh() && revocations.is_awake(began + pause * 2));
        // Nobody has looked yet, and it is refused already.
        assert!(!revocations.is_awake(began + pause * 2 + Duration::from_millis(1)));
        // A reading that began before the pause tells nothing of what happened in it.
        let pauses = revocations.pauses.load(Ordering::SeqCst);
        assert!(revocations.beat(began + pause * 4));
        assert!(!fresh());
        revocations.take(&[], clock.now(), pauses);
        assert!(!fresh() && !revocations.is_read(), "that was the state before the pause");
        revocations.refresh().await.unwrap();
        assert!(fresh() && revocations.is_read());
        assert!(!revocations.beat(began + pause * 4 + pause));
        assert!(fresh());
    }

    #[tokio::test]
    async fn the_state_is_fresh_for_seventy_seconds_after_a_reading_and_never_from_the_future() {
        let world = world();
        let fresh = || world.revocations.is_fresh(world.clock.now());
        assert!(!fresh(), "before the first reading");
        world.revocations.refresh().await.unwrap();
        for (step, expected) in [(0, true), (69, true), (1, true), (1, false), (-72, false), (1, true)] {
            world.clock.advance(step);
            assert_eq!(fresh(), expected, "after {step} s");
        }
        world.store.close().await;
        assert!(world.revocations.refresh().await.is_err());
        assert!(world.revocations.lock().arriving.is_none());
    }

    #[tokio::test]
    async fn nothing_is_left_of_a_request_that_ended() {
        let world = world();
        let one = world.revocations.watch(anchors("z", ALL)).ok().unwrap();
        let two = world.revocations.watch(anchors("z", ALL)).ok().unwrap();
        drop(one);
        world.revocations.committed(&message(REVOKE_TOPIC, &[("session_id", "r-1")]));
        assert!(two.is_revoked());
        drop(two);
        assert!(world.revocations.lock().watched.is_empty());
    }
}
