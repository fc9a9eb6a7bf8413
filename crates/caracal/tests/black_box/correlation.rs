//! One request, one name, everywhere (README D16, D28, D33).

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use http::{HeaderMap, Method};
use serde_json::{Value, json};

use crate::support::{Addressed, Http, NOTES, Tenant};
use crate::{start, until};

/// An upstream that writes down what it receives.
async fn recording_upstream() -> (String, Arc<Mutex<Vec<HeaderMap>>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let received: Arc<Mutex<Vec<HeaderMap>>> = Arc::default();
    let log = received.clone();
    let router = axum::Router::new().fallback(move |headers: HeaderMap| {
        log.lock().unwrap().push(headers);
        async { "notes" }
    });
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, received)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agents_request_id_is_in_every_services_evidence_and_at_the_upstream() {
    let directory = tempfile::tempdir().unwrap();
    let (http, system) = (Http::new(), start(directory.path()));
    let (upstream, received) = recording_upstream().await;
    let tenant = Tenant::provision(&http, &system, &upstream).await;
    let (session, edge) = tenant.delegation(&http, &system).await;
    let form = format!(
        "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange&zone_id={}&application_id={}\
         &client_secret={}&resource=resource%3A%2F%2Fnotes&scope=notes%3Aread&agent_session_id={session}\
         &delegation_edge_id={edge}",
        tenant.zone, tenant.application, tenant.client_secret
    );
    let form_type = ("content-type", "application/x-www-form-urlencoded");
    let named = ("x-request-id", "agent:task-7/step.1");
    let sts = format!("{}/oauth/2/token", system.url("sts"));
    let minted = http.send(Method::POST, &sts, &[form_type, named], form).await.unwrap();
    assert_eq!((minted.status.as_u16(), minted.request_id().as_str()), (200, named.1), "{}", minted.json());
    let bearer = format!("Bearer {}", minted.text("access_token"));
    let headers = [("authorization", bearer.as_str()), ("x-caracal-resource", NOTES), named];
    let called = http.send(Method::GET, &format!("{}/notes", system.url("gateway")), &headers, "").await.unwrap();
    assert_eq!((called.status.as_u16(), called.request_id().as_str()), (200, named.1));
    assert_eq!(received.lock().unwrap()[0]["x-request-id"], named.1);

    let encoded = "agent:task-7%2Fstep.1";
    let events = until("the evidence of the call", async || {
        let events = tenant.evidence(&http, &system, encoded).await;
        (events.as_array()?.len() >= 3).then_some(events)
    })
    .await;
    let events = events.as_array().unwrap();
    let told: Vec<(&str, &str)> = events
        .iter()
        .map(|event| (event["event_type"].as_str().unwrap(), event["decision"].as_str().unwrap()))
        .collect();
    // The mint, the exchange behind the call, and the call.
    let expected = [("token_exchange", "allow"), ("token_exchange", "allow"), ("gateway_resource_request", "allow")];
    assert_eq!(told, expected, "{events:?}");
    let ids: BTreeSet<&str> = events.iter().map(|event| event["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 3, "an id of evidence is never the caller's");
    for event in events {
        assert_eq!((&event["request_id"], event["id"].as_str().unwrap().len()), (&json!(named.1), 36));
        assert_eq!(event["metadata_json"]["resource"], NOTES);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_mint_and_a_denied_call_are_explained_with_their_reason() {
    let directory = tempfile::tempdir().unwrap();
    let (http, system) = (Http::new(), start(directory.path()));
    let (upstream, received) = recording_upstream().await;
    let tenant = Tenant::provision(&http, &system, &upstream).await;
    let (session, edge) = tenant.delegation(&http, &system).await;
    let asked = [("scope", "notes:write"), ("agent_session_id", &*session), ("delegation_edge_id", &*edge)];
    let denied = tenant.exchange(&http, &system, &asked).await.unwrap();
    assert_eq!(denied.status, 403, "{}", denied.json());

    let explain = async |request: &str| {
        let url = format!("{}/v1/zones/{}/audit/by-request/{request}/explain", system.url("api"), tenant.zone);
        until("the explanation", async || {
            let explained = http.json(Method::GET, &url, &system.admin_token(), None).await.unwrap();
            (explained.status == 200).then(|| explained.json())
        })
        .await
    };
    let explained: Value = explain(&denied.request_id()).await;
    assert_eq!((&explained["final_decision"], &explained["zone_id"]), (&json!("deny"), &json!(tenant.zone)));
    let why = &explained["denied"][0];
    assert_eq!(why["metadata"]["refusal"], "ScopesExceedDelegation", "{why}");
    assert_eq!(why["metadata"]["requested_scopes"], json!(["notes:write"]));
    let input = &why["policy_input"];
    assert_eq!(input["principal"]["id"], json!(tenant.application));
    assert_eq!(input["resource"], json!({"type": "Resource", "identifier": NOTES, "scopes": ["notes:write"]}));
    assert_eq!(input["context"]["delegation_edge_id"], json!(edge));

    let mandate = tenant.mint(&http, &system, (&session, &edge)).await.unwrap().text("access_token");
    let bearer = format!("Bearer {mandate}");
    let headers = [("authorization", bearer.as_str()), ("x-caracal-resource", NOTES)];
    let undeclared = format!("{}/undeclared", system.url("gateway"));
    let refused = http.send(Method::GET, &undeclared, &headers, "").await.unwrap();
    assert_eq!((refused.status.as_u16(), refused.text("error")), (403, "operation_not_permitted".to_owned()));
    let explained = explain(&refused.request_id()).await;
    let statuses: Vec<&Value> =
        explained["denied"].as_array().unwrap().iter().map(|denied| &denied["evaluation_status"]).collect();
    assert!(statuses.contains(&&json!("operation_not_permitted")), "{explained}");

    // And one that the policy denies: the set that allowed it is gone.
    let (sets, token) = (format!("{}/v1/zones/{}/policy-sets", system.url("api"), tenant.zone), system.admin_token());
    let listed = http.json(Method::GET, &sets, &token, None).await.unwrap().json();
    let set = format!("{sets}/{}", listed["items"][0]["id"].as_str().unwrap());
    assert_eq!(http.json(Method::DELETE, &set, &token, None).await.unwrap().status, 204);
    let denied = tenant.mint(&http, &system, (&session, &edge)).await.unwrap();
    assert_eq!((denied.status.as_u16(), denied.text("error")), (403, "access_denied".to_owned()));
    let explained = explain(&denied.request_id()).await;
    let reasons = &explained["denied"][0]["diagnostics"];
    assert!(reasons[0]["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{explained}");
    assert_eq!(explained["denied"][0]["policy_input"]["delegation_edge"]["id"], json!(edge));
    assert!(received.lock().unwrap().is_empty(), "nothing of it reached the upstream");
}
