//! When each admin token was last used, written down behind the requests (contract: admin-api.md §2.1). Roughly: at most
//! once per token and debounce, and never so that a request has to wait for it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use caracal_authority::{AdminTokenId, Timestamp};
use caracal_store::admin_tokens::{self, AdminToken};
use caracal_store::{Store, StoreError};
use tokio::sync::{Notify, watch};

/// Uses that wait to be written down, newest per token.
pub(crate) struct TokenUses {
    debounce: Duration,
    waiting: Mutex<HashMap<AdminTokenId, Timestamp>>,
    news: Notify,
}

impl TokenUses {
    pub(crate) fn new(debounce: Duration) -> Self {
        Self { debounce, waiting: Mutex::default(), news: Notify::new() }
    }

    /// Notes that a token that exists was used at `now`. As many can wait as there are tokens.
    pub(crate) fn note(&self, token: &AdminToken, now: Timestamp) {
        let is_due = token.last_used_at.is_none_or(|last| last.plus(self.debounce) <= now);
        if is_due {
            self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(token.id.clone(), now);
            self.news.notify_one();
        }
    }

    /// Writes uses down until `shutdown` turns true, then those that wait.
    pub(crate) async fn run(&self, store: &Store, mut shutdown: watch::Receiver<bool>) {
        let mut is_going_on = true;
        while is_going_on {
            tokio::select! {
                biased;
                () = self.news.notified() => {}
                _ = shutdown.wait_for(|stop| *stop) => is_going_on = false,
            }
            self.write(store).await;
        }
    }

    async fn write(&self, store: &Store) {
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        if waiting.is_empty() {
            return;
        }
        let uses: Vec<(AdminTokenId, Timestamp)> = waiting.into_iter().collect();
        let written: Result<(), StoreError> = store
            .commit_upkeep(uses, |tx, uses| {
                Box::pin(async move {
                    for (id, at) in uses {
                        admin_tokens::note_use(tx, id, *at).await?;
                    }
                    Ok(())
                })
            })
            .await;
        if let Err(error) = written {
            tracing::warn!(%error, "when admin tokens were used could not be written down; the next use is tried again");
        }
    }
}
