//! Several processes on one PostgreSQL and one Redis, and what happens when one of them, or the way to it, is lost. In every
//! case: nothing is granted without authority, no evidence is lost or doubled, a mandate is used at most once, and service
//! resumes without a hand.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use caracal_testkit::{Cut, CuttingProxy, Database, Postgres, Redis};
use http::{Method, StatusCode};
use serde_json::json;
use support::cluster::{Cluster, Deployment, PATIENCE, REPLAYED, Through, description, until};
use support::{Addressed, Http, NOTES, Running, Tenant, upstream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What Redis answers to a command of a test, as it stands on the wire.
async fn say(redis: &Redis, command: &[&str]) -> String {
    let mut connection = TcpStream::connect(("127.0.0.1", redis.port())).await.unwrap();
    let words: String = command.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())).collect();
    connection.write_all(format!("*{}\r\n{words}", command.len()).as_bytes()).await.unwrap();
    let mut answer = [0; 256];
    let read = connection.read(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer[..read]).into_owned()
}

/// An upstream that says one thing to each caller and then nothing more.
async fn silent_upstream() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                let _ = stream.read(&mut buffer).await;
                let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
                let _ = stream.write_all(format!("{head}d\r\ndata: hello\n\n\r\n").as_bytes()).await;
                let _ = stream.read_to_end(&mut Vec::new()).await;
            });
        }
    });
    url
}

/// A call whose answer has begun and does not end by itself.
async fn open_stream(system: &impl Addressed, mandate: &str) -> TcpStream {
    let mut stream = TcpStream::connect(system.address("gateway")).await.unwrap();
    let head = format!(
        "GET /notes HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {mandate}\r\nx-caracal-resource: {NOTES}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut seen = String::new();
    while !seen.contains("data: hello") {
        let mut buffer = [0; 4096];
        let read = tokio::time::timeout(PATIENCE, stream.read(&mut buffer)).await.unwrap().unwrap();
        assert!(read > 0, "ended early: {seen}");
        seen.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    stream
}

/// The end of a stream that was cut: within our patience, and said to be a revocation.
async fn cut(mut stream: TcpStream) {
    let mut rest = Vec::new();
    let mut buffer = [0; 4096];
    while !String::from_utf8_lossy(&rest).to_ascii_lowercase().contains("x-caracal-revoked: true") {
        let read = tokio::time::timeout(PATIENCE, stream.read(&mut buffer)).await;
        let read = read.unwrap_or_else(|_| panic!("the stream stays open")).unwrap();
        assert!(read > 0, "it ended without saying why: {}", String::from_utf8_lossy(&rest));
        rest.extend_from_slice(&buffer[..read]);
    }
}

mod t03_gateway {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_revocation_in_one_process_ends_streams_in_all_others() {
        let (database, redis) = (Database::create().unwrap(), Redis::start().unwrap());
        let cluster = Cluster::start(&database.url(), &redis.url());
        let (http, upstream) = (Http::new(), silent_upstream().await);
        let systems = [cluster.through(0), cluster.through(1)];
        let tenant = Tenant::provision(&http, &systems[0], &upstream).await;
        let (session, edge) = tenant.delegation(&http, &systems[0]).await;
        let mut streams = Vec::new();
        for system in &systems {
            let mandate = tenant.mint(&http, system, (&session, &edge)).await.unwrap().text("access_token");
            streams.push(open_stream(system, &mandate).await);
        }
        assert_eq!(tenant.revoke(&http, &systems[1], &edge).await.unwrap().status, 200);
        for stream in streams {
            cut(stream).await;
        }
        for system in &systems {
            assert_eq!(tenant.mint(&http, system, (&session, &edge)).await.unwrap().status, 403);
        }
        cluster.deployment.verify_ledger();
    }

    /// Each mandate is presented to both Gateways at once, several times.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_mandate_is_used_once_whichever_gateway_it_is_shown_to() {
        let (database, redis) = (Database::create().unwrap(), Redis::start().unwrap());
        let cluster = Cluster::start(&database.url(), &redis.url());
        let (http, upstream) = (Arc::new(Http::new()), upstream().await);
        let systems = [cluster.through(0), cluster.through(1)];
        let tenant = Arc::new(Tenant::provision(&http, &systems[0], &upstream).await);
        let (session, edge) = tenant.delegation(&http, &systems[0]).await;
        for _ in 0..8 {
            let mandate = tenant.mint(&http, &systems[0], (&session, &edge)).await.unwrap().text("access_token");
            let calls: Vec<_> = (0..6)
                .map(|number| {
                    let (http, tenant, mandate) = (http.clone(), tenant.clone(), mandate.clone());
                    let system = systems[number % 2].clone();
                    tokio::spawn(async move { tenant.call(&http, &system, &mandate).await.unwrap() })
                })
                .collect();
            let mut used = 0;
            for call in calls {
                let answer = call.await.unwrap();
                match answer.status {
                    StatusCode::OK => used += 1,
                    _ => assert_eq!((answer.status.as_u16(), description(&answer).as_str()), (401, REPLAYED)),
                }
            }
            assert_eq!(used, 1);
        }
        cluster.deployment.verify_ledger();
    }

    /// While Redis is away mints can't be counted, so none is made (README D7); what is revoked meanwhile stays revoked, and
    /// nothing is used up. Once it is back, open streams end and everything goes on.
    #[tokio::test(flavor = "multi_thread")]
    async fn without_redis_nothing_is_granted_and_revocations_hold() {
        let (database, mut redis) = (Database::create().unwrap(), Redis::start().unwrap());
        let cluster = Cluster::start(&database.url(), &redis.url());
        let (http, upstream) = (Http::new(), silent_upstream().await);
        let system = cluster.through(0);
        let tenant = Tenant::provision(&http, &system, &upstream).await;
        let (revoked, kept) = (tenant.delegation(&http, &system).await, tenant.delegation(&http, &system).await);
        let mint = async |of: &(String, String)| tenant.mint(&http, &system, (&of.0, &of.1)).await.unwrap();
        let streams = [
            open_stream(&system, &mint(&revoked).await.text("access_token")).await,
            open_stream(&system, &mint(&kept).await.text("access_token")).await,
        ];
        let unused = [mint(&revoked).await.text("access_token"), mint(&kept).await.text("access_token")];
        let lifecycle = tenant.exchange(&http, &system, &[("scope", "agent:lifecycle")]).await.unwrap();
        let lifecycle = lifecycle.text("access_token");
        let ready = async |service: &str| {
            let answer = http.send(Method::GET, &format!("{}/ready", system.url(service)), &[], "").await.unwrap();
            (
                answer.status.as_u16(),
                answer.json()["reason"].as_str().or(answer.json()["error"].as_str()).map(str::to_owned),
            )
        };
        redis.stop();
        for service in ["api", "sts", "gateway", "audit", "coordinator"] {
            let (status, reason) = ready(service).await;
            // Its consumer is asked about before Redis is (audit-and-streams.md §7), and may have noticed first.
            let is_known = service == "audit" && reason.as_deref() == Some("consumer_unhealthy");
            assert!(
                status == 503 && (is_known || reason.as_deref() == Some("redis_unreachable")),
                "{service}: {reason:?}"
            );
        }
        let url = format!("{}/zones/{}/delegations/{}/revoke", system.url("coordinator"), tenant.zone, revoked.1);
        assert_eq!(http.json(Method::PATCH, &url, &lifecycle, None).await.unwrap().status, 200);
        let refused = mint(&kept).await;
        assert_eq!((refused.status.as_u16(), refused.text("error").as_str()), (503, "sts_unavailable"));
        for (mandate, status) in unused.iter().zip([403, 503]) {
            assert_eq!(tenant.call(&http, &system, mandate).await.unwrap().status, status);
        }
        redis.resume().unwrap();
        let [stream, other] = streams;
        cut(stream).await;
        until("mints go on", async || mint(&kept).await.status == StatusCode::OK).await;
        for service in ["api", "sts", "gateway", "coordinator"] {
            assert_eq!(ready(service).await, (200, None), "{service}");
        }
        // Its consumer tries again after a pause of its own.
        until("the evidence service is ready", async || ready("audit").await == (200, None)).await;
        assert_eq!(mint(&revoked).await.status, 403);
        for number in 0..2 {
            let answer = tenant.call(&http, &cluster.through(number), &unused[0]).await.unwrap();
            assert!(matches!(answer.status.as_u16(), 401 | 403), "{} {}", answer.status, answer.json());
        }
        // The circuit before the STS may still be open for the Gateway that saw it fail.
        drop(open_stream(&cluster.through(1), &unused[1]).await);
        drop(other);
        cluster.deployment.verify_ledger();
    }

    /// Two STSs, one limit of mints, one of launches, one of wrong secrets.
    #[tokio::test(flavor = "multi_thread")]
    async fn replicas_count_mints_launches_and_wrong_secrets_together() {
        let (database, redis) = (Database::create().unwrap(), Redis::start().unwrap());
        let mut deployment = Deployment::new(&database.url(), &redis.url());
        deployment.environment.retain(|(name, _)| name != "STS_MINT_RATE_LIMIT_PER_MIN");
        deployment.environment.push(("STS_MINT_RATE_LIMIT_PER_MIN".to_owned(), "5".to_owned()));
        let control = deployment.serve("control", "api,coordinator,sts");
        let other = deployment.serve("sts", "sts");
        let system = |sts: &Running| Through {
            control: control.urls.clone(),
            sts: sts.url("sts"),
            gateway: String::new(),
            admin_token: deployment.admin_token.clone(),
        };
        let systems = [system(&control), system(&other)];
        let http = Http::new();
        let tenant = Tenant::provision(&http, &systems[0], &upstream().await).await;
        let (session, edge) = tenant.delegation(&http, &systems[0]).await;
        let mut granted = 0;
        for number in 0..10 {
            let answer = tenant.mint(&http, &systems[number % 2], (&session, &edge)).await.unwrap();
            match answer.status.as_u16() {
                200 => granted += 1,
                status => assert_eq!((status, answer.text("error").as_str()), (429, "provider_rate_limited")),
            }
        }
        assert_eq!(granted, 4, "the first of five was for the mandate that the sessions were started with");
        let mut told = 0;
        for number in 0..10 {
            let url = format!("{}/v1/run/manifest", systems[number % 2].url("sts"));
            let answer = http.form(&url, &[("workload_id", "nobody"), ("secret", "ws_x")]).await.unwrap();
            match answer.status.as_u16() {
                401 => told += 1,
                status => assert_eq!((status, answer.text("error").as_str()), (429, "provider_rate_limited")),
            }
        }
        assert_eq!(told, 5);
        let guess = async |number: usize, by: &Tenant| {
            let answer = by.exchange(&http, &systems[number % 2], &[("scope", "agent:lifecycle")]).await;
            answer.unwrap().status.as_u16()
        };
        let guessing = Tenant { client_secret: String::new(), ..tenant.clone() };
        for number in 0..60 {
            assert_eq!(guess(number, &guessing).await, 401);
        }
        assert_eq!(guess(0, &guessing).await, 429);
        assert_eq!(guess(1, &tenant).await, 429, "the right secret included");
    }

    /// gateway.md §10.3, §20.2: what nobody of ours signed is counted and put aside; what was said while the Gateway could not
    /// hear is heard once it can.
    #[tokio::test(flavor = "multi_thread")]
    async fn forged_and_missed_revocations_are_counted_where_operators_look() {
        let (database, redis) = (Database::create().unwrap(), Redis::start().unwrap());
        let deployment = Deployment::new(&database.url(), &redis.url());
        let control = deployment.serve("control", "api,coordinator,sts");
        let way = CuttingProxy::start(([127, 0, 0, 1], redis.port()).into()).unwrap();
        let own = [
            ("STS_URL", control.url("sts")),
            ("REDIS_URL", format!("redis://{}/", way.address())),
            ("METRICS_BEARER", "scraper".to_owned()),
        ];
        let gateway = deployment.serve_told("gateway", "gateway", &own);
        let system = Through {
            control: control.urls.clone(),
            sts: control.url("sts"),
            gateway: gateway.url("gateway"),
            admin_token: deployment.admin_token.clone(),
        };
        let (http, upstream) = (Http::new(), upstream().await);
        let tenant = Tenant::provision(&http, &system, &upstream).await;
        let (session, edge) = tenant.delegation(&http, &system).await;
        let mandates = [(); 2].map(|()| tenant.mint(&http, &system, (&session, &edge)));
        let [one, other] = mandates;
        let [one, other] = [one.await, other.await].map(|minted| minted.unwrap().text("access_token"));
        let counted = async || {
            let url = format!("{}/metrics.json", system.gateway);
            let metrics = http.json(Method::GET, &url, "scraper", None).await.unwrap().json();
            ["invalid_signatures", "dead_letters", "pending_replayed"]
                .map(|name| metrics[format!("revocation_{name}")].as_u64().unwrap())
        };
        assert_eq!(counted().await, [0, 0, 0]);
        let forged = [
            "XADD",
            "caracal.sessions.revoke",
            "*",
            "zone_id",
            &tenant.zone,
            "delegation_edge_id",
            &edge,
            "_sig",
            "00",
        ];
        let entry = say(&redis, &forged).await;
        assert!(entry.starts_with('$'), "{entry}");
        until("the forged one is counted", async || counted().await == [1, 0, 0]).await;
        assert_eq!(tenant.call(&http, &system, &one).await.unwrap().status, 200, "and has no effect");
        way.cut(Cut::Refuse);
        assert_eq!(tenant.revoke(&http, &system, &edge).await.unwrap().status, 200);
        let published = async || say(&redis, &["XLEN", "caracal.sessions.revoke"]).await != ":1\r\n";
        until("the revocation is published", published).await;
        way.heal();
        until("the revocation is heard", async || counted().await[2] > 0).await;
        assert_eq!(counted().await[..2], [1, 0]);
        assert_eq!(tenant.call(&http, &system, &other).await.unwrap().status, 401, "this one has");
    }

    /// The Gateway can't reach its STS, and nobody says so. The mandate was not used up, so it works once the way is open.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_partition_between_gateway_and_sts_grants_nothing_and_uses_nothing_up() {
        let (database, redis) = (Database::create().unwrap(), Redis::start().unwrap());
        let deployment = Deployment::new(&database.url(), &redis.url());
        let control = deployment.serve("control", "api,coordinator,sts");
        let way = CuttingProxy::start(control.address("sts").parse().unwrap()).unwrap();
        let gateway = deployment.gateway("gateway", &format!("http://{}", way.address()));
        let system = Through {
            control: control.urls.clone(),
            sts: control.url("sts"),
            gateway: gateway.url("gateway"),
            admin_token: deployment.admin_token.clone(),
        };
        let (http, upstream) = (Http::new(), upstream().await);
        let tenant = Tenant::provision(&http, &system, &upstream).await;
        let (session, edge) = tenant.delegation(&http, &system).await;
        let mint = async || tenant.mint(&http, &system, (&session, &edge)).await.unwrap().text("access_token");
        assert_eq!(tenant.call(&http, &system, &mint().await).await.unwrap().status, 200);
        let mandate = mint().await;
        for (how, status) in [(Cut::BlackHole, 504), (Cut::Refuse, 503)] {
            way.cut(how);
            let answer = tenant.call(&http, &system, &mandate).await.unwrap();
            assert_eq!((answer.status.as_u16(), answer.text("error").as_str()), (status, "sts_unavailable"), "{how:?}");
            way.heal();
        }
        assert_eq!(tenant.call(&http, &system, &mandate).await.unwrap().status, 200);
        let again = tenant.call(&http, &system, &mandate).await.unwrap();
        assert_eq!((again.status.as_u16(), description(&again).as_str()), (401, REPLAYED));
        deployment.verify_ledger();
    }
}

mod t07_streams {
    use super::*;

    /// coordinator.md §17 (15): what could not be published is seen, and is sent once an operator says so.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_message_that_was_given_up_is_seen_by_operators_and_sent_when_they_say_so() {
        const REVOCATIONS: &str = "caracal.sessions.revoke";
        let (database, redis) = (Database::create().unwrap(), Redis::start().unwrap());
        let deployment = Deployment::new(&database.url(), &redis.url());
        let told = [
            ("READY_RATE_LIMIT_PER_MIN", "0".to_owned()),
            ("COORDINATOR_RATE_LIMIT_PER_MIN", "0".to_owned()),
            ("OUTBOX_MAX_ATTEMPTS", "2".to_owned()),
        ];
        let control = deployment.serve_told("control", "api,coordinator,sts", &told);
        let system = Through {
            control: control.urls.clone(),
            sts: control.url("sts"),
            gateway: String::new(),
            admin_token: deployment.admin_token.clone(),
        };
        let (http, upstream) = (Http::new(), upstream().await);
        let tenant = Tenant::provision(&http, &system, &upstream).await;
        let (_, edge) = tenant.delegation(&http, &system).await;
        let operator = deployment.told("CARACAL_COORDINATOR_TOKEN");
        let coordinator = system.url("coordinator");
        let ready = async || {
            let answer = http.send(Method::GET, &format!("{coordinator}/ready"), &[], "").await.unwrap();
            (answer.status.as_u16(), answer.json()["error"].as_str().unwrap_or_default().to_owned())
        };
        let ask = async |method: Method, path: String| {
            let answer = http.json(method, &format!("{coordinator}{path}"), operator, None).await.unwrap();
            assert_eq!(answer.status, 200, "{path}: {}", answer.json());
            answer.json()
        };
        assert_eq!(ready().await.0, 200);
        // A key of another kind is in the topic's place, and stays there however often it is tried.
        assert_eq!(say(&redis, &["SET", REVOCATIONS, "x"]).await, "+OK\r\n");
        assert_eq!(tenant.revoke(&http, &system, &edge).await.unwrap().status, 200);
        until("readiness tells", async || ready().await == (503, "outbox_dead".to_owned())).await;
        // Each is given up at its own time.
        let waits = async || ask(Method::GET, "/stats".to_owned()).await["outbox"]["pending"] != json!(0);
        until("all of them lie dead", async || !waits().await).await;
        let outbox = format!("/zones/{}/outbox", tenant.zone);
        let dead = ask(Method::GET, outbox.clone()).await["items"].clone();
        let dead = dead.as_array().unwrap();
        assert!(!dead.is_empty() && dead.iter().all(|message| message["topic"] == REVOCATIONS), "{dead:?}");
        assert_eq!(ask(Method::GET, "/stats".to_owned()).await["outbox"]["dead"], json!(dead.len()));
        assert_eq!(say(&redis, &["DEL", REVOCATIONS]).await, ":1\r\n");
        let first = dead[0]["id"].as_str().unwrap();
        let requeued = ask(Method::POST, format!("{outbox}/{first}/requeue")).await;
        assert_eq!(requeued, json!({"id": first, "status": "pending"}));
        ask(Method::POST, format!("{outbox}/requeue")).await;
        until("readiness is back", async || ready().await.0 == 200).await;
        let published = async || say(&redis, &["XLEN", REVOCATIONS]).await == format!(":{}\r\n", dead.len());
        until("all of them are published", published).await;
        let entries = say(&redis, &["XRANGE", REVOCATIONS, "-", "+", "COUNT", "1"]).await;
        assert!(entries.contains("outbox_id"), "{entries}");
        deployment.verify_ledger();
    }
}

mod t12_foothold {
    use super::*;

    /// Two processes that manage. What one of them makes or takes back counts in the other with its next request; a token
    /// that somebody got hold of makes none that is more than itself, and whatever it says of itself, it is on record.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_token_that_is_taken_back_opens_nothing_anywhere_and_all_it_did_is_on_record_under_its_name() {
        let (database, redis) = (Database::create().unwrap(), Redis::start().unwrap());
        let deployment = Deployment::new(&database.url(), &redis.url());
        let replicas = [deployment.serve("api-0", "api"), deployment.serve("api-1", "api")];
        let http = Http::new();
        let ask = async |at: usize, bearer: &str, method: Method, path: &str, body: Option<serde_json::Value>| {
            let bearer = format!("Bearer {bearer}");
            let mut headers = vec![
                ("authorization", bearer.as_str()),
                ("x-caracal-account", "somebody-else"),
                ("x-caracal-actor", "somebody-else"),
                ("x-forwarded-user", "somebody-else"),
            ];
            if body.is_some() {
                headers.push(("content-type", "application/json"));
            }
            let body = body.map(|body| body.to_string()).unwrap_or_default();
            http.send(method, &format!("{}{path}", replicas[at].url("api")), &headers, body).await.unwrap()
        };
        let operator = deployment.admin_token.as_str();
        const TOKENS: &str = "/v1/admin-tokens";
        let body = |capability: &str| json!({"name": "automation", "scope": "global", "capability": capability});
        let mut of = Vec::new();
        for round in 0..5 {
            let made = ask(0, operator, Method::POST, TOKENS, Some(body("write"))).await;
            let (id, token) = (made.text("id"), made.text("token"));
            let zone = ask(1, &token, Method::POST, "/v1/zones", Some(json!({"name": format!("Zone {round}")}))).await;
            assert_eq!(zone.status, 201, "{}", zone.json());
            let zone = format!("/v1/zones/{}", zone.text("id"));
            for at in [0, 1] {
                assert_eq!(ask(at, &token, Method::GET, &zone, None).await.status, 200);
                let grown = ask(at, &token, Method::POST, TOKENS, Some(body("approve"))).await;
                assert_eq!((grown.status.as_u16(), grown.text("error").as_str()), (403, "approve_capability_required"));
            }
            // Used in all of them a moment before, taken back in one, and gone from all with the answer that says so.
            let (here, there) = (round % 2, (round + 1) % 2);
            let taken = ask(here, operator, Method::DELETE, &format!("{TOKENS}/{id}"), None).await;
            assert_eq!(taken.status, 204);
            for at in [there, here] {
                for (method, path) in [(Method::GET, zone.as_str()), (Method::DELETE, &zone), (Method::GET, TOKENS)] {
                    let refused = ask(at, &token, method, path, None).await;
                    assert_eq!((refused.status.as_u16(), refused.text("error").as_str()), (401, "invalid_admin_token"));
                }
            }
            assert_eq!(ask(there, operator, Method::GET, &zone, None).await.status, 200, "it was deleted");
            of.push((id, zone));
        }
        for (id, zone) in of {
            // What it did in the zone, in the zone's chain; what it was refused, in the deployment's.
            for (path, action, status) in [
                (format!("{zone}/admin-audit"), "POST /v1/zones", 201),
                ("/v1/admin-audit".to_owned(), "POST /v1/admin-tokens", 403),
            ] {
                let told = ask(1, operator, Method::GET, &format!("{path}?limit=100"), None).await.json();
                let rows = told["items"].as_array().unwrap();
                let its = |row: &&serde_json::Value| row["actor_id"].as_str().is_some_and(|actor| actor.contains(&id));
                let row = rows
                    .iter()
                    .filter(its)
                    .find(|row| row["status_code"] == status)
                    .unwrap_or_else(|| panic!("{told}"));
                assert!(row["action"].as_str().unwrap().starts_with(action), "{row}");
                assert!(!told.to_string().contains("somebody-else"), "{told}");
            }
        }
        deployment.verify_ledger();
    }
}

mod t08_availability {
    use super::*;

    /// What agents saw while something was lost.
    #[derive(Default)]
    struct Seen {
        /// Requests whose mint was answered with a mandate.
        minted: Vec<String>,
        /// Mandates whose call was answered by the upstream.
        consumed: Vec<String>,
    }

    /// Agents that mint and call until they are told to stop, each through its own pair of processes.
    struct Load {
        seen: Arc<Mutex<Seen>>,
        stop: Arc<AtomicBool>,
        agents: Vec<tokio::task::JoinHandle<()>>,
    }

    impl Load {
        fn start(http: &Arc<Http>, tenant: &Arc<Tenant>, systems: &[Through], lent: &(String, String)) -> Self {
            let (seen, stop) = (Arc::new(Mutex::new(Seen::default())), Arc::new(AtomicBool::new(false)));
            let agents = (0..6)
                .map(|number| {
                    let (http, tenant, lent) = (http.clone(), tenant.clone(), lent.clone());
                    let (seen, stop, system) = (seen.clone(), stop.clone(), systems[number % systems.len()].clone());
                    tokio::spawn(async move {
                        while !stop.load(Ordering::Relaxed) {
                            let minted = tenant.mint(&http, &system, (&lent.0, &lent.1)).await;
                            let Some(minted) = minted.filter(|answer| answer.status == StatusCode::OK) else {
                                tokio::time::sleep(Duration::from_millis(5)).await;
                                continue;
                            };
                            seen.lock().unwrap().minted.push(minted.request_id());
                            let mandate = minted.text("access_token");
                            let called = tenant.call(&http, &system, &mandate).await;
                            if called.is_some_and(|answer| answer.status == StatusCode::OK) {
                                seen.lock().unwrap().consumed.push(mandate);
                            }
                        }
                    })
                })
                .collect();
            Self { seen, stop, agents }
        }

        fn consumed(&self) -> usize {
            self.seen.lock().unwrap().consumed.len()
        }

        /// Waits until `more` further calls have succeeded.
        async fn goes_on(&self, more: usize) {
            let before = self.consumed();
            until("calls go on", async || self.consumed() >= before + more).await;
        }

        async fn stop(self) -> Seen {
            self.stop.store(true, Ordering::Relaxed);
            for agent in self.agents {
                agent.await.unwrap();
            }
            std::mem::take(&mut *self.seen.lock().unwrap())
        }
    }

    /// No evidence was lost, no consumed mandate works again.
    async fn nothing_was_lost(http: &Http, tenant: &Tenant, system: &Through, seen: &Seen) {
        for request in seen.minted.iter().rev().take(40) {
            let url = format!("{}/v1/zones/{}/audit/by-request/{request}", system.url("api"), tenant.zone);
            let events = http.json(Method::GET, &url, &system.admin_token(), None).await.unwrap();
            assert_eq!(events.status, StatusCode::OK, "no evidence of request {request}");
        }
        for mandate in seen.consumed.iter().rev().take(40) {
            let mut answer = tenant.call(http, system, mandate).await.unwrap();
            // The circuit before the STS stays open for a while after what was lost came back.
            until("the circuit closes", async || {
                answer = tenant.call(http, system, mandate).await.unwrap();
                answer.status != StatusCode::SERVICE_UNAVAILABLE
            })
            .await;
            assert_eq!((answer.status.as_u16(), description(&answer).as_str()), (401, REPLAYED));
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_replica_of_each_role_is_killed_and_the_others_go_on() {
        let (database, redis) = (Database::create().unwrap(), Redis::start().unwrap());
        let mut cluster = Cluster::start(&database.url(), &redis.url());
        let (http, upstream) = (Arc::new(Http::new()), upstream().await);
        let systems = [cluster.through(0), cluster.through(1)];
        let tenant = Arc::new(Tenant::provision(&http, &systems[0], &upstream).await);
        let lent = tenant.delegation(&http, &systems[0]).await;
        let load = Load::start(&http, &tenant, &systems, &lent);
        load.goes_on(20).await;
        cluster.sts[0].kill();
        load.goes_on(20).await;
        cluster.gateways[0].kill();
        load.goes_on(20).await;
        cluster.control.kill();
        load.goes_on(20).await;
        cluster.control = cluster.control.started_again();
        cluster.sts[0] = cluster.sts[0].started_again();
        cluster.gateways[0] = cluster.gateways[0].started_again();
        load.goes_on(20).await;
        let seen = load.stop().await;
        for system in &systems {
            nothing_was_lost(&http, &tenant, system, &seen).await;
            let mandate = tenant.mint(&http, system, (&lent.0, &lent.1)).await.unwrap().text("access_token");
            assert_eq!(tenant.call(&http, system, &mandate).await.unwrap().status, 200);
        }
        cluster.deployment.verify_ledger();
    }

    /// Redis is told to evict, or is made a replica, while everything runs. It answers to every command, and nobody relies on
    /// it; once it is right again, everything goes on by itself.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_redis_that_evicts_or_takes_nothing_makes_everybody_refuse_until_it_is_right() {
        let (database, redis) = (Database::create_for_store().unwrap(), Redis::start().unwrap());
        let cluster = Cluster::start(&database.url(), &redis.url());
        let (http, upstream) = (Http::new(), upstream().await);
        let systems = [cluster.through(0), cluster.through(1)];
        let tenant = Tenant::provision(&http, &systems[0], &upstream).await;
        let lent = tenant.delegation(&http, &systems[0]).await;
        let mint = async |system: &Through| tenant.mint(&http, system, (&lent.0, &lent.1)).await.unwrap();
        let ready = async |system: &Through, service: &str| {
            let answer = http.send(Method::GET, &format!("{}/ready", system.url(service)), &[], "").await;
            answer.unwrap().status.as_u16()
        };
        let services = ["api", "sts", "gateway", "audit", "coordinator"];
        for (harm, cure) in [
            (["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"], ["CONFIG", "SET", "maxmemory-policy", "noeviction"]),
            (["CONFIG", "SET", "min-replicas-to-write", "1"], ["CONFIG", "SET", "min-replicas-to-write", "0"]),
        ] {
            let mandates = [mint(&systems[0]).await.text("access_token"), mint(&systems[1]).await.text("access_token")];
            assert!(say(&redis, &harm).await.starts_with("+OK"));
            // Without being asked whether it is ready, the STS finds out within a few seconds.
            until("mints are refused", async || mint(&systems[0]).await.status == 503).await;
            for system in &systems {
                for service in services {
                    assert_eq!(ready(system, service).await, 503, "{harm:?} {service}");
                }
                let refused = mint(system).await;
                assert_eq!((refused.status.as_u16(), refused.text("error").as_str()), (503, "sts_unavailable"));
                let refused = tenant.call(&http, system, &mandates[0]).await.unwrap().status;
                assert_eq!(refused, 503, "{harm:?}");
            }
            assert!(say(&redis, &cure).await.starts_with("+OK"));
            for (system, mandate) in systems.iter().zip(&mandates) {
                until("mints go on", async || mint(system).await.status == 200).await;
                for service in services {
                    until("it is ready", async || ready(system, service).await == 200).await;
                }
                let called = async || tenant.call(&http, system, mandate).await.unwrap().status == 200;
                until("calls go on, with a mandate that was not used up", called).await;
            }
        }
        cluster.deployment.verify_ledger();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_database_crashes_under_load_and_comes_back() {
        let (mut postgres, redis) = (Postgres::start().unwrap(), Redis::start().unwrap());
        let database = Database::on(&postgres.url(), "caracal").unwrap();
        let cluster = Cluster::start(&database.url(), &redis.url());
        let (http, upstream) = (Arc::new(Http::new()), upstream().await);
        let systems = [cluster.through(0), cluster.through(1)];
        let tenant = Arc::new(Tenant::provision(&http, &systems[0], &upstream).await);
        let lent = tenant.delegation(&http, &systems[0]).await;
        let load = Load::start(&http, &tenant, &systems, &lent);
        for _ in 0..2 {
            load.goes_on(20).await;
            postgres.kill();
            // Nothing can be decided now, and nothing is.
            let refused = tenant.mint(&http, &systems[0], (&lent.0, &lent.1)).await.unwrap();
            assert_eq!(refused.status, 503, "{}", refused.json());
            postgres.resume().unwrap();
        }
        load.goes_on(20).await;
        let seen = load.stop().await;
        for system in &systems {
            nothing_was_lost(&http, &tenant, system, &seen).await;
        }
        // The outbox's relay, too, has found its way back.
        assert_eq!(tenant.revoke(&http, &systems[0], &lent.1).await.unwrap().status, 200);
        assert_eq!(tenant.mint(&http, &systems[1], (&lent.0, &lent.1)).await.unwrap().status, 403);
        cluster.deployment.verify_ledger();
    }
}

mod t17_rollback {
    use super::*;

    /// The database comes back as it was before a delegation was taken back and a mandate was used. Nobody goes by it, for as
    /// long as the processes run and when they are started again; with the newest one back they start and go on.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_database_that_became_older_is_served_by_nobody() {
        let (database, redis) = (Database::create_for_store().unwrap(), Redis::start().unwrap());
        let mut cluster = Cluster::start(&database.url(), &redis.url());
        let (http, upstream) = (Http::new(), upstream().await);
        let systems = [cluster.through(0), cluster.through(1)];
        let tenant = Tenant::provision(&http, &systems[0], &upstream).await;
        let (doomed, kept) = (tenant.delegation(&http, &systems[0]).await, tenant.delegation(&http, &systems[0]).await);
        let mint = async |system: &Through, of: &(String, String)| tenant.mint(&http, system, (&of.0, &of.1)).await;
        let ready = async |system: &Through, service: &str| {
            let answer = http.send(Method::GET, &format!("{}/ready", system.url(service)), &[], "").await;
            answer.unwrap().status.as_u16()
        };
        let minted = |answer: Option<support::Answer>| answer.unwrap().text("access_token");
        let mandates = [minted(mint(&systems[0], &doomed).await), minted(mint(&systems[1], &kept).await)];
        let older = database.copy().unwrap();
        let call = async |system: &Through, mandate: &String| tenant.call(&http, system, mandate).await.unwrap().status;
        until("one is used", async || call(&systems[1], &mandates[1]).await == StatusCode::OK).await;
        let revoked = async || tenant.revoke(&http, &systems[0], &doomed.1).await.unwrap().status == StatusCode::OK;
        until("one is taken back", revoked).await;
        for system in &systems {
            assert_eq!(mint(system, &doomed).await.unwrap().status, 403);
            assert_eq!(mint(system, &kept).await.unwrap().status, 200);
        }

        // Whoever is asked whether it is ready looks at what others have committed; it does so every few seconds by itself.
        for system in &systems {
            for service in ["api", "sts", "gateway", "audit", "coordinator"] {
                assert_eq!(ready(system, service).await, 200, "{service}");
            }
        }

        database.trade_places_with(&older).unwrap();
        for _ in 0..3 {
            for system in &systems {
                for lent in [&doomed, &kept] {
                    let refused = mint(system, lent).await.unwrap();
                    assert_eq!((refused.status.as_u16(), refused.text("error").as_str()), (503, "sts_unavailable"));
                }
                for mandate in &mandates {
                    let refused = call(system, mandate).await.as_u16();
                    assert!(matches!(refused, 401 | 403 | 503), "{refused}");
                }
            }
        }
        let url = format!("{}/v1/zones", systems[0].url("api"));
        let refused = http.json(Method::GET, &url, &systems[0].admin_token(), None).await.unwrap();
        assert_eq!(refused.status, 503, "{}", refused.json());
        for service in ["api", "sts", "gateway", "audit", "coordinator"] {
            for system in &systems {
                assert_eq!(ready(system, service).await, 503, "{service}");
            }
        }
        let Cluster { control, sts, gateways, .. } = &mut cluster;
        for process in gateways {
            process.terminate();
        }
        // Who has committed something since the copy was made finds that its heads are not there.
        for process in [control].into_iter().chain(sts) {
            process.terminate();
            let said = process.refused_again();
            assert!(said.contains("is not the one that was last used here"), "{said}");
        }

        database.trade_places_with(&older).unwrap();
        cluster.control = cluster.control.started_again();
        for process in cluster.sts.iter_mut().chain(&mut cluster.gateways) {
            *process = process.started_again();
        }
        for system in &systems {
            assert_eq!(mint(system, &doomed).await.unwrap().status, 403);
            assert_eq!(mint(system, &kept).await.unwrap().status, 200);
            assert_eq!(call(system, &mandates[1]).await, 401, "it was used");
        }
        cluster.deployment.verify_ledger();
    }
}
