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
}

mod t05_secrets {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_workload_is_launched_with_what_was_bound_approved_and_recorded() {
        let directory = tempfile::tempdir().unwrap();
        let (http, system) = (Http::new(), Running::start(&directory.path().join("data")));
        let tenant = Tenant::provision(&http, &system, &system.url("sts")).await;
        let launch = Launch { http: &http, system: &system, zone: &tenant.zone };
        let config = json!({"bearer_token": "token-of-the-upstream", "allow_runtime_injection": true});
        let provider = json!({"name": "reports", "kind": "bearer_token", "config_json": config});
        let provider = launch.operator(Method::POST, "/providers", Some(provider)).await.text("id");
        let resource = json!({"identifier": "resource://reports", "upstream_url": system.url("sts"),
            "scopes": ["reports:read"], "credential_provider_id": provider});
        assert_eq!(launch.operator(Method::POST, "/resources", Some(resource)).await.status.as_u16(), 201);
        let made = launch.operator(Method::POST, "/workloads", Some(json!({"name": "nightly"}))).await;
        let (id, secret) = (made.text("id"), made.text("secret"));
        let workload = (id.as_str(), secret.as_str());
        let one = format!("/workloads/{id}");
        let bindings = json!([{"env": "REPORTS", "resource": "resource://reports", "scopes": ["reports:read"]}]);
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
        let content = "# caracal:data-document\npackage caracal.authz\nimport rego.v1\napp_ids := {}\ngrants := {}\n\
                       risk := [{\"scope\": \"reports:read\", \"tier\": \"reports\"}]\n\
                       approval_tiers := [{\"tier\": \"reports\", \"approver\": \"operator\"}]\n";
        let version = json!({"name": "held", "content": content});
        let version = launch.operator(Method::POST, "/policies", Some(version)).await.text("version_id");
        let set = launch.operator(Method::POST, "/policy-sets", Some(json!({"name": "held"}))).await.text("id");
        let manifest = json!({"manifest": [{ "policy_version_id": version }]});
        let made = launch.operator(Method::POST, &format!("/policy-sets/{set}/versions"), Some(manifest)).await;
        let activation = json!({"version_id": made.text("version_id")});
        let active = launch.operator(Method::POST, &format!("/policy-sets/{set}/activate"), Some(activation)).await;
        assert!(active.status.is_success(), "{}", active.json());
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
