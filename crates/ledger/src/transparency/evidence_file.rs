//! The file that an auditor is handed: what happened under one request, and why it can be believed. It is checked with the
//! public key of the zone's log and nothing else: no store, no network, no secret.
//!
//! An auditor holds the log's key, got once from the operator, and perhaps a checkpoint from last month. Mallory, who runs
//! the system, wants the denial of Tuesday to have been an allow.
//!
//! * Changed in the file, the event has another content hash, so another leaf, and the proof leads to no signed root.
//! * Changed in the store before the file is made: the tree holds the leaf that was, so the same.
//! * A tree rebuilt over a changed event and signed anew proves it; but it is not the continuation of the tree of last
//!   month, so the proof of consistency fails. Without a checkpoint of his own, or one that a witness signed, the auditor
//!   could not tell: a signature shows who says it, not that nothing else was ever said.
//!
//! What it does not show: that the file has every event of the request, or that what was recorded is true.

use serde::{Deserialize, Serialize};

use super::checkpoint::{Checkpoint, NotACheckpoint};
use super::entry::entry;
use super::merkle::{TreeHash, leaf_hash, verify_consistency, verify_inclusion};
use super::note::{NotSigned, Note, VerifierKey};
use super::proof::TlogProof;
use crate::chain::{ChainLink, ChainRecord, content_sha256};
use crate::event::StoredEvent;

/// What the file says it is.
pub const FORMAT: &str = "caracal.evidence/1";

/// The file's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an evidence file")]
pub struct EvidenceFile {
    /// [`FORMAT`].
    pub format: String,
    /// The key that the log signs with, as it says itself. For people: verification wants the key from elsewhere.
    pub log_key: String,
    /// What happened, oldest first.
    pub events: Vec<ProvenEvent>,
    /// That the tree continues an older one, where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consistency: Option<Consistency>,
}

/// An event, its place in the chain, and the proof that the log has it there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an event with its place and proof")]
pub struct ProvenEvent {
    /// The event, every text exactly as its content hash covers it (contract: audit-and-streams.md §5.2).
    pub event: StoredEvent,
    /// Its place in the chain.
    pub link: ChainLink,
    /// When it was stored: microseconds since 1970, UTC.
    pub ingested_at_micros: i64,
    /// A C2SP tlog-proof.
    pub proof: String,
}

/// That the tree of the file's checkpoint begins with an older one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a proof of consistency")]
pub struct Consistency {
    /// Leaves of the older tree.
    pub from_size: u64,
    /// RFC 6962 §2.1.2, base64.
    pub proof: Vec<String>,
}

/// What an event has against it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventProblem {
    /// The hash is not the event's.
    #[error("its content does not match its hash: the event or its hash was changed")]
    Content,
    /// The columns can't be what was written.
    #[error("it can't be what was recorded: {0}")]
    Unwritable(String),
    /// The proof is no proof.
    #[error("its proof can't be read")]
    Proof,
    /// It was recorded in another zone than the log's.
    #[error("it belongs to another zone than the log does")]
    OtherZone,
    /// Its place in the chain and in the tree differ.
    #[error("its place in the tree is not its place in the chain")]
    Place,
    /// The log has another event there.
    #[error("the log does not have it at that place: the event, its link or the proof was changed")]
    NotThere,
}

/// Why a file proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refuted {
    /// It is no file of ours.
    #[error("it is not an evidence file: {0}")]
    Form(String),
    /// It has no event.
    #[error("it has no event")]
    Empty,
    /// Its checkpoint.
    #[error("its checkpoint: {0}")]
    Checkpoint(NotACheckpoint),
    /// Proofs of one file that differ in their checkpoint.
    #[error("its events are proved by different checkpoints")]
    SeveralCheckpoints,
    /// An event.
    #[error("event {number} (`{}`): {problem}", .id.escape_debug())]
    Event {
        /// Counted from 1.
        number: usize,
        /// What it calls itself.
        id: String,
        /// What is wrong.
        problem: EventProblem,
    },
    /// The checkpoint that the verifier holds.
    #[error("the checkpoint you hold: {0}")]
    Held(NotACheckpoint),
    /// The file is older than that.
    #[error(
        "the log had {held} events by the checkpoint you hold and {size} by that of the file: ask for a newer file"
    )]
    Older {
        /// Events by the one held.
        held: u64,
        /// Events by the file's.
        size: u64,
    },
    /// The file says nothing on how it continues that one.
    #[error(
        "the file does not show that its log continues the checkpoint you hold: have it made with `--since` that checkpoint"
    )]
    NoConsistency,
    /// It does not continue it.
    #[error("the log of the file does not continue the checkpoint you hold: its history was rewritten")]
    Rewritten,
    /// A witness.
    #[error("witness `{witness}`: {reason}")]
    Witness {
        /// Its name.
        witness: String,
        /// Why it does not count.
        reason: NotSigned,
    },
}

/// What a file proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// What the log says of itself at that point.
    pub checkpoint: Checkpoint,
    /// The events, which are in it.
    pub events: Vec<(StoredEvent, ChainLink)>,
    /// Events of the older tree that it was shown to continue.
    pub continues: Option<u64>,
    /// Witnesses that saw the checkpoint, and when, in seconds since 1970.
    pub witnesses: Vec<(String, u64)>,
}

/// What the verifier has, beside the file.
pub struct Trusted<'a> {
    /// The log's key.
    pub log_key: &'a VerifierKey,
    /// A checkpoint of that log, from before.
    pub held: Option<&'a str>,
    /// Witnesses that must have seen the file's checkpoint, all of them.
    pub witnesses: &'a [VerifierKey],
}

impl EvidenceFile {
    /// Reads a file's content.
    pub fn parse(content: &[u8]) -> Result<Self, Refuted> {
        let file: Self = serde_json::from_slice(content).map_err(|error| Refuted::Form(error.to_string()))?;
        if file.format == FORMAT { Ok(file) } else { Err(Refuted::Form(format!("its format is not `{FORMAT}`"))) }
    }

    /// Whether all of it holds, and then what it shows.
    pub fn verify(&self, trusted: &Trusted<'_>) -> Result<Verified, Refuted> {
        let mut shared: Option<(String, Checkpoint)> = None;
        let mut events = Vec::new();
        for (index, proven) in self.events.iter().enumerate() {
            let refuted = |problem| Refuted::Event { number: index + 1, id: proven.event.id.clone(), problem };
            let proof = TlogProof::parse(&proven.proof).ok_or_else(|| refuted(EventProblem::Proof))?;
            let checkpoint = match &shared {
                Some((text, _)) if *text != proof.checkpoint => return Err(Refuted::SeveralCheckpoints),
                Some((_, checkpoint)) => checkpoint.clone(),
                None => {
                    let checkpoint = read(&proof.checkpoint, trusted.log_key).map_err(Refuted::Checkpoint)?;
                    shared.insert((proof.checkpoint.clone(), checkpoint)).1.clone()
                }
            };
            events.push(proven.verify(&proof, &checkpoint).map_err(refuted)?);
        }
        let (text, checkpoint) = shared.ok_or(Refuted::Empty)?;
        let continues = trusted.held.map(|held| self.continues(held, &checkpoint, trusted.log_key)).transpose()?;
        let note = Note::parse(&text).map_err(|error| Refuted::Checkpoint(error.into()))?;
        let cosigned = |witness: &VerifierKey| {
            let name = witness.name().to_owned();
            match note.cosigned_by(witness) {
                Ok(time) => Ok((name, time)),
                Err(reason) => Err(Refuted::Witness { witness: name, reason }),
            }
        };
        let witnesses = trusted.witnesses.iter().map(cosigned).collect::<Result<_, _>>()?;
        Ok(Verified { checkpoint, events, continues, witnesses })
    }

    fn continues(&self, held: &str, now: &Checkpoint, key: &VerifierKey) -> Result<u64, Refuted> {
        let held = read(held, key).map_err(Refuted::Held)?;
        if held.size > now.size {
            return Err(Refuted::Older { held: held.size, size: now.size });
        }
        let proof = match &self.consistency {
            _ if held.size == now.size => Some(Vec::new()),
            Some(consistency) if consistency.from_size == held.size => {
                consistency.proof.iter().map(|hash| TreeHash::from_base64(hash)).collect()
            }
            _ => return Err(Refuted::NoConsistency),
        };
        let is_proof =
            proof.is_some_and(|proof| verify_consistency((held.size, held.root), (now.size, now.root), &proof));
        if is_proof { Ok(held.size) } else { Err(Refuted::Rewritten) }
    }
}

fn read(note: &str, key: &VerifierKey) -> Result<Checkpoint, NotACheckpoint> {
    Checkpoint::verified(&Note::parse(note)?, key)
}

impl ProvenEvent {
    fn verify(&self, proof: &TlogProof, log: &Checkpoint) -> Result<(StoredEvent, ChainLink), EventProblem> {
        let Self { event, link, ingested_at_micros, .. } = self;
        if let Some(defect) = event.defect() {
            return Err(EventProblem::Unwritable(defect));
        }
        if content_sha256(event) != link.content_sha256 {
            return Err(EventProblem::Content);
        }
        let Some(entry) = entry(&event.zone_id, link, *ingested_at_micros) else {
            return Err(EventProblem::Unwritable("its link is not one".to_owned()));
        };
        let zone = caracal_authority::ZoneId::parse(&event.zone_id);
        if zone.map_or(true, |zone| super::checkpoint::origin(&zone) != log.origin) {
            return Err(EventProblem::OtherZone);
        }
        if u64::try_from(link.chain_seq).ok() != proof.index.checked_add(1) {
            return Err(EventProblem::Place);
        }
        if verify_inclusion(leaf_hash(&entry), proof.index, log.size, log.root, &proof.hashes) {
            Ok((event.clone(), link.clone()))
        } else {
            Err(EventProblem::NotThere)
        }
    }
}
