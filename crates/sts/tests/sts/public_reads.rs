//! What may be asked for without showing anything, and how often (contract: sts.md §6, §7.6, weaknesses; README D7).

use axum::body::Body;
use caracal_http::PeerAddr;
use http::{Method, Request};

use crate::support::*;

const OF_ZONE: &str = "/.well-known/jwks.json?zone_id=z-1";
const NOBODYS: &str = "/approvals/0b9f7a9e-8f52-4a51-9d2c-6f3f5d1f0a11";

fn asked(method: Method, path: &str, peer: &str) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
    request.extensions_mut().insert(PeerAddr(peer.parse().unwrap()));
    request
}

async fn limited_to(most: u32) -> World {
    let world = World::configured(|config| config.public_rate_limit_per_min = most).await;
    world.keys.create(&zone()).await.unwrap();
    world
}

mod t08_availability_of_public_reads {
    use super::*;

    #[tokio::test]
    async fn an_address_has_its_budget_of_key_sets_and_no_more() {
        let world = limited_to(3).await;
        let (one, other) = ("192.0.2.1:1", "192.0.2.2:1");
        // Whatever the answer is, it was asked for.
        for (method, path, expected) in [
            (Method::GET, OF_ZONE, 200),
            (Method::HEAD, OF_ZONE, 200),
            (Method::GET, "/.well-known/jwks.json?zone_id=z-9", 404),
        ] {
            assert_eq!(world.send(asked(method, path, one)).await.status, expected);
        }
        let refused = world.send(asked(Method::GET, OF_ZONE, "192.0.2.1:2")).await;
        assert_eq!((refused.outcome().as_str(), refused.header("retry-after")), ("429 provider_rate_limited", "60"));
        assert!(refused.json.get("keys").is_none());
        assert_eq!(world.send(asked(Method::GET, OF_ZONE, other)).await.status, 200);
        world.clock.advance(60);
        assert_eq!(world.send(asked(Method::GET, OF_ZONE, one)).await.status, 200);
        assert_eq!(world.counted("public_rate").await, 1);
    }

    #[tokio::test]
    async fn who_asks_after_approvals_keeps_nobody_from_keys_or_mandates() {
        let world = limited_to(2).await;
        let peer = "[2001:db8::1]:1";
        for _ in 0..2 {
            assert_eq!(world.send(asked(Method::GET, NOBODYS, peer)).await.outcome(), "404 resource_not_found");
        }
        // Another address of the same holder, a wait, an id that is none, and a decision: all from the same budget.
        for (method, path) in [
            (Method::GET, NOBODYS.to_owned()),
            (Method::GET, format!("{NOBODYS}?wait=25")),
            (Method::GET, "/approvals/x".to_owned()),
            (Method::POST, format!("{NOBODYS}/decision")),
        ] {
            let refused = world.send(asked(method, &path, "[2001:db8::2]:1")).await;
            assert_eq!(refused.outcome(), "429 provider_rate_limited", "{path}");
        }
        assert_eq!(world.send(asked(Method::GET, OF_ZONE, peer)).await.status, 200);
        assert_eq!(Ask::bootstrap().from(peer).send(&world).await.status, 200);
        let request = Request::get("/metrics").header("authorization", format!("Bearer {METRICS_BEARER}"));
        let text = String::from_utf8(world.send(request.body(Body::empty()).unwrap()).await.body).unwrap();
        assert!(text.contains("caracal_sts_public_limited_total 4\n"), "{text}");
    }

    #[tokio::test]
    async fn an_approval_is_not_looked_up_for_who_has_asked_too_often() {
        let world = limited_to(1).await;
        world.send(asked(Method::GET, NOBODYS, "192.0.2.1:1")).await;
        world.store.close().await;
        // A store that is gone would be 503.
        assert_eq!(world.send(asked(Method::GET, NOBODYS, "192.0.2.1:1")).await.status, 429);
        assert_eq!(world.send(asked(Method::GET, NOBODYS, "192.0.2.2:1")).await.status, 503);
    }

    #[tokio::test]
    async fn behind_a_trusted_proxy_the_budget_is_the_caller_s_that_it_names() {
        for (trust_proxy, other) in [(true, 200), (false, 429)] {
            let world = World::configured(|config| {
                config.trust_proxy = trust_proxy;
                config.public_rate_limit_per_min = 1;
            })
            .await;
            world.keys.create(&zone()).await.unwrap();
            let through = async |line: &str| {
                let mut request = asked(Method::GET, OF_ZONE, "10.0.0.1:1");
                request.headers_mut().insert("x-forwarded-for", line.parse().unwrap());
                world.send(request).await.status
            };
            assert_eq!(through("192.0.2.1").await, 200);
            assert_eq!(through("198.51.100.9, 192.0.2.1").await, 429);
            assert_eq!(through("192.0.2.2").await, other, "trusted: {trust_proxy}");
        }
    }
}
