//! The only home of the wall clock. Every authority decision uses the store's time (contract: sts.md "Time").

use std::time::{SystemTime, UNIX_EPOCH};

use caracal_authority::Timestamp;

/// Where a store takes its time from: the operating system on the embedded engine, the database server on PostgreSQL.
pub trait Clock: Send + Sync + 'static {
    /// The current instant.
    fn now(&self) -> Timestamp;
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
