//! Who is believed to be a Gateway (contract: sts.md §3.3 step 4, §10.1; security property 4).

use axum::body::Body;
use caracal_crypto::hmac::{HmacKey, gateway_signature};
use http::Request;

use crate::support::*;

const HEADERS: [&str; 3] = ["x-caracal-gateway-timestamp", "x-caracal-gateway-request", "x-caracal-gateway-signature"];

/// The request with its headers changed after it was signed.
fn tampered(exchange: &Signed, change: impl FnOnce(&mut Request<Body>)) -> Request<Body> {
    let mut request = exchange.request();
    change(&mut request);
    request
}

fn signed_by(exchange: &Signed, key: &HmacKey, method: &str, path: &str) -> Request<Body> {
    let body = exchange.ask.encoded();
    let signature = gateway_signature(key, exchange.timestamp, &exchange.nonce, method, path, body.as_bytes());
    tampered(exchange, |request| {
        request.headers_mut().insert(HEADERS[2], signature.parse().unwrap());
    })
}

mod t02_sts_gateway_signature {
    use super::*;

    #[tokio::test]
    async fn a_signature_is_bound_to_method_path_body_time_and_key() {
        let world = World::new().await;
        let mandate = world.mandate().await;
        let exchange = Signed::exchange(&world, &mandate);
        let other_key = HmacKey::from_bytes(&[7; 32]).unwrap();
        let mut changed = exchange.clone();
        changed.ask = changed.ask.set("request_path", "/admin");
        let longer_body = Signed { ask: exchange.ask.clone().add("x", ""), ..exchange.clone() };
        let rows: [(&str, Request<Body>); 9] = [
            (
                "a body byte changed",
                tampered(&exchange, |request| *request.body_mut() = Body::from(changed.ask.encoded())),
            ),
            (
                "a field added",
                tampered(&exchange, |request| *request.body_mut() = Body::from(longer_body.ask.encoded())),
            ),
            ("another key", signed_by(&exchange, &other_key, "POST", "/oauth/2/token")),
            ("another method", signed_by(&exchange, &gateway_key(), "GET", "/oauth/2/token")),
            ("another path", signed_by(&exchange, &gateway_key(), "POST", "/oauth/2/tokens")),
            (
                "another time",
                tampered(&exchange, |request| {
                    request.headers_mut().insert(HEADERS[0], (START + 1).to_string().parse().unwrap());
                }),
            ),
            (
                "another nonce",
                tampered(&exchange, |request| {
                    request.headers_mut().insert(HEADERS[1], "another".parse().unwrap());
                }),
            ),
            (
                "a time that is none",
                tampered(&exchange, |request| {
                    request.headers_mut().insert(HEADERS[0], "now".parse().unwrap());
                }),
            ),
            (
                "a signature that is none",
                tampered(&exchange, |request| {
                    request.headers_mut().insert(HEADERS[2], "00".parse().unwrap());
                }),
            ),
        ];
        let refused = rows.len() as u64;
        for (what, request) in rows {
            assert_eq!(world.send(request).await.outcome(), "401 access_denied", "{what}");
        }
        assert_eq!(world.counted("gateway_signature").await, refused);
        // None of them used up the nonce or the mandate, and none wrote to the chain.
        assert_eq!(world.evidence().await.len(), 1);
        assert_eq!(exchange.send(&world).await.status, 200);
    }

    #[tokio::test]
    async fn all_three_headers_are_needed_once_as_soon_as_one_is_there() {
        let world = World::new().await;
        let exchange = Signed::exchange(&world, &world.mandate().await);
        // The right client secret beside it does not help: nothing that claims to be a Gateway becomes a client.
        let exchange = exchange.set("client_secret", SECRET);
        for present in 1..7_u8 {
            let request = tampered(&exchange, |request| {
                for (bit, name) in HEADERS.iter().enumerate() {
                    if present & (1 << bit) == 0 {
                        request.headers_mut().remove(*name);
                    }
                }
            });
            assert_eq!(world.send(request).await.outcome(), "401 access_denied", "{present:03b}");
        }
        for name in HEADERS {
            let request = tampered(&exchange, |request| {
                let value = request.headers()[name].clone();
                request.headers_mut().append(name, value);
            });
            assert_eq!(world.send(request).await.outcome(), "401 access_denied", "{name} twice");
            let request = tampered(&exchange, |request| {
                request.headers_mut().insert(name, "".parse().unwrap());
            });
            assert_eq!(world.send(request).await.outcome(), "401 access_denied", "{name} empty");
        }
    }

    #[tokio::test]
    async fn a_nonce_serves_once() {
        let world = World::new().await;
        let exchange = Signed::exchange(&world, &world.mandate().await);
        assert_eq!(exchange.send(&world).await.status, 200);
        assert_eq!(exchange.send(&world).await.outcome(), "401 access_denied");
        let mut other = Signed::exchange(&world, &world.mandate().await);
        other.nonce.clone_from(&exchange.nonce);
        assert_eq!(other.send(&world).await.outcome(), "401 access_denied");
        // It is remembered as long as a signature with it could still be in time.
        other.timestamp = START + 60;
        world.clock.advance(120);
        world.forget_what_is_over().await;
        assert_eq!(other.send(&world).await.outcome(), "401 access_denied");
    }

    #[tokio::test]
    async fn a_minute_of_skew_is_borne_in_either_direction_and_no_second_more() {
        let world = World::new().await;
        for (skew, expected) in [(0, 200), (60, 200), (-60, 200), (61, 401), (-61, 401), (3600, 401)] {
            let mut exchange = Signed::exchange(&world, &world.mandate().await);
            exchange.timestamp += skew;
            assert_eq!(exchange.send(&world).await.status, expected, "{skew}");
        }
    }

    #[tokio::test]
    async fn the_request_id_in_the_form_is_that_of_the_request() {
        let world = World::new().await;
        let exchange = Signed::exchange(&world, &world.mandate().await);
        let without = Signed::without(exchange.clone(), "gateway_request_id");
        assert_eq!(without.send(&world).await.outcome(), "401 access_denied");
        assert_eq!(
            exchange.clone().set("gateway_request_id", "another").send(&world).await.outcome(),
            "401 access_denied"
        );
        let unnamed = tampered(&exchange, |request| {
            request.headers_mut().remove("x-request-id");
        });
        assert_eq!(world.send(unnamed).await.outcome(), "401 access_denied");
        // An id that is not adopted is not the effective one.
        let mut odd = exchange.clone().set("gateway_request_id", "a b");
        odd.request_id = "a b".to_owned();
        assert_eq!(odd.send(&world).await.outcome(), "401 access_denied");
        assert_eq!(world.counted("gateway_signature").await, 4);
        assert_eq!(exchange.send(&world).await.header("x-request-id"), exchange.request_id);
    }

    #[tokio::test]
    async fn without_a_key_nobody_is_a_gateway() {
        let world = World::configured(|config| config.gateway_key = None).await;
        let exchange = Signed::exchange(&world, &world.mandate().await);
        assert_eq!(exchange.send(&world).await.outcome(), "401 access_denied");
    }

    #[tokio::test]
    async fn what_is_wrong_with_the_form_comes_after_who_sent_it() {
        let world = World::new().await;
        let exchange = Signed::exchange(&world, &world.mandate().await).set("resource", "");
        assert_eq!(exchange.send(&world).await.outcome(), "400 invalid_token");
        let unsigned = tampered(&exchange, |request| {
            request.headers_mut().insert(HEADERS[2], "00".parse().unwrap());
        });
        assert_eq!(world.send(unsigned).await.outcome(), "401 access_denied");
    }
}

mod t08_availability_nonces {
    use super::*;

    #[tokio::test]
    async fn a_store_that_cannot_say_whether_a_nonce_was_used_admits_nobody() {
        let world = World::new().await;
        let exchange = Signed::exchange(&world, &world.mandate().await);
        world.counted("gateway_signature").await;
        world.store.close().await;
        let answer = exchange.send(&world).await;
        assert_eq!((answer.outcome().as_str(), answer.header("retry-after")), ("503 sts_unavailable", "1"));
    }
}
