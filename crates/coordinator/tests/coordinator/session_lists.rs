//! Lists of sessions (contract: coordinator.md §1, §4.3; differences D20, D26).

use serde_json::json;

use crate::support::{House, OPERATOR, Reply, zone};

fn ids(reply: &Reply) -> Vec<String> {
    let items = reply.body["items"].as_array().unwrap_or_else(|| panic!("{}", reply.body));
    items.iter().map(|item| item["agent_session_id"].as_str().unwrap().to_owned()).collect()
}

async fn list(house: &House, token: &str, query: &str) -> Vec<String> {
    ids(&house.get(&format!("/zones/z-1/agents{query}"), token).await.expect(200))
}

#[tokio::test]
async fn sessions_are_listed_newest_first_page_by_page_without_gap_or_repetition() {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    let mut started = Vec::new();
    // All in one instant: the clock stands still.
    for _ in 0..7 {
        started.push(house.task().await);
    }
    // Ids of one instant ascend only as long as no other test of this process draws some for a later one.
    started.sort_unstable_by(|one, other| other.cmp(one));
    let (mut seen, mut query) = (Vec::new(), "?limit=3".to_owned());
    let pages = loop {
        let reply = house.get(&format!("/zones/z-1/agents{query}"), &token).await.expect(200);
        seen.extend(ids(&reply));
        match reply.body["next_cursor"].as_str() {
            Some(cursor) => query = format!("?limit=3&cursor={cursor}"),
            None => break seen.len(),
        }
    };
    assert_eq!((seen, pages), (started.clone(), 7));
    // A page that is full and the last one has an empty one behind it.
    let reply = house.get("/zones/z-1/agents?limit=7", &token).await.expect(200);
    assert_eq!(reply.text("next_cursor"), started[6]);
    assert!(list(&house, &token, &format!("?cursor={}", started[6])).await.is_empty());
}

#[tokio::test]
async fn filters_narrow_a_list_and_do_not_touch_its_cursors() {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    let labelled = json!({"application_id": "app-1", "labels": ["a", "it's \"b\""]});
    let labelled = house.start(&token, labelled).await.expect(201).text("agent_session_id");
    house.clock.advance(1);
    let service = json!({"application_id": "app-1", "lifecycle": "service"});
    let service = house.start(&token, service).await.expect(201).text("agent_session_id");
    house.clock.advance(1);
    let ended = house.task().await;
    house.terminate(&token, &ended).await.expect(204);
    for (query, expected) in [
        ("?label=a", vec![&labelled]),
        ("?label=it%27s+%22b%22", vec![&labelled]),
        ("?label=A", vec![]),
        ("?label=%25", vec![]),
        ("?lifecycle=service", vec![&service]),
        ("?lifecycle=task&status=active", vec![&labelled]),
        ("?status=terminated", vec![&ended]),
        ("?status=expired", vec![]),
        ("?application_id=app-1&status=active", vec![&service, &labelled]),
        ("?application_id=app-2", vec![]),
        ("?application_id=%20", vec![]),
        (&format!("?label=a&cursor={service}"), vec![&labelled]),
        (&format!("?label=a&cursor={labelled}"), vec![]),
        ("?unknown=1&label=a", vec![&labelled]),
    ] {
        assert_eq!(list(&house, &token, query).await.iter().collect::<Vec<_>>(), expected, "{query}");
    }
}

#[tokio::test]
async fn a_query_of_the_wrong_kind_is_refused() {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    for query in [
        "limit=0",
        "limit=501",
        "limit=1.5",
        "limit=",
        "limit=abc",
        "cursor=",
        "status=dead",
        "status=",
        "lifecycle=x",
        "status=active&status=active",
        "label=",
        "label=%00",
        "application_id=",
        "limit=1&limit=1",
    ] {
        for path in ["/zones/z-1/agents", "/zones/z-1/agents/s-1/children"] {
            house.get(&format!("{path}?{query}"), &token).await.refused(400, "invalid_query");
        }
    }
    for cursor in ["unknown", "%00", "a%2Fb"] {
        house.get(&format!("/zones/z-1/agents?cursor={cursor}"), &token).await.refused(400, "invalid_cursor");
    }
}

#[tokio::test]
async fn an_application_lists_its_own_sessions_and_an_admin_all_of_the_zone() {
    let house = House::open().await;
    let (one, two) = (house.mandate("app-1").await, house.mandate("app-2").await);
    let admin = house.mandate_with("app-2", "coordinator.admin").await;
    let first = house.task().await;
    house.clock.advance(1);
    let second = house.start(&two, json!({"application_id": "app-2"})).await.expect(201).text("agent_session_id");
    let other = caracal_authority::ZoneId::parse("z-2").unwrap();
    house.add_session_in(&other, "s-elsewhere", |_| ()).await;
    assert_eq!(list(&house, &one, "").await, [first.as_str()]);
    assert_eq!(list(&house, &two, "").await, [second.as_str()]);
    assert_eq!(list(&house, &two, "?application_id=app-1").await, Vec::<String>::new());
    for token in [admin.as_str(), OPERATOR] {
        assert_eq!(list(&house, token, "").await, [second.as_str(), first.as_str()]);
        assert_eq!(list(&house, token, "?application_id=app-1").await, [first.as_str()]);
        house.get("/zones/z-1/agents?cursor=s-elsewhere", token).await.refused(400, "invalid_cursor");
    }
    // Whether a foreign session exists can't be told from its use as a cursor.
    house.get(&format!("/zones/z-1/agents?cursor={second}"), &one).await.refused(400, "invalid_cursor");
    house.get(&format!("/zones/z-1/agents/{first}"), &two).await.refused(404, "session_not_found");
    assert_eq!(zone().as_str(), "z-1");
}

#[tokio::test]
async fn children_are_those_directly_below_whatever_became_of_them() {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    let root = house.task().await;
    let ended = house.child(&root).await;
    house.clock.advance(1);
    let child = house.child(&root).await;
    let grandchild = house.child(&child).await;
    house.terminate(&token, &ended).await.expect(204);
    let path = format!("/zones/z-1/agents/{root}/children");
    let reply = house.get(&path, &token).await.expect(200);
    assert_eq!(ids(&reply), [child.as_str(), ended.as_str()]);
    // Filters are accepted and not applied.
    let filtered = house.get(&format!("{path}?status=active&label=x"), &token).await.expect(200);
    assert_eq!(ids(&filtered), [child.as_str(), ended.as_str()]);
    assert_eq!(ids(&house.get(&format!("{path}?limit=1&cursor={child}"), OPERATOR).await), [ended.as_str()]);
    for absent in ["terminated_at", "termination_reason", "lease_generation"] {
        assert!(reply.body["items"][0].get(absent).is_none(), "{absent}");
    }
    assert_eq!(reply.body["items"][0]["metadata"], json!({}));
    assert_eq!(ids(&house.get(&format!("/zones/z-1/agents/{child}/children"), &token).await), [grandchild.as_str()]);
    assert!(ids(&house.get("/zones/z-1/agents/unknown/children", &token).await.expect(200)).is_empty());
    let foreign = house.mandate("app-2").await;
    assert!(ids(&house.get(&path, &foreign).await.expect(200)).is_empty());
    house.get("/zones/z-1/agents/%00/children", &token).await.refused(400, "invalid_params");
}

#[tokio::test]
async fn a_listed_session_has_the_members_of_one_that_is_read() {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    let body = json!({"application_id": "app-1", "lifecycle": "service", "metadata": {"x": 1}});
    let id = house.start(&token, body).await.expect(201).text("agent_session_id");
    let listed = house.get("/zones/z-1/agents", &token).await.expect(200);
    let read = house.get(&format!("/zones/z-1/agents/{id}"), &token).await.expect(200);
    assert_eq!(listed.body["items"][0], read.body);
    assert_eq!((&read.body["lease_generation"], &read.body["metadata"]), (&json!("1"), &json!({"x": 1})));
}
