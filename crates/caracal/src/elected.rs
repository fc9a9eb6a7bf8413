//! Jobs that one process does at a time. The store elects who; whoever loses the seat stops at once, and another goes on.
//! On the embedded store there is one process, and it is always elected.

use std::time::Duration;

use caracal_store::Store;
use tokio::sync::watch;

/// How often a seat that is taken is asked for, and one that is held is looked after.
const LOOK: Duration = Duration::from_secs(5);

/// Runs what `start` makes whenever this process is elected for `job`, until `stopping` turns true.
pub(crate) async fn run<F, J>(store: Store, job: &'static str, mut stopping: watch::Receiver<bool>, start: F)
where
    F: Fn(watch::Receiver<bool>) -> J + Send,
    J: Future<Output = ()> + Send,
{
    while !*stopping.borrow() {
        if let Ok(Some(election)) = store.elect(job).await {
            tracing::debug!(job, "elected");
            let (stop, told) = watch::channel(false);
            let mut work = std::pin::pin!(start(told));
            loop {
                tokio::select! {
                    () = &mut work => return,
                    _ = stopping.wait_for(|stop| *stop) => break,
                    () = tokio::time::sleep(LOOK) => {}
                }
                if !election.holds().await {
                    tracing::warn!(job, "the seat was lost; another process goes on");
                    break;
                }
            }
            stop.send_replace(true);
            work.await;
        }
        tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}
