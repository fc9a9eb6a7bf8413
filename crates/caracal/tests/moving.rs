//! A system that served from a data directory goes on from PostgreSQL: what was used stays used, what was revoked stays
//! revoked, what was minted is accepted once, and the ledger goes on where it was.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use caracal_testkit::{Database, Redis};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use support::{Addressed, Answer, Http, Running, Said, Tenant, caracal, refused_up, run, upstream};

const ISSUER: (&str, &str) = ("ISSUER_URL", "http://issuer.test");

/// `caracal migrate --from sqlite --to postgres`.
fn move_over(data_dir: &Path, database: &str) -> Said {
    let mut command = caracal();
    command.env("DATABASE_URL", database).args(["migrate", "--from", "sqlite", "--to", "postgres", "--json"]);
    run(command.arg("--data-dir").arg(data_dir))
}

fn moved(data_dir: &Path, database: &str) -> Value {
    let said = move_over(data_dir, database);
    assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
    serde_json::from_str(&said.stdout).unwrap()
}

fn refused(data_dir: &Path, database: &str) -> String {
    let said = move_over(data_dir, database);
    assert_eq!((said.code, said.stdout.as_str()), (Some(1), ""), "{}", said.stderr);
    said.stderr
}

/// The report of `caracal audit verify`, which must find everything intact.
fn verified(environment: &[(String, String)], data_dir: Option<&Path>) -> Value {
    let mut command = caracal();
    command.envs(environment.iter().map(|(name, value)| (name, value))).args(["audit", "verify", "--json"]);
    if let Some(data_dir) = data_dir {
        command.arg("--data-dir").arg(data_dir);
    }
    let said = run(&mut command);
    assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
    serde_json::from_str(&said.stdout).unwrap()
}

/// A process on servers, whose operator has the token.
struct Served {
    running: Running,
    admin_token: String,
}

impl Addressed for Served {
    fn url(&self, service: &str) -> String {
        self.running.url(service)
    }

    fn admin_token(&self) -> String {
        self.admin_token.clone()
    }
}

/// What one tenant has in its hands when the system is stopped.
struct Held {
    tenant: Tenant,
    delegation: (String, String),
    used: String,
    unused: String,
    /// Minted under a delegation that was taken back.
    revoked: String,
    request: String,
    lifecycle: String,
    /// What was started with it, under a key.
    session: String,
}

impl Held {
    async fn collect(http: &Http, system: &impl Addressed, upstream: &str) -> Self {
        let tenant = Tenant::provision(http, system, upstream).await;
        let (delegation, other) = (tenant.delegation(http, system).await, tenant.delegation(http, system).await);
        let mint = async |of: &(String, String)| {
            let answer = tenant.mint(http, system, (&of.0, &of.1)).await.unwrap();
            (answer.request_id(), answer.text("access_token"))
        };
        let ((request, used), (_, unused), (_, revoked)) =
            (mint(&delegation).await, mint(&delegation).await, mint(&other).await);
        assert_eq!(tenant.call(http, system, &used).await.unwrap().status, 200);
        assert_eq!(tenant.revoke(http, system, &other.1).await.unwrap().status, 200);
        let lifecycle =
            tenant.exchange(http, system, &[("scope", "agent:lifecycle")]).await.unwrap().text("access_token");
        let session = start_once(http, system, &tenant, &lifecycle).await;
        Self { tenant, delegation, used, unused, revoked, request, lifecycle, session }
    }
}

/// Starts a session under a key of its own, or gives the one that was started under it before.
async fn start_once(http: &Http, system: &impl Addressed, tenant: &Tenant, lifecycle: &str) -> String {
    let bearer = format!("Bearer {lifecycle}");
    let body = json!({"application_id": tenant.application, "labels": ["reader"], "ttl_seconds": 3600});
    let headers =
        [("authorization", bearer.as_str()), ("content-type", "application/json"), ("idempotency-key", "once-0001")];
    let url = format!("{}/zones/{}/agents", system.url("coordinator"), tenant.zone);
    let started = http.send(Method::POST, &url, &headers, serde_json::to_vec(&body).unwrap()).await.unwrap();
    assert!(started.status.is_success(), "{} {}", started.status, started.json());
    started.text("agent_session_id")
}

fn description(answer: &Answer) -> String {
    answer.json()["error_description"].as_str().unwrap_or_default().to_owned()
}

/// Sequence number and hash at the end of each chain, by its zone and kind.
fn heads(report: &Value) -> std::collections::BTreeMap<(String, String), (i64, String)> {
    let chains = report["chains"].as_array().unwrap().iter();
    chains
        .map(|chain| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let key = (text(&chain["zone_id"]), text(&chain["chain"]));
            (key, (chain["head"]["chain_seq"].as_i64().unwrap(), text(&chain["head"]["content_sha256"])))
        })
        .collect()
}

/// How many rows the database has, but for those that the server alone needs; no table, no rows.
fn rows(database: &Database) -> u64 {
    let sql =
        "SELECT COALESCE(sum((xpath('/row/n/text()', query_to_xml(format('SELECT count(*) AS n FROM %I', relname),
               false, true, '')))[1]::text::bigint), 0) FROM pg_class
               WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname NOT IN ('schema_migrations', 'last_commits')";
    database.run(sql).unwrap().trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_system_goes_on_from_the_server_where_it_stopped() {
    let (database, redis) = (Database::create().unwrap(), Redis::start().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    let (http, upstream) = (Http::new(), upstream().await);
    let mut embedded = Running::start_with(&data_dir, &[ISSUER]);
    let held = [
        Held::collect(&http, &embedded, &upstream).await,
        Held::collect(&http, &embedded, &upstream).await,
        Held::collect(&http, &embedded, &upstream).await,
    ];
    let admin_token = embedded.admin_token();
    let running = refused(&data_dir, &database.url());
    assert!(running.contains("in use by another process; stop it"), "{running}");
    assert!(embedded.terminate());
    let before = verified(&[], Some(&data_dir));

    let report = moved(&data_dir, &database.url());
    assert_eq!((report["moved"].as_bool(), report["already_there"].as_bool()), (Some(true), Some(false)));
    assert_eq!(report["rows"].as_u64().unwrap() + 1, rows(&database));
    assert_eq!(heads(&report["ledger"]), heads(&before));
    let said = refused_up(&data_dir, || {
        let mut command = caracal();
        command.envs([ISSUER]);
        command
    });
    assert_eq!(said.code, Some(1));
    assert!(said.stderr.contains("has moved to the database"), "{}", said.stderr);

    let mut environment = vec![
        (ISSUER.0.to_owned(), ISSUER.1.to_owned()),
        ("DATABASE_URL".to_owned(), database.url()),
        ("REDIS_URL".to_owned(), redis.url()),
        // Where a verifier looks that is given no directory.
        ("CARACAL_HOME".to_owned(), data_dir.display().to_string()),
    ];
    let keys = report["keys"].as_array().unwrap();
    assert_eq!(keys.len(), 8);
    for key in keys {
        let file = key["file"].as_str().unwrap();
        let value = std::fs::read_to_string(file).unwrap();
        assert!(!report.to_string().contains(value.trim()), "a key was said");
        environment.push((format!("{}_FILE", key["variable"].as_str().unwrap()), file.to_owned()));
    }
    let arrived = verified(&environment, None);
    assert_eq!(heads(&arrived), heads(&before));
    // What the embedded system knew of the ends of its chains is still a witness.
    assert!(arrived["chains"].as_array().unwrap().iter().all(|chain| chain["recorded_head"] == chain["head"]));

    let served =
        Served { running: Running::serve("api,sts,gateway,coordinator,audit", &data_dir, &environment), admin_token };
    for held in &held {
        let tenant = &held.tenant;
        let call = async |mandate: &str| tenant.call(&http, &served, mandate).await.unwrap();
        let again = call(&held.used).await;
        assert_eq!((again.status.as_u16(), description(&again).as_str()), (401, "token replay detected"));
        let revoked = call(&held.revoked).await;
        assert!(matches!(revoked.status.as_u16(), 401 | 403), "{} {}", revoked.status, revoked.json());
        let first = call(&held.unused).await;
        assert_eq!(first.status, StatusCode::OK, "{}", first.json());
        let second = call(&held.unused).await;
        assert_eq!((second.status.as_u16(), description(&second).as_str()), (401, "token replay detected"));
        let (session, edge) = (&held.delegation.0, &held.delegation.1);
        assert_eq!(tenant.mint(&http, &served, (session, edge)).await.unwrap().status, StatusCode::OK);
        assert_eq!(start_once(&http, &served, tenant, &held.lifecycle).await, held.session);
        assert_ne!(tenant.evidence(&http, &served, &held.request).await, Value::Null);
    }
    let after = heads(&verified(&environment, None));
    for (chain, head) in heads(&before) {
        let now = &after[&chain];
        assert!(now.0 > head.0 || *now == head, "{chain:?}: {head:?} {now:?}");
    }
    assert!(after.iter().any(|(chain, now)| now.0 > heads(&before)[chain].0));
    // Used or not: it has moved, and that is all there is to say.
    assert_eq!(moved(&data_dir, &database.url())["already_there"], true);
}

/// A stopped system with a tenant in it.
async fn stopped(data_dir: &Path) {
    let (http, upstream) = (Http::new(), upstream().await);
    let mut embedded = Running::start_with(data_dir, &[ISSUER]);
    Held::collect(&http, &embedded, &upstream).await;
    assert!(embedded.terminate());
}

mod t17_rollback {
    use super::*;

    /// Killed between the commit and the mark: as if neither the mark nor the heads had been written.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_run_that_was_killed_before_its_mark_is_finished_by_the_next() {
        let (database, directory) = (Database::create().unwrap(), tempfile::tempdir().unwrap());
        let data_dir = directory.path().join("data");
        stopped(&data_dir).await;
        let first = moved(&data_dir, &database.url());
        let mark = Path::new(first["mark"].as_str().unwrap()).to_owned();
        std::fs::remove_file(&mark).unwrap();
        std::fs::remove_dir_all(data_dir.join("databases")).unwrap();
        let count = rows(&database);
        let second = moved(&data_dir, &database.url());
        assert_eq!((second["already_there"].as_bool(), &second["sha256"]), (Some(true), &first["sha256"]));
        assert_eq!(rows(&database), count);
        assert!(mark.is_file() && data_dir.join("databases").is_dir());
        // A second life on another server is refused, and so is one that began beside what another store became.
        let other = Database::create().unwrap();
        let said = refused(&data_dir, &other.url());
        assert!(said.contains("has moved to the database") && said.contains(&mark.display().to_string()), "{said}");
        assert_eq!(rows(&other), 0);
        let stranger = directory.path().join("stranger");
        stopped(&stranger).await;
        let said = refused(&stranger, &database.url());
        assert!(said.contains("another store") && said.contains("name an empty database"), "{said}");
        assert_eq!(rows(&database), count);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_goes_back_serves_from_the_directory_and_may_move_again() {
        let (database, directory) = (Database::create().unwrap(), tempfile::tempdir().unwrap());
        let data_dir = directory.path().join("data");
        stopped(&data_dir).await;
        let first = moved(&data_dir, &database.url());
        database.run("DROP SCHEMA public CASCADE; CREATE SCHEMA public").unwrap();
        let said = refused(&data_dir, &database.url());
        assert!(said.contains("has moved to the database"), "{said}");
        std::fs::remove_file(first["mark"].as_str().unwrap()).unwrap();
        stopped(&data_dir).await;
        let second = moved(&data_dir, &database.url());
        assert!(second["rows"].as_u64() > first["rows"].as_u64());
        assert_eq!(second["moved"], true);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_database_in_use_and_a_ledger_that_was_cut_are_refused() {
        let (database, directory) = (Database::create().unwrap(), tempfile::tempdir().unwrap());
        let data_dir = directory.path().join("data");
        stopped(&data_dir).await;
        let migrated = run(caracal().env("DATABASE_URL", database.url()).arg("migrate"));
        assert_eq!(migrated.code, Some(0), "{}", migrated.stderr);
        database.run("INSERT INTO gateway_nonces VALUES ('n', 1)").unwrap();
        let said = refused(&data_dir, &database.url());
        assert!(said.contains("`gateway_nonces`") && said.contains("empty"), "{said}");
        database.run("DELETE FROM gateway_nonces").unwrap();
        let heads = std::fs::read(data_dir.join("heads.log")).unwrap();
        std::fs::remove_file(data_dir.join("heads.log")).unwrap();
        let said = refused(&data_dir, &database.url());
        assert!(said.contains("heads.log"), "{said}");
        std::fs::write(data_dir.join("heads.log"), heads).unwrap();
        std::fs::write(data_dir.join("secrets/auditHmacKey"), "5a".repeat(32)).unwrap();
        let said = refused(&data_dir, &database.url());
        assert!(said.contains("audit key that is not at hand"), "{said}");
        assert_eq!(rows(&database), 0);
        assert!(!data_dir.join("moved").exists());
    }
}

mod t08_availability {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn killed_in_the_middle_it_leaves_nothing_and_the_next_run_moves() {
        let (database, directory) = (Database::create().unwrap(), tempfile::tempdir().unwrap());
        let data_dir = directory.path().join("data");
        stopped(&data_dir).await;
        let before = verified(&[], Some(&data_dir));
        let migrated = run(caracal().env("DATABASE_URL", database.url()).arg("migrate"));
        assert_eq!(migrated.code, Some(0), "{}", migrated.stderr);
        database
            .run(
                "CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN PERFORM pg_sleep(3600); RETURN NEW; END $$;
                 CREATE TRIGGER linger BEFORE INSERT ON zones FOR EACH ROW EXECUTE FUNCTION linger()",
            )
            .unwrap();
        let mut command = caracal();
        command.env("DATABASE_URL", database.url()).args(["migrate", "--from", "sqlite", "--to", "postgres"]);
        let mut moving =
            command.arg("--data-dir").arg(&data_dir).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let lingering = "FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
        let waiting = async {
            while database.run(&format!("SELECT count(*) {lingering}")).unwrap().trim() != "1" {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), waiting).await.unwrap();
        moving.kill().unwrap();
        moving.wait().unwrap();
        // A server notices by itself once the statement ends; nobody waits an hour for it here.
        database.run(&format!("SELECT pg_terminate_backend(pid) {lingering}")).unwrap();
        assert_eq!(rows(&database), 0);
        assert_eq!(heads(&verified(&[], Some(&data_dir))), heads(&before));
        database.run("DROP TRIGGER linger ON zones").unwrap();
        assert_eq!(heads(&moved(&data_dir, &database.url())["ledger"]), heads(&before));
    }
}

#[test]
fn what_moves_from_where_to_where_has_to_be_said_whole() {
    for arguments in [
        &["--from", "sqlite"][..],
        &["--to", "postgres"],
        &["--data-dir", "x"],
        &["--from", "postgres", "--to", "sqlite"],
        &["--from", "sqlite", "--to", "postgres", "--check"],
    ] {
        let said = run(caracal().arg("migrate").args(arguments));
        assert_eq!((said.code, said.stdout.as_str()), (Some(1), ""), "{arguments:?}");
    }
    let directory = tempfile::tempdir().unwrap();
    let mut command = caracal();
    command.args(["migrate", "--from", "sqlite", "--to", "postgres", "--data-dir"]).arg(directory.path());
    let said = run(&mut command);
    assert!(said.stderr.contains("DATABASE_URL is not set"), "{}", said.stderr);
    let said = run(command.env("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none"));
    assert!(said.stderr.contains("there is no store here"), "{}", said.stderr);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}
