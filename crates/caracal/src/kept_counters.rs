//! What the only process of a store counts of requests, so that the next one goes on with it (contract: admin-api.md §1.6,
//! coordinator.md §3, sts.md §12).
//!
//! A request must not cost a commit. So windows are counted in memory, and what has changed is kept twice a second and
//! when the process stops: a process that is killed forgets at most the last half second of them. Wrong secrets are not
//! of this kind; each is kept before it is answered.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use caracal_authority::Timestamp;
use caracal_authority::exchange::Rate;
use caracal_crypto::hmac::sha256_hex;
use caracal_http::limits::{DEFAULT_MAX_KEYS, FixedWindow, Slot};
use caracal_http::rate::SharedWindows;
use caracal_store::counts::{self, Count};
use caracal_store::{BoxFuture, Store, StoreError};
use caracal_sts::{LaunchKey, LaunchRate};
use tokio::sync::watch;

const WINDOW: Duration = Duration::from_secs(60);
const INTERVAL: Duration = Duration::from_millis(500);
/// Windows kept in one commit.
const BATCH: usize = 500;
const PREFIX: &str = "requests:";

/// Requests counted by the only process of a store.
pub(crate) struct KeptRequests {
    windows: FixedWindow,
    changed: Mutex<HashMap<String, Slot>>,
    store: Store,
}

impl KeptRequests {
    /// Goes on counting where the process that had this store before left off.
    pub(crate) async fn resumed(store: Store) -> Result<Self, StoreError> {
        let windows = FixedWindow::per_minute();
        let mut snapshot = store.snapshot().await?;
        let since = snapshot.now().minus(WINDOW);
        let most = i64::try_from(DEFAULT_MAX_KEYS).unwrap_or(i64::MAX);
        for kept in counts::list(&mut snapshot.deployment(), PREFIX, since, most).await? {
            let count = u32::try_from(kept.count).unwrap_or(u32::MAX);
            windows.resume(&kept.name, Slot { born: kept.began_at, count, blocked: false });
        }
        drop(snapshot);
        Ok(Self { windows, changed: Mutex::default(), store })
    }

    /// Keeps what has changed until `shutdown` turns true, and then once more.
    pub(crate) async fn run(&self, mut shutdown: watch::Receiver<bool>) {
        loop {
            let is_over = tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => true,
                () = tokio::time::sleep(INTERVAL) => false,
            };
            if let Err(error) = self.keep().await {
                tracing::warn!(%error, "counts of requests could not be kept; it is tried again at once");
            }
            if is_over {
                return;
            }
        }
    }

    /// Keeps what has changed since the last time. What can't be kept has changed still.
    async fn keep(&self) -> Result<(), StoreError> {
        loop {
            let batch: Vec<Count> = {
                let mut changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
                let names: Vec<String> = changed.keys().take(BATCH).cloned().collect();
                names.into_iter().filter_map(|name| changed.remove_entry(&name)).map(row).collect()
            };
            if batch.is_empty() {
                return Ok(());
            }
            let kept = self
                .store
                .commit_upkeep(batch.clone(), |tx, batch| {
                    Box::pin(async move {
                        for count in batch {
                            counts::put(tx, count).await?;
                        }
                        Ok::<_, StoreError>(())
                    })
                })
                .await;
            if let Err(error) = kept {
                let mut changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
                for Count { name, count, began_at, .. } in batch {
                    let count = u32::try_from(count).unwrap_or(u32::MAX);
                    changed.entry(name).or_insert(Slot { born: began_at, count, blocked: false });
                }
                return Err(error);
            }
        }
    }
}

fn row((name, slot): (String, Slot)) -> Count {
    Count { name, count: slot.count.into(), began_at: slot.born, blocked: false }
}

impl KeptRequests {
    fn count(&self, key: &str) -> Slot {
        let name = format!("{PREFIX}{key}");
        let slot = self.windows.count(&name, self.store.now());
        let mut changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        if changed.len() < DEFAULT_MAX_KEYS || changed.contains_key(&name) {
            changed.insert(name, slot);
        }
        slot
    }
}

impl SharedWindows for KeptRequests {
    fn hit<'a>(&'a self, key: &'a str, _: Duration) -> BoxFuture<'a, Option<u64>> {
        Box::pin(std::future::ready(Some(self.count(key).count.into())))
    }
}

impl LaunchRate for KeptRequests {
    fn count<'a>(&'a self, launch: &'a LaunchKey, limit: u32, _: Timestamp) -> BoxFuture<'a, Rate> {
        // The name can be any text of any length, so only its hash is a key.
        let key = format!("launch:{}:{}", launch.step, sha256_hex(launch.workload.as_bytes()));
        let within = self.count(&key).count <= limit;
        Box::pin(std::future::ready(if within { Rate::Within } else { Rate::Exceeded }))
    }
}

#[cfg(test)]
mod t08_availability {
    use std::sync::Arc;

    use caracal_store::{SqliteOptions, SystemClock};
    use caracal_sts::LaunchStep;

    use super::*;

    fn open(directory: &std::path::Path) -> Store {
        Store::open(&SqliteOptions::in_directory(directory), Arc::new(SystemClock)).unwrap()
    }

    /// The directory is free when the last change has ended and nobody holds the store.
    async fn closed(store: Store) {
        store.close().await;
    }

    #[tokio::test]
    async fn a_process_that_is_started_again_goes_on_with_the_windows_of_requests() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path());
        let first = KeptRequests::resumed(store.clone()).await.unwrap();
        for expected in 1..=3 {
            assert_eq!(first.hit("admin:source:192.0.2.1", WINDOW).await, Some(expected));
        }
        assert_eq!(first.hit("admin:source:192.0.2.2", WINDOW).await, Some(1));
        let (stop, stopping) = watch::channel(true);
        first.run(stopping).await;
        drop((first, stop));
        closed(store).await;

        let second = KeptRequests::resumed(open(directory.path())).await.unwrap();
        assert_eq!(second.hit("admin:source:192.0.2.1", WINDOW).await, Some(4));
        assert_eq!(second.hit("admin:source:192.0.2.2", WINDOW).await, Some(2));
        assert_eq!(second.hit("admin:source:192.0.2.3", WINDOW).await, Some(1));
    }

    #[tokio::test]
    async fn a_restart_is_no_new_budget_for_launches() {
        let directory = tempfile::tempdir().unwrap();
        let launch = LaunchKey { step: LaunchStep::Credential, workload: "w-1".to_owned() };
        let other = LaunchKey { step: LaunchStep::Manifest, ..launch.clone() };
        for expected in [Rate::Within, Rate::Within, Rate::Exceeded] {
            let store = open(directory.path());
            let requests = KeptRequests::resumed(store.clone()).await.unwrap();
            assert_eq!(LaunchRate::count(&requests, &launch, 2, store.now()).await, expected);
            let (_stop, stopping) = watch::channel(true);
            requests.run(stopping).await;
            drop(requests);
            closed(store).await;
        }
        let requests = KeptRequests::resumed(open(directory.path())).await.unwrap();
        assert_eq!(LaunchRate::count(&requests, &other, 2, Timestamp::EPOCH).await, Rate::Within);
    }
}
