//! What a resource server that verifies by itself begins with: a signed list of what was taken back.

use caracal_crypto::encoding::from_base64url as decode;
use caracal_crypto::jws::{PublicKey, UnverifiedToken};
use serde_json::{Value, json};

use crate::support::*;

const SERVER: &str = "app-server";
const TRAIT: &str = "introspect:r-docs";

fn asks() -> Ask {
    Ask::about("revocations", "").without("token").basic(SERVER, SECRET)
}

async fn world() -> World {
    let world = World::new().await;
    world.add_application(SERVER, |row| row.traits = vec![TRAIT.to_owned()]).await;
    world
}

/// The header and the claims of an answer, once its signature holds under the published key that it names.
async fn list(world: &World, answer: &Answer) -> (Value, Value) {
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/jwt"), "{}", answer.json);
    assert_eq!(answer.header("cache-control"), "no-store");
    let token = String::from_utf8(answer.body.clone()).unwrap();
    let part = |index: usize| -> Value {
        serde_json::from_slice(&decode(token.split('.').nth(index).unwrap()).unwrap()).unwrap()
    };
    let (header, claims) = (part(0), part(1));
    let keys = world.get("/.well-known/jwks.json?zone_id=z-1").await.json;
    let key = keys["keys"].as_array().unwrap().iter().find(|key| key["kid"] == header["kid"]).unwrap();
    let coordinate = |name: &str| <[u8; 32]>::try_from(decode(key[name].as_str().unwrap()).unwrap()).unwrap();
    let public = PublicKey::from_coordinates(&coordinate("x"), &coordinate("y")).unwrap();
    UnverifiedToken::parse(&token).unwrap().verify(&public).unwrap();
    (header, claims)
}

/// Everything there is to take back, taken back at this instant.
fn take_all_back(world: &World, token: &str) -> String {
    let (now, sid) = (world.store.now().as_micros(), claims_of(token)["sid"].as_str().unwrap().to_owned());
    for sql in [
        format!("UPDATE authority_records SET status = 'revoked', revoked_at = {now} WHERE id = '{sid}'"),
        format!("UPDATE agent_sessions SET status = 'terminated', terminated_at = {now} WHERE id = 's-1'"),
        format!("UPDATE delegation_edges SET status = 'revoked', revoked_at = {now} WHERE id = 'e-1'"),
        format!("INSERT INTO withdrawn_keys (zone_id, kid, withdrawn_at) VALUES ('z-1', 'k-old', {now})"),
    ] {
        world.tamper(&sql);
    }
    sid
}

mod t07_streams_list {
    use super::*;

    #[tokio::test]
    async fn a_list_has_everything_that_could_still_be_presented_and_nothing_else() {
        let world = world().await;
        let token = world.mandate().await;
        let nothing = json!({"sid": [], "agent_session_id": [], "delegation_edge_id": [], "kid": []});
        assert_eq!(list(&world, &asks().send(&world).await).await.1["revoked"], nothing);
        let sid = take_all_back(&world, &token);
        world.tamper("INSERT INTO withdrawn_keys (zone_id, kid, withdrawn_at) VALUES ('z-2', 'k-2', 9000000000000000)");
        let (header, claims) = list(&world, &asks().send(&world).await).await;
        assert_eq!((&header["typ"], &header["alg"]), (&json!("caracal-revocations+jwt"), &json!("ES256")));
        let all = json!({"sid": [sid], "agent_session_id": ["s-1"], "delegation_edge_id": ["e-1"], "kid": ["k-old"]});
        let expected = json!({
            "iss": ISSUER, "zone_id": "z-1", "iat": START, "exp": START + 300, "since": START - 7_200, "revoked": all.clone(),
        });
        assert_eq!(claims, expected);
        // To the second at which nothing that was minted before can live.
        world.clock.advance(7_200);
        assert_eq!(list(&world, &asks().send(&world).await).await.1["revoked"], all);
        world.clock.advance(1);
        assert_eq!(list(&world, &asks().send(&world).await).await.1["revoked"], nothing);
        assert!(world.metrics().await.contains("caracal_sts_revocation_snapshots_total 4"));
    }

    /// A revocation that was answered is in every list that is asked for after it.
    #[tokio::test]
    async fn what_was_taken_back_a_moment_ago_is_in_it() {
        let world = world().await;
        let token = world.mandate().await;
        assert_eq!(Ask::about("revoke", &token).send(&world).await.status, 200);
        let (_, claims) = list(&world, &asks().send(&world).await).await;
        assert_eq!(claims["revoked"]["sid"], json!([claims_of(&token)["sid"]]));
    }

    #[tokio::test]
    async fn it_is_for_resource_servers_of_the_zone_alone() {
        let world = world().await;
        world.mandate().await;
        for text in ["", "introspect:", "introspect:r-9", "introspect", "control:invoke"] {
            world.change_application(SERVER, |row| row.traits = vec![text.to_owned()]).await;
            assert_eq!(asks().send(&world).await.outcome(), "403 access_denied", "{text}");
        }
        world.change_application(SERVER, |row| row.traits = vec![TRAIT.to_owned()]).await;
        assert_eq!(asks().send(&world).await.status, 200);
        for (what, asked, outcome) in [
            ("no trait", asks().basic(APP, SECRET), "403 access_denied"),
            ("a wrong secret", asks().basic(SERVER, "wrong"), "401 invalid_client"),
            ("another zone", asks().at("/zones/z-2/oauth/2/revocations"), "401 invalid_client"),
            ("a query", asks().at("/zones/z-1/oauth/2/revocations?client_secret=x"), "400 invalid_request"),
        ] {
            assert_eq!(asked.send(&world).await.outcome(), outcome, "{what}");
        }
        world.tamper("UPDATE resources SET archived_at = created_at WHERE id = 'r-docs'");
        assert_eq!(asks().send(&world).await.outcome(), "403 access_denied", "the resource is gone");
    }

    /// Both are signed by one key, and neither passes for the other.
    #[tokio::test]
    async fn a_list_is_no_mandate() {
        let world = world().await;
        world.mandate().await;
        let answer = asks().send(&world).await;
        let text = String::from_utf8(answer.body).unwrap();
        assert_eq!(Ask::about("introspect", &text).send(&world).await.json, json!({"active": false}));
        assert_eq!(Ask::direct(&text).send(&world).await.status, 401);
        assert_ne!(Signed::exchange(&world, &text).send(&world).await.status, 200);
    }

    /// A list that left something out would let it through.
    #[tokio::test]
    async fn a_list_that_would_be_too_long_is_refused_and_never_cut() {
        let world = world().await;
        world.mandate().await;
        let now = world.store.now().as_micros();
        let add = |from: u32, to: u32| {
            world.tamper(&format!(
                "INSERT INTO withdrawn_keys (zone_id, kid, withdrawn_at)
                 WITH RECURSIVE n(i) AS (SELECT {from} UNION ALL SELECT i + 1 FROM n WHERE i < {to})
                 SELECT 'z-1', 'k-' || i, {now} FROM n"
            ));
        };
        add(1, 100_000);
        let (_, claims) = list(&world, &asks().send(&world).await).await;
        assert_eq!(claims["revoked"]["kid"].as_array().unwrap().len(), 100_000);
        add(100_001, 100_001);
        let refused = asks().send(&world).await;
        assert_eq!(refused.outcome(), "503 sts_unavailable");
        assert!(refused.text("error_description").contains("introspection"), "{}", refused.json);
    }

    #[tokio::test]
    async fn an_application_gets_thirty_a_minute() {
        let world = world().await;
        world.mandate().await;
        for _ in 0..30 {
            assert_eq!(asks().send(&world).await.status, 200);
        }
        let refused = asks().send(&world).await;
        assert_eq!(refused.outcome(), "429 provider_rate_limited");
        assert!(!refused.header("retry-after").is_empty());
        world.clock.advance(60);
        assert_eq!(asks().send(&world).await.status, 200);
    }

    #[tokio::test]
    async fn a_zone_that_never_signed_anything_has_none() {
        let world = world().await;
        assert_eq!(asks().send(&world).await.outcome(), "404 resource_not_found");
    }
}
