//! Consumers: what their handlers see, and what becomes of the rest.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use caracal_crypto::hmac::{HmacKey, stream_signature};
use caracal_stream::{Begin, Consumer, ConsumerOptions, Failed};
use tokio::sync::Notify;

use super::{Consuming, Fresh, VERY_PATIENT, fields, key, message, options, until};

/// A message as one of us would have signed it.
fn signed(key: &HmacKey, topic: &str, mut fields: Vec<(String, String)>) -> Vec<(String, String)> {
    let pairs = fields.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let signature = stream_signature(key, topic, pairs).unwrap();
    fields.push(("_sig".to_owned(), signature));
    fields
}

fn names(ids: impl IntoIterator<Item = u32>) -> Vec<String> {
    let mut names: Vec<String> = ids.into_iter().map(|number| format!("m-{number}")).collect();
    names.sort();
    names
}

/// Unsigned, forged, signed for another topic or with another key, too large, addressed to nobody; among good ones.
pub(crate) async fn hostile_entries_are_put_aside_once_and_never_acted_on(Fresh { streams, raw, .. }: Fresh) {
    streams.publish("t", &message("m-1")).await.unwrap();
    let mut forged = signed(&key(), "t", message("m-11"));
    forged[3].1 = "other".to_owned();
    let mut added = signed(&key(), "t", message("m-12"));
    added.push(("session_id".to_owned(), "of somebody else".to_owned()));
    let stranger = HmacKey::from_bytes(&[8; 32]).unwrap();
    let mut large = message("m-13");
    large[3].1 = "x".repeat(100_000);
    for entry in [
        message("m-10"),
        forged,
        added,
        signed(&key(), "t-2", message("m-14")),
        signed(&stranger, "t", message("m-15")),
        fields(&[("_sig", "")]),
        signed(&key(), "t", large),
        signed(&key(), "t", fields(&[("zone_id", "z-1"), ("reason", "x")])),
        signed(&key(), "t", fields(&[("outbox_id", "m-16"), ("zone_id", "")])),
    ] {
        raw.add("t", &entry).await;
    }
    streams.publish("t", &message("m-2")).await.unwrap();
    let unhurried = |name: &str| ConsumerOptions { patience: VERY_PATIENT, ..options("t", "g", name) };
    let consuming = ["one", "other"].map(|name| Consuming::start(&streams, unhurried(name)));
    let sum = |count: fn(&caracal_stream::ConsumerState) -> u64| consuming.iter().map(|c| count(&c.state)).sum::<u64>();
    until("handled", async || sum(|state| state.handled()) == 2 && sum(|state| state.dead()) == 9).await;
    assert_eq!((sum(|state| state.rejected()), sum(|state| state.bad_signatures())), (9, 6));
    let mut heard = [consuming[0].heard(), consuming[1].heard()].concat();
    heard.sort();
    assert_eq!(heard, ["m-1", "m-2"]);
    for consuming in consuming {
        consuming.stop().await;
    }
    let mut reasons: Vec<_> =
        streams.list_dead("t", None, 100).await.unwrap().into_iter().map(|letter| letter.reason).collect();
    reasons.sort();
    reasons.dedup();
    assert_eq!(reasons, ["invalid_signature", "missing_outbox_or_zone_id", "oversized"]);
    assert_eq!(streams.list_groups("t").await.unwrap()[0].pending, 0);
}

/// An entry that somebody adds again, and a message that its producer made twice.
pub(crate) async fn a_message_that_comes_again_is_handled_once(Fresh { streams, raw, .. }: Fresh) {
    streams.publish("t", &message("m-1")).await.unwrap();
    let entry = raw.entries("t").await.remove(0);
    raw.add("t", &entry).await;
    let consuming = Consuming::start(&streams, options("t", "g", "one"));
    until("known", async || consuming.state.repeated() == 1).await;
    raw.add("t", &entry).await;
    let twin = fields(&[("outbox_id", "m-1-again"), ("dedupe_key", "key of m-1"), ("zone_id", "z-1")]);
    raw.add("t", &signed(&key(), "t", twin.clone())).await;
    until("known", async || consuming.state.repeated() == 3).await;
    assert_eq!(consuming.heard(), ["m-1"]);
    consuming.stop().await;
    // Another of the group knows it too; another group does not.
    raw.add("t", &entry).await;
    let later = Consuming::start(&streams, options("t", "g", "later"));
    until("known", async || later.state.repeated() == 1).await;
    assert_eq!((later.heard().len(), later.state.dead()), (0, 0));
    later.stop().await;
    let others = Consuming::start(&streams, options("t", "g-2", "one"));
    until("known", async || others.state.repeated() == 4).await;
    assert_eq!(others.heard(), ["m-1"]);
    others.stop().await;
}

pub(crate) async fn order_means_nothing(Fresh { streams, raw, .. }: Fresh) {
    for number in [5, 3, 4, 1, 2, 3, 5] {
        raw.add("t", &signed(&key(), "t", message(&format!("m-{number}")))).await;
    }
    let consuming = Consuming::start(&streams, options("t", "g", "one"));
    until("handled", async || consuming.state.handled() == 5 && consuming.state.repeated() == 2).await;
    assert_eq!(consuming.heard(), ["m-5", "m-3", "m-4", "m-1", "m-2"]);
    consuming.stop().await;
}

pub(crate) async fn a_group_of_consumers_handles_each_message_once(Fresh { streams, .. }: Fresh) {
    let unhurried = |name: &str| ConsumerOptions { patience: VERY_PATIENT, batch: 3, ..options("t", "g", name) };
    let consuming = ["one", "two", "three"].map(|name| Consuming::start(&streams, unhurried(name)));
    for number in 0..60 {
        streams.publish("t", &message(&format!("m-{number}"))).await.unwrap();
    }
    let heard = || {
        let mut heard: Vec<String> = consuming.iter().flat_map(Consuming::heard).collect();
        heard.sort();
        heard
    };
    until("heard", async || heard().len() >= 60).await;
    assert_eq!(heard(), names(0..60));
    until("settled", async || streams.list_groups("t").await.unwrap()[0].pending == 0).await;
    for consuming in consuming {
        consuming.stop().await;
    }
}

pub(crate) async fn a_message_that_keeps_failing_becomes_a_dead_letter(Fresh { streams, .. }: Fresh) {
    for number in 1..=3 {
        streams.publish("t", &message(&format!("m-{number}"))).await.unwrap();
    }
    // The first never goes well, the second goes well the third time.
    let tries = Arc::new(AtomicU64::new(0));
    let consumer = Consumer::new(streams.clone(), options("t", "g", "one"));
    let consuming = Consuming::with(consumer, move |message| {
        let tries = tries.clone();
        Box::pin(async move {
            match message.id.as_str() {
                "m-1" => Err(Failed::Again("not today".to_owned())),
                "m-2" if tries.fetch_add(1, Ordering::SeqCst) < 2 => Err(Failed::Again("not yet".to_owned())),
                _ => Ok(()),
            }
        })
    });
    until("dead", async || consuming.state.dead() == 1 && consuming.state.handled() == 2).await;
    let tried = |id: &str| consuming.heard().iter().filter(|heard| *heard == id).count();
    assert_eq!((tried("m-1"), tried("m-2"), tried("m-3")), (5, 3, 1));
    assert_eq!((consuming.state.failed(), consuming.state.rejected()), (7, 0));
    let dead = streams.list_dead("t", None, 10).await.unwrap();
    assert_eq!((dead.len(), dead[0].reason.as_str(), dead[0].group.as_deref()), (1, "not today", Some("g")));
    assert_eq!(streams.list_groups("t").await.unwrap()[0].pending, 0);
    // Tried again by a person, it has all its tries again.
    streams.retry_dead("t", &dead[0].id).await.unwrap();
    until("dead", async || consuming.state.dead() == 2).await;
    assert_eq!(tried("m-1"), 10);
    consuming.stop().await;
}

pub(crate) async fn a_message_that_is_refused_becomes_a_dead_letter_at_once(Fresh { streams, .. }: Fresh) {
    streams.publish("t", &message("m-1")).await.unwrap();
    let consumer = Consumer::new(streams.clone(), options("t", "g", "one"));
    let consuming =
        Consuming::with(consumer, |_| Box::pin(async { Err(Failed::Never("missing_revocation_anchor".to_owned())) }));
    until("dead", async || consuming.state.dead() == 1).await;
    assert_eq!((consuming.heard().len(), consuming.state.failed()), (1, 0));
    consuming.stop().await;
    assert_eq!(streams.list_dead("t", None, 10).await.unwrap()[0].reason, "missing_revocation_anchor");
}

/// Threat T07: an outage has no budget of tries, or four minutes of it would make dead letters of a whole backlog.
pub(crate) async fn an_outage_of_what_a_handler_needs_uses_up_no_tries(Fresh { streams, .. }: Fresh) {
    for number in 1..=3 {
        streams.publish("t", &message(&format!("m-{number}"))).await.unwrap();
    }
    let away = Arc::new(AtomicBool::new(true));
    let consumer = Consumer::new(streams.clone(), options("t", "g", "one"));
    let is_away = away.clone();
    let consuming = Consuming::with(consumer, move |_| {
        let away = is_away.load(Ordering::SeqCst);
        Box::pin(async move { if away { Err(Failed::Outage("the database".to_owned())) } else { Ok(()) } })
    });
    // Far more often than a message is tried.
    until("asked", async || consuming.heard().len() > 12).await;
    assert!(consuming.state.is_blocked() && consuming.state.is_healthy());
    away.store(false, Ordering::SeqCst);
    until("handled", async || consuming.state.handled() == 3).await;
    assert!(!consuming.state.is_blocked());
    assert_eq!((consuming.state.dead(), consuming.state.failed()), (0, 0));
    consuming.stop().await;
    assert_eq!(streams.list_groups("t").await.unwrap()[0].pending, 0);
}

pub(crate) async fn a_handler_that_panics_or_hangs_stops_nobody(Fresh { streams, .. }: Fresh) {
    for id in ["panics", "hangs", "m-1"] {
        streams.publish("t", &message(id)).await.unwrap();
    }
    let consumer = Consumer::new(streams.clone(), options("t", "g", "one"));
    let consuming = Consuming::with(consumer, |message| {
        Box::pin(async move {
            match message.id.as_str() {
                "panics" => panic!("a defect"),
                "hangs" => std::future::pending().await,
                _ => Ok(()),
            }
        })
    });
    until("settled", async || consuming.state.dead() == 2 && consuming.state.handled() == 1).await;
    consuming.stop().await;
    let mut reasons: Vec<_> =
        streams.list_dead("t", None, 10).await.unwrap().into_iter().map(|letter| letter.reason).collect();
    reasons.sort();
    assert_eq!(reasons, ["it was not handled within 40ms", "the handler panicked"]);
}

pub(crate) async fn what_a_killed_consumer_held_is_handled_by_another(Fresh { streams, .. }: Fresh) {
    for number in 1..=5 {
        streams.publish("t", &message(&format!("m-{number}"))).await.unwrap();
    }
    // Holds all five, and hangs in the second.
    let patient = ConsumerOptions { patience: VERY_PATIENT, ..options("t", "g", "killed") };
    let killed = Consuming::with(Consumer::new(streams.clone(), patient), |message| {
        Box::pin(async move { if message.id.as_str() == "m-1" { Ok(()) } else { std::future::pending().await } })
    });
    until("in hand", async || killed.heard() == ["m-1", "m-2"]).await;
    killed.task.abort();
    let _ = (&killed.stop, killed.task.await);
    let other = Consuming::start(&streams, options("t", "g", "other"));
    until("taken over", async || other.state.handled() == 4).await;
    assert_eq!((other.sorted(), other.state.reclaimed()), (names(2..=5), 4));
    other.stop().await;
}

/// It dies before it can say anything: so the sixth to be handed the message does not look at it.
pub(crate) async fn a_message_that_kills_its_consumers_is_put_aside_unseen(Fresh { streams, .. }: Fresh) {
    streams.create_group("t", "g", Begin::Start).await.unwrap();
    streams.publish("t", &message("m-1")).await.unwrap();
    let mut member = streams.member("t", "g", "killed");
    assert_eq!(member.read(1, Duration::ZERO).await.unwrap().len(), 1);
    for _ in 0..4 {
        until("taken", async || member.reclaim(super::PATIENT, 1).await.unwrap().len() == 1).await;
    }
    let consuming = Consuming::start(&streams, options("t", "g", "wary"));
    until("put aside", async || consuming.state.dead() == 1).await;
    assert!(consuming.heard().is_empty());
    consuming.stop().await;
    assert_eq!(streams.list_dead("t", None, 10).await.unwrap()[0].reason, "never_finished");
}

pub(crate) async fn stopping_finishes_what_is_in_hand_and_loses_nothing(Fresh { streams, .. }: Fresh) {
    for number in 1..=4 {
        streams.publish("t", &message(&format!("m-{number}"))).await.unwrap();
    }
    let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let patient = ConsumerOptions { patience: VERY_PATIENT, ..options("t", "g", "stopping") };
    let (told, waits) = (begun.clone(), go_on.clone());
    let consuming = Consuming::with(Consumer::new(streams.clone(), patient), move |_| {
        let (told, waits) = (told.clone(), waits.clone());
        Box::pin(async move {
            told.notify_one();
            waits.notified().await;
            Ok(())
        })
    });
    begun.notified().await;
    consuming.stop.send_replace(true);
    go_on.notify_one();
    let state = consuming.state.clone();
    consuming.stop().await;
    assert_eq!(state.handled(), 1);
    assert_eq!(streams.list_groups("t").await.unwrap()[0].pending, 3);
    let other = Consuming::start(&streams, options("t", "g", "other"));
    until("handled", async || other.sorted() == names(2..=4)).await;
    other.stop().await;
}
