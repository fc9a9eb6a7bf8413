//! What a governed call costs the system: counted in the metrics that operators see, at the moment its request reaches the
//! upstream, and when its evidence is durable (docs/gateway.md, "What a call costs").

use std::time::Duration;

use caracal_testkit::{Database, Redis};
use http::Method;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::World;
use crate::support::{Addressed, Http, Running, Tenant};

/// Only a defect takes as long.
const PATIENCE: Duration = Duration::from_secs(20);
const BEARER: &str = "0123456789abcdef0123456789abcdef";
/// Calls of one measurement. What a process commits of its own accord, once in a second at most, meets only some of them.
const CALLS: usize = 12;

/// Says that it was asked, and answers when it is told to.
async fn holding_upstream() -> (String, mpsc::UnboundedReceiver<mpsc::Sender<()>>) {
    let (arrived, arrivals) = mpsc::unbounded_channel();
    let router = axum::Router::new().fallback(move || {
        let arrived = arrived.clone();
        async move {
            let (go, mut gone) = mpsc::channel(1);
            arrived.send(go).unwrap();
            gone.recv().await;
            "notes"
        }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, arrivals)
}

/// What a process has counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Counts {
    verifications: u64,
    /// Final mandates.
    signatures: u64,
    marks: u64,
    commits: u64,
    changes: u64,
}

impl Counts {
    fn since(self, before: Self) -> Self {
        Self {
            verifications: self.verifications - before.verifications,
            signatures: self.signatures - before.signatures,
            marks: self.marks - before.marks,
            commits: self.commits - before.commits,
            changes: self.changes - before.changes,
        }
    }

    /// What none of both has less of.
    fn least(self, other: Self) -> Self {
        Self {
            verifications: self.verifications.min(other.verifications),
            signatures: self.signatures.min(other.signatures),
            marks: self.marks.min(other.marks),
            commits: self.commits.min(other.commits),
            changes: self.changes.min(other.changes),
        }
    }
}

async fn metrics(http: &Http, url: &str) -> Value {
    let bearer = format!("Bearer {BEARER}");
    let headers = [("authorization", bearer.as_str())];
    let answer = http.send(Method::GET, &format!("{url}/metrics.json"), &headers, "").await.unwrap();
    assert_eq!(answer.status, 200, "{url}");
    answer.json()
}

async fn of_sts(http: &Http, sts: &impl Addressed) -> Counts {
    let metrics = metrics(http, &sts.url("sts")).await;
    let of = |name: &str| metrics["sts"][name].as_u64().unwrap_or_else(|| panic!("no {name}: {metrics}"));
    Counts {
        verifications: of("signature_verifications"),
        signatures: of("signatures"),
        marks: of("mandates_used"),
        commits: of("store_commits"),
        changes: of("store_changes"),
    }
}

/// What a Gateway has counted, and its exchanges; it signs nothing and marks nothing.
async fn of_gateway(http: &Http, gateway: &Running) -> (Counts, u64, u64) {
    let metrics = metrics(http, &gateway.url("gateway")).await;
    let of = |name: &str| metrics[name].as_u64().unwrap_or_else(|| panic!("no {name}: {metrics}"));
    let counts = Counts {
        verifications: of("signature_verifications"),
        signatures: 0,
        marks: 0,
        commits: of("store_commits"),
        changes: of("store_changes"),
    };
    (counts, of("sts_exchanges"), of("audit_persisted"))
}

/// What one call costs, by the time its request is at the upstream, and by the time that its evidence is durable.
#[derive(Debug, PartialEq, Eq)]
struct Cost {
    sts: [Counts; 2],
    gateway: [Counts; 2],
}

/// Makes calls one after the other. What a call costs is what the cheapest of them did; what is counted of calls alone is also
/// the same for each of them, the exchange among it.
async fn cost(
    http: &Http,
    sts: &impl Addressed,
    gateway: &Running,
    arrivals: &mut mpsc::UnboundedReceiver<mpsc::Sender<()>>,
    tenant: &Tenant,
) -> Cost {
    let lent = tenant.delegation(http, sts).await;
    let mut mandates = Vec::new();
    for _ in 0..=CALLS {
        mandates.push(tenant.mint(http, sts, (&lent.0, &lent.1)).await.unwrap().text("access_token"));
    }
    let mut least: Option<Cost> = None;
    for (number, mandate) in mandates.iter().enumerate() {
        let (before, (before_gateway, exchanges, persisted)) =
            (of_sts(http, sts).await, of_gateway(http, gateway).await);
        let measuring = async {
            let go = arrivals.recv().await.unwrap();
            let (sts, (gateway, ..)) = (of_sts(http, sts).await, of_gateway(http, gateway).await);
            go.send(()).await.unwrap();
            (sts, gateway)
        };
        let calling = tenant.call(http, gateway, mandate);
        let (answer, arrived) = timeout(PATIENCE, async { tokio::join!(calling, measuring) }).await.unwrap();
        assert_eq!(answer.unwrap().status, 200);
        let ended = async {
            loop {
                let (counts, exchanges, now) = of_gateway(http, gateway).await;
                if now > persisted {
                    return (counts, exchanges);
                }
                tokio::task::yield_now().await;
            }
        };
        let (gateway, now) = timeout(PATIENCE, ended).await.unwrap();
        assert_eq!(now - exchanges, 1, "exchanges of call {number}");
        let cost = Cost {
            sts: [arrived.0.since(before), of_sts(http, sts).await.since(before)],
            gateway: [arrived.1.since(before_gateway), gateway.since(before_gateway)],
        };
        let alone = |counts: Counts| (counts.verifications, counts.signatures, counts.marks);
        least = match least {
            // The first call also makes connections, and learns the zone's key.
            _ if number == 0 => None,
            None => Some(cost),
            Some(least) => {
                for (one, other) in [(&least.sts, &cost.sts), (&least.gateway, &cost.gateway)] {
                    assert_eq!(one.map(alone), other.map(alone), "call {number}");
                }
                let pair = |[at, end]: [Counts; 2], [other_at, other_end]: [Counts; 2]| {
                    [at.least(other_at), end.least(other_end)]
                };
                Some(Cost { sts: pair(least.sts, cost.sts), gateway: pair(least.gateway, cost.gateway) })
            }
        };
    }
    least.unwrap()
}

/// `(verifications, signatures, marks, commits)`, each commit of one change.
fn counts((verifications, signatures, marks, commits): (u64, u64, u64, u64)) -> Counts {
    Counts { verifications, signatures, marks, commits, changes: commits }
}

/// Where everything is one process, both count what is the process's; the Gateway has neither signatures nor marks.
fn in_one_process() -> Cost {
    Cost { sts: [counts((1, 1, 1, 1)), counts((1, 1, 1, 2))], gateway: [counts((1, 0, 0, 1)), counts((1, 0, 0, 2))] }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_costs_one_verification_one_mark_one_exchange_and_one_commit_before_it_goes_out() {
    let directory = tempfile::tempdir().unwrap();
    let told = [("METRICS_BEARER", BEARER), ("API_V1_RATE_LIMIT_PER_MIN", "0")];
    let (http, system) = (Http::new(), Running::start_with(directory.path(), &told));
    let (url, mut arrivals) = holding_upstream().await;
    let tenant = Tenant::provision(&http, &system, &url).await;
    assert_eq!(cost(&http, &system, &system, &mut arrivals, &tenant).await, in_one_process());
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_server_a_call_costs_the_same_and_a_gateway_elsewhere_verifies_for_itself_and_spends_a_nonce() {
    let (database, redis) = (Database::create().unwrap(), Redis::start().unwrap());
    let world = World::new(&database.url(), &redis.url(), &[("METRICS_BEARER", BEARER)]).await;
    let (url, mut arrivals) = holding_upstream().await;
    let tenant = Tenant::provision(&world.http, &world, &url).await;
    let here = cost(&world.http, &world, &world.everything, &mut arrivals, &tenant).await;
    assert_eq!(here, in_one_process());
    let apart = cost(&world.http, &world, &world.remote, &mut arrivals, &tenant).await;
    // The STS commits the nonce and the exchange, the Gateway how the call ended.
    let expected = Cost {
        sts: [counts((1, 1, 1, 2)), counts((1, 1, 1, 2))],
        gateway: [counts((1, 0, 0, 0)), counts((1, 0, 0, 1))],
    };
    assert_eq!(apart, expected);
}
