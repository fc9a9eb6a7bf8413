//! The check order (gateway.md §6, rows 1–15; properties 1, 3, 4, 13, 15).

use caracal_crypto::encoding::{base64url, from_base64url};
use caracal_gateway::{ExchangeRefusal, GatewayConfig};
use caracal_ledger::Ledger;
use caracal_store::admin_evidence::{self, ZONELESS_CHAIN};
use caracal_store::evidence::ChainRow;
use http::StatusCode;
use serde_json::{Value, json};

use crate::sts::Said;
use crate::upstream::Upstream;
use crate::world::{NOW, World, ZONE, config, request};

const INVALID: &str = "invalid_token";

async fn world() -> (World, Upstream) {
    let upstream = Upstream::ok().await;
    (World::before(&upstream).await, upstream)
}

/// Nobody was asked and nothing went out.
fn untouched(world: &World, upstream: &Upstream) {
    assert_eq!(world.sts.times_asked(), 0);
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn a_good_mandate_passes_and_the_sts_is_asked_once_for_exactly_this_call() {
    let (world, upstream) = world().await;
    let mandate = world.mandate(json!({"jti": "m-x"})).await;
    let answer = world.ask(&request("GET", "/items?x=1", &mandate, "X-Request-Id: r-1\r\n")).await;
    assert_eq!((answer.status(), answer.text().as_str()), (200, "ok"));
    assert_eq!(answer.head.all("x-request-id"), ["r-1"]);
    let asked = world.sts.asked();
    let [asked] = asked.as_slice() else { panic!("{asked:?}") };
    let expected = [ZONE, "app-1", &mandate, "m-x", "resource://items", "GET", "/items", "r-1"];
    let found = [
        &asked.zone,
        &asked.client,
        &asked.bearer,
        &asked.jti,
        &asked.resource,
        &asked.method,
        &asked.path,
        &asked.request_id,
    ];
    assert_eq!(found, expected);
    assert_eq!(upstream.only().target, "/items?x=1");
}

#[tokio::test]
async fn a_request_without_a_usable_bearer_is_refused() {
    let (world, upstream) = world().await;
    for line in ["", "Authorization: Basic x\r\n", "Authorization: Bearer\r\n", "Authorization: Bearer  \r\n"] {
        let answer = world.ask(&format!("GET /x HTTP/1.1\r\nHost: g\r\n{line}\r\n")).await;
        assert_eq!(answer.refusal(), (401, INVALID.to_owned(), "missing bearer token".to_owned()), "{line}");
        assert_eq!(answer.get("www-authenticate"), Some("Bearer"));
    }
    let mandate = world.mandate(json!({})).await;
    let two = format!("Authorization: Basic x\r\nAuthorization: Bearer {mandate}\r\n");
    let answer = world.ask(&format!("GET /x HTTP/1.1\r\nHost: g\r\n{two}\r\n")).await;
    assert_eq!(answer.refusal().2, "missing bearer token");
    untouched(&world, &upstream);
    assert_eq!(world.metric("denials_missing_auth").await, 5);
}

#[tokio::test]
async fn the_scheme_has_no_case_and_blanks_do_not_count() {
    let (world, _upstream) = world().await;
    let mandate = world.mandate(json!({})).await;
    let request =
        request("GET", "/x", &mandate, "").replace("Bearer ", "BEARER   ").replace(&mandate, &format!("{mandate}  "));
    assert_eq!(world.ask(&request).await.status(), 200);
}

#[tokio::test]
async fn a_bearer_that_is_no_mandate_is_refused() {
    let (world, upstream) = world().await;
    let (object, good) = (base64url(b"{}"), world.mandate(json!({})).await);
    let parts: Vec<&str> = good.split('.').collect();
    let header = parts[0];
    let payload = |text: &str| format!("{header}.{}.x", base64url(text.as_bytes()));
    for malformed in [
        "x".repeat(4096),
        format!("{object}.{object}"),
        format!("{good}.x"),
        format!("{header}.{}=.x", parts[1]),
        payload("no json"),
        payload("[]"),
        payload(r#"{"exp":"1800000300"}"#),
        payload(r#"{"exp":1800000300.5}"#),
        payload(r#"{"exp":0}"#),
        payload(r#"{"jti":"a"}"#),
        payload(r#"{"exp":1800000300}"#),
        payload(r#"{"exp":1800000300,"jti":7}"#),
    ] {
        let answer = world.ask(&request("GET", "/x", &malformed, "")).await;
        assert_eq!(answer.refusal(), (401, INVALID.to_owned(), "malformed bearer token".to_owned()), "{malformed}");
    }
    let answer = world.ask(&request("GET", "/x", &"x".repeat(4097), "")).await;
    assert_eq!(answer.refusal().2, "bearer token too large");
    untouched(&world, &upstream);
    assert_eq!(world.metric("denials_bad_bearer").await, 13);
}

#[tokio::test]
async fn a_mandate_must_live_for_thirty_five_seconds_more() {
    let (world, _upstream) = world().await;
    for (exp, passes) in [
        (i64::MAX, true),
        (NOW + 36, true),
        (NOW + 35, true),
        (NOW + 34, false),
        (NOW - 1, false),
        (-5, false),
        (i64::MIN, false),
    ] {
        let mandate = world.mandate(json!({"exp": exp})).await;
        let answer = world.ask(&request("GET", "/x", &mandate, "")).await;
        if passes {
            assert_eq!(answer.status(), 200, "{exp}");
        } else {
            let expected = "credential expiring within pre-flight window".to_owned();
            assert_eq!(answer.refusal(), (401, "credential_expired_not_renewable".to_owned(), expected), "{exp}");
        }
    }
    // Time comes before routing.
    let expiring = world.mandate(json!({"exp": NOW + 1})).await;
    let answer = world.ask(&format!("GET /x HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {expiring}\r\n\r\n")).await;
    assert_eq!(answer.refusal().1, "credential_expired_not_renewable");
}

#[tokio::test]
async fn routing_needs_a_resource_and_no_client_id() {
    let (world, _upstream) = world().await;
    for (lines, expected) in [
        ("", Err("missing routing headers")),
        ("X-Caracal-Resource:   \r\n", Err("missing routing headers")),
        ("X-Caracal-Resource: r\r\nX-Caracal-Client-ID: a\r\n", Err("client identity derives from the bearer token")),
        ("X-Caracal-Client-ID: a\r\n", Err("client identity derives from the bearer token")),
        ("X-Caracal-Resource:  first \r\nX-Caracal-Resource: second\r\nX-Caracal-Client-ID: \r\n", Ok("first")),
    ] {
        let mandate = world.mandate(json!({})).await;
        let request = format!("GET /x HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {mandate}\r\n{lines}\r\n");
        let answer = world.ask(&request).await;
        match expected {
            Ok(resource) => {
                assert_eq!(answer.status(), 200, "{lines}");
                assert_eq!(world.sts.asked().last().unwrap().resource, resource);
            }
            Err(text) => assert_eq!(answer.refusal(), (400, INVALID.to_owned(), text.to_owned()), "{lines}"),
        }
    }
}

#[tokio::test]
async fn zone_and_client_must_be_ids() {
    let (world, upstream) = world().await;
    for (claim, text) in [("zone_id", "missing token zone"), ("client_id", "missing token client")] {
        for wrong in [json!(null), json!("a b"), json!("a".repeat(129)), json!(""), json!(7), json!(["z-1"])] {
            let mandate = world.mandate(json!({claim: wrong})).await;
            let answer = world.ask(&request("GET", "/x", &mandate, "")).await;
            assert_eq!(answer.refusal(), (401, INVALID.to_owned(), text.to_owned()), "{claim} {wrong}");
        }
    }
    untouched(&world, &upstream);
}

#[tokio::test]
async fn the_path_is_judged_before_the_signature() {
    let (world, upstream) = world().await;
    let mandate = world.mandate(json!({})).await;
    let forged = format!("{}x", &mandate[..mandate.len() - 8]);
    let answer = world.ask(&request("GET", "/a/%2e%2e/b", &forged, "")).await;
    assert_eq!(answer.refusal(), (400, INVALID.to_owned(), "path traversal not permitted".to_owned()));
    untouched(&world, &upstream);
}

#[tokio::test]
async fn only_an_es256_signature_of_a_key_of_the_zone_is_one() {
    let (world, upstream) = world().await;
    let claims = world.claims();
    let good = world.sign(ZONE, &claims).await;
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let (header, payload) = signed.split_once('.').unwrap();
    let kid: Value = serde_json::from_slice(&from_base64url(header).unwrap()).unwrap();
    let kid = kid["kid"].as_str().unwrap();
    let with_header = |header: Value| format!("{}.{payload}.{signature}", base64url(header.to_string().as_bytes()));
    let mut bytes = from_base64url(signature).unwrap();
    let short = base64url(&bytes[..63]);
    *bytes.last_mut().unwrap() ^= 1;
    // The key of another zone under a name of its own, and a zone that has no key at all.
    let foreign = world.sign("z-2", &claims).await;
    let mut keyless = claims.clone();
    keyless["zone_id"] = json!("z-3");
    let keyless = world.sign("z-2", &keyless).await;
    for forged in [
        with_header(json!({"alg": "none", "kid": kid})),
        with_header(json!({"alg": "RS256", "kid": kid})),
        with_header(json!({"alg": "HS256", "kid": kid})),
        with_header(json!({"alg": "ES256"})),
        with_header(json!({"alg": "ES256", "kid": "another"})),
        format!("{signed}.{short}"),
        format!("{signed}.{}", base64url(&bytes)),
        format!("{signed}."),
        foreign,
        keyless,
    ] {
        let answer = world.ask(&request("GET", "/x", &forged, "")).await;
        assert_eq!(answer.refusal(), (401, INVALID.to_owned(), "bearer signature invalid".to_owned()), "{forged}");
    }
    untouched(&world, &upstream);
    // None of the forgeries used up the genuine one.
    assert_eq!(world.ask(&request("GET", "/x", &good, "")).await.status(), 200);
}

#[tokio::test]
async fn keys_that_cannot_be_read_are_an_outage_and_not_a_bad_signature() {
    let (world, upstream) = world().await;
    let mandate = world.mandate(json!({})).await;
    world.store.close().await;
    let answer = world.ask(&request("GET", "/x", &mandate, "")).await;
    assert_eq!(answer.refusal(), (503, "sts_unavailable".to_owned(), "signing keys unavailable".to_owned()));
    assert!(answer.get("retry-after").is_some());
    untouched(&world, &upstream);
}

#[tokio::test]
async fn stale_revocation_state_refuses_everything_before_anything_else() {
    let (world, upstream) = world().await;
    world.clock.advance(70);
    assert_eq!(world.ask("GET /x HTTP/1.1\r\nHost: g\r\n\r\n").await.refusal().0, 401);
    world.clock.advance(1);
    let expected = (503, "sts_unavailable".to_owned(), "revocation state unavailable".to_owned());
    assert_eq!(world.ask("GET /x HTTP/1.1\r\nHost: g\r\n\r\n").await.refusal(), expected);
    assert_eq!(world.get("/x").await.refusal(), expected);
    untouched(&world, &upstream);
    assert_eq!(world.metric("denials_revocation_stale").await, 2);
    world.gateway.refresh_revocations().await.unwrap();
    let mandate = world.mandate(json!({"exp": NOW + 600})).await;
    assert_eq!(world.ask(&request("GET", "/x", &mandate, "")).await.status(), 200);
    // A reading from the future: the clock was set back.
    world.clock.advance(-10);
    assert_eq!(world.get("/x").await.refusal(), expected);
}

/// Property 4, dependency by dependency; keys and store are one here, and each answer is an outage, never a verdict (D8).
#[tokio::test]
async fn whatever_is_unavailable_nothing_is_forwarded() {
    let upstream = Upstream::ok().await;
    let url = upstream.url("");
    // Three of the four answer, which may take a moment on a busy server; the fourth is waited for no longer than this.
    let config = GatewayConfig { sts_timeout: std::time::Duration::from_secs(1), ..config() };
    let world = World::with(config, |_| Said::Hang).await;
    let denied = |code: &'static str, text: &'static str| {
        Said::No(ExchangeRefusal::denied(StatusCode::SERVICE_UNAVAILABLE, code, text))
    };
    type Script = Box<dyn Fn() -> Said + Send + Sync>;
    let scripts: [(&str, u16, Script); 4] = [
        ("the store of used mandates", 503, Box::new(|| Said::Unable(ExchangeRefusal::unavailable()))),
        ("the STS", 504, Box::new(|| Said::Hang)),
        ("policy", 503, Box::new(move || denied("policy_eval_failed", "policy evaluation failed"))),
        ("the signing key", 502, Box::new(|| Said::Empty)),
    ];
    for (what, status, script) in scripts {
        world.sts.says(move |_| script());
        // A caller of another zone each time: none of them has a circuit open.
        let zone = format!("z-{status}-{}", what.len());
        let mut claims = world.claims();
        claims["zone_id"] = json!(zone);
        let mandate = world.sign(&zone, &claims).await;
        let answer = world.ask(&request("GET", "/x", &mandate, "")).await;
        assert_eq!(answer.status(), status, "{what}: {}", answer.text());
    }
    // All well again: the same Gateway forwards.
    world.sts.says(move |_| Said::Go(crate::world::to(url.clone())));
    assert_eq!(upstream.connections(), 0);
    assert_eq!(world.get("/x").await.status(), 200);
    world.clock.advance(71);
    assert_eq!(world.get("/x").await.status(), 503, "revocation state");
    world.clock.advance(-71);
    let mandate = world.mandate(json!({})).await;
    world.store.close().await;
    assert_eq!(world.ask(&request("GET", "/x", &mandate, "")).await.status(), 503, "keys");
    assert_eq!(upstream.received().len(), 1);
}

#[tokio::test]
async fn a_refusal_of_the_sts_is_relayed_with_our_request_id() {
    let (world, upstream) = world().await;
    for (status, code, text) in [
        (403, "access_denied", "policy denied (mandate_target_mismatch)"),
        (403, "operation_not_permitted", ""),
        (401, "invalid_token", "invalid subject_token"),
        (429, "provider_rate_limited", "slow down"),
        (503, "policy_eval_failed", "policy evaluation failed"),
        (502, "http_request_failed", "provider credential unavailable"),
    ] {
        world.sts.says(move |_| Said::No(ExchangeRefusal::denied(StatusCode::from_u16(status).unwrap(), code, text)));
        let answer = world.get("/x").await;
        assert_eq!(answer.refusal(), (status, code.to_owned(), text.to_owned()));
        assert_eq!(answer.get("retry-after").is_some(), matches!(status, 429 | 503), "{status}");
    }
    assert_eq!(upstream.connections(), 0);
    assert_eq!((world.metric("sts_exchange_errors").await, world.metric("requests_denied").await), (6, 6));
}

#[tokio::test]
async fn an_answer_without_upstream_or_token_forwards_nothing() {
    let (world, upstream) = world().await;
    world.sts.says(|_| Said::Nowhere);
    let expected = (403, "access_denied".to_owned(), "resource upstream not configured".to_owned());
    assert_eq!(world.get("/x").await.refusal(), expected);
    world.sts.says(|_| Said::Go(crate::world::to("")));
    assert_eq!(world.get("/x").await.refusal(), expected);
    world.sts.says(|_| Said::Empty);
    let expected = (502, "sts_unavailable".to_owned(), "sts response invalid".to_owned());
    assert_eq!(world.get("/x").await.refusal(), expected);
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn an_sts_that_does_not_answer_is_given_up() {
    let upstream = Upstream::ok().await;
    let config = GatewayConfig { sts_timeout: std::time::Duration::from_millis(50), ..config() };
    let world = World::with(config, |_| Said::Hang).await;
    let expected = (504, "sts_unavailable".to_owned(), "sts timeout".to_owned());
    assert_eq!(world.get("/x").await.refusal(), expected);
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn a_body_that_says_it_is_too_large_does_not_cost_the_mandate() {
    let upstream = Upstream::ok().await;
    let url = upstream.url("");
    let config = GatewayConfig { max_request_bytes: 16, ..config() };
    let world = World::with(config, move |_| Said::Go(crate::world::to(url.clone()))).await;
    let mandate = world.mandate(json!({})).await;
    let answer = world.ask(&request("POST", "/x", &mandate, "Content-Length: 17\r\nX-Request-Id: r-1\r\n")).await;
    assert_eq!(answer.refusal(), (413, "payload_too_large".to_owned(), "request body too large".to_owned()));
    assert_eq!(answer.get("connection"), Some("close"));
    untouched(&world, &upstream);
    let (decision, status, metadata) = world.event("r-1").await;
    assert_eq!((decision.as_str(), status.as_str()), ("deny", "request_too_large"));
    assert_eq!(metadata["gateway_status"], json!(413));
    let answer =
        world.ask(&format!("{}{}", request("POST", "/x", &mandate, "Content-Length: 16\r\n"), "x".repeat(16))).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(upstream.only().body.len(), 16);
}

#[tokio::test]
async fn refusals_of_strangers_are_counted_and_summarised_not_chained() {
    let (world, _upstream) = world().await;
    for _ in 0..20 {
        world.ask("GET /x HTTP/1.1\r\nHost: g\r\nX-Request-Id: stranger\r\n\r\n").await;
    }
    // Who sends what is no request was here, too.
    for (head, status) in [
        ("GET /x HTTP/1.1\nHost: g\n\n".to_owned(), 400),
        ("GET /x HTTP/1.1\r\n\r\n".to_owned(), 400),
        (format!("GET /x HTTP/1.1\r\nHost: g\r\nX: {}\r\n\r\n", "x".repeat(30_000)), 431),
    ] {
        let mut caller = world.caller().await;
        assert_eq!(caller.ask(&head).await.status(), status);
        // Counted when the connection is done with.
        caller.rest().await;
    }
    world.denials.summarise(&world.store, &Ledger::new(None)).await.unwrap();
    let mut snapshot = world.store.snapshot().await.unwrap();
    let rows = admin_evidence::list_chain(&mut snapshot.deployment(), ZONELESS_CHAIN, 1, 10).await.unwrap();
    let [ChainRow::Read(summary)] = rows.as_slice() else { panic!("{rows:?}") };
    let payload: Value = serde_json::from_str(summary.payload.as_deref().unwrap()).unwrap();
    let counts = json!({"missing_bearer_token": 20, "malformed_head": 2, "head_too_large": 1});
    assert_eq!(payload, json!({"gateway": counts}));
    drop(snapshot);
    assert!(world.events_now("stranger").await.is_empty());
}
