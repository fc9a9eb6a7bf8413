//! The chain: what is hashed, what is sealed, and which link comes next (contract: audit-and-streams.md §5.2).
//!
//! ```text
//! event 1 ──▶ content ──▶ HMAC(content | "")          prev = null
//!                │
//! event 2 ──▶ content ──▶ HMAC(content | content 1)   prev = content 1
//! ```
//!
//! The hash makes a change visible to anyone, the seal makes it impossible to repair without the audit key.
//! Whoever appends must hold the zone's head alone: two writers reading one head would both extend it, and one of the
//! two links would have to be wrong. That exclusion is the store transaction's; the functions here take the head as a
//! value and return the next link.

use std::fmt;

use caracal_authority::ZoneId;
use ring::digest;
use serde::{Deserialize, Serialize};

use crate::event::{SEPARATOR, StoredEvent};
use crate::hex;
use crate::keys::ChainKey;

/// Which chain: evidence of a zone, admin records of a zone, or the admin records that belong to no zone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Chain {
    /// Evidence events of a zone.
    Evidence(ZoneId),
    /// Admin records of a zone; `None` is the chain of records without one.
    Admin(Option<ZoneId>),
}

impl Chain {
    /// `evidence` or `admin`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Evidence(_) => "evidence",
            Self::Admin(_) => "admin",
        }
    }

    /// The zone, if the chain has one.
    pub fn zone(&self) -> Option<&ZoneId> {
        match self {
            Self::Evidence(zone) => Some(zone),
            Self::Admin(zone) => zone.as_ref(),
        }
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.zone() {
            Some(zone) => write!(f, "{} chain of zone {zone}", self.kind()),
            None => write!(f, "{} chain without zone", self.kind()),
        }
    }
}

/// Where a chain ends: the sequence number and content hash of its last link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Head {
    /// From 1, without gaps.
    pub chain_seq: i64,
    /// Lower-case hex.
    pub content_sha256: String,
}

/// The chain columns of one row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChainLink {
    /// From 1, without gaps.
    pub chain_seq: i64,
    /// Hash of the row's own content, lower-case hex.
    pub content_sha256: String,
    /// Hash of the row before, absent for the first.
    pub prev_content_sha256: Option<String>,
    /// Seal over both hashes, lower-case hex; empty where no key is configured.
    pub chain_hmac: String,
}

impl ChainLink {
    /// The head of the chain once this link is its last.
    pub fn head(&self) -> Head {
        Head { chain_seq: self.chain_seq, content_sha256: self.content_sha256.clone() }
    }
}

/// One row as it lies in the store: the record's columns and its chain columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRow<R> {
    /// What is under the content hash.
    pub record: R,
    /// What ties it to its neighbours.
    pub link: ChainLink,
    /// Name of the key that the link says it is sealed with; none where that was not noted.
    pub key_id: Option<String>,
}

/// A kind of record that forms chains.
pub trait ChainRecord {
    /// The record's own id, for naming it in a finding.
    fn id(&self) -> &str;

    /// The zone column; `None` where a record belongs to no zone.
    fn zone_id(&self) -> Option<&str>;

    /// The content hash of exactly these columns.
    fn content_sha256(&self) -> String;

    /// Why these columns cannot be what we wrote, whatever their hash says; `None` when they can.
    fn defect(&self) -> Option<String>;
}

impl ChainRecord for StoredEvent {
    fn id(&self) -> &str {
        &self.id
    }

    fn zone_id(&self) -> Option<&str> {
        Some(&self.zone_id)
    }

    fn content_sha256(&self) -> String {
        content_sha256(self)
    }

    fn defect(&self) -> Option<String> {
        separator_in(self.texts())
    }
}

/// The link that `record` gets behind `head`, which is `None` for the first record of a chain.
pub fn next_link<R: ChainRecord>(key: Option<&dyn ChainKey>, head: Option<&Head>, record: &R) -> ChainLink {
    let content_sha256 = record.content_sha256();
    let prev_content_sha256 = head.map(|head| head.content_sha256.clone());
    let chain_hmac = key
        .map(|key| hex::encode(&chain_hmac(key, &content_sha256, prev_content_sha256.as_deref())))
        .unwrap_or_default();
    // A chain that reached the last number cannot grow: the repeated number fails the store's uniqueness.
    let chain_seq = head.map_or(1, |head| head.chain_seq.saturating_add(1));
    ChainLink { chain_seq, content_sha256, prev_content_sha256, chain_hmac }
}

/// Content hash of an evidence event: its twelve texts, each followed by 0x1F, then its instant in nanoseconds.
pub fn content_sha256(event: &StoredEvent) -> String {
    let mut hash = digest::Context::new(&digest::SHA256);
    for (_, text) in event.texts() {
        update_field(&mut hash, text);
    }
    let nanos = i128::from(event.occurred_at_micros) * 1_000;
    hash.update(nanos.to_string().as_bytes());
    hex::encode(hash.finish().as_ref())
}

/// The seal of a link: HMAC over `<content>|<prev>`, both hex, `prev` empty for the first.
pub fn chain_hmac(key: &dyn ChainKey, content_sha256: &str, prev_content_sha256: Option<&str>) -> [u8; 32] {
    key.sign(&sealed_text(content_sha256, prev_content_sha256))
}

/// What is under the seal of a link.
pub(crate) fn sealed_text(content_sha256: &str, prev_content_sha256: Option<&str>) -> Vec<u8> {
    let prev = prev_content_sha256.unwrap_or_default();
    let mut message = Vec::with_capacity(content_sha256.len() + 1 + prev.len());
    message.extend_from_slice(content_sha256.as_bytes());
    message.push(b'|');
    message.extend_from_slice(prev.as_bytes());
    message
}

/// Adds one field and its separator.
pub(crate) fn update_field(hash: &mut digest::Context, text: &str) {
    hash.update(text.as_bytes());
    hash.update(&[0x1f]);
}

/// Names the field that holds the separator. Such a row was not written by us, and its hash says nothing: the same
/// bytes could be split into other fields.
pub(crate) fn separator_in<'a>(texts: impl IntoIterator<Item = (&'static str, &'a str)>) -> Option<String> {
    let (name, _) = texts.into_iter().find(|(_, text)| text.contains(SEPARATOR))?;
    Some(format!("{name} holds the byte 0x1f that separates fields"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Decision, EventType, Evidence};
    use caracal_authority::{EvaluationStatus, MetadataKey};
    use caracal_authority::{EventId, Timestamp};

    fn contract_key() -> ring::hmac::Key {
        let text = "cc7d03253da31f992f76b1a1b99f3e0324c5c926d4a48eec28a92a4ccc3ed55f";
        let bytes: Vec<u8> = (0..32).map(|at| u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).unwrap()).collect();
        ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &bytes)
    }

    fn first_event() -> StoredEvent {
        let at = Timestamp::parse("2026-01-02T03:04:05.123456789Z").unwrap();
        let (id, zone) = (EventId::parse("ev-1").unwrap(), ZoneId::parse("z-1").unwrap());
        Evidence::new(id, zone, EventType::TokenExchange, Decision::Allow, EvaluationStatus::Complete, at)
            .request("req-1")
            .determined_by("p1")
            .attribute(MetadataKey::RequestedScopes, vec!["read"])
            .attribute(MetadataKey::Resource, "resource://api")
            .to_stored()
            .unwrap()
    }

    #[test]
    fn the_contracts_two_events_get_the_contracts_links() {
        let key = contract_key();
        let first = next_link(Some(&key), None, &first_event());
        assert_eq!(
            first,
            ChainLink {
                chain_seq: 1,
                content_sha256: "a43bfd4d3e1b8c8b768700edb0c92862ce0153ae50f5dfa011fe2e30adcd0f6a".to_owned(),
                prev_content_sha256: None,
                chain_hmac: "6ffe5e8870bea0909718acd9e02a6ea5ab71dc29d43588148937f761eb841ea8".to_owned(),
            }
        );
        let absent = || "null".to_owned();
        let second = StoredEvent {
            id: "ev-2".to_owned(),
            determining_policies: absent(),
            diagnostics: absent(),
            metadata: absent(),
            ..first_event()
        };
        assert_eq!(
            next_link(Some(&key), Some(&first.head()), &second),
            ChainLink {
                chain_seq: 2,
                content_sha256: "153847fc5d5dacc9470652ac78ad812a84cae3b67a89adeaced72a8ec9f860d3".to_owned(),
                prev_content_sha256: Some(first.content_sha256.clone()),
                chain_hmac: "f9f5a58f43a10de26c082a747425392c8e489e708425d9c01ea8469da532c8cf".to_owned(),
            }
        );
    }

    #[test]
    fn without_a_key_the_seal_is_empty_and_the_hash_the_same() {
        let link = next_link(None, None, &first_event());
        assert_eq!(link.chain_hmac, "");
        assert_eq!(link.content_sha256, "a43bfd4d3e1b8c8b768700edb0c92862ce0153ae50f5dfa011fe2e30adcd0f6a");
    }
}
