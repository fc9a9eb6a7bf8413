//! Starts, stops and neighbours.

use http::Method;
use serde_json::json;

use crate::start;
use crate::support::{Addressed, Http, Running, Tenant, caracal, run, upstream};

mod t17_rollback_restart {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_granted_before_a_restart_is_good_after_it_and_what_was_taken_back_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let http = Http::new();
        let mut system = start(directory.path());
        let tenant = Tenant::provision(&http, &system, &upstream().await).await;
        let (session, edge) = tenant.delegation(&http, &system).await;
        let (other, taken_back) = tenant.delegation(&http, &system).await;
        let mint = async |system: &Running, session: &str, edge: &str| {
            tenant.mint(&http, system, (session, edge)).await.unwrap().text("access_token")
        };
        let unused = mint(&system, &session, &edge).await;
        let used = mint(&system, &session, &edge).await;
        let void = mint(&system, &other, &taken_back).await;
        let lifecycle = tenant.exchange(&http, &system, &[("scope", "agent:lifecycle")]).await.unwrap();
        let lifecycle = lifecycle.text("access_token");
        assert_eq!(tenant.call(&http, &system, &used).await.unwrap().status, 200);
        assert_eq!(tenant.revoke(&http, &system, &taken_back).await.unwrap().status, 200);

        assert!(system.terminate());
        let mut system = system.started_again();
        let call = async |system: &Running, mandate: &str| {
            let answer = tenant.call(&http, system, mandate).await.unwrap();
            (answer.status.as_u16(), answer.json()["error_description"].as_str().unwrap_or_default().to_owned())
        };
        assert_eq!(call(&system, &unused).await, (200, String::new()));
        assert_eq!(call(&system, &unused).await, (401, "token replay detected".to_owned()));
        assert_eq!(call(&system, &used).await, (401, "token replay detected".to_owned()));
        assert_eq!(call(&system, &void).await, (401, "session revoked".to_owned()));
        let refused = tenant.mint(&http, &system, (&other, &taken_back)).await.unwrap();
        assert_eq!((refused.status.as_u16(), refused.text("error")), (403, "access_denied".to_owned()));
        let fresh = mint(&system, &session, &edge).await;
        assert_eq!(call(&system, &fresh).await.0, 200, "policy and session are still in force");
        let session_url = format!("{}/zones/{}/agents/{session}", system.url("coordinator"), tenant.zone);
        let seen = http.json(Method::GET, &session_url, &lifecycle, None).await.unwrap();
        assert_eq!(seen.status, 200, "{}", seen.json());

        // And once more without a goodbye.
        let (unused, void) = (mint(&system, &session, &edge).await, mint(&system, &session, &edge).await);
        assert_eq!(tenant.revoke(&http, &system, &edge).await.unwrap().status, 200);
        system.kill();
        let system = system.started_again();
        for mandate in [&unused, &void] {
            assert_eq!(call(&system, mandate).await, (401, "session revoked".to_owned()));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t01_control_plane_two_systems_on_one_machine_know_nothing_of_each_other() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let http = Http::new();
    let (one, two) = (start(here.path()), start(there.path()));
    assert_ne!(one.offset, two.offset);
    let upstream = upstream().await;
    let tenant = Tenant::provision(&http, &one, &upstream).await;
    let other = Tenant::provision(&http, &two, &upstream).await;
    for (tenant, at_home, abroad) in [(&tenant, &one, &two), (&other, &two, &one)] {
        let (session, edge) = tenant.delegation(&http, at_home).await;
        let mandate = tenant.mint(&http, at_home, (&session, &edge)).await.unwrap().text("access_token");
        let foreign = tenant.call(&http, abroad, &mandate).await.unwrap();
        assert_eq!((foreign.status.as_u16(), foreign.text("error")), (401, "invalid_token".to_owned()));
        assert_eq!(tenant.call(&http, at_home, &mandate).await.unwrap().status, 200, "and it was not spent there");
        let zones = format!("{}/v1/zones", abroad.url("api"));
        let intruder = http.json(Method::GET, &zones, &at_home.admin_token(), None).await.unwrap();
        assert_eq!((intruder.status.as_u16(), intruder.text("error")), (401, "invalid_admin_token".to_owned()));
        assert_eq!(tenant.exchange(&http, abroad, &[("scope", "agent:lifecycle")]).await.unwrap().status, 401);
        let zones = http.json(Method::GET, &zones, &abroad.admin_token(), None).await.unwrap().json();
        assert_eq!(zones["items"].as_array().unwrap().len(), 1);
        assert_ne!(zones["items"][0]["id"], json!(tenant.zone));
        let offset = at_home.offset.to_string();
        assert_eq!(run(caracal().args(["status", "--ready", "--port-offset", &offset])).code, Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_listener_of_agents_has_a_gate_and_they_count_together() {
    let directory = tempfile::tempdir().unwrap();
    let environment = [("METRICS_BEARER", "metrics-bearer-1f3b")];
    let (http, system) = (Http::new(), Running::start_with(directory.path(), &environment));
    for service in ["sts", "gateway", "coordinator"] {
        let url = format!("{}/metrics", system.url(service));
        let answer = http.json(Method::GET, &url, "metrics-bearer-1f3b", None).await.unwrap();
        let text = String::from_utf8(answer.body).unwrap();
        for series in ["requests_shed_total 0", "work_in_progress 0", "work_limit 0"] {
            assert!(text.contains(&format!("\ncaracal_{service}_{series}\n")), "{service}: {text}");
        }
    }
}
