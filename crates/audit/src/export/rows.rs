//! An event as a row of the archive: the base of OCSF 1.7.0's Authorization Activity, and what the ledger has beside
//! (contract: audit-and-streams.md §5.6). Texts go out as they are stored, and as the content hash covers them; the
//! contract's time has milliseconds, where the hash covers microseconds.

use caracal_store::evidence::EvidenceRow;

use super::parquet::Kind::{Int32, Int64, Text};
use super::parquet::{Cell, Kind};

pub(super) const COLUMNS: &[(&str, Kind)] = &[
    ("class_uid", Int32),
    ("type_uid", Int32),
    ("severity_id", Int32),
    ("activity_id", Int32),
    ("time", Int64),
    ("zone_id", Text),
    ("request_id", Text),
    ("policy_set_version_id", Text),
    ("decision", Text),
    ("metadata_version", Text),
    ("product_name", Text),
    ("event_id", Text),
    ("event_type", Text),
    ("policy_set_id", Text),
    ("manifest_sha", Text),
    ("evaluation_status", Text),
    ("determining_policies_json", Text),
    ("diagnostics_json", Text),
    ("metadata_json", Text),
    ("content_sha256", Text),
    ("chain_hmac", Text),
    ("chain_seq", Int64),
];

const CLASS: i32 = 6003;
const TYPE: i32 = 600_301;

pub(super) fn cells(row: &EvidenceRow) -> [Cell<'_>; COLUMNS.len()] {
    let allowed_or_denied = if row.decision.eq_ignore_ascii_case("deny") { 2 } else { 1 };
    let metadata = if row.metadata == "null" { "" } else { &row.metadata };
    [
        Cell::Int32(CLASS),
        Cell::Int32(TYPE),
        Cell::Int32(allowed_or_denied),
        Cell::Int32(allowed_or_denied),
        Cell::Int64(row.occurred_at.div_euclid(1_000)),
        Cell::Text(&row.zone_id),
        Cell::Text(&row.request_id),
        Cell::Text(&row.policy_set_version_id),
        Cell::Text(&row.decision),
        Cell::Text("1.7.0"),
        Cell::Text("caracal"),
        Cell::Text(&row.id),
        Cell::Text(&row.event_type),
        Cell::Text(&row.policy_set_id),
        Cell::Text(&row.manifest_sha),
        Cell::Text(&row.evaluation_status),
        Cell::Text(&row.determining_policies),
        Cell::Text(&row.diagnostics),
        Cell::Text(metadata),
        Cell::Text(&row.content_sha256),
        Cell::Text(&row.chain_hmac),
        Cell::Int64(row.chain_seq),
    ]
}
