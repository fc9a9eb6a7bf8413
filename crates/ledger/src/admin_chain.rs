//! Admin records: who changed product state through the management and coordination APIs, in a chain of their own per
//! zone and one for what belongs to no zone (contract: admin-api.md §9, coordinator.md §14).
//!
//! The payload is hashed as the text that is stored. It is stored in canonical form, so that a record verifies from
//! its columns alone on either engine, also where the column is a `jsonb` that would not keep another spelling.

use caracal_authority::{Timestamp, ZoneId};
use ring::digest;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::canonical::{NotCanonical, canonical_object};
use crate::chain::{ChainRecord, separator_in, update_field};
use crate::event::unseparated;
use crate::hex;

/// A record to be appended to the admin chain of its zone.
#[derive(Debug, Clone, PartialEq)]
pub struct AdminRecord {
    /// Made by the server.
    pub id: String,
    /// The HTTP request.
    pub request_id: String,
    /// Admin token id, or the subject of a coordination token; absent when unauthenticated.
    pub actor_id: Option<String>,
    /// Its name.
    pub actor_name: Option<String>,
    /// Its scope or scopes.
    pub actor_scope: Option<String>,
    /// `<METHOD> <path>`, or the name of a record made inside a business transaction.
    pub action: String,
    /// HTTP method.
    pub method: String,
    /// Path without query.
    pub path: String,
    /// Selects the chain.
    pub zone: Option<ZoneId>,
    /// Collection of the innermost pair of the path.
    pub entity_type: Option<String>,
    /// Id of that pair.
    pub entity_id: Option<String>,
    /// Status of the answer.
    pub status_code: u16,
    /// Names of what changed, never values; absent for the coordination API.
    pub payload: Option<Map<String, Value>>,
    /// When, by the store's clock; kept in milliseconds.
    pub occurred_at: Timestamp,
}

impl AdminRecord {
    /// The record as it is stored and hashed. U+0000 and the separator U+001F are removed from every text, and an
    /// optional text that is empty is absent: both hash alike, so only one of them is ever stored.
    pub fn to_stored(&self) -> Result<StoredAdminRecord, NotCanonical> {
        let known = |text: &Option<String>| text.as_deref().map(unseparated).filter(|text| !text.is_empty());
        Ok(StoredAdminRecord {
            id: unseparated(&self.id),
            request_id: unseparated(&self.request_id),
            actor_id: known(&self.actor_id),
            actor_name: known(&self.actor_name),
            actor_scope: known(&self.actor_scope),
            action: unseparated(&self.action),
            method: unseparated(&self.method),
            path: unseparated(&self.path),
            zone_id: self.zone.as_ref().map(|zone| zone.as_str().to_owned()),
            entity_type: known(&self.entity_type),
            entity_id: known(&self.entity_id),
            status_code: i64::from(self.status_code),
            payload_json: self.payload.as_ref().map(canonical_object).transpose()?,
            occurred_at_micros: self.occurred_at.as_micros() / 1_000 * 1_000,
        })
    }
}

/// An admin record as the text of its columns: exactly what its content hash covers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredAdminRecord {
    /// `id`.
    pub id: String,
    /// `request_id`.
    pub request_id: String,
    /// `actor_id`.
    pub actor_id: Option<String>,
    /// `actor_name`.
    pub actor_name: Option<String>,
    /// `actor_scope`.
    pub actor_scope: Option<String>,
    /// `action`.
    pub action: String,
    /// `method`.
    pub method: String,
    /// `path`.
    pub path: String,
    /// `zone_id`.
    pub zone_id: Option<String>,
    /// `entity_type`.
    pub entity_type: Option<String>,
    /// `entity_id`.
    pub entity_id: Option<String>,
    /// `status_code`.
    pub status_code: i64,
    /// `payload_json`: the text under the hash.
    pub payload_json: Option<String>,
    /// `occurred_at`: microseconds since the epoch, always whole milliseconds.
    pub occurred_at_micros: i64,
}

impl StoredAdminRecord {
    /// Texts under the hash with their names, in order, without status and instant; the payload comes last.
    fn texts(&self) -> [(&'static str, Option<&str>); 12] {
        [
            ("id", Some(&self.id)),
            ("request_id", Some(&self.request_id)),
            ("actor_id", self.actor_id.as_deref()),
            ("actor_name", self.actor_name.as_deref()),
            ("actor_scope", self.actor_scope.as_deref()),
            ("action", Some(&self.action)),
            ("method", Some(&self.method)),
            ("path", Some(&self.path)),
            ("zone_id", self.zone_id.as_deref()),
            ("entity_type", self.entity_type.as_deref()),
            ("entity_id", self.entity_id.as_deref()),
            ("payload_json", self.payload_json.as_deref()),
        ]
    }
}

impl ChainRecord for StoredAdminRecord {
    fn id(&self) -> &str {
        &self.id
    }

    fn zone_id(&self) -> Option<&str> {
        self.zone_id.as_deref()
    }

    fn content_sha256(&self) -> String {
        content_sha256(self)
    }

    fn defect(&self) -> Option<String> {
        let texts = self.texts();
        // Absent and empty hash alike, so only one of them may be in use.
        if let Some((name, _)) = texts[2..].iter().find(|(name, text)| text == &Some("") && is_nullable(name)) {
            return Some(format!("{name} is empty instead of absent"));
        }
        if instant_text(self.occurred_at_micros).is_none() {
            return Some("occurred_at is not a whole millisecond of the years 1970 to 9999".to_owned());
        }
        separator_in(texts.into_iter().map(|(name, text)| (name, text.unwrap_or_default())))
    }
}

fn is_nullable(name: &str) -> bool {
    !matches!(name, "id" | "request_id" | "action" | "method" | "path")
}

/// Content hash of an admin record: its texts, the decimal status, the payload as stored and the instant in ISO
/// milliseconds, each followed by 0x1F, absent as empty.
pub fn content_sha256(record: &StoredAdminRecord) -> String {
    let mut hash = digest::Context::new(&digest::SHA256);
    let [texts @ .., (_, payload)] = record.texts();
    for (_, text) in texts {
        update_field(&mut hash, text.unwrap_or_default());
    }
    update_field(&mut hash, &record.status_code.to_string());
    update_field(&mut hash, payload.unwrap_or_default());
    // What has no such text is a defect of its own; the number at least keeps two of them apart.
    let instant = instant_text(record.occurred_at_micros).unwrap_or_else(|| record.occurred_at_micros.to_string());
    update_field(&mut hash, &instant);
    hex::encode(hash.finish().as_ref())
}

/// `2026-01-01T00:00:00.000Z`, if that text says everything about the instant.
fn instant_text(micros: i64) -> Option<String> {
    let instant = Timestamp::from_micros(micros);
    (instant.as_micros() == micros && micros % 1_000 == 0).then(|| instant.to_millis_text())
}
