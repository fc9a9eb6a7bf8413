//! A consumer: a member of a group that hands verified messages to whoever acts on them.
//!
//! Somebody who can write to the server adds an entry that ends everybody's session. It has no signature of ours, so it is
//! counted, put aside as a dead letter, and never seen by the handler; the same goes for one that is garbled or too
//! large. A genuine entry that somebody adds once more is known by its `outbox_id` or its `dedupe_key`: a group remembers
//! the newest 100,000 messages it has handled. The order of entries means nothing: a handler must bear any.
//!
//! A handler that fails leaves its message pending; it comes again, ever less often, and the fifth failure makes it a
//! dead letter. One that says that something it needs is away ([`Failed::Outage`]) is asked again until that is back,
//! for an outage is nobody's fault and must not turn a backlog into dead letters. A process that dies leaves its entries
//! pending too; one that dies of a message does so five times at most.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use caracal_crypto::chance;
use caracal_store::Message;
use futures_util::FutureExt;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::entry::{Rejection, from_wire};
use crate::known::Known;
use crate::redis::StreamError;
use crate::streams::{Begin, Delivery, Member, Patience, Streams};

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long one read waits, at most.
const WAIT: Duration = Duration::from_secs(1);

/// Why a message was not handled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failed {
    /// It may go well next time; tried again a few times. The reason ends up in a dead letter: no secrets.
    Again(String),
    /// It never will: becomes a dead letter now.
    Never(String),
    /// Something that every message needs is away: asked again until it is back.
    Outage(String),
}

/// Who consumes what, and how patiently.
#[derive(Debug, Clone)]
pub struct ConsumerOptions {
    /// The topic.
    pub topic: String,
    /// The group, which shares the topic's entries among its consumers.
    pub group: String,
    /// This consumer's name, which no other process of the group has.
    pub name: String,
    /// Where the group begins if it is new.
    pub begin: Begin,
    /// Entries taken at once.
    pub batch: usize,
    /// For how long entries may be held; a handler gets two thirds of the first of it.
    pub patience: Patience,
    /// How often a message is tried.
    pub max_deliveries: u64,
}

impl ConsumerOptions {
    /// The usual: batches of 32, reclaimed after half a minute and then ever later up to five minutes, five tries.
    pub fn new(topic: &str, group: &str, name: &str) -> Self {
        Self {
            topic: topic.to_owned(),
            group: group.to_owned(),
            name: name.to_owned(),
            begin: Begin::Start,
            batch: 32,
            patience: Patience { first: Duration::from_secs(30), longest: Duration::from_secs(300) },
            max_deliveries: 5,
        }
    }
}

/// What there is to know of a consumer.
#[derive(Default)]
pub struct ConsumerState {
    healthy: AtomicBool,
    blocked: AtomicBool,
    handled: AtomicU64,
    repeated: AtomicU64,
    reclaimed: AtomicU64,
    rejected: AtomicU64,
    bad_signatures: AtomicU64,
    failed: AtomicU64,
    dead: AtomicU64,
}

impl ConsumerState {
    /// Whether the last read succeeded, with or without something new.
    pub fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    /// Whether the handler waits for something that is away.
    pub fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Relaxed)
    }

    /// Messages handled.
    pub fn handled(&self) -> u64 {
        self.handled.load(Ordering::Relaxed)
    }

    /// Messages that came once more after they had been handled.
    pub fn repeated(&self) -> u64 {
        self.repeated.load(Ordering::Relaxed)
    }

    /// Entries taken over from a consumer that held them for too long, this one included.
    pub fn reclaimed(&self) -> u64 {
        self.reclaimed.load(Ordering::Relaxed)
    }

    /// Entries that nobody can act on, those with a bad signature among them.
    pub fn rejected(&self) -> u64 {
        self.rejected.load(Ordering::Relaxed)
    }

    /// Entries that none of us signed.
    pub fn bad_signatures(&self) -> u64 {
        self.bad_signatures.load(Ordering::Relaxed)
    }

    /// Times a handler failed.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Dead letters written, rejected entries among them.
    pub fn dead(&self) -> u64 {
        self.dead.load(Ordering::Relaxed)
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// A consumer. Does nothing until it is [run](Self::run).
pub struct Consumer {
    streams: Streams,
    member: Member,
    options: ConsumerOptions,
    state: Arc<ConsumerState>,
    /// What this process has handled, whether or not the group could be told.
    known: Known,
    /// Whether the group is there, as far as is known.
    joined: bool,
    reclaim_at: Instant,
}

/// Why a batch was not finished. What is left of it is pending.
enum Cut {
    Stopping,
    Stream(StreamError),
}

impl From<StreamError> for Cut {
    fn from(error: StreamError) -> Self {
        Self::Stream(error)
    }
}

impl Consumer {
    /// A consumer of these topics.
    pub fn new(streams: Streams, options: ConsumerOptions) -> Self {
        let member = streams.member(&options.topic, &options.group, &options.name);
        Self {
            streams,
            member,
            options,
            state: Arc::default(),
            known: Known::default(),
            joined: false,
            reclaim_at: Instant::now(),
        }
    }

    /// What there is to know of it.
    pub fn state(&self) -> Arc<ConsumerState> {
        self.state.clone()
    }

    /// Hands messages to `handle`, one after the other, until `shutdown` turns true and the one in hand is done. `handle`
    /// sees a message at least once, and may see it again.
    pub async fn run<H, F>(mut self, mut shutdown: watch::Receiver<bool>, handle: H)
    where
        H: Fn(Message) -> F + Send + Sync,
        F: Future<Output = Result<(), Failed>> + Send,
    {
        let mut pause = FIRST_PAUSE;
        loop {
            let fetched = tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => return,
                fetched = self.fetch() => fetched,
            };
            let done = match fetched {
                Ok(batch) => {
                    self.state.healthy.store(true, Ordering::Relaxed);
                    self.work(batch, &mut shutdown, &handle).await
                }
                Err(error) => Err(Cut::Stream(error)),
            };
            match done {
                Ok(()) => pause = FIRST_PAUSE,
                Err(Cut::Stopping) => return,
                Err(Cut::Stream(error)) => {
                    // The group went away with the server's memory, say. Whatever the topic has is read again, and what
                    // this process has handled it knows.
                    if matches!(error, StreamError::NoGroup(_)) {
                        self.joined = false;
                        self.options.begin = Begin::Start;
                    }
                    if self.state.healthy.swap(false, Ordering::Relaxed) {
                        let (topic, group) = (&self.options.topic, &self.options.group);
                        tracing::warn!(topic, group, %error, "a topic can't be consumed; it is tried until it can");
                    }
                    tokio::select! {
                        _ = shutdown.wait_for(|stop| *stop) => return,
                        () = tokio::time::sleep(jittered(pause)) => {}
                    }
                    pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Entries to work on: those that were held for too long, or new ones, waited for.
    async fn fetch(&mut self) -> Result<Vec<Delivery>, StreamError> {
        if !self.joined {
            self.streams.create_group(&self.options.topic, &self.options.group, self.options.begin).await?;
            self.joined = true;
        }
        let every = self.options.patience.first / 2;
        if Instant::now() >= self.reclaim_at {
            let reclaimed = self.member.reclaim(self.options.patience, self.options.batch).await?;
            if !reclaimed.is_empty() {
                let taken = u64::try_from(reclaimed.len()).unwrap_or(0);
                self.state.reclaimed.fetch_add(taken, Ordering::Relaxed);
                return Ok(reclaimed);
            }
            self.member.forget_handled().await?;
            self.reclaim_at = Instant::now() + every;
        }
        self.member.read(self.options.batch, WAIT.min(every)).await
    }

    async fn work<H, F>(
        &mut self,
        batch: Vec<Delivery>,
        shutdown: &mut watch::Receiver<bool>,
        handle: &H,
    ) -> Result<(), Cut>
    where
        H: Fn(Message) -> F + Send + Sync,
        F: Future<Output = Result<(), Failed>> + Send,
    {
        let mut said_at = Instant::now();
        for (at, delivery) in batch.iter().enumerate() {
            if *shutdown.borrow() {
                return Err(Cut::Stopping);
            }
            let rest = || batch.iter().skip(at).map(Delivery::id).collect::<Vec<_>>();
            // Those behind a slow one would be taken for abandoned.
            if said_at.elapsed() > self.options.patience.first / 3 {
                self.member.keep(&rest()).await?;
                said_at = Instant::now();
            }
            let Some(message) = self.admit(delivery).await? else { continue };
            let mut pause = FIRST_PAUSE;
            let outcome = loop {
                match self.ask(message.clone(), handle).await {
                    Err(Failed::Outage(reason)) => {
                        if !self.state.blocked.swap(true, Ordering::Relaxed) {
                            let (topic, group) = (&self.options.topic, &self.options.group);
                            tracing::warn!(
                                topic,
                                group,
                                reason,
                                "messages can't be handled; it is tried until they can"
                            );
                        }
                        tokio::select! {
                            _ = shutdown.wait_for(|stop| *stop) => return Err(Cut::Stopping),
                            () = tokio::time::sleep(jittered(pause)) => {}
                        }
                        pause = pause.saturating_mul(2).min(LONGEST_PAUSE).min(self.options.patience.first / 3);
                        self.member.keep(&rest()).await?;
                        said_at = Instant::now();
                    }
                    other => break other,
                }
            };
            self.state.blocked.store(false, Ordering::Relaxed);
            self.conclude(delivery, &message, outcome).await?;
        }
        Ok(())
    }

    /// The message of an entry, if there is one to act on.
    async fn admit(&mut self, delivery: &Delivery) -> Result<Option<Message>, StreamError> {
        let topic = &self.options.topic;
        let message = match from_wire(topic, &delivery.entry, self.streams.key()) {
            Ok(message) => message,
            Err(rejection) => {
                tracing::warn!(topic, entry = delivery.id(), %rejection, "a stream entry is not acted on");
                // Counted by whoever puts it aside, so once.
                if self.put_aside(delivery, &rejection.to_string()).await? {
                    count(&self.state.rejected);
                    if rejection == Rejection::Signature {
                        count(&self.state.bad_signatures);
                    }
                }
                return Ok(None);
            }
        };
        let identities = identities(&message);
        if identities.iter().any(|identity| self.known.contains(identity))
            || self.member.is_handled(&identities).await?
        {
            self.member.settle(delivery.id(), identities).await?;
            count(&self.state.repeated);
            return Ok(None);
        }
        if delivery.deliveries > self.options.max_deliveries {
            // Nobody who had it lived to say what was wrong with it.
            self.put_aside(delivery, "never_finished").await?;
            return Ok(None);
        }
        Ok(Some(message))
    }

    async fn ask<H, F>(&self, message: Message, handle: &H) -> Result<(), Failed>
    where
        H: Fn(Message) -> F + Send + Sync,
        F: Future<Output = Result<(), Failed>> + Send,
    {
        let limit = self.options.patience.first * 2 / 3;
        let handling = AssertUnwindSafe(async { handle(message).await }).catch_unwind();
        match timeout(limit, handling).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(Failed::Again("the handler panicked".to_owned())),
            Err(_) => Err(Failed::Again(format!("it was not handled within {limit:?}"))),
        }
    }

    async fn conclude(
        &mut self,
        delivery: &Delivery,
        message: &Message,
        outcome: Result<(), Failed>,
    ) -> Result<(), StreamError> {
        let reason = match outcome {
            Ok(()) => {
                count(&self.state.handled);
                let identities = identities(message);
                for identity in &identities {
                    self.known.is_new(identity);
                }
                return self.member.settle(delivery.id(), identities).await;
            }
            Err(Failed::Never(reason)) => reason,
            Err(Failed::Again(reason) | Failed::Outage(reason)) => {
                count(&self.state.failed);
                let (topic, attempts) = (&self.options.topic, delivery.deliveries);
                tracing::warn!(topic, outbox_id = %message.id, attempts, reason, "a message could not be handled");
                if delivery.deliveries < self.options.max_deliveries {
                    return Ok(());
                }
                reason
            }
        };
        self.put_aside(delivery, &reason).await.map(|_| ())
    }

    async fn put_aside(&self, delivery: &Delivery, reason: &str) -> Result<bool, StreamError> {
        let put = self.member.dead_letter(delivery, reason).await?;
        if put {
            count(&self.state.dead);
        }
        Ok(put)
    }
}

/// What a message is known by: either may repeat alone, when a producer was cut off between its steps.
fn identities(message: &Message) -> Vec<String> {
    let mut identities = vec![format!("id:{}", message.id)];
    if !message.dedupe_key.is_empty() {
        identities.push(format!("key:{}", message.dedupe_key));
    }
    identities
}

/// Between half of a pause and all of it, so that those who failed together don't come back together.
fn jittered(pause: Duration) -> Duration {
    let [chance] = chance::random_bytes::<1>().unwrap_or([u8::MAX]);
    pause / 2 + pause.saturating_mul(u32::from(chance)) / 510
}
