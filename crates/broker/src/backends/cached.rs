//! A backend that need not be asked with every call: what it said counts for a minute, and while it is down for ten more.
//! What is kept is ciphertext.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use caracal_authority::Timestamp;
use caracal_custody::{BackendError, SecretBackend};
use caracal_store::{BoxFuture, Store};

use crate::flights::Flights;

const FRESH: Duration = Duration::from_secs(60);
const STALE: Duration = Duration::from_secs(600);
/// From so many references on, those that can't be served any more are dropped.
const TIDY_FROM: usize = 4_096;

/// When it was said, and what.
type Kept = (Timestamp, Option<Vec<u8>>);
type Read = Result<Option<Vec<u8>>, BackendError>;

#[derive(Default)]
struct Memory {
    kept: HashMap<String, Kept>,
    /// Changes that were begun or ended here so far.
    changes: u64,
}

/// Remembers what another backend said.
pub struct CachedBackend {
    inner: Arc<dyn SecretBackend>,
    store: Store,
    memory: Mutex<Memory>,
    reads: Flights<String, Read>,
}

impl CachedBackend {
    /// By the time of `store`.
    pub fn new(inner: Arc<dyn SecretBackend>, store: Store) -> Self {
        Self { inner, store, memory: Mutex::default(), reads: Flights::default() }
    }

    /// A panic inside can't have left half an entry.
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept(&self, reference: &str, within: Duration) -> Option<Option<Vec<u8>>> {
        let now = self.store.now();
        let memory = self.memory();
        memory.kept.get(reference).filter(|(at, _)| at.until(now) < within).map(|(_, envelope)| envelope.clone())
    }

    /// Keeps what was read, unless something was changed since `changes`: the answer may be from before.
    fn keep_read(&self, reference: &str, envelope: Option<Vec<u8>>, changes: u64) {
        let mut memory = self.memory();
        if memory.changes == changes {
            memory.keep(reference, envelope, self.store.now());
        }
    }

    /// Changes something, unless `change` finds that it is not there to be changed. Until it is known what became of that,
    /// nothing is known of it.
    async fn change(
        &self,
        reference: &str,
        envelope: Option<Vec<u8>>,
        change: impl Future<Output = Result<bool, BackendError>> + Send,
    ) -> Result<bool, BackendError> {
        self.memory().changes += 1;
        let changed = change.await;
        let mut memory = self.memory();
        memory.changes += 1;
        match &changed {
            Ok(true) => memory.keep(reference, envelope, self.store.now()),
            Ok(false) | Err(_) => drop(memory.kept.remove(reference)),
        }
        changed
    }
}

impl Memory {
    fn keep(&mut self, reference: &str, envelope: Option<Vec<u8>>, now: Timestamp) {
        if self.kept.len() >= TIDY_FROM {
            self.kept.retain(|_, (at, _)| at.until(now) < FRESH + STALE);
        }
        self.kept.insert(reference.to_owned(), (now, envelope));
    }
}

impl SecretBackend for CachedBackend {
    fn read<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Read> {
        Box::pin(async move {
            if let Some(envelope) = self.kept(reference, FRESH) {
                return Ok(envelope);
            }
            let changes = self.memory().changes;
            let (inner, wanted) = (self.inner.clone(), reference.to_owned());
            let reading = self.reads.join(reference.to_owned(), async move { inner.read(&wanted).await });
            match reading.await {
                Some(Ok(envelope)) => {
                    self.keep_read(reference, envelope.clone(), changes);
                    Ok(envelope)
                }
                Some(Err(error)) => {
                    let stale = self.kept(reference, FRESH + STALE).ok_or_else(|| error.clone())?;
                    tracing::warn!(%error, "a secret is served from before its backend failed");
                    Ok(stale)
                }
                None => Err(BackendError { kind: "any", doing: "read", reason: "given up".to_owned() }),
            }
        })
    }

    fn read_now<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Read> {
        Box::pin(async move {
            let changes = self.memory().changes;
            let envelope = self.inner.read_now(reference).await?;
            self.keep_read(reference, envelope.clone(), changes);
            Ok(envelope)
        })
    }

    fn write<'a>(&'a self, reference: &'a str, envelope: &'a [u8]) -> BoxFuture<'a, Result<(), BackendError>> {
        let change = async move { self.inner.write(reference, envelope).await.map(|()| true) };
        Box::pin(async move { self.change(reference, Some(envelope.to_vec()), change).await.map(drop) })
    }

    /// Compared with what is there, not with what is remembered of it.
    fn replace<'a>(
        &'a self,
        reference: &'a str,
        old: &'a [u8],
        new: &'a [u8],
    ) -> BoxFuture<'a, Result<bool, BackendError>> {
        Box::pin(self.change(reference, Some(new.to_vec()), self.inner.replace(reference, old, new)))
    }

    fn remove<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<(), BackendError>> {
        let change = async move { self.inner.remove(reference).await.map(|()| true) };
        Box::pin(async move { self.change(reference, None, change).await.map(drop) })
    }
}
