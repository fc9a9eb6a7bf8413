//! Evidence events: what a service wants to have on record ([`Evidence`]), and the same event as the text of its
//! columns ([`StoredEvent`]), which is what the chain covers (contract: audit-and-streams.md §2).
//!
//! No event may hold a token, a secret, claims or a body (§2.3). Types keep secrets out rather than a filter: metadata
//! takes only what turns into a JSON value, which a secret never does, under keys of one list.

use caracal_authority::{EvaluationStatus, EventId, MetadataKey, PolicySetId, PolicySetVersionId, Timestamp, ZoneId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::canonical::{NotCanonical, canonical_list, canonical_object};

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
            /// Any other word: clients with the producer key may add events of their own kinds.
            Other(String),
        }

        impl $name {
            /// Every word there is.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Reads a word; one we do not know is kept as it is.
            pub fn parse(word: &str) -> Self {
                match word {
                    $($word => Self::$variant,)+
                    other => Self::Other(other.to_owned()),
                }
            }

            /// The word on the wire and in the store.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $word,)+
                    Self::Other(word) => word,
                }
            }
        }
    };
}

words! {
    /// `event_type` (§2.2).
    EventType {
        /// An exchange at the STS, one per requested resource and one per refused request.
        TokenExchange = "token_exchange",
        /// A workload launch.
        RunLaunch = "run_launch",
        /// A hold was created and waits for approval.
        StepUpIssued = "step_up_issued",
        /// A hold was approved or rejected.
        StepUpDecided = "step_up_decided",
        /// An approved hold was spent.
        StepUpConsumed = "step_up_consumed",
        /// Two mandates would have had one identity.
        JtiCollision = "jti_collision",
        /// A one-shot mandate came back.
        ReplayDetected = "replay_detected",
        /// The Gateway forwarded a permitted call, or tried to.
        GatewayResourceRequest = "gateway_resource_request",
        /// A command of the Control endpoint.
        ControlInvoke = "control.invoke",
        /// A secret was shown to an operator.
        CredentialRevealed = "credential_revealed",
        /// An application took back a mandate, or tried to take back another's. Not of the contract.
        MandateRevoked = "mandate_revoked",
        /// Somebody decided a hold that was not theirs to decide. Not of the contract.
        StepUpRefused = "step_up_refused",
        /// The ledger itself is not as it was written, or somebody tried to write it anew. Not of the contract.
        LedgerIncident = "ledger_incident",
    }
}

words! {
    /// `decision` (§2.2).
    Decision {
        /// Granted.
        Allow = "allow",
        /// Refused.
        Deny = "deny",
        /// Waits for an approval.
        Pending = "pending",
        /// A hold was approved.
        Approved = "approved",
        /// A hold was rejected.
        Rejected = "rejected",
        /// A hold was spent.
        Consumed = "consumed",
    }
}

impl Decision {
    /// Whether this refuses, in any spelling: `DENY` counts (§2.1).
    pub fn is_deny(&self) -> bool {
        self.as_str().eq_ignore_ascii_case("deny")
    }
}

/// Attributes of an event (§2.3). Keys are of a list that is closed, so no caller chooses them; values are what turns into
/// JSON, which secrets do not.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metadata(Map<String, Value>);

impl Metadata {
    /// No attributes: stored as absent.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets one attribute, replacing an earlier one of that key.
    #[must_use]
    pub fn with(mut self, key: MetadataKey, value: impl Into<Value>) -> Self {
        self.set(key, value);
        self
    }

    /// Sets one attribute if it is known.
    #[must_use]
    pub fn with_known(self, key: MetadataKey, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(value) => self.with(key, value),
            None => self,
        }
    }

    /// Sets one attribute in place.
    pub fn set(&mut self, key: MetadataKey, value: impl Into<Value>) {
        self.0.insert(key.as_str().to_owned(), value.into());
    }

    /// These attributes, and those of `other`, which replace ones of the same key.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// Leaves one attribute out.
    #[must_use]
    pub fn without(mut self, key: MetadataKey) -> Self {
        self.0.remove(key.as_str());
        self
    }

    /// The attributes as a JSON object.
    pub fn into_map(self) -> Map<String, Value> {
        self.0
    }

    /// The attribute of that key.
    pub fn get(&self, key: MetadataKey) -> Option<&Value> {
        self.0.get(key.as_str())
    }
}

/// An event to be appended to the evidence chain of its zone.
///
/// ```
/// # use caracal_ledger::{Decision, EvaluationStatus, EventType, Evidence, MetadataKey};
/// # use caracal_authority::{EventId, Timestamp, ZoneId};
/// # let (id, zone) = (EventId::parse("e-1").unwrap(), ZoneId::parse("z-1").unwrap());
/// let complete = EvaluationStatus::Complete;
/// let event = Evidence::new(id, zone, EventType::TokenExchange, Decision::Allow, complete, Timestamp::EPOCH)
///     .request("req-1")
///     .determined_by("p1")
///     .attribute(MetadataKey::Resource, "resource://api");
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Evidence {
    /// Made by the server, never taken from a request.
    pub id: EventId,
    /// Selects the chain.
    pub zone: ZoneId,
    /// What kind of thing happened.
    pub event_type: EventType,
    /// Correlates one request across services; empty when there is none.
    pub request_id: String,
    /// How it was decided.
    pub decision: Decision,
    /// The policy set that decided, when one did.
    pub policy_set_id: Option<PolicySetId>,
    /// The version of that set.
    pub policy_set_version_id: Option<PolicySetVersionId>,
    /// The hash of that version's manifest.
    pub manifest_sha: Option<String>,
    /// A word of §2.2, or one of ours.
    pub evaluation_status: EvaluationStatus,
    /// Objects of the form `{"policy":"<name>"}`.
    pub determining_policies: Vec<Value>,
    /// Objects, often `{"reason":"…"}`.
    pub diagnostics: Vec<Value>,
    /// Attributes of §2.3.
    pub metadata: Metadata,
    /// When it happened, by the store's clock.
    pub occurred_at: Timestamp,
}

impl Evidence {
    /// An event with nothing optional.
    pub fn new(
        id: EventId,
        zone: ZoneId,
        event_type: EventType,
        decision: Decision,
        evaluation_status: EvaluationStatus,
        occurred_at: Timestamp,
    ) -> Self {
        Self {
            id,
            zone,
            event_type,
            request_id: String::new(),
            decision,
            policy_set_id: None,
            policy_set_version_id: None,
            manifest_sha: None,
            evaluation_status,
            determining_policies: Vec::new(),
            diagnostics: Vec::new(),
            metadata: Metadata::new(),
            occurred_at,
        }
    }

    /// Names the request this belongs to.
    #[must_use]
    pub fn request(mut self, request_id: impl Into<String>) -> Self {
        self.request_id = request_id.into();
        self
    }

    /// Names the policies that were in force.
    #[must_use]
    pub fn under_policy(
        mut self,
        set: Option<PolicySetId>,
        version: Option<PolicySetVersionId>,
        manifest_sha: Option<String>,
    ) -> Self {
        self.policy_set_id = set;
        self.policy_set_version_id = version;
        self.manifest_sha = manifest_sha;
        self
    }

    /// Adds a determining policy by name.
    #[must_use]
    pub fn determined_by(mut self, policy: impl Into<String>) -> Self {
        self.determining_policies.push(serde_json::json!({ "policy": policy.into() }));
        self
    }

    /// Adds a diagnostic object.
    #[must_use]
    pub fn diagnostic(mut self, diagnostic: Value) -> Self {
        self.diagnostics.push(diagnostic);
        self
    }

    /// Adds the diagnostic `{"reason": …}`.
    #[must_use]
    pub fn because(self, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        self.diagnostic(serde_json::json!({ "reason": reason }))
    }

    /// Sets one attribute.
    #[must_use]
    pub fn attribute(mut self, key: MetadataKey, value: impl Into<Value>) -> Self {
        self.metadata.set(key, value);
        self
    }

    /// Sets all attributes at once.
    #[must_use]
    pub fn with_metadata(mut self, metadata: Metadata) -> Self {
        self.metadata = metadata;
        self
    }

    /// The event as it is stored and hashed. The lists are `[]` when empty, never `null`; absent metadata is `null`.
    ///
    /// U+0000 is removed from every text (§2.1), and so is U+001F: it separates the fields under the hash, and a field
    /// that held one could be split differently without changing it.
    pub fn to_stored(&self) -> Result<StoredEvent, NotCanonical> {
        let or_empty = |text: Option<&str>| text.map(unseparated).unwrap_or_default();
        Ok(StoredEvent {
            id: self.id.as_str().to_owned(),
            zone_id: self.zone.as_str().to_owned(),
            event_type: unseparated(self.event_type.as_str()),
            request_id: unseparated(&self.request_id),
            decision: unseparated(self.decision.as_str()),
            policy_set_id: or_empty(self.policy_set_id.as_ref().map(PolicySetId::as_str)),
            policy_set_version_id: or_empty(self.policy_set_version_id.as_ref().map(PolicySetVersionId::as_str)),
            manifest_sha: or_empty(self.manifest_sha.as_deref()),
            evaluation_status: self.evaluation_status.as_str().to_owned(),
            determining_policies: canonical_list(&self.determining_policies)?,
            diagnostics: canonical_list(&self.diagnostics)?,
            metadata: if self.metadata.0.is_empty() { "null".to_owned() } else { canonical_object(&self.metadata.0)? },
            occurred_at_micros: self.occurred_at.as_micros(),
        })
    }
}

/// Separates the fields under a content hash.
pub(crate) const SEPARATOR: char = '\u{1f}';

/// `text` without the two characters that no field under a hash may hold.
pub(crate) fn unseparated(text: &str) -> String {
    text.replace(['\0', SEPARATOR], "")
}

/// An evidence event as the text of its columns: exactly what `content_sha256` covers, nothing else.
///
/// A column that is absent in the store is the empty text here; keep the columns `NOT NULL`, so that each value has
/// one representation and no change of representation stays unseen. JSON columns hold canonical text and are hashed
/// as they stand: verification does not repair them first.
///
/// As JSON it has the names of the contract, with each JSON column as the text that it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredEvent {
    /// `id`.
    pub id: String,
    /// `zone_id`.
    pub zone_id: String,
    /// `event_type`.
    pub event_type: String,
    /// `request_id`.
    pub request_id: String,
    /// `decision`.
    pub decision: String,
    /// `policy_set_id`, empty when none.
    pub policy_set_id: String,
    /// `policy_set_version_id`, empty when none.
    pub policy_set_version_id: String,
    /// `manifest_sha`, empty when none.
    pub manifest_sha: String,
    /// `evaluation_status`.
    pub evaluation_status: String,
    /// `determining_policies_json`: canonical text.
    #[serde(rename = "determining_policies_json")]
    pub determining_policies: String,
    /// `diagnostics_json`: canonical text.
    #[serde(rename = "diagnostics_json")]
    pub diagnostics: String,
    /// `metadata_json`: canonical text, `null` when absent.
    #[serde(rename = "metadata_json")]
    pub metadata: String,
    /// `occurred_at`: microseconds since the epoch, UTC. Not a [`Timestamp`], which would clamp what was tampered with.
    pub occurred_at_micros: i64,
}

impl StoredEvent {
    /// The texts under the hash with their names, in the order of §5.2.
    pub fn texts(&self) -> [(&'static str, &str); 12] {
        [
            ("id", &self.id),
            ("zone_id", &self.zone_id),
            ("event_type", &self.event_type),
            ("request_id", &self.request_id),
            ("decision", &self.decision),
            ("policy_set_id", &self.policy_set_id),
            ("policy_set_version_id", &self.policy_set_version_id),
            ("manifest_sha", &self.manifest_sha),
            ("evaluation_status", &self.evaluation_status),
            ("determining_policies_json", &self.determining_policies),
            ("diagnostics_json", &self.diagnostics),
            ("metadata_json", &self.metadata),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event() -> Evidence {
        let id = EventId::parse("ev-1").unwrap();
        let zone = ZoneId::parse("z-1").unwrap();
        let status = EvaluationStatus::ScopeMismatch;
        Evidence::new(id, zone, EventType::TokenExchange, Decision::Deny, status, Timestamp::from_micros(7))
    }

    #[test]
    fn empty_lists_are_lists_and_absent_metadata_is_null() {
        let stored = event().to_stored().unwrap();
        assert_eq!(stored.determining_policies, "[]");
        assert_eq!(stored.diagnostics, "[]");
        assert_eq!(stored.metadata, "null");
        assert_eq!(stored.policy_set_id, "");
    }

    #[test]
    fn json_columns_hold_canonical_text() {
        let stored = event()
            .determined_by("p2")
            .because("scope not granted")
            .attribute(MetadataKey::Resource, "resource://api")
            .attribute(MetadataKey::Env, "prod")
            .attribute(MetadataKey::LatencyMs, 1.50)
            .with_metadata(
                Metadata::new()
                    .with(MetadataKey::Tier, 1)
                    .with(MetadataKey::Env, json!({"y": 1, "x": [null]}))
                    .with_known(MetadataKey::Use, None::<u8>),
            )
            .to_stored()
            .unwrap();
        assert_eq!(stored.determining_policies, r#"[{"policy": "p2"}]"#);
        assert_eq!(stored.diagnostics, r#"[{"reason": "scope not granted"}]"#);
        assert_eq!(stored.metadata, r#"{"env": {"x": [null], "y": 1}, "tier": 1}"#);
    }

    #[test]
    fn nul_and_the_separator_are_removed_from_every_text() {
        let mut event = event().request("r\0eq\u{1f}-1").under_policy(None, None, Some("\0ab\u{1f}".to_owned()));
        event.event_type = EventType::Other("to\0ken\u{1f}_x".to_owned());
        event.decision = Decision::Other("al\0low\u{1f}".to_owned());
        event.diagnostics = vec![json!({"k\u{0}": "a\u{0}b", "s": "\u{1f}"})];
        let stored = event.attribute(MetadataKey::Env, "C:\\u0000").to_stored().unwrap();
        for (name, text) in stored.texts() {
            assert!(!text.contains(['\0', '\u{1f}']), "{name}: {text:?}");
        }
        assert_eq!(stored.request_id, "req-1");
        assert_eq!(stored.event_type, "token_x");
        assert_eq!(stored.diagnostics, r#"[{"k": "ab", "s": "\u001f"}]"#);
        assert_eq!(stored.metadata, r#"{"env": "C:\\u0000"}"#);
    }

    #[test]
    fn words_round_trip_and_unknown_words_are_kept() {
        for word in EventType::ALL {
            assert_eq!(&EventType::parse(word.as_str()), word);
        }
        for word in Decision::ALL {
            assert_eq!(&Decision::parse(word.as_str()), word);
        }
        assert_eq!(EventType::parse("tool_call").as_str(), "tool_call");
        assert_eq!(Decision::parse("Allow"), Decision::Other("Allow".to_owned()));
    }

    #[test]
    fn a_denial_is_one_in_any_spelling() {
        for word in ["deny", "DENY", "Deny"] {
            assert!(Decision::parse(word).is_deny(), "{word}");
        }
        for word in ["allow", "denied", "", "pending"] {
            assert!(!Decision::parse(word).is_deny(), "{word}");
        }
    }

    /// What `docs/schemas` tells others is what we write.
    #[test]
    fn the_published_schema_names_what_events_have() {
        let text = include_str!("../../../docs/schemas/caracal-audit-event-2026-05-21.schema.json");
        let schema: Value = serde_json::from_str(text).unwrap();
        let decisions: Vec<&str> = Decision::ALL.iter().map(Decision::as_str).collect();
        assert_eq!(schema["properties"]["decision"]["enum"], json!(decisions));
        let types = schema["properties"]["event_type"]["description"].as_str().unwrap();
        for event_type in EventType::ALL {
            assert!(types.contains(event_type.as_str()), "{event_type:?}");
        }
        let statuses: Vec<&str> = EvaluationStatus::ALL.iter().map(|status| status.as_str()).collect();
        assert_eq!(schema["properties"]["evaluation_status"]["examples"], json!(statuses));
        let described = schema["properties"]["metadata_json"]["properties"].as_object().unwrap();
        let mut keys: Vec<&str> = described.keys().map(String::as_str).collect();
        keys.sort_unstable();
        let mut listed: Vec<&str> = MetadataKey::ALL.iter().map(|key| key.as_str()).collect();
        listed.sort_unstable();
        assert_eq!(keys, listed);
        let stored = event().to_stored().unwrap();
        let mut names: Vec<&str> = stored.texts().iter().map(|(name, _)| *name).collect();
        names.push("occurred_at");
        let properties = schema["properties"].as_object().unwrap();
        assert!(names.iter().all(|name| properties.contains_key(*name)) && names.len() == properties.len());
        // Lists are never null (README D3), so each of our events has all that is required.
        for required in schema["required"].as_array().unwrap() {
            assert!(names.contains(&required.as_str().unwrap()), "{required}");
        }
        assert!(stored.determining_policies.starts_with('[') && stored.diagnostics.starts_with('['));
    }
}
