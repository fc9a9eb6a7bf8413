//! How a decision that was made on a snapshot is held to the present (difference D4).
//!
//! A mint reads its facts in a snapshot, decides, and commits the record. In between a revocation, a suspension or a
//! new policy could have been committed. Every change that could take authority away moves its zone's version; the
//! mint's commit compares the version it decided on with the one it is committed at, and is decided anew if they
//! differ. So either the revocation sees the record, or the mint sees the revocation. Changes that only add (a session,
//! an edge, evidence, a receipt) do not move it: they can't make a granted decision wrong.
//!
//! The embedded engine keeps versions in memory, because its writer is the only one there is. The writer counts when a
//! change runs; readers see the count only after the commit, and take it *before* they open their snapshot. A reader
//! can therefore hold newer facts than its version says, never older ones.

use std::collections::{HashMap, HashSet};

use caracal_authority::ZoneId;

/// What a zone's authority-relevant state was at some instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ZoneVersion {
    deployment: u64,
    zone: u64,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Versions {
    deployment: u64,
    zones: HashMap<ZoneId, u64>,
}

/// What a group of changes moved.
#[derive(Debug, Default)]
pub(crate) struct Moved {
    deployment: bool,
    zones: HashSet<ZoneId>,
}

impl Versions {
    pub(crate) fn of(&self, zone: &ZoneId) -> ZoneVersion {
        ZoneVersion { deployment: self.deployment, zone: self.zones.get(zone).copied().unwrap_or(0) }
    }

    /// Counts one move of `zone`, or of everything when there is none.
    pub(crate) fn advance(&mut self, zone: Option<&ZoneId>, moved: &mut Moved) {
        match zone {
            Some(zone) => {
                *self.zones.entry(zone.clone()).or_insert(0) += 1;
                moved.zones.insert(zone.clone());
            }
            None => {
                self.deployment += 1;
                moved.deployment = true;
            }
        }
    }

    /// Takes over what `newer` says of everything that moved.
    pub(crate) fn publish(&mut self, newer: &Self, moved: Moved) {
        if moved.deployment {
            self.deployment = newer.deployment;
        }
        for zone in moved.zones {
            if let Some(version) = newer.zones.get(&zone) {
                self.zones.insert(zone, *version);
            }
        }
    }
}
