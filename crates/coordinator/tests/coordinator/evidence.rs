//! What is on record of it all (contract: coordinator.md §14, difference D11).

mod t04_state_evidence {
    use std::time::Duration;

    use caracal_store::admin_evidence::ZONELESS_CHAIN;
    use serde_json::{Value, json};
    use tokio::sync::watch;

    use crate::support::{House, OPERATOR, delegation, request};

    /// Starts the job, lets `ask` ask, then stops the job as a shutdown does.
    async fn recorded(house: &House, ask: impl AsyncFnOnce()) {
        let (stop, stopped) = watch::channel(false);
        let job = tokio::spawn(house.coordinator.clone().run_failure_records(stopped));
        ask().await;
        stop.send(true).unwrap();
        tokio::time::timeout(Duration::from_secs(10), job).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn every_change_is_on_record_with_who_made_it() {
        let house = House::open().await;
        let token = house.mandate_with("app-1", "x").await;
        let body = json!({"application_id": "app-1"});
        let named = [("x-request-id", "req-1")];
        let started = house.send(request("POST", "/zones/z-1/agents", &token, Some(body), &named)).await.expect(201);
        let other = house.task().await;
        let edge = house.edge(&started.text("agent_session_id"), &other, |_| ()).await;
        house.revoke(&token, &edge).await.expect(200);
        let id = started.text("agent_session_id");
        house.call("DELETE", &format!("/zones/z-1/agents/{id}?reason=done"), OPERATOR, None).await.expect(204);
        let changes = house.changes("z-1").await;
        let seen: Vec<_> = changes
            .iter()
            .map(|change| {
                let entity = change.entity_type.as_deref().zip(change.entity_id.as_deref());
                (change.action.as_str(), change.status_code, entity, change.actor_name.as_deref().unwrap())
            })
            .collect();
        let terminate = format!("DELETE /zones/z-1/agents/{id}");
        let revoke = format!("PATCH /zones/z-1/delegations/{edge}/revoke");
        assert_eq!(
            seen,
            [
                ("POST /zones/z-1/agents", 201, None, "app-1"),
                ("POST /zones/z-1/agents", 201, None, "app-1"),
                ("POST /zones/z-1/delegations", 201, None, "app-1"),
                (revoke.as_str(), 200, Some(("delegations", edge.as_str())), "app-1"),
                (terminate.as_str(), 204, Some(("agents", id.as_str())), "caracal-operator"),
            ]
        );
        let first = &changes[0];
        assert_eq!(first.request_id, "req-1");
        assert_eq!(first.actor_id.as_deref(), Some("app-1"));
        assert_eq!(first.actor_scope.as_deref(), Some("agent:lifecycle x"));
        assert_eq!((first.method.as_str(), first.path.as_str()), ("POST", "/zones/z-1/agents"));
        assert_eq!((first.zone_id.as_deref(), first.payload.as_deref()), (Some("z-1"), None));
        let operator = changes.last().unwrap();
        assert_eq!(operator.actor_id.as_deref(), Some("caracal-operator"));
        assert_eq!(operator.actor_scope.as_deref(), Some("agent:lifecycle coordinator.admin"));
    }

    /// In the reference such a change has happened all the same, and its caller is told that it failed (W10).
    #[tokio::test]
    async fn a_change_whose_record_cannot_be_written_does_not_happen_and_all_else_goes_on() {
        let house = House::open().await;
        let token = house.mandate("app-1").await;
        let (a, b, c) = (house.task().await, house.task().await, house.task().await);
        let edge = house.edge(&a, &b, |_| ()).await;
        let service = json!({"application_id": "app-1", "lifecycle": "service"});
        let service = house.start(&token, service).await.expect(201).text("agent_session_id");
        let before = (house.holding().await, house.epoch().await, house.session(&service).await.lease_generation);
        house.messages();
        house.outside("DROP TABLE admin_audit_events");
        let agents = "/zones/z-1/agents";
        let start = json!({"application_id": "app-1"});
        let endpoint = json!({"application_id": "app-1", "endpoint_url": "https://worker.example"});
        for (method, path, body) in [
            ("POST", agents.to_owned(), Some(start.clone())),
            ("POST", "/zones/z-1/delegations".to_owned(), Some(delegation(&a, &c))),
            ("POST", "/zones/z-1/agent-services".to_owned(), Some(endpoint)),
            ("POST", format!("{agents}/{service}/lease"), None),
            ("PATCH", format!("{agents}/{a}/suspend"), None),
            ("DELETE", format!("{agents}/{a}"), None),
            ("PATCH", format!("/zones/z-1/delegations/{edge}/revoke"), None),
        ] {
            let reply = house.send(request(method, &path, &token, body, &[("idempotency-key", "key-1")])).await;
            assert_eq!(reply.refusal(), (500, "audit_unavailable"), "{method} {path}");
            assert!(reply.body["message"].is_string(), "{}", reply.body);
            assert!(house.messages().is_empty(), "{method} {path}");
        }
        let after = (house.holding().await, house.epoch().await, house.session(&service).await.lease_generation);
        assert_eq!(after, before);
        assert_eq!(house.session(&a).await.status, "active");
        assert_eq!(house.edge_row(&edge).await.status, "active");
        let services = house.get("/zones/z-1/agent-services", &token).await.expect(200);
        assert_eq!(services.body["items"], json!([]));
        house.get(&format!("{agents}/unknown"), &token).await.refused(404, "session_not_found");
        house.start(&token, json!({})).await.refused(400, "invalid_body");
    }

    #[tokio::test]
    async fn a_replay_is_a_request_that_succeeded_and_a_read_is_none() {
        let house = House::open().await;
        let token = house.mandate("app-1").await;
        let body = json!({"application_id": "app-1"});
        let id = house.start_keyed(&token, "key-1", body.clone()).await.expect(201).text("agent_session_id");
        house.start_keyed(&token, "key-1", body).await.expect(201);
        house.get(&format!("/zones/z-1/agents/{id}"), &token).await.expect(200);
        house.get("/health", "").await.expect(200);
        assert_eq!(house.changes("z-1").await.len(), 2);
    }

    #[tokio::test]
    async fn every_failure_of_an_authenticated_caller_is_on_record_once() {
        let house = House::open().await;
        let token = house.mandate("app-1").await;
        recorded(&house, async || {
            house.get("/zones/z-1/agents/unknown", &token).await.expect(404);
            house.get("/zones/z-1/agents/a%20b", &token).await.expect(400);
            house.start(&token, json!({})).await.expect(400);
            house.terminate(&token, "unknown").await.expect(404);
            house.get("/zones/z-1/nowhere", OPERATOR).await.expect(401);
            house.get("/zones/z-1/nowhere", &token).await.expect(404);
            house.get("/nowhere", &token).await.expect(404);
            house.get("/zones/z-1/agents/unknown", "").await.expect(401);
            house.get("/zones/z-2/agents/unknown", &token).await.expect(403);
        })
        .await;
        let of = |changes: Vec<caracal_store::admin_evidence::AdminEvidenceRow>| {
            changes.into_iter().map(|change| (change.action, change.status_code)).collect::<Vec<_>>()
        };
        let expected = [
            ("GET /zones/z-1/agents/unknown", 404),
            ("GET /zones/z-1/agents/a%20b", 400),
            ("POST /zones/z-1/agents", 400),
            ("DELETE /zones/z-1/agents/unknown", 404),
            ("GET /zones/z-1/nowhere", 404),
        ]
        .map(|(action, status)| (action.to_owned(), status));
        assert_eq!(of(house.changes("z-1").await), expected);
        assert_eq!(of(house.changes(ZONELESS_CHAIN).await), [("GET /nowhere".to_owned(), 404)]);
    }

    #[tokio::test]
    async fn callers_who_were_not_heard_are_counted_and_not_chained() {
        let house = House::open().await;
        let stranger = house.mandate("app-1").await;
        for _ in 0..3 {
            house.get("/zones/z-1/agents/x", "").await.expect(401);
        }
        house.get("/zones/z-1/agents/x", "x").await.expect(401);
        house.get("/zones/z-2/agents/x", &stranger).await.expect(403);
        assert!(house.changes("z-1").await.is_empty());
        house.denials.summarise(&house.store, &house.ledger).await.unwrap();
        let summary = house.changes(ZONELESS_CHAIN).await;
        assert_eq!(summary.len(), 1);
        let payload: serde_json::Value = serde_json::from_str(summary[0].payload.as_deref().unwrap()).unwrap();
        let expected = json!({"coordinator": {"invalid_token": 1, "missing_token": 3, "zone_mismatch": 1}});
        assert_eq!(payload, expected);
    }

    #[tokio::test]
    async fn a_refused_request_changes_nothing() {
        let house = House::with(|config| config.max_sessions_per_application = 4).await;
        let token = house.mandate("app-1").await;
        let stranger = house.mandate("app-2").await;
        let (a, b, c) = (house.task().await, house.task().await, house.task().await);
        let lent = house.edge(&a, &b, |_| ()).await;
        house.add_session("s-ended", |session| session.status = "terminated".to_owned()).await;
        let full = house.task().await;
        let start = |more: Value| {
            let mut body = json!({"application_id": "app-1"});
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            Some(body)
        };
        let lend = |source: &str, target: &str, more: Value| {
            let mut body = delegation(source, target);
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            Some(body)
        };
        let (agents, delegations) = ("/zones/z-1/agents", "/zones/z-1/delegations");
        let (end, take) = (format!("{agents}/{a}"), format!("{delegations}/{lent}/revoke"));
        let ended = format!("{agents}/s-ended");
        let before = (house.holding().await, house.epoch().await, house.changes("z-1").await.len());
        house.messages();
        for (method, path, token, body, status, code) in [
            ("POST", agents, &token, start(json!({"ttl_seconds": 0})), 400, "invalid_body"),
            ("POST", agents, &stranger, start(json!({})), 403, "application_ownership_required"),
            ("POST", agents, &token, start(json!({})), 429, "session_limit_exceeded"),
            ("POST", agents, &token, start(json!({"subject_session_id": "rec-2"})), 404, "session_not_found"),
            (
                "POST",
                delegations,
                &token,
                lend(&a, &b, json!({"scopes": ["no"]})),
                403,
                "delegation_scopes_exceed_resource",
            ),
            ("POST", delegations, &token, lend(&a, &a, json!({})), 400, "self_delegation_denied"),
            ("POST", delegations, &token, lend(&a, "s-ended", json!({})), 404, "delegation_endpoint_not_found"),
            ("POST", delegations, &token, lend(&b, &c, json!({})), 403, "delegation_exceeds_parent_authority"),
            (
                "POST",
                delegations,
                &token,
                lend(&b, &a, json!({"ttl_seconds": 9})),
                403,
                "delegation_exceeds_parent_authority",
            ),
            (
                "POST",
                delegations,
                &token,
                lend(&a, &b, json!({"expires_at": "2020-01-01T00:00:00Z"})),
                400,
                "delegation_expired",
            ),
            ("POST", delegations, &stranger, lend(&a, &b, json!({})), 403, "issuer_ownership_required"),
            ("DELETE", end.as_str(), &stranger, None, 403, "application_ownership_required"),
            ("DELETE", ended.as_str(), &token, None, 404, "session_not_found"),
            ("PATCH", take.as_str(), &stranger, None, 403, "issuer_ownership_required"),
        ] {
            let keyed = [("idempotency-key", "key-1")];
            let reply = house.send(request(method, path, token, body.clone(), &keyed)).await;
            assert_eq!(reply.refusal(), (status, code), "{method} {path} {body:?}");
            let after = (house.holding().await, house.epoch().await, house.changes("z-1").await.len());
            assert_eq!(after, before, "{method} {path} {body:?}");
            assert!(house.messages().is_empty(), "{method} {path} {body:?}");
        }
        for (session, edges) in [(&a, 0), (&b, 1), (&c, 0)] {
            let inbound = house.get(&format!("{delegations}/inbound/{session}"), &token).await.expect(200);
            assert_eq!(inbound.body["items"].as_array().unwrap().len(), edges);
        }
        // None of them left a receipt: under the same key another request is executed.
        house.terminate(&token, &full).await.expect(204);
        let reply = house.start_keyed(&token, "key-1", json!({"application_id": "app-1"})).await.expect(201);
        assert!(!reply.headers.contains_key("idempotency-replayed"));
        let body = lend(&a, &c, json!({}));
        house.send(request("POST", delegations, &token, body, &[("idempotency-key", "key-1")])).await.expect(201);
    }

    #[tokio::test]
    async fn refusing_quickly_never_waits_for_records() {
        let house = House::open().await;
        let token = house.mandate("app-1").await;
        // Nobody writes records down here, and more are refused than the queue holds.
        for _ in 0..1_100 {
            house.get("/zones/z-1/agents/unknown", &token).await.expect(404);
        }
    }
}
