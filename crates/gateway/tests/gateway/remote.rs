//! A Gateway whose STS is in another process and in trouble, as its callers see it (gateway.md §11.2, §12).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use caracal_authority::Timestamp;
use caracal_crypto::hmac::HmacKey;
use caracal_gateway::{GatewayConfig, RemoteSts, RemoteStsConfig, StsUrl};
use caracal_http::egress::{SystemResolver, TlsTrust};
use caracal_store::ManualClock;
use http::StatusCode;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::sts::Said;
use crate::upstream::Upstream;
use crate::world::{Deployment, NOW, World, config, request};

/// A listener that says the same to whoever asks; `None` is silence.
struct Sts {
    url: String,
    says: Arc<Mutex<Option<String>>>,
    asked: Arc<Mutex<usize>>,
    healthy: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Sts {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Sts {
    async fn saying(answer: Option<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (says, asked) = (Arc::new(Mutex::new(answer)), Arc::new(Mutex::new(0)));
        let healthy = Arc::new(AtomicBool::new(true));
        let (script, counted, alive) = (says.clone(), asked.clone(), healthy.clone());
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (script, counted, alive) = (script.clone(), counted.clone(), alive.clone());
                tokio::spawn(async move {
                    let mut heard = String::new();
                    let whole = |heard: &str| {
                        if heard.starts_with("GET") {
                            heard.ends_with("\r\n\r\n")
                        } else {
                            heard.ends_with("zone_id=z-1")
                        }
                    };
                    while !whole(&heard) {
                        let mut some = [0; 4096];
                        match stream.read(&mut some).await {
                            Ok(read) if read > 0 => heard.push_str(&String::from_utf8_lossy(&some[..read])),
                            _ => return,
                        }
                    }
                    let answer = if heard.starts_with("GET") {
                        let status = if alive.load(Ordering::SeqCst) { "200 OK" } else { "503 Down" };
                        Some(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"))
                    } else {
                        *counted.lock().unwrap() += 1;
                        script.lock().unwrap().clone()
                    };
                    match answer {
                        Some(answer) => drop(stream.write_all(answer.as_bytes()).await),
                        None => std::future::pending().await,
                    }
                });
            }
        });
        Self { url, says, asked, healthy, task }
    }

    fn says(&self, answer: String) {
        *self.says.lock().unwrap() = Some(answer);
    }

    fn times_asked(&self) -> usize {
        *self.asked.lock().unwrap()
    }
}

fn json_answer(status: u16, body: &str) -> String {
    let reason = StatusCode::from_u16(status).unwrap().canonical_reason().unwrap_or_default();
    let length = body.len();
    format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nX-Caracal-Gateway-Decision: denied\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

fn denied(status: u16, code: &str) -> String {
    json_answer(status, &json!({"error": code}).to_string())
}

async fn world(url: &str, config: GatewayConfig) -> World {
    let exchange = RemoteSts::new(RemoteStsConfig {
        url: StsUrl::parse(url, true).unwrap(),
        key: Some(Arc::new(HmacKey::from_bytes(&[7; 32]).unwrap())),
        timeout: config.sts_timeout,
        clock: Arc::new(ManualClock::at(Timestamp::from_seconds(NOW))),
        resolver: Arc::new(SystemResolver::new()),
        trust: TlsTrust::from_pem(false, None),
    });
    World::asking(Arc::new(exchange.unwrap()), Deployment::new(|_| Said::Hang).await, config).await
}

#[tokio::test]
async fn every_trouble_of_a_remote_sts_has_its_answer_and_leaves_evidence() {
    let huge = json_answer(200, &json!({"access_token": "x".repeat(20_000)}).to_string());
    let lost = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{".to_owned();
    let redirect = "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n".to_owned();
    for (answer, status, description, reason) in [
        (Some("garbage\r\n\r\n".to_owned()), 502, "sts unavailable", "sts_outcome_unknown"),
        (Some(huge), 502, "sts response invalid", "sts_outcome_unknown"),
        (Some(json_answer(200, "{}")), 502, "sts response invalid", "sts_outcome_unknown"),
        (Some(redirect), 302, "Found", "sts_outcome_unknown"),
        (Some(lost), 503, "sts answer lost, the mandate may be used up", "sts_outcome_unknown"),
        (Some(String::new()), 503, "sts answer lost, the mandate may be used up", "sts_outcome_unknown"),
        (None, 504, "sts timeout", "sts_timeout"),
    ] {
        let sts = Sts::saying(answer).await;
        let world = world(&sts.url, GatewayConfig { sts_timeout: Duration::from_millis(400), ..config() }).await;
        let asking = world.request("GET", "/x", "X-Request-Id: r-1\r\n").await;
        let seen = world.ask(&asking).await;
        assert_eq!(seen.refusal(), (status, "sts_unavailable".to_owned(), description.to_owned()));
        assert_eq!(seen.get("retry-after").is_some(), status == 503, "{description}");
        assert_eq!(seen.get("location"), None);
        assert_eq!((sts.times_asked(), world.event("r-1").await.1.as_str()), (1, reason), "{description}");
    }
    let sts = Sts::saying(None).await;
    let world = world(&sts.url, config()).await;
    drop(sts);
    let asking = world.request("GET", "/x", "X-Request-Id: r-1\r\n").await;
    assert_eq!(world.ask(&asking).await.refusal(), (502, "sts_unavailable".to_owned(), "sts unavailable".to_owned()));
    assert_eq!(world.event("r-1").await.1, "sts_unavailable");
}

#[tokio::test]
async fn the_circuit_opens_for_outages_and_never_for_denials() {
    let sts = Sts::saying(Some(denied(403, "access_denied"))).await;
    let world = world(&sts.url, config()).await;
    for (status, code) in [(403, "access_denied"), (503, "policy_eval_failed"), (429, "provider_rate_limited")] {
        sts.says(denied(status, code));
        for _ in 0..4 {
            assert_eq!(world.get("/x").await.refusal(), (status, code.to_owned(), String::new()));
        }
    }
    assert_eq!((sts.times_asked(), world.metric("sts_circuit_opened").await), (12, 0));
    sts.says("nonsense\r\n\r\n".to_owned());
    for _ in 0..3 {
        assert_eq!(world.get("/x").await.refusal().0, 502);
    }
    // Whoever is turned away now has not been asked about, and keeps the mandate.
    let mandate = world.mandate(json!({})).await;
    let held = request("GET", "/x", &mandate, "");
    assert_eq!(world.ask(&held).await.refusal().0, 503);
    assert_eq!((sts.times_asked(), world.metric("sts_circuit_fast_fail").await), (15, 1));
}

#[tokio::test]
async fn an_allowed_call_goes_where_the_answer_says() {
    let upstream = Upstream::ok().await;
    let directive = json!({
        "access_token": "minted.by.sts",
        "upstreams": {"resource://items": {"url": upstream.url(""), "auth_mode": "caracal_jwt"}}
    });
    let sts = Sts::saying(Some(json_answer(200, &directive.to_string()))).await;
    let world = world(&sts.url, config()).await;
    assert_eq!(world.get("/x").await.status(), 200);
    assert_eq!(upstream.received().len(), 1);
}

#[tokio::test]
async fn readiness_needs_an_sts_that_is_alive() {
    let sts = Sts::saying(None).await;
    let world = world(&sts.url, config()).await;
    let ready = "GET /ready HTTP/1.1\r\nHost: g\r\n\r\n";
    assert_eq!(world.ask(ready).await.status(), 200);
    sts.healthy.store(false, Ordering::SeqCst);
    let answer = world.ask(ready).await;
    assert_eq!((answer.status(), answer.json()["reason"].as_str()), (503, Some("sts_unreachable")));
    drop(sts);
    assert_eq!(world.ask(ready).await.json()["reason"], "sts_unreachable");
}
