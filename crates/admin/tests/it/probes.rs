//! Whether an upstream that is to verify mandates does (contract: admin-api.md §5.6, "Check").

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use caracal_admin::AdminConfig;
use caracal_crypto::jws::UnverifiedToken;
use caracal_testkit::{FakeServer, Reply};
use serde_json::{Value, json};

use crate::world::{START, World};

const ISSUER: &str = "https://sts.example";

struct Setting {
    world: World,
    path: String,
    provider: String,
    upstream: FakeServer,
    answers: Arc<AtomicU16>,
}

async fn setting(config: AdminConfig) -> Setting {
    let world = World::with(config).await;
    let zone = world.zone("Probes").await;
    let mandate = json!({"name": "m", "kind": "caracal_mandate"});
    let provider = world.create(&format!("/v1/zones/{zone}/providers"), mandate).await;
    let answers = Arc::new(AtomicU16::new(401));
    let told = answers.clone();
    let upstream = FakeServer::http(move |_| match told.load(Ordering::SeqCst) {
        0 => Reply::hang_up(),
        status => Reply::bytes(status, "").with("location", "/elsewhere"),
    });
    Setting { path: format!("/v1/zones/{zone}/resources"), world, provider, upstream, answers }
}

impl Setting {
    async fn new() -> Self {
        setting(AdminConfig { issuer: Some(ISSUER.to_owned()), ..AdminConfig::default() }).await
    }

    fn body(&self, more: Value) -> Value {
        let url = format!("{}/base", self.upstream.url());
        let mut body = json!({"identifier": "resource://guarded", "upstream_url": url, "scopes": ["read"],
            "credential_provider_id": self.provider});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    }

    async fn test(&self, id: &str) -> crate::world::Answer {
        self.world.call("POST", &format!("{}/{id}/test", self.path), None).await
    }
}

#[tokio::test]
async fn an_upstream_is_probed_with_a_mandate_that_nobody_issued() {
    let set = Setting::new().await;
    let id = set.world.create(&set.path, set.body(json!({}))).await;
    for (status, found) in [
        (401, "guarded"),
        (403, "guarded"),
        (200, "unverified"),
        (204, "unverified"),
        (302, "endpoint_error"),
        (404, "endpoint_error"),
        (500, "endpoint_error"),
        (0, "unreachable"),
    ] {
        set.answers.store(status, Ordering::SeqCst);
        let checked = set.test(&id).await.is(200);
        assert_eq!(checked["status"], found, "{status} {checked}");
        assert!(checked["detail"].is_string() && checked["checked_at"].is_string());
        assert_eq!(checked.as_object().unwrap().len(), 3);
    }
    let seen = set.upstream.seen();
    assert!(
        seen.iter().all(|request| request.method == "HEAD" && request.path() == "/base"),
        "no redirect is followed"
    );
    let request = &seen[0];
    assert_eq!(request.header("accept"), Some("*/*"));
    let bearer = request.header("authorization").unwrap().strip_prefix("Bearer ").unwrap();
    let token = UnverifiedToken::parse(bearer).unwrap();
    let mut claims = Value::Object(token.claims().clone());
    assert!(claims.as_object_mut().unwrap().remove("jti").is_some());
    let zone = set.path.split('/').nth(3).unwrap();
    assert_eq!(
        claims,
        json!({"iss": ISSUER, "sub": "caracal-verification-probe", "aud": "resource://guarded",
        "zone_id": zone, "use": "resource", "iat": START, "exp": START + 60})
    );
    assert!(token.alg() == Some("ES256") && token.kid().is_some_and(|kid| kid.starts_with("probe-")));
    // The eleventh within a minute is too many; the next minute has its own.
    for _ in 0..2 {
        set.test(&id).await.is(200);
    }
    let limited = set.test(&id).await;
    limited.is_refused(429, "resource_test_rate_limited");
    assert!(limited.headers.contains_key("retry-after"));
    set.world.clock.advance(60);
    set.test(&id).await.is(200);
    let records = set.world.records(Some(zone)).await;
    let asked = records.iter().filter(|row| row.path.ends_with("/test") && row.status_code == 200);
    assert_eq!(asked.count(), 11, "that it was asked is on record");
    assert!(records.iter().all(|row| !row.payload.as_deref().unwrap_or_default().contains("Bearer")));
}

#[tokio::test]
async fn a_resource_whose_upstream_verifies_nothing_is_not_created_when_asked_to_check() {
    let set = Setting::new().await;
    set.answers.store(200, Ordering::SeqCst);
    let refused = set.world.call("POST", &set.path, Some(set.body(json!({"check": true})))).await;
    refused.is_refused(422, "resource_check_failed");
    assert_eq!(refused.json()["details"]["check"]["status"], "unverified");
    assert_eq!(set.world.get(&set.path).await.is(200)["items"], json!([]));
    set.answers.store(401, Ordering::SeqCst);
    set.world.call("POST", &set.path, Some(set.body(json!({"check": true})))).await.is(201);
    // What can be refused without asking is, and for other providers there is nothing to ask.
    let asked = set.upstream.seen().len();
    let bad = set.body(json!({"check": true, "operations": [{"method": "GET", "path": "x", "scope": "read"}]}));
    set.world.call("POST", &set.path, Some(bad)).await.is_refused(400, "operation_path_must_be_absolute");
    let zone = set.path.strip_suffix("/resources").unwrap();
    let none = set.world.create(&format!("{zone}/providers"), json!({"name": "n", "kind": "none"})).await;
    let other = set.body(json!({"identifier": "resource://other", "check": true, "credential_provider_id": none}));
    let other = set.world.create(&set.path, other).await;
    set.test(&other).await.is_refused(400, "resource_verification_unsupported");
    set.test("absent").await.is_refused(404, "resource_not_found");
    assert_eq!(set.upstream.seen().len(), asked);
}

#[tokio::test]
async fn t03_egress_nobody_is_probed_without_an_issuer_or_at_an_address_inside() {
    let set = setting(AdminConfig::default()).await;
    let id = set.world.create(&set.path, set.body(json!({}))).await;
    set.test(&id).await.is_refused(503, "service_unconfigured");
    assert!(set.upstream.seen().is_empty());
    let set = Setting::new().await;
    for host in ["metadata.example", "nat64.example", "private.example", "mixed.example"] {
        let body =
            set.body(json!({"identifier": format!("resource://{host}"), "upstream_url": format!("http://{host}/")}));
        let id = set.world.create(&set.path, body).await;
        assert_eq!(set.test(&id).await.is(200)["status"], "unreachable", "{host}");
    }
}

#[tokio::test]
async fn the_control_resource_is_not_probed_by_a_zones_own_token() {
    let set = Setting::new().await;
    let control = json!({"identifier": "caracal-control", "scopes": ["control:app:read"],
        "credential_provider_id": set.provider, "upstream_url": set.upstream.url()});
    let control = set.world.create(&set.path, control).await;
    let zone = set.path.split('/').nth(3).unwrap();
    let own = set.world.mint("write", Some(zone)).await;
    let path = format!("{}/{control}/test", set.path);
    set.world.call_as(Some(&own), "POST", &path, None).await.is_refused(404, "resource_not_found");
}
