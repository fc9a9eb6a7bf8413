//! A provider that keeps failing is left alone for a while (contract: sts.md §10.4): five failures within five minutes,
//! counted from the first, and nobody asks it for thirty seconds. A success forgets them. What comes after the pause is
//! a probe: one more failure within the five minutes, and it is left alone again.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use caracal_authority::Timestamp;

const FAILURES: u32 = 5;
const WITHIN: Duration = Duration::from_secs(300);
const PAUSE: Duration = Duration::from_secs(30);
/// From so many providers on, those whose failures are over are forgotten.
const TIDY_FROM: usize = 1_024;

struct Failing {
    since: Timestamp,
    count: u32,
    closed_from: Timestamp,
}

/// One circuit for each key.
pub(crate) struct Circuits<K>(Mutex<HashMap<K, Failing>>);

impl<K> Default for Circuits<K> {
    fn default() -> Self {
        Self(Mutex::new(HashMap::new()))
    }
}

impl<K: Hash + Eq> Circuits<K> {
    pub(crate) fn is_open(&self, key: &K, now: Timestamp) -> bool {
        self.lock().get(key).is_some_and(|failing| now < failing.closed_from)
    }

    /// Whether this failure opened it.
    pub(crate) fn failed(&self, key: K, now: Timestamp) -> bool {
        let mut circuits = self.lock();
        if circuits.len() >= TIDY_FROM {
            circuits.retain(|_, failing| failing.since.until(now) <= WITHIN || now < failing.closed_from);
        }
        let fresh = || Failing { since: now, count: 0, closed_from: Timestamp::EPOCH };
        let failing = circuits.entry(key).or_insert_with(fresh);
        if failing.since.until(now) > WITHIN {
            *failing = fresh();
        }
        failing.count = failing.count.saturating_add(1);
        if failing.count >= FAILURES {
            failing.closed_from = now.plus(PAUSE);
        }
        failing.count >= FAILURES
    }

    pub(crate) fn succeeded(&self, key: &K) {
        self.lock().remove(key);
    }

    /// A panic inside can't have left half an entry.
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<K, Failing>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(1_000_000 + seconds)
    }

    #[test]
    fn five_failures_open_it_for_half_a_minute() {
        let circuits = Circuits::default();
        for second in 0..4 {
            assert!(!circuits.failed("p", at(second)));
            assert!(!circuits.is_open(&"p", at(second)));
        }
        assert!(circuits.failed("p", at(4)));
        assert!(circuits.is_open(&"p", at(4)) && circuits.is_open(&"p", at(33)) && !circuits.is_open(&"p", at(34)));
        assert!(!circuits.is_open(&"q", at(4)));
        // The probe fails.
        assert!(circuits.failed("p", at(34)) && circuits.is_open(&"p", at(63)));
    }

    #[test]
    fn failures_count_from_the_first_and_a_success_forgets_them() {
        let circuits = Circuits::default();
        for second in [0, 100, 200, 300] {
            circuits.failed("p", at(second));
        }
        assert!(!circuits.failed("p", at(301)));
        for second in [302, 303, 304] {
            assert!(!circuits.failed("p", at(second)));
        }
        circuits.succeeded(&"p");
        assert!(!circuits.failed("p", at(305)));
    }
}
