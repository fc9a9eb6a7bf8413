//! From the outbox to the topics.
//!
//! One process at a time relays, whoever the store elected. It reads what is due, publishes that in order, and removes
//! it from the outbox: first the one, then the other, and never a store transaction while the stream is waited for. Cut
//! off anywhere, a message is still in the outbox, or was published and is published again by a successor: delivered at
//! least once, never lost, and recognisable by its `outbox_id`.
//!
//! An outage is nobody's fault: the relay tries until it ends. A message that the stream refuses while it answers
//! others is tried a few times more, ever less often, and then lies dead in the outbox until somebody requeues it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use caracal_authority::OutboxId;
use caracal_store::outbox::{self, Waiting};
use caracal_store::{Committed, Election, Observer, Store, StoreError};
use tokio::sync::{Notify, watch};

use crate::TOPICS;
use crate::entry::to_wire;
use crate::redis::StreamError;
use crate::streams::Streams;

const JOB: &str = "outbox-relay";
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Short enough that a revocation is on its way within a second of the stream's return.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// How long a refused message waits before its second try; doubled with each further one.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_REFUSED_PAUSE: Duration = Duration::from_secs(60);
/// How much history a topic keeps beyond what its groups need: as long as any mandate can live, so that a resource
/// server that starts late learns of every revocation that can still matter (audit-and-streams.md W14).
const HISTORY: Duration = Duration::from_secs(24 * 60 * 60);
const TRIM_EVERY: Duration = Duration::from_secs(60);

/// How the relay works.
#[derive(Debug, Clone, Copy)]
pub struct RelayOptions {
    /// How often it looks for messages that other processes committed.
    pub poll: Duration,
    /// Messages published in one round trip.
    pub batch: u32,
    /// Tries of a message that the stream refuses.
    pub max_attempts: u32,
}

impl Default for RelayOptions {
    fn default() -> Self {
        Self { poll: Duration::from_millis(250), batch: 256, max_attempts: 10 }
    }
}

/// What there is to know of a relay.
#[derive(Default)]
pub struct RelayState {
    elected: AtomicBool,
    failing: AtomicBool,
    published: AtomicU64,
    removed: AtomicU64,
    refused: AtomicU64,
}

impl RelayState {
    /// Whether this process is the one that relays.
    pub fn is_elected(&self) -> bool {
        self.elected.load(Ordering::Relaxed)
    }

    /// Whether its last try to publish failed.
    pub fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// Messages published.
    pub fn published(&self) -> u64 {
        self.published.load(Ordering::Relaxed)
    }

    /// Messages that were sent and are no longer in the outbox.
    pub fn removed(&self) -> u64 {
        self.removed.load(Ordering::Relaxed)
    }

    /// Times the stream refused a message.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

/// Brings messages from a store's outbox to the topics.
#[derive(Clone)]
pub struct Relay {
    store: Store,
    streams: Streams,
    options: RelayOptions,
    woken: Arc<Notify>,
    state: Arc<RelayState>,
}

/// Tells the relay of messages committed by its own process.
struct Waker(Arc<Notify>);

impl Observer for Waker {
    fn committed(&self, committed: &Committed) {
        if !committed.messages.is_empty() {
            self.0.notify_one();
        }
    }
}

enum Failed {
    Store(StoreError),
    Stream(StreamError),
}

impl Relay {
    /// Does nothing until it is [run](Self::run).
    pub fn new(store: Store, streams: Streams, options: RelayOptions) -> Self {
        let woken = Arc::new(Notify::new());
        store.observe(Arc::new(Waker(woken.clone())));
        Self { store, streams, options, woken, state: Arc::default() }
    }

    /// What there is to know of it.
    pub fn state(&self) -> Arc<RelayState> {
        self.state.clone()
    }

    /// Relays, whenever this process is elected, until `shutdown` turns true and what was committed before is sent.
    pub async fn run(self, mut shutdown: watch::Receiver<bool>) {
        let mut pause = FIRST_PAUSE;
        while !*shutdown.borrow() {
            let elected = self.store.elect(JOB).await;
            if let Ok(Some(election)) = elected {
                self.state.elected.store(true, Ordering::Relaxed);
                pause = FIRST_PAUSE;
                self.serve(&election, &mut shutdown).await;
                self.state.elected.store(false, Ordering::Relaxed);
            }
            tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => {}
                () = tokio::time::sleep(pause) => {}
            }
            pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
        }
    }

    async fn serve(&self, election: &Election, shutdown: &mut watch::Receiver<bool>) {
        let mut pause = FIRST_PAUSE;
        let mut trim = tokio::time::interval(TRIM_EVERY);
        trim.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            // Looked at first, so that what was committed before the word to stop is sent.
            let stopping = *shutdown.borrow();
            if !election.holds().await {
                return;
            }
            let wait = match self.relay_batch().await {
                Ok(sent) => {
                    self.state.failing.store(false, Ordering::Relaxed);
                    pause = FIRST_PAUSE;
                    if sent >= self.options.batch { Duration::ZERO } else { self.options.poll }
                }
                Err(failed) => {
                    self.say(&failed);
                    pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
                    pause
                }
            };
            if stopping {
                return;
            }
            let trims = tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => false,
                () = self.woken.notified(), if !self.state.is_failing() => false,
                _ = trim.tick() => true,
                () = tokio::time::sleep(wait) => false,
            };
            if trims {
                self.trim().await;
            }
        }
    }

    fn say(&self, failed: &Failed) {
        // Once per outage, not once per try.
        if !self.state.failing.swap(true, Ordering::Relaxed) {
            match failed {
                Failed::Store(error) => tracing::warn!(%error, "the outbox can't be read; it is tried until it can"),
                Failed::Stream(error) => {
                    tracing::warn!(%error, "messages can't be published; it is tried until they can")
                }
            }
        }
    }

    /// Publishes what is due, and says how many messages that were.
    async fn relay_batch(&self) -> Result<u32, Failed> {
        let due = {
            let mut snapshot = self.store.snapshot().await.map_err(Failed::Store)?;
            let limit = i64::from(self.options.batch);
            outbox::list_due(&mut snapshot.deployment(), limit).await.map_err(Failed::Store)?
        };
        if due.is_empty() {
            return Ok(0);
        }
        let count = u32::try_from(due.len()).unwrap_or(u32::MAX);
        let (mut signed, mut sent, mut refused) = (Vec::with_capacity(due.len()), Vec::new(), Vec::new());
        for waiting in due {
            match to_wire(&waiting.message, self.streams.key()) {
                Ok(fields) => signed.push((waiting, fields)),
                Err(error) => refused.push((waiting, error.to_string())),
            }
        }
        let entries: Vec<_> =
            signed.iter().map(|(waiting, fields)| (waiting.message.topic.as_str(), &fields[..])).collect();
        let taken = self.streams.add_signed(&entries).await.map_err(Failed::Stream)?;
        let mut outage = None;
        for ((waiting, _), taken) in signed.into_iter().zip(taken) {
            match taken {
                Ok(()) => sent.push(waiting.message.id),
                Err(StreamError::Refused(reason)) => refused.push((waiting, reason)),
                Err(error) => outage = Some(error),
            }
        }
        self.note_sent(sent).await?;
        for (waiting, reason) in refused {
            self.note_refused(waiting, &reason).await?;
        }
        outage.map_or(Ok(count), |error| Err(Failed::Stream(error)))
    }

    async fn note_sent(&self, ids: Vec<OutboxId>) -> Result<(), Failed> {
        if ids.is_empty() {
            return Ok(());
        }
        let count = u64::try_from(ids.len()).unwrap_or(0);
        self.state.published.fetch_add(count, Ordering::Relaxed);
        let removed: Result<(), StoreError> = self
            .store
            .commit_upkeep(ids, |tx, ids| {
                Box::pin(async move {
                    for id in ids {
                        outbox::remove_sent(tx, id).await?;
                    }
                    Ok(())
                })
            })
            .await;
        removed.map_err(Failed::Store)?;
        self.state.removed.fetch_add(count, Ordering::Relaxed);
        Ok(())
    }

    async fn note_refused(&self, waiting: Waiting, reason: &str) -> Result<(), Failed> {
        self.state.refused.fetch_add(1, Ordering::Relaxed);
        let attempts = u32::try_from(waiting.attempts).unwrap_or(u32::MAX).saturating_add(1);
        let dead = attempts >= self.options.max_attempts;
        let pause = REFUSED_PAUSE.saturating_mul(2_u32.saturating_pow(attempts.min(16))).min(LONGEST_REFUSED_PAUSE);
        let (id, topic) = (waiting.message.id.clone(), &waiting.message.topic);
        tracing::error!(outbox_id = %id, topic, attempts, dead, reason, "the stream refuses a message");
        let noted: Result<(), StoreError> = self
            .store
            .commit_upkeep((id, reason.to_owned(), dead, pause), |tx, (id, reason, dead, pause)| {
                Box::pin(async move {
                    let due_at = (!dead).then(|| tx.now().plus(*pause));
                    outbox::note_refusal(tx, id, reason, due_at).await
                })
            })
            .await;
        noted.map_err(Failed::Store)
    }

    async fn trim(&self) {
        let oldest = self.store.now().minus(HISTORY).as_micros() / 1_000;
        for topic in TOPICS {
            if let Err(error) = self.streams.trim(topic, oldest).await {
                tracing::warn!(topic, %error, "a topic could not be trimmed");
            }
        }
    }
}
