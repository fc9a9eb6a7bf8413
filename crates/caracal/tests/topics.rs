//! What is published on an embedded system, read by a consumer of another program's, and what an operator sees of it.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use caracal_crypto::SecretText;
use caracal_crypto::hmac::HmacKey;
use caracal_store::{Message, SqliteOptions, Store, StoreError, SystemClock, outbox, streams};
use caracal_stream::{AUDIT_EVENTS, Begin, Consumer, ConsumerOptions, REVOCATIONS, Redis, RedisOptions, Streams};
use caracal_testkit::Database;
use serde_json::{Value, json};
use support::cluster::Deployment;
use support::{Addressed, Http, Running, Said, Tenant, caracal, run, upstream};
use tokio::sync::watch;

fn command(data_dir: &Path, arguments: &[&str]) -> Said {
    run(caracal().arg("streams").args(arguments).arg("--data-dir").arg(data_dir))
}

fn shown(data_dir: &Path, arguments: &[&str]) -> Value {
    let said = command(data_dir, &[arguments, &["--json"]].concat());
    assert_eq!(said.code, Some(0), "{} {}", said.stdout, said.stderr);
    serde_json::from_str(&said.stdout).unwrap()
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap_or_else(|_| panic!("waited in vain: {what}"));
}

/// Consumes what the store of a stopped system holds, and what somebody put there who can't sign.
async fn consumed(data_dir: &Path) -> Vec<Message> {
    let text = std::fs::read_to_string(data_dir.join("secrets/streamsHmacKey")).unwrap();
    let key = Arc::new(HmacKey::from_hex(text.trim_end()).unwrap());
    let store = Store::open(&SqliteOptions::in_directory(data_dir), Arc::new(SystemClock)).unwrap();
    // What was sent is kept there and nowhere else (difference D27).
    let backlog = outbox::backlog(&mut store.snapshot().await.unwrap().deployment()).await.unwrap();
    assert_eq!((backlog.pending, backlog.dead), (0, 0));
    let forged: Result<i64, StoreError> = store
        .commit_upkeep(vec![("reason".to_owned(), "\u{1b}[2Jx".to_owned())], |tx, fields| {
            Box::pin(streams::add(tx, REVOCATIONS, fields))
        })
        .await;
    forged.unwrap();
    let consumer =
        Consumer::new(Streams::in_store(store.clone(), key), ConsumerOptions::new(REVOCATIONS, "webhooks", "one"));
    let (state, heard) = (consumer.state(), Arc::new(Mutex::new(Vec::new())));
    let (stop, stopping) = watch::channel(false);
    let told = heard.clone();
    let task = tokio::spawn(consumer.run(stopping, move |message| {
        told.lock().unwrap().push(message);
        async { Ok(()) }
    }));
    until("consumed", || state.dead() == 1).await;
    assert_eq!((state.bad_signatures(), state.failed()), (1, 0));
    stop.send_replace(true);
    task.await.unwrap();
    store.close().await;
    std::mem::take(&mut *heard.lock().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn t07_streams_what_an_embedded_system_publishes_can_be_consumed_and_looked_after() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path();
    let (mut system, http) = (Running::start(data_dir), Http::new());
    let tenant = Tenant::provision(&http, &system, &upstream().await).await;
    let (_, edge) = tenant.delegation(&http, &system).await;
    tenant.revoke(&http, &system, &edge).await.unwrap();
    let entries = |topic: &str| {
        let topics = shown(data_dir, &["show"]);
        let topic = topics.as_array().unwrap().iter().find(|known| known["topic"] == topic).unwrap().clone();
        topic["entries"].as_u64().unwrap()
    };
    // Beside the running system.
    until("published", || entries(REVOCATIONS) > 0 && entries("caracal.policy.invalidate") == 1).await;
    assert!(system.terminate());
    let messages = consumed(data_dir).await;
    assert!(messages.iter().any(|message| message.field("delegation_edge_id") == Some(&edge)), "{messages:?}");
    assert!(messages.iter().all(|message| message.zone.as_str() == tenant.zone));

    let mut system = Running::start(data_dir);
    let state = shown(data_dir, &["show"]);
    let group = json!([{"name": "webhooks", "pending": 0, "oldest_pending": null, "lag": 0}]);
    assert_eq!((&state[0]["groups"], &state[0]["dead"]), (&group, &json!(1)));
    let dead = shown(data_dir, &["dead", REVOCATIONS]);
    assert_eq!((&dead[0]["group"], &dead[0]["reason"]), (&json!("webhooks"), &json!("invalid_signature")));
    let listed = command(data_dir, &["dead", REVOCATIONS]).stdout;
    assert!(listed.contains("invalid_signature") && !listed.contains('\u{1b}'), "{listed:?}");
    let id = dead[0]["id"].as_str().unwrap();
    let refused = command(data_dir, &["retry", REVOCATIONS, id]);
    assert!(refused.code == Some(1) && refused.stderr.contains("in use"), "{}", refused.stderr);
    assert!(system.terminate());
    let before = entries(REVOCATIONS);
    let done = command(data_dir, &["retry", REVOCATIONS, id]);
    assert_eq!(done.code, Some(0), "{} {}", done.stdout, done.stderr);
    assert_eq!((entries(REVOCATIONS), shown(data_dir, &["dead", REVOCATIONS])), (before + 1, json!([])));
    assert_eq!(command(data_dir, &["retry", REVOCATIONS, id]).code, Some(1), "it is gone");
    // Nothing is made where nothing was.
    let nowhere = directory.path().join("nowhere");
    assert_eq!(command(&nowhere, &["retry", REVOCATIONS, id]).code, Some(1));
    assert!(!nowhere.exists());
}

/// The same command, where the topics are on a server.
#[tokio::test(flavor = "multi_thread")]
async fn t07_streams_dead_letters_on_a_server_are_listed_and_tried_again() {
    let server = caracal_testkit::Redis::start().unwrap();
    let redis = Redis::open(RedisOptions::at(SecretText::new(server.url()))).await.unwrap();
    let streams = Streams::on_redis(redis, Arc::new(HmacKey::from_bytes(&[7; 32]).unwrap()));
    let fields = [("outbox_id", "m-1"), ("zone_id", "z-1")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    streams.publish(REVOCATIONS, &fields).await.unwrap();
    streams.create_group(REVOCATIONS, "g", Begin::Start).await.unwrap();
    let mut member = streams.member(REVOCATIONS, "g", "c");
    let held = member.read(1, Duration::ZERO).await.unwrap();
    assert!(member.dead_letter(&held[0], "not today").await.unwrap());
    let said = |arguments: &[&str]| run(caracal().env("REDIS_URL", server.url()).arg("streams").args(arguments));
    let dead: Value = serde_json::from_str(&said(&["dead", REVOCATIONS, "--json"]).stdout).unwrap();
    assert_eq!((&dead[0]["group"], &dead[0]["reason"]), (&json!("g"), &json!("not today")));
    let id = dead[0]["id"].as_str().unwrap();
    assert_eq!(said(&["retry", REVOCATIONS, id, "1-1"]).code, Some(1), "one of two is not there");
    // A name that is misspelt, and one whose dead letters are elsewhere, are no "none".
    for (topic, expected) in [("caracal.session.revoke", REVOCATIONS), ("caracal.audit.events", "/api/audit/dlq")] {
        for asked in [&["dead", topic][..], &["retry", topic, id]] {
            let refused = said(asked);
            assert!(refused.code == Some(1) && refused.stderr.contains(expected), "{asked:?}: {}", refused.stderr);
        }
    }
    let shown = said(&["show"]);
    assert!(shown.stdout.contains(&format!("{REVOCATIONS}: 2 entries, 0 dead letters")), "{}", shown.stdout);
    assert!(shown.stdout.contains("  g: 0 pending, 1 to come"), "{}", shown.stdout);
    assert_eq!(member.read(1, Duration::ZERO).await.unwrap().len(), 1);
    // Where nobody listens, it says so, and no password.
    drop(server);
    let refused = run(caracal().env("REDIS_URL", "redis://:hunter2@127.0.0.1:1/").args(["streams", "show"]));
    assert!(refused.code == Some(1) && !refused.stderr.contains("hunter2"), "{}", refused.stderr);
}

/// A client that holds the producer key brings evidence over Redis. What somebody else brings is for the operator to see.
#[tokio::test(flavor = "multi_thread")]
async fn t06_evidence_a_clients_frame_reaches_the_chain_of_its_zone() {
    let (database, redis) = (Database::create().unwrap(), caracal_testkit::Redis::start().unwrap());
    let deployment = Deployment::new(&database.url(), &redis.url());
    let control = deployment.serve("control", "api,coordinator,audit");
    let key = Arc::new(HmacKey::from_hex(deployment.told("AUDIT_HMAC_KEY")).unwrap());
    let server = Redis::open(RedisOptions::at(SecretText::new(redis.url()))).await.unwrap();
    let streams = Streams::on_redis(server, key.clone());
    let data = format!(
        r#"{{"id":"ev-1","zone_id":"z-1","event_type":"acme.thing","decision":"allow","occurred_at":"{}"}}"#,
        caracal_store::Clock::now(&SystemClock).to_micros_text()
    );
    let frame = |signature: String| {
        let pairs = [("id", "ev-1".to_owned()), ("data", data.clone()), ("sig", signature)];
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<Vec<_>>()
    };
    let signature = key.sign_hex(&[data.as_bytes()]);
    for signature in [signature.clone(), "00".to_owned(), signature] {
        streams.add_raw(AUDIT_EVENTS, frame(signature)).await.unwrap();
    }
    let (http, token) = (Http::new(), deployment.admin_token.clone());
    let ask = async |path: &str| {
        let url = format!("{}/api/audit/{path}", control.url("audit"));
        http.json(http::Method::GET, &url, &token, None).await.unwrap().json()
    };
    let waiting = async {
        while streams.list_groups(AUDIT_EVENTS).await.unwrap().first().is_none_or(|group| group.pending + group.lag > 0)
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap();
    let found = ask("search?zone_id=z-1").await;
    assert_eq!(found["events"].as_array().map(Vec::len), Some(1), "{found}");
    assert_eq!((&found["events"][0]["Event"]["id"], &found["events"][0]["ChainSeq"]), (&json!("ev-1"), &json!(1)));
    let letters = ask("dlq").await;
    assert_eq!(letters["entries"].as_array().map(Vec::len), Some(1), "{letters}");
    assert_eq!(letters["entries"][0]["reason"], "hmac_verify_failed");
    deployment.verify_ledger();
}
