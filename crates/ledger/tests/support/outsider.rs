//! Somebody who has the file, or a login to the server, and the contract (audit-and-streams.md §5.2): reads rows by SQL and
//! works out hashes, links, seals and the root of the tree anew. No line of it is the ledger's.
#![allow(dead_code, reason = "each file of tests uses its part")]

use std::collections::BTreeMap;
use std::path::Path;

use caracal_crypto::hmac::{HmacKey, sha256, sha256_hex};
use caracal_testkit::Place;
use serde_json::{Value, json};

/// What was found of a deployment's evidence.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// The rows of each zone's chain, in order.
    pub(crate) chains: BTreeMap<String, Vec<Value>>,
    /// The newest anchor of each zone that has one: position and content hash.
    pub(crate) anchors: BTreeMap<String, (i64, String)>,
}

impl Found {
    /// Ids of a zone's events, in order.
    pub(crate) fn ids(&self, zone: &str) -> Vec<&str> {
        self.chains.get(zone).into_iter().flatten().map(|row| text(row, "id")).collect()
    }

    /// The first and the last position of a zone's chain.
    pub(crate) fn ends(&self, zone: &str) -> (i64, i64) {
        let rows = &self.chains[zone];
        (number(&rows[0], "chain_seq"), number(&rows[rows.len() - 1], "chain_seq"))
    }
}

pub(crate) fn text<'r>(row: &'r Value, column: &str) -> &'r str {
    row[column].as_str().unwrap_or_else(|| panic!("{column} of {row}"))
}

pub(crate) fn number(row: &Value, column: &str) -> i64 {
    row[column].as_i64().unwrap_or_else(|| panic!("{column} of {row}"))
}

/// Rows by SQL, as objects of these columns; `rest` is what follows `SELECT … FROM`.
pub(crate) fn rows(place: &Place, columns: &[&str], rest: &str) -> Vec<Value> {
    let sql = |object: &str| {
        let named: Vec<String> = columns.iter().map(|column| format!("'{column}', {column}")).collect();
        format!("SELECT {object}({}) FROM {rest}", named.join(", "))
    };
    let lines: Vec<String> = match place.database() {
        Some(database) => database.run(&sql("json_build_object")).unwrap().lines().map(str::to_owned).collect(),
        None => of_file(&place.path().join("caracal.db"), &sql("json_object")),
    };
    lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn of_file(file: &Path, sql: &str) -> Vec<String> {
    let connection = rusqlite::Connection::open(file).unwrap();
    let mut statement = connection.prepare(sql).unwrap();
    let lines = statement.query_map([], |row| row.get(0)).unwrap();
    lines.collect::<Result<_, _>>().unwrap()
}

/// Reads every chain of evidence and finds it whole: no gap, no fork, nothing that its own hash, its link or its seal does
/// not fit, and the head where the last event is. What is older than an anchor may be gone, from the oldest on.
pub(crate) fn read(place: &Place, key: &HmacKey) -> Found {
    const COLUMNS: [&str; 18] = [
        "zone_id",
        "chain_seq",
        "id",
        "event_type",
        "request_id",
        "decision",
        "policy_set_id",
        "policy_set_version_id",
        "manifest_sha",
        "evaluation_status",
        "determining_policies",
        "diagnostics",
        "metadata",
        "occurred_at",
        "ingested_at",
        "content_sha256",
        "prev_content_sha256",
        "chain_hmac",
    ];
    let mut found = Found::default();
    for anchor in rows(place, &["zone_id", "chain_seq", "content_sha256"], "audit_anchors ORDER BY zone_id, chain_seq")
    {
        let at = (number(&anchor, "chain_seq"), text(&anchor, "content_sha256").to_owned());
        found.anchors.insert(text(&anchor, "zone_id").to_owned(), at);
    }
    for row in rows(place, &COLUMNS, "audit_events ORDER BY zone_id, chain_seq") {
        found.chains.entry(text(&row, "zone_id").to_owned()).or_default().push(row);
    }
    let mut heads = BTreeMap::new();
    for head in rows(place, &["zone_id", "chain_seq", "content_sha256"], "audit_heads") {
        let at = (number(&head, "chain_seq"), text(&head, "content_sha256").to_owned());
        heads.insert(text(&head, "zone_id").to_owned(), at);
    }
    for (zone, rows) in &found.chains {
        let anchor = found.anchors.get(zone);
        let mut before: Option<(i64, String)> = None;
        for row in rows {
            let (seq, content) = (number(row, "chain_seq"), text(row, "content_sha256"));
            assert_eq!(content, content_of(row), "{row}");
            let prev = row["prev_content_sha256"].as_str();
            match (&before, anchor) {
                (Some((last, hash)), _) => assert_eq!((seq, prev), (last + 1, Some(hash.as_str())), "{row}"),
                (None, Some((anchored, hash))) if seq == anchored + 1 => assert_eq!(prev, Some(hash.as_str()), "{row}"),
                (None, Some((anchored, _))) if seq > 1 => assert!(seq <= *anchored && prev.is_some(), "{row}"),
                (None, _) => assert_eq!((seq, prev), (1, None), "{row}"),
            }
            if let Some((_, hash)) = anchor.filter(|(anchored, _)| *anchored == seq) {
                assert_eq!(content, hash, "the anchor of {row}");
            }
            let seal = key.sign_hex(&[content.as_bytes(), b"|", prev.unwrap_or_default().as_bytes()]);
            assert_eq!(text(row, "chain_hmac"), seal, "{row}");
            before = Some((seq, content.to_owned()));
        }
        assert_eq!(heads.get(zone), before.as_ref(), "the head of {zone}");
    }
    assert_eq!(heads.len(), found.chains.len(), "{heads:?}");
    found
}

/// The content hash by the words of the contract.
pub(crate) fn content_of(row: &Value) -> String {
    let texts = [
        "id",
        "zone_id",
        "event_type",
        "request_id",
        "decision",
        "policy_set_id",
        "policy_set_version_id",
        "manifest_sha",
        "evaluation_status",
        "determining_policies",
        "diagnostics",
        "metadata",
    ];
    let mut hashed: String = texts.iter().map(|column| format!("{}\u{1f}", text(row, column))).collect();
    hashed.push_str(&format!("{}000", number(row, "occurred_at")));
    sha256_hex(hashed.as_bytes())
}

/// The content hash of a management record that happened at `instant`, in ISO milliseconds.
pub(crate) fn admin_content_of(row: &Value, instant: &str) -> String {
    let texts = [
        "id",
        "request_id",
        "actor_id",
        "actor_name",
        "actor_scope",
        "action",
        "method",
        "path",
        "zone_id",
        "entity_type",
        "entity_id",
    ];
    let absent = |column: &str| row[column].as_str().unwrap_or_default().to_owned();
    let mut fields: Vec<String> = texts.iter().map(|column| absent(column)).collect();
    fields.extend([number(row, "status_code").to_string(), absent("payload"), instant.to_owned()]);
    sha256_hex(fields.iter().map(|field| format!("{field}\u{1f}")).collect::<String>().as_bytes())
}

/// The root over these rows as RFC 6962 §2.1 has it, in Base64.
pub(crate) fn root(rows: &[Value]) -> String {
    let leaves: Vec<[u8; 32]> = rows
        .iter()
        .map(|row| {
            let (seq, stored) = (number(row, "chain_seq"), number(row, "ingested_at"));
            let prev = row["prev_content_sha256"].as_str().unwrap_or_default();
            let [zone, content, seal] = ["zone_id", "content_sha256", "chain_hmac"].map(|column| text(row, column));
            let entry = format!("\0caracal.ledger.event/1\n{zone}\n{seq}\n{stored}\n{content}\n{prev}\n{seal}\n");
            sha256(entry.as_bytes())
        })
        .collect();
    base64(&root_of(&leaves))
}

fn root_of(leaves: &[[u8; 32]]) -> [u8; 32] {
    match leaves {
        [] => sha256(b""),
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
            sha256(&[&[1][..], &root_of(left)[..], &root_of(right)[..]].concat())
        }
    }
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits = three.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for letter in 0..=three.len() {
            text.push(char::from(LETTERS[(bits >> (18 - 6 * letter) & 63) as usize]));
        }
        text.extend(std::iter::repeat_n('=', 3 - three.len()));
    }
    text
}

/// What the newest checkpoint of a zone's tree says, which must be the root over its rows: its size, 0 when there is none.
pub(crate) fn tree(place: &Place, zone: &str, found: &Found) -> usize {
    let trees = rows(place, &["zone_id", "size", "checkpoint"], "ledger_trees");
    let Some(tree) = trees.iter().find(|tree| tree["zone_id"] == json!(zone)) else { return 0 };
    let size = usize::try_from(number(tree, "size")).unwrap();
    let lines: Vec<&str> = text(tree, "checkpoint").lines().collect();
    let expected = [format!("caracal/ledger/{zone}"), size.to_string(), root(&found.chains[zone][..size])];
    assert_eq!(lines[..3], expected);
    size
}
