//! Services that applications offer to agents (contract: coordinator.md §5.1).

use serde_json::{Value, json};

use crate::support::{House, OPERATOR};

const PATH: &str = "/zones/z-1/agent-services";

fn ids(body: &Value) -> Vec<&str> {
    body["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap()).collect()
}

fn service(application: &str, endpoint: &str) -> Value {
    json!({"application_id": application, "endpoint_url": endpoint})
}

#[tokio::test]
async fn registering_an_endpoint_again_keeps_its_id_and_replaces_what_it_says() {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    let mut body = service("app-1", "  https://worker.example/agent ");
    body["framework"] = json!({"name": "f", "version": "1"});
    body["metadata"] = json!({"a": 1});
    let first = house.post(PATH, &token, body).await.expect(201);
    let expected = json!({
        "id": first.body["id"], "zone_id": "z-1", "application_id": "app-1",
        "endpoint_url": "https://worker.example/agent", "protocol_versions": [], "framework_name": "f",
        "framework_version": "1", "capabilities": [], "health": "starting", "metadata_json": {"a": 1},
        "last_heartbeat_at": null,
    });
    assert_eq!(first.body, expected);
    let mut again = service("app-1", "https://worker.example/agent");
    again["capabilities"] = json!(["b", "a"]);
    let second = house.post(PATH, &token, again).await.expect(201);
    assert_eq!(second.body["id"], first.body["id"]);
    assert_eq!((&second.body["capabilities"], &second.body["framework_name"]), (&json!(["b", "a"]), &Value::Null));
    assert_eq!(second.body["metadata_json"], json!({}));
    assert_eq!(ids(&house.get(PATH, &token).await.expect(200).body).len(), 1);
}

#[tokio::test]
async fn a_service_is_registered_by_the_application_or_whoever_acts_for_it() {
    let house = House::open().await;
    let token = house.mandate("app-2").await;
    let body = service("app-1", "https://worker.example");
    house.post(PATH, &token, body.clone()).await.refused(403, "application_ownership_required");
    // Administering is not acting for an application.
    let admin = house.mandate_with("app-2", "coordinator.admin").await;
    house.post(PATH, &admin, body.clone()).await.refused(403, "application_ownership_required");
    let acting = house.mandate_with("app-2", "coordinator.spawn_for:app-1 coordinator.spawn_for:app-9").await;
    house.post(PATH, &acting, body).await.expect(201);
    let unknown = service("app-9", "https://worker.example");
    house.post(PATH, &acting, unknown).await.refused(404, "application_not_found");
    house.post(PATH, &token, json!({})).await.refused(400, "invalid_body");
}

mod t04_state_readers {
    use super::*;

    #[tokio::test]
    async fn an_application_lists_its_own_services_and_an_administrator_all() {
        let house = House::open().await;
        let (one, two) = (house.mandate("app-1").await, house.mandate("app-2").await);
        let mut own = Vec::new();
        for number in 0..3 {
            let body = service("app-1", &format!("https://worker.example/{number}"));
            own.push(house.post(PATH, &one, body).await.expect(201).text("id"));
        }
        // Ids of one instant ascend only as long as no other test of this process draws some for a later one.
        own.sort_unstable_by(|one, other| other.cmp(one));
        let other = house.post(PATH, &two, service("app-2", "https://worker.example/0")).await.expect(201).text("id");
        let first = house.get(&format!("{PATH}?limit=2"), &one).await.expect(200).body;
        assert_eq!((ids(&first), &first["next_cursor"]), (vec![own[0].as_str(), &own[1]], &json!(own[1])));
        let rest = house.get(&format!("{PATH}?limit=2&cursor={}", own[1]), &one).await.expect(200).body;
        assert_eq!((ids(&rest), &rest["next_cursor"]), (vec![own[2].as_str()], &Value::Null));
        house.get(&format!("{PATH}?cursor={other}"), &one).await.refused(400, "invalid_cursor");
        house.get(&format!("{PATH}?limit=x"), &one).await.refused(400, "invalid_query");
        assert_eq!(ids(&house.get(PATH, &two).await.expect(200).body), [other.as_str()]);
        assert_eq!(ids(&house.get(PATH, OPERATOR).await.expect(200).body).len(), 4);
    }
}
