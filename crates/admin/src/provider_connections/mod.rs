//! Accounts at providers (contract: admin-api.md §5.5). Tokens come in and never go out.

pub(crate) mod authorize;
pub(crate) mod callback;
pub(crate) mod import;
pub(crate) mod list;
pub(crate) mod page;
pub(crate) mod revoke;
mod upsert;

use caracal_authority::{ConnectionId, ProviderId, Timestamp, ZoneId};
use caracal_store::ZoneRead;
use caracal_store::provider_connections::{Connection, SHARED_SUBJECT};
use caracal_store::providers::{self, Provider};
use serde::Serialize;

use crate::input::{Fields, Mismatch, Text};
use crate::openapi::shape::described;
use crate::problem::Refusal;

described! {
    /// An account as answers show it.
    #[derive(Serialize)]
    pub(crate) struct View<'a> {
        id: &'a ConnectionId,
        zone_id: &'a ZoneId,
        subject_id: &'a str,
        provider_id: &'a ProviderId,
        status: &'a str,
        expires_at: Option<Timestamp>,
        created_at: Timestamp,
        updated_at: Timestamp,
    }
}

impl<'a> From<&'a Connection> for View<'a> {
    fn from(row: &'a Connection) -> Self {
        Self {
            id: &row.id,
            zone_id: &row.zone_id,
            subject_id: &row.subject_id,
            provider_id: &row.provider_id,
            status: &row.status,
            expires_at: row.expires_at,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

/// Whose account, at which provider.
struct Whose {
    subject: String,
    provider: String,
}

impl Whose {
    fn read(fields: &mut Fields) -> Result<Self, Mismatch> {
        let subject = fields.text("subject_id", Text::exact(1, 512))?;
        Ok(Self {
            subject: subject.unwrap_or_else(|| SHARED_SUBJECT.to_owned()),
            provider: fields.required_text("provider_id", Text::exact(1, 512))?,
        })
    }
}

/// The provider, if it is there, not archived, and one that has accounts.
pub(crate) async fn provider_with_accounts(tx: &mut ZoneRead<'_>, id: &str) -> Result<Provider, Refusal> {
    let missing = || Refusal::missing("provider_not_found");
    let id = ProviderId::parse(id).map_err(|_| missing())?;
    let found = providers::lookup(tx, &id).await?.filter(|provider| provider.archived_at.is_none());
    let provider = found.ok_or_else(missing)?;
    if provider.kind == "oauth2_authorization_code" {
        return Ok(provider);
    }
    Err(Refusal::invalid("provider_connection_unsupported")
        .describe(format!("a provider of kind {} has no accounts", provider.kind)))
}
