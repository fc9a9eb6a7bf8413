//! Whether the servers that a process shares with others are still what they were.
//!
//! A database can come back with less than it had: an older copy in its place, a standby that had lagged (threat T17). Who looks at
//! what others commit knows of it even where it committed nothing itself. A Redis that was told to evict, or made a replica of
//! another, answers to everything and keeps nothing of it.

use std::sync::Arc;
use std::time::Duration;

use caracal_store::Store;
use caracal_stream::Redis;
use tokio::sync::watch;

/// What others committed within this time before the database went back, a process may not have seen.
const LOOK: Duration = Duration::from_secs(5);

/// Looks until `stopping` turns true.
pub(crate) async fn run(store: Store, redis: Arc<Redis>, mut stopping: watch::Receiver<bool>) {
    while !*stopping.borrow() {
        // What they find, both say, and serve nothing by it.
        let _ = tokio::join!(store.check(), redis.check());
        tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}
