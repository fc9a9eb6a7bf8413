//! Making evidence files out of a store. What is made is verified before it is handed out, so a store that was tampered
//! with gives an error and no file.

use caracal_authority::ZoneId;
use caracal_store::evidence::{self, EvidenceRow};
use caracal_store::{StoreError, ZoneRead};

use super::checkpoint::{Checkpoint, NotACheckpoint};
use super::evidence_file::{Consistency, EvidenceFile, FORMAT, ProvenEvent, Refuted, Trusted};
use super::merkle::{TreeHash, consistency_path, cover, fold, inclusion_path};
use super::note::Note;
use super::proof::TlogProof;
use super::stored_tree::{StoredTree, TreeDefect, hashes_over};
use crate::stored::event_row;

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
pub enum CannotProve {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nothing happened under that request.
    #[error("the ledger of zone {zone} has no event of request `{}`", .request_id.escape_debug())]
    NoSuchRequest {
        /// The zone.
        zone: ZoneId,
        /// What was asked for.
        request_id: String,
    },
    /// The tree has not come so far.
    #[error(
        "event seq {chain_seq} is not in the log yet, which reaches to seq {size}: a running system adds it within seconds"
    )]
    NotYet {
        /// Its place.
        chain_seq: i64,
        /// How far the log reaches.
        size: u64,
    },
    /// The tree is damaged.
    #[error("the log of the zone is damaged: {0}")]
    Tree(#[from] TreeDefect),
    /// A checkpoint that was given.
    #[error("the checkpoint that was given: {0}")]
    Given(NotACheckpoint),
    /// A checkpoint of a tree that this one does not continue.
    #[error(
        "the checkpoint that was given is of {size} events, and not of these: the log is another than the one that \
         signed it, or went back since"
    )]
    Contradicted {
        /// By that checkpoint.
        size: u64,
    },
    /// What would have been handed out does not verify.
    #[error("the store does not hold what its log was signed over: {0}")]
    Tampered(Refuted),
}

/// Which checkpoints a file refers to, each a signed note of the zone's log.
#[derive(Debug, Clone, Copy, Default)]
pub struct Given<'a> {
    /// What the events are proved against: a checkpoint that witnesses have signed, say. The newest one otherwise.
    pub against: Option<&'a str>,
    /// An older one that the file shows the log to continue.
    pub since: Option<&'a str>,
}

/// The evidence file of one request.
pub async fn prove(tx: &mut ZoneRead<'_>, request_id: &str, given: Given<'_>) -> Result<EvidenceFile, CannotProve> {
    let rows = evidence::find_by_request(tx, request_id).await?;
    let Some(last) = rows.iter().map(|row| row.chain_seq).max() else {
        return Err(CannotProve::NoSuchRequest { zone: tx.zone().clone(), request_id: request_id.to_owned() });
    };
    let tree = StoredTree::find(tx).await??.ok_or(CannotProve::NotYet { chain_seq: last, size: 0 })?;
    let (note, checkpoint) = match given.against {
        None => (tree.note.clone(), tree.checkpoint.clone()),
        Some(note) => (note.to_owned(), given_checkpoint(tx, &tree, note).await?),
    };
    let size = checkpoint.size;
    let mut events = Vec::with_capacity(rows.len());
    for row in rows {
        let not_yet = CannotProve::NotYet { chain_seq: row.chain_seq, size };
        let index = row.chain_seq.checked_sub(1).and_then(|index| u64::try_from(index).ok());
        let index = index.filter(|index| *index < size).ok_or(not_yet)?;
        let path = inclusion_path(index, size).unwrap_or_default();
        let hashes = hashes_over(tx, &path).await??;
        let proof = TlogProof { index, hashes, checkpoint: note.clone() };
        events.push(proven(row, &proof));
    }
    let consistency = match given.since {
        None => None,
        Some(since) => Some(consistency(tx, &tree, since, size).await?),
    };
    let file = EvidenceFile { format: FORMAT.to_owned(), log_key: tree.log_key.to_string(), events, consistency };
    let trusted = Trusted { log_key: &tree.log_key, held: given.since, witnesses: &[] };
    file.verify(&trusted).map_err(CannotProve::Tampered)?;
    Ok(file)
}

/// A checkpoint that this very log signed and still continues.
async fn given_checkpoint(tx: &mut ZoneRead<'_>, tree: &StoredTree, note: &str) -> Result<Checkpoint, CannotProve> {
    let note = Note::parse(note).map_err(|error| CannotProve::Given(error.into()))?;
    let given = Checkpoint::verified(&note, &tree.log_key).map_err(CannotProve::Given)?;
    let contradicted = CannotProve::Contradicted { size: given.size };
    if given.size > tree.checkpoint.size {
        return Err(contradicted);
    }
    if root_at(tx, given.size).await? == Some(given.root) { Ok(given) } else { Err(contradicted) }
}

/// The root that the tree had when it was of this size.
async fn root_at(tx: &mut ZoneRead<'_>, size: u64) -> Result<Option<TreeHash>, CannotProve> {
    let parts: Vec<_> =
        cover(&(0..size)).into_iter().map(|node| node.index << node.height..(node.index + 1) << node.height).collect();
    Ok(fold(hashes_over(tx, &parts).await??.into_iter()))
}

async fn consistency(
    tx: &mut ZoneRead<'_>,
    tree: &StoredTree,
    since: &str,
    size: u64,
) -> Result<Consistency, CannotProve> {
    let old = given_checkpoint(tx, tree, since).await?;
    let path = consistency_path(old.size, size).ok_or(CannotProve::Contradicted { size: old.size })?;
    let proof = hashes_over(tx, &path).await??;
    Ok(Consistency { from_size: old.size, proof: proof.into_iter().map(TreeHash::to_base64).collect() })
}

fn proven(row: EvidenceRow, proof: &TlogProof) -> ProvenEvent {
    let ingested_at_micros = row.ingested_at;
    let stored = event_row(row);
    ProvenEvent { event: stored.record, link: stored.link, ingested_at_micros, proof: proof.to_string() }
}
