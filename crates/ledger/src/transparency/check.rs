//! A zone's tree against its chain, for the verifier of a whole store: that each event's leaf is the one in the tree, that
//! the tiles follow from their leaves, and that their root was signed.
//!
//! A tree that was verified once is noted as size and root. From then on it has to begin with that tree; and a pass that
//! begins at marks builds only what is behind it, from the right edge that its tiles had then, whose root is the noted one.

use caracal_authority::ZoneId;
use caracal_store::evidence::{ChainRow, EvidenceRow};
use caracal_store::{StoreError, ZoneRead, transparency};

use super::merkle::TreeHash;
use super::stored_tree::{StoredTree, TreeDefect, leaf_of, read_tile, read_tiles};
use super::tiles::{Edge, TileId, WIDTH};
use crate::chain::Head;
use crate::hex;
use crate::report::{ChainReport, Finding, Problem};
use crate::stored::Begin;

/// Compares while the chain is read.
pub(crate) struct TreeCheck {
    zone: ZoneId,
    tree: Result<Option<StoredTree>, TreeDefect>,
    /// The tile of leaves that was read last.
    leaves: Option<(u64, Vec<TreeHash>)>,
    findings: Vec<Finding>,
    /// What was verified before.
    noted: Option<Head>,
    begin: Begin,
}

impl TreeCheck {
    /// Before the first row is read: a running system lets both grow meanwhile, and the chain is always the longer.
    pub(crate) async fn begin(tx: &mut ZoneRead<'_>, noted: Option<Head>, begin: Begin) -> Result<Self, StoreError> {
        let tree = StoredTree::find(tx).await?;
        Ok(Self { zone: tx.zone().clone(), tree, leaves: None, findings: Vec::new(), noted, begin })
    }

    fn size(&self) -> u64 {
        self.tree.as_ref().ok().and_then(Option::as_ref).map_or(0, |tree| tree.checkpoint.size)
    }

    /// The next rows of the chain.
    pub(crate) async fn rows(
        &mut self,
        tx: &mut ZoneRead<'_>,
        rows: &[ChainRow<EvidenceRow>],
    ) -> Result<(), StoreError> {
        for row in rows {
            // What can't be read is the chain's finding already.
            let ChainRow::Read(row) = row else { continue };
            let index = row.chain_seq.checked_sub(1).and_then(|index| u64::try_from(index).ok());
            let Some(index) = index.filter(|index| *index < self.size()) else { continue };
            let position = index / WIDTH as u64;
            if self.leaves.as_ref().is_none_or(|(at, _)| *at != position) {
                let tile = read_tile(tx, TileId { level: 0, position }).await?;
                self.leaves = Some((position, tile.unwrap_or_default()));
            }
            let in_tree = self.leaves.as_ref().and_then(|(_, tile)| tile.get((index % WIDTH as u64) as usize));
            if in_tree.is_none() || leaf_of(&self.zone, row).as_ref() != in_tree {
                let (chain_seq, event_id) = (Some(row.chain_seq), Some(row.id.clone()));
                self.findings.push(Finding { chain_seq, event_id, problem: Problem::NotInTree });
            }
        }
        Ok(())
    }

    /// After the last row: the tree for itself, and all findings into `report`.
    pub(crate) async fn finish(mut self, tx: &mut ZoneRead<'_>, report: &mut ChainReport) -> Result<(), StoreError> {
        for finding in std::mem::take(&mut self.findings) {
            report.add(finding);
        }
        let last = report.head.as_ref().map_or(0, |head| head.chain_seq);
        let noted = self.noted.take();
        let verified = match self.tree {
            Err(defect) => Err(defect),
            Ok(None) => match noted {
                Some(noted) => Err(TreeDefect::Shorter { size: 0, verified: noted.chain_seq }),
                None => Ok(None),
            },
            Ok(Some(tree)) => match i64::try_from(tree.checkpoint.size) {
                Ok(size) if size > last => Err(TreeDefect::Longer { size, last }),
                _ => verify(tx, &tree, noted.as_ref(), self.begin).await?.map(Some),
            },
        };
        match verified {
            Ok(tree) => report.tree = tree,
            Err(defect) => {
                let problem = Problem::TreeDamaged { reason: defect.to_string() };
                report.add(Finding { chain_seq: None, event_id: None, problem });
            }
        }
        Ok(())
    }
}

/// The tree as the next pass is to note it, once it was built again from where this pass begins.
async fn verify(
    tx: &mut ZoneRead<'_>,
    tree: &StoredTree,
    noted: Option<&Head>,
    begin: Begin,
) -> Result<Result<Head, TreeDefect>, StoreError> {
    let size = tree.checkpoint.size;
    let mut edge = Edge::default();
    if let Some(noted) = noted {
        let verified = u64::try_from(noted.chain_seq).unwrap_or(0);
        if verified > size {
            let size = i64::try_from(size).unwrap_or(i64::MAX);
            return Ok(Err(TreeDefect::Shorter { size, verified: noted.chain_seq }));
        }
        let tiles = match read_tiles(tx, Edge::tiles_of(verified).into_iter().map(|(id, _)| id)).await? {
            Ok(tiles) => tiles,
            Err(defect) => return Ok(Err(defect)),
        };
        let before = Edge::of(verified, &tiles).filter(|edge| hex::encode(&edge.root().0) == noted.content_sha256);
        match before {
            None => return Ok(Err(TreeDefect::Rewritten { verified: noted.chain_seq })),
            Some(before) if begin == Begin::AtMarks => edge = before,
            Some(_) => {}
        }
    }
    let mut longer = None;
    if let Some(defect) = defect_behind(tx, tree, edge, &mut longer).await? {
        return Ok(Err(defect));
    }
    let expected = TileId::count_of(size);
    let found = if begin == Begin::AtFirst { transparency::count_tiles(tx).await? } else { expected };
    // What is more than its size takes is of a tree that has grown since, or of none.
    let is_as_before = transparency::find_tree(tx).await?.is_some_and(|now| u64::try_from(now.size) == Ok(size));
    if is_as_before {
        if let Some(id) = longer {
            return Ok(Err(TreeDefect::OtherTile(id)));
        }
        if found != expected {
            return Ok(Err(TreeDefect::Tiles { found, expected }));
        }
    }
    let chain_seq = i64::try_from(size).unwrap_or(i64::MAX);
    Ok(Ok(Head { chain_seq, content_sha256: hex::encode(&tree.checkpoint.root.0) }))
}

/// Builds the tree again out of its leaves, behind `edge`. `longer` becomes a tile that has more than that.
async fn defect_behind(
    tx: &mut ZoneRead<'_>,
    tree: &StoredTree,
    mut edge: Edge,
    longer: &mut Option<TileId>,
) -> Result<Option<TreeDefect>, StoreError> {
    let size = tree.checkpoint.size;
    let width = WIDTH as u64;
    for position in edge.size() / width..size.div_ceil(width) {
        let id = TileId { level: 0, position };
        let leaves = match read_tile(tx, id).await? {
            Ok(leaves) if leaves.len() >= id.width_in(size) => leaves,
            Ok(_) => return Ok(Some(TreeDefect::Tile(id))),
            Err(defect) => return Ok(Some(defect)),
        };
        if leaves.len() > id.width_in(size) {
            *longer = Some(id);
        }
        let known = usize::try_from(edge.size().saturating_sub(position * width)).unwrap_or(0);
        let made = edge.grow(leaves.into_iter().take(id.width_in(size)).skip(known));
        // Partial tiles above change with every tile of leaves: they are looked at once, at the end.
        for (id, hashes) in made.0.iter().filter(|(id, hashes)| id.level > 0 && hashes.len() == WIDTH) {
            if read_tile(tx, *id).await?.as_ref() != Ok(hashes) {
                return Ok(Some(TreeDefect::OtherTile(*id)));
            }
        }
    }
    for (id, width) in Edge::tiles_of(size).into_iter().filter(|(id, _)| id.level > 0) {
        let hashes = match read_tile(tx, id).await? {
            Ok(hashes) => hashes,
            Err(defect) => return Ok(Some(defect)),
        };
        if hashes.len() > width {
            *longer = Some(id);
        }
        if hashes.get(..width) != edge.partial(id.level) {
            return Ok(Some(TreeDefect::OtherTile(id)));
        }
    }
    Ok((edge.root() != tree.checkpoint.root).then_some(TreeDefect::Root))
}
