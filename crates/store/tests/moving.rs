//! A store moves from the embedded engine to a server: whole and unaltered, or not at all.
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "helpers of tests fail by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use caracal_authority::ZoneId;
use caracal_store::moving::{Contents, MoveError, Source, Stage, Target, arrived_at};
use caracal_store::{OpenError, PostgresOptions, SqliteOptions, Store, SystemClock, outbox};
use caracal_testkit::{Cut, CuttingProxy, Database};
use rusqlite::types::{Value, ValueRef};
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

const ROWS: usize = 300;

/// Values that engines have been known to disagree on.
const TEXTS: [&str; 8] =
    ["", " ", "O'Neil \"\\%_\n\t\r", "ß\u{1F600}\u{10FFFF}", "\u{1}\u{7f}", "Å A\u{30a}", "{}", "\\x00"];
const NUMBERS: [i64; 5] = [i64::MIN, i64::MAX, 0, -1, 1];

fn open(directory: &Path) -> Result<Store, OpenError> {
    Store::open(&SqliteOptions::in_directory(directory), Arc::new(SystemClock))
}

/// A column of the embedded engine: its name, its type, whether it may be null, whether it belongs to the key.
type Column = (String, String, bool, bool);

fn tables(connection: &rusqlite::Connection) -> BTreeMap<String, Vec<Column>> {
    let sql = "SELECT t.name, c.name, c.type, c.\"notnull\" = 0, c.pk > 0 FROM sqlite_schema t
               JOIN pragma_table_info(t.name) c WHERE t.type = 'table' AND t.name <> 'schema_migrations'
               AND substr(t.name, 1, 7) <> 'sqlite_'";
    let mut tables: BTreeMap<String, Vec<Column>> = BTreeMap::new();
    let mut statement = connection.prepare(sql).unwrap();
    let rows = statement
        .query_map([], |row| Ok((row.get::<_, String>(0)?, (row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))));
    for row in rows.unwrap() {
        let (table, column) = row.unwrap();
        tables.entry(table).or_default().push(column);
    }
    tables
}

fn value(column: &Column, row: usize) -> Value {
    let (name, ty, nullable, _) = column;
    let salt = row.wrapping_add(name.len());
    match ty.as_str() {
        _ if *nullable && salt % 3 == 0 => Value::Null,
        "INTEGER" if row < NUMBERS.len() => Value::Integer(NUMBERS[salt % NUMBERS.len()]),
        "INTEGER" => Value::Integer(row as i64),
        // Many texts are unique in their table; their order is not the one they were added in.
        "TEXT" => Value::Text(format!("{}{}", TEXTS[salt % TEXTS.len()], 1_000 - row)),
        "BLOB" => Value::Blob((0..row % 300).map(|byte| (byte + salt) as u8).collect()),
        other => panic!("{name} is {other}"),
    }
}

/// A stopped store with rows in every table that there is.
async fn filled() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    open(directory.path()).unwrap().close().await;
    let mut connection = rusqlite::Connection::open(directory.path().join("caracal.db")).unwrap();
    let tables = tables(&connection);
    assert!(tables.len() > 20, "{tables:?}");
    let transaction = connection.transaction().unwrap();
    for (table, columns) in &tables {
        let names: Vec<&str> = columns.iter().map(|(name, ..)| name.as_str()).collect();
        let places = vec!["?"; names.len()].join(", ");
        let sql = format!("INSERT INTO {table} ({}) VALUES ({places})", names.join(", "));
        let mut insert = transaction.prepare(&sql).unwrap();
        for row in 0..ROWS {
            let values = columns.iter().map(|column| match column.0.as_str() {
                // What keeps the rows apart where a number is part of a key.
                "chain_seq" | "version" => Value::Integer(row as i64),
                _ => value(column, row),
            });
            insert.execute(rusqlite::params_from_iter(values)).unwrap();
        }
    }
    transaction.commit().unwrap();
    directory
}

fn source_rows(directory: &Path) -> BTreeMap<String, Vec<String>> {
    let connection = rusqlite::Connection::open(directory.join("caracal.db")).unwrap();
    let mut all = BTreeMap::new();
    for (table, columns) in tables(&connection) {
        let names: Vec<&str> =
            columns.iter().map(|column| column.0.as_str()).filter(|name| *name != "position").collect();
        let mut statement = connection.prepare(&format!("SELECT {} FROM {table}", names.join(", "))).unwrap();
        let rows = statement.query_map([], |row| {
            let values = (0..names.len()).map(|index| match row.get_ref(index).unwrap() {
                ValueRef::Null => "NULL".to_owned(),
                ValueRef::Integer(number) => number.to_string(),
                ValueRef::Text(text) => format!("{:?}", std::str::from_utf8(text).unwrap()),
                ValueRef::Blob(bytes) => format!("{bytes:?}"),
                ValueRef::Real(_) => panic!("no table has one"),
            });
            Ok(values.collect::<Vec<_>>().join("|"))
        });
        let mut rows: Vec<String> = rows.unwrap().map(Result::unwrap).collect();
        rows.sort();
        all.insert(table, rows);
    }
    all
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// The same of the server, read past every right.
async fn target_rows(database: &Database, of: &Path) -> BTreeMap<String, Vec<String>> {
    let client = connect(&database.url()).await;
    let source = rusqlite::Connection::open(of.join("caracal.db")).unwrap();
    let mut all = BTreeMap::new();
    for (table, columns) in tables(&source) {
        let columns: Vec<&Column> = columns.iter().filter(|column| column.0 != "position").collect();
        let names: Vec<&str> = columns.iter().map(|column| column.0.as_str()).collect();
        let found = client.query(&format!("SELECT {} FROM {table}", names.join(", ")), &[]).await.unwrap();
        let mut rows: Vec<String> = found
            .iter()
            .map(|row| {
                let values = columns.iter().enumerate().map(|(index, (_, ty, ..))| match ty.as_str() {
                    "INTEGER" => row.get::<_, Option<i64>>(index).map(|number| number.to_string()),
                    "TEXT" => row.get::<_, Option<String>>(index).map(|text| format!("{text:?}")),
                    _ => row.get::<_, Option<Vec<u8>>>(index).map(|bytes| format!("{bytes:?}")),
                });
                values.map(|value| value.unwrap_or_else(|| "NULL".to_owned())).collect::<Vec<_>>().join("|")
            })
            .collect();
        rows.sort();
        all.insert(table, rows);
    }
    all
}

/// How many rows each table of the server has that has any; the list of migrations aside.
async fn target_counts(database: &Database) -> BTreeMap<String, i64> {
    let client = connect(&database.url()).await;
    let sql = "SELECT relname::text FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace";
    let mut counts = BTreeMap::new();
    for row in client.query(sql, &[]).await.unwrap() {
        let table: String = row.get(0);
        let count: i64 = client.query_one(&format!("SELECT count(*) FROM {table}"), &[]).await.unwrap().get(0);
        if table != "schema_migrations" && count > 0 {
            counts.insert(table, count);
        }
    }
    counts
}

fn at(url: &str) -> PostgresOptions {
    PostgresOptions::at(url).unwrap()
}

/// The whole move, but for the mark.
async fn move_over(directory: &Path, url: &str) -> Result<Contents, MoveError> {
    let mut source = Source::open(directory)?;
    assert_eq!(arrived_at(&at(url)).await?, None);
    let contents = source.contents(|_| ())?;
    let mut target = Target::begin(at(url), &source).await?;
    target.take(&mut source, &contents, |_| ()).await?;
    target.commit(&contents).await?;
    Ok(contents)
}

async fn refused(directory: &Path, database: &Database) -> String {
    let refused = move_over(directory, &database.url()).await.map(|_| ()).unwrap_err();
    refused.to_string()
}

/// Another login than the superuser, with a database of its own: row-level security holds for it.
async fn owner_of(database: &Database) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let name = format!("mover{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    let (server, own) = (connect(database.server()).await, connect(&database.url()).await);
    let sql = "DO $$ BEGIN CREATE ROLE caracal_runtime NOLOGIN; EXCEPTION WHEN duplicate_object OR unique_violation
               THEN NULL; END $$";
    server.batch_execute(sql).await.unwrap();
    let create = format!("CREATE ROLE {name} LOGIN PASSWORD 'hunter2' IN ROLE caracal_runtime");
    server.batch_execute(&create).await.unwrap();
    own.batch_execute(&format!("ALTER SCHEMA public OWNER TO {name}")).await.unwrap();
    name
}

#[tokio::test]
async fn every_row_of_every_table_arrives_as_it_was() {
    let (directory, database) = (filled().await, Database::create().unwrap());
    let owner = owner_of(&database).await;
    let address = database.url().split_once('@').unwrap().1.to_owned();
    let contents = move_over(directory.path(), &format!("postgres://{owner}:hunter2@{address}")).await.unwrap();
    let left = source_rows(directory.path());
    let mut arrived = target_rows(&database, directory.path()).await;
    let note = format!("\"moved_from\"|\"{}\"", contents.sha256());
    let deployment = arrived.get_mut("deployment").unwrap();
    deployment.retain(|row| *row != note);
    assert_eq!(left.keys().collect::<Vec<_>>(), contents.tables.iter().map(|table| &table.name).collect::<Vec<_>>());
    for (table, rows) in &left {
        assert_eq!(rows.len(), ROWS, "{table}");
        assert!(arrived[table] == *rows, "{table} arrived otherwise");
    }
    assert_eq!(contents.rows(), (ROWS * left.len()) as u64);
    connect(&database.url()).await.batch_execute(&format!("DROP OWNED BY {owner} CASCADE; ")).await.unwrap();
    connect(database.server()).await.batch_execute(&format!("DROP ROLE {owner}")).await.unwrap();
}

/// What is only on the server, and what it counts itself, is known by name; anything new has to be thought about.
#[tokio::test]
async fn the_server_has_no_other_tables_than_the_source() {
    let (directory, database) = (filled().await, Database::create().unwrap());
    at(&database.url()).apply_migrations().await.unwrap();
    let client = connect(&database.url()).await;
    let sql = "SELECT relname::text FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace";
    let there: Vec<String> = client.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    let source = rusqlite::Connection::open(directory.path().join("caracal.db")).unwrap();
    let mut expected: Vec<String> = tables(&source).into_keys().collect();
    expected.extend(["last_commits", "schema_migrations", "zone_versions"].map(str::to_owned));
    let sorted = |mut names: Vec<String>| {
        names.sort();
        names
    };
    assert_eq!(sorted(there), sorted(expected));
    // Tables go over by name: none may point at another that comes later.
    let keys: i64 =
        client.query_one("SELECT count(*) FROM pg_constraint WHERE contype = 'f'", &[]).await.unwrap().get(0);
    assert_eq!(keys, 0);
}

#[tokio::test]
async fn messages_that_wait_keep_the_order_in_which_they_were_added() {
    let (directory, database) = (tempfile::tempdir().unwrap(), Database::create().unwrap());
    open(directory.path()).unwrap().close().await;
    let connection = rusqlite::Connection::open(directory.path().join("caracal.db")).unwrap();
    // Later ones have smaller ids and were added in the same instant.
    for number in 0..600 {
        let sql = "INSERT INTO outbox (id, zone_id, topic, dedupe_key, payload, attempts, created_at, dead_at)
                   VALUES (?1, 'z', 't', ?1, '[]', 0, 1, ?2)";
        let dead = (number % 2 == 1).then_some(1);
        let id = format!("00000000-0000-7000-8000-{:012}", 1_000 - number);
        connection.execute(sql, (id, dead)).unwrap();
    }
    drop(connection);
    move_over(directory.path(), &database.url()).await.unwrap();
    let store = Store::open_postgres(at(&database.url())).await.unwrap();
    let mut snapshot = store.snapshot().await.unwrap();
    let waiting = outbox::list_due(&mut snapshot.deployment(), 1_000).await.unwrap();
    let ids: Vec<String> = waiting.iter().map(|waiting| waiting.message.id.as_str().to_owned()).collect();
    let expected = (0..600).step_by(2).map(|number| format!("00000000-0000-7000-8000-{:012}", 1_000 - number));
    assert_eq!(ids, expected.collect::<Vec<_>>());
    drop(snapshot);
    // The next one comes behind them.
    let zone = ZoneId::parse("z").unwrap();
    let id = caracal_authority::OutboxId::parse("00000000-0000-7000-8000-000000000000").unwrap();
    let added: Result<bool, caracal_store::StoreError> = store
        .commit(&zone, id.clone(), |tx, id| {
            Box::pin(async move { outbox::add(tx, id.clone(), "t", "next", Vec::new()).await })
        })
        .await;
    assert!(added.unwrap());
    let mut snapshot = store.snapshot().await.unwrap();
    let waiting = outbox::list_due(&mut snapshot.deployment(), 1_000).await.unwrap();
    assert_eq!(waiting.last().unwrap().message.id, id);
}

mod t17_rollback {
    use super::*;

    #[tokio::test]
    async fn a_store_that_is_in_use_does_not_move() {
        let (directory, database) = (tempfile::tempdir().unwrap(), Database::create().unwrap());
        let running = open(directory.path()).unwrap();
        let said = refused(directory.path(), &database).await;
        assert!(said.contains("in use by another process; stop it"), "{said}");
        running.close().await;
        drop(running);
        // And the other way round.
        let source = Source::open(directory.path()).unwrap();
        assert!(matches!(open(directory.path()).map(|_| ()), Err(OpenError::Locked { .. })));
        drop(source);
        open(directory.path()).unwrap().close().await;
    }

    #[tokio::test]
    async fn a_store_that_has_moved_is_refused_until_its_mark_is_removed() {
        let (directory, database) = (filled().await, Database::create().unwrap());
        let contents = move_over(directory.path(), &database.url()).await.unwrap();
        assert_eq!(arrived_at(&at(&database.url())).await.unwrap(), Some(contents.sha256()));
        let source = Source::open(directory.path()).unwrap();
        assert_eq!(source.moved_to().unwrap(), None);
        let mark: PathBuf = source.mark_moved_to("db.example:5432/caracal").unwrap();
        assert_eq!(source.moved_to().unwrap().as_deref(), Some("db.example:5432/caracal"));
        assert!(source.refuse_moved().is_err());
        drop(source);
        let said = open(directory.path()).map(|_| ()).unwrap_err().to_string();
        assert!(said.contains("db.example:5432/caracal") && said.contains(&mark.display().to_string()), "{said}");
        // Emptied or cut, it is still a mark.
        std::fs::write(&mark, "").unwrap();
        assert!(matches!(open(directory.path()).map(|_| ()), Err(OpenError::Moved { .. })));
        std::fs::remove_file(&mark).unwrap();
        open(directory.path()).unwrap().close().await;
    }

    #[tokio::test]
    async fn a_copy_out_of_a_backup_does_not_move() {
        let (directory, database) = (filled().await, Database::create().unwrap());
        let connection = rusqlite::Connection::open(directory.path().join("caracal.db")).unwrap();
        connection.execute("INSERT INTO deployment VALUES ('copied_for_backup_at', '1')", []).unwrap();
        drop(connection);
        let said = refused(directory.path(), &database).await;
        assert!(said.contains("caracal restore"), "{said}");
    }

    #[tokio::test]
    async fn a_target_with_a_row_in_it_is_refused() {
        let (directory, database) = (filled().await, Database::create().unwrap());
        at(&database.url()).apply_migrations().await.unwrap();
        for (table, sql) in [
            ("zone_versions", "INSERT INTO zone_versions VALUES ('z', 1)"),
            ("gateway_nonces", "INSERT INTO gateway_nonces VALUES ('n', 1)"),
            ("deployment", "INSERT INTO deployment VALUES ('kek', 'k')"),
            ("guests", "CREATE TABLE guests (name text); INSERT INTO guests VALUES ('g')"),
        ] {
            let client = connect(&database.url()).await;
            client.batch_execute(sql).await.unwrap();
            let said = refused(directory.path(), &database).await;
            assert!(said.contains(&format!("`{table}`")), "{said}");
            client.batch_execute(&format!("DELETE FROM {table}")).await.unwrap();
        }
        // Empty, but nobody knows what it is for.
        let said = refused(directory.path(), &database).await;
        assert!(said.contains("`guests`"), "{said}");
        assert_eq!(target_counts(&database).await, BTreeMap::new());
    }
}

/// A target that has been looked at can be filled before the move begins.
#[tokio::test]
async fn a_row_that_appears_meanwhile_is_seen_behind_the_lock() {
    let (directory, database) = (filled().await, Database::create().unwrap());
    let source = Source::open(directory.path()).unwrap();
    assert_eq!(arrived_at(&at(&database.url())).await.unwrap(), None);
    at(&database.url()).apply_migrations().await.unwrap();
    connect(&database.url()).await.batch_execute("INSERT INTO zone_versions VALUES ('z', 1)").await.unwrap();
    let begun = Target::begin(at(&database.url()), &source).await.map(|_| ());
    assert!(matches!(begun, Err(MoveError::Filled { table, .. }) if table == "zone_versions"));
}

#[tokio::test]
async fn text_that_the_server_cannot_keep_is_refused_before_anything_is_copied() {
    for (sql, what) in [
        ("UPDATE providers SET name = 'a' || char(0) || 'b' WHERE name LIKE '%987'", "a NUL character"),
        ("UPDATE providers SET name = CAST(x'ff41' AS TEXT) WHERE name LIKE '%987'", "text that is not UTF-8"),
    ] {
        let (directory, database) = (filled().await, Database::create().unwrap());
        let connection = rusqlite::Connection::open(directory.path().join("caracal.db")).unwrap();
        assert_eq!(connection.execute(sql, []).unwrap(), 1);
        drop(connection);
        let said = refused(directory.path(), &database).await;
        assert!(said.contains("`providers.name`") && said.contains(what), "{said}");
        let client = connect(&database.url()).await;
        let there: bool = client.query_one("SELECT to_regclass('zones') IS NOT NULL", &[]).await.unwrap().get(0);
        assert!(!there, "something was made");
        open(directory.path()).unwrap().close().await;
    }
}

#[tokio::test]
async fn what_arrives_altered_is_not_kept() {
    let (directory, database) = (filled().await, Database::create().unwrap());
    at(&database.url()).apply_migrations().await.unwrap();
    let trigger = "CREATE FUNCTION mend() RETURNS trigger LANGUAGE plpgsql AS
                   $$ BEGIN NEW.name := replace(NEW.name, 'ß', 'ss'); RETURN NEW; END $$;
                   CREATE TRIGGER mend BEFORE INSERT ON resources FOR EACH ROW EXECUTE FUNCTION mend()";
    connect(&database.url()).await.batch_execute(trigger).await.unwrap();
    let said = refused(directory.path(), &database).await;
    assert!(said.contains("`resources`"), "{said}");
    let lost = "DROP TRIGGER mend ON resources; CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN RETURN NULL; END $$;
                CREATE TRIGGER lose BEFORE INSERT ON used_mandates FOR EACH ROW EXECUTE FUNCTION lose()";
    connect(&database.url()).await.batch_execute(lost).await.unwrap();
    let said = refused(directory.path(), &database).await;
    assert!(said.contains("`used_mandates`"), "{said}");
    assert_eq!(target_counts(&database).await, BTreeMap::new());
}

#[tokio::test]
async fn a_source_that_changes_meanwhile_does_not_arrive_half() {
    let (directory, database) = (filled().await, Database::create().unwrap());
    let mut source = Source::open(directory.path()).unwrap();
    let mut contents = source.contents(|_| ()).unwrap();
    contents.tables[3].rows += 1;
    let name = contents.tables[3].name.clone();
    let mut target = Target::begin(at(&database.url()), &source).await.unwrap();
    let taken = target.take(&mut source, &contents, |_| ()).await;
    assert!(matches!(taken, Err(MoveError::Differs { table }) if table == name));
    drop(target);
    assert_eq!(target_counts(&database).await, BTreeMap::new());
}

mod t08_availability {
    use super::*;

    /// Cut in the middle of each of the three stages, in both ways that a connection can end.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_way_that_is_cut_leaves_nothing_and_the_next_move_arrives() {
        let (directory, database) = (filled().await, Database::create().unwrap());
        at(&database.url()).apply_migrations().await.unwrap();
        let address = database.url().split_once('@').unwrap().1.to_owned();
        let (server, name) = address.split_once('/').unwrap();
        let proxy = CuttingProxy::start(server.parse().unwrap()).unwrap();
        let through = format!("postgres://postgres@{}/{name}", proxy.address());
        let before = source_rows(directory.path());
        for (stage, rows) in [(Stage::Copying, 1), (Stage::Copying, 4_000), (Stage::Comparing, 1)] {
            let mut source = Source::open(directory.path()).unwrap();
            let contents = source.contents(|_| ()).unwrap();
            let mut target = Target::begin(at(&through), &source).await.unwrap();
            let taken = target
                .take(&mut source, &contents, |progress| {
                    if progress.stage == stage && progress.rows >= rows {
                        proxy.cut(Cut::Refuse);
                    }
                })
                .await;
            let said = taken.unwrap_err().to_string();
            assert!(said.contains("has kept nothing, run the command again"), "{said}");
            drop(target);
            proxy.heal();
            assert_eq!(arrived_at(&at(&database.url())).await.unwrap(), None);
        }
        // Cut before the server was told to commit.
        let mut source = Source::open(directory.path()).unwrap();
        let contents = source.contents(|_| ()).unwrap();
        let mut target = Target::begin(at(&through), &source).await.unwrap();
        target.take(&mut source, &contents, |_| ()).await.unwrap();
        proxy.cut(Cut::Refuse);
        assert!(matches!(target.commit(&contents).await, Err(MoveError::Target(_))));
        proxy.heal();
        drop(source);
        assert_eq!(target_counts(&database).await, BTreeMap::new());
        assert!(source_rows(directory.path()) == before);
        open(directory.path()).unwrap().close().await;
        tokio::time::timeout(Duration::from_secs(60), move_over(directory.path(), &through)).await.unwrap().unwrap();
    }
}
