//! Mandates this process has seen used up, so that the next presentation is refused without an exchange (contract:
//! gateway.md §9, README D35).
//!
//! It only answers sooner: whether a mandate is used is decided by the store, in the commit of the exchange. Forgetting
//! here admits nothing, and what is remembered is never wrong, because nothing un-uses a mandate.

use std::collections::hash_map::RandomState;
use std::collections::{HashSet, VecDeque};
use std::hash::BuildHasher;
use std::sync::{Mutex, MutexGuard, PoisonError};

use caracal_authority::{MandateId, ZoneId};

/// Mandates remembered; the oldest give way.
const REMEMBERED: usize = 65_536;

/// The memory. Each mandate is kept as 128 bits of two keyed hashes: no two genuine ids ever share them.
pub(crate) struct Spent {
    hashers: (RandomState, RandomState),
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    keys: HashSet<(u64, u64)>,
    order: VecDeque<(u64, u64)>,
}

impl Spent {
    pub(crate) fn new() -> Self {
        Self { hashers: (RandomState::new(), RandomState::new()), seen: Mutex::default() }
    }

    /// Whether the mandate is known to be used up.
    pub(crate) fn knows(&self, zone: &ZoneId, jti: &MandateId) -> bool {
        self.lock().keys.contains(&self.key(zone, jti))
    }

    /// The store said that the mandate is used up.
    pub(crate) fn note(&self, zone: &ZoneId, jti: &MandateId) {
        let key = self.key(zone, jti);
        let mut seen = self.lock();
        if !seen.keys.insert(key) {
            return;
        }
        seen.order.push_back(key);
        if seen.order.len() > REMEMBERED
            && let Some(oldest) = seen.order.pop_front()
        {
            seen.keys.remove(&oldest);
        }
    }

    fn key(&self, zone: &ZoneId, jti: &MandateId) -> (u64, u64) {
        let both = (zone, jti);
        (self.hashers.0.hash_one(both), self.hashers.1.hash_one(both))
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod t03_gateway_replay {
    use super::*;

    #[test]
    fn a_used_mandate_is_known_in_its_zone_only_and_memory_is_bounded() {
        let spent = Spent::new();
        let (a, b) = (ZoneId::parse("a").unwrap(), ZoneId::parse("b").unwrap());
        let jti = |n: usize| MandateId::parse(&format!("m-{n}")).unwrap();
        spent.note(&a, &jti(0));
        spent.note(&a, &jti(0));
        assert!(spent.knows(&a, &jti(0)) && !spent.knows(&b, &jti(0)) && !spent.knows(&a, &jti(1)));
        (1..=REMEMBERED).for_each(|n| spent.note(&a, &jti(n)));
        assert!(!spent.knows(&a, &jti(0)) && spent.knows(&a, &jti(1)) && spent.knows(&a, &jti(REMEMBERED)));
        let seen = spent.lock();
        assert_eq!((seen.keys.len(), seen.order.len()), (REMEMBERED, REMEMBERED));
    }
}
