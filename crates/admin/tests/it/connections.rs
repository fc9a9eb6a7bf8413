//! Accounts at providers: imported, listed, revoked.

use serde_json::{Value, json};

use crate::world::{World, idp};

/// A zone with a provider that has accounts, and the path of those.
async fn provided(world: &World, name: &str, more: Value) -> (String, String) {
    let zone = world.zone(name).await;
    let mut config = json!({
        "authorization_endpoint": "https://idp.example/authorize", "redirect_uri": "https://console.example/",
        "token_endpoint": format!("{}/token", idp().url()), "client_id": "c", "client_secret": "cs-upstream",
    });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let body = json!({"name": "idp", "kind": "oauth2_authorization_code", "config_json": config});
    let provider = world.create(&format!("/v1/zones/{zone}/providers"), body).await;
    (format!("/v1/zones/{zone}/provider-connections"), provider)
}

#[tokio::test]
async fn an_imported_account_is_listed_without_its_tokens() {
    let world = World::new().await;
    let (path, provider) = provided(&world, "zone-1", json!({})).await;
    let body = json!({"provider_id": provider, "access_token": "at-1", "refresh_token": "rt-1",
        "expires_at": "2026-02-01T00:00:00Z"});
    let made = world.call("POST", &path, Some(body)).await.is(201);
    assert_eq!(
        made,
        json!({"id": made["id"], "zone_id": made["zone_id"], "subject_id": "caracal:shared", "provider_id": provider,
            "status": "active", "expires_at": "2026-02-01T00:00:00.000Z", "created_at": made["created_at"],
            "updated_at": made["updated_at"]})
    );
    // Other tokens for the same account: its id stays, and what is left out is gone.
    let again = world.call("POST", &path, Some(json!({"provider_id": provider, "access_token": "at-2"}))).await.is(201);
    assert_eq!((&again["id"], &again["expires_at"]), (&made["id"], &Value::Null));
    let own = json!({"provider_id": provider, "subject_id": "user-1", "access_token": "at-3", "refresh_token": "rt-3"});
    world.call("POST", &path, Some(own)).await.is(201);
    let listed = async |query: &str| {
        let listed = world.get(&format!("{path}?{query}")).await.is(200);
        let item = |item: &Value| format!("{} {}", item["subject_id"].as_str().unwrap(), item["renewable"]);
        listed["items"].as_array().unwrap().iter().map(item).collect::<Vec<_>>()
    };
    assert_eq!(listed("").await, ["user-1 true", "caracal:shared false"]);
    assert_eq!(listed("subject_id=user-1").await, ["user-1 true"]);
    assert_eq!(listed("status=revoked").await, Vec::<String>::new());
    world.get(&format!("{path}?status=")).await.is_refused(400, "invalid_query");
    let everything = String::from_utf8_lossy(&world.directory.everything_stored()).into_owned();
    for secret in ["at-1", "rt-1", "at-2", "at-3", "rt-3"] {
        assert!(!everything.contains(secret), "{secret}");
    }
}

#[tokio::test]
async fn an_account_is_imported_where_there_are_any() {
    let world = World::new().await;
    let (path, provider) = provided(&world, "zone-2", json!({})).await;
    let zone = path.split('/').nth(3).unwrap().to_owned();
    let body = json!({"name": "none", "kind": "none"});
    let other = world.create(&format!("/v1/zones/{zone}/providers"), body).await;
    for (body, status, code) in [
        (json!({"provider_id": other, "access_token": "a"}), 400, "provider_connection_unsupported"),
        (json!({"provider_id": "p-404", "access_token": "a"}), 404, "provider_not_found"),
        (json!({"provider_id": "a b", "access_token": "a"}), 404, "provider_not_found"),
        (json!({"provider_id": provider}), 400, "invalid_provider_connection"),
        (json!({"access_token": "a"}), 400, "invalid_provider_connection"),
        (json!({"provider_id": provider, "access_token": ""}), 400, "invalid_provider_connection"),
        (json!({"provider_id": provider, "access_token": "a\nb"}), 400, "invalid_provider_connection"),
        (
            json!({"provider_id": provider, "access_token": "a", "expires_at": "soon"}),
            400,
            "invalid_provider_connection",
        ),
        (json!({"provider_id": provider, "access_token": "a", "subject_id": ""}), 400, "invalid_provider_connection"),
    ] {
        world.call("POST", &path, Some(body.clone())).await.is_refused(status, code);
    }
    let nowhere = "/v1/zones/0199c0de-0000-7000-8000-000000000001/provider-connections";
    let body = json!({"provider_id": provider, "access_token": "a"});
    world.call("POST", nowhere, Some(body)).await.is_refused(404, "zone_not_found");
}

#[tokio::test]
async fn a_revocation_counts_here_and_is_told_to_the_provider() {
    let world = World::new().await;
    let revocation = json!({"revocation_endpoint": format!("{}/revoke", idp().url())});
    let (path, provider) = provided(&world, "zone-3", revocation).await;
    let revoke = format!("{path}/revoke");
    for (subject, refresh_token, told) in [("user-1", Some("rt-1"), "revoked"), ("user-2", None, "failed")] {
        let mut body = json!({"provider_id": provider, "subject_id": subject, "access_token": "at-1"});
        if let Some(token) = refresh_token {
            body["refresh_token"] = json!(token);
        }
        world.call("POST", &path, Some(body)).await.is(201);
        let whose = json!({"provider_id": provider, "subject_id": subject});
        let revoked = world.call("POST", &revoke, Some(whose.clone())).await.is(200);
        assert_eq!((&revoked["status"], &revoked["upstream_revocation"]), (&json!("revoked"), &json!(told)));
        world.call("POST", &revoke, Some(whose)).await.is_refused(404, "provider_connection_not_found");
    }
    let seen: Vec<_> = idp().seen().into_iter().filter(|request| request.path() == "/revoke").collect();
    assert_eq!(seen.len(), 2);
    assert_eq!(
        (seen[0].field("token").as_deref(), seen[0].header("authorization")),
        (Some("rt-1"), Some("Basic Yzpjcy11cHN0cmVhbQ=="))
    );
    assert_eq!(seen[1].field("token").as_deref(), Some("at-1"));
    world.call("POST", &revoke, Some(json!({}))).await.is_refused(400, "invalid_provider_connection_revoke");
    let (path, provider) = provided(&world, "zone-4", json!({})).await;
    world.call("POST", &path, Some(json!({"provider_id": provider, "access_token": "at-1"}))).await.is(201);
    let revoked = world.call("POST", &format!("{path}/revoke"), Some(json!({"provider_id": provider}))).await.is(200);
    assert_eq!(revoked["upstream_revocation"], "unsupported");
}
