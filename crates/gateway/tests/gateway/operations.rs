//! Fixed routes and the life of the process (gateway.md §3, §10.5, §20, §21; property 22).

use std::time::Duration;

use caracal_crypto::Secret;
use caracal_gateway::{FeedCounts, GatewayConfig, MetricsAccess};
use caracal_http::server::Ended;
use serde_json::json;
use std::sync::atomic::Ordering;

use crate::sts::Said;
use crate::upstream::Upstream;
use crate::world::{NOW, World, config, request, to};

fn plain(method: &str, path: &str, headers: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: g\r\n{headers}\r\n")
}

#[tokio::test]
async fn health_answers_any_method_with_an_empty_200() {
    let world = World::scripted(|_| Said::Hang).await;
    for method in ["GET", "POST", "HEAD", "DELETE"] {
        let answer = world.ask(&plain(method, "/health", "")).await;
        assert_eq!((answer.status(), answer.body.len()), (200, 0), "{method}");
        assert!(answer.get("x-request-id").is_some());
        assert_eq!(answer.get("server"), None);
    }
    assert_eq!(world.ask(&plain("GET", "/health/", "")).await.status(), 401);
    assert_eq!(world.ask(&plain("GET", "/Health", "")).await.status(), 401);
}

#[tokio::test]
async fn readiness_names_the_first_thing_that_fails() {
    let world = World::scripted(|_| Said::Hang).await;
    let ready = plain("GET", "/ready", "");
    let answer = world.ask(&ready).await;
    assert_eq!((answer.status(), answer.json()), (200, json!({"ok": true, "ready": true})));
    world.sts.reachable.store(false, Ordering::SeqCst);
    let reason = |answer: &crate::caller::Answer| {
        assert_eq!(
            (answer.status(), &answer.json()["ok"], &answer.json()["ready"]),
            (503, &json!(false), &json!(false))
        );
        answer.json()["reason"].as_str().unwrap().to_owned()
    };
    assert_eq!(reason(&world.ask(&ready).await), "sts_unreachable");
    world.clock.advance(71);
    assert_eq!(reason(&world.ask(&ready).await), "revocation_snapshot_stale");
    world.store.close().await;
    assert_eq!(reason(&world.ask(&ready).await), "store_unreachable");
}

mod t05_secrets {
    use super::*;

    #[tokio::test]
    async fn metrics_are_closed_unless_the_bearer_is_exact() {
        let with = |metrics| GatewayConfig { metrics, ..GatewayConfig::default() };
        let closed = World::with(with(MetricsAccess::Closed), |_| Said::Hang).await;
        let bearer = World::with(with(MetricsAccess::Bearer(Secret::new("s3cret".to_owned()))), |_| Said::Hang).await;
        for path in ["/metrics", "/metrics.json"] {
            for (world, line, status) in [
                (&closed, "", 401),
                (&closed, "Authorization: Bearer \r\n", 401),
                (&bearer, "", 401),
                (&bearer, "Authorization: Bearer s3creT\r\n", 401),
                (&bearer, "Authorization: Bearer s3cret1\r\n", 401),
                (&bearer, "Authorization: bearer s3cret\r\n", 401),
                (&bearer, "Authorization: Bearer  s3cret\r\n", 401),
                (&bearer, "Authorization: Bearer s3cret\r\n", 200),
            ] {
                let answer = world.ask(&plain("GET", path, line)).await;
                assert_eq!(answer.status(), status, "{path} {line}");
                if status == 401 {
                    assert_eq!(answer.text(), "unauthorized\n");
                    assert_eq!(answer.get("x-content-type-options"), Some("nosniff"));
                }
            }
        }
    }

    #[tokio::test]
    async fn the_reload_route_does_not_exist_without_the_token() {
        let token = Some(Secret::new("cat_admin".to_owned()));
        let world = World::with(GatewayConfig { admin_token: token, ..config() }, |_| Said::Hang).await;
        let path = "/internal/revocations/reload";
        for line in [
            "",
            "Authorization: Bearer cat_admiX\r\n",
            "Authorization: Bearer cat_admin1\r\n",
            "Authorization: cat_admin\r\n",
        ] {
            let answer = world.ask(&plain("POST", path, line)).await;
            assert_eq!((answer.status(), answer.text().as_str()), (404, "not found\n"), "{line}");
        }
        let good = plain("POST", path, "Authorization:   Bearer cat_admin \r\n");
        world.revoke("session_id", "r-9").await;
        let answer = world.ask(&good).await;
        assert_eq!((answer.status(), answer.json()), (200, json!({"ok": true, "revocations": 0})));
        crate::t03_gateway_revocation::add_revoked_record(&world.store, "r-9").await;
        assert_eq!(world.ask(&good).await.json(), json!({"ok": true, "revocations": 1}));
        assert_eq!(world.ask(&plain("GET", path, "Authorization: Bearer cat_admin\r\n")).await.status(), 401);
        world.store.close().await;
        let answer = world.ask(&good).await;
        assert_eq!((answer.status(), &answer.json()["reason"]), (503, &json!("revocation_reload_failed")));
        let unset = World::scripted(|_| Said::Hang).await;
        assert_eq!(unset.ask(&plain("POST", path, "Authorization: Bearer \r\n")).await.status(), 404);
    }

    /// A comparison that stops at the first difference tells who measures it how much of a guess was right. So the text of a
    /// secret goes nowhere but where it is sent, and into the one comparison that takes as long whatever it finds.
    #[test]
    fn no_secret_is_compared_but_in_constant_time() {
        let compares =
            ["==", "!=", "starts_with", "ends_with", "strip_prefix", ".eq(", ".cmp(", "contains(", "matches!", "find("];
        let mut folders = vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
        let (mut exposed, mut compared) = (0, 0);
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let text = std::fs::read_to_string(&path).unwrap();
                // Statement by statement, for one may take several lines; tests may compare as they like.
                let text = text.split("#[cfg(test)]").next().unwrap();
                for statement in text.split([';', '{', '}']).filter(|statement| statement.contains(".expose()")) {
                    exposed += 1;
                    compared += usize::from(statement.contains("is_bearer("));
                    // Whether there is one at all is no comparison.
                    let statement = statement.replace(".expose().is_empty()", "");
                    if let Some((_, secret)) = statement.split_once(".expose()") {
                        let before = statement.split(".expose()").next().unwrap().replace("Some(", "").to_owned();
                        let found = compares.iter().find(|one| secret.contains(**one) || before.contains(**one));
                        assert!(found.is_none(), "{}: {found:?} in `{}`", path.display(), statement.trim());
                    }
                }
            }
        }
        assert!(exposed >= 5 && compared == 2, "the sources were looked through: {exposed}, {compared}");
        let operator = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/operator.rs")).unwrap();
        let (_, body) = operator.split_once("fn is_bearer(").unwrap();
        let body = body.split("\n}").next().unwrap();
        assert!(body.contains("constant_time_eq(token, secret.as_bytes())") && !body.contains("=="), "{body}");
    }

    /// The token opens the Admin API as well, whose limit on guesses does not cover this door.
    #[tokio::test]
    async fn who_guesses_the_token_of_the_reload_route_finds_it_gone() {
        let token = Some(Secret::new("cat_admin".to_owned()));
        let world = World::with(GatewayConfig { admin_token: token, ..config() }, |_| Said::Hang).await;
        let path = "/internal/revocations/reload";
        let good = plain("POST", path, "Authorization: Bearer cat_admin\r\n");
        assert_eq!(world.ask(&good).await.status(), 200);
        for guess in 0..=60 {
            let line = format!("Authorization: Bearer cat_{guess}\r\n");
            assert_eq!(world.ask(&plain("POST", path, &line)).await.status(), 404);
        }
        assert_eq!(world.ask(&good).await.status(), 404);
    }
}

#[tokio::test]
async fn metrics_are_text_and_json_of_the_same_numbers() {
    let upstream = Upstream::ok().await;
    let world = World::before(&upstream).await;
    assert_eq!(world.get("/x").await.status(), 200);
    assert_eq!(world.ask(&plain("GET", "/x", "")).await.status(), 401);
    let text = world.ask(&plain("GET", "/metrics", "")).await;
    assert_eq!(text.get("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let text = text.text();
    for line in [
        "# TYPE caracal_gateway_requests_total counter\ncaracal_gateway_requests_total 2\n",
        "caracal_gateway_requests_allowed_total 1\n",
        "caracal_gateway_requests_denied_total 1\n",
        "caracal_gateway_denials_missing_auth_total 1\n",
        "# TYPE caracal_gateway_revocation_snapshot_fresh gauge\ncaracal_gateway_revocation_snapshot_fresh 1\n",
        "caracal_gateway_audit_queue_capacity 10000\n",
        "caracal_gateway_sts_circuit_open 0\n",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    for (key, value) in
        [("requests_total", 2), ("requests_allowed", 1), ("requests_denied", 1), ("audit_queue_cap", 10_000)]
    {
        assert_eq!(world.metric(key).await, value, "{key}");
    }
}

/// §20.2, text only: three gauges without the Gateway's prefix, which rise with what is in use.
#[tokio::test]
async fn the_stores_connections_are_shown_as_they_are_used() {
    let upstream = Upstream::ok().await;
    let world = World::before(&upstream).await;
    let shown = async |name: &str| {
        let text = world.ask(&plain("GET", "/metrics", "")).await.text();
        let value = text.lines().find_map(|line| line.strip_prefix(&format!("caracal_db_pool_{name} ")));
        value.unwrap_or_else(|| panic!("no {name}: {text}")).parse::<f64>().unwrap()
    };
    let all = shown("max_conns").await;
    assert!(all >= 2.0);
    let held = [world.store.snapshot().await.unwrap(), world.store.snapshot().await.unwrap()];
    let (before, ratio) = (shown("acquired_conns").await, shown("in_use_ratio").await);
    assert!(before >= 2.0 && ratio >= 2.0 / all && ratio <= 1.0, "{before} of {all}, {ratio}");
    drop(held);
    let given_back = async { while shown("acquired_conns").await > 0.0 {} };
    tokio::time::timeout(std::time::Duration::from_secs(10), given_back).await.unwrap();
    assert_eq!(shown("in_use_ratio").await, 0.0);
    let json = world.ask(&plain("GET", "/metrics.json", "")).await.json();
    assert!(json.as_object().unwrap().keys().all(|key| !key.contains("pool")), "{json}");
}

/// §20.2: what became of messages before the Gateway heard of them is told by whoever hands them on.
#[tokio::test]
async fn the_feed_of_revocations_is_counted_by_whom_it_comes_from() {
    let world = World::scripted(|_| Said::Hang).await;
    for name in ["pending_replayed", "dead_letters", "invalid_signatures"] {
        assert_eq!(world.metric(&format!("revocation_{name}")).await, 0, "without a feed");
    }
    world.gateway.count_feed_with(|| FeedCounts { caught_up: 1, dead_letters: 2, invalid_signatures: 3 });
    let text = world.ask(&plain("GET", "/metrics", "")).await.text();
    let at = |line: &str| text.find(line).unwrap_or_else(|| panic!("no {line}: {text}"));
    let order = [
        "\ncaracal_gateway_revocation_messages_total 0\n",
        "\ncaracal_gateway_revocation_pending_replayed_total 1\n",
        "\ncaracal_gateway_revocation_dead_letters_total 2\n",
        "\ncaracal_gateway_revocation_invalid_signatures_total 3\n",
        "\ncaracal_gateway_revocation_reloads_total ",
    ];
    assert!(order.map(at).is_sorted(), "in the contract's order");
    assert_eq!(world.metric("revocation_invalid_signatures").await, 3);
}

#[tokio::test]
async fn durations_are_counted_in_buckets() {
    let upstream = Upstream::ok().await;
    let world = World::before(&upstream).await;
    let request = world.request("GET", "/x", "X-Request-Id: r-1\r\n").await;
    assert_eq!(world.ask(&request).await.status(), 200);
    world.event("r-1").await;
    let text = world.ask(&plain("GET", "/metrics", "")).await.text();
    for name in ["call_duration_seconds", "upstream_latency_seconds", "sts_exchange_duration_seconds"] {
        assert!(text.contains(&format!("# TYPE caracal_gateway_{name} histogram\n")), "{text}");
        assert!(text.contains(&format!("caracal_gateway_{name}_bucket{{le=\"+Inf\"}} 1\n")), "{text}");
        assert!(text.contains(&format!("caracal_gateway_{name}_count 1\n")), "{text}");
    }
    assert!(text.contains("caracal_gateway_calls_open 0\n"), "{text}");
}

#[tokio::test]
async fn with_a_listener_of_their_own_operators_hide_no_path_of_an_upstream() {
    let upstream = Upstream::ok().await;
    let url = upstream.url("");
    let token = Some(Secret::new("cat_admin".to_owned()));
    let config = GatewayConfig { separate_operators: true, admin_token: token, ..config() };
    let world = World::with(config, move |_| Said::Go(crate::world::to(url.clone()))).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let operators = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let serving = tokio::spawn(world.gateway.clone().serve_operators(listener, stopped));
    for path in ["/health", "/ready", "/metrics", "/metrics.json", "/internal/revocations/reload"] {
        let mut operator = crate::caller::Caller::connect(operators).await;
        let method = if path.ends_with("reload") { "POST" } else { "GET" };
        let answer = operator.ask(&plain(method, path, "Authorization: Bearer cat_admin\r\n")).await;
        assert_eq!(answer.status(), 200, "{path}");
        // The same path at the public port is the upstream's, and needs a mandate.
        assert_eq!(world.ask(&plain(method, path, "")).await.status(), 401, "{path}");
        assert_eq!(world.get(path).await.text(), "ok", "{path}");
    }
    // And nothing is proxied here, mandate or not.
    let request = world.request("GET", "/x", "").await;
    let answer = crate::caller::Caller::connect(operators).await.ask(&request).await;
    assert_eq!((answer.status(), answer.text().as_str()), (404, "not found\n"));
    assert_eq!(upstream.received().len(), 5);
    stop.send(true).unwrap();
    assert_eq!(serving.await.unwrap(), Ended::Drained);
}

#[tokio::test]
async fn each_refusal_is_counted_under_its_own_name() {
    let upstream = Upstream::ok().await;
    let world = World::before(&upstream).await;
    world.revoke("session_id", "gone").await;
    let used = world.mandate(json!({})).await;
    assert_eq!(world.ask(&request("GET", "/x", &used, "")).await.status(), 200);
    let mandate = async |changes| world.mandate(changes).await;
    let good = mandate(json!({})).await;
    for (n, (key, asking)) in [
        ("denials_missing_auth", plain("GET", "/x", "")),
        ("denials_bad_bearer", request("GET", "/x", "x.y.z", "")),
        ("denials_expiring", request("GET", "/x", &mandate(json!({"exp": NOW + 1})).await, "")),
        ("denials_bad_routing", plain("GET", "/x", &format!("Authorization: Bearer {good}\r\n"))),
        ("denials_path_traversal", request("GET", "/a%5cb", &good, "")),
        ("denials_signature", request("GET", "/x", &good[..good.len() - 8], "")),
        ("denials_jti_replay", request("GET", "/x", &used, "")),
        ("denials_revoked", request("GET", "/x", &mandate(json!({"sid": "gone"})).await, "")),
    ]
    .into_iter()
    .enumerate()
    {
        assert!(world.ask(&asking).await.status() >= 400, "{key}");
        assert_eq!(world.metric(key).await, 1, "{key}");
        assert_eq!(world.metric("requests_denied").await, u64::try_from(n).unwrap() + 1, "{key}");
    }
    assert_eq!((world.metric("requests_total").await, world.metric("requests_allowed").await), (9, 1));
}

#[tokio::test]
async fn a_stop_lets_calls_finish_and_turns_new_ones_away() {
    let upstream = Upstream::ok().await;
    let url = upstream.url("");
    let world = World::scripted(move |_| Said::Wait(to(url.clone()))).await;
    let mut under_way = world.caller().await;
    under_way.send(world.request("GET", "/x", "").await).await;
    world.sts.arrived.notified().await;
    let mut idle = world.caller().await;
    idle.send(plain("GET", "/health", "")).await;
    assert_eq!(idle.answer(true).await.status(), 200);
    world.begin_stop();
    assert!(idle.is_closed().await);
    world.sts.go_on.notify_one();
    let answer = under_way.answer(true).await;
    assert_eq!((answer.status(), answer.get("connection")), (200, Some("close")));
    let address = world.address;
    assert_eq!(world.stop().await.connections, Ended::Drained);
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn what_does_not_finish_in_time_is_cut_and_still_recorded() {
    let config = GatewayConfig { grace: Duration::from_millis(50), ..config() };
    let upstream = Upstream::raw(|mut stream| async move {
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    })
    .await;
    let url = upstream.url("");
    let world = World::with(config, move |_| Said::Go(to(url.clone()))).await;
    let mut stuck = world.caller().await;
    stuck.send(world.request("GET", "/x", "X-Request-Id: r-1\r\n").await).await;
    while upstream.connections() == 0 {
        tokio::task::yield_now().await;
    }
    let deployment = world.deployment.clone();
    assert_eq!(world.stop().await.connections, Ended::Cut { open: 1 });
    let events = deployment.events_now("r-1").await;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].evaluation_status, "upstream_error");
}

#[tokio::test]
async fn a_gateway_that_cannot_read_revocations_does_not_start() {
    let world = World::scripted(|_| Said::Hang).await;
    world.store.close().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    assert!(world.gateway.clone().serve(listener, stopped).await.is_err());
}
