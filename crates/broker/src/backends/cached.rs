//! A backend that need not be asked with every call: what it said counts for a minute, and while it is down for ten more.
//! What is kept is ciphertext.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
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

/// Remembers what another backend said.
pub struct CachedBackend {
    inner: Arc<dyn SecretBackend>,
    store: Store,
    kept: Mutex<HashMap<String, Kept>>,
    reads: Flights<String, Read>,
}

impl CachedBackend {
    /// By the time of `store`.
    pub fn new(inner: Arc<dyn SecretBackend>, store: Store) -> Self {
        Self { inner, store, kept: Mutex::default(), reads: Flights::default() }
    }

    fn kept(&self, reference: &str, within: Duration) -> Option<Option<Vec<u8>>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.store.now();
        kept.get(reference).filter(|(at, _)| at.until(now) < within).map(|(_, envelope)| envelope.clone())
    }

    fn keep(&self, reference: &str, envelope: Option<Vec<u8>>) {
        let now = self.store.now();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= TIDY_FROM {
            kept.retain(|_, (at, _)| at.until(now) < FRESH + STALE);
        }
        kept.insert(reference.to_owned(), (now, envelope));
    }
}

impl SecretBackend for CachedBackend {
    fn read<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Read> {
        Box::pin(async move {
            if let Some(envelope) = self.kept(reference, FRESH) {
                return Ok(envelope);
            }
            let (inner, wanted) = (self.inner.clone(), reference.to_owned());
            let reading = self.reads.join(reference.to_owned(), async move { inner.read(&wanted).await });
            match reading.await {
                Some(Ok(envelope)) => {
                    self.keep(reference, envelope.clone());
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

    fn write<'a>(&'a self, reference: &'a str, envelope: &'a [u8]) -> BoxFuture<'a, Result<(), BackendError>> {
        Box::pin(async move {
            self.inner.write(reference, envelope).await?;
            self.keep(reference, Some(envelope.to_vec()));
            Ok(())
        })
    }

    /// Compared with what is there, not with what is remembered of it.
    fn replace<'a>(
        &'a self,
        reference: &'a str,
        old: &'a [u8],
        new: &'a [u8],
    ) -> BoxFuture<'a, Result<bool, BackendError>> {
        Box::pin(async move {
            let replaced = self.inner.replace(reference, old, new).await?;
            match replaced {
                true => self.keep(reference, Some(new.to_vec())),
                false => drop(self.kept.lock().unwrap_or_else(PoisonError::into_inner).remove(reference)),
            }
            Ok(replaced)
        })
    }

    fn remove<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<(), BackendError>> {
        Box::pin(async move {
            self.inner.remove(reference).await?;
            self.keep(reference, None);
            Ok(())
        })
    }
}
