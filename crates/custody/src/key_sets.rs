//! The keys of all zones, as a process knows them that holds no key-encryption key.
//!
//! A Gateway is what strangers talk to first. If it could open what the store has sealed, whoever takes it over could sign
//! mandates for every zone. So it is given the public halves by the STS, as every verifier is (contract: sts.md §6), and
//! the STS publishes only those whose sealed halves it can open: somebody who can write to the store, and no more, can't
//! have a key of their own believed.
//!
//! A set is used for five minutes, and for ten when the STS does not answer; a key is published longer than that before it
//! signs. Only who shows a `kid` that is in no set makes us ask at once: one question for each zone at a time, which
//! answers all who wait for it, [`AT_ONCE`] in all, and no second one for that `kid` within [`COOL_DOWN`]. A `kid` is chance
//! that nobody guesses, so what strangers make up keeps nobody else's key out.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use caracal_authority::{Timestamp, ZoneId};
use caracal_crypto::jws::{KeySet, PublicKey};
use caracal_store::{BoxFuture, Clock};
use tokio::sync::Mutex as Turnstile;

use crate::CustodyError;
use crate::schedule::CACHE_PERIOD;

/// Whoever knows the public keys of zones.
pub trait VerificationKeys: Send + Sync + 'static {
    /// The public key that `kid` names in `zone`; `None` when the zone has no such key, or has it no more. An error is
    /// no verdict: the keys could not be had.
    fn verification_key<'a>(
        &'a self,
        zone: &'a ZoneId,
        kid: &'a str,
    ) -> BoxFuture<'a, Result<Option<PublicKey>, CustodyError>>;

    /// Forgets what is known of the keys of `zone`, because one of them was withdrawn. What is being read meanwhile is not
    /// remembered either.
    fn forget(&self, zone: &ZoneId);
}

/// Where key sets come from.
pub trait FetchKeySet: Send + Sync + 'static {
    /// The published document of `zone`; `None` when it has none. The document is no longer than a verifier takes.
    fn fetch<'a>(&'a self, zone: &'a ZoneId) -> BoxFuture<'a, Result<Option<Vec<u8>>, KeySetUnreachable>>;
}

/// The STS did not answer, or with something else than a key set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the sts publishes the zone's keys and can't be reached")]
pub struct KeySetUnreachable;

/// Within this a set that is at hand is used without asking (contract: gateway.md §8).
const FRESH: Duration = Duration::from_secs(300);
/// Who finds the STS away does not ask it again within this.
const AWAY: Duration = Duration::from_secs(1);
/// A `kid` that is in no set is not asked for again within this.
const COOL_DOWN: Duration = Duration::from_secs(30);
/// How often one question is put again because keys were withdrawn while it was under way.
const OVERTAKEN: usize = 3;
/// Questions under way at a time.
const AT_ONCE: usize = 64;
/// Zones, and unknown keys, remembered at most; beyond it the memory starts afresh.
const REMEMBERED: usize = 16_384;

/// Key sets that were fetched.
pub struct KeySets {
    source: Arc<dyn FetchKeySet>,
    clock: Arc<dyn Clock>,
    sets: RwLock<HashMap<ZoneId, Fetched>>,
    unknown: Mutex<HashMap<(ZoneId, String), Timestamp>>,
    hasher: RandomState,
    /// A zone's questions pass one of these, each with the time of its last failure.
    turnstiles: [Turnstile<Option<Timestamp>>; AT_ONCE],
    /// How often somebody was told to forget, counted under the lock of `sets`.
    forgotten: AtomicU64,
}

struct Fetched {
    set: KeySet,
    at: Timestamp,
}

/// What is known without asking.
enum AtHand {
    /// The answer.
    Known(Option<PublicKey>),
    /// It is time to ask; until there is an answer, this one stands.
    Stale(PublicKey),
    Nothing,
}

impl KeySets {
    /// Sets from `source`, which have the age that `clock` says.
    pub fn new(source: Arc<dyn FetchKeySet>, clock: Arc<dyn Clock>) -> Self {
        let turnstiles = std::array::from_fn(|_| Turnstile::new(None));
        let (sets, unknown) = (RwLock::default(), Mutex::default());
        let forgotten = AtomicU64::new(0);
        Self { source, clock, sets, unknown, hasher: RandomState::new(), turnstiles, forgotten }
    }

    fn at_hand(&self, zone: &ZoneId, kid: &str) -> AtHand {
        let now = self.clock.now();
        let sets = self.sets.read().unwrap_or_else(PoisonError::into_inner);
        // A clock that was put back would else make a set last for longer.
        let within = |at: Timestamp, age: Duration| at <= now && now < at.plus(age);
        if let Some(Fetched { set, at }) = sets.get(zone) {
            match set.get(kid) {
                Some(key) if within(*at, FRESH) => return AtHand::Known(Some(key.clone())),
                Some(key) if within(*at, CACHE_PERIOD) => return AtHand::Stale(key.clone()),
                _ => {}
            }
        }
        drop(sets);
        let unknown = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        match unknown.get(&(zone.clone(), kid.to_owned())) {
            Some(since) if within(*since, COOL_DOWN) => AtHand::Known(None),
            _ => AtHand::Nothing,
        }
    }

    fn was_fetched_after(&self, zone: &ZoneId, arrived: Timestamp) -> bool {
        self.sets.read().unwrap_or_else(PoisonError::into_inner).get(zone).is_some_and(|fetched| arrived < fetched.at)
    }

    async fn find(&self, zone: &ZoneId, kid: &str) -> Result<Option<PublicKey>, CustodyError> {
        let (arrived, begun) = (self.clock.now(), self.forgotten.load(Ordering::Acquire));
        let mut known = match self.at_hand(zone, kid) {
            AtHand::Known(answer) => return Ok(answer),
            AtHand::Stale(key) => Some(key),
            AtHand::Nothing => None,
        };
        let turnstile = &self.turnstiles[self.turnstile_of(zone)];
        let mut last_failure = match (turnstile.try_lock(), known.take()) {
            (Ok(passed), stale) => {
                known = stale;
                passed
            }
            // Somebody asks already.
            (Err(_), Some(key)) => return Ok(Some(key)),
            (Err(_), None) => turnstile.lock().await,
        };
        // Who was before us may have asked for the same, and a question that was put after we came answers ours, too.
        if let AtHand::Known(answer) = self.at_hand(zone, kid) {
            return Ok(answer);
        }
        if self.was_fetched_after(zone, arrived) {
            return Ok(None);
        }
        let unreachable = || CustodyError::Unreachable(KeySetUnreachable);
        let now = self.clock.now();
        if last_failure.is_some_and(|at| at <= now && now < at.plus(AWAY)) {
            let known = known.filter(|_| self.forgotten.load(Ordering::Acquire) == begun);
            return known.map(Some).ok_or_else(unreachable);
        }
        let mut fetched = None;
        for _ in 0..OVERTAKEN {
            let asked_at = self.forgotten.load(Ordering::Acquire);
            let Ok(document) = self.source.fetch(zone).await else {
                *last_failure = Some(self.clock.now());
                // What was known when we came may have been withdrawn since.
                let known = known.filter(|_| self.forgotten.load(Ordering::Acquire) == begun);
                return known.map(Some).ok_or_else(unreachable);
            };
            // As old as the question: the answer may have been on its way for a while.
            fetched = self.keep(zone, document, now, asked_at);
            if fetched.is_some() {
                break;
            }
        }
        let key = fetched.ok_or_else(unreachable)?.and_then(|set| set.get(kid).cloned());
        if key.is_none() {
            let mut unknown = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
            if unknown.len() >= REMEMBERED {
                unknown.clear();
            }
            unknown.insert((zone.clone(), kid.to_owned()), now);
        }
        Ok(key)
    }

    /// Puts what was fetched in the place of what was there. A document without a usable key is no reason to keep an
    /// older one. `None`: keys were withdrawn since it was asked for, and may still be in it.
    fn keep(&self, zone: &ZoneId, document: Option<Vec<u8>>, at: Timestamp, asked_at: u64) -> Option<Option<KeySet>> {
        let set = document.and_then(|document| {
            let read = KeySet::from_jwks(&document);
            read.inspect_err(|error| tracing::error!(zone_id = %zone, %error, "a published key set can't be used")).ok()
        });
        let mut sets = self.sets.write().unwrap_or_else(PoisonError::into_inner);
        if self.forgotten.load(Ordering::Acquire) != asked_at {
            return None;
        }
        let Some(set) = set else {
            sets.remove(zone);
            return Some(None);
        };
        if sets.len() >= REMEMBERED {
            sets.clear();
        }
        sets.insert(zone.clone(), Fetched { set: set.clone(), at });
        Some(Some(set))
    }

    fn turnstile_of(&self, zone: &(impl Hash + ?Sized)) -> usize {
        usize::try_from(self.hasher.hash_one(zone) % AT_ONCE as u64).unwrap_or_default()
    }
}

impl VerificationKeys for KeySets {
    fn verification_key<'a>(
        &'a self,
        zone: &'a ZoneId,
        kid: &'a str,
    ) -> BoxFuture<'a, Result<Option<PublicKey>, CustodyError>> {
        Box::pin(self.find(zone, kid))
    }
    fn forget(&self, zone: &ZoneId) {
        let mut sets = self.sets.write().unwrap_or_else(PoisonError::into_inner);
        self.forgotten.fetch_add(1, Ordering::AcqRel);
        sets.remove(zone);
        drop(sets);
        // The key that took the others' place may have been asked for before it was there.
        self.unknown.lock().unwrap_or_else(PoisonError::into_inner).retain(|(of, _), _| of != zone);
    }
}
