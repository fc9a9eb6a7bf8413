//! The Merkle tree of RFC 6962 §2.1: its hashes, which of them prove what, and the verification of proofs.
//!
//! Proofs are found by the recursive definition of RFC 6962 and checked by the iterative one of RFC 9162 §2.1.3.2 and
//! §2.1.4.2: two ways to the same answer.

use std::ops::Range;

use ring::digest;

use super::base64;

/// Bytes of a hash.
pub const HASH_BYTES: usize = 32;

/// A hash of a tree: of a leaf, of an inner node, or its root.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TreeHash(pub [u8; HASH_BYTES]);

impl TreeHash {
    /// As checkpoints and proofs write it: base64.
    pub fn to_base64(self) -> String {
        base64::encode(&self.0)
    }

    /// What [`to_base64`](Self::to_base64) wrote.
    pub fn from_base64(text: &str) -> Option<Self> {
        base64::decode(text)?.try_into().ok().map(Self)
    }

    fn of(prefix: u8, parts: [&[u8]; 2]) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(&[prefix]);
        for part in parts {
            context.update(part);
        }
        Self::finished(context)
    }

    fn finished(context: digest::Context) -> Self {
        let mut bytes = [0; HASH_BYTES];
        for (to, from) in bytes.iter_mut().zip(context.finish().as_ref()) {
            *to = *from;
        }
        Self(bytes)
    }
}

impl std::fmt::Debug for TreeHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.to_base64())
    }
}

/// The hash of a leaf. Its prefix differs from that of a node, so that none can pass for the other.
pub fn leaf_hash(entry: &[u8]) -> TreeHash {
    TreeHash::of(0, [entry, &[]])
}

/// The hash of a node with two children.
pub fn node_hash(left: &TreeHash, right: &TreeHash) -> TreeHash {
    TreeHash::of(1, [&left.0, &right.0])
}

/// The root of a tree without leaves.
pub fn empty_root() -> TreeHash {
    TreeHash::finished(digest::Context::new(&digest::SHA256))
}

/// A perfect subtree: that of the leaves from `index << height` on, `1 << height` of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// 0 for a leaf.
    pub height: u32,
    /// Counted among those of its height, from 0.
    pub index: u64,
}

/// The fewest perfect subtrees that hold exactly these leaves, from left to right.
pub fn cover(range: &Range<u64>) -> Vec<Node> {
    let mut nodes = Vec::new();
    let mut at = range.start;
    while at < range.end {
        let fits = 63 - (range.end - at).leading_zeros();
        let height = if at == 0 { fits } else { fits.min(at.trailing_zeros()) };
        nodes.push(Node { height, index: at >> height });
        at += 1 << height;
    }
    nodes
}

/// The hash over subtrees given from left to right, each larger than all behind it. `None` for none.
pub fn fold(hashes: impl DoubleEndedIterator<Item = TreeHash>) -> Option<TreeHash> {
    hashes.rev().reduce(|right, left| node_hash(&left, &right))
}

/// The largest power of two below `size`, which is 2 at least.
fn split(size: u64) -> u64 {
    1 << (63 - (size - 1).leading_zeros())
}

/// The leaves under each hash of the inclusion proof of leaf `index` in a tree of `size`, in the order of the proof.
/// `None` when the tree has no such leaf.
pub fn inclusion_path(index: u64, size: u64) -> Option<Vec<Range<u64>>> {
    let mut rest = Some(0..size).filter(|all| all.contains(&index))?;
    let mut path = Vec::new();
    while rest.end - rest.start > 1 {
        let middle = rest.start + split(rest.end - rest.start);
        if index < middle {
            path.push(middle..rest.end);
            rest.end = middle;
        } else {
            path.push(rest.start..middle);
            rest.start = middle;
        }
    }
    path.reverse();
    Some(path)
}

/// The leaves under each hash of the proof that a tree of `old` leaves is the beginning of one of `new`, in the order of
/// the proof. `None` when the second is the smaller.
pub fn consistency_path(old: u64, new: u64) -> Option<Vec<Range<u64>>> {
    if old > new {
        return None;
    }
    let (mut rest, mut path) = (0..new, Vec::new());
    // The empty tree is the beginning of every tree.
    if old == 0 {
        return Some(path);
    }
    let mut is_old_root = true;
    while old != rest.end {
        let middle = rest.start + split(rest.end - rest.start);
        if old <= middle {
            path.push(middle..rest.end);
            rest.end = middle;
        } else {
            path.push(rest.start..middle);
            rest.start = middle;
            is_old_root = false;
        }
    }
    // Whoever verifies has the old root already.
    if !is_old_root {
        path.push(rest);
    }
    path.reverse();
    Some(path)
}

/// The root of the tree of `size` in which `proof` shows `leaf` at `index`. `None` when it can't be a proof of that.
fn root_from_inclusion(leaf: TreeHash, index: u64, size: u64, proof: &[TreeHash]) -> Option<TreeHash> {
    let (mut node, mut last) = (index, size.checked_sub(1).filter(|last| index <= *last)?);
    let mut hash = leaf;
    for sibling in proof {
        if last == 0 {
            return None;
        }
        if node & 1 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    (last == 0).then_some(hash)
}

/// Whether `proof` shows that the tree with `root` has `leaf` at `index` (RFC 9162 §2.1.3.2).
pub fn verify_inclusion(leaf: TreeHash, index: u64, size: u64, root: TreeHash, proof: &[TreeHash]) -> bool {
    root_from_inclusion(leaf, index, size, proof) == Some(root)
}

/// Whether `proof` shows that the tree with `old_root` is the beginning of the one with `new_root` (RFC 9162 §2.1.4.2).
pub fn verify_consistency(
    (old, old_root): (u64, TreeHash),
    (new, new_root): (u64, TreeHash),
    proof: &[TreeHash],
) -> bool {
    if old == 0 {
        return proof.is_empty() && old_root == empty_root();
    }
    if old >= new {
        return old == new && proof.is_empty() && old_root == new_root;
    }
    let is_subtree = old.is_power_of_two();
    let mut hashes = is_subtree.then_some(&old_root).into_iter().chain(proof);
    let Some(first) = hashes.next().filter(|_| !proof.is_empty()) else { return false };
    let (mut node, mut last) = (old - 1, new - 1);
    while node & 1 == 1 {
        node >>= 1;
        last >>= 1;
    }
    let (mut from_old, mut from_new) = (*first, *first);
    for hash in hashes {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            from_old = node_hash(hash, &from_old);
            from_new = node_hash(hash, &from_new);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            from_new = node_hash(&from_new, hash);
        }
        node >>= 1;
        last >>= 1;
    }
    last == 0 && from_old == old_root && from_new == new_root
}
