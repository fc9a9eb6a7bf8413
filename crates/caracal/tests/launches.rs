//! A workload from the Admin API to the credential it is started with, through a whole system.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use http::Method;
use serde_json::{Value, json};
use support::{Addressed, Answer, Http, Running, Tenant};

/// What the launcher's requests and the operator's have in common.
struct Launch<'l> {
    http: &'l Http,
    system: &'l Running,
    zone: &'l str,
}

impl Launch<'_> {
    async fn operator(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let url = format!("{}/v1/zones/{}{path}", self.system.url("api"), self.zone);
        self.http.json(method, &url, &self.system.admin_token(), body).await.unwrap()
    }

    async fn run(&self, what: &str, (workload, secret): (&str, &str), more: &[(&str, &str)]) -> Answer {
        let mut fields = vec![("workload_id", workload), ("secret", secret)];
        fields.extend(more);
        self.http.form(&format!("{}/v1/run/{what}", self.system.url("sts")), &fields).await.unwrap()
    }

    /// A workload that gets the credential of `resource://reports` as `REPORTS`: its id and secret.
    async fn workload(&self) -> (String, String) {
        let config = json!({"bearer_token": "token-of-the-upstream", "allow_runtime_injection": true});
        let provider = json!({"name": "reports", "kind": "bearer_token", "config_json": config});
        let provider = self.operator(Method::POST, "/providers", Some(provider)).await.text("id");
        let resource = json!({"identifier": "resource://reports", "upstream_url": self.system.url("sts"),
            "scopes": ["reports:read"], "credential_provider_id": provider});
        assert_eq!(self.operator(Method::POST, "/resources", Some(resource)).await.status.as_u16(), 201);
        let made = self.operator(Method::POST, "/workloads", Some(json!({"name": "nightly"}))).await;
        (made.text("id"), made.text("secret"))
    }

    /// From now on an operator is asked.
    async fn hold(&self) {
        let content = "# caracal:data-document\npackage caracal.authz\nimport rego.v1\napp_ids := {}\ngrants := {}\n\
                       risk := [{\"scope\": \"reports:read\", \"tier\": \"reports\"}]\n\
                       approval_tiers := [{\"tier\": \"reports\", \"approver\": \"operator\"}]\n";
        let version = json!({"name": "held", "content": content});
        let version = self.operator(Method::POST, "/policies", Some(version)).await.text("version_id");
        let set = self.operator(Method::POST, "/policy-sets", Some(json!({"name": "held"}))).await.text("id");
        let manifest = json!({"manifest": [{ "policy_version_id": version }]});
        let made = self.operator(Method::POST, &format!("/policy-sets/{set}/versions"), Some(manifest)).await;
        let activation = json!({"version_id": made.text("version_id")});
        let active = self.operator(Method::POST, &format!("/policy-sets/{set}/activate"), Some(activation)).await;
        assert!(active.status.is_success(), "{}", active.json());
    }
}

fn bindings() -> Value {
    json!([{"env": "REPORTS", "resource": "resource://reports", "scopes": ["reports:read"]}])
}

mod t05_secrets {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_workload_is_launched_with_what_was_bound_approved_and_recorded() {
        let directory = tempfile::tempdir().unwrap();
        let (http, system) = (Http::new(), Running::start(&directory.path().join("data")));
        let tenant = Tenant::provision(&http, &system, &system.url("sts")).await;
        let launch = Launch { http: &http, system: &system, zone: &tenant.zone };
        let (id, secret) = launch.workload().await;
        let workload = (id.as_str(), secret.as_str());
        let (one, bindings) = (format!("/workloads/{id}"), bindings());
        let bound = launch.operator(Method::PUT, &one, Some(json!({ "bindings": bindings }))).await;
        assert_eq!(bound.json()["bindings"], bindings);

        let manifest = launch.run("manifest", workload, &[]).await;
        assert_eq!(manifest.json(), json!({"zone_id": tenant.zone, "workload_id": id, "bindings": bindings}));
        let env = [("env", "REPORTS")];
        let released = launch.run("credential", workload, &env).await;
        assert_eq!(released.json(), json!({"env": "REPORTS", "credential": "token-of-the-upstream"}));
        let evidence = tenant.evidence(&http, &system, &released.request_id()).await.to_string();
        assert!(
            evidence.contains("caracal-workload-mint") && !evidence.contains("token-of-the-upstream"),
            "{evidence}"
        );

        // From now on a human is asked; what they are asked, an operator sees and approves.
        launch.hold().await;
        let held = launch.run("credential", workload, &env).await;
        assert_eq!((held.status.as_u16(), held.text("error").as_str()), (401, "interaction_required"));
        let approval = held.text("approval_id");
        let waiting = launch.operator(Method::GET, "/approvals?state=pending", None).await.json();
        let shown = &waiting["items"][0];
        assert_eq!((&shown["id"], &shown["principal_id"]), (&json!(approval), &json!(id)));
        assert_eq!(
            (&shown["metadata_json"]["workload_name"], &shown["metadata_json"]["env"]),
            (&json!("nightly"), &json!("REPORTS"))
        );
        let approve = format!("/approvals/{approval}/approve");
        assert!(launch.operator(Method::POST, &approve, Some(json!({}))).await.status.is_success());
        let with = [("env", "REPORTS"), ("approval_id", approval.as_str())];
        assert_eq!(launch.run("credential", workload, &with).await.text("credential"), "token-of-the-upstream");
        let again = launch.run("credential", workload, &with).await;
        assert_eq!((again.status.as_u16(), again.text("error").as_str()), (409, "approval_consumed"));

        let shown = launch.operator(Method::GET, &format!("{one}/secret"), None).await;
        assert_eq!(shown.json(), json!({ "secret": secret }));
        let rotated = launch.operator(Method::POST, &format!("{one}/rotate-secret"), None).await.text("secret");
        assert_eq!(launch.run("manifest", workload, &[]).await.status.as_u16(), 401);
        assert_eq!(launch.run("manifest", (&id, &rotated), &[]).await.status.as_u16(), 200);
        assert_eq!(launch.operator(Method::DELETE, &one, None).await.status.as_u16(), 204);
        assert_eq!(launch.run("manifest", (&id, &rotated), &[]).await.status.as_u16(), 401);
    }
}

mod t14_automation {
    use super::*;

    /// Whoever asks for a credential, or holds anything that agents and automation are given, does not approve it; and what
    /// was approved is what was shown, or nothing.
    #[tokio::test(flavor = "multi_thread")]
    async fn nothing_that_an_agent_or_automation_holds_approves_and_an_approval_is_for_what_was_shown() {
        let directory = tempfile::tempdir().unwrap();
        let (http, system) = (Http::new(), Running::start(&directory.path().join("data")));
        let tenant = Tenant::provision(&http, &system, &system.url("sts")).await;
        let other = Tenant::provision(&http, &system, &system.url("sts")).await;
        let launch = Launch { http: &http, system: &system, zone: &tenant.zone };
        let (id, secret) = launch.workload().await;
        let workload = (id.as_str(), secret.as_str());
        let lifecycle = tenant.exchange(&http, &system, &[("scope", "agent:lifecycle")]).await.unwrap();
        let one = format!("/workloads/{id}");
        let bind = async |bindings: Value| {
            let bound = launch.operator(Method::PUT, &one, Some(json!({ "bindings": bindings }))).await;
            assert!(bound.status.is_success(), "{}", bound.json());
        };
        bind(bindings()).await;
        launch.hold().await;
        let ask = async |approval: Option<&str>| {
            let fields: Vec<(&str, &str)> =
                [("env", "REPORTS")].into_iter().chain(approval.map(|approval| ("approval_id", approval))).collect();
            let answer = launch.run("credential", workload, &fields).await;
            (answer.status.as_u16(), answer)
        };
        let (status, held) = ask(None).await;
        assert_eq!((status, held.text("error").as_str()), (401, "interaction_required"));
        let approval = held.text("approval_id");

        let admin_token = async |body: Value| {
            let url = format!("{}/v1/admin-tokens", system.url("api"));
            http.json(Method::POST, &url, &system.admin_token(), Some(body)).await.unwrap().text("token")
        };
        let in_zone = |zone: &str, capability: &str| json!({"name": "x", "scope": "zone", "zone_id": zone, "capability": capability});
        let decided = async |bearer: &str, how: &str| {
            let url = format!("{}/v1/zones/{}/approvals/{approval}/{how}", system.url("api"), tenant.zone);
            let claims = format!("Bearer {bearer}");
            // Nor does it help to say that one is somebody else.
            let headers = [
                ("authorization", claims.as_str()),
                ("content-type", "application/json"),
                ("x-caracal-account", "operator"),
                ("x-caracal-identity", "operator"),
                ("x-forwarded-user", "admin"),
            ];
            http.send(Method::POST, &url, &headers, "{}").await.unwrap()
        };
        for (what, bearer, status) in [
            ("the workload's secret", secret.clone(), 401),
            ("the approval's id", approval.clone(), 401),
            ("the application's secret", tenant.client_secret.clone(), 401),
            ("a mandate", lifecycle.text("access_token"), 401),
            ("nothing", String::new(), 401),
            ("automation that may write", admin_token(json!({"name": "x", "scope": "global"})).await, 403),
            ("automation that may write here", admin_token(in_zone(&tenant.zone, "write")).await, 403),
            ("who may read", admin_token(in_zone(&tenant.zone, "read")).await, 403),
            ("who approves elsewhere", admin_token(in_zone(&other.zone, "approve")).await, 403),
        ] {
            for how in ["approve", "reject"] {
                let answer = decided(&bearer, how).await;
                assert_eq!(answer.status.as_u16(), status, "{what}, {how}: {}", answer.json());
            }
            let (status, still) = ask(Some(&approval)).await;
            assert!((400..500).contains(&status), "{what}: {}", still.json());
            assert!(!String::from_utf8_lossy(&still.body).contains("token-of-the-upstream"), "{what}");
        }

        // Who may, does; but what it is for changes meanwhile.
        let approver = admin_token(in_zone(&tenant.zone, "approve")).await;
        assert_eq!(decided(&approver, "approve").await.status.as_u16(), 200);
        let mut widened = bindings();
        widened[0]["scopes"] = json!(["reports:read", "reports:write"]);
        let listed = launch.operator(Method::GET, "/resources", None).await.json();
        let is_ours = |item: &&Value| item["identifier"] == "resource://reports";
        let resource =
            listed["items"].as_array().unwrap().iter().find(is_ours).unwrap()["id"].as_str().unwrap().to_owned();
        let scopes = json!({"scopes": ["reports:read", "reports:write"]});
        let patched = launch.operator(Method::PATCH, &format!("/resources/{resource}"), Some(scopes)).await;
        assert!(patched.status.is_success(), "{}", patched.json());
        bind(widened).await;
        let (status, refused) = ask(Some(&approval)).await;
        assert!((400..500).contains(&status), "{}", refused.json());
        assert!(!String::from_utf8_lossy(&refused.body).contains("token-of-the-upstream"));
        let waiting = launch.operator(Method::GET, "/approvals?state=pending", None).await.json();
        assert!(waiting["items"].as_array().unwrap().iter().all(|item| item["id"] != *approval), "{waiting}");
    }
}
