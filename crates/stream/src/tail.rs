//! Following topics: everybody who follows hears every message (difference D6), from the moment they began.
//!
//! A follower has no place in the server that could be forgotten there. It remembers the last entry it saw and asks for
//! those after it, also after the way to the server was lost for a while. What it misses beyond what topics keep, it
//! finds in the store: whoever acts on messages reads that again now and then.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ::redis::Value;
use ::redis::aio::MultiplexedConnection;
use caracal_crypto::hmac::HmacKey;
use caracal_store::Message;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::entry::{Entry, Rejection, dead_letter, dead_letter_topic, from_wire};
use crate::known::Known;
use crate::redis::{Redis, StreamError, entries_of, failure};
use crate::streams::DEAD_LETTERS;

/// How long one read waits for something new.
const WAIT: Duration = Duration::from_secs(1);
/// Beyond that the server gets this long to say that there was nothing.
const GRACE: Duration = Duration::from_secs(2);
const ENTRIES: usize = 256;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How long a rejected entry is known as one that somebody has put aside already.
const PUT_ASIDE: Duration = Duration::from_secs(24 * 60 * 60);

/// What there is to know of a follower.
#[derive(Default)]
pub struct TailState {
    healthy: AtomicBool,
    heard: AtomicU64,
    repeated: AtomicU64,
    rejected: AtomicU64,
    bad_signatures: AtomicU64,
    dead_letters: AtomicU64,
    caught_up: AtomicU64,
}

impl TailState {
    /// Whether the last read succeeded, with or without something new.
    pub fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    /// Messages handed on.
    pub fn heard(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
    }

    /// Messages that were delivered again and not handed on again.
    pub fn repeated(&self) -> u64 {
        self.repeated.load(Ordering::Relaxed)
    }

    /// Entries that nobody can act on, those with a bad signature among them.
    pub fn rejected(&self) -> u64 {
        self.rejected.load(Ordering::Relaxed)
    }

    /// Entries that none of us signed.
    pub fn bad_signatures(&self) -> u64 {
        self.bad_signatures.load(Ordering::Relaxed)
    }

    /// Rejected entries that this follower, the first to reject them, kept for people to look at. No forged ones.
    pub fn dead_letters(&self) -> u64 {
        self.dead_letters.load(Ordering::Relaxed)
    }

    /// Entries that waited while the server could not be reached and were read once it could.
    pub fn caught_up(&self) -> u64 {
        self.caught_up.load(Ordering::Relaxed)
    }
}

/// A follower of topics.
pub struct Tail {
    redis: Arc<Redis>,
    key: Arc<HmacKey>,
    /// Each topic and the last entry of it that was seen.
    seen: Vec<(&'static str, String)>,
    state: Arc<TailState>,
    known: Known,
}

impl Tail {
    /// Fixes where following begins: after the newest entry of each topic. Read the store after that, and nothing is
    /// missed between the two.
    pub async fn begin(redis: Arc<Redis>, key: Arc<HmacKey>, topics: &[&'static str]) -> Result<Self, StreamError> {
        let mut seen = Vec::with_capacity(topics.len());
        for topic in topics {
            seen.push((*topic, redis.newest(topic).await?));
        }
        Ok(Self { redis, key, seen, state: Arc::default(), known: Known::default() })
    }

    /// What there is to know of it.
    pub fn state(&self) -> Arc<TailState> {
        self.state.clone()
    }

    /// Hands every message to `hear` until `shutdown` turns true. One that `hear` can't act on is put aside like an entry that
    /// is no message. One that none of us signed is counted and said, and not kept.
    pub async fn run(
        mut self,
        mut shutdown: watch::Receiver<bool>,
        hear: impl Fn(&Message) -> Result<(), Rejection> + Send,
    ) {
        let (mut connection, mut pause, mut catching_up) = (None, FIRST_PAUSE, false);
        loop {
            let read = tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => return,
                read = read(&self.redis, &mut connection, &self.seen, !catching_up) => read,
            };
            match read {
                Ok(found) => {
                    self.state.healthy.store(true, Ordering::Relaxed);
                    pause = FIRST_PAUSE;
                    if catching_up {
                        self.state
                            .caught_up
                            .fetch_add(u64::try_from(found.len()).unwrap_or(u64::MAX), Ordering::Relaxed);
                        // Fewer than were asked for: there is no more.
                        catching_up = found.len() >= ENTRIES;
                    }
                    for (topic, entry) in found {
                        self.take(&topic, entry, &hear).await;
                    }
                }
                Err(error) => {
                    if self.state.healthy.swap(false, Ordering::Relaxed) {
                        tracing::warn!(%error, "topics can't be followed; it is tried until they can");
                    }
                    connection = None;
                    catching_up = true;
                    tokio::select! {
                        _ = shutdown.wait_for(|stop| *stop) => return,
                        () = tokio::time::sleep(pause) => {}
                    }
                    pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    async fn take(&mut self, topic: &str, entry: Entry, hear: &impl Fn(&Message) -> Result<(), Rejection>) {
        if let Some((_, seen)) = self.seen.iter_mut().find(|(known, _)| *known == topic) {
            seen.clone_from(&entry.id);
        }
        let heard = match from_wire(topic, &entry, &self.key) {
            Ok(message) if self.known.is_new(message.id.as_str()) => hear(&message).map(|()| &self.state.heard),
            Ok(_) => Ok(&self.state.repeated),
            Err(rejection) => Err(rejection),
        };
        match heard {
            Ok(counter) => {
                counter.fetch_add(1, Ordering::Relaxed);
            }
            Err(rejection) => {
                self.state.rejected.fetch_add(1, Ordering::Relaxed);
                if rejection == Rejection::Signature {
                    self.state.bad_signatures.fetch_add(1, Ordering::Relaxed);
                }
                tracing::warn!(topic, entry = entry.id, %rejection, "a stream entry is not acted on");
                // Whoever can write here could push out with forgeries what was put aside of ours (contract:
                // audit-and-streams.md §6.6).
                if rejection == Rejection::Signature {
                    return;
                }
                if let Err(error) = self.put_aside(topic, &entry, rejection).await {
                    tracing::warn!(topic, entry = entry.id, %error, "a rejected entry could not be put aside");
                }
            }
        }
    }

    /// Everybody who follows rejects the same entry; the first of them keeps it for people to look at.
    async fn put_aside(&self, topic: &str, entry: &Entry, rejection: Rejection) -> Result<(), StreamError> {
        let mark = format!("caracal:put-aside:{topic}:{}", entry.id);
        let mut first = ::redis::cmd("SET");
        first.arg(mark).arg(1).arg("NX").arg("PX").arg(u64::try_from(PUT_ASIDE.as_millis()).unwrap_or(u64::MAX));
        if self.redis.ask::<Option<String>>(&first).await?.is_none() {
            return Ok(());
        }
        let mut add = ::redis::cmd("XADD");
        add.arg(dead_letter_topic(topic)).arg("MAXLEN").arg("~").arg(DEAD_LETTERS).arg("*");
        for (name, value) in dead_letter(entry, None, &rejection.to_string()) {
            add.arg(name).arg(value);
        }
        self.redis.ask::<Value>(&add).await?;
        self.state.dead_letters.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// Entries after those that were seen; where `wait` is true they are waited for.
async fn read(
    redis: &Redis,
    connection: &mut Option<MultiplexedConnection>,
    seen: &[(&'static str, String)],
    wait: bool,
) -> Result<Vec<(String, Entry)>, StreamError> {
    let connection = match connection {
        Some(connection) => connection,
        None => connection.insert(redis.connect().await.map_err(|error| failure(&error))?),
    };
    let mut command = ::redis::cmd("XREAD");
    command.arg("COUNT").arg(ENTRIES);
    if wait {
        command.arg("BLOCK").arg(u64::try_from(WAIT.as_millis()).unwrap_or(1_000));
    }
    command.arg("STREAMS");
    for (topic, _) in seen {
        command.arg(topic);
    }
    for (_, id) in seen {
        command.arg(id);
    }
    let answer = timeout(WAIT.saturating_add(GRACE), command.query_async::<Value>(connection)).await;
    let answer = answer.map_err(|_| StreamError::Unavailable("no answer to a read".to_owned()))?;
    let Value::Array(topics) = answer.map_err(|error| failure(&error))? else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for topic in topics {
        let Value::Array(parts) = topic else { continue };
        let mut parts = parts.into_iter();
        let (Some(name), Some(entries)) = (parts.next(), parts.next()) else { continue };
        let Ok(name) = ::redis::from_redis_value::<String>(name) else { continue };
        found.extend(entries_of(entries).into_iter().map(|entry| (name.clone(), entry)));
    }
    Ok(found)
}
