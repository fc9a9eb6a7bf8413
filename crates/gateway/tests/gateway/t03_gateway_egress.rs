//! Where calls may go (gateway.md §14, README D9; properties 2, 6, 10, 18).

use std::time::Duration;

use caracal_crypto::Secret;
use caracal_gateway::{Directive, GatewayConfig};
use serde_json::json;
use tokio::time::timeout;

use crate::sts::Said;
use crate::upstream::Upstream;
use crate::world::{SILENT, World, config, to};

fn not_addressable() -> (u16, String, String) {
    (502, "internal_error".to_owned(), "upstream not addressable".to_owned())
}

#[tokio::test]
async fn an_upstream_that_must_not_be_reached_is_not_and_the_operator_learns_why() {
    let world = World::scripted(|_| Said::Hang).await;
    world.names.point("mixed.test", &["127.0.0.1", "169.254.0.1"]);
    world.names.point("metadata.test", &["169.254.169.254"]);
    world.names.point("internal.test", &["10.0.0.1"]);
    for (n, (url, reason)) in [
        ("ftp://x", "egress target refused"),
        ("http://u:p@h/", "egress target refused"),
        ("/relative", "egress target refused"),
        ("http:///x", "egress target refused"),
        ("http://169.254.169.254/", "cloud metadata"),
        ("http://[fe80::1%25eth0]/", "egress target refused"),
        ("http://[::ffff:169.254.169.254]/", "cloud metadata"),
        ("http://[64:ff9b::a9fe:a9fe]/", "address"),
        ("http://224.0.0.1/", "address"),
        ("http://0.0.0.0/", "address"),
        ("http://[::]/", "address"),
        ("http://[ff02::1]/", "address"),
        ("http://2852039166/", "cloud metadata"),
        ("http://0xa9fea9fe/", "cloud metadata"),
        ("http://10.0.0.1/", "CARACAL_PRIVATE_EGRESS_HOSTS"),
        ("http://metadata.test/", "cloud metadata"),
        ("http://mixed.test/", "link-local"),
        ("http://internal.test/", "CARACAL_PRIVATE_EGRESS_HOSTS"),
        ("http://unknown.test/", "could not be resolved"),
    ]
    .into_iter()
    .enumerate()
    {
        let with_query = format!("{url}?key=secret-in-query");
        world.sts.says(move |_| Said::Go(to(with_query.clone())));
        let id = format!("r-{n}");
        let request = world.request("GET", "/x", &format!("X-Request-Id: {id}\r\n")).await;
        let answer = world.ask(&request).await;
        assert_eq!(answer.refusal(), not_addressable(), "{url}");
        let event = world.events(&id, 1).await.remove(0);
        assert_eq!((event.decision.as_str(), event.evaluation_status.as_str()), ("allow", "upstream_rejected"));
        assert!(event.diagnostics.contains(reason), "{url}: {}", event.diagnostics);
        assert!(event.metadata.contains("upstream_not_addressable"));
        assert!(!format!("{event:?}").contains("secret-in-query") && !event.diagnostics.contains("u:p"), "{event:?}");
    }
}

#[tokio::test]
async fn a_name_is_judged_at_every_connection_not_once() {
    let upstream = Upstream::saying(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").await;
    let port = upstream.address.port();
    let world = World::scripted(move |_| Said::Go(to(format!("http://rebinds.test:{port}/")))).await;
    world.names.point("rebinds.test", &["127.0.0.1"]);
    assert_eq!(world.get("/x").await.status(), 200);
    world.names.point("rebinds.test", &["169.254.169.254"]);
    assert_eq!(world.get("/x").await.refusal(), not_addressable());
    assert_eq!(upstream.connections(), 1);
}

/// The deadline is the resolver's own: the one for the upstream's answer is far away.
#[tokio::test]
async fn a_name_server_that_never_answers_costs_the_resolvers_deadline_and_is_no_timeout_of_the_upstream() {
    let far = Duration::from_secs(600);
    let config = GatewayConfig { upstream_timeout: far, read_timeout: 2 * far, ..config() };
    let world = World::with(config, |_| Said::Go(to(format!("http://{SILENT}/")))).await;
    let request = world.request("GET", "/x", "X-Request-Id: r-1\r\n").await;
    let answer = timeout(Duration::from_secs(10), world.ask(&request)).await.expect("an answer in time");
    assert_eq!(answer.refusal(), not_addressable());
    let event = world.events("r-1", 1).await.remove(0);
    assert_eq!((event.decision.as_str(), event.evaluation_status.as_str()), ("allow", "upstream_rejected"));
    assert!(event.diagnostics.contains("no answer in time"), "{}", event.diagnostics);
}

#[tokio::test]
async fn the_host_is_the_upstreams_and_the_connection_goes_to_the_judged_address() {
    let upstream = Upstream::ok().await;
    let port = upstream.address.port();
    let world = World::scripted(move |_| Said::Go(to(format!("http://Upstream.test:{port}/")))).await;
    world.names.point("upstream.test", &["127.0.0.1"]);
    let request = world.request("GET", "/x", "X-Request-Id: r-1\r\n").await;
    assert_eq!(world.ask(&request).await.status(), 200);
    assert_eq!(upstream.only().get("host"), Some(format!("upstream.test:{port}").as_str()));
    assert_eq!(world.event("r-1").await.2["upstream_host"], format!("upstream.test:{port}"));
}

#[tokio::test]
async fn with_an_allowlist_only_its_exact_hosts_are_reached() {
    let upstream = Upstream::ok().await;
    let port = upstream.address.port();
    let list = vec!["API.example.test".to_owned()];
    let config = GatewayConfig { upstream_host_allowlist: list, ..config() };
    let world = World::with(config, |_| Said::Hang).await;
    for host in ["api.example.test", "api.example.test.", "x.api.example.test", "example.test"] {
        world.names.point(host, &["127.0.0.1"]);
    }
    for (host, passes) in [
        ("api.example.test", true),
        ("API.Example.Test", true),
        ("api.example.test.", false),
        ("x.api.example.test", false),
        ("example.test", false),
        ("127.0.0.1", false),
    ] {
        world.sts.says(move |_| Said::Go(to(format!("http://{host}:{port}/"))));
        let answer = world.get("/x").await;
        if passes {
            assert_eq!(answer.status(), 200, "{host}");
        } else {
            assert_eq!(answer.refusal(), not_addressable(), "{host}");
        }
    }
    assert_eq!(upstream.received().len(), 2);
}

#[tokio::test]
async fn a_credential_is_sent_only_to_the_hosts_it_is_pinned_to() {
    let upstream = Upstream::ok().await;
    let url = upstream.url("");
    let world = World::scripted(|_| Said::Hang).await;
    for (n, (hosts, mode, passes)) in [
        (vec!["127.0.0.1"], "provider_oauth", true),
        (vec!["other.test", " 127.0.0.1 "], "provider_oauth", true),
        (vec!["other.test"], "provider_oauth", false),
        (vec!["other.test"], "caracal_jwt", false),
        (vec!["other.test"], "none", false),
    ]
    .into_iter()
    .enumerate()
    {
        let url = url.clone();
        world.sts.says(move |_| {
            Said::Go(Directive {
                auth_mode: mode.to_owned(),
                allowed_token_hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
                provider_token: Some(Secret::new("provider-secret".to_owned())),
                ..to(url.clone())
            })
        });
        let id = format!("r-{n}");
        let request = world.request("GET", "/x", &format!("X-Request-Id: {id}\r\n")).await;
        let answer = world.ask(&request).await;
        if passes {
            assert_eq!(answer.status(), 200);
            continue;
        }
        let text = "provider credential not allowed for upstream host".to_owned();
        assert_eq!(answer.refusal(), (502, "internal_error".to_owned(), text));
        let (_, status, metadata) = world.event(&id).await;
        assert_eq!(
            (status.as_str(), &metadata["error_kind"]),
            ("upstream_rejected", &json!("provider_host_not_allowed"))
        );
    }
    assert_eq!(upstream.received().len(), 2);
}
