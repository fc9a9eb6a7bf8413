//! Counting in one process: fixed windows and the back-off of credential guessing (contract: sts.md §12, README D7, D17).
//!
//! Who sends requests chooses the keys: client ids, addresses. So memory must not depend on them. A key is kept as a
//! 64-bit keyed hash, whatever its length; at most `max_keys` are remembered, and the oldest give way. Two keys that
//! collide would share a budget, which only ever limits sooner.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use caracal_authority::Timestamp;
use http::HeaderMap;

/// Keys remembered unless told otherwise: about 4 MiB.
pub const DEFAULT_MAX_KEYS: usize = 65_536;

/// Whether one more is within the limit.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Allowed,
    /// Refuse with 429.
    Limited {
        /// When trying again can succeed; what `Retry-After` says.
        retry_after: Duration,
    },
}

impl Verdict {
    /// Whether to go on.
    pub fn is_allowed(self) -> bool {
        self == Self::Allowed
    }

    /// `Err` with the time to wait when limited, for `?`.
    pub fn into_result(self) -> Result<(), Duration> {
        match self {
            Self::Allowed => Ok(()),
            Self::Limited { retry_after } => Err(retry_after),
        }
    }
}

/// At most so many hits per key and window. A window begins with the key's first hit and is not prolonged by later ones.
pub struct FixedWindow {
    window: Duration,
    hasher: RandomState,
    slots: Mutex<Slots>,
}

impl FixedWindow {
    /// Windows of `window`, for at most `max_keys` keys at a time.
    pub fn new(window: Duration, max_keys: usize) -> Self {
        Self { window, hasher: RandomState::new(), slots: Mutex::new(Slots::new(max_keys, window)) }
    }

    /// Windows of a minute, the contract's usual.
    pub fn per_minute() -> Self {
        Self::new(Duration::from_secs(60), DEFAULT_MAX_KEYS)
    }

    /// Counts one hit of `key`, refused ones included, and says whether it is among the first `limit` of its window.
    /// A limit of 0 allows nothing: where the contract says that 0 switches a limit off, do not call.
    pub fn hit(&self, key: &(impl Hash + ?Sized), limit: u32, now: Timestamp) -> Verdict {
        let slot = self.count(key, now);
        if slot.count <= limit { Verdict::Allowed } else { slot.limited(self.window, now) }
    }

    /// Counts one hit of `key`, and gives the window it fell into.
    pub fn count(&self, key: &(impl Hash + ?Sized), now: Timestamp) -> Slot {
        let mut slots = lock(&self.slots);
        let slot = slots.live_or_new(self.hasher.hash_one(key), self.window, now);
        slot.count = slot.count.saturating_add(1);
        *slot
    }

    /// Goes on with a window that was begun elsewhere. Tell of the oldest first.
    pub fn resume(&self, key: &(impl Hash + ?Sized), slot: Slot) {
        lock(&self.slots).begin(self.hasher.hash_one(key), slot);
    }

    /// What [`hit`](Self::hit) would say, without counting.
    pub fn peek(&self, key: &(impl Hash + ?Sized), limit: u32, now: Timestamp) -> Verdict {
        let slots = lock(&self.slots);
        match slots.live(self.hasher.hash_one(key), self.window, now) {
            Some(slot) if slot.count >= limit => slot.limited(self.window, now),
            None if limit == 0 => Verdict::Limited { retry_after: self.window },
            _ => Verdict::Allowed,
        }
    }
}

/// Back-off after failed credentials: more than `limit` failures within a window block the key for a while, the right
/// credential included. Successes are never counted, and neither should an outage be.
pub struct Backoff {
    limit: u32,
    window: Duration,
    block: Duration,
    hasher: RandomState,
    slots: Mutex<Slots>,
}

impl Backoff {
    /// More than `limit` failures within `window` block for `block`.
    pub fn new(limit: u32, window: Duration, block: Duration, max_keys: usize) -> Self {
        let slots = Mutex::new(Slots::new(max_keys, window.max(block)));
        Self { limit, window, block, hasher: RandomState::new(), slots }
    }

    /// The contract's numbers: more than 60 failures within 60 s block for 60 s. Key it by (application, [`Source`]),
    /// so that nobody locks out an application from elsewhere.
    pub fn for_credentials() -> Self {
        Self::new(60, Duration::from_secs(60), Duration::from_secs(60), DEFAULT_MAX_KEYS)
    }

    /// Whether `key` may try a credential. Ask before deriving anything from the secret.
    pub fn check(&self, key: &(impl Hash + ?Sized), now: Timestamp) -> Verdict {
        let slots = lock(&self.slots);
        match slots.live(self.hasher.hash_one(key), self.block, now) {
            Some(slot) if slot.blocked => slot.limited(self.block, now),
            _ => Verdict::Allowed,
        }
    }

    /// Counts a failure of `key`. Limited when this failure is one too many, which then is the answer to give.
    pub fn failed(&self, key: &(impl Hash + ?Sized), now: Timestamp) -> Verdict {
        self.verdict(self.count(key, now), now)
    }

    /// Counts a failure of `key`, and gives what stands against it now. A block is not prolonged by further failures.
    pub fn count(&self, key: &(impl Hash + ?Sized), now: Timestamp) -> Slot {
        let key = self.hasher.hash_one(key);
        let mut slots = lock(&self.slots);
        if let Some(slot) = slots.live(key, self.block, now).filter(|slot| slot.blocked) {
            return *slot;
        }
        let slot = slots.live_or_new(key, self.window, now);
        slot.count = slot.count.saturating_add(1);
        if slot.count <= self.limit {
            return *slot;
        }
        let block = Slot { born: now, count: 0, blocked: true };
        slots.begin(key, block);
        block
    }

    /// The verdict that `slot` means at `now`.
    pub fn verdict(&self, slot: Slot, now: Timestamp) -> Verdict {
        if slot.blocked && slot.lives(self.block, now) { slot.limited(self.block, now) } else { Verdict::Allowed }
    }

    /// Goes on with what was counted elsewhere. Tell of the oldest first.
    pub fn resume(&self, key: &(impl Hash + ?Sized), slot: Slot) {
        lock(&self.slots).begin(self.hasher.hash_one(key), slot);
    }
}

/// Where a request comes from, as far as one holder of addresses goes: an IPv4 address, or the /64 of an IPv6 address,
/// within which anybody can have as many addresses as they like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source(IpAddr);

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
            v4 => v4,
        })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Source {
    /// Where a request comes from: the `peer` of its connection or, behind a proxy that is trusted, what that proxy
    /// wrote: the last address of the last `X-Forwarded-For`. Anything before it is the caller's own claim, and a caller
    /// who may choose the address it is counted under is not limited at all.
    pub fn of(headers: &HeaderMap, peer: Option<IpAddr>, trust_proxy: bool) -> Option<Self> {
        let forwarded = || {
            let line = headers.get_all("x-forwarded-for").iter().next_back()?.to_str().ok()?;
            line.rsplit(',').next()?.trim().parse().ok()
        };
        let address = if trust_proxy { forwarded().or(peer) } else { peer };
        address.map(Self::from)
    }
}

/// What is known of one key: how often it was since when, or that it is blocked since then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// When the window, or the block, began.
    pub born: Timestamp,
    /// Hits or failures since.
    pub count: u32,
    /// Whether nothing is allowed until a block has passed.
    pub blocked: bool,
}

impl Slot {
    fn lives(&self, life: Duration, now: Timestamp) -> bool {
        // Callers read the clock before they get the lock, so `now` may lie a little before `born`. A whole life before
        // means that the clock was set back, and then nobody should wait for it to come round again.
        self.born.until(now) < life && now.until(self.born) < life
    }

    fn limited(&self, life: Duration, now: Timestamp) -> Verdict {
        Verdict::Limited { retry_after: now.until(self.born.plus(life)) }
    }
}

/// Slots by key, and their births in order, so that dropping the dead and the oldest costs nothing to find.
struct Slots {
    by_key: HashMap<u64, Slot>,
    births: VecDeque<(u64, Timestamp)>,
    max_keys: usize,
    longest_life: Duration,
}

impl Slots {
    fn new(max_keys: usize, longest_life: Duration) -> Self {
        Self { by_key: HashMap::new(), births: VecDeque::new(), max_keys: max_keys.max(1), longest_life }
    }

    fn live(&self, key: u64, life: Duration, now: Timestamp) -> Option<&Slot> {
        self.by_key.get(&key).filter(|slot| slot.lives(life, now))
    }

    fn live_or_new(&mut self, key: u64, life: Duration, now: Timestamp) -> &mut Slot {
        if self.live(key, life, now).is_none() {
            self.sweep(now);
            self.begin(key, Slot { born: now, count: 0, blocked: false });
        }
        self.by_key.entry(key).or_insert(Slot { born: now, count: 0, blocked: false })
    }

    fn begin(&mut self, key: u64, slot: Slot) {
        self.by_key.insert(key, slot);
        self.births.push_back((key, slot.born));
        // A slot that began anew leaves its old birth behind, so there can be more births than slots.
        while self.by_key.len() > self.max_keys || self.births.len() > 2 * self.max_keys {
            self.drop_oldest();
        }
    }

    fn sweep(&mut self, now: Timestamp) {
        while self.births.front().is_some_and(|(_, born)| born.until(now) >= self.longest_life) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some((key, born)) = self.births.pop_front()
            && self.by_key.get(&key).is_some_and(|slot| slot.born == born)
        {
            self.by_key.remove(&key);
        }
    }
}

/// A panic elsewhere while the lock was held leaves counters that are still counters.
fn lock(slots: &Mutex<Slots>) -> MutexGuard<'_, Slots> {
    slots.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod t08_availability {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(1_000_000 + seconds)
    }

    fn wait(seconds: u64) -> Verdict {
        Verdict::Limited { retry_after: Duration::from_secs(seconds) }
    }

    #[test]
    fn a_window_starts_with_the_first_hit_and_is_not_prolonged() {
        let limit = FixedWindow::new(MINUTE, 10);
        assert_eq!(limit.hit("a", 2, at(0)), Verdict::Allowed);
        assert_eq!(limit.hit("a", 2, at(30)), Verdict::Allowed);
        assert_eq!(limit.hit("a", 2, at(31)), wait(29));
        assert_eq!(limit.hit("a", 2, at(59)), wait(1));
        assert_eq!(limit.hit("b", 2, at(59)), Verdict::Allowed);
        assert_eq!(limit.hit("a", 2, at(60)), Verdict::Allowed);
    }

    #[test]
    fn a_limit_that_sinks_applies_at_once_and_zero_allows_nothing() {
        let limit = FixedWindow::new(MINUTE, 10);
        assert!(limit.hit("a", 5, at(0)).is_allowed());
        assert_eq!(limit.hit("a", 1, at(1)), wait(59));
        assert_eq!(limit.hit("b", 0, at(1)), wait(60));
        assert_eq!(limit.peek("c", 0, at(1)), wait(60));
    }

    #[test]
    fn peeking_counts_nothing() {
        let limit = FixedWindow::new(MINUTE, 10);
        for _ in 0..5 {
            assert_eq!(limit.peek("a", 1, at(0)), Verdict::Allowed);
        }
        assert_eq!(limit.hit("a", 1, at(0)), Verdict::Allowed);
        assert_eq!(limit.peek("a", 1, at(10)), wait(50));
        assert_eq!(limit.peek("a", 1, at(60)), Verdict::Allowed);
    }

    #[test]
    fn memory_does_not_grow_with_what_callers_invent() {
        let limit = FixedWindow::new(MINUTE, 100);
        for n in 0..10_000 {
            assert!(limit.hit(&format!("invented {n}"), 1, at(0)).is_allowed());
        }
        let slots = lock(&limit.slots);
        assert_eq!(slots.by_key.len(), 100);
        assert!(slots.births.len() <= 200 && slots.births.capacity() <= 512);
    }

    #[test]
    fn with_the_cap_reached_the_oldest_give_way_and_the_youngest_stay_limited() {
        let limit = FixedWindow::new(MINUTE, 3);
        for (n, key) in ["a", "b", "c", "d"].into_iter().enumerate() {
            assert!(limit.hit(key, 1, at(i64::try_from(n).unwrap())).is_allowed());
        }
        assert!(limit.peek("a", 1, at(5)).is_allowed());
        for key in ["b", "c", "d"] {
            assert!(!limit.peek(key, 1, at(5)).is_allowed(), "{key}");
        }
    }

    #[test]
    fn expired_keys_are_forgotten() {
        let limit = FixedWindow::new(MINUTE, 1_000);
        for n in 0..500 {
            assert!(limit.hit(&n, 1, at(0)).is_allowed());
        }
        assert!(limit.hit(&1_000, 1, at(61)).is_allowed());
        assert_eq!(lock(&limit.slots).by_key.len(), 1);
    }

    #[test]
    fn a_clock_set_back_neither_frees_a_key_early_nor_blocks_it_for_ever() {
        let limit = FixedWindow::new(MINUTE, 10);
        assert!(limit.hit("a", 1, at(100)).is_allowed());
        assert!(!limit.hit("a", 1, at(99)).is_allowed());
        assert!(limit.hit("a", 1, at(10)).is_allowed());
    }

    #[test]
    fn the_sixty_first_failure_blocks_for_a_minute_the_right_secret_included() {
        let backoff = Backoff::for_credentials();
        let (guessed, other) =
            (("app", Source::from(IpAddr::from([192, 0, 2, 1]))), ("app", Source::from(IpAddr::from([192, 0, 2, 2]))));
        for n in 0..60 {
            assert!(backoff.check(&guessed, at(n / 2)).is_allowed());
            assert!(backoff.failed(&guessed, at(n / 2)).is_allowed());
        }
        assert!(backoff.check(&guessed, at(40)).is_allowed());
        assert_eq!(backoff.failed(&guessed, at(40)), wait(60));
        assert_eq!(backoff.check(&guessed, at(41)), wait(59));
        assert_eq!(backoff.failed(&guessed, at(99)), wait(1));
        assert!(backoff.check(&other, at(41)).is_allowed());
        assert!(backoff.check(&guessed, at(100)).is_allowed());
        assert!(backoff.failed(&guessed, at(100)).is_allowed());
    }

    #[test]
    fn sixty_failures_a_minute_block_nobody() {
        let backoff = Backoff::for_credentials();
        for n in 0..600 {
            assert!(backoff.failed("app", at(n)).is_allowed(), "{n}");
        }
    }

    #[test]
    fn guesses_for_invented_applications_stay_within_memory() {
        let backoff = Backoff::new(0, MINUTE, MINUTE, 50);
        for n in 0..1_000 {
            assert!(!backoff.failed(&n, at(n / 100)).is_allowed());
        }
        let slots = lock(&backoff.slots);
        assert!(slots.by_key.len() <= 50 && slots.births.len() <= 100);
    }

    #[test]
    fn one_holder_of_an_ipv6_network_is_one_source() {
        let source = |text: &str| Source::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(source("2001:db8:1:2::1"), source("2001:db8:1:2:ffff::"));
        assert_ne!(source("2001:db8:1:2::1"), source("2001:db8:1:3::1"));
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
        assert_ne!(source("192.0.2.1"), source("192.0.2.2"));
    }

    proptest! {
        #[test]
        fn no_window_ever_lets_more_than_the_limit_through(steps in prop::collection::vec(0i64..30, 1..200), limit in 1u32..5) {
            let counter = FixedWindow::new(MINUTE, 4);
            let (mut now, mut allowed) = (0, Vec::new());
            for step in steps {
                now += step;
                if counter.hit("key", limit, at(now)).is_allowed() {
                    allowed.push(now);
                }
            }
            // Fixed windows: any span shorter than a window touches at most two of them.
            for (n, first) in allowed.iter().enumerate() {
                let within = allowed[n..].iter().filter(|time| **time < first + 60).count();
                prop_assert!(within <= 2 * usize::try_from(limit).unwrap());
            }
        }
    }
}
