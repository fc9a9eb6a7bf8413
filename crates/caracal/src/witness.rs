//! A process that shares its database with others looks at what they commit, so that it knows of a database that lost it, even
//! where it committed nothing itself: an older copy in its place, a standby that had lagged (threat T17).

use std::time::Duration;

use caracal_store::Store;
use tokio::sync::watch;

/// What others committed within this time before the database went back, a process may not have seen.
const LOOK: Duration = Duration::from_secs(5);

/// Looks until `stopping` turns true.
pub(crate) async fn run(store: Store, mut stopping: watch::Receiver<bool>) {
    while !*stopping.borrow() {
        // What it finds, the store says, and stops.
        let _ = store.check().await;
        tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}
