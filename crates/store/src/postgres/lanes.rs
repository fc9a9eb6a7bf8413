//! Group commit on a server. Changes of one zone that wait in this process form a lane: one task takes all that wait,
//! runs each in a savepoint of one transaction under the zone's lock, commits once, and only then answers. Lanes of
//! different zones run side by side, each on a connection of its own; other processes wait at the same locks.
//!
//! What is lost before the server was told to commit, was not done: the group runs again on another connection, a
//! bounded number of times. What is lost after that is looked up ([`super::fate`]).

use std::collections::VecDeque;
use std::collections::hash_map::{Entry, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use caracal_authority::ZoneId;
use futures_util::FutureExt;
use ring::digest;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::fate::{self, Fate};
use super::pool::Pool;
use super::session::{ServerClock, Session};
use crate::clock::Clock;
use crate::effects::Committed;
use crate::error::StoreError;
use crate::tx::{Engine, Tx};
use crate::value::Param;
use crate::writer::{GROUP, Job, Shared, WAITING, panic_text, settle, stopped};

/// How often a group is run before its callers are told that the store is unavailable.
const TRIES: u32 = 4;
/// Doubled with each further try.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// "CRCL": this program's locks among those of others in the same database.
const LOCKS: i32 = 0x4352_434C;

/// What a change is serialised with.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Lane {
    /// With all of its zone and all of the deployment.
    Zone(ZoneId),
    /// With everything but upkeep.
    Deployment,
    /// With nothing.
    Upkeep,
    /// With those of the same row that this process makes.
    Row(ZoneId, String),
}

impl Lane {
    fn zone(&self) -> Option<&ZoneId> {
        match self {
            Self::Zone(zone) => Some(zone),
            Self::Deployment | Self::Upkeep | Self::Row(..) => None,
        }
    }
}

/// All lanes of this process.
pub(super) struct Lanes {
    shared: Shared,
    pool: Arc<Pool>,
    time: ServerClock,
    connections: Arc<Semaphore>,
    /// Places for changes that wait; a change holds one until it is taken up.
    room: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    state: Mutex<State>,
    /// How many lanes are at work.
    busy: watch::Sender<usize>,
}

#[derive(Default)]
struct State {
    /// A lane that is here has a task.
    queues: HashMap<Lane, VecDeque<Submitted>>,
    closed: bool,
}

/// A change and the place where it waits, which it leaves when it is run for the first time.
struct Submitted {
    job: Box<dyn Job>,
    place: Option<Place>,
}

struct Place {
    waiting: Arc<AtomicUsize>,
    _room: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What of zones, or of none, was moved to which version.
type NewVersions = Vec<(Option<ZoneId>, u64)>;

/// Why a group's transaction came to nothing.
enum Failed {
    /// Nothing was committed, and another try may succeed.
    Again(StoreError),
    /// Nothing was committed, or nobody knows.
    ForGood(StoreError),
}

impl Lanes {
    pub(super) fn new(shared: Shared, pool: Arc<Pool>, time: ServerClock, connections: usize) -> Self {
        Self {
            shared,
            pool,
            time,
            connections: Arc::new(Semaphore::new(connections)),
            room: Arc::new(Semaphore::new(WAITING)),
            waiting: Arc::default(),
            state: Mutex::default(),
            busy: watch::Sender::new(0),
        }
    }

    /// Puts a change behind all others of its lane.
    pub(super) async fn submit(self: &Arc<Self>, lane: Lane, job: Box<dyn Job>) -> Result<(), StoreError> {
        let room = self.room.clone().acquire_owned().await.map_err(|_| stopped())?;
        let mut state = self.state();
        if state.closed || self.shared.stopped.is_set() {
            return Err(stopped());
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let place = Some(Place { waiting: self.waiting.clone(), _room: room });
        let submitted = Submitted { job, place };
        match state.queues.entry(lane.clone()) {
            Entry::Occupied(queue) => queue.into_mut().push_back(submitted),
            Entry::Vacant(empty) => {
                empty.insert(VecDeque::from([submitted]));
                self.busy.send_modify(|busy| *busy += 1);
                // Not the caller's task: a caller that goes away must not take the changes of others with it.
                tokio::spawn(self.clone().serve(lane));
            }
        }
        Ok(())
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Of `all` connections for changes, those at work.
    pub(super) fn connections_in_use(&self, all: usize) -> usize {
        all.saturating_sub(self.connections.available_permits())
    }

    /// Refuses what comes, waits for what was submitted.
    pub(super) async fn close(&self) {
        self.state().closed = true;
        self.room.close();
        let mut busy = self.busy.subscribe();
        // An error means that the sender, which is ours, is gone.
        let _ = busy.wait_for(|busy| *busy == 0).await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next change submitted to a lane; ends the lane when there is none and `ends` says so.
    fn next(&self, lane: &Lane, ends: bool) -> Option<Submitted> {
        let mut state = self.state();
        let next = state.queues.get_mut(lane).and_then(VecDeque::pop_front);
        if next.is_none() && ends {
            state.queues.remove(lane);
        }
        next
    }

    async fn serve(self: Arc<Self>, lane: Lane) {
        while let Some(first) = self.next(&lane, true) {
            let mut group = vec![first];
            let outcome = self.serve_group(&lane, &mut group).await;
            let outcome = outcome.and_then(|effects| self.shared.tell(&effects));
            settle(group.into_iter().map(|submitted| submitted.job), outcome.err().as_ref());
        }
        self.busy.send_modify(|busy| *busy -= 1);
    }

    /// Runs `group`, and what comes to wait meanwhile, until it is committed or there is no hope.
    async fn serve_group(&self, lane: &Lane, group: &mut Vec<Submitted>) -> Result<Committed, StoreError> {
        let mut pause = FIRST_PAUSE;
        for attempt in 1.. {
            if self.shared.stopped.is_set() {
                return Err(stopped());
            }
            match self.try_group(lane, group).await {
                Ok(effects) => return Ok(effects),
                Err(Failed::ForGood(error)) => return Err(error),
                Err(Failed::Again(error)) if attempt >= TRIES => return Err(error),
                Err(Failed::Again(error)) => {
                    tracing::warn!(%error, attempt, "a group of changes is run again");
                    tokio::time::sleep(pause).await;
                    pause = pause.saturating_mul(2);
                }
            }
        }
        Err(stopped())
    }

    async fn try_group(&self, lane: &Lane, group: &mut Vec<Submitted>) -> Result<Committed, Failed> {
        let permit = self.connections.clone().acquire_owned().await.map_err(|_| Failed::ForGood(stopped()))?;
        let mut session = Session::on(&self.pool, permit).await.map_err(|failure| match failure.again {
            true => Failed::Again(failure.error),
            false => Failed::ForGood(failure.error),
        })?;
        let (begin, zone) = (begin(lane), lane.zone());
        let begun = match session.begin_change(&begin, zone, &self.time).await {
            Ok(begun) => begun,
            Err(error) => return Err(failed(&session, error)),
        };
        let mut tx = Tx::new(Engine::Postgres(Box::new(session)), begun.now, begun.versions(zone));
        let (mut at, mut kept) = (0, 0);
        loop {
            if at == group.len() {
                let next = if group.len() < GROUP { self.next(lane, false) } else { None };
                let Some(next) = next else { break };
                group.push(next);
            }
            let Some(next) = group.get_mut(at) else { break };
            next.place = None;
            tx.now = self.time.now();
            kept += u64::from(run_in_savepoint(&mut tx, next.job.as_mut()).await?);
            at += 1;
        }
        let (mut session, effects, moved) = self.write_versions(tx).await?;
        if kept == 0 {
            session.send("ROLLBACK");
            session.end();
            return Ok(effects);
        }
        let name = session.connection_name();
        self.commit(session, begun.transaction, kept).await?;
        // Before anyone is answered: what a caller was told must not be missing unnoticed.
        for (zone, version) in moved {
            self.pool.lineage.learn(zone.as_ref().map_or("", ZoneId::as_str), version);
        }
        if let Some(name) = name {
            self.pool.lineage.note(&name, begun.transaction, begun.at);
        }
        Ok(effects)
    }

    /// What the group moved becomes part of its commit.
    async fn write_versions(&self, mut tx: Tx) -> Result<(Session, Committed, NewVersions), Failed> {
        let sql = "INSERT INTO zone_versions (zone_id, version) VALUES (?1, ?2)
                   ON CONFLICT (zone_id) DO UPDATE SET version = excluded.version";
        tx.scope = None;
        let moved = tx.versions.of_moved(&tx.moved);
        for (zone, version) in &moved {
            let name = zone.as_ref().map_or("", ZoneId::as_str);
            let version = i64::try_from(*version).unwrap_or(i64::MAX);
            let written = tx.append(sql, &[Param::Text(name), Param::Int(version)]).await;
            if let (Err(error), Engine::Postgres(session)) = (written, &tx.engine) {
                return Err(failed(session, error));
            }
        }
        match tx.engine {
            Engine::Postgres(session) => Ok((*session, tx.effects, moved)),
            Engine::Sqlite(_) | Engine::Remembered => Err(Failed::ForGood(stopped())),
        }
    }

    async fn commit(&self, mut session: Session, transaction: i64, kept: u64) -> Result<(), Failed> {
        let sought = session.sought(transaction);
        match session.batch("COMMIT").await {
            Ok(()) => session.end(),
            Err(error) => {
                // Where the server answered, it did not commit.
                let Some(sought) = sought.filter(|_| !session.is_connected()) else {
                    return Err(failed(&session, error));
                };
                drop(session);
                match fate::of(&self.pool, &sought).await {
                    Fate::Committed => {}
                    Fate::RolledBack => return Err(Failed::Again(error)),
                    Fate::Unknown => {
                        tracing::error!(transaction, "the server was lost while it committed");
                        let reason = "the database server was lost while it committed; the change may or may not have \
                                      been made"
                            .to_owned();
                        return Err(Failed::ForGood(StoreError::Unavailable { reason }));
                    }
                }
            }
        }
        self.shared.count(kept);
        Ok(())
    }
}

/// Whether what the change wrote stays. An error says that the whole transaction is lost.
async fn run_in_savepoint(tx: &mut Tx, job: &mut dyn Job) -> Result<bool, Failed> {
    let before = tx.mark();
    if let Engine::Postgres(session) = &mut tx.engine {
        session.send("SAVEPOINT change");
    }
    let keep = AssertUnwindSafe(job.run(tx)).catch_unwind().await.unwrap_or_else(|panic| {
        tracing::error!(panic = panic_text(&panic), "a change panicked and was rolled back");
        false
    });
    if !keep {
        tx.back_to(before);
    }
    let Engine::Postgres(session) = &mut tx.engine else { return Err(Failed::ForGood(stopped())) };
    if let Some(fault) = session.fault() {
        let error = fault.error.clone();
        return Err(if fault.again { Failed::Again(error) } else { Failed::ForGood(error) });
    }
    if keep {
        session.send("RELEASE change");
    } else {
        session.send("ROLLBACK TO change; RELEASE change");
        session.forget_zone();
    }
    Ok(keep)
}

fn failed(session: &Session, error: StoreError) -> Failed {
    match session.fault() {
        Some(fault) if fault.again => Failed::Again(error),
        _ => Failed::ForGood(error),
    }
}

/// Opens a transaction of a lane. A zone's takes the deployment's lock together with other zones' and its own alone; the
/// deployment's takes the former alone. Two zones may have one number; then they wait for each other, nothing more.
pub(super) fn begin(lane: &Lane) -> String {
    match lane {
        Lane::Zone(zone) => {
            let number = number(zone.as_str());
            format!("BEGIN; SELECT pg_advisory_xact_lock_shared({LOCKS}, 0), pg_advisory_xact_lock({number})")
        }
        Lane::Deployment => format!("BEGIN; SELECT pg_advisory_xact_lock({LOCKS}, 0)"),
        Lane::Upkeep | Lane::Row(..) => "BEGIN".to_owned(),
    }
}

/// A number for a name, for the server's locks.
pub(super) fn number(name: &str) -> i64 {
    let digest = digest::digest(&digest::SHA256, name.as_bytes());
    let mut first = [0; 8];
    first.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
    i64::from_be_bytes(first)
}
