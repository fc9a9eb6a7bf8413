//! The token endpoint as OAuth describes it: Basic, a zone's own path, the words of refusals (RFC 6749, 7617, 8693, 8707).

use caracal_authority::ZoneId;
use serde_json::json;

use crate::support::*;

const AT_ZONE: &str = "/zones/z-1/oauth/2/token";
const BASIC: &str = r#"Basic realm="caracal-sts", charset="UTF-8""#;

/// A bootstrap at the contract's route, with Basic instead of a secret in the form.
fn by_basic(secret: &str) -> Ask {
    Ask::bootstrap().without("application_id").without("client_secret").basic(APP, secret)
}

mod t02_sts_client_authentication {
    use super::*;

    #[tokio::test]
    async fn a_client_authenticates_by_form_or_by_basic_under_either_name() {
        let world = World::new().await;
        for ask in [
            by_basic(SECRET),
            by_basic(SECRET).set("client_id", APP),
            by_basic(SECRET).set("application_id", APP),
            Ask::bootstrap().without("application_id").set("client_id", APP),
            Ask::bootstrap().set("client_id", APP),
            // Another scheme says nothing about a client; the contract does not look at it.
            Ask::bootstrap().authorization("Bearer x"),
        ] {
            let claims = ask.send(&world).await.claims();
            assert_eq!((&claims["client_id"], &claims["use"]), (&json!(APP), &json!("session")));
        }
    }

    #[tokio::test]
    async fn an_id_with_a_colon_and_a_secret_of_any_characters_pass_basic_form_encoded() {
        let world = World::new().await;
        let secret = "a secret: with + % & = ; ü, of 32 and more";
        let hash = world.verifier.hash(secret).await.unwrap();
        world.add_application("org:app.1", |row| row.secret_hash = Some(hash)).await;
        let ask = Ask::generic().basic("org:app.1", secret).set("resource", NOTES);
        // Proven, and then refused by policy, which knows it not.
        let answer = ask.send(&world).await;
        assert_eq!(answer.outcome(), "403 access_denied");
        assert_eq!(world.last_event().await.text("application_id"), "org:app.1");
    }

    #[tokio::test]
    async fn credentials_in_two_places_and_unreadable_ones_are_malformed_at_no_cost() {
        let world = World::counting_derivations().await;
        for (what, ask) in [
            ("a secret in both", by_basic(SECRET).set("client_secret", SECRET)),
            ("an empty secret in the form", by_basic(SECRET).set("client_secret", "")),
            ("another application", by_basic(SECRET).set("application_id", "app-notes")),
            ("another client", by_basic(SECRET).set("client_id", "app-notes")),
            ("two names in the form", Ask::bootstrap().set("client_id", "app-notes")),
            ("no base64", by_basic(SECRET).authorization("Basic !")),
            ("nothing", by_basic(SECRET).authorization("Basic")),
        ] {
            assert_eq!(ask.send(&world).await.outcome(), "400 invalid_token", "{what}");
            assert_eq!(ask.at(AT_ZONE).send(&world).await.outcome(), "400 invalid_request", "{what}");
        }
        assert_eq!(world.verifier.derivations(), 0);
        assert!(world.evidence().await.is_empty());
    }

    #[tokio::test]
    async fn whoever_tried_basic_in_vain_is_asked_for_basic_and_nobody_else_at_the_contract_s_route() {
        let world = World::counting_derivations().await;
        let wrong = by_basic("cs_wrong").send(&world).await;
        assert_eq!((wrong.outcome().as_str(), wrong.header("www-authenticate")), ("401 access_denied", BASIC));
        let wrong = Ask::bootstrap().set("client_secret", "cs_wrong").send(&world).await;
        assert_eq!((wrong.outcome().as_str(), wrong.header("www-authenticate")), ("401 access_denied", ""));
        // At a zone's own endpoint everybody is told how to authenticate, and all of them the same.
        for (number, ask) in [
            Ask::generic().basic(APP, "cs_wrong"),
            Ask::generic().basic("app-unknown", SECRET),
            Ask::generic().basic("", ""),
            Ask::generic().authorization("Bearer x"),
            Ask::generic().authorization("Bearer x").set("client_id", APP).set("client_secret", "cs_wrong"),
        ]
        .into_iter()
        .enumerate()
        {
            let answer = ask.send(&world).await;
            assert_eq!((answer.outcome().as_str(), answer.header("www-authenticate")), ("401 invalid_client", BASIC));
            assert_eq!(answer.text("error_description"), "invalid client credentials");
            assert_eq!(world.verifier.derivations(), number as u64 + 3, "row {number}");
        }
    }

    #[tokio::test]
    async fn a_gateway_is_heard_at_the_contract_s_path_alone() {
        let world = World::new().await;
        let mandate = world.mandate().await;
        let mut signed = Signed::exchange(&world, &mandate);
        signed.ask = signed.ask.at(AT_ZONE);
        assert_eq!(signed.send(&world).await.outcome(), "401 invalid_client");
        assert_eq!(world.counted("gateway_signature").await, 1);
        // Basic beside a Gateway's signature is looked at no more than a secret in its form.
        let mut signed = Signed::exchange(&world, &mandate);
        signed.ask = signed.ask.basic(APP, "cs_wrong");
        assert_eq!(signed.send(&world).await.status, 200);
    }
}

mod t02_sts_form {
    use super::*;

    #[tokio::test]
    async fn client_credentials_at_a_zone_s_own_endpoint_is_the_exchange_of_an_application_for_itself() {
        let world = World::new().await;
        let answer = Ask::generic().send(&world).await;
        let ours = Ask::bootstrap().send(&world).await;
        let told = |answer: &Answer| {
            let mut told = answer.json.clone();
            told.as_object_mut().unwrap().remove("access_token");
            told
        };
        assert_eq!(told(&answer), told(&ours));
        let standing = |answer: &Answer| {
            let mut claims = answer.claims();
            for fresh in ["jti", "sid", "root_sid"] {
                claims.as_object_mut().unwrap().remove(fresh);
            }
            claims
        };
        assert_eq!(standing(&answer), standing(&ours));
        for name in ["subject_token", "subject_token_type", "session_id", "agent_session_id", "delegation_edge_id"] {
            let outcome = Ask::generic().set(name, "x").send(&world).await.outcome();
            assert_eq!(outcome, "400 invalid_request", "{name}");
        }
    }

    #[tokio::test]
    async fn a_zone_s_own_endpoint_carries_every_exchange_of_an_application() {
        let world = World::new().await;
        let mandate = Ask::mint().at(AT_ZONE).without("zone_id").send(&world).await.claims();
        assert_eq!((&mandate["use"], &mandate["zone_id"]), (&json!("gateway"), &json!(ZONE)));
        let several = Ask::generic().add("resource", NOTES).add("resource", "r-docs").send(&world).await;
        assert_eq!(several.json["target_resources"], json!([DOCS]));
    }

    #[tokio::test]
    async fn the_zone_is_the_path_s_and_a_form_that_names_another_is_refused() {
        let world = World::new().await;
        world.add_application("app-far", |row| row.zone_id = ZoneId::parse(OTHER_ZONE).unwrap()).await;
        assert_eq!(Ask::generic().set("zone_id", ZONE).send(&world).await.status, 200);
        assert_eq!(Ask::generic().set("zone_id", OTHER_ZONE).send(&world).await.outcome(), "400 invalid_request");
        for zone in [OTHER_ZONE, "z-9", "a%20b", "%ff"] {
            let ask = Ask::generic().at(&format!("/zones/{zone}/oauth/2/token"));
            assert_eq!(ask.send(&world).await.outcome(), "401 invalid_client", "{zone}");
        }
        // With the right secret its own zone is named to it, as at the contract's route, and there is evidence there.
        let far = Ask::generic().basic("app-far", SECRET).send(&world).await;
        assert_eq!((far.outcome().as_str(), far.header("www-authenticate")), ("401 invalid_client", BASIC));
        assert!(far.text("error_description").contains("`z-2`"));
        assert_eq!(world.evidence_of(OTHER_ZONE).await.len(), 1);
    }

    #[tokio::test]
    async fn refusals_at_a_zone_s_own_endpoint_are_in_the_words_of_the_rfcs() {
        let world = World::new().await;
        let access = "urn:ietf:params:oauth:token-type:access_token";
        let exchange = || Ask::generic().set("grant_type", GRANT);
        for (what, ask, expected) in [
            ("a query", Ask::generic().at(&format!("{AT_ZONE}?a=1")), "400 invalid_request"),
            ("a field twice", Ask::generic().add("scope", "x"), "400 invalid_request"),
            ("another grant", Ask::generic().set("grant_type", "password"), "400 unsupported_grant_type"),
            ("no grant", Ask::generic().without("grant_type"), "400 unsupported_grant_type"),
            ("an assertion", Ask::generic().set("client_assertion", "x"), "400 invalid_request"),
            ("no resource", Ask::generic().without("resource"), "400 invalid_target"),
            ("an empty resource", Ask::generic().set("resource", ""), "400 invalid_target"),
            ("a long scope", Ask::generic().set("scope", &"s".repeat(4_097)), "400 invalid_scope"),
            ("a ttl", Ask::generic().set("ttl_seconds", "3601"), "400 invalid_request"),
            ("no approval", Ask::generic().set("approval_id", "x"), "400 invalid_grant"),
            (
                "a subject token",
                exchange().set("subject_token", "x").set("subject_token_type", access),
                "400 invalid_request",
            ),
            ("policy", Ask::generic().set("scope", "docs:read"), "403 access_denied"),
        ] {
            let answer = ask.send(&world).await;
            assert_eq!(answer.outcome(), expected, "{what}");
            assert_eq!(answer.header("www-authenticate"), "", "{what}");
        }
    }

    #[tokio::test]
    async fn an_approval_is_asked_for_and_spent_at_a_zone_s_own_endpoint_like_anywhere() {
        let world = World::held().await;
        let ask = || Ask::mint().at(AT_ZONE).without("zone_id");
        let held = ask().send(&world).await;
        assert_eq!(held.outcome(), "401 interaction_required");
        assert_eq!(held.header("www-authenticate"), r#"Bearer error="interaction_required""#);
        let id = held.text("approval_id").to_owned();
        // One request, by whichever door: the hold is the same.
        assert_eq!(world.hold().await["approval_id"], id);
        assert!(world.operator_decides(&id, true).await);
        assert_eq!(ask().set("approval_id", &id).send(&world).await.status, 200);
        world.clock.advance(121);
        assert_eq!(ask().set("approval_id", &id).send(&world).await.outcome(), "409 approval_consumed");
    }

    #[tokio::test]
    async fn nobody_may_keep_an_answer_of_a_token_endpoint() {
        let world = World::new().await;
        for ask in [
            Ask::bootstrap(),
            Ask::bootstrap().set("client_secret", "cs_wrong"),
            Ask::bootstrap().set("resource", ""),
            Ask::generic(),
            Ask::generic().basic(APP, "cs_wrong"),
            Ask::generic().set("token", "x").at("/zones/z-1/oauth/2/introspect"),
            Ask::generic().set("token", "x").at("/zones/z-1/oauth/2/revoke"),
            Ask::generic().at("/zones/z-1/oauth/2/revoke"),
        ] {
            let answer = ask.send(&world).await;
            assert_eq!((answer.header("cache-control"), answer.header("pragma")), ("no-store", "no-cache"));
        }
    }
}

mod t08_availability_guessing {
    use super::*;

    #[tokio::test]
    async fn guesses_by_basic_and_by_form_at_every_endpoint_count_together() {
        let world = World::new().await;
        let source = "192.0.2.1:1000";
        let wrong: [Ask; 4] = [
            by_basic("cs_example-").without("zone_id"),
            Ask::bootstrap().without("zone_id"),
            Ask::about("introspect", "x").at("/zones/z-9/oauth/2/introspect"),
            Ask::about("revoke", "x").at("/zones/z-9/oauth/2/revoke"),
        ];
        // The first derives; the others are told like a wrong secret and cost nothing once the secret was verified.
        assert_eq!(wrong[0].clone().from(source).send(&world).await.status, 401);
        for number in 1..60 {
            let ask = wrong[1 + number % 3].clone().from(source);
            assert_eq!(ask.send(&world).await.status, 401, "{number}");
        }
        assert_eq!(wrong[2].clone().from(source).send(&world).await.outcome(), "429 provider_rate_limited");
        for ask in [
            Ask::bootstrap(),
            by_basic(SECRET),
            Ask::generic(),
            Ask::about("introspect", "x"),
            Ask::about("revoke", "x"),
        ] {
            assert_eq!(ask.clone().from(source).send(&world).await.outcome(), "429 provider_rate_limited");
            assert_eq!(ask.from("192.0.2.2:1000").send(&world).await.status, 200);
        }
    }
}
