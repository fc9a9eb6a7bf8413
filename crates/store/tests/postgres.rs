//! What only the engine on PostgreSQL promises: roles and rights, refusals at start, and what happens when the server or
//! the way to it is lost.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use caracal_authority::{Timestamp, ZoneId};
use caracal_store::{
    ManualClock, Named, PostgresOptions, Store, StoreError, delegations, deployment, outbox, used_mandates,
};
use caracal_testkit::{Cut, CuttingProxy, Database, Postgres};
use tokio_postgres::{Client, NoTls};

/// A connection for what a test does behind the store's back.
async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

fn zone(name: &str) -> ZoneId {
    ZoneId::parse(name).unwrap()
}

async fn open(database: &Database) -> Store {
    Store::open_postgres(PostgresOptions::at(&database.url()).unwrap()).await.unwrap()
}

async fn refusal(options: PostgresOptions) -> String {
    let refused = Store::open_postgres(options).await.map(|_| ()).unwrap_err().to_string();
    assert!(!refused.contains("hunter2"), "{refused}");
    refused
}

async fn raise(store: &Store, zone: &ZoneId) -> Result<i64, StoreError> {
    store.commit(zone, (), |tx, ()| Box::pin(async move { delegations::raise_epoch(tx).await })).await
}

async fn epoch(store: &Store, zone: &ZoneId) -> i64 {
    delegations::epoch(&mut store.snapshot().await.unwrap().zone(zone)).await.unwrap()
}

/// A login of the server that owns nothing, dropped with the value.
struct Login(String);

impl Login {
    async fn create(database: &Database, granted: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("login{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let server = connect(database.server()).await;
        let sql = format!("DROP ROLE IF EXISTS {name}; CREATE ROLE {name} LOGIN PASSWORD 'hunter2' {granted}");
        server.batch_execute(&sql).await.unwrap();
        Self(name)
    }

    fn url(&self, database: &Database) -> String {
        let (_, address) = database.url().split_once('@').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        format!("postgres://{}:hunter2@{address}", self.0)
    }

    async fn remove(self, database: &Database) {
        connect(database.server()).await.batch_execute(&format!("DROP ROLE {}", self.0)).await.unwrap();
    }
}

/// A server that speaks TLS, and the certificate that it is to be believed by.
struct Encrypted {
    server: Postgres,
    database: Database,
    directory: tempfile::TempDir,
}

impl Encrypted {
    fn start() -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let pem = |label: &str, der: &[u8]| {
            format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", BASE64_STANDARD.encode(der))
        };
        let certificate = pem("CERTIFICATE", made.cert.der());
        let key = pem("PRIVATE KEY", &made.signing_key.serialize_der());
        let server = Postgres::start_with_tls(&certificate, &key).unwrap();
        let database = Database::on(&server.url(), "d").unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("authority.pem"), &certificate).unwrap();
        Self { server, database, directory }
    }

    /// What a URL says to believe the server and nobody else.
    fn trusting(&self) -> String {
        format!("sslmode=verify-full&sslrootcert={}", self.directory.path().join("authority.pem").display())
    }
}

mod t06_evidence {
    use super::*;

    /// The identity that runs can add to the ledger and read it.
    #[tokio::test]
    async fn the_runtime_login_can_neither_change_nor_remove_evidence() {
        let database = Database::create().unwrap();
        open(&database).await.close().await;
        let login = Login::create(&database, "IN ROLE caracal_runtime").await;
        let client = connect(&login.url(&database)).await;
        for table in ["audit_events", "admin_audit_events"] {
            for sql in [
                "UPDATE {} SET id = id",
                "DELETE FROM {}",
                "TRUNCATE {}",
                "ALTER TABLE {} DISABLE TRIGGER ALL",
                "DROP TABLE {}",
            ] {
                let refused = client.batch_execute(&sql.replace("{}", table)).await.unwrap_err();
                let code = refused.code().unwrap().code();
                assert_eq!(code, "42501", "{sql} on {table}: {refused:?}");
            }
            client.batch_execute(&format!("SELECT * FROM {table}")).await.unwrap();
        }
        let refused = client.batch_execute("UPDATE schema_migrations SET checksum = ''").await.unwrap_err();
        assert_eq!(refused.code().unwrap().code(), "42501");
        drop(client);
        login.remove(&database).await;
    }

    /// A superuser is past every right, and still meets the trigger.
    #[tokio::test]
    async fn even_the_owner_is_refused_in_passing() {
        let database = Database::create().unwrap();
        open(&database).await.close().await;
        let client = connect(&database.url()).await;
        let row = "INSERT INTO audit_events VALUES ('z-1', 1, 'e', 't', 'r', 'allow', '', '', '', '', 'null', 'null', 'null', 1, 1, 'h', NULL, '')";
        client.batch_execute(row).await.unwrap();
        for sql in ["UPDATE audit_events SET id = 'x'", "DELETE FROM audit_events", "TRUNCATE audit_events"] {
            let refused = client.batch_execute(sql).await.unwrap_err();
            assert!(refused.as_db_error().unwrap().message().contains("can only be added to"), "{sql}: {refused:?}");
        }
    }
}

mod t01_control_plane {
    use super::*;

    /// Row-level security stands behind the types: a statement that forgot its zone sees nothing.
    #[tokio::test]
    async fn a_statement_without_a_zone_sees_and_writes_nothing() {
        let database = Database::create().unwrap();
        let store = open(&database).await;
        raise(&store, &zone("z-1")).await.unwrap();
        raise(&store, &zone("z-2")).await.unwrap();
        let client = connect(&database.url()).await;
        client.batch_execute("SET ROLE caracal_runtime").await.unwrap();
        let seen = async |scope: Option<&str>| {
            let reset =
                scope.map_or_else(|| "RESET caracal.zone".to_owned(), |zone| format!("SET caracal.zone = '{zone}'"));
            client.batch_execute(&reset).await.unwrap();
            let row = client.query_one("SELECT count(*) FROM delegation_epochs", &[]).await.unwrap();
            row.get::<_, i64>(0)
        };
        assert_eq!(seen(None).await, 0);
        for (scope, rows) in [("", 0), ("z-1", 1), ("z-3", 0), ("%", 0), ("*", 2)] {
            assert_eq!(seen(Some(scope)).await, rows, "`{scope}`");
        }
        for scope in ["", "z-1"] {
            seen(Some(scope)).await;
            let written = client.execute("INSERT INTO delegation_epochs VALUES ('z-9', 1)", &[]).await;
            assert_eq!(written.unwrap_err().code().unwrap().code(), "42501", "`{scope}`");
            let changed = client.execute("UPDATE delegation_epochs SET epoch = 9 WHERE zone_id = 'z-2'", &[]).await;
            assert_eq!(changed.unwrap(), 0, "`{scope}`");
        }
        // No table of tenants was forgotten.
        let open = client
            .query(
                "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
                 AND NOT (relrowsecurity AND relforcerowsecurity) ORDER BY 1",
                &[],
            )
            .await
            .unwrap();
        let open: Vec<String> = open.iter().map(|row| row.get(0)).collect();
        // Topics are one for all zones, and hold nothing on servers, where Redis has them.
        let topics = ["stream_entries", "stream_groups", "stream_handled", "stream_pending", "stream_topics"];
        let expected = [
            &["counts", "deployment", "gateway_nonces", "last_commits", "schema_migrations"],
            &topics[..],
            &["sts_replicas", "zone_versions"],
        ]
        .concat();
        assert_eq!(open, expected);
        store.close().await;
    }
}

mod starting {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn any_number_of_processes_may_start_on_an_empty_database_at_once() {
        let database = Database::create().unwrap();
        let starts: Vec<_> = (0..6)
            .map(|_| {
                let options = PostgresOptions::at(&database.url()).unwrap();
                tokio::spawn(async move { Store::open_postgres(options).await })
            })
            .collect();
        for start in starts {
            let store = start.await.unwrap().unwrap();
            raise(&store, &zone("z-1")).await.unwrap();
            store.close().await;
        }
        let store = open(&database).await;
        assert_eq!(epoch(&store, &zone("z-1")).await, 6);
        store.close().await;
    }

    #[tokio::test]
    async fn a_migration_says_what_is_missing_and_is_applied_once() {
        let database = Database::create().unwrap();
        let options = PostgresOptions::at(&database.url()).unwrap();
        let missing = options.missing_migrations().await.unwrap();
        assert_eq!((missing.from, missing.to), (0, caracal_store::known_version()));
        assert!(!missing.migrations.is_empty());
        assert_eq!(options.missing_migrations().await.unwrap(), missing, "looking changes nothing");
        assert_eq!(options.apply_migrations().await.unwrap(), missing);
        let done = options.apply_migrations().await.unwrap();
        assert_eq!((done.from, done.migrations.len()), (caracal_store::known_version(), 0));
    }

    #[tokio::test]
    async fn a_newer_or_altered_schema_is_refused_and_left_alone() {
        let database = Database::create().unwrap();
        open(&database).await.close().await;
        let client = connect(&database.url()).await;
        client.batch_execute("INSERT INTO schema_migrations VALUES (99, 'later', 'x', 0)").await.unwrap();
        let refused = refusal(PostgresOptions::at(&database.url()).unwrap()).await;
        assert!(refused.contains("99") && refused.contains("newer version"), "{refused}");
        client.batch_execute("DELETE FROM schema_migrations WHERE version = 99").await.unwrap();
        client.batch_execute("UPDATE schema_migrations SET checksum = 'x' WHERE version = 1").await.unwrap();
        let refused = refusal(PostgresOptions::at(&database.url()).unwrap()).await;
        assert!(refused.contains("altered"), "{refused}");
    }

    #[tokio::test]
    async fn what_is_wrong_is_said_with_what_to_do() {
        let database = Database::create().unwrap();
        let url = database.url();
        let (before, _) = url.rsplit_once('/').unwrap();
        let refused = refusal(PostgresOptions::at(&format!("{before}/absent")).unwrap()).await;
        assert!(refused.contains("has no database `absent`"), "{refused}");
        let refused = refusal(PostgresOptions::at(&format!("{url}?sslmode=require")).unwrap()).await;
        assert!(refused.contains("does not offer TLS"), "{refused}");
        let login = Login::create(&database, "").await;
        let wrong = login.url(&database).replace("hunter2", "hunter3");
        let refused = refusal(PostgresOptions::at(&wrong).unwrap()).await;
        assert!(refused.contains("refused the login") && !refused.contains("hunter3"), "{refused}");
        // Nobody listens on the port that was just free.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let refused = refusal(PostgresOptions::at(&format!("postgres://u:hunter2@127.0.0.1:{port}/d")).unwrap()).await;
        assert!(refused.contains("can't be reached"), "{refused}");
        login.remove(&database).await;
    }

    /// The certificate and the name are verified, and nothing is spoken in the clear that should not be.
    #[tokio::test]
    async fn tls_is_verified() {
        let encrypted = Encrypted::start();
        let (server, database, trusting) = (&encrypted.server, &encrypted.database, encrypted.trusting());
        let url = |host: &str, rest: &str| {
            PostgresOptions::at(&format!("postgres://postgres@{host}:{}/d?{rest}", server.port())).unwrap()
        };
        let store = Store::open_postgres(url("localhost", &trusting)).await.unwrap();
        raise(&store, &zone("z-1")).await.unwrap();
        let client = connect(&database.url()).await;
        let encrypted = "SELECT bool_and(ssl) FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid)
                         WHERE a.application_name = 'caracal'";
        assert!(client.query_one(encrypted, &[]).await.unwrap().get::<_, bool>(0));
        store.close().await;
        for (host, rest) in [("localhost", "sslmode=require"), ("127.0.0.1", trusting.as_str())] {
            let refused = refusal(url(host, rest)).await;
            assert!(refused.contains("certificate"), "{host}: {refused}");
        }
        let missing = refusal(url("localhost", "sslmode=require&sslrootcert=/nowhere.pem")).await;
        assert!(missing.contains("sslrootcert"), "{missing}");
    }

    /// The login of a running system needs the role, and the schema has to be there.
    #[tokio::test]
    async fn missing_privileges_are_said_with_the_statement_that_gives_them() {
        let database = Database::create().unwrap();
        let member = Login::create(&database, "IN ROLE caracal_runtime").await;
        // Somebody else's database: nothing may be created in it.
        let refused = refusal(PostgresOptions::at(&member.url(&database)).unwrap()).await;
        assert!(refused.contains("run `caracal migrate`"), "{refused}");
        open(&database).await.close().await;
        let stranger = Login::create(&database, "").await;
        let refused = refusal(PostgresOptions::at(&stranger.url(&database)).unwrap()).await;
        assert!(refused.contains("caracal_runtime"), "{refused}");
        let mut strict = PostgresOptions::at(&member.url(&database)).unwrap();
        strict.refuse_powerful_login = true;
        let store = Store::open_postgres(strict).await.unwrap();
        raise(&store, &zone("z-1")).await.unwrap();
        store.close().await;
        member.remove(&database).await;
        stranger.remove(&database).await;
    }

    #[tokio::test]
    async fn in_production_a_login_that_could_change_evidence_is_refused() {
        let database = Database::create().unwrap();
        open(&database).await.close().await;
        let mut strict = PostgresOptions::at(&database.url()).unwrap();
        strict.refuse_powerful_login = true;
        let refused = refusal(strict).await;
        assert!(refused.contains("could change evidence"), "{refused}");
    }
}

mod t08_availability {
    use super::*;

    /// Ends every server process of the database but the caller's, as a restart does.
    async fn cut_all(database: &Database) -> i64 {
        let client = connect(&database.url()).await;
        let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                   WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'";
        client.query_one(sql, &[]).await.unwrap().get(0)
    }

    /// What comes of it is an error and never another value: nothing is committed that was not asked for, nothing read that is
    /// not there. On a way in clear, which is allowed on one machine only, nobody could tell.
    #[tokio::test(flavor = "multi_thread")]
    async fn bits_that_are_flipped_on_the_way_are_errors_and_nothing_else() {
        let encrypted = Encrypted::start();
        let way = CuttingProxy::start(([127, 0, 0, 1], encrypted.server.port()).into()).unwrap();
        let (port, trusting) = (way.address().port(), encrypted.trusting());
        let mut options = PostgresOptions::at(&format!("postgres://postgres@localhost:{port}/d?{trusting}")).unwrap();
        options.connect_timeout = Duration::from_secs(1);
        options.statement_timeout = Duration::from_secs(1);
        let (store, z) = (Store::open_postgres(options).await.unwrap(), zone("z-1"));
        for acknowledged in 1..4 {
            assert_eq!(raise(&store, &z).await.unwrap(), acknowledged);
            way.cut(Cut::Flip);
            let refused = raise(&store, &z).await.unwrap_err();
            assert!(matches!(refused, StoreError::Unavailable { .. }), "{refused}");
            let refused = store.snapshot().await.map(drop).unwrap_err();
            assert!(matches!(refused, StoreError::Unavailable { .. }), "{refused}");
            way.heal();
            assert_eq!(epoch(&store, &z).await, acknowledged);
        }
        store.close().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn idle_connections_that_died_are_replaced_unnoticed() {
        let database = Database::create().unwrap();
        let store = open(&database).await;
        let z = zone("z-1");
        for round in 1..=5 {
            assert_eq!(raise(&store, &z).await.unwrap(), round);
            assert_eq!(epoch(&store, &z).await, round);
            assert!(cut_all(&database).await > 0);
        }
        store.check().await.unwrap();
        store.close().await;
    }

    /// Connections are cut all the time while changes run. Whoever was told "done" is done, whoever was told "failed"
    /// is not, and nothing happens twice.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_acknowledged_is_there_once_and_what_failed_is_not() {
        let database = Database::create().unwrap();
        let store = open(&database).await;
        let z = zone("z-1");
        let acknowledged = Arc::new(AtomicU32::new(0));
        let workers: Vec<_> = (0..8)
            .map(|worker| {
                let (store, z, acknowledged) = (store.clone(), z.clone(), acknowledged.clone());
                tokio::spawn(async move {
                    let mut told = Vec::new();
                    for number in 0..60 {
                        let jti = format!("j-{worker}-{number}");
                        let done: Result<i64, StoreError> = store
                            .commit(&z, jti.clone(), |tx, jti| {
                                Box::pin(async move {
                                    let epoch = delegations::raise_epoch(tx).await?;
                                    let expires_at = tx.now().plus(Duration::from_secs(60));
                                    assert!(used_mandates::consume(tx, jti, "r", expires_at).await?);
                                    outbox::add(tx, jti.parse().unwrap(), "topic", jti, Vec::new()).await?;
                                    Ok(epoch)
                                })
                            })
                            .await;
                        if done.is_ok() {
                            acknowledged.fetch_add(1, Ordering::SeqCst);
                        }
                        told.push((jti, done));
                    }
                    told
                })
            })
            .collect();
        let mut cuts = 0;
        while !workers.iter().all(tokio::task::JoinHandle::is_finished) {
            let before = acknowledged.load(Ordering::SeqCst);
            cuts += cut_all(&database).await;
            // Let some changes through between two cuts.
            while acknowledged.load(Ordering::SeqCst) < before + 5
                && !workers.iter().all(tokio::task::JoinHandle::is_finished)
            {
                tokio::task::yield_now().await;
            }
        }
        let (mut done, mut epochs) = (0, std::collections::HashSet::new());
        let mut snapshot = store.snapshot().await.unwrap();
        let mut read = snapshot.zone(&z);
        for worker in workers {
            for (jti, told) in worker.await.unwrap() {
                let used = used_mandates::is_used(&mut read, &jti).await.unwrap();
                let message = outbox::lookup(&mut read, &jti.parse().unwrap()).await.unwrap();
                assert_eq!(used, told.is_ok(), "{jti}: {told:?}");
                assert_eq!(message.is_some(), used, "{jti}");
                if let Ok(epoch) = told {
                    assert!(epochs.insert(epoch), "{epoch} was given twice");
                    done += 1;
                }
            }
        }
        assert_eq!(delegations::epoch(&mut read).await.unwrap(), done);
        assert!(done > 100 && cuts > 10, "{done} done, {cuts} cut");
        drop(snapshot);
        store.close().await;
    }

    /// The server gives up a transaction in favour of others: of two that wait for each other, or read what the other wrote.
    /// Nobody is told, unless it never ends.
    #[tokio::test]
    async fn what_the_server_undid_for_others_is_done_again_unnoticed() {
        for code in ["40001", "40P01"] {
            let database = Database::create().unwrap();
            let store = open(&database).await;
            let z = zone("z-1");
            assert_eq!(raise(&store, &z).await.unwrap(), 1);
            let outside = connect(&database.url()).await;
            let undoes = format!(
                "CREATE SEQUENCE undone;
                 CREATE FUNCTION undo() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
                   IF nextval('undone') <= 2 THEN RAISE EXCEPTION 'undone' USING ERRCODE = '{code}'; END IF;
                   RETURN NEW;
                 END $$;
                 CREATE TRIGGER undo BEFORE UPDATE ON delegation_epochs FOR EACH ROW EXECUTE FUNCTION undo()"
            );
            outside.batch_execute(&undoes).await.unwrap();
            assert_eq!(raise(&store, &z).await.unwrap(), 2, "{code}: once, and nobody noticed");
            let undone: i64 = outside.query_one("SELECT last_value FROM undone", &[]).await.unwrap().get(0);
            assert_eq!(undone, 3, "{code}: tried until it was done");
            outside.batch_execute("ALTER SEQUENCE undone MINVALUE -1000000 RESTART WITH -1000000").await.unwrap();
            let told = raise(&store, &z).await;
            assert!(matches!(told, Err(StoreError::Unavailable { .. })), "{code}: {told:?}");
            outside.batch_execute("DROP TRIGGER undo ON delegation_epochs").await.unwrap();
            assert_eq!(raise(&store, &z).await.unwrap(), 3, "{code}: nothing of it is there");
            store.close().await;
        }
    }

    /// The answer to a commit is lost. Whether the server went on to commit or gave up, the change is made once, and its
    /// caller is told so.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_commit_whose_answer_is_lost_is_looked_up() {
        for server_goes_on in [true, false] {
            let database = Database::create().unwrap();
            let direct = open(&database).await;
            let client = connect(&database.url()).await;
            let slow = "CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS
                          $$ BEGIN IF NEW.jti = 'slow' THEN PERFORM pg_sleep(0.5); END IF; RETURN NULL; END $$;
                        CREATE CONSTRAINT TRIGGER dawdles AFTER INSERT ON used_mandates DEFERRABLE INITIALLY DEFERRED
                          FOR EACH ROW EXECUTE FUNCTION dawdle()";
            client.batch_execute(slow).await.unwrap();
            let url = database.url();
            let (login, rest) = url.split_once('@').unwrap();
            let (address, name) = rest.split_once('/').unwrap();
            let way = CuttingProxy::start(address.parse().unwrap()).unwrap();
            let through = format!("{login}@{}/{name}", way.address());
            let store = Store::open_postgres(PostgresOptions::at(&through).unwrap()).await.unwrap();
            let z = zone("z-1");
            let making = tokio::spawn({
                let (store, z) = (store.clone(), z.clone());
                async move {
                    let made: Result<i64, StoreError> = store
                        .commit(&z, (), |tx, ()| {
                            Box::pin(async move {
                                let expires_at = tx.now().plus(Duration::from_secs(60));
                                assert!(used_mandates::consume(tx, "slow", "r", expires_at).await?);
                                delegations::raise_epoch(tx).await
                            })
                        })
                        .await;
                    made
                }
            });
            let committing = "SELECT pid FROM pg_stat_activity
                              WHERE datname = current_database() AND state = 'active' AND query = 'COMMIT'";
            let backend: i32 = loop {
                if let Some(row) = client.query_opt(committing, &[]).await.unwrap() {
                    break row.get(0);
                }
                tokio::task::yield_now().await;
            };
            if server_goes_on {
                way.cut(Cut::Refuse);
                way.heal();
            } else {
                client.execute("SELECT pg_terminate_backend($1)", &[&backend]).await.unwrap();
            }
            assert_eq!(making.await.unwrap().unwrap(), 1, "{server_goes_on}");
            assert_eq!(epoch(&direct, &z).await, 1, "{server_goes_on}");
            direct.close().await;
            store.close().await;
        }
    }

    /// A crash takes with it a transaction whose log had not reached the disk, and the server gives out its number
    /// again. What it then says of that number is somebody else's.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_commit_that_a_crash_took_is_not_mistaken_for_another_with_its_number() {
        let mut server = Postgres::start().unwrap();
        let database = Database::on(&server.url(), "d").unwrap();
        let store = open(&database).await;
        let client = connect(&database.url()).await;
        let slow = "CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS
                      $$ BEGIN IF NEW.jti LIKE 'slow%' THEN PERFORM pg_sleep(0.5); END IF; RETURN NULL; END $$;
                    CREATE CONSTRAINT TRIGGER dawdles AFTER INSERT ON used_mandates DEFERRABLE INITIALLY DEFERRED
                      FOR EACH ROW EXECUTE FUNCTION dawdle()";
        client.batch_execute(slow).await.unwrap();
        // Nothing is written down before somebody waits for it.
        for setting in ["wal_writer_delay = '10s'", "bgwriter_delay = '10s'", "checkpoint_timeout = '1h'"] {
            client.batch_execute(&format!("ALTER SYSTEM SET {setting}")).await.unwrap();
        }
        client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
        drop(client);
        let z = zone("z-1");
        let (mut made, mut given_out_again) = (0, false);
        while !given_out_again && made < 5 {
            made += 1;
            let client = connect(&database.url()).await;
            let making = tokio::spawn({
                let (store, z, jti) = (store.clone(), z.clone(), format!("slow-{made}"));
                async move {
                    let made: Result<i64, StoreError> = store
                        .commit(&z, jti, |tx, jti| {
                            Box::pin(async move {
                                let expires_at = tx.now().plus(Duration::from_secs(60));
                                assert!(used_mandates::consume(tx, jti, "r", expires_at).await?);
                                delegations::raise_epoch(tx).await
                            })
                        })
                        .await;
                    made
                }
            });
            let committing = "SELECT CAST(CAST(backend_xid AS text) AS bigint) FROM pg_stat_activity
                              WHERE datname = current_database() AND state = 'active' AND query = 'COMMIT'";
            let lost: i64 = loop {
                if let Some(row) = client.query_opt(committing, &[]).await.unwrap() {
                    break row.get(0);
                }
                tokio::task::yield_now().await;
            };
            server.kill();
            server.resume().unwrap();
            let client = connect(&database.url()).await;
            loop {
                let next = client.query_one("SELECT CAST(CAST(pg_current_xact_id() AS text) AS bigint)", &[]).await;
                let next: i64 = next.unwrap().get(0);
                given_out_again |= next == lost;
                if next >= lost {
                    break;
                }
            }
            assert_eq!(making.await.unwrap().unwrap(), made);
            assert_eq!(epoch(&store, &z).await, made, "a change that was promised is not there");
        }
        assert!(given_out_again, "the server remembered every number, so nothing was tried");
        store.close().await;
    }

    /// A replica that hangs inside a change keeps the zone's lock no longer than a transaction may be idle.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_replica_that_was_cut_off_does_not_keep_a_zone_locked() {
        let database = Database::create().unwrap();
        let mut options = PostgresOptions::at(&database.url()).unwrap();
        options.idle_in_transaction_timeout = Duration::from_millis(200);
        let (one, other) = (Store::open_postgres(options).await.unwrap(), open(&database).await);
        let z = zone("z-1");
        let hung = tokio::spawn({
            let (one, z) = (one.clone(), z.clone());
            async move {
                let done: Result<(), StoreError> = one
                    .commit(&z, (), |tx, ()| {
                        Box::pin(async move {
                            delegations::raise_epoch(tx).await?;
                            std::future::pending::<()>().await;
                            Ok(())
                        })
                    })
                    .await;
                done
            }
        });
        while one.waiting() > 0 || epoch(&other, &z).await > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(raise(&other, &z).await.unwrap(), 1, "the change that hung was rolled back");
        hung.abort();
        other.close().await;
    }

    /// Reads have connections of their own.
    #[tokio::test(flavor = "multi_thread")]
    async fn changes_that_wait_for_a_lock_keep_no_reader_waiting() {
        let database = Database::create().unwrap();
        let mut options = PostgresOptions::at(&database.url()).unwrap();
        options.connections = 3;
        let store = Store::open_postgres(options).await.unwrap();
        raise(&store, &zone("z-1")).await.unwrap();
        let client = connect(&database.url()).await;
        client.batch_execute("BEGIN; LOCK TABLE delegation_epochs IN EXCLUSIVE MODE").await.unwrap();
        let waiting: Vec<_> = (0..10)
            .map(|number| {
                let store = store.clone();
                tokio::spawn(async move { raise(&store, &zone(&format!("z-{number}"))).await })
            })
            .collect();
        for _ in 0..20 {
            assert_eq!(epoch(&store, &zone("z-1")).await, 1);
        }
        client.batch_execute("COMMIT").await.unwrap();
        for waiter in waiting {
            waiter.await.unwrap().unwrap();
        }
        store.close().await;
    }
}

mod two_replicas {
    use super::*;

    /// Two stores are two processes: each reads what the other committed, and neither loses a change.
    #[tokio::test(flavor = "multi_thread")]
    async fn changes_of_both_are_serialised() {
        let database = Database::create().unwrap();
        let (one, other) = (open(&database).await, open(&database).await);
        let z = zone("z-1");
        let tasks: Vec<_> = (0..40)
            .map(|number| {
                let (store, z) = (if number % 2 == 0 { one.clone() } else { other.clone() }, z.clone());
                tokio::spawn(async move { raise(&store, &z).await.unwrap() })
            })
            .collect();
        let mut epochs = Vec::new();
        for task in tasks {
            epochs.push(task.await.unwrap());
        }
        epochs.sort_unstable();
        assert_eq!(epochs, (1..=40).collect::<Vec<_>>());
        one.close().await;
        other.close().await;
    }

    /// What a change reads is still so when it writes: nobody else changes the zone in between.
    #[tokio::test(flavor = "multi_thread")]
    async fn nothing_changes_between_a_changes_reads_and_writes() {
        let database = Database::create().unwrap();
        let (one, other) = (open(&database).await, open(&database).await);
        let z = zone("z-1");
        let tasks: Vec<_> = (0..40)
            .map(|number| {
                let (store, z) = (if number % 2 == 0 { one.clone() } else { other.clone() }, z.clone());
                tokio::spawn(async move {
                    let taken: Result<bool, StoreError> = store
                        .commit(&z, (), |tx, ()| {
                            Box::pin(async move {
                                let (found, expires_at) = (delegations::epoch(tx).await?, tx.now());
                                let taken = used_mandates::consume(tx, &format!("at-{found}"), "r", expires_at).await?;
                                delegations::raise_epoch(tx).await?;
                                Ok(taken)
                            })
                        })
                        .await;
                    taken.unwrap()
                })
            })
            .collect();
        for task in tasks {
            assert!(task.await.unwrap(), "two changes found the zone in the same state");
        }
        one.close().await;
        other.close().await;
    }

    /// Difference D4 across processes: what one decided on is void once the other took authority away.
    #[tokio::test]
    async fn a_revocation_by_one_voids_the_decision_of_the_other() {
        let database = Database::create().unwrap();
        let (one, other) = (open(&database).await, open(&database).await);
        let z = zone("z-1");
        let commits_at = async |store: &Store, version| {
            let held: Result<bool, StoreError> =
                store.commit(&z, version, |tx, version| Box::pin(async move { tx.is_at(*version).await })).await;
            held.unwrap()
        };
        let (version, _) = one.decision_snapshot(&z, &Named::default()).await.unwrap();
        assert!(commits_at(&one, version).await && commits_at(&other, version).await);
        raise(&other, &zone("z-2")).await.unwrap();
        assert!(commits_at(&one, version).await, "another zone is another matter");
        raise(&other, &z).await.unwrap();
        assert!(!commits_at(&one, version).await);
        let (version, _) = one.decision_snapshot(&z, &Named::default()).await.unwrap();
        assert!(commits_at(&one, version).await);
        let put: Result<(), StoreError> =
            other.commit_deployment((), |tx, ()| Box::pin(async move { deployment::put(tx, "n", "1").await })).await;
        put.unwrap();
        assert!(!commits_at(&one, version).await, "the deployment is above every zone");
        one.close().await;
        other.close().await;
    }

    /// Time is the server's, so replicas whose clocks differ judge by one time.
    #[tokio::test]
    async fn both_have_the_servers_time() {
        let database = Database::create().unwrap();
        let store = open(&database).await;
        let client = connect(&database.url()).await;
        let row = client.query_one("SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)", &[]);
        let before: i64 = row.await.unwrap().get(0);
        let now = store.snapshot().await.unwrap().now().as_micros();
        let row = client.query_one("SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)", &[]);
        let after: i64 = row.await.unwrap().get(0);
        assert!(before <= now && now <= after, "{before} {now} {after}");
        store.close().await;
    }
}

mod waiting_messages {
    use super::*;

    async fn add(store: &Store, zone: &ZoneId, topic: &'static str, id: &str) {
        let added: Result<bool, StoreError> = store
            .commit(zone, (topic, id.to_owned()), |tx, (topic, id)| {
                Box::pin(async move { outbox::add(tx, id.parse().unwrap(), topic, id, Vec::new()).await })
            })
            .await;
        assert!(added.unwrap());
    }

    async fn due(store: &Store, limit: i64) -> Vec<String> {
        let mut snapshot = store.snapshot().await.unwrap();
        let due = outbox::list_due(&mut snapshot.deployment(), limit).await.unwrap();
        due.into_iter().map(|waiting| waiting.message.id.to_string()).collect()
    }

    /// Difference D27.
    #[tokio::test]
    async fn revocations_overtake_everything_and_the_rest_keeps_its_order() {
        let database = Database::create().unwrap();
        let store = open(&database).await;
        for (zone_name, topic, id) in [
            ("z-1", "caracal.agents.lifecycle", "m-9"),
            ("z-1", "caracal.sessions.revoke", "m-8"),
            ("z-2", "caracal.policy.invalidate", "m-7"),
            ("z-1", "caracal.delegations.invalidate", "m-6"),
            ("z-1", "caracal.agents.lifecycle", "m-5"),
        ] {
            add(&store, &zone(zone_name), topic, id).await;
        }
        assert_eq!(due(&store, 10).await, ["m-8", "m-6", "m-9", "m-7", "m-5"]);
        assert_eq!(due(&store, 2).await, ["m-8", "m-6"]);
        store.close().await;
    }

    #[tokio::test]
    async fn what_was_sent_is_gone_and_what_was_refused_waits_or_is_dead_until_it_is_requeued() {
        let database = Database::create().unwrap();
        let store = open(&database).await;
        let z = zone("z-1");
        for id in ["m-1", "m-2", "m-3"] {
            add(&store, &z, "topic", id).await;
        }
        let noted: Result<(), StoreError> = store
            .commit_upkeep((), |tx, ()| {
                Box::pin(async move {
                    let later = tx.now().plus(Duration::from_secs(3_600));
                    outbox::remove_sent(tx, &"m-1".parse().unwrap()).await?;
                    outbox::note_refusal(tx, &"m-2".parse().unwrap(), "later", Some(later)).await?;
                    outbox::note_refusal(tx, &"m-3".parse().unwrap(), "never", None).await
                })
            })
            .await;
        noted.unwrap();
        assert!(due(&store, 10).await.is_empty());
        let mut snapshot = store.snapshot().await.unwrap();
        let backlog = outbox::backlog(&mut snapshot.deployment()).await.unwrap();
        assert_eq!((backlog.pending, backlog.dead), (1, 1));
        assert!(backlog.oldest_pending.is_some() && backlog.oldest_dead.is_some());
        let dead = outbox::list_dead(&mut snapshot.zone(&z), 10).await.unwrap();
        let [dead] = &dead[..] else { panic!("{dead:?}") };
        assert_eq!((dead.attempts, dead.last_error.as_deref()), (1, Some("never")));
        assert!(outbox::list_dead(&mut snapshot.zone(&zone("z-2")), 10).await.unwrap().is_empty());
        drop(snapshot);
        for (zone_name, id, requeued) in [("z-2", None, 0), ("z-1", Some("m-2"), 0), ("z-1", None, 1)] {
            let done: Result<usize, StoreError> = store
                .commit(&zone(zone_name), id, |tx, id| {
                    Box::pin(async move { outbox::requeue(tx, id.map(|id| id.parse().unwrap()).as_ref()).await })
                })
                .await;
            assert_eq!(done.unwrap(), requeued, "{zone_name} {id:?}");
        }
        assert_eq!(due(&store, 10).await, ["m-3"]);
        store.close().await;
    }
}

mod jobs {
    use super::*;

    #[tokio::test]
    async fn one_process_at_a_time_does_a_job_and_another_takes_over() {
        let database = Database::create().unwrap();
        let (one, other) = (open(&database).await, open(&database).await);
        let seat = one.elect("relay").await.unwrap().unwrap();
        assert!(seat.holds().await);
        assert!(other.elect("relay").await.unwrap().is_none());
        assert!(other.elect("another job").await.unwrap().is_some());
        drop(seat);
        let taken = async {
            loop {
                if let Some(seat) = other.elect("relay").await.unwrap() {
                    return seat;
                }
                tokio::task::yield_now().await;
            }
        };
        let seat = tokio::time::timeout(Duration::from_secs(5), taken).await.unwrap();
        // The server ends the session, as when the way to it is cut: the one that had the seat learns it by looking.
        let client = connect(&database.url()).await;
        let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
        client.execute(cut, &[]).await.unwrap();
        assert!(!seat.holds().await);
        one.close().await;
        other.close().await;
    }
}
#[path = "postgres/clocks.rs"]
mod t08_availability_clocks;
#[path = "postgres/lineage.rs"]
mod t17_rollback_lineage;
