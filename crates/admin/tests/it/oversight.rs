//! What operators look at: records, sessions, subjects, the management chain, a zone in numbers (admin-api.md §5.1, §5.8,
//! §5.12).

use serde_json::{Value, json};

use crate::standing::{Standing, managed};
use crate::world::World;

fn column(answer: &Value, name: &str) -> Vec<String> {
    let items = answer["items"].as_array().unwrap();
    items.iter().map(|item| item[name].as_str().unwrap_or("null").to_owned()).collect()
}

#[tokio::test]
async fn records_are_listed_with_the_status_they_have_now() {
    let world = World::new().await;
    let zone = world.zone("Ops").await;
    world.stand_usual(&zone, "a", "user-1", "app-1").await;
    let path = format!("/v1/zones/{zone}/authority-records");
    let of = |query: &str| {
        let path = format!("{path}?{query}");
        let world = &world;
        async move { column(&world.get(&path).await.is(200), "authority_record_id") }
    };
    assert_eq!(of("").await, ["a-user", "a-minted", "a-bystander"]);
    assert_eq!(of("kind=user").await, ["a-user"]);
    assert_eq!(of("subject_id=another-app").await, ["a-minted"]);
    assert_eq!(of("authority_record_id=a-user&status=active").await, ["a-user"]);
    world
        .call("POST", &format!("/v1/zones/{zone}/subjects/revoke"), Some(json!({"subject_id": "user-1"})))
        .await
        .is(200);
    assert_eq!(of("status=revoked").await, ["a-user", "a-minted"]);
    assert_eq!(of("status=active").await, ["a-bystander"]);
    world.clock.advance(3_600);
    assert_eq!((of("status=active").await, of("status=expired").await), (vec![], vec!["a-bystander".to_owned()]));
    let one = world.get(&format!("{path}?authority_record_id=a-user")).await.is(200)["items"][0].clone();
    let expected = json!({
        "authority_record_id": "a-user", "zone_id": zone, "authority_record_type": "user", "subject_id": "user-1",
        "federated_user_issuer": "https://idp.example", "parent_authority_record_id": null, "status": "revoked",
        "expires_at": "2026-01-01T01:00:00.000Z", "authenticated_at": "2026-01-01T00:00:00.000Z",
        "created_at": "2026-01-01T00:00:00.000Z", "revoked_at": "2026-01-01T00:00:00.000Z",
        "revoked_reason": "subject_revoked",
    });
    assert_eq!(one, expected);
    let minted = world.get(&format!("{path}?authority_record_id=a-minted")).await.is(200)["items"][0].clone();
    assert_eq!((minted.get("federated_user_issuer"), &minted["parent_authority_record_id"]), (None, &json!("a-user")));
    let csv = world.get(&format!("{path}?format=csv&kind=user")).await;
    assert_eq!(csv.headers["content-type"], "text/csv; charset=utf-8");
    assert_eq!(
        csv.headers["content-disposition"].to_str().unwrap(),
        format!("attachment; filename=\"authority-records-{zone}.csv\"")
    );
    let lines: Vec<&str> = csv.text.split("\r\n").collect();
    assert_eq!(
        lines,
        [
            "authority_record_id,authority_record_type,subject_id,federated_user_issuer,parent_authority_record_id,status,\
             authenticated_at,created_at,expires_at,revoked_at,revoked_reason",
            "a-user,user,user-1,https://idp.example,,revoked,2026-01-01T00:00:00.000Z,2026-01-01T00:00:00.000Z,\
             2026-01-01T01:00:00.000Z,2026-01-01T00:00:00.000Z,subject_revoked",
            "",
        ]
    );
}

#[tokio::test]
async fn sessions_are_listed_with_whose_authority_they_ride() {
    let world = World::new().await;
    let zone = world.zone("Ops").await;
    world.stand_usual(&zone, "a", "user-1", "app-1").await;
    let path = format!("/v1/zones/{zone}/sessions");
    let of = |query: &str| {
        let path = format!("{path}?{query}");
        let world = &world;
        async move { column(&world.get(&path).await.is(200), "session_id") }
    };
    assert_eq!(of("").await, ["a-root", "a-other", "a-child"]);
    assert_eq!(of("application_id=other-app").await, ["a-other"]);
    assert_eq!(of("parent_session_id=a-root").await, ["a-child"]);
    assert_eq!(of("subject_id=user-1&status=active&lifecycle=task").await, ["a-root", "a-child"]);
    assert_eq!(of("lifecycle=service").await, Vec::<String>::new());
    // Labels are whole texts, whatever is in them.
    assert_eq!(of("label=%7Brole%7D%2Cx").await.len(), 3);
    assert_eq!(of("label=x").await, Vec::<String>::new());
    assert_eq!(of("label=%22%5D%27%25").await, Vec::<String>::new());
    let root = world.get(&format!("{path}?limit=1")).await.is(200)["items"][0].clone();
    let expected = json!({
        "session_id": "a-root", "application_id": "app-1", "parent_session_id": null, "status": "active",
        "lifecycle": "task", "labels": ["{role},x"], "depth": 0, "child_count": 1,
        "subject_authority_record_id": "a-user", "subject_id": "user-1", "federated_user_id": "user-1",
        "federated_user_issuer": "https://idp.example", "started_at": "2026-01-01T00:00:00.000Z",
        "last_active_at": "2026-01-01T00:00:00.000Z", "terminated_at": null, "termination_reason": null,
        "ttl_seconds": 600,
    });
    assert_eq!(root, expected);
    let other = world.get(&format!("{path}?application_id=other-app")).await.is(200)["items"][0].clone();
    assert_eq!((other.get("federated_user_id"), &other["subject_id"]), (None, &json!("bystander")));
    let csv = world.get(&format!("{path}?format=csv&parent_session_id=a-root")).await.text;
    let line = csv.lines().nth(1).unwrap();
    let expected = "a-child,app-1,a-root,active,task,\"{role},x\",1,0,a-user,user-1,user-1,https://idp.example,";
    assert!(line.starts_with(expected), "{line}");
}

#[tokio::test]
async fn lists_of_what_operators_look_at_refuse_what_can_t_be_meant_and_page_without_gaps() {
    let world = World::new().await;
    let zone = world.zone("Ops").await;
    world.stand_usual(&zone, "a", "user-1", "app-1").await;
    world.get("/v1/zones/none").await.is_refused(404, "zone_not_found");
    for (kind, wrong) in [
        ("authority-records", "status=gone"),
        ("authority-records", "kind=robot"),
        ("sessions", "status=gone"),
        ("sessions", "lifecycle=daemon"),
        ("sessions", "label="),
        ("sessions", "label=a%00b"),
        ("admin-audit", "method=GET"),
        ("admin-audit", "since=2026-01-01T00:00:00%2B00:00"),
        ("admin-audit", "format=xml"),
        ("subjects", "kind=robot"),
        ("subjects", "limit=201"),
        ("subjects", "cursor="),
    ] {
        world.get(&format!("/v1/zones/{zone}/{kind}?{wrong}")).await.is_refused(400, "invalid_query");
    }
    world.get(&format!("/v1/zones/{zone}/admin-audit?fields=payload_json")).await.is_refused(400, "invalid_fields");
    for kind in ["authority-records", "sessions", "admin-audit", "subjects"] {
        let path = format!("/v1/zones/{zone}/{kind}");
        world.get(&format!("{path}?cursor=!!")).await.is_refused(400, "invalid_cursor");
        if kind != "subjects" {
            world.get(&format!("{path}?limit=1001")).await.is_refused(400, "invalid_query");
        }
    }
    // Refusals become records, too: none may come while pages are turned.
    world.records(Some(&zone)).await;
    for kind in ["authority-records", "sessions", "admin-audit", "subjects"] {
        let path = format!("/v1/zones/{zone}/{kind}");
        let whole = world.get(&path).await.is(200);
        let mut walked = Vec::new();
        let mut query = "limit=1".to_owned();
        loop {
            let page = world.get(&format!("{path}?{query}")).await.is(200);
            walked.extend(page["items"].as_array().unwrap().clone());
            let Some(next) = page["next_cursor"].as_str() else { break };
            query = format!("limit=1&cursor={next}");
        }
        assert_eq!(json!(walked), whole["items"], "{kind}");
        let empty = world.get(&format!("/v1/zones/none/{kind}")).await.is(200);
        assert_eq!(empty["items"], json!([]), "{kind}");
    }
}

#[tokio::test]
async fn a_subject_is_found_by_any_part_of_its_name_and_shown_with_what_is_done_for_it() {
    let world = World::new().await;
    let zone = world.zone("Ops").await;
    let app = world.create(&format!("/v1/zones/{zone}/applications"), managed("Invoice Bot")).await;
    world.stand_usual(&zone, "a", "auth0|507F\\x", "app-1").await;
    world.stand(&zone, Standing { records: vec![world.record(&zone, "own", &app)], ..Standing::default() }).await;
    let path = format!("/v1/zones/{zone}/subjects");
    let of = |query: &str| {
        let path = format!("{path}?{query}");
        let world = &world;
        async move { column(&world.get(&path).await.is(200), "subject_id") }
    };
    assert_eq!(of("search=507f").await, ["auth0|507F\\x"]);
    assert_eq!(of("search=%5Cx").await, ["auth0|507F\\x"]);
    assert_eq!(of("search=AUTH_%7C").await, ["auth0|507F\\x"]);
    assert_eq!(of("search=invoice").await, [app.as_str()]);
    assert_eq!(of("kind=user").await, ["auth0|507F\\x"]);
    assert_eq!(of("kind=application").await.len(), 3);
    let shown = world.get(&format!("{path}/overview?subject_id=auth0%7C507F%5Cx")).await.is(200);
    let at = "2026-01-01T00:00:00.000Z";
    let session = |id: &str| {
        json!({"session_id": id, "application_id": "app-1", "application_name": null, "lifecycle": "task",
            "status": "active", "started_at": at})
    };
    let expected = json!({
        "subject": {"subject_id": "auth0|507F\\x", "federated": true, "application_name": null, "total_sessions": 1,
            "active_sessions": 1, "revoked_sessions": 0, "first_seen": at, "last_seen": at, "last_revoked_at": null,
            "issuer": "https://idp.example"},
        "governed": {"active": 2, "total": 2, "recent": [session("a-root"), session("a-child")]},
        "approvals": {"pending": 0, "total": 0},
        "connections": [],
    });
    assert_eq!(shown, expected);
    let own = world.get(&format!("{path}/overview?subject_id={app}")).await.is(200);
    assert_eq!(
        (&own["subject"]["application_name"], &own["subject"]["federated"]),
        (&json!("Invoice Bot"), &json!(false))
    );
    world.get(&format!("{path}/overview?subject_id=nobody")).await.is_refused(404, "subject_not_found");
    world.get(&format!("{path}/overview")).await.is_refused(400, "invalid_query");
}

#[tokio::test]
async fn the_management_chain_is_listed_filtered_and_exported() {
    let world = World::new().await;
    let zone = world.zone("Ops").await;
    let apps = format!("/v1/zones/{zone}/applications");
    let app = world.create(&apps, managed("Bot")).await;
    world.clock.advance(1);
    let secret = Some(json!({"client_secret": "s".repeat(32), "name": "B"}));
    world.call("PATCH", &format!("{apps}/{app}"), secret).await.is(200);
    let path = format!("/v1/zones/{zone}/admin-audit");
    let all = world.get(&path).await.is(200);
    assert_eq!(column(&all, "method"), ["PATCH", "POST", "POST"]);
    let patch = &all["items"][0];
    assert_eq!((&patch["chain_seq"], &patch["signed"], &patch["status_code"]), (&json!(3), &json!(true), &json!(200)));
    assert_eq!((&patch["entity_type"], &patch["entity_id"]), (&json!("applications"), &json!(app)));
    assert_eq!(patch["payload_json"]["changed_fields"], json!(["name"]));
    assert_eq!(patch["payload_json"]["secret_rotated"], true);
    for (query, count) in [
        ("method=PATCH", 1),
        ("entity_type=applications", 2),
        (&format!("entity_id={app}&method=POST"), 1),
        ("since=2026-01-01T00:00:01Z", 1),
        // The end is not part of it.
        ("until=2026-01-01T00:00:01Z", 2),
        ("actor_id=nobody", 0),
    ] {
        assert_eq!(
            world.get(&format!("{path}?{query}")).await.is(200)["items"].as_array().unwrap().len(),
            count,
            "{query}"
        );
    }
    let some = world.get(&format!("{path}?fields=method,change_kind,changed_fields&limit=1")).await.is(200);
    assert_eq!(
        some["items"],
        json!([{"method": "PATCH", "change_kind": "secret_rotation", "changed_fields": ["name"]}])
    );
    let csv = world.get(&format!("{path}?format=csv&fields=chain_seq,signed,changed_fields,secret_rotated")).await;
    csv.is_refused(400, "invalid_fields");
    // The refusal just above may be on record by now: what is asked for is named.
    let csv = world.get(&format!("{path}?format=csv&fields=chain_seq,signed,changed_fields&method=PATCH")).await;
    assert_eq!(csv.text, "chain_seq,signed,changed_fields\r\n3,true,name\r\n");
}

#[tokio::test]
async fn t12_foothold_what_belongs_to_no_zone_can_be_looked_at_too() {
    let world = World::new().await;
    let body = json!({"name": "ci", "scope": "global", "capability": "read"});
    let made = world.call("POST", "/v1/admin-tokens", Some(body)).await.is(201);
    world.call("PUT", "/v1/audit-retention", Some(json!({"retention_days": 30}))).await.is(200);
    let listed = world.get("/v1/admin-audit").await.is(200);
    assert_eq!(column(&listed, "action").len(), 2);
    let tokens = world.get("/v1/admin-audit?entity_type=admin-tokens").await.is(200);
    assert_eq!(column(&tokens, "entity_id"), [made["id"].as_str().unwrap()]);
    assert!(!listed.to_string().contains(made["token"].as_str().unwrap()));
    let csv = world.get("/v1/admin-audit?format=csv&fields=action").await;
    assert_eq!(
        csv.headers["content-disposition"].to_str().unwrap(),
        "attachment; filename=\"admin-audit-deployment.csv\""
    );
}

#[tokio::test]
async fn a_zone_in_numbers_counts_what_is_there_now() {
    let world = World::new().await;
    let zone = world.zone("Ops").await;
    let at = |kind: &str| format!("/v1/zones/{zone}/{kind}");
    let gone = world.create(&at("applications"), managed("Gone")).await;
    world.call("DELETE", &at(&format!("applications/{gone}")), None).await.is(204);
    world.create(&at("applications"), managed("Bot")).await;
    let provider = world.create(&at("providers"), json!({"name": "p", "kind": "none"})).await;
    for (name, enforcement) in [("a", "enforced"), ("b", "transport_uniform")] {
        let body = json!({"name": name, "scopes": ["read"], "upstream_url": "https://r.example",
            "credential_provider_id": provider, "operation_enforcement": enforcement});
        world.create(&at("resources"), body).await;
    }
    world.stand_usual(&zone, "a", "user-1", "app-1").await;
    world.granted(&zone, "a-user", "resource://a").await;
    let seen = world.get(&at("overview")).await.is(200);
    assert_eq!(seen["applications"], json!({"total": 1, "expired": 0, "expiring_soon": 0}));
    assert_eq!(seen["resources"], json!({"total": 2, "unenforced": 1}));
    assert_eq!(seen["providers"], json!({"total": 1}));
    assert_eq!(seen["policy_sets"], json!({"total": 0, "enforcing": 0, "active_name": null}));
    assert_eq!(seen["sessions"], json!({"active": 3}));
    assert_eq!(seen["decisions_24h"], json!({"allowed": 1, "denied": 0}));
    assert_eq!(seen["recent_events"][0]["id"], "event-of-a-user");
    world.clock.advance(24 * 3_600 + 1);
    let later = world.get(&at("overview")).await.is(200);
    assert_eq!(
        (&later["sessions"], &later["decisions_24h"]),
        (&json!({"active": 0}), &json!({"allowed": 0, "denied": 0}))
    );
    // Of what is not there all is zero.
    let none = world.get("/v1/zones/none/overview").await.is(200);
    assert_eq!((&none["zone_id"], &none["applications"]["total"]), (&json!("none"), &json!(0)));
}
