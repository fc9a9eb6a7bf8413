//! Who is told that a zone's keys were withdrawn, and when.
//!
//! An operator whose key has leaked withdraws it at one STS. That process hears of its own commit before it answers. Every
//! other one hears of it from the topic [`WITHDRAWN`]. A message can be missed, by a process that was cut off from Redis;
//! so whatever was withdrawn lately is also read from the store, twice a minute, and after half a minute nobody remembers a
//! withdrawn key whatever became of the message.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use caracal_authority::{KeyId, ZoneId};
use caracal_store::signing_keys::{self, WITHDRAWN};
use caracal_store::{Committed, Message, Observer, Store, StoreError};
use tokio::sync::watch;

use crate::VerificationKeys;

const EVERY: Duration = Duration::from_secs(15);
/// How far back a reading goes: longer than anybody remembers a key, and longer than clocks and commits are late.
const LOOK_BACK: Duration = Duration::from_secs(20 * 60);

/// Tells the keys of this process what was withdrawn.
pub struct Withdrawals {
    keys: Vec<Arc<dyn VerificationKeys>>,
}

impl Withdrawals {
    /// For everything in this process that remembers keys.
    pub fn new(keys: Vec<Arc<dyn VerificationKeys>>) -> Self {
        Self { keys }
    }

    fn forget(&self, zone: &ZoneId) {
        self.keys.iter().for_each(|keys| keys.forget(zone));
    }

    /// Takes note of a message that another process published.
    pub fn hear(&self, message: &Message) {
        if message.topic == WITHDRAWN {
            self.forget(&message.zone);
        }
    }

    /// Reads from `store` what was withdrawn lately, until `shutdown` turns true.
    pub async fn run(&self, store: Store, mut shutdown: watch::Receiver<bool>) {
        let mut known = HashSet::new();
        loop {
            if let Err(error) = self.read(&store, &mut known).await {
                tracing::warn!(%error, "which keys were withdrawn can't be read; it is tried again");
            }
            tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }

    /// Reads once. What is in `known` was acted on before.
    pub async fn read(&self, store: &Store, known: &mut HashSet<(ZoneId, KeyId)>) -> Result<(), StoreError> {
        let mut snapshot = store.snapshot().await?;
        let since = snapshot.now().minus(LOOK_BACK);
        let withdrawn = signing_keys::list_withdrawn(&mut snapshot.deployment(), since).await?;
        drop(snapshot);
        for (zone, kid) in &withdrawn {
            if !known.contains(&(zone.clone(), kid.clone())) {
                self.forget(zone);
            }
        }
        *known = withdrawn.into_iter().collect();
        Ok(())
    }
}

/// Hears of this process's own commits before their callers do.
impl Observer for Withdrawals {
    fn committed(&self, committed: &Committed) {
        committed.messages.iter().for_each(|message| self.hear(message));
    }
}
