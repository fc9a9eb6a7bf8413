//! A Gateway trades a presented one-shot mandate for the authority of one call (contract: sts.md §3.6, §3.7, §3.9,
//! §10; README D18, D35).

use caracal_authority::ZoneId;
use serde_json::json;

use crate::support::*;

mod t02_sts_gateway_exchange {
    use super::*;

    #[tokio::test]
    async fn a_gateway_mandate_becomes_a_resource_mandate_and_a_directive() {
        let world = World::new().await;
        let presented = claims_of(&world.mandate().await);
        let mandate = world.sign(&presented).await;
        let answer = Signed::exchange(&world, &mandate).send(&world).await;
        let claims = answer.claims();
        assert_eq!(
            answer.json,
            json!({
                "access_token": answer.token(),
                "token_type": "Bearer",
                "expires_in": 900,
                "scope": "docs:read",
                "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
                "target_resources": [DOCS],
                "upstreams": {
                    DOCS: {
                        "url": "https://upstream.example/base",
                        "auth_mode": "caracal_jwt",
                        "auth_header": "Authorization",
                        "auth_scheme": "Bearer",
                    },
                },
            })
        );
        let mut expected = presented.clone();
        expected["aud"] = json!([DOCS]);
        expected["use"] = json!("resource");
        expected["jti"] = claims["jti"].clone();
        expected["sid"] = claims["sid"].clone();
        assert_eq!(claims, expected);
        assert_ne!(claims["sid"], presented["sid"]);
        assert_ne!(claims["jti"], presented["jti"]);
        let record = world.record(claims["sid"].as_str().unwrap()).await.unwrap();
        assert_eq!(record.parent_id.unwrap().as_str(), presented["sid"]);
        assert_eq!((record.use_class.as_str(), record.expires_at), ("resource", after(900)));
    }

    #[tokio::test]
    async fn it_lives_no_longer_than_what_was_presented() {
        let world = World::new().await;
        let mandate = Ask::mint().set("ttl_seconds", "100").send(&world).await.token().to_owned();
        world.clock.advance(90);
        assert_eq!(Signed::exchange(&world, &mandate).send(&world).await.json["expires_in"], 10);
    }

    #[tokio::test]
    async fn a_gateway_in_the_same_process_gets_the_same_without_signature_or_nonce() {
        let world = World::new().await;
        let mandate = world.mandate().await;
        let granted = world.sts.exchange_for_gateway(gateway_call(&mandate)).await.ok().unwrap();
        assert_eq!(claims_of(granted.access_token.expose())["aud"], json!([DOCS]));
        assert_eq!((granted.expires_in, granted.scope.as_str(), granted.upstreams.len()), (900, "docs:read", 1));
        let again = world.sts.exchange_for_gateway(gateway_call(&mandate)).await.err().unwrap();
        assert_eq!((again.status().as_u16(), again.code()), (401, "invalid_token"));
        let refused = world.sts.exchange_for_gateway(gateway_call("no mandate")).await.err().unwrap();
        assert_eq!((refused.status().as_u16(), refused.code()), (401, "invalid_token"));
        // Over HTTP it is used up, too.
        assert_eq!(Signed::exchange(&world, &mandate).send(&world).await.outcome(), "401 invalid_token");
    }

    #[tokio::test]
    async fn a_mandate_serves_one_exchange_whether_it_was_allowed_or_denied() {
        let world = World::new().await;
        let mandate = world.mandate().await;
        let denied = Signed::exchange(&world, &mandate).set("request_path", "/admin").send(&world).await;
        assert_eq!(denied.outcome(), "403 operation_not_permitted");
        let events = world.evidence().await.len();
        let again = Signed::exchange(&world, &mandate).send(&world).await;
        assert_eq!(again.outcome(), "401 invalid_token");
        assert_eq!(again.text("error_description"), "token replay detected");
        let denied_again = Signed::exchange(&world, &mandate).set("request_path", "/admin").send(&world).await;
        assert_eq!(denied_again.text("error_description"), "token replay detected");
        // The Gateway records that it came back; here nothing was decided a second time.
        assert_eq!(world.evidence().await.len(), events);
    }

    /// A Gateway records what was not recorded here, and knows a replay without reading prose.
    #[tokio::test]
    async fn a_gateway_is_told_what_became_of_the_mandate_and_nobody_else_is() {
        let world = World::new().await;
        let mandate = world.mandate().await;
        let exchange = || Signed::exchange(&world, &mandate);
        let told = async |signed: Signed| {
            let answer = signed.send(&world).await;
            (answer.status, answer.header("x-caracal-gateway-decision").to_owned())
        };
        assert_eq!(told(exchange().set("resource", "")).await, (400, "none".to_owned()));
        assert_eq!(told(exchange().set("gateway_request_id", "another")).await, (401, "none".to_owned()));
        assert_eq!(told(exchange().set("request_path", "/admin")).await, (403, "denied".to_owned()));
        assert_eq!(told(exchange()).await, (401, "replayed".to_owned()));
        let other = world.mandate().await;
        let granted = Signed::exchange(&world, &other);
        assert_eq!(told(granted).await, (200, String::new()));
        let denied = Ask::mint().set("scope", "docs:write").send(&world).await;
        assert_eq!((denied.status, denied.header("x-caracal-gateway-decision")), (403, ""));
        let last = world.mandate().await;
        let unable = Signed::exchange(&world, &last);
        world.store.close().await;
        assert_eq!(told(unable).await, (503, "none".to_owned()));
    }

    #[tokio::test]
    async fn a_use_is_remembered_as_long_as_the_mandate_is_looked_at() {
        let world = World::new().await;
        let mandate = Ask::mint().set("ttl_seconds", "10").send(&world).await.token().to_owned();
        assert_eq!(Signed::exchange(&world, &mandate).send(&world).await.status, 200);
        world.clock.advance(10 + 59);
        world.forget_what_is_over().await;
        let again = Signed::exchange(&world, &mandate).send(&world).await;
        assert_eq!(again.text("error_description"), "token replay detected");
    }

    #[tokio::test]
    async fn a_malformed_or_unproven_exchange_uses_nothing_up() {
        let world = World::new().await;
        let mandate = world.mandate().await;
        let exchange = || Signed::exchange(&world, &mandate);
        for (refused, expected) in [
            (exchange().set("resource", ""), "400 invalid_token"),
            (exchange().set("ttl_seconds", "soon"), "400 invalid_token"),
            (exchange().without("subject_token"), "400 invalid_token"),
            (exchange().set("gateway_request_id", "another"), "401 access_denied"),
        ] {
            assert_eq!(refused.send(&world).await.outcome(), expected);
        }
        assert_eq!(exchange().send(&world).await.status, 200);
    }

    #[tokio::test]
    async fn only_a_gateway_mandate_of_this_zone_in_force_may_be_presented() {
        let world = World::new().await;
        let session = Ask::bootstrap().send(&world).await.token().to_owned();
        let resource = Signed::exchange(&world, &world.mandate().await).send(&world).await.token().to_owned();
        let mandate = world.mandate().await;
        for (what, exchange, expected) in [
            ("a session mandate", Signed::exchange(&world, &session), "401 invalid_token"),
            ("a resource mandate", Signed::exchange(&world, &resource), "401 invalid_token"),
            ("another zone", Signed::exchange(&world, &mandate).set("zone_id", OTHER_ZONE), "401 access_denied"),
            (
                "no mandate at all",
                Signed::exchange(&world, &mandate).without("subject_token").without("subject_token_type"),
                "401 access_denied",
            ),
            (
                "another application",
                Signed::exchange(&world, &mandate).set("application_id", "app-notes"),
                "403 access_denied",
            ),
        ] {
            assert_eq!(exchange.send(&world).await.outcome(), expected, "{what}");
        }
        let mandate = world.mandate().await;
        // Within the leeway it is still looked at, and there is nothing left to lend.
        world.clock.advance(930);
        assert_eq!(Signed::exchange(&world, &mandate).send(&world).await.outcome(), "403 access_denied");
        world.clock.advance(30);
        assert_eq!(Signed::exchange(&world, &mandate).send(&world).await.outcome(), "401 invalid_token");
        assert_eq!(world.last_event().await.outcome(), "deny subject_token_invalid");
    }

    #[tokio::test]
    async fn an_application_of_the_other_zone_with_a_mandate_of_this_one_gets_nothing() {
        let world = World::new().await;
        let mandate = world.mandate().await;
        world.add_application("app-far", |row| row.zone_id = ZoneId::parse(OTHER_ZONE).unwrap()).await;
        let exchange = Signed::exchange(&world, &mandate).set("zone_id", OTHER_ZONE).set("application_id", "app-far");
        assert_eq!(exchange.send(&world).await.outcome(), "401 invalid_token");
        assert_eq!(world.evidence_of(OTHER_ZONE).await.len(), 1);
        assert_eq!(Signed::exchange(&world, &mandate).send(&world).await.status, 200);
    }

    #[tokio::test]
    async fn a_form_that_contradicts_the_mandate_is_refused() {
        let world = World::new().await;
        world.add_edge("e-2", |_| {}).await;
        world.add_session("s-2", |_| {}).await;
        for (field, agrees, differs) in
            [("agent_session_id", "s-1", "s-2"), ("delegation_edge_id", "e-1", "e-2"), ("session_id", "", "rec-app")]
        {
            let exchange = Signed::exchange(&world, &world.mandate().await).set(field, differs);
            assert_eq!(exchange.send(&world).await.outcome(), "403 access_denied", "{field}");
            let mandate = world.mandate().await;
            let agreeing = if agrees.is_empty() {
                claims_of(&mandate)["sid"].as_str().unwrap().to_owned()
            } else {
                agrees.to_owned()
            };
            let exchange = Signed::exchange(&world, &mandate).set(field, &agreeing);
            assert_eq!(exchange.send(&world).await.status, 200, "{field}");
        }
    }

    #[tokio::test]
    async fn whatever_a_mandate_hangs_on_ends_it_at_the_next_exchange() {
        for (what, end) in [
            ("its record", "UPDATE authority_records SET status = 'revoked' WHERE use_class = 'gateway'"),
            (
                "its record, by the store's clock",
                "UPDATE authority_records SET expires_at = 1 WHERE use_class = 'gateway'",
            ),
            ("its session", "UPDATE agent_sessions SET status = 'terminated' WHERE id = 's-1'"),
            ("the lending session", "UPDATE agent_sessions SET status = 'suspended' WHERE id = 's-root'"),
            ("its edge", "UPDATE delegation_edges SET status = 'revoked' WHERE id = 'e-1'"),
            ("the scopes of its edge", "UPDATE delegation_edges SET scopes = '[\"docs:write\"]' WHERE id = 'e-1'"),
            ("its resource", "UPDATE resources SET archived_at = 1 WHERE id = 'r-docs'"),
        ] {
            let world = World::new().await;
            let mandate = world.mandate().await;
            world.tamper(end);
            assert_eq!(Signed::exchange(&world, &mandate).send(&world).await.outcome(), "403 access_denied", "{what}");
        }
    }

    #[tokio::test]
    async fn narrowing_a_grant_stops_mandates_that_are_out() {
        let world = World::new().await;
        let mandate = world.mandate().await;
        world.activate(&POLICY.replace(r#""reader": ["docs:read"], "#, "")).await;
        let answer = Signed::exchange(&world, &mandate).send(&world).await;
        assert_eq!(answer.text("error_description"), "policy denied (role_scope_mismatch)");
    }

    #[tokio::test]
    async fn a_mandate_is_good_for_its_target_alone() {
        let world = World::new().await;
        world.add_resource("r-more", "resource://more", |_| {}).await;
        world
            .activate(&POLICY.replace(
                r#"  "resource://notes""#,
                "  \"resource://more\": {\"application\": \"docs\", \"roles\": {\"reader\": [\"docs:read\"]}},\n  \"resource://notes\"",
            ))
            .await;
        world.tamper("UPDATE delegation_edges SET resource_id = NULL WHERE id = 'e-1'");
        let exchange = Signed::exchange(&world, &world.mandate().await).set("resource", "resource://more");
        let answer = exchange.send(&world).await;
        assert_eq!(answer.text("error_description"), "policy denied (mandate_target_mismatch)");
    }

    #[tokio::test]
    async fn the_life_asked_for_has_a_lower_bound_than_elsewhere() {
        let world = World::new().await;
        for (asked, expected) in [("900", 200), ("901", 400), ("-1", 400), ("60", 200)] {
            let exchange = Signed::exchange(&world, &world.mandate().await).set("ttl_seconds", asked);
            assert_eq!(exchange.send(&world).await.status, expected, "{asked}");
        }
    }

    #[tokio::test]
    async fn a_scope_the_gateway_names_itself_is_granted_nothing() {
        let world = World::new().await;
        let exchange = Signed::exchange(&world, &world.mandate().await).set("scope", "docs:read");
        assert_eq!(exchange.send(&world).await.text("error_description"), "policy denied (no_rule_matched)");
    }
}

mod t02_sts_operations {
    use super::*;
    use caracal_store::resources::Operation;

    fn operation(method: &str, path: &str, scope: &str) -> Operation {
        Operation { method: method.to_owned(), path: path.to_owned(), scope: scope.to_owned() }
    }

    #[tokio::test]
    async fn an_undeclared_operation_is_refused_whatever_policy_says() {
        let world = World::new().await;
        world.change_resource("r-docs", |row| row.operations.push(operation("GET", "/items/{id}", "docs:read"))).await;
        for (method, path, expected) in [
            ("GET", "/items", "200 "),
            ("get", "/items", "200 "),
            (" GET ", "/items", "200 "),
            ("GET", "/items/7", "200 "),
            ("GET", "/items/7/", "403 operation_not_permitted"),
            ("GET", "/items/7%2fsecret", "403 operation_not_permitted"),
            ("GET", "/items/..", "403 operation_not_permitted"),
            ("GET", "/ITEMS", "403 operation_not_permitted"),
            ("GET", " /items", "403 operation_not_permitted"),
            ("GET", "/admin", "403 operation_not_permitted"),
            ("DELETE", "/items", "403 operation_not_permitted"),
            ("GET", "", "403 operation_not_permitted"),
            ("", "/items", "403 operation_not_permitted"),
            // Declared, for a scope that the mandate does not carry.
            ("POST", "/items", "403 operation_not_permitted"),
        ] {
            let exchange = Signed::exchange(&world, &world.mandate().await);
            let answer = exchange.set("request_method", method).set("request_path", path).send(&world).await;
            assert_eq!(answer.outcome(), expected, "{method} {path}");
            let event = world.last_event().await;
            assert_eq!(event.text("path"), path);
            assert_eq!(event.text("method"), method.trim().to_uppercase());
        }
        let exchange = Signed::exchange(&world, &world.mandate().await);
        let answer = exchange.without("request_method").without("request_path").send(&world).await;
        assert_eq!(answer.outcome(), "403 operation_not_permitted");
    }

    #[tokio::test]
    async fn one_endpoint_that_carries_every_operation_is_not_checked_for_operations() {
        let world = World::new().await;
        world.change_resource("r-docs", |row| row.operation_enforcement = "transport_uniform".to_owned()).await;
        let exchange = Signed::exchange(&world, &world.mandate().await).set("request_path", "/mcp");
        assert_eq!(exchange.send(&world).await.status, 200);
    }

    #[tokio::test]
    async fn a_resource_that_declares_nothing_lets_nothing_pass() {
        let world = World::new().await;
        world.change_resource("r-docs", |row| row.operations.clear()).await;
        let exchange = Signed::exchange(&world, &world.mandate().await);
        assert_eq!(exchange.send(&world).await.outcome(), "403 operation_not_permitted");
    }
}
