//! Topics with consumer groups, on either engine, with one behaviour.
//!
//! A service publishes a message; its entry is signed and durable when [`Streams::publish`] returns. Each group of a topic
//! is handed every entry once, in order, and shares them among its consumers: a [`Member`] reads, and holds what it read
//! until it says that it is done. Who dies holding an entry says nothing, so another member [reclaims](Member::reclaim)
//! it when it was held for too long. So an entry is handled at least once per group, and may be handled twice.
//!
//! What nobody can act on becomes a dead letter, one per group: written first, acknowledged after, so that it is in one
//! place or the other whatever is cut off. Nothing is [trimmed](Streams::trim) that a group has not acknowledged.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use caracal_crypto::hmac::{HmacKey, UnsignableMessage, stream_signature};
use caracal_store::{DeploymentRead, Store, StoreError, streams};

use crate::entry::{Entry, Rejection, SIGNATURE, dead_letter, dead_letter_topic, fields_of_payload, from_wire};
use crate::on_store::StoreTopics;
use crate::redis::{Redis, StreamError, id_of};
use crate::{on_redis, on_store};

/// Dead letters of a topic that are kept, the newest; a server may keep a few more.
pub(crate) const DEAD_LETTERS: usize = 10_000;
/// Messages by which each group knows a repetition, the newest.
pub(crate) const HANDLED: isize = 100_000;

/// Where a new group begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// With the oldest entry that the topic still has.
    Start,
    /// With the next entry that is added.
    Now,
}

/// For how long an entry may be held before another takes it: doubled with every time it was handed out, so that one
/// that keeps failing is tried ever less often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// After the first time.
    pub first: Duration,
    /// Never more than this.
    pub longest: Duration,
}

impl Patience {
    /// After an entry was handed out that often.
    pub fn after(&self, deliveries: u64) -> Duration {
        let doublings = u32::try_from(deliveries.saturating_sub(1)).unwrap_or(u32::MAX).min(30);
        self.first.saturating_mul(2_u32.saturating_pow(doublings)).min(self.longest.max(self.first))
    }
}

/// Whose place in which topic.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) topic: String,
    pub(crate) group: String,
    pub(crate) consumer: String,
}

/// An entry in the hands of a member. Nothing in it was verified yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    pub(crate) entry: Entry,
    pub(crate) deliveries: u64,
}

impl Delivery {
    /// The topic's own name for the entry: `milliseconds-number`.
    pub fn id(&self) -> &str {
        &self.entry.id
    }

    /// How often the group was handed it, this time included.
    pub fn deliveries(&self) -> u64 {
        self.deliveries
    }
}

/// What there is to know of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupState {
    /// Its name.
    pub name: String,
    /// Entries that its members hold.
    pub pending: u64,
    /// The oldest of them.
    pub oldest_pending: Option<String>,
    /// Entries that nobody of the group was handed yet.
    pub lag: u64,
}

/// An entry that was put aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The dead letter's own name.
    pub id: String,
    /// The entry it was made of.
    pub source_id: String,
    /// The group that put it aside; none when a follower without a group did.
    pub group: Option<String>,
    /// Why.
    pub reason: String,
    /// The entry's fields as a JSON object; empty when they were no text, or too large to keep twice.
    pub payload: String,
}

/// Why a message was not published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The caller brought a signature: whoever signs is the one who publishes.
    #[error("a message brings a `_sig` of its own; leave it out, it is made here")]
    Signed,
    /// No signature can be made over it.
    #[error(transparent)]
    Unsignable(#[from] UnsignableMessage),
    /// Every consumer would put it aside.
    #[error("no consumer would act on this message ({0}); give it an outbox_id and a zone_id, and keep it small")]
    Unacceptable(Rejection),
    /// The topic did not take it.
    #[error(transparent)]
    Stream(#[from] StreamError),
}

/// What became of a dead letter that was to be tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Retried {
    /// Its entry was added once more, under this name, and the dead letter is gone.
    Added(String),
    /// There is no such dead letter.
    Unknown,
    /// It holds no fields to add.
    Empty,
}

/// A topic and who reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicState {
    /// Its name.
    pub topic: String,
    /// Entries it has.
    pub entries: u64,
    /// Entries that were put aside.
    pub dead: u64,
    /// Its groups.
    pub groups: Vec<GroupState>,
}

/// All topics of a deployment, as far as nothing has to be signed or verified.
#[derive(Clone)]
pub struct Topics {
    pub(crate) engine: Engine,
}

/// All topics of a deployment.
#[derive(Clone)]
pub struct Streams {
    topics: Topics,
    key: Arc<HmacKey>,
}

impl Deref for Streams {
    type Target = Topics;
    fn deref(&self) -> &Topics {
        &self.topics
    }
}

#[derive(Clone)]
pub(crate) enum Engine {
    Redis(Arc<Redis>),
    Store(StoreTopics),
}

impl Streams {
    /// On a server that processes share. Entries are signed and verified with `key`.
    pub fn on_redis(redis: Arc<Redis>, key: Arc<HmacKey>) -> Self {
        Self { topics: Topics::on_redis(redis), key }
    }

    /// In the store of one process. Clones of this value wake each other's members.
    pub fn in_store(store: Store, key: Arc<HmacKey>) -> Self {
        Self { topics: Topics::in_store(store), key }
    }

    pub(crate) fn key(&self) -> &HmacKey {
        &self.key
    }

    /// Signs and adds a message, and gives its entry's name. It is durable then, as far as the engine makes it so.
    pub async fn publish(&self, topic: &str, fields: &[(String, String)]) -> Result<String, PublishError> {
        if fields.iter().any(|(name, _)| name == SIGNATURE) {
            return Err(PublishError::Signed);
        }
        let pairs = fields.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let signature = stream_signature(&self.key, topic, pairs)?;
        let mut fields = fields.to_vec();
        fields.push((SIGNATURE.to_owned(), signature));
        let entry = Entry { id: String::new(), fields: Some(fields) };
        // Judged as consumers will, so that what is accepted here is acted on there.
        from_wire(topic, &entry, &self.key).map_err(PublishError::Unacceptable)?;
        Ok(self.add(topic, entry.fields.unwrap_or_default()).await?)
    }

    /// A member of a group. Two members of one name are one member that is in two places: give each process its own.
    pub fn member(&self, topic: &str, group: &str, consumer: &str) -> Member {
        let place = Place { topic: topic.to_owned(), group: group.to_owned(), consumer: consumer.to_owned() };
        Member { topics: self.topics.clone(), place, connection: None }
    }
}

impl Topics {
    /// On a server that processes share.
    pub fn on_redis(redis: Arc<Redis>) -> Self {
        Self { engine: Engine::Redis(redis) }
    }

    /// In the store of one process.
    pub fn in_store(store: Store) -> Self {
        Self { engine: Engine::Store(StoreTopics::new(store)) }
    }

    pub(crate) async fn add(&self, topic: &str, fields: Vec<(String, String)>) -> Result<String, StreamError> {
        match &self.engine {
            Engine::Redis(redis) => redis.add(topic, &fields).await,
            Engine::Store(store) => {
                let mut added = store.add_all(vec![(topic.to_owned(), fields)]).await?;
                added.pop().ok_or_else(|| StreamError::Refused("an entry has no name".to_owned()))
            }
        }
    }

    /// Adds signed entries in order, and says of each whether it was taken. An error says nothing about any.
    pub(crate) async fn add_signed(
        &self,
        entries: &[(&str, &[(String, String)])],
    ) -> Result<Vec<Result<(), StreamError>>, StreamError> {
        match &self.engine {
            Engine::Redis(redis) => redis.add_all(entries).await,
            Engine::Store(store) => {
                let owned = entries.iter().map(|(topic, fields)| ((*topic).to_owned(), fields.to_vec())).collect();
                Ok(store.add_all(owned).await?.into_iter().map(|_| Ok(())).collect())
            }
        }
    }

    /// Makes a group of a topic, and the topic if need be. One that is there stays as it is.
    pub async fn create_group(&self, topic: &str, group: &str, begin: Begin) -> Result<(), StreamError> {
        match &self.engine {
            Engine::Redis(redis) => on_redis::create_group(redis, topic, group, begin).await,
            Engine::Store(store) => store.create_group(topic, group, begin).await,
        }
    }

    /// The topic's groups. A topic that is not there has none.
    pub async fn list_groups(&self, topic: &str) -> Result<Vec<GroupState>, StreamError> {
        match &self.engine {
            Engine::Redis(redis) => on_redis::list_groups(redis, topic).await,
            Engine::Store(store) => store.list_groups(topic).await,
        }
    }

    /// How many entries a topic has.
    pub async fn count(&self, topic: &str) -> Result<u64, StreamError> {
        match &self.engine {
            Engine::Redis(redis) => on_redis::count(redis, topic).await,
            Engine::Store(store) => store.count(topic).await,
        }
    }

    /// Removes entries of before `oldest_millis` that every group was handed and has acknowledged. Where there is no
    /// group, age alone counts.
    pub async fn trim(&self, topic: &str, oldest_millis: i64) -> Result<(), StreamError> {
        match &self.engine {
            Engine::Redis(redis) => on_redis::trim(redis, topic, oldest_millis).await,
            Engine::Store(store) => store.trim(topic, oldest_millis).await,
        }
    }

    /// How many dead letters a topic has.
    pub async fn count_dead(&self, topic: &str) -> Result<u64, StreamError> {
        self.count(&dead_letter_topic(topic)).await
    }

    /// What there is to know of a topic.
    pub async fn state(&self, topic: &str) -> Result<TopicState, StreamError> {
        Ok(TopicState {
            topic: topic.to_owned(),
            entries: self.count(topic).await?,
            dead: self.count_dead(topic).await?,
            groups: self.list_groups(topic).await?,
        })
    }

    /// Dead letters of a topic behind the one named `after`, oldest first, `count` at most.
    pub async fn list_dead(
        &self,
        topic: &str,
        after: Option<&str>,
        count: usize,
    ) -> Result<Vec<DeadLetter>, StreamError> {
        let dead = dead_letter_topic(topic);
        let entries = match &self.engine {
            Engine::Redis(redis) => on_redis::list_entries(redis, &dead, after, count).await?,
            Engine::Store(store) => store.list_entries(&dead, after, count).await?,
        };
        Ok(entries.into_iter().map(letter_of).collect())
    }

    /// Adds a dead letter's entry to its topic once more, as it was, and removes the dead letter: in this order, so that
    /// it can be there twice but not be lost. It is signed by nobody: what was forged stays forged. Groups that have
    /// handled its message know it and let it pass.
    pub async fn retry_dead(&self, topic: &str, id: &str) -> Result<Retried, StreamError> {
        let dead = dead_letter_topic(topic);
        let found = match &self.engine {
            Engine::Redis(redis) => on_redis::lookup(redis, &dead, id).await?,
            Engine::Store(store) => store.lookup(&dead, id).await?,
        };
        let Some(found) = found else { return Ok(Retried::Unknown) };
        let fields = fields_of_payload(&letter_of(found).payload);
        if fields.is_empty() {
            return Ok(Retried::Empty);
        }
        let added = self.add(topic, fields).await?;
        match &self.engine {
            Engine::Redis(redis) => on_redis::remove(redis, &dead, id).await?,
            Engine::Store(store) => store.remove(&dead, id).await?,
        }
        Ok(Retried::Added(added))
    }
}

/// What there is to know of a topic in a store that is looked at from outside.
pub async fn state_of(tx: &mut DeploymentRead<'_>, topic: &str) -> Result<TopicState, StoreError> {
    Ok(TopicState {
        topic: topic.to_owned(),
        entries: streams::count(tx, topic).await?.unsigned_abs(),
        dead: streams::count(tx, &dead_letter_topic(topic)).await?.unsigned_abs(),
        groups: on_store::list_groups(tx, topic).await?,
    })
}

/// Dead letters of a topic in a store that is looked at from outside: see [`Topics::list_dead`].
pub async fn dead_letters_of(
    tx: &mut DeploymentRead<'_>,
    topic: &str,
    after: Option<&str>,
    count: usize,
) -> Result<Vec<DeadLetter>, StoreError> {
    let entries = on_store::list_entries(tx, &dead_letter_topic(topic), after, count).await?;
    Ok(entries.into_iter().map(letter_of).collect())
}

fn letter_of(entry: Entry) -> DeadLetter {
    let value = |name: &str| {
        let fields = entry.fields.iter().flatten();
        fields.into_iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    };
    DeadLetter {
        source_id: value("source_id").unwrap_or_default(),
        group: value("group"),
        reason: value("reason").unwrap_or_default(),
        payload: value("payload").unwrap_or_default(),
        id: entry.id,
    }
}

/// One consumer of a group.
pub struct Member {
    pub(crate) topics: Topics,
    pub(crate) place: Place,
    /// For reads that wait; everything else goes over the connection that all share.
    connection: Option<MultiplexedConnection>,
}

impl Member {
    /// The next entries that nobody of the group was handed yet, `count` at most, waited for. They are this member's from
    /// then on. Dropped while it waits, it may have been handed entries that it never saw: they are reclaimed later.
    pub async fn read(&mut self, count: usize, wait: Duration) -> Result<Vec<Delivery>, StreamError> {
        match &self.topics.engine {
            Engine::Redis(redis) => on_redis::read(redis, &mut self.connection, &self.place, count, wait).await,
            Engine::Store(store) => store.read(&self.place, count, wait).await,
        }
    }

    /// Entries of the group that whoever holds them has held for too long, `count` at most. They are this member's from
    /// then on.
    pub async fn reclaim(&self, patience: Patience, count: usize) -> Result<Vec<Delivery>, StreamError> {
        match &self.topics.engine {
            Engine::Redis(redis) => on_redis::reclaim(redis, &self.place, patience, count).await,
            Engine::Store(store) => store.reclaim(&self.place, patience, count).await,
        }
    }

    /// Says that this member is still at work on entries it holds.
    pub async fn keep(&self, ids: &[&str]) -> Result<(), StreamError> {
        if ids.is_empty() {
            return Ok(());
        }
        match &self.topics.engine {
            Engine::Redis(redis) => on_redis::keep(redis, &self.place, ids).await,
            Engine::Store(store) => store.keep(&self.place, ids).await,
        }
    }

    /// Lets go of an entry that needs nothing more.
    pub async fn acknowledge(&self, id: &str) -> Result<(), StreamError> {
        self.settle(id, Vec::new()).await
    }

    /// Lets go of many entries that need nothing more, all or none.
    pub async fn acknowledge_all(&self, ids: &[&str]) -> Result<(), StreamError> {
        if ids.is_empty() {
            return Ok(());
        }
        match &self.topics.engine {
            Engine::Redis(redis) => on_redis::acknowledge(redis, &self.place, ids).await,
            Engine::Store(store) => store.acknowledge(&self.place, ids).await,
        }
    }

    /// Lets go of an entry whose message was handled, and remembers it for the group by these identities.
    pub(crate) async fn settle(&self, id: &str, identities: Vec<String>) -> Result<(), StreamError> {
        match &self.topics.engine {
            Engine::Redis(redis) => {
                // Only the order counts, so the entry's own time will do.
                let millis = i64::try_from(id_of(id).0).unwrap_or(i64::MAX);
                on_redis::settle(redis, &self.place, id, &identities, millis).await
            }
            Engine::Store(store) => store.settle(&self.place, id, identities).await,
        }
    }

    /// Whether the group has handled a message with one of these identities.
    pub(crate) async fn is_handled(&self, identities: &[String]) -> Result<bool, StreamError> {
        match &self.topics.engine {
            Engine::Redis(redis) => on_redis::is_handled(redis, &self.place, identities).await,
            Engine::Store(store) => store.is_handled(&self.place, identities).await,
        }
    }

    /// Keeps what the group remembers within its bounds; a server does that by itself.
    pub(crate) async fn forget_handled(&self) -> Result<(), StreamError> {
        match &self.topics.engine {
            Engine::Redis(_) => Ok(()),
            Engine::Store(store) => store.forget_handled(&self.place).await,
        }
    }

    /// Puts an entry aside for its group, with a reason, and lets go of it. `false` when the group does not hold it any
    /// more: then somebody else did.
    pub async fn dead_letter(&self, delivery: &Delivery, reason: &str) -> Result<bool, StreamError> {
        let letter = dead_letter(&delivery.entry, Some(&self.place.group), reason);
        self.put_aside(delivery, &dead_letter_topic(&self.place.topic), letter, DEAD_LETTERS).await
    }
}
