//! What this process has seen of the store, so that a server that comes back with less is not taken for the one it left.
//!
//! A standby that had not yet heard of the last revocation is promoted, or an older copy of the database is put in place.
//! Connections break, new ones are opened, and every row looks right; only what was taken away or used up since the copy
//! would be good again (threat T17). Two things can't be right then, and both are looked at where it costs next to nothing:
//!
//! - *The version of a zone* moves with every change that takes authority away ([`crate::version`]), and every transaction
//!   reads it as it begins. It never goes down. What was seen before a transaction was begun, by reading or by committing, is
//!   compared with what it begins with.
//! - *The commits themselves*: each leaves its number with the connection that made it ([`super::fate`]). Those that this
//!   process was told of, and the latest of others that it came across, have to be there whenever a connection is opened and
//!   whenever readiness is asked for.
//!
//! What is found ends all service of this process, for good: that the versions catch up later would prove nothing, since
//! others may have gone on with the older store. The next start compares with the ledger's heads, which lie elsewhere.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError, RwLock};

use tokio_postgres::Client;

use super::session::Begun;
use crate::error::StoreError;
use crate::writer::{Stopped, stopped};

/// For how long a commit has to be there, in microseconds of the server's time: after a day it may be forgotten.
const REMEMBERED: i64 = 20 * 3_600 * 1_000_000;

/// How many commits of others are remembered at one look.
const OF_OTHERS: i64 = 64;

/// Beyond this, commits past their time are forgotten.
const MANY: usize = 1024;

const COMMITS: &str = "SELECT connection, transaction FROM last_commits WHERE connection = ANY($1)";

const LATEST: &str = "SELECT connection, transaction, at FROM last_commits ORDER BY at DESC LIMIT $1";

const NOW: &str = "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)";

/// See above.
#[derive(Default)]
pub(super) struct Lineage {
    /// Shared with the store: once it is set, nothing is served.
    pub(super) stopped: Stopped,
    /// The highest versions seen; the deployment's under no name.
    versions: RwLock<HashMap<String, u64>>,
    /// The latest commit seen of each connection, whosever it was.
    commits: Mutex<HashMap<String, Commit>>,
}

#[derive(Clone, Copy)]
struct Commit {
    transaction: i64,
    /// By the server's clock, microseconds.
    at: i64,
}

/// What the transaction that is about to begin has to find.
pub(super) struct Floor {
    deployment: u64,
    zone: u64,
}

impl Lineage {
    /// To be asked before a transaction is begun: one that began earlier may rightly see less.
    pub(super) fn floor(&self, zone: &str) -> Floor {
        let versions = self.versions.read().unwrap_or_else(PoisonError::into_inner);
        let seen = |name: &str| versions.get(name).copied().unwrap_or(0);
        Floor { deployment: seen(""), zone: seen(zone) }
    }

    /// Takes note of what a transaction began with, if it is no less than was seen before.
    pub(super) fn compare(&self, floor: &Floor, zone: &str, begun: &Begun) -> Result<(), StoreError> {
        let (seen, found, of) = if begun.deployment < floor.deployment {
            (floor.deployment, begun.deployment, "the deployment".to_owned())
        } else if begun.zone < floor.zone {
            (floor.zone, begun.zone, format!("zone `{zone}`"))
        } else {
            self.learn("", begun.deployment);
            self.learn(zone, begun.zone);
            return Ok(());
        };
        Err(self.went_back(&format!("version {found} of {of}, which had version {seen}")))
    }

    /// Takes note of a version that was committed.
    pub(super) fn learn(&self, zone: &str, version: u64) {
        if self.versions.read().unwrap_or_else(PoisonError::into_inner).get(zone).is_some_and(|seen| *seen >= version) {
            return;
        }
        let mut versions = self.versions.write().unwrap_or_else(PoisonError::into_inner);
        let seen = versions.entry(zone.to_owned()).or_default();
        *seen = version.max(*seen);
    }

    /// Takes note of a commit that was acknowledged, or found.
    pub(super) fn note(&self, connection: &str, transaction: i64, at: i64) {
        let mut commits = self.commits.lock().unwrap_or_else(PoisonError::into_inner);
        if commits.len() >= MANY {
            commits.retain(|_, commit| at.saturating_sub(commit.at) < REMEMBERED);
        }
        let latest = commits.entry(connection.to_owned()).or_insert(Commit { transaction, at });
        if latest.transaction < transaction {
            *latest = Commit { transaction, at };
        }
    }

    /// Looks whether the server behind `client` has every commit that was noted.
    pub(super) async fn look(&self, client: &Client) -> Result<Result<(), StoreError>, tokio_postgres::Error> {
        // Before anything is asked: what is noted meanwhile may be newer than the answer.
        let noted = self.commits.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if noted.is_empty() {
            return Ok(Ok(()));
        }
        let now: i64 = client.query_one(NOW, &[]).await?.try_get(0)?;
        let names: Vec<&str> = noted.keys().map(String::as_str).collect();
        let mut found = HashMap::new();
        for row in client.query(COMMITS, &[&names]).await? {
            found.insert(row.try_get::<_, String>(0)?, row.try_get::<_, i64>(1)?);
        }
        let lost = noted.iter().find(|(name, commit)| {
            // Also by a clock that was put ahead, the server may have forgotten it.
            let is_due = now.saturating_sub(commit.at) < REMEMBERED;
            is_due && found.get(*name).is_none_or(|transaction| *transaction < commit.transaction)
        });
        Ok(match lost {
            None => Ok(()),
            Some((_, commit)) => {
                Err(self.went_back(&format!("no transaction {}, which was committed", commit.transaction)))
            }
        })
    }

    /// Looks, and takes note of what others have committed since.
    pub(super) async fn look_around(&self, client: &Client) -> Result<Result<(), StoreError>, tokio_postgres::Error> {
        if let Err(error) = self.look(client).await? {
            return Ok(Err(error));
        }
        for row in client.query(LATEST, &[&OF_OTHERS]).await? {
            self.note(row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        }
        Ok(Ok(()))
    }

    fn went_back(&self, what: &str) -> StoreError {
        if !self.stopped.is_set() {
            self.stopped.set(&format!(
                "the database has less than this process has seen of it: {what}. A standby that lagged was promoted, or an \
                 older copy was put in its place; what was revoked or used since would be good again. Put the newest \
                 database back and restart every process; or, to go on with this one knowingly, restart each with an empty \
                 file in the place of its heads.log"
            ));
        }
        stopped()
    }
}
