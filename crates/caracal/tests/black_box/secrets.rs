//! A whole working day with the most talkative logging there is: what was said, answered and stored holds no secret.

use std::path::Path;

use http::Method;
use serde_json::{Value, json};

use crate::support::{Addressed, Heard, Http, Running, Tenant, caracal, run, upstream};

mod t05_secrets {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn no_log_line_answer_or_stored_byte_shows_a_secret() {
        let directory = tempfile::tempdir().unwrap();
        let talkative =
            [("LOG_LEVEL", "trace"), ("METRICS_BEARER", "metrics-bearer-1f3b"), ("API_V1_RATE_LIMIT_PER_MIN", "0")];
        let (http, system) = (Http::new(), Running::start_with(directory.path(), &talkative));
        let tenant = Tenant::provision(&http, &system, &upstream().await).await;
        let mandates = a_day(&http, &system, &tenant).await;
        let client_secret = last_secret(&http, &tenant);
        let said_by_commands = [
            run(caracal().args(["status", "--json", "--port-offset", &system.offset.to_string()])),
            run(caracal().args(["audit", "verify", "--json", "--data-dir"]).arg(directory.path())),
        ];
        let mut said = system.said();
        for command in said_by_commands {
            assert_eq!(command.code, Some(0), "{} {}", command.stdout, command.stderr);
            said += &(command.stdout + &command.stderr);
        }
        // Something was said at all, of the very requests that the secrets were in.
        assert!(said.contains("refused") && said.lines().count() > 5, "{said}");

        let mut secrets = keys_of(directory.path());
        assert!(secrets.len() >= 7, "{}", secrets.len());
        secrets.push(("METRICS_BEARER".to_owned(), "metrics-bearer-1f3b".to_owned()));
        secrets.push(("the upstream's key".to_owned(), "upstream-key-1".to_owned()));
        secrets.push(("a wrong client secret".to_owned(), "cs_wrong-guess-of-thirty-two-characters".to_owned()));
        secrets.push(("a wrong admin token".to_owned(), "cat_wrong-guess".to_owned()));
        let stored = stored_bytes(directory.path());
        let heard = http.heard();
        for (what, secret) in &secrets {
            nowhere(what, secret, &said, &stored);
            let shown: Vec<&str> =
                heard.iter().filter(|answer| answer.text.contains(secret)).map(|a| &*a.url).collect();
            assert!(shown.is_empty(), "{what} is in answers of {shown:?}");
        }
        for (what, secret) in [("the first client secret", &tenant.client_secret), ("the second", &client_secret)] {
            nowhere(what, secret, &said, &stored);
            only_in(what, secret, &heard, |answer| {
                let creates = answer.url.ends_with("/applications") || answer.url.ends_with("/rotate-secret");
                answer.method == Method::POST && creates
            });
        }
        for mandate in &mandates {
            // Whoever has the signature can put the token together again from what is no secret.
            for part in [mandate.as_str(), mandate.rsplit('.').next().unwrap()] {
                nowhere("a mandate", part, &said, &stored);
                only_in("a mandate", part, &heard, |answer| answer.url.ends_with("/oauth/2/token"));
            }
        }
        assert!(mandates.len() >= 4);
    }

    /// coordinator.md §17 (13): of what applications give their sessions, services and calls, and of the keys they repeat
    /// requests under, nothing is said anywhere.
    #[tokio::test(flavor = "multi_thread")]
    async fn no_log_line_or_count_shows_a_key_or_what_a_session_was_given() {
        let directory = tempfile::tempdir().unwrap();
        let talkative = [("LOG_LEVEL", "trace"), ("METRICS_BEARER", "metrics-bearer-1f3b")];
        let (http, system) = (Http::new(), Running::start_with(directory.path(), &talkative));
        let tenant = Tenant::provision(&http, &system, &upstream().await).await;
        let lifecycle = tenant.exchange(&http, &system, &[("scope", "agent:lifecycle")]).await.unwrap();
        let bearer = lifecycle.text("access_token");
        let base = format!("{}/zones/{}", system.url("coordinator"), tenant.zone);
        let ask = async |method: Method, path: &str, key: &str, body: Value, status: u16| {
            let authorization = format!("Bearer {bearer}");
            let headers = [
                ("authorization", authorization.as_str()),
                ("content-type", "application/json"),
                ("idempotency-key", key),
            ];
            let answer = http.send(method, &format!("{base}{path}"), &headers, body.to_string()).await.unwrap();
            assert_eq!(answer.status.as_u16(), status, "{path}: {}", answer.json());
            answer
        };
        let application = tenant.application.as_str();
        let start = |more: Value| {
            let mut body = json!({"application_id": application, "metadata": {"given": "given-1f3b"}});
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            body
        };
        // A start, its repetition, another request under its key, keys that are none, and bodies that are refused.
        let session = ask(Method::POST, "/agents", "key-1f3b", start(json!({})), 201).await.text("agent_session_id");
        ask(Method::POST, "/agents", "key-1f3b", start(json!({})), 201).await;
        ask(Method::POST, "/agents", "key-1f3b", start(json!({"ttl_seconds": 9})), 409).await;
        let long = "long-key-1f3b".repeat(20);
        ask(Method::POST, "/agents", &long, start(json!({})), 400).await;
        ask(Method::POST, "/agents", "key-1f3b", start(json!({"metadata": "given-1f3b"})), 400).await;
        ask(Method::POST, "/agents", "key-1f3b", start(json!({"labels": ["given-1f3b".repeat(9)]})), 400).await;
        let service = start(json!({"lifecycle": "service"}));
        let service = ask(Method::POST, "/agents", "key-2-1f3b", service, 201).await.text("agent_session_id");
        let beat = json!({"lease_generation": 1, "metadata": {"given": "given-1f3b"}});
        ask(Method::POST, &format!("/agents/{service}/heartbeat"), "", beat, 200).await;
        let endpoint = start(json!({"endpoint_url": "https://worker.example"}));
        let endpoint = ask(Method::POST, "/agent-services", "", endpoint, 201).await.text("id");
        let invocation = json!({
            "service_id": endpoint, "idempotency_key": "key-3-1f3b", "method": "m", "params": {"given": "given-1f3b"},
            "metadata": {"given": "given-1f3b"},
        });
        let id = ask(Method::POST, "/invocations", "", invocation.clone(), 201).await.text("id");
        ask(Method::POST, "/invocations", "", invocation, 201).await;
        ask(Method::PATCH, &format!("/invocations/{id}/start"), "", json!({}), 200).await;
        let failed = json!({"status": "failed", "error": {"m": "given-1f3b"}, "metadata": {"given": "given-1f3b"}});
        ask(Method::PATCH, &format!("/invocations/{id}/complete"), "", failed, 200).await;
        ask(Method::DELETE, &format!("/agents/{session}"), "", json!({}), 204).await;
        let metrics = format!("{}/metrics", system.url("coordinator"));
        let counted = http.json(Method::GET, &metrics, "metrics-bearer-1f3b", None).await.unwrap();
        let counted = String::from_utf8(counted.body).unwrap();
        assert!(counted.contains("caracal_idempotency_requests_total{outcome=\"replayed\"} 2"), "{counted}");
        let said = system.said();
        assert!(said.contains("\"level\":\"debug\""), "{said}");
        for (what, secret) in [
            ("a key", "key-1f3b"),
            ("another key", "key-2-1f3b"),
            ("an invocation's key", "key-3-1f3b"),
            ("what was given", "given-1f3b"),
        ] {
            assert!(!said.contains(secret), "{what} was logged");
            assert!(!counted.contains(secret), "{what} is in the metrics");
        }
        let stored = stored_bytes(directory.path());
        for key in ["key-1f3b", "key-2-1f3b", "key-3-1f3b"] {
            nowhere("a key", key, &said, &stored);
        }
    }

    fn nowhere(what: &str, secret: &str, said: &str, stored: &[u8]) {
        assert!(!said.contains(secret), "{what} was logged");
        assert!(!stored.windows(secret.len()).any(|bytes| bytes == secret.as_bytes()), "{what} is stored in clear");
    }

    /// Shown exactly once, where it was made.
    fn only_in(what: &str, secret: &str, heard: &[Heard], belongs: impl Fn(&Heard) -> bool) {
        let shown: Vec<&Heard> = heard.iter().filter(|answer| answer.text.contains(secret)).collect();
        let urls: Vec<&str> = shown.iter().map(|answer| &*answer.url).collect();
        assert!(shown.len() == 1 && shown.iter().all(|answer| belongs(answer)), "{what} is in answers of {urls:?}");
    }

    /// Everything an operator, an agent and an intruder do. Returns every mandate that was handed out.
    async fn a_day(http: &Http, system: &Running, tenant: &Tenant) -> Vec<String> {
        let (admin, api) = (system.admin_token(), system.url("api"));
        let zone = format!("{api}/v1/zones/{}", tenant.zone);
        let mut mandates = Vec::new();
        let (session, edge) = tenant.delegation(http, system).await;
        for _ in 0..2 {
            let minted = tenant.mint(http, system, (&session, &edge)).await.unwrap();
            mandates.push(minted.text("access_token"));
        }
        // An allowed call, a replay, a mandate in the wrong place, a forged one, a denied mint.
        assert_eq!(tenant.call(http, system, &mandates[0]).await.unwrap().status, 200);
        assert_eq!(tenant.call(http, system, &mandates[0]).await.unwrap().status, 401);
        assert_eq!(tenant.call(http, system, &format!("{}x", mandates[1])).await.unwrap().status, 401);
        let agents = format!("{}/zones/{}/agents", system.url("coordinator"), tenant.zone);
        let misplaced = http.json(Method::POST, &agents, &mandates[1], Some(json!({}))).await.unwrap();
        assert!(misplaced.status.is_client_error());
        let denied = tenant.exchange(http, system, &[("scope", "notes:write")]).await.unwrap();
        assert!(denied.status.is_client_error(), "{}", denied.json());
        // A subject token that is none of ours, and a secret in the wrong field.
        let confused = [("subject_token", mandates[1].as_str()), ("scope", &tenant.client_secret)];
        assert!(tenant.exchange(http, system, &confused).await.unwrap().status.is_client_error());
        // Guesses.
        let wrong = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("zone_id", &*tenant.zone),
            ("application_id", &*tenant.application),
            ("client_secret", "cs_wrong-guess-of-thirty-two-characters"),
            ("resource", crate::support::NOTES),
        ];
        assert_eq!(http.form(&format!("{}/oauth/2/token", system.url("sts")), &wrong).await.unwrap().status, 401);
        for url in [&zone, &format!("{}/api/audit/search", system.url("audit"))] {
            assert_eq!(http.json(Method::GET, url, "cat_wrong-guess", None).await.unwrap().status, 401);
        }
        // Everything that can be read.
        for path in [
            "",
            "/applications",
            "/providers",
            "/resources",
            "/policies",
            "/policy-sets",
            "/audit",
            "/audit?format=csv",
        ] {
            let read = http.json(Method::GET, &format!("{zone}{path}"), &admin, None).await.unwrap();
            assert_eq!(read.status, 200, "{path}");
        }
        let search = format!("{}/api/audit/search?zone_id={}", system.url("audit"), tenant.zone);
        assert_eq!(http.json(Method::GET, &search, &admin, None).await.unwrap().status, 200);
        for service in ["sts", "gateway", "audit"] {
            for path in ["metrics", "metrics.json", "ready"] {
                let url = format!("{}/{path}", system.url(service));
                let read = http.json(Method::GET, &url, "metrics-bearer-1f3b", None).await.unwrap();
                assert_eq!(read.status, 200, "{url}");
            }
        }
        // A refused change whose body holds a secret; then the secret is replaced, and the new one used.
        let body = json!({"name": "p", "kind": "api_key", "config_json": {"api_key": "upstream-key-1"}});
        let refused = http.json(Method::POST, &format!("{zone}/providers"), &admin, Some(body)).await.unwrap();
        assert_eq!(refused.status, 400);
        let rotate = format!("{zone}/applications/{}/rotate-secret", tenant.application);
        assert_eq!(http.json(Method::POST, &rotate, &admin, None).await.unwrap().status, 200);
        let old = tenant.exchange(http, system, &[("scope", "agent:lifecycle")]).await.unwrap();
        assert_eq!(old.status, 401, "the old secret ended with the rotation");
        let (zone, application) = (tenant.zone.clone(), tenant.application.clone());
        let renewed = Tenant { zone, application, client_secret: last_secret(http, tenant) };
        let minted = renewed.mint(http, system, (&session, &edge)).await.unwrap();
        mandates.push(minted.text("access_token"));
        let lifecycle = renewed.exchange(http, system, &[("scope", "agent:lifecycle")]).await.unwrap();
        mandates.push(lifecycle.text("access_token"));
        let revoked = renewed.revoke(http, system, &edge).await.unwrap();
        assert_eq!(revoked.status, 200, "{}", revoked.json());
        assert_eq!(tenant.call(http, system, &mandates[2]).await.unwrap().status, 401);
        mandates
    }

    /// The secret that the rotation made.
    fn last_secret(http: &Http, tenant: &Tenant) -> String {
        let heard = http.heard();
        let rotated = heard.iter().find(|answer| answer.url.ends_with("/rotate-secret")).unwrap();
        let (_, body) = rotated.text.split_once("} {").unwrap();
        let body: serde_json::Value = serde_json::from_str(&format!("{{{body}")).unwrap();
        assert_eq!(body["id"], json!(tenant.application));
        body["client_secret"].as_str().unwrap().to_owned()
    }

    /// Every key of the deployment, by file.
    fn keys_of(data_dir: &Path) -> Vec<(String, String)> {
        let files = std::fs::read_dir(data_dir.join("secrets")).unwrap();
        let read = |file: std::fs::DirEntry| {
            let name = file.file_name().into_string().unwrap();
            (name, std::fs::read_to_string(file.path()).unwrap().trim().to_owned())
        };
        files.map(|file| read(file.unwrap())).collect()
    }

    /// Everything in the data directory but the keys themselves.
    fn stored_bytes(data_dir: &Path) -> Vec<u8> {
        let files = std::fs::read_dir(data_dir).unwrap().map(|file| file.unwrap().path());
        files.filter(|path| path.is_file()).flat_map(|path| std::fs::read(path).unwrap()).collect()
    }
}
