//! AWS Secrets Manager, by a server that recomputes every signature from the request as it came, and lends keys to
//! containers.

use caracal_broker::backends::{AwsBackend, AwsCredentials, AwsKeys, AwsSettings, ContainerAuthorization};
use caracal_crypto::encoding::hex;
use ring::{digest, hmac};

use super::*;

pub(super) const REGION: &str = "eu-central-1";
/// What decides must be signed, or somebody else could change it.
const NEEDED: [&str; 3] = ["host", "x-amz-date", "x-amz-target"];
const LEND: &str = "/v2/credentials/4c1b";

fn error(code: &str) -> Reply {
    Reply::json(400, json!({"__type": code, "Message": "the security token lent-secret is bad"}).to_string())
}

/// Whether `request` is signed with `secret`, by the service's own rules: the signature is over the method, the path, the
/// headers that it names, and the body.
pub(super) fn is_signed(request: &Received, id: &str, secret: &str, of: &str, needed: &[&str]) -> bool {
    let given = request.header("authorization").unwrap_or_default();
    let part = |name: &str| {
        let behind = given.split_once(&format!("{name}="))?.1;
        Some(behind.split(',').next().unwrap_or_default().to_owned())
    };
    let (Some(credential), Some(names), Some(signature)) =
        (part("Credential"), part("SignedHeaders"), part("Signature"))
    else {
        return false;
    };
    let [key_id, day, region, service, last] = credential.split('/').collect::<Vec<_>>()[..] else { return false };
    if (key_id, region, service, last) != (id, REGION, of, "aws4_request") {
        return false;
    }
    let date = request.header("x-amz-date").unwrap_or_default();
    let mut canonical = format!("{}\n{}\n\n", request.method, request.path());
    for name in names.split(';') {
        let Some(value) = request.header(name) else { return false };
        canonical += &format!("{name}:{value}\n");
    }
    let sha256 = |bytes: &[u8]| hex(digest::digest(&digest::SHA256, bytes).as_ref());
    canonical += &format!("\n{names}\n{}", sha256(&request.body));
    let to_sign =
        format!("AWS4-HMAC-SHA256\n{date}\n{day}/{region}/{service}/aws4_request\n{}", sha256(canonical.as_bytes()));
    let mac =
        |key: &[u8], text: &str| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec();
    let day_key = mac(format!("AWS4{secret}").as_bytes(), day);
    let key = mac(&mac(&mac(&day_key, region), service), "aws4_request");
    needed.iter().all(|name| names.split(';').any(|signed| signed == *name)) && hex(&mac(&key, &to_sign)) == signature
}

#[derive(Default)]
struct Aws {
    secrets: HashMap<String, String>,
    lent: usize,
    /// Which of the keys that were lent are no good any more.
    taken_back: usize,
    requests: Vec<String>,
}

impl Aws {
    fn answer(&mut self, request: &Received) -> Reply {
        if request.path() == LEND {
            if request.method != "GET" || request.header("authorization") != Some("pod-token") {
                return Reply::json(403, r#"{"code":"AccessDenied"}"#);
            }
            self.lent += 1;
            let number = self.lent;
            let ends = format!("2026-01-01T0{}:00:00Z", number);
            let keys = json!({"AccessKeyId": format!("ASIA{number}"), "SecretAccessKey": "lent-secret",
                "Token": format!("session-{number}"), "Expiration": ends, "RoleArn": "arn:aws:iam::1:role/r"});
            return Reply::json(200, keys.to_string());
        }
        let session = request.header("x-amz-security-token").map(str::to_owned);
        let signed = match session.as_deref().and_then(|session| session.strip_prefix("session-")) {
            Some(number) if number.parse::<usize>().unwrap() <= self.taken_back => {
                return error("ExpiredTokenException");
            }
            Some(number) => is_signed(request, &format!("ASIA{number}"), "lent-secret", "secretsmanager", &NEEDED),
            None => is_signed(request, "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG", "secretsmanager", &NEEDED),
        };
        if !signed {
            return error("InvalidSignatureException");
        }
        if (request.method.as_str(), request.path()) != ("POST", "/") {
            return Reply::json(404, "{}");
        }
        if request.header("content-type") != Some("application/x-amz-json-1.1") {
            return error("SerializationException");
        }
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        let name = body["SecretId"].as_str().or(body["Name"].as_str()).unwrap_or_default().to_owned();
        let value = body["SecretString"].as_str().map(str::to_owned);
        let action = request.header("x-amz-target").unwrap_or_default();
        let action = action.strip_prefix("secretsmanager.").unwrap_or_default();
        if value.is_some() {
            // Whoever is no SDK has to say which request it is.
            let Some(id) = body["ClientRequestToken"].as_str().filter(|id| (32..=64).contains(&id.len())) else {
                return error("InvalidParameterException");
            };
            if self.requests.iter().any(|seen| seen == id) {
                return error("ResourceExistsException");
            }
            self.requests.push(id.to_owned());
        }
        let is_there = self.secrets.contains_key(&name);
        match (action, value) {
            ("CreateSecret", Some(_)) if is_there => error("ResourceExistsException"),
            ("CreateSecret", Some(value)) => {
                self.secrets.insert(name, value);
                Reply::json(200, "{}")
            }
            // Some services name their errors in full.
            _ if !is_there => error("com.amazonaws.secretsmanager#ResourceNotFoundException"),
            ("PutSecretValue", Some(value)) => {
                self.secrets.insert(name, value);
                Reply::json(200, "{}")
            }
            ("GetSecretValue", None) => Reply::json(200, json!({"SecretString": self.secrets[&name]}).to_string()),
            ("DeleteSecret", None) if body["ForceDeleteWithoutRecovery"] == true => {
                self.secrets.remove(&name);
                Reply::json(200, "{}")
            }
            _ => error("InvalidRequestException"),
        }
    }
}

fn server() -> (FakeServer, Arc<Mutex<Aws>>) {
    let aws = Arc::new(Mutex::new(Aws::default()));
    let answers = aws.clone();
    (FakeServer::https(&[], move |request| answers.lock().unwrap().answer(request)), aws)
}

pub(super) fn static_keys(password: &str) -> AwsCredentials {
    let keys = AwsKeys { id: "AKIDEXAMPLE".to_owned(), secret: secret(password), session: None };
    AwsCredentials::Static(Arc::new(keys))
}

fn lent_keys(server: &FakeServer, authorization: ContainerAuthorization) -> AwsCredentials {
    let endpoint = AwsCredentials::full_uri(&format!("{}{LEND}", server.url())).unwrap();
    AwsCredentials::Container { endpoint, authorization: Some(authorization) }
}

fn aws(server: &FakeServer, time: &Time, credentials: AwsCredentials) -> AwsBackend {
    let endpoint = BackendUrl::parse(&server.url()).unwrap();
    let settings = AwsSettings { region: REGION.to_owned(), endpoint, credentials };
    AwsBackend::new(client(server), time.clock.clone(), settings)
}

#[tokio::test]
async fn envelopes_come_back_from_secrets_manager_as_they_were() {
    let ((server, kept), time) = (server(), Time::new().await);
    let backend = aws(&server, &time, static_keys("wJalrXUtnFEMI/K7MDENG"));
    check(&backend).await;
    backend.write(PLACE, b"x").await.unwrap();
    assert_eq!(kept.lock().unwrap().secrets, HashMap::from([(PLACE.to_owned(), STANDARD.encode(b"x"))]));
    assert!(server.seen().iter().all(|request| request.header("x-amz-date") == Some("20260101T000000Z")));
}

#[tokio::test]
async fn keys_of_a_container_are_lent_once_and_kept_to_a_minute_before_their_end() {
    let (kept, (release, held)) = (Mutex::new(Aws::default()), mpsc::channel::<()>());
    let held = Mutex::new(held);
    let server = FakeServer::https(&[], move |request| {
        if request.path() == LEND {
            let _ = held.lock().unwrap().recv();
        }
        kept.lock().unwrap().answer(request)
    });
    let time = Time::new().await;
    let shown = ContainerAuthorization::Token(Arc::new(secret("pod-token")));
    let backend: Arc<dyn SecretBackend> = Arc::new(aws(&server, &time, lent_keys(&server, shown)));
    assert_eq!(read_by_twenty(backend.clone(), &server, LEND, release).await, 1);
    // Until 01:00; it is midnight.
    time.clock.advance(3_539);
    backend.read(PLACE).await.unwrap();
    assert_eq!(asked(&server, LEND), 1);
    time.clock.advance(1);
    backend.read(PLACE).await.unwrap();
    assert_eq!(asked(&server, LEND), 2);
}

#[tokio::test]
async fn keys_that_were_taken_back_are_replaced_once_and_static_ones_are_an_error() {
    let ((server, state), time) = (server(), Time::new().await);
    let file = time.place.path().join("token");
    std::fs::write(&file, "pod-token\n").unwrap();
    let backend = aws(&server, &time, lent_keys(&server, ContainerAuthorization::File(file.clone())));
    check(&backend).await;
    state.lock().unwrap().taken_back = 1;
    assert_eq!(backend.read(PLACE).await.unwrap(), None);
    assert_eq!(asked(&server, LEND), 2);
    // The platform writes the file anew, so it is read each time.
    state.lock().unwrap().taken_back = 9;
    std::fs::remove_file(&file).unwrap();
    let error = backend.read(PLACE).await.unwrap_err().to_string();
    assert!(error.contains("lend keys") && error.contains("can't read"), "{error}");
}

#[tokio::test]
async fn t05_secrets_a_service_that_refuses_is_an_error_without_its_words() {
    let ((server, _), time) = (server(), Time::new().await);
    let wrong = aws(&server, &time, static_keys("wr0ng"));
    says_nothing_of(&wrong, "status 400 (InvalidSignatureException)", &["wr0ng", "lent-secret"]).await;
    let shown = ContainerAuthorization::Token(Arc::new(secret("n0-token")));
    says_nothing_of(&aws(&server, &time, lent_keys(&server, shown)), "status 403", &["n0-token"]).await;
}

#[tokio::test]
async fn what_is_missing_is_said_with_the_service_s_word_for_it_alone() {
    for reply in
        [Reply::json(404, "{}"), Reply::json(400, r#"{"__type":"InvalidRequestException"}"#), Reply::json(400, "")]
    {
        let server = FakeServer::https(&[], move |_| reply.clone());
        let time = Time::new().await;
        assert!(aws(&server, &time, static_keys("x")).read(PLACE).await.is_err());
    }
}

#[test]
fn t03_egress_a_container_s_keys_come_from_the_platform_from_loopback_or_over_tls() {
    for good in [
        "http://169.254.170.2/v2/credentials/x",
        "http://169.254.170.23/v1/credentials",
        "http://[fd00:ec2::23]/v1/credentials",
        "http://localhost:9001/x",
        "http://127.0.0.1/x",
        "https://keys.internal/x",
    ] {
        assert!(AwsCredentials::full_uri(good).is_ok(), "{good}");
    }
    for bad in [
        "http://169.254.169.254/latest/meta-data/iam/security-credentials/r",
        "http://169.254.170.3/x",
        "http://keys.internal/x",
        "http://10.0.0.1/x",
        "/v2/credentials/x",
        "",
    ] {
        assert!(AwsCredentials::full_uri(bad).is_err(), "{bad}");
    }
    let relative = AwsCredentials::relative_uri("/v2/credentials/x").unwrap();
    assert_eq!(relative.as_str(), "http://169.254.170.2/v2/credentials/x");
    for bad in ["", "v2/credentials", "@evil.example/x", ".evil.example/x", "//evil.example/x#"] {
        assert!(AwsCredentials::relative_uri(bad).is_err(), "{bad}");
    }
    let endpoint = |region| AwsSettings::endpoint(region).map(|url| url.as_str().to_owned());
    assert_eq!(endpoint("eu-central-1").as_deref(), Some("https://secretsmanager.eu-central-1.amazonaws.com"));
    assert_eq!(endpoint("cn-north-1").as_deref(), Some("https://secretsmanager.cn-north-1.amazonaws.com.cn"));
    for bad in ["", "EU", "eu.evil.example/", "eu central", "eu@x"] {
        assert_eq!(endpoint(bad), None, "{bad}");
    }
}
