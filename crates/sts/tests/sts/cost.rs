//! What an exchange asks of the store: the table at the top of `exchange.rs`.

use serde_json::json;

use crate::support::*;

#[tokio::test]
async fn a_mint_is_one_change_and_so_is_an_exchange_and_strangers_cause_none() {
    let world = World::new().await;
    // The key is made and the secret known.
    let spare = world.mandate().await;
    let mandate = world.mandate().await;
    let signed = Signed::exchange(&world, &mandate);
    let session = Ask::bootstrap().send(&world).await.token().to_owned();
    let mut before = world.store.changes();
    let mut changes = |what: &str, expected: u64| {
        let now = world.store.changes();
        assert_eq!(now - before, expected, "{what}");
        before = now;
    };
    assert_eq!(Ask::mint().send(&world).await.status, 200);
    changes("a mint", 1);
    assert_eq!(Ask::bootstrap().add("resource", NOTES).send(&world).await.status, 200);
    changes("a mint with two pieces of evidence", 1);
    assert!(world.sts.exchange_for_gateway(gateway_call(&spare)).await.is_ok());
    changes("an exchange in this process", 1);
    assert_eq!(signed.send(&world).await.status, 200);
    changes("a signed exchange, with its nonce", 2);
    assert!(world.sts.exchange_for_gateway(gateway_call(&mandate)).await.is_err());
    changes("a replay", 0);
    assert_eq!(Ask::direct(&session).send(&world).await.status, 403);
    changes("a refusal of a known client", 1);
    assert_eq!(Ask::bootstrap().set("client_secret", "x").send(&world).await.status, 401);
    changes("a wrong secret, which is counted for the next process, too", 1);
    assert_eq!(Ask::bootstrap().set("resource", "").send(&world).await.status, 400);
    assert_eq!(world.get("/.well-known/jwks.json?zone_id=z-1").await.status, 200);
    assert_eq!(world.get("/ready").await.status, 200);
    changes("strangers", 0);
}

/// On a server, what a decision names costs one round trip, the client included and however long its line of delegations;
/// the rest is the commit.
#[tokio::test]
async fn a_decision_waits_for_its_facts_once() {
    let world = World::new().await;
    let spare = world.mandate().await;
    let mandate = world.mandate().await;
    // Statements are known to the server once they were asked.
    assert!(world.sts.exchange_for_gateway(gateway_call(&spare)).await.is_ok());
    let before = world.store.round_trips();
    assert_eq!(Ask::mint().send(&world).await.status, 200);
    let mint = world.store.round_trips() - before;
    let before = world.store.round_trips();
    assert!(world.sts.exchange_for_gateway(gateway_call(&mandate)).await.is_ok());
    let exchange = world.store.round_trips() - before;
    // One for all facts and six for the commit; one, and seven with the mark of the mandate's use.
    assert_eq!((mint, exchange), if world.store.is_shared() { (7, 8) } else { (0, 0) });
}

/// The account of the subject is named by what is presented, so it costs no round trip of its own.
#[tokio::test]
async fn the_token_of_an_account_is_read_with_everything_else() {
    let world = World::new().await;
    let config = json!({
        "authorization_endpoint": "https://idp.example/authorize", "redirect_uri": "https://console.example/",
        "token_endpoint": "https://idp.example/token", "client_id": "client-1", "allowed_token_hosts": ["idp.example"],
    });
    let provider = world.provide("oauth2_authorization_code", config, Some(json!({"client_secret": "s"}))).await;
    world.add_account(&provider, APP, None, None).await;
    let (spare, mandate) = (world.mandate().await, world.mandate().await);
    assert!(world.sts.exchange_for_gateway(gateway_call(&spare)).await.is_ok());
    let before = world.store.round_trips();
    let granted = world.sts.exchange_for_gateway(gateway_call(&mandate)).await.unwrap();
    assert!(granted.upstreams[0].provider_token.is_some());
    assert_eq!(world.store.round_trips() - before, if world.store.is_shared() { 8 } else { 0 });
}
