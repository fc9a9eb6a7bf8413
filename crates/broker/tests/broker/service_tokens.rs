//! Tokens of the client's own: what is sent for them, how often, and what is made of the answer.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use caracal_broker::{AssertionKey, BrokerError};
use caracal_testkit::{Received, Reply};
use serde_json::{Value, json};

use crate::keys::{self, is_signed};
use crate::world::{World, token};

/// Counts requests and answers each with a fresh token.
fn fresh(seconds: u64) -> impl Fn(&Received) -> Reply + Send + Sync {
    let count = AtomicUsize::new(0);
    move |_: &Received| token(count.fetch_add(1, Ordering::SeqCst) + 1, seconds)
}

fn failing(status: u16) -> impl Fn(&Received) -> Reply + Send + Sync {
    move |_: &Received| Reply::json(status, r#"{"error":"server_error"}"#)
}

/// What is sent for a token.
async fn sent(more: Value, secrets: Value) -> Received {
    let world = World::new(fresh(600)).await;
    world.token(&world.provider(more), secrets).await.unwrap();
    let [request] = &world.server.seen()[..] else { panic!("one request") };
    assert_eq!((request.method.as_str(), request.path()), ("POST", "/token"));
    assert_eq!(request.header("accept"), Some("application/json"));
    assert_eq!(request.header("content-type"), Some("application/x-www-form-urlencoded"));
    request.clone()
}

/// The claims of an assertion, which has to be signed by `pem`.
fn claims(assertion: &str, pem: &str) -> (Value, Value) {
    let key = AssertionKey::from_pem(pem).unwrap();
    let (signed, signature) = assertion.rsplit_once('.').unwrap();
    assert!(is_signed(&key, signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()));
    let (header, payload) = signed.split_once('.').unwrap();
    let part = |text: &str| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap();
    let header: Value = part(header);
    assert_eq!(header["alg"], key.algorithm());
    (header, part(payload))
}

mod t02_sts_token_requests {
    use super::*;

    #[tokio::test]
    async fn a_client_proves_itself_as_it_is_configured() {
        let secret = || json!({"client_secret": "s:e c&r=t"});
        let request = sent(json!({"scopes": ["a", "b"], "audience": "api", "resource": "urn:r"}), secret()).await;
        assert_eq!(request.text(), "grant_type=client_credentials&scope=a+b&audience=api&resource=urn%3Ar");
        let pair = STANDARD.encode("client-1:s:e c&r=t");
        assert_eq!(request.header("authorization"), Some(format!("Basic {pair}").as_str()));

        let request = sent(json!({"client_auth_method": "client_secret_post"}), secret()).await;
        assert_eq!(request.header("authorization"), None);
        let fields = ["grant_type", "client_id", "client_secret"].map(|name| request.field(name).unwrap());
        assert_eq!(fields, ["client_credentials", "client-1", "s:e c&r=t"]);

        let request = sent(json!({"client_auth_method": "none"}), json!({})).await;
        assert_eq!(request.text(), "grant_type=client_credentials&client_id=client-1");
        assert_eq!(request.header("authorization"), None);
    }

    #[tokio::test]
    async fn an_assertion_says_who_the_client_is_for_a_minute() {
        for (pem, certificate) in
            [(keys::RSA, None), (keys::P256, Some(keys::P256_CERTIFICATE)), (keys::P384, None), (keys::P521, None)]
        {
            let mut config = json!({"client_auth_method": "private_key_jwt", "key_id": "k-1"});
            if let Some(certificate) = certificate {
                config["certificate"] = json!(certificate);
            }
            let request = sent(config, json!({"private_key": pem})).await;
            assert_eq!(request.field("client_id").as_deref(), Some("client-1"));
            assert_eq!(
                request.field("client_assertion_type").as_deref(),
                Some("urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
            );
            let (header, claims) = claims(&request.field("client_assertion").unwrap(), pem);
            assert_eq!((&header["typ"], &header["kid"]), (&json!("JWT"), &json!("k-1")));
            assert_eq!(header["x5t"].is_string() && header["x5t#S256"].is_string(), certificate.is_some());
            assert_eq!((&claims["iss"], &claims["sub"]), (&json!("client-1"), &json!("client-1")));
            assert!(claims["aud"].as_str().unwrap().ends_with("/token"));
            assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 60);
            assert_eq!(claims["jti"].as_str().unwrap().len(), 36);
        }
    }

    #[tokio::test]
    async fn a_grant_is_asserted_for_five_minutes_and_carries_the_scopes() {
        let grant = |more: Value| {
            let mut config = json!({"grant_type": "jwt_bearer", "client_auth_method": "none", "scopes": ["a", "b"]});
            config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            sent(config, json!({"private_key": keys::RSA}))
        };
        let request = grant(json!({"key_id": "k-1"})).await;
        assert_eq!(request.field("grant_type").as_deref(), Some("urn:ietf:params:oauth:grant-type:jwt-bearer"));
        assert_eq!(request.field("scope"), None);
        let (header, claimed) = claims(&request.field("assertion").unwrap(), keys::RSA);
        assert_eq!(header["kid"], "k-1");
        assert_eq!(
            (&claimed["iss"], &claimed["sub"], &claimed["scope"]),
            (&json!("client-1"), &json!("client-1"), &json!("a b"))
        );
        assert!(claimed["aud"].as_str().unwrap().ends_with("/token"));
        assert_eq!(claimed["exp"].as_i64().unwrap() - claimed["iat"].as_i64().unwrap(), 300);
        let request =
            grant(json!({"assertion_subject": "robot@example", "assertion_audience": "https://aud.example"})).await;
        let (header, claimed) = claims(&request.field("assertion").unwrap(), keys::RSA);
        assert_eq!(header.get("kid"), None);
        assert_eq!((&claimed["sub"], &claimed["aud"]), (&json!("robot@example"), &json!("https://aud.example")));
    }

    #[tokio::test]
    async fn parameters_of_the_operator_come_last() {
        let config = json!({"audience": "api", "token_params": {"audience": "other", "tenant": "t 1"}});
        let request = sent(config, json!({"client_secret": "s"})).await;
        assert_eq!(request.text(), "grant_type=client_credentials&audience=other&tenant=t+1");
    }

    #[tokio::test]
    async fn without_its_secret_nothing_is_sent() {
        let world = World::new(fresh(600)).await;
        for (config, secrets, name) in [
            (json!({}), json!({}), "client_secret"),
            (json!({}), json!({"client_secret": ""}), "client_secret"),
            (json!({"client_auth_method": "private_key_jwt"}), json!({"client_secret": "s"}), "private_key"),
            (json!({"client_auth_method": "private_key_jwt"}), json!({"private_key": "not pem"}), "private_key"),
            (json!({"grant_type": "jwt_bearer"}), json!({"private_key": keys::RSA}), "client_secret"),
            (json!({"grant_type": "jwt_bearer", "client_auth_method": "none"}), json!({}), "private_key"),
        ] {
            let refused = world.token(&world.provider(config.clone()), secrets).await.err();
            assert_eq!(refused, Some(BrokerError::Secret(name)), "{config}");
        }
        assert!(world.server.seen().is_empty());
    }
}

mod t08_availability_of_token_endpoints {
    use super::*;

    #[tokio::test]
    async fn many_who_want_a_token_at_once_ask_once() {
        let (release, held) = mpsc::channel::<()>();
        let held = Mutex::new(held);
        let world = World::new(move |_: &Received| {
            let _ = held.lock().unwrap().recv();
            token(1, 600)
        })
        .await;
        let provider = world.provider(json!({}));
        let waiting: Vec<_> = (0..50)
            .map(|_| {
                let (broker, provider) = (world.broker.clone(), provider.clone());
                tokio::spawn(async move {
                    let secrets = crate::world::document(json!({"client_secret": "s-1"}));
                    broker.service_token(&provider, secrets).await.unwrap().access_token.expose().clone()
                })
            })
            .collect();
        // One of them goes away, perhaps the one that asked.
        waiting[0].abort();
        while world.server.seen().is_empty() {
            tokio::task::yield_now().await;
        }
        release.send(()).unwrap();
        for waiting in waiting.into_iter().skip(1) {
            assert_eq!(waiting.await.unwrap(), "t-1");
        }
        assert_eq!(world.server.seen().len(), 1);
    }

    #[tokio::test]
    async fn a_token_is_kept_while_more_than_half_a_minute_is_left() {
        let world = World::new(fresh(100)).await;
        let provider = world.provider(json!({}));
        let token = async || {
            let token = world.token(&provider, json!({"client_secret": "s-1"})).await.unwrap();
            token.access_token.expose().clone()
        };
        assert_eq!(token().await, "t-1");
        world.clock.advance(69);
        assert_eq!(token().await, "t-1");
        world.clock.advance(1);
        assert_eq!(token().await, "t-2");
    }

    #[tokio::test]
    async fn no_token_is_believed_in_for_longer_than_the_deployment_says() {
        for reply in [r#"{"access_token":"t","expires_in":86400}"#, r#"{"access_token":"t"}"#] {
            let world = World::new(move |_: &Received| Reply::json(200, reply)).await;
            let token = world.token(&world.provider(json!({})), json!({"client_secret": "s"})).await.unwrap();
            assert_eq!(token.expires_at.as_seconds() - caracal_store::Clock::now(&*world.clock).as_seconds(), 3_600);
        }
    }

    #[tokio::test]
    async fn another_configuration_or_secret_asks_anew() {
        let world = World::new(fresh(600)).await;
        let ask = async |more: Value, secret: &str| {
            let token = world.token(&world.provider(more), json!({"client_secret": secret})).await.unwrap();
            token.access_token.expose().clone()
        };
        assert_eq!(ask(json!({}), "s-1").await, "t-1");
        assert_eq!(ask(json!({"scopes": ["a"]}), "s-1").await, "t-2");
        assert_eq!(ask(json!({}), "s-2").await, "t-3");
        let mut other = world.provider(json!({}));
        other.id = "p-2".parse().unwrap();
        world.token(&other, json!({"client_secret": "s-1"})).await.unwrap();
        assert_eq!(world.server.seen().len(), 4);
        assert_eq!(ask(json!({}), "s-1").await, "t-1");
    }

    #[tokio::test]
    async fn a_refusal_is_asked_once_and_opens_no_circuit() {
        for status in [400, 401, 403, 404, 429] {
            let world = World::new(failing(status)).await;
            for attempt in 1..=7 {
                assert!(matches!(world.no_token(json!({})).await, BrokerError::Refused { .. }), "{status}");
                assert_eq!(world.server.seen().len(), attempt, "{status}");
            }
        }
    }

    #[tokio::test]
    async fn an_outage_is_asked_twice_and_then_left_alone() {
        for reply in [Reply::json(503, "{}"), Reply::hang_up()] {
            let world = World::new(move |_: &Received| reply.clone()).await;
            for fetch in 1..=5 {
                let failed = world.no_token(json!({})).await;
                assert!(failed.reason() == "token_endpoint_unreachable" || failed.reason() == "token_answer_invalid");
                assert_eq!(world.server.seen().len(), 2 * fetch);
            }
            assert_eq!(world.no_token(json!({})).await, BrokerError::CircuitOpen);
            assert_eq!(world.server.seen().len(), 10);
            assert_eq!(world.broker.metrics().series()[4].2, 1);
            // Another provider of the zone is not held responsible.
            let mut other = world.provider(json!({}));
            other.id = "p-2".parse().unwrap();
            assert_ne!(world.token(&other, json!({"client_secret": "s"})).await.err(), Some(BrokerError::CircuitOpen));
            world.clock.advance(31);
            assert_ne!(world.no_token(json!({})).await, BrokerError::CircuitOpen);
        }
    }

    #[tokio::test]
    async fn an_endpoint_that_is_back_at_the_second_attempt_is_no_failure() {
        let count = AtomicUsize::new(0);
        let world = World::new(move |_: &Received| match count.fetch_add(1, Ordering::SeqCst) {
            0 => Reply::json(502, ""),
            _ => token(1, 600),
        })
        .await;
        assert!(world.token(&world.provider(json!({})), json!({"client_secret": "s"})).await.is_ok());
        assert_eq!(world.server.seen().len(), 2);
    }

    #[tokio::test]
    async fn an_endpoint_that_says_nothing_is_waited_for_no_longer_than_allowed() {
        let (_release, held) = mpsc::channel::<()>();
        let held = Arc::new(Mutex::new(held));
        let world = World::patient(Duration::from_millis(200), move |_: &Received| {
            let _ = held.lock().unwrap().recv();
            Reply::hang_up()
        })
        .await;
        let begun = std::time::Instant::now();
        assert_eq!(world.no_token(json!({})).await.reason(), "token_endpoint_unreachable");
        assert!(begun.elapsed() < Duration::from_secs(2));
    }
}

mod t03_egress_to_token_endpoints {
    use super::*;

    #[tokio::test]
    async fn a_name_that_leads_where_none_may_go_is_refused_and_nothing_is_sent() {
        let world = World::new(fresh(600)).await;
        for name in ["metadata.example", "nat64.example", "private.example"] {
            let refused = world.no_token(json!({"token_endpoint": world.endpoint(name)})).await;
            assert_eq!(refused.reason(), "token_endpoint_not_allowed", "{name}: {refused}");
        }
        for more in [
            json!({"token_endpoint": world.endpoint("other.example")}),
            json!({"token_endpoint": "http://idp.example/token"}),
            json!({"allowed_token_hosts": ["example"]}),
        ] {
            assert_eq!(world.no_token(more).await.reason(), "token_endpoint_not_allowed");
        }
        assert!(world.server.seen().is_empty());
    }

    #[tokio::test]
    async fn a_redirect_is_not_followed() {
        let world = World::new(|request: &Received| match request.path() {
            "/token" => Reply::json(307, "").with("location", "/elsewhere"),
            _ => token(1, 600),
        })
        .await;
        assert_eq!(world.no_token(json!({})).await.reason(), "token_answer_invalid");
        assert_eq!(world.server.seen().len(), 1);
    }

    #[tokio::test]
    async fn an_answer_that_is_too_large_is_none() {
        let world =
            World::new(|_: &Received| Reply::json(200, format!(r#"{{"access_token":"{}"}}"#, "a".repeat(65_536))))
                .await;
        assert_eq!(world.no_token(json!({})).await.reason(), "token_endpoint_unreachable");
        assert_eq!(world.server.seen().len(), 1);
    }

    #[tokio::test]
    async fn a_server_without_a_trusted_certificate_gets_no_secret() {
        let world = World::new(fresh(600)).await;
        let stranger = World::new(fresh(600)).await;
        let endpoint = stranger.endpoint("idp.example");
        assert_eq!(world.no_token(json!({"token_endpoint": endpoint})).await.reason(), "token_endpoint_unreachable");
        assert!(stranger.server.seen().is_empty());
    }
}
