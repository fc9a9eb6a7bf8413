//! The log: lets each zone's tree grow behind its chain, and signs a checkpoint over what was added.
//!
//! Evidence commits with its effect and is linked in that commit; the tree follows within moments, in a commit of its own
//! for many events. Nothing waits for it, and nothing is lost when it stops anywhere: what an event's leaf is, and where
//! it goes, follows from the chain alone.
//!
//! What is durable when: tiles and the checkpoint over them are one commit, conditional on the size that it started from.
//! So a checkpoint that anybody can see has its tiles, and two processes can't sign two trees of one size.
//!
//! It signs nothing that does not verify: neither a tree that is not the one last signed, nor a row that is not what its
//! hash says, nor one that does not follow the row before. Then the zone's tree stays where it is, and the log says so.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use caracal_authority::{Timestamp, ZoneId};
use caracal_crypto::ed25519::SigningKey;
use caracal_store::evidence::{self, ChainRow, EvidenceRow};
use caracal_store::transparency::{self, TreeRow};
use caracal_store::{BoxFuture, Store, StoreError};

use super::checkpoint::{Checkpoint, origin, verifier_key};
use super::merkle::{TreeHash, empty_root};
use super::stored_tree::{StoredTree, TreeDefect, leaf_of, read_tiles};
use super::tiles::{Edge, TileId, Tiles, to_bytes};
use crate::chain::content_sha256;
use crate::stored::event_row;

/// Events added in one commit.
const BATCH: i64 = 1_024;
/// How long a zone whose tree can't grow is left alone.
const LEFT_ALONE: Duration = Duration::from_secs(60);

/// Whoever has the keys of logs.
pub trait LogSigners: Send + Sync {
    /// The zone's key, made if it has none. The error says why there is none to be had.
    fn signer<'a>(&'a self, zone: &'a ZoneId) -> BoxFuture<'a, Result<Arc<SigningKey>, String>>;
}

/// Why a zone's tree did not grow.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no key.
    #[error("the log key can't be had: {0}")]
    Key(String),
    /// The tree is not the one that was signed last.
    #[error("the tree is damaged: {0}")]
    Tree(#[from] TreeDefect),
    /// The next event is not what was recorded.
    #[error("event seq {chain_seq} is not signed for: {what}")]
    Event {
        /// Its place.
        chain_seq: i64,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// Lets trees grow.
pub struct TransparencyLog {
    store: Store,
    signers: Arc<dyn LogSigners>,
    /// Zones whose tree can't grow, and until when they are left alone.
    stuck: Mutex<BTreeMap<ZoneId, Timestamp>>,
}

/// Where a tree stands.
struct State {
    edge: Edge,
    /// Content hash of its last event; unknown where that row is gone, as it may be after its time.
    last: Option<String>,
    rows: Vec<ChainRow<EvidenceRow>>,
}

impl TransparencyLog {
    /// Over `store`, with the keys of `signers`.
    pub fn new(store: Store, signers: Arc<dyn LogSigners>) -> Self {
        Self { store, signers, stuck: Mutex::default() }
    }

    /// Lets every tree grow as far as its chain goes, and says how many events were added. A zone whose tree can't grow is
    /// told of in the log and hinders no other.
    pub async fn catch_up(&self) -> Result<u64, StoreError> {
        let mut snapshot = self.store.snapshot().await?;
        let behind = transparency::list_behind(&mut snapshot.deployment()).await?;
        drop(snapshot);
        let mut added = 0;
        for zone in behind {
            if self.is_left_alone(&zone) {
                continue;
            }
            match self.catch_up_zone(&zone).await {
                Ok(events) => added += events,
                Err(error) => {
                    tracing::error!(%zone, %error, "the ledger's tree does not grow; run `caracal audit verify`");
                    let until = self.store.now().plus(LEFT_ALONE);
                    self.stuck.lock().unwrap_or_else(PoisonError::into_inner).insert(zone, until);
                }
            }
        }
        Ok(added)
    }

    fn is_left_alone(&self, zone: &ZoneId) -> bool {
        let mut stuck = self.stuck.lock().unwrap_or_else(PoisonError::into_inner);
        match stuck.get(zone) {
            Some(until) if self.store.now() < *until => true,
            _ => {
                stuck.remove(zone);
                false
            }
        }
    }

    /// Lets the tree of one zone grow as far as its chain goes, and says how many events were added.
    pub async fn catch_up_zone(&self, zone: &ZoneId) -> Result<u64, LogError> {
        let key = self.signers.signer(zone).await.map_err(LogError::Key)?;
        let mut added = 0;
        loop {
            let state = self.state(zone, &key).await?;
            let (from, is_all) = (state.edge.size(), (state.rows.len() as i64) < BATCH);
            let (to, failed) = self.grow(zone, &key, state).await?;
            added += to - from;
            match failed {
                Some(error) => return Err(error),
                None if is_all || to == from => return Ok(added),
                None => {}
            }
        }
    }

    /// The tree, which must be the one signed last, and the events that come next.
    async fn state(&self, zone: &ZoneId, key: &SigningKey) -> Result<State, LogError> {
        let mut snapshot = self.store.snapshot().await?;
        let mut tx = snapshot.zone(zone);
        let (size, root) = match StoredTree::find(&mut tx).await?? {
            Some(tree) if Some(&tree.log_key) == verifier_key(zone, &key.public()).as_ref() => {
                (tree.checkpoint.size, tree.checkpoint.root)
            }
            Some(_) => return Err(TreeDefect::Key(None).into()),
            None => (0, empty_root()),
        };
        let needed: Vec<TileId> = Edge::tiles_of(size).into_iter().map(|(id, _)| id).collect();
        let first = needed.first().copied().unwrap_or(TileId { level: 0, position: 0 });
        let edge = Edge::of(size, &read_tiles(&mut tx, needed).await??).ok_or(TreeDefect::Tile(first))?;
        if edge.root() != root {
            return Err(TreeDefect::Root.into());
        }
        let size = i64::try_from(size).unwrap_or(i64::MAX);
        let mut rows = evidence::list_chain(&mut tx, size.saturating_add(1), BATCH).await?;
        rows.truncate(BATCH as usize);
        let before = evidence::list_chain(&mut tx, size, 1).await?.pop();
        let last = match before {
            Some(ChainRow::Read(row)) if row.chain_seq == size => Some(row.content_sha256),
            _ => None,
        };
        Ok(State { edge, last, rows })
    }

    /// Adds what verifies of the rows, in one commit. Says how large the tree is then, and what stopped it before the
    /// last row.
    async fn grow(&self, zone: &ZoneId, key: &SigningKey, state: State) -> Result<(u64, Option<LogError>), LogError> {
        let State { mut edge, mut last, rows } = state;
        let from = edge.size();
        let mut leaves = Vec::with_capacity(rows.len());
        let mut failed = None;
        let mut expected = i64::try_from(from).unwrap_or(i64::MAX).saturating_add(1);
        for row in rows {
            match leaf(zone, expected, last.as_deref(), row) {
                Ok((leaf, content)) => {
                    leaves.push(leaf);
                    (last, expected) = (Some(content), expected.saturating_add(1));
                }
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        if leaves.is_empty() {
            return Ok((from, failed));
        }
        let tiles = edge.grow(leaves);
        let checkpoint = Checkpoint { origin: origin(zone), size: edge.size(), root: edge.root() };
        let signed = checkpoint.sign(key).ok_or_else(|| LogError::Key("the zone has no name for one".to_owned()))?;
        let moved = self.commit(zone, from, edge.size(), signed, tiles).await?;
        // Somebody else let it grow; what they added is what would have been.
        Ok(if moved { (edge.size(), failed) } else { (from, None) })
    }

    async fn commit(
        &self,
        zone: &ZoneId,
        from: u64,
        size: u64,
        checkpoint: String,
        tiles: Tiles,
    ) -> Result<bool, StoreError> {
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let tree = TreeRow { size: number(size), checkpoint, signed_at: self.store.now() };
        let tiles: Vec<(i64, i64, Vec<u8>)> =
            tiles.0.iter().map(|(id, hashes)| (i64::from(id.level), number(id.position), to_bytes(hashes))).collect();
        self.store
            .commit_upkeep((zone.clone(), number(from), tree, tiles), |tx, (zone, from, tree, tiles)| {
                Box::pin(async move {
                    let mut tx = tx.zone_write(zone);
                    if !transparency::advance(&mut tx, *from, tree).await? {
                        return Ok(false);
                    }
                    for (level, position, hashes) in tiles {
                        transparency::put_tile(&mut tx, *level, *position, hashes).await?;
                    }
                    Ok(true)
                })
            })
            .await
    }
}

/// The leaf of the row that comes next, and its content hash, if it is what was recorded and follows the row before.
fn leaf(
    zone: &ZoneId,
    expected: i64,
    last: Option<&str>,
    row: ChainRow<EvidenceRow>,
) -> Result<(TreeHash, String), LogError> {
    let wrong = |what| LogError::Event { chain_seq: expected, what };
    let ChainRow::Read(row) = row else { return Err(wrong("it can't be read")) };
    if row.chain_seq != expected {
        return Err(wrong("it is missing"));
    }
    let leaf = leaf_of(zone, &row).ok_or_else(|| wrong("its link is not one"))?;
    let stored = event_row(row);
    if stored.record.zone_id != zone.as_str() {
        return Err(wrong("it belongs to another zone"));
    }
    if content_sha256(&stored.record) != stored.link.content_sha256 {
        return Err(wrong("its columns do not match its content hash"));
    }
    let prev = stored.link.prev_content_sha256.as_deref();
    let follows = match (expected, last) {
        (1, _) => prev.is_none(),
        (_, Some(last)) => prev == Some(last),
        (_, None) => prev.is_some(),
    };
    if !follows {
        return Err(wrong("it does not name the event before it"));
    }
    Ok((leaf, stored.link.content_sha256))
}
