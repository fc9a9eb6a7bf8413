//! A Merkle tree beside the chain, so that who holds a public key and one file can check what happened, and who keeps a
//! checkpoint can tell whether history was rewritten since (README D23).
//!
//! * [`merkle`] and [`tiles`]: RFC 6962 trees, their proofs, and their layout in tiles (C2SP tlog-tiles).
//! * [`note`] and [`checkpoint`]: who signs what (C2SP signed-note, tlog-checkpoint, tlog-cosignature).
//! * [`entry`]: what a leaf commits to.
//! * [`TransparencyLog`]: lets the tree of each zone grow behind its chain.
//! * [`prove`] makes an [`EvidenceFile`]; [`EvidenceFile::verify`] checks one, and needs nothing but the log's key.

mod base64;
mod check;
pub mod checkpoint;
pub mod entry;
mod evidence_file;
mod log;
pub mod merkle;
pub mod note;
mod proof;
mod prove;
mod served;
mod stored_tree;
pub mod tiles;

pub(crate) use check::TreeCheck;
pub use checkpoint::Checkpoint;
pub use evidence_file::{Consistency, EventProblem, EvidenceFile, FORMAT, ProvenEvent, Refuted, Trusted, Verified};
pub use log::{LogError, LogSigners, TransparencyLog};
pub use note::{Note, VerifierKey};
pub use proof::TlogProof;
pub use prove::{CannotProve, Given, prove};
pub use served::Served;
pub use stored_tree::{StoredTree, TreeDefect};
