//! Rotations of a zone's key, as the store, the signer and verifiers see them, at any time and in any number.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::sync::Arc;

use caracal_authority::{Timestamp, ZoneId};
use caracal_crypto::envelope::{Kek, KekRing};
use caracal_crypto::jws::{KeySet, UnverifiedToken};
use caracal_custody::mandate::{VerifyError, verify};
use caracal_custody::{CustodyError, Rotation, SigningKeys};
use caracal_store::{Clock, ManualClock, SqliteOptions, Store};
use proptest::prelude::*;
use serde_json::json;
use tempfile::TempDir;

const START: i64 = 1_800_000_000;
/// The longest life of a mandate, and the leeway within which it is still looked at.
const LIFE: i64 = 3_600;
const LEEWAY: i64 = 60;
/// How long a verifier uses a key set.
const CACHE: i64 = 600;
/// How long a cache of HTTP may have kept it before.
const MAX_AGE: i64 = 300;

fn zone() -> ZoneId {
    ZoneId::parse("z-1").unwrap()
}

/// A zone, a signer that has been there from the start, and verifiers of every kind.
struct Place {
    clock: Arc<ManualClock>,
    store: Store,
    ring: Arc<KekRing>,
    /// Remembers what it has seen, like a process that runs for long.
    old: SigningKeys,
    _directory: TempDir,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(Timestamp::from_seconds(START)));
        let store = Store::open(&SqliteOptions::in_directory(directory.path()), clock.clone()).unwrap();
        let kek = "74190d855af0d7a58a9fd83666def0af6efb915cf14cccd8ac4a0adca6eeff31";
        let ring = Arc::new(KekRing::new(Kek::from_hex(kek).unwrap(), None));
        let old = SigningKeys::new(store.clone(), ring.clone());
        Self { clock, store, ring, old, _directory: directory }
    }

    /// Seconds since the start.
    fn now(&self) -> i64 {
        self.clock.now().as_seconds() - START
    }

    /// A process that has just been started.
    fn fresh(&self) -> SigningKeys {
        SigningKeys::new(self.store.clone(), self.ring.clone())
    }

    async fn rotate(&self) -> Result<Rotation, CustodyError> {
        let new = self.old.prepare(&zone()).unwrap();
        self.store.commit(&zone(), new, |tx, new| Box::pin(async move { new.add(tx).await })).await
    }

    /// What is signed now, and by which key.
    async fn sign(&self, by: &SigningKeys) -> Signed {
        let mut snapshot = self.store.snapshot().await.unwrap();
        let key = by.signing_key(&mut snapshot.zone(&zone())).await.unwrap().unwrap();
        let token = key.sign(&json!({"zone_id": "z-1"})).unwrap();
        Signed { kid: key.kid().as_str().to_owned(), token, at: self.now() }
    }

    async fn key_set(&self) -> Fetched {
        let document = serde_json::to_vec(&self.fresh().jwks(&zone()).await.unwrap().unwrap()).unwrap();
        assert!(document.len() <= 256 * 1024, "verifiers refuse so large a document");
        Fetched { keys: KeySet::from_jwks(&document).unwrap(), at: self.now() }
    }
}

struct Signed {
    kid: String,
    token: String,
    at: i64,
}

struct Fetched {
    keys: KeySet,
    at: i64,
}

impl Fetched {
    fn verifies(&self, signed: &Signed) -> bool {
        let token = UnverifiedToken::parse(&signed.token).unwrap();
        self.keys.get(&signed.kid).is_some_and(|key| token.verify(key).is_ok())
    }
}

mod t02_sts_key_rotation {
    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Rotate,
        Wait(i64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            2 => Just(Step::Rotate),
            2 => (0..30_i64).prop_map(Step::Wait),
            3 => prop_oneof![Just(599), Just(600), Just(959), Just(960), Just(961)].prop_map(Step::Wait),
            2 => (0..2_000_i64).prop_map(Step::Wait),
            1 => (3_000..5_000_i64).prop_map(Step::Wait),
        ];
        prop::collection::vec(step, 1..40)
    }

    /// Whatever was rotated when: one key signs; every verifier has had the time to fetch it; whatever may still be looked
    /// at verifies, with today's key set, with one of a quarter of an hour ago, in a process that is new and
    /// in one that is old; and what nobody needs is gone everywhere.
    async fn holds(steps: Vec<Step>) {
        let place = Place::new();
        place.old.create(&zone()).await.unwrap();
        let (mut signed, mut fetched) = (Vec::<Signed>::new(), Vec::<Fetched>::new());
        let (mut published, mut signs_last) = (vec![], std::collections::HashMap::new());
        for step in steps {
            match step {
                Step::Rotate => published.push((place.rotate().await.unwrap().kid.as_str().to_owned(), place.now())),
                Step::Wait(seconds) => place.clock.advance(seconds),
            }
            let now = place.now();
            let (by_old, by_fresh) = (place.sign(&place.old).await, place.sign(&place.fresh()).await);
            assert_eq!(by_old.kid, by_fresh.kid, "two keys sign at once");
            if let Some((_, at)) = published.iter().find(|(kid, _)| *kid == by_old.kid) {
                assert!(now - at > CACHE + MAX_AGE, "it signs {} s after it was published", now - at);
            }
            signs_last.insert(by_old.kid.clone(), now);
            signed.push(by_old);
            fetched.push(place.key_set().await);
            for token in signed.iter().filter(|token| now < token.at + LIFE + LEEWAY) {
                verify(&place.old, &token.token).await.unwrap();
                verify(&place.fresh(), &token.token).await.unwrap();
                for set in fetched.iter().filter(|set| now - set.at <= CACHE + MAX_AGE) {
                    assert!(set.verifies(token), "signed at {}, fetched at {}, now {now}", token.at, set.at);
                }
            }
            // When its successor took its turn is at most one step after it last signed here; from the next look on which
            // another signs, the end of the key is known.
            let current = &signed.last().unwrap().kid;
            for (kid, _) in signs_last.iter().filter(|(kid, _)| *kid != current) {
                let since = signed
                    .iter()
                    .find(|token| token.at > signs_last[kid] || (token.at == signs_last[kid] && token.kid != *kid));
                if since.is_some_and(|next| now >= next.at + LIFE + LEEWAY + CACHE) {
                    let token = signed.iter().find(|token| token.kid == *kid).unwrap();
                    assert!(!fetched.last().unwrap().verifies(token), "{kid} is still published");
                    for keys in [&place.old, &place.fresh()] {
                        assert!(
                            matches!(verify(keys, &token.token).await, Err(VerifyError::UnknownKey)),
                            "{kid} is believed"
                        );
                    }
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

        #[test]
        fn at_every_instant_one_key_signs_and_all_that_lives_verifies(steps in steps()) {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
            runtime.block_on(holds(steps));
        }
    }

    #[tokio::test]
    async fn any_number_of_rotations_within_a_day_keeps_every_key_in_use() {
        let place = Place::new();
        place.old.create(&zone()).await.unwrap();
        let mut signed = Vec::new();
        for _ in 0..48 {
            place.rotate().await.unwrap();
            place.clock.advance(960);
            signed.push(place.sign(&place.old).await);
            let set = place.key_set().await;
            let now = place.now();
            for token in signed.iter().filter(|token| now < token.at + LIFE + LEEWAY) {
                assert!(set.verifies(token));
            }
        }
        let kids: std::collections::HashSet<_> = signed.iter().map(|token| &token.kid).collect();
        assert_eq!(kids.len(), 48);
    }

    #[tokio::test]
    async fn a_process_that_remembers_a_key_lets_it_go_like_all_others() {
        let place = Place::new();
        place.old.create(&zone()).await.unwrap();
        let token = place.sign(&place.old).await;
        // Looked at again and again: memory must not be refreshed by use.
        for minute in 0..=100 {
            if minute == 5 {
                place.rotate().await.unwrap();
            }
            let believed = verify(&place.old, &token.token).await;
            // Published at 5, its successor signs from 21 on; what was signed just before may be presented until 82.
            let expected = minute < 92;
            assert_eq!(believed.is_ok(), expected, "minute {minute}");
            place.clock.advance(60);
        }
    }

    #[tokio::test]
    async fn a_zone_without_a_key_gets_one_that_signs_at_once() {
        let place = Place::new();
        let made = place.rotate().await.unwrap();
        assert_eq!(place.sign(&place.fresh()).await.kid, made.kid.as_str());
        // The clock of another replica may be a moment behind.
        place.clock.advance(-3);
        assert_eq!(place.sign(&place.fresh()).await.kid, made.kid.as_str());
        place.old.create(&zone()).await.unwrap();
        assert_eq!(place.sign(&place.old).await.kid, made.kid.as_str(), "a key that is there is not made again");
    }

    #[tokio::test]
    async fn a_key_set_never_outgrows_what_verifiers_read() {
        let place = Place::new();
        place.old.create(&zone()).await.unwrap();
        for _ in 1..256 {
            place.rotate().await.unwrap();
        }
        place.key_set().await;
        let Err(CustodyError::Crowded { retry_after, .. }) = place.rotate().await else { panic!("one too many") };
        place.clock.advance(i64::try_from(retry_after.as_secs()).unwrap());
        place.rotate().await.unwrap();
        assert!(place.key_set().await.keys.get(&place.sign(&place.old).await.kid).is_some());
    }

    /// Nobody is kept from presenting ids of keys that do not exist; the store is asked once for each.
    #[tokio::test]
    async fn an_unknown_key_is_looked_for_once_and_again_after_a_while() {
        let place = Place::new();
        place.old.create(&zone()).await.unwrap();
        let later = place.old.prepare(&zone()).unwrap();
        let kid = "01890a5d-ac96-774b-bcce-b302099a8057";
        assert!(place.old.verification_key(&zone(), kid).await.unwrap().is_none());
        place.store.close().await;
        drop(later);
        assert!(place.old.verification_key(&zone(), kid).await.unwrap().is_none(), "remembered as unknown");
        place.clock.advance(30);
        assert!(place.old.verification_key(&zone(), kid).await.is_err(), "the store is asked again, and is closed");
        // Another id of the same zone is another question: a flood of unknown ids holds no new key back.
        assert!(place.old.verification_key(&zone(), "another").await.is_err());
    }
}
