//! Signing keys and clocks where several processes share a PostgreSQL and a Redis.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::sync::Arc;

use caracal_testkit::{Database, Redis};
use http::{Method, StatusCode};
use serde_json::json;
use support::cluster::{Cluster, Deployment, REPLAYED, Through, description};
use support::load::{CountingUpstream, Lent, Load};
use support::{Addressed, Http, Running, Tenant, upstream};

/// Adds a key to the tenant's zone.
async fn rotate(http: &Http, system: &Through, deployment: &Deployment, tenant: &Tenant) -> String {
    let url = format!("{}/internal/zones/{}/signing-key/rotate", system.url("sts"), tenant.zone);
    let answer = http.json(Method::POST, &url, deployment.told("STS_ADMIN_TOKEN"), None).await.unwrap();
    assert_eq!((answer.status, &answer.json()["rotated"]), (StatusCode::OK, &json!(true)), "{}", answer.json());
    answer.text("kid")
}

/// Withdraws every key of the tenant's zone. Returns the one that took their place.
async fn replace(http: &Http, system: &Through, deployment: &Deployment, tenant: &Tenant) -> String {
    let url = format!("{}/internal/zones/{}/signing-key/rotate", system.url("sts"), tenant.zone);
    let body = Some(json!({"emergency": true}));
    let answer = http.json(Method::POST, &url, deployment.told("STS_ADMIN_TOKEN"), body).await.unwrap();
    assert_eq!((answer.status, &answer.json()["rotated"]), (StatusCode::OK, &json!(true)), "{}", answer.json());
    answer.text("kid")
}

/// Lets sixteen minutes pass for keys, and for nothing else.
fn let_keys_age(database: &Database) {
    let passed = 16 * 60 * 1_000_000_i64;
    let sql = format!(
        "UPDATE signing_keys SET created_at = created_at - {passed}, signs_from = greatest(signs_from - {passed}, 0)"
    );
    database.run(&sql).unwrap();
}

async fn published(http: &Http, system: &Through, tenant: &Tenant) -> Vec<String> {
    let url = format!("{}/.well-known/jwks.json?zone_id={}", system.url("sts"), tenant.zone);
    let keys = http.send(Method::GET, &url, &[], "").await.unwrap().json();
    keys["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

mod t02_sts_key_rotation {
    use super::*;

    /// Mandates are shown to both Gateways, one of which may meet their key for the first time.
    #[tokio::test(flavor = "multi_thread")]
    async fn keys_are_rotated_under_load_and_no_call_fails() {
        let (database, redis) = (Database::create().unwrap(), Redis::start().unwrap());
        let cluster = Cluster::start(&database.url(), &redis.url());
        let systems = [cluster.through(0), cluster.through(1)];
        let (http, upstream) = (Arc::new(Http::new()), CountingUpstream::start().await);
        let tenant = Arc::new(Tenant::provision(&http, &systems[0], &upstream.url).await);
        let lent = Lent::new(&tenant, &http, &systems[0]).await;
        let mut load = Load::on(&http, &tenant, upstream).await;
        load.add(6, &lent, &systems);
        let mut kids = published(&http, &systems[0], &tenant).await;
        for number in 0..6 {
            let kid = rotate(&http, &systems[number % 2], &cluster.deployment, &tenant).await;
            // Published by both at once, and signed with by neither.
            for system in &systems {
                assert_eq!(published(&http, system, &tenant).await.first(), Some(&kid));
            }
            load.goes_on(0, 5).await;
            let before = tenant.mint(&http, &systems[0], (&lent.session, &lent.edge)).await.unwrap();
            assert_ne!(support::load::kid(&before.text("access_token")), kid, "it signs before its time");
            let_keys_age(&database);
            load.is_signed_with(&kid).await;
            for pair in 0..2 {
                load.goes_on(pair, 5).await;
            }
            // The Coordinator takes a mandate of the new key as well.
            tenant.delegation(&http, &systems[number % 2]).await;
            kids.push(kid);
        }
        let account = load.stop(&[200, 401]).await;
        assert_eq!((account.answers("mint", 401), account.answers("call", 401)), (0, 0));
        assert_eq!(account.answers("call elsewhere", 200), 0);
        let (called, minted) = account.successes();
        assert_eq!(called, minted, "each mandate was good for one call");
        account.is_on_record(&database).await;
        // For keys it is 96 minutes since the first rotation: the key before it has retired, and no other.
        for system in &systems {
            let published = published(&http, system, &tenant).await;
            assert_eq!(published, kids.iter().skip(1).rev().cloned().collect::<Vec<_>>());
        }
        let changes = "SELECT count(*) FROM admin_audit_events WHERE action LIKE 'POST /internal/zones/%/rotate'";
        assert_eq!(database.run(changes).unwrap().trim(), "6");
        cluster.deployment.verify_ledger();
    }
}

mod t02_sts_emergency_rotation {
    use super::*;

    /// One STS withdraws the keys; the other one and both Gateways, which hold them in memory, believe none of them from
    /// then on, and everybody takes the new one at once.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_leaked_key_is_dead_on_every_replica_and_the_new_one_signs_at_once() {
        let (database, redis) = (Database::create().unwrap(), Redis::start().unwrap());
        let cluster = Cluster::start(&database.url(), &redis.url());
        let systems = [cluster.through(0), cluster.through(1)];
        let (http, upstream) = (Http::new(), upstream().await);
        let tenant = Tenant::provision(&http, &systems[0], &upstream).await;
        let lent = tenant.delegation(&http, &systems[0]).await;
        let mint =
            async |system: &Through| tenant.mint(&http, system, (&lent.0, &lent.1)).await.unwrap().text("access_token");
        let mut stolen = Vec::new();
        for system in &systems {
            // Each of them has the key in memory.
            assert_eq!(tenant.call(&http, system, &mint(system).await).await.unwrap().status, 200);
            for _ in 0..20 {
                stolen.push(mint(system).await);
            }
        }
        let new = replace(&http, &systems[0], &cluster.deployment, &tenant).await;
        for system in &systems {
            assert_eq!(published(&http, system, &tenant).await, [new.as_str()]);
            let fresh = mint(system).await;
            assert_eq!(support::load::kid(&fresh), new);
            for other in &systems {
                let fresh = mint(system).await;
                let called = tenant.call(&http, other, &fresh).await.unwrap();
                assert_eq!(called.status, 200, "{}", called.json());
            }
        }
        // The STS behind each Gateway refuses by the store, so no call came through even before the Gateway was told; that
        // it is told shows in who refuses: a mandate it does not believe is not spent, and never reaches the STS.
        for system in &systems {
            let mut refused = 0;
            support::cluster::until("a gateway has forgotten the withdrawn key", async || {
                let mandate = &stolen[refused % stolen.len()];
                refused += 1;
                let answer = tenant.call(&http, system, mandate).await.unwrap();
                assert_eq!(answer.status, 401, "{}", answer.json());
                description(&answer) == "bearer signature invalid"
            })
            .await;
        }
        let record = "SELECT payload FROM admin_audit_events WHERE action LIKE 'POST /internal/zones/%/rotate'";
        let record: serde_json::Value = serde_json::from_str(database.run(record).unwrap().trim()).unwrap();
        assert_eq!((&record["emergency"], &record["kid"]), (&json!(true), &json!(new)), "{record}");
        cluster.deployment.verify_ledger();
    }
}

mod t08_availability_clocks {
    use super::*;

    /// Two minutes lie between the clocks of a Gateway and its STS; each is off by one.
    #[tokio::test(flavor = "multi_thread")]
    async fn replicas_whose_clocks_are_a_minute_off_live_by_the_databases_time() {
        let (database, redis) = (Database::create().unwrap(), Redis::start().unwrap());
        let deployment = Deployment::new(&database.url(), &redis.url());
        let off = |name: &str, roles: &str, millis: i64, sts: Option<String>| {
            let mut own = vec![("CARACAL_DEV_CLOCK_OFFSET_MS", millis.to_string())];
            own.extend(sts.map(|url| ("STS_URL", url)));
            deployment.serve_told(name, roles, &own)
        };
        let control = off("control", "api,coordinator,audit", 60_000, None);
        let sts = [off("sts-0", "sts", 60_000, None), off("sts-1", "sts", -60_000, None)];
        let gateways = [
            off("gateway-0", "gateway", -60_000, Some(sts[0].url("sts"))),
            off("gateway-1", "gateway", 60_000, Some(sts[1].url("sts"))),
        ];
        let cluster = Cluster { deployment, control, sts, gateways };
        let systems = [cluster.through(0), cluster.through(1)];
        let (http, upstream) = (Http::new(), upstream().await);
        let tenant = Tenant::provision(&http, &systems[0], &upstream).await;
        let (session, edge) = tenant.delegation(&http, &systems[1]).await;
        let mint = async |system: &Through, seconds: &str| {
            let lent = [("agent_session_id", session.as_str()), ("delegation_edge_id", edge.as_str())];
            let asked = [("scope", "notes:read"), ("ttl_seconds", seconds)];
            tenant.exchange(&http, system, &[&lent[..], &asked[..]].concat()).await.unwrap()
        };
        for minted_by in &systems {
            for shown_to in &systems {
                // A Gateway that is slow would take it for fresh.
                let ending = mint(minted_by, "34").await.text("access_token");
                let refused = tenant.call(&http, shown_to, &ending).await.unwrap();
                assert_eq!(refused.status, 401, "{}", refused.json());
                // One that is fast would take it for expired.
                let short = mint(minted_by, "50").await.text("access_token");
                let called = tenant.call(&http, shown_to, &short).await.unwrap();
                assert_eq!(called.status, 200, "{}", called.json());
                for system in &systems {
                    let again = tenant.call(&http, system, &short).await.unwrap();
                    assert_eq!((again.status.as_u16(), description(&again).as_str()), (401, REPLAYED));
                }
            }
        }
        // A new key waits by the same time, whoever makes it and whoever signs.
        rotate(&http, &systems[0], &cluster.deployment, &tenant).await;
        let wait =
            "SELECT (signs_from / 1000000 - extract(epoch FROM now()))::bigint FROM signing_keys WHERE version = 2";
        let wait: i64 = database.run(wait).unwrap().trim().parse().unwrap();
        assert!((955..=960).contains(&wait), "it signs in {wait} s");
        let unused = mint(&systems[0], "900").await.text("access_token");
        assert_eq!(tenant.revoke(&http, &systems[1], &edge).await.unwrap().status, 200);
        for system in &systems {
            assert_eq!(mint(system, "900").await.status, 403);
            let refused = tenant.call(&http, system, &unused).await.unwrap();
            assert!(matches!(refused.status.as_u16(), 401 | 403), "{} {}", refused.status, refused.json());
        }
        // What is on record happened within this test, and in the order in which it is on record.
        let times =
            "SELECT extract(epoch FROM now())::bigint * 1000000 - occurred_at FROM audit_events ORDER BY chain_seq";
        let ages: Vec<i64> = database.run(times).unwrap().lines().map(|line| line.parse().unwrap()).collect();
        assert!(ages.len() > 16 && ages.iter().all(|age| (-2_000_000..30_000_000).contains(age)), "{ages:?}");
        cluster.deployment.verify_ledger();
    }

    /// A clock that is an hour ahead for a while and is then put right. What ended meanwhile has ended, though by the clock it
    /// had not; and the system works on.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_clock_set_back_by_an_hour_revives_nothing_and_ends_nothing() {
        const CLOCK: &str = "CARACAL_DEV_CLOCK_OFFSET_MS";
        let directory = tempfile::tempdir().unwrap();
        let (http, upstream) = (Http::new(), upstream().await);
        let mut system = Running::start(directory.path());
        let tenant = Tenant::provision(&http, &system, &upstream).await;
        let (session, edge) = tenant.delegation(&http, &system).await;
        let unused = async |system: &Running, (session, edge): (&str, &str)| {
            tenant.mint(&http, system, (session, edge)).await.unwrap().text("access_token")
        };
        let after_a_restart = unused(&system, (&session, &edge)).await;
        let an_hour_later = unused(&system, (&session, &edge)).await;
        let set_back = unused(&system, (&session, &edge)).await;
        let said = async |system: &Running, mandate: &str| {
            let answer = tenant.call(&http, system, mandate).await.unwrap();
            (answer.status.as_u16(), description(&answer))
        };

        assert!(system.terminate());
        let mut system = system.started_again_told(CLOCK, "0");
        assert_eq!(said(&system, &after_a_restart).await.0, 200);
        assert!(system.terminate());

        let mut system = system.started_again_told(CLOCK, "3600000");
        let ended = said(&system, &an_hour_later).await;
        assert_eq!(ended.0, 401, "{ended:?}");
        let (session, edge) = tenant.delegation(&http, &system).await;
        let of_an_hour_later = unused(&system, (&session, &edge)).await;
        assert!(system.terminate());

        let mut system = system.started_again_told(CLOCK, "0");
        assert_eq!(said(&system, &set_back).await, ended);
        assert_eq!(said(&system, &of_an_hour_later).await.0, 200);
        assert_eq!(said(&system, &of_an_hour_later).await, (401, REPLAYED.to_owned()));
        let of_now = unused(&system, (&session, &edge)).await;
        assert_eq!(said(&system, &of_now).await.0, 200);
        assert!(system.terminate());
    }

    #[test]
    fn a_published_system_does_not_run_with_a_clock_put_wrong() {
        let directory = tempfile::tempdir().unwrap();
        let said = support::refused_up(directory.path(), || {
            let mut command = support::caracal();
            command.env("CARACAL_MODE", "stable").env("CARACAL_DEV_CLOCK_OFFSET_MS", "1");
            command
        });
        assert_ne!(said.code, Some(0));
        assert!(said.stderr.contains("CARACAL_DEV_CLOCK_OFFSET_MS"), "{}", said.stderr);
    }
}
