//! The zone's public keys (contract: sts.md §6).

use std::sync::Arc;

use axum::body::Body;
use caracal_crypto::encoding::from_base64url;
use caracal_crypto::jws::{PublicKey, UnverifiedToken};
use http::Request;
use http::header::AUTHORIZATION;
use serde_json::{Value, json};

use crate::rotation::{rotate, with_operators};
use crate::support::*;

const OF_ZONE: &str = "/.well-known/jwks.json?zone_id=z-1";

fn public_key(jwk: &Value) -> PublicKey {
    let coordinate = |name: &str| {
        let text = jwk[name].as_str().unwrap();
        assert_eq!(text.len(), 43);
        <[u8; 32]>::try_from(from_base64url(text).unwrap()).unwrap()
    };
    PublicKey::from_coordinates(&coordinate("x"), &coordinate("y")).unwrap()
}

/// What the metric says of keys that were left out.
async fn damaged(world: &World) -> u64 {
    let request = Request::get("/metrics").header(AUTHORIZATION, format!("Bearer {METRICS_BEARER}"));
    let answer = world.send(request.body(Body::empty()).unwrap()).await;
    let text = String::from_utf8(answer.body).unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix("caracal_sts_jwks_invalid_keys_total "));
    value.unwrap_or_else(|| panic!("{text}")).parse().unwrap()
}

mod t02_sts_jwks {
    use super::*;

    #[tokio::test]
    async fn a_zone_s_keys_are_published_once_it_has_minted() {
        let world = World::new().await;
        assert_eq!(world.get(OF_ZONE).await.outcome(), "404 resource_not_found");
        let token = Ask::bootstrap().send(&world).await.token().to_owned();
        let answer = world.get(OF_ZONE).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), "application/json");
        assert_eq!(answer.header("cache-control"), "public, max-age=300, must-revalidate");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        let key = &answer.json["keys"][0];
        let expected = json!({"kty": "EC", "crv": "P-256", "use": "sig", "kid": key["kid"], "alg": "ES256", "x": key["x"], "y": key["y"]});
        assert_eq!(answer.json, json!({"keys": [expected]}));
        let token = UnverifiedToken::parse(&token).unwrap();
        assert_eq!(token.kid(), key["kid"].as_str());
        assert!(token.verify(&public_key(key)).is_ok());
    }

    #[tokio::test]
    async fn a_zone_has_to_be_named_and_known() {
        let world = World::new().await;
        for (query, expected) in [
            ("", "400 invalid_token"),
            ("?zone_id=", "400 invalid_token"),
            ("?zone=z-1", "400 invalid_token"),
            ("?zone_id=z-1&zone_id=z-2", "400 invalid_token"),
            ("?zone_id=%ff", "404 resource_not_found"),
            ("?zone_id=z-9", "404 resource_not_found"),
            ("?zone_id=../z-1", "404 resource_not_found"),
        ] {
            assert_eq!(world.get(&format!("/.well-known/jwks.json{query}")).await.outcome(), expected, "{query}");
        }
    }

    #[tokio::test]
    async fn a_damaged_key_is_left_out_and_nothing_is_published_when_all_are() {
        let world = World::configured(with_operators).await;
        for _ in 0..3 {
            assert_eq!(rotate(&world).await.status, 200);
        }
        let published = |answer: Answer| {
            let keys = answer.json["keys"].as_array().unwrap().clone();
            keys.iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let all = published(world.get(OF_ZONE).await);
        assert_eq!(all.len(), 3);
        world.tamper("UPDATE signing_keys SET public_x = 'damaged' WHERE version = 2");
        // Newest first, the damaged one left out.
        assert_eq!(published(world.get(OF_ZONE).await), [all[0].clone(), all[2].clone()]);
        assert_eq!(damaged(&world).await, 1);
        world.tamper("UPDATE signing_keys SET public_y = public_x");
        assert_eq!(world.get(OF_ZONE).await.outcome(), "500 internal_error");
        assert_eq!(damaged(&world).await, 4);
    }

    /// §6: a private half that does not open is left out like a public one that does not belong to it.
    #[tokio::test]
    async fn an_envelope_that_does_not_open_is_left_out_and_counted() {
        let world = World::configured(with_operators).await;
        for _ in 0..3 {
            assert_eq!(rotate(&world).await.status, 200);
        }
        let other = "(SELECT sealed_private FROM signing_keys WHERE version = 3)";
        world.tamper(&format!("UPDATE signing_keys SET sealed_private = {other} WHERE version = 1"));
        assert_eq!(world.get(OF_ZONE).await.json["keys"].as_array().unwrap().len(), 2);
        assert_eq!(damaged(&world).await, 1);
    }

    /// Publishing opens no private half that was opened a moment ago: the answer is as cheap as it looks.
    #[tokio::test]
    async fn keys_are_published_from_memory_once_they_were_checked() {
        let world = World::configured(with_operators).await;
        rotate(&world).await;
        let first = world.get(OF_ZONE).await;
        // Whoever opened it again would find it shut.
        world.tamper("UPDATE signing_keys SET sealed_private = x'00'");
        assert_eq!(world.get(OF_ZONE).await.json, first.json);
        assert_eq!(damaged(&world).await, 0);
        world.clock.advance(600);
        assert_eq!(world.get(OF_ZONE).await.outcome(), "500 internal_error");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_zone_s_first_mints_make_one_key() {
        let world = Arc::new(World::new().await);
        let mints = (0..20).map(|_| {
            let world = world.clone();
            tokio::spawn(async move { Ask::bootstrap().send(&world).await })
        });
        for mint in mints.collect::<Vec<_>>() {
            assert_eq!(mint.await.unwrap().status, 200);
        }
        assert_eq!(world.get(OF_ZONE).await.json["keys"].as_array().unwrap().len(), 1);
    }
}
