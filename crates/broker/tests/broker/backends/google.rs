//! Google Secret Manager, by one server that is the API, Google's token endpoint and the metadata server.

use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use caracal_broker::AssertionKey;
use caracal_broker::backends::{BadServiceAccount, GoogleBackend, GoogleCredentials, GoogleSettings, ServiceAccount};

use super::*;
use crate::keys::{self, is_signed};

const EMAIL: &str = "caracal@project-1.iam.gserviceaccount.com";
const MACHINE: &str = "/computeMetadata/v1/instance/service-accounts/default/token";
const SECRETS: &str = "/v1/projects/project-1/secrets";
const NAME: &str = "zones-z-1-providers-p-1-secretConfig";

fn status(code: u16, status: &str) -> Reply {
    Reply::json(code, json!({"error": {"code": code, "status": status, "message": "key k3y-id is bad"}}).to_string())
}

#[derive(Default)]
struct Google {
    tokens: usize,
    /// Versions by secret: those that were destroyed are `None`.
    secrets: HashMap<String, Vec<Option<String>>>,
}

impl Google {
    fn token(&mut self) -> Reply {
        self.tokens += 1;
        let token =
            json!({"access_token": format!("ya29.{}", self.tokens), "expires_in": 3_599, "token_type": "Bearer"});
        Reply::json(200, token.to_string())
    }

    /// A token for an assertion (RFC 7523), if it is one that Google would accept.
    fn issue(&mut self, request: &Received) -> Reply {
        let assertion = request.field("assertion").unwrap_or_default();
        let (signed, signature) = assertion.rsplit_once('.').unwrap_or_default();
        let (header, claims) = signed.split_once('.').unwrap_or_default();
        let part = |text: &str| -> Value {
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).unwrap_or_default()).unwrap_or_default()
        };
        let (header, claims) = (part(header), part(claims));
        let key = AssertionKey::from_pem(keys::RSA).unwrap();
        let good = request.method == "POST"
            && request.field("grant_type").as_deref() == Some("urn:ietf:params:oauth:grant-type:jwt-bearer")
            && is_signed(&key, signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap_or_default())
            && header == json!({"alg": "RS256", "typ": "JWT", "kid": "k3y-id"})
            && claims["iss"] == EMAIL
            && claims["aud"].as_str().is_some_and(|audience| audience.ends_with("/token"))
            && claims["scope"] == "https://www.googleapis.com/auth/cloud-platform"
            && claims["sub"].is_null()
            && claims["exp"].as_i64().unwrap_or(0) - claims["iat"].as_i64().unwrap_or(0) == 3_600;
        if good {
            self.token()
        } else {
            Reply::json(400, r#"{"error":"invalid_grant","error_description":"key k3y-id is bad"}"#)
        }
    }

    fn answer(&mut self, request: &Received) -> Reply {
        match request.path() {
            "/token" => return self.issue(request),
            MACHINE if request.header("metadata-flavor") == Some("Google") => {
                return self.token().with("metadata-flavor", "Google");
            }
            MACHINE => return Reply::bytes(403, ""),
            _ => {}
        }
        if request.header("authorization") != Some(&format!("Bearer ya29.{}", self.tokens)) {
            return status(401, "UNAUTHENTICATED");
        }
        let Some(below) = request.path().strip_prefix(SECRETS) else { return status(403, "PERMISSION_DENIED") };
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let missing = || status(404, "NOT_FOUND");
        if (request.method.as_str(), below) == ("POST", "") {
            let Some(name) = request.query("secretId") else { return status(400, "INVALID_ARGUMENT") };
            if body != json!({"replication": {"automatic": {}}}) {
                return status(400, "INVALID_ARGUMENT");
            }
            if self.secrets.contains_key(&name) {
                return status(409, "ALREADY_EXISTS");
            }
            self.secrets.insert(name, Vec::new());
            return Reply::json(200, "{}");
        }
        let below = below.trim_start_matches('/');
        let (name, rest) = below.split_at(below.find(['/', ':']).unwrap_or(below.len()));
        let full = |version: usize| format!("projects/1234/secrets/{name}/versions/{version}");
        let Some(versions) = self.secrets.get_mut(name) else { return missing() };
        match (request.method.as_str(), rest) {
            ("POST", ":addVersion") => {
                let data = body["payload"]["data"].as_str().unwrap().to_owned();
                versions.push(Some(data));
                Reply::json(200, json!({"name": full(versions.len()), "state": "ENABLED"}).to_string())
            }
            ("GET", "/versions/latest:access") => match versions.last() {
                Some(Some(data)) => {
                    let payload = json!({"name": full(versions.len()), "payload": {"data": data}});
                    Reply::json(200, payload.to_string())
                }
                Some(None) => status(400, "FAILED_PRECONDITION"),
                None => missing(),
            },
            ("GET", "/versions") if request.query("filter").as_deref() != Some("state:(ENABLED OR DISABLED)") => {
                status(400, "INVALID_ARGUMENT")
            }
            ("GET", "/versions") => {
                // One a page, newest first.
                let from: usize = request.query("pageToken").map_or(0, |token| token.parse().unwrap());
                let mut left = (1..=versions.len()).rev().filter(|version| versions[version - 1].is_some()).skip(from);
                let mut page = json!({"versions": left.next().map(|version| json!({"name": full(version)})).into_iter().collect::<Vec<_>>()});
                if left.next().is_some() {
                    page["nextPageToken"] = json!((from + 1).to_string());
                }
                Reply::json(200, page.to_string())
            }
            ("POST", destroy) => {
                let number = destroy.strip_prefix("/versions/").and_then(|rest| rest.strip_suffix(":destroy")).unwrap();
                versions[number.parse::<usize>().unwrap() - 1] = None;
                Reply::json(200, "{}")
            }
            ("DELETE", "") => {
                self.secrets.remove(name);
                Reply::json(200, "{}")
            }
            _ => status(405, "UNIMPLEMENTED"),
        }
    }
}

fn server() -> (FakeServer, Arc<Mutex<Google>>) {
    let google = Arc::new(Mutex::new(Google::default()));
    let answers = google.clone();
    (FakeServer::https(&[], move |request| answers.lock().unwrap().answer(request)), google)
}

fn key_file(server: &FakeServer) -> Value {
    json!({"type": "service_account", "project_id": "project-1", "client_email": EMAIL, "private_key_id": "k3y-id",
        "private_key": keys::RSA, "token_uri": format!("{}/token", server.url())})
}

fn by_key(server: &FakeServer) -> GoogleCredentials {
    GoogleCredentials::ServiceAccount(Arc::new(ServiceAccount::from_json(&key_file(server).to_string()).unwrap()))
}

fn google(server: &FakeServer, time: &Time, credentials: GoogleCredentials) -> GoogleBackend {
    let endpoint = BackendUrl::parse(&server.url()).unwrap();
    let settings = GoogleSettings { project: "project-1".to_owned(), endpoint, credentials };
    GoogleBackend::new(client(server), time.clock.clone(), settings)
}

#[tokio::test]
async fn envelopes_come_back_from_google_as_they_were_and_older_versions_are_destroyed() {
    let ((server, kept), time) = (server(), Time::new().await);
    let backend = google(&server, &time, by_key(&server));
    check(&backend).await;
    for envelope in [b"one", b"two", b"six"] {
        backend.write(PLACE, envelope).await.unwrap();
    }
    let expected = vec![None, None, Some(STANDARD.encode(b"six"))];
    assert_eq!(kept.lock().unwrap().secrets[NAME], expected);
    assert_eq!(asked(&server, "/token"), 1);
}

#[tokio::test]
async fn the_account_of_a_machine_comes_from_google_s_metadata_server_and_nobody_else() {
    let ((server, _), time) = (server(), Time::new().await);
    let here = BackendUrl::parse(&server.url()).unwrap();
    check(&google(&server, &time, GoogleCredentials::Machine(here))).await;
    assert_eq!((asked(&server, MACHINE), asked(&server, "/token")), (1, 0));
    let other = FakeServer::https(&[], |_| Reply::json(200, r#"{"access_token":"x","expires_in":60}"#));
    let there = BackendUrl::parse(&other.url()).unwrap();
    let error = google(&other, &time, GoogleCredentials::Machine(there)).read(PLACE).await.unwrap_err();
    assert!(error.to_string().contains("not Google's metadata server"), "{error}");
}

#[tokio::test]
async fn an_assertion_is_exchanged_once_by_those_who_read_at_once() {
    let (state, (release, held)) = (Mutex::new(Google::default()), mpsc::channel::<()>());
    let held = Mutex::new(held);
    let server = FakeServer::https(&[], move |request| {
        if request.path() == "/token" {
            let _ = held.lock().unwrap().recv();
        }
        state.lock().unwrap().answer(request)
    });
    let time = Time::new().await;
    let backend: Arc<dyn SecretBackend> = Arc::new(google(&server, &time, by_key(&server)));
    assert_eq!(read_by_twenty(backend.clone(), &server, "/token", release).await, 1);
    time.clock.advance(3_538);
    backend.read(PLACE).await.unwrap();
    assert_eq!(asked(&server, "/token"), 1);
    time.clock.advance(1);
    backend.read(PLACE).await.unwrap();
    assert_eq!(asked(&server, "/token"), 2);
}

#[tokio::test]
async fn older_versions_that_can_not_be_destroyed_fail_no_write() {
    let state = Mutex::new(Google::default());
    let server = FakeServer::https(&[], move |request| match request.path().ends_with(":destroy") {
        true => status(403, "PERMISSION_DENIED"),
        false => state.lock().unwrap().answer(request),
    });
    let time = Time::new().await;
    let backend = google(&server, &time, by_key(&server));
    backend.write(PLACE, b"one").await.unwrap();
    backend.write(PLACE, b"two").await.unwrap();
    assert_eq!(backend.read(PLACE).await.unwrap().as_deref(), Some(&b"two"[..]));
}

#[tokio::test]
async fn t05_secrets_a_google_that_refuses_is_an_error_without_its_words() {
    let ((server, _), time) = (server(), Time::new().await);
    let mut file = key_file(&server);
    file["client_email"] = json!("somebody@else");
    let account = ServiceAccount::from_json(&file.to_string()).unwrap();
    let stranger = google(&server, &time, GoogleCredentials::ServiceAccount(Arc::new(account)));
    says_nothing_of(&stranger, "refused with 400 (invalid_grant)", &["k3y-id"]).await;
    let forbidden = FakeServer::https(&[], |request| match request.path() {
        "/token" => Reply::json(200, r#"{"access_token":"ya29.1","expires_in":60}"#),
        _ => status(403, "PERMISSION_DENIED"),
    });
    let backend = google(&forbidden, &time, by_key(&forbidden));
    says_nothing_of(&backend, "status 403 (PERMISSION_DENIED)", &["k3y-id", "ya29"]).await;
}

#[test]
fn a_text_that_is_no_key_file_of_a_service_account_says_why() {
    let good = json!({"type": "service_account", "client_email": EMAIL, "private_key": keys::RSA,
        "token_uri": "https://oauth2.googleapis.com/token"});
    assert!(ServiceAccount::from_json(&good.to_string()).is_ok());
    let with = |name: &str, value: Value| {
        let mut file = good.clone();
        file[name] = value;
        file.to_string()
    };
    for (text, why) in [
        (String::new(), BadServiceAccount::NotJson),
        ("[]".to_owned(), BadServiceAccount::NotJson),
        ("{}".to_owned(), BadServiceAccount::Type),
        (with("type", json!("authorized_user")), BadServiceAccount::Type),
        (with("type", json!("external_account")), BadServiceAccount::Type),
        (with("client_email", json!("")), BadServiceAccount::Field("client_email")),
        (with("private_key", json!("no key")), BadServiceAccount::Field("private_key")),
        (with("private_key", json!(keys::P256)), BadServiceAccount::Field("private_key")),
        (with("token_uri", json!("http://169.254.169.254/token")), BadServiceAccount::Field("token_uri")),
        (with("token_uri", Value::Null), BadServiceAccount::Field("token_uri")),
    ] {
        assert_eq!(ServiceAccount::from_json(&text).err(), Some(why));
    }
}
