//! Signatures that this process has found valid. Whether a key has signed a text can't change, so it is worked out once: the
//! Gateway verifies a mandate when it arrives, and the STS is shown the same mandate a moment later. Two verifications
//! were a tenth of what a governed call took.
//!
//! Only what was valid is remembered, under a hash of the whole token and of the whole key: another key, another header,
//! another spelling of the signature is another entry, which is not there. Nothing here says that a mandate is in force, unused
//! or not revoked; that is asked each time. Which key is the zone's is asked each time, too, so a key that was withdrawn verifies
//! nothing, remembered or not.

use std::collections::HashSet;
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};

use ring::digest;

use super::key::PublicKey;

/// As many are forgotten at a time; twice as many are remembered at most, 32 bytes each.
const GENERATION: usize = 4_096;

static PROVEN: LazyLock<Mutex<Proven>> = LazyLock::new(Mutex::default);

/// Signatures of mandates that were worked out, valid or not.
static WORKED_OUT: AtomicU64 = AtomicU64::new(0);

/// How many signatures of mandates this process has worked out since it was started, valid or not. What was remembered is not
/// among them: it cost nothing.
pub fn verifications() -> u64 {
    WORKED_OUT.load(Ordering::Relaxed)
}

pub(super) fn count() {
    WORKED_OUT.fetch_add(1, Ordering::Relaxed);
}

#[derive(Default)]
struct Proven {
    young: HashSet<Entry>,
    old: HashSet<Entry>,
}

/// One token under one key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Entry([u8; 32]);

impl Entry {
    /// Of header and payload as they were signed, and the signature as it is spelt.
    pub(super) fn of(key: &PublicKey, signed: &str, signature: &str) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        // Coordinates have a fixed length, and a signature's spelling has no dot: nothing can be read as something else.
        let (x, y) = key.coordinates();
        for part in [x, y, signed.as_bytes(), b".", signature.as_bytes()] {
            context.update(part);
        }
        let mut hash = [0; 32];
        hash.copy_from_slice(context.finish().as_ref());
        Self(hash)
    }

    pub(super) fn is_proven(self) -> bool {
        PROVEN.lock().unwrap_or_else(PoisonError::into_inner).holds(&self)
    }

    /// Takes note that the signature is valid.
    pub(super) fn remember(self) {
        PROVEN.lock().unwrap_or_else(PoisonError::into_inner).add(self);
    }
}

impl Proven {
    fn holds(&self, entry: &Entry) -> bool {
        self.young.contains(entry) || self.old.contains(entry)
    }

    fn add(&mut self, entry: Entry) {
        if self.young.len() >= GENERATION {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: usize) -> Entry {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&number.to_be_bytes());
        Entry(hash)
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let mut proven = Proven::default();
        for number in 0..10 * GENERATION {
            proven.add(entry(number));
            assert!(proven.holds(&entry(number)));
            assert!(proven.young.len() + proven.old.len() <= 2 * GENERATION);
        }
        assert!(!proven.holds(&entry(0)));
        assert!(proven.holds(&entry(9 * GENERATION)));
    }
}
