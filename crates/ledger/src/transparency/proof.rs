//! The proof that an entry is in a log, as one text (C2SP tlog-proof): where it is, the hashes beside its way to the root,
//! and the checkpoint with that root.

use std::fmt;

use super::merkle::TreeHash;

const FIRST_LINE: &str = "c2sp.org/tlog-proof@v1";
/// Hashes of a proof in the largest tree there can be.
const MOST_HASHES: usize = 64;

/// A proof, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlogProof {
    /// The entry's place, from 0.
    pub index: u64,
    /// From the leaf's sibling up.
    pub hashes: Vec<TreeHash>,
    /// The signed checkpoint, as the log gave it.
    pub checkpoint: String,
}

impl TlogProof {
    /// Reads what [`Display`](fmt::Display) writes. Extra data, which nothing authenticates, is passed over.
    pub fn parse(text: &str) -> Option<Self> {
        let (head, checkpoint) = text.split_once("\n\n")?;
        let mut lines = head.split('\n').peekable();
        if lines.next()? != FIRST_LINE {
            return None;
        }
        lines.next_if(|line| line.starts_with("extra "));
        let number = lines.next()?.strip_prefix("index ")?;
        let index: u64 = number.parse().ok().filter(|index: &u64| index.to_string() == number)?;
        let hashes: Option<Vec<TreeHash>> = lines.map(TreeHash::from_base64).collect();
        let hashes = hashes.filter(|hashes| hashes.len() <= MOST_HASHES)?;
        Some(Self { index, hashes, checkpoint: checkpoint.to_owned() })
    }
}

impl fmt::Display for TlogProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{FIRST_LINE}\nindex {}", self.index)?;
        for hash in &self.hashes {
            writeln!(f, "{}", hash.to_base64())?;
        }
        write!(f, "\n{}", self.checkpoint)
    }
}
