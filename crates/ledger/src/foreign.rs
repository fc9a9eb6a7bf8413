//! Events that others made: audit frames of clients that hold the producer key (contract: audit-and-streams.md §2.1, §2.4,
//! §4.1). Whatever is in one was verified to come from them, and nothing more.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use caracal_authority::{Timestamp, ZoneId};
use caracal_store::{StoreError, ZoneWrite, evidence};
use serde_json::value::RawValue;

use crate::append::Ledger;
use crate::canonical::{NotCanonical, canonical};
use crate::chain::ChainRecord;
use crate::event::{EventType, StoredEvent, unseparated};

/// Text that is no event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAnEvent {
    /// No JSON object, or something behind it.
    #[error("not a JSON object: {0}")]
    Json(String),
    /// A text that is something else.
    #[error("`{0}` is not text")]
    NotText(&'static str),
    /// What every event has.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// No id of a zone.
    #[error("`zone_id` is no id")]
    Zone,
    /// No instant of RFC 3339 between 1970 and 9999.
    #[error("`occurred_at` is no RFC 3339 instant")]
    Instant,
    /// A JSON member that can't be stored.
    #[error("`{0}`: {1}")]
    Member(&'static str, NotCanonical),
}

/// An event that is one, and that is not taken from somebody else. In words that begin with the reason's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAdmitted {
    /// What the ledger says of itself: who could bring that could raise a false alarm, or make a true one look told.
    #[error("reserved_event_type:only the ledger itself records incidents of the ledger")]
    Reserved,
    /// Evidence is kept in order of its time and goes by it: what lies far ahead would be there for ever, and keep what follows.
    #[error("occurred_at_out_of_bounds:it says {at}, and nothing later than {latest} can have happened yet")]
    Ahead {
        /// When it says that it happened.
        at: Timestamp,
        /// What is taken as having happened.
        latest: Timestamp,
    },
    /// It would be removed for its age at once.
    #[error("occurred_at_out_of_bounds:it says {at}, and nothing from before {earliest} is kept")]
    TooOld {
        /// When it says that it happened.
        at: Timestamp,
        /// From when on evidence is kept.
        earliest: Timestamp,
    },
}

/// How far a producer's clock may be ahead of ours.
pub const CLOCK_AHEAD: Duration = Duration::from_secs(300);

/// When an event of somebody else's can have happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Not before this instant.
    pub earliest: Timestamp,
    /// Not after this instant.
    pub latest: Timestamp,
}

impl Bounds {
    /// At `now`, where evidence is kept for so long.
    pub fn at(now: Timestamp, kept: Duration) -> Self {
        Self { earliest: now.minus(kept), latest: now.plus(CLOCK_AHEAD) }
    }
}

/// What became of an event that was offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ingested {
    /// It has its place in the chain.
    Added,
    /// It is there already, and says the same.
    Known,
    /// One of its id and instant is there and says something else. It stays as it is.
    Conflicts {
        /// Content hash of the one that is there.
        stored: String,
        /// Content hash of the one that was offered.
        incoming: String,
    },
}

/// Reads an event. Unknown members are passed over; U+0000 is taken out of every text; lists that are absent are stored as
/// `null`, which is what their producer hashed.
pub fn read_event(text: &str) -> Result<(ZoneId, StoredEvent), NotAnEvent> {
    // Of a repeated member the last counts, as for whoever made the contract's hashes.
    let members: BTreeMap<Cow<'_, str>, &RawValue> =
        serde_json::from_str(text).map_err(|error| NotAnEvent::Json(error.to_string()))?;
    let string = |name: &'static str| match members.get(name).map(|raw| raw.get()) {
        None | Some("null") => Ok(String::new()),
        Some(raw) => {
            let text: String = serde_json::from_str(raw).map_err(|_| NotAnEvent::NotText(name))?;
            Ok(unseparated(&text))
        }
    };
    let required = |name: &'static str| {
        string(name).and_then(|text| if text.is_empty() { Err(NotAnEvent::Missing(name)) } else { Ok(text) })
    };
    let json = |name: &'static str| {
        let raw = members.get(name).map_or("", |raw| raw.get());
        canonical(raw).map_err(|error| NotAnEvent::Member(name, error))
    };
    let (id, zone_id, occurred_at) = (required("id")?, required("zone_id")?, required("occurred_at")?);
    let zone = ZoneId::parse(&zone_id).map_err(|_| NotAnEvent::Zone)?;
    let occurred_at = instant(&occurred_at).ok_or(NotAnEvent::Instant)?;
    let event = StoredEvent {
        id,
        zone_id,
        event_type: string("event_type")?,
        request_id: string("request_id")?,
        decision: string("decision")?,
        policy_set_id: string("policy_set_id")?,
        policy_set_version_id: string("policy_set_version_id")?,
        manifest_sha: string("manifest_sha")?,
        evaluation_status: string("evaluation_status")?,
        determining_policies: json("determining_policies_json")?,
        diagnostics: json("diagnostics_json")?,
        metadata: json("metadata_json")?,
        occurred_at_micros: occurred_at.as_micros(),
    };
    // The hash separates fields by a byte that canonical text can't hold, so what is stored always verifies.
    event.defect().map_or(Ok((zone, event)), |reason| Err(NotAnEvent::Json(reason)))
}

impl StoredEvent {
    /// Whether it may come from somebody else. Any type may but one, which no contract has: any other word is a producer's own.
    pub fn admit(&self, bounds: &Bounds) -> Result<(), NotAdmitted> {
        if EventType::parse(&self.event_type) == EventType::LedgerIncident {
            return Err(NotAdmitted::Reserved);
        }
        let (at, Bounds { earliest, latest }) = (Timestamp::from_micros(self.occurred_at_micros), *bounds);
        if at > latest {
            return Err(NotAdmitted::Ahead { at, latest });
        }
        if at < earliest {
            return Err(NotAdmitted::TooOld { at, earliest });
        }
        Ok(())
    }
}

/// An instant of RFC 3339, with whatever offset. What we write ourselves always ends in `Z`.
pub fn instant(text: &str) -> Option<Timestamp> {
    if let Ok(at) = Timestamp::parse(text) {
        return Some(at);
    }
    let (local, offset) = text.split_at_checked(text.len().checked_sub("+00:00".len())?)?;
    let local = Timestamp::parse(&format!("{local}Z")).ok()?;
    let (sign, offset) = offset.split_at_checked(1)?;
    let (hours, minutes) = offset.split_once(':')?;
    let number = |digits: &str, most: u64| {
        let plain = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse::<u64>().ok().filter(|number| plain && *number <= most)
    };
    let offset = Duration::from_secs(3_600 * number(hours, 23)? + 60 * number(minutes, 59)?);
    match sign {
        "+" => Some(local.minus(offset)),
        "-" => Some(local.plus(offset)),
        _ => None,
    }
}

impl Ledger {
    /// Appends one event of somebody else's, unless it is there.
    pub async fn ingest(&self, tx: &mut ZoneWrite<'_>, event: &StoredEvent) -> Result<Ingested, StoreError> {
        let outcomes = self.ingest_all(tx, std::slice::from_ref(event)).await?;
        outcomes.into_iter().next().ok_or_else(|| StoreError::Statement { reason: "no event was offered".to_owned() })
    }

    /// Appends events of somebody else's, in order, but those that are there, and says what became of each. The same event may
    /// be offered any number of times, also within one call.
    pub async fn ingest_all(
        &self,
        tx: &mut ZoneWrite<'_>,
        events: &[StoredEvent],
    ) -> Result<Vec<Ingested>, StoreError> {
        let (mut outcomes, mut added) = (Vec::with_capacity(events.len()), Vec::new());
        let mut hashes: HashMap<(&str, i64), String> = HashMap::new();
        for event in events {
            let incoming = event.content_sha256();
            let identity = (event.id.as_str(), event.occurred_at_micros);
            let stored = match hashes.get(&identity) {
                Some(hash) => Some(hash.clone()),
                None => evidence::find_by_identity(tx, &event.id, event.occurred_at_micros).await?,
            };
            outcomes.push(match stored {
                Some(stored) if stored == incoming => Ingested::Known,
                Some(stored) => Ingested::Conflicts { stored, incoming },
                None => {
                    hashes.insert(identity, incoming);
                    added.push(event.clone());
                    Ingested::Added
                }
            });
        }
        if !added.is_empty() {
            self.append_events(tx, added).await?;
        }
        Ok(outcomes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The event of the contract's vector (§2.4, §5.2).
    const VECTOR: &str = r#"{"id":"ev-1","zone_id":"z-1","event_type":"token_exchange","request_id":"req-1","decision":"allow","evaluation_status":"complete","determining_policies_json":[{"policy":"p1"}],"diagnostics_json":[],"metadata_json":{"resource":"resource://api","requested_scopes":["read"]},"occurred_at":"2026-01-02T03:04:05.123456789Z"}"#;

    #[test]
    fn t06_evidence_the_contracts_events_have_the_contracts_hashes() {
        let (zone, event) = read_event(VECTOR).unwrap();
        assert_eq!(zone.as_str(), "z-1");
        assert_eq!(event.content_sha256(), "a43bfd4d3e1b8c8b768700edb0c92862ce0153ae50f5dfa011fe2e30adcd0f6a");
        let bare = r#"{"id":"ev-2","zone_id":"z-1","event_type":"token_exchange","request_id":"req-1","decision":"allow","evaluation_status":"complete","occurred_at":"2026-01-02T05:04:05.123456+02:00"}"#;
        let hash = "153847fc5d5dacc9470652ac78ad812a84cae3b67a89adeaced72a8ec9f860d3";
        assert_eq!(read_event(bare).unwrap().1.content_sha256(), hash);
        // Absent and null are one.
        let null =
            bare.replace("\"occurred_at\"", r#""determining_policies_json":null,"metadata_json":null,"occurred_at""#);
        assert_eq!(read_event(&null).unwrap().1.content_sha256(), hash);
    }

    #[test]
    fn what_is_no_event_says_why() {
        let with = |name: &str, value: &str| {
            format!(r#"{{"id":"e","zone_id":"z","occurred_at":"2026-01-01T00:00:00Z","{name}":{value}}}"#)
        };
        for (text, expected) in [
            ("{".to_owned(), "not a JSON object"),
            (r#"{"id":"e"}"#.to_owned(), "`zone_id` is missing"),
            (with("id", "\"\""), "`id` is missing"),
            (with("id", "null"), "`id` is missing"),
            (with("decision", "5"), "`decision` is not text"),
            (with("zone_id", "\"a b\""), "`zone_id` is no id"),
            (with("occurred_at", "\"0001-01-01T00:00:00Z\""), "`occurred_at` is no RFC 3339 instant"),
            (with("occurred_at", "\"yesterday\""), "`occurred_at` is no RFC 3339 instant"),
            (with("metadata_json", r#""\ud800""#), "`metadata_json`: half a surrogate pair"),
            (format!("{} x", with("x", "1")), "not a JSON object"),
            ("[]".to_owned(), "not a JSON object"),
        ] {
            let error = read_event(&text).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
        assert!(read_event(&with("unknown", "[1,{}]")).is_ok(), "unknown members are tolerated");
    }

    #[test]
    fn t06_evidence_ingest_takes_what_can_have_happened_and_is_kept_to_the_microsecond() {
        let now = Timestamp::parse("2026-01-10T00:00:00Z").unwrap();
        let bounds = Bounds::at(now, Duration::from_secs(86_400));
        for (at, taken) in [
            ("2026-01-08T23:59:59.999999Z", false),
            ("2026-01-09T00:00:00Z", true),
            ("2026-01-10T00:05:00Z", true),
            ("2026-01-10T00:05:00.000001Z", false),
            ("9999-12-31T23:59:59Z", false),
            ("1970-01-01T00:00:00Z", false),
        ] {
            let (_, event) = read_event(&VECTOR.replace("2026-01-02T03:04:05.123456789Z", at)).unwrap();
            assert_eq!(event.admit(&bounds).is_ok(), taken, "{at}: {:?}", event.admit(&bounds));
        }
    }

    #[test]
    fn nul_is_taken_out_and_an_escaped_backslash_survives() {
        let text = "{\"id\":\"e\\u0000\",\"zone_id\":\"z\",\"decision\":\"al\\u0000low\",\"occurred_at\":\"2026-01-01T00:00:00Z\",\
                    \"metadata_json\":{\"k\\u0000ey\":\"a\\u0000b\",\"path\":\"C:\\\\u0000\"}}";
        let (_, event) = read_event(text).unwrap();
        assert_eq!((event.id.as_str(), event.decision.as_str()), ("e", "allow"));
        assert_eq!(event.metadata, "{\"key\": \"ab\", \"path\": \"C:\\\\u0000\"}");
    }

    #[test]
    fn an_instant_has_any_offset_and_anything_else_is_none() {
        let noon = Timestamp::parse("2026-01-01T12:00:00Z").ok();
        for text in [
            "2026-01-01T12:00:00Z",
            "2026-01-01T12:00:00+00:00",
            "2026-01-01T12:00:00-00:00",
            "2026-01-01T14:00:00+02:00",
            "2026-01-01T06:30:00.000-05:30",
        ] {
            assert_eq!(instant(text), noon, "{text}");
        }
        let cut = Timestamp::parse("2026-01-01T12:00:00.123456Z").ok();
        assert_eq!(instant("2026-01-01T14:00:00.123456999+02:00"), cut, "cut off, not rounded");
        for text in [
            "",
            "now",
            "2026-01-01",
            "2026-01-01T12:00:00",
            "2026-01-01T12:00:00 02:00",
            "2026-01-01T12:00:00+2:00",
            "2026-01-01T12:00:00+24:00",
            "2026-01-01T12:00:00+00:60",
            "2026-01-01T12:00:00++1:00",
            "2026-13-01T12:00:00+00:00",
            "\u{e9}\u{e9}\u{e9}:00",
        ] {
            assert_eq!(instant(text), None, "{text}");
        }
    }
}
