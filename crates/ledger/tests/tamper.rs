//! The tamper suite: whatever the owner of the file, or of the database, does to the evidence is found. He has no audit key and
//! no hand on what lies beside the store. One table of manipulations over both engines, of which all have to be found.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

#[path = "support/outsider.rs"]
mod outsider;
mod support;
#[path = "support/trees.rs"]
mod trees;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use caracal_authority::Timestamp;
use caracal_crypto::hmac::HmacKey;
use caracal_ledger::{Begin, Chain, Head, LedgerReport, Marks, verify_store, verify_store_marked};
use caracal_store::conformance;
use caracal_store::{DeploymentRead, Store, StoreError, SystemClock, retention};
use caracal_testkit::{Database, Place};
use serde_json::{Value, json};

use outsider::{admin_content_of, content_of, number, rows, text};
use support::*;

/// When every change of the tests happened.
const INSTANT: &str = "2027-01-15T08:00:00.123Z";
/// Everything that verification rests on.
const TABLES: [&str; 8] = [
    "audit_events",
    "audit_heads",
    "audit_anchors",
    "admin_audit_events",
    "admin_audit_heads",
    "ledger_trees",
    "ledger_tiles",
    "ledger_log_keys",
];
/// What is no evidence: when a checkpoint was signed, when a key was made, and its sealed half, which opens or does not.
const NO_EVIDENCE: [(&str, &str); 3] =
    [("ledger_trees", "signed_at"), ("ledger_log_keys", "created_at"), ("ledger_log_keys", "sealed_private")];

fn audit_key() -> HmacKey {
    HmacKey::from_bytes(&(1..=32).collect::<Vec<u8>>()).unwrap()
}

/// One thing that is done to a store, and the chain in which it has to be found.
struct Manipulation {
    what: String,
    sql: String,
    chain: Chain,
}

/// Who finds it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Finders {
    /// `caracal audit verify`, with the heads beside the store.
    verifier: bool,
    /// The sweep over everything of a process that has seen the store before.
    sweep: bool,
}

/// A store to do things to, again and again.
enum Bench {
    Files(Original),
    /// One database, put back to what it was before each manipulation, and a process that serves from it.
    Server(Database, Store),
}

impl Bench {
    async fn of(original: Original) -> Self {
        match original.copy() {
            Stored::File(_) => Self::Files(original),
            Stored::Server(database) => {
                let kept = |table| format!("CREATE TABLE kept.{table} AS SELECT * FROM public.{table};");
                database.run(&format!("CREATE SCHEMA kept; {}", TABLES.map(kept).concat())).unwrap();
                let url = database.url();
                let store = conformance::open(&std::env::temp_dir(), Some(&url), Arc::new(SystemClock)).await;
                Self::Server(database, store)
            }
        }
    }

    /// What `reading` says of a store to which `sql` was done.
    async fn read<T>(
        &self,
        sql: &str,
        reading: impl AsyncFnOnce(&mut DeploymentRead<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        match self {
            Self::Files(original) => original.tampered(sql).read(reading).await,
            Self::Server(database, store) => {
                let back = |table| format!("DELETE FROM {table}; INSERT INTO {table} SELECT * FROM kept.{table};");
                let free = "SET session_replication_role = replica; SET synchronous_commit = off;";
                let done = database.run(&format!("{free} {} {sql}", TABLES.map(back).concat()));
                done.unwrap_or_else(|error| panic!("{sql}: {error}"));
                let mut snapshot = store.snapshot().await?;
                reading(&mut snapshot.deployment()).await
            }
        }
    }
}

/// Chains of one zone and of none, chains with a tree, and one whose beginning was removed twice.
async fn original() -> Place {
    let place = Place::new();
    let store = recorded(&place).await;
    let z = zone("z-3");
    for number in 1..=6 {
        record(&store, &z, &format!("old-{number}")).await.unwrap();
    }
    trees::log(&store).catch_up().await.unwrap();
    for through in [2_i64, 4] {
        let removed: Result<usize, StoreError> = store
            .commit(&z, (ledger(), through), |tx, (ledger, through)| {
                Box::pin(async move {
                    assert!(ledger.anchor(tx, Timestamp::from_seconds(4_000_000_000), *through).await?);
                    retention::remove_anchored(tx, 100).await
                })
            })
            .await;
        assert_eq!(removed.unwrap(), 2);
    }
    store.close().await;
    place
}

/// A value as SQL.
fn sql(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::String(text) => format!("'{}'", text.replace('\'', "''")),
        other => other.to_string(),
    }
}

/// What a forger seals a hash and the one before it with.
type Seal<'s> = &'s dyn Fn(&str, &str) -> String;

/// The chains of one table of evidence.
struct Table {
    name: &'static str,
    heads: &'static str,
    /// The column that says which chain.
    of: &'static str,
    columns: Vec<(String, bool)>,
    chains: Vec<(String, Chain, Vec<Value>)>,
}

impl Table {
    fn read(original: &Original, place: &Place, name: &'static str) -> Self {
        let columns = original.columns(name);
        let (heads, of) =
            if name == "audit_events" { ("audit_heads", "zone_id") } else { ("admin_audit_heads", "chain") };
        let names: Vec<&str> = columns.iter().map(|(column, _)| column.as_str()).collect();
        let mut chains: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for row in rows(place, &names, &format!("{name} ORDER BY {of}, chain_seq")) {
            chains.entry(text(&row, of).to_owned()).or_default().push(row);
        }
        let chain = |key: &str| match (name, key) {
            ("audit_events", zone) => evidence_of(zone),
            (_, "(none)") => Chain::Admin(None),
            (_, own) => Chain::Admin(Some(zone(own))),
        };
        let chains = chains.into_iter().map(|(key, rows)| (key.clone(), chain(&key), rows)).collect();
        Self { name, heads, of, columns, chains }
    }

    fn is_admin(&self) -> bool {
        self.name == "admin_audit_events"
    }

    fn content(&self, row: &Value) -> String {
        if self.is_admin() { admin_content_of(row, INSTANT) } else { content_of(row) }
    }

    fn insert(&self, row: &Value) -> String {
        let names: Vec<&str> = self.columns.iter().map(|(column, _)| column.as_str()).collect();
        let values: Vec<String> = names.iter().map(|column| sql(&row[*column])).collect();
        format!("INSERT INTO {} ({}) VALUES ({});", self.name, names.join(", "), values.join(", "))
    }

    /// Takes a chain away and puts these rows in its place, with the head where it then belongs.
    fn replaced(&self, key: &str, rows: &[Value]) -> String {
        let Self { name, heads, of, .. } = self;
        let mut sql = format!("DELETE FROM {name} WHERE {of} = '{key}'; DELETE FROM {heads} WHERE {of} = '{key}';");
        rows.iter().for_each(|row| sql.push_str(&self.insert(row)));
        if let Some(last) = rows.last() {
            let (seq, content) = (&last["chain_seq"], text(last, "content_sha256"));
            sql.push_str(&format!(
                "INSERT INTO {heads} ({of}, chain_seq, content_sha256) VALUES ('{key}', {seq}, '{content}');"
            ));
        }
        sql
    }

    /// The same, and the tree of the chain is gone as if there had never been one.
    fn replaced_without_tree(&self, key: &str, rows: &[Value]) -> String {
        format!(
            "{} DELETE FROM ledger_trees WHERE zone_id = '{key}'; DELETE FROM ledger_tiles WHERE zone_id = '{key}';",
            self.replaced(key, rows)
        )
    }

    /// Gives each row the position, the hash and the link that belong to it, as far as that can be done without the key.
    fn relinked(&self, rows: &[Value], seal: impl Fn(&str, &str) -> String) -> Vec<Value> {
        let first = number(&rows[0], "chain_seq");
        let mut before = rows[0]["prev_content_sha256"].clone();
        let mut relinked = Vec::new();
        for (row, seq) in rows.iter().zip(first..) {
            let mut row = row.clone();
            let content = self.content(&row);
            let prev = before.as_str().unwrap_or_default().to_owned();
            row["chain_seq"] = json!(seq);
            row["prev_content_sha256"] = before;
            // A row that stands as it stood keeps the seal that it has.
            let is_new = row["content_sha256"] != json!(content) || !relinked_alike(&row, &rows[relinked.len()]);
            row["content_sha256"] = json!(content);
            if is_new {
                row["chain_hmac"] = json!(seal(&content, &prev));
            }
            before = json!(content);
            relinked.push(row);
        }
        relinked
    }

    fn manipulations(&self, all: &mut Vec<Manipulation>) {
        let Self { name, heads, of, .. } = self;
        let mut add = |what: String, sql: String, chain: &Chain| {
            all.push(Manipulation { what: format!("{name}: {what}"), sql, chain: chain.clone() });
        };
        let other_key = HmacKey::from_bytes(&[2; 32]).unwrap();
        for (key, chain, rows) in &self.chains {
            for (at, row) in rows.iter().enumerate() {
                let id = text(row, "id");
                let only = format!("{of} = '{key}' AND id = '{id}'");
                // Each column of the first, of one in the middle and of the last.
                let is_looked_at =
                    [0, rows.len() / 2, rows.len() - 1].contains(&at) && !["z-2", "z-3"].contains(&key.as_str());
                for (column, is_number) in self.columns.iter().filter(|_| is_looked_at) {
                    for value in alterations(column, *is_number, &row[column.as_str()]) {
                        let sql = format!("UPDATE {name} SET {column} = {value} WHERE {only}");
                        add(format!("{key}/{id}: {column} = {value}"), sql, chain);
                    }
                }
                add(format!("{key}/{id} deleted"), format!("DELETE FROM {name} WHERE {only}"), chain);
            }
            for at in 0..rows.len() {
                // The end, cut off with all that says that it was there, but for what lies beside the store.
                let cut = self.replaced_without_tree(key, &rows[..at]);
                add(format!("{key} cut to {at} rows, its head and tree made to fit"), cut, chain);
                if at > 0 {
                    add(format!("{key} begins at row {at}"), self.replaced(key, &rows[at..]), chain);
                    let mut swapped = rows.clone();
                    swapped.swap(at - 1, at);
                    let places: Vec<Value> = swapped
                        .iter()
                        .zip(rows)
                        .map(|(row, place)| with(row, &[("chain_seq", place["chain_seq"].clone())]))
                        .collect();
                    add(format!("{key}: rows {} and {at} swapped", at - 1), self.replaced(key, &places), chain);
                    let relinked = self.relinked(&swapped_in(rows, at), |_, _| "0".repeat(64));
                    add(
                        format!("{key}: rows {} and {at} swapped and linked anew", at - 1),
                        self.replaced(key, &relinked),
                        chain,
                    );
                }
                let said = if self.is_admin() { "action" } else { "decision" };
                let mut forged = rows.clone();
                forged[at][said] = json!("forged");
                let seals: [(&str, Seal<'_>); 3] = [
                    ("no seals", &|_, _| String::new()),
                    ("old seals", &|_, _| text(&rows[at], "chain_hmac").to_owned()),
                    ("seals of another key", &|content, prev| {
                        other_key.sign_hex(&[content.as_bytes(), b"|", prev.as_bytes()])
                    }),
                ];
                for (kind, seal) in seals {
                    let relinked = self.relinked(&forged, seal);
                    for (tree, sql) in [
                        ("", self.replaced(key, &relinked)),
                        (", the tree gone", self.replaced_without_tree(key, &relinked)),
                    ] {
                        add(format!("{key}: row {at} forged, hashes recomputed, {kind}{tree}"), sql, chain);
                    }
                }
                let mut longer = rows.clone();
                longer.insert(at, with(&rows[at], &[("id", json!("forged"))]));
                let longer = renumbered(&longer, number(&rows[0], "chain_seq"));
                let relinked = self.relinked(&longer, |_, _| "0".repeat(64));
                add(format!("{key}: a row inserted before row {at}"), self.replaced(key, &relinked), chain);
            }
            let last = &rows[rows.len() - 1];
            let behind = [
                ("id", json!("forged")),
                ("chain_seq", json!(number(last, "chain_seq") + 1)),
                ("prev_content_sha256", last["content_sha256"].clone()),
            ];
            let mut behind = with(last, &behind);
            behind["content_sha256"] = json!(self.content(&behind));
            let mut longer = rows.clone();
            longer.push(behind);
            add(format!("{key}: a row added at the end"), self.replaced(key, &longer), chain);
            for seq in [0, -7, i64::MAX] {
                let row = with(last, &[("id", json!("forged")), ("chain_seq", json!(seq))]);
                add(format!("{key}: a row at {seq}"), self.insert(&row), chain);
            }
            for (what, sql) in [
                ("one further", format!("UPDATE {heads} SET chain_seq = chain_seq + 1 WHERE {of} = '{key}'")),
                ("one before", format!("UPDATE {heads} SET chain_seq = chain_seq - 1 WHERE {of} = '{key}'")),
                ("with another hash", format!("UPDATE {heads} SET content_sha256 = 'x' WHERE {of} = '{key}'")),
                ("gone", format!("DELETE FROM {heads} WHERE {of} = '{key}'")),
            ] {
                add(format!("the head of {key} {what}"), sql, chain);
            }
            for (other, other_chain, others) in self.chains.iter().filter(|(other, ..)| other != key) {
                // Its last row, behind the other's last, linked to it.
                let end = &others[others.len() - 1];
                let moved = [
                    (*of, json!(other)),
                    ("chain_seq", json!(number(end, "chain_seq") + 1)),
                    ("prev_content_sha256", end["content_sha256"].clone()),
                    ("id", json!("moved")),
                ];
                let mut longer = others.clone();
                longer.push(with(last, &moved));
                add(format!("the end of {key} copied to {other}"), self.replaced(other, &longer), other_chain);
                let moved = self.replaced(key, &rows[..rows.len() - 1]) + &self.replaced(other, &longer);
                add(format!("the end of {key} moved to {other}"), moved, chain);
                // All of it in the other's place.
                let taken: Vec<Value> = rows.iter().map(|row| with(row, &[(*of, json!(other))])).collect();
                add(format!("{key} in the place of {other}"), self.replaced_without_tree(other, &taken), other_chain);
            }
        }
        let nobody = if self.is_admin() { Chain::Admin(Some(zone("z-9"))) } else { evidence_of("z-9") };
        let head = format!("INSERT INTO {heads} ({of}, chain_seq, content_sha256) VALUES ('z-9', 4, 'x')");
        add("a head of a chain that is none".to_owned(), head, &nobody);
        let first = with(&self.chains[0].2[0], &[(*of, json!("z-9")), ("zone_id", json!("z-9"))]);
        let mut first = with(&first, &[("chain_seq", json!(1)), ("prev_content_sha256", Value::Null)]);
        first["content_sha256"] = json!(self.content(&first));
        add("a chain of its own".to_owned(), self.replaced("z-9", &[first]), &nobody);
        for (key, chain, _) in &self.chains {
            add(format!("all of {key} gone"), self.replaced_without_tree(key, &[]), chain);
        }
    }
}

/// Whether the row stands where it stood, behind what it stood behind.
fn relinked_alike(row: &Value, before: &Value) -> bool {
    ["chain_seq", "prev_content_sha256"].iter().all(|column| row[column] == before[column])
}

fn with(row: &Value, values: &[(&str, Value)]) -> Value {
    let mut row = row.clone();
    for (column, value) in values {
        row[*column] = value.clone();
    }
    row
}

fn renumbered(rows: &[Value], from: i64) -> Vec<Value> {
    rows.iter().zip(from..).map(|(row, seq)| with(row, &[("chain_seq", json!(seq))])).collect()
}

/// The rows `at - 1` and `at` exchanged, with the first link where it was.
fn swapped_in(rows: &[Value], at: usize) -> Vec<Value> {
    let mut swapped = rows.to_vec();
    swapped.swap(at - 1, at);
    let (first, prev) = (number(&rows[0], "chain_seq"), rows[0]["prev_content_sha256"].clone());
    let mut swapped = renumbered(&swapped, first);
    swapped[0]["prev_content_sha256"] = prev;
    swapped
}

/// What a column can be made, as SQL, other than it is.
fn alterations(column: &str, is_number: bool, value: &Value) -> Vec<String> {
    let made = match column {
        "chain_seq" => vec!["chain_seq + 100".to_owned(), "-chain_seq".to_owned()],
        "zone_id" | "chain" => vec!["'z-9'".to_owned()],
        _ if is_number => vec![format!("{column} + 1"), format!("{column} - 1000"), "0".to_owned()],
        _ => vec![format!("coalesce({column}, '') || ' '"), "'x'".to_owned(), "''".to_owned()],
    };
    let nullable =
        ["prev_content_sha256", "actor_id", "actor_name", "actor_scope", "entity_type", "entity_id", "payload"];
    let mut made: Vec<String> = made.into_iter().filter(|made| *made != sql(value)).collect();
    if nullable.contains(&column) && !value.is_null() {
        made.push("NULL".to_owned());
    }
    made
}

/// What is done to anchors, and to trees with their keys.
fn beside_the_rows(original: &Original, all: &mut Vec<Manipulation>) {
    let mut add = |what: &str, sql: String, zone: &str| {
        all.push(Manipulation { what: what.to_owned(), sql, chain: evidence_of(zone) });
    };
    for anchored in [2, 4] {
        for (column, is_number) in original.columns("audit_anchors") {
            let value = match column.as_str() {
                "zone_id" => "'z-1'".to_owned(),
                "chain_seq" => "5".to_owned(),
                _ if is_number => format!("{column} + 1"),
                _ => format!("{column} || ' '"),
            };
            let sql =
                format!("UPDATE audit_anchors SET {column} = {value} WHERE zone_id = 'z-3' AND chain_seq = {anchored}");
            // An anchor that became another zone's is found there.
            let found_in = if column == "zone_id" { "z-1" } else { "z-3" };
            add(&format!("the anchor at {anchored}: {column} = {value}"), sql, found_in);
        }
    }
    let gone = "DELETE FROM audit_anchors WHERE zone_id = 'z-3'";
    add("the newest anchor gone", format!("{gone} AND chain_seq = 4"), "z-3");
    add("every anchor gone", gone.to_owned(), "z-3");
    let copied = "INSERT INTO audit_anchors SELECT";
    let columns = "content_sha256, older_than, created_at, seal, key_id FROM audit_anchors WHERE chain_seq = 4";
    add("an anchor for more", format!("{copied} zone_id, 5, {columns}"), "z-3");
    add(
        "an anchor for more, and the rows gone",
        format!("{copied} zone_id, 5, {columns}; DELETE FROM audit_events WHERE zone_id = 'z-3' AND chain_seq < 6"),
        "z-3",
    );
    add(
        "an anchor of another zone",
        format!("{copied} 'z-1', 4, {columns}; DELETE FROM audit_events WHERE zone_id = 'z-1' AND chain_seq < 5"),
        "z-1",
    );
    for (zone, size) in [("z-1", 5), ("z-2", 2), ("z-3", 6)] {
        let of = format!("WHERE zone_id = '{zone}'");
        for table in ["ledger_trees", "ledger_log_keys"] {
            for (column, is_number) in original.columns(table) {
                if NO_EVIDENCE.contains(&(table, column.as_str())) {
                    continue;
                }
                let values = match column.as_str() {
                    "zone_id" => vec!["'z-9'".to_owned()],
                    _ if is_number => vec![format!("{column} + 1"), format!("{column} - 1"), "0".to_owned()],
                    _ => vec![format!("{column} || 'x'"), format!("substr({column}, 2)"), "''".to_owned()],
                };
                for value in values {
                    let sql = format!("UPDATE {table} SET {column} = {value} {of}");
                    add(&format!("{table} of {zone}: {column} = {value}"), sql, zone);
                }
            }
            add(&format!("{table} of {zone} gone"), format!("DELETE FROM {table} {of}"), zone);
        }
        let checkpoint = |from: &str, to: &str| {
            format!("UPDATE ledger_trees SET checkpoint = replace(checkpoint, '{from}', '{to}') {of}")
        };
        let (line, fewer) = (format!("/{zone}\n{size}\n"), format!("/{zone}\n{}\n", size - 1));
        add(&format!("a smaller checkpoint of {zone}"), checkpoint(&line, &fewer), zone);
        add(&format!("a checkpoint of another zone in {zone}"), checkpoint(zone, "z-8"), zone);
        for index in 0..size {
            let (before, behind) = (32 * index, 32 * index + 33);
            // Another of the same length: the tile's own first or last.
            let other = if index == 0 { 32 * (size - 1) + 1 } else { 1 };
            let parts =
                format!("substr(hashes, 1, {before}) || substr(hashes, {other}, 32) || substr(hashes, {behind})");
            let value =
                if matches!(original.copy(), Stored::File(_)) { format!("CAST({parts} AS BLOB)") } else { parts };
            add(
                &format!("hash {index} of the tile of {zone}"),
                format!("UPDATE ledger_tiles SET hashes = {value} {of}"),
                zone,
            );
        }
        for (what, value) in [
            ("cut", "substr(hashes, 1, 32)"),
            ("cut in a hash", "substr(hashes, 1, 40)"),
            (
                "longer",
                if matches!(original.copy(), Stored::File(_)) {
                    "CAST(hashes || substr(hashes, 1, 32) AS BLOB)"
                } else {
                    "hashes || substr(hashes, 1, 32)"
                },
            ),
        ] {
            add(&format!("the tile of {zone} {what}"), format!("UPDATE ledger_tiles SET hashes = {value} {of}"), zone);
        }
        add(&format!("the tile of {zone} gone"), format!("DELETE FROM ledger_tiles {of}"), zone);
        for (level, position) in [(0, 1), (1, 0), (0, 9)] {
            let further =
                format!("INSERT INTO ledger_tiles SELECT zone_id, {level}, {position}, hashes FROM ledger_tiles {of}");
            add(&format!("a further tile {level}/{position} of {zone}"), further, zone);
        }
        for (column, value) in [("zone_id", "'z-9'"), ("level", "1"), ("position", "1")] {
            add(
                &format!("the tile of {zone}: {column}"),
                format!("UPDATE ledger_tiles SET {column} = {value} {of}"),
                zone,
            );
        }
        let all =
            format!("DELETE FROM ledger_trees {of}; DELETE FROM ledger_tiles {of}; DELETE FROM ledger_log_keys {of}");
        add(&format!("{SWEEP_ONLY} of {zone}"), all, zone);
    }
    add(
        "trees exchanged",
        "UPDATE ledger_trees SET zone_id = CASE zone_id WHEN 'z-1' THEN 'y-2' WHEN 'z-2' THEN 'y-1' END \
        WHERE zone_id IN ('z-1', 'z-2'); UPDATE ledger_trees SET zone_id = replace(zone_id, 'y', 'z')"
            .to_owned(),
        "z-1",
    );
}

/// Who never saw a tree can't miss it; a process that did, does. The chain itself is whole then.
const SWEEP_ONLY: &str = "the whole tree with its key";

mod t06_evidence_tampered {
    use super::*;

    async fn finders(
        bench: &Bench,
        heads: &BTreeMap<Chain, Head>,
        marks: &Marks,
        done: &Manipulation,
    ) -> Result<Finders, StoreError> {
        let key = key();
        let names = |report: &LedgerReport| {
            report.chains.iter().any(|report| report.chain == done.chain && !report.is_intact())
        };
        let read = bench.read(&done.sql, async |tx| {
            let verified = verify_store(tx, Some(key.as_ref()), heads, |_, _| {}).await?;
            let marked = (marks, Begin::AtFirst);
            let swept = verify_store_marked(tx, Some(key.as_ref()), &BTreeMap::new(), marked, |_, _| {}).await?;
            Ok(Finders { verifier: names(&verified), sweep: names(&swept) })
        });
        read.await
    }

    /// Does all that `made` says to a store each, and tells what only the sweep finds.
    async fn all_found(
        made: impl FnOnce(&Original, &Place, &mut Vec<Manipulation>),
        at_least: usize,
    ) -> BTreeSet<String> {
        let place = original().await;
        let found = outsider::read(&place, &audit_key());
        assert_eq!((found.ends("z-3"), found.anchors["z-3"].0), ((5, 6), 4));
        let (original, mut all) = (Original::of(place.copy()), Vec::new());
        made(&original, &place, &mut all);
        let heads = original.heads.clone();
        let bench = Bench::of(original).await;
        let key = key();
        let honest = bench.read("", async |tx| verify_store(tx, Some(key.as_ref()), &heads, |_, _| {}).await);
        let honest = honest.await.unwrap();
        assert!(honest.is_intact() && honest.rows() == 17 && honest.chains.len() == 5, "{honest}");
        let marks = Marks::of(&honest);
        let (mut missed, mut by_sweep) = (Vec::new(), BTreeSet::new());
        for done in &all {
            match finders(&bench, &heads, &marks, done).await {
                // What can't be read is no ledger that verifies.
                Err(_) => {}
                Ok(Finders { verifier: true, .. }) => {}
                Ok(Finders { sweep: true, .. }) => drop(by_sweep.insert(done.what.clone())),
                Ok(_) => missed.push(&done.what),
            }
        }
        assert!(missed.is_empty(), "{} of {} were not found: {missed:#?}", missed.len(), all.len());
        assert!(all.len() >= at_least, "{} manipulations", all.len());
        by_sweep
    }

    async fn all_found_of(table: &'static str, at_least: usize) {
        let made = |original: &Original, place: &Place, all: &mut Vec<Manipulation>| {
            Table::read(original, place, table).manipulations(all);
        };
        assert_eq!(all_found(made, at_least).await, BTreeSet::new());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn whatever_the_owner_of_the_database_does_to_events_is_found_in_their_chain() {
        all_found_of("audit_events", 300).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn whatever_the_owner_of_the_database_does_to_management_records_is_found_in_their_chain() {
        all_found_of("admin_audit_events", 450).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn whatever_the_owner_of_the_database_does_to_anchors_and_trees_is_found() {
        let by_sweep = all_found(|original, _, all| beside_the_rows(original, all), 115).await;
        let expected = ["z-1", "z-2", "z-3"].map(|zone| format!("{SWEEP_ONLY} of {zone}"));
        assert_eq!(by_sweep, BTreeSet::from(expected));
    }

    /// The verifier of an embedded store reads beside the process that has it, statement by statement.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_grows_while_it_is_looked_at_is_no_finding() {
        let place = Place::new();
        let store = recorded(&place).await;
        trees::log(&store).catch_up().await.unwrap();
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let growing = tokio::spawn({
            let store = store.clone();
            async move {
                let mut number = 0;
                while !*stopped.borrow() {
                    number += 1;
                    record(&store, &zone("z-1"), &format!("more-{number}")).await.unwrap();
                    record_change(&store, &zone("z-1"), &format!("more-{number}")).await.unwrap();
                    trees::log(&store).catch_up().await.unwrap();
                }
                number
            }
        });
        let seen = async || {
            let (heads, key) = (heads_in(&place), key());
            let reading =
                async |tx: &mut DeploymentRead<'_>| verify_store(tx, Some(key.as_ref()), &heads, |_, _| {}).await;
            match place.database() {
                Some(_) => reading(&mut store.snapshot().await.unwrap().deployment()).await.unwrap(),
                None => caracal_store::inspect(&place.path().join("caracal.db")).unwrap().run(reading).unwrap(),
            }
        };
        let mut rows = BTreeSet::new();
        while rows.len() < 40 {
            let report = seen().await;
            assert!(report.is_intact(), "{report}");
            rows.insert(report.rows());
        }
        stop.send_replace(true);
        assert!(growing.await.unwrap() >= 13, "two rows a round");
    }

    /// With the file or the schema itself in hand.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_table_that_is_emptied_or_gone_does_not_verify() {
        let original = Original::of(original().await);
        for table in TABLES {
            let emptied = match original.copy() {
                Stored::File(_) => format!("DELETE FROM {table}"),
                Stored::Server(_) => format!("TRUNCATE {table}"),
            };
            for sql in [emptied, format!("DROP TABLE {table}")] {
                let copy = original.tampered(&sql);
                let outcome = copy.read(async |tx| {
                    let key = key();
                    verify_store(tx, Some(key.as_ref()), &original.heads, |_, _| {}).await
                });
                let passes = outcome.await.is_ok_and(|report| report.is_intact());
                assert!(!passes, "{sql}");
            }
        }
    }
}
