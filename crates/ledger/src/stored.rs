//! The verifier over a store: every chain, row by row, against the heads kept outside. It reads and compares; it never
//! repairs.

use std::collections::BTreeMap;

use caracal_authority::ZoneId;
use caracal_store::admin_evidence::{self, AdminEvidenceRow, ZONELESS_CHAIN};
use caracal_store::evidence::{self, ChainRow, EvidenceRow};
use caracal_store::{DeploymentRead, StoreError, retention};

use crate::admin_chain::StoredAdminRecord;
use crate::anchors;
use crate::append::own_head;
use crate::chain::{Chain, ChainLink, ChainRecord, Head, StoredRow};
use crate::event::StoredEvent;
use crate::keys::{ChainKey, Keys, Sealed};
use crate::marks::Marks;
use crate::report::{ChainReport, Finding, LedgerReport, Problem};
use crate::transparency::TreeCheck;
use crate::verify::{AdminVerifier, ChainVerifier, ZoneVerifier, chains_to_verify, holds_recorded};

/// Rows read at once.
const PAGE: i64 = 1_000;

/// Verifies every chain that the store has or that `recorded` knows of. `progress` hears of each page of rows.
pub async fn verify_store(
    tx: &mut DeploymentRead<'_>,
    key: Option<&dyn ChainKey>,
    recorded: &BTreeMap<Chain, Head>,
    progress: impl FnMut(&Chain, i64),
) -> Result<LedgerReport, StoreError> {
    verify_store_marked(tx, key, recorded, (&Marks::default(), Begin::AtFirst), progress).await
}

/// Where verification begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// At the first row of each chain.
    AtFirst,
    /// At the marked event of each chain, which is looked at again; at the first row of one without a mark.
    AtMarks,
}

/// Verifies every chain, of which events were marked that have to be where they were.
pub async fn verify_store_marked(
    tx: &mut DeploymentRead<'_>,
    key: Option<&dyn ChainKey>,
    recorded: &BTreeMap<Chain, Head>,
    (marks, begin): (&Marks, Begin),
    mut progress: impl FnMut(&Chain, i64),
) -> Result<LedgerReport, StoreError> {
    let mut stored: Vec<Chain> = marks.events.keys().cloned().collect();
    stored.extend(evidence::list_chains(tx).await?.into_iter().map(Chain::Evidence));
    stored.extend(retention::list_anchored(tx).await?.into_iter().map(Chain::Evidence));
    for chain in admin_evidence::list_chains(tx).await? {
        stored.push(Chain::Admin(if chain == ZONELESS_CHAIN {
            None
        } else {
            let unreadable = |_| StoreError::Corrupt { table: "admin_audit_events", what: format!("chain `{chain}`") };
            Some(ZoneId::parse(&chain).map_err(unreadable)?)
        }));
    }
    let mut chains = Vec::new();
    for chain in chains_to_verify(stored, recorded) {
        let known = Known {
            recorded: recorded.get(&chain).cloned(),
            mark: marks.events.get(&chain).cloned(),
            tree: marks.trees.get(&chain).cloned(),
            begin,
        };
        chains.push(match &chain {
            Chain::Evidence(zone) => verify_evidence(tx, zone, key, known, |seq| progress(&chain, seq)).await?,
            Chain::Admin(zone) => verify_admin(tx, zone.as_ref(), key, known, |seq| progress(&chain, seq)).await?,
        });
    }
    Ok(LedgerReport { chains })
}

/// Whether the store has any record at all: one that has never lacks its heads file, unless somebody took it away.
pub async fn is_empty(tx: &mut DeploymentRead<'_>) -> Result<bool, StoreError> {
    Ok(evidence::list_chains(tx).await?.is_empty() && admin_evidence::list_chains(tx).await?.is_empty())
}

/// Whether the store still holds every recorded head: one look per chain, for the start of a process. The first that
/// it does not hold means that an older or another history was put in place (threat T17).
pub async fn find_rollback(
    tx: &mut DeploymentRead<'_>,
    key: Option<&dyn ChainKey>,
    recorded: &BTreeMap<Chain, Head>,
) -> Result<Option<(Chain, Problem)>, StoreError> {
    let keys = key.map(Keys::of);
    for (chain, head) in recorded {
        if let Chain::Evidence(zone) = chain
            && let Some(anchor) = retention::find_anchor(&mut tx.zone(zone)).await?
            && matches!(anchors::made_by(keys.as_ref(), &anchor), Sealed::By(_))
            && anchor.chain_seq >= head.chain_seq
        {
            // What was recorded has been removed since, for its age.
            continue;
        }
        let (row, last) = match chain {
            Chain::Evidence(zone) => {
                let mut tx = tx.zone(zone);
                let row = evidence::list_chain(&mut tx, head.chain_seq, 1).await?.pop();
                (
                    row.and_then(|row| hash_at(row, head.chain_seq, |row| (row.chain_seq, row.content_sha256))),
                    evidence::head(&mut tx).await?,
                )
            }
            Chain::Admin(zone) => {
                let name = zone.as_ref().map_or(ZONELESS_CHAIN, ZoneId::as_str);
                let row = admin_evidence::list_chain(tx, name, head.chain_seq, 1).await?.pop();
                let last = match zone {
                    Some(zone) => admin_evidence::head(&mut tx.zone(zone)).await?,
                    None => admin_evidence::zoneless_head(tx).await?,
                };
                (row.and_then(|row| hash_at(row, head.chain_seq, |row| (row.chain_seq, row.content_sha256))), last)
            }
        };
        let last = last.map_or(0, |last| last.chain_seq);
        if let Err(problem) = holds_recorded(head, row.as_deref(), last) {
            return Ok(Some((chain.clone(), problem)));
        }
    }
    Ok(None)
}

/// The content hash of a row, if it can be read and lies at `chain_seq`.
fn hash_at<R>(row: ChainRow<R>, chain_seq: i64, parts: impl Fn(R) -> (i64, String)) -> Option<String> {
    match row {
        ChainRow::Read(row) => Some(parts(row)).filter(|(seq, _)| *seq == chain_seq).map(|(_, hash)| hash),
        ChainRow::Unreadable { .. } => None,
    }
}

/// What is known of a chain beside its rows.
struct Known {
    recorded: Option<Head>,
    mark: Option<Head>,
    tree: Option<Head>,
    begin: Begin,
}

impl Known {
    /// The position to begin at instead of the first row, where the mark is in force. A tree follows its chain: where it
    /// had not reached the mark, the rows behind it have to be compared with their leaves still.
    fn start(&self) -> Option<i64> {
        let mark = self.mark.as_ref().filter(|_| self.begin == Begin::AtMarks)?.chain_seq;
        Some(self.tree.as_ref().map_or(mark, |tree| mark.min(tree.chain_seq.saturating_add(1))))
    }
}

async fn verify_evidence(
    tx: &mut DeploymentRead<'_>,
    zone: &ZoneId,
    key: Option<&dyn ChainKey>,
    mut known: Known,
    mut progress: impl FnMut(i64),
) -> Result<ChainReport, StoreError> {
    let mut verifier = ZoneVerifier::new(zone.clone(), key, known.recorded.take());
    // The newest counts. Those before it say what was removed when, and must be ours as well.
    let (mut anchor, mut newest, keys) = (None, usize::MAX, key.map(Keys::of));
    for newer in retention::list_anchors(&mut tx.zone(zone)).await? {
        let anchored = newer.chain_seq;
        let problem = match anchors::made_by(keys.as_ref(), &newer) {
            // Anchors follow each other as events do, and a key that was replaced makes no more of them.
            Sealed::By(age) if age <= newest => {
                newest = age;
                None
            }
            Sealed::By(_) | Sealed::Wrong => Some(Problem::ForgedAnchor { anchored }),
            Sealed::ByUnknown(key_id) => Some(Problem::UnknownKey { key_id }),
        };
        // One whose key is not at hand is reported, and taken at its word otherwise: what is behind it can be verified.
        let stands = !matches!(problem, Some(Problem::ForgedAnchor { .. }));
        anchor = stands.then(|| anchors::head_of(&newer));
        if let Some(problem) = problem {
            verifier.bad_anchor(anchored, problem);
        }
    }
    if let Some(anchor) = &anchor {
        // What was marked may have been removed since, for its age.
        known.mark = known.mark.filter(|mark| mark.chain_seq > anchor.chain_seq);
    }
    let behind = anchor.as_ref().map_or(i64::MIN, |anchor| anchor.chain_seq.saturating_add(1));
    let start = known.start().map(|start| start.max(behind));
    let noted = evidence::head(&mut tx.zone(zone)).await?;
    let mut tree = TreeCheck::begin(&mut tx.zone(zone), known.tree.take(), known.begin).await?;
    let mut from = i64::MIN;
    match (start, anchor) {
        (Some(start), _) => (verifier, from) = (verifier.starting_at(start), start),
        (None, Some(anchor)) => {
            let first = evidence::list_chain(&mut tx.zone(zone), i64::MIN, 1).await?.pop();
            let first = first.and_then(|row| match row {
                ChainRow::Read(row) => Some(row.chain_seq),
                ChainRow::Unreadable { chain_seq, .. } => chain_seq,
            });
            verifier = match first {
                // What was anchored goes in pieces, oldest first: what is left of it still belongs together.
                Some(first) if first <= anchor.chain_seq => verifier.starting_at(first).passing(anchor),
                _ => verifier.resuming_behind(anchor),
            };
        }
        (None, None) => {}
    }
    if let Some(mark) = known.mark {
        verifier = verifier.passing(mark);
    }
    loop {
        let rows = evidence::list_chain(&mut tx.zone(zone), from, PAGE).await?;
        tree.rows(&mut tx.zone(zone), &rows).await?;
        let Some(last) = feed(&mut verifier, rows, |row| row.chain_seq, event_row) else { break };
        progress(last);
        // A forged row may have the last number there is; no row can come after it.
        let Some(next) = last.checked_add(1) else { break };
        from = next;
    }
    let mut report = verifier.finish();
    tree.finish(&mut tx.zone(zone), &mut report).await?;
    compare_with_noted([noted, evidence::head(&mut tx.zone(zone)).await?], &mut report);
    Ok(report)
}

async fn verify_admin(
    tx: &mut DeploymentRead<'_>,
    zone: Option<&ZoneId>,
    key: Option<&dyn ChainKey>,
    mut known: Known,
    mut progress: impl FnMut(i64),
) -> Result<ChainReport, StoreError> {
    let mut verifier = AdminVerifier::new(zone.cloned(), key, known.recorded.take());
    let noted = noted_end(tx, zone).await?;
    let mut from = i64::MIN;
    if let Some(start) = known.start() {
        (verifier, from) = (verifier.starting_at(start), start);
    }
    if let Some(mark) = known.mark {
        verifier = verifier.passing(mark);
    }
    loop {
        let chain = zone.map_or(ZONELESS_CHAIN, ZoneId::as_str);
        let rows = admin_evidence::list_chain(tx, chain, from, PAGE).await?;
        let Some(last) = feed(&mut verifier, rows, |row| row.chain_seq, admin_row) else { break };
        progress(last);
        // A forged row may have the last number there is; no row can come after it.
        let Some(next) = last.checked_add(1) else { break };
        from = next;
    }
    let mut report = verifier.finish();
    compare_with_noted([noted, noted_end(tx, zone).await?], &mut report);
    Ok(report)
}

async fn noted_end(tx: &mut DeploymentRead<'_>, zone: Option<&ZoneId>) -> Result<Option<evidence::Head>, StoreError> {
    match zone {
        Some(zone) => admin_evidence::head(&mut tx.zone(zone)).await,
        None => admin_evidence::zoneless_head(tx).await,
    }
}

/// The last row against the store's own note of the end, as that was before the first row was read and after the last one:
/// a running system lets both grow meanwhile. Where the rows are not what they were, that says it all.
fn compare_with_noted(noted: [Option<evidence::Head>; 2], report: &mut ChainReport) {
    let other_key = noted[1].as_ref().is_some_and(|noted| report.rows > 0 && noted.key_id != report.head_key_id);
    let [before, after] = noted.map(|noted| noted.map(own_head));
    let seq = |head: Option<&Head>| head.map_or(0, |head| head.chain_seq);
    let last = seq(report.head.as_ref());
    let has_grown = seq(after.as_ref()) > last && seq(before.as_ref()) <= last;
    if report.is_intact() && (after != report.head || other_key) && !has_grown {
        let problem = Problem::HeadMoved { noted: after.map(|noted| noted.chain_seq), last };
        report.add(Finding { chain_seq: None, event_id: None, problem });
    }
}

/// Feeds a page to the verifier and says how far it reached; nothing when there is no more to read.
fn feed<S, R: ChainRecord>(
    verifier: &mut ChainVerifier<'_, R>,
    rows: Vec<ChainRow<S>>,
    seq: impl Fn(&S) -> i64,
    stored: impl Fn(S) -> StoredRow<R>,
) -> Option<i64> {
    let mut last = None;
    for row in rows {
        match row {
            ChainRow::Read(row) => {
                last = Some(seq(&row));
                verifier.next(&stored(row));
            }
            ChainRow::Unreadable { chain_seq, id, what } => {
                last = chain_seq.or(last);
                verifier.next_unreadable(chain_seq, id.as_deref(), what);
            }
        }
    }
    last
}

pub(crate) fn event_row(row: EvidenceRow) -> StoredRow<StoredEvent> {
    StoredRow {
        record: StoredEvent {
            id: row.id,
            zone_id: row.zone_id,
            event_type: row.event_type,
            request_id: row.request_id,
            decision: row.decision,
            policy_set_id: row.policy_set_id,
            policy_set_version_id: row.policy_set_version_id,
            manifest_sha: row.manifest_sha,
            evaluation_status: row.evaluation_status,
            determining_policies: row.determining_policies,
            diagnostics: row.diagnostics,
            metadata: row.metadata,
            occurred_at_micros: row.occurred_at,
        },
        link: ChainLink {
            chain_seq: row.chain_seq,
            content_sha256: row.content_sha256,
            prev_content_sha256: row.prev_content_sha256,
            chain_hmac: row.chain_hmac,
        },
        key_id: row.key_id,
    }
}

pub(crate) fn admin_row(row: AdminEvidenceRow) -> StoredRow<StoredAdminRecord> {
    StoredRow {
        record: StoredAdminRecord {
            id: row.id,
            request_id: row.request_id,
            actor_id: row.actor_id,
            actor_name: row.actor_name,
            actor_scope: row.actor_scope,
            action: row.action,
            method: row.method,
            path: row.path,
            zone_id: row.zone_id,
            entity_type: row.entity_type,
            entity_id: row.entity_id,
            status_code: row.status_code,
            payload_json: row.payload,
            occurred_at_micros: row.occurred_at,
        },
        link: ChainLink {
            chain_seq: row.chain_seq,
            content_sha256: row.content_sha256,
            prev_content_sha256: row.prev_content_sha256,
            chain_hmac: row.chain_hmac,
        },
        key_id: row.key_id,
    }
}
