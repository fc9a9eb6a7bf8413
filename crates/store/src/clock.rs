//! The only home of the wall clock. Every authority decision uses the store's time (contract: sts.md "Time").

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use caracal_authority::Timestamp;

/// Where a store takes its time from: the operating system on the embedded engine, the database server on PostgreSQL.
pub trait Clock: Send + Sync + 'static {
    /// The current instant.
    fn now(&self) -> Timestamp;

    /// Told when a store is opened: what the store's time has been already. A clock that does not go back is never before it.
    fn has_been(&self, _time: Timestamp) {}
}

/// The operating system's clock.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "this is the clock's one home")]
    fn now(&self) -> Timestamp {
        let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_micros(i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX))
    }
}

/// The operating system's clock, made wrong by a fixed amount: for trying out what a machine whose clock is off does to the
/// others.
#[derive(Debug, Default, Clone, Copy)]
pub struct WrongClock {
    /// How far it is ahead; behind when below zero.
    pub ahead_millis: i64,
}

impl Clock for WrongClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(SystemClock.now().as_micros().saturating_add(self.ahead_millis.saturating_mul(1_000)))
    }
}

/// A clock that does not go back when the one it is made of is set back.
///
/// A mandate is used at noon, has ended a quarter of an hour later, and the note of its use is cleared away. Were the store's
/// time set back to noon, the mandate would be good again and nobody would know of its use; a lease that had lapsed would be
/// held again (threat T17). So time goes on from where it was, an eighth slower than it passes, until the other clock has
/// caught up: a clock put right needs no hand, and meanwhile nothing lives for more than an eighth longer than it was given.
pub struct SteadyClock {
    of: Arc<dyn Clock>,
    pace: Mutex<Pace>,
}

impl SteadyClock {
    /// Over another clock.
    pub fn of(clock: Arc<dyn Clock>) -> Self {
        let pace = Pace { heard: clock.now().as_micros(), lead: 0 };
        Self { of: clock, pace: Mutex::new(pace) }
    }

    /// Arithmetic that a panic can't have left half done.
    fn paced(&self, then: impl FnOnce(&mut Pace, i64) -> i64) -> Timestamp {
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        // Asked behind the lock, or a later answer could be taken for a step back.
        let said = self.of.now().as_micros();
        Timestamp::from_micros(then(&mut pace, said))
    }
}

impl Clock for SteadyClock {
    fn now(&self) -> Timestamp {
        self.paced(Pace::at)
    }

    fn has_been(&self, time: Timestamp) {
        self.paced(|pace, said| {
            let behind = time.as_micros().saturating_sub(pace.at(said));
            if behind > 0 {
                tracing::warn!(
                    seconds = behind / 1_000_000,
                    "this machine's clock is behind the time the store has seen: the store's time goes on from there, slower"
                );
                pace.lead = pace.lead.saturating_add(behind.saturating_mul(SLOWER));
            }
            0
        });
    }
}

/// While it is ahead, time loses one part in so many.
const SLOWER: i64 = 8;

/// How far a clock is ahead of the one it is made of.
struct Pace {
    /// What that one said last, in microseconds.
    heard: i64,
    /// The lead, in parts of a microsecond, [`SLOWER`] of them to one.
    lead: i64,
}

impl Pace {
    /// The time when the other clock says `said`. Never less than before: where that goes back the lead grows by as much, and
    /// where it goes on the lead shrinks by less.
    fn at(&mut self, said: i64) -> i64 {
        let passed = said.saturating_sub(self.heard);
        let shrinks_by = if passed < 0 { passed.saturating_mul(SLOWER) } else { passed };
        self.lead = self.lead.saturating_sub(shrinks_by).max(0);
        self.heard = said;
        // Rounded up: what is left of a lead never makes time go back.
        said.saturating_add(self.lead.saturating_add(SLOWER - 1) / SLOWER)
    }
}

/// A clock that stands where it is put: time as an argument for whole-system tests.
#[derive(Debug)]
pub struct ManualClock(std::sync::atomic::AtomicI64);

impl ManualClock {
    /// A clock standing at `start`.
    pub fn at(start: Timestamp) -> Self {
        Self(std::sync::atomic::AtomicI64::new(start.as_micros()))
    }

    /// Moves the clock by `seconds`, which may be negative.
    pub fn advance(&self, seconds: i64) {
        self.0.fetch_add(seconds.saturating_mul(1_000_000), std::sync::atomic::Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(std::sync::atomic::Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600;

    fn steady(start: i64) -> (Arc<ManualClock>, SteadyClock) {
        let clock = Arc::new(ManualClock::at(Timestamp::from_seconds(start)));
        (clock.clone(), SteadyClock::of(clock))
    }

    mod t08_availability_clocks {
        use super::*;

        #[test]
        fn a_clock_set_back_by_an_hour_is_caught_up_with_after_eight() {
            let (machine, clock) = steady(10 * HOUR);
            machine.advance(-HOUR);
            assert_eq!(clock.now().as_seconds(), 10 * HOUR);
            // Eight minutes are seven.
            machine.advance(480);
            assert_eq!(clock.now().as_seconds(), 10 * HOUR + 420);
            machine.advance(8 * HOUR - 480);
            assert_eq!(clock.now().as_seconds(), 17 * HOUR);
            machine.advance(1);
            assert_eq!(clock.now(), machine.now());
        }

        #[test]
        fn what_a_store_has_seen_is_not_undone_by_a_start() {
            let (machine, clock) = steady(10 * HOUR);
            clock.has_been(Timestamp::from_seconds(9 * HOUR));
            assert_eq!(clock.now(), machine.now());
            clock.has_been(Timestamp::from_seconds(11 * HOUR));
            assert_eq!(clock.now().as_seconds(), 11 * HOUR);
            // A clock that is right goes on at its own pace, and is followed where it goes ahead.
            machine.advance(12 * HOUR);
            assert_eq!(clock.now(), machine.now());
        }

        /// Every course of six steps, of the sizes at which rounding could go wrong.
        #[test]
        fn time_never_goes_back_and_never_falls_behind() {
            let sizes = [-1_000, -9, -8, -1, 0, 1, 7, 8, 9, 1_000];
            for course in 0..10_u32.pow(6) {
                let (mut said, mut pace) = (0, Pace { heard: 0, lead: 0 });
                let mut last = 0;
                for place in 0..6 {
                    let step = sizes[course as usize / 10_usize.pow(place) % 10];
                    said += step;
                    let now = pace.at(said);
                    assert!(now >= last && now >= said, "{course}: {last} {now} {said}");
                    // Where the other goes on, seven eighths of it count.
                    assert!(step < 0 || now - last >= step - step / 8 - 1, "{course}: {last} {now} {step}");
                    last = now;
                }
            }
        }
    }
}
