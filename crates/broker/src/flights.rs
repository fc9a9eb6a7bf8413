//! Many who want the same thing at the same time are one request. It is carried out by a task of its own, so it ends
//! whoever of them goes away meanwhile.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

type UnderWay<K, V> = Mutex<HashMap<K, watch::Receiver<Option<V>>>>;

/// Requests under way, each with those who wait for it.
pub(crate) struct Flights<K, V>(Arc<UnderWay<K, V>>);

impl<K, V> Default for Flights<K, V> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K, V> Flights<K, V>
where
    K: Hash + Eq + Clone + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// What becomes of the request for `key` that is under way, or else of `request`. `None`: it panicked.
    pub(crate) async fn join(&self, key: K, request: impl Future<Output = V> + Send + 'static) -> Option<V> {
        let mut heard = match self.enter(&key) {
            Ok(other) => other,
            Err(tell) => {
                let (heard, under_way) = (tell.subscribe(), self.0.clone());
                tokio::spawn(async move {
                    let outcome = request.await;
                    under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
                    tell.send_replace(Some(outcome));
                });
                heard
            }
        };
        heard.wait_for(Option::is_some).await.ok()?.clone()
    }

    fn enter(&self, key: &K) -> Result<watch::Receiver<Option<V>>, watch::Sender<Option<V>>> {
        let mut under_way = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // One that panicked has no sender any more, and has told nothing.
        if let Some(other) = under_way.get(key).filter(|other| other.has_changed().is_ok()) {
            return Ok(other.clone());
        }
        let (tell, heard) = watch::channel(None);
        under_way.insert(key.clone(), heard);
        Err(tell)
    }
}
