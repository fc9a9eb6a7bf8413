//! Key sets that are fetched: how often, for how long they are believed, and what an outage means.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use caracal_authority::{Timestamp, ZoneId};
use caracal_crypto::jws::{Jwk, Jwks, SigningKey};
use caracal_custody::{FetchKeySet, KeySetUnreachable, KeySets, VerificationKeys};
use caracal_store::{BoxFuture, ManualClock, SystemClock};

/// What the STS says, and how often it was asked.
#[derive(Default)]
struct Sts {
    says: Mutex<Option<Result<Option<Vec<u8>>, KeySetUnreachable>>>,
    asked: AtomicUsize,
}

impl FetchKeySet for Sts {
    fn fetch<'a>(&'a self, _: &'a ZoneId) -> BoxFuture<'a, Result<Option<Vec<u8>>, KeySetUnreachable>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            // Others come meanwhile.
            tokio::task::yield_now().await;
            self.says.lock().unwrap().clone().unwrap()
        })
    }
}

struct World {
    sts: Arc<Sts>,
    clock: Arc<ManualClock>,
    sets: Arc<KeySets>,
    key: SigningKey,
}

fn zone(name: &str) -> ZoneId {
    ZoneId::parse(name).unwrap()
}

impl World {
    fn new() -> Self {
        let (sts, clock) =
            (Arc::new(Sts::default()), Arc::new(ManualClock::at(Timestamp::from_seconds(1_800_000_000))));
        let sets = Arc::new(KeySets::new(sts.clone(), clock.clone()));
        let world = Self { sts, clock, sets, key: SigningKey::generate().unwrap().0 };
        world.publishes(&["k-1"]);
        world
    }

    fn says(&self, what: Result<Option<Vec<u8>>, KeySetUnreachable>) {
        *self.sts.says.lock().unwrap() = Some(what);
    }

    fn publishes(&self, kids: &[&str]) {
        let keys = kids.iter().map(|kid| Jwk::new(kid, self.key.public())).collect();
        self.says(Ok(Some(serde_json::to_vec(&Jwks { keys }).unwrap())));
    }

    /// Whether `kid` is believed; none when nobody knows.
    async fn believes(&self, kid: &str) -> Option<bool> {
        self.sets.verification_key(&zone("z-1"), kid).await.ok().map(|key| key.as_ref() == Some(self.key.public()))
    }

    fn asked(&self) -> usize {
        self.sts.asked.swap(0, Ordering::SeqCst)
    }
}

/// Says what it said before, while somebody is told to forget.
struct Overtaken {
    sets: Mutex<Option<Arc<KeySets>>>,
    says: Vec<Vec<u8>>,
    asked: AtomicUsize,
    /// So many times.
    times: usize,
}

impl FetchKeySet for Overtaken {
    fn fetch<'a>(&'a self, zone: &'a ZoneId) -> BoxFuture<'a, Result<Option<Vec<u8>>, KeySetUnreachable>> {
        Box::pin(async move {
            let number = self.asked.fetch_add(1, Ordering::SeqCst);
            if number < self.times {
                self.sets.lock().unwrap().as_ref().unwrap().forget(zone);
            }
            Ok(Some(self.says[number.min(self.says.len() - 1)].clone()))
        })
    }
}

mod t02_sts_emergency_rotation {
    use super::*;

    #[tokio::test]
    async fn a_withdrawn_key_is_forgotten_at_once_and_asked_for_once() {
        let world = World::new();
        assert_eq!((world.believes("k-1").await, world.asked()), (Some(true), 1));
        world.publishes(&["k-2"]);
        assert_eq!((world.believes("k-1").await, world.asked()), (Some(true), 0), "nobody was told yet");
        world.sets.forget(&zone("z-1"));
        assert_eq!((world.believes("k-1").await, world.asked()), (Some(false), 1));
        assert_eq!((world.believes("k-2").await, world.asked()), (Some(true), 0));
        // Another zone is none of its business.
        world.sets.forget(&zone("z-2"));
        assert_eq!((world.believes("k-2").await, world.asked()), (Some(true), 0));
    }

    #[tokio::test]
    async fn while_the_sts_is_away_a_withdrawn_key_is_not_believed_for_that() {
        let world = World::new();
        assert_eq!(world.believes("k-1").await, Some(true));
        world.sets.forget(&zone("z-1"));
        world.says(Err(KeySetUnreachable));
        assert_eq!(world.believes("k-1").await, None, "nobody knows, so nobody is let in");
    }

    /// The new key was asked for before it was there: that memory goes, too.
    #[tokio::test]
    async fn the_new_key_is_not_kept_out_by_who_asked_for_it_too_early() {
        let world = World::new();
        assert_eq!(world.believes("k-2").await, Some(false));
        world.publishes(&["k-2"]);
        assert_eq!(world.believes("k-2").await, Some(false), "remembered as unknown");
        world.sets.forget(&zone("z-1"));
        assert_eq!(world.believes("k-2").await, Some(true));
    }

    /// What was asked for before the withdrawal may still name the withdrawn key, and must not be kept.
    #[tokio::test]
    async fn an_answer_that_a_withdrawal_overtook_is_asked_for_again() {
        let key = SigningKey::generate().unwrap().0;
        let document = |kid| serde_json::to_vec(&Jwks { keys: vec![Jwk::new(kid, key.public())] }).unwrap();
        for (times, believed) in [(1, Some(false)), (2, Some(false)), (3, None)] {
            let says = (0..times).map(|_| document("k-1")).chain([document("k-2")]).collect();
            let source = Arc::new(Overtaken { sets: Mutex::default(), says, asked: AtomicUsize::new(0), times });
            let sets = Arc::new(KeySets::new(source.clone(), Arc::new(SystemClock)));
            *source.sets.lock().unwrap() = Some(sets.clone());
            let found = sets.verification_key(&zone("z-1"), "k-1").await;
            assert_eq!(found.ok().map(|key| key.is_some()), believed, "overtaken {times} times");
        }
    }
}

mod t03_gateway_keys {
    use super::*;

    #[tokio::test]
    async fn a_set_is_used_for_five_minutes_without_asking() {
        let world = World::new();
        assert_eq!(world.believes("k-1").await, Some(true));
        world.clock.advance(299);
        assert_eq!(world.believes("k-1").await, Some(true));
        assert_eq!(world.asked(), 1);
        world.clock.advance(1);
        assert_eq!(world.believes("k-1").await, Some(true));
        assert_eq!(world.asked(), 1);
    }

    #[tokio::test]
    async fn an_old_set_stands_in_for_an_sts_that_is_away_until_ten_minutes_and_never_longer() {
        let world = World::new();
        assert_eq!(world.believes("k-1").await, Some(true));
        world.says(Err(KeySetUnreachable));
        for (seconds, believed) in [(300, Some(true)), (299, Some(true)), (1, None), (3_600, None)] {
            world.clock.advance(seconds);
            assert_eq!(world.believes("k-1").await, believed);
        }
        world.publishes(&["k-1"]);
        world.clock.advance(1);
        assert_eq!(world.believes("k-1").await, Some(true));
    }

    #[tokio::test]
    async fn a_key_that_is_withdrawn_is_believed_for_five_minutes_at_most() {
        let world = World::new();
        assert_eq!(world.believes("k-1").await, Some(true));
        world.publishes(&["k-2"]);
        world.clock.advance(300);
        assert_eq!(world.believes("k-1").await, Some(false));
        assert_eq!(world.believes("k-2").await, Some(true));
    }

    #[tokio::test]
    async fn a_rotated_key_is_accepted_at_its_first_use_whatever_strangers_make_up() {
        let world = World::new();
        assert_eq!(world.believes("k-1").await, Some(true));
        for made_up in 0..50 {
            assert_eq!(world.believes(&format!("made-up-{made_up}")).await, Some(false));
        }
        world.asked();
        world.publishes(&["k-2", "k-1"]);
        assert_eq!(world.believes("k-2").await, Some(true));
        assert_eq!(world.believes("made-up-0").await, Some(false));
        assert_eq!(world.asked(), 1);
    }

    #[tokio::test]
    async fn one_question_answers_all_who_wait_for_it() {
        let world = World::new();
        let sets = Arc::new(KeySets::new(world.sts.clone(), Arc::new(SystemClock)));
        let calls: Vec<_> = (0..50)
            .map(|made_up| {
                let sets = sets.clone();
                tokio::spawn(async move {
                    sets.verification_key(&zone("z-1"), &format!("made-up-{made_up}")).await.unwrap().is_none()
                })
            })
            .collect();
        for call in calls {
            assert!(call.await.unwrap());
        }
        // The first was put before all had come, the second after.
        assert!((1..=3).contains(&world.asked()));
    }

    #[tokio::test]
    async fn a_kid_that_is_in_no_set_is_asked_for_once_in_thirty_seconds() {
        let world = World::new();
        world.says(Ok(None));
        for (seconds, asked) in [(0, 1), (29, 0), (1, 1)] {
            world.clock.advance(seconds);
            assert_eq!(world.believes("k-1").await, Some(false));
            assert_eq!(world.asked(), asked);
        }
        // A zone's first key is accepted at once, though strangers named the zone before it had any.
        world.publishes(&["k-first"]);
        assert_eq!(world.believes("k-first").await, Some(true));
    }

    #[tokio::test]
    async fn callers_who_come_together_ask_once() {
        let world = Arc::new(World::new());
        let calls: Vec<_> = (0..50)
            .map(|_| {
                let world = world.clone();
                tokio::spawn(async move { world.believes("k-1").await })
            })
            .collect();
        for call in calls {
            assert_eq!(call.await.unwrap(), Some(true));
        }
        assert_eq!(world.asked(), 1);
    }

    #[tokio::test]
    async fn an_outage_is_no_verdict_and_those_who_wait_do_not_ask_again() {
        let world = Arc::new(World::new());
        world.says(Err(KeySetUnreachable));
        let calls: Vec<_> = (0..50)
            .map(|_| {
                let world = world.clone();
                tokio::spawn(async move { world.believes("k-1").await })
            })
            .collect();
        for call in calls {
            assert_eq!(call.await.unwrap(), None);
        }
        assert_eq!(world.asked(), 1);
        world.publishes(&["k-1"]);
        world.clock.advance(1);
        assert_eq!(world.believes("k-1").await, Some(true));
    }

    #[tokio::test]
    async fn a_set_without_a_usable_key_keeps_no_older_one() {
        for document in ["", "[]", "{\"keys\":[]}", r#"{"keys":[{"kty":"RSA","kid":"k-1"}]}"#] {
            let world = World::new();
            assert_eq!(world.believes("k-1").await, Some(true));
            world.says(Ok(Some(document.as_bytes().to_vec())));
            world.clock.advance(300);
            assert_eq!(world.believes("k-1").await, Some(false), "{document}");
        }
    }

    #[tokio::test]
    async fn a_clock_that_is_put_back_makes_no_set_last_longer() {
        let world = World::new();
        assert_eq!(world.believes("k-1").await, Some(true));
        world.publishes(&["k-2"]);
        world.clock.advance(-100_000);
        assert_eq!(world.believes("k-1").await, Some(false));
    }
}
