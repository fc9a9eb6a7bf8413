//! Infisical, by a server that keeps what it is told in one folder of one environment of one project.

use caracal_broker::backends::{InfisicalBackend, InfisicalSettings};

use super::*;

const PROJECT: &str = "6f1c2d3e-0000-4000-8000-000000000001";
const NAME: &str = "/api/v3/secrets/raw/zones.z-1.providers.p-1.secretConfig";

fn missing() -> Reply {
    Reply::json(404, r#"{"statusCode":404,"message":"Secret with name 'x' not found","error":"NotFound"}"#)
}

fn server() -> FakeServer {
    let kept = Mutex::new(HashMap::<String, String>::new());
    FakeServer::https(&[], move |request| {
        if request.header("authorization") != Some("Bearer st.token") {
            return Reply::json(401, r#"{"statusCode":401,"message":"Token st.token is bad","error":"Unauthorized"}"#);
        }
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let place = |name: &str| match request.method.as_str() {
            "GET" => request.query(name),
            _ => body[name].as_str().map(str::to_owned),
        };
        if place("workspaceId").as_deref() != Some(PROJECT) || place("environment").as_deref() != Some("staging") {
            return Reply::json(403, r#"{"statusCode":403,"message":"no","error":"PermissionDenied"}"#);
        }
        if place("secretPath").as_deref() != Some("/caracal & co") {
            return missing();
        }
        let (mut kept, path) = (kept.lock().unwrap(), request.path().to_owned());
        if request.method != "GET"
            && (body["type"] != "shared" || request.header("content-type") != Some("application/json"))
        {
            return Reply::json(422, r#"{"statusCode":422,"error":"ValidationFailure"}"#);
        }
        match (request.method.as_str(), body["secretValue"].as_str(), kept.get(&path).cloned()) {
            ("GET", _, Some(value)) => Reply::json(200, json!({"secret": {"secretValue": value}}).to_string()),
            ("POST", Some(_), Some(_)) => {
                Reply::json(400, r#"{"statusCode":400,"message":"Secret already exist","error":"BadRequest"}"#)
            }
            ("POST", Some(value), None) | ("PATCH", Some(value), Some(_)) => {
                kept.insert(path, value.to_owned());
                Reply::json(200, json!({"secret": {"secretValue": value}}).to_string())
            }
            ("DELETE", _, Some(_)) => {
                kept.remove(&path);
                Reply::json(200, "{}")
            }
            _ => missing(),
        }
    })
}

fn infisical(server: &FakeServer, token: &str) -> InfisicalBackend {
    let settings = InfisicalSettings {
        url: BackendUrl::parse(&server.url()).unwrap(),
        token: Arc::new(secret(token)),
        project: PROJECT.to_owned(),
        environment: "staging".to_owned(),
        path: "/caracal & co".to_owned(),
    };
    InfisicalBackend::new(client(server), settings)
}

#[tokio::test]
async fn envelopes_come_back_from_infisical_as_they_were() {
    let server = server();
    check(&infisical(&server, "st.token")).await;
    assert!(asked(&server, NAME) > 0);
    let methods: Vec<String> = server.seen().iter().map(|request| request.method.clone()).collect();
    // The first write makes it, the second changes it.
    assert_eq!(methods.iter().filter(|method| *method == "PATCH").count(), 1, "{methods:?}");
}

#[tokio::test]
async fn t05_secrets_an_infisical_that_refuses_is_an_error_without_its_words() {
    let server = server();
    says_nothing_of(&infisical(&server, "st.wrong"), "status 401 (Unauthorized)", &["st.wrong", "st.token"]).await;
}

#[tokio::test]
async fn a_reference_that_no_name_there_can_have_is_never_sent() {
    let server = server();
    let backend = infisical(&server, "st.token");
    for reference in ["zones/z 1/x", "zones/../x?y", "zones/z%2f/x", "zones/z:1/x"] {
        assert!(backend.read(reference).await.is_err() && backend.write(reference, b"x").await.is_err(), "{reference}");
    }
    assert!(server.seen().is_empty());
}
