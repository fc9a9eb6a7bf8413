//! What this replica has loaded of each zone, and how others come to know (contract: policy.md §10.4, §13; README D32).
//!
//! An operator activates a version and asks until it is loaded everywhere. A decision needs none of this: it reads what is
//! active in its own snapshot. But whether every replica *could* load it, and under which id, only each replica knows. So
//! each looks as soon as it hears of an activation, and once in a while without hearing of one; what it found it writes
//! into the store, under an id that is new with every start. A replica that was not heard of for [`ALIVE`] is gone.
//!
//! The version's own id is what is noted, not its manifest: a version with the documents of the one before is another
//! version, and is loaded when this replica has seen it active.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use caracal_authority::{ReplicaId, Timestamp, ZoneId};
use caracal_crypto::chance;
use caracal_store::policy_replicas::{self, LoadedPolicy};
use caracal_store::policy_sets::{self, INVALIDATED};
use caracal_store::{BoxFuture, DeploymentWrite, Message, StoreError};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};

use crate::Sts;
use crate::policy::Governing;

/// How often a replica says that it is there.
const BEAT: Duration = Duration::from_secs(10);
/// How long it counts as there after that.
pub const ALIVE: Duration = Duration::from_secs(30);
/// How long one that is gone is kept for whoever asks what was there.
const FORGOTTEN: Duration = Duration::from_secs(600);
/// Longest error that is told.
const ERROR_CHARS: usize = 512;

/// The loads of one replica.
pub(crate) struct Loads {
    /// `None` without randomness at the start: such a process can't sign either. It tells nobody what it has loaded.
    replica: Option<ReplicaId>,
    known: Mutex<HashMap<ZoneId, Known>>,
    /// Zones to look at, because something was heard of them.
    unseen: Mutex<HashSet<ZoneId>>,
    heard: Notify,
    poll_seconds: AtomicU64,
    /// When this replica was there last, as far as the store knows.
    seen_at: Mutex<Option<Timestamp>>,
}

struct Known {
    loaded: LoadedPolicy,
    /// When it was last seen that what is active is loaded.
    good_at: Timestamp,
    /// Whether the store has it. Not before the commit: who asks the store meanwhile must be told by whoever asks.
    is_told: bool,
}

impl Loads {
    pub(crate) fn new(now: Timestamp) -> Arc<Self> {
        Arc::new(Self {
            replica: chance::uuid_v7(now).ok().and_then(|id| ReplicaId::parse(&id.to_string()).ok()),
            known: Mutex::default(),
            unseen: Mutex::default(),
            heard: Notify::new(),
            poll_seconds: AtomicU64::new(0),
            seen_at: Mutex::default(),
        })
    }

    /// Notes what another process, or this one, committed.
    pub(crate) fn hear(&self, message: &Message) {
        if message.topic == INVALIDATED {
            self.look_at(message.zone.clone());
        }
    }

    /// Notes what governs a zone by a snapshot of that time. Says what is known now, and whether it is still
    /// to be told.
    pub(crate) fn note(&self, zone: &ZoneId, governing: &Governing, seen_at: Timestamp) -> (LoadedPolicy, bool) {
        let version = governing.active.as_ref().map(|active| active.version_id.clone());
        let manifest = governing.manifest().unwrap_or_default().to_owned();
        let error = governing.bundle.as_ref().err().map(|error| error.chars().take(ERROR_CHARS).collect());
        let mut known = lock(&self.known);
        let (before, good_at, was_told) = match known.get(zone) {
            Some(known) => (Some(&known.loaded), Some(known.good_at), known.is_told),
            None => (None, None, false),
        };
        if let Some(newer) = before.filter(|before| before.checked_at > seen_at) {
            return (newer.clone(), !was_told);
        }
        let same = before.filter(|before| {
            before.policy_set_version_id == version && before.manifest_sha256 == manifest && before.error == error
        });
        let is_told = same.is_some() && was_told;
        let loaded = match same {
            Some(before) => LoadedPolicy { checked_at: seen_at, ..before.clone() },
            None => LoadedPolicy {
                policy_set_version_id: version,
                manifest_sha256: manifest,
                loaded_at: error.is_none().then_some(seen_at),
                error,
                checked_at: seen_at,
            },
        };
        // A zone in which nothing was ever active, or that there is not, is not remembered.
        if loaded.policy_set_version_id.is_some() || before.is_some() {
            let good_at = good_at.filter(|_| loaded.error.is_some()).unwrap_or(seen_at);
            known.insert(zone.clone(), Known { loaded: loaded.clone(), good_at, is_told });
        }
        (loaded, !is_told)
    }

    /// Notes that the store has it.
    fn note_told(&self, zone: &ZoneId, told: &LoadedPolicy) {
        if let Some(known) = lock(&self.known).get_mut(zone)
            && known.loaded.policy_set_version_id == told.policy_set_version_id
            && known.loaded.loaded_at == told.loaded_at
            && known.loaded.error == told.error
        {
            known.is_told = true;
        }
    }

    /// Notes that this replica was seen. One that was not for a while may have been forgotten with all that it told.
    fn note_seen(&self, now: Timestamp) {
        let before = lock(&self.seen_at).replace(now);
        if before.is_some_and(|before| before.until(now) > ALIVE) {
            lock(&self.known).values_mut().for_each(|known| known.is_told = false);
        }
    }

    /// How long ago it was last seen of every zone that what is active in it is loaded.
    pub(crate) fn age(&self, now: Timestamp) -> Duration {
        let known = lock(&self.known);
        known.values().map(|known| known.good_at.until(now)).max().unwrap_or_default()
    }

    /// How often all zones are looked at; 0 where they are not.
    pub(crate) fn poll_seconds(&self) -> u64 {
        self.poll_seconds.load(Ordering::Relaxed)
    }

    fn look_at(&self, zone: ZoneId) {
        lock(&self.unseen).insert(zone);
        self.heard.notify_one();
    }

    fn take_unseen(&self) -> HashSet<ZoneId> {
        std::mem::take(&mut lock(&self.unseen))
    }

    fn zones(&self) -> HashSet<ZoneId> {
        lock(&self.known).keys().cloned().collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is one call: a panic elsewhere leaves a map that is still one.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sts {
    /// Looks at what governs `zone`, loads it if it was not, and tells others what they have not been told.
    pub async fn tell_loaded(&self, zone: &ZoneId) -> Result<LoadedPolicy, StoreError> {
        let (loaded, is_to_be_told) = self.policy.look(&self.store, zone).await?;
        if is_to_be_told {
            // What fails is told with the next look.
            self.write_down(zone, &loaded).await?;
            self.policy.loads.note_told(zone, &loaded);
        }
        Ok(loaded)
    }

    /// Keeps the reports of this replica up to date until `stopping` turns true: looks at zones as it hears of them, and at
    /// all of them every `poll`.
    pub async fn run_policy_reports(self: Arc<Self>, poll: Duration, mut stopping: watch::Receiver<bool>) {
        self.policy.loads.poll_seconds.store(poll.as_secs(), Ordering::Relaxed);
        self.attempt("greet", self.greet()).await;
        let (mut next_beat, mut next_poll) = (Instant::now() + BEAT, Instant::now());
        loop {
            let due = next_beat.min(next_poll);
            tokio::select! {
                _ = stopping.wait_for(|stop| *stop) => break,
                () = self.policy.loads.heard.notified() => {}
                () = sleep_until(due) => {}
            }
            if Instant::now() >= next_beat {
                next_beat = Instant::now() + BEAT;
                self.attempt("beat", self.greet()).await;
            }
            if Instant::now() >= next_poll {
                next_poll = Instant::now() + poll;
                self.attempt("poll", self.look_at_all()).await;
            }
            for zone in self.policy.loads.take_unseen() {
                self.attempt("look", async { self.tell_loaded(&zone).await.map(drop) }).await;
            }
        }
        self.attempt("leave", self.leave()).await;
    }

    async fn attempt(&self, what: &'static str, done: impl Future<Output = Result<(), StoreError>>) {
        if let Err(error) = done.await {
            tracing::warn!(what, %error, "what is loaded could not be looked at or told; it is tried again");
        }
    }

    async fn greet(&self) -> Result<(), StoreError> {
        self.say((), |_, _, ()| Box::pin(async { Ok(()) })).await?;
        self.policy.loads.note_seen(self.store.now());
        Ok(())
    }

    async fn leave(&self) -> Result<(), StoreError> {
        self.say((), |tx, replica, ()| Box::pin(policy_replicas::forget(tx, replica))).await
    }

    /// Looks at every zone in which something decides, and at those in which something did.
    async fn look_at_all(&self) -> Result<(), StoreError> {
        let mut snapshot = self.store.snapshot().await?;
        let active = policy_sets::list_active(&mut snapshot.deployment()).await?;
        drop(snapshot);
        let mut zones = self.policy.loads.zones();
        zones.extend(active.into_iter().map(|(zone, _)| zone));
        for zone in zones {
            self.tell_loaded(&zone).await?;
        }
        Ok(())
    }

    async fn write_down(&self, zone: &ZoneId, loaded: &LoadedPolicy) -> Result<(), StoreError> {
        self.say((zone.clone(), loaded.clone()), |tx, replica, (zone, loaded)| {
            Box::pin(policy_replicas::note_loaded(tx, replica, zone, loaded))
        })
        .await
    }

    /// Commits that this replica is there, and what it has to say. Where no other process can be there, none is.
    async fn say<T: Send + Sync + 'static>(
        &self,
        what: T,
        change: for<'t> fn(&'t mut DeploymentWrite<'_>, &'t ReplicaId, &'t T) -> BoxFuture<'t, Result<(), StoreError>>,
    ) -> Result<(), StoreError> {
        let Some(replica) = self.policy.loads.replica.clone() else { return Ok(()) };
        let kept = if self.store.is_shared() { FORGOTTEN } else { Duration::ZERO };
        self.store
            .commit_upkeep((replica, what), move |tx, (replica, what)| {
                Box::pin(async move {
                    policy_replicas::note_seen(tx, replica).await?;
                    let before = tx.now().minus(kept);
                    policy_replicas::forget_unseen(tx, before).await?;
                    change(tx, replica, what).await
                })
            })
            .await
    }
}
