//! Entries as they are, for topics that are signed otherwise than ours are: audit frames of clients, and what was put aside
//! of them (contract: audit-and-streams.md §2.4, §4.2). Nothing here verifies anything.

use crate::entry::Entry;
use crate::on_redis;
use crate::redis::StreamError;
use crate::streams::{Delivery, Engine, Member, Topics};

/// Names and values of an entry, in the order of the wire.
pub type Fields = Vec<(String, String)>;

/// An entry of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawEntry {
    /// The topic's own name for it: `milliseconds-number`.
    pub id: String,
    /// Its fields; none when one of them is no text.
    pub fields: Option<Fields>,
}

impl RawEntry {
    /// The first field called `name`.
    pub fn field(&self, name: &str) -> Option<&str> {
        value_of(self.fields.as_deref(), name)
    }
}

fn raw(entry: Entry) -> RawEntry {
    RawEntry { id: entry.id, fields: entry.fields }
}

fn value_of<'f>(fields: Option<&'f [(String, String)]>, name: &str) -> Option<&'f str> {
    fields?.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

impl Delivery {
    /// The entry's fields; none when one of them is no text.
    pub fn fields(&self) -> Option<&[(String, String)]> {
        self.entry.fields.as_deref()
    }

    /// The first field called `name`.
    pub fn field(&self, name: &str) -> Option<&str> {
        value_of(self.fields(), name)
    }
}

impl Topics {
    /// Entries from the one named `from` on, itself included, oldest first, `count` at most; from the oldest without a
    /// name.
    pub async fn list_raw(&self, topic: &str, from: Option<&str>, count: usize) -> Result<Vec<RawEntry>, StreamError> {
        let entries = match &self.engine {
            Engine::Redis(redis) => on_redis::list_from(redis, topic, from, count).await?,
            Engine::Store(store) => store.list_from(topic, from, count).await?,
        };
        Ok(entries.into_iter().map(raw).collect())
    }

    /// One entry.
    pub async fn lookup_raw(&self, topic: &str, id: &str) -> Result<Option<RawEntry>, StreamError> {
        let found = match &self.engine {
            Engine::Redis(redis) => on_redis::lookup(redis, topic, id).await?,
            Engine::Store(store) => store.lookup(topic, id).await?,
        };
        Ok(found.map(raw))
    }

    /// Adds an entry as it is, and gives its name. Whoever reads the topic decides what its signature is worth.
    pub async fn add_raw(&self, topic: &str, fields: Fields) -> Result<String, StreamError> {
        self.add(topic, fields).await
    }

    /// Removes one entry, if it is there.
    pub async fn remove_raw(&self, topic: &str, id: &str) -> Result<(), StreamError> {
        match &self.engine {
            Engine::Redis(redis) => on_redis::remove(redis, topic, id).await,
            Engine::Store(store) => store.remove(topic, id).await,
        }
    }
}

impl Member {
    /// Writes `letter` to the topic `aside`, of which the newest `kept` entries stay, and lets go of the entry it is about:
    /// both or neither. `false` when the group does not hold the entry any more: then somebody else did.
    pub async fn put_aside(
        &self,
        delivery: &Delivery,
        aside: &str,
        letter: Fields,
        kept: usize,
    ) -> Result<bool, StreamError> {
        match &self.topics.engine {
            Engine::Redis(redis) => on_redis::put_aside(redis, &self.place, aside, delivery.id(), &letter, kept).await,
            Engine::Store(store) => store.put_aside(&self.place, aside.to_owned(), delivery.id(), letter, kept).await,
        }
    }
}
