//! `GET /api/audit/search` (contract: audit-and-streams.md §7.1): one zone's evidence in chain order, unredacted.

use std::collections::HashSet;
use std::time::Duration;

use caracal_authority::{Timestamp, ZoneId};
use caracal_ledger::instant;
use caracal_store::evidence::{self, EvidenceFilter, EvidenceRow};
use caracal_store::{Store, StoreError};
use serde::Serialize;
use serde_json::value::RawValue;

const DEFAULT_LIMIT: i64 = 100;
const MAX_LIMIT: i64 = 1_000;
const DAY: Duration = Duration::from_secs(86_400);

/// The query as sent. What can't be read falls back to its default, and of a repeated parameter the first counts.
#[derive(Default)]
pub(crate) struct SearchQuery {
    pub(crate) zone_id: String,
    decision: String,
    request_id: String,
    since: String,
    until: String,
    limit: String,
    cursor: String,
}

impl SearchQuery {
    pub(crate) fn of(pairs: Vec<(String, String)>) -> Self {
        let mut query = Self::default();
        let mut taken = HashSet::new();
        for (name, value) in pairs {
            let member = match name.as_str() {
                "zone_id" => &mut query.zone_id,
                "decision" => &mut query.decision,
                "request_id" => &mut query.request_id,
                "since" => &mut query.since,
                "until" => &mut query.until,
                "limit" => &mut query.limit,
                "cursor" => &mut query.cursor,
                _ => continue,
            };
            if taken.insert(name) {
                *member = value;
            }
        }
        query
    }
}

#[derive(Serialize)]
pub(crate) struct Found {
    /// Null when there are none, as the reference has it.
    events: Option<Vec<FoundRow>>,
    next_cursor: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct FoundRow {
    event: Event,
    ingested_at: String,
    #[serde(rename = "ContentSHA256")]
    content_sha256: String,
    #[serde(rename = "PrevContentSHA256")]
    prev_content_sha256: Option<String>,
    #[serde(rename = "ChainHMAC")]
    chain_hmac: String,
    chain_seq: i64,
}

/// The event of §2.1. JSON columns go out as they are stored: they are what the hash covers.
#[derive(Serialize)]
struct Event {
    id: String,
    zone_id: String,
    event_type: String,
    request_id: String,
    decision: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    policy_set_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    policy_set_version_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    manifest_sha: String,
    evaluation_status: String,
    determining_policies_json: Option<Box<RawValue>>,
    diagnostics_json: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata_json: Option<Box<RawValue>>,
    occurred_at: String,
}

pub(crate) async fn search(store: &Store, zone: &ZoneId, query: &SearchQuery) -> Result<Found, StoreError> {
    let now = store.now();
    // With whatever offset: a range that was meant and not understood would silently become another one.
    let instant = |text: &str, otherwise| instant(text).unwrap_or(otherwise);
    let named = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let filter = EvidenceFilter {
        since: Some(instant(&query.since, now.minus(DAY))),
        // Events of this very instant are included: `until` is exclusive.
        until: Some(instant(&query.until, now.plus(Duration::from_micros(1)))),
        request_id: named(&query.request_id),
        decision: named(&query.decision),
        ..EvidenceFilter::default()
    };
    let limit = query.limit.parse().ok().filter(|limit| *limit >= 1).unwrap_or(DEFAULT_LIMIT).min(MAX_LIMIT);
    let after = query.cursor.parse().ok().filter(|after| *after >= 0).unwrap_or(0);
    let mut snapshot = store.snapshot().await?;
    let rows = evidence::search(&mut snapshot.zone(zone), &filter, after, limit).await?;
    let next_cursor = rows.last().map(|row| row.chain_seq.to_string()).unwrap_or_default();
    let events: Vec<FoundRow> = rows.into_iter().map(found).collect();
    Ok(Found { events: (!events.is_empty()).then_some(events), next_cursor })
}

fn found(row: EvidenceRow) -> FoundRow {
    let json = |text: String| RawValue::from_string(text).ok().filter(|json| json.get() != "null");
    FoundRow {
        event: Event {
            id: row.id,
            zone_id: row.zone_id,
            event_type: row.event_type,
            request_id: row.request_id,
            decision: row.decision,
            policy_set_id: row.policy_set_id,
            policy_set_version_id: row.policy_set_version_id,
            manifest_sha: row.manifest_sha,
            evaluation_status: row.evaluation_status,
            determining_policies_json: json(row.determining_policies),
            diagnostics_json: json(row.diagnostics),
            metadata_json: json(row.metadata),
            occurred_at: Timestamp::from_micros(row.occurred_at).to_micros_text(),
        },
        ingested_at: Timestamp::from_micros(row.ingested_at).to_micros_text(),
        content_sha256: row.content_sha256,
        prev_content_sha256: row.prev_content_sha256,
        chain_hmac: row.chain_hmac,
        chain_seq: row.chain_seq,
    }
}
