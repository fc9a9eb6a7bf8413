//! `GET /api/audit/search` (contract: audit-and-streams.md §7.1).

use caracal_authority::{PolicySetVersionId, Timestamp};
use caracal_crypto::hmac::{HmacKey, chain_link, sha256_hex};
use caracal_ledger::{Decision, MetadataKey};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::world::{World, event};

/// Three events of a zone, a second apart, and one of another.
async fn world() -> World {
    let world = World::new().await;
    let version = PolicySetVersionId::parse("psv-1").unwrap();
    let first = event("z-1", "e-1", 0)
        .request("req-1")
        .under_policy(None, Some(version), Some("ab".repeat(32)))
        .determined_by("p1")
        .because("granted")
        .attribute(MetadataKey::SessionId, "ar-1")
        .attribute(MetadataKey::ApplicationName, "Ä <b>");
    let mut second = event("z-1", "e-2", 1_000_000).request("req-2");
    second.decision = Decision::Deny;
    world.record(vec![first, second, event("z-1", "e-3", 2_000_000).request("req-1")]).await;
    world.record(vec![event("z-2", "other", 0)]).await;
    world.clock.advance(2);
    world
}

fn ids(found: &Value) -> Vec<&str> {
    found["events"].as_array().unwrap().iter().map(|row| row["Event"]["id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn rows_come_in_chain_order_unredacted_and_under_capitalised_names() {
    let world = world().await;
    let found = world.search("zone_id=z-1").await;
    assert_eq!(found.headers["content-type"], "application/json");
    assert_eq!(found.headers["cache-control"], "no-store");
    let body = found.is(200);
    assert_eq!(ids(&body), ["e-1", "e-2", "e-3"]);
    assert_eq!(body["next_cursor"], "3", "set on the last page too");
    let first = &body["events"][0];
    let expected = json!({
        "id": "e-1", "zone_id": "z-1", "event_type": "token_exchange", "request_id": "req-1", "decision": "allow",
        "policy_set_version_id": "psv-1", "manifest_sha": "ab".repeat(32), "evaluation_status": "complete",
        "determining_policies_json": [{"policy": "p1"}], "diagnostics_json": [{"reason": "granted"}],
        "metadata_json": {"session_id": "ar-1", "application_name": "Ä <b>"},
        "occurred_at": "2026-01-01T12:00:00.000000Z",
    });
    assert_eq!(first["Event"], expected);
    let names: Vec<&String> = first.as_object().unwrap().keys().collect();
    assert_eq!(names, ["ChainHMAC", "ChainSeq", "ContentSHA256", "Event", "IngestedAt", "PrevContentSHA256"]);
    assert_eq!((&first["ChainSeq"], &first["PrevContentSHA256"]), (&json!(1), &json!(null)));
    assert_eq!(body["events"][1]["PrevContentSHA256"], first["ContentSHA256"]);
    assert_eq!(first["ContentSHA256"].as_str().unwrap().len(), 64);
    assert_eq!(first["ChainHMAC"].as_str().unwrap().len(), 64);
    // Absent metadata and policy ids are left out.
    let bare = body["events"][1]["Event"].as_object().unwrap();
    for absent in ["metadata_json", "policy_set_id", "policy_set_version_id", "manifest_sha"] {
        assert!(!bare.contains_key(absent), "{absent}");
    }
}

/// A row as an archive reads it: JSON members as the text they were sent in.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Archived<'a> {
    #[serde(borrow)]
    event: ArchivedEvent<'a>,
    #[serde(rename = "ContentSHA256")]
    content_sha256: String,
    #[serde(rename = "PrevContentSHA256")]
    prev_content_sha256: Option<String>,
    #[serde(rename = "ChainHMAC")]
    chain_hmac: String,
}

#[derive(Deserialize)]
struct ArchivedEvent<'a> {
    id: String,
    zone_id: String,
    event_type: String,
    request_id: String,
    decision: String,
    #[serde(default)]
    policy_set_id: String,
    #[serde(default)]
    policy_set_version_id: String,
    #[serde(default)]
    manifest_sha: String,
    evaluation_status: String,
    #[serde(borrow)]
    determining_policies_json: &'a RawValue,
    diagnostics_json: &'a RawValue,
    metadata_json: Option<&'a RawValue>,
    occurred_at: String,
}

impl ArchivedEvent<'_> {
    /// The hash of audit-and-streams.md §5.2, from the contract's words and nothing of ours.
    fn content_sha256(&self) -> String {
        let nanos = Timestamp::parse(&self.occurred_at).unwrap().as_micros() * 1_000;
        let fields = [
            self.id.as_str(),
            &self.zone_id,
            &self.event_type,
            &self.request_id,
            &self.decision,
            &self.policy_set_id,
            &self.policy_set_version_id,
            &self.manifest_sha,
            &self.evaluation_status,
            self.determining_policies_json.get(),
            self.diagnostics_json.get(),
            self.metadata_json.map_or("null", RawValue::get),
            &nanos.to_string(),
        ];
        sha256_hex(fields.join("\u{1f}").as_bytes())
    }
}

#[tokio::test]
async fn t06_evidence_an_archive_can_recompute_every_hash_link_and_seal_from_what_it_was_sent() {
    #[derive(Deserialize)]
    struct Found<'a> {
        #[serde(borrow)]
        events: Vec<Archived<'a>>,
    }
    let world = world().await;
    let text = world.search("zone_id=z-1").await.text;
    let Found { events } = serde_json::from_str(&text).unwrap();
    let key = HmacKey::from_bytes(&[7; 32]).unwrap();
    let mut before = None;
    for row in &events {
        assert_eq!(row.event.content_sha256(), row.content_sha256, "{}", row.event.id);
        assert_eq!(row.prev_content_sha256, before, "{}", row.event.id);
        assert_eq!(chain_link(&key, &row.content_sha256, before.as_deref()), row.chain_hmac, "{}", row.event.id);
        before = Some(row.content_sha256.clone());
    }
    assert_eq!(events.len(), 3);
}

#[tokio::test]
async fn nothing_found_is_null_and_an_empty_cursor() {
    let world = world().await;
    for query in ["zone_id=none", "zone_id=z-1&cursor=3", "zone_id=z-1&decision=maybe", "zone_id=z-1&request_id=none"] {
        let body = world.search(query).await.is(200);
        assert_eq!(body, json!({"events": null, "next_cursor": ""}), "{query}");
    }
}

#[tokio::test]
async fn filters_narrow_and_all_must_hold() {
    let world = world().await;
    for (query, expected) in [
        ("zone_id=z-2", &["other"][..]),
        ("zone_id=z-1&decision=deny", &["e-2"]),
        ("zone_id=z-1&request_id=req-1", &["e-1", "e-3"]),
        ("zone_id=z-1&since=2026-01-01T12:00:01Z", &["e-2", "e-3"]),
        ("zone_id=z-1&until=2026-01-01T12:00:01Z", &["e-1"]),
        ("zone_id=z-1&since=2026-01-01T12:00:00.000001Z&until=2026-01-01T12:00:02Z", &["e-2"]),
        // An offset is part of RFC 3339: half past one at +01:30 is noon.
        ("zone_id=z-1&since=2026-01-01T13:30:01%2B01:30", &["e-2", "e-3"]),
        ("zone_id=z-1&until=2026-01-01T07:00:01-05:00", &["e-1"]),
        ("zone_id=z-1&request_id=req-1&decision=allow&cursor=1", &["e-3"]),
        ("zone_id=z-1&unknown=1&label=x", &["e-1", "e-2", "e-3"]),
        // Of a repeated parameter the first counts.
        ("zone_id=z-1&zone_id=z-2&decision=deny&decision=allow", &["e-2"]),
    ] {
        assert_eq!(ids(&world.search(query).await.is(200)), expected, "{query}");
    }
}

#[tokio::test]
async fn what_can_t_be_read_falls_back_to_its_default() {
    let world = world().await;
    for query in [
        "limit=bad&cursor=bad",
        "limit=0",
        "limit=-1",
        "limit=1.5",
        "limit=99999999999999999999",
        "cursor=-1",
        "cursor=1.5",
        "since=yesterday&until=never",
        "since=2026-01-01&until=2026-01-01T12:00:01",
        "since=2026-13-01T00:00:00Z",
        "since=&until=&decision=&request_id=&limit=&cursor=",
        "since=%zz&decision=%",
    ] {
        let found = world.search(&format!("zone_id=z-1&{query}")).await.is(200);
        if query.ends_with("decision=%") {
            assert_eq!(found["events"], json!(null), "a decision that nothing has");
        } else {
            assert_eq!(ids(&found), ["e-1", "e-2", "e-3"], "{query}");
        }
    }
}

#[tokio::test]
async fn without_a_range_it_is_the_last_day() {
    let world = world().await;
    world.clock.advance(86_400 - 2);
    assert_eq!(ids(&world.search("zone_id=z-1").await.is(200)), ["e-1", "e-2", "e-3"]);
    world.clock.advance(1);
    assert_eq!(ids(&world.search("zone_id=z-1").await.is(200)), ["e-2", "e-3"]);
    assert_eq!(ids(&world.search("zone_id=z-1&since=2026-01-01T00:00:00Z").await.is(200)), ["e-1", "e-2", "e-3"]);
}

#[tokio::test]
async fn pages_follow_the_chain_and_are_never_larger_than_a_thousand() {
    let world = World::new().await;
    let events = (1..=1_050).map(|number| event("z-1", &format!("e-{number}"), number)).collect();
    world.record(events).await;
    world.clock.advance(1);
    assert_eq!(ids(&world.search("zone_id=z-1").await.is(200)).len(), 100);
    let first = world.search("zone_id=z-1&limit=5000").await.is(200);
    assert_eq!((ids(&first).len(), &first["next_cursor"]), (1_000, &json!("1000")));
    let rest = world.search("zone_id=z-1&limit=5000&cursor=1000").await.is(200);
    assert_eq!((ids(&rest).len(), ids(&rest)[0], &rest["next_cursor"]), (50, "e-1001", &json!("1050")));
    let page = world.search("zone_id=z-1&limit=2&cursor=3").await.is(200);
    assert_eq!((ids(&page), &page["next_cursor"]), (vec!["e-4", "e-5"], &json!("5")));
}

#[tokio::test]
async fn t05_secrets_no_header_of_an_answer_repeats_the_token() {
    let world = world().await;
    let found = world.search("zone_id=z-1").await;
    let shown = format!("{:?} {}", found.headers, found.text);
    assert!(!shown.contains(crate::world::TOKEN));
}
