//! Topics with groups on a Redis server: Redis Streams, in the wire format that clients in other languages read.
//!
//! Steps that must not come apart (a dead letter and its acknowledgement) are one script: a script that fails in its
//! first step does not take its second.

use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{FromRedisValue, Pipeline, Value};
use tokio::time::timeout;

use crate::entry::Entry;
use crate::redis::{Redis, StreamError, entries_of, failure, id_of};
use crate::streams::{Begin, Delivery, GroupState, HANDLED, Patience, Place};

/// Beyond the time a read was told to wait, the server gets this long to say that there was nothing.
const GRACE: Duration = Duration::from_secs(2);
/// Pending entries looked at in one round trip.
const PAGE: usize = 256;

/// Puts an entry aside for its group, if the group still holds it.
const PUT_ASIDE: &str = "if #redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[2], ARGV[2], 1) == 0 then return 0 end
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[3], '*', unpack(ARGV, 4))
redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
return 1";

/// How many entries lie behind an id, at most as many as are counted.
const BEHIND: &str = "return #redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], '+', 'COUNT', ARGV[2])";
const COUNTED: usize = 10_000;

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn text(value: Option<&Value>) -> Option<String> {
    value.and_then(|value| String::from_redis_value(value.clone()).ok())
}

fn number(value: Option<&Value>) -> Option<u64> {
    value.and_then(|value| u64::from_redis_value(value.clone()).ok())
}

fn list(value: Value) -> Vec<Value> {
    if let Value::Array(items) = value { items } else { Vec::new() }
}

/// One that is there stays as it is.
pub(crate) async fn create_group(redis: &Redis, topic: &str, group: &str, begin: Begin) -> Result<(), StreamError> {
    let from = match begin {
        Begin::Start => "0",
        Begin::Now => "$",
    };
    let mut command = ::redis::cmd("XGROUP");
    command.arg("CREATE").arg(topic).arg(group).arg(from).arg("MKSTREAM");
    match redis.ask::<Value>(&command).await {
        Err(StreamError::Refused(reason)) if reason.contains("BUSYGROUP") => Ok(()),
        other => other.map(|_| ()),
    }
}

/// The group's next entries, waited for on a connection that nobody else uses.
pub(crate) async fn read(
    redis: &Redis,
    connection: &mut Option<MultiplexedConnection>,
    place: &Place,
    count: usize,
    wait: Duration,
) -> Result<Vec<Delivery>, StreamError> {
    let mut own = match connection.take() {
        Some(own) => own,
        None => redis.connect().await.map_err(|error| failure(&error))?,
    };
    let mut command = ::redis::cmd("XREADGROUP");
    command.arg("GROUP").arg(&place.group).arg(&place.consumer).arg("COUNT").arg(count.max(1));
    // Nothing is waited for in zero time; `BLOCK 0` would wait for ever.
    if !wait.is_zero() {
        command.arg("BLOCK").arg(millis(wait).max(1));
    }
    command.arg("STREAMS").arg(&place.topic).arg(">");
    let answer = timeout(wait.saturating_add(GRACE), command.query_async::<Value>(&mut own)).await;
    let answer = answer.map_err(|_| StreamError::Unavailable("no answer to a read".to_owned()))?;
    let answer = answer.map_err(|error| failure(&error));
    // A connection that gave an answer is good for the next read, whatever the answer was.
    if !matches!(answer, Err(StreamError::Unavailable(_))) {
        *connection = Some(own);
    }
    let entries = list(answer?).into_iter().next().and_then(|topic| list(topic).into_iter().nth(1));
    let first = |entry: Entry| Delivery { entry, deliveries: 1 };
    Ok(entries.map(entries_of).unwrap_or_default().into_iter().map(first).collect())
}

/// What others of the group have held for too long, or this one itself.
pub(crate) async fn reclaim(
    redis: &Redis,
    place: &Place,
    patience: Patience,
    count: usize,
) -> Result<Vec<Delivery>, StreamError> {
    let (mut from, mut due) = ("-".to_owned(), Vec::new());
    loop {
        let mut command = ::redis::cmd("XPENDING");
        command.arg(&place.topic).arg(&place.group).arg("IDLE").arg(millis(patience.first));
        let page = list(redis.ask::<Value>(command.arg(&from).arg("+").arg(PAGE)).await?);
        let full = page.len() >= PAGE;
        for held in page {
            let held = list(held);
            let (Some(id), Some(idle), Some(deliveries)) =
                (text(held.first()), number(held.get(2)), number(held.get(3)))
            else {
                continue;
            };
            from = format!("({id}");
            if due.len() < count && idle >= millis(patience.after(deliveries)) {
                due.push((id, deliveries));
            }
        }
        if !full || due.len() >= count {
            break;
        }
    }
    if due.is_empty() {
        return Ok(Vec::new());
    }
    let mut claims = ::redis::pipe();
    for (id, deliveries) in &due {
        // Whoever was quicker has made it young again.
        let idle = millis(patience.after(*deliveries));
        claims.cmd("XCLAIM").arg(&place.topic).arg(&place.group).arg(&place.consumer).arg(idle).arg(id);
    }
    let claimed: Vec<Value> = redis.ask_all(&claims).await?;
    let mut deliveries = Vec::new();
    let mut gone = Vec::new();
    for ((id, before), claimed) in due.into_iter().zip(claimed) {
        let entries = list(claimed);
        // An older server answers nil for an entry that was removed under its group, and keeps it pending.
        if entries.contains(&Value::Nil) {
            gone.push(id);
        }
        let again = |entry| Delivery { entry, deliveries: before.saturating_add(1) };
        deliveries.extend(entries_of(Value::Array(entries)).into_iter().map(again));
    }
    if !gone.is_empty() {
        acknowledge(redis, place, &gone.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    }
    Ok(deliveries)
}

/// Says that this consumer is still at work on these entries.
pub(crate) async fn keep(redis: &Redis, place: &Place, ids: &[&str]) -> Result<(), StreamError> {
    let mut command = ::redis::cmd("XCLAIM");
    command.arg(&place.topic).arg(&place.group).arg(&place.consumer).arg(0).arg(ids).arg("JUSTID");
    redis.ask::<Value>(&command).await.map(|_| ())
}

/// Lets go of many entries in one command.
pub(crate) async fn acknowledge(redis: &Redis, place: &Place, ids: &[&str]) -> Result<(), StreamError> {
    let mut command = ::redis::cmd("XACK");
    redis.ask::<Value>(command.arg(&place.topic).arg(&place.group).arg(ids)).await.map(|_| ())
}

fn handled_key(place: &Place) -> String {
    format!("caracal:handled:{}:{}", place.topic, place.group)
}

/// Remembers a message as handled, by its identities, and acknowledges its entry: in this order, so that cut off in
/// between, the entry comes again and is known.
pub(crate) async fn settle(
    redis: &Redis,
    place: &Place,
    id: &str,
    identities: &[String],
    now_millis: i64,
) -> Result<(), StreamError> {
    let key = handled_key(place);
    let mut commands = Pipeline::new();
    for identity in identities {
        commands.cmd("ZADD").arg(&key).arg("NX").arg(now_millis).arg(identity);
    }
    if !identities.is_empty() {
        commands.cmd("ZREMRANGEBYRANK").arg(&key).arg(0).arg(-HANDLED - 1);
    }
    commands.cmd("XACK").arg(&place.topic).arg(&place.group).arg(id);
    redis.ask_all::<Value>(&commands).await.map(|_| ())
}

/// Whether the group has handled a message with one of these identities.
pub(crate) async fn is_handled(redis: &Redis, place: &Place, identities: &[String]) -> Result<bool, StreamError> {
    if identities.is_empty() {
        return Ok(false);
    }
    let mut command = ::redis::cmd("ZMSCORE");
    let scores: Vec<Option<f64>> = redis.ask(command.arg(handled_key(place)).arg(identities)).await?;
    Ok(scores.iter().any(Option::is_some))
}

/// Writes the dead letter and then acknowledges; `false` when the group does not hold the entry any more.
pub(crate) async fn put_aside(
    redis: &Redis,
    place: &Place,
    dead_topic: &str,
    id: &str,
    letter: &[(String, String)],
    kept: usize,
) -> Result<bool, StreamError> {
    let mut command = ::redis::cmd("EVAL");
    command.arg(PUT_ASIDE).arg(2).arg(&place.topic).arg(dead_topic).arg(&place.group).arg(id).arg(kept);
    for (name, value) in letter {
        command.arg(name).arg(value);
    }
    redis.ask::<i64>(&command).await.map(|put| put == 1)
}

/// Entries behind `after`, oldest first.
pub(crate) async fn list_entries(
    redis: &Redis,
    topic: &str,
    after: Option<&str>,
    count: usize,
) -> Result<Vec<Entry>, StreamError> {
    let from = after.map_or_else(|| "-".to_owned(), |after| format!("({after}"));
    let mut command = ::redis::cmd("XRANGE");
    redis.ask(command.arg(topic).arg(from).arg("+").arg("COUNT").arg(count)).await.map(entries_of)
}

/// Entries from `from` on, itself included, oldest first.
pub(crate) async fn list_from(
    redis: &Redis,
    topic: &str,
    from: Option<&str>,
    count: usize,
) -> Result<Vec<Entry>, StreamError> {
    let mut command = ::redis::cmd("XRANGE");
    redis.ask(command.arg(topic).arg(from.unwrap_or("-")).arg("+").arg("COUNT").arg(count)).await.map(entries_of)
}

/// One entry.
pub(crate) async fn lookup(redis: &Redis, topic: &str, id: &str) -> Result<Option<Entry>, StreamError> {
    let mut command = ::redis::cmd("XRANGE");
    redis.ask(command.arg(topic).arg(id).arg(id)).await.map(|found| entries_of(found).into_iter().next())
}

pub(crate) async fn remove(redis: &Redis, topic: &str, id: &str) -> Result<(), StreamError> {
    redis.ask::<Value>(::redis::cmd("XDEL").arg(topic).arg(id)).await.map(|_| ())
}

pub(crate) async fn count(redis: &Redis, topic: &str) -> Result<u64, StreamError> {
    redis.ask(::redis::cmd("XLEN").arg(topic)).await
}

/// A group's place, as the server has it.
struct Known {
    name: String,
    delivered: String,
    pending: u64,
    oldest_pending: Option<String>,
    lag: Option<u64>,
}

async fn known_groups(redis: &Redis, topic: &str) -> Result<Vec<Known>, StreamError> {
    type Described = Vec<std::collections::HashMap<String, Value>>;
    let described: Described = match redis.ask(::redis::cmd("XINFO").arg("GROUPS").arg(topic)).await {
        // There is no such topic yet.
        Err(StreamError::Refused(reason)) if reason.contains("no such key") => return Ok(Vec::new()),
        other => other?,
    };
    let mut known = Vec::with_capacity(described.len());
    for group in described {
        let (Some(name), Some(delivered)) = (text(group.get("name")), text(group.get("last-delivered-id"))) else {
            return Err(StreamError::Refused(format!("a group of `{topic}` is not described as groups are")));
        };
        // The summary of what was delivered and not acknowledged: count, first, last, consumers.
        let summary = list(redis.ask::<Value>(::redis::cmd("XPENDING").arg(topic).arg(&name)).await?);
        known.push(Known {
            pending: number(summary.first()).unwrap_or(0),
            oldest_pending: text(summary.get(1)),
            lag: number(group.get("lag")),
            name,
            delivered,
        });
    }
    Ok(known)
}

pub(crate) async fn list_groups(redis: &Redis, topic: &str) -> Result<Vec<GroupState>, StreamError> {
    let mut groups = Vec::new();
    for Known { name, delivered, pending, oldest_pending, lag } in known_groups(redis, topic).await? {
        let lag = match lag {
            Some(lag) => lag,
            // Servers before 7 don't say, and later ones don't know after an entry in the middle was removed.
            None => {
                let mut command = ::redis::cmd("EVAL");
                redis.ask(command.arg(BEHIND).arg(1).arg(topic).arg(delivered).arg(COUNTED)).await?
            }
        };
        groups.push(GroupState { name, pending, oldest_pending, lag });
    }
    Ok(groups)
}

/// Removes what is older than `oldest_millis` and was handed to, and acknowledged by, every group there is.
pub(crate) async fn trim(redis: &Redis, topic: &str, oldest_millis: i64) -> Result<(), StreamError> {
    let mut oldest = id_of(&format!("{oldest_millis}-0"));
    for group in known_groups(redis, topic).await? {
        oldest = oldest.min(id_of(&group.delivered));
        if let Some(first) = &group.oldest_pending {
            oldest = oldest.min(id_of(first));
        }
    }
    let (millis, number) = oldest;
    let mut command = ::redis::cmd("XTRIM");
    redis.ask::<Value>(command.arg(topic).arg("MINID").arg(format!("{millis}-{number}"))).await.map(|_| ())
}
