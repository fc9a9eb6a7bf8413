//! What every answer of every service has, whatever was asked (README D1, D28; contract: the services' own §1).

use serde_json::Value;

use crate::support::{Addressed, Running};
use crate::{Raw, exchange_raw, start};

const SERVICES: [&str; 5] = ["api", "sts", "gateway", "coordinator", "audit"];

/// Paths that the Gateway answers itself whatever the method is (gateway.md §3), and the one target without a path
/// (§2).
const OPEN_AT_THE_GATEWAY: [&str; 3] = ["/health", "/ready", "*"];

/// A request as text, closing the connection behind it.
fn request(line: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
    format!("{line} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n{headers}{length}\r\n{body}").into_bytes()
}

fn has_json(answer: &Raw) -> bool {
    answer.header("content-type").is_some_and(|kind| kind.starts_with("application/json"))
}

/// What holds for every answer that one of our services gave.
#[track_caller]
fn check(answer: &Raw, what: &str) {
    let ids: Vec<&str> =
        answer.head.lines().filter(|line| line.to_ascii_lowercase().starts_with("x-request-id:")).collect();
    assert_eq!(ids.len(), 1, "{what}: {}", answer.head);
    let id = answer.header("x-request-id").unwrap();
    assert!((1..=128).contains(&id.len()), "{what}");
    for name in ["server", "x-powered-by"] {
        assert_eq!(answer.header(name), None, "{what}");
    }
    if answer.status >= 400 && has_json(answer) {
        let body: Value = serde_json::from_str(&answer.body).unwrap_or_else(|_| panic!("{what}: {:?}", answer.body));
        assert_eq!((body["requestId"].as_str(), body["request_id"].as_str()), (Some(id), Some(id)), "{what}: {body}");
    }
}

/// Requests that none of the services has a good answer to.
fn hostile() -> Vec<(String, Vec<u8>)> {
    let mut requests = Vec::new();
    let json = "content-type: application/json\r\n";
    let form = "content-type: application/x-www-form-urlencoded\r\n";
    for line in [
        "GET /nowhere",
        "GET /",
        "GET //",
        "GET /%00",
        "GET /%2e%2e/%2e%2e/etc/passwd",
        "GET /..%2f..%2fetc/passwd",
        "GET /\\..\\",
        "GET /v1/zones",
        "GET /%761/zones",
        "GET /v%31/zones",
        "GET //v1/zones",
        "GET /V1/ZONES",
        "GET /v1/zones/%E0%A4%A",
        "GET http://elsewhere/v1/zones",
        "POST http://elsewhere/oauth/2/token",
        "GET http://elsewhere/internal/revocations/reload",
        "POST /internal/revocations/reload",
        "POST /internal/revocations/%72eload",
        "GET /oauth/2/token",
        "POST /oauth/2/%74oken",
        "GET /.well-known/jwks.json",
        "GET /.well-known/jwks.json?zone_id=%00",
        "GET /zones/z/agents",
        "GET /zones/z/%61gents",
        "GET http://elsewhere/zones/z/agents",
        "GET /api/audit/search?zone_id=z",
        "GET /api/audit/%73earch?zone_id=z",
        "GET http://elsewhere/api/audit/search?zone_id=z",
        "DELETE /health",
        "TRACE /ready",
        "PATCH /metrics",
        "PROPFIND /nowhere",
        "OPTIONS *",
        "OPTIONS /v1/zones",
        "CONNECT elsewhere:443",
    ] {
        requests.push((line.to_owned(), request(line, "", "")));
    }
    for (line, headers, body) in [
        ("POST /v1/zones", json, "{"),
        ("POST /v1/zones", json, "\u{0}"),
        ("POST /v1/zones", form, "name=x"),
        ("POST /v1/policies/validate", json, "{\"content\":\"a\",\"content\":\"b\"}"),
        ("POST /oauth/2/token", json, "{}"),
        ("POST /oauth/2/token", form, "grant_type=%zz"),
        ("POST /oauth/2/token", form, "grant_type"),
        ("POST /oauth/2/token", form, "zone_id=a&zone_id=b"),
        ("POST /oauth/2/token", form, "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange"),
        ("POST /zones/z/agents", json, "{"),
        ("POST /zones/z/agents", form, "a=b"),
        ("POST /zones/z/delegations", json, "[[[["),
    ] {
        requests.push((format!("{line} {body:?}"), request(line, headers, body)));
    }
    for (line, kind) in [
        ("POST /v1/zones", json),
        ("POST /oauth/2/token", form),
        ("POST /zones/z/agents", json),
        ("POST /notes", json),
        ("POST /api/audit/search", json),
    ] {
        requests.push((format!("{line}, 12 MiB"), request(line, kind, &"x".repeat(12 * 1024 * 1024))));
    }
    requests
}

mod t01_control_plane_outside {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn nothing_strange_is_answered_with_success_or_with_a_failure_of_ours() {
        let directory = tempfile::tempdir().unwrap();
        let system = start(directory.path());
        for (what, bytes) in hostile() {
            for service in SERVICES {
                let what = format!("{service}: {what}");
                let answer = exchange_raw(&system.address(service), &bytes).await;
                let answer = answer.unwrap_or_else(|| panic!("{what}: no answer"));
                check(&answer, &what);
                // A plain text is the contract's own word in a few places of the Gateway only (gateway.md §2, §3).
                let is_plain = answer.status >= 400 && !has_json(&answer);
                assert!(
                    !is_plain || (service == "gateway" && matches!(answer.status, 400 | 404)),
                    "{what}: {}",
                    answer.body
                );
                let target = what.split(' ').nth(2).unwrap();
                let is_open = match service {
                    "gateway" => OPEN_AT_THE_GATEWAY.contains(&target) || target == "/metrics",
                    _ => false,
                };
                // The Gateway cleans paths by sending the caller elsewhere, on itself (gateway.md §2.1).
                let is_moved = service == "gateway" && answer.status == 307;
                if is_moved {
                    let location = answer.header("location").unwrap();
                    assert!(location.starts_with('/') && !location.starts_with("//"), "{what}: {location}");
                }
                assert!(is_open || is_moved || (400..500).contains(&answer.status), "{what}: {}", answer.head);
            }
        }
        for service in SERVICES {
            let ready = exchange_raw(&system.address(service), &request("GET /ready", "", "")).await.unwrap();
            assert_eq!(ready.status, 200, "{service} is none the worse for it: {}", ready.body);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn each_service_refuses_in_its_own_words() {
        let directory = tempfile::tempdir().unwrap();
        let system = start(directory.path());
        let token = format!("authorization: Bearer {}\r\n", system.admin_token());
        let json = "content-type: application/json\r\n";
        let form = "content-type: application/x-www-form-urlencoded\r\n";
        let as_admin = |headers: &str| format!("{token}{headers}");
        let large = "x".repeat(3 * 1024 * 1024);
        for (service, line, headers, body, status, code) in [
            ("api", "GET /nowhere", String::new(), "", 404, "not_found"),
            ("api", "GET /v1/nowhere", String::new(), "", 401, "invalid_admin_token"),
            ("api", "GET /v1/nowhere", token.clone(), "", 404, "not_found"),
            ("api", "PUT /v1/zones", token.clone(), "", 404, "not_found"),
            ("api", "POST /v1/zones", as_admin(json), "{", 400, "internal_error"),
            ("api", "POST /v1/zones", as_admin(form), "a=b", 415, "internal_error"),
            ("api", "POST /v1/zones", as_admin(json), &large, 413, "internal_error"),
            ("api", "GET http://elsewhere/v1/zones", String::new(), "", 401, "invalid_admin_token"),
            ("api", "GET /v1/zones/%zz", String::new(), "", 400, "bad_request"),
            ("sts", "GET /nowhere", String::new(), "", 404, "resource_not_found"),
            ("sts", "GET /oauth/2/token", String::new(), "", 405, "method_not_allowed"),
            ("gateway", "GET /notes", String::new(), "", 401, "invalid_token"),
            ("gateway", "GET http://elsewhere/notes", String::new(), "", 401, "invalid_token"),
            ("coordinator", "GET /zones/z/agents", String::new(), "", 401, "missing_token"),
            ("audit", "GET /nowhere", token.clone(), "", 404, "resource_not_found"),
            ("audit", "POST /api/audit/search", token.clone(), "", 405, "method_not_allowed"),
            ("audit", "GET /api/audit/search", String::new(), "", 401, "unauthorized"),
            ("audit", "GET /api/audit/search", token.clone(), "", 400, "invalid_query"),
        ] {
            let what = format!("{service}: {line}");
            let answer = exchange_raw(&system.address(service), &request(line, &headers, body)).await.unwrap();
            check(&answer, &what);
            let said: Value = serde_json::from_str(&answer.body).unwrap_or_else(|_| panic!("{what}: {}", answer.body));
            assert_eq!((answer.status, said["error"].as_str()), (status, Some(code)), "{what}: {said}");
        }
    }
}

mod t06_evidence_correlation {
    use super::*;

    const SCRAPER: &str = "scraper-0123456789";

    /// Difference D28, of every listener there is: what succeeds, what probes and scrapers ask, and what is refused.
    #[tokio::test(flavor = "multi_thread")]
    async fn every_answer_of_every_listener_has_its_request_id() {
        let directory = tempfile::tempdir().unwrap();
        let operators = format!("127.0.0.1:{}", caracal_testkit::free_port().unwrap());
        let told = [
            ("API_V1_RATE_LIMIT_PER_MIN", "0"),
            ("METRICS_BEARER", SCRAPER),
            ("GATEWAY_OPERATOR_ADDRESS", operators.as_str()),
            ("VERIFY_RATE_LIMIT_PER_MIN", "1"),
        ];
        let system = Running::start_with(directory.path(), &told);
        let bearer = |token: &str| format!("authorization: Bearer {token}\r\n");
        let (admin, scraper) = (bearer(&system.admin_token()), bearer(SCRAPER));
        let json = "content-type: application/json\r\n";
        let large = "x".repeat(12 * 1024 * 1024);
        let verify = "{\"zone_id\":\"z\",\"token\":\"x\"}";
        let mut wrong = Vec::new();
        for (listener, line, headers, body, status) in [
            ("api", "GET /health", "", "", 200),
            ("api", "GET /ready", "", "", 200),
            ("api", "GET /metrics", &scraper, "", 200),
            ("api", "GET /metrics", "", "", 401),
            ("api", "GET /v1/zones", &admin, "", 200),
            ("api", "HEAD /v1/zones", &admin, "", 200),
            ("api", "POST /v1/zones", &format!("{admin}{json}"), "{\"name\":\"Test\"}", 201),
            ("api", "POST /v1/zones", &format!("{admin}{json}"), "{}", 400),
            ("api", "DELETE /v1/zones/unknown", &admin, "", 404),
            ("api", "GET /docs", "", "", 200),
            ("api", "GET /docs/openapi.json", "", "", 200),
            ("sts", "GET /health", "", "", 200),
            ("sts", "GET /ready", "", "", 200),
            ("sts", "GET /metrics", &scraper, "", 200),
            ("sts", "GET /metrics", "", "", 401),
            ("sts", "GET /.well-known/jwks.json?zone_id=unknown", "", "", 404),
            ("sts", "POST /.well-known/jwks.json", "", "", 405),
            ("sts", "POST /oauth/2/token", json, "{}", 415),
            ("sts", "POST /oauth/2/token", "content-type: application/x-www-form-urlencoded\r\n", &large, 413),
            ("gateway", "GET /health", "", "", 401),
            ("gateway", "GET /metrics", &scraper, "", 401),
            ("gateway", "GET /a//b", "", "", 307),
            ("gateway", "GET /%zz", "", "", 400),
            ("gateway", "CONNECT elsewhere:443", "", "", 404),
            ("operators", "GET /health", "", "", 200),
            ("operators", "GET /ready", "", "", 200),
            ("operators", "GET /metrics", &scraper, "", 200),
            ("operators", "GET /metrics.json", &scraper, "", 200),
            ("operators", "GET /metrics", "", "", 401),
            ("operators", "POST /internal/revocations/reload", "", "", 404),
            ("operators", "GET /nowhere", "", "", 404),
            ("coordinator", "GET /health", "", "", 200),
            ("coordinator", "HEAD /health", "", "", 200),
            ("coordinator", "GET /ready", "", "", 200),
            ("coordinator", "GET /metrics", &scraper, "", 200),
            ("coordinator", "GET /stats", &scraper, "", 403),
            ("coordinator", "POST /v1/verify", json, verify, 401),
            ("coordinator", "POST /v1/verify", json, verify, 429),
            ("coordinator", "POST /zones/z/agents", json, &large, 413),
            ("coordinator", "OPTIONS /zones/z/agents", "", "", 401),
            ("audit", "GET /health", "", "", 200),
            ("audit", "GET /ready", "", "", 200),
            ("audit", "GET /metrics", &scraper, "", 200),
            ("audit", "GET /metrics", "", "", 401),
            ("audit", "GET /api/audit/search?zone_id=z", &admin, "", 200),
            ("audit", "DELETE /api/audit/search", &admin, "", 405),
        ] {
            let what = format!("{listener}: {line}");
            let address = if listener == "operators" { operators.clone() } else { system.address(listener) };
            let answer = exchange_raw(&address, &request(line, headers, body)).await;
            let answer = answer.unwrap_or_else(|| panic!("{what}: no answer"));
            check(&answer, &what);
            if answer.status != status {
                wrong.push(format!("{what}: {} for {status}: {}", answer.status, answer.body));
            }
            // What is said in plain text is what the contract has plain (gateway.md §2, §3; `/metrics` of every service).
            let is_plain = answer.status >= 400 && !has_json(&answer);
            if is_plain && !matches!(listener, "gateway" | "operators") && !line.ends_with("/metrics") {
                wrong.push(format!("{what}: in plain text: {}", answer.body));
            }
        }
        assert_eq!(wrong, Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_id_is_kept_when_well_formed_and_replaced_otherwise() {
    let directory = tempfile::tempdir().unwrap();
    let system = start(directory.path());
    let ask = async |service: &str, id: &str| {
        let bytes = request("GET /nowhere", &format!("x-request-id: {id}\r\n"), "");
        let answer = exchange_raw(&system.address(service), &bytes).await.unwrap();
        check(&answer, service);
        answer.header("x-request-id").unwrap().to_owned()
    };
    for service in SERVICES {
        for kept in ["a", "agent:7/step-1", "{\"x\":1}", &"x".repeat(128)] {
            assert_eq!(ask(service, kept).await, kept, "{service}");
        }
        for replaced in ["", "a b", "ä", &"x".repeat(129)] {
            let id = ask(service, replaced).await;
            assert_eq!((id.len(), id.as_bytes()[14]), (36, b'4'), "{service}: {replaced:?} became {id}");
        }
    }
}

mod t08_availability_heads {
    use super::*;

    async fn refused(system: &Running, service: &str, bytes: &[u8], status: u16) -> Raw {
        let answer = exchange_raw(&system.address(service), bytes).await;
        let answer = answer.unwrap_or_else(|| panic!("{service}: no answer"));
        assert_eq!(answer.status, status, "{service}: {}", answer.head);
        assert_eq!(answer.header("server"), None);
        answer
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn heads_that_are_too_large_or_ambiguous_end_the_connection() {
        let directory = tempfile::tempdir().unwrap();
        let system = start(directory.path());
        for service in SERVICES {
            let padded = |size: usize| request("GET /nowhere", &format!("x: {}\r\n", "a".repeat(size)), "");
            let answer = exchange_raw(&system.address(service), &padded(18_000)).await.unwrap();
            assert!(matches!(answer.status, 401 | 404), "{service}: {}", answer.status);
            check(&refused(&system, service, &padded(21_000), 431).await, service);
            // Past what the parser buffers.
            refused(&system, service, &padded(200_000), 431).await;
            let no_host = b"GET /nowhere HTTP/1.1\r\nconnection: close\r\n\r\n";
            check(&refused(&system, service, no_host, 400).await, service);
            let two_hosts = b"GET /nowhere HTTP/1.1\r\nhost: a\r\nhost: b\r\nconnection: close\r\n\r\n";
            check(&refused(&system, service, two_hosts, 400).await, service);
            for ambiguous in [
                &b"POST /nowhere HTTP/1.1\r\nhost: h\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab"[..],
                b"POST /nowhere HTTP/1.1\r\nhost: h\r\ncontent-length: -1\r\n\r\n",
                b"GET /nowhere HTTP/9.9\r\nhost: h\r\n\r\n",
                b"GET /nowhere HTTP/1.1\r\nhost: h\r\nb@d name: x\r\n\r\n",
                b"NONSENSE\r\n\r\n",
            ] {
                refused(&system, service, ambiguous, 400).await;
            }
        }
    }
}
