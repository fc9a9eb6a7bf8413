//! How often a caller may be wrong about a client secret, or an id_token (contract: sts.md §12, README D17), counted in this process or by
//! all replicas together.
//!
//! More than [`MOST`] wrong secrets of one guesser within a minute block it for a minute, the right secret included. A
//! guesser is an application's name and where the request comes from, so that nobody locks an application out from
//! elsewhere. Only a wrong secret counts; an outage never does. A count that can't be had refuses: a guess that nobody
//! counts would be a free one.

use std::time::Duration;

use caracal_authority::Timestamp;
use caracal_crypto::hmac::sha256_hex;
use caracal_http::limits::{Backoff, DEFAULT_MAX_KEYS, Slot, Source, Verdict};
use caracal_store::counts::{self, Count};
use caracal_store::{BoxFuture, Store, StoreError};

/// Wrong secrets in a minute that block nobody yet.
pub const MOST: u32 = 60;

/// Within this they count together, and for this long they block.
pub const SPAN: Duration = Duration::from_secs(60);

/// Who guesses.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Guesser {
    /// What it guesses at.
    pub at: Guessed,
    /// `application_id` as it was sent: any text, or none.
    pub application: String,
    /// Where the request comes from; `None` inside the process.
    pub source: Option<Source>,
}

impl Guesser {
    /// The name it is counted under. What it says of the application can be any text of any length, so only the hash of
    /// that is part of the name.
    pub fn key(&self, prefix: &str) -> String {
        let source = self.source.map(|source| source.to_string()).unwrap_or_default();
        format!("{prefix}{}:{source}:{}", self.at.as_str(), sha256_hex(self.application.as_bytes()))
    }
}

/// What can be guessed at. Each is counted on its own: a user who sends nonsense must not keep the application from its
/// other work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Guessed {
    /// The application's secret.
    Secret,
    /// An identity provider's token that the application relays.
    IdToken,
}

impl Guessed {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::IdToken => "id_token",
        }
    }
}

/// Nobody can say how often it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("failures can't be counted")]
pub struct CountUnavailable;

/// A counter of wrong secrets.
pub trait Guesses: Send + Sync + 'static {
    /// Whether the guesser may try a secret. Asked before anything is derived from it.
    fn check<'a>(&'a self, guesser: &'a Guesser, now: Timestamp) -> BoxFuture<'a, Result<Verdict, CountUnavailable>>;

    /// Counts a wrong secret. Limited when this was one too many; then that is the answer to give.
    fn failed<'a>(&'a self, guesser: &'a Guesser, now: Timestamp) -> BoxFuture<'a, Result<Verdict, CountUnavailable>>;
}

/// Counts in this process alone, which is the only one of its store. Each wrong secret is kept before it is answered, so
/// that a process that is started again goes on where this one was.
pub struct ProcessGuesses {
    backoff: Backoff,
    store: Store,
}

impl ProcessGuesses {
    /// What the names of these counts begin with.
    const PREFIX: &str = "guesses:";

    /// Counts from nothing, and keeps it in `store`.
    pub fn new(store: Store) -> Self {
        Self { backoff: Backoff::new(MOST, SPAN, SPAN, DEFAULT_MAX_KEYS), store }
    }

    /// Goes on counting where the process that had this store before left off.
    pub async fn resumed(store: Store) -> Result<Self, StoreError> {
        let guesses = Self::new(store);
        let mut snapshot = guesses.store.snapshot().await?;
        let since = snapshot.now().minus(SPAN);
        let most = i64::try_from(DEFAULT_MAX_KEYS).unwrap_or(i64::MAX);
        for kept in counts::list(&mut snapshot.deployment(), Self::PREFIX, since, most).await? {
            let count = u32::try_from(kept.count).unwrap_or(u32::MAX);
            guesses.backoff.resume(&kept.name, Slot { born: kept.began_at, count, blocked: kept.blocked });
        }
        drop(snapshot);
        Ok(guesses)
    }

    async fn keep(&self, name: String, slot: Slot) -> Result<(), StoreError> {
        let kept = Count { name, count: slot.count.into(), began_at: slot.born, blocked: slot.blocked };
        self.store.commit_upkeep(kept, |tx, kept| Box::pin(counts::put(tx, kept))).await
    }
}

impl Guesses for ProcessGuesses {
    fn check<'a>(&'a self, guesser: &'a Guesser, now: Timestamp) -> BoxFuture<'a, Result<Verdict, CountUnavailable>> {
        Box::pin(std::future::ready(Ok(self.backoff.check(&guesser.key(Self::PREFIX), now))))
    }

    fn failed<'a>(&'a self, guesser: &'a Guesser, now: Timestamp) -> BoxFuture<'a, Result<Verdict, CountUnavailable>> {
        Box::pin(async move {
            let name = guesser.key(Self::PREFIX);
            if let limited @ Verdict::Limited { .. } = self.backoff.check(&name, now) {
                // A block is not prolonged, so there is nothing new to keep.
                return Ok(limited);
            }
            let slot = self.backoff.count(&name, now);
            self.keep(name, slot).await.map_err(|error| {
                tracing::error!(%error, "a wrong secret can't be counted, so it is not answered");
                CountUnavailable
            })?;
            Ok(self.backoff.verdict(slot, now))
        })
    }
}
