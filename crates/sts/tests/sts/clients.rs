//! Who may ask at all (contract: sts.md §3.3 step 10, §3.4, §12; README D11, D17).

use std::pin::Pin;

use caracal_authority::ZoneId;
use serde_json::json;

use crate::support::*;

/// The body without what differs in every answer.
fn opaque(answer: &Answer) -> serde_json::Value {
    let mut body = answer.json.clone();
    for id in ["requestId", "request_id"] {
        assert!(body.as_object_mut().unwrap().remove(id).is_some());
    }
    body
}

mod t02_sts_client_authentication {
    use super::*;

    #[tokio::test]
    async fn whatever_is_wrong_the_answer_and_its_cost_are_the_same() {
        let world = World::counting_derivations().await;
        world.add_application("app-gone", |_| {}).await;
        world.tamper("UPDATE applications SET archived_at = 1 WHERE id = 'app-gone'");
        world.add_application("app-lapsed", |row| row.expires_at = Some(after(0))).await;
        world.add_application("app-bare", |row| row.secret_hash = None).await;
        world.add_application("app-odd", |row| row.secret_hash = Some("argon2id$not$readable".to_owned())).await;
        world.add_application("app-far", |row| row.zone_id = ZoneId::parse(OTHER_ZONE).unwrap()).await;
        let rows = [
            Ask::bootstrap().set("client_secret", "cs_wrong"),
            Ask::bootstrap().set("client_secret", ""),
            Ask::bootstrap().without("client_secret"),
            Ask::bootstrap().set("client_secret", " cs_example"),
            Ask::bootstrap().set("application_id", "app-unknown"),
            Ask::bootstrap().set("application_id", "not an id"),
            Ask::bootstrap().set("application_id", ""),
            Ask::bootstrap().without("application_id"),
            Ask::bootstrap().set("application_id", "app-gone"),
            Ask::bootstrap().set("application_id", "app-lapsed"),
            Ask::bootstrap().set("application_id", "app-bare"),
            Ask::bootstrap().set("application_id", "app-odd"),
            Ask::bootstrap().set("application_id", "app-far").set("client_secret", "cs_wrong"),
            Ask::bootstrap().set("application_id", "app-far").set("client_secret", "cs_wrong").set("zone_id", "z-9"),
            Ask::bootstrap().set("zone_id", "z-9").set("client_secret", "cs_wrong"),
            Ask::bootstrap().without("zone_id").set("client_secret", "cs_wrong"),
        ];
        let mut seen = Vec::new();
        for (number, ask) in rows.iter().enumerate() {
            let answer = ask.send(&world).await;
            assert_eq!(answer.outcome(), "401 access_denied", "row {number}");
            assert!(answer.headers.get("www-authenticate").is_none() && answer.headers.get("retry-after").is_none());
            seen.push(opaque(&answer));
            assert_eq!(world.verifier.derivations(), number as u64 + 1, "row {number}");
        }
        seen.dedup();
        assert_eq!(seen, [json!({"error": "access_denied", "error_description": "invalid client credentials"})]);
        // Nobody proved anything: nobody can write to a chain.
        assert_eq!(world.counted("client_unauthenticated").await, rows.len() as u64);
        assert!(world.evidence().await.is_empty() && world.evidence_of(OTHER_ZONE).await.is_empty());
        assert_eq!(world.record_ids(), ["rec-app"]);
    }

    #[tokio::test]
    async fn a_secret_that_was_right_is_not_derived_again_and_a_rotated_one_stops_at_once() {
        let world = World::counting_derivations().await;
        for _ in 0..3 {
            assert_eq!(Ask::bootstrap().send(&world).await.status, 200);
        }
        assert_eq!(world.verifier.derivations(), 1);
        let rotated = world.verifier.hash("cs_rotated").await.unwrap();
        world.change_application(APP, |row| row.secret_hash = Some(rotated)).await;
        assert_eq!(Ask::bootstrap().send(&world).await.outcome(), "401 access_denied");
        assert_eq!(Ask::bootstrap().set("client_secret", "cs_rotated").send(&world).await.status, 200);
    }

    /// Remembered is what a secret was right for. Whether that is what the named application has is looked at each time, and
    /// where it is not, everything is as if nothing had been remembered.
    #[tokio::test]
    async fn a_secret_that_is_remembered_proves_the_one_application_that_has_it_now() {
        let world = World::counting_derivations().await;
        let other = world.verifier.hash("cs_other").await.unwrap();
        world.change_application("app-notes", |row| row.secret_hash = Some(other)).await;
        assert_eq!(Ask::bootstrap().send(&world).await.status, 200);
        let (derived, recorded) = (world.verifier.derivations(), world.evidence().await.len());
        for (number, ask) in [
            Ask::bootstrap().set("application_id", "app-notes"),
            Ask::bootstrap().set("application_id", "app-unknown"),
            Ask::bootstrap().set("application_id", "app-notes").set("zone_id", OTHER_ZONE),
            Ask::mint().set("application_id", "app-notes"),
        ]
        .into_iter()
        .enumerate()
        {
            let answer = ask.send(&world).await;
            assert_eq!(answer.outcome(), "401 access_denied", "{}", ask.encoded());
            let derivations = derived + u64::try_from(number).unwrap() + 1;
            assert_eq!(world.verifier.derivations(), derivations, "it costs what any wrong secret costs");
            assert_eq!(world.counted("client_unauthenticated").await, 1, "and counts like one");
        }
        assert_eq!(world.evidence().await.len(), recorded, "nobody proved anything");
        // In another zone it is told the right one, as ever.
        assert_eq!(Ask::bootstrap().set("zone_id", OTHER_ZONE).send(&world).await.outcome(), "403 zone_invalid");
        assert_eq!(Ask::bootstrap().send(&world).await.status, 200);
        world.tamper("UPDATE applications SET archived_at = 1 WHERE id = 'app-docs'");
        assert_eq!(Ask::bootstrap().send(&world).await.outcome(), "401 access_denied");
    }

    /// Runs `asked` until the stored hash is read and the derivation has begun.
    async fn derives<F: Future>(world: &World, mut asked: Pin<&mut F>) {
        while world.verifier.derivations() == 0 {
            assert!(waits(asked.as_mut()).await, "answered without a derivation");
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_secret_that_is_rotated_while_it_is_verified_proves_nothing_any_more() {
        let world = World::counting_derivations().await;
        let ask = Ask::bootstrap();
        let mut asked = std::pin::pin!(ask.send(&world));
        derives(&world, asked.as_mut()).await;
        world.change_application(APP, |row| row.secret_hash = Some("argon2id$of$another".to_owned())).await;
        assert_eq!(asked.await.outcome(), "401 access_denied");
        assert_eq!(world.last_event().await.outcome(), "deny client_unauthenticated");
        assert_eq!(world.record_ids(), ["rec-app"]);
    }

    #[tokio::test]
    async fn an_application_archived_while_its_secret_is_verified_gets_nothing() {
        for archive in [
            "UPDATE applications SET archived_at = 1 WHERE id = 'app-docs'",
            "UPDATE applications SET expires_at = 1 WHERE id = 'app-docs'",
            "UPDATE zones SET archived_at = 1 WHERE id = 'z-1'",
        ] {
            let world = World::counting_derivations().await;
            let ask = Ask::bootstrap();
            let mut asked = std::pin::pin!(ask.send(&world));
            derives(&world, asked.as_mut()).await;
            world.tamper(archive);
            assert_eq!(asked.await.outcome(), "401 access_denied", "{archive}");
            let event = world.last_event().await;
            assert_eq!(
                (event.outcome().as_str(), event.text("application_name")),
                ("deny client_unauthenticated", "Name of app-docs")
            );
        }
    }

    #[tokio::test]
    async fn the_right_secret_in_the_wrong_zone_is_told_the_right_one_with_evidence_there() {
        let world = World::new().await;
        world.add_application("app-far", |row| row.zone_id = ZoneId::parse(OTHER_ZONE).unwrap()).await;
        let answer = Ask::bootstrap().set("application_id", "app-far").send(&world).await;
        assert_eq!(answer.outcome(), "403 zone_invalid");
        let text = answer.text("error_description");
        assert!(text.contains("`z-2`") && text.contains("`z-1`"), "{text}");
        assert!(world.evidence().await.is_empty());
        let events = world.evidence_of(OTHER_ZONE).await;
        let [event] = &events[..] else { panic!("{} events", events.len()) };
        assert_eq!(
            (event.outcome().as_str(), event.row.request_id.as_str()),
            ("deny zone_invalid", answer.text("requestId"))
        );
        assert_eq!(
            event.metadata,
            json!({
                "application_id": "app-far",
                "application_name": "Name of app-far",
                "application_registration_method": "managed",
                "requested": [DOCS],
                "requested_scopes": ["agent:lifecycle"],
                "requested_zone_id": ZONE,
                "refusal": "ClientOfAnotherZone",
                "session_id": "",
                "agent_session_id": "",
                "delegation_edge_id": "",
            })
        );
        assert_eq!(world.counted("client_unauthenticated").await, 0);
    }

    #[tokio::test]
    async fn the_right_secret_without_a_zone_is_refused_like_a_wrong_one_but_with_evidence() {
        let world = World::new().await;
        for ask in [
            Ask::bootstrap().without("zone_id"),
            Ask::bootstrap().set("zone_id", " "),
            Ask::bootstrap().set("zone_id", "no id"),
        ] {
            let answer = ask.send(&world).await;
            let wrong = ask.set("client_secret", "cs_wrong").send(&world).await;
            assert_eq!((answer.status, opaque(&answer)), (wrong.status, opaque(&wrong)));
            assert_eq!(world.last_event().await.outcome(), "deny client_unauthenticated");
        }
        assert_eq!(world.evidence().await.len(), 3);
    }

    #[tokio::test]
    async fn a_gateway_is_not_told_that_an_application_exists_elsewhere() {
        let world = World::new().await;
        world.add_application("app-far", |row| row.zone_id = ZoneId::parse(OTHER_ZONE).unwrap()).await;
        let mut bodies = Vec::new();
        for application in ["app-far", "app-unknown"] {
            let mandate = world.mandate().await;
            let answer = Signed::exchange(&world, &mandate).set("application_id", application).send(&world).await;
            assert_eq!(answer.outcome(), "401 access_denied");
            bodies.push(opaque(&answer));
        }
        assert_eq!(bodies[0], bodies[1]);
    }

    #[tokio::test]
    async fn nobody_mints_in_an_archived_zone() {
        let world = World::new().await;
        let mandate = world.mandate().await;
        world.tamper("UPDATE zones SET archived_at = 1 WHERE id = 'z-1'");
        assert_eq!(Ask::bootstrap().send(&world).await.outcome(), "401 access_denied");
        assert_eq!(Signed::exchange(&world, &mandate).send(&world).await.outcome(), "401 access_denied");
    }
}

mod t08_availability_guessing {
    use super::*;

    #[tokio::test]
    async fn the_sixty_first_wrong_secret_locks_that_application_for_that_source_alone() {
        let world = World::new().await;
        let (guesser, other) = ("192.0.2.1:1000", "192.0.2.2:1000");
        let wrong = |ask: Ask| ask.set("client_secret", "cs_wrong");
        for number in 0..60 {
            // Told like a wrong secret, counted like one, and needs no derivation once the secret was verified.
            let ask = Ask::bootstrap().without("zone_id").from(&format!("192.0.2.1:{}", 1000 + number));
            assert_eq!(ask.send(&world).await.outcome(), "401 access_denied", "{number}");
        }
        assert_eq!(Ask::bootstrap().from(guesser).send(&world).await.status, 200);
        let last = wrong(Ask::bootstrap()).from(guesser).send(&world).await;
        assert_eq!((last.outcome().as_str(), last.header("retry-after")), ("429 provider_rate_limited", "60"));
        // Whoever guessed is not told when a guess is right; anybody else goes on.
        world.clock.advance(20);
        let right = Ask::bootstrap().from(guesser).send(&world).await;
        assert_eq!((right.outcome().as_str(), right.header("retry-after")), ("429 provider_rate_limited", "40"));
        assert_eq!(Ask::bootstrap().from(other).send(&world).await.status, 200);
        let notes = Ask::bootstrap().set("application_id", "app-notes").set("resource", NOTES).from(guesser);
        assert_eq!(notes.send(&world).await.status, 200);
        world.clock.advance(40);
        assert_eq!(Ask::bootstrap().from(guesser).send(&world).await.status, 200);
        assert_eq!(world.counted("credential_lockout").await, 1);
        // Sixty a minute are nobody's lockout, and successes were never counted.
        assert_eq!(wrong(Ask::bootstrap()).from(guesser).send(&world).await.status, 401);
    }

    /// Behind a proxy all callers have its address: whoever guesses must not lock out everybody, nor choose under which
    /// address to be counted.
    #[tokio::test]
    async fn behind_a_trusted_proxy_guesses_count_for_the_caller_that_it_names() {
        let through = |ask: Ask, line: &str| {
            let mut request = ask.from("10.0.0.1:1000").request();
            request.headers_mut().insert("x-forwarded-for", line.parse().unwrap());
            request
        };
        for (trust_proxy, other) in [(true, 200), (false, 429)] {
            let world = World::configured(|config| config.trust_proxy = trust_proxy).await;
            for number in 0..=60 {
                let wrong = Ask::bootstrap().without("zone_id");
                let line = format!("198.51.100.{number}, 192.0.2.1");
                assert_eq!(world.send(through(wrong, &line)).await.status, if number < 60 { 401 } else { 429 });
            }
            assert_eq!(world.send(through(Ask::bootstrap(), "192.0.2.1")).await.status, 429);
            let answer = world.send(through(Ask::bootstrap(), "192.0.2.2")).await;
            assert_eq!(answer.status, other, "trusted: {trust_proxy}");
        }
    }

    #[tokio::test]
    async fn only_wrong_secrets_are_guesses() {
        let world = World::new().await;
        world.add_application("app-far", |row| row.zone_id = ZoneId::parse(OTHER_ZONE).unwrap()).await;
        let source = "192.0.2.1:1000";
        for _ in 0..70 {
            let misplaced = Ask::bootstrap().set("application_id", "app-far").from(source);
            assert_eq!(misplaced.send(&world).await.outcome(), "403 zone_invalid");
            let refused = Ask::bootstrap().set("scope", "docs:read").from(source);
            assert_eq!(refused.send(&world).await.outcome(), "403 access_denied");
            let malformed = Ask::bootstrap().set("resource", "").from(source);
            assert_eq!(malformed.send(&world).await.outcome(), "400 invalid_token");
        }
        assert_eq!(Ask::bootstrap().from(source).send(&world).await.status, 200);
    }

    #[tokio::test]
    async fn an_outage_is_nobody_s_guess() {
        let world = World::new().await;
        world.store.close().await;
        for _ in 0..70 {
            let answer = Ask::bootstrap().from("192.0.2.1:1000").send(&world).await;
            assert_eq!((answer.outcome().as_str(), answer.header("retry-after")), ("503 sts_unavailable", "1"));
        }
    }
}
