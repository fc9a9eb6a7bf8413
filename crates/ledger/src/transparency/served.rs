//! A zone's log as C2SP tlog-tiles has it served: hashes and entries by path.

use caracal_store::evidence::{self, ChainRow};
use caracal_store::{StoreError, ZoneRead};

use super::entry::entry;
use super::stored_tree::{StoredTree, TreeDefect, read_tile};
use super::tiles::{TileId, WIDTH, position_of, to_bytes};
use crate::stored::event_row;

/// What a path below `tile/` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Served {
    /// Hashes.
    Tile {
        /// Which tile.
        id: TileId,
        /// How many of its hashes.
        width: usize,
    },
    /// What the leaves of a tile of level 0 are hashes of.
    Entries {
        /// Which tile.
        position: u64,
        /// How many.
        width: usize,
    },
}

impl Served {
    /// Reads `0/x001/067`, `0/x001/067.p/5`, `entries/x001/067`, and nothing that is written in another way.
    pub fn parse(path: &str) -> Option<Self> {
        let (kind, rest) = path.split_once('/')?;
        let (path, width) = match rest.split_once(".p/") {
            None => (rest, WIDTH),
            Some((path, width)) => {
                let number: usize = width.parse().ok().filter(|number| (1..WIDTH).contains(number))?;
                (path, Some(number).filter(|number| number.to_string() == width)?)
            }
        };
        let position = position_of(path)?;
        if kind == "entries" {
            return Some(Self::Entries { position, width });
        }
        let level: u32 = kind.parse().ok().filter(|level: &u32| *level < 64 && level.to_string() == kind)?;
        Some(Self::Tile { id: TileId { level, position }, width })
    }

    /// Its bytes; `None` where the log has no such tile, or its events are past their time.
    pub async fn read(self, tx: &mut ZoneRead<'_>) -> Result<Result<Option<Vec<u8>>, TreeDefect>, StoreError> {
        let size = match StoredTree::find(tx).await? {
            Ok(tree) => tree.map_or(0, |tree| tree.checkpoint.size),
            Err(defect) => return Ok(Err(defect)),
        };
        let (id, width) = match self {
            Self::Tile { id, width } => (id, width),
            Self::Entries { position, width } => (TileId { level: 0, position }, width),
        };
        if id.width_in(size) < width {
            return Ok(Ok(None));
        }
        if matches!(self, Self::Entries { .. }) {
            return entries(tx, id.position, width).await.map(Ok);
        }
        let hashes = read_tile(tx, id).await?;
        Ok(hashes.and_then(|hashes| hashes.get(..width).map(|part| Some(to_bytes(part))).ok_or(TreeDefect::Tile(id))))
    }
}

async fn entries(tx: &mut ZoneRead<'_>, position: u64, width: usize) -> Result<Option<Vec<u8>>, StoreError> {
    let zone = tx.zone().clone();
    let Ok(first) = i64::try_from(position * WIDTH as u64 + 1) else { return Ok(None) };
    let rows = evidence::list_chain(tx, first, width as i64).await?;
    let mut bytes = Vec::new();
    for (row, expected) in rows.iter().zip(first..) {
        let ChainRow::Read(row) = row else { return Ok(None) };
        let stored = event_row(row.clone());
        let Some(entry) = entry(zone.as_str(), &stored.link, row.ingested_at) else { return Ok(None) };
        let Ok(length) = u16::try_from(entry.len()) else { return Ok(None) };
        if row.chain_seq != expected {
            return Ok(None);
        }
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&entry);
    }
    Ok((rows.len() == width).then_some(bytes))
}
