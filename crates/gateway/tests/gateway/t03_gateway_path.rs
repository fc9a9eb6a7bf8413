//! Paths and queries: what was authorised is what is sent (gateway.md §2.1, §7, §15.1; README D18, D21; properties 2,
//! 11, 12).

use caracal_authority::resource::{
    Operation, OperationEnforcement, Resource, ResourceIdentifier, ResourceRef, UpstreamCall, operation_floor,
};
use caracal_authority::scope::{Scope, Scopes};
use caracal_authority::{ResourceId, ZoneId};
use caracal_gateway::ExchangeRefusal;
use http::StatusCode;
use serde_json::json;

use crate::sts::Said;
use crate::upstream::Upstream;
use crate::world::{World, request, to};

#[tokio::test]
async fn unclean_paths_are_redirected_on_this_origin_and_cost_nothing() {
    let upstream = Upstream::ok().await;
    let world = World::before(&upstream).await;
    let mandate = world.mandate(json!({})).await;
    for (target, location) in [
        ("/v1/../admin", "/admin"),
        ("/a//b/", "/a/b/"),
        ("/a/.", "/a"),
        ("/a/./", "/a/"),
        ("//evil.example/x", "/evil.example/x"),
        ("/a%20b//c", "/a%20b/c"),
        ("/a//b?x=%2F&y=1;2", "/a/b?x=%2F&y=1;2"),
        ("http://other.example//x", "/x"),
    ] {
        let answer = world.ask(&request("GET", target, &mandate, "")).await;
        assert_eq!((answer.status(), answer.get("location")), (307, Some(location)), "{target}");
        assert!(answer.get("x-request-id").is_some());
        assert_eq!(answer.get("content-type"), Some("text/html; charset=utf-8"));
        let answer = world.ask(&request("POST", target, &mandate, "")).await;
        assert_eq!((answer.status(), answer.get("location"), answer.body.len()), (307, Some(location), 0), "{target}");
    }
    assert_eq!((world.sts.times_asked(), world.metric("requests_total").await), (0, 0));
    assert_eq!(world.ask(&request("GET", "/x", &mandate, "")).await.status(), 200);
}

#[tokio::test]
async fn the_page_of_a_redirect_quotes_its_target_harmlessly() {
    let world = World::scripted(|_| Said::Hang).await;
    let answer = world.ask("GET //x?<script>'\"& HTTP/1.1\r\nHost: g\r\n\r\n").await;
    if answer.status() == 307 {
        assert!(!answer.text().contains("<script"), "{}", answer.text());
    }
    let answer = world.ask("GET //x?a='&b HTTP/1.1\r\nHost: g\r\n\r\n").await;
    assert_eq!(answer.text(), "<a href=\"/x?a=&#39;&amp;b\">Temporary Redirect</a>.\n");
}

#[tokio::test]
async fn whatever_still_means_something_else_is_refused() {
    let upstream = Upstream::ok().await;
    let world = World::before(&upstream).await;
    let mandate = world.mandate(json!({})).await;
    for target in [
        "/a/%2e%2e/b",
        "/a/%2E%2e/b",
        "/a/%252e%252e/b",
        "/a/%25252e%25252e/b",
        "/a/..%2fb",
        "/a%5cb",
        "/a%255cb",
        "/a\\b",
        "/100%25",
        "/%2525",
        "/a/%2e",
    ] {
        let answer = world.ask(&request("GET", target, &mandate, "")).await;
        let expected = (400, "invalid_token".to_owned(), "path traversal not permitted".to_owned());
        assert_eq!(answer.refusal(), expected, "{target}");
    }
    for target in ["/%zz", "/%", "/a%2"] {
        let answer = world.ask(&request("GET", target, &mandate, "")).await;
        assert_eq!((answer.status(), answer.text().as_str()), (400, "400 Bad Request\n"), "{target}");
    }
    assert_eq!((world.sts.times_asked(), upstream.connections()), (0, 0));
    assert_eq!(world.ask(&request("GET", "/x", &mandate, "")).await.status(), 200);
}

#[tokio::test]
async fn the_path_that_is_authorised_is_sent_byte_for_byte() {
    let upstream = Upstream::ok().await;
    let world = World::before(&upstream).await;
    for target in [
        "/",
        "/items",
        "/items/",
        "/items%20",
        "/%69tems",
        "/..;/x",
        "/.../x",
        "/foo..bar",
        "/.env",
        "/a%00/b",
        "/a%0d%0ab",
        "/a%2Fb",
        "/a%2fb",
        "/a;b=1/c",
        "/a+b",
        "/%2541",
        "/~user/*!'()",
        "/a:b@c",
        "/ä",
        "/a|b^c{d}",
    ] {
        assert_eq!(world.get(target).await.status(), 200, "{target}");
        assert_eq!(world.sts.asked().last().unwrap().path, target);
        assert_eq!(upstream.received().last().unwrap().target, target);
    }
}

/// A resource with templates, judged as the STS judges it.
fn templated() -> Resource {
    let operation = |path: &str| Operation {
        method: "GET".to_owned(),
        path: path.to_owned(),
        scope: Scope::parse("items:read").unwrap(),
    };
    Resource {
        zone: ZoneId::parse("z-1").unwrap(),
        name: ResourceRef {
            id: ResourceId::parse("res-1").unwrap(),
            identifier: ResourceIdentifier::parse("resource://items").unwrap(),
        },
        has_upstream: true,
        scopes: Scopes::from_text("items:read"),
        operations: ["/items/{id}", "/items/{id}/parts", "/files/**"].map(operation).into(),
        enforcement: OperationEnforcement::Enforced,
        provider: None,
    }
}

#[tokio::test]
async fn a_template_is_matched_with_the_very_bytes_that_go_upstream() {
    let upstream = Upstream::ok().await;
    let (url, resource) = (upstream.url(""), templated());
    let world = World::scripted(move |request| {
        let call = UpstreamCall { method: request.method.clone(), path: request.path.clone() };
        match operation_floor(&resource, &call, &Scopes::from_text("items:read")) {
            Ok(()) => Said::Go(to(url.clone())),
            Err(refused) => {
                let (status, code) = (StatusCode::FORBIDDEN, "operation_not_permitted");
                Said::No(ExchangeRefusal::denied(status, code, refused.to_string()))
            }
        }
    })
    .await;
    for target in [
        "/items/7",
        "/items/a%20b",
        "/items/%41",
        "/items/a%3Fb%23c",
        "/items/a%3fb",
        "/items/%C3%A4",
        "/items/%0d%0a",
        "/items/a;v=1",
        "/items/...",
        "/items/**",
        "/items/{id}",
        "/items/%7Bid%7D/parts",
        "/files/",
        "/files/a",
        "/files/a/b%20c/",
        "/files/a?x=%2F..",
    ] {
        let before = upstream.received().len();
        assert_eq!(world.get(target).await.status(), 200, "{target}");
        let received = upstream.received();
        assert_eq!((received.len(), received[before].target.as_str()), (before + 1, target));
    }
    let connections = upstream.received().len();
    // What an upstream could read as another path is in no template, however it is spelt.
    for target in [
        "/items",
        "/items/",
        "/items/a/b",
        "/items/a%2Fb",
        "/items/a%2fb",
        "/items/7%2Fparts",
        "/items/7/part%73",
        "/items/a%00",
        "/items/..;x",
        "/items/%c0%ae%c0%ae",
        "/%69tems/7",
        "/files",
        "/files/a%2Fb",
        "/files/a/..;/b",
        "/files/%c0%af",
    ] {
        let answer = world.get(target).await;
        assert_eq!((answer.status(), answer.refusal().1.as_str()), (403, "operation_not_permitted"), "{target}");
    }
    for target in
        ["/items/%2e%2e", "/items/%2E", "/items/a%5cb", "/items/%252e%252e", "/files/a/%2e%2e/b", "/files/100%25"]
    {
        assert_eq!(world.get(target).await.refusal().2, "path traversal not permitted", "{target}");
    }
    for (target, location) in [("/items/../admin", "/admin"), ("/files/a/./b", "/files/a/b"), ("/items//7", "/items/7")]
    {
        let answer = world.get(target).await;
        assert_eq!((answer.status(), answer.get("location")), (307, Some(location)), "{target}");
    }
    assert_eq!(upstream.received().len(), connections);
}

#[tokio::test]
async fn the_method_that_is_authorised_is_the_one_that_is_sent() {
    let upstream = Upstream::ok().await;
    let world = World::before(&upstream).await;
    for (method, settled) in [("get", "GET"), ("Get", "GET"), ("PATCH", "PATCH"), ("x-custom", "X-CUSTOM")] {
        let request = world.request(method, "/items", "").await;
        assert_eq!(world.ask(&request).await.status(), 200, "{method}");
        assert_eq!(world.sts.asked().last().unwrap().method, settled);
        assert_eq!(upstream.received().last().unwrap().method, settled);
    }
}

#[tokio::test]
async fn the_query_is_sent_byte_for_byte_and_never_part_of_what_is_authorised() {
    let upstream = Upstream::ok().await;
    let world = World::before(&upstream).await;
    for query in ["?", "?b=2&a=1&&a=0", "?sig=%2F+%20x&z", "?a=%c3%28&../..=//x", "?=&="] {
        assert_eq!(world.get(&format!("/x{query}")).await.status(), 200, "{query}");
        assert_eq!(world.sts.asked().last().unwrap().path, "/x");
        assert_eq!(upstream.received().last().unwrap().target, format!("/x{query}"));
    }
}

#[tokio::test]
async fn a_query_that_readers_read_differently_is_refused() {
    let upstream = Upstream::ok().await;
    let world = World::before(&upstream).await;
    for (n, query) in ["a=1;b=2", "%zz", "a=%"].into_iter().enumerate() {
        let id = format!("r-{n}");
        let request = world.request("GET", &format!("/x?{query}"), &format!("X-Request-Id: {id}\r\n")).await;
        let expected = (400, "internal_error".to_owned(), "upstream request build failed".to_owned());
        assert_eq!(world.ask(&request).await.refusal(), expected, "{query}");
        let (decision, status, metadata) = world.event(&id).await;
        assert_eq!((decision.as_str(), status.as_str()), ("allow", "build_failed"));
        assert_eq!(metadata["error_kind"], "request_build_failed");
    }
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn base_path_and_fixed_query_are_the_operators() {
    let upstream = Upstream::ok().await;
    let world = World::before(&upstream).await;
    for (base, target, expected) in [
        ("/base/", "/x/", "/base/x/"),
        ("/base", "/x?y", "/base/x?y"),
        ("/mcp", "/", "/mcp"),
        ("/mcp/", "/", "/mcp/"),
        ("/b?s=1", "/x?s=2&x=3", "/b/x?s=1&x=3"),
    ] {
        let url = upstream.url(base);
        world.sts.says(move |_| Said::Go(to(url.clone())));
        assert_eq!(world.get(target).await.status(), 200);
        assert_eq!(upstream.received().last().unwrap().target, expected, "{base} {target}");
        let asked = world.sts.asked().last().unwrap().path.clone();
        assert_eq!(asked, target.split('?').next().unwrap(), "without the base path");
    }
}

#[tokio::test]
async fn no_target_of_the_caller_selects_the_upstream() {
    let (upstream, other) = (Upstream::ok().await, Upstream::ok().await);
    let world = World::before(&upstream).await;
    let absolute = format!("http://{}/x", other.address);
    for (target, headers) in [
        (absolute.as_str(), String::new()),
        (
            "/x",
            format!(
                "X-Forwarded-Host: {}\r\nX-Original-URL: {absolute}\r\nForwarded: host={}\r\n",
                other.address, other.address
            ),
        ),
        ("/@evil/x", String::new()),
    ] {
        let request = world.request("GET", target, &headers).await.replace("gateway.test", &other.address.to_string());
        assert_eq!(world.ask(&request).await.status(), 200);
    }
    assert_eq!((upstream.received().len(), other.connections()), (3, 0));
    let first = &upstream.received()[0];
    assert_eq!((first.target.as_str(), first.get("host")), ("/x", Some(upstream.address.to_string().as_str())));
}
