//! Where the Gateway must never go (README D9, D35).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Method;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Addressed, Http, Running, Tenant, caracal, upstream};
use crate::{start, until};

/// A port that nobody has a reason to call.
struct Honeypot {
    port: u16,
    callers: Arc<AtomicUsize>,
}

impl Honeypot {
    async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let callers = Arc::new(AtomicUsize::new(0));
        let mut doors = vec![listener];
        // Not every machine has IPv6.
        doors.extend(TcpListener::bind(("::1", port)).await.ok());
        for listener in doors {
            let callers = callers.clone();
            tokio::spawn(async move {
                while listener.accept().await.is_ok() {
                    callers.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        Self { port, callers }
    }

    /// Whoever called was before us in the queue.
    async fn was_never_called(&self) {
        TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        until("the honeypot to notice us", async || (self.callers.load(Ordering::SeqCst) > 0).then_some(())).await;
        assert_eq!(self.callers.load(Ordering::SeqCst), 1, "the honeypot was called");
    }
}

struct Calls<'c> {
    http: &'c Http,
    system: &'c Running,
    tenant: Tenant,
    authority: (String, String),
    resource: String,
}

impl<'c> Calls<'c> {
    async fn of(http: &'c Http, system: &'c Running) -> Self {
        let tenant = Tenant::provision(http, system, &upstream().await).await;
        let authority = tenant.delegation(http, system).await;
        let resources = format!("{}/v1/zones/{}/resources", system.url("api"), tenant.zone);
        let listed = http.json(Method::GET, &resources, &system.admin_token(), None).await.unwrap().json();
        let resource = format!("{resources}/{}", listed["items"][0]["id"].as_str().unwrap());
        Self { http, system, tenant, authority, resource }
    }

    async fn point_to(&self, url: &str) {
        let patch = json!({"upstream_url": url});
        let patched = self.http.json(Method::PATCH, &self.resource, &self.system.admin_token(), Some(patch)).await;
        let patched = patched.unwrap();
        assert_eq!(patched.status, 200, "{url}: {}", patched.json());
    }

    async fn mint(&self) -> String {
        let (session, edge) = &self.authority;
        self.tenant.mint(self.http, self.system, (session, edge)).await.unwrap().text("access_token")
    }

    /// Calls what lies at `url`, which has to be refused, at the cost of the mandate, and be on record.
    async fn is_refused(&self, url: &str) {
        self.point_to(url).await;
        let mandate = self.mint().await;
        let call = self.tenant.call(self.http, self.system, &mandate).await.unwrap();
        let told = (call.status.as_u16(), call.json()["error"].clone(), call.json()["error_description"].clone());
        assert_eq!(told, (502, json!("internal_error"), json!("upstream not addressable")), "{url}");
        let again = self.tenant.call(self.http, self.system, &mandate).await.unwrap();
        let told = (again.status.as_u16(), again.json()["error_description"].clone());
        assert_eq!(told, (401, json!("token replay detected")), "{url}: the mandate is spent");

        let request = call.request_id();
        let event: Value = until("the evidence of the refusal", async || {
            let events = self.tenant.evidence(self.http, self.system, &request).await;
            let of_gateway = |event: &&Value| event["event_type"] == "gateway_resource_request";
            events.as_array()?.iter().find(of_gateway).cloned()
        })
        .await;
        let metadata = &event["metadata_json"];
        assert_eq!(event["evaluation_status"], "upstream_rejected", "{url}");
        assert_eq!(
            (&metadata["error_kind"], &metadata["gateway_status"]),
            (&json!("upstream_not_addressable"), &json!(502))
        );
        assert_eq!(metadata.get("upstream_status"), None, "{url}");
    }

    async fn is_admitted(&self, url: &str) {
        self.point_to(url).await;
        let call = self.tenant.call(self.http, self.system, &self.mint().await).await.unwrap();
        assert_eq!((call.status.as_u16(), &call.body[..]), (200, &b"notes"[..]), "{url}");
    }
}

mod t03_gateway_egress {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn one_persons_machine_reaches_loopback_and_neither_metadata_nor_private_networks() {
        let directory = tempfile::tempdir().unwrap();
        let (http, system) = (Http::new(), start(directory.path()));
        let calls = Calls::of(&http, &system).await;
        calls.is_admitted(&upstream().await).await;
        let honeypot = Honeypot::open().await;
        let port = honeypot.port;
        for url in [
            "http://169.254.169.254/latest/meta-data".to_owned(),
            "http://[::ffff:169.254.169.254]/".to_owned(),
            "http://[64:ff9b::a9fe:a9fe]/".to_owned(),
            "http://2852039166/".to_owned(),
            "http://0xa9.0376.169.254/".to_owned(),
            "http://10.0.0.1/".to_owned(),
            "http://[::ffff:10.0.0.1]/".to_owned(),
            "http://192.168.0.1/".to_owned(),
            "http://100.64.0.1/".to_owned(),
            "http://[fd00:ec2::254]/".to_owned(),
            "http://[fe80::1]/".to_owned(),
            // On many systems "any" leads to this very machine.
            format!("http://0.0.0.0:{port}/"),
            format!("http://[::]:{port}/"),
            format!("http://[::ffff:0.0.0.0]:{port}/"),
            "http://no-such-host.invalid/".to_owned(),
        ] {
            calls.is_refused(&url).await;
        }
        honeypot.was_never_called().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn production_reaches_no_loopback_in_any_spelling_until_the_exact_host_is_admitted() {
        let directory = tempfile::tempdir().unwrap();
        let http = Http::new();
        let stable = [("CARACAL_MODE", "stable"), ("API_V1_RATE_LIMIT_PER_MIN", "0")];
        let mut system = Running::start_with(directory.path(), &stable);
        let honeypot = Honeypot::open().await;
        let port = honeypot.port;
        let calls = Calls::of(&http, &system).await;
        for host in [
            "127.0.0.1",
            "localhost",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "[::127.0.0.1]",
            "127.1",
            "2130706433",
            "0x7f.0.0.1",
            "0177.0.0.1",
            "127.255.255.254",
            "localhost.",
        ] {
            calls.is_refused(&format!("http://{host}:{port}/")).await;
        }
        let tenant = calls.tenant;
        honeypot.was_never_called().await;
        assert!(system.terminate());

        // What is listed is a host, not an address class; and cloud metadata is nobody's upstream.
        let admitted = [("CARACAL_PRIVATE_EGRESS_HOSTS", "127.0.0.1,169.254.169.254"), stable[0], stable[1]];
        let system = Running::start_with(directory.path(), &admitted);
        let authority = tenant.delegation(&http, &system).await;
        let calls =
            Calls { http: &http, system: &system, tenant, authority, resource: resource_at(&http, &system).await };
        let honeypot = Honeypot::open().await;
        let port = honeypot.port;
        calls.is_admitted(&upstream().await).await;
        for url in [
            format!("http://localhost:{port}/"),
            format!("http://127.0.0.2:{port}/"),
            format!("http://[::1]:{port}/"),
            "http://169.254.169.254/".to_owned(),
            "http://10.0.0.1/".to_owned(),
        ] {
            calls.is_refused(&url).await;
        }
        honeypot.was_never_called().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_the_network_can_reach_is_held_to_production_rules() {
        for mode in [None, Some("dev")] {
            let directory = tempfile::tempdir().unwrap();
            let http = Http::new();
            let mut command = caracal();
            command.env("API_V1_RATE_LIMIT_PER_MIN", "0");
            command.envs(mode.map(|mode| ("CARACAL_MODE", mode)));
            let system = Running::start_flagged(command, directory.path(), &["--bind", "0.0.0.0"]);
            let honeypot = Honeypot::open().await;
            let calls = Calls::of(&http, &system).await;
            calls.is_refused(&format!("http://127.0.0.1:{}/", honeypot.port)).await;
            honeypot.was_never_called().await;
            if mode.is_none() {
                for service in ["sts", "gateway", "audit"] {
                    for path in ["metrics", "metrics.json"] {
                        let url = format!("{}/{path}", system.url(service));
                        assert_eq!(http.send(Method::GET, &url, &[], "").await.unwrap().status, 401, "{url}");
                    }
                }
            }
        }
    }

    /// The one resource there is, wherever the system listens now.
    async fn resource_at(http: &Http, system: &Running) -> String {
        let (api, token) = (system.url("api"), system.admin_token());
        let first = async |path: String| {
            let listed = http.json(Method::GET, &path, &token, None).await.unwrap().json();
            format!("{path}/{}", listed["items"][0]["id"].as_str().unwrap())
        };
        first(format!("{}/resources", first(format!("{api}/v1/zones")).await)).await
    }
}
