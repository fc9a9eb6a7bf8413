//! A Gateway beside its STS and one in another process answer byte for byte the same, and send the same upstream. Every
//! case runs against both: one process that runs everything, and a second Gateway on the same servers that asks the
//! first one's STS over the signed exchange.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "exchange/cost.rs"]
mod cost;
mod support;

use caracal_testkit::{Database, Postgres, Redis};
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};
use support::{Addressed, Http, Running};

const REPLAYED: &str = "token replay detected";
/// Long enough for a key, and not the right one.
const WRONG_KEY: &str = "5e3c5e0f7a1b2c4d6e8fa0b1c2d3e4f5061728394a5b6c7d8e9fa0b1c2d3e4f5";

/// Every kind of provider, with a path of its own at the upstream.
fn kinds() -> [(&'static str, Value); 8] {
    [
        ("caracal_mandate", json!({})),
        ("none", json!({})),
        ("api_key", json!({"header_name": "X-Api-Key", "api_key": "k-1"})),
        ("api_key", json!({"header_name": "Authorization", "auth_scheme": "Key", "api_key": "k-2"})),
        ("api_key", json!({"auth_location": "query", "query_param_name": "key", "api_key": "k 3&="})),
        ("bearer_token", json!({"bearer_token": "b-1", "forward_caracal_identity": true})),
        (
            "bearer_token",
            json!({"auth_header": "X-Token", "auth_scheme": "Token", "bearer_token": "b-2",
            "allowed_token_hosts": ["127.0.0.1"]}),
        ),
        ("http_basic", json!({"username": "u", "password": "p:w"})),
    ]
}

/// An upstream that answers with what it was sent.
async fn echo() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = axum::Router::new().fallback(|request: axum::extract::Request| async move {
        format!("{} {}\n{}", request.method(), request.uri(), written(request.headers()))
    });
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

/// Headers as lines, without what is another with every request whoever sends it.
fn written(headers: &HeaderMap) -> String {
    let varying = ["date", "traceparent", "x-caracal-token-expires-in"];
    let kept = headers.iter().filter(|(name, _)| !varying.contains(&name.as_str()));
    let mut lines: Vec<String> =
        kept.map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes()))).collect();
    lines.sort();
    lines.join("\n")
}

/// What a caller got, all of it, with mandates minted for the call made alike.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    status: u16,
    head: String,
    body: String,
}

impl Seen {
    fn refusal(&self) -> (u16, String, String) {
        let body: Value = serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no refusal: {self:?}"));
        let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        (self.status, text("error"), text("error_description"))
    }
}

fn alike(text: &str) -> String {
    let mut made = String::new();
    for (index, part) in text.split("eyJ").enumerate() {
        let part = if index == 0 {
            part
        } else {
            made.push_str("<mandate>");
            part.trim_start_matches(|letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter))
        };
        made.push_str(part);
    }
    made
}

struct World {
    http: Http,
    everything: Running,
    remote: Running,
    environment: Vec<(String, String)>,
    directory: tempfile::TempDir,
    zone: String,
    application: String,
    client_secret: String,
    lent: (String, String),
}

impl Addressed for World {
    fn url(&self, service: &str) -> String {
        self.everything.url(service)
    }

    fn admin_token(&self) -> String {
        self.environment.iter().find(|(name, _)| name == "CARACAL_ADMIN_TOKEN").unwrap().1.clone()
    }
}

impl World {
    async fn new(database: &str, redis: &str, more: &[(&str, &str)]) -> Self {
        let key = |byte: u8| format!("{byte:02x}").repeat(16) + &"9d".repeat(16);
        let mut environment = vec![
            ("SECRET_STORE_KEK", "00010203040506070809a0b0c0d0e0f1112131415161718191a2a3a4a5a6a7a8".to_owned()),
            ("CARACAL_ADMIN_TOKEN", key(8)),
            ("CARACAL_COORDINATOR_TOKEN", key(7)),
            ("ISSUER_URL", "http://issuer.test".to_owned()),
            ("DATABASE_URL", database.to_owned()),
            ("REDIS_URL", redis.to_owned()),
            ("API_V1_RATE_LIMIT_PER_MIN", "0".to_owned()),
            ("STS_TIMEOUT", "4s".to_owned()),
        ];
        let keys = ["AUDIT", "GATEWAY_STS", "IDEMPOTENCY", "ADMIN_TOKEN", "STREAMS"];
        let keys = keys.iter().zip(1..).map(|(name, byte)| (format!("{name}_HMAC_KEY"), key(byte)));
        let mut environment: Vec<(String, String)> =
            environment.drain(..).map(|(name, value)| (name.to_owned(), value)).chain(keys).collect();
        environment.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let directory = tempfile::tempdir().unwrap();
        let everything =
            Running::serve("api,sts,gateway,coordinator,audit", &directory.path().join("everything"), &environment);
        // It can't open what the store has sealed.
        let own = environment.iter().filter(|(name, _)| name != "SECRET_STORE_KEK").cloned();
        let told: Vec<_> = own.chain([("STS_URL".to_owned(), everything.url("sts"))]).collect();
        let remote = Running::serve("gateway", &directory.path().join("remote"), &told);
        let mut world = Self {
            http: Http::new(),
            everything,
            remote,
            environment,
            directory,
            zone: String::new(),
            application: String::new(),
            client_secret: String::new(),
            lent: Default::default(),
        };
        world.provision(&echo().await).await;
        world
    }

    async fn post(&self, path: &str, body: Value) -> support::Answer {
        let url = format!("{}/v1/zones{path}", self.url("api"));
        let answer = self.http.json(Method::POST, &url, &self.admin_token(), Some(body)).await.unwrap();
        assert!(answer.status.is_success(), "{path}: {} {}", answer.status, answer.json());
        answer
    }

    async fn provision(&mut self, upstream: &str) {
        self.zone = self.post("", json!({"name": "Test"})).await.text("id");
        let base = format!("/{}", self.zone);
        let application =
            self.post(&format!("{base}/applications"), json!({"name": "bot", "registration_method": "managed"})).await;
        (self.application, self.client_secret) = (application.text("id"), application.text("client_secret"));
        let mut grants = serde_json::Map::new();
        let names = (0..kinds().len()).map(resource);
        let operations = ["/notes%20x", "/items/{id}", "/files/**"]
            .map(|path| json!({"method": "GET", "path": path, "scope": "notes:read"}));
        for (number, (kind, config)) in kinds().into_iter().enumerate() {
            let provider = json!({"name": format!("p{number}"), "kind": kind, "config_json": config});
            let provider = self.post(&format!("{base}/providers"), provider).await.text("id");
            let upstream = format!("{upstream}/base/{number}?own=1");
            self.post(
                &format!("{base}/resources"),
                json!({
                    "identifier": resource(number), "upstream_url": upstream, "credential_provider_id": provider,
                    "scopes": ["notes:read"],
                    "operations": operations
                }),
            )
            .await;
            grants.insert(resource(number), json!({"application": "bot", "roles": {"reader": ["notes:read"]}}));
        }
        let content = format!(
            "# caracal:data-document\npackage caracal.authz\nimport rego.v1\napp_ids := {}\ngrants := {}\n",
            json!({"bot": self.application}),
            Value::Object(grants),
        );
        let version = self.post(&format!("{base}/policies"), json!({"name": "p", "content": content})).await;
        let set = self.post(&format!("{base}/policy-sets"), json!({"name": "s"})).await.text("id");
        let manifest = json!({"manifest": [{"policy_version_id": version.text("version_id")}]});
        let version = self.post(&format!("{base}/policy-sets/{set}/versions"), manifest).await.text("version_id");
        self.post(&format!("{base}/policy-sets/{set}/activate"), json!({"version_id": version})).await;
        self.lent = self.lend(names.collect()).await;
    }

    async fn lend(&self, resources: Vec<String>) -> (String, String) {
        let bearer = self.token(&resource(0), &[("scope", "agent:lifecycle")]).await;
        let base = format!("{}/zones/{}", self.url("coordinator"), self.zone);
        let mut sessions = Vec::new();
        for _ in 0..2 {
            let body = json!({"application_id": self.application, "labels": ["reader"], "ttl_seconds": 3600});
            let started = self.http.json(Method::POST, &format!("{base}/agents"), &bearer, Some(body)).await.unwrap();
            sessions.push(started.text("agent_session_id"));
        }
        let body = json!({
            "issuer_application_id": self.application, "receiver_application_id": self.application,
            "source_session_id": sessions[0], "target_session_id": sessions[1],
            "scopes": ["notes:read"], "constraints": {"resources": resources}, "ttl_seconds": 3600
        });
        let lent = self.http.json(Method::POST, &format!("{base}/delegations"), &bearer, Some(body)).await.unwrap();
        (sessions.remove(1), lent.text("delegation_edge_id"))
    }

    async fn token(&self, resource: &str, asked: &[(&str, &str)]) -> String {
        let mut fields = vec![
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("zone_id", self.zone.as_str()),
            ("application_id", self.application.as_str()),
            ("client_secret", self.client_secret.as_str()),
            ("resource", resource),
        ];
        fields.extend_from_slice(asked);
        let url = format!("{}/oauth/2/token", self.url("sts"));
        self.http.form(&url, &fields).await.unwrap().text("access_token")
    }

    async fn mandate(&self, resource: &str) -> String {
        let (session, edge) = &self.lent;
        let asked = [("scope", "notes:read"), ("agent_session_id", session), ("delegation_edge_id", edge)];
        self.token(resource, &asked).await
    }

    async fn call(&self, gateway: &Running, path: &str, resource: &str, mandate: &str) -> Seen {
        let bearer = format!("Bearer {mandate}");
        let headers = [
            ("host", "gateway.test"),
            ("authorization", bearer.as_str()),
            ("x-caracal-resource", resource),
            ("x-request-id", "the-same-id"),
        ];
        let url = format!("{}{path}", gateway.url("gateway"));
        let answer = self.http.send(Method::GET, &url, &headers, "").await.unwrap();
        Seen {
            status: answer.status.as_u16(),
            head: alike(&written(&answer.headers)),
            body: alike(&String::from_utf8(answer.body).unwrap()),
        }
    }

    /// One call with a fresh mandate for `minted_for` through each Gateway; they answer alike.
    async fn both(&self, path: &str, resource: &str, minted_for: &str) -> Seen {
        let mandates = [self.mandate(minted_for).await, self.mandate(minted_for).await];
        self.both_with(path, resource, &mandates).await
    }

    async fn both_with(&self, path: &str, resource: &str, mandates: &[String; 2]) -> Seen {
        let beside = self.call(&self.everything, path, resource, &mandates[0]).await;
        let remote = self.call(&self.remote, path, resource, &mandates[1]).await;
        assert_eq!(beside, remote, "{path} {resource}");
        remote
    }

    async fn evidence(&self, request: &str) -> Vec<(String, String)> {
        let url = format!("{}/v1/zones/{}/audit/by-request/{request}", self.url("api"), self.zone);
        let found = self.http.json(Method::GET, &url, &self.admin_token(), None).await.unwrap();
        let found = if found.status == StatusCode::OK { found.json() } else { Value::Null };
        let events = found.as_array().or_else(|| found["events"].as_array()).or_else(|| found["items"].as_array());
        let text = |event: &Value, name: &str| event[name].as_str().unwrap_or_default().to_owned();
        let events = events.map(Vec::as_slice).unwrap_or_default();
        events.iter().map(|event| (text(event, "decision"), text(event, "evaluation_status"))).collect()
    }
}

fn resource(number: usize) -> String {
    format!("resource://r{number}")
}

fn refusal(status: u16, code: &str, description: &str) -> (u16, String, String) {
    (status, code.to_owned(), description.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_credential_and_every_denial_is_the_same_from_both() {
    let (database, redis) = (Database::create().unwrap(), Redis::start().unwrap());
    let world = World::new(&database.url(), &redis.url(), &[]).await;
    for (number, (kind, config)) in kinds().into_iter().enumerate() {
        let name = resource(number);
        let seen = world.both("/notes%20x?q=1", &name, &name).await;
        assert_eq!(seen.status, 200, "{kind}: {seen:?}");
        assert!(seen.body.starts_with(&format!("GET /base/{number}/notes%20x?")), "{kind}: {}", seen.body);
        let secrets = ["api_key", "bearer_token"].map(|member| config[member].as_str().unwrap_or_default());
        for secret in secrets.iter().filter(|secret| !secret.is_empty() && !secret.contains(' ')) {
            assert!(seen.body.contains(secret), "{kind}: {}", seen.body);
        }
    }
    let (first, other) = (resource(0), resource(1));
    let seen = world.both("/admin", &first, &first).await.refusal();
    assert_eq!((seen.0, seen.1.as_str()), (403, "operation_not_permitted"));
    let seen = world.both("/notes%20x", &other, &first).await.refusal();
    assert_eq!(seen, refusal(403, "access_denied", "policy denied (mandate_target_mismatch)"));
    let seen = world.both("/notes%20x", "resource://nowhere", &first).await.refusal();
    assert_eq!(seen, refusal(403, "access_denied", "policy denied"));
    // Templates are matched with the bytes that go upstream.
    for path in ["/items/a%20b;v=1", "/items/%41", "/files/a/b%3Fc/"] {
        let seen = world.both(path, &first, &first).await;
        assert!(seen.status == 200 && seen.body.starts_with(&format!("GET /base/0{path}?")), "{path}: {seen:?}");
    }
    for path in ["/items/a%2Fb", "/items/..;x", "/files/a%2fb", "/%69tems/a"] {
        let seen = world.both(path, &first, &first).await.refusal();
        assert_eq!((seen.0, seen.1.as_str()), (403, "operation_not_permitted"), "{path}");
    }
    let traversal = refusal(400, "invalid_token", "path traversal not permitted");
    assert_eq!(world.both("/items/%2e%2e", &first, &first).await.refusal(), traversal);
    // Used through one, presented to the other.
    let gateways = [&world.everything, &world.remote];
    let mut replays = Vec::new();
    for (used, presented) in [(0, 1), (1, 0), (0, 0), (1, 1)] {
        let mandate = world.mandate(&first).await;
        assert_eq!(world.call(gateways[used], "/notes%20x", &first, &mandate).await.status, 200);
        replays.push(world.call(gateways[presented], "/notes%20x", &first, &mandate).await);
    }
    assert_eq!(replays[0].refusal(), refusal(401, "invalid_token", REPLAYED));
    assert!(replays.iter().all(|replay| *replay == replays[0]), "{replays:#?}");
    // A revoked session ends mandates at both.
    let (kept, remote_kept) = (world.mandate(&first).await, world.mandate(&first).await);
    let url = format!("{}/zones/{}/delegations/{}/revoke", world.url("coordinator"), world.zone, world.lent.1);
    let bearer = world.token(&first, &[("scope", "agent:lifecycle")]).await;
    assert_eq!(world.http.json(Method::PATCH, &url, &bearer, None).await.unwrap().status, 200);
    for (gateway, mandate) in gateways.iter().zip([&kept, &remote_kept]) {
        let seen = world.call(gateway, "/notes%20x", &first, mandate).await;
        assert!(matches!(seen.status, 401 | 403), "{seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_says_when_to_come_back() {
    let (database, redis) = (Database::create().unwrap(), Redis::start().unwrap());
    // The token that sessions were started with, and the two mandates.
    let world = World::new(&database.url(), &redis.url(), &[("STS_MINT_RATE_LIMIT_PER_MIN", "3")]).await;
    let seen = world.both("/notes%20x", &resource(0), &resource(0)).await;
    let expected = refusal(429, "provider_rate_limited", "too many mints for this resource");
    assert!(seen.refusal() == expected, "{seen:?}");
    assert!(seen.head.contains("retry-after: 60"), "{}", seen.head);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_store_both_say_the_same() {
    let (mut postgres, redis) = (Postgres::start().unwrap(), Redis::start().unwrap());
    let database = Database::on(&postgres.url(), "outage").unwrap();
    let world = World::new(&database.url(), &redis.url(), &[]).await;
    let name = resource(0);
    assert_eq!(world.both("/notes%20x", &name, &name).await.status, 200);
    let mandates = [world.mandate(&name).await, world.mandate(&name).await];
    postgres.stop();
    let remote = world.both_with("/notes%20x", &name, &mandates).await;
    assert_eq!(remote.refusal(), refusal(503, "sts_unavailable", "sts unavailable"));
    assert!(remote.head.contains("retry-after: 1"), "{}", remote.head);
    postgres.resume().unwrap();
    // Nothing was decided, so both are still good.
    let until = tokio::time::timeout(std::time::Duration::from_secs(30), async {
        for (gateway, mandate) in [&world.everything, &world.remote].into_iter().zip(&mandates) {
            while world.call(gateway, "/notes%20x", &name, mandate).await.status != 200 {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    });
    until.await.unwrap();
    drop(database);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_with_a_wrong_key_gets_nothing_and_says_so() {
    let (database, redis) = (Database::create().unwrap(), Redis::start().unwrap());
    let world = World::new(&database.url(), &redis.url(), &[]).await;
    let mut told = world.environment.clone();
    told.retain(|(name, _)| name != "GATEWAY_STS_HMAC_KEY");
    told.push(("GATEWAY_STS_HMAC_KEY".to_owned(), WRONG_KEY.to_owned()));
    told.push(("STS_URL".to_owned(), world.everything.url("sts")));
    let wrong = Running::serve("gateway", &world.directory.path().join("wrong"), &told);
    let name = resource(0);
    let mandate = world.mandate(&name).await;
    for _ in 0..4 {
        let seen = world.call(&wrong, "/notes%20x", &name, &mandate).await;
        assert_eq!(seen.refusal(), refusal(401, "access_denied", "invalid gateway exchange signature"));
    }
    // The STS counted it and recorded nothing; whoever was refused is known to the Gateway, which did.
    let recorded = tokio::time::timeout(std::time::Duration::from_secs(10), async {
        loop {
            let events = world.evidence("the-same-id").await;
            if !events.is_empty() {
                return events;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    });
    assert!(recorded.await.unwrap().iter().all(|(decision, _)| decision == "deny"));
    // The mandate was not touched.
    assert_eq!(world.call(&world.remote, "/notes%20x", &name, &mandate).await.status, 200);
}
