//! How long a mandate lives: the minimum of everything that bounds it (contract: sts.md §3.11, D24).
//!
//! The reference caps a delegated mandate by its edges only. Here every life a mandate hangs on is a bound: the
//! presented mandate and its record, the session and the user behind it, every edge and constraint of the lineage,
//! the client itself. A life is fixed in exactly one place, [`fix`], and never grows along a lineage.

use std::time::Duration;

use crate::Timestamp;

/// Life of a mandate when the caller does not ask for one, in seconds.
pub const DEFAULT_SECONDS: u32 = 900;

/// The class of exchange, as far as lifetimes differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LifetimeClass {
    /// No access token presented: session and gateway mandates, control keys, federation.
    Direct,
    /// A Gateway exchange: resource mandates.
    Gateway,
}

impl LifetimeClass {
    /// The longest life a caller may ask for, in seconds.
    pub fn most_seconds(self) -> u32 {
        match self {
            Self::Direct => 3_600,
            Self::Gateway => 900,
        }
    }
}

/// Why no life can be fixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LifetimeFault {
    /// `ttl_seconds` below zero (400).
    #[error("ttl_seconds is negative")]
    Negative,
    /// `ttl_seconds` above the most of its class (400).
    #[error("ttl_seconds is above {most}")]
    AboveMaximum {
        /// The most that may be asked for.
        most: u32,
    },
    /// Less than one whole second is left of what the mandate hangs on (403): clients refuse `expires_in` 0.
    #[error("less than a second is left of the authority this would hang on")]
    Exhausted,
}

/// Everything that bounds a life. Adding a bound can only shorten it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bounds {
    until: Option<Timestamp>,
    most_seconds: Option<u32>,
}

impl Bounds {
    /// Nothing bounds it yet but its class.
    pub fn none() -> Self {
        Self::default()
    }

    /// It must not reach past `end`; no end, no bound.
    #[must_use]
    pub fn until(self, end: impl Into<Option<Timestamp>>) -> Self {
        Self { until: [self.until, end.into()].into_iter().flatten().min(), ..self }
    }

    /// It must not be longer than `seconds`; no cap, no bound.
    #[must_use]
    pub fn at_most(self, seconds: impl Into<Option<u32>>) -> Self {
        Self { most_seconds: [self.most_seconds, seconds.into()].into_iter().flatten().min(), ..self }
    }
}

/// A fixed life. Only [`fix`] makes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    from: Timestamp,
    length: Duration,
}

impl Lifetime {
    /// `iat`: the start of the exchange, whole seconds.
    pub fn issued_at(self) -> i64 {
        self.from.as_seconds()
    }

    /// `exp`: the end, cut to whole seconds.
    pub fn expires_at_seconds(self) -> i64 {
        self.ends_at().as_seconds()
    }

    /// `expires_in`: whole seconds, at least 1.
    pub fn expires_in(self) -> u64 {
        self.length.as_secs()
    }

    /// The end in full precision: `expires_at` of the authority record.
    pub fn ends_at(self) -> Timestamp {
        self.from.plus(self.length)
    }
}

/// Fixes a life that starts `now`. `asked` is the form's `ttl_seconds`; absent or 0 means the default. What is asked
/// for is refused when it is out of bounds for its class, and shortened when something it hangs on ends earlier.
pub fn fix(
    class: LifetimeClass,
    asked: Option<i64>,
    bounds: Bounds,
    now: Timestamp,
) -> Result<Lifetime, LifetimeFault> {
    let most = class.most_seconds();
    let wanted = match asked.unwrap_or(0) {
        0 => DEFAULT_SECONDS,
        negative if negative < 0 => return Err(LifetimeFault::Negative),
        seconds => u32::try_from(seconds)
            .ok()
            .filter(|seconds| *seconds <= most)
            .ok_or(LifetimeFault::AboveMaximum { most })?,
    };
    let seconds = bounds.most_seconds.map_or(wanted, |cap| cap.min(wanted));
    let left = bounds.until.map_or(Duration::MAX, |end| now.until(end));
    let length = Duration::from_secs(seconds.into()).min(left);
    if length < Duration::from_secs(1) { Err(LifetimeFault::Exhausted) } else { Ok(Lifetime { from: now, length }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::EPOCH;

    fn direct(asked: Option<i64>, bounds: Bounds) -> Result<u64, LifetimeFault> {
        fix(LifetimeClass::Direct, asked, bounds, NOW).map(Lifetime::expires_in)
    }

    #[test]
    fn ttl_is_one_of_default_refused_or_as_asked() {
        let above = |most| Err(LifetimeFault::AboveMaximum { most });
        for (class, asked, expected) in [
            (LifetimeClass::Direct, None, Ok(900)),
            (LifetimeClass::Direct, Some(0), Ok(900)),
            (LifetimeClass::Direct, Some(-1), Err(LifetimeFault::Negative)),
            (LifetimeClass::Direct, Some(i64::MIN), Err(LifetimeFault::Negative)),
            (LifetimeClass::Direct, Some(1), Ok(1)),
            (LifetimeClass::Direct, Some(3_600), Ok(3_600)),
            (LifetimeClass::Direct, Some(3_601), above(3_600)),
            (LifetimeClass::Direct, Some(i64::MAX), above(3_600)),
            (LifetimeClass::Gateway, None, Ok(900)),
            (LifetimeClass::Gateway, Some(900), Ok(900)),
            (LifetimeClass::Gateway, Some(901), above(900)),
        ] {
            assert_eq!(
                fix(class, asked, Bounds::none(), NOW).map(Lifetime::expires_in),
                expected,
                "{class:?} {asked:?}"
            );
        }
    }

    #[test]
    fn the_earliest_bound_wins() {
        let at = Timestamp::from_seconds;
        let bounds = Bounds::none().until(at(700)).until(None).until(at(500)).until(at(600)).at_most(800).at_most(None);
        assert_eq!(direct(None, bounds), Ok(500));
        assert_eq!(direct(Some(400), bounds), Ok(400));
        assert_eq!(direct(None, bounds.at_most(30)), Ok(30));
        assert_eq!(direct(Some(20), bounds.at_most(30)), Ok(20));
    }

    #[test]
    fn a_life_of_less_than_a_second_is_refused() {
        for (end, expected) in [
            (Timestamp::from_micros(1_000_000), Ok(1)),
            (Timestamp::from_micros(999_999), Err(LifetimeFault::Exhausted)),
            (NOW, Err(LifetimeFault::Exhausted)),
        ] {
            assert_eq!(direct(None, Bounds::none().until(end)), expected, "{end}");
        }
    }

    #[test]
    fn fractions_are_cut_never_rounded_up() {
        let now = Timestamp::from_micros(100_700_000);
        let whole = fix(LifetimeClass::Direct, None, Bounds::none(), now).unwrap();
        assert_eq!((whole.issued_at(), whole.expires_at_seconds(), whole.expires_in()), (100, 1_000, 900));
        let end = Timestamp::from_micros(130_500_000);
        let cut = fix(LifetimeClass::Direct, None, Bounds::none().until(end), now).unwrap();
        assert_eq!((cut.issued_at(), cut.expires_at_seconds(), cut.expires_in()), (100, 130, 29));
        assert_eq!(cut.ends_at(), end);
    }
}
