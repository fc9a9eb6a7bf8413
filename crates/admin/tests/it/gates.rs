//! Who gets in: every route, every gate, and what a request target can't talk its way around.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use caracal_admin::{AdminConfig, Needs, route_list};
use caracal_crypto::Secret;
use caracal_crypto::fast_hash::ConsoleToken;
use caracal_http::PeerAddr;
use caracal_http::health::{Objections, Probe};
use caracal_http::rate::SharedWindows;
use http::Request;
use serde_json::json;

use crate::world::{BOOTSTRAP, START, World, assertion, derived, request};

/// A route's path with its parameters filled in.
fn path(template: &str, zone: &str) -> String {
    let filled = template.replace("{zone}", zone);
    let names = ["{id}", "{version}", "{request}", "{admin_token}", "{*tile}"];
    names.iter().fold(filled, |path, name| path.replace(name, "x-1"))
}

fn open() -> AdminConfig {
    AdminConfig { requests_per_minute: 0, auth_failures_per_minute: 0, ..AdminConfig::default() }
}

mod t01_control_plane_coverage {
    use super::*;

    /// Those that judge a proof of their own. This list may only shrink.
    const PUBLIC: &[&str] = &["/v1/zones/{zone}/provider-connections/oauth/callback"];

    /// All others.
    fn closed_routes() -> Vec<caracal_admin::RouteInfo> {
        route_list().into_iter().filter(|route| !PUBLIC.contains(&route.path)).collect()
    }

    #[test]
    fn no_route_is_public_by_accident() {
        for route in route_list() {
            let expected = PUBLIC.contains(&route.path);
            assert_eq!((route.is_public, route.needs == Needs::Nothing), (expected, expected), "{}", route.path);
        }
    }

    #[tokio::test]
    async fn no_route_is_open_to_a_caller_without_credential() {
        let world = World::with(open()).await;
        let zone = world.zone("Ops").await;
        for route in closed_routes() {
            let path = path(route.path, &zone);
            for token in
                [None, Some("wrong"), Some(""), Some("admin-secret-012345678"), Some("admin-secret-01234567890")]
            {
                let answer = world.call_as(token, route.method.as_str(), &path, None).await;
                answer.is_refused(401, "invalid_admin_token");
                assert_eq!(answer.headers["www-authenticate"], "Bearer");
            }
        }
    }

    #[tokio::test]
    async fn every_route_of_a_zone_is_closed_to_tokens_of_other_zones() {
        let world = World::with(open()).await;
        let (own, other) = (world.zone("Own").await, world.zone("Other").await);
        let (write, approve) = (world.mint("write", Some(&own)).await, world.mint("approve", Some(&own)).await);
        for route in closed_routes() {
            let token = if route.needs == Needs::Approve { &approve } else { &write };
            let answer = world.call_as(Some(token), route.method.as_str(), &path(route.path, &other), None).await;
            if route.for_everybody {
                assert_ne!(answer.status, 403, "{}", route.path);
            } else {
                answer.is_refused(403, "admin_token_zone_mismatch");
            }
        }
    }

    #[tokio::test]
    async fn every_write_is_closed_to_read_and_approve_tokens() {
        let world = World::with(open()).await;
        let zone = world.zone("Ops").await;
        let (read, approve) = (world.mint("read", None).await, world.mint("approve", None).await);
        for route in closed_routes() {
            let (method, path) = (route.method.as_str(), path(route.path, &zone));
            let (by_read, by_approve) = (
                world.call_as(Some(&read), method, &path, None).await,
                world.call_as(Some(&approve), method, &path, None).await,
            );
            match route.needs {
                Needs::Write => {
                    by_read.is_refused(403, "admin_token_read_only");
                    by_approve.is_refused(403, "admin_token_approve_only");
                }
                Needs::Approve => {
                    by_read.is_refused(403, "admin_token_read_only");
                    assert_ne!(by_approve.status, 403, "{method} {path}");
                }
                Needs::Nothing => panic!("{path} is for everybody"),
                Needs::Read => {
                    assert_ne!(by_read.status, 403, "{method} {path}");
                    assert_ne!(by_approve.status, 403, "{method} {path}");
                }
            }
        }
    }

    #[tokio::test]
    async fn every_route_refuses_an_oversized_body() {
        let world = World::with(AdminConfig { body_limit: 1000, ..open() }).await;
        let zone = world.zone("Ops").await;
        for route in route_list() {
            let body = json!({"name": "x".repeat(1000)});
            let answer = world.call("POST", "/v1/zones", Some(body.clone())).await;
            answer.is_refused(413, "internal_error");
            let answer = world.call(route.method.as_str(), &path(route.path, &zone), Some(body)).await;
            answer.is_refused(413, "internal_error");
        }
    }

    #[tokio::test]
    async fn every_route_but_reads_that_change_nothing_needs_write_and_decisions_need_approve() {
        for route in closed_routes() {
            // Whoever is shown a secret can do whatever it opens (difference D12).
            let reveals = route.path.ends_with("secret");
            let is_read = route.method == http::Method::GET && !reveals || route.path == "/v1/policies/validate";
            let is_decision = route.path.ends_with("/approve") || route.path.ends_with("/reject");
            let expected = if is_read {
                Needs::Read
            } else if is_decision {
                Needs::Approve
            } else {
                Needs::Write
            };
            assert_eq!(route.needs, expected, "{} {}", route.method, route.path);
            assert_eq!(route.in_zone, route.path.contains("{zone}"), "{}", route.path);
        }
    }

    #[tokio::test]
    async fn ids_that_are_none_are_refused_on_every_route_that_has_some() {
        let world = World::with(open()).await;
        for route in route_list().into_iter().filter(|route| route.path.contains('{')) {
            let named = |id: &str| {
                let parts = route.path.split('/').map(|part| if part.starts_with('{') { id } else { part });
                parts.collect::<Vec<_>>().join("/")
            };
            let method = route.method.as_str();
            for id in ["a%20b", "a%2Fb", "a%00", "%C3%A9", "a%0Ab"] {
                let of_token = route.path.contains("{admin_token}");
                let code = if of_token { "invalid_admin_token_id" } else { "invalid_params" };
                world.call(method, &named(id), None).await.is_refused(400, code);
            }
            world.call_as(None, method, &named("%zz"), None).await.is_refused(400, "bad_request");
            world.call_as(None, method, &named("%E0%A4%A"), None).await.is_refused(400, "bad_request");
            world.call_as(None, method, &named(&"a".repeat(129)), None).await.is_refused(414, "uri_too_long");
        }
    }
}

mod t01_control_plane_target {
    use super::*;

    #[tokio::test]
    async fn no_spelling_of_the_target_gets_around_the_gates() {
        let world = World::with(open()).await;
        let zone = world.zone("Ops").await;
        for target in [
            "/%761/zones".to_owned(),
            "/v%31/zones".to_owned(),
            "http://h/v1/zones".to_owned(),
            "//v1/zones".to_owned(),
            "/v1//zones".to_owned(),
            "/V1/zones".to_owned(),
            "/v1/zones/".to_owned(),
            "/v1/./zones".to_owned(),
            "/v1/%7Aones".to_owned(),
            format!("http://h/v1/zones/{zone}"),
            format!("/v1/zones/{zone}/"),
            format!("/v1/zones/{zone}/%61pplications"),
        ] {
            let answer = world.call_as(None, "GET", &target, None).await;
            answer.is_refused(401, "invalid_admin_token");
        }
    }

    #[tokio::test]
    async fn an_encoded_letter_does_not_free_the_system_zone() {
        let world = World::with(open()).await;
        let system = world.zone("caracal.sys/system").await;
        let write = world.mint("write", None).await;
        let policy = world
            .create(
                &format!("/v1/zones/{system}/policies"),
                json!({"name": "p", "content": crate::world::EMPTY_GRANTS}),
            )
            .await;
        let encoded = system.replacen('-', "%2D", 1);
        for (path, code) in [
            (format!("/v1/zones/{system}/policies/{policy}"), (403, "system_zone_read_only")),
            (format!("/v1/zones/{encoded}/policies/{policy}"), (403, "system_zone_read_only")),
            (format!("http://h/v1/zones/{system}/policies/{policy}"), (403, "system_zone_read_only")),
            (format!("/v1/%7Aones/{system}/policies/{policy}"), (404, "not_found")),
        ] {
            world.call_as(Some(&write), "DELETE", &path, None).await.is_refused(code.0, code.1);
        }
        world.get(&format!("/v1/zones/{system}/policies/{policy}")).await.is(200);
        world.call_as(Some(&write), "GET", &format!("/v1/zones/{system}"), None).await.is(200);
        world.call("DELETE", &format!("/v1/zones/{system}/policies/{policy}"), None).await.is(204);
    }

    #[tokio::test]
    async fn a_zone_token_can_t_reach_another_zone_by_encoding() {
        let world = World::with(open()).await;
        let (own, other) = (world.zone("Own").await, world.zone("Other").await);
        let token = world.mint("write", Some(&own)).await;
        let encoded = |zone: &str| zone.replacen('-', "%2d", 1);
        world.call_as(Some(&token), "GET", &format!("/v1/zones/{}", encoded(&own)), None).await.is(200);
        let answer = world.call_as(Some(&token), "GET", &format!("/v1/zones/{}", encoded(&other)), None).await;
        answer.is_refused(403, "admin_token_zone_mismatch");
        world.call_as(Some(&token), "GET", "/v1/zones", None).await.is_refused(403, "admin_token_zone_mismatch");
        world.call_as(Some(&token), "GET", "/v1/zones/%E0%A4%A", None).await.is_refused(400, "bad_request");
        let body = json!({"content": crate::world::EMPTY_GRANTS});
        world.call_as(Some(&token), "POST", "/v1/policies/validate", Some(body)).await.is(200);
        world.call_as(Some(&token), "GET", "/v1/policy-templates", None).await.is(200);
    }

    #[tokio::test]
    async fn unknown_routes_and_methods_are_401_first_and_404_then() {
        let world = World::with(open()).await;
        for (method, path) in [
            ("GET", "/v1/x"),
            ("PUT", "/v1/zones"),
            ("OPTIONS", "/v1/zones"),
            ("GET", "/v1"),
            ("POST", "/v1/zones/z/approvals/a/%61pprove"),
            ("GET", "/v1/zones/z/policy-sets/s/simulate"),
        ] {
            world.call_as(None, method, path, None).await.is_refused(401, "invalid_admin_token");
            world.call(method, path, None).await.is_refused(404, "not_found");
        }
        world.call_as(None, "GET", "/nowhere", None).await.is_refused(404, "not_found");
    }
}

mod t01_control_plane_tokens {
    use super::*;

    #[tokio::test]
    async fn only_the_exact_bearer_form_is_a_credential() {
        let world = World::with(open()).await;
        for value in [
            format!("bearer {BOOTSTRAP}"),
            format!("Basic {BOOTSTRAP}"),
            "Bearer    ".to_owned(),
            format!("Bearer {}", "a".repeat(4097)),
            format!("Bearer {}", &BOOTSTRAP[..22]),
            format!("Bearer {BOOTSTRAP}x"),
            BOOTSTRAP.to_owned(),
        ] {
            let request = Request::get("/v1/zones").header("authorization", &value).body(Body::empty()).unwrap();
            world.send(request).await.is_refused(401, "invalid_admin_token");
        }
        let twice = Request::get("/v1/zones").header("authorization", format!("Bearer {BOOTSTRAP}"));
        let twice = twice.header("authorization", format!("Bearer {BOOTSTRAP}")).body(Body::empty()).unwrap();
        world.send(twice).await.is_refused(401, "invalid_admin_token");
    }

    #[tokio::test]
    async fn a_changed_admin_token_ends_the_whole_old_family() {
        let world = World::new().await;
        world.get("/v1/zones").await.is(200);
        let console = derived(ConsoleToken::Write);
        let world = world.restarted("another-admin-secret").await;
        world.call_as(Some("another-admin-secret"), "GET", "/v1/zones", None).await.is(200);
        for old in [BOOTSTRAP, &console] {
            world.call_as(Some(old), "GET", "/v1/zones", None).await.is_refused(401, "invalid_admin_token");
        }
    }

    #[tokio::test]
    async fn a_restart_does_not_bring_a_revoked_token_back() {
        let world = World::new().await;
        let revoked: Result<usize, caracal_store::StoreError> = world
            .store
            .commit_deployment((), |tx, ()| {
                Box::pin(async move {
                    caracal_store::admin_tokens::revoke_predecessors(tx, "env-bootstrap", "another digest").await
                })
            })
            .await;
        assert_eq!(revoked.unwrap(), 1);
        world.get("/v1/zones").await.is_refused(401, "invalid_admin_token");
        let world = world.restarted(BOOTSTRAP).await;
        world.get("/v1/zones").await.is_refused(401, "invalid_admin_token");
    }

    #[tokio::test]
    async fn no_token_is_stored_as_it_is() {
        let world = World::new().await;
        let minted = world.mint("read", None).await;
        let stored = world.bytes_on_disk();
        let console = derived(ConsoleToken::Approve);
        for token in [BOOTSTRAP, &minted, &console] {
            assert!(!stored.windows(token.len()).any(|bytes| bytes == token.as_bytes()));
        }
    }
}

mod t01_control_plane_accounts {
    use super::*;

    async fn with_account(
        world: &World,
        token: &str,
        method: &str,
        path: &str,
        assertion: Option<&str>,
    ) -> (u16, String) {
        let mut request = request(Some(token), method, path, None);
        if let Some(assertion) = assertion {
            request.headers_mut().insert("x-caracal-account", assertion.parse().unwrap());
        }
        let answer = world.send(request).await;
        if answer.status.is_success() { (answer.status.as_u16(), String::new()) } else { answer.refused() }
    }

    #[tokio::test]
    async fn a_derived_token_alone_is_nobody() {
        let world = World::new().await;
        let (read, now) = (derived(ConsoleToken::ReadOnly), START);
        let good = assertion("acct-1", now + 60);
        let forged = good.replace("v1.", "v2.");
        let foreign = assertion("acct-1", now + 60).replacen("YWNjdC0x", "YWNjdC0y", 1);
        for bad in [None, Some(""), Some("v1"), Some(forged.as_str()), Some(foreign.as_str())] {
            let answer = with_account(&world, &read, "GET", "/v1/zones", bad).await;
            assert_eq!(answer, (401, "invalid_account_assertion".to_owned()), "{bad:?}");
        }
        let expired = assertion("acct-1", now);
        let answer = with_account(&world, &read, "GET", "/v1/zones", Some(&expired)).await;
        assert_eq!(answer, (401, "invalid_account_assertion".to_owned()));
        assert_eq!(with_account(&world, &read, "GET", "/v1/zones", Some(&good)).await.0, 200);
    }

    #[tokio::test]
    async fn an_account_reaches_its_own_zones_and_no_other() {
        let world = World::new().await;
        let (read, write) = (derived(ConsoleToken::ReadOnly), derived(ConsoleToken::Write));
        let (mine, other) = (assertion("acct-1", START + 60), assertion("acct-2", START + 60));
        let foreign = world.zone("Foreign").await;
        let system = world.zone("caracal.sys/system").await;
        let mut create = request(Some(&write), "POST", "/v1/zones", Some(json!({"name": "Mine"})));
        create.headers_mut().insert("x-caracal-account", mine.parse().unwrap());
        let created = world.send(create).await.is(201);
        assert_eq!(created["created_by"], "acct-1");
        let zone = created["id"].as_str().unwrap();

        let own = format!("/v1/zones/{zone}");
        assert_eq!(with_account(&world, &read, "GET", &own, Some(&mine)).await.0, 200);
        let forbidden = (403, "zone_forbidden".to_owned());
        for (path, who) in [(own.as_str(), &other), (&format!("/v1/zones/{foreign}"), &mine), ("/v1/zones/none", &mine)]
        {
            assert_eq!(with_account(&world, &read, "GET", path, Some(who)).await, forbidden, "{path}");
        }
        assert_eq!(with_account(&world, &read, "GET", &format!("/v1/zones/{system}"), Some(&mine)).await.0, 200);

        let mut list = request(Some(&read), "GET", "/v1/zones", None);
        list.headers_mut().insert("x-caracal-account", mine.parse().unwrap());
        let listed = world.send(list).await.is(200);
        assert_eq!(listed["items"].as_array().unwrap().len(), 1);
        assert_eq!(listed["items"][0]["id"], *zone);
    }

    #[tokio::test]
    async fn another_tokens_account_header_is_not_looked_at() {
        let world = World::new().await;
        let answer = with_account(&world, BOOTSTRAP, "GET", "/v1/zones", Some("v1.forged.1.x")).await;
        assert_eq!(answer.0, 200);
    }
}

mod t08_availability_limits {
    use super::*;

    fn from(address: [u8; 4], token: Option<&str>, path: &str) -> Request<Body> {
        let mut request = request(token, "GET", path, None);
        request.extensions_mut().insert(PeerAddr((address, 1).into()));
        request
    }

    #[tokio::test]
    async fn an_address_that_asks_too_often_is_told_when_to_come_back() {
        let world = World::with(AdminConfig { requests_per_minute: 3, ..open() }).await;
        for _ in 0..3 {
            world.send(from([192, 0, 2, 1], None, "/v1/x")).await.is_refused(401, "invalid_admin_token");
        }
        let answer = world.send(from([192, 0, 2, 1], None, "/v1/x")).await;
        answer.is_refused(429, "rate_limited");
        assert_eq!(answer.headers["retry-after"], "60");
        world.send(from([192, 0, 2, 2], None, "/v1/x")).await.is_refused(401, "invalid_admin_token");
        world.clock.advance(60);
        world.send(from([192, 0, 2, 1], None, "/v1/x")).await.is_refused(401, "invalid_admin_token");
    }

    /// Counters on a server that is away.
    struct Unreachable;

    impl SharedWindows for Unreachable {
        fn hit<'a>(&'a self, _: &'a str, _: Duration) -> Pin<Box<dyn Future<Output = Option<u64>> + Send + 'a>> {
            Box::pin(std::future::ready(None))
        }
    }

    /// Difference D7, and why it is not the whole answer: without a counter nobody may change anything, but what takes
    /// authority away must never wait for one.
    #[tokio::test]
    async fn while_requests_cannot_be_counted_only_what_takes_authority_away_is_let_through() {
        let world = World::with(AdminConfig { requests_per_minute: 2, ..open() }).await;
        let zone = world.zone("Ops").await;
        let unreachable: Arc<dyn SharedWindows> = Arc::new(Unreachable);
        world.admin.count_with(&unreachable);
        let ask = |last: u8, token, method, path: String| {
            let mut request = request(Some(token), method, &path, Some(json!({})));
            request.extensions_mut().insert(PeerAddr(([192, 0, 2, last], 1).into()));
            world.send(request)
        };
        world.clock.advance(60);
        let others = [("GET", "/policies"), ("POST", "/policies"), ("POST", "/policy-sets/x/activate")];
        for (last, (method, path)) in (10..).zip(others) {
            let answer = ask(last, BOOTSTRAP, method, format!("/v1/zones/{zone}{path}")).await;
            answer.is_refused(503, "rate_limit_unavailable");
            assert!(answer.headers.contains_key("retry-after"));
        }
        let takes_away =
            [("DELETE", "/policies/x", "policy_not_found"), ("POST", "/approvals/x/reject", "approval_not_found")];
        for (last, (method, path, missing)) in (2..).zip(takes_away) {
            ask(last, BOOTSTRAP, method, format!("/v1/zones/{zone}{path}")).await.is_refused(404, missing);
        }
        // Uncounted by others is not unlimited, neither for who is known nor for who guesses.
        ask(4, BOOTSTRAP, "DELETE", format!("/v1/zones/{zone}/policies/x")).await.is_refused(429, "rate_limited");
        for expected in [401, 401, 429] {
            assert_eq!(ask(5, "guess", "DELETE", format!("/v1/zones/{zone}/policies/x")).await.status, expected);
        }
    }

    #[tokio::test]
    async fn a_token_that_asks_too_often_is_limited_from_wherever_it_asks() {
        let world = World::with(AdminConfig { requests_per_minute: 3, ..open() }).await;
        for last in 1..=3 {
            world.send(from([192, 0, 2, last], Some(BOOTSTRAP), "/v1/zones")).await.is(200);
        }
        let answer = world.send(from([192, 0, 2, 4], Some(BOOTSTRAP), "/v1/zones")).await;
        answer.is_refused(429, "rate_limited");
        assert!(answer.headers.contains_key("retry-after"));
    }

    #[tokio::test]
    async fn a_token_past_its_limit_can_t_flood_a_chain_with_its_refusals() {
        let world = World::with(AdminConfig { requests_per_minute: 1, ..open() }).await;
        let zone = world.zone("Ops").await;
        let path = format!("/v1/zones/{zone}");
        for last in 1..=30 {
            let answer = world.send(from([192, 0, 2, last], Some(BOOTSTRAP), &path)).await;
            answer.is_refused(429, "rate_limited");
        }
        let limited = world.records(Some(&zone)).await.into_iter().filter(|row| row.status_code == 429).count();
        assert_eq!(limited, 10);
        world.denials.summarise(&world.store, &world.ledger).await.unwrap();
        let counted = world.records(None).await.pop().unwrap();
        let payload: serde_json::Value = serde_json::from_str(&counted.payload.unwrap()).unwrap();
        assert_eq!(payload, json!({"admin": {"rate_limited": 20}}));
    }

    #[tokio::test]
    async fn guessing_turns_401_into_429_and_a_right_token_never_counts() {
        let world = World::with(AdminConfig { auth_failures_per_minute: 2, ..open() }).await;
        let address = [192, 0, 2, 1];
        for _ in 0..5 {
            world.send(from(address, Some(BOOTSTRAP), "/v1/zones")).await.is(200);
        }
        for _ in 0..2 {
            world.send(from(address, Some("guess"), "/v1/zones")).await.is_refused(401, "invalid_admin_token");
        }
        world.send(from(address, Some("guess"), "/v1/zones")).await.is_refused(429, "rate_limited");
        world.send(from(address, Some(BOOTSTRAP), "/v1/zones")).await.is(200);
    }

    #[tokio::test]
    async fn behind_a_proxy_the_address_is_what_the_proxy_wrote() {
        let world = World::with(AdminConfig { requests_per_minute: 1, trust_proxy: true, ..open() }).await;
        let forwarded = |line: &str| {
            let mut request = from([10, 0, 0, 1], None, "/v1/x");
            request.headers_mut().insert("x-forwarded-for", line.parse().unwrap());
            request
        };
        world.send(forwarded("198.51.100.1, 192.0.2.1")).await.is_refused(401, "invalid_admin_token");
        world.send(forwarded("198.51.100.2, 192.0.2.1")).await.is_refused(429, "rate_limited");
        world.send(forwarded("198.51.100.1, 192.0.2.2")).await.is_refused(401, "invalid_admin_token");
    }

    #[tokio::test]
    async fn readiness_is_limited_drains_and_follows_the_store() {
        let world = World::with(AdminConfig { ready_per_minute: 3, ..open() }).await;
        assert_eq!(world.call_as(None, "GET", "/ready", None).await.is(200), json!({"ok": true}));
        assert_eq!(world.call_as(None, "GET", "/health", None).await.is(200), json!({"ok": true}));
        world.store.close().await;
        let answer = world.call_as(None, "GET", "/ready", None).await;
        answer.is_refused(503, "postgres_unreachable");
        assert!(answer.headers.contains_key("retry-after"));
        assert_eq!(answer.json()["dependency"], "postgres");
        world.admin.drain();
        let answer = world.call_as(None, "GET", "/ready", None).await.is(503);
        assert_eq!((&answer["ok"], &answer["draining"]), (&json!(false), &json!(true)));
        world.call_as(None, "GET", "/ready", None).await.is_refused(429, "rate_limited");
        assert_eq!(world.call_as(None, "GET", "/health", None).await.is(200), json!({"ok": true}));
        assert!(!world.call_as(None, "GET", "/health", None).await.headers.contains_key("cache-control"));
    }

    /// What lies beside the store, as it is.
    struct Beside(Objections);

    impl Probe for Beside {
        fn objections(&self) -> Pin<Box<dyn Future<Output = Objections> + Send + '_>> {
            Box::pin(async { self.0 })
        }
    }

    #[tokio::test]
    async fn readiness_names_what_is_down_beside_the_store() {
        for (objections, code, more) in [
            (
                Objections { redis_unreachable: true, outbox_dead: 3 },
                "redis_unreachable",
                json!({"dependency": "redis"}),
            ),
            (
                Objections { redis_unreachable: false, outbox_dead: 3 },
                "outbox_dead_messages",
                json!({"deadCount": 3, "limit": 0}),
            ),
        ] {
            let world = World::with(open()).await;
            world.admin.probe_with(Arc::new(Beside(objections)));
            let answer = world.call_as(None, "GET", "/ready", None).await;
            let told = answer.is_refused(503, code).json();
            for (name, value) in more.as_object().unwrap() {
                assert_eq!(&told[name], value, "{told}");
            }
            assert!(answer.headers.contains_key("retry-after"));
            assert_eq!(world.call_as(None, "GET", "/health", None).await.is(200), json!({"ok": true}));
        }
    }

    #[tokio::test]
    async fn a_store_that_is_down_is_503_and_grants_nothing() {
        let world = World::with(open()).await;
        world.store.close().await;
        let answer = world.get("/v1/zones").await;
        answer.is_refused(503, "store_unavailable");
        assert!(answer.headers.contains_key("retry-after"));
    }
}

mod t01_control_plane_bodies {
    use super::*;

    async fn post(world: &World, token: Option<&str>, kind: Option<&str>, body: &str) -> (u16, String) {
        let mut request = Request::post("/v1/zones");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        world.send(request.body(Body::from(body.to_owned())).unwrap()).await.refused()
    }

    #[tokio::test]
    async fn a_body_that_can_t_be_read_is_refused_before_anyone_is_asked_who_they_are() {
        let world = World::with(open()).await;
        let json = Some("application/json");
        for (kind, body, expected) in [
            (json, "{", 400),
            (json, "", 400),
            (json, r#"{"__proto__":{}}"#, 400),
            (json, r#"{"name":"a","name":"b"}"#, 400),
            (Some("application/xml"), "<a/>", 415),
            (None, "{}", 415),
        ] {
            assert_eq!(post(&world, None, kind, body).await, (expected, "internal_error".to_owned()), "{body}");
        }
        let text = (400, "invalid_zone".to_owned());
        assert_eq!(post(&world, Some(BOOTSTRAP), Some("text/plain"), "{\"name\":\"x\"}").await, text);
        assert_eq!(post(&world, Some(BOOTSTRAP), json, "null").await, text);
        assert_eq!(post(&world, Some(BOOTSTRAP), None, "").await, text);
        assert_eq!(world.get("/v1/zones").await.is(200)["items"], json!([]));
    }

    #[tokio::test]
    async fn an_empty_json_body_is_refused_on_a_delete_too_and_none_at_all_is_fine() {
        let world = World::with(open()).await;
        let zone = world.zone("Ops").await;
        let path = format!("/v1/zones/{zone}/policies/x");
        let mut empty = request(Some(BOOTSTRAP), "DELETE", &path, None);
        empty.headers_mut().insert("content-type", "application/json".parse().unwrap());
        world.send(empty).await.is_refused(400, "internal_error");
        world.call("DELETE", &path, None).await.is_refused(404, "policy_not_found");
    }

    #[tokio::test]
    async fn a_read_may_carry_a_content_type() {
        let world = World::with(open()).await;
        let mut read = request(Some(BOOTSTRAP), "GET", "/v1/zones", None);
        read.headers_mut().insert("content-type", "application/json".parse().unwrap());
        world.send(read).await.is(200);
    }
}

#[tokio::test]
async fn a_request_id_is_kept_when_well_formed_and_replaced_otherwise() {
    let world = World::with(open()).await;
    let with_id = |id: &str| {
        let mut request = request(Some(BOOTSTRAP), "GET", "/v1/nowhere", None);
        request.headers_mut().insert("x-request-id", id.parse().unwrap());
        request
    };
    let kept = world.send(with_id("trace-1:a.b_c")).await;
    assert_eq!(kept.headers["x-request-id"], "trace-1:a.b_c");
    kept.is_refused(404, "not_found");
    for bad in ["bad id!", "", &"x".repeat(129)] {
        let replaced = world.send(with_id(bad)).await;
        let id = replaced.headers["x-request-id"].to_str().unwrap().to_owned();
        assert_eq!((id.len(), id.as_bytes()[14]), (36, b'4'), "{bad:?} became {id}");
    }
    assert!(world.get("/v1/zones").await.headers.contains_key("x-request-id"));
}

#[tokio::test]
async fn every_answer_of_the_api_is_marked_as_private_and_plain() {
    let world = World::with(open()).await;
    for (token, path) in [(Some(BOOTSTRAP), "/v1/zones"), (None, "/v1/zones"), (Some(BOOTSTRAP), "/v1/nowhere")] {
        let answer = world.call_as(token, "GET", path, None).await;
        for (name, value) in
            [("x-content-type-options", "nosniff"), ("referrer-policy", "no-referrer"), ("cache-control", "no-store")]
        {
            assert_eq!(answer.headers[name], value, "{path}");
        }
    }
}

#[tokio::test]
async fn a_head_is_a_get_without_a_body() {
    let world = World::with(open()).await;
    let answer = world.call("HEAD", "/v1/zones", None).await;
    assert_eq!((answer.status.as_u16(), answer.text.as_str()), (200, ""));
    let read = world.mint("read", None).await;
    assert_eq!(world.call_as(Some(&read), "HEAD", "/v1/zones", None).await.status, 200);
    assert_eq!(world.call_as(None, "HEAD", "/v1/zones", None).await.status, 401);
}

#[tokio::test]
async fn t12_foothold_metrics_are_for_their_own_bearer_and_closed_without_one() {
    let closed = World::new().await;
    closed.get("/metrics").await.is_refused(401, "unauthorized");
    let bearer = AdminConfig { metrics_bearer: Some(Secret::new("of-metrics".to_owned())), ..open() };
    let world = World::with(AdminConfig { open_metrics: true, ..bearer }).await;
    for token in [None, Some("of-metric"), Some("of-metricsx"), Some(BOOTSTRAP)] {
        world.call_as(token, "GET", "/metrics", None).await.is_refused(401, "unauthorized");
    }
    let answer = world.call_as(Some("of-metrics"), "GET", "/metrics", None).await;
    assert_eq!(answer.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    for name in [
        "caracal_log_emitted_total",
        "caracal_log_dropped_total",
        "caracal_log_sampled_total",
        "caracal_secret_backend_operations_total",
        "caracal_secret_backend_errors_total",
        "caracal_api_outbox_pending_total",
        "caracal_api_outbox_dead_total",
        "caracal_api_outbox_oldest_pending_age_seconds",
        "caracal_api_outbox_oldest_dead_age_seconds",
        "caracal_notifications_pending",
        "caracal_notifications_oldest_pending_age_seconds",
        "caracal_notification_attempts_total{outcome=\"delivered\"}",
    ] {
        assert!(answer.text.lines().any(|line| line.starts_with(&format!("{name} "))), "{name}: {}", answer.text);
    }
    let dev = World::with(AdminConfig { open_metrics: true, ..open() }).await;
    assert_eq!(dev.call_as(None, "GET", "/metrics", None).await.status, 200);
}

#[tokio::test]
async fn t01_control_plane_every_strict_route_refuses_members_it_does_not_know() {
    let world = World::with(open()).await;
    let zone = world.zone("Ops").await;
    let at = |path: &str| format!("/v1/zones/{zone}{path}");
    for (method, path, mut body, code) in [
        ("POST", "/v1/zones".to_owned(), json!({"name": "x"}), "invalid_zone"),
        ("PATCH", at(""), json!({"name": "x"}), "invalid_zone"),
        ("POST", at("/applications"), json!({"name": "x", "registration_method": "managed"}), "invalid_application"),
        ("PATCH", at("/applications/x"), json!({"name": "x"}), "invalid_application"),
        ("POST", at("/applications/dcr"), json!({"name": "x"}), "invalid_application"),
        ("POST", at("/workloads"), json!({"name": "x"}), "invalid_workload"),
        ("PUT", at("/workloads/x"), json!({"name": "x"}), "invalid_workload"),
        ("PUT", "/v1/mint-rate-limit".to_owned(), json!({"limit_per_minute": 1}), "invalid_body"),
        ("PUT", "/v1/audit-retention".to_owned(), json!({"retention_days": 1}), "invalid_body"),
        ("POST", "/v1/admin-tokens".to_owned(), json!({"name": "x", "scope": "global"}), "invalid_admin_token_request"),
    ] {
        body["unheard_of"] = json!(1);
        world.call(method, &path, Some(body)).await.is_refused(400, code);
    }
    assert_eq!(world.get("/v1/zones").await.is(200)["items"].as_array().unwrap().len(), 1);
}
