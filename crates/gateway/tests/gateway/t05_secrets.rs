//! No secret leaves the Gateway but to whom it is for (gateway.md, properties 5, 6, 18).

use caracal_crypto::Secret;
use caracal_gateway::{Directive, ExchangeRefusal, GatewayConfig};
use http::StatusCode;
use serde_json::json;

use crate::sts::Said;
use crate::upstream::Upstream;
use crate::world::{World, config, request, to};
use caracal_testkit::logs::logged;

const PROVIDER: &str = "provider-secret-7f3a";
const FIXED: &str = "fixed-in-url-7f3a";
const USER: &str = "user-in-url-7f3a";
const ADMIN: &str = "admin-token-7f3a";
const SUBJECT: &str = "subject-7f3a";
const BODY: &str = "body-7f3a";

fn directive(url: String) -> Directive {
    Directive {
        auth_mode: "provider_apikey".to_owned(),
        auth_location: "query".to_owned(),
        query_param_name: "key".to_owned(),
        provider_token: Some(Secret::new(PROVIDER.to_owned())),
        ..to(url)
    }
}

#[tokio::test]
async fn neither_logs_nor_answers_nor_evidence_show_a_secret_however_a_call_ends() {
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let ok = Upstream::ok().await;
    let garbage = Upstream::saying(b"garbage\r\n\r\n").await;
    let broken = Upstream::saying(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello").await;
    let admin_token = Some(Secret::new(ADMIN.to_owned()));
    let world = World::with(GatewayConfig { admin_token, ..config() }, |_| Said::Hang).await;
    let fixed = format!("?fixed={FIXED}");
    let mut mandates = Vec::new();
    let mut answers = String::new();
    for (n, (url, status)) in [
        (ok.url(&fixed), 200),
        (garbage.url(&fixed), 502),
        (broken.url(&fixed), 200),
        (format!("http://{nobody}/{fixed}"), 502),
        (format!("http://unknown.test/{fixed}"), 502),
        (format!("http://169.254.169.254/{fixed}"), 502),
        (format!("http://{USER}:{USER}@h/{fixed}"), 502),
        (format!("ftp://{USER}/{fixed}"), 502),
    ]
    .into_iter()
    .enumerate()
    {
        world.sts.says(move |_| Said::Go(directive(url.clone())));
        let mandate = world.mandate(json!({"sub": SUBJECT, "sub_type": "user"})).await;
        let headers = format!("X-Request-Id: r-{n}\r\nContent-Length: {}\r\n", BODY.len());
        let answer = world.ask(&format!("{}{BODY}", request("POST", "/x", &mandate, &headers))).await;
        assert_eq!(answer.status(), status, "{n}");
        // Where a call would have gone is the operator's to know.
        for address in ["127.0.0.1", "169.254", "unknown.test"] {
            assert!(!format!("{answer:?} {}", answer.text()).contains(address), "{n}: {address}");
        }
        answers += &format!("{answer:?} {}", answer.text());
        let event = world.events(&format!("r-{n}"), 1).await.remove(0);
        answers += &format!("{event:?}");
        // And once more, used.
        let again = world.ask(&request("POST", "/x", &mandate, "Content-Length: 0\r\n")).await;
        answers += &format!("{again:?} {}", again.text());
        mandates.push(mandate);
    }
    world.sts.says(|_| Said::No(ExchangeRefusal::denied(StatusCode::FORBIDDEN, "access_denied", "policy denied")));
    for headers in ["", "X-Caracal-Client-Id: x\r\n"] {
        let mandate = world.mandate(json!({})).await;
        let answer = world.ask(&request("GET", "/x", &mandate, headers)).await;
        answers += &format!("{answer:?} {}", answer.text());
        mandates.push(mandate);
    }
    let forged = format!("{}x", mandates[0]);
    let answer = world.ask(&request("GET", "/x", &forged, "")).await;
    answers += &format!("{answer:?} {}", answer.text());
    for token in [ADMIN, "wrong"] {
        let reload = "POST /internal/revocations/reload HTTP/1.1\r\nHost: g\r\n";
        let answer = world.ask(&format!("{reload}Authorization: Bearer {token}\r\n\r\n")).await;
        answers += &format!("{answer:?} {}", answer.text());
    }
    answers += &world.ask("GET /metrics HTTP/1.1\r\nHost: g\r\n\r\n").await.text();
    let logged = logged();
    assert!(logged.contains("r-3") && logged.contains("an upstream gave no response"), "the log was looked at");
    mandates.extend([PROVIDER, FIXED, USER, ADMIN, SUBJECT, BODY, crate::sts::RESOURCE_MANDATE].map(str::to_owned));
    for secret in &mandates {
        assert!(!logged.contains(secret.as_str()), "{secret} in the log");
        assert!(!answers.contains(secret.as_str()), "{secret} in an answer or event");
        // Nor one by its parts.
        if let Some((_, signature)) = secret.rsplit_once('.').filter(|(_, signature)| signature.len() > 40) {
            assert!(!logged.contains(signature) && !answers.contains(signature), "a signature");
        }
    }
}

#[tokio::test]
async fn the_upstream_gets_the_providers_credential_and_nothing_of_the_callers() {
    let upstream = Upstream::ok().await;
    let url = upstream.url("");
    let world = World::scripted(move |_| Said::Go(directive(url.clone()))).await;
    let mandate = world.mandate(json!({})).await;
    // In every place a client may think of.
    let headers =
        format!("Cookie: m={mandate}\r\nX-Caracal-Mandate: {mandate}\r\nProxy-Authorization: Bearer {mandate}\r\n");
    assert_eq!(world.ask(&request("GET", "/x", &mandate, &headers)).await.status(), 200);
    let received = upstream.only();
    assert_eq!(received.target, format!("/x?key={PROVIDER}"));
    for (name, value) in &received.headers {
        // What a caller puts into a cookie is the caller's own doing.
        assert!(name == "cookie" || !value.contains(&mandate), "{name}");
        assert!(!value.contains(PROVIDER), "{name}");
    }
}
