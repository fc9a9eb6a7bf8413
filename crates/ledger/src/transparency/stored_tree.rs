//! A zone's tree as it lies in the store, and what is wrong with it if it can't be.

use std::ops::Range;

use caracal_authority::ZoneId;
use caracal_store::evidence::EvidenceRow;
use caracal_store::{StoreError, ZoneRead, transparency};

use super::checkpoint::{Checkpoint, NotACheckpoint};
use super::entry::entry;
use super::merkle::{TreeHash, leaf_hash};
use super::note::{NotAKey, Note, VerifierKey};
use super::tiles::{self, TileId, Tiles};
use crate::stored::event_row;

/// What is wrong with a stored tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TreeDefect {
    /// Its key is missing or is none.
    #[error("its log key can't be read{}", .0.map(|reason| format!(": {reason}")).unwrap_or_default())]
    Key(Option<NotAKey>),
    /// Its key is noted under an id that is not its own.
    #[error("its log key is noted under the id of another")]
    KeyName,
    /// Its checkpoint is not one by that key.
    #[error("its checkpoint: {0}")]
    Checkpoint(#[from] NotACheckpoint),
    /// It says another size than its checkpoint.
    #[error("it is {size} events large and its checkpoint says {signed}")]
    Size {
        /// As stored.
        size: i64,
        /// As signed.
        signed: u64,
    },
    /// A tile is missing, cut, or no tile.
    #[error("{0} is missing or damaged")]
    Tile(TileId),
    /// A tile is not the one that its leaves make.
    #[error("{0} does not follow from the hashes of its events")]
    OtherTile(TileId),
    /// There are tiles that no tree of its size has.
    #[error("it has {found} tiles, and {expected} is how many its events make")]
    Tiles {
        /// As many as there are.
        found: i64,
        /// As many as there should be.
        expected: i64,
    },
    /// Its hashes have another root than was signed.
    #[error("its hashes have another root than the checkpoint says")]
    Root,
    /// There are tiles, and no checkpoint over them.
    #[error("its checkpoint is missing")]
    NoCheckpoint,
    /// It ends before what was verified of it.
    #[error("it holds {size} events, and {verified} were verified before: its end was cut off")]
    Shorter {
        /// Events of the tree.
        size: i64,
        /// Events that it had.
        verified: i64,
    },
    /// It does not begin with the tree that was verified.
    #[error("it does not begin with the tree of {verified} events that was verified before: it was rewritten")]
    Rewritten {
        /// Events that that had.
        verified: i64,
    },
    /// It goes further than the chain.
    #[error("it holds {size} events and the chain ends at seq {last}: the end of the chain was cut off")]
    Longer {
        /// Events of the tree.
        size: i64,
        /// The last of the chain.
        last: i64,
    },
}

/// A tree whose checkpoint was verified with its own log key.
#[derive(Debug, Clone)]
pub struct StoredTree {
    /// The key of the log, as the store has it.
    pub log_key: VerifierKey,
    /// The checkpoint, signed.
    pub note: String,
    /// What it says.
    pub checkpoint: Checkpoint,
}

impl StoredTree {
    /// The zone's tree; `Ok(None)` before its first checkpoint.
    pub async fn find(tx: &mut ZoneRead<'_>) -> Result<Result<Option<Self>, TreeDefect>, StoreError> {
        let Some(tree) = transparency::find_tree(tx).await? else {
            let is_bare = transparency::find_tile(tx, 0, 0).await?.is_some();
            return Ok(if is_bare { Err(TreeDefect::NoCheckpoint) } else { Ok(None) });
        };
        let Some(key) = transparency::find_log_key(tx).await? else { return Ok(Err(TreeDefect::Key(None))) };
        let read = Self::read(tree, &key.verifier_key);
        Ok(match read {
            Ok(tree) if tree.log_key.id_text() != key.key_id => Err(TreeDefect::KeyName),
            read => read.map(Some),
        })
    }

    fn read(tree: transparency::TreeRow, key: &str) -> Result<Self, TreeDefect> {
        let log_key = VerifierKey::parse(key).map_err(|reason| TreeDefect::Key(Some(reason)))?;
        let note = Note::parse(&tree.checkpoint).map_err(NotACheckpoint::from)?;
        let checkpoint = Checkpoint::verified(&note, &log_key)?;
        if i64::try_from(checkpoint.size) != Ok(tree.size) || tree.size < 1 {
            return Err(TreeDefect::Size { size: tree.size, signed: checkpoint.size });
        }
        Ok(Self { log_key, note: tree.checkpoint, checkpoint })
    }
}

/// One tile, as long as it is now.
pub(super) async fn read_tile(
    tx: &mut ZoneRead<'_>,
    id: TileId,
) -> Result<Result<Vec<TreeHash>, TreeDefect>, StoreError> {
    let (level, Ok(position)) = (i64::from(id.level), i64::try_from(id.position)) else {
        return Ok(Err(TreeDefect::Tile(id)));
    };
    let bytes = transparency::find_tile(tx, level, position).await?;
    Ok(bytes.and_then(|bytes| tiles::from_bytes(&bytes)).ok_or(TreeDefect::Tile(id)))
}

/// Some tiles.
pub(super) async fn read_tiles(
    tx: &mut ZoneRead<'_>,
    ids: impl IntoIterator<Item = TileId>,
) -> Result<Result<Tiles, TreeDefect>, StoreError> {
    let mut tiles = Tiles::default();
    for id in ids {
        match read_tile(tx, id).await? {
            Ok(hashes) => tiles.0.insert(id, hashes),
            Err(defect) => return Ok(Err(defect)),
        };
    }
    Ok(Ok(tiles))
}

/// The hash over each of `ranges` of leaves.
pub(super) async fn hashes_over(
    tx: &mut ZoneRead<'_>,
    ranges: &[Range<u64>],
) -> Result<Result<Vec<TreeHash>, TreeDefect>, StoreError> {
    let needed = Tiles::needed(ranges);
    let last = needed.last().copied().unwrap_or(TileId { level: 0, position: 0 });
    let tiles = read_tiles(tx, needed).await?;
    Ok(tiles.and_then(|tiles| tiles.hashes(ranges).ok_or(TreeDefect::Tile(last))))
}

/// The leaf of a row; `None` when the row can't be what was written.
pub(super) fn leaf_of(zone: &ZoneId, row: &EvidenceRow) -> Option<TreeHash> {
    let stored = event_row(row.clone());
    entry(zone.as_str(), &stored.link, row.ingested_at).map(|entry| leaf_hash(&entry))
}
