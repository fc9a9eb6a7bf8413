//! Headers in both directions, and the credential among them (gateway.md §4, §15, §17.1; properties 5–9, 11).

use caracal_crypto::Secret;
use caracal_gateway::{Directive, GatewayConfig};
use http::Response;
use serde_json::json;

use crate::sts::{RESOURCE_MANDATE, Said};
use crate::upstream::{Upstream, full};
use crate::world::{World, config, request, to};

async fn directed(upstream: &Upstream, change: impl Fn(&mut Directive) + Send + Sync + 'static) -> World {
    let url = upstream.url("");
    World::scripted(move |_| {
        let mut directive = to(url.clone());
        directive.provider_token = Some(Secret::new("provider-secret".to_owned()));
        change(&mut directive);
        Said::Go(directive)
    })
    .await
}

#[tokio::test]
async fn the_callers_bearer_and_everything_that_poses_as_ours_stays_here() {
    let upstream = Upstream::ok().await;
    let world = directed(&upstream, |directive| {
        directive.auth_mode = "provider_apikey".to_owned();
        directive.auth_header = "X-Api-Key".to_owned();
        directive.forward_caracal_identity = true;
    })
    .await;
    let mandate = world.mandate(json!({})).await;
    let forged = "X-Api-Key: forged\r\nX_Api_Key: forged\r\n\
                  X-Caracal-Identity: forged\r\nX_Caracal_Identity: forged\r\n\
                  X-Forwarded-For: 203.0.113.9\r\nForwarded: for=forged\r\nX-Real-IP: forged\r\n\
                  X-Forwarded-User: forged\r\n\
                  Connection: X-Hop\r\nConnection: X-Hop-2, keep-alive\r\nX-Hop: forged\r\nX-Hop-2: forged\r\n\
                  Upgrade: websocket\r\nProxy-Authorization: forged\r\nProxy-X: forged\r\nTE: forged\r\n\
                  X-HTTP-Method-Override: DELETE\r\nX-Original-URL: /forged\r\n\
                  Baggage: caracal.hop=forged, t=1\r\nBaggage: caracal.session=forged\r\nCookie: mine\r\n";
    assert_eq!(world.ask(&request("GET", "/x", &mandate, forged)).await.status(), 200);
    let received = upstream.only();
    for (name, value) in &received.headers {
        assert!(!value.contains("forged") && !value.contains(&mandate), "{name}: {value}");
    }
    for (name, expected) in [
        ("x-api-key", &["provider-secret"][..]),
        ("x-caracal-identity", &[RESOURCE_MANDATE]),
        ("authorization", &[]),
        ("x-forwarded-for", &["127.0.0.1"]),
        ("x-forwarded-proto", &["http"]),
        ("x-forwarded-host", &["gateway.test"]),
        ("baggage", &["t=1"]),
        ("cookie", &["mine"]),
        ("upgrade", &[]),
        ("x-caracal-resource", &[]),
        ("x-http-method-override", &[]),
    ] {
        assert_eq!(received.all(name), expected, "{name}");
    }
}

#[tokio::test]
async fn each_mode_places_the_credential_where_the_contract_says() {
    let upstream = Upstream::ok().await;
    let minted = format!("Bearer {RESOURCE_MANDATE}");
    type Change = fn(&mut Directive);
    let cases: [(&str, Change, &[&str], &str); 5] = [
        ("none", |_| (), &[], "/x?a=1"),
        ("caracal_jwt", |_| (), &[&minted], "/x?a=1"),
        ("provider_oauth", |d| d.auth_scheme = "Basic".to_owned(), &["Basic provider-secret"], "/x?a=1"),
        ("provider_apikey", |_| (), &["provider-secret"], "/x?a=1"),
        (
            "provider_apikey",
            |d| (d.auth_location, d.query_param_name) = ("query".to_owned(), "key".to_owned()),
            &[],
            "/x?a=1&key=provider-secret",
        ),
    ];
    for (mode, change, authorization, target) in cases {
        let world = directed(&upstream, move |directive| {
            directive.auth_mode = mode.to_owned();
            change(directive);
        })
        .await;
        assert_eq!(world.get("/x?a=1").await.status(), 200);
        let received = upstream.received().pop().unwrap();
        assert_eq!(
            (received.all("authorization").as_slice(), received.target.as_str()),
            (authorization, target),
            "{mode}"
        );
        assert_eq!(received.get("x-caracal-identity"), None);
    }
}

#[tokio::test]
async fn a_caller_can_neither_supply_nor_override_a_credential_in_the_query() {
    let upstream = Upstream::ok().await;
    let base = upstream.url("/b?key=a&s=1");
    let world = directed(&upstream, move |directive| {
        directive.url = base.clone();
        directive.auth_mode = "provider_apikey".to_owned();
        (directive.auth_location, directive.query_param_name) = ("query".to_owned(), "key".to_owned());
    })
    .await;
    assert_eq!(world.get("/?key=mine&k%65y=mine&s=2&x=3").await.status(), 200);
    assert_eq!(upstream.only().target, "/b?key=provider-secret&s=1&x=3");
}

#[tokio::test]
async fn a_directive_that_would_misplace_a_credential_builds_no_request() {
    let upstream = Upstream::ok().await;
    for (mode, header) in [
        ("provider_oauth", "Host"),
        ("provider_oauth", "X-Caracal-Identity"),
        ("none", "Proxy-X"),
        ("caracal_jwt", "X-Request-Id"),
        ("provider_apikey", "Content_Length"),
        ("provider_apikey", "bad name"),
        ("invented", ""),
        ("", ""),
    ] {
        let world = directed(&upstream, move |directive| {
            (directive.auth_mode, directive.auth_header) = (mode.to_owned(), header.to_owned());
        })
        .await;
        let request = world.request("GET", "/x", "X-Request-Id: r-1\r\n").await;
        let expected = (400, "internal_error".to_owned(), "upstream request build failed".to_owned());
        assert_eq!(world.ask(&request).await.refusal(), expected, "{mode} {header}");
        assert_eq!(world.event("r-1").await.1, "build_failed");
    }
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn the_request_id_is_kept_when_it_is_one() {
    let upstream = Upstream::ok().await;
    let world = World::before(&upstream).await;
    let long = "x".repeat(128);
    for (id, kept) in [
        ("a,b;c=\"d\"", true),
        (long.as_str(), true),
        (&"x".repeat(129), false),
        ("a b", false),
        ("ä", false),
        ("", false),
    ] {
        let request = world.request("GET", "/x", &format!("X-Request-Id: {id}\r\n")).await;
        let answer = world.ask(&request).await;
        let [found] = answer.head.all("x-request-id")[..] else { panic!("{id}") };
        assert_eq!(found == id, kept, "{id}");
        if !kept {
            assert_eq!((found.len(), found.as_bytes()[14]), (36, b'4'), "{found}");
        }
        assert_eq!(upstream.received().pop().unwrap().all("x-request-id"), [found]);
        assert_eq!(world.sts.asked().pop().unwrap().request_id, found);
    }
}

#[tokio::test]
async fn the_trace_goes_on_when_it_is_one() {
    let upstream = Upstream::ok().await;
    let world = World::before(&upstream).await;
    let valid = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
    let headers = format!("Traceparent: {valid}\r\nTracestate: a=1\r\nX-Request-Id: r-1\r\n");
    let request = world.request("GET", "/x", &headers).await;
    world.ask(&request).await;
    let received = upstream.received().pop().unwrap();
    assert_eq!((received.all("traceparent"), received.get("tracestate")), (vec![valid], Some("a=1")));
    assert_eq!(world.event("r-1").await.2["trace_id"], "0af7651916cd43dd8448eb211c80319c");
    let request = world.request("GET", "/x", "Traceparent: ff-0-0-0\r\n").await;
    world.ask(&request).await;
    let fresh = upstream.received().pop().unwrap();
    assert_eq!((fresh.all("traceparent").len(), fresh.get("traceparent").unwrap().len()), (1, 55));
}

#[tokio::test]
async fn a_trusted_proxy_says_where_the_caller_is() {
    let upstream = Upstream::ok().await;
    let url = upstream.url("");
    let config = GatewayConfig { trust_proxy: true, ..config() };
    let world = World::with(config, move |_| Said::Go(to(url.clone()))).await;
    for (said, expected) in [("203.0.113.10, 10.0.0.2", "203.0.113.10"), ("junk", "127.0.0.1")] {
        let headers = format!("X-Forwarded-For: {said}\r\nX-Forwarded-Proto: HTTPS\r\n");
        let request = world.request("GET", "/x", &headers).await;
        world.ask(&request).await;
        let received = upstream.received().pop().unwrap();
        assert_eq!(
            (received.all("x-forwarded-for"), received.get("x-forwarded-proto")),
            (vec![expected], Some("https"))
        );
    }
}

#[tokio::test]
async fn an_upstream_cannot_speak_as_the_gateway_nor_lead_away() {
    let upstream = Upstream::answering(|_| {
        let mut response = Response::new(full("body"));
        *response.status_mut() = http::StatusCode::FOUND;
        for (name, value) in [
            ("server", "s"),
            ("x-powered-by", "s"),
            ("x-caracal-identity", "s"),
            ("x-caracal-revoked", "true"),
            ("x-caracal-token-expires-in", "999"),
            ("x_caracal_revoked", "true"),
            ("x-request-id", "theirs"),
            ("refresh", "0;url=http://evil.example"),
            ("location", "http://evil.example/"),
            ("content-location", "//evil.example"),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
            ("www-authenticate", "Basic"),
        ] {
            response.headers_mut().append(name, value.parse().unwrap());
        }
        response
    })
    .await;
    let world = World::before(&upstream).await;
    let answer = world.get("/x").await;
    assert_eq!((answer.status(), answer.text().as_str()), (302, "body"));
    for name in [
        "server",
        "x-powered-by",
        "x-caracal-identity",
        "x-caracal-revoked",
        "x_caracal_revoked",
        "refresh",
        "location",
        "content-location",
    ] {
        assert_eq!(answer.get(name), None, "{name}");
    }
    assert_eq!(answer.head.all("set-cookie"), ["a=1", "b=2"]);
    assert_eq!(answer.head.all("x-caracal-token-expires-in"), ["300"]);
    assert_eq!(answer.head.all("trailer"), ["X-Caracal-Revoked"]);
    assert_eq!(answer.head.all("x-request-id").len(), 1);
    assert_ne!(answer.get("x-request-id"), Some("theirs"));
    assert_eq!(answer.get("www-authenticate"), Some("Basic"));
    assert_eq!(upstream.received().len(), 1, "no redirect was followed");
}

#[tokio::test]
async fn a_relative_target_is_shown_and_not_followed() {
    let upstream = Upstream::answering(|_| {
        let mut response = Response::new(full(""));
        *response.status_mut() = http::StatusCode::TEMPORARY_REDIRECT;
        response.headers_mut().insert("location", "/elsewhere?x".parse().unwrap());
        response
    })
    .await;
    let world = World::before(&upstream).await;
    let answer = world.get("/x").await;
    assert_eq!((answer.status(), answer.get("location")), (307, Some("/elsewhere?x")));
    assert_eq!(upstream.received().len(), 1);
}

#[tokio::test]
async fn nothing_is_traced_because_the_answer_would_show_the_credential() {
    // What a server does that honours `TRACE`: it answers with the request.
    let upstream = Upstream::answering(|received| Response::new(full(format!("{:?}", received.headers)))).await;
    let world = directed(&upstream, |directive| directive.auth_mode = "provider_oauth".to_owned()).await;
    for method in ["TRACE", "trace", "TRACK"] {
        let request = world.request(method, "/x", &format!("X-Request-Id: r-{method}\r\n")).await;
        let expected = (400, "internal_error".to_owned(), "upstream request build failed".to_owned());
        assert_eq!(world.ask(&request).await.refusal(), expected, "{method}");
        assert_eq!(world.event(&format!("r-{method}")).await.1, "build_failed");
    }
    assert_eq!(upstream.connections(), 0);
}
