//! Evidence: what happened, in an order that cannot be rewritten unnoticed.
//!
//! Every decision leaves an event, and the events of a zone form one chain: each link holds the hash of its event and
//! the hash of the link before, sealed with the audit key. Changes of product state form a second chain per zone, and
//! one more for what belongs to no zone.
//!
//! What a reader may conclude from a chain that verifies:
//!
//! * no event was changed, removed, inserted or moved since it was appended, unless by someone who holds the audit key:
//!   each seal covers an event and its predecessor, so whoever can seal can replace one event and the seal behind it;
//! * with the head kept outside the store ([`heads`]), also that the tail was not cut and the whole not swapped for an
//!   older copy, unless by someone who also holds the audit key and replaced that file.
//!
//! What a chain does not show: that an event is true, that it was appended when it says, or that nothing was left out
//! before it was appended. The last is the duty of the transaction that commits evidence with its effect.
//!
//! The tree beside the chain ([`transparency`]) shows the same to who has no key of ours, and shows a rewritten history to
//! who kept a signed checkpoint.
//!
//! [`Ledger`] appends inside the transaction whose effect the evidence is of; everything else here is a function of
//! plain values. Only this crate computes chain columns, and nothing rewrites them.

pub mod admin_chain;
mod afterwards;
mod anchors;
mod append;
pub mod canonical;
pub mod chain;
mod denials;
pub mod event;
pub mod foreign;
pub mod heads;
mod heads_observer;
mod hex;
mod holds;
mod key_history;
mod keys;
mod marks;
mod metadata;
pub mod report;
pub mod spool;
mod stored;
pub mod transparency;
pub mod verify;
mod waiting;

pub use admin_chain::{AdminRecord, StoredAdminRecord};
pub use append::Ledger;
pub use caracal_authority::{EvaluationStatus, MetadataKey};
pub use chain::{Chain, ChainLink, ChainRecord, Head, StoredRow, next_link};
pub use denials::AnonymousDenials;
pub use event::{Decision, EventType, Evidence, Metadata, StoredEvent};
pub use foreign::{Bounds, CLOCK_AHEAD, Ingested, NotAdmitted, NotAnEvent, instant, read_event};
pub use heads::{HeadsError, HeadsFile, read_heads};
pub use heads_observer::HeadsObserver;
pub use key_history::{KeysRefused, check_keys, note_keys};
pub use keys::{ChainKey, key_ids};
pub use marks::{Marks, SweepMarks};
pub use report::{ChainReport, Finding, LedgerReport, Problem, Totals};
pub use spool::Spool;
pub use stored::{Begin, find_rollback, is_empty, verify_store, verify_store_marked};
pub use verify::{AdminVerifier, ChainVerifier, ZoneVerifier};
