//! What is on record of a call (gateway.md §19; properties 17, 18).

mod t06_evidence {
    use std::collections::BTreeMap;
    use std::sync::atomic::Ordering;

    use caracal_crypto::Secret;
    use caracal_gateway::{Directive, ExchangeRefusal};
    use caracal_ledger::verify_store;
    use http::StatusCode;
    use serde_json::json;

    use crate::sts::Said;
    use crate::upstream::Upstream;
    use crate::world::{World, request, to};

    #[tokio::test]
    async fn a_call_leaves_one_event_with_everything_but_secrets() {
        let upstream = Upstream::ok().await;
        let url = upstream.url("/base?fixed=secret-query");
        let world = World::scripted(move |_| {
            Said::Go(Directive {
                auth_mode: "provider_oauth".to_owned(),
                provider_token: Some(Secret::new("provider-secret".to_owned())),
                provider_id: "p-1".to_owned(),
                connection_id: "c-1".to_owned(),
                ..to(url.clone())
            })
        })
        .await;
        let mandate = world.mandate(json!({"sub": "alice", "sub_type": "user"})).await;
        let headers = "X-Request-Id: r-1\r\nTraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\
                       Content-Length: 6\r\n";
        let answer =
            world.ask(&format!("{}in-body", request("POST", "/secret-path?q=secret", &mandate, headers))).await;
        assert_eq!(answer.status(), 200);
        let event = world.events("r-1", 1).await.remove(0);
        assert_eq!(event.id.as_bytes()[14], b'7');
        let found = [
            event.zone_id.as_str(),
            &event.event_type,
            &event.decision,
            &event.evaluation_status,
            &event.determining_policies,
            &event.diagnostics,
        ];
        assert_eq!(found, ["z-1", "gateway_resource_request", "allow", "executed", "[]", "[]"]);
        let mut metadata: serde_json::Value = serde_json::from_str(&event.metadata).unwrap();
        let fingerprint = metadata["subject_fingerprint"].take();
        assert_eq!(fingerprint.as_str().map(str::len), Some(16));
        assert!(metadata["latency_ms"].take().is_u64() && metadata["duration_ms"].take().is_u64());
        let expected = json!({
            "application_id": "app-1", "resource": "resource://items", "subject_fingerprint": null, "method": "POST",
            "gateway_status": 200, "latency_ms": null, "duration_ms": null, "request_bytes": 6, "response_bytes": 2, "subject_kind": "user",
            "trace_id": "0af7651916cd43dd8448eb211c80319c", "upstream_host": upstream.address.to_string(),
            "auth_mode": "provider_oauth", "provider_id": "p-1", "connection_id": "c-1", "upstream_status": 200,
            "result_class": "success",
        });
        assert_eq!(metadata, expected);
        for secret in ["secret", "body", "alice", mandate.as_str(), "minted"] {
            assert!(!event.metadata.contains(secret), "{secret}");
        }
    }

    #[tokio::test]
    async fn the_class_of_a_result_is_its_first_digit() {
        for (status, class) in
            [(201, "success"), (304, "redirect"), (404, "client_error"), (500, "server_error"), (599, "server_error")]
        {
            let upstream = Upstream::answering(move |_| {
                let mut response = http::Response::new(crate::upstream::full(""));
                *response.status_mut() = StatusCode::from_u16(status).unwrap();
                response
            })
            .await;
            let world = World::before(&upstream).await;
            let request = world.request("GET", "/x", "X-Request-Id: r-1\r\n").await;
            assert_eq!(world.ask(&request).await.status(), status);
            let (_, evaluation, metadata) = world.event("r-1").await;
            assert_eq!((evaluation.as_str(), &metadata["result_class"]), ("executed", &json!(class)));
            assert_eq!((&metadata["gateway_status"], &metadata["upstream_status"]), (&json!(status), &json!(status)));
        }
    }

    #[tokio::test]
    async fn the_sts_records_its_denials_and_the_gateway_what_the_sts_could_not() {
        let world = World::scripted(|_| Said::Hang).await;
        world.sts.says(|_| Said::No(ExchangeRefusal::denied(StatusCode::FORBIDDEN, "access_denied", "policy denied")));
        let denied = world.request("GET", "/x", "X-Request-Id: r-1\r\n").await;
        assert_eq!(world.ask(&denied).await.status(), 403);
        world.sts.says(|_| Said::Unable(ExchangeRefusal::unavailable()));
        let undecided = world.request("GET", "/x", "X-Request-Id: r-2\r\n").await;
        assert_eq!(world.ask(&undecided).await.status(), 503);
        world.sts.says(|_| Said::Nowhere);
        let nowhere = world.request("GET", "/x", "X-Request-Id: r-3\r\n").await;
        assert_eq!(world.ask(&nowhere).await.status(), 403);
        for (id, reason, status) in [("r-2", "sts_unavailable", 503), ("r-3", "upstream_not_configured", 403)] {
            let event = world.events(id, 1).await.remove(0);
            let metadata: serde_json::Value = serde_json::from_str(&event.metadata).unwrap();
            let found = (event.event_type.as_str(), event.decision.as_str(), event.evaluation_status.as_str());
            assert_eq!(found, ("gateway_resource_request", "deny", reason));
            assert_eq!((&metadata["gateway_status"], &metadata["latency_ms"]), (&json!(status), &json!(0)));
        }
        assert!(world.events_now("r-1").await.is_empty());
    }

    #[tokio::test]
    async fn what_is_under_way_and_what_waits_is_committed_before_the_end() {
        let upstream = Upstream::ok().await;
        let world = World::before(&upstream).await;
        for n in 0..50 {
            let request = world.request("GET", "/x", &format!("X-Request-Id: r-{n}\r\n")).await;
            assert_eq!(world.ask(&request).await.status(), 200);
        }
        let deployment = world.deployment.clone();
        let served = world.stop().await;
        assert_eq!((served.connections, served.evidence_lost), (caracal_http::server::Ended::Drained, 0));
        for n in 0..50 {
            assert_eq!(deployment.events_now(&format!("r-{n}")).await.len(), 1, "{n}");
        }
    }

    #[tokio::test]
    async fn evidence_of_many_zones_is_committed_each_in_its_own_chain() {
        let upstream = Upstream::ok().await;
        let world = World::before(&upstream).await;
        for zone in ["z-1", "z-2", "z-3"] {
            let mut claims = world.claims();
            claims["zone_id"] = json!(zone);
            let mandate = world.sign(zone, &claims).await;
            assert_eq!(world.ask(&request("GET", "/x", &mandate, "")).await.status(), 200);
        }
        let deployment = world.deployment.clone();
        world.stop().await;
        let mut snapshot = deployment.store.snapshot().await.unwrap();
        let chains = caracal_store::evidence::list_chains(&mut snapshot.deployment()).await.unwrap();
        assert_eq!(chains.iter().map(|zone| zone.as_str()).collect::<Vec<_>>(), ["z-1", "z-2", "z-3"]);
        let report =
            verify_store(&mut snapshot.deployment(), Some(&*deployment.ledger_key), &BTreeMap::new(), |_, _| ())
                .await
                .unwrap();
        assert!(report.is_intact(), "{report:?}");
    }

    #[tokio::test]
    async fn an_event_that_the_chain_refuses_is_lost_alone_and_the_process_is_never_ready_again() {
        let upstream = Upstream::ok().await;
        let world = World::before(&upstream).await;
        world.ledger_key.0.store(false, Ordering::SeqCst);
        let lost = world.request("GET", "/x", "X-Request-Id: r-1\r\n").await;
        assert_eq!(world.ask(&lost).await.status(), 200);
        while world.metric("audit_dropped").await == 0 {}
        world.ledger_key.0.store(true, Ordering::SeqCst);
        let kept = world.request("GET", "/x", "X-Request-Id: r-2\r\n").await;
        assert_eq!(world.ask(&kept).await.status(), 200);
        assert_eq!(world.event("r-2").await.1, "executed");
        assert!(world.events_now("r-1").await.is_empty());
        let answer = world.ask("GET /ready HTTP/1.1\r\nHost: g\r\n\r\n").await;
        assert_eq!((answer.status(), &answer.json()["reason"]), (503, &json!("audit_evidence_lost")));
    }

    #[tokio::test]
    async fn evidence_that_a_failing_store_did_not_take_is_reported_as_lost() {
        let upstream = Upstream::ok().await;
        let url = upstream.url("");
        let config = caracal_gateway::GatewayConfig {
            evidence_grace: std::time::Duration::from_millis(100),
            ..crate::world::config()
        };
        let world = World::with(config, move |_| Said::Wait(to(url.clone()))).await;
        let mut caller = world.caller().await;
        caller.send(world.request("GET", "/x", "").await).await;
        world.sts.arrived.notified().await;
        // The mandate was used up; then the store goes.
        while world.sts.under_way.load(Ordering::SeqCst) == 0 {}
        let store = world.store.clone();
        let closing = tokio::spawn(async move { store.close().await });
        closing.await.unwrap();
        world.sts.go_on.notify_one();
        let _ = caller.answer(true).await;
        let served = world.stop().await;
        assert_eq!(served.evidence_lost, 1);
    }
}
