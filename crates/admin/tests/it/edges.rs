//! Walks over the whole route table with what does not belong: ids of other zones, secrets in the wrong places, hostile
//! texts and bodies (contract: admin-api.md §15 and §16).

use std::collections::BTreeMap;

use caracal_admin::{AdminConfig, RouteInfo, route_list};
use http::Method;
use serde_json::{Value, json};

use crate::world::{Answer, EMPTY_GRANTS, World, idp};

fn open() -> AdminConfig {
    AdminConfig { requests_per_minute: 0, auth_failures_per_minute: 0, ..AdminConfig::default() }
}

/// One object of every kind in a zone: its id by the collection it is in, and every secret that was told or given.
pub(crate) struct Furnished {
    pub(crate) zone: String,
    pub(crate) ids: BTreeMap<&'static str, String>,
    /// The version of its policy.
    pub(crate) document: String,
    /// The version of its set.
    pub(crate) version: String,
    pub(crate) secrets: Vec<String>,
}

pub(crate) async fn furnish(world: &World, name: &str) -> Furnished {
    let zone = world.zone(name).await;
    let at = |path: &str| format!("/v1/zones/{zone}{path}");
    let given = |kind: &str| format!("very-secret-{kind}-of-{name}");
    let mut secrets: Vec<String> = ["key", "client", "access", "refresh"].map(given).to_vec();
    let mut ids = BTreeMap::new();
    let key = json!({"name": "Key", "kind": "api_key",
        "config_json": {"api_key": given("key"), "header_name": "X-Key"}});
    ids.insert("providers", world.create(&at("/providers"), key).await);
    let accounts = json!({"name": "Accounts", "kind": "oauth2_authorization_code", "config_json": {
        "authorization_endpoint": format!("{}/authorize", idp().url()),
        "token_endpoint": format!("{}/token", idp().url()),
        "redirect_uri": "https://us.example/callback", "client_id": "c", "client_secret": given("client")}});
    let accounts = world.create(&at("/providers"), accounts).await;
    let connection =
        json!({"provider_id": accounts, "access_token": given("access"), "refresh_token": given("refresh")});
    world.create(&at("/provider-connections"), connection).await;
    for (collection, body, secret) in [
        ("applications", json!({"name": "Bot", "registration_method": "managed"}), "client_secret"),
        ("workloads", json!({"name": "Job"}), "secret"),
        ("notification-sinks", json!({"name": "n", "url": "https://hooks.example/x"}), "secret"),
    ] {
        let made = world.call("POST", &at(&format!("/{collection}")), Some(body)).await.is(201);
        secrets.push(made[secret].as_str().unwrap().to_owned());
        ids.insert(collection, made["id"].as_str().unwrap().to_owned());
    }
    let resource = json!({"name": "Books", "scopes": ["read"], "upstream_url": "https://books.example",
        "credential_provider_id": ids["providers"]});
    ids.insert("resources", world.create(&at("/resources"), resource).await);
    let issuer = json!({"issuer": "https://idp.example", "jwks_url": "https://idp.example/k", "audience": "a"});
    ids.insert("subject-issuers", world.create(&at("/subject-issuers"), issuer).await);
    let policy = json!({"name": "p", "content": EMPTY_GRANTS});
    let policy = world.call("POST", &at("/policies"), Some(policy)).await.is(201);
    ids.insert("policies", policy["id"].as_str().unwrap().to_owned());
    let set = world.create(&at("/policy-sets"), json!({"name": "s"})).await;
    let manifest = json!({"manifest": [{"policy_version_id": policy["version_id"]}]});
    let version = world.create(&at(&format!("/policy-sets/{set}/versions")), manifest).await;
    ids.insert("policy-sets", set);
    let grant = json!({"application_id": ids["applications"], "user_id": "u", "resource_id": ids["resources"],
        "scopes": ["read"]});
    ids.insert("grants", world.create(&at("/grants"), grant).await);
    let document = policy["version_id"].as_str().unwrap().to_owned();
    Furnished { zone, ids, document, version, secrets }
}

/// A route's path in `zone`, with the ids of `of`; none where `of` has nothing for it.
pub(crate) fn filled(route: &RouteInfo, zone: &str, of: &Furnished) -> Option<String> {
    let collection = route.path.split('/').rev().skip_while(|part| *part != "{id}").nth(1);
    let id = match collection {
        Some(collection) => of.ids.get(collection)?.as_str(),
        None => "",
    };
    let path = route.path.replace("{zone}", zone).replace("{id}", id).replace("{version}", &of.version);
    Some(path.replace("{request}", "req-1").replace("{admin_token}", "none").replace("{*tile}", "0/000"))
}

/// What a caller learns, without what is different in every answer.
fn told(answer: &Answer) -> (u16, Value) {
    let mut body = answer.json();
    for name in ["requestId", "request_id"] {
        body.as_object_mut().unwrap().remove(name);
    }
    (answer.status.as_u16(), body)
}

#[tokio::test(flavor = "multi_thread")]
async fn t01_control_plane_ids_of_other_zones_are_ids_of_nothing() {
    let world = World::with(open()).await;
    let (here, there) = (world.zone("Here").await, furnish(&world, "there").await);
    let own = world.mint("write", Some(&here)).await;
    let nothing = Furnished {
        zone: here.clone(),
        ids: there.ids.keys().map(|kind| (*kind, "0197d3a0-0000-7000-8000-000000000000".to_owned())).collect(),
        document: "0197d3a0-0000-7000-8000-000000000002".to_owned(),
        version: "0197d3a0-0000-7000-8000-000000000001".to_owned(),
        secrets: Vec::new(),
    };
    let body = |route: &RouteInfo| match route.path.rsplit('/').next() {
        Some("versions") if route.path.contains("/policies/") => json!({"content": EMPTY_GRANTS}),
        Some("versions") => json!({"manifest": [{"policy_version_id": "0197d3a0-0000-7000-8000-000000000002"}]}),
        Some("activate" | "simulate") => json!({"version_id": there.version}),
        Some("approve" | "reject") => json!({}),
        _ => json!({"name": "x"}),
    };
    let mut tried = 0;
    for route in route_list().into_iter().filter(|route| route.in_zone && route.path.contains("{id}")) {
        let (Some(foreign), Some(absent)) = (filled(&route, &here, &there), filled(&route, &here, &nothing)) else {
            continue;
        };
        let body = (route.method != Method::GET).then(|| body(&route));
        let method = route.method.as_str();
        let by_bootstrap = world.call(method, &foreign, body.clone()).await;
        let of_nothing = world.call(method, &absent, body.clone()).await;
        if foreign.ends_with("/deliveries") || foreign.ends_with("/versions") && method == "GET" {
            // Lists of what is not there are empty, or 404; in either case the same.
            assert_eq!(by_bootstrap.status, of_nothing.status, "{method} {foreign}");
            assert!(!by_bootstrap.text.contains(&there.version), "{method} {foreign}");
        } else {
            assert_eq!(by_bootstrap.status.as_u16(), 404, "{method} {foreign} {}", by_bootstrap.text);
            assert_eq!(told(&by_bootstrap), told(&of_nothing), "{method} {foreign}");
        }
        let by_own = world.call_as(Some(&own), method, &foreign, body).await;
        assert_eq!(by_own.status, by_bootstrap.status, "{method} {foreign}");
        tried += 1;
    }
    assert!(tried > 30, "{tried}");
    // It is all still there.
    for (collection, id) in &there.ids {
        world.get(&format!("/v1/zones/{}/{collection}/{id}", there.zone)).await.is(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t01_control_plane_a_zones_objects_name_nothing_of_another_zone() {
    let world = World::with(open()).await;
    let (here, there) = (furnish(&world, "here").await, furnish(&world, "there").await);
    let at = |path: &str| format!("/v1/zones/{}{path}", here.zone);
    let (own, other) = (&here.ids, &there.ids);
    let resource = |provider: &str| {
        json!({"name": "r", "scopes": ["read"], "upstream_url": "https://r.example",
        "credential_provider_id": provider})
    };
    let grant = |application: &str, resource: &str| {
        json!({"application_id": application, "user_id": "u",
        "resource_id": resource, "scopes": ["read"]})
    };
    for (path, body, code) in [
        (at("/resources"), resource(&other["providers"]), "provider_not_found"),
        (at("/grants"), grant(&other["applications"], &own["resources"]), "application_not_found"),
        (at("/grants"), grant(&own["applications"], &other["resources"]), "resource_not_found"),
        (
            at("/provider-connections"),
            json!({"provider_id": other["providers"], "access_token": "t"}),
            "provider_not_found",
        ),
        (at("/provider-connections/oauth/authorize"), json!({"provider_id": other["providers"]}), "provider_not_found"),
        (
            at("/provider-connections/revoke"),
            json!({"provider_id": other["providers"]}),
            "provider_connection_not_found",
        ),
        (at("/subjects/revoke"), json!({"subject_id": other["applications"]}), "subject_not_found"),
        (
            at(&format!("/policy-sets/{}/activate", own["policy-sets"])),
            json!({"version_id": there.version}),
            "version_not_found",
        ),
    ] {
        world.call("POST", &path, Some(body)).await.is_refused(404, code);
    }
    let moved = json!({"credential_provider_id": other["providers"]});
    let path = at(&format!("/resources/{}", own["resources"]));
    world.call("PATCH", &path, Some(moved)).await.is_refused(404, "provider_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn t05_secrets_no_read_no_record_and_no_stored_byte_shows_one() {
    let world = World::with(open()).await;
    let furnished = furnish(&world, "walked").await;
    let token = world.call("POST", "/v1/admin-tokens", Some(json!({"name": "t", "scope": "global"}))).await.is(201);
    let mut secrets = furnished.secrets.clone();
    secrets.push(token["token"].as_str().unwrap().to_owned());
    let mut seen = Vec::new();
    for route in route_list().into_iter().filter(|route| route.method == Method::GET) {
        // These are there to show one.
        if route.path.ends_with("secret") {
            continue;
        }
        let Some(path) = filled(&route, &furnished.zone, &furnished) else { continue };
        for query in ["", "?format=csv", "?status=archived"] {
            seen.push((path.clone(), world.get(&format!("{path}{query}")).await.text));
        }
    }
    assert!(seen.len() > 100, "{}", seen.len());
    assert!(seen.iter().any(|(_, text)| text.contains("X-Key")), "what is no secret is found");
    for chain in [Some(furnished.zone.as_str()), None] {
        seen.extend(world.records(chain).await.into_iter().map(|row| (row.action.clone(), format!("{row:?}"))));
    }
    let stored = world.bytes_on_disk();
    for secret in secrets {
        for (path, text) in &seen {
            assert!(!text.contains(&secret), "{path} shows {secret}");
        }
        assert!(!stored.windows(secret.len()).any(|bytes| bytes == secret.as_bytes()), "{secret} is stored in clear");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t05_secrets_sent_where_they_do_not_belong_are_kept_and_told_nowhere() {
    let world = World::with(open()).await;
    let furnished = furnish(&world, "stray").await;
    let secret = "sk-strayed-secret";
    let mut tried = 0;
    for route in route_list().into_iter().filter(|route| route.method != Method::GET) {
        let Some(path) = filled(&route, &furnished.zone, &furnished) else { continue };
        // What is deleted would be missing for those that follow.
        let path = if route.method == Method::DELETE { format!("{path}?dry_run=true") } else { path };
        for body in [
            json!({"api_key": secret, "name": "x"}),
            json!({"name": "x", "scopes": ["read"], "kind": "none", "config_json": {"api_key": secret}}),
            json!({"name": {"password": secret}}),
            json!([secret]),
        ] {
            let answer = world.call(route.method.as_str(), &path, Some(body.clone())).await;
            assert!(!answer.text.contains(secret), "{path} {body} {}", answer.text);
            tried += 1;
        }
    }
    assert!(tried > 150, "{tried}");
    for chain in [Some(furnished.zone.as_str()), None] {
        assert!(world.records(chain).await.iter().all(|row| !format!("{row:?}").contains(secret)));
    }
    let stored = world.bytes_on_disk();
    assert!(!stored.windows(secret.len()).any(|bytes| bytes == secret.as_bytes()));
}

#[tokio::test(flavor = "multi_thread")]
async fn t01_control_plane_no_body_makes_a_route_fail() {
    let world = World::with(open()).await;
    let furnished = furnish(&world, "hostile").await;
    let deep = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
    let bodies = [
        deep(100_000),
        format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)),
        json!({"name": "a\u{0}b", "kind": "none"}).to_string(),
        "{\"name\":\"\\ud800\"}".to_owned(),
        json!({"name": 1e308, "scopes": [null], "kind": [], "config_json": "x", "objects": [[]]}).to_string(),
        "{\"expires_in\":1e400,\"retention_days\":-0.0,\"limit_per_minute\":18446744073709551616}".to_owned(),
        json!({"name": "x".repeat(300_000), "content": "x".repeat(300_000)}).to_string(),
        "null".to_owned(),
    ];
    for route in route_list().into_iter().filter(|route| route.method != Method::GET) {
        let Some(path) = filled(&route, &furnished.zone, &furnished) else { continue };
        for body in &bodies {
            let mut asked = crate::world::request(
                Some(crate::world::BOOTSTRAP),
                route.method.as_str(),
                &format!("{path}?dry_run=true"),
                None,
            );
            asked.headers_mut().insert("content-type", "application/json".parse().unwrap());
            *asked.body_mut() = body.clone().into();
            let answer = world.send(asked).await;
            let shown: String = body.chars().take(60).collect();
            assert!(!answer.status.is_server_error(), "{} {path} {shown}: {}", route.method, answer.text);
            assert!(answer.text.len() < 4_096, "{} {path} {shown}: an answer repeats its request", route.method);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t01_control_plane_texts_come_back_as_they_were_sent_and_look_alikes_are_others() {
    let world = World::with(open()).await;
    let zone = world.zone("Texts").await;
    let writer = world.mint("write", Some(&zone)).await;
    let at = |path: &str| format!("/v1/zones/{zone}{path}");
    let names = [
        "\u{202e}txt.exe",
        "zero\u{200b}width",
        "e\u{301}",
        "\u{e9}",
        "\u{ff43}aracal.sys/x",
        "caracal.\u{17f}ys/x",
        "caracal\u{2024}sys/x",
        "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}",
        "\u{fffd}\u{ffff}",
        "İstanbul",
        "<script>alert(1)</script>",
        "'; DROP TABLE zones; --",
        "%00%2e%2e/",
        "\u{85}\u{7f}",
    ];
    for (at_name, name) in names.into_iter().enumerate() {
        let trimmed = name.trim();
        let bodies = [
            (at("/policy-sets"), json!({"name": name})),
            (at("/policies"), json!({"name": name, "content": EMPTY_GRANTS})),
            (at("/applications"), json!({"name": name, "registration_method": "managed"})),
            (at("/workloads"), json!({"name": name})),
        ];
        // The last two cost a slow hash each: they are tried with a letter in its two forms only.
        let slow = (2..4).contains(&at_name);
        for (path, body) in bodies.into_iter().take(if slow { 4 } else { 2 }) {
            let made = world.call_as(Some(&writer), "POST", &path, Some(body)).await.is(201);
            let one = format!("{path}/{}", made["id"].as_str().unwrap());
            let shown = world.get(&one).await.is(200);
            assert!(shown["name"] == name || shown["name"] == trimmed, "{path} {name:?} {shown}");
        }
    }
    // What is reserved stays so in every case and with whatever white space around it.
    for name in ["CARACAL.SYS/x", " caracal.sys/x", "\u{2003}Caracal.Sys/x\u{a0}", "caracal.sys/\u{200b}"] {
        let body = json!({"name": name, "registration_method": "managed"});
        let answer = world.call_as(Some(&writer), "POST", &at("/applications"), Some(body)).await;
        answer.is_refused(409, "reserved_namespace");
    }
    for (path, body) in [
        (at("/providers"), json!({"name": "caracal sys x", "kind": "none"})),
        (at("/providers"), json!({"name": "Caracal-Sys: x", "kind": "none"})),
        (at("/resources"), json!({"identifier": "CARACAL-SYS://x", "scopes": ["r"]})),
        ("/v1/zones".to_owned(), json!({"name": "Caracal Sys Foo"})),
    ] {
        let global = world.mint("write", None).await;
        world.call_as(Some(&global), "POST", &path, Some(body)).await.is_refused(409, "reserved_namespace");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t01_control_plane_what_no_index_holds_is_refused_and_the_longest_is_found_again() {
    let world = World::with(open()).await;
    let zone = world.zone("Long").await;
    let at = |path: &str| format!("/v1/zones/{zone}{path}");
    // Nothing here is shorter in any other form, so an engine can't pack it.
    let text = |length: usize| -> String {
        let code = |at: usize| char::from_u32(0x4e00 + u32::try_from(at * 7_919 % 20_000).unwrap()).unwrap();
        (0..length).map(code).collect()
    };
    let slug = |length: usize| -> String {
        (0..length).map(|at| char::from(b'a' + u8::try_from(at * at % 23).unwrap())).collect()
    };
    let document = |length: usize| json!({"name": text(length), "content": EMPTY_GRANTS});
    for (path, longest, longer, code) in [
        (at("/policies"), document(512), document(513), "invalid_body"),
        (at("/policy-sets"), json!({"name": text(512)}), json!({"name": text(513)}), "invalid_body"),
        (
            "/v1/zones".to_owned(),
            json!({"name": "x", "slug": slug(2_000)}),
            json!({"name": "x", "slug": slug(2_001)}),
            "invalid_zone",
        ),
        (
            at("/applications"),
            json!({"name": text(200), "registration_method": "managed"}),
            json!({"name": text(201), "registration_method": "managed"}),
            "invalid_application",
        ),
        (at("/workloads"), json!({"name": text(200)}), json!({"name": text(201)}), "invalid_workload"),
    ] {
        let made = world.call("POST", &path, Some(longest)).await.is(201);
        world.get(&format!("{path}/{}", made["id"].as_str().unwrap())).await.is(200);
        world.call("POST", &path, Some(longer)).await.is_refused(400, code);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t04_state_edits_of_different_fields_at_once_both_stand() {
    let world = World::with(open()).await;
    let furnished = furnish(&world, "edits").await;
    let path = format!("/v1/zones/{}/resources/{}", furnished.zone, furnished.ids["resources"]);
    let patch = |body: Value| world.call("PATCH", &path, Some(body));
    for round in 0..4 {
        let (name, url) = (format!("Books {round}"), format!("https://books-{round}.example"));
        let (one, other, third) = tokio::join!(
            patch(json!({"name": name})),
            patch(json!({"upstream_url": url})),
            patch(json!({"scopes": ["read", format!("round-{round}")]})),
        );
        one.is(200);
        other.is(200);
        third.is(200);
        let shown = world.get(&path).await.is(200);
        let expected = (json!(name), json!(url), json!(["read", format!("round-{round}")]));
        assert_eq!((shown["name"].clone(), shown["upstream_url"].clone(), shown["scopes"].clone()), expected);
    }
    let (gone, edited) = tokio::join!(world.call("DELETE", &path, None), patch(json!({"name": "late"})));
    assert_eq!(gone.status, 204);
    assert!(edited.status == 200 || edited.status == 404, "{}", edited.text);
    world.get(&path).await.is_refused(404, "resource_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn t16_clients_lists_are_lists_positions_are_numbers_and_nothing_is_the_word_null() {
    let world = World::with(open()).await;
    let furnished = furnish(&world, "shapes").await;
    let empty = world.zone("Empty").await;
    let mut lists = 0;
    for route in route_list().into_iter().filter(|route| route.method == Method::GET && !route.path.ends_with("secret"))
    {
        for zone in [&furnished.zone, &empty] {
            let Some(path) = filled(&route, zone, &furnished) else { continue };
            let answer = world.get(&path).await;
            let Ok(body) = serde_json::from_str::<Value>(&answer.text) else { continue };
            assert!(!answer.text.contains("\"null\""), "{path} {}", answer.text);
            if body.get("next_cursor").is_some() {
                assert!(body["items"].is_array(), "{path} {body}");
                lists += 1;
            }
            for item in body["items"].as_array().into_iter().flatten() {
                for name in ["chain_seq", "version", "attempts", "consecutive_failures", "depth", "child_count"] {
                    assert!(item.get(name).is_none_or(Value::is_number), "{path} {name} {item}");
                }
            }
        }
    }
    assert!(lists > 30, "{lists}");
    let records = world.get(&format!("/v1/zones/{}/admin-audit", furnished.zone)).await.is(200);
    let positions: Vec<i64> =
        records["items"].as_array().unwrap().iter().map(|row| row["chain_seq"].as_i64().unwrap()).collect();
    assert!(positions.len() > 10 && positions.iter().all(|position| *position > 0), "{positions:?}");
}
