//! Topics with groups in the store, for a system without a Redis: one process, whose consumers are woken by the commit
//! that adds an entry. What was committed survives the process, and what a consumer held is pending when it is back.

use std::sync::Arc;
use std::time::Duration;

use caracal_store::streams::{self, Delivered, Pending, StreamEntry, id_of, position};
use caracal_store::{DeploymentRead, DeploymentWrite, Store, StoreError};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::entry::Entry;
use crate::redis::StreamError;
use crate::streams::{Begin, Delivery, GroupState, HANDLED, Patience, Place};

/// How often a consumer looks for what somebody added who could not wake it.
const LOOK: Duration = Duration::from_secs(1);
/// Pending entries looked at at once, and entries trimmed in one commit.
const PAGE: i64 = 512;

/// Topics in a store. Clones wake each other.
#[derive(Clone)]
pub(crate) struct StoreTopics {
    store: Store,
    added: Arc<Notify>,
}

fn failure(error: StoreError) -> StreamError {
    match error {
        StoreError::Unavailable { reason } => StreamError::Unavailable(reason),
        other => StreamError::Refused(other.to_string()),
    }
}

fn no_group(place: &Place) -> StreamError {
    StreamError::NoGroup(format!("`{}` has no group `{}`", place.topic, place.group))
}

fn wire_id(position: i64) -> String {
    let (millis, number) = id_of(position);
    format!("{millis}-{number}")
}

/// The position of an entry that this engine named; 0, where none is, for anything else.
fn position_of(id: &str) -> i64 {
    let numbers = id.split_once('-').and_then(|(millis, number)| Some((millis.parse().ok()?, number.parse().ok()?)));
    numbers.and_then(|(millis, number)| position(millis, number)).unwrap_or(0)
}

fn entry(stored: StreamEntry) -> Entry {
    Entry { id: wire_id(stored.position), fields: stored.fields }
}

fn delivery(delivered: Delivered) -> Delivery {
    Delivery { entry: entry(delivered.entry), deliveries: delivered.deliveries.unsigned_abs() }
}

fn limit(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Entries behind `after`, oldest first.
pub(crate) async fn list_entries(
    tx: &mut DeploymentRead<'_>,
    topic: &str,
    after: Option<&str>,
    count: usize,
) -> Result<Vec<Entry>, StoreError> {
    let found = streams::list(tx, topic, after.map_or(0, position_of), limit(count)).await?;
    Ok(found.into_iter().map(entry).collect())
}

pub(crate) async fn list_groups(tx: &mut DeploymentRead<'_>, topic: &str) -> Result<Vec<GroupState>, StoreError> {
    let state = |group: streams::GroupRow| GroupState {
        name: group.name,
        pending: group.pending.unsigned_abs(),
        oldest_pending: group.oldest_pending.map(wire_id),
        lag: group.lag.unsigned_abs(),
    };
    Ok(streams::list_groups(tx, topic).await?.into_iter().map(state).collect())
}

impl StoreTopics {
    pub(crate) fn new(store: Store) -> Self {
        Self { store, added: Arc::default() }
    }

    async fn commit<I, T, F>(&self, input: I, change: F) -> Result<T, StreamError>
    where
        I: Send + Sync + 'static,
        T: Send + 'static,
        F: for<'t> Fn(&'t mut DeploymentWrite<'_>, &'t I) -> caracal_store::BoxFuture<'t, Result<T, StoreError>>
            + Send
            + Sync
            + 'static,
    {
        self.store.commit_upkeep(input, change).await.map_err(failure)
    }

    pub(crate) async fn add_all(
        &self,
        entries: Vec<(String, Vec<(String, String)>)>,
    ) -> Result<Vec<String>, StreamError> {
        let added: Vec<i64> = self
            .commit(entries, |tx, entries| {
                Box::pin(async move {
                    let mut added = Vec::with_capacity(entries.len());
                    for (topic, fields) in entries {
                        added.push(streams::add(tx, topic, fields).await?);
                    }
                    Ok(added)
                })
            })
            .await?;
        self.added.notify_waiters();
        Ok(added.into_iter().map(wire_id).collect())
    }

    pub(crate) async fn create_group(&self, topic: &str, group: &str, begin: Begin) -> Result<(), StreamError> {
        let input = (topic.to_owned(), group.to_owned(), begin == Begin::Start);
        self.commit(input, |tx, (topic, group, from_start)| Box::pin(streams::add_group(tx, topic, group, *from_start)))
            .await
    }

    /// The group's next entries, waited for.
    pub(crate) async fn read(&self, place: &Place, count: usize, wait: Duration) -> Result<Vec<Delivery>, StreamError> {
        let until = Instant::now() + wait;
        loop {
            // Registered before looking: an entry that is added in between wakes.
            let mut added = std::pin::pin!(self.added.notified());
            added.as_mut().enable();
            let news = {
                let mut snapshot = self.store.snapshot().await.map_err(failure)?;
                streams::has_news(&mut snapshot.deployment(), &place.topic, &place.group).await.map_err(failure)?
            };
            if news.ok_or_else(|| no_group(place))? {
                let delivered = self.deliver(place, count).await?;
                // Another of the group may have been quicker.
                if !delivered.is_empty() {
                    return Ok(delivered);
                }
            }
            if Instant::now() >= until {
                return Ok(Vec::new());
            }
            let _ = timeout_at(until.min(Instant::now() + LOOK), added).await;
        }
    }

    async fn deliver(&self, place: &Place, count: usize) -> Result<Vec<Delivery>, StreamError> {
        let delivered: Option<Vec<Delivered>> = self
            .commit((place.clone(), limit(count.max(1))), |tx, (place, limit)| {
                Box::pin(streams::deliver(tx, &place.topic, &place.group, &place.consumer, *limit))
            })
            .await?;
        Ok(delivered.ok_or_else(|| no_group(place))?.into_iter().map(delivery).collect())
    }

    /// What others of the group have held for too long, or this one itself.
    pub(crate) async fn reclaim(
        &self,
        place: &Place,
        patience: Patience,
        count: usize,
    ) -> Result<Vec<Delivery>, StreamError> {
        let (mut after, mut due): (i64, Vec<Pending>) = (0, Vec::new());
        let mut snapshot = self.store.snapshot().await.map_err(failure)?;
        loop {
            let mut reading = snapshot.deployment();
            let page = streams::list_pending(&mut reading, &place.topic, &place.group, after, PAGE).await;
            let page = page.map_err(failure)?;
            let full = limit(page.len()) >= PAGE;
            for held in page {
                after = held.position;
                let idle = Duration::from_micros(u64::try_from(held.idle_micros).unwrap_or(0));
                if due.len() < count && idle >= patience.after(held.deliveries.unsigned_abs()) {
                    due.push(held);
                }
            }
            if !full || due.len() >= count {
                break;
            }
        }
        drop(snapshot);
        if due.is_empty() {
            return Ok(Vec::new());
        }
        let claimed: Vec<Delivered> = self
            .commit((place.clone(), due), |tx, (place, due)| {
                Box::pin(async move {
                    let mut claimed = Vec::with_capacity(due.len());
                    for seen in due {
                        claimed.extend(streams::claim(tx, &place.topic, &place.group, &place.consumer, seen).await?);
                    }
                    Ok(claimed)
                })
            })
            .await?;
        Ok(claimed.into_iter().map(delivery).collect())
    }

    /// Says that this consumer is still at work on these entries.
    pub(crate) async fn keep(&self, place: &Place, ids: &[&str]) -> Result<(), StreamError> {
        let positions: Vec<i64> = ids.iter().map(|id| position_of(id)).collect();
        self.commit((place.clone(), positions), |tx, (place, positions)| {
            Box::pin(async move {
                for position in positions {
                    streams::keep(tx, &place.topic, &place.group, &place.consumer, *position).await?;
                }
                Ok(())
            })
        })
        .await
    }

    /// Lets go of many entries in one commit.
    pub(crate) async fn acknowledge(&self, place: &Place, ids: &[&str]) -> Result<(), StreamError> {
        let positions: Vec<i64> = ids.iter().map(|id| position_of(id)).collect();
        self.commit((place.clone(), positions), |tx, (place, positions)| {
            Box::pin(async move { streams::acknowledge_all(tx, &place.topic, &place.group, positions).await })
        })
        .await
    }

    /// Remembers a message as handled, by its identities, and acknowledges its entry.
    pub(crate) async fn settle(&self, place: &Place, id: &str, identities: Vec<String>) -> Result<(), StreamError> {
        self.commit((place.clone(), position_of(id), identities), |tx, (place, position, identities)| {
            Box::pin(async move {
                for identity in identities {
                    streams::remember(tx, &place.topic, &place.group, identity).await?;
                }
                streams::acknowledge(tx, &place.topic, &place.group, *position).await.map(|_| ())
            })
        })
        .await
    }

    /// Whether the group has handled a message with one of these identities.
    pub(crate) async fn is_handled(&self, place: &Place, identities: &[String]) -> Result<bool, StreamError> {
        let mut snapshot = self.store.snapshot().await.map_err(failure)?;
        for identity in identities {
            let mut reading = snapshot.deployment();
            let known = streams::is_handled(&mut reading, &place.topic, &place.group, identity).await;
            if known.map_err(failure)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Forgets the oldest of what the group has handled.
    pub(crate) async fn forget_handled(&self, place: &Place) -> Result<(), StreamError> {
        self.commit(place.clone(), |tx, place| {
            Box::pin(async move {
                streams::purge_handled(tx, &place.topic, &place.group, i64::try_from(HANDLED).unwrap_or(i64::MAX))
                    .await
                    .map(|_| ())
            })
        })
        .await
    }

    /// Writes the dead letter and acknowledges; `false` when the group does not hold the entry any more.
    pub(crate) async fn put_aside(
        &self,
        place: &Place,
        dead_topic: String,
        id: &str,
        letter: Vec<(String, String)>,
        kept: usize,
    ) -> Result<bool, StreamError> {
        let input = (place.clone(), dead_topic, position_of(id), letter, kept);
        self.commit(input, |tx, (place, dead_topic, position, letter, kept)| {
            Box::pin(async move {
                if !streams::acknowledge(tx, &place.topic, &place.group, *position).await? {
                    return Ok(false);
                }
                streams::add(tx, dead_topic, letter).await?;
                streams::purge_oldest(tx, dead_topic, limit(*kept)).await?;
                Ok(true)
            })
        })
        .await
    }

    pub(crate) async fn list_entries(
        &self,
        topic: &str,
        after: Option<&str>,
        count: usize,
    ) -> Result<Vec<Entry>, StreamError> {
        let mut snapshot = self.store.snapshot().await.map_err(failure)?;
        list_entries(&mut snapshot.deployment(), topic, after, count).await.map_err(failure)
    }

    pub(crate) async fn list_from(
        &self,
        topic: &str,
        from: Option<&str>,
        count: usize,
    ) -> Result<Vec<Entry>, StreamError> {
        let mut snapshot = self.store.snapshot().await.map_err(failure)?;
        let after = from.map_or(0, |from| position_of(from) - 1);
        let found = streams::list(&mut snapshot.deployment(), topic, after, limit(count)).await.map_err(failure)?;
        Ok(found.into_iter().map(entry).collect())
    }

    pub(crate) async fn lookup(&self, topic: &str, id: &str) -> Result<Option<Entry>, StreamError> {
        let mut snapshot = self.store.snapshot().await.map_err(failure)?;
        let found = streams::lookup(&mut snapshot.deployment(), topic, position_of(id)).await.map_err(failure)?;
        Ok(found.map(entry))
    }

    pub(crate) async fn remove(&self, topic: &str, id: &str) -> Result<(), StreamError> {
        self.commit((topic.to_owned(), position_of(id)), |tx, (topic, position)| {
            Box::pin(async move { streams::remove(tx, topic, *position).await.map(|_| ()) })
        })
        .await
    }

    pub(crate) async fn count(&self, topic: &str) -> Result<u64, StreamError> {
        let mut snapshot = self.store.snapshot().await.map_err(failure)?;
        streams::count(&mut snapshot.deployment(), topic).await.map(i64::unsigned_abs).map_err(failure)
    }

    pub(crate) async fn list_groups(&self, topic: &str) -> Result<Vec<GroupState>, StreamError> {
        let mut snapshot = self.store.snapshot().await.map_err(failure)?;
        list_groups(&mut snapshot.deployment(), topic).await.map_err(failure)
    }

    /// Removes what is older than `oldest_millis` and was handed to, and acknowledged by, every group there is.
    pub(crate) async fn trim(&self, topic: &str, oldest_millis: i64) -> Result<(), StreamError> {
        let before = u64::try_from(oldest_millis).ok().and_then(|millis| position(millis, 0)).unwrap_or(0);
        loop {
            let removed: usize = self
                .commit((topic.to_owned(), before), |tx, (topic, before)| {
                    Box::pin(streams::purge_entries(tx, topic, *before, PAGE))
                })
                .await?;
            if limit(removed) < PAGE {
                return Ok(());
            }
        }
    }
}
