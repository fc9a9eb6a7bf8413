//! Sealing everything anew while the system runs: on the embedded store, which no other process can open meanwhile. On
//! servers an operator says when, with `caracal secrets rewrap`: as long as one process lacks the new key, nothing that it
//! needs may be sealed under it.

use std::time::Duration;

use caracal_custody::rewrap::{Mode, Next, Rewrap};
use caracal_store::Store;
use tokio::sync::watch;

/// How long after a pass that left something the next one begins.
const AGAIN: Duration = Duration::from_secs(60);

/// Goes over everything until it is done, or `shutdown` turns true.
pub(crate) async fn run(rewrap: Rewrap, store: Store, mut shutdown: watch::Receiver<bool>) {
    loop {
        let stopping = shutdown.clone();
        let next = move |_| if *stopping.borrow() { Next::Stop } else { Next::GoOn };
        match rewrap.run(&store, Mode::Rewrap, next).await {
            Ok(_) if *shutdown.borrow() => return,
            Ok(report) if report.is_done() => {
                let rewrapped = report.rewrapped();
                tracing::info!(
                    rewrapped,
                    "everything is sealed under SECRET_STORE_KEK; SECRET_STORE_KEK_PREVIOUS can be removed"
                );
                return;
            }
            Ok(report) => {
                let (left, failed) = (report.left(), report.failed());
                tracing::error!(left, failed, "not everything could be sealed anew; keep SECRET_STORE_KEK_PREVIOUS");
                for failure in &report.failures {
                    tracing::error!(place = failure.place, reason = failure.reason, "not sealed anew");
                }
                // What opens with neither key will not open in a minute either.
                if failed > 0 {
                    return;
                }
            }
            Err(error) => tracing::warn!(%error, "sealing anew was interrupted; it goes on in a minute"),
        }
        tokio::select! {
            _ = shutdown.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
}
