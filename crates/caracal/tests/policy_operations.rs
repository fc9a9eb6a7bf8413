//! Trying out policy, and how far it has come, in systems as an outsider has them.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use caracal_testkit::{Database, Redis};
use http::Method;
use serde_json::{Value, json};
use support::cluster::{Cluster, until};
use support::{Addressed, Answer, Http, NOTES, Running, Tenant, caracal, upstream};

/// The management API of one zone.
struct Zone<'s, S> {
    http: &'s Http,
    system: &'s S,
    tenant: &'s Tenant,
}

impl<S: Addressed> Zone<'_, S> {
    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let url = format!("{}/v1/zones/{}{path}", self.system.url("api"), self.tenant.zone);
        self.http.json(method, &url, &self.system.admin_token(), body).await.unwrap()
    }

    async fn made(&self, path: &str, body: Value) -> Value {
        let answer = self.call(Method::POST, path, Some(body)).await;
        assert!(answer.status.is_success(), "{path}: {} {}", answer.status, answer.json());
        answer.json()
    }

    async fn get(&self, path: &str) -> Value {
        let answer = self.call(Method::GET, path, None).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.json());
        answer.json()
    }

    /// The tenant's set.
    async fn set(&self) -> String {
        self.get("/policy-sets").await["items"][0]["id"].as_str().unwrap().to_owned()
    }

    /// A version of the set with one document.
    async fn version(&self, set: &str, name: &str, rules: &str) -> String {
        let content = format!("# caracal:data-document\npackage caracal.authz\nimport rego.v1\n{rules}\n");
        let policy = self.made("/policies", json!({"name": name, "content": content})).await;
        let manifest = json!({"manifest": [{"policy_version_id": policy["version_id"]}]});
        let version = self.made(&format!("/policy-sets/{set}/versions"), manifest).await;
        version["version_id"].as_str().unwrap().to_owned()
    }

    async fn activate(&self, set: &str, version: &str) {
        self.made(&format!("/policy-sets/{set}/activate"), json!({"version_id": version})).await;
    }

    async fn status(&self, set: &str) -> Value {
        self.get(&format!("/policy-sets/{set}/activation-status")).await
    }

    fn grants(&self, scope: &str) -> String {
        let id = &self.tenant.application;
        let grants = json!({NOTES: {"application": "bot", "roles": {"reader": [scope]}}});
        format!("app_ids := {}\ngrants := {grants}", json!({"bot": id}))
    }
}

const HELD: &str = r#"risk := [{"scope": "notes:read", "tier": "sensitive"}]
approval_tiers := [{"tier": "sensitive", "approver": "operator", "ttl_seconds": 3600}]"#;

/// An operator looks into a denial, tries the mended policy on the very question, and activates it.
#[tokio::test(flavor = "multi_thread")]
async fn t06_evidence_a_denied_mint_is_explained_tried_again_and_mended() {
    let directory = tempfile::tempdir().unwrap();
    let system = Running::start(directory.path());
    let http = Http::new();
    let tenant = Tenant::provision(&http, &system, &upstream().await).await;
    let zone = Zone { http: &http, system: &system, tenant: &tenant };
    let (session, edge) = tenant.delegation(&http, &system).await;
    let set = zone.set().await;
    let narrow = zone.version(&set, "narrow", &zone.grants("notes:list")).await;
    zone.activate(&set, &narrow).await;
    let denied = tenant.mint(&http, &system, (&session, &edge)).await.unwrap();
    assert_eq!(denied.status, 403, "{}", denied.json());

    let explained = zone.get(&format!("/audit/by-request/{}/explain", denied.request_id())).await;
    assert_eq!(explained["final_decision"], "deny");
    let reason = json!([{"reason": "role_scope_mismatch"}]);
    let denied = explained["denied"].as_array().unwrap().iter().find(|event| event["diagnostics"] == reason);
    let first = denied.unwrap_or_else(|| panic!("{explained}"));
    let input = &first["policy_input"];
    assert_eq!(input["delegation_edge"]["scopes"], json!(["notes:read"]));
    assert!(first["metadata"].get("policy_input").is_none(), "it is shown once");

    let wide = zone.version(&set, "wide", &zone.grants("notes:read")).await;
    let path = format!("/policy-sets/{set}/simulate");
    for (version, decision) in [(&narrow, "deny"), (&wide, "allow")] {
        let tried = zone.made(&path, json!({"version_id": version, "input": input})).await;
        assert_eq!(tried["warnings"], json!([]), "{tried}");
        assert_eq!(
            (&tried["explanation"]["decision"], &tried["result"]["decision"]),
            (&json!(decision), &json!(decision))
        );
    }
    let still = tenant.mint(&http, &system, (&session, &edge)).await.unwrap();
    assert_eq!(still.status, 403, "trying out changes nothing");
    zone.activate(&set, &wide).await;
    assert_eq!(tenant.mint(&http, &system, (&session, &edge)).await.unwrap().status, 200);
}

/// README D32, on one process, and again with a version whose documents are those of the one before.
#[tokio::test(flavor = "multi_thread")]
async fn an_activation_reaches_loaded_also_with_the_documents_of_the_version_before() {
    let directory = tempfile::tempdir().unwrap();
    let mut system = Running::start(directory.path());
    let http = Http::new();
    let tenant = Tenant::provision(&http, &system, &upstream().await).await;
    let set = Zone { http: &http, system: &system, tenant: &tenant }.set().await;
    {
        let zone = Zone { http: &http, system: &system, tenant: &tenant };
        let policy = zone.get("/policies").await["items"][0]["latest_version"]["version_id"].clone();
        let manifest = json!({"manifest": [{"policy_version_id": policy}]});
        let second = zone.made(&format!("/policy-sets/{set}/versions"), manifest).await;
        let second = second["version_id"].as_str().unwrap().to_owned();
        zone.activate(&set, &second).await;
        until("loaded", async || zone.status(&set).await["propagation_status"] == "loaded").await;
        let status = zone.status(&set).await;
        assert_eq!((&status["version_id"], &status["sts"]["policy_set_version_id"]), (&json!(second), &json!(second)));
        assert_eq!(status["replicas"].as_array().unwrap().len(), 1, "{status}");
    }
    // Its predecessor is not taken for a process that is still there.
    system.kill();
    let system = system.started_again();
    let zone = Zone { http: &http, system: &system, tenant: &tenant };
    let status = zone.status(&set).await;
    assert_eq!((status["replicas"].as_array().unwrap().len(), &status["propagation_status"]), (1, &json!("loaded")));
}

/// README D32 across processes: the Admin API decides nothing, two others do.
#[tokio::test(flavor = "multi_thread")]
async fn t04_state_an_activation_is_loaded_when_every_process_has_it() {
    let (database, redis) = (Database::create().unwrap(), Redis::start().unwrap());
    let mut cluster = Cluster::start(&database.url(), &redis.url());
    let http = Http::new();
    let system = cluster.through(0);
    let tenant = Tenant::provision(&http, &system, &upstream().await).await;
    let zone = Zone { http: &http, system: &system, tenant: &tenant };
    let set = zone.set().await;
    let version = zone.version(&set, "next", &zone.grants("notes:read")).await;
    zone.activate(&set, &version).await;
    until("loaded", async || zone.status(&set).await["propagation_status"] == "loaded").await;
    let status = zone.status(&set).await;
    let replicas = status["replicas"].as_array().unwrap();
    assert_eq!(replicas.len(), 2, "{status}");
    assert!(replicas.iter().all(|replica| replica["policy_set_version_id"] == json!(version)), "{status}");
    assert_ne!(replicas[0]["id"], replicas[1]["id"]);
    // What would be decided is known without them.
    let input = json!({"principal": {"type": "Application", "id": tenant.application, "zone_id": tenant.zone}});
    let tried =
        zone.made(&format!("/policy-sets/{set}/simulate"), json!({"version_id": version, "input": input})).await;
    assert_eq!(tried["result"]["diagnostics"], json!([{"reason": "no_rule_matched"}]), "{tried}");
    // One that ends says so.
    assert!(cluster.sts[1].terminate());
    until("one left", async || zone.status(&set).await["replicas"].as_array().unwrap().len() == 1).await;
    assert_eq!(zone.status(&set).await["propagation_status"], "loaded");
}

/// A version is tried on everything that was decided, before it decides anything.
#[tokio::test(flavor = "multi_thread")]
async fn t06_evidence_recorded_decisions_are_decided_anew_by_another_version() {
    let directory = tempfile::tempdir().unwrap();
    let system = Running::start(directory.path());
    let http = Http::new();
    let tenant = Tenant::provision(&http, &system, &upstream().await).await;
    let zone = Zone { http: &http, system: &system, tenant: &tenant };
    let (session, edge) = tenant.delegation(&http, &system).await;
    let set = zone.set().await;
    let wide = zone.version(&set, "wide", &zone.grants("notes:read")).await;
    let narrow = zone.version(&set, "narrow", &zone.grants("notes:list")).await;
    for (version, status) in [(&wide, 200), (&narrow, 403), (&wide, 200)] {
        zone.activate(&set, version).await;
        assert_eq!(tenant.mint(&http, &system, (&session, &edge)).await.unwrap().status, status);
    }
    let replayed = |version: &str, since: &str| {
        let mut command = caracal();
        command.args(["audit", "replay", "--policy-set", version, "--since", since]);
        let ran = command.args(["--data-dir"]).arg(directory.path()).arg("--json").output().unwrap();
        let said = String::from_utf8(ran.stderr).unwrap();
        (ran.status.success(), serde_json::from_slice::<Value>(&ran.stdout).unwrap_or_default(), said)
    };
    let counts = |report: &Value| {
        let of = |name: &str| report[name].as_u64().unwrap();
        assert_eq!(of("decisions"), of("reproduced") + of("not_reproduced"), "{report}");
        (of("reproduced"), of("unchanged"), of("newly_denied"), of("newly_allowed"))
    };
    let (_, by_narrow, said) = replayed(&narrow, "1h");
    let (_, by_wide, _) = replayed(&wide, "2020-01-01T00:00:00Z");
    // The bootstrap of the session is a decision of policy, too, and no document's to change.
    let (reproduced, unchanged, denied, allowed) = counts(&by_narrow);
    assert_eq!((denied, allowed, reproduced - unchanged), (2, 0, 2), "{by_narrow} {said}");
    let example = &by_narrow["examples"][0];
    assert_eq!(
        (&example["change"], &example["resource"], &example["reason"], &example["application_id"]),
        (&json!("newly_denied"), &json!(NOTES), &json!("role_scope_mismatch"), &json!(tenant.application))
    );
    let (reproduced, unchanged, denied, allowed) = counts(&by_wide);
    assert_eq!((denied, allowed, reproduced - unchanged), (0, 1, 1), "{by_wide}");
    assert_eq!(by_wide["examples"][0]["change"], "newly_allowed");
    // Who was held is a decision of policy, too, and who was denied and would be held now is not allowed.
    let risky = [zone.grants("notes:read"), HELD.to_owned()].join("\n");
    let held = zone.version(&set, "held", &risky).await;
    let (_, by_held, _) = replayed(&held, "1h");
    assert_eq!(counts(&by_held), (reproduced, unchanged - 2, 0, 0), "{by_held}");
    assert_eq!((&by_held["newly_held"], &by_held["no_longer_held"]), (&json!(3), &json!(0)), "{by_held}");
    zone.activate(&set, &held).await;
    let waits = tenant.mint(&http, &system, (&session, &edge)).await.unwrap();
    assert_eq!(waits.text("error"), "interaction_required");
    let (_, by_wide, _) = replayed(&wide, "1h");
    assert_eq!(counts(&by_wide), (reproduced + 1, unchanged, 0, 1), "{by_wide}");
    assert_eq!((&by_wide["newly_held"], &by_wide["no_longer_held"]), (&json!(0), &json!(1)), "{by_wide}");
    // What is not there can't be decided by.
    let (ok, _, said) = replayed("0199c0de-0000-7000-8000-000000000000", "1h");
    assert!(!ok && said.contains("no zone has a version"), "{said}");
    let mut command = caracal();
    command.args(["audit", "replay", "--policy-set-version", &wide, "--zone", "other", "--data-dir"]);
    let said = command.arg(directory.path()).output().unwrap();
    assert!(String::from_utf8_lossy(&said.stderr).contains("zone `other` has no version"), "{said:?}");
    let (ok, _, said) = replayed(&wide, "yesterday");
    assert!(!ok && said.contains("--since"), "{said}");
}
