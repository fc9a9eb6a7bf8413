//! Accounts that somebody has agreed to in their browser, against a server that speaks the protocol (contract: admin-api.md
//! §5.5 and property 12).

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use caracal_admin::AdminConfig;
use caracal_authority::ZoneId;
use caracal_custody::ConnectionToken;
use caracal_http::egress::{SimpleClient, SimpleRequest, TargetUrl};
use caracal_store::provider_connections;
use caracal_testkit::Received;
use http::{HeaderMap, Method, Request};
use serde_json::{Value, json};
use url::Url;

use crate::authorization_server::SECRET;
use crate::world::{Answer, World, connector, idp};

/// A provider with accounts whose client has this name.
async fn provider(world: &World, zone: &str, client: &str, more: Value) -> String {
    let mut config = json!({
        "authorization_endpoint": format!("{}/authorize?tenant=t", idp().url()),
        "token_endpoint": format!("{}/token", idp().url()),
        "redirect_uri": "https://console.example/callback",
        "client_id": client, "client_secret": SECRET,
    });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let body = json!({"name": client, "kind": "oauth2_authorization_code", "config_json": config});
    world.create(&format!("/v1/zones/{zone}/providers"), body).await
}

fn connections(zone: &str) -> String {
    format!("/v1/zones/{zone}/provider-connections")
}

/// Begins a consent; what is answered.
async fn begin(world: &World, zone: &str, provider: &str, subject: &str) -> Value {
    let body = json!({"provider_id": provider, "subject_id": subject});
    world.call("POST", &format!("{}/oauth/authorize", connections(zone)), Some(body)).await.is(200)
}

/// What a browser does that is sent to `url`: it comes back with this query.
async fn agree(url: &str) -> String {
    let request = SimpleRequest {
        method: Method::GET,
        url: TargetUrl::parse(url).unwrap(),
        headers: HeaderMap::new(),
        body: Bytes::new(),
        deadline: Duration::from_secs(5),
        max_response_bytes: 1_000,
    };
    let answer = SimpleClient::new(connector()).send(request).await.unwrap();
    assert_eq!(answer.status, 302, "{:?}", answer.body);
    let back = Url::parse(answer.headers["location"].to_str().unwrap()).unwrap();
    back.query().unwrap().to_owned()
}

/// Nobody in particular presents a query.
async fn present(world: &World, zone: &str, query: &str, accept: &str) -> Answer {
    let uri = format!("{}/oauth/callback?{query}", connections(zone));
    world.send(Request::builder().uri(uri).header("accept", accept).body(Body::empty()).unwrap()).await
}

async fn come_back(world: &World, zone: &str, query: &str) -> Answer {
    present(world, zone, query, "*/*").await
}

fn state(begun: &Value) -> &str {
    begun["state"].as_str().unwrap()
}

#[tokio::test]
async fn t13_browser_what_somebody_agreed_to_becomes_an_account_of_the_subject_it_was_begun_for() {
    let world = World::new().await;
    let zone = world.zone("Ops").await;
    let provider = provider(&world, &zone, "files", json!({"scopes": ["files", "offline"]})).await;
    let begun = begin(&world, &zone, &provider, "user-1").await;
    assert_eq!(begun["expires_at"], "2026-01-01T00:10:00.000Z");
    let url = begun["authorization_url"].as_str().unwrap();
    assert!(url.contains("tenant=t&") && url.contains("scope=files+offline"), "{url}");
    let query = agree(url).await;
    let made = come_back(&world, &zone, &query).await.is(201);
    assert_eq!(
        made,
        json!({"id": made["id"], "zone_id": zone, "subject_id": "user-1", "provider_id": provider, "status": "active",
            "expires_at": "2026-01-01T01:00:00.000Z", "created_at": "2026-01-01T00:00:00.000Z",
            "updated_at": "2026-01-01T00:00:00.000Z"})
    );
    // Other tests ask the same server, as other clients.
    let of_ours = |request: &Received| request.field("code").is_some_and(|code| code.ends_with("-of-files"));
    let asked = idp().seen().into_iter().rfind(of_ours).unwrap();
    assert_eq!(asked.field("redirect_uri").as_deref(), Some("https://console.example/callback"));

    // What is kept is what was issued, under seal; nothing that was on the way is in clear anywhere.
    let zone_id = ZoneId::parse(&zone).unwrap();
    let mut snapshot = world.store.snapshot().await.unwrap();
    let id = made["id"].as_str().unwrap().parse().unwrap();
    let row = provider_connections::lookup(&mut snapshot.zone(&zone_id), &id).await.unwrap().unwrap();
    drop(snapshot);
    let opened = |which, sealed: &[u8]| world.sealed.open_token(which, (&row).into(), sealed).unwrap().expose().clone();
    assert_eq!(opened(ConnectionToken::Access, &row.access_token), "at-issued");
    assert_eq!(opened(ConnectionToken::Refresh, row.refresh_token.as_deref().unwrap()), "rt-issued");
    let other = begin(&world, &zone, &provider, "user-1").await;
    let everything = String::from_utf8_lossy(&world.bytes_on_disk()).into_owned();
    let verifier = asked.field("code_verifier").unwrap();
    for secret in [state(&begun), state(&other), verifier.as_str(), "at-issued", "rt-issued", "-of-files"] {
        assert!(!everything.contains(secret), "{secret}");
    }

    // The same account again, with other tokens.
    let again = come_back(&world, &zone, &agree(other["authorization_url"].as_str().unwrap()).await).await.is(201);
    assert_eq!(again["id"], made["id"]);

    // A success is on record, and nobody is named.
    let records = world.records(Some(&zone)).await;
    let record = records.iter().find(|row| row.path.ends_with("/oauth/callback")).unwrap();
    assert_eq!((&record.actor_id, &record.actor_name, &record.actor_scope), (&None, &None, &None));
    assert_eq!((record.method.as_str(), record.status_code), ("GET", 201));
    assert!(!record.action.contains("state") && !record.path.contains('?'), "{}", record.action);
}

#[tokio::test]
async fn t13_browser_a_state_is_good_for_one_presentation_whatever_comes_of_it() {
    let world = World::new().await;
    let (zone, other) = (world.zone("Ops").await, world.zone("Other").await);
    let provider = provider(&world, &zone, "once", json!({})).await;
    // Used.
    let begun = begin(&world, &zone, &provider, "user-1").await;
    let query = agree(begun["authorization_url"].as_str().unwrap()).await;
    come_back(&world, &zone, &query).await.is(201);
    come_back(&world, &zone, &query).await.is_refused(400, "oauth_state_expired");
    // Denied, without a code, and in another zone: each uses it up.
    for (wrong_zone, rest, code) in [
        (false, "error=access_denied", "provider_oauth_denied"),
        (false, "", "authorization_code_required"),
        (true, "code=c", "oauth_state_mismatch"),
    ] {
        let begun = begin(&world, &zone, &provider, "user-2").await;
        let presented = format!("state={}&{rest}", state(&begun));
        let at = if wrong_zone { &other } else { &zone };
        come_back(&world, at, &presented).await.is_refused(400, code);
        let query = agree(begun["authorization_url"].as_str().unwrap()).await;
        come_back(&world, &zone, &query).await.is_refused(400, "oauth_state_expired");
    }
    // Of two who present it at once one is first.
    let begun = begin(&world, &zone, &provider, "user-3").await;
    let query = agree(begun["authorization_url"].as_str().unwrap()).await;
    let (one, two) = tokio::join!(come_back(&world, &zone, &query), come_back(&world, &zone, &query));
    let mut statuses = [one.status.as_u16(), two.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 400]);
}

#[tokio::test]
async fn t13_browser_a_state_is_good_for_ten_minutes_and_for_what_it_was_begun_for() {
    let world = World::new().await;
    let zone = world.zone("Ops").await;
    let provider = provider(&world, &zone, "patient", json!({})).await;
    let begun = begin(&world, &zone, &provider, "user-1").await;
    let late = begin(&world, &zone, &provider, "user-2").await;
    world.clock.advance(599);
    come_back(&world, &zone, &agree(begun["authorization_url"].as_str().unwrap()).await).await.is(201);
    world.clock.advance(1);
    let query = agree(late["authorization_url"].as_str().unwrap()).await;
    come_back(&world, &zone, &query).await.is_refused(400, "oauth_state_expired");

    // A code of another consent does not have this one's verifier.
    let (mine, theirs) = (begin(&world, &zone, &provider, "me").await, begin(&world, &zone, &provider, "them").await);
    let stolen = agree(theirs["authorization_url"].as_str().unwrap()).await;
    let code = stolen.split('&').find(|pair| pair.starts_with("code=")).unwrap();
    let answer = come_back(&world, &zone, &format!("state={}&{code}", state(&mine))).await;
    answer.is_refused(502, "provider_token_exchange_failed");

    // What is no state.
    let unknown = "s".repeat(43);
    for (query, code) in [
        (format!("state={unknown}&code=c"), "oauth_state_expired"),
        ("code=c".to_owned(), "invalid_oauth_callback"),
        ("state=short&code=c".to_owned(), "invalid_oauth_callback"),
        (format!("state={}&code=c", "s".repeat(257)), "invalid_oauth_callback"),
        (format!("state={unknown}&state={unknown}"), "invalid_oauth_callback"),
    ] {
        come_back(&world, &zone, &query).await.is_refused(400, code);
    }
    // Whoever can write to the store can't have one consent finished with what belongs to another.
    let begun = begin(&world, &zone, &provider, "user-3").await;
    world.outside(
        "UPDATE oauth_states SET verifier = (SELECT o.verifier FROM oauth_states o WHERE o.subject_id = 'them')
         WHERE subject_id = 'user-3'",
    );
    let query = agree(begun["authorization_url"].as_str().unwrap()).await;
    come_back(&world, &zone, &query).await.is_refused(400, "oauth_state_invalid");
}

#[tokio::test]
async fn what_the_token_endpoint_answers_is_told_in_words_of_ours() {
    let world = World::new().await;
    let zone = world.zone("Ops").await;
    for (client, more, status, code) in [
        ("away", json!({}), 502, "provider_token_exchange_failed"),
        ("moved", json!({}), 502, "provider_token_exchange_failed"),
        ("html", json!({}), 502, "provider_token_response_invalid"),
        ("tokenless", json!({}), 502, "provider_token_response_invalid"),
        ("polite", json!({}), 502, "provider_token_response_invalid"),
        ("mac", json!({}), 502, "provider_token_type_unsupported"),
        ("wrong", json!({"client_secret": "another"}), 502, "provider_token_exchange_failed"),
        ("listed", json!({"allowed_token_hosts": ["idp.example"]}), 400, "provider_token_endpoint_not_allowed"),
        ("metadata", json!({"token_endpoint": "https://metadata.example/t"}), 502, "provider_token_exchange_failed"),
        ("private", json!({"token_endpoint": "https://private.example/t"}), 502, "provider_token_exchange_failed"),
    ] {
        let provider = provider(&world, &zone, client, more).await;
        let begun = begin(&world, &zone, &provider, "user-1").await;
        let query = agree(begun["authorization_url"].as_str().unwrap()).await;
        let answer = come_back(&world, &zone, &query).await;
        answer.is_refused(status, code);
        assert!(!answer.text.contains("t0p") && !answer.text.contains("at-"), "{}", answer.text);
    }
    let of = async |client: &str, more: Value| {
        let provider = provider(&world, &zone, client, more).await;
        let begun = begin(&world, &zone, &provider, "user-1").await;
        let query = agree(begun["authorization_url"].as_str().unwrap()).await;
        (provider, query)
    };
    // Said how it is sent, a token of another type can be used; one that does not end, has no end.
    let (_, query) = of("mac", json!({"auth_scheme": "MAC"})).await;
    come_back(&world, &zone, &query).await.is(201);
    let (_, query) = of("endless", json!({})).await;
    assert_eq!(come_back(&world, &zone, &query).await.is(201)["expires_at"], Value::Null);
    // A provider that has changed meanwhile.
    let (provider, query) = of("kind", json!({})).await;
    let body = json!({"kind": "none", "config_json": {}});
    world.call("PATCH", &format!("/v1/zones/{zone}/providers/{provider}"), Some(body)).await.is(200);
    come_back(&world, &zone, &query).await.is_refused(400, "provider_connection_unsupported");
}

#[tokio::test]
async fn a_consent_is_begun_where_there_are_accounts() {
    let world = World::new().await;
    let zone = world.zone("Ops").await;
    let none = world.create(&format!("/v1/zones/{zone}/providers"), json!({"name": "n", "kind": "none"})).await;
    let path = format!("{}/oauth/authorize", connections(&zone));
    for (body, status, code) in [
        (json!({}), 400, "invalid_provider_oauth_authorize"),
        (json!({"provider_id": none, "subject_id": ""}), 400, "invalid_provider_oauth_authorize"),
        (json!({"provider_id": none}), 400, "provider_connection_unsupported"),
        (json!({"provider_id": "p-404"}), 404, "provider_not_found"),
    ] {
        world.call("POST", &path, Some(body)).await.is_refused(status, code);
    }
    let nowhere = "/v1/zones/0199c0de-0000-7000-8000-000000000001/provider-connections/oauth/authorize";
    world.call("POST", nowhere, Some(json!({"provider_id": none}))).await.is_refused(404, "zone_not_found");
    // What somebody ends, whoever was about to agree to it can begin again.
    let provider = provider(&world, &zone, "ended", json!({})).await;
    let begun = begin(&world, &zone, &provider, "user-1").await;
    come_back(&world, &zone, &agree(begun["authorization_url"].as_str().unwrap()).await).await.is(201);
    let whose = json!({"provider_id": provider, "subject_id": "user-1"});
    let ended = world.call("POST", &format!("{}/revoke", connections(&zone)), Some(whose)).await.is(200);
    assert_eq!((&ended["status"], &ended["upstream_revocation"]), (&json!("revoked"), &json!("unsupported")));
    let begun = begin(&world, &zone, &provider, "user-1").await;
    let made = come_back(&world, &zone, &agree(begun["authorization_url"].as_str().unwrap()).await).await.is(201);
    assert_ne!(made["id"], ended["id"]);
}

#[tokio::test]
async fn t13_browser_a_browser_sees_a_page_without_markup_of_others() {
    let world = World::new().await;
    let zone = world.zone("Ops").await;
    let provider = provider(&world, &zone, "pages", json!({})).await;
    let browser = "text/html,application/xhtml+xml,*/*;q=0.8";
    let begun = begin(&world, &zone, &provider, "user-1").await;
    let script = "%3Cscript%3Ealert(1)%3C%2Fscript%3E%0A";
    let query = format!("state={}&error=access_denied&error_description={script}", state(&begun));
    let answer = present(&world, &zone, &query, browser).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.headers["content-type"]),
        (400, &"text/html; charset=utf-8".parse().unwrap())
    );
    assert!(answer.text.contains("&lt;script&gt;alert(1)&lt;/script&gt; <code>"), "{}", answer.text);
    assert!(!answer.text.contains("<script"));
    assert!(answer.headers["content-security-policy"].to_str().unwrap().contains("default-src 'none'"));
    for (name, value) in [("cache-control", "no-store"), ("x-content-type-options", "nosniff")] {
        assert_eq!(answer.headers[name], value);
    }
    assert!(answer.headers.contains_key("x-request-id"));
    let begun = begin(&world, &zone, &provider, "user-1").await;
    let query = agree(begun["authorization_url"].as_str().unwrap()).await;
    let answer = present(&world, &zone, &query, browser).await;
    assert_eq!(answer.status, 201);
    assert!(answer.text.contains("<h1>Connected</h1>"), "{}", answer.text);
    // Refusals of nobody in particular are counted, not chained.
    let before = world.records(Some(&zone)).await;
    assert!(before.iter().all(|row| row.status_code < 400), "{before:?}");
}

/// What lies next to a query that would take a consent, by accident or by somebody's hand.
fn next_to(state: &str, by_chance: u64) -> Vec<String> {
    let (head, tail) = state.split_at(state.len() / 2);
    let all = "code=c&error=e&error_description=%3Cimg%20src%3Dx%3E";
    let mut found: Vec<String> = [
        format!("{state}%20"),
        format!("%20{state}"),
        format!("+{state}"),
        format!("{state}%00"),
        format!("%00{state}"),
        format!("{state}%0A"),
        format!("{state}%25"),
        format!("{state}%E2%80%8B"),
        format!("%EF%BB%BF{state}"),
        format!("{head}%2500{tail}"),
        format!("{head}%{tail}"),
        format!("{head}+{tail}"),
        format!("{head};{tail}"),
        format!("{head}'%20OR%20'1'='1"),
        format!("{head}%25"),
        format!("{head}_{tail}"),
        format!("{head}*"),
        tail.to_owned(),
        state.to_uppercase(),
        state.to_lowercase(),
        state.chars().rev().collect(),
        format!("%22{state}%22"),
        format!("{state}{state}"),
        format!("[%22{state}%22]"),
        "0".repeat(state.len()),
        format!("{state}="),
        format!("{state}.{tail}"),
    ]
    .into_iter()
    .map(|other| format!("state={other}&{all}"))
    .collect();
    found.extend([
        format!("state={state}&state={state}&{all}"),
        format!("state={state}&{all}&st%61te=x"),
        format!("state=x&{all}&state={state}"),
        format!("state[]={state}&{all}"),
        format!("State={state}&{all}"),
        format!("%73tate%20={state}&{all}"),
        format!("{all}&other={state}"),
        format!("{all}#state={state}").replace('#', "%23"),
        format!("{all}%26state={state}"),
        all.to_owned(),
        String::new(),
    ]);
    let mut number = by_chance;
    for _ in 0..100 {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (at, byte) = ((number >> 40) as usize % state.len(), (number >> 32) as u8);
        let mut other = state.as_bytes().to_vec();
        match number >> 62 {
            0 => drop(other.remove(at)),
            1 => other.insert(at, byte),
            _ => other[at] = byte,
        }
        let escaped: String = other.iter().map(|byte| format!("%{byte:02X}")).collect();
        found.push(format!("state={escaped}&{all}"));
    }
    // By chance it can be what it was.
    let is_it = |query: &str| {
        let states = url::form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "state");
        states.map(|(_, value)| value.into_owned()).collect::<Vec<_>>() == [state]
    };
    found.retain(|query| !is_it(query));
    found
}

#[tokio::test]
async fn t13_browser_callback_takes_a_consent_for_its_state_and_for_nothing_next_to_it() {
    let world = World::with(AdminConfig { requests_per_minute: 0, ..AdminConfig::default() }).await;
    let zone = world.zone("Ops").await;
    let provider = provider(&world, &zone, "strangers", json!({})).await;
    let begun = begin(&world, &zone, &provider, "user-1").await;
    let seed = RandomState::new().hash_one("states");
    println!("seed {seed}");
    let queries = next_to(state(&begun), seed);
    assert!(queries.len() > 120, "{}", queries.len());
    for query in &queries {
        let answer = present(&world, &zone, query, "text/html").await;
        assert_eq!(answer.status, 400, "{query}");
        let is_refused = ["invalid_oauth_callback", "oauth_state_expired"];
        assert!(is_refused.iter().any(|code| answer.text.contains(&format!("<code>{code}</code>"))), "{}", answer.text);
        // Of a page of our own words: what a state that nobody began brings with it is not even repeated.
        assert!(!answer.text.contains("<img") && !answer.text.contains("src"), "{}", answer.text);
        for (name, value) in [
            ("content-type", "text/html; charset=utf-8"),
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
        ] {
            assert_eq!(answer.headers[name], value, "{query}");
        }
        assert!(answer.headers["content-security-policy"].to_str().unwrap().starts_with("default-src 'none'; "));
    }
    // The consent still waits for the one who has its state.
    let query = agree(begun["authorization_url"].as_str().unwrap()).await;
    come_back(&world, &zone, &query).await.is(201);
}
