//! What is revoked, as far as the Gateway knows, and who must hear of it (contract: gateway.md §10).
//!
//! An operator ends a session while one of its calls is streaming. The commit that ends it puts a message into the
//! outbox; the store hands every committed message to [`Revocations`] before it answers the operator. The message names
//! anchors: a record, a session, a delegation. From that moment no request with such an anchor passes
//! [`Revocations::watch`], and each request that passed before holds a [`Watch`] that is now set and woken, so that
//! even a stream whose upstream is silent ends at once.
//!
//! Messages can be missed: by a process that was not running, by a stream that was down. So everything revoked within
//! the last day is read from the store at start, every thirty seconds and on demand, and replaces what was known. Marks
//! that arrive while that is being read survive the replacement, for the reading may have begun before their commit.
//! Without a successful reading for seventy seconds the state is not [fresh](Revocations::is_fresh), and every request
//! is refused.
//!
//! A process that stood still, because its host did or stopped it, hears late of what was revoked meanwhile, and its clock may
//! not tell. So it [beats](Revocations::beat), and after a silence of seconds nothing is fresh before the next reading.
//!
//! The key that signed a mandate is an anchor like the others: when an operator withdraws it, whatever it let in ends.
//!
//! Looking costs one lock and at most five look-ups per request; a stream then looks at one flag per chunk.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Context;
use std::time::{Duration, Instant};

use caracal_authority::{Timestamp, ZoneId};
use caracal_store::revocations::{self, Anchor, AnchorKind};
use caracal_store::{Committed, Message, Observer, Store, StoreError};
use futures_util::task::AtomicWaker;

/// How far back a reading goes: longer than any mandate lives.
const LOOK_BACK: Duration = Duration::from_secs(24 * 60 * 60);
/// Age of the last reading beyond which nothing is let through, in whole seconds.
const FRESH_SECONDS: i64 = 70;
/// A reading that takes longer is given up: one that hangs must not keep the next from being tried.
const READING: Duration = Duration::from_secs(20);
/// How often a process shows that it runs, and after how long without that it has stood still: stopped by its host, or starved
/// of its processor. Far longer than a busy process needs, and far shorter than what makes a reading stale.
pub(crate) const BEAT: Duration = Duration::from_millis(500);
const PAUSE_MILLIS: u64 = 3_000;

const REVOKE_TOPIC: &str = "caracal.sessions.revoke";
const EDGES_TOPIC: &str = "caracal.delegations.invalidate";
const KEYS_TOPIC: &str = caracal_store::signing_keys::WITHDRAWN;

/// The anchors of one mandate that are looked at (gateway.md §10.1). A missing claim is no anchor.
#[derive(Debug, Clone)]
pub(crate) struct Anchors {
    zone: ZoneId,
    ids: Vec<(AnchorKind, Box<str>)>,
}

impl Anchors {
    /// Of a mandate of `zone` signed by its key `kid`; `claim` gives the text of a claim.
    pub(crate) fn of<'c>(zone: ZoneId, kid: &str, claim: impl Fn(&str) -> Option<&'c str>) -> Self {
        let mut ids: Vec<(AnchorKind, Box<str>)> = Vec::with_capacity(5);
        ids.push((AnchorKind::Key, kid.into()));
        for (kind, name) in [
            (AnchorKind::Record, "sid"),
            (AnchorKind::Record, "root_sid"),
            (AnchorKind::Session, "agent_session_id"),
            (AnchorKind::Edge, "delegation_edge_id"),
        ] {
            // `root_sid` is usually `sid`.
            if let Some(id) = claim(name)
                && !ids.iter().any(|(known, other)| *known == kind && **other == *id)
            {
                ids.push((kind, id.into()));
            }
        }
        Self { zone, ids }
    }
}

/// An anchor of the mandate is revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Revoked;

/// Revocation state of one process.
pub(crate) struct Revocations {
    store: Store,
    state: Mutex<State>,
    /// One reading at a time: the collection of marks that arrive meanwhile is one.
    reading: tokio::sync::Mutex<()>,
    /// Store time of the last successful reading, whole seconds; 0 before the first.
    read_at: AtomicI64,
    /// When this process last showed that it runs, in milliseconds from `began` on; 0 before it first did.
    beat: AtomicU64,
    began: Instant,
    /// How often it has stood still.
    pauses: AtomicU64,
    messages: AtomicU64,
    /// Age of the last message when it was applied, microseconds.
    propagation: AtomicI64,
}

#[derive(Default)]
struct State {
    marks: Marks,
    /// Requests and streams under way, by anchor.
    watched: HashMap<ZoneId, ByKind<FlagsById>>,
    /// Watches begun so far.
    begun: u64,
    /// Marks that arrived while a reading is under way.
    arriving: Option<Vec<Anchor>>,
}

/// Whoever holds an anchor, by the number of its watch. Thousands of requests can hold the same, a zone's key above all, and
/// each of them leaves alone.
type FlagsById = HashMap<Box<str>, HashMap<u64, Arc<Flag>>>;

#[derive(Default)]
struct Marks {
    zones: HashMap<ZoneId, ByKind<HashSet<Box<str>>>>,
    count: u64,
}

/// One of each for records, sessions, delegations and keys.
#[derive(Default)]
struct ByKind<T>([T; 4]);

impl<T> ByKind<T> {
    fn get(&self, kind: AnchorKind) -> &T {
        &self.0[kind as usize]
    }

    fn get_mut(&mut self, kind: AnchorKind) -> &mut T {
        &mut self.0[kind as usize]
    }
}

impl Marks {
    fn contains(&self, zone: &ZoneId, kind: AnchorKind, id: &str) -> bool {
        self.zones.get(zone).is_some_and(|marks| marks.get(kind).contains(id))
    }

    fn insert(&mut self, anchor: &Anchor) {
        let marks = self.zones.entry(anchor.zone.clone()).or_default();
        if marks.get_mut(anchor.kind).insert(anchor.id.as_str().into()) {
            self.count += 1;
        }
    }
}

impl Revocations {
    /// Knows nothing and is not fresh until the first [`refresh`](Self::refresh). Register it as an observer of `store`
    /// before that, or what is revoked in between is learnt only with the second.
    pub(crate) fn new(store: Store) -> Self {
        Self {
            store,
            state: Mutex::default(),
            reading: tokio::sync::Mutex::default(),
            read_at: AtomicI64::new(0),
            beat: AtomicU64::new(0),
            began: Instant::now(),
            pauses: AtomicU64::new(0),
            messages: AtomicU64::new(0),
            propagation: AtomicI64::new(0),
        }
    }

    /// Lets a mandate with these anchors pass and keeps watch over them from the same moment on: there is no gap in
    /// which a revocation could go unseen.
    pub(crate) fn watch(self: &Arc<Self>, anchors: Anchors) -> Result<Watch, Revoked> {
        let flag = Arc::new(Flag::default());
        let mut state = self.lock();
        if anchors.ids.iter().any(|(kind, id)| state.marks.contains(&anchors.zone, *kind, id)) {
            return Err(Revoked);
        }
        state.begun += 1;
        let number = state.begun;
        if !anchors.ids.is_empty() {
            let watched = state.watched.entry(anchors.zone.clone()).or_default();
            for (kind, id) in &anchors.ids {
                watched.get_mut(*kind).entry(id.clone()).or_default().insert(number, flag.clone());
            }
        }
        drop(state);
        Ok(Watch { revocations: self.clone(), anchors, number, flag })
    }

    /// Reads from the store everything that is revoked. Says how many marks there are now.
    pub(crate) async fn refresh(&self) -> Result<u64, StoreError> {
        let _turn = self.reading.lock().await;
        let pauses = self.pauses.load(Ordering::Acquire);
        self.lock().arriving = Some(Vec::new());
        let read = async {
            let mut snapshot = self.store.snapshot().await?;
            let now = snapshot.now();
            let anchors = revocations::list(&mut snapshot.deployment(), now.minus(LOOK_BACK)).await?;
            Ok((now, anchors))
        };
        let outcome = match tokio::time::timeout(READING, read).await {
            Ok(outcome) => outcome,
            Err(_) => Err(StoreError::Unavailable { reason: "revocations could not be read in time".to_owned() }),
        };
        match outcome {
            Ok((now, anchors)) => Ok(self.take(&anchors, now, pauses)),
            Err(error) => {
                self.lock().arriving = None;
                Err(error)
            }
        }
    }

    /// Says that the process runs at `at`. True when it had stood still: then nobody has heard of anything meanwhile, and
    /// nothing is fresh until the next reading.
    pub(crate) fn beat(&self, at: Instant) -> bool {
        let stood_still = !self.is_awake(at);
        if stood_still {
            self.pauses.fetch_add(1, Ordering::AcqRel);
            self.read_at.store(0, Ordering::Release);
        }
        // Behind the reset: who sees this beat sees that, too.
        self.beat.store(self.millis(at).max(1), Ordering::Release);
        stood_still
    }

    /// Whether the process has run without a pause until `at`. Nobody can say of a process that has never beaten.
    fn is_awake(&self, at: Instant) -> bool {
        let beat = self.beat.load(Ordering::Acquire);
        beat == 0 || self.millis(at).saturating_sub(beat) <= PAUSE_MILLIS
    }

    fn millis(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.began).as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether the last successful reading is recent enough to let anything through at `now`. One from the future is
    /// not: the clock was set back, and how old it is nobody knows. Nor is one from before a pause of the process, in which
    /// it heard of nothing.
    pub(crate) fn is_fresh(&self, now: Timestamp) -> bool {
        self.is_awake(Instant::now()) && self.age(now).is_some_and(|age| (0..=FRESH_SECONDS).contains(&age))
    }

    /// Whole seconds since the last successful reading; `None` before the first.
    pub(crate) fn age(&self, now: Timestamp) -> Option<i64> {
        match self.read_at.load(Ordering::Acquire) {
            0 => None,
            read_at => Some(now.as_seconds() - read_at),
        }
    }

    /// Whether there is a reading that counts, however old.
    pub(crate) fn is_read(&self) -> bool {
        self.read_at.load(Ordering::Acquire) != 0
    }

    /// Marks at present.
    pub(crate) fn active(&self) -> u64 {
        self.lock().marks.count
    }

    /// Messages applied, and the age of the last when it was.
    pub(crate) fn applied(&self) -> (u64, Duration) {
        let age = self.propagation.load(Ordering::Relaxed);
        (self.messages.load(Ordering::Relaxed), Duration::from_micros(u64::try_from(age).unwrap_or(0)))
    }

    /// Takes over what was read at `now`, by a reading that began after so many pauses.
    fn take(&self, anchors: &[Anchor], now: Timestamp, pauses: u64) -> u64 {
        let count = self.replace(anchors);
        // What was read before the process stood still is not what is so after it.
        if self.pauses.load(Ordering::Acquire) == pauses {
            self.read_at.store(now.as_seconds(), Ordering::Release);
        }
        count
    }

    fn replace(&self, anchors: &[Anchor]) -> u64 {
        let mut marks = Marks::default();
        anchors.iter().for_each(|anchor| marks.insert(anchor));
        let mut state = self.lock();
        for anchor in state.arriving.take().unwrap_or_default() {
            marks.insert(&anchor);
        }
        let count = marks.count;
        let replaced = std::mem::replace(&mut state.marks, marks);
        state.set_watched_that_are_marked();
        drop(state);
        // A day of revocations can be large; others should not wait for the lock while it is taken apart.
        drop(replaced);
        count
    }

    fn mark(&self, anchor: Anchor) {
        let mut state = self.lock();
        state.marks.insert(&anchor);
        if let Some(watched) = state.watched.get(&anchor.zone)
            && let Some(flags) = watched.get(anchor.kind).get(anchor.id.as_str())
        {
            flags.values().for_each(|flag| flag.set());
        }
        if let Some(arriving) = &mut state.arriving {
            arriving.push(anchor);
        }
    }

    /// Marks what a message revokes. Hearing it twice changes nothing. A revocation that does not say of what can't be acted
    /// on, which is false.
    pub(crate) fn hear(&self, message: &Message) -> bool {
        let mut anchors = anchors_of(message).peekable();
        if anchors.peek().is_none() {
            if message.topic == REVOKE_TOPIC {
                tracing::error!(outbox_id = %message.id, "a revocation names no anchor");
            }
            return message.topic != REVOKE_TOPIC;
        }
        anchors.for_each(|anchor| self.mark(anchor));
        self.messages.fetch_add(1, Ordering::Relaxed);
        let age = message.created_at.until(self.store.now());
        self.propagation.store(i64::try_from(age.as_micros()).unwrap_or(i64::MAX), Ordering::Relaxed);
        true
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while the lock was held leaves marks that are still marks; forgetting them would let the revoked in.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn set_watched_that_are_marked(&mut self) {
        for (zone, watched) in &self.watched {
            for kind in [AnchorKind::Record, AnchorKind::Session, AnchorKind::Edge, AnchorKind::Key] {
                for (id, flags) in watched.get(kind) {
                    if self.marks.contains(zone, kind, id) {
                        flags.values().for_each(|flag| flag.set());
                    }
                }
            }
        }
    }
}

/// Hears of every commit before its callers do.
impl Observer for Revocations {
    fn committed(&self, committed: &Committed) {
        for message in &committed.messages {
            // What names nothing was logged, and nobody else can act on it either.
            let _ = self.hear(message);
        }
    }
}

/// What a message revokes (audit-and-streams.md §6.4): any one field suffices, others are ignored.
fn anchors_of(message: &Message) -> impl Iterator<Item = Anchor> + '_ {
    let fields: &[(AnchorKind, &str)] = match message.topic.as_str() {
        REVOKE_TOPIC => &[
            (AnchorKind::Record, "session_id"),
            (AnchorKind::Session, "agent_session_id"),
            (AnchorKind::Edge, "delegation_edge_id"),
            (AnchorKind::Edge, "edge_id"),
        ],
        KEYS_TOPIC => &[(AnchorKind::Key, "kid")],
        EDGES_TOPIC if message.field("event") == Some("edge_revoke") => &[(AnchorKind::Edge, "edge_id")],
        _ => &[],
    };
    let anchor = |kind, id: &str| Anchor { zone: message.zone.clone(), kind, id: id.to_owned() };
    fields.iter().filter_map(move |(kind, name)| Some(anchor(*kind, message.field(name)?)))
}

#[derive(Default)]
struct Flag {
    revoked: AtomicBool,
    waker: AtomicWaker,
}

impl Flag {
    fn set(&self) {
        self.revoked.store(true, Ordering::Release);
        self.waker.wake();
    }
}

/// Keeps watch over the anchors of one mandate for as long as it lives.
pub(crate) struct Watch {
    revocations: Arc<Revocations>,
    anchors: Anchors,
    number: u64,
    flag: Arc<Flag>,
}

impl Watch {
    /// Whether an anchor has been revoked since the watch began.
    pub(crate) fn is_revoked(&self) -> bool {
        self.flag.revoked.load(Ordering::Acquire)
    }

    /// The same, and wakes the task of `cx` when it changes.
    pub(crate) fn poll_revoked(&self, cx: &Context<'_>) -> bool {
        // Registered before looking: a revocation in between wakes.
        self.flag.waker.register(cx.waker());
        self.is_revoked()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut state = self.revocations.lock();
        let State { watched, .. } = &mut *state;
        let Some(zone) = watched.get_mut(&self.anchors.zone) else { return };
        for (kind, id) in &self.anchors.ids {
            if let Some(flags) = zone.get_mut(*kind).get_mut(id) {
                flags.remove(&self.number);
                if flags.is_empty() {
                    zone.get_mut(*kind).remove(id);
                }
            }
        }
        if zone.0.iter().all(HashMap::is_empty) {
            watched.remove(&self.anchors.zone);
        }
    }
}

#[cfg(test)]
mod tests;
