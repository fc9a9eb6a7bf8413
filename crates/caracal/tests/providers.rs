//! Credentials that are not stored but issued: from the Admin API to the header that reaches the upstream, with a token
//! endpoint over real TLS.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use caracal_testkit::{FakeServer, Reply};
use http::Method;
use serde_json::{Value, json};
use support::{Addressed, Http, NOTES, Running, Tenant};

/// An upstream that answers with the credential it was sent.
async fn upstream() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = axum::Router::new().fallback(|request: axum::extract::Request| async move {
        String::from_utf8_lossy(request.headers()["authorization"].as_bytes()).into_owned()
    });
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

/// Starts a system that trusts `authority`.
fn start(directory: &Path, authority: &str) -> Running {
    let file = directory.join("authority.pem");
    std::fs::write(&file, authority).unwrap();
    Running::start_with(&directory.join("data"), &[("CARACAL_TLS_EXTRA_CA_FILE", file.to_str().unwrap())])
}

/// Puts a provider in front of the tenant's resource.
async fn provide(http: &Http, system: &Running, tenant: &Tenant, kind: &str, config: Value) -> String {
    let (api, token) = (system.url("api"), system.admin_token());
    let base = format!("{api}/v1/zones/{}", tenant.zone);
    let body = json!({"name": format!("{kind} idp").replace('_', "-"), "kind": kind, "config_json": config});
    let made = http.json(Method::POST, &format!("{base}/providers"), &token, Some(body)).await.unwrap();
    let provider = made.text("id");
    let resources = http.json(Method::GET, &format!("{base}/resources"), &token, None).await.unwrap().json();
    let listed = resources["items"].as_array().or(resources.as_array()).unwrap().clone();
    let resource = listed.iter().find(|resource| resource["identifier"] == NOTES).unwrap()["id"].as_str().unwrap();
    let body = json!({"credential_provider_id": provider});
    let changed = http.json(Method::PATCH, &format!("{base}/resources/{resource}"), &token, Some(body)).await.unwrap();
    assert!(changed.status.is_success(), "{}", changed.json());
    provider
}

mod t05_secrets {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_token_of_an_endpoint_reaches_the_upstream_and_nobody_else() {
        let issued = AtomicUsize::new(0);
        let idp = FakeServer::https(&[], move |_| {
            let number = issued.fetch_add(1, Ordering::SeqCst) + 1;
            Reply::json(200, json!({"access_token": format!("issued-token-{number}"), "expires_in": 600}).to_string())
        });
        let directory = tempfile::tempdir().unwrap();
        let (http, system) = (Http::new(), start(directory.path(), idp.authority()));
        let tenant = Tenant::provision(&http, &system, &upstream().await).await;
        let config = json!({
            "token_endpoint": format!("{}/token", idp.url()), "client_id": "caracal", "client_secret": "client-secret-1",
            "scopes": ["notes"],
        });
        provide(&http, &system, &tenant, "oauth2_client_credentials", config).await;
        let (session, edge) = tenant.delegation(&http, &system).await;
        let mut requests = Vec::new();
        for _ in 0..3 {
            let mandate = tenant.mint(&http, &system, (&session, &edge)).await.unwrap().text("access_token");
            let answer = tenant.call(&http, &system, &mandate).await.unwrap();
            assert_eq!(answer.status.as_u16(), 200, "{}", answer.json());
            assert_eq!(String::from_utf8_lossy(&answer.body), "Bearer issued-token-1");
            requests.push(answer.request_id());
        }
        let [asked] = &idp.seen()[..] else { panic!("asked once") };
        assert_eq!(asked.text(), "grant_type=client_credentials&scope=notes");
        for request in requests {
            let evidence = tenant.evidence(&http, &system, &request).await.to_string();
            assert!(evidence.contains("token_exchange") && !evidence.contains("issued-token"), "{evidence}");
        }
        // The upstream's answer was an echo; nothing else ever showed either.
        let shown = http
            .heard()
            .iter()
            .filter(|heard| !heard.url.ends_with("/notes"))
            .any(|heard| heard.text.contains("issued-token") || heard.text.contains("client-secret-1"));
        assert!(!shown);
        let said = system.said();
        assert!(!said.contains("issued-token") && !said.contains("client-secret-1"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_endpoint_that_refuses_is_a_502_without_its_words() {
        let idp = FakeServer::https(&[], |_| {
            Reply::json(400, r#"{"error":"invalid_client","error_description":"client-secret-1 is wrong"}"#)
        });
        let directory = tempfile::tempdir().unwrap();
        let (http, system) = (Http::new(), start(directory.path(), idp.authority()));
        let tenant = Tenant::provision(&http, &system, &upstream().await).await;
        let config = json!({
            "token_endpoint": format!("{}/token", idp.url()), "client_id": "caracal", "client_secret": "client-secret-1",
        });
        provide(&http, &system, &tenant, "oauth2_client_credentials", config).await;
        let (session, edge) = tenant.delegation(&http, &system).await;
        let mandate = tenant.mint(&http, &system, (&session, &edge)).await.unwrap().text("access_token");
        let answer = tenant.call(&http, &system, &mandate).await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.text("error").as_str()), (502, "http_request_failed"));
        let evidence = tenant.evidence(&http, &system, &answer.request_id()).await.to_string();
        assert!(evidence.contains("token_endpoint_refused"), "{evidence}");
        let shown = http.heard().iter().any(|heard| heard.text.contains("client-secret-1"));
        assert!(!shown && !system.said().contains("client-secret-1"));
    }
}

mod t05_secret_backends {
    use std::collections::HashMap;
    use std::sync::atomic::AtomicBool;
    use std::sync::{Arc, Mutex};

    use super::*;

    /// An upstream that answers with the key that it got.
    async fn says_its_key() -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = axum::Router::new().fallback(|request: axum::extract::Request| async move {
            String::from_utf8_lossy(request.headers()["x-key"].as_bytes()).into_owned()
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        url
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_cloud_s_secret_manager_is_used_as_the_settings_say() {
        let kept = Arc::new(Mutex::new(HashMap::<String, String>::new()));
        let lies = kept.clone();
        let cloud = FakeServer::http(move |request| {
            let signed = request.header("authorization").unwrap_or_default();
            let is_ours = signed.starts_with("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/")
                && signed.contains("/eu-central-1/secretsmanager/aws4_request");
            let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap_or_default();
            let text = |name: &str| body[name].as_str().map(str::to_owned);
            let (mut lies, name) = (lies.lock().unwrap(), text("SecretId").or(text("Name")).unwrap_or_default());
            match (request.header("x-amz-target").unwrap_or_default(), lies.get(&name).cloned()) {
                _ if !is_ours => Reply::json(400, r#"{"__type":"InvalidSignatureException"}"#),
                ("secretsmanager.CreateSecret", None) => {
                    lies.insert(name, text("SecretString").unwrap());
                    Reply::json(200, "{}")
                }
                ("secretsmanager.GetSecretValue", Some(value)) => {
                    Reply::json(200, json!({"SecretString": value}).to_string())
                }
                _ => Reply::json(400, r#"{"__type":"ResourceNotFoundException"}"#),
            }
        });
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("aws-secret");
        std::fs::write(&file, "a-secret-access-key\n").unwrap();
        let environment = [
            ("CARACAL_SECRET_BACKEND", "awssecretsmanager"),
            ("AWS_REGION", "eu-central-1"),
            ("AWS_ENDPOINT_URL_SECRETS_MANAGER", &cloud.url()),
            ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
            ("AWS_SECRET_ACCESS_KEY_FILE", file.to_str().unwrap()),
        ];
        let data = directory.path().join("data");
        let (http, system) = (Http::new(), Running::start_with(&data, &environment));
        let tenant = Tenant::provision(&http, &system, &says_its_key().await).await;
        let (session, edge) = tenant.delegation(&http, &system).await;
        let mandate = tenant.mint(&http, &system, (&session, &edge)).await.unwrap().text("access_token");
        let answer = tenant.call(&http, &system, &mandate).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&answer.body), "upstream-key-1", "{}", answer.json());
        let kept = kept.lock().unwrap();
        // What begins with `CSS1` in base64.
        assert!(!kept.is_empty() && kept.values().all(|value| value.starts_with("Q1NTM")), "{kept:?}");
        assert!(!system.said().contains("a-secret-access-key"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_backend_holds_ciphertext_and_a_change_it_refuses_does_not_happen() {
        let (kept, down) = (Arc::new(Mutex::new(HashMap::<String, Vec<u8>>::new())), Arc::new(AtomicBool::new(false)));
        let (lies, is_down) = (kept.clone(), down.clone());
        let backend = FakeServer::http(move |request| {
            let (mut lies, path) = (lies.lock().unwrap(), request.path().to_owned());
            match request.method.as_str() {
                _ if is_down.load(Ordering::SeqCst) => Reply::bytes(503, ""),
                "GET" => {
                    lies.get(&path).map_or_else(|| Reply::bytes(404, ""), |bytes| Reply::bytes(200, bytes.clone()))
                }
                "PUT" => {
                    lies.insert(path, request.body.clone());
                    Reply::bytes(204, "")
                }
                _ => Reply::bytes(if lies.remove(&path).is_some() { 204 } else { 404 }, ""),
            }
        });
        let directory = tempfile::tempdir().unwrap();
        let environment = [
            ("CARACAL_SECRET_BACKEND", " Custom "),
            ("CARACAL_CUSTOM_SECRETS_URL", &backend.url()),
            ("CARACAL_CUSTOM_SECRETS_TOKEN", "backend-token"),
        ];
        let (http, system) = (Http::new(), Running::start_with(directory.path(), &environment));
        let tenant = Tenant::provision(&http, &system, &says_its_key().await).await;
        let (session, edge) = tenant.delegation(&http, &system).await;
        let mandate = tenant.mint(&http, &system, (&session, &edge)).await.unwrap().text("access_token");
        let answer = tenant.call(&http, &system, &mandate).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&answer.body), "upstream-key-1", "{}", answer.json());
        let applications = format!("{}/v1/zones/{}/applications", system.url("api"), tenant.zone);
        let body = json!({"name": "spare", "registration_method": "managed"});
        let spare = http.json(Method::POST, &applications, &system.admin_token(), Some(body)).await.unwrap().text("id");
        let stored = kept.lock().unwrap().clone();
        let paths: Vec<&String> = stored.keys().collect();
        assert!(paths.iter().any(|path| path.ends_with("/secretConfig")), "{paths:?}");
        assert!(paths.iter().any(|path| path.ends_with("/clientSecret")), "{paths:?}");
        for envelope in stored.values() {
            assert!(envelope.starts_with(b"CSS1") && !String::from_utf8_lossy(envelope).contains("upstream-key-1"));
        }
        assert!(backend.seen().iter().all(|request| request.header("authorization") == Some("Bearer backend-token")));

        // A backend that is down fails the change, and what was is still there.
        down.store(true, Ordering::SeqCst);
        let url = format!("{}/v1/zones/{}/providers", system.url("api"), tenant.zone);
        let body = json!({"name": "other", "kind": "bearer_token", "config_json": {"bearer_token": "b-1"}});
        let refused = http.json(Method::POST, &url, &system.admin_token(), Some(body)).await.unwrap();
        assert_eq!((refused.status.as_u16(), refused.text("error").as_str()), (502, "secret_backend_unavailable"));
        let listed = http.json(Method::GET, &url, &system.admin_token(), None).await.unwrap().json().to_string();
        assert!(!listed.contains("other"), "{listed}");
        // What was read counts while the backend is away.
        let mandate = tenant.mint(&http, &system, (&session, &edge)).await.unwrap().text("access_token");
        assert_eq!(tenant.call(&http, &system, &mandate).await.unwrap().status.as_u16(), 200);

        // Nobody who is stopped goes on because a copy of their secret can't be removed.
        let spare = format!("{applications}/{spare}");
        let gone = http.json(Method::DELETE, &spare, &system.admin_token(), None).await.unwrap();
        assert_eq!(gone.status.as_u16(), 204);
        assert_eq!(http.json(Method::GET, &spare, &system.admin_token(), None).await.unwrap().status.as_u16(), 404);

        // A change that fails after the backend got its secret gives back what was there.
        down.store(false, Ordering::SeqCst);
        let taken =
            json!({"identifier": "provider://key", "kind": "bearer_token", "config_json": {"bearer_token": "b-1"}});
        let refused = http.json(Method::POST, &url, &system.admin_token(), Some(taken)).await.unwrap();
        assert_eq!(refused.text("error"), "provider_identifier_conflict");
        assert_eq!(*kept.lock().unwrap(), stored);
        assert!(!system.said().contains("backend-token"));
    }

    /// A backend is brought back from a backup: it holds what the secret was before it was changed. The upstream gets neither.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_backend_brought_back_from_a_backup_gives_no_former_secret() {
        let kept = Arc::new(Mutex::new(HashMap::<String, Vec<u8>>::new()));
        let lies = kept.clone();
        let backend = FakeServer::http(move |request| {
            let (mut lies, path) = (lies.lock().unwrap(), request.path().to_owned());
            match (request.method.as_str(), lies.get(&path)) {
                ("PUT", _) => {
                    lies.insert(path, request.body.clone());
                    Reply::bytes(204, "")
                }
                ("GET", Some(bytes)) => Reply::bytes(200, bytes.clone()),
                _ => Reply::bytes(404, ""),
            }
        });
        let directory = tempfile::tempdir().unwrap();
        let environment = [
            ("CARACAL_SECRET_BACKEND", "custom"),
            ("CARACAL_CUSTOM_SECRETS_URL", &backend.url()),
            ("CARACAL_CUSTOM_SECRETS_TOKEN", "backend-token"),
        ];
        let (http, mut system) = (Http::new(), Running::start_with(directory.path(), &environment));
        let tenant = Tenant::provision(&http, &system, &says_its_key().await).await;
        let (session, edge) = tenant.delegation(&http, &system).await;
        let call = async |system: &Running| {
            let mandate = tenant.mint(&http, system, (&session, &edge)).await.unwrap().text("access_token");
            let answer = tenant.call(&http, system, &mandate).await.unwrap();
            (answer.status.as_u16(), String::from_utf8_lossy(&answer.body).into_owned())
        };
        assert_eq!(call(&system).await, (200, "upstream-key-1".to_owned()));
        let backup = kept.lock().unwrap().clone();
        let url = format!("{}/v1/zones/{}/providers", system.url("api"), tenant.zone);
        let listed = http.json(Method::GET, &url, &system.admin_token(), None).await.unwrap().json();
        let provider = listed["items"].as_array().or(listed.as_array()).unwrap()[0]["id"].as_str().unwrap().to_owned();
        let body = json!({"config_json": {"header_name": "x-key", "api_key": "upstream-key-2"}});
        let changed = http.json(Method::PATCH, &format!("{url}/{provider}"), &system.admin_token(), Some(body)).await;
        assert_eq!(changed.unwrap().status, 200);
        assert_eq!(call(&system).await, (200, "upstream-key-2".to_owned()));
        // What was read is remembered for a minute, unless the process is another.
        system.terminate();
        let newest = std::mem::replace(&mut *kept.lock().unwrap(), backup);
        system = system.started_again();
        for _ in 0..2 {
            let (status, body) = call(&system).await;
            assert_eq!(status, 502, "{body}");
            assert!(!body.contains("upstream-key"), "{body}");
        }
        *kept.lock().unwrap() = newest;
        system.terminate();
        system = system.started_again();
        assert_eq!(call(&system).await, (200, "upstream-key-2".to_owned()));
        assert!(!system.said().contains("upstream-key"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_caller_that_goes_away_leaves_no_secret_without_its_row() {
        let kept = Arc::new(Mutex::new(HashMap::<String, Vec<u8>>::new()));
        let (asked, hears) = std::sync::mpsc::channel();
        let (release, waits) = std::sync::mpsc::channel::<()>();
        let (lies, waits) = (kept.clone(), Mutex::new(waits));
        let backend = FakeServer::http(move |request| match request.method.as_str() {
            "PUT" => {
                lies.lock().unwrap().insert(request.path().to_owned(), request.body.clone());
                asked.send(()).unwrap();
                let _ = waits.lock().unwrap().recv();
                Reply::bytes(204, "")
            }
            _ => Reply::bytes(404, ""),
        });
        let directory = tempfile::tempdir().unwrap();
        let environment = [
            ("CARACAL_SECRET_BACKEND", "custom"),
            ("CARACAL_CUSTOM_SECRETS_URL", &backend.url()),
            ("CARACAL_CUSTOM_SECRETS_TOKEN", "backend-token"),
        ];
        let (http, system) = (Http::new(), Running::start_with(directory.path(), &environment));
        let zones = format!("{}/v1/zones", system.url("api"));
        let zone = http.json(Method::POST, &zones, &system.admin_token(), Some(json!({"name": "Left"}))).await.unwrap();
        let url = format!("{zones}/{}/providers", zone.text("id"));
        let (theirs, admin) = (url.clone(), system.admin_token());
        let leaving = tokio::spawn(async move {
            let body = json!({"name": "left", "kind": "bearer_token", "config_json": {"bearer_token": "b-1"}});
            Http::new().json(Method::POST, &theirs, &admin, Some(body)).await.map(|answer| answer.status)
        });
        tokio::task::spawn_blocking(move || hears.recv().unwrap()).await.unwrap();
        leaving.abort();
        assert!(leaving.await.unwrap_err().is_cancelled());
        let list = async || http.json(Method::GET, &url, &system.admin_token(), None).await.unwrap().json().to_string();
        // Time enough to notice that nobody waits.
        for _ in 0..20 {
            assert!(!list().await.contains("left"));
        }
        release.send(()).unwrap();
        let mut looks = 0;
        while !list().await.contains("left") {
            looks += 1;
            assert!(looks < 1_000, "the secret lies in its backend, and its row never came");
        }
        assert_eq!(kept.lock().unwrap().len(), 1);
    }
}
