//! Rotation in an emergency: a zone's keys may be in other hands, and stop at once.

use std::sync::Arc;

use axum::body::Body;
use caracal_custody::Withdrawals;
use caracal_store::{outbox, signing_keys};
use caracal_sts::{ProcessMintRate, StsConfig};
use http::Request;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use serde_json::json;

use crate::rotation::{OF_ZONE, TOKEN, changes, kid, published, rotate, with_operators};
use crate::support::*;

async fn asked(world: &World, content_type: &str, body: &str) -> Answer {
    let request = Request::post(OF_ZONE).header(AUTHORIZATION, format!("Bearer {TOKEN}"));
    let request = request.header(CONTENT_TYPE, content_type).header("x-request-id", "emergency-1");
    world.send(request.body(Body::from(body.to_owned())).unwrap()).await
}

async fn replace(world: &World) -> Answer {
    asked(world, "application/json", r#"{"emergency": true}"#).await
}

/// Another process, with a memory of its own, that has seen the session's mandate.
async fn replica(world: &World, session: &str) -> Arc<caracal_sts::Sts> {
    let mut config = StsConfig::for_issuer(ISSUER);
    config.gateway_key = Some(Arc::new(gateway_key()));
    let sts = world.replica(config, Arc::new(ProcessMintRate::default()));
    // Only what verified comes as far as policy.
    let seen = send_to(&sts, Ask::direct(session).request()).await;
    assert!(seen.text("error_description").starts_with("policy denied"), "{}", seen.json);
    sts
}

mod t02_sts_emergency_rotation {
    use super::*;

    #[tokio::test]
    async fn what_any_old_key_signed_is_dead_at_once_on_every_replica() {
        let world = World::configured(with_operators).await;
        let first = world.mandate().await;
        assert_eq!(rotate(&world).await.status, 200);
        world.clock.advance(960);
        let second = world.mandate().await;
        let session = Ask::bootstrap().send(&world).await.token().to_owned();
        assert_ne!(kid(&first), kid(&second));
        let other = replica(&world, &session).await;
        let known = send_to(&other, Ask::about("introspect", &second).request()).await;
        assert_eq!(known.json["active"], true, "{}", known.json);
        let answer = replace(&world).await;
        assert_eq!(answer.status, 200, "{}", answer.json);
        let new = answer.text("kid").to_owned();
        let expected = json!({
            "rotated": true, "zone_id": "z-1", "kid": new, "signs_from": "2026-01-01T00:16:00.000Z",
            "withdrawn": [kid(&second), kid(&first)],
        });
        assert_eq!(answer.json, expected);
        assert_eq!(published(&world).await, [new.as_str()]);
        for mandate in [&first, &second] {
            assert_eq!(Signed::exchange(&world, mandate).send(&world).await.outcome(), "401 invalid_token");
            // The other process remembers the key that signed, and was told nothing.
            let there = send_to(&other, Signed::exchange(&world, mandate).request()).await;
            assert_eq!(there.outcome(), "401 invalid_token");
            let told = send_to(&other, Ask::about("introspect", mandate).request()).await;
            assert_eq!(told.json, json!({"active": false}));
        }
        for sts in [&world.sts, &other] {
            assert_eq!(send_to(sts, Ask::direct(&session).request()).await.outcome(), "401 invalid_token");
        }
        // Nobody waits a quarter of an hour: the new key signs now, everywhere.
        assert_eq!(kid(&world.mandate().await), new);
        assert_eq!(kid(send_to(&other, Ask::bootstrap().request()).await.token()), new);
        let alive = world.mandate().await;
        assert_eq!(Signed::exchange(&world, &alive).send(&world).await.outcome(), "200 ");
    }

    #[tokio::test]
    async fn a_key_that_waits_for_its_turn_is_withdrawn_as_well() {
        let world = World::configured(with_operators).await;
        world.mandate().await;
        let waiting = rotate(&world).await.text("kid").to_owned();
        let new = replace(&world).await.text("kid").to_owned();
        world.clock.advance(960);
        assert_eq!(kid(&world.mandate().await), new);
        assert!(!published(&world).await.contains(&waiting));
        // The next ordinary rotation goes on from there.
        let next = rotate(&world).await.text("kid").to_owned();
        assert_eq!(published(&world).await, [next.clone(), new]);
        world.clock.advance(960);
        assert_eq!(kid(Ask::bootstrap().send(&world).await.token()), next);
    }

    #[tokio::test]
    async fn a_zone_without_a_key_gets_its_first_one_and_nothing_is_withdrawn() {
        let world = World::configured(with_operators).await;
        let answer = replace(&world).await;
        assert_eq!((answer.status, &answer.json["withdrawn"]), (200, &json!([])));
        assert_eq!(kid(&world.mandate().await), answer.text("kid"));
    }

    /// Taken for the ordinary rotation, it would leave a leaked key in force while somebody believes it gone.
    #[tokio::test]
    async fn what_is_not_understood_rotates_nothing() {
        let world = World::configured(with_operators).await;
        let mandate = world.mandate().await;
        let json = "application/json";
        let long = format!(r#"{{"emergency": true, "why": "{}"}}"#, "x".repeat(2_000));
        for (kind, body) in [
            (json, "{"),
            (json, "[]"),
            (json, "true"),
            (json, r#"{"emergency": "true"}"#),
            (json, r#"{"emergency": 1}"#),
            (json, r#"{"emergency": null}"#),
            (json, r#"{"emergency": true, "emergency": false}"#),
            (json, r#"{"emergancy": true}"#),
            (json, r#"{"emergency": true, "zone_id": "z-2"}"#),
            ("application/x-www-form-urlencoded", "emergency=true"),
            (json, long.as_str()),
        ] {
            let answer = asked(&world, kind, body).await;
            assert_eq!(answer.outcome(), "400 invalid_request", "{body}");
            assert!(answer.text("error_description").contains("no key was added"), "{}", answer.json);
        }
        assert_eq!(published(&world).await, [kid(&mandate)]);
        assert!(changes(&world).await.is_empty());
        // Said explicitly, the ordinary one is the ordinary one.
        for body in ["{}", r#"{"emergency": false}"#] {
            let answer = asked(&world, json, body).await;
            assert_eq!((answer.status, answer.json.get("withdrawn")), (200, None));
        }
        assert_eq!(Signed::exchange(&world, &mandate).send(&world).await.outcome(), "200 ");
    }

    #[tokio::test]
    async fn mints_that_race_it_end_with_the_new_key_or_with_a_dead_mandate() {
        let world = Arc::new(World::in_real_time_with(with_operators).await);
        let old = kid(&world.mandate().await);
        let mints = (0..40).map(|number| {
            let world = world.clone();
            tokio::spawn(async move {
                if number == 20 { replace(&world).await.text("kid").to_owned() } else { world.mandate().await }
            })
        });
        let mut minted = Vec::new();
        let mut new = String::new();
        for (number, mint) in mints.collect::<Vec<_>>().into_iter().enumerate() {
            match (number, mint.await.unwrap()) {
                (20, made) => new = made,
                (_, mandate) => minted.push(mandate),
            }
        }
        for mandate in minted {
            let outcome = Signed::exchange(&world, &mandate).send(&world).await.outcome();
            match kid(&mandate) {
                signed if signed == new => assert_eq!(outcome, "200 "),
                signed if signed == old => assert_eq!(outcome, "401 invalid_token"),
                other => panic!("signed by {other}"),
            }
        }
    }
}

mod t06_evidence {
    use super::*;

    #[tokio::test]
    async fn an_emergency_is_on_record_with_what_it_withdrew_and_announced() {
        let world = World::configured(with_operators).await;
        let old = kid(&world.mandate().await);
        let new = replace(&world).await.text("kid").to_owned();
        let records = changes(&world).await;
        let [record] = &records[..] else { panic!("{records:?}") };
        assert_eq!(
            (record.request_id.as_str(), record.actor_name.as_deref()),
            ("emergency-1", Some("STS_ADMIN_TOKEN"))
        );
        let payload: serde_json::Value = serde_json::from_str(record.payload.as_deref().unwrap()).unwrap();
        let said = (&payload["emergency"], &payload["kid"], &payload["withdrawn"]);
        assert_eq!(said, (&json!(true), &json!(new), &json!([old])));
        let mut snapshot = world.store.snapshot().await.unwrap();
        let waiting = outbox::list_due(&mut snapshot.deployment(), 100).await.unwrap();
        let told: Vec<_> = waiting.iter().filter(|waiting| waiting.message.topic == signing_keys::WITHDRAWN).collect();
        let [told] = &told[..] else { panic!("{told:?}") };
        assert_eq!((told.message.field("zone_id"), told.message.field("kid")), (Some("z-1"), Some(old.as_str())));
    }

    /// A Gateway in this process hears of the commit; one elsewhere reads the store, whatever became of the message.
    #[tokio::test]
    async fn keys_in_memory_are_forgotten_by_message_and_by_reading() {
        let world = World::configured(with_operators).await;
        let mandate = world.mandate().await;
        let believes = async |keys: &Arc<caracal_custody::SigningKeys>| {
            caracal_custody::mandate::verify(keys.as_ref(), &mandate).await.is_ok()
        };
        let elsewhere = world.other_keys();
        assert!(believes(&world.keys).await && believes(&elsewhere).await);
        world.store.observe(Arc::new(Withdrawals::new(vec![world.keys.clone()])));
        replace(&world).await;
        assert!(!believes(&world.keys).await);
        assert!(believes(&elsewhere).await, "it was told nothing yet, so this shows nothing");
        let (there, mut known) = (Withdrawals::new(vec![elsewhere.clone()]), Default::default());
        there.read(&world.store, &mut known).await.unwrap();
        assert!(!believes(&elsewhere).await);
        assert_eq!(known.len(), 1);
    }
}
