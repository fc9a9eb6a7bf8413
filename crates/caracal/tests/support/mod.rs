//! A built `caracal` as an outsider has it: a process, ports, and HTTP. Nothing here uses the system's own code.
#![allow(dead_code, reason = "each test file uses the part it needs")]

pub(crate) mod cluster;
pub(crate) mod load;

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

/// The binary under test.
pub(crate) fn caracal() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_caracal"));
    // Nothing of the tester's environment may decide how the system behaves.
    command.env_clear().env("HOME", "/nonexistent").env("LOG_LEVEL", "warn");
    command
}

/// Offsets that keep all five ports below those the system hands out to clients, distinct within one process and spread
/// over processes. Two may still meet; whoever starts something tries the next one then.
pub(crate) fn port_offset() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let step = NEXT.fetch_add(1, Ordering::Relaxed);
    let start = u16::try_from(std::process::id() % 500).unwrap() * 23;
    2_000 + (start + step * 131) % 21_000
}

/// Runs `caracal up`, made by `command`, which is expected to refuse. Not for the reason that a port was taken.
pub(crate) fn refused_up(data_dir: &Path, command: impl Fn() -> Command) -> Said {
    for _ in 0..20 {
        let mut up = command();
        up.args(["up", "--json", "--port-offset", &port_offset().to_string(), "--data-dir"]).arg(data_dir);
        let said = run(&mut up);
        if !said.stderr.contains("the port is in use") {
            return said;
        }
    }
    panic!("no free ports");
}

/// A running system. Killed when dropped.
pub(crate) struct Running {
    pub(crate) child: Child,
    pub(crate) urls: Value,
    pub(crate) offset: u16,
    pub(crate) data_dir: PathBuf,
    pub(crate) ready: Value,
    /// How it was started, without the ports.
    command: Command,
    stdout: BufReader<ChildStdout>,
    /// Takes in what is logged, so that logging never blocks the child.
    log: Option<JoinHandle<String>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    /// Starts on `data_dir`, on ports that are free.
    pub(crate) fn start(data_dir: &Path) -> Self {
        Self::start_with(data_dir, &[])
    }

    pub(crate) fn start_with(data_dir: &Path, environment: &[(&str, &str)]) -> Self {
        let mut command = caracal();
        command.envs(environment.iter().copied());
        Self::start_by(command, data_dir)
    }

    /// Starts by `command`, which is the binary, perhaps with something around it.
    pub(crate) fn start_by(command: Command, data_dir: &Path) -> Self {
        Self::start_flagged(command, data_dir, &[])
    }

    /// The same with more flags of `caracal up`.
    pub(crate) fn start_flagged(mut command: Command, data_dir: &Path, flags: &[&str]) -> Self {
        command.arg("up").args(flags);
        Self::start_command(command, data_dir)
    }

    /// `caracal serve` with these roles.
    pub(crate) fn serve(roles: &str, data_dir: &Path, environment: &[(String, String)]) -> Self {
        let mut command = caracal();
        command.envs(environment.iter().map(|(name, value)| (name, value))).args(["serve", "--roles", roles]);
        Self::start_command(command, data_dir)
    }

    fn start_command(mut command: Command, data_dir: &Path) -> Self {
        command.arg("--json").arg("--data-dir").arg(data_dir);
        for _ in 0..20 {
            match Self::attempt(again(&command), port_offset(), data_dir) {
                Ok(running) => return running,
                Err(said) => assert!(said.contains("the port is in use"), "the system did not start: {said}"),
            }
        }
        panic!("no free ports");
    }

    fn attempt(command: Command, offset: u16, data_dir: &Path) -> Result<Self, String> {
        let mut attempt = again(&command);
        attempt.args(["--port-offset", &offset.to_string()]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = attempt.spawn().unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let log = std::thread::spawn(move || {
            let mut said = Vec::new();
            let _ = stderr.read_to_end(&mut said);
            String::from_utf8_lossy(&said).into_owned()
        });
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let Ok(ready) = serde_json::from_str::<Value>(&line) else {
            let said = log.join().unwrap();
            child.wait().unwrap();
            return Err(said);
        };
        let (urls, data_dir) = (ready["urls"].clone(), data_dir.to_owned());
        Ok(Self { child, urls, offset, data_dir, ready, command, stdout, log: Some(log) })
    }

    /// The same system once more, at the same addresses, after it was ended.
    pub(crate) fn started_again(&self) -> Self {
        Self::attempt(again(&self.command), self.offset, &self.data_dir)
            .unwrap_or_else(|said| panic!("the system did not start again: {said}"))
    }

    /// What it says when it does not start again.
    pub(crate) fn refused_again(&self) -> String {
        Self::attempt(again(&self.command), self.offset, &self.data_dir).map(|_| ()).unwrap_err()
    }

    /// The same, told something else than before.
    pub(crate) fn started_again_told(&self, name: &str, value: &str) -> Self {
        let mut command = again(&self.command);
        command.env(name, value);
        Self::attempt(command, self.offset, &self.data_dir)
            .unwrap_or_else(|said| panic!("the system did not start again: {said}"))
    }

    /// Everything that was said on standard output and standard error. Ends the system.
    pub(crate) fn said(mut self) -> String {
        self.terminate();
        let mut said = self.ready.to_string();
        self.stdout.read_to_string(&mut said).unwrap();
        said + &self.log.take().unwrap().join().unwrap()
    }

    /// SIGKILL: no handler runs, nothing is flushed.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, then waits for the end. `true` when it ended with 0.
    pub(crate) fn terminate(&mut self) -> bool {
        self.signal("-TERM");
        self.child.wait().unwrap().success()
    }

    /// Sends a signal and waits for nothing.
    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }
}

/// Whatever can be asked by name.
pub(crate) trait Addressed {
    /// Where a service is.
    fn url(&self, service: &str) -> String;
    /// The bootstrap token.
    fn admin_token(&self) -> String;
    /// Host and port of a service.
    fn address(&self, service: &str) -> String {
        self.url(service).trim_start_matches("http://").to_owned()
    }
}

impl Addressed for Running {
    fn url(&self, service: &str) -> String {
        self.urls[service].as_str().unwrap().to_owned()
    }

    fn admin_token(&self) -> String {
        let file = self.ready["admin_token_file"].as_str().unwrap();
        std::fs::read_to_string(file).unwrap().trim().to_owned()
    }
}

/// The same command once more; a [`Command`] itself can't be cloned.
fn again(command: &Command) -> Command {
    let mut copy = Command::new(command.get_program());
    copy.args(command.get_args()).env_clear();
    copy.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    copy
}

/// What a command said and how it ended.
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> Said {
    let output = command.stdin(Stdio::null()).output().unwrap();
    Said {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A plain HTTP client.
pub(crate) struct Http {
    client: Client<HttpConnector, Full<bytes::Bytes>>,
    heard: Mutex<Vec<Heard>>,
}

/// An answer as it was received, for tests of what no answer may say.
pub(crate) struct Heard {
    pub(crate) method: Method,
    pub(crate) url: String,
    pub(crate) text: String,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.json()[name]
            .as_str()
            .unwrap_or_else(|| panic!("no `{name}` in {} {}", self.status, self.json()))
            .to_owned()
    }

    pub(crate) fn request_id(&self) -> String {
        self.headers["x-request-id"].to_str().unwrap().to_owned()
    }
}

impl Http {
    pub(crate) fn new() -> Self {
        #[expect(clippy::disallowed_methods, reason = "a caller, who has no addresses to judge")]
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { client, heard: Mutex::default() }
    }

    /// Every answer so far.
    pub(crate) fn heard(&self) -> std::sync::MutexGuard<'_, Vec<Heard>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` when the connection broke: the process under test may be killed at any moment.
    pub(crate) async fn send(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: impl Into<bytes::Bytes>,
    ) -> Option<Answer> {
        let mut request = Request::builder().method(method.clone()).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.client.request(request.body(Full::new(body.into())).unwrap()).await.ok()?;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.ok()?.to_bytes().to_vec();
        let text = format!("{:?} {}", parts.headers, String::from_utf8_lossy(&body));
        self.heard().push(Heard { method, url: url.to_owned(), text });
        Some(Answer { status: parts.status, headers: parts.headers, body })
    }

    pub(crate) async fn json(&self, method: Method, url: &str, bearer: &str, body: Option<Value>) -> Option<Answer> {
        let authorization = format!("Bearer {bearer}");
        let mut headers = vec![("authorization", authorization.as_str())];
        let bytes = body.map(|body| serde_json::to_vec(&body).unwrap());
        if bytes.is_some() {
            headers.push(("content-type", "application/json"));
        }
        self.send(method, url, &headers, bytes.unwrap_or_default()).await
    }

    pub(crate) async fn form(&self, url: &str, fields: &[(&str, &str)]) -> Option<Answer> {
        let body =
            fields.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect::<Vec<_>>().join("&");
        self.send(Method::POST, url, &[("content-type", "application/x-www-form-urlencoded")], body).await
    }
}

fn escaped(value: &str) -> String {
    value
        .bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// A zone in which one application may read `resource://notes` at `upstream`.
#[derive(Clone)]
pub(crate) struct Tenant {
    pub(crate) zone: String,
    pub(crate) application: String,
    pub(crate) client_secret: String,
}

pub(crate) const NOTES: &str = "resource://notes";

impl Tenant {
    pub(crate) async fn provision(http: &Http, system: &impl Addressed, upstream: &str) -> Self {
        let (api, token) = (system.url("api"), system.admin_token());
        let post = async |path: String, body: Value| {
            let answer = http.json(Method::POST, &format!("{api}{path}"), &token, Some(body)).await.unwrap();
            assert!(answer.status.is_success(), "{path}: {} {}", answer.status, answer.json());
            answer
        };
        let zone = post("/v1/zones".to_owned(), json!({"name": "Test"})).await.text("id");
        let base = format!("/v1/zones/{zone}");
        let application =
            post(format!("{base}/applications"), json!({"name": "bot", "registration_method": "managed"})).await;
        let provider = post(
            format!("{base}/providers"),
            json!({"name": "key", "kind": "api_key", "config_json": {"header_name": "x-key", "api_key": "upstream-key-1"}}),
        )
        .await
        .text("id");
        post(
            format!("{base}/resources"),
            json!({
                "identifier": NOTES, "upstream_url": upstream, "credential_provider_id": provider,
                "scopes": ["notes:read"],
                "operations": [{"method": "GET", "path": "/notes", "scope": "notes:read"}]
            }),
        )
        .await;
        let id = application.text("id");
        let content = format!(
            "# caracal:data-document\npackage caracal.authz\nimport rego.v1\napp_ids := {}\ngrants := {}\n",
            json!({"bot": id}),
            json!({NOTES: {"application": "bot", "roles": {"reader": ["notes:read"]}}}),
        );
        let version =
            post(format!("{base}/policies"), json!({"name": "p", "content": content})).await.text("version_id");
        let set = post(format!("{base}/policy-sets"), json!({"name": "s"})).await.text("id");
        let version =
            post(format!("{base}/policy-sets/{set}/versions"), json!({"manifest": [{"policy_version_id": version}]}))
                .await
                .text("version_id");
        post(format!("{base}/policy-sets/{set}/activate"), json!({"version_id": version})).await;
        Self { zone, application: id, client_secret: application.text("client_secret") }
    }

    /// A token exchange with this tenant's secret.
    pub(crate) async fn exchange(
        &self,
        http: &Http,
        system: &impl Addressed,
        asked: &[(&str, &str)],
    ) -> Option<Answer> {
        let mut fields = vec![
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("zone_id", self.zone.as_str()),
            ("application_id", self.application.as_str()),
            ("client_secret", self.client_secret.as_str()),
            ("resource", NOTES),
        ];
        fields.extend_from_slice(asked);
        http.form(&format!("{}/oauth/2/token", system.url("sts")), &fields).await
    }

    /// Two sessions and a delegation between them: what the application transport of the client libraries sets up.
    pub(crate) async fn delegation(&self, http: &Http, system: &impl Addressed) -> (String, String) {
        let lifecycle = self.exchange(http, system, &[("scope", "agent:lifecycle")]).await.unwrap();
        let bearer = lifecycle.text("access_token");
        let base = format!("{}/zones/{}", system.url("coordinator"), self.zone);
        let mut sessions = Vec::new();
        for _ in 0..2 {
            let body = json!({"application_id": self.application, "labels": ["reader"], "ttl_seconds": 86400});
            let started = http.json(Method::POST, &format!("{base}/agents"), &bearer, Some(body)).await.unwrap();
            sessions.push(started.text("agent_session_id"));
        }
        let body = json!({
            "issuer_application_id": self.application, "receiver_application_id": self.application,
            "source_session_id": sessions[0], "target_session_id": sessions[1],
            "scopes": ["notes:read"], "constraints": {"resources": [NOTES]}, "ttl_seconds": 86400
        });
        let lent = http.json(Method::POST, &format!("{base}/delegations"), &bearer, Some(body)).await.unwrap();
        (sessions.remove(1), lent.text("delegation_edge_id"))
    }

    /// A one-shot mandate to read notes through a delegation.
    pub(crate) async fn mint(
        &self,
        http: &Http,
        system: &impl Addressed,
        (session, edge): (&str, &str),
    ) -> Option<Answer> {
        let asked = [("scope", "notes:read"), ("agent_session_id", session), ("delegation_edge_id", edge)];
        self.exchange(http, system, &asked).await
    }

    /// Takes a delegation back.
    pub(crate) async fn revoke(&self, http: &Http, system: &impl Addressed, edge: &str) -> Option<Answer> {
        let lifecycle = self.exchange(http, system, &[("scope", "agent:lifecycle")]).await?.text("access_token");
        let url = format!("{}/zones/{}/delegations/{edge}/revoke", system.url("coordinator"), self.zone);
        http.json(Method::PATCH, &url, &lifecycle, None).await
    }

    /// What one request left behind, oldest first; null when it left nothing.
    pub(crate) async fn evidence(&self, http: &Http, system: &impl Addressed, request: &str) -> Value {
        let url = format!("{}/v1/zones/{}/audit/by-request/{request}", system.url("api"), self.zone);
        let found = http.json(Method::GET, &url, &system.admin_token(), None).await.unwrap();
        if found.status == StatusCode::OK { found.json() } else { Value::Null }
    }

    /// A call through the Gateway.
    pub(crate) async fn call(&self, http: &Http, system: &impl Addressed, mandate: &str) -> Option<Answer> {
        let bearer = format!("Bearer {mandate}");
        let headers = [("authorization", bearer.as_str()), ("x-caracal-resource", NOTES)];
        http.send(Method::GET, &format!("{}/notes", system.url("gateway")), &headers, "").await
    }
}

/// An upstream that answers everything with 200, on a port of its own.
pub(crate) async fn upstream() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = axum::Router::new().fallback(|| async { "notes" });
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}
