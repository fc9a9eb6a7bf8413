//! One process loses its way to a server, or a Gateway the one to its STS, while agents go on working. In every case: nothing
//! is granted without authority, a mandate is used at most once, what was granted is on record and once, processes that
//! were not cut off go on, and the one that was resumes without a hand.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use caracal_testkit::{Cut, CuttingProxy, Database, Redis};
use support::cluster::{Cluster, Deployment, REPLAYED, Through, description, until};
use support::load::{CountingUpstream, Lent, Load};
use support::{Addressed, Http, NOTES, Running, Tenant};

/// A process's own ways to both servers.
struct Ways {
    postgres: CuttingProxy,
    redis: CuttingProxy,
}

impl Ways {
    fn to(deployment: &Deployment) -> Self {
        let proxy = |url: &str| CuttingProxy::start(address(url)).unwrap();
        Self { postgres: proxy(deployment.told("DATABASE_URL")), redis: proxy(deployment.told("REDIS_URL")) }
    }

    /// The variables of a process that takes them.
    fn told(&self, deployment: &Deployment) -> Vec<(&'static str, String)> {
        let through =
            |url: &str, way: &CuttingProxy| url.replace(&address(url).to_string(), &way.address().to_string());
        vec![
            ("DATABASE_URL", through(deployment.told("DATABASE_URL"), &self.postgres)),
            ("REDIS_URL", through(deployment.told("REDIS_URL"), &self.redis)),
        ]
    }
}

/// Host and port of a URL.
fn address(url: &str) -> SocketAddr {
    let authority = url.split("://").nth(1).unwrap().split('/').next().unwrap();
    authority.rsplit('@').next().unwrap().parse().unwrap()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Process {
    /// Management and sessions.
    Control,
    /// The first of the two.
    Sts,
    /// The first of the two, which asks the first STS.
    Gateway,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Postgres,
    Redis,
    /// From the first Gateway to the first STS.
    Sts,
}

/// A cluster in which every way of the processes that can be cut off leads through a proxy.
struct Wired {
    cluster: Cluster,
    control: Ways,
    sts: Ways,
    gateway: Ways,
    to_sts: CuttingProxy,
}

impl Wired {
    fn start(database: &str, redis: &str) -> Self {
        let mut deployment = Deployment::new(database, redis);
        // What does not answer is given up soon enough for a test to see what comes after.
        for (name, value) in [
            ("DB_STATEMENT_TIMEOUT_MS", "1000"),
            ("DB_CONNECTION_TIMEOUT_MS", "1000"),
            // Until then a zone waits for a process that was cut off in the middle of a change.
            ("DB_IDLE_IN_TX_TIMEOUT_MS", "1000"),
            ("REDIS_DIAL_TIMEOUT", "1s"),
            ("REDIS_READ_TIMEOUT", "1s"),
        ] {
            deployment.environment.push((name.to_owned(), value.to_owned()));
        }
        let serve = |name: &str, roles: &str, ways: &Ways, sts: Option<String>| -> Running {
            let mut own = ways.told(&deployment);
            own.extend(sts.map(|url| ("STS_URL", url)));
            deployment.serve_told(name, roles, &own)
        };
        let (control_ways, sts_ways, gateway_ways) =
            (Ways::to(&deployment), Ways::to(&deployment), Ways::to(&deployment));
        let control = serve("control", "api,coordinator,audit", &control_ways, None);
        let sts = [serve("sts-0", "sts", &sts_ways, None), deployment.serve("sts-1", "sts")];
        let to_sts = CuttingProxy::start(address(&sts[0].url("sts"))).unwrap();
        let gateways = [
            serve("gateway-0", "gateway", &gateway_ways, Some(format!("http://{}", to_sts.address()))),
            deployment.gateway("gateway-1", &sts[1].url("sts")),
        ];
        let cluster = Cluster { deployment, control, sts, gateways };
        Self { cluster, control: control_ways, sts: sts_ways, gateway: gateway_ways, to_sts }
    }

    fn way(&self, of: Process, to: Way) -> &CuttingProxy {
        let ways = match of {
            Process::Control => &self.control,
            Process::Sts => &self.sts,
            Process::Gateway => &self.gateway,
        };
        match to {
            Way::Postgres => &ways.postgres,
            Way::Redis => &ways.redis,
            Way::Sts => &self.to_sts,
        }
    }
}

/// Cuts a way under load, takes a delegation back while it is cut, and heals it.
async fn survives(of: Process, to: Way, how: Cut) {
    let (database, redis) = (Database::create().unwrap(), Redis::start().unwrap());
    let wired = Wired::start(&database.url(), &redis.url());
    let systems = [wired.cluster.through(0), wired.cluster.through(1)];
    let (http, upstream) = (Arc::new(Http::new()), CountingUpstream::start().await);
    let tenant = Arc::new(Tenant::provision(&http, &systems[0], &upstream.url).await);
    let kept = Lent::new(&tenant, &http, &systems[0]).await;
    let doomed = Lent::new(&tenant, &http, &systems[0]).await;
    let mint =
        async |system: &Through, lent: &Lent| tenant.mint(&http, system, (&lent.session, &lent.edge)).await.unwrap();
    let mut load = Load::on(&http, &tenant, upstream).await;
    load.add(4, &kept, &systems);
    load.add(2, &doomed, &systems);
    for pair in 0..2 {
        load.goes_on(pair, 5).await;
    }
    let unused =
        [mint(&systems[0], &doomed).await.text("access_token"), mint(&systems[1], &doomed).await.text("access_token")];

    wired.way(of, to).cut(how);
    load.goes_on(1, 20).await;
    // Whoever can't check, refuses. The Gateway alone needs neither server to pass a question on.
    match of {
        Process::Sts => assert_eq!(mint(&systems[0], &kept).await.status, 503),
        Process::Gateway if to == Way::Sts => {
            let mandate = mint(&systems[0], &kept).await.text("access_token");
            let refused = tenant.call(&http, &systems[0], &mandate).await.unwrap().status.as_u16();
            assert!(matches!(refused, 502..=504), "{refused}");
        }
        Process::Control if to == Way::Postgres => {
            management_waits_no_longer_than_its_deadline(&http, &systems[0]).await
        }
        Process::Gateway | Process::Control => {}
    }
    let cut_off = of == Process::Control && to == Way::Postgres;
    let taken_back = tenant.revoke(&http, &systems[1], &doomed.edge).await.unwrap();
    if cut_off {
        assert_eq!(taken_back.status, 503, "{}", taken_back.json());
    } else {
        assert_eq!(taken_back.status, 200, "{}", taken_back.json());
        doomed.is_revoked();
        assert_eq!(mint(&systems[1], &doomed).await.status, 403);
    }

    wired.way(of, to).heal();
    if cut_off {
        let again = async || tenant.revoke(&http, &systems[1], &doomed.edge).await.unwrap().status == 200;
        until("the revocation is taken", again).await;
        doomed.is_revoked();
    }
    for pair in 0..2 {
        load.goes_on(pair, 10).await;
    }
    for (system, mandate) in systems.iter().zip(&unused) {
        assert_eq!(mint(system, &doomed).await.status, 403);
        for shown_to in &systems {
            let refused = tenant.call(&http, shown_to, mandate).await.unwrap();
            assert!(matches!(refused.status.as_u16(), 401 | 403), "{} {}", refused.status, refused.json());
        }
    }
    for role in [&wired.cluster.sts[0], &wired.cluster.gateways[0]] {
        let (service, _) = role.urls.as_object().unwrap().iter().find(|(_, url)| url.is_string()).unwrap();
        let url = format!("{}/ready", role.url(service));
        until("it is ready again", async || http.send(http::Method::GET, &url, &[], "").await.unwrap().status == 200)
            .await;
    }
    let account = load.stop(&[200, 401, 403, 502, 503, 504]).await;
    account.is_on_record(&database).await;
    wired.cluster.deployment.verify_ledger();
}

/// How long a process is stopped: longer than what it takes for its own silence.
const PAUSE: Duration = Duration::from_secs(4);

/// A Gateway is stopped, as by a host that is moved, and hears of nothing meanwhile. Awake again, it can't read what was revoked
/// at first: until it can, nobody is let through, by whatever delegation.
async fn a_gateway_sleeps() {
    let (database, redis) = (Database::create().unwrap(), Redis::start().unwrap());
    let wired = Wired::start(&database.url(), &redis.url());
    let systems = [wired.cluster.through(0), wired.cluster.through(1)];
    let (http, upstream) = (Arc::new(Http::new()), CountingUpstream::start().await);
    let tenant = Arc::new(Tenant::provision(&http, &systems[0], &upstream.url).await);
    let kept = Lent::new(&tenant, &http, &systems[0]).await;
    let doomed = Lent::new(&tenant, &http, &systems[0]).await;
    let mandate = async |lent: &Lent| {
        let minted = tenant.mint(&http, &systems[1], (&lent.session, &lent.edge)).await.unwrap();
        minted.text("access_token")
    };
    let asked = AtomicUsize::new(0);
    let said = async |mandate: &str| {
        // Numbered like those of the agents: the upstream counts how often each reaches it.
        let number = asked.fetch_add(1, Ordering::Relaxed);
        let url = format!("{}/notes?call=own-{number}", systems[0].url("gateway"));
        let bearer = format!("Bearer {mandate}");
        let headers = [("authorization", bearer.as_str()), ("x-caracal-resource", NOTES)];
        let answer = http.send(http::Method::GET, &url, &headers, "").await.unwrap();
        (answer.status.as_u16(), description(&answer))
    };
    assert_eq!(said(&mandate(&kept).await).await.0, 200);
    let mut load = Load::on(&http, &tenant, upstream).await;
    let elsewhere = [systems[1].clone(), systems[1].clone()];
    load.add(2, &kept, &elsewhere);
    let (good, void) = (mandate(&kept).await, mandate(&doomed).await);

    let gateway = &wired.cluster.gateways[0];
    gateway.signal("-STOP");
    let stopped = Instant::now();
    assert_eq!(tenant.revoke(&http, &systems[1], &doomed.edge).await.unwrap().status, 200);
    wired.gateway.postgres.cut(Cut::Refuse);
    // Others do not notice.
    while stopped.elapsed() < PAUSE {
        load.goes_on(1, 5).await;
    }
    gateway.signal("-CONT");
    const STALE: &str = "revocation state unavailable";
    for mandate in [&good, &void, &good] {
        assert_eq!(said(mandate).await, (503, STALE.to_owned()));
    }
    let ready = format!("{}/ready", systems[0].url("gateway"));
    assert_eq!(http.send(http::Method::GET, &ready, &[], "").await.unwrap().status, 503);

    wired.gateway.postgres.heal();
    until("it has read what is revoked", async || said(&void).await.1 != STALE).await;
    assert_eq!(said(&void).await, (401, "session revoked".to_owned()));
    // None of the refusals has used it up.
    assert_eq!(said(&good).await.0, 200);
    assert_eq!(said(&good).await, (401, REPLAYED.to_owned()));
    let account = load.stop(&[200, 401]).await;
    account.is_on_record(&database).await;
    wired.cluster.deployment.verify_ledger();
}

/// A store that says nothing is 503 to whoever asks the Admin API, and to readiness, within the deadlines that were set; a change
/// that was asked for meanwhile is not there afterwards by half.
async fn management_waits_no_longer_than_its_deadline(http: &Http, system: &Through) {
    let (zones, token) = (format!("{}/v1/zones", system.url("api")), system.admin_token());
    let asked = async |method: http::Method, url: &str, body: Option<serde_json::Value>| {
        let began = std::time::Instant::now();
        let answer = http.json(method, url, &token, body).await.unwrap();
        // A connection is waited for, then a statement, each for a second, and readiness for five.
        assert!(began.elapsed() < std::time::Duration::from_secs(8), "{url}: {:?}", began.elapsed());
        assert_eq!(answer.status, 503, "{url}: {}", answer.json());
        assert!(answer.headers.contains_key("retry-after"), "{url}");
        answer.text("error")
    };
    assert_eq!(asked(http::Method::GET, &zones, None).await, "store_unavailable");
    let body = serde_json::json!({"name": "Meanwhile"});
    assert_eq!(asked(http::Method::POST, &zones, Some(body)).await, "store_unavailable");
    let ready = format!("{}/ready", system.url("api"));
    assert_eq!(asked(http::Method::GET, &ready, None).await, "postgres_unreachable");
}

mod t08_availability_partitions {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_gateway_that_stood_still_refuses_until_it_has_read_what_is_revoked() {
        a_gateway_sleeps().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_sts_loses_the_database_and_nobody_says_so() {
        survives(Process::Sts, Way::Postgres, Cut::BlackHole).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_sts_loses_redis() {
        survives(Process::Sts, Way::Redis, Cut::Refuse).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_gateway_loses_the_database() {
        survives(Process::Gateway, Way::Postgres, Cut::Refuse).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_gateway_loses_redis_and_nobody_says_so() {
        survives(Process::Gateway, Way::Redis, Cut::BlackHole).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_gateway_loses_its_sts_under_load() {
        survives(Process::Gateway, Way::Sts, Cut::Refuse).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_gateway_loses_its_sts_under_load_and_nobody_says_so() {
        survives(Process::Gateway, Way::Sts, Cut::BlackHole).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_coordinator_loses_the_database_and_nobody_says_so() {
        survives(Process::Control, Way::Postgres, Cut::BlackHole).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_coordinator_loses_redis() {
        survives(Process::Control, Way::Redis, Cut::Refuse).await;
    }
}
