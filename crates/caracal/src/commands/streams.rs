//! `caracal streams`: what an operator sees of the topics, and does about what nobody could act on. An embedded store is
//! looked at from outside, beside the process that has it in use; only trying again needs it for itself.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use caracal_store::{DeploymentRead, SqliteOptions, Store, StoreError, SystemClock, inspect};
use caracal_stream::{
    AUDIT_EVENTS, DeadLetter, Redis, Retried, TOPICS, TopicState, Topics, dead_letter_topic, dead_letters_of, state_of,
};
use serde_json::{Value, json};

use super::{Failure, environment, runtime};
use crate::settings::{default_data_dir, topics};

/// Dead letters shown at once.
const SHOWN: usize = 1_000;

/// Where the topics are.
enum Place {
    Servers(caracal_stream::RedisOptions),
    Embedded(PathBuf),
}

impl Place {
    fn find(data_dir: Option<PathBuf>) -> Result<Self, Failure> {
        let environment = environment();
        Ok(match (data_dir, topics(&environment)?) {
            (Some(data_dir), _) => Self::Embedded(data_dir),
            (None, Some(options)) => Self::Servers(options),
            (None, None) => Self::Embedded(default_data_dir(&environment)?),
        })
    }
}

fn looked_at<T>(
    data_dir: &Path,
    look: impl AsyncFnOnce(&mut DeploymentRead<'_>) -> Result<T, StoreError>,
) -> Result<T, Failure> {
    Ok(inspect(&SqliteOptions::in_directory(data_dir).database())?.run(look)?)
}

/// Shows every topic and its groups.
pub fn show_streams(data_dir: Option<PathBuf>, json: bool) -> Result<ExitCode, Failure> {
    let mut states: Vec<TopicState> = Vec::with_capacity(TOPICS.len());
    match Place::find(data_dir)? {
        Place::Servers(options) => runtime()?.block_on(async {
            let topics = Topics::on_redis(Redis::open(options).await?);
            for topic in TOPICS {
                states.push(topics.state(topic).await?);
            }
            Ok::<(), Failure>(())
        })?,
        Place::Embedded(data_dir) => looked_at(&data_dir, async |tx| {
            for topic in TOPICS {
                states.push(state_of(tx, topic).await?);
            }
            Ok(())
        })?,
    }
    if json {
        println!("{}", Value::Array(states.iter().map(described).collect()));
        return Ok(ExitCode::SUCCESS);
    }
    for TopicState { topic, entries, dead, groups } in states {
        println!("{topic}: {entries} entries, {dead} dead letters");
        for group in groups {
            let since = group.oldest_pending.map(|id| format!(" since {id}")).unwrap_or_default();
            println!("  {}: {} pending{since}, {} to come", group.name, group.pending, group.lag);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn described(state: &TopicState) -> Value {
    let groups = state.groups.iter().map(|group| {
        json!({"name": group.name, "pending": group.pending, "oldest_pending": group.oldest_pending, "lag": group.lag})
    });
    json!({
        "topic": state.topic, "entries": state.entries, "dead": state.dead, "groups": groups.collect::<Vec<_>>(),
    })
}

/// Refuses what is no topic: "none" would be an answer about a name that was misspelt. Frames have dead letters of their
/// own, which the audit service judges anew.
fn check_topic(topic: &str) -> Result<(), Failure> {
    if TOPICS.contains(&topic) {
        return Ok(());
    }
    Err(Failure(match topic {
        AUDIT_EVENTS => format!(
            "what was put aside of `{AUDIT_EVENTS}` is listed and offered again by the audit service: `GET /api/audit/dlq`, \
             `POST /api/audit/dlq/replay`"
        ),
        _ => format!("there is no topic `{}`: the topics are {}", topic.escape_debug(), TOPICS.join(", ")),
    }))
}

/// Lists the oldest dead letters of a topic.
pub fn list_dead_letters(data_dir: Option<PathBuf>, topic: &str, json: bool) -> Result<ExitCode, Failure> {
    check_topic(topic)?;
    let letters: Vec<DeadLetter> = match Place::find(data_dir)? {
        Place::Servers(options) => runtime()?.block_on(async {
            Ok::<_, Failure>(Topics::on_redis(Redis::open(options).await?).list_dead(topic, None, SHOWN).await?)
        })?,
        Place::Embedded(data_dir) => looked_at(&data_dir, async |tx| dead_letters_of(tx, topic, None, SHOWN).await)?,
    };
    if json {
        let letters = letters.iter().map(|letter| {
            json!({
                "id": letter.id, "source_id": letter.source_id, "group": letter.group, "reason": letter.reason,
                "payload": letter.payload,
            })
        });
        println!("{}", Value::Array(letters.collect()));
        return Ok(ExitCode::SUCCESS);
    }
    for letter in letters {
        // Anybody who reaches the server can write these: nothing in them may steer a terminal.
        let group = letter.group.as_deref().unwrap_or("-").escape_debug().to_string();
        let (reason, payload) = (letter.reason.escape_debug(), letter.payload.escape_default());
        println!("{} {group} {reason} of {}: {payload}", letter.id, letter.source_id.escape_debug());
    }
    Ok(ExitCode::SUCCESS)
}

/// Tries dead letters again. Exit 0 only when each of them was there and could be.
pub fn retry_dead_letters(
    data_dir: Option<PathBuf>,
    topic: &str,
    ids: &[String],
    json: bool,
) -> Result<ExitCode, Failure> {
    check_topic(topic)?;
    let place = Place::find(data_dir)?;
    let done: Vec<(String, Retried)> = runtime()?.block_on(async {
        match place {
            Place::Servers(options) => retry(&Topics::on_redis(Redis::open(options).await?), topic, ids).await,
            Place::Embedded(data_dir) => {
                // A store that is not there must not be made by asking for what it holds.
                looked_at(&data_dir, async |_| Ok(()))?;
                let store = Store::open(&SqliteOptions::in_directory(&data_dir), Arc::new(SystemClock))?;
                let done = retry(&Topics::in_store(store.clone()), topic, ids).await;
                store.close().await;
                done
            }
        }
    })?;
    let all = done.iter().all(|(_, retried)| matches!(retried, Retried::Added(_)));
    if json {
        let done = done.iter().map(|(id, retried)| match retried {
            Retried::Added(entry) => json!({"id": id, "entry": entry}),
            Retried::Unknown => json!({"id": id, "error": "unknown"}),
            Retried::Empty => json!({"id": id, "error": "empty"}),
        });
        println!("{}", Value::Array(done.collect()));
    } else {
        for (id, retried) in done {
            match retried {
                Retried::Added(entry) => println!("{id}: added as {entry}"),
                Retried::Unknown => println!("{id}: no such dead letter of {}", dead_letter_topic(topic)),
                Retried::Empty => println!("{id}: holds no fields, so there is nothing to add"),
            }
        }
    }
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn retry(topics: &Topics, topic: &str, ids: &[String]) -> Result<Vec<(String, Retried)>, Failure> {
    let mut done = Vec::with_capacity(ids.len());
    for id in ids {
        done.push((id.clone(), topics.retry_dead(topic, id).await?));
    }
    Ok(done)
}
