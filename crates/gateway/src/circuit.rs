//! The circuit before the STS (contract: gateway.md §12, README D8).
//!
//! When exchanges of a zone fail one after the other for the STS's own trouble, asking again only keeps callers waiting
//! and the STS down. So after three such failures within a window the zone is answered at once for ten seconds; then
//! one request goes through as a probe, and its outcome says whether the others may follow. The circuit is asked before
//! the mandate is used up: whoever is turned away keeps it.
//!
//! Each zone has its own: one tenant whose provider hangs stops nobody else. A denial is no failure, whatever its
//! status.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use caracal_authority::ZoneId;
use tokio::time::Instant;

/// Failures in a row that open the circuit.
const FAILURES: u32 = 3;
/// Within how long they must fall.
const WINDOW: Duration = Duration::from_secs(30);
/// How long it stays open.
const OPEN: Duration = Duration::from_secs(10);

/// The circuit before one dependency.
#[derive(Default)]
pub(crate) struct Circuit {
    /// Only zones in trouble: a success removes its zone, so memory does not depend on how many zones there are.
    zones: Mutex<HashMap<ZoneId, State>>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Passing, with failures since `since`.
    Closed { failures: u32, since: Instant },
    /// Turning away until `until`; then one probe at a time.
    Open { until: Instant, probing: bool },
}

/// The circuit is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tripped {
    /// When trying again can succeed.
    pub(crate) retry_after: Duration,
}

impl Circuit {
    /// Lets a request of `zone` pass, or turns it away.
    pub(crate) fn enter(&self, zone: &ZoneId, now: Instant) -> Result<Pass<'_>, Tripped> {
        let mut zones = self.lock();
        let mut probe = false;
        if let Some(State::Open { until, probing }) = zones.get_mut(zone) {
            if now < *until {
                return Err(Tripped { retry_after: *until - now });
            }
            if *probing {
                return Err(Tripped { retry_after: Duration::from_secs(1) });
            }
            *probing = true;
            probe = true;
        }
        Ok(Pass { circuit: self, zone: zone.clone(), probe })
    }

    /// Whether any zone is turned away at `now`.
    pub(crate) fn is_open(&self, now: Instant) -> bool {
        self.lock().values().any(|state| matches!(state, State::Open { until, .. } if now < *until))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ZoneId, State>> {
        // A panic elsewhere leaves states that are still states.
        self.zones.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request on its way through. Dropped without a verdict (a denial, a caller who went away) it changes nothing but
/// to make way for the next probe.
pub(crate) struct Pass<'c> {
    circuit: &'c Circuit,
    zone: ZoneId,
    probe: bool,
}

impl Pass<'_> {
    /// The dependency did its work.
    pub(crate) fn succeeded(mut self) {
        self.probe = false;
        self.circuit.lock().remove(&self.zone);
    }

    /// The dependency failed. Says whether that opened the circuit.
    pub(crate) fn failed(mut self, now: Instant) -> bool {
        self.probe = false;
        let mut zones = self.circuit.lock();
        // Zones whose trouble is long past and that nobody has asked for since would otherwise stay for ever.
        zones.retain(|_, state| match state {
            State::Closed { since, .. } => now.saturating_duration_since(*since) < WINDOW,
            State::Open { until, .. } => now.saturating_duration_since(*until) < WINDOW,
        });
        let next = match zones.get(&self.zone) {
            None if FAILURES > 1 => State::Closed { failures: 1, since: now },
            Some(State::Closed { failures, since }) if failures + 1 < FAILURES => {
                State::Closed { failures: failures + 1, since: *since }
            }
            _ => State::Open { until: now + OPEN, probing: false },
        };
        zones.insert(self.zone.clone(), next);
        matches!(next, State::Open { .. })
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.probe
            && let Some(State::Open { probing, .. }) = self.circuit.lock().get_mut(&self.zone)
        {
            *probing = false;
        }
    }
}

#[cfg(test)]
mod t08_availability {
    use super::*;

    struct Story {
        circuit: Circuit,
        start: Instant,
    }

    impl Story {
        fn new() -> Self {
            Self { circuit: Circuit::default(), start: Instant::now() }
        }

        fn at(&self, seconds: u64) -> Instant {
            self.start + Duration::from_secs(seconds)
        }

        fn enter(&self, seconds: u64) -> Option<Pass<'_>> {
            self.enter_zone("a", seconds)
        }

        fn enter_zone(&self, zone: &str, seconds: u64) -> Option<Pass<'_>> {
            self.circuit.enter(&ZoneId::parse(zone).unwrap(), self.at(seconds)).ok()
        }

        fn fails(&self, seconds: u64) -> bool {
            self.enter(seconds).unwrap().failed(self.at(seconds))
        }

        fn denied(&self, seconds: u64) {
            drop(self.enter(seconds).unwrap());
        }
    }

    #[test]
    fn three_failures_in_a_row_open_it_for_ten_seconds() {
        let story = Story::new();
        assert!(!story.fails(0) && !story.fails(1) && story.fails(2));
        assert!(story.circuit.is_open(story.at(2)));
        assert!(story.enter(3).is_none() && story.enter(11).is_none());
        let zone = ZoneId::parse("a").unwrap();
        let tripped = story.circuit.enter(&zone, story.at(4)).err();
        assert_eq!(tripped, Some(Tripped { retry_after: Duration::from_secs(8) }));
        assert!(!story.circuit.is_open(story.at(12)) && story.enter(12).is_some());
    }

    #[test]
    fn a_success_forgets_failures() {
        let story = Story::new();
        assert!(!story.fails(0) && !story.fails(0));
        story.enter(0).unwrap().succeeded();
        assert!(!story.fails(0) && !story.fails(0));
        assert!(story.enter(0).is_some());
    }

    #[test]
    fn denials_neither_count_nor_reset() {
        let story = Story::new();
        assert!(!story.fails(0) && !story.fails(0));
        (0..50).for_each(|_| story.denied(0));
        assert!(story.fails(0));
    }

    #[test]
    fn failures_far_apart_are_no_outage() {
        let story = Story::new();
        assert!(!story.fails(0) && !story.fails(31) && !story.fails(62) && !story.fails(90));
    }

    #[test]
    fn one_probe_at_a_time_decides() {
        let story = Story::new();
        for _ in 0..3 {
            story.fails(0);
        }
        let probe = story.enter(10).unwrap();
        assert!(story.enter(10).is_none(), "a second probe");
        // The probe was denied by policy: nothing is known, the next one probes.
        drop(probe);
        story.denied(10);
        assert!(story.fails(10), "one failure is enough");
        assert!(story.enter(19).is_none());
        story.enter(20).unwrap().succeeded();
        let (_one, _two) = (story.enter(20).unwrap(), story.enter(20).unwrap());
    }

    #[test]
    fn a_late_failure_prolongs_it() {
        let story = Story::new();
        let late = story.enter(0).unwrap();
        for _ in 0..3 {
            story.fails(0);
        }
        assert!(late.failed(story.at(5)));
        assert!(story.enter(14).is_none());
        assert!(story.enter(15).is_some());
    }

    #[test]
    fn one_zone_in_trouble_stops_no_other() {
        let story = Story::new();
        for _ in 0..3 {
            story.fails(0);
        }
        assert!(story.enter(1).is_none());
        assert!(story.enter_zone("b", 1).is_some());
    }

    #[test]
    fn zones_whose_trouble_is_past_are_forgotten() {
        let story = Story::new();
        for zone in 0..100 {
            story.enter_zone(&format!("z{zone}"), 0).unwrap().failed(story.at(0));
        }
        story.enter_zone("late", 60).unwrap().failed(story.at(60));
        assert_eq!(story.circuit.lock().len(), 1);
    }
}
