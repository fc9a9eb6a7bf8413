//! Policy set versions tried out.

use caracal_admin::NotSimulated;
use serde_json::{Value, json};

use crate::policy_sets::Setting;
use crate::world::Answer;

const RULES: &str = "app_ids := {\"pay\": \"app-1\"}\ngrants := {\"resource://n\": {\"application\": \"pay\", \
                     \"roles\": {\"exec\": [\"n:pay\"]}}}\nrisk := [{\"scope\": \"n:pay\", \"tier\": \"money\"}]\n\
                     approval_tiers := [{\"tier\": \"money\"}]";

impl Setting {
    async fn simulate(&self, body: Value) -> Answer {
        self.world.call("POST", &format!("{}/{}/simulate", self.sets, self.set), Some(body)).await
    }

    /// A delegated mint of `n:pay` by `app-1`.
    fn mint(&self) -> Value {
        json!({
            "schema_version": "2026-05-20",
            "principal": {"type": "Application", "id": "app-1", "zone_id": self.zone, "labels": ["exec"]},
            "resource": {"type": "Resource", "id": "r", "identifier": "resource://n", "scopes": ["n:pay"]},
            "action": {"id": "TokenExchange"},
            "delegation_edge": {"id": "e-1", "scopes": ["n:pay"]},
            "context": {"agent_session_id": "s-1", "requested_scopes": ["n:pay"]},
        })
    }

    async fn simulable(&self) -> String {
        let policy = self.policy("p", RULES).await;
        self.version(&self.set, &[&policy]).await
    }
}

#[tokio::test]
async fn a_simulation_shows_the_decision_in_its_whole_shape() {
    let setting = Setting::new().await;
    let policy = setting.policy("p", RULES).await;
    let version = setting.add(&setting.set, &[&policy]).await.is(201);
    let answer = setting.simulate(json!({"version_id": version["id"], "input": setting.mint()})).await.is(200);
    let expected = json!({
        "dry_run": true, "would_activate": true, "policy_set_id": setting.set, "version_id": version["id"],
        "schema_version": "2026-05-20", "input_schema_version": "2026-05-20",
        "manifest_sha256": version["manifest_sha256"], "policies": [policy], "warnings": [],
        "explanation": {
            "evaluation": "executed", "reason": "allowed by caracal-pay-mint, and held for a human", "decision": "allow",
            "policy_set_version_id": version["id"], "manifest_sha256": version["manifest_sha256"],
        },
        "result": {
            "decision": "allow", "evaluation_status": "complete",
            "determining_policies": [{"policy": "caracal-pay-mint"}],
            "diagnostics": [
                {"step_up_required": {"type": "human_approval", "tiers": [{"tier": "money"}]}},
                {"risk": [{"scope": "n:pay", "tier": "money"}]},
            ],
        },
    });
    assert_eq!(answer, expected);
    let mut wide = setting.mint();
    wide["context"]["requested_scopes"] = json!(["n:pay", "n:all"]);
    let answer = setting.simulate(json!({"version_id": version["id"], "input": wide})).await.is(200);
    assert_eq!(answer["explanation"]["reason"], "denied: delegation_scope_exceeded");
    assert_eq!((&answer["explanation"]["decision"], &answer["would_activate"]), (&json!("deny"), &json!(true)));
    assert_eq!(answer["result"]["diagnostics"], json!([{"reason": "delegation_scope_exceeded"}]));
}

#[tokio::test]
async fn a_policy_that_is_archived_goes_on_deciding_in_the_sets_that_have_it() {
    let setting = Setting::new().await;
    let version = setting.simulable().await;
    assert_eq!(setting.activate(&setting.set, &version).await["activated"], true);
    let question = json!({"version_id": version, "input": setting.mint()});
    let before = setting.simulate(question.clone()).await.is(200);
    assert_eq!(before["explanation"]["decision"], "allow");
    let policies = format!("/v1/zones/{}/policies", setting.zone);
    let listed = setting.world.get(&policies).await.is(200);
    for policy in listed["items"].as_array().unwrap() {
        let path = format!("{policies}/{}", policy["id"].as_str().unwrap());
        assert_eq!(setting.world.call("DELETE", &path, None).await.status, 204);
    }
    assert_eq!(setting.world.get(&policies).await.is(200)["items"], json!([]));
    assert_eq!(setting.simulate(question).await.is(200), before);
    let set = setting.world.get(&format!("{}/{}", setting.sets, setting.set)).await.is(200);
    assert_eq!(set["active_version_id"], json!(version));
}

#[tokio::test]
async fn without_an_input_nothing_is_evaluated_and_nothing_is_odd() {
    let setting = Setting::new().await;
    let version = setting.simulable().await;
    let answer = setting.simulate(json!({"version_id": version})).await.is(200);
    assert_eq!((&answer["warnings"], &answer["would_activate"]), (&json!([]), &json!(true)));
    assert_eq!((&answer["explanation"]["evaluation"], &answer["result"]), (&json!("not_executed"), &json!(null)));
    assert!(answer["explanation"].get("decision").is_none());
}

#[tokio::test]
async fn what_is_odd_about_an_input_is_told_in_order_and_it_is_asked_all_the_same() {
    let setting = Setting::new().await;
    let version = setting.simulable().await;
    let all =
        ["input_schema_mismatch:", "principal_zone_mismatch", "missing_resource", "missing_action", "missing_context"];
    let with = |name: &str, value: Value| {
        let mut input = setting.mint();
        input[name] = value;
        input
    };
    let mut foreign = setting.mint();
    foreign["principal"]["zone_id"] = json!("other");
    for (input, expected, evaluation) in [
        (json!({"principal": {"zone_id": "other"}}), &all[..], "executed"),
        (json!({}), &all[..], "executed"),
        (foreign, &all[1..2], "executed"),
        (with("resource", Value::Null), &all[2..3], "executed"),
        (with("schema_version", json!("")), &all[0..1], "executed"),
        (
            with("schema_version", json!("2020-01-01")),
            &["input_schema_mismatch:2020-01-01", "sts_simulation_failed:policy_eval_failed"],
            "failed",
        ),
        (with("action", json!("x")), &["missing_action", "sts_simulation_failed:invalid_token"], "failed"),
        (with("delegation_edge", json!("x")), &["sts_simulation_failed:invalid_token"], "failed"),
        (with("unknown", json!({"a": 1})), &[], "executed"),
    ] {
        let answer = setting.simulate(json!({"version_id": version, "input": input})).await.is(200);
        assert_eq!(answer["warnings"], json!(expected), "{input}");
        assert_eq!(answer["explanation"]["evaluation"], evaluation, "{input}");
        assert_eq!(answer["result"].is_null(), evaluation == "failed", "{input}");
        let odd = expected.iter().any(|warning| !warning.starts_with("sts_"));
        assert_eq!(answer["would_activate"], json!(!odd), "{input}");
    }
}

#[tokio::test]
async fn an_evaluation_that_brings_no_result_is_an_answer_with_a_warning() {
    let setting = Setting::new().await;
    let version = setting.simulable().await;
    let good =
        json!({"decision": "allow", "evaluation_status": "complete", "determining_policies": [], "diagnostics": []});
    let without = |name: &str, value: Value| {
        let mut result = good.clone();
        result[name] = value;
        Ok(result)
    };
    for (told, warning) in [
        (Err(NotSimulated::Unreachable("no route".to_owned())), "sts_simulation_unreachable:no route"),
        (
            Err(NotSimulated::Failed { code: "policy_eval_failed", text: "why".to_owned() }),
            "sts_simulation_failed:policy_eval_failed",
        ),
        (without("decision", json!("maybe")), "sts_simulation_invalid_response:decision"),
        (without("evaluation_status", json!("partial")), "sts_simulation_invalid_response:evaluation_status"),
        (without("diagnostics", json!({})), "sts_simulation_invalid_response:diagnostics"),
        (without("determining_policies", json!(["x"])), "sts_simulation_invalid_response:determining_policies"),
        (Ok(json!("garbage")), "sts_simulation_invalid_response:decision"),
    ] {
        *setting.world.runtime.simulated.lock().unwrap() = Some(told);
        let answer = setting.simulate(json!({"version_id": version, "input": setting.mint()})).await.is(200);
        assert_eq!((&answer["warnings"], &answer["result"]), (&json!([warning]), &json!(null)));
        assert_eq!((&answer["explanation"]["evaluation"], &answer["would_activate"]), (&json!("failed"), &json!(true)));
    }
}

#[tokio::test]
async fn t02_sts_policy_only_a_version_of_a_live_set_of_this_zone_can_be_tried_out() {
    let setting = Setting::new().await;
    let version = setting.simulable().await;
    for (body, status, code) in [
        (json!({}), 400, "invalid_body"),
        (json!({"version_id": ""}), 400, "invalid_body"),
        (json!({"version_id": version, "input": null}), 400, "invalid_body"),
        (json!({"version_id": version, "input": []}), 400, "invalid_body"),
        (json!({"version_id": "none"}), 404, "version_not_found"),
        (json!({"version_id": "no id"}), 404, "version_not_found"),
    ] {
        setting.simulate(body).await.is_refused(status, code);
    }
    let other = setting.world.zone("Other").await;
    let path = format!("/v1/zones/{other}/policy-sets/{}/simulate", setting.set);
    setting.world.call("POST", &path, Some(json!({"version_id": version}))).await.is_refused(404, "version_not_found");
    let read = setting.world.mint("read", None).await;
    let path = format!("{}/{}/simulate", setting.sets, setting.set);
    let answer = setting.world.call_as(Some(&read), "POST", &path, Some(json!({"version_id": version}))).await;
    answer.is_refused(403, "admin_token_read_only");
    setting.world.call("DELETE", &format!("{}/{}", setting.sets, setting.set), None).await.is(204);
    setting.simulate(json!({"version_id": version})).await.is_refused(404, "version_not_found");
}

/// Policy.md, security property 14.
#[tokio::test]
async fn t02_sts_policy_a_simulation_changes_nothing_but_leaves_its_record() {
    let setting = Setting::new().await;
    let (version, other) = (setting.simulable().await, setting.policy("q", "grants := {}").await);
    let active = setting.version(&setting.set, &[&other]).await;
    setting.activate(&setting.set, &active).await;
    let before = setting.events().len();
    setting.simulate(json!({"version_id": version, "input": setting.mint()})).await.is(200);
    let set = setting.world.get(&format!("{}/{}", setting.sets, setting.set)).await.is(200);
    assert_eq!(set["active_version_id"], json!(active));
    assert_eq!(setting.events().len(), before);
    let evidence = setting.world.get(&format!("/v1/zones/{}/audit", setting.zone)).await.is(200);
    assert_eq!(evidence["items"], json!([]));
    let records = setting.world.records(Some(&setting.zone)).await;
    let last = records.last().unwrap();
    assert!(last.action.ends_with("/simulate"), "{}", last.action);
    assert_eq!((last.entity_type.as_deref(), last.entity_id.as_ref()), (Some("policy-sets"), Some(&setting.set)));
    let payload: Value = serde_json::from_str(last.payload.as_deref().unwrap()).unwrap();
    assert_eq!(payload["change_kind"], "action");
    assert!(!last.payload.as_deref().unwrap().contains("app-1"), "names, never contents");
}
