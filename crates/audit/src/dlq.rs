//! Frames that were put aside: looked at, and offered again where that can help (contract: audit-and-streams.md §4.2, §7.2).

use caracal_authority::Timestamp;
use caracal_store::Store;
use caracal_stream::{AUDIT_DEAD_LETTERS, AUDIT_EVENTS, RawEntry, StreamError, Topics};
use serde::Serialize;
use serde_json::{Map, Value};

const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1_000;

/// A query that can't be answered, in words.
pub(crate) struct Unreadable(pub(crate) &'static str);

/// Which dead letters.
pub(crate) struct Range {
    limit: usize,
    /// The first one, itself included; the oldest there is without one.
    start: Option<String>,
}

impl Range {
    /// Of a repeated parameter the first counts.
    pub(crate) fn of(pairs: &[(String, String)]) -> Result<Self, Unreadable> {
        let value = |name: &str| pairs.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let limit = match value("limit").filter(|limit| !limit.is_empty()) {
            None => DEFAULT_LIMIT,
            Some(text) => match text.parse::<u64>() {
                Ok(limit) if limit > 0 => usize::try_from(limit).unwrap_or(MAX_LIMIT).min(MAX_LIMIT),
                _ => return Err(Unreadable("limit must be a positive integer")),
            },
        };
        let start = value("start").filter(|start| !start.is_empty() && *start != "-").map(str::to_owned);
        if start.as_deref().is_some_and(|start| !is_id(start)) {
            return Err(Unreadable("start must be the id of a dead letter, such as 1767268800000-0"));
        }
        Ok(Self { limit, start })
    }
}

/// Whether text can be the name of an entry: milliseconds, and a number within the millisecond.
pub(crate) fn is_id(text: &str) -> bool {
    let number =
        |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()) && part.parse::<u64>().is_ok();
    text.split_once('-').is_some_and(|(millis, within)| number(millis) && number(within))
}

#[derive(Serialize)]
pub(crate) struct Listed {
    entries: Vec<Shown>,
    next_cursor: String,
}

#[derive(Serialize)]
pub(crate) struct Replayed {
    scanned: usize,
    replayed: usize,
    skipped: usize,
    /// Where to go on: letters that can't be offered again stay, and would be met again from the oldest on.
    next_cursor: String,
}

#[derive(Serialize)]
pub(crate) struct Shown {
    id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    source_id: String,
    reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    received_at: String,
    age_seconds: i64,
    replayable: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    event_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    zone_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    event_type: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    request_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    decision: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    source_sig: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_event: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fields: Option<Map<String, Value>>,
}

impl Shown {
    fn of(entry: &RawEntry, now: Timestamp, detailed: bool) -> Self {
        let field = |name: &str| entry.field(name).unwrap_or_default().to_owned();
        let event: Option<Value> = entry.field("src_data").and_then(|data| serde_json::from_str(data).ok());
        let of_event = |name: &str| {
            let value = event.as_ref().and_then(|event| event.get(name)).and_then(Value::as_str);
            value.unwrap_or_default().to_owned()
        };
        let (event_id, zone_id, event_type) = (of_event("id"), of_event("zone_id"), of_event("event_type"));
        let (request_id, decision) = (of_event("request_id"), of_event("decision"));
        let fields = entry.fields.iter().flatten().map(|(name, value)| (name.clone(), Value::from(value.clone())));
        Self {
            source_id: field("src_id"),
            reason: field("reason"),
            received_at: received_at(&field("received_at")),
            age_seconds: age_secs(&entry.id, now),
            replayable: is_replayable(entry),
            event_id,
            zone_id,
            event_type,
            request_id,
            decision,
            source_sig: field("src_sig"),
            fields: detailed.then(|| fields.collect()),
            source_event: event.filter(|_| detailed),
            id: entry.id.clone(),
        }
    }
}

/// In seconds; what is no positive number is shown as it stands.
fn received_at(text: &str) -> String {
    match text.parse::<i64>() {
        Ok(millis) if millis > 0 => Timestamp::from_micros(millis.saturating_mul(1_000)).to_seconds_text(),
        _ => text.to_owned(),
    }
}

/// Seconds since an entry was added, never fewer than none.
pub(crate) fn age_secs(id: &str, now: Timestamp) -> i64 {
    let millis = id.split('-').next().and_then(|millis| millis.parse::<i64>().ok()).unwrap_or(0);
    (now.as_micros() / 1_000).saturating_sub(millis).max(0) / 1_000
}

/// Whether it was put aside for what has nothing to do with itself. What was forged, garbled or changed stays so.
fn is_replayable(entry: &RawEntry) -> bool {
    let reason = entry.field("reason").unwrap_or_default();
    let passing = ["transient_exceeded_max_deliveries:", "pg_permanent_error:"];
    passing.iter().any(|prefix| reason.starts_with(prefix))
        && entry.field("src_data").is_some_and(|data| !data.trim().is_empty())
}

/// The dead letters of a range, oldest first.
pub(crate) async fn list(topics: &Topics, store: &Store, range: &Range) -> Result<Listed, StreamError> {
    let entries = topics.list_raw(AUDIT_DEAD_LETTERS, range.start.as_deref(), range.limit).await?;
    let next_cursor = entries.last().map(|entry| entry.id.clone()).unwrap_or_default();
    let now = store.now();
    Ok(Listed { entries: entries.iter().map(|entry| Shown::of(entry, now, false)).collect(), next_cursor })
}

/// One dead letter with everything it holds.
pub(crate) async fn lookup(topics: &Topics, store: &Store, id: &str) -> Result<Option<Shown>, StreamError> {
    let found = topics.lookup_raw(AUDIT_DEAD_LETTERS, id).await?;
    Ok(found.map(|entry| Shown::of(&entry, store.now(), true)))
}

/// Offers the frames of a range again, each added before its dead letter is removed: it may be there twice then, and the
/// ledger knows a frame that comes again. A failure leaves those before it offered.
pub(crate) async fn replay(topics: &Topics, range: &Range) -> Result<Replayed, StreamError> {
    let entries = topics.list_raw(AUDIT_DEAD_LETTERS, range.start.as_deref(), range.limit).await?;
    let mut replayed = 0;
    for entry in entries.iter().filter(|entry| is_replayable(entry)) {
        let mut frame = vec![("data".to_owned(), entry.field("src_data").unwrap_or_default().to_owned())];
        if let Some(signature) = entry.field("src_sig") {
            frame.push(("sig".to_owned(), signature.to_owned()));
        }
        topics.add_raw(AUDIT_EVENTS, frame).await?;
        topics.remove_raw(AUDIT_DEAD_LETTERS, &entry.id).await?;
        replayed += 1;
    }
    let next_cursor = entries.last().map(|entry| entry.id.clone()).unwrap_or_default();
    Ok(Replayed { scanned: entries.len(), replayed, skipped: entries.len() - replayed, next_cursor })
}
