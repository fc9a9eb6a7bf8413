//! A tree in tiles of 256 hashes (C2SP tlog-tiles): which tile holds what, the growing right edge, and proofs out of tiles.
//!
//! ```text
//! level 1   [ h(0..256) h(256..512) h(512..768) )            a partial tile, 3 wide
//! level 0   [ 256 leaves ] [ 256 leaves ] [ 256 leaves ] [ 5 leaves )
//! ```
//!
//! A tree of some size has exactly one set of tiles, and a larger one has the same tiles, longer: a tile that is read
//! longer than it was when a checkpoint was signed serves that checkpoint all the same.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use super::merkle::{HASH_BYTES, Node, TreeHash, cover, empty_root, fold};

/// Hashes of a full tile.
pub const WIDTH: usize = 256;
/// Heights of the tree that a tile spans.
const HEIGHT: u32 = 8;

/// Which tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TileId {
    /// 0 for leaves; above, each hash is that of a full tile of the level below.
    pub level: u32,
    /// Counted within its level, from 0.
    pub position: u64,
}

/// The path of the tile, without its width: `tile/1/x001/x234/067`.
impl fmt::Display for TileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tile/{}/{}", self.level, path_of(self.position))
    }
}

/// A number as paths of tiles write it: in groups of three digits, all but the last marked with an `x`.
pub fn path_of(position: u64) -> String {
    let mut text = format!("{:03}", position % 1_000);
    let mut rest = position / 1_000;
    while rest > 0 {
        text = format!("x{:03}/{text}", rest % 1_000);
        rest /= 1_000;
    }
    text
}

/// What [`path_of`] wrote.
pub fn position_of(path: &str) -> Option<u64> {
    let digits: String = path.split('/').map(|part| part.strip_prefix('x').unwrap_or(part)).collect();
    let position = digits.parse().ok()?;
    (path_of(position) == path).then_some(position)
}

impl TileId {
    /// The tile that a perfect subtree is computed from, and which of its hashes.
    fn of(node: Node) -> (Self, Range<usize>) {
        let (level, above) = (node.height / HEIGHT, node.height % HEIGHT);
        let first = node.index << above;
        let from = (first % WIDTH as u64) as usize;
        (Self { level, position: first / WIDTH as u64 }, from..from + (1 << above))
    }

    /// How wide the tile is in a tree of `size`; 0 where that has no such tile.
    pub fn width_in(self, size: u64) -> usize {
        let hashes = size.checked_shr(HEIGHT * self.level).unwrap_or(0);
        let before = self.position.saturating_mul(WIDTH as u64);
        hashes.saturating_sub(before).min(WIDTH as u64) as usize
    }

    /// How many tiles a tree of `size` has, over all levels.
    pub(super) fn count_of(size: u64) -> i64 {
        let levels = (0..u64::BITS / HEIGHT).map(|level| size >> (HEIGHT * level));
        let tiles: u64 = levels.map(|hashes| hashes.div_ceil(WIDTH as u64)).sum();
        i64::try_from(tiles).unwrap_or(i64::MAX)
    }
}

/// Hashes as a tile stores them, one behind the other.
pub fn to_bytes(hashes: &[TreeHash]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| hash.0).collect()
}

/// The hashes of a stored tile; `None` when it is no tile.
pub fn from_bytes(bytes: &[u8]) -> Option<Vec<TreeHash>> {
    let (hashes, rest) = bytes.as_chunks::<HASH_BYTES>();
    (rest.is_empty() && hashes.len() <= WIDTH).then(|| hashes.iter().map(|hash| TreeHash(*hash)).collect())
}

/// The hash over `hashes`, as the leaves of one subtree. `None` for none.
fn hash_over(hashes: &[TreeHash]) -> Option<TreeHash> {
    fold(
        cover(&(0..hashes.len() as u64))
            .into_iter()
            .filter_map(|node| perfect(hashes, node))
            .collect::<Vec<_>>()
            .into_iter(),
    )
}

fn perfect(leaves: &[TreeHash], Node { height, index }: Node) -> Option<TreeHash> {
    let from = usize::try_from(index).ok()? << height;
    let mut row = leaves.get(from..from + (1 << height))?.to_vec();
    while row.len() > 1 {
        let (pairs, _) = row.as_chunks::<2>();
        row = pairs.iter().map(|[left, right]| super::merkle::node_hash(left, right)).collect();
    }
    row.first().copied()
}

/// The right edge of a tree: all that is needed to let it grow and to tell its root.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Edge {
    size: u64,
    /// The partial tile of each level, from the leaves up; empty where the level's tiles are all full.
    partial: Vec<Vec<TreeHash>>,
}

impl Edge {
    /// The partial tiles of a tree of `size`, and how wide each is.
    pub fn tiles_of(size: u64) -> Vec<(TileId, usize)> {
        (0..u64::BITS / HEIGHT)
            .map(|level| (level, size >> (HEIGHT * level)))
            .take_while(|(_, hashes)| *hashes > 0)
            .map(|(level, hashes)| (level, hashes / WIDTH as u64, (hashes % WIDTH as u64) as usize))
            .filter(|(_, _, width)| *width > 0)
            .map(|(level, position, width)| (TileId { level, position }, width))
            .collect()
    }

    /// The edge of a tree of `size`, out of its tiles; what they are longer is left aside. `None` when one is missing or
    /// too short.
    pub fn of(size: u64, tiles: &Tiles) -> Option<Self> {
        let mut partial: Vec<Vec<TreeHash>> = Vec::new();
        for (id, width) in Self::tiles_of(size) {
            let level = id.level as usize;
            partial.resize_with(level + 1, Vec::new);
            partial[level] = tiles.0.get(&id)?.get(..width)?.to_vec();
        }
        Some(Self { size, partial })
    }

    /// Leaves of the tree.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The partial tile of a level, if it has one.
    pub fn partial(&self, level: u32) -> Option<&[TreeHash]> {
        self.partial.get(level as usize).map(Vec::as_slice)
    }

    /// Its root.
    pub fn root(&self) -> TreeHash {
        let levels = self.partial.iter().rev();
        let hashes = levels.flat_map(|hashes| {
            cover(&(0..hashes.len() as u64)).into_iter().filter_map(|node| perfect(hashes, node)).collect::<Vec<_>>()
        });
        fold(hashes.collect::<Vec<_>>().into_iter()).unwrap_or_else(empty_root)
    }

    /// Lets the tree grow by `leaves`, and says which tiles are new or longer, as they are then.
    pub fn grow(&mut self, leaves: impl IntoIterator<Item = TreeHash>) -> Tiles {
        let mut changed = Tiles::default();
        let mut highest = None;
        for leaf in leaves {
            let (mut level, mut hash) = (0, leaf);
            loop {
                if self.partial.len() == level {
                    self.partial.push(Vec::new());
                }
                highest = highest.max(Some(level));
                self.partial[level].push(hash);
                if self.partial[level].len() < WIDTH {
                    break;
                }
                let full = std::mem::take(&mut self.partial[level]);
                let Some(over) = hash_over(&full) else { break };
                let position = self.size >> (HEIGHT * (level as u32 + 1));
                changed.0.insert(TileId { level: level as u32, position }, full);
                (level, hash) = (level + 1, over);
            }
            self.size += 1;
        }
        let grown = highest.map_or(0, |highest| highest + 1);
        for (id, _) in Self::tiles_of(self.size).into_iter().filter(|(id, _)| (id.level as usize) < grown) {
            changed.0.insert(id, self.partial[id.level as usize].clone());
        }
        changed
    }
}

/// Some tiles of a tree.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tiles(pub BTreeMap<TileId, Vec<TreeHash>>);

impl Tiles {
    /// The tiles that the hashes over `ranges` are computed from.
    pub fn needed(ranges: &[Range<u64>]) -> Vec<TileId> {
        let mut ids: Vec<TileId> = ranges.iter().flat_map(cover).map(|node| TileId::of(node).0).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// The hash over each of `ranges`. `None` when a tile is missing or too short.
    pub fn hashes(&self, ranges: &[Range<u64>]) -> Option<Vec<TreeHash>> {
        ranges.iter().map(|range| self.over(range)).collect()
    }

    fn over(&self, range: &Range<u64>) -> Option<TreeHash> {
        let hash = |node| {
            let (id, part) = TileId::of(node);
            hash_over(self.0.get(&id)?.get(part)?)
        };
        let hashes: Option<Vec<TreeHash>> = cover(range).into_iter().map(hash).collect();
        fold(hashes?.into_iter())
    }
}
