//! An application asks for itself: the mandate it speaks to the Coordinator with (contract: sts.md §3.6, §3.8, §3.11).

use serde_json::{Value, json};

use crate::support::*;

mod t02_sts_bootstrap {
    use super::*;

    #[tokio::test]
    async fn an_application_gets_a_reusable_session_mandate_and_nothing_more() {
        let world = World::new().await;
        let answer = Ask::bootstrap().send(&world).await;
        let claims = answer.claims();
        assert_eq!(
            answer.json,
            json!({
                "access_token": answer.token(),
                "token_type": "Bearer",
                "expires_in": 900,
                "scope": "agent:lifecycle",
                "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
                "target_resources": [DOCS],
            })
        );
        assert_eq!(
            claims,
            json!({
                "iss": ISSUER,
                "sub": APP,
                "aud": [ISSUER],
                "exp": START + 900,
                "iat": START,
                "jti": claims["jti"],
                "zone_id": ZONE,
                "client_id": APP,
                "sid": claims["sid"],
                "root_sid": claims["sid"],
                "use": "session",
                "sub_type": "application",
                "scope": "agent:lifecycle",
                "target": [DOCS],
            })
        );
        let header = caracal_crypto::encoding::from_base64url(answer.token().split('.').next().unwrap()).unwrap();
        let header: Value = serde_json::from_slice(&header).unwrap();
        assert_eq!(header, json!({"alg": "ES256", "kid": header["kid"], "typ": "JWT"}));
        assert_eq!(answer.header("content-type"), "application/json");
        assert_eq!(answer.header("cache-control"), "no-store");
        assert_eq!(answer.body.last(), Some(&b'\n'));
    }

    #[tokio::test]
    async fn the_record_behind_it_says_the_same() {
        let world = World::new().await;
        let claims = Ask::bootstrap().send(&world).await.claims();
        let record = world.record(claims["sid"].as_str().unwrap()).await.unwrap();
        assert_eq!(
            (record.kind.as_str(), record.subject_id.as_str(), record.use_class.as_str()),
            ("application", APP, "session")
        );
        assert_eq!((record.client_id.as_str(), record.status.as_str(), &record.parent_id), (APP, "active", &None));
        assert_eq!((record.jti.as_str(), record.expires_at), (claims["jti"].as_str().unwrap(), after(900)));
        assert_eq!((record.agent_session_id, record.delegation_edge_id), (None, None));
    }

    #[tokio::test]
    async fn the_life_is_what_was_asked_for_within_its_class() {
        let world = World::new().await;
        for (asked, expected) in [
            ("", "900"),
            ("0", "900"),
            ("1", "1"),
            ("+5", "5"),
            ("3600", "3600"),
            ("3601", "400 invalid_token"),
            ("-1", "400 invalid_token"),
            ("abc", "400 invalid_token"),
        ] {
            let answer = Ask::bootstrap().set("ttl_seconds", asked).send(&world).await;
            let found = match answer.status {
                200 => {
                    let claims = answer.claims();
                    let life = claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
                    assert_eq!(answer.json["expires_in"], life);
                    life.to_string()
                }
                _ => answer.outcome(),
            };
            assert_eq!(found, expected, "{asked:?}");
        }
        // Out of bounds is found out after policy has said yes; no number at all before anything.
        let refused: Vec<_> = world.evidence().await.into_iter().filter(|event| event.row.decision == "deny").collect();
        assert_eq!(refused.len(), 4);
        for event in refused {
            assert_eq!(event.outcome(), "deny ttl_invalid");
            assert_eq!(event.row.policy_set_version_id.is_empty(), event.metadata.get("resource").is_none());
        }
    }

    #[tokio::test]
    async fn it_never_outlives_its_application() {
        let world = World::new().await;
        world.add_application("app-brief", |row| row.expires_at = Some(after(30))).await;
        world.activate(&POLICY.replace("app-docs", "app-brief")).await;
        let ask = Ask::bootstrap().set("application_id", "app-brief");
        assert_eq!(ask.send(&world).await.json["expires_in"], 30);
        world.clock.advance(29);
        assert_eq!(ask.send(&world).await.json["expires_in"], 1);
        world.clock.advance(1);
        assert_eq!(ask.send(&world).await.outcome(), "401 access_denied");
    }

    #[tokio::test]
    async fn an_asserted_record_has_to_be_live_and_the_application_s_own() {
        let world = World::new().await;
        world.add_record("rec-user", |row| row.kind = "user".to_owned()).await;
        world.add_record("rec-notes", |row| row.subject_id = "app-notes".to_owned()).await;
        world.add_record("rec-revoked", |_| {}).await;
        world.revoke_record("rec-revoked").await;
        world.add_record("rec-lapsed", |row| row.expires_at = after(0)).await;
        world.add_record("rec-brief", |row| row.expires_at = after(60)).await;
        for (record, expected) in [
            ("rec-user", "403 access_denied"),
            ("rec-notes", "403 access_denied"),
            ("rec-revoked", "403 access_denied"),
            ("rec-lapsed", "403 access_denied"),
            ("rec-unknown", "403 access_denied"),
            ("no id at all", "403 access_denied"),
        ] {
            assert_eq!(Ask::bootstrap().set("session_id", record).send(&world).await.outcome(), expected, "{record}");
            assert_eq!(world.last_event().await.outcome(), "deny reference_invalid", "{record}");
        }
        let answer = Ask::bootstrap().set("session_id", "rec-brief").send(&world).await;
        assert_eq!(answer.json["expires_in"], 60);
        let minted = world.record(answer.claims()["sid"].as_str().unwrap()).await.unwrap();
        assert_eq!(minted.parent_id.unwrap().as_str(), "rec-brief");
    }

    #[tokio::test]
    async fn an_application_that_owns_nothing_there_gets_nothing() {
        let world = World::new().await;
        let answer = Ask::bootstrap().set("application_id", "app-notes").send(&world).await;
        assert_eq!(answer.outcome(), "403 access_denied");
        assert_eq!(answer.text("error_description"), "policy denied (no_rule_matched)");
    }

    #[tokio::test]
    async fn a_zone_without_policy_grants_nothing() {
        let world = World::new().await;
        let version = world.activate(POLICY).await;
        let set = version.as_str().replacen("psv-", "ps-", 1);
        let set = caracal_authority::PolicySetId::parse(&set).unwrap();
        let done =
            world.change(set, |tx, set| Box::pin(async move { caracal_store::policy_sets::deactivate(tx, set).await }));
        assert!(done.await);
        let answer = Ask::bootstrap().send(&world).await;
        assert_eq!(answer.text("error_description"), "policy denied (no_active_policy_set)");
        let event = world.evidence().await.remove(0);
        assert_eq!(
            (event.outcome().as_str(), event.row.manifest_sha.as_str(), event.row.policy_set_version_id.as_str()),
            ("deny complete", "no_active_policy_set", "")
        );
        assert_eq!(event.diagnostics, json!([{"reason": "no_active_policy_set"}]));
    }

    #[tokio::test]
    async fn the_lifecycle_scope_is_implied_by_an_upstream_and_otherwise_has_to_be_declared() {
        let world = World::new().await;
        world.change_resource("r-docs", |row| row.upstream_url = None).await;
        assert_eq!(Ask::bootstrap().send(&world).await.outcome(), "403 access_denied");
        assert_eq!(world.evidence().await[0].outcome(), "deny scope_mismatch");
        world.change_resource("r-docs", |row| row.scopes.push("agent:lifecycle".to_owned())).await;
        assert_eq!(Ask::bootstrap().send(&world).await.status, 200);
    }

    #[tokio::test]
    async fn a_session_without_delegation_is_granted_nothing_by_the_platform_s_contract() {
        let world = World::new().await;
        for scope in ["agent:lifecycle", "docs:read"] {
            let ask = Ask::bootstrap().set("agent_session_id", "s-1").set("scope", scope);
            let answer = ask.send(&world).await;
            assert_eq!(answer.text("error_description"), "policy denied (no_rule_matched)", "{scope}");
        }
    }

    #[tokio::test]
    async fn the_control_audience_is_not_for_ordinary_applications() {
        let world = World::new().await;
        world
            .add_resource("r-control", "caracal-control", |row| row.scopes = vec!["control:app:read".to_owned()])
            .await;
        let grants = r#""resource://docs""#;
        world.activate(&POLICY.replace(grants, r#""caracal-control""#)).await;
        for scope in ["agent:lifecycle", "control:app:read"] {
            let ask = Ask::bootstrap().set("resource", "caracal-control").set("scope", scope);
            assert_eq!(ask.send(&world).await.outcome(), "403 access_denied");
            assert_eq!(world.last_event().await.outcome(), "deny control_resource_requires_control_key");
            // Without a zone only a control key could come, and there are none.
            assert_eq!(ask.without("zone_id").send(&world).await.outcome(), "401 access_denied");
        }
    }
}

mod t02_sts_resources {
    use super::*;

    #[tokio::test]
    async fn of_two_resources_the_unknown_one_is_left_out() {
        let world = World::new().await;
        let ask = Ask::bootstrap().add("resource", "resource://unknown");
        let answer = ask.send(&world).await;
        assert_eq!(answer.json["target_resources"], json!([DOCS]));
        assert_eq!(answer.claims()["target"], json!([DOCS]));
        let found: Vec<String> = world.evidence().await.iter().map(Event::outcome).collect();
        assert_eq!(found, ["allow complete", "deny resource_not_found"]);
    }

    #[tokio::test]
    async fn a_resource_named_twice_or_by_both_its_names_is_one_resource() {
        let world = World::new().await;
        for second in [DOCS, " resource://docs ", "r-docs"] {
            let answer = Ask::bootstrap().add("resource", second).send(&world).await;
            assert_eq!(answer.json["target_resources"], json!([DOCS]), "{second}");
        }
        let answer = Ask::bootstrap().set("resource", "r-docs").send(&world).await;
        assert_eq!(answer.json["target_resources"], json!([DOCS]));
        assert!(world.evidence().await.iter().all(|event| event.outcome() == "allow complete"));
        assert_eq!(world.evidence().await.len(), 4);
    }

    #[tokio::test]
    async fn nothing_of_another_zone_archived_or_in_other_letters_is_found() {
        let world = World::new().await;
        world.add_resource("r-gone", "resource://gone", |_| {}).await;
        world.tamper("UPDATE resources SET archived_at = 1 WHERE id = 'r-gone'");
        world.add_resource("r-far", "resource://far", |_| {}).await;
        world.tamper("UPDATE resources SET zone_id = 'z-2' WHERE id = 'r-far'");
        for name in ["resource://gone", "r-gone", "resource://far", "r-far", "resource://DOCS", "R-DOCS", "e-1"] {
            let answer = Ask::bootstrap().set("resource", name).send(&world).await;
            assert_eq!(answer.outcome(), "403 access_denied", "{name}");
            assert_eq!(answer.text("error_description"), "policy denied", "{name}");
        }
        let events = world.evidence().await;
        assert!(events.iter().all(|event| event.row.decision == "deny"));
        // One for the resource that was not found, one for the exchange.
        let found: Vec<String> = events[..2].iter().map(Event::outcome).collect();
        assert_eq!(found, ["deny resource_not_found", "deny exchange_denied"]);
        assert_eq!(events[1].metadata["requested"], json!(["resource://gone"]));
    }

    #[tokio::test]
    async fn no_resource_is_a_malformed_request() {
        let world = World::new().await;
        assert_eq!(Ask::bootstrap().without("resource").send(&world).await.outcome(), "400 invalid_token");
        assert_eq!(world.last_event().await.outcome(), "deny request_invalid");
    }

    #[tokio::test]
    async fn a_scope_the_resource_does_not_offer_is_a_mismatch_for_that_resource_alone() {
        let world = World::new().await;
        let answer = Ask::mint().set("scope", "notes:read").add("resource", NOTES).send(&world).await;
        assert_eq!(answer.outcome(), "403 access_denied");
        // The delegation lends no such scope, and that is looked at first.
        assert_eq!(world.last_event().await.outcome(), "deny reference_invalid");
        let answer = Ask::bootstrap().set("scope", "docs:read docs:delete").send(&world).await;
        assert_eq!(answer.outcome(), "403 access_denied");
        let events = world.evidence().await;
        assert_eq!(events[events.len() - 2].outcome(), "deny scope_mismatch");
    }

    #[tokio::test]
    async fn what_no_mandate_can_carry_is_refused_with_evidence_and_leaves_no_record() {
        let world = World::new().await;
        let mut grants = String::new();
        let mut ask = Ask::bootstrap();
        for number in 0..40 {
            let name = format!("resource://a-name-of-fair-length-with-a-few-words-more-and-a-number-{number}");
            world.add_resource(&format!("r-{number}"), &name, |_| {}).await;
            grants.push_str(&format!("{name:?}: {{\"application\": \"docs\", \"roles\": {{}}}},\n"));
            ask = ask.add("resource", &name);
        }
        world.activate(&POLICY.replace("grants := {", &format!("grants := {{{grants}"))).await;
        let records = world.record_ids().len();
        let answer = ask.send(&world).await;
        assert_eq!(answer.outcome(), "400 invalid_token");
        let events = world.evidence().await;
        assert_eq!((events.len(), events[0].outcome().as_str()), (1, "deny mandate_too_large"));
        assert_eq!(events[0].metadata["requested"].as_array().unwrap().len(), 41);
        assert_eq!(world.record_ids().len(), records);
    }
}
