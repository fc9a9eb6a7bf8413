//! Identifiers. Each kind is its own type, so that an agent session can never be passed where a
//! delegation edge is expected.
//!
//! An id is opaque text of 1 to 128 bytes out of `A-Z a-z 0-9 . _ : -` (contract: admin-api.md §1.4,
//! gateway.md §6 step 8). Cloning is a reference count.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest id accepted anywhere, in bytes.
pub const MAX_ID_BYTES: usize = 128;

/// Text that is not an id: empty, longer than [`MAX_ID_BYTES`], or with a character outside the id alphabet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an id: expected 1 to 128 characters out of letters, digits, `.`, `_`, `:` and `-`")]
pub struct NotAnId;

/// Whether `text` has the shape of an id.
pub fn is_id(text: &str) -> bool {
    (1..=MAX_ID_BYTES).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'-'))
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)+) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes text that comes from outside. Fails unless it has the shape of an id.
            pub fn parse(text: &str) -> Result<Self, NotAnId> {
                if is_id(text) { Ok(Self(Arc::from(text))) } else { Err(NotAnId) }
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), &self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }

        impl std::str::FromStr for $name {
            type Err = NotAnId;
            fn from_str(text: &str) -> Result<Self, NotAnId> {
                Self::parse(text)
            }
        }
    )+};
}

ids! {
    /// A tenant. Everything but admin tokens belongs to exactly one zone.
    ZoneId;
    /// A registered application: the client that authenticates at the STS.
    ApplicationId;
    /// A workload: what is launched with credentials in its environment.
    WorkloadId;
    /// A credential provider of a zone.
    ProviderId;
    /// A registered identity provider of a zone.
    SubjectIssuerId;
    /// An account at a provider.
    ConnectionId;
    /// The row id of a resource; clients mostly speak of resources by their identifier.
    ResourceId;
    /// A governed session (`agent_session_id` on the wire).
    AgentSessionId;
    /// A delegation edge (`delegation_edge_id` on the wire).
    EdgeId;
    /// A service that an application offers to agents.
    ServiceId;
    /// One request to such a service.
    InvocationId;
    /// One STS exchange: identity and revocation anchor (`sid` in a mandate, `session_id` in forms).
    AuthorityRecordId;
    /// A policy: one data document with its versions.
    PolicyId;
    /// An immutable snapshot of one policy document.
    PolicyVersionId;
    /// A policy set.
    PolicySetId;
    /// An immutable manifest of policy versions.
    PolicySetVersionId;
    /// A delegated grant: who may be represented by which application.
    GrantId;
    /// A process that decides, for as long as it runs.
    ReplicaId;
    /// An admin token.
    AdminTokenId;
    /// A signing key (`kid`).
    KeyId;
    /// One issued mandate (`jti`).
    MandateId;
    /// A hold that waits for a human (`approval_id` on the wire, `challenge_id` in evidence).
    ApprovalId;
    /// An evidence event.
    EventId;
    /// An outbox message.
    OutboxId;
    /// Where approval events of a zone are sent.
    NotificationSinkId;
    /// One event on its way to one sink.
    NotificationDeliveryId;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_1_to_128_characters_of_its_alphabet() {
        assert!(ZoneId::parse("a").is_ok());
        assert!(ZoneId::parse("0199c0de-0000-7000-8000-000000000001").is_ok());
        assert!(ZoneId::parse("provider-none-z.1_2:3").is_ok());
        assert!(ZoneId::parse(&"a".repeat(128)).is_ok());
        for refused in ["", "a b", "../z", "a/b", "ä", "a\0", "a\n"] {
            assert_eq!(ZoneId::parse(refused), Err(NotAnId), "{refused:?}");
        }
        assert_eq!(ZoneId::parse(&"a".repeat(129)), Err(NotAnId));
    }
}
