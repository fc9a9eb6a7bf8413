//! Evidence, as operators read it.

use caracal_authority::{EventId, PolicySetVersionId, Timestamp, ZoneId};
use caracal_ledger::{Decision, EvaluationStatus, EventType, Evidence, Ledger, MetadataKey as Key};
use caracal_store::StoreError;
use serde_json::{Value, json};

use crate::world::World;

const NOON: i64 = 1_767_268_800_000_000;

fn event(zone: &str, id: &str, at: i64) -> Evidence {
    let (id, zone) = (EventId::parse(id).unwrap(), ZoneId::parse(zone).unwrap());
    let at = Timestamp::from_micros(at);
    Evidence::new(id, zone, EventType::TokenExchange, Decision::Allow, EvaluationStatus::Complete, at).request("req-1")
}

async fn record(world: &World, zone: &str, events: Vec<Evidence>) {
    let zone = ZoneId::parse(zone).unwrap();
    let recorded: Result<(), StoreError> = world
        .store
        .commit(&zone, (world.ledger.clone(), events), |tx, (ledger, events): &(Ledger, Vec<Evidence>)| {
            Box::pin(async move { ledger.record(tx, events).await })
        })
        .await;
    recorded.unwrap();
}

async fn setting() -> (World, String, String) {
    let world = World::new().await;
    let zone = world.zone("Ops").await;
    let version = PolicySetVersionId::parse("psv-1").unwrap();
    let allow = event(&zone, "e-1", NOON)
        .under_policy(None, Some(version), Some("ab".repeat(32)))
        .determined_by("caracal-pay-mint")
        .attribute(Key::ApplicationId, "app-1")
        .attribute(Key::ApplicationName, "=HYPERLINK(\"x\")")
        .attribute(Key::Resource, "resource://n")
        .attribute(Key::RequestedScopes, json!(["n:read", "n:pay"]))
        .attribute(Key::AgentSessionId, "s-1")
        .attribute(Key::SessionId, "ar-1")
        .attribute(Key::AgentLabels, json!(["exec", "night"]))
        .attribute(Key::LatencyMs, 12);
    let mut deny = event(&zone, "e-2", NOON + 1).because("delegation_scope_exceeded");
    deny.decision = Decision::Deny;
    let deny = deny
        .attribute(Key::ApplicationId, "app-2")
        .attribute(Key::ApplicationRegistrationMethod, "managed")
        .attribute(Key::AgentSessionId, "s-2")
        .attribute(Key::AgentLifecycle, "task")
        .attribute(Key::AgentLabels, json!(["exec"]))
        .attribute(Key::Resource, "resource://n")
        .attribute(Key::RequestedScopes, json!(["n:pay"]))
        .attribute(Key::SessionId, "ar-2")
        .attribute(Key::DelegationEdgeId, "e-1")
        .attribute(Key::DelegationScopes, json!(["n:read"]));
    let mut other = event(&zone, "e-3", NOON + 60_000_000).request("req-2");
    other.event_type = EventType::GatewayResourceRequest;
    record(&world, &zone, vec![allow, deny, other]).await;
    let path = format!("/v1/zones/{zone}/audit");
    (world, zone, path)
}

fn ids(listing: &Value) -> Vec<&str> {
    listing["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn events_come_newest_first_and_in_their_whole_shape() {
    let (world, zone, path) = setting().await;
    let listed = world.get(&path).await.is(200);
    assert_eq!(ids(&listed), ["e-3", "e-2", "e-1"]);
    let expected = json!({
        "id": "e-1", "zone_id": zone, "event_type": "token_exchange", "request_id": "req-1", "decision": "allow",
        "policy_set_id": null, "policy_set_version_id": "psv-1", "manifest_sha": "ab".repeat(32),
        "evaluation_status": "complete", "determining_policies_json": [{"policy": "caracal-pay-mint"}],
        "diagnostics_json": [],
        "metadata_json": {
            "application_id": "app-1", "application_name": "=HYPERLINK(\"x\")", "resource": "resource://n",
            "requested_scopes": ["n:read", "n:pay"], "agent_session_id": "s-1", "session_id": "[redacted]",
            "agent_labels": ["exec", "night"], "latency_ms": 12,
        },
        "occurred_at": "2026-01-01T12:00:00.000Z", "ingested_at": "2026-01-01T00:00:00.000Z",
    });
    assert_eq!(listed["items"][2], expected);
    assert_eq!((&listed["items"][0]["metadata_json"], &listed["next_cursor"]), (&json!(null), &json!(null)));
}

#[tokio::test]
async fn filters_narrow_and_all_must_hold() {
    let (world, _, path) = setting().await;
    for (query, expected) in [
        ("decision=deny", &["e-2"][..]),
        ("decision=partial", &[]),
        ("request_id=req-1", &["e-2", "e-1"]),
        ("event_type=gateway_resource_request,%20run_launch", &["e-3"]),
        ("application_id=app-1", &["e-1"]),
        ("session_id=s-2", &["e-2"]),
        ("authority_record_id=ar-1", &["e-1"]),
        ("label=exec", &["e-2", "e-1"]),
        ("label=night&decision=allow", &["e-1"]),
        ("label=exec&application_id=app-3", &[]),
        ("since=2026-01-01T12:00:00.000001Z", &["e-3", "e-2"]),
        ("until=2026-01-01T12:00:00.000001Z", &["e-1"]),
        ("since=2026-01-01T12:00:00Z&until=2026-01-01T12:01:00Z", &["e-2", "e-1"]),
        ("limit=1", &["e-3"]),
    ] {
        assert_eq!(ids(&world.get(&format!("{path}?{query}")).await.is(200)), expected, "{query}");
    }
}

#[tokio::test]
async fn a_query_is_refused_in_the_contracts_order() {
    let (world, _, path) = setting().await;
    let long = format!("application_id={}", "a".repeat(129));
    for (query, code) in [
        ("event_type=,", "invalid_query"),
        ("event_type=", "invalid_query"),
        ("event_type=a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q", "invalid_query"),
        ("fields=payload_json", "invalid_fields"),
        ("fields=id,,decision", "invalid_fields"),
        ("fields=", "invalid_query"),
        ("limit=1001", "invalid_query"),
        ("limit=0", "invalid_query"),
        ("since=2026-01-01T00:00:00+00:00", "invalid_query"),
        ("since=2026-01-01", "invalid_query"),
        ("decision=approved", "invalid_query"),
        ("format=xml", "invalid_query"),
        ("label=", "invalid_query"),
        (&long, "invalid_query"),
        ("cursor=!", "invalid_cursor"),
        ("cursor=!&limit=0&fields=x", "invalid_query"),
        ("cursor=!&fields=x", "invalid_fields"),
        ("cursor=!&event_type=,", "invalid_query"),
    ] {
        world.get(&format!("{path}?{query}")).await.is_refused(400, code);
    }
    assert_eq!(world.get(&format!("{path}?limit=1000")).await.is(200)["items"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn t16_clients_pages_of_events_that_share_an_instant_lose_none() {
    let world = World::new().await;
    let zone = world.zone("Ops").await;
    let events = (0..25).map(|number| event(&zone, &format!("e-{number:02}"), NOON)).collect();
    record(&world, &zone, events).await;
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = world.get(&format!("/v1/zones/{zone}/audit?limit=10{cursor}")).await.is(200);
        seen.extend(ids(&page).into_iter().map(str::to_owned));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    let expected: Vec<String> = (0..25).rev().map(|number| format!("e-{number:02}")).collect();
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn fields_choose_and_flatten() {
    let (world, _, path) = setting().await;
    let listed = world.get(&format!("{path}?fields=id,determining_policies,agent_labels,latency_ms")).await.is(200);
    let expected = json!([
        {"id": "e-3", "determining_policies": []},
        {"id": "e-2", "determining_policies": [], "agent_labels": ["exec"]},
        {"id": "e-1", "determining_policies": ["caracal-pay-mint"], "agent_labels": ["exec", "night"], "latency_ms": 12},
    ]);
    assert_eq!(listed["items"], expected);
}

#[tokio::test]
async fn t05_secrets_a_csv_export_is_a_file_that_runs_nothing() {
    let (world, zone, path) = setting().await;
    let fields = "id,occurred_at,application_name,requested_scopes,latency_ms";
    let file = world.get(&format!("{path}?format=csv&fields={fields}&request_id=req-1")).await;
    assert_eq!(file.headers["content-type"], "text/csv; charset=utf-8");
    assert_eq!(file.headers["content-disposition"], format!("attachment; filename=\"audit-{zone}.csv\""));
    let expected = "id,occurred_at,application_name,requested_scopes,latency_ms\r\n\
                    e-2,2026-01-01T12:00:00.000Z,,n:pay,\r\n\
                    e-1,2026-01-01T12:00:00.000Z,\"'=HYPERLINK(\"\"x\"\")\",n:read n:pay,12\r\n";
    assert_eq!((file.status.as_u16(), file.text.as_str()), (200, expected));
    let all = world.get(&format!("{path}?format=csv&limit=1")).await;
    let lines: Vec<&str> = all.text.split("\r\n").collect();
    assert!(lines[0].starts_with("id,occurred_at,event_type,decision") && lines[0].ends_with(",federated_user_issuer"));
    assert_eq!((lines.len(), lines[0].split(',').count()), (3, 46));
}

#[tokio::test]
async fn a_request_is_found_by_its_id_oldest_event_first() {
    let (world, _, path) = setting().await;
    let found = world.get(&format!("{path}/by-request/req-1")).await.is(200);
    let found: Vec<&str> = found.as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap()).collect();
    assert_eq!(found, ["e-1", "e-2"]);
    world.get(&format!("{path}/by-request/none")).await.is_refused(404, "request_not_found");
    world.get(&format!("{path}/by-request/none/explain")).await.is_refused(404, "request_not_found");
}

#[tokio::test]
async fn t12_foothold_no_request_id_a_caller_may_choose_keeps_its_request_from_being_explained() {
    let world = World::new().await;
    let zone = world.zone("Ops").await;
    let longest = "x".repeat(128);
    for (number, (id, encoded)) in [
        ("a/b", "a%2Fb"),
        ("../explain", "..%2Fexplain"),
        ("{request}", "%7Brequest%7D"),
        ("50%", "50%25"),
        ("\"<&>'~`!", "%22%3C&%3E'~%60!"),
        (&longest, &longest),
    ]
    .into_iter()
    .enumerate()
    {
        let mut denied = event(&zone, &format!("e-{number}"), NOON).request(id);
        denied.decision = Decision::Deny;
        record(&world, &zone, vec![denied]).await;
        let path = format!("/v1/zones/{zone}/audit/by-request/{encoded}");
        assert_eq!(world.get(&path).await.is(200)[0]["request_id"], id);
        let explained = world.get(&format!("{path}/explain")).await.is(200);
        assert_eq!((&explained["request_id"], &explained["final_decision"]), (&json!(id), &json!("deny")));
    }
    for encoded in ["a%20b", "a%0Ab", "%C3%A9", "%00"] {
        let path = format!("/v1/zones/{zone}/audit/by-request/{encoded}/explain");
        world.get(&path).await.is_refused(400, "invalid_params");
    }
}

/// An auditor who can't read which session it was learns nothing. `session_id` is hidden because published clients know it so.
#[test]
fn t05_secrets_what_events_of_ours_say_is_not_taken_for_a_secret() {
    for key in caracal_ledger::MetadataKey::ALL {
        let mut shown = json!({key.as_str(): "application_client_secret"});
        caracal_http::redact::evidence(&mut shown);
        assert_eq!(shown[key.as_str()] == "[redacted]", key.as_str() == "session_id", "{}", key.as_str());
    }
}

#[tokio::test]
async fn t05_secrets_metadata_is_redacted_at_any_depth_wherever_it_is_shown() {
    let world = World::new().await;
    let zone = world.zone("Ops").await;
    let inner = json!({"Authorization": "sk-seen", "list": [{"api_key": "sk-seen"}, {"COOKIE": ["sk-seen"]}, {"Set-Cookie": "sk-seen"}], "n": 1});
    // What a client wrote where nobody expects a secret.
    let quoted = "called https://h/p?api_key=sk-seen&n=1 with Bearer sk-seen-0123456789";
    let mut denied = event(&zone, "e-1", NOON)
        .attribute(Key::Reason, inner)
        .attribute(Key::Env, json!({"token": "sk-seen"}))
        .because(quoted);
    denied = denied.attribute(Key::TraceId, quoted);
    denied.decision = Decision::Deny;
    record(&world, &zone, vec![denied.attribute(Key::Resource, "resource://n")]).await;
    let path = format!("/v1/zones/{zone}/audit");
    for path in [
        path.clone(),
        format!("{path}?fields=reason,resource"),
        format!("{path}?format=csv&fields=reason,resource,trace_id"),
        format!("{path}/by-request/req-1"),
        format!("{path}/by-request/req-1/explain"),
    ] {
        let shown = world.get(&path).await;
        assert_eq!(shown.status, 200, "{path}");
        assert!(!shown.text.contains("sk-seen") && shown.text.contains("resource://n"), "{path}: {}", shown.text);
    }
    let shown = world.get(&path).await.is(200)["items"][0]["metadata_json"].clone();
    let expected = json!({"Authorization": "[redacted]", "list": [{"api_key": "[redacted]"}, {"COOKIE": "[redacted]"}, {"Set-Cookie": "[redacted]"}], "n": 1});
    assert_eq!((&shown["reason"], &shown["env"]["token"]), (&expected, &json!("[redacted]")));
    world.get(&format!("{path}?fields=metadata_json")).await.is_refused(400, "invalid_fields");
}

#[tokio::test]
async fn an_explanation_names_the_cause_and_the_input_to_try_again() {
    let (world, zone, path) = setting().await;
    let explained = world.get(&format!("{path}/by-request/req-1/explain")).await.is(200);
    assert_eq!((&explained["final_decision"], &explained["zone_id"]), (&json!("deny"), &json!(zone)));
    assert_eq!(explained["events"].as_array().unwrap().len(), 2);
    let denied = explained["denied"].as_array().unwrap();
    assert_eq!((denied.len(), &denied[0]["event_id"]), (1, &json!("e-2")));
    assert_eq!(denied[0]["diagnostics"], json!([{"reason": "delegation_scope_exceeded"}]));
    assert_eq!(denied[0]["metadata"]["session_id"], "[redacted]");
    let input = &denied[0]["policy_input"];
    assert_eq!(input["delegation_edge"], json!({"id": "e-1", "scopes": ["n:read"]}));
    assert_eq!(input["session"], json!({"id": "ar-2"}));
    assert_eq!(input["principal"]["id"], "app-2");
    let allowed = world.get(&format!("{path}/by-request/req-2/explain")).await.is(200);
    assert_eq!((&allowed["final_decision"], &allowed["denied"]), (&json!("allow"), &json!([])));
}

#[tokio::test]
async fn an_explained_denial_allows_once_its_cause_is_mended() {
    let (world, _, path) = setting().await;
    let explained = world.get(&format!("{path}/by-request/req-1/explain")).await.is(200);
    let mut input = explained["denied"][0]["policy_input"].clone();
    let document = "# caracal:data-document\npackage caracal.authz\nimport rego.v1\n\
                    app_ids := {\"pay\": \"app-2\"}\n\
                    grants := {\"resource://n\": {\"application\": \"pay\", \"roles\": {\"exec\": [\"n:pay\"]}}}\n";
    let documents = [caracal_policy::Document { policy_version_id: "pv-1", content: document }];
    let bundle = caracal_policy::Bundle::build(&documents).unwrap();
    let reason = |input: &Value| {
        let input = caracal_policy::Input::for_simulation(input.as_object().unwrap().clone()).unwrap();
        let verdict = caracal_policy::decide(&bundle, &input).unwrap();
        serde_json::to_value(&verdict).unwrap()
    };
    assert_eq!(reason(&input)["diagnostics"], json!([{"reason": "delegation_scope_exceeded"}]));
    input["delegation_edge"]["scopes"] = json!(["n:read", "n:pay"]);
    assert_eq!(reason(&input)["decision"], "allow");
}
