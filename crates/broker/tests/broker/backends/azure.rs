//! Azure Key Vault, by one server that is the vault, its authority and the metadata service.

use caracal_broker::backends::{AzureBackend, AzureCloud, AzureCredentials, AzureSettings};

use super::*;

const TENANT: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";
const ISSUE: &str = "/72f988bf-86f1-41af-91ab-2d7cd011db47/oauth2/v2.0/token";
const IDENTITY: &str = "/metadata/identity/oauth2/token";
const RESOURCE: &str = "https://vault.azure.net";

#[derive(Default)]
struct Azure {
    tokens: usize,
    secrets: HashMap<String, String>,
    deleted: HashMap<String, String>,
    recovering: usize,
}

impl Azure {
    /// Good until the next one is issued.
    fn token(&mut self, lasts: &Value) -> Reply {
        self.tokens += 1;
        let token =
            json!({"token_type": "Bearer", "expires_in": lasts, "access_token": format!("token-{}", self.tokens)});
        Reply::json(200, token.to_string())
    }

    fn answer(&mut self, request: &Received) -> Reply {
        if request.path() == ISSUE {
            let field = |name: &str| request.field(name).unwrap_or_default();
            return match (field("client_id").as_str(), field("client_secret").as_str(), field("scope").as_str()) {
                _ if request.method != "POST" || field("grant_type") != "client_credentials" => Reply::json(400, "{}"),
                ("client-1", "s~3cr+t", "https://vault.azure.net/.default") => self.token(&json!(3_600)),
                ("client-1", "s~3cr+t", _) => Reply::json(400, r#"{"error":"invalid_scope"}"#),
                _ => Reply::json(401, r#"{"error":"invalid_client","error_description":"secret s~3cr+t? no"}"#),
            };
        }
        if request.path() == IDENTITY {
            let is_asked = request.method == "GET"
                && request.header("metadata") == Some("true")
                && request.query("api-version").as_deref() == Some("2018-02-01")
                && request.query("resource").as_deref() == Some(RESOURCE);
            // The metadata service says it as a text.
            return if is_asked {
                self.token(&json!("86399"))
            } else {
                Reply::json(400, r#"{"error":"invalid_request"}"#)
            };
        }
        if request.query("api-version").as_deref() != Some("7.4") {
            return Reply::json(400, r#"{"error":{"code":"BadParameter","message":"api-version"}}"#);
        }
        if request.header("authorization") != Some(&format!("Bearer token-{}", self.tokens)) {
            let challenge =
                format!(r#"Bearer authorization="https://login.microsoftonline.com/{TENANT}", resource="{RESOURCE}""#);
            let error =
                r#"{"error":{"code":"Unauthorized","message":"AKV10000: Request is missing a Bearer token-1"}}"#;
            return Reply::json(401, error).with("www-authenticate", &challenge);
        }
        let conflict = |code: &str| {
            let error = json!({"error": {"code": "Conflict", "message": "no", "innererror": {"code": code}}});
            Reply::json(409, error.to_string())
        };
        let missing = || Reply::json(404, r#"{"error":{"code":"SecretNotFound","message":"x"}}"#);
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let segments: Vec<&str> = request.path().split('/').skip(1).collect();
        match (request.method.as_str(), &segments[..]) {
            ("GET", ["secrets", name]) => match self.secrets.get(*name) {
                Some(value) => Reply::json(200, json!({"value": value, "id": name}).to_string()),
                None => missing(),
            },
            ("PUT", ["secrets", name]) if self.deleted.contains_key(*name) => {
                conflict(if self.recovering > 0 { "ObjectIsBeingRecovered" } else { "ObjectIsDeletedButRecoverable" })
            }
            ("PUT", ["secrets", name]) if self.recovering > 0 => {
                self.recovering -= 1;
                let _ = name;
                conflict("ObjectIsBeingRecovered")
            }
            ("PUT", ["secrets", name]) => {
                self.secrets.insert((*name).to_owned(), body["value"].as_str().unwrap().to_owned());
                Reply::json(200, "{}")
            }
            ("POST", ["deletedsecrets", name, "recover"]) => match self.deleted.remove(*name) {
                Some(value) => {
                    self.secrets.insert((*name).to_owned(), value);
                    self.recovering = 1;
                    Reply::json(200, "{}")
                }
                None => missing(),
            },
            ("DELETE", ["secrets", name]) => match self.secrets.remove(*name) {
                Some(value) => {
                    self.deleted.insert((*name).to_owned(), value);
                    Reply::json(200, "{}")
                }
                None => missing(),
            },
            _ => Reply::json(405, "{}"),
        }
    }
}

fn server() -> FakeServer {
    let azure = Mutex::new(Azure::default());
    FakeServer::https(&[], move |request| azure.lock().unwrap().answer(request))
}

fn client_of(tenant: &str, password: &str) -> AzureCredentials {
    let (tenant, client_id) = (tenant.to_owned(), "client-1".to_owned());
    AzureCredentials::Client { tenant, client_id, secret: Arc::new(secret(password)) }
}

fn azure(server: &FakeServer, time: &Time, credentials: AzureCredentials) -> AzureBackend {
    let here = BackendUrl::parse(&server.url()).unwrap();
    let cloud = AzureCloud { authority: here.clone(), metadata: here.clone(), resource: RESOURCE.to_owned() };
    AzureBackend::new(client(server), time.clock.clone(), AzureSettings { vault: here, cloud, credentials })
}

#[tokio::test]
async fn envelopes_come_back_from_a_key_vault_as_they_were() {
    let (server, time) = (server(), Time::new().await);
    check(&azure(&server, &time, client_of(TENANT, "s~3cr+t"))).await;
    assert!(asked(&server, "/secrets/zones-z-1-providers-p-1-secretConfig") > 0);
    assert_eq!((asked(&server, ISSUE), asked(&server, IDENTITY)), (1, 0));
}

#[tokio::test]
async fn a_machine_s_identity_needs_no_secret_and_one_of_several_is_named() {
    let (server, time) = (server(), Time::new().await);
    let identity =
        |client_id: Option<&str>| AzureCredentials::ManagedIdentity { client_id: client_id.map(str::to_owned) };
    check(&azure(&server, &time, identity(None))).await;
    assert_eq!((asked(&server, ISSUE), asked(&server, IDENTITY)), (0, 1));
    assert_eq!(server.seen()[0].query("client_id"), None);
    azure(&server, &time, identity(Some("id-2"))).read(PLACE).await.unwrap();
    let asked = server.seen().into_iter().rfind(|request| request.path() == IDENTITY).unwrap();
    assert_eq!(asked.query("client_id").as_deref(), Some("id-2"));
}

#[tokio::test]
async fn an_access_token_is_asked_for_once_and_kept_to_a_minute_before_its_end() {
    let azure_state = Mutex::new(Azure::default());
    let (release, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let server = FakeServer::https(&[], move |request| {
        if request.path() == ISSUE {
            let _ = held.lock().unwrap().recv();
        }
        azure_state.lock().unwrap().answer(request)
    });
    let time = Time::new().await;
    let backend: Arc<dyn SecretBackend> = Arc::new(azure(&server, &time, client_of(TENANT, "s~3cr+t")));
    assert_eq!(read_by_twenty(backend.clone(), &server, ISSUE, release).await, 1);
    time.clock.advance(3_539);
    backend.read(PLACE).await.unwrap();
    assert_eq!(asked(&server, ISSUE), 1);
    time.clock.advance(1);
    backend.read(PLACE).await.unwrap();
    assert_eq!(asked(&server, ISSUE), 2);
}

#[tokio::test]
async fn t08_availability_an_authority_that_is_down_is_no_matter_while_the_token_lasts() {
    let (state, down) = (Mutex::new(Azure::default()), Arc::new(AtomicBool::new(false)));
    let is_down = down.clone();
    let server = FakeServer::https(&[], move |request| {
        if request.path() == ISSUE && is_down.load(Ordering::SeqCst) {
            return Reply::json(503, "");
        }
        state.lock().unwrap().answer(request)
    });
    let time = Time::new().await;
    let backend = azure(&server, &time, client_of(TENANT, "s~3cr+t"));
    backend.read(PLACE).await.unwrap();
    down.store(true, Ordering::SeqCst);
    time.clock.advance(3_599);
    backend.read(PLACE).await.unwrap();
    time.clock.advance(1);
    let error = backend.read(PLACE).await.unwrap_err().to_string();
    assert!(error.contains("issue an access token") && error.contains("503"), "{error}");
    down.store(false, Ordering::SeqCst);
    backend.read(PLACE).await.unwrap();
}

#[tokio::test]
async fn a_token_that_was_taken_back_is_replaced_once() {
    let (server, time) = (server(), Time::new().await);
    let (one, other) =
        (azure(&server, &time, client_of(TENANT, "s~3cr+t")), azure(&server, &time, client_of(TENANT, "s~3cr+t")));
    one.read(PLACE).await.unwrap();
    // Its token replaces that of the first.
    other.read(PLACE).await.unwrap();
    assert_eq!(one.read(PLACE).await.unwrap(), None);
    assert_eq!(asked(&server, ISSUE), 3);
}

#[tokio::test]
async fn a_vault_of_another_tenant_says_whose_it_is() {
    let state = Mutex::new(Azure::default());
    let server = FakeServer::https(&[], move |request| match request.path() {
        "/11111111-2222-4333-8444-555555555555/oauth2/v2.0/token" => {
            Reply::json(200, r#"{"access_token":"foreign","expires_in":3600}"#)
        }
        _ => state.lock().unwrap().answer(request),
    });
    let time = Time::new().await;
    let foreign = azure(&server, &time, client_of("11111111-2222-4333-8444-555555555555", "s~3cr+t"));
    says_nothing_of(
        &foreign,
        &format!("status 401 (Unauthorized): the vault belongs to tenant {TENANT}"),
        &["foreign"],
    )
    .await;
}

#[tokio::test]
async fn t05_secrets_an_authority_that_refuses_is_an_error_without_its_words() {
    let (server, time) = (server(), Time::new().await);
    let backend = azure(&server, &time, client_of(TENANT, "wr0ng"));
    says_nothing_of(&backend, "refused with 401 (invalid_client)", &["wr0ng", "s~3cr+t"]).await;
    assert_eq!(asked(&server, "/secrets/zones-z-1-providers-p-1-secretConfig"), 0);
}

#[tokio::test]
async fn a_name_that_was_deleted_is_recovered_before_it_is_written_again() {
    let (server, time) = (server(), Time::new().await);
    let backend = azure(&server, &time, client_of(TENANT, "s~3cr+t"));
    backend.write(PLACE, b"one").await.unwrap();
    backend.remove(PLACE).await.unwrap();
    assert_eq!(backend.read(PLACE).await.unwrap(), None);
    backend.write(PLACE, b"two").await.unwrap();
    assert_eq!(backend.read(PLACE).await.unwrap().as_deref(), Some(&b"two"[..]));
}

#[test]
fn tokens_come_from_the_cloud_that_a_vault_lies_in() {
    for (vault, authority, resource) in [
        ("https://kv.vault.azure.net/", "https://login.microsoftonline.com", "https://vault.azure.net"),
        ("https://kv.vault.azure.cn", "https://login.chinacloudapi.cn", "https://vault.azure.cn"),
        (
            "https://kv.vault.usgovcloudapi.net:443",
            "https://login.microsoftonline.us",
            "https://vault.usgovcloudapi.net",
        ),
        // Not of that cloud, whatever it ends with.
        ("https://evilvault.azure.cn", "https://login.microsoftonline.com", "https://vault.azure.net"),
    ] {
        let cloud = AzureCloud::of(&BackendUrl::parse(vault).unwrap());
        assert_eq!((cloud.authority.as_str(), cloud.resource.as_str()), (authority, resource), "{vault}");
        assert_eq!(cloud.metadata.as_str(), "http://169.254.169.254");
    }
}

#[tokio::test]
async fn a_reference_that_no_name_there_can_have_is_never_sent() {
    let (server, time) = (server(), Time::new().await);
    let backend = azure(&server, &time, client_of(TENANT, "s~3cr+t"));
    let long = format!("zones/{}/x", "z".repeat(120));
    for reference in ["zones/z_1/x", "zones/z.1/x", "zones/z?1/x", long.as_str()] {
        assert!(backend.read(reference).await.is_err() && backend.remove(reference).await.is_err(), "{reference}");
    }
    assert!(server.seen().is_empty());
}
