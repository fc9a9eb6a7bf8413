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
//!
//! On PostgreSQL the versions are rows. A reader finds them in its own snapshot; a writer reads them once it holds the
//! zone's lock, and what it moved is part of its commit.

use std::collections::{HashMap, HashSet};

use caracal_authority::ZoneId;

/// What a zone's authority-relevant state was at some instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ZoneVersion {
    deployment: u64,
    zone: u64,
}

impl ZoneVersion {
    pub(crate) fn new(deployment: u64, zone: u64) -> Self {
        Self { deployment, zone }
    }
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Versions {
    deployment: u64,
    zones: HashMap<ZoneId, u64>,
}

/// What a group of changes moved.
#[derive(Debug, Clone, Default)]
pub(crate) struct Moved {
    deployment: bool,
    zones: HashSet<ZoneId>,
}

impl Versions {
    pub(crate) fn of(&self, zone: &ZoneId) -> ZoneVersion {
        ZoneVersion { deployment: self.deployment, zone: self.zones.get(zone).copied().unwrap_or(0) }
    }

    pub(crate) fn knows(&self, zone: &ZoneId) -> bool {
        self.zones.contains_key(zone)
    }

    /// Takes over what the engine says of `zone`.
    pub(crate) fn learn(&mut self, zone: &ZoneId, version: u64) {
        self.zones.insert(zone.clone(), version);
    }

    pub(crate) fn learn_deployment(&mut self, version: u64) {
        self.deployment = version;
    }

    /// The new versions of what moved: the deployment's under no zone.
    pub(crate) fn of_moved(&self, moved: &Moved) -> Vec<(Option<ZoneId>, u64)> {
        let zones = moved.zones.iter().map(|zone| (Some(zone.clone()), self.zones.get(zone).copied().unwrap_or(0)));
        moved.deployment.then_some((None, self.deployment)).into_iter().chain(zones).collect()
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
