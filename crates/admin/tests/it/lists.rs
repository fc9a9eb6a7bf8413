//! Pages of lists: nothing is skipped, nothing comes twice.

use std::collections::BTreeSet;

use caracal_authority::{PolicySetId, ZoneId};
use caracal_store::{Attribution, StoreError, policy_sets};
use serde_json::json;

use crate::world::World;

async fn add_sets(world: &World, zone: &str, count: usize) {
    let zone = ZoneId::parse(zone).unwrap();
    let added: Result<(), StoreError> = world
        .store
        .commit(&zone, count, |tx, count| {
            Box::pin(async move {
                for number in 0..*count {
                    let set = policy_sets::PolicySet {
                        zone_id: tx.zone().clone(),
                        id: PolicySetId::parse(&format!("set-{number}")).unwrap(),
                        name: format!("set {number}"),
                        description: None,
                        archived_at: None,
                        active_version_id: None,
                        attribution: Attribution::created("test", tx.now()),
                    };
                    policy_sets::add(tx, &set).await?;
                }
                Ok(())
            })
        })
        .await;
    added.unwrap();
}

#[tokio::test]
async fn t16_clients_six_hundred_rows_of_one_instant_come_once_each() {
    let world = World::new().await;
    let zone = world.zone("Ops").await;
    add_sets(&world, &zone, 600).await;
    let (mut seen, mut cursor, mut pages) = (BTreeSet::new(), None::<String>, Vec::new());
    loop {
        let after = cursor.map(|cursor| format!("?cursor={cursor}")).unwrap_or_default();
        let page = world.get(&format!("/v1/zones/{zone}/policy-sets{after}")).await.is(200);
        let items = page["items"].as_array().unwrap();
        pages.push(items.len());
        for item in items {
            assert!(seen.insert(item["id"].as_str().unwrap().to_owned()));
        }
        match page["next_cursor"].as_str() {
            Some(next) => cursor = Some(next.to_owned()),
            None => break,
        }
    }
    assert_eq!((seen.len(), pages), (600, vec![200, 200, 200, 0]));
}

#[tokio::test]
async fn a_full_page_has_a_next_one_which_may_be_empty() {
    let world = World::new().await;
    let zone = world.zone("Ops").await;
    add_sets(&world, &zone, 2).await;
    let list = |query: String| {
        let path = format!("/v1/zones/{zone}/policy-sets?{query}");
        let world = &world;
        async move { world.get(&path).await }
    };
    let full = list("limit=2".to_owned()).await.is(200);
    let cursor = full["next_cursor"].as_str().unwrap();
    let empty = list(format!("limit=2&cursor={cursor}")).await.is(200);
    assert_eq!(empty, json!({"items": [], "next_cursor": null}));
    assert_eq!(list("limit=3".to_owned()).await.is(200)["next_cursor"], json!(null));
}

#[tokio::test]
async fn a_query_that_can_t_be_meant_is_refused_on_every_list() {
    let world = World::new().await;
    let zone = world.zone("Ops").await;
    let set = world.create(&format!("/v1/zones/{zone}/policy-sets"), json!({"name": "s"})).await;
    for list in [
        "/v1/zones".to_owned(),
        format!("/v1/zones/{zone}/applications"),
        format!("/v1/zones/{zone}/providers"),
        format!("/v1/zones/{zone}/resources"),
        format!("/v1/zones/{zone}/policies"),
        format!("/v1/zones/{zone}/policy-sets"),
        format!("/v1/zones/{zone}/policy-sets/{set}/versions"),
    ] {
        for (query, code) in [
            ("limit=0", "invalid_query"),
            ("limit=501", "invalid_query"),
            ("limit=1&limit=2", "invalid_query"),
            ("limit=1.5", "invalid_query"),
            ("cursor=", "invalid_query"),
            (&format!("cursor={}", "A".repeat(513)), "invalid_query"),
            ("cursor=!!", "invalid_cursor"),
            // Well-formed base64url of another form: an unparseable time.
            ("cursor=eyJ0cyI6Im5ldmVyIiwiaWQiOiJ4In0", "invalid_cursor"),
        ] {
            world.get(&format!("{list}?{query}")).await.is_refused(400, code);
        }
        let listed = world.get(&format!("{list}?limit=500&unknown=1")).await.is(200);
        assert!(listed["items"].is_array());
    }
}

#[tokio::test]
async fn a_list_of_a_zone_that_is_not_there_is_empty() {
    let world = World::new().await;
    for kind in ["applications", "providers", "resources", "policies", "policy-sets", "subject-issuers", "audit"] {
        let listed = world.get(&format!("/v1/zones/none/{kind}")).await.is(200);
        assert_eq!(listed, json!({"items": [], "next_cursor": null}), "{kind}");
    }
}

#[tokio::test]
async fn status_filters_what_is_archived() {
    let world = World::new().await;
    let zone = world.zone("Ops").await;
    world.create(&format!("/v1/zones/{zone}/providers"), json!({"name": "p", "kind": "none"})).await;
    for kind in ["applications", "providers", "resources"] {
        let path = format!("/v1/zones/{zone}/{kind}");
        world.get(&format!("{path}?status=gone")).await.is_refused(400, "invalid_query");
        assert_eq!(world.get(&format!("{path}?status=archived")).await.is(200)["items"], json!([]));
        let active = world.get(&format!("{path}?status=active")).await.is(200)["items"].as_array().unwrap().len();
        assert_eq!(active, usize::from(kind == "providers"));
    }
}
