//! Delegated grants: what is recorded, and what falls with one.

use caracal_store::Message;
use caracal_store::records::RecordRow;
use serde_json::{Value, json};

use crate::standing::Standing;
use crate::world::{Answer, World};

struct Setting {
    world: World,
    zone: String,
    path: String,
    application: String,
    resource: String,
}

impl Setting {
    async fn new() -> Self {
        let world = World::new().await;
        let zone = world.zone("Ops").await;
        let (application, resource) = Self::parts(&world, &zone).await;
        Self { path: format!("/v1/zones/{zone}/grants"), world, zone, application, resource }
    }

    /// An application and a resource with the scopes `n:read` and `n:pay`.
    async fn parts(world: &World, zone: &str) -> (String, String) {
        let at = |kind: &str| format!("/v1/zones/{zone}/{kind}");
        let application = json!({"name": "Bot", "registration_method": "managed"});
        let application = world.create(&at("applications"), application).await;
        let provider = world.create(&at("providers"), json!({"name": "Key", "kind": "none"})).await;
        let resource = json!({"name": "Notes", "scopes": ["n:read", "n:pay"], "upstream_url": "https://n.example",
            "credential_provider_id": provider});
        (application, world.create(&at("resources"), resource).await)
    }

    fn body(&self) -> Value {
        json!({"application_id": self.application, "user_id": "user-1", "resource_id": self.resource, "scopes": ["n:read"]})
    }

    async fn grant(&self, change: impl FnOnce(&mut Value)) -> Answer {
        let mut body = self.body();
        change(&mut body);
        self.world.call("POST", &self.path, Some(body)).await
    }

    async fn delete(&self, id: &str) -> u16 {
        self.world.call("DELETE", &format!("{}/{id}", self.path), None).await.status.as_u16()
    }

    /// Records that are alive for an hour, each with an id, a kind, a subject and a parent.
    async fn hold(&self, rows: Vec<(String, &str, &str, Option<&str>)>) {
        let row = |(id, kind, subject, parent): (String, &str, &str, Option<&str>)| RecordRow {
            kind: kind.to_owned(),
            parent_id: parent.map(|parent| parent.parse().unwrap()),
            ..self.world.record(&self.zone, &id, subject)
        };
        let records = rows.into_iter().map(row).collect();
        self.world.stand(&self.zone, Standing { records, ..Standing::default() }).await;
    }

    async fn status_of(&self, record: &str) -> (String, Option<String>) {
        self.world.record_state(&self.zone, record).await
    }

    fn revocations(&self) -> Vec<Message> {
        let heard = self.world.messages.lock().unwrap();
        heard.iter().filter(|message| message.topic == "caracal.sessions.revoke").cloned().collect()
    }
}

#[tokio::test]
async fn a_grant_is_recorded_listed_and_read() {
    let setting = Setting::new().await;
    let made = setting.grant(|_| {}).await.is(201);
    let id = made["id"].as_str().unwrap();
    let by = made["created_by"].clone();
    let expected = json!({
        "id": id, "zone_id": setting.zone, "application_id": setting.application, "user_id": "user-1",
        "resource_id": setting.resource, "scopes": ["n:read"], "status": "active", "created_by": by,
        "created_via_operator": false, "created_at": "2026-01-01T00:00:00.000Z",
    });
    assert_eq!(made, expected);
    let mut plain = expected;
    plain["updated_by"] = Value::Null;
    plain["updated_via_operator"] = json!(false);
    assert_eq!(setting.world.get(&format!("{}/{id}", setting.path)).await.is(200), plain);
    let listed = setting.world.get(&setting.path).await.is(200);
    let mut item = plain;
    let resource =
        setting.world.get(&format!("/v1/zones/{}/resources/{}", setting.zone, setting.resource)).await.is(200);
    for (name, value) in [
        ("application_name", json!("Bot")),
        ("resource_name", json!("Notes")),
        ("provider_id", resource["credential_provider_id"].clone()),
        ("provider_name", json!("Key")),
        ("provider_kind", json!("none")),
    ] {
        item[name] = value;
    }
    assert_eq!(listed, json!({"items": [item], "next_cursor": null}));
    // The same again is another one.
    assert_ne!(setting.grant(|_| {}).await.is(201)["id"], json!(id));
    setting.world.get(&format!("{}/none", setting.path)).await.is_refused(404, "grant_not_found");
}

#[tokio::test]
async fn t02_sts_policy_what_can_not_be_granted_is_refused_in_the_contracts_order() {
    let setting = Setting::new().await;
    let other = setting.world.zone("Other").await;
    let (foreign_application, foreign_resource) = Setting::parts(&setting.world, &other).await;
    let control = json!({"identifier": "caracal-control", "scopes": ["control:app:read"]});
    let control = setting.world.create(&format!("/v1/zones/{}/resources", setting.zone), control).await;
    let archived = json!({"name": "Old", "registration_method": "managed"});
    let archived = setting.world.create(&format!("/v1/zones/{}/applications", setting.zone), archived).await;
    setting.world.outside(&format!("UPDATE applications SET archived_at = 1 WHERE id = '{archived}'"));
    let scopes = |list: Vec<String>| json!(list);
    for (name, value, status, code) in [
        ("application_id", json!(foreign_application), 404, "application_not_found"),
        ("application_id", json!(archived), 404, "application_not_found"),
        ("application_id", json!("no id"), 404, "application_not_found"),
        ("resource_id", json!(foreign_resource), 404, "resource_not_found"),
        ("resource_id", json!("no id"), 404, "resource_not_found"),
        ("resource_id", json!(control), 403, "control_resource_not_grantable"),
        ("scopes", json!(["n:write"]), 403, "grant_scopes_exceed_resource"),
        ("scopes", json!(["n:read", "n:write"]), 403, "grant_scopes_exceed_resource"),
        ("scopes", json!(["Read"]), 400, "invalid_body"),
        ("scopes", json!(["a".repeat(201)]), 400, "invalid_body"),
        ("scopes", scopes((0..65).map(|n| format!("s{n}")).collect()), 400, "invalid_body"),
        ("scopes", json!([]), 400, "invalid_body"),
        ("scopes", json!("n:read"), 400, "invalid_body"),
        ("user_id", json!(""), 400, "invalid_body"),
        ("user_id", Value::Null, 400, "invalid_body"),
    ] {
        let answer = setting.grant(|body| body[name] = value.clone()).await;
        assert_eq!(answer.refused(), (status, code.to_owned()), "{name} {value}");
    }
    let nowhere = "/v1/zones/none/grants";
    setting.world.call("POST", nowhere, Some(json!({}))).await.is_refused(404, "zone_not_found");
    // A zone's own token is not told that there is a control resource.
    let own = setting.world.mint("write", Some(&setting.zone)).await;
    let mut body = setting.body();
    body["resource_id"] = json!(control);
    let answer = setting.world.call_as(Some(&own), "POST", &setting.path, Some(body)).await;
    answer.is_refused(404, "resource_not_found");
    assert_eq!(setting.world.get(&setting.path).await.is(200)["items"], json!([]));
}

#[tokio::test]
async fn filters_of_grants_narrow_and_odd_ones_are_refused() {
    let setting = Setting::new().await;
    let first = setting.grant(|_| {}).await.is(201)["id"].as_str().unwrap().to_owned();
    setting
        .grant(|body| {
            body["user_id"] = json!("user-2");
            body["scopes"] = json!(["n:read", "n:pay"]);
        })
        .await
        .is(201);
    assert_eq!(setting.delete(&first).await, 204);
    let application = format!("application_id={}", setting.application);
    for (query, expected) in [
        ("", &["user-2", "user-1"][..]),
        (&application, &["user-2", "user-1"]),
        ("application_id=none", &[]),
        ("user_id=user-1", &["user-1"]),
        ("subject_id=user-1", &["user-1"]),
        ("subject_id=user-1&user_id=user-2", &["user-2"]),
        ("status=revoked", &["user-1"]),
        ("status=whatever", &[]),
        ("provider_id=none", &[]),
        ("scopes=n:pay,n:read", &["user-2"]),
        ("scopes=n:read", &["user-2", "user-1"]),
        ("scopes=n:write", &[]),
        ("limit=1", &["user-2"]),
    ] {
        let listed = setting.world.get(&format!("{}?{query}", setting.path)).await.is(200);
        let users: Vec<&str> =
            listed["items"].as_array().unwrap().iter().map(|item| item["user_id"].as_str().unwrap()).collect();
        assert_eq!(users, expected, "{query}");
    }
    let many = vec!["s"; 65].join(",");
    for query in ["user_id=", "status=", "scopes=", "scopes=a,,b", "user_id=a&user_id=b", &format!("scopes={many}")] {
        setting.world.get(&format!("{}?{query}", setting.path)).await.is_refused(400, "invalid_query");
    }
}

/// A user's records in more than one page: each is revoked, and each is told.
#[tokio::test]
async fn revoking_a_grant_ends_all_that_its_user_holds_and_says_so_of_each() {
    let setting = Setting::new().await;
    let mut rows: Vec<_> = (0..1_000).map(|n| (format!("r-{n:04}"), "user", "user-1", None)).collect();
    rows.push(("child".to_owned(), "user", "user-1", Some("r-0000")));
    rows.push(("other".to_owned(), "user", "user-2", None));
    // An application's own record, whose subject reads like the user's.
    rows.push(("shared".to_owned(), "application", "user-1", None));
    setting.hold(rows).await;
    let id = setting.grant(|_| {}).await.is(201)["id"].as_str().unwrap().to_owned();
    assert_eq!(setting.delete(&id).await, 204);
    let told = setting.revocations();
    assert_eq!(told.len(), 1_001);
    let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    for message in &told {
        let record = &message.fields[1].1;
        let expected = [
            field("zone_id", &setting.zone),
            field("session_id", record),
            field("reason", "grant_revoked"),
            field("grant_id", &id),
        ];
        assert_eq!(message.fields, expected);
    }
    for record in ["r-0000", "r-0999", "child"] {
        assert_eq!(
            setting.status_of(record).await,
            ("revoked".to_owned(), Some("grant_revoked".to_owned())),
            "{record}"
        );
    }
    for record in ["other", "shared"] {
        assert_eq!(setting.status_of(record).await.0, "active", "{record}");
    }
    let read = setting.world.get(&format!("{}/{id}", setting.path)).await.is(200);
    assert_eq!((&read["status"], read["updated_by"].is_string()), (&json!("revoked"), true));
}

#[tokio::test]
async fn a_grant_can_be_revoked_again_and_ends_what_came_since() {
    let setting = Setting::new().await;
    let id = setting.grant(|_| {}).await.is(201)["id"].as_str().unwrap().to_owned();
    setting.hold(vec![("first".to_owned(), "user", "user-1", None)]).await;
    assert_eq!(setting.delete(&id).await, 204);
    assert_eq!(setting.revocations().len(), 1);
    setting.hold(vec![("second".to_owned(), "user", "user-1", None)]).await;
    assert_eq!(setting.delete(&id).await, 204);
    assert_eq!(setting.status_of("second").await.0, "revoked");
    let answer = setting.world.call("DELETE", &format!("{}/none", setting.path), None).await;
    answer.is_refused(404, "grant_not_found");
    let records = setting.world.records(Some(&setting.zone)).await;
    let last = records.iter().rev().find(|record| record.status_code == 204).unwrap();
    assert_eq!((last.entity_type.as_deref(), last.entity_id.as_ref()), (Some("grants"), Some(&id)));
}

#[tokio::test]
async fn another_zones_grant_is_absent_and_its_user_goes_on() {
    let setting = Setting::new().await;
    let id = setting.grant(|_| {}).await.is(201)["id"].as_str().unwrap().to_owned();
    setting.hold(vec![("first".to_owned(), "user", "user-1", None)]).await;
    let other = setting.world.zone("Other").await;
    let path = format!("/v1/zones/{other}/grants/{id}");
    setting.world.get(&path).await.is_refused(404, "grant_not_found");
    setting.world.call("DELETE", &path, None).await.is_refused(404, "grant_not_found");
    assert_eq!(setting.status_of("first").await.0, "active");
    assert_eq!(setting.revocations().len(), 0);
}
