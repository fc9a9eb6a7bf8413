//! What a pass over everything sealed came to.

use std::fmt;

use serde::Serialize;

/// Failures that are told one by one; all are counted.
const TOLD: usize = 20;

/// How many envelopes of one kind there are, and what became of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// What they hold, for people.
    pub kind: &'static str,
    /// Sealed under the current key before anything was done.
    pub current: u64,
    /// Sealed anew.
    pub rewrapped: u64,
    /// Still to be sealed anew.
    pub left: u64,
    /// Open with neither key, or could not be written.
    pub failed: u64,
}

/// What a pass over everything came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// One for each kind, the check of the key last.
    pub kinds: Vec<Tally>,
    /// The first failures: where, and why.
    pub failures: Vec<Failed>,
}

/// An envelope that could not be sealed anew. It lies where it lay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failed {
    /// Where it lies.
    pub place: String,
    /// Why.
    pub reason: String,
}

impl Report {
    /// Envelopes that still need the previous key.
    pub fn left(&self) -> u64 {
        self.kinds.iter().map(|tally| tally.left).sum()
    }

    /// Envelopes that open with neither key, or could not be written.
    pub fn failed(&self) -> u64 {
        self.kinds.iter().map(|tally| tally.failed).sum()
    }

    /// Envelopes that were sealed anew.
    pub fn rewrapped(&self) -> u64 {
        self.kinds.iter().map(|tally| tally.rewrapped).sum()
    }

    /// Whether nothing needs the previous key any more.
    pub fn is_done(&self) -> bool {
        self.left() == 0 && self.failed() == 0
    }

    pub(super) fn fail(&mut self, place: &str, reason: &dyn fmt::Display) {
        if self.failures.len() < TOLD {
            self.failures.push(Failed { place: place.to_owned(), reason: reason.to_string() });
        }
    }
}

impl Tally {
    pub(super) fn of(kind: &'static str) -> Self {
        Self { kind, current: 0, rewrapped: 0, left: 0, failed: 0 }
    }
}
