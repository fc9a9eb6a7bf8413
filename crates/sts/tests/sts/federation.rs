//! Users whom a zone's identity provider vouches for (contract: sts.md §4, security property 12).

use serde_json::{Value, json};

use crate::support::*;

/// A provider with an RSA key, and a zone that takes its users in.
async fn scene() -> (World, IdentityProvider, IdpKey) {
    let key = IdpKey::rsa("k-1");
    let provider = IdentityProvider::publishing(&[&key]).await;
    let world = World::reaching(way_out(true, true), |_| {}).await;
    world.add_issuer("idp-1", &provider.url("/keys"), |_| {}).await;
    (world, provider, key)
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = id_claims();
    claims[name] = value;
    claims
}

/// `401 invalid_token`, evidence, and the reason in it.
async fn rejected(world: &World, token: &str) -> String {
    let answer = Ask::relay(token).send(world).await;
    assert_eq!(answer.outcome(), "401 invalid_token", "{}", answer.json);
    assert!(!answer.text("error_description").is_empty());
    let event = world.last_event().await;
    assert_eq!(event.outcome(), "deny subject_federation_rejected");
    assert_eq!(event.text("application_id"), APP);
    event.text("reason").to_owned()
}

mod t02_sts_federation {
    use super::*;

    #[tokio::test]
    async fn a_user_of_a_registered_provider_gets_a_bare_session_mandate() {
        let (world, _provider, key) = scene().await;
        let answer = Ask::relay(&key.token(&id_claims())).send(&world).await;
        let claims = answer.claims();
        assert_eq!(
            answer.json,
            json!({
                "access_token": answer.token(),
                "token_type": "Bearer",
                "expires_in": 900,
                "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
            })
        );
        assert_eq!(
            claims,
            json!({
                "iss": ISSUER, "sub": "user-1", "aud": [ISSUER], "exp": START + 900, "iat": START,
                "jti": claims["jti"], "zone_id": ZONE, "client_id": APP, "sid": claims["sid"],
                "root_sid": claims["sid"], "use": "session", "sub_type": "user",
            })
        );
        assert_eq!(answer.header("cache-control"), "no-store");
    }

    #[tokio::test]
    async fn the_record_behind_it_is_the_user_s_and_says_who_vouched() {
        let (world, _provider, key) = scene().await;
        let claims = Ask::relay(&key.token(&id_claims())).send(&world).await.claims();
        let record = world.record(claims["sid"].as_str().unwrap()).await.unwrap();
        assert_eq!((record.kind.as_str(), record.subject_id.as_str()), ("user", "user-1"));
        assert_eq!((record.client_id.as_str(), record.use_class.as_str()), (APP, "session"));
        assert_eq!((record.parent_id, record.agent_session_id), (None, None));
        assert_eq!(record.provenance.map(|provenance| provenance.iss), Some(IDP.to_owned()));
        assert_eq!(record.jti, claims["jti"].as_str().unwrap());
    }

    #[tokio::test]
    async fn the_evidence_names_the_issuer_and_the_record_and_never_the_user() {
        let (world, _provider, key) = scene().await;
        let subject = "ada.lovelace@analytical.example";
        let claims = Ask::relay(&key.token(&with("sub", json!(subject)))).send(&world).await.claims();
        let event = world.last_event().await;
        assert_eq!(event.outcome(), "allow complete");
        assert_eq!(event.row.event_type, "token_exchange");
        let determining: Value = serde_json::from_str(&event.row.determining_policies).unwrap();
        assert_eq!(determining, json!([{"policy": "caracal-subject-federation"}]));
        assert_eq!((event.row.policy_set_version_id.as_str(), event.row.manifest_sha.as_str()), ("", ""));
        assert_eq!(event.text("federated_user_issuer"), IDP);
        assert_eq!((event.text("session_id"), event.text("subject_kind")), (claims["sid"].as_str().unwrap(), "user"));
        assert_eq!((event.text("application_id"), event.text("application_name")), (APP, "Name of app-docs"));
        rejected(&world, &key.token(&with("exp", json!(START - 100)))).await;
        for event in world.evidence().await {
            assert!(
                !event.row.metadata.contains("ada") && !event.row.diagnostics.contains("ada"),
                "{}",
                event.metadata
            );
        }
        assert!(!logged().contains(subject));
    }

    #[tokio::test]
    async fn an_id_token_is_neither_stored_nor_logged() {
        let (world, _provider, key) = scene().await;
        let good = key.token(&with("jti", json!("nobody-keeps-this")));
        let bad = key.token(&with("aud", json!("other")));
        Ask::relay(&good).send(&world).await.token();
        rejected(&world, &bad).await;
        let (logged, stored) = (logged(), world.directory.everything_stored());
        for token in [good, bad] {
            let payload = token.split('.').nth(1).unwrap();
            assert!(!logged.contains(payload));
            assert!(!stored.windows(payload.len()).any(|window| window == payload.as_bytes()));
        }
    }

    #[tokio::test]
    async fn each_accepted_algorithm_is_accepted() {
        let (rsa, p256, p384) = (IdpKey::rsa("r"), IdpKey::p256("e"), IdpKey::p384("f"));
        let provider = IdentityProvider::publishing(&[&rsa, &p256, &p384]).await;
        let world = World::reaching(way_out(true, true), |_| {}).await;
        world.add_issuer("idp-1", &provider.url("/keys"), |_| {}).await;
        for (key, alg) in [(&rsa, "RS256"), (&rsa, "RS384"), (&rsa, "RS512"), (&p256, "ES256"), (&p384, "ES384")] {
            let header = json!({"alg": alg, "kid": key.kid}).to_string();
            let token = key.sign(&header, &id_claims().to_string());
            assert_eq!(Ask::relay(&token).send(&world).await.claims()["sub"], "user-1", "{alg}");
        }
        assert_eq!(provider.asked(), 1);
    }

    #[tokio::test]
    async fn tokens_that_must_not_be_believed_are_refused_each_with_its_reason() {
        let (world, provider, key) = scene().await;
        let stranger = IdpKey::p256("k-1");
        let header = |value: Value| key.sign(&value.to_string(), &id_claims().to_string());
        let claims = id_claims().to_string();
        let rows = [
            (header(json!({"alg": "HS256", "kid": "k-1"})), "algorithm_not_accepted"),
            (header(json!({"alg": "none", "kid": "k-1"})), "algorithm_not_accepted"),
            (header(json!({"alg": "PS256", "kid": "k-1"})), "algorithm_not_accepted"),
            (header(json!({"alg": "RS256"})), "key_not_named"),
            (header(json!({"alg": "RS256", "kid": "k-1", "crit": ["exp"]})), "token_malformed"),
            (header(json!({"alg": "RS256", "kid": "k-2"})), "key_unknown"),
            (header(json!({"alg": "ES256", "kid": "k-1"})), "signature_invalid"),
            (stranger.token(&id_claims()), "signature_invalid"),
            (format!("{}x", key.token(&id_claims())), "signature_invalid"),
            (key.token(&with("aud", json!("other"))), "audience_mismatch"),
            (key.token(&with("exp", json!(START - 60))), "token_expired"),
            (key.token(&with("iat", json!(START + 61))), "token_not_yet_valid"),
            (key.token(&with("nbf", json!(START + 61))), "token_not_yet_valid"),
            (key.token(&with("exp", Value::Null)), "claim_invalid"),
            (key.token(&with("sub", json!("caracal:shared"))), "subject_invalid"),
            (key.token(&with("sub", json!("user\n1"))), "subject_invalid"),
            (key.token(&with("sub", json!("user\u{202E}1"))), "subject_invalid"),
            (key.token(&with("sub", json!(" user-1"))), "subject_invalid"),
            (key.token(&with("sub", json!("é".repeat(257)))), "subject_invalid"),
            (key.token(&with("iss", json!("https://IDP.example"))), "issuer_not_registered"),
            (key.token(&with("iss", json!("https://idp.example/"))), "issuer_not_registered"),
            (key.token(&with("iss", json!("https://idp.example\0"))), "issuer_not_registered"),
            (key.token(&with("iss", json!("x".repeat(7_000)))), "issuer_not_registered"),
            (key.token(&with("iss", json!(["https://idp.example"]))), "claim_invalid"),
            (key.sign(r#"{"alg":"RS256","alg":"RS256","kid":"k-1"}"#, &claims), "token_malformed"),
            (
                key.sign(r#"{"alg":"RS256","kid":"k-1"}"#, &claims.replacen('{', r#"{"sub":"admin","#, 1)),
                "token_malformed",
            ),
            (key.token(&with("groups", json!("g".repeat(13_000)))), "token_malformed"),
            ("e.y.J".to_owned(), "token_malformed"),
            ("eyJhbGciOiJub25lIn0.e30.".to_owned(), "claim_invalid"),
        ];
        let before = world.record_ids();
        for (token, reason) in rows {
            assert_eq!(rejected(&world, &token).await, reason, "{}", &token[..token.len().min(200)]);
        }
        assert_eq!(world.record_ids(), before);
        // The first that named a key had them fetched; no other did, for the set was too young.
        assert_eq!(provider.asked(), 1);
        assert_eq!(Ask::relay(&key.token(&id_claims())).send(&world).await.status, 200);
    }

    #[tokio::test]
    async fn a_token_beside_anything_but_a_lifetime_is_a_malformed_request() {
        let (world, provider, key) = scene().await;
        let relay = Ask::relay(&key.token(&id_claims()));
        for field in ["resource", "scope", "session_id", "agent_session_id", "delegation_edge_id", "approval_id"] {
            assert_eq!(relay.clone().set(field, "x").send(&world).await.outcome(), "400 invalid_token", "{field}");
            assert_eq!(world.last_event().await.outcome(), "deny subject_federation_invalid", "{field}");
        }
        assert_eq!(provider.asked(), 0, "nobody is asked for a request that can't succeed");
        for (ttl, expected) in [("60", 60), ("3600", 3_600), ("0", 900)] {
            assert_eq!(relay.clone().set("ttl_seconds", ttl).send(&world).await.json["expires_in"], expected);
        }
        for ttl in ["-1", "3601"] {
            assert_eq!(relay.clone().set("ttl_seconds", ttl).send(&world).await.outcome(), "400 invalid_token");
            assert_eq!(world.last_event().await.outcome(), "deny ttl_invalid");
        }
        // The token is judged before the lifetime.
        let bad = Ask::relay(&key.token(&with("aud", json!("x")))).set("ttl_seconds", "-1");
        assert_eq!(bad.send(&world).await.outcome(), "401 invalid_token");
    }

    #[tokio::test]
    async fn only_an_authenticated_application_has_a_provider_asked() {
        let (world, provider, key) = scene().await;
        let relay = Ask::relay(&key.token(&id_claims()));
        assert_eq!(relay.clone().set("client_secret", "wrong").send(&world).await.outcome(), "401 access_denied");
        assert_eq!(relay.without("client_secret").send(&world).await.outcome(), "401 access_denied");
        let signed =
            Signed::exchange(&world, &key.token(&id_claims())).set("subject_token_type", ID_TOKEN).without("resource");
        assert_eq!(signed.send(&world).await.outcome(), "400 invalid_token", "a Gateway speaks for no user");
        assert_eq!(provider.asked(), 0);
    }

    #[tokio::test]
    async fn a_provider_of_one_zone_vouches_for_nobody_in_another() {
        let key = IdpKey::p256("k-1");
        let provider = IdentityProvider::publishing(&[&key]).await;
        let world = World::reaching(way_out(true, true), |_| {}).await;
        let elsewhere = |row: &mut caracal_store::subject_issuers::SubjectIssuer| {
            row.zone_id = caracal_authority::ZoneId::parse(OTHER_ZONE).unwrap();
        };
        world.add_issuer("idp-2", &provider.url("/keys"), elsewhere).await;
        assert_eq!(rejected(&world, &key.token(&id_claims())).await, "issuer_not_registered");
        assert_eq!(provider.asked(), 0);
    }

    #[tokio::test]
    async fn nothing_that_is_minted_outlives_the_token() {
        let (world, _provider, key) = scene().await;
        let token = key.token(&with("exp", json!(START + 120)));
        let answer = Ask::relay(&token).set("ttl_seconds", "3600").send(&world).await;
        assert_eq!(
            (answer.json["expires_in"].as_i64(), answer.claims()["exp"].as_i64()),
            (Some(120), Some(START + 120))
        );
        let record = world.record(answer.claims()["sid"].as_str().unwrap()).await.unwrap();
        assert_eq!(record.expires_at, after(120));
        // The leeway is for clocks that differ, and ends.
        world.clock.advance(150);
        assert_eq!(Ask::relay(&token).send(&world).await.json["expires_in"], 30);
        world.clock.advance(30);
        assert_eq!(rejected(&world, &token).await, "token_expired");
    }

    #[tokio::test]
    async fn a_token_may_be_relayed_again_while_it_is_valid() {
        let (world, _provider, key) = scene().await;
        let relay = Ask::relay(&key.token(&with("jti", json!("one"))));
        let (first, second) = (relay.send(&world).await.claims(), relay.send(&world).await.claims());
        assert_ne!(first["sid"], second["sid"]);
        assert_ne!(first["jti"], second["jti"]);
    }

    #[tokio::test]
    async fn archiving_a_registration_ends_new_logins_and_no_old_ones() {
        let (world, _provider, key) = scene().await;
        let token = key.token(&id_claims());
        let mandate = Ask::relay(&token).send(&world).await;
        world.archive_issuer("idp-1").await;
        assert_eq!(rejected(&world, &token).await, "issuer_not_registered");
        let record = world.record(mandate.claims()["sid"].as_str().unwrap()).await.unwrap();
        assert_eq!(record.status, "active");
        // Presented where it can't be exchanged, but found to be in force.
        assert_eq!(Ask::direct(mandate.token()).send(&world).await.outcome(), "403 access_denied");
        assert_ne!(world.last_event().await.outcome(), "deny subject_token_invalid");
    }

    #[tokio::test]
    async fn a_registration_that_is_archived_while_its_keys_are_fetched_refuses_the_token() {
        let (world, provider, key) = scene().await;
        provider.hold_back();
        let relay = Ask::relay(&key.token(&id_claims()));
        let (answer, ()) = tokio::join!(relay.send(&world), async {
            provider.until_asked(1).await;
            // Neither a lock nor a snapshot is in the way of this change.
            world.archive_issuer("idp-1").await;
            provider.release();
        });
        assert_eq!(answer.outcome(), "401 invalid_token");
        assert_eq!(world.last_event().await.text("reason"), "issuer_not_registered");
    }

    #[tokio::test]
    async fn a_registration_that_changes_while_its_keys_are_fetched_has_the_token_judged_again() {
        let (world, provider, key) = scene().await;
        let other = IdpKey::p256("k-1");
        provider.answer("/moved", Reply::keys(&[&other]));
        provider.hold_back();
        let relay = |key: &IdpKey| Ask::relay(&key.token(&id_claims()));
        let (was_good, is_good) = (relay(&key), relay(&other));
        let (old, new, ()) = tokio::join!(was_good.send(&world), is_good.send(&world), async {
            provider.until_asked(1).await;
            world.change_issuer("idp-1", |row| row.jwks_url = provider.url("/moved")).await;
            provider.release();
        });
        assert_eq!((old.outcome().as_str(), new.status), ("401 invalid_token", 200));
        // An audience that changes counts at once, without a question.
        let asked = provider.asked();
        world.change_issuer("idp-1", |row| row.audience = "other".to_owned()).await;
        assert_eq!(rejected(&world, &other.token(&id_claims())).await, "audience_mismatch");
        assert_eq!(Ask::relay(&other.token(&with("aud", json!("other")))).send(&world).await.status, 200);
        assert_eq!(provider.asked(), asked);
    }

    /// What a session that is anchored to a user may do ends with the user's record.
    #[tokio::test]
    async fn a_session_that_acts_for_a_user_lives_and_dies_with_the_user_s_record() {
        let (world, _provider, key) = scene().await;
        let claims = Ask::relay(&key.token(&id_claims())).set("ttl_seconds", "600").send(&world).await.claims();
        let sid = claims["sid"].as_str().unwrap();
        world
            .add_session("s-user", |row| {
                row.subject_record_id = caracal_authority::AuthorityRecordId::parse(sid).unwrap();
            })
            .await;
        world
            .add_edge("e-user", |row| {
                row.target_session_id = caracal_authority::AgentSessionId::parse("s-user").unwrap();
            })
            .await;
        let mint = Ask::mint().set("agent_session_id", "s-user").set("delegation_edge_id", "e-user");
        let minted = mint.send(&world).await;
        assert_eq!(minted.claims()["agent_session_id"], "s-user");
        assert_eq!(minted.json["expires_in"], 600, "no longer than the user's record");
        world.revoke_record(sid).await;
        assert_eq!(mint.send(&world).await.outcome(), "403 access_denied");
        assert_eq!(Signed::exchange(&world, minted.token()).send(&world).await.outcome(), "403 access_denied");
    }
}

mod t12_foothold_federation {
    use super::*;

    #[tokio::test]
    async fn after_sixty_rejections_from_a_source_its_tokens_are_refused_unseen_for_a_minute() {
        let (world, provider, key) = scene().await;
        let good = Ask::relay(&key.token(&id_claims())).from("192.0.2.1:1");
        let bad = Ask::relay(&key.token(&with("aud", json!("other")))).from("192.0.2.1:1");
        for _ in 0..60 {
            assert_eq!(bad.send(&world).await.outcome(), "401 invalid_token");
        }
        let limited = bad.send(&world).await;
        assert_eq!((limited.outcome().as_str(), limited.header("retry-after")), ("429 provider_rate_limited", "60"));
        let asked = provider.asked();
        assert_eq!(good.send(&world).await.outcome(), "429 provider_rate_limited");
        assert_eq!(world.counted("federation_lockout").await, 1);
        assert_eq!(provider.asked(), asked);
        // From elsewhere, by another application, and for anything else, nobody is kept waiting.
        assert_eq!(good.clone().from("192.0.2.2:1").send(&world).await.status, 200);
        assert_eq!(good.clone().set("application_id", "app-notes").send(&world).await.status, 200);
        assert_eq!(Ask::bootstrap().from("192.0.2.1:1").send(&world).await.status, 200);
        world.clock.advance(60);
        assert_eq!(good.send(&world).await.status, 200);
    }

    #[tokio::test]
    async fn an_outage_of_the_provider_is_nobody_s_failure() {
        let (world, provider, key) = scene().await;
        provider.answer("/keys", Reply::status(503));
        let relay = Ask::relay(&key.token(&id_claims())).from("192.0.2.1:1");
        for _ in 0..70 {
            assert_eq!(relay.send(&world).await.outcome(), "503 sts_unavailable");
        }
        provider.answer("/keys", Reply::keys(&[&key]));
        world.clock.advance(1);
        assert_eq!(relay.send(&world).await.status, 200);
    }
}
