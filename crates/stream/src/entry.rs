//! One entry of a topic: flat text fields and the origin signature over them (contract: audit-and-streams.md §6.2).

use std::fmt;

use caracal_authority::{OutboxId, Timestamp, ZoneId};
use caracal_crypto::hmac::{HmacKey, UnsignableMessage, stream_signature, verify_stream_signature};
use caracal_store::Message;

/// Bytes of names and values together, beyond which an entry is not looked at: what we publish is far smaller.
const LARGEST: usize = 64 * 1024;
pub(crate) const SIGNATURE: &str = "_sig";

/// Where a topic's entries go that nobody can act on.
pub fn dead_letter_topic(topic: &str) -> String {
    format!("{topic}.dead")
}

/// An entry as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The stream's own name for it: `milliseconds-number`.
    pub(crate) id: String,
    /// Names and values in the order of the wire; none when one of them is no text.
    pub(crate) fields: Option<Vec<(String, String)>>,
}

/// Why an entry is not acted on. The names are the contract's (§6.3), as far as it has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rejection {
    /// No signature, another one, or a field twice: not from one of us.
    Signature,
    /// More than any message of ours holds.
    Oversized,
    /// Something other than text.
    NotText,
    /// No `outbox_id` or `zone_id` that could be one.
    Unaddressed,
    /// A revocation that does not say of what.
    NoAnchor,
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Signature => "invalid_signature",
            Self::Oversized => "oversized",
            Self::NotText => "not_text",
            Self::Unaddressed => "missing_outbox_or_zone_id",
            Self::NoAnchor => "missing_revocation_anchor",
        })
    }
}

/// The fields of a message as they stand on the wire, signed. What a caller put under the names that are ours does not
/// get there.
pub(crate) fn to_wire(message: &Message, key: &HmacKey) -> Result<Vec<(String, String)>, UnsignableMessage> {
    let own = ["outbox_id", "dedupe_key", SIGNATURE];
    let mut fields =
        vec![("outbox_id".to_owned(), message.id.to_string()), ("dedupe_key".to_owned(), message.dedupe_key.clone())];
    fields.extend(message.fields.iter().filter(|(name, _)| !own.contains(&name.as_str())).cloned());
    let pairs = fields.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let signature = stream_signature(key, &message.topic, pairs)?;
    fields.push((SIGNATURE.to_owned(), signature));
    Ok(fields)
}

/// The message of an entry, if one of us signed it.
pub(crate) fn from_wire(topic: &str, entry: &Entry, key: &HmacKey) -> Result<Message, Rejection> {
    let fields = entry.fields.as_ref().ok_or(Rejection::NotText)?;
    if size(fields) > LARGEST {
        return Err(Rejection::Oversized);
    }
    let value = |name: &str| fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let signature = value(SIGNATURE).ok_or(Rejection::Signature)?;
    // Over every field there is: one that is there twice has no canonical text, and does not verify.
    let signed = fields.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    if fields.iter().filter(|(name, _)| name == SIGNATURE).count() != 1
        || !verify_stream_signature(key, topic, signed, signature)
    {
        return Err(Rejection::Signature);
    }
    let id: OutboxId = value("outbox_id").and_then(|id| id.parse().ok()).ok_or(Rejection::Unaddressed)?;
    let zone = value("zone_id").and_then(|zone| ZoneId::parse(zone).ok()).ok_or(Rejection::Unaddressed)?;
    Ok(Message {
        id,
        zone,
        topic: topic.to_owned(),
        dedupe_key: value("dedupe_key").unwrap_or_default().to_owned(),
        fields: fields.iter().filter(|(name, _)| name != SIGNATURE).cloned().collect(),
        created_at: published_at(&entry.id),
    })
}

/// The fields of an entry that is put aside (contract: audit-and-streams.md §6.3), with the group that did so.
pub(crate) fn dead_letter(entry: &Entry, group: Option<&str>, reason: &str) -> Vec<(String, String)> {
    let fields = entry.fields.as_ref().filter(|fields| size(fields) <= LARGEST);
    let payload = fields.map(|fields| {
        let fields = fields.iter().map(|(name, value)| (name.clone(), value.clone().into()));
        serde_json::Value::Object(fields.collect()).to_string()
    });
    let mut letter = vec![("source_id", entry.id.clone()), ("reason", reason.to_owned())];
    letter.extend(group.map(|group| ("group", group.to_owned())));
    letter.push(("payload", payload.unwrap_or_default()));
    letter.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The fields that a dead letter holds; none when it holds no object of texts.
pub(crate) fn fields_of_payload(payload: &str) -> Vec<(String, String)> {
    let fields: std::collections::BTreeMap<String, String> = serde_json::from_str(payload).unwrap_or_default();
    fields.into_iter().collect()
}

fn size(fields: &[(String, String)]) -> usize {
    fields.iter().map(|(name, value)| name.len() + value.len()).sum()
}

/// When the stream took an entry: its id begins with that.
fn published_at(id: &str) -> Timestamp {
    let millis = id.split('-').next().and_then(|millis| millis.parse::<i64>().ok()).unwrap_or(0);
    Timestamp::from_micros(millis.saturating_mul(1_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> HmacKey {
        HmacKey::from_bytes(&[byte; 32]).unwrap()
    }

    fn message(fields: &[(&str, &str)]) -> Message {
        Message {
            id: "ob-1".parse().unwrap(),
            zone: ZoneId::parse("z-1").unwrap(),
            topic: "caracal.sessions.revoke".to_owned(),
            dedupe_key: "agent_terminate:s-1".to_owned(),
            fields: fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            created_at: Timestamp::from_seconds(1),
        }
    }

    fn entry(fields: Vec<(String, String)>) -> Entry {
        Entry { id: "1700000000123-0".to_owned(), fields: Some(fields) }
    }

    #[test]
    fn what_is_signed_comes_back_and_knows_when_it_was_published() {
        let sent = message(&[("zone_id", "z-1"), ("agent_session_id", "s-1"), ("reason", "requested")]);
        let read = from_wire(&sent.topic, &entry(to_wire(&sent, &key(1)).unwrap()), &key(1)).unwrap();
        assert_eq!((read.id, read.zone, read.dedupe_key.as_str()), (sent.id, sent.zone, "agent_terminate:s-1"));
        assert_eq!(read.fields.get(2..), Some(&sent.fields[..]));
        assert_eq!(read.created_at, Timestamp::from_micros(1_700_000_000_123_000));
    }

    /// Contract, audit-and-streams.md §6.7: a payload can't speak for the outbox.
    #[test]
    fn a_payload_overrides_neither_id_nor_key_nor_signature() {
        let forged = message(&[("outbox_id", "ob-2"), ("zone_id", "z-1"), ("dedupe_key", "x"), ("_sig", "00")]);
        let wire = to_wire(&forged, &key(1)).unwrap();
        for (name, value) in [("outbox_id", "ob-1"), ("dedupe_key", "agent_terminate:s-1")] {
            let found: Vec<_> = wire.iter().filter(|(known, _)| known == name).map(|(_, value)| value).collect();
            assert_eq!(found, [value]);
        }
        assert!(from_wire(&forged.topic, &entry(wire), &key(1)).is_ok());
    }

    #[test]
    fn t06_evidence_nothing_is_acted_on_that_one_of_us_did_not_sign() {
        let sent = message(&[("zone_id", "z-1"), ("agent_session_id", "s-1")]);
        let wire = to_wire(&sent, &key(1)).unwrap();
        let rejected = |fields: Vec<(String, String)>| from_wire(&sent.topic, &entry(fields), &key(1)).unwrap_err();
        for (at, (name, value)) in wire.iter().enumerate() {
            let mut changed = wire.clone();
            changed[at].1.push('x');
            assert_eq!(rejected(changed), Rejection::Signature, "{name} with another value");
            let mut missing = wire.clone();
            missing.remove(at);
            assert_eq!(rejected(missing), Rejection::Signature, "without {name}");
            let mut twice = wire.clone();
            twice.push((name.clone(), value.clone()));
            assert_eq!(rejected(twice), Rejection::Signature, "{name} twice");
        }
        let mut more = wire.clone();
        more.push(("delegation_edge_id".to_owned(), "e-1".to_owned()));
        assert_eq!(rejected(more), Rejection::Signature);
        // Another topic, another key: the same bytes mean nothing.
        assert_eq!(from_wire("caracal.other", &entry(wire.clone()), &key(1)), Err(Rejection::Signature));
        assert_eq!(from_wire(&sent.topic, &entry(wire), &key(2)), Err(Rejection::Signature));
    }

    #[test]
    fn what_is_too_large_or_no_text_or_addressed_to_nobody_is_put_aside() {
        let large = message(&[("zone_id", "z-1"), ("reason", &"x".repeat(LARGEST))]);
        let wire = to_wire(&large, &key(1)).unwrap();
        assert_eq!(from_wire(&large.topic, &entry(wire), &key(1)), Err(Rejection::Oversized));
        let garbage = Entry { id: "1-0".to_owned(), fields: None };
        assert_eq!(from_wire("t", &garbage, &key(1)), Err(Rejection::NotText));
        let nowhere = message(&[("agent_session_id", "s-1")]);
        let wire = to_wire(&nowhere, &key(1)).unwrap();
        assert_eq!(from_wire(&nowhere.topic, &entry(wire), &key(1)), Err(Rejection::Unaddressed));
    }
}
