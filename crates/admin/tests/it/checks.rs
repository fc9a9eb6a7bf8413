//! What an operator asks of a provider before anybody else does (contract: admin-api.md §5.4 and §7).

use serde_json::{Value, json};

use crate::authorization_server::SECRET;
use crate::world::{World, idp};

/// A draft of a provider that asks for itself.
fn draft(name: &str, more: Value) -> Value {
    let mut config = json!({
        "token_endpoint": format!("{}/token", idp().url()), "client_id": name, "client_secret": SECRET,
    });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"name": name, "kind": "oauth2_client_credentials", "config_json": config})
}

async fn world() -> (World, String) {
    let world = World::new().await;
    let zone = world.zone("Ops").await;
    (world, format!("/v1/zones/{zone}/providers"))
}

fn asked_as(client: &str) -> usize {
    use base64::Engine;
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("{client}:{SECRET}"));
    let header = format!("Basic {pair}");
    idp().seen().iter().filter(|request| request.header("authorization") == Some(&header)).count()
}

#[tokio::test]
async fn a_check_says_how_the_endpoint_answered_and_the_provider_keeps_it() {
    let (world, path) = world().await;
    let accounts = json!({"authorization_endpoint": "https://idp.example/a", "redirect_uri": "https://c.example/"});
    let with_accounts = |client: &str, secret: &str| {
        let mut body = draft(client, accounts.clone());
        body["kind"] = json!("oauth2_authorization_code");
        body["config_json"]["client_secret"] = json!(secret);
        body
    };
    for (body, status) in [
        (draft("check-1", json!({})), "ok"),
        (draft("check-2", json!({"client_secret": "wrong"})), "auth_failed"),
        (draft("away", json!({})), "endpoint_error"),
        (draft("html", json!({})), "endpoint_error"),
        (draft("moved", json!({})), "endpoint_error"),
        (with_accounts("check-3", SECRET), "ok"),
        (with_accounts("check-4", "wrong"), "auth_failed"),
        (draft("check-5", json!({"token_endpoint": "https://localhost:9/token"})), "unreachable"),
    ] {
        let made = world.call("POST", &path, Some(body.clone())).await.is(201);
        assert!(made["connectivity_failed_at"].is_string(), "nobody has seen it answer");
        let one = format!("{path}/{}", made["id"].as_str().unwrap());
        world.clock.advance(61);
        let found = world.call("POST", &format!("{one}/test"), None).await.is(200);
        assert_eq!(found["status"], status, "{body} {found}");
        assert!(found["checked_at"].is_string() && !found.to_string().contains("t0p"), "{found}");
        let shown = world.get(&one).await.is(200);
        assert_eq!(shown["connectivity_failed_at"].is_null(), status == "ok", "{shown}");
        assert_eq!(shown["updated_at"], made["updated_at"], "a check is no change of its configuration");
    }
    assert_eq!(asked_as("check-1"), 1);
    let none = world.create(&path, json!({"name": "n", "kind": "none"})).await;
    world.call("POST", &format!("{path}/{none}/test"), None).await.is_refused(400, "provider_check_unsupported");
    world.call("POST", &format!("{path}/p-404/test"), None).await.is_refused(404, "provider_not_found");
}

#[tokio::test]
async fn a_provider_that_is_checked_first_is_there_only_if_it_answers() {
    let (world, path) = world().await;
    let checked = |mut body: Value| {
        body["check"] = json!(true);
        body
    };
    let made = world.call("POST", &path, Some(checked(draft("first-1", json!({}))))).await.is(201);
    assert_eq!(made["connectivity_failed_at"], Value::Null);
    let answer = world.call("POST", &path, Some(checked(draft("first-2", json!({"client_secret": "wrong"}))))).await;
    answer.is_refused(422, "provider_check_failed");
    let check = &answer.json()["details"]["check"];
    assert_eq!(check["status"], "auth_failed");
    assert!(check["detail"].as_str().unwrap().contains("invalid_client") && check["checked_at"].is_string());
    assert_eq!(world.get(&path).await.is(200)["items"].as_array().unwrap().len(), 1);
    let body = checked(json!({"name": "n", "kind": "none"}));
    world.call("POST", &path, Some(body)).await.is_refused(400, "provider_check_unsupported");
}

#[tokio::test]
async fn t03_egress_nothing_is_sent_where_a_provider_may_not_send() {
    let (world, path) = world().await;
    let url = |host: &str| json!({"token_endpoint": format!("https://{host}/token")});
    for (name, more, status, said) in [
        ("e-1", json!({"allowed_token_hosts": ["idp.example"]}), "config_error", "allowed_token_hosts"),
        ("e-2", url("metadata.example"), "unreachable", "refused: cloud metadata address"),
        ("e-3", url("nat64.example"), "unreachable", "refused: cloud metadata address"),
        ("e-4", url("private.example"), "unreachable", "admitted by CARACAL_PRIVATE_EGRESS_HOSTS"),
        ("e-5", url("mixed.example"), "unreachable", "refused: private address"),
    ] {
        let id = world.create(&path, draft(name, more)).await;
        let found = world.call("POST", &format!("{path}/{id}/test"), None).await.is(200);
        assert_eq!(found["status"], status, "{found}");
        assert!(found["detail"].as_str().unwrap().contains(said), "{found}");
        assert_eq!(asked_as(name), 0);
    }
}

#[tokio::test]
async fn a_zone_asks_its_providers_ten_times_a_minute() {
    let (world, path) = world().await;
    let id = world.create(&path, draft("away", json!({}))).await;
    let test = format!("{path}/{id}/test");
    for _ in 0..9 {
        world.call("POST", &test, None).await.is(200);
    }
    let mut body = draft("many-1", json!({}));
    body["check"] = json!(true);
    world.call("POST", &path, Some(body.clone())).await.is(201);
    for answer in [world.call("POST", &test, None).await, world.call("POST", &path, Some(body)).await] {
        answer.is_refused(429, "provider_test_rate_limited");
        assert!(answer.headers.contains_key("retry-after"));
    }
    let issuer = json!({"issuer": format!("{}/other", idp().url())});
    let discovery = format!("{path}/discovery");
    for _ in 0..10 {
        world.call("POST", &discovery, Some(issuer.clone())).await.is_refused(422, "provider_discovery_failed");
    }
    world.call("POST", &discovery, Some(issuer)).await.is_refused(429, "provider_discovery_rate_limited");
    // Another zone has ten of its own.
    let other = world.zone("Other").await;
    let path = format!("/v1/zones/{other}/providers");
    let id = world.create(&path, draft("away", json!({}))).await;
    world.call("POST", &format!("{path}/{id}/test"), None).await.is(200);
}

#[tokio::test]
async fn an_identity_provider_is_discovered_by_its_issuer() {
    let (world, path) = world().await;
    let discovery = format!("{path}/discovery");
    let issuer = format!("{}/tenant", idp().url());
    let found = world.call("POST", &discovery, Some(json!({"issuer": format!("{issuer}/")}))).await.is(200);
    assert_eq!(
        found,
        json!({"issuer": issuer, "token_endpoint": format!("{}/token", idp().url()),
            "authorization_endpoint": format!("{}/authorize", idp().url()),
            "scopes_supported": ["openid", "files"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic"]})
    );
    for bad in ["", "http://idp.example", "https://u@h", "https://h?x=1", "https://h#f", "idp.example"] {
        world.call("POST", &discovery, Some(json!({"issuer": bad}))).await.is_refused(400, "invalid_issuer");
    }
    for (other, said) in [
        (format!("{}/other", idp().url()), "another issuer"),
        (idp().url(), "JSON document"),
        ("https://private.example".to_owned(), "JSON document"),
    ] {
        let answer = world.call("POST", &discovery, Some(json!({"issuer": other}))).await;
        answer.is_refused(422, "provider_discovery_failed");
        assert!(answer.text.contains(said), "{}", answer.text);
    }
    let nowhere = "/v1/zones/0199c0de-0000-7000-8000-000000000001/providers/discovery";
    world.call("POST", nowhere, Some(json!({"issuer": issuer}))).await.is_refused(404, "zone_not_found");
}
