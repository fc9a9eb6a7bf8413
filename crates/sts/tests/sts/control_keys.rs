//! Control keys: who may ask for the Control endpoint's audience (contract: sts.md §3.5, §3.10; security property 6).

use serde_json::json;

use crate::support::*;

const CONTROL: &str = "caracal-control";
const READ: &str = "control:app:read";

/// A zone with the control resource, and with a key for one of its two scopes.
async fn world(traits: &[&str]) -> World {
    let world = World::new().await;
    let scopes = vec![READ.to_owned(), "control:app:write".to_owned()];
    world.add_resource("r-control", CONTROL, |row| row.scopes = scopes).await;
    let traits = traits.iter().map(|name| (*name).to_owned()).collect();
    world.change_application(APP, |row| row.traits = traits).await;
    world
}

async fn key() -> World {
    world(&["control:invoke", "control:scope:control:app:read"]).await
}

fn ask() -> Ask {
    Ask::bootstrap().set("resource", CONTROL).set("scope", READ)
}

mod t02_sts_control_keys {
    use super::*;

    #[tokio::test]
    async fn a_control_key_gets_a_mandate_for_the_control_audience_and_policy_is_not_asked() {
        let world = key().await;
        for ask in [ask(), ask().without("zone_id")] {
            let answer = ask.send(&world).await;
            assert_eq!((answer.status, &answer.json["expires_in"]), (200, &json!(900)), "{}", answer.json);
            let claims = answer.claims();
            assert_eq!(claims["aud"], json!([CONTROL]));
            assert_eq!((&claims["use"], &claims["scope"]), (&json!("resource"), &json!(READ)));
            assert_eq!((&claims["sub"], &claims["zone_id"]), (&json!(APP), &json!(ZONE)));
            assert_eq!(claims["root_sid"], claims["sid"]);
            let event = world.last_event().await;
            assert_eq!(event.outcome(), "allow complete");
            assert_eq!(event.row.determining_policies, r#"[{"policy": "control-key"}]"#);
            assert_eq!(event.row.policy_set_version_id, "", "no policy decided");
        }
    }

    #[tokio::test]
    async fn what_is_no_control_request_needs_a_zone_and_counts_as_a_guess() {
        let world = key().await;
        for ask in [
            ask().set("resource", "resource://docs"),
            ask().add("resource", "resource://docs"),
            ask().set("scope", "agent:lifecycle"),
            ask().set("scope", ""),
            ask().set("session_id", "rec-app"),
            ask().set("agent_session_id", "s-1"),
        ] {
            assert_eq!(ask.without("zone_id").send(&world).await.outcome(), "401 access_denied");
        }
        assert_eq!(
            ask().without("zone_id").set("client_secret", "x").send(&world).await.outcome(),
            "401 access_denied"
        );
        // Nor is a zone that is none the same as no zone.
        assert_eq!(ask().set("zone_id", "no zone").send(&world).await.outcome(), "401 access_denied");
        assert_eq!(world.record_ids(), ["rec-app"]);
    }

    #[tokio::test]
    async fn a_control_key_asks_for_itself_alone_and_for_what_its_traits_list() {
        let world = key().await;
        for ask in [
            ask().set("scope", "control:app:write"),
            ask().set("scope", "control:app:read control:app:write"),
            ask().set("session_id", "rec-app"),
            ask().set("agent_session_id", "s-1"),
        ] {
            assert_eq!(ask.send(&world).await.outcome(), "403 access_denied");
            assert_eq!(world.evidence().await.iter().filter(|event| event.outcome().starts_with("allow")).count(), 0);
        }
        assert_eq!(world.last_event().await.outcome(), "deny control_resource_requires_control_key");
    }

    #[tokio::test]
    async fn a_mandate_for_the_control_audience_is_for_nothing_else() {
        let world = key().await;
        let answer = ask().add("resource", "resource://docs").send(&world).await;
        assert_eq!(answer.json["target_resources"], json!([CONTROL]));
        assert_eq!(answer.claims()["aud"], json!([CONTROL]));
    }

    #[tokio::test]
    async fn the_life_of_a_control_mandate_is_cut_by_its_key_and_never_refused_for_it() {
        let bounded = ["control:invoke", "control:scope:control:app:read", "control:max-ttl:120"];
        let world = world(&bounded).await;
        assert_eq!(ask().set("ttl_seconds", "300").send(&world).await.json["expires_in"], json!(120));
        assert_eq!(ask().set("ttl_seconds", "60").send(&world).await.json["expires_in"], json!(60));
    }

    #[tokio::test]
    async fn a_key_that_has_ended_or_whose_end_cannot_be_read_gets_nothing() {
        for end in ["2020-01-01T00:00:00Z", "1.1.2040"] {
            let end = format!("control:expires:{end}");
            let world = world(&["control:invoke", "control:scope:control:app:read", &end]).await;
            assert_eq!(ask().send(&world).await.outcome(), "403 access_denied");
            assert_eq!(ask().without("zone_id").send(&world).await.outcome(), "403 access_denied");
        }
        let world =
            world(&["control:invoke", "control:scope:control:app:read", "control:expires:2090-01-01T00:00:00.5Z"]);
        assert_eq!(ask().send(&world.await).await.status, 200);
    }
}
