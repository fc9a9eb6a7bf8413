//! `kill -9` at any moment of a loop of governed calls, then a start: the ledger verifies, every mandate that was handed
//! out has its evidence, no consumed mandate is accepted again. Read by an outsider: public routes and the offline
//! verifier only.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "crash/cascades.rs"]
mod cascades;
#[path = "crash/changes.rs"]
mod changes;
mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use http::{Method, StatusCode};
use serde_json::Value;
use support::{Addressed, Http, Running, Tenant, caracal, run, upstream};

/// What the agents saw before the process died.
#[derive(Default)]
struct Seen {
    /// Mandates that were handed out, with the request that minted each.
    minted: Vec<(String, String)>,
    /// Mandates whose call was answered by the upstream.
    consumed: Vec<String>,
}

mod t06_evidence {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn kill_at_any_moment_loses_no_evidence_and_readmits_no_mandate() {
        let directory = tempfile::tempdir().unwrap();
        let http = Arc::new(Http::new());
        let upstream = upstream().await;
        let mut system = start(directory.path());
        let tenant = Arc::new(Tenant::provision(&http, &system, &upstream).await);
        let (session, edge) = tenant.delegation(&http, &system).await;
        // Spread over the phases of mint, exchange, commit and answer.
        for round in 0..8u64 {
            let unused = tenant.mint(&http, &system, (&session, &edge)).await.unwrap().text("access_token");
            let seen = calls_until_killed(&http, &mut system, &tenant, (&session, &edge), 40 + round * 23).await;
            assert!(!seen.minted.is_empty(), "round {round} was killed before it began");
            let verified = run(caracal().args(["audit", "verify", "--json", "--data-dir"]).arg(directory.path()));
            assert_eq!(verified.code, Some(0), "round {round}: {} {}", verified.stdout, verified.stderr);
            system = start(directory.path());
            every_mandate_has_its_evidence(&http, &system, &tenant, &seen).await;
            for mandate in &seen.consumed {
                assert_eq!(refused(&http, &system, &tenant, mandate).await, REPLAYED, "round {round}");
            }
            // Those refusals mean something: what was not consumed is still good, once.
            assert_eq!(tenant.call(&http, &system, &unused).await.unwrap().status, StatusCode::OK, "round {round}");
            assert_eq!(refused(&http, &system, &tenant, &unused).await, REPLAYED, "round {round}");
        }
    }

    const REPLAYED: (u16, &str) = (401, "token replay detected");

    /// Ports change from start to start, and with them the issuer unless it is named: then every older mandate would be
    /// refused as somebody else's, whether or not it was consumed.
    fn start(data_dir: &std::path::Path) -> Running {
        // Grants of the last minute count across restarts.
        let unlimited = ("STS_MINT_RATE_LIMIT_PER_MIN", "1000000");
        Running::start_with(data_dir, &[("ISSUER_URL", "http://issuer.test"), unlimited])
    }

    async fn refused(http: &Http, system: &Running, tenant: &Tenant, mandate: &str) -> (u16, &'static str) {
        let answer = tenant.call(http, system, mandate).await.unwrap();
        let description = answer.json()["error_description"].as_str().unwrap_or_default().to_owned();
        (answer.status.as_u16(), if description == REPLAYED.1 { REPLAYED.1 } else { "something else" })
    }

    /// Eight agents mint and call until the process is killed after about `after_calls` answers.
    async fn calls_until_killed(
        http: &Arc<Http>,
        system: &mut Running,
        tenant: &Arc<Tenant>,
        (session, edge): (&str, &str),
        after_calls: u64,
    ) -> Seen {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let dead = Arc::new(AtomicBool::new(false));
        let (sts, gateway) = (system.url("sts"), system.url("gateway"));
        let mut agents = Vec::new();
        for _ in 0..8 {
            let agent = Agent {
                http: http.clone(),
                tenant: tenant.clone(),
                sts: sts.clone(),
                gateway: gateway.clone(),
                session: session.to_owned(),
                edge: edge.to_owned(),
            };
            let (seen, dead) = (seen.clone(), dead.clone());
            agents.push(tokio::spawn(async move {
                while !dead.load(Ordering::Relaxed) {
                    let Some((request, mandate)) = agent.mint().await else { continue };
                    seen.lock().unwrap().minted.push((request, mandate.clone()));
                    if agent.call(&mandate).await {
                        seen.lock().unwrap().consumed.push(mandate);
                    }
                }
            }));
        }
        while (seen.lock().unwrap().consumed.len() as u64) < after_calls {
            tokio::task::yield_now().await;
        }
        system.kill();
        dead.store(true, Ordering::Relaxed);
        for agent in agents {
            agent.await.unwrap();
        }
        std::mem::take(&mut *seen.lock().unwrap())
    }

    struct Agent {
        http: Arc<Http>,
        tenant: Arc<Tenant>,
        sts: String,
        gateway: String,
        session: String,
        edge: String,
    }

    impl Agent {
        async fn mint(&self) -> Option<(String, String)> {
            let fields = [
                ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
                ("zone_id", &self.tenant.zone),
                ("application_id", &self.tenant.application),
                ("client_secret", &self.tenant.client_secret),
                ("resource", support::NOTES),
                ("scope", "notes:read"),
                ("agent_session_id", &self.session),
                ("delegation_edge_id", &self.edge),
            ];
            let answer = self.http.form(&format!("{}/oauth/2/token", self.sts), &fields).await?;
            assert_eq!(answer.status, StatusCode::OK, "{}", answer.json());
            Some((answer.request_id(), answer.text("access_token")))
        }

        async fn call(&self, mandate: &str) -> bool {
            let bearer = format!("Bearer {mandate}");
            let headers = [("authorization", bearer.as_str()), ("x-caracal-resource", support::NOTES)];
            let answer = self.http.send(Method::GET, &format!("{}/notes", self.gateway), &headers, "").await;
            answer.is_some_and(|answer| answer.status == StatusCode::OK)
        }
    }

    async fn every_mandate_has_its_evidence(http: &Http, system: &Running, tenant: &Tenant, seen: &Seen) {
        let token = system.admin_token();
        // A look at each would take longer than making them; the last ones are those that were in flight.
        for (request, mandate) in seen.minted.iter().rev().take(24) {
            let url = format!("{}/v1/zones/{}/audit/by-request/{request}", system.url("api"), tenant.zone);
            let events = http.json(Method::GET, &url, &token, None).await.unwrap();
            assert_eq!(events.status, StatusCode::OK, "no evidence for request {request}");
            let jti = claim(mandate, "jti");
            let allowed = events
                .json()
                .as_array()
                .unwrap()
                .iter()
                .any(|event| event["decision"] == "allow" && event["metadata_json"]["mandate_id"] == jti.as_str());
            assert!(allowed, "the evidence of {request} does not name its mandate: {}", events.json());
        }
    }

    fn claim(token: &str, name: &str) -> String {
        let payload = token.split('.').nth(1).unwrap();
        let bytes = caracal_crypto::encoding::from_base64url(payload).unwrap();
        serde_json::from_slice::<Value>(&bytes).unwrap()[name].as_str().unwrap().to_owned()
    }
}

mod t08_availability {
    use std::time::{Duration, Instant};

    use super::*;

    /// From the start of the next process to its first mandate, with all that was granted before on record. Another program
    /// may have the machine for a moment, so the best of a few counts; what takes longer each time is ours.
    #[tokio::test(flavor = "multi_thread")]
    async fn killed_in_the_middle_of_granting_it_grants_again_within_a_second() {
        let directory = tempfile::tempdir().unwrap();
        let http = Arc::new(Http::new());
        let upstream = upstream().await;
        let mut system = Running::start_with(directory.path(), &[("STS_MINT_RATE_LIMIT_PER_MIN", "1000000")]);
        let tenant = Arc::new(Tenant::provision(&http, &system, &upstream).await);
        let (session, edge) = tenant.delegation(&http, &system).await;
        let mut took = Vec::new();
        for _ in 0..5 {
            let (granted, agents): (Arc<Mutex<Vec<String>>>, Vec<_>) = {
                let granted = Arc::new(Mutex::new(Vec::new()));
                let sts = Arc::new(support::cluster::Through {
                    control: Value::Null,
                    sts: system.url("sts"),
                    gateway: String::new(),
                    admin_token: String::new(),
                });
                let agents = (0..4).map(|_| {
                    let (http, tenant, sts, granted) = (http.clone(), tenant.clone(), sts.clone(), granted.clone());
                    let lent = (session.clone(), edge.clone());
                    tokio::spawn(async move {
                        while let Some(answer) = tenant.mint(&http, &*sts, (&lent.0, &lent.1)).await {
                            assert_eq!(answer.status, StatusCode::OK, "{}", answer.json());
                            granted.lock().unwrap().push(answer.request_id());
                        }
                    })
                });
                (granted.clone(), agents.collect())
            };
            while granted.lock().unwrap().len() < 12 {
                tokio::task::yield_now().await;
            }
            system.kill();
            for agent in agents {
                agent.await.unwrap();
            }
            let begun = Instant::now();
            system = system.started_again();
            let first = tenant.mint(&http, &system, (&session, &edge)).await.unwrap();
            took.push(begun.elapsed());
            assert_eq!(first.status, StatusCode::OK, "{}", first.json());
            let granted = std::mem::take(&mut *granted.lock().unwrap());
            for request in granted {
                let events = tenant.evidence(&http, &system, &request).await;
                assert!(events[0]["decision"] == "allow", "{request}: {events}");
            }
        }
        assert!(took.iter().any(|took| *took < Duration::from_secs(1)), "{took:?}");
    }
}
