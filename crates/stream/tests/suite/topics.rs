//! Topics and groups, without a consumer: what members are handed, and when.

use std::time::{Duration, Instant};

use caracal_crypto::hmac::verify_stream_signature;
use caracal_stream::{Begin, Patience, PublishError, Rejection, Retried, StreamError, Streams};

use super::{Fresh, PATIENT, VERY_PATIENT, fields, ids, key, message, until};

/// Far in the future: everything is old enough to be trimmed.
const TOMORROW: i64 = 4_000_000_000_000;

async fn publish(streams: &Streams, topic: &str, count: usize) -> Vec<String> {
    let mut published = Vec::new();
    for number in 1..=count {
        published.push(streams.publish(topic, &message(&format!("m-{number}"))).await.unwrap());
    }
    published
}

fn parts(id: &str) -> (u64, u64) {
    let (millis, number) = id.split_once('-').unwrap();
    (millis.parse().unwrap(), number.parse().unwrap())
}

pub(crate) async fn what_is_published_is_signed_and_read_in_order(Fresh { streams, raw, .. }: Fresh) {
    let published = publish(&streams, "t", 40).await;
    assert!(published.is_sorted_by_key(|id| parts(id)), "{published:?}");
    for (at, entry) in raw.entries("t").await.into_iter().enumerate() {
        let pairs = entry.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let signature = &entry.iter().find(|(name, _)| name == "_sig").unwrap().1;
        assert!(verify_stream_signature(&key(), "t", pairs, signature));
        assert_eq!(entry[..entry.len() - 1], message(&format!("m-{}", at + 1)));
    }
    streams.create_group("t", "g", Begin::Start).await.unwrap();
    let mut member = streams.member("t", "g", "c");
    let mut read = Vec::new();
    while read.len() < published.len() {
        let some = member.read(7, Duration::ZERO).await.unwrap();
        assert!(!some.is_empty() && some.len() <= 7 && some.iter().all(|delivery| delivery.deliveries() == 1));
        read.extend(ids(&some));
    }
    assert_eq!(read, published);
    assert!(member.read(7, Duration::ZERO).await.unwrap().is_empty());
}

pub(crate) async fn a_message_that_no_consumer_would_act_on_is_not_published(Fresh { streams, raw, .. }: Fresh) {
    let refused = async |change: fn(&mut Vec<(String, String)>)| {
        let mut fields = message("m-1");
        change(&mut fields);
        streams.publish("t", &fields).await.unwrap_err()
    };
    let signed = refused(|fields| fields.push(("_sig".to_owned(), "00".to_owned()))).await;
    assert!(matches!(signed, PublishError::Signed), "{signed}");
    let twice = refused(|fields| fields.push(("reason".to_owned(), "other".to_owned()))).await;
    assert!(matches!(twice, PublishError::Unsignable(_)), "{twice}");
    let lines = refused(|fields| fields[3].1.push_str("\nzone_id=z-2")).await;
    assert!(matches!(lines, PublishError::Unsignable(_)), "{lines}");
    let nowhere = refused(|fields| drop(fields.remove(2))).await;
    assert!(matches!(nowhere, PublishError::Unacceptable(Rejection::Unaddressed)), "{nowhere}");
    let large = refused(|fields| fields[3].1 = "x".repeat(70_000)).await;
    assert!(matches!(large, PublishError::Unacceptable(Rejection::Oversized)), "{large}");
    assert!(raw.entries("t").await.is_empty());
}

pub(crate) async fn a_group_begins_where_it_was_told_and_is_made_once(Fresh { streams, .. }: Fresh) {
    let before = publish(&streams, "t", 2).await;
    for _ in 0..2 {
        streams.create_group("t", "all", Begin::Start).await.unwrap();
        streams.create_group("t", "new", Begin::Now).await.unwrap();
    }
    let after = streams.publish("t", &message("m-3")).await.unwrap();
    // Made again in another way, a group stays as it is.
    streams.create_group("t", "new", Begin::Start).await.unwrap();
    streams.create_group("t", "all", Begin::Now).await.unwrap();
    let all = streams.member("t", "all", "c").read(10, Duration::ZERO).await.unwrap();
    assert_eq!(ids(&all), [before[0].clone(), before[1].clone(), after.clone()]);
    let new = streams.member("t", "new", "c").read(10, Duration::ZERO).await.unwrap();
    assert_eq!(ids(&new), [after]);
}

pub(crate) async fn two_members_of_a_group_share_its_entries(Fresh { streams, .. }: Fresh) {
    streams.create_group("t", "g", Begin::Start).await.unwrap();
    let published = publish(&streams, "t", 30).await;
    let share = |name: &'static str| {
        let mut member = streams.member("t", "g", name);
        tokio::spawn(async move {
            let mut read = Vec::new();
            loop {
                let some = member.read(3, Duration::ZERO).await.unwrap();
                if some.is_empty() {
                    return read;
                }
                read.extend(ids(&some));
            }
        })
    };
    let (one, other) = (share("one"), share("other"));
    let mut read = [one.await.unwrap(), other.await.unwrap()].concat();
    read.sort_by_key(|id| parts(id));
    assert_eq!(read, published);
}

pub(crate) async fn two_groups_are_each_handed_everything(Fresh { streams, .. }: Fresh) {
    let published = publish(&streams, "t", 3).await;
    for group in ["g-1", "g-2"] {
        streams.create_group("t", group, Begin::Start).await.unwrap();
        let mut member = streams.member("t", group, "c");
        let read = member.read(10, Duration::ZERO).await.unwrap();
        assert_eq!(ids(&read), published, "{group}");
        for id in ids(&read) {
            member.acknowledge(&id).await.unwrap();
        }
    }
    // Another topic of the same name for its group has nothing of it.
    streams.create_group("t-2", "g-1", Begin::Start).await.unwrap();
    assert!(streams.member("t-2", "g-1", "c").read(10, Duration::ZERO).await.unwrap().is_empty());
}

pub(crate) async fn who_waits_is_woken_by_what_is_added(Fresh { streams, .. }: Fresh) {
    streams.create_group("t", "g", Begin::Now).await.unwrap();
    let mut member = streams.member("t", "g", "c");
    let begun = Instant::now();
    assert!(member.read(10, Duration::from_millis(50)).await.unwrap().is_empty());
    assert!(begun.elapsed() >= Duration::from_millis(50));
    let waiting = tokio::spawn(async move {
        let mut read = Vec::new();
        while read.len() < 6 {
            for delivery in member.read(10, Duration::from_secs(30)).await.unwrap() {
                read.push((delivery.id().to_owned(), Instant::now()));
            }
        }
        read
    });
    let mut published = Vec::new();
    for number in 1..=6 {
        // Time to wait in, not for: a reader that is not there yet is not woken.
        tokio::time::sleep(Duration::from_millis(30)).await;
        published.push((streams.publish("t", &message(&format!("m-{number}"))).await.unwrap(), Instant::now()));
    }
    let mut late = Duration::ZERO;
    for ((published, at), (read, then)) in published.into_iter().zip(waiting.await.unwrap()) {
        assert_eq!(published, read);
        late += then.saturating_duration_since(at);
    }
    // Looked for once a second instead, six of them would take three seconds or more.
    assert!(late < Duration::from_secs(2), "{late:?}");
}

pub(crate) async fn a_group_that_is_not_there_is_said_to_be_absent(Fresh { streams, .. }: Fresh) {
    streams.publish("t", &message("m-1")).await.unwrap();
    for topic in ["t", "t-2"] {
        let absent = streams.member(topic, "g", "c").read(10, Duration::ZERO).await.unwrap_err();
        assert!(matches!(absent, StreamError::NoGroup(_)), "{absent}");
        assert!(streams.list_groups(topic).await.unwrap().is_empty());
    }
}

pub(crate) async fn what_is_acknowledged_does_not_come_again(Fresh { streams, .. }: Fresh) {
    streams.create_group("t", "g", Begin::Start).await.unwrap();
    let published = publish(&streams, "t", 2).await;
    let mut member = streams.member("t", "g", "c");
    assert_eq!(member.read(10, Duration::ZERO).await.unwrap().len(), 2);
    member.acknowledge(&published[0]).await.unwrap();
    // Once more, and one that never was: neither is anybody's.
    member.acknowledge(&published[0]).await.unwrap();
    member.acknowledge("1-1").await.unwrap();
    let other = streams.member("t", "g", "other");
    until("reclaimed", async || ids(&other.reclaim(PATIENT, 10).await.unwrap()) == published[1..]).await;
    other.acknowledge(&published[1]).await.unwrap();
    assert_eq!(streams.list_groups("t").await.unwrap()[0].pending, 0);
    assert!(member.read(10, Duration::ZERO).await.unwrap().is_empty());
}

pub(crate) async fn many_are_acknowledged_at_once_and_no_other(Fresh { streams, .. }: Fresh) {
    for group in ["g", "g-2"] {
        streams.create_group("t", group, Begin::Start).await.unwrap();
        assert!(streams.member("t", group, "c").read(10, Duration::ZERO).await.unwrap().is_empty());
    }
    let published = publish(&streams, "t", 5).await;
    for group in ["g", "g-2"] {
        assert_eq!(streams.member("t", group, "c").read(10, Duration::ZERO).await.unwrap().len(), 5);
    }
    let member = streams.member("t", "g", "c");
    member.acknowledge_all(&[]).await.unwrap();
    let ids = |at: &[usize]| at.iter().map(|at| published[*at].clone()).collect::<Vec<_>>();
    let gone = ids(&[0, 2, 3]);
    let mut told: Vec<&str> = gone.iter().map(String::as_str).collect();
    // One that never was, and one twice: neither is anybody's.
    told.extend(["1-1", gone[0].as_str()]);
    member.acknowledge_all(&told).await.unwrap();
    let other = streams.member("t", "g", "other");
    until("reclaimed", async || self::ids(&other.reclaim(PATIENT, 10).await.unwrap()) == ids(&[1, 4])).await;
    let mut groups = streams.list_groups("t").await.unwrap();
    groups.sort_by(|one, other| one.name.cmp(&other.name));
    assert_eq!(groups.iter().map(|group| group.pending).collect::<Vec<_>>(), [2, 5]);
}

pub(crate) async fn groups_say_what_they_hold_and_what_they_lack(Fresh { streams, .. }: Fresh) {
    streams.create_group("t", "late", Begin::Start).await.unwrap();
    streams.create_group("t", "busy", Begin::Start).await.unwrap();
    let published = publish(&streams, "t", 5).await;
    let mut member = streams.member("t", "busy", "c");
    member.read(3, Duration::ZERO).await.unwrap();
    member.acknowledge(&published[0]).await.unwrap();
    let mut groups = streams.list_groups("t").await.unwrap();
    groups.sort_by(|one, other| one.name.cmp(&other.name));
    let said: Vec<_> = groups
        .iter()
        .map(|group| (group.name.as_str(), group.pending, group.oldest_pending.as_deref(), group.lag))
        .collect();
    assert_eq!(said, [("busy", 2, Some(published[1].as_str()), 2), ("late", 0, None, 5)]);
    assert_eq!(streams.count("t").await.unwrap(), 5);
}

pub(crate) async fn trimming_removes_only_what_every_group_has_acknowledged(Fresh { streams, raw, .. }: Fresh) {
    streams.trim("t", TOMORROW).await.unwrap();
    let published = publish(&streams, "t", 6).await;
    // Young.
    streams.trim("t", 1).await.unwrap();
    assert_eq!(raw.entries("t").await.len(), 6);
    for group in ["quick", "slow"] {
        streams.create_group("t", group, Begin::Start).await.unwrap();
    }
    let mut quick = streams.member("t", "quick", "c");
    for id in ids(&quick.read(10, Duration::ZERO).await.unwrap()) {
        quick.acknowledge(&id).await.unwrap();
    }
    // The slow group was handed nothing yet.
    streams.trim("t", TOMORROW).await.unwrap();
    assert_eq!(raw.entries("t").await.len(), 6);
    let mut slow = streams.member("t", "slow", "c");
    assert_eq!(slow.read(5, Duration::ZERO).await.unwrap().len(), 5);
    for at in [0, 1, 3, 4] {
        slow.acknowledge(&published[at]).await.unwrap();
    }
    // It holds the third.
    streams.trim("t", TOMORROW).await.unwrap();
    assert_eq!(raw.entries("t").await.len(), 4);
    let other = streams.member("t", "slow", "other");
    until("reclaimed", async || ids(&other.reclaim(PATIENT, 10).await.unwrap()) == published[2..3]).await;
    other.acknowledge(&published[2]).await.unwrap();
    streams.trim("t", TOMORROW).await.unwrap();
    assert!(raw.entries("t").await.len() <= 2);
    assert_eq!(ids(&slow.read(10, Duration::ZERO).await.unwrap()), published[5..]);
    // No group, no need of anything that is old; and the names of what is gone are not given out again.
    let old = publish(&streams, "t-2", 3).await;
    streams.trim("t-2", TOMORROW).await.unwrap();
    assert!(raw.entries("t-2").await.is_empty());
    assert!(parts(&streams.publish("t-2", &message("m-1")).await.unwrap()) > parts(&old[2]));
}

pub(crate) async fn what_a_dead_member_held_is_taken_over_and_counted(Fresh { streams, .. }: Fresh) {
    streams.create_group("t", "g", Begin::Start).await.unwrap();
    let published = publish(&streams, "t", 3).await;
    let mut dead = streams.member("t", "g", "dead");
    assert_eq!(dead.read(2, Duration::ZERO).await.unwrap().len(), 2);
    drop(dead);
    let mut other = streams.member("t", "g", "other");
    assert!(other.reclaim(VERY_PATIENT, 10).await.unwrap().is_empty());
    let mut taken = Vec::new();
    while taken.len() < 2 {
        // One at a time, oldest first.
        let some = other.reclaim(PATIENT, 1).await.unwrap();
        assert!(some.iter().all(|delivery| delivery.deliveries() == 2), "{some:?}");
        taken.extend(ids(&some));
    }
    assert_eq!(taken, published[..2]);
    // They are younger now, so nobody takes them from who has just taken them.
    assert!(streams.member("t", "g", "third").reclaim(VERY_PATIENT, 10).await.unwrap().is_empty());
    assert_eq!(ids(&other.read(10, Duration::ZERO).await.unwrap()), published[2..]);
}

pub(crate) async fn an_entry_that_keeps_coming_back_waits_longer_each_time(Fresh { streams, .. }: Fresh) {
    streams.create_group("t", "g", Begin::Start).await.unwrap();
    publish(&streams, "t", 1).await;
    let mut member = streams.member("t", "g", "c");
    assert_eq!(member.read(1, Duration::ZERO).await.unwrap().len(), 1);
    let mut held = Instant::now();
    for (deliveries, least) in [(2, 60), (3, 120), (4, 240), (5, 240)] {
        let taken = loop {
            if let Some(taken) = member.reclaim(PATIENT, 10).await.unwrap().pop() {
                break taken;
            }
            tokio::time::sleep(Duration::from_millis(3)).await;
        };
        let (waited, least) = (held.elapsed(), Duration::from_millis(least));
        held = Instant::now();
        assert_eq!(taken.deliveries(), deliveries);
        // Clocks of two processes, of whole milliseconds.
        assert!(waited + Duration::from_millis(10) >= least, "{deliveries}: {waited:?}");
    }
}

pub(crate) async fn who_is_still_at_work_is_not_robbed(Fresh { streams, .. }: Fresh) {
    streams.create_group("t", "g", Begin::Start).await.unwrap();
    let published = publish(&streams, "t", 2).await;
    let mut busy = streams.member("t", "g", "busy");
    assert_eq!(busy.read(2, Duration::ZERO).await.unwrap().len(), 2);
    let other = streams.member("t", "g", "other");
    let patience = Patience { first: Duration::from_secs(1), longest: Duration::from_secs(1) };
    let begun = Instant::now();
    // Said of the second only, so the first is taken, and only that.
    let mut taken = Vec::new();
    while begun.elapsed() < Duration::from_millis(2_500) {
        busy.keep(&[&published[1]]).await.unwrap();
        for delivery in other.reclaim(patience, 10).await.unwrap() {
            taken.push((delivery.id().to_owned(), delivery.deliveries()));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!taken.is_empty() && taken.iter().all(|(id, _)| *id == published[0]), "{taken:?}");
    // Saying so is no delivery.
    until("taken", async || {
        let taken = other.reclaim(patience, 10).await.unwrap();
        taken.iter().any(|delivery| delivery.id() == published[1] && delivery.deliveries() == 2)
    })
    .await;
}

pub(crate) async fn an_entry_is_put_aside_once_per_group_and_held_no_longer(Fresh { streams, raw, .. }: Fresh) {
    raw.add("t", &fields(&[("reason", "\"x\"\\"), ("a", "")])).await;
    for group in ["g-1", "g-2"] {
        streams.create_group("t", group, Begin::Start).await.unwrap();
        let mut member = streams.member("t", group, "c");
        let read = member.read(10, Duration::ZERO).await.unwrap();
        assert!(member.dead_letter(&read[0], "no good").await.unwrap());
        // Two who had it: one of them puts it aside.
        assert!(!member.dead_letter(&read[0], "no good").await.unwrap());
        assert!(!streams.member("t", group, "other").dead_letter(&read[0], "no good").await.unwrap());
        assert_eq!(streams.list_groups("t").await.unwrap().iter().map(|group| group.pending).sum::<u64>(), 0);
    }
    let dead = streams.list_dead("t", None, 10).await.unwrap();
    assert_eq!(dead.iter().map(|letter| letter.group.as_deref().unwrap()).collect::<Vec<_>>(), ["g-1", "g-2"]);
    for letter in &dead {
        assert_eq!((letter.reason.as_str(), letter.payload.as_str()), ("no good", r#"{"a":"","reason":"\"x\"\\"}"#));
    }
    assert_eq!(dead[0].source_id, dead[1].source_id);
    assert_eq!(streams.list_dead("t", Some(&dead[0].id), 10).await.unwrap(), dead[1..]);
    assert_eq!((streams.count_dead("t").await.unwrap(), streams.count_dead("t-2").await.unwrap()), (2, 0));
}

pub(crate) async fn a_dead_letter_that_is_tried_again_is_as_it_was(Fresh { streams, raw, .. }: Fresh) {
    streams.create_group("t", "g", Begin::Start).await.unwrap();
    streams.publish("t", &message("m-1")).await.unwrap();
    raw.add("t", &fields(&[("outbox_id", "m-2"), ("zone_id", "z-1"), ("_sig", "00")])).await;
    let mut member = streams.member("t", "g", "c");
    for delivery in member.read(10, Duration::ZERO).await.unwrap() {
        assert!(member.dead_letter(&delivery, "for now").await.unwrap());
    }
    for letter in streams.list_dead("t", None, 10).await.unwrap() {
        assert!(matches!(streams.retry_dead("t", &letter.id).await.unwrap(), Retried::Added(_)));
        assert_eq!(streams.retry_dead("t", &letter.id).await.unwrap(), Retried::Unknown);
    }
    assert_eq!(streams.count_dead("t").await.unwrap(), 0);
    let again = raw.entries("t").await.split_off(2);
    let verifies = |entry: &[(String, String)]| {
        let signature = &entry.iter().find(|(name, _)| name == "_sig").unwrap().1;
        verify_stream_signature(
            &key(),
            "t",
            entry.iter().map(|(name, value)| (name.as_str(), value.as_str())),
            signature,
        )
    };
    assert_eq!(again.iter().map(|entry| verifies(entry)).collect::<Vec<_>>(), [true, false]);
    assert_eq!(member.read(10, Duration::ZERO).await.unwrap().len(), 2);
}

/// For topics with a signature of their own: nothing is looked at, added or left out.
pub(crate) async fn an_entry_is_put_aside_where_its_reader_says_and_is_as_it_was(Fresh { streams, raw, .. }: Fresh) {
    let frame = fields(&[("id", "r-1"), ("data", "{\"a\": 1}"), ("sig", "")]);
    let mut named = Vec::new();
    for _ in 0..3 {
        named.push(streams.add_raw("t", frame.clone()).await.unwrap());
    }
    assert_eq!(raw.entries("t").await, [frame.clone(), frame.clone(), frame.clone()]);
    streams.create_group("t", "g", Begin::Start).await.unwrap();
    let mut member = streams.member("t", "g", "c");
    let read = member.read(10, Duration::ZERO).await.unwrap();
    assert_eq!(ids(&read), named);
    assert_eq!(
        (read[0].fields(), read[0].field("data"), read[0].field("x")),
        (Some(&frame[..]), Some("{\"a\": 1}"), None)
    );
    let letter = |number: usize| fields(&[("reason", "r"), ("number", &number.to_string())]);
    for (number, delivery) in read.iter().enumerate() {
        assert!(member.put_aside(delivery, "aside", letter(number), 100).await.unwrap());
        assert!(!member.put_aside(delivery, "aside", letter(number), 100).await.unwrap(), "it is let go of");
    }
    assert_eq!(streams.list_groups("t").await.unwrap()[0].pending, 0);
    let all = streams.list_raw("aside", None, 10).await.unwrap();
    assert_eq!(all.iter().map(|entry| entry.field("number").unwrap()).collect::<Vec<_>>(), ["0", "1", "2"]);
    // From one on, itself included.
    let from = streams.list_raw("aside", Some(&all[1].id), 1).await.unwrap();
    assert_eq!(from, all[1..2]);
    assert_eq!(streams.lookup_raw("aside", &all[2].id).await.unwrap().as_ref(), Some(&all[2]));
    streams.remove_raw("aside", &all[1].id).await.unwrap();
    assert_eq!(streams.lookup_raw("aside", &all[1].id).await.unwrap(), None);
    assert_eq!(streams.list_raw("aside", Some(&all[1].id), 10).await.unwrap(), all[2..]);
    assert!(streams.list_raw("nowhere", None, 10).await.unwrap().is_empty());
}
