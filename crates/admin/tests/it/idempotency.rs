//! `Idempotency-Key` on creates (docs/decisions/0047).

use std::collections::BTreeSet;

use caracal_crypto::fast_hash::ConsoleToken;
use serde_json::{Value, json};

use crate::world::{Answer, BOOTSTRAP, EMPTY_GRANTS, START, World, assertion, derived, idp, request};

/// A create under a key, as `token`.
async fn keyed_as(world: &World, token: &str, key: &str, path: &str, body: &Value) -> Answer {
    let mut asked = request(Some(token), "POST", path, Some(body.clone()));
    asked.headers_mut().insert("idempotency-key", key.parse().unwrap());
    world.send(asked).await
}

async fn keyed(world: &World, key: &str, path: &str, body: &Value) -> Answer {
    keyed_as(world, BOOTSTRAP, key, path, body).await
}

fn is_replayed(answer: &Answer) -> bool {
    answer.headers.get("idempotency-replayed").is_some_and(|value| value == "true")
}

/// Every create there is, with the member that is shown once, if there is one. Some are only possible after others.
async fn creates(world: &World, zone: &str) -> Vec<(String, Value, Option<&'static str>)> {
    let at = |path: &str| format!("/v1/zones/{zone}{path}");
    let provider = world.create(&at("/providers"), json!({"name": "None", "kind": "none"})).await;
    let account = json!({"name": "Accounts", "kind": "oauth2_authorization_code", "config_json": {
        "authorization_endpoint": format!("{}{}", idp().url(), "/authorize"), "token_endpoint": format!("{}{}", idp().url(), "/token"),
        "redirect_uri": "https://us.example/callback", "client_id": "c", "client_secret": "a-client-secret"}});
    let account = world.create(&at("/providers"), account).await;
    let application =
        world.create(&at("/applications"), json!({"name": "Granted", "registration_method": "managed"})).await;
    let resource = json!({"name": "Granted", "scopes": ["read"], "upstream_url": "https://api.example",
        "credential_provider_id": provider});
    let resource = world.create(&at("/resources"), resource).await;
    let policy =
        world.call("POST", &at("/policies"), Some(json!({"name": "p", "content": EMPTY_GRANTS}))).await.is(201);
    let set = world.create(&at("/policy-sets"), json!({"name": "s"})).await;
    vec![
        ("/v1/zones".to_owned(), json!({"name": "Keyed"}), None),
        ("/v1/admin-tokens".to_owned(), json!({"name": "t", "scope": "global"}), Some("token")),
        (at("/applications"), json!({"name": "Bot", "registration_method": "managed"}), Some("client_secret")),
        (at("/applications/dcr"), json!({"name": "Self"}), Some("client_secret")),
        (at("/workloads"), json!({"name": "Job"}), Some("secret")),
        (
            at("/providers"),
            json!({"name": "Key", "kind": "api_key", "config_json":
            {"api_key": "sk-very-secret", "header_name": "X-Key"}}),
            None,
        ),
        (at("/provider-connections"), json!({"provider_id": account, "access_token": "at-very-secret"}), None),
        (
            at("/resources"),
            json!({"name": "Books", "scopes": ["read"], "upstream_url": "https://books.example",
            "credential_provider_id": provider}),
            None,
        ),
        (
            at("/subject-issuers"),
            json!({"issuer": "https://idp.example", "jwks_url": "https://idp.example/k",
            "audience": "a"}),
            None,
        ),
        (at("/policies"), json!({"name": "q", "content": EMPTY_GRANTS}), None),
        (
            format!("{}/{}/versions", at("/policies"), policy["id"].as_str().unwrap()),
            json!({"content": EMPTY_GRANTS}),
            None,
        ),
        (at("/policy-sets"), json!({"name": "t"}), None),
        (
            format!("{}/{set}/versions", at("/policy-sets")),
            json!({"manifest": [{"policy_version_id": policy["version_id"]}]}),
            None,
        ),
        (
            at("/grants"),
            json!({"application_id": application, "user_id": "u", "resource_id": resource,
            "scopes": ["read"]}),
            None,
        ),
        (at("/notification-sinks"), json!({"name": "n", "url": "https://hooks.example/x"}), Some("secret")),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn t05_secrets_every_create_happens_once_under_its_key_and_its_secret_is_not_told_again() {
    let world = World::new().await;
    let zone = world.zone("Keys").await;
    let patched = world.call("PATCH", &format!("/v1/zones/{zone}"), Some(json!({"dcr_enabled": true}))).await;
    patched.is(200);
    let creates = creates(&world, &zone).await;
    let is_create = |route: &caracal_admin::RouteInfo| {
        let last = route.path.rsplit('/').next().unwrap();
        let others = ["authorize", "callback", "revoke", "test", "discovery", "simulate", "activate", "validate"];
        let others = [&others[..], &["rotate-secret", "approve", "reject", "import"]].concat();
        route.method == http::Method::POST && !others.contains(&last)
    };
    let known = caracal_admin::route_list().iter().filter(|route| is_create(route)).count();
    assert_eq!(creates.len(), known, "a create that is not tried here");
    let mut secrets = vec!["very-secret".to_owned()];
    for (path, body, secret) in creates {
        let key = format!("key of {path}");
        let first = keyed(&world, &key, &path, &body).await;
        assert!(!is_replayed(&first), "{path}");
        let mut told = first.is(201);
        let shown_once = secret.map(|member| told.as_object_mut().unwrap().remove(member).unwrap());
        let again = keyed(&world, &key, &path, &body).await;
        assert!(is_replayed(&again), "{path}");
        assert_eq!(again.is(201), told, "{path}");
        secrets.extend(shown_once.as_ref().and_then(Value::as_str).map(str::to_owned));
        secrets.push(key);
    }
    let stored = world.bytes_on_disk();
    for secret in secrets {
        assert!(!stored.windows(secret.len()).any(|bytes| bytes == secret.as_bytes()), "{secret}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_stands_for_one_request_of_one_actor_in_one_zone() {
    let world = World::new().await;
    let (one, other) = (world.zone("One").await, world.zone("Other").await);
    let workloads = |zone: &str| format!("/v1/zones/{zone}/workloads");
    let (path, body) = (workloads(&one), json!({"name": "Job"}));
    let first = keyed(&world, "k", &path, &body).await.is(201);
    keyed(&world, "k", &path, &json!({"name": "Other job"})).await.is_refused(409, "idempotency_key_conflict");
    let sets = format!("/v1/zones/{one}/policy-sets");
    keyed(&world, "k", &sets, &body).await.is_refused(409, "idempotency_key_conflict");
    // Elsewhere and of others it is another key.
    assert_ne!(keyed(&world, "k", &workloads(&other), &body).await.is(201)["id"], first["id"]);
    let writer = world.mint("write", Some(&one)).await;
    keyed_as(&world, &writer, "k", &path, &body).await.is_refused(409, "workload_name_taken");
    // Who may not create may not ask what was created either.
    let reader = world.mint("read", Some(&one)).await;
    keyed_as(&world, &reader, "k", &path, &body).await.is_refused(403, "admin_token_read_only");
    let stranger = world.mint("write", Some(&other)).await;
    keyed_as(&world, &stranger, "k", &path, &body).await.is_refused(403, "admin_token_zone_mismatch");
    // A refusal is not remembered: what was wrong may be mended.
    keyed(&world, "later", &path, &json!({"name": "Job"})).await.is_refused(409, "workload_name_taken");
    let id = first["id"].as_str().unwrap();
    assert_eq!(world.call("DELETE", &format!("{path}/{id}"), None).await.status, 204);
    let second = keyed(&world, "later", &path, &json!({"name": "Job"})).await;
    assert!(!is_replayed(&second));
    second.is(201);
    // It is the request that counts, not its spelling.
    let mut spelled = request(Some(BOOTSTRAP), "POST", &path, None);
    spelled.headers_mut().insert("idempotency-key", "later".parse().unwrap());
    spelled.headers_mut().insert("content-type", "application/json".parse().unwrap());
    *spelled.body_mut() = " { \"n\\u0061me\" : \"Job\" } ".into();
    assert!(is_replayed(&world.send(spelled).await));
    // A day later it is forgotten.
    world.clock.advance(24 * 60 * 60);
    keyed(&world, "later", &path, &json!({"name": "Job"})).await.is_refused(409, "workload_name_taken");
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_of_one_console_do_not_meet_each_others_keys() {
    let world = World::new().await;
    let create = async |account: &str| {
        let token = derived(ConsoleToken::Write);
        let mut asked = request(Some(&token), "POST", "/v1/zones", Some(json!({"name": "Mine"})));
        asked.headers_mut().insert("idempotency-key", "same".parse().unwrap());
        asked.headers_mut().insert("x-caracal-account", assertion(account, START + 60).parse().unwrap());
        world.send(asked).await
    };
    let (one, other) = (create("one").await.is(201), create("other").await.is(201));
    assert_ne!(one["id"], other["id"]);
    let again = create("one").await;
    assert!(is_replayed(&again));
    assert_eq!(again.is(201), one);
}

#[tokio::test(flavor = "multi_thread")]
async fn t04_state_of_two_clients_with_one_key_one_creates() {
    let world = World::new().await;
    let zone = world.zone("Race").await;
    for (path, body) in [
        // Refused by its name where it is asked for twice.
        (format!("/v1/zones/{zone}/workloads"), json!({"name": "Job"})),
        // Never refused: only the key keeps it from being there twice.
        (format!("/v1/zones/{zone}/notification-sinks"), json!({"name": "n", "url": "https://hooks.example/x"})),
        ("/v1/zones".to_owned(), json!({"name": "Raced"})),
    ] {
        let key = format!("race for {path}");
        let ask = || keyed(&world, &key, &path, &body);
        let (a, b, c, d) = tokio::join!(ask(), ask(), ask(), ask());
        let answers = [a, b, c, d];
        let ids: BTreeSet<String> =
            answers.iter().map(|answer| answer.is(201)["id"].as_str().unwrap().to_owned()).collect();
        assert_eq!(ids.len(), 1, "{path}");
        assert_eq!(answers.iter().filter(|answer| !is_replayed(answer)).count(), 1, "{path}");
        let listed = world.get(&path).await.is(200);
        let listed = listed["items"].as_array().unwrap();
        assert_eq!(listed.iter().filter(|item| item["id"] == *ids.first().unwrap()).count(), 1);
        assert_eq!(listed.iter().filter(|item| item["name"] == body["name"]).count(), 1, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_is_on_record_and_a_rehearsal_remembers_nothing() {
    let world = World::new().await;
    let zone = world.zone("Told").await;
    let path = format!("/v1/zones/{zone}/workloads");
    let body = json!({"name": "Job"});
    keyed(&world, "k", &format!("{path}?dry_run=true"), &body).await.is(200);
    let first = keyed(&world, "k", &path, &body).await;
    assert!(!is_replayed(&first));
    let id = first.is(201)["id"].clone();
    keyed(&world, "k", &path, &body).await.is(201);
    let told: Vec<(Option<String>, bool)> = world
        .records(Some(&zone))
        .await
        .into_iter()
        .filter(|row| row.entity_type.as_deref() == Some("workloads"))
        .map(|row| (row.entity_id, row.payload.is_some_and(|payload| payload.contains("idempotency_replayed"))))
        .collect();
    let id = id.as_str().map(str::to_owned);
    assert_eq!(told, [(id.clone(), false), (id, true)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_one_line_of_plain_text() {
    let world = World::new().await;
    let path = "/v1/zones";
    for key in [&b""[..], b" ", &[b'x'; 256], b"a\tb", b"\xff"] {
        // A rehearsal promises what the same request would come to, also where it remembers nothing.
        for path in [path, "/v1/zones?dry_run=true"] {
            let mut asked = request(Some(BOOTSTRAP), "POST", path, Some(json!({"name": "x"})));
            asked.headers_mut().insert("idempotency-key", http::HeaderValue::from_bytes(key).unwrap());
            world.send(asked).await.is_refused(400, "idempotency_key_invalid");
        }
    }
    let mut asked = request(Some(BOOTSTRAP), "POST", path, Some(json!({"name": "x"})));
    for _ in 0..2 {
        asked.headers_mut().append("idempotency-key", "a".parse().unwrap());
    }
    world.send(asked).await.is_refused(400, "idempotency_key_multiple");
    // Where nothing is created the header means nothing.
    let mut asked = request(Some(BOOTSTRAP), "GET", path, None);
    asked.headers_mut().insert("idempotency-key", http::HeaderValue::from_bytes(b"\xff").unwrap());
    world.send(asked).await.is(200);
}
