//! Rotation of a zone's signing key (contract: sts.md §6, README D5). When keys sign and retire for any sequence of rotations
//! is shown where the schedule lives, in `caracal_custody`.

use std::collections::BTreeMap;

use axum::body::Body;
use caracal_crypto::SecretText;
use caracal_ledger::verify_store;
use caracal_store::admin_evidence;
use caracal_store::evidence::ChainRow;
use caracal_sts::StsConfig;
use http::Request;
use http::header::AUTHORIZATION;
use serde_json::{Value, json};

use crate::support::*;

pub(crate) const TOKEN: &str = "sts-admin-token-of-this-test";
pub(crate) const OF_ZONE: &str = "/internal/zones/z-1/signing-key/rotate";

pub(crate) fn with_operators(config: &mut StsConfig) {
    config.admin_token = Some(SecretText::new(TOKEN.to_owned()));
}

/// Rotates the zone's key as an operator.
pub(crate) async fn rotate(world: &World) -> Answer {
    asked(world, OF_ZONE, &format!("Bearer {TOKEN}")).await
}

async fn asked(world: &World, path: &str, authorization: &str) -> Answer {
    let request = Request::post(path).header(AUTHORIZATION, authorization).header("x-request-id", "rotation-1");
    world.send(request.body(Body::empty()).unwrap()).await
}

pub(crate) fn kid(token: &str) -> String {
    let token = caracal_crypto::jws::UnverifiedToken::parse(token).unwrap();
    token.kid().unwrap().to_owned()
}

pub(crate) async fn published(world: &World) -> Vec<String> {
    let answer = world.get("/.well-known/jwks.json?zone_id=z-1").await;
    let keys = answer.json["keys"].as_array().unwrap().clone();
    keys.iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

/// The records of the zone's management chain.
pub(crate) async fn changes(world: &World) -> Vec<admin_evidence::AdminEvidenceRow> {
    let mut snapshot = world.store.snapshot().await.unwrap();
    let rows = admin_evidence::list_chain(&mut snapshot.deployment(), ZONE, 0, 100).await.unwrap();
    rows.into_iter()
        .map(|row| match row {
            ChainRow::Read(row) => row,
            other => panic!("unreadable: {other:?}"),
        })
        .collect()
}

mod t02_sts_key_rotation {
    use super::*;

    #[tokio::test]
    async fn a_new_key_is_published_at_once_and_signs_a_quarter_of_an_hour_later() {
        let world = World::configured(with_operators).await;
        let old = world.mandate().await;
        let answer = rotate(&world).await;
        assert_eq!(answer.status, 200);
        let new = answer.text("kid").to_owned();
        let expected = json!({"rotated": true, "zone_id": "z-1", "kid": new, "signs_from": "2026-01-01T00:16:00.000Z"});
        assert_eq!(answer.json, expected);
        assert_eq!(published(&world).await, [new.clone(), kid(&old)], "newest first");
        world.clock.advance(959);
        assert_eq!(kid(&world.mandate().await), kid(&old));
        world.clock.advance(1);
        assert_eq!(kid(&world.mandate().await), new);
        assert_eq!(kid(send_to(&world.restarted(), Ask::bootstrap().request()).await.token()), new);
    }

    #[tokio::test]
    async fn what_the_key_before_signed_is_accepted_for_its_whole_life() {
        let world = World::configured(with_operators).await;
        let old = world.mandate().await;
        for _ in 0..3 {
            assert_eq!(rotate(&world).await.status, 200);
        }
        world.clock.advance(899);
        assert_eq!(Signed::exchange(&world, &old).send(&world).await.outcome(), "200 ");
        assert_eq!(published(&world).await.len(), 4);
    }

    #[tokio::test]
    async fn a_retired_key_is_neither_published_nor_believed() {
        let world = World::configured(with_operators).await;
        world.mandate().await;
        rotate(&world).await;
        let claims = claims_of(&world.mandate().await);
        let lasting = |claims: &Value| {
            let mut claims = claims.clone();
            claims["exp"] = json!(START + 1_000_000);
            claims
        };
        // By whoever has got hold of the private half in the meantime.
        let forged = world.sign(&lasting(&claims)).await;
        world.clock.advance(960 + 3_600 + 60 + 599);
        assert_eq!(published(&world).await.len(), 2);
        world.clock.advance(1);
        let current = published(&world).await;
        assert_eq!(current.len(), 1);
        assert_ne!(current[0], kid(&forged));
        assert_eq!(Signed::exchange(&world, &forged).send(&world).await.outcome(), "401 invalid_token");
        // The next rotation removes its private half from the store.
        rotate(&world).await;
        world.clock.advance(960);
        assert_eq!(published(&world).await.len(), 2);
        assert_eq!(Signed::exchange(&world, &forged).send(&world).await.outcome(), "401 invalid_token");
    }

    #[tokio::test]
    async fn a_rotation_of_a_zone_without_a_key_makes_its_first_one() {
        let world = World::configured(with_operators).await;
        let answer = rotate(&world).await;
        assert_eq!((answer.status, answer.text("signs_from")), (200, "2026-01-01T00:00:00.000Z"));
        assert_eq!(kid(&world.mandate().await), answer.text("kid"));
        assert_eq!(published(&world).await, [answer.text("kid")]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn racing_rotations_each_add_a_key() {
        let world = std::sync::Arc::new(World::configured(with_operators).await);
        world.mandate().await;
        let asked = (0..8).map(|_| {
            let world = world.clone();
            tokio::spawn(async move { rotate(&world).await })
        });
        let mut kids = Vec::new();
        for answer in asked.collect::<Vec<_>>() {
            kids.push(answer.await.unwrap().text("kid").to_owned());
        }
        let published = published(&world).await;
        assert!(kids.iter().all(|kid| published.contains(kid)));
        assert_eq!((published.len(), changes(&world).await.len()), (9, 8));
    }

    #[tokio::test]
    async fn no_more_keys_are_added_than_verifiers_can_read() {
        let world = World::configured(with_operators).await;
        for _ in 0..256 {
            assert_eq!(rotate(&world).await.status, 200);
        }
        let refused = rotate(&world).await;
        assert_eq!((refused.outcome().as_str(), refused.header("retry-after")), ("429 provider_rate_limited", "5220"));
        assert_eq!(published(&world).await.len(), 256);
    }
}

mod t12_foothold_operators {
    use super::*;

    #[tokio::test]
    async fn without_a_token_the_route_is_not_there() {
        let world = World::new().await;
        for authorization in ["", "Bearer ", &format!("Bearer {TOKEN}")] {
            let answer = asked(&world, OF_ZONE, authorization).await;
            assert_eq!((answer.status, &answer.body[..]), (404, &b"404 page not found\n"[..]));
            assert!(answer.header("content-type").starts_with("text/plain"));
        }
    }

    #[tokio::test]
    async fn only_the_whole_token_rotates_and_guesses_are_counted() {
        let world = World::configured(with_operators).await;
        let right = format!("Bearer {TOKEN}");
        let wrong = ["", "Bearer", TOKEN, &right[..right.len() - 1], &format!("{right} "), &right.to_lowercase()];
        for authorization in wrong {
            for path in [OF_ZONE, "/internal/zones/none/signing-key/rotate", "/internal/zones/%ff/signing-key/rotate"] {
                let answer = asked(&world, path, authorization).await;
                assert_eq!((answer.status, &answer.body[..]), (401, &b"unauthorized\n"[..]), "{authorization:?}");
                assert_eq!(answer.header("www-authenticate"), r#"Bearer realm="caracal-sts""#);
                assert!(answer.header("content-type").starts_with("text/plain"));
            }
        }
        assert_eq!(world.get("/.well-known/jwks.json?zone_id=z-1").await.status, 404, "no key was made");
        assert!(changes(&world).await.is_empty());
        assert_eq!(world.counted("operator_unauthenticated").await, 18);
        assert_eq!(asked(&world, OF_ZONE, &right).await.status, 200);
    }

    #[tokio::test]
    async fn a_zone_that_is_not_there_or_was_archived_gets_no_key() {
        let world = World::configured(with_operators).await;
        let right = format!("Bearer {TOKEN}");
        for zone in ["z-9", "%ff", "a%20b"] {
            let path = format!("/internal/zones/{zone}/signing-key/rotate");
            assert_eq!(asked(&world, &path, &right).await.outcome(), "404 resource_not_found", "{zone}");
        }
        world.tamper("UPDATE zones SET archived_at = 1 WHERE id = 'z-1'");
        assert_eq!(rotate(&world).await.outcome(), "404 resource_not_found");
    }
}

mod t06_evidence {
    use super::*;

    #[tokio::test]
    async fn a_rotation_is_on_record_with_the_key_it_added() {
        let world = World::configured(with_operators).await;
        let kid = rotate(&world).await.text("kid").to_owned();
        let [change] = &changes(&world).await[..] else { panic!("not one record") };
        assert_eq!(change.action, "POST /internal/zones/z-1/signing-key/rotate");
        assert_eq!((change.request_id.as_str(), change.status_code), ("rotation-1", 200));
        assert_eq!(change.actor_name.as_deref(), Some("STS_ADMIN_TOKEN"));
        assert_eq!((change.entity_type.as_deref(), change.entity_id.as_deref()), (Some("zones"), Some("z-1")));
        let payload: Value = serde_json::from_str(change.payload.as_deref().unwrap()).unwrap();
        assert_eq!(payload["kid"], json!(kid));
        assert!(!change.payload.as_deref().unwrap().contains(TOKEN));
        let mut snapshot = world.store.snapshot().await.unwrap();
        let key = ledger_key();
        let (mut tx, none) = (snapshot.deployment(), BTreeMap::new());
        assert!(verify_store(&mut tx, Some(key.as_ref()), &none, |_, _| {}).await.unwrap().is_intact());
    }

    /// The record can't be written, so there is no key either.
    #[tokio::test]
    async fn no_key_without_its_record() {
        let world = World::configured(with_operators).await;
        rotate(&world).await;
        // The place in the chain that the next record would take is taken.
        world.tamper("UPDATE admin_audit_heads SET chain_seq = 0 WHERE chain = 'z-1'");
        assert_eq!(rotate(&world).await.status, 500);
        assert_eq!(published(&world).await.len(), 1);
    }
}
