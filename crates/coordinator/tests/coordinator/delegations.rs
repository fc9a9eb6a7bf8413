//! Making delegations (contract: coordinator.md §6.2, §6.3).

use caracal_authority::ApplicationId;
use serde_json::{Value, json};

use crate::support::{House, INVALIDATE, Reply, about, delegation};

/// Two sessions of `app-1`, and what came of delegating from one to the other.
async fn check(house: &House, change: impl FnOnce(&mut Value)) -> Reply {
    let (a, b) = (house.task().await, house.task().await);
    let mut body = delegation(&a, &b);
    change(&mut body);
    house.delegate(body).await
}

fn without(body: &mut Value, name: &str) {
    body.as_object_mut().unwrap().remove(name);
}

#[tokio::test]
async fn a_delegation_is_answered_with_all_it_lends() {
    let house = House::open().await;
    let (a, b) = (house.task().await, house.task().await);
    house.messages();
    let mut body = delegation(&a, &b);
    body["constraints"] = json!({"max_depth": 3});
    let reply = house.delegate(body).await.expect(201);
    let id = reply.text("delegation_edge_id");
    assert_eq!(
        reply.body,
        json!({
            "delegation_edge_id": id, "zone_id": "z-1", "source_session_id": a, "target_session_id": b,
            "issuer_application_id": "app-1", "receiver_application_id": "app-1", "parent_edge_id": null,
            "resource_id": "res-docs", "scopes": ["read"],
            "constraints_json": {"max_depth": 3, "max_hops": 3, "ttl_seconds": 600}, "status": "active",
            "expires_at": "2027-01-15T08:10:00.000Z", "edge_version": 0, "revoked_at": null,
            "created_at": "2027-01-15T08:00:00.000Z", "warnings": [],
            "allow_reason": [
                "same_zone_endpoints_active", "resource_scope_checked", "source_authority_root",
                "typed_constraints_validated",
            ],
            "effective_authority": {
                "source_session_id": a, "target_session_id": b, "parent_edge_id": null, "resource_id": "res-docs",
                "resources": ["resource://docs"], "scopes": ["read"], "expires_at": "2027-01-15T08:10:00.000Z",
                "max_hops": 3, "ttl_seconds": 600, "broad": false, "parent_edges_considered": [],
            },
        })
    );
    let messages = house.messages();
    let created = about(&messages, INVALIDATE, "edge_id", &id);
    assert_eq!(created.len(), 1);
    assert_eq!(created[0].dedupe_key, format!("edge_create:{id}"));
    for (name, value) in [
        ("event", "edge_create"),
        ("zone_id", "z-1"),
        ("source_session_id", a.as_str()),
        ("target_session_id", b.as_str()),
        ("epoch", "0"),
    ] {
        assert_eq!(created[0].field(name), Some(value), "{name}");
    }
    assert_eq!(house.epoch().await, 0);
}

#[tokio::test]
async fn the_body_the_constraints_and_the_end_are_judged_in_that_order() {
    let house = House::open().await;
    let named = |constraints: Value| move |body: &mut Value| body["constraints"] = constraints;
    for (code, change) in [
        (
            "invalid_body",
            Box::new(|body: &mut Value| without(body, "source_session_id")) as Box<dyn FnOnce(&mut Value)>,
        ),
        ("invalid_body", Box::new(|body| body["receiver_application_id"] = json!(""))),
        ("invalid_body", Box::new(|body| body["scopes"] = json!(null))),
        ("invalid_body", Box::new(|body| body["scopes"] = json!([""]))),
        ("invalid_body", Box::new(|body| body["scopes"] = json!(["a\nb"]))),
        ("invalid_body", Box::new(|body| body["resource_id"] = json!(""))),
        ("invalid_body", Box::new(|body| body["parent_edge_id"] = json!(null))),
        ("invalid_body", Box::new(|body| body["ttl_seconds"] = json!(0))),
        ("invalid_body", Box::new(|body| body["ttl_seconds"] = json!(86_401))),
        ("invalid_body", Box::new(|body| body["expires_at"] = json!("2030-01-01T00:00:00+00:00"))),
        ("invalid_body", Box::new(|body| body["expires_at"] = json!("2030-01-01"))),
        ("invalid_body", Box::new(|body| body["expires_at"] = json!("2030-02-30T00:00:00Z"))),
        ("delegation_expiry_required", Box::new(|body| without(body, "ttl_seconds"))),
        ("invalid_delegation_constraint", Box::new(named(json!([])))),
        ("invalid_delegation_constraint", Box::new(named(json!(null)))),
        ("invalid_delegation_constraint", Box::new(named(json!({"unknown": 1})))),
        ("invalid_delegation_constraint", Box::new(|body| body["constraints_json"] = json!("x"))),
        ("invalid_max_hops", Box::new(named(json!({"max_hops": 11})))),
        ("invalid_max_hops", Box::new(named(json!({"max_depth": 2, "max_hops": 3})))),
        ("invalid_max_hops", Box::new(named(json!({"unknown": 1, "max_hops": 0})))),
        ("invalid_resources", Box::new(named(json!({"resources": [""]})))),
        ("invalid_budget", Box::new(named(json!({"budget": 0})))),
        ("invalid_expires_at", Box::new(named(json!({"expires_at": "2030-01-01"})))),
        ("invalid_ttl_seconds", Box::new(named(json!({"ttl_seconds": 0})))),
        ("self_delegation_denied", Box::new(|body| body["target_session_id"] = body["source_session_id"].clone())),
    ] {
        check(&house, change).await.refused(400, code);
    }
}

#[tokio::test]
async fn both_spellings_of_constraints_merge_and_the_plain_one_wins() {
    let house = House::open().await;
    let reply = check(&house, |body| {
        body["constraints_json"] = json!({"max_hops": 2, "budget": 3});
        body["constraints"] = json!({"max_hops": 4});
    })
    .await
    .expect(201);
    assert_eq!(reply.body["constraints_json"], json!({"max_hops": 4, "budget": 3, "ttl_seconds": 600}));
}

#[tokio::test]
async fn a_delegation_ends_at_the_earliest_of_all_its_bounds() {
    let house = House::open().await;
    for (constraints, date, ttl, expected) in [
        (json!({}), None, Some(600), "2027-01-15T08:10:00.000Z"),
        (json!({"ttl_seconds": 500}), None, Some(600), "2027-01-15T08:08:20.000Z"),
        (json!({"ttl_seconds": 500}), None, None, "2027-01-15T08:08:20.000Z"),
        (json!({}), Some("2027-01-15T09:00Z"), None, "2027-01-15T09:00:00.000Z"),
        (json!({}), Some("2027-01-15T09:00:00.1239Z"), None, "2027-01-15T09:00:00.123Z"),
        (json!({}), Some("2027-01-15T09:00:00Z"), Some(60), "2027-01-15T08:01:00.000Z"),
        (json!({"expires_at": "2027-01-15T08:30:00Z"}), Some("2027-01-15T09:00:00Z"), None, "2027-01-15T08:30:00.000Z"),
        (json!({"expires_at": "2027-01-15T08:30:00Z"}), None, None, "2027-01-15T08:30:00.000Z"),
    ] {
        let reply = check(&house, |body| {
            without(body, "ttl_seconds");
            body["constraints"] = constraints.clone();
            if let Some(date) = date {
                body["expires_at"] = json!(date);
            }
            if let Some(ttl) = ttl {
                body["ttl_seconds"] = json!(ttl);
            }
        })
        .await
        .expect(201);
        assert_eq!(reply.body["expires_at"], expected, "{constraints} {date:?} {ttl:?}");
    }
    let past = |body: &mut Value| body["expires_at"] = json!("2027-01-15T08:00:00Z");
    check(&house, past).await.refused(400, "delegation_expired");
}

#[tokio::test]
async fn both_ends_are_live_sessions_of_the_named_applications() {
    let house = House::open().await;
    let a = house.task().await;
    house.add_session("s-suspended", |session| session.status = "suspended".to_owned()).await;
    house.add_session("s-ended", |session| session.status = "terminated".to_owned()).await;
    house.add_session("s-lapsing", |session| session.ttl_seconds = Some(1)).await;
    house.add_session("s-theirs", |session| session.application_id = ApplicationId::parse("app-2").unwrap()).await;
    house.clock.advance(1);
    for gone in ["s-suspended", "s-ended", "s-lapsing", "unknown", "a b"] {
        house.delegate(delegation(&a, gone)).await.refused(404, "delegation_endpoint_not_found");
        house.delegate(delegation(gone, &a)).await.refused(404, "delegation_endpoint_not_found");
    }
    house.delegate(delegation(&a, "s-theirs")).await.refused(409, "delegation_application_mismatch");
    house.delegate(delegation("s-theirs", &a)).await.refused(409, "delegation_application_mismatch");
    let mut body = delegation(&a, "s-theirs");
    body["receiver_application_id"] = json!("app-2");
    house.delegate(body).await.expect(201);
}

#[tokio::test]
async fn named_resources_exist_agree_and_cover_the_scopes() {
    let house = House::open().await;
    house.add_resource("res-mail", "resource://mail", &["send"]).await;
    let two = json!({"resources": ["resource://docs", "resource://mail"]});
    let only = |constraints: Value| {
        move |body: &mut Value| {
            without(body, "resource_id");
            body["constraints"] = constraints;
        }
    };
    check(&house, |body| body["resource_id"] = json!("resource://none")).await.refused(404, "resource_not_found");
    let unknown = only(json!({"resources": ["resource://docs", "resource://none"]}));
    check(&house, unknown).await.refused(404, "resource_not_found");
    // A row id is no identifier where identifiers are asked for.
    check(&house, only(json!({"resources": ["res-docs"]}))).await.refused(404, "resource_not_found");
    let other = |body: &mut Value| body["constraints"] = json!({"resources": ["resource://mail"]});
    check(&house, other).await.refused(400, "delegation_resource_scope_mismatch");
    check(&house, |body| body["scopes"] = json!(["read", "send"]))
        .await
        .refused(403, "delegation_scopes_exceed_resource");
    let union = check(&house, |body| {
        body["constraints"] = two.clone();
        body["scopes"] = json!(["read", "send"]);
    })
    .await
    .expect(201);
    assert_eq!(union.body["resource_id"], "res-docs");
    assert_eq!(union.body["effective_authority"]["resources"], json!(["resource://docs", "resource://mail"]));
    let by_row = check(&house, |body| body["resource_id"] = json!("res-docs")).await.expect(201);
    assert_eq!(by_row.body["effective_authority"]["resources"], json!(["resource://docs"]));
    let foreign = check(&house, |body| {
        body["constraints"] = two.clone();
        body["scopes"] = json!(["read", "delete"]);
    });
    foreign.await.refused(403, "delegation_scopes_exceed_resource");
    check(&house, |body| body["scopes"] = json!([])).await.expect(201);
}

mod t04_state_delegation {
    use super::*;

    #[tokio::test]
    async fn only_the_issuer_or_the_scope_that_names_it_may_lend() {
        let house = House::open().await;
        let (a, b) = (house.task().await, house.task().await);
        for scopes in ["", "coordinator.admin", "coordinator.delegate_from", "coordinator.delegate_from:app-2"] {
            let token = house.mandate_with("app-2", scopes).await;
            let reply = house.post("/zones/z-1/delegations", &token, delegation(&a, &b)).await;
            reply.refused(403, "issuer_ownership_required");
        }
        let token = house.mandate_with("app-2", "coordinator.delegate_from:app-1").await;
        house.post("/zones/z-1/delegations", &token, delegation(&a, &b)).await.expect(201);
    }

    #[tokio::test]
    async fn lending_everything_needs_a_permission_of_its_own() {
        let house = House::open().await;
        let (a, b) = (house.task().await, house.task().await);
        let mut broad = delegation(&a, &b);
        without(&mut broad, "resource_id");
        house.delegate(broad.clone()).await.refused(403, "broad_delegation_permission_required");
        broad["constraints"] = json!({"resources": [], "policy_approved": false});
        house.delegate(broad.clone()).await.refused(403, "broad_delegation_permission_required");
        for scopes in ["coordinator.admin", "coordinator.delegate_broad", "coordinator.delegate_broad:app-1"] {
            let token = house.mandate_with("app-1", scopes).await;
            broad["scopes"] = json!(["anything"]);
            let reply = house.post("/zones/z-1/delegations", &token, broad.clone()).await.expect(201);
            assert_eq!(reply.body["warnings"], json!(["resource_null_delegation_broadens_resource_matching"]));
            assert_eq!(reply.body["allow_reason"][1], "broad_delegation_elevated");
            assert_eq!(reply.body["effective_authority"]["broad"], true);
            let constraints = &reply.body["constraints_json"];
            assert_eq!(
                (&constraints["policy_approved"], &constraints["broad_reason"]),
                (&json!(true), &json!("resource_null_delegation"))
            );
            let edge = house.edge_row(&reply.text("delegation_edge_id")).await;
            assert_eq!(edge.broad_reason.as_deref(), Some("resource_null_delegation"));
        }
        let wrong = house.mandate_with("app-1", "coordinator.delegate_broad:app-2").await;
        let reply = house.post("/zones/z-1/delegations", &wrong, broad).await;
        reply.refused(403, "broad_delegation_permission_required");
    }

    /// A→B with three hops, 500 s, `read`; then B→C as `change` says.
    async fn child(house: &House, change: impl FnOnce(&mut Value)) -> Reply {
        house.add_resource("res-mail", "resource://mail", &["read"]).await;
        let (a, b, c) = (house.task().await, house.task().await, house.task().await);
        house
            .edge(&a, &b, |body| {
                body["ttl_seconds"] = json!(500);
                body["constraints"] = json!({"max_hops": 3});
            })
            .await;
        let mut body = delegation(&b, &c);
        body["ttl_seconds"] = json!(400);
        body["constraints"] = json!({"max_hops": 2});
        change(&mut body);
        house.delegate(body).await
    }

    #[tokio::test]
    async fn a_child_never_holds_more_than_its_parent() {
        for change in [
            (|body: &mut Value| body["ttl_seconds"] = json!(600)) as fn(&mut Value),
            |body| {
                without(body, "ttl_seconds");
                body["expires_at"] = json!("2027-01-15T08:05:00Z");
            },
            |body| body["constraints"] = json!({"max_hops": 3}),
            |body| body["scopes"] = json!(["read", "write"]),
            |body| body["resource_id"] = json!("resource://mail"),
            |body| body["expires_at"] = json!("2027-01-15T08:00:00Z"),
        ] {
            let house = House::open().await;
            child(&house, change).await.refused(403, "delegation_exceeds_parent_authority");
        }
        let house = House::open().await;
        let reply = child(&house, |_| ()).await.expect(201);
        assert_eq!(reply.body["allow_reason"][2], "parent_authority_narrowed");
        let parent = reply.text("parent_edge_id");
        assert_eq!(reply.body["effective_authority"]["parent_edges_considered"], json!([parent]));
    }

    #[tokio::test]
    async fn a_parent_without_hops_is_lent_no_further() {
        let house = House::open().await;
        let (a, b, c) = (house.task().await, house.task().await, house.task().await);
        house.edge(&a, &b, |_| ()).await;
        let mut body = delegation(&b, &c);
        body["ttl_seconds"] = json!(60);
        house.delegate(body).await.refused(403, "delegation_exceeds_parent_authority");
    }

    #[tokio::test]
    async fn a_budget_bounds_every_child_below() {
        for (change, status) in [
            ((|body: &mut Value| body["constraints"] = json!({"budget": 2})) as fn(&mut Value), 403),
            (|body| body["scopes"] = json!(["read", "read"]), 403),
            (|body| body["scopes"] = json!(["read"]), 201),
        ] {
            let house = House::open().await;
            let (a, b, c) = (house.task().await, house.task().await, house.task().await);
            house.edge(&a, &b, |body| body["constraints"] = json!({"budget": 1, "max_hops": 3})).await;
            let mut body = delegation(&b, &c);
            body["ttl_seconds"] = json!(60);
            change(&mut body);
            let reply = house.delegate(body).await.expect(status);
            if status == 201 {
                assert_eq!(reply.body["constraints_json"]["budget"], 1);
            }
        }
    }

    #[tokio::test]
    async fn with_several_delegations_at_hand_the_one_to_narrow_is_named() {
        let house = House::open().await;
        let (a, b, c) = (house.task().await, house.task().await, house.task().await);
        let hops = |body: &mut Value| body["constraints"] = json!({"max_hops": 3});
        let first = house.edge(&a, &c, hops).await;
        let second = house.edge(&b, &c, hops).await;
        let d = house.task().await;
        let mut body = delegation(&c, &d);
        body["ttl_seconds"] = json!(60);
        house.delegate(body.clone()).await.refused(409, "parent_delegation_ambiguous");
        body["parent_edge_id"] = json!("unknown");
        house.delegate(body.clone()).await.refused(403, "parent_delegation_not_active");
        body["parent_edge_id"] = json!("not an id");
        house.delegate(body.clone()).await.refused(403, "parent_delegation_not_active");
        body["parent_edge_id"] = json!(second);
        let reply = house.delegate(body).await.expect(201);
        assert_eq!(reply.body["parent_edge_id"], json!(second));
        assert_eq!(reply.body["effective_authority"]["parent_edges_considered"], json!([first, second]));
    }

    #[tokio::test]
    async fn a_session_whose_delegations_have_lapsed_lends_nothing_more() {
        let house = House::open().await;
        let (a, b, c) = (house.task().await, house.task().await, house.task().await);
        let lent = house.edge(&a, &b, |body| body["ttl_seconds"] = json!(10)).await;
        house.clock.advance(10);
        let mut body = delegation(&b, &c);
        house.delegate(body.clone()).await.refused(403, "parent_delegation_not_active");
        body["parent_edge_id"] = json!(lent);
        house.delegate(body).await.refused(403, "parent_delegation_not_active");
        house.add_session("s-swept", |_| ()).await;
        house.add_edge("e-swept", &a, "s-swept", |edge| edge.status = "expired".to_owned()).await;
        house.delegate(delegation("s-swept", &c)).await.refused(403, "parent_delegation_not_active");
    }

    #[tokio::test]
    async fn no_circle_is_ever_closed() {
        let house = House::open().await;
        let (a, b, c) = (house.task().await, house.task().await, house.task().await);
        let hops = |hops: u64, ttl: u64| {
            move |body: &mut Value| {
                body["constraints"] = json!({"max_hops": hops});
                body["ttl_seconds"] = json!(ttl);
            }
        };
        house.edge(&a, &b, hops(4, 600)).await;
        house.edge(&b, &c, hops(3, 500)).await;
        let mut body = delegation(&c, &a);
        hops(2, 400)(&mut body);
        house.delegate(body.clone()).await.refused(409, "delegation_cycle_denied");
        // Narrowing is looked at first, and a path that has lapsed closes nothing.
        body["scopes"] = json!(["write"]);
        house.delegate(body.clone()).await.refused(403, "delegation_exceeds_parent_authority");
        let d = house.task().await;
        house.edge(&a, &d, hops(2, 60)).await;
        house.clock.advance(60);
        house.add_session("s-fresh", |_| ()).await;
        house.edge("s-fresh", &a, |_| ()).await;
    }

    #[tokio::test]
    async fn a_circle_longer_than_ten_edges_is_found_too() {
        let house = House::open().await;
        let mut sessions = vec![house.task().await];
        for number in 0..14 {
            let next = house.task().await;
            let last = sessions.last().unwrap().clone();
            house.add_edge(&format!("e-{number}"), &last, &next, |_| ()).await;
            sessions.push(next);
        }
        // The last one was lent by an edge of its own kind, so it narrows; only the circle is wrong.
        let end = house.task().await;
        let last = sessions.last().unwrap().clone();
        house
            .add_edge("e-end", &last, &end, |edge| {
                edge.constraints = json!({"max_hops": 2}).as_object().unwrap().clone();
            })
            .await;
        let mut body = delegation(&end, &sessions[0]);
        body["ttl_seconds"] = json!(60);
        house.delegate(body).await.refused(409, "delegation_cycle_denied");
    }

    #[tokio::test]
    async fn no_lineage_grows_beyond_ten_edges() {
        let house = House::open().await;
        let mut last = house.task().await;
        for hops in (1..=10).rev() {
            let next = house.task().await;
            house
                .edge(&last, &next, |body| {
                    body["constraints"] = json!({"max_hops": hops});
                    body["ttl_seconds"] = json!(100 + hops);
                })
                .await;
            last = next;
        }
        let beyond = house.task().await;
        let mut body = delegation(&last, &beyond);
        body["ttl_seconds"] = json!(60);
        house.delegate(body).await.refused(403, "delegation_exceeds_parent_authority");
        // Mirrors consume no hop, but they are edges of the lineage all the same.
        let (a, b) = (house.task().await, house.task().await);
        house.edge(&a, &b, |body| body["constraints"] = json!({"max_hops": 3})).await;
        let token = house.mandate("app-1").await;
        let mut last = b;
        for _ in 0..9 {
            let child = json!({"application_id": "app-1", "parent_id": last});
            last = house.start(&token, child).await.expect(201).text("agent_session_id");
        }
        let mut body = delegation(&last, &beyond);
        body["ttl_seconds"] = json!(60);
        house.delegate(body).await.refused(403, "delegation_exceeds_parent_authority");
    }
}
