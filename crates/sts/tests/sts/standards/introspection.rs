//! Whether a mandate is good, and who may know (RFC 7662).

use serde_json::json;

use crate::support::*;

const RESOURCE_SERVER: &str = "app-server";

fn ask(token: &str) -> Ask {
    Ask::about("introspect", token)
}

/// Exactly this, in every case in which there is nothing to tell.
#[track_caller]
fn silent(answer: &Answer, what: &str) {
    assert_eq!((answer.status, &answer.json), (200, &json!({"active": false})), "{what}");
}

/// A mandate for `resource://docs`, as a Gateway gets it.
async fn resource_mandate(world: &World) -> String {
    let mandate = world.mandate().await;
    Signed::exchange(world, &mandate).send(world).await.token().to_owned()
}

#[tokio::test]
async fn an_application_is_told_of_its_own_mandates_what_they_say() {
    let world = World::new().await;
    let bootstrap = Ask::bootstrap().send(&world).await.token().to_owned();
    for token in [bootstrap, world.mandate().await, resource_mandate(&world).await] {
        let mut expected = claims_of(&token);
        expected["active"] = json!(true);
        expected["token_type"] = json!("Bearer");
        for asked in [ask(&token), ask(&token).set("token_type_hint", "refresh_token")] {
            let answer = asked.send(&world).await;
            assert_eq!((answer.status, &answer.json), (200, &expected));
        }
    }
}

#[tokio::test]
async fn a_mandate_is_active_no_longer_than_what_it_stands_on() {
    type Ends = fn(&World, &str) -> String;
    let record = |world: &World, token: &str| {
        let _ = world;
        format!(
            "UPDATE authority_records SET status = 'revoked' WHERE id = '{}'",
            claims_of(token)["sid"].as_str().unwrap()
        )
    };
    let rows: [(&str, Ends); 7] = [
        ("its record", record),
        ("its session", |_, _| "UPDATE agent_sessions SET status = 'terminated' WHERE id = 's-1'".to_owned()),
        ("a suspended session", |_, _| "UPDATE agent_sessions SET status = 'suspended' WHERE id = 's-1'".to_owned()),
        ("the session that lends", |_, _| {
            "UPDATE agent_sessions SET status = 'terminated' WHERE id = 's-root'".to_owned()
        }),
        ("its delegation", |_, _| "UPDATE delegation_edges SET status = 'revoked' WHERE id = 'e-1'".to_owned()),
        ("the delegation's end", |world, _| {
            format!("UPDATE delegation_edges SET expires_at = {} WHERE id = 'e-1'", world.store.now().as_micros())
        }),
        ("the user behind it", |_, _| {
            "UPDATE authority_records SET kind = 'user', status = 'revoked' WHERE id = 'rec-app'".to_owned()
        }),
    ];
    for (what, ends) in rows {
        let world = World::new().await;
        let token = world.mandate().await;
        assert_eq!(ask(&token).send(&world).await.json["active"], true, "{what}");
        world.tamper(&ends(&world, &token));
        silent(&ask(&token).send(&world).await, what);
    }
}

#[tokio::test]
async fn a_mandate_is_active_to_the_second_it_ends_and_a_one_shot_one_until_it_is_used() {
    let world = World::new().await;
    let (token, used) = (world.mandate().await, world.mandate().await);
    assert_eq!(Signed::exchange(&world, &used).send(&world).await.status, 200);
    silent(&ask(&used).send(&world).await, "used");
    world.clock.advance(899);
    assert_eq!(ask(&token).send(&world).await.json["active"], true);
    world.clock.advance(1);
    silent(&ask(&token).send(&world).await, "expired, without leeway");
}

#[tokio::test]
async fn about_anything_else_nothing_is_said_but_that_it_is_not_active() {
    let world = World::new().await;
    let foreign =
        Ask::by("app-notes", SECRET).set("resource", NOTES).set("scope", "agent:lifecycle").send(&world).await;
    let foreign = foreign.token().to_owned();
    let own = Ask::bootstrap().send(&world).await.token().to_owned();
    let with = |name: &str, value: &str| {
        let mut claims = claims_of(&own);
        claims[name] = json!(value);
        claims
    };
    let (unknown_record, other_issuer) =
        (world.sign(&with("sid", "rec-9")).await, world.sign(&with("iss", "https://other.example")).await);
    let stolen = world.sign(&with("client_id", "app-notes")).await;
    let (head, rest) = own.split_at(own.len() - 6);
    for (what, token) in [
        ("another application's", foreign.as_str()),
        ("no token", "x"),
        ("a broken signature", &format!("{head}AAAAAA")),
        ("cut off", head),
        ("too long", &"x".repeat(60_000)),
        ("an unknown record", &unknown_record),
        ("another issuer's", &other_issuer),
        ("issued to another", &stolen),
    ] {
        silent(&ask(token).send(&world).await, what);
    }
    assert!(!rest.is_empty());
    assert_eq!(ask(&foreign).basic("app-notes", SECRET).send(&world).await.json["active"], true);
    let metrics = world.metrics().await;
    assert!(
        metrics.contains("caracal_sts_introspections_total 9") && metrics.contains("_inactive_total 8"),
        "{metrics}"
    );
}

#[tokio::test]
async fn a_resource_server_is_told_of_mandates_for_its_resource_by_a_trait_and_of_no_others() {
    let world = World::new().await;
    world.add_application(RESOURCE_SERVER, |_| {}).await;
    let by_server = |token: &str| ask(token).basic(RESOURCE_SERVER, SECRET);
    let for_docs = resource_mandate(&world).await;
    silent(&by_server(&for_docs).send(&world).await, "no trait");
    for text in ["introspect:r-notes", "introspect:", "introspect:resource", "introspect", "control:invoke"] {
        world.change_application(RESOURCE_SERVER, |row| row.traits = vec![text.to_owned()]).await;
        silent(&by_server(&for_docs).send(&world).await, text);
    }
    world.change_application(RESOURCE_SERVER, |row| row.traits = vec!["introspect:r-docs".to_owned()]).await;
    let told = by_server(&for_docs).send(&world).await;
    assert_eq!((&told.json["active"], &told.json["aud"]), (&json!(true), &json!([DOCS])));
    // What is addressed to the issuer is nobody's but the application's own.
    for other in [world.mandate().await, Ask::bootstrap().send(&world).await.token().to_owned()] {
        silent(&by_server(&other).send(&world).await, "a mandate of another class");
    }
    world.tamper("UPDATE resources SET archived_at = 1 WHERE id = 'r-docs'");
    silent(&by_server(&for_docs).send(&world).await, "archived");
}

#[tokio::test]
async fn a_mandate_of_an_application_that_is_gone_is_not_active_to_its_resource_server() {
    let world = World::new().await;
    world.add_application(RESOURCE_SERVER, |row| row.traits = vec!["introspect:r-docs".to_owned()]).await;
    let token = resource_mandate(&world).await;
    let by_server = ask(&token).basic(RESOURCE_SERVER, SECRET);
    assert_eq!(by_server.send(&world).await.json["active"], true);
    world.tamper("UPDATE applications SET archived_at = 1 WHERE id = 'app-docs'");
    silent(&by_server.send(&world).await, "archived");
}

#[tokio::test]
async fn nobody_asks_unproven_or_malformed_or_while_the_store_is_gone() {
    let world = World::new().await;
    let token = world.mandate().await;
    for (what, asked, expected) in [
        ("a wrong secret", ask(&token).basic(APP, "cs_wrong"), "401 invalid_client"),
        ("another zone", ask(&token).at("/zones/z-2/oauth/2/introspect"), "401 invalid_client"),
        ("no credentials but a mandate", ask(&token).authorization(&format!("Bearer {token}")), "401 invalid_client"),
        ("no token", ask(&token).without("token"), "400 invalid_request"),
        ("an empty token", ask(" "), "400 invalid_request"),
        ("two tokens", ask(&token).add("token", "x"), "400 invalid_request"),
        ("a query", ask(&token).at("/zones/z-1/oauth/2/introspect?token=x"), "400 invalid_request"),
        ("another zone in the form", ask(&token).set("zone_id", "z-2"), "400 invalid_request"),
    ] {
        assert_eq!(asked.send(&world).await.outcome(), expected, "{what}");
    }
    let get = world.get("/zones/z-1/oauth/2/introspect").await;
    assert_eq!(get.status, 405);
    assert!(world.evidence().await.iter().all(|event| event.row.event_type == "token_exchange"));
    world.store.close().await;
    assert_eq!(ask(&token).send(&world).await.outcome(), "503 sts_unavailable");
}
