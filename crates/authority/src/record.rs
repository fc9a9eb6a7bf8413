//! Authority records: one per exchange, the identity behind a mandate and the anchor of its revocation.
//!
//! Whoever needs a record asks for a [`LiveRecord`]; there is no other way to one than [`check_live`].

use serde::{Deserialize, Serialize};

use crate::{ApplicationId, AuthorityRecordId, Timestamp, ZoneId};

/// Whom a record or mandate speaks for: `sub_type` in a mandate, the record's type in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SubjectKind {
    /// A person, proven by an identity provider.
    User,
    /// The application itself.
    Application,
}

impl SubjectKind {
    /// The wire name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Application => "application",
        }
    }

    /// From the wire name; anything else is no kind.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "user" => Some(Self::User),
            "application" => Some(Self::Application),
            _ => None,
        }
    }
}

/// The stored status of a record. Liveness also needs the time: see [`check_live`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordStatus {
    /// Usable until it expires.
    Active,
    /// Taken back for good.
    Revoked,
    /// Swept after its expiry.
    Expired,
}

impl RecordStatus {
    /// The wire name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
        }
    }

    /// From the wire name; anything else is no status, and so no authority.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "active" => Some(Self::Active),
            "revoked" => Some(Self::Revoked),
            "expired" => Some(Self::Expired),
            _ => None,
        }
    }
}

/// What the store knows of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordFacts {
    /// The record.
    pub id: AuthorityRecordId,
    /// Its zone.
    pub zone: ZoneId,
    /// Whom it speaks for.
    pub kind: SubjectKind,
    /// The application id, or the user's `sub` byte for byte.
    pub subject: String,
    /// The application that made the exchange.
    pub client: ApplicationId,
    /// The record it dies with.
    pub parent: Option<AuthorityRecordId>,
    /// Stored status.
    pub status: RecordStatus,
    /// First instant at which it is no longer live.
    pub expires_at: Timestamp,
}

/// A record seen active and unexpired at the instant of the decision.
#[derive(Debug, Clone, Copy)]
pub struct LiveRecord<'f>(&'f RecordFacts);

impl<'f> LiveRecord<'f> {
    /// The facts behind it.
    pub fn facts(self) -> &'f RecordFacts {
        self.0
    }
}

/// Why a record is not live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DeadRecord {
    /// Revoked.
    #[error("the authority record is revoked")]
    Revoked,
    /// Past its expiry.
    #[error("the authority record has expired")]
    Expired,
}

/// Whether `facts` are those of a live record at `now`. At the very instant of its expiry it is dead.
pub fn check_live(facts: &RecordFacts, now: Timestamp) -> Result<LiveRecord<'_>, DeadRecord> {
    match facts.status {
        RecordStatus::Revoked => Err(DeadRecord::Revoked),
        RecordStatus::Active if facts.expires_at > now => Ok(LiveRecord(facts)),
        RecordStatus::Active | RecordStatus::Expired => Err(DeadRecord::Expired),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(status: RecordStatus) -> RecordFacts {
        RecordFacts {
            id: AuthorityRecordId::parse("rec-1").unwrap(),
            zone: ZoneId::parse("z-1").unwrap(),
            kind: SubjectKind::Application,
            subject: "app-1".into(),
            client: ApplicationId::parse("app-1").unwrap(),
            parent: None,
            status,
            expires_at: Timestamp::from_seconds(100),
        }
    }

    #[test]
    fn only_an_active_unexpired_record_is_live() {
        let micro_before = Timestamp::from_micros(99_999_999);
        for (status, now, expected) in [
            (RecordStatus::Active, micro_before, None),
            (RecordStatus::Active, Timestamp::from_seconds(100), Some(DeadRecord::Expired)),
            (RecordStatus::Active, Timestamp::from_seconds(101), Some(DeadRecord::Expired)),
            (RecordStatus::Revoked, micro_before, Some(DeadRecord::Revoked)),
            (RecordStatus::Expired, micro_before, Some(DeadRecord::Expired)),
        ] {
            assert_eq!(check_live(&record(status), now).err(), expected, "{status:?} at {now}");
        }
    }

    #[test]
    fn wire_names_round_trip_and_unknown_ones_are_nothing() {
        for status in [RecordStatus::Active, RecordStatus::Revoked, RecordStatus::Expired] {
            assert_eq!(RecordStatus::parse(status.as_str()), Some(status));
        }
        for kind in [SubjectKind::User, SubjectKind::Application] {
            assert_eq!(SubjectKind::parse(kind.as_str()), Some(kind));
        }
        assert_eq!(RecordStatus::parse("ACTIVE"), None);
        assert_eq!(SubjectKind::parse("service"), None);
    }
}
