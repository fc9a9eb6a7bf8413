//! Credential providers (contract: admin-api.md §5.4).

pub(crate) mod archive;
mod check;
mod config;
pub(crate) mod create;
pub(crate) mod desired;
pub(crate) mod discovery;
mod identifier;
pub(crate) mod list;
pub(crate) mod read;
pub(crate) mod test;
pub(crate) mod update;

use caracal_authority::{ProviderId, Timestamp, ZoneId};
use caracal_broker::SecretDocument;
use caracal_custody::provider_secret_ref;
use caracal_store::providers::{self, Provider};
use caracal_store::{StoreError, ZoneRead};
use serde::Serialize;
use serde_json::{Map, Value};

pub(crate) use self::identifier::built_in_none;
use crate::Admin;
use crate::attribution::Attributed;
use crate::input::{Body, Fields, Mismatch, Text};
use crate::openapi::shape::described;
use crate::problem::Refusal;

/// Every kind of the contract.
const KINDS: &[&str] = &[
    "none",
    "caracal_mandate",
    "api_key",
    "bearer_token",
    "http_basic",
    "oauth2_authorization_code",
    "oauth2_client_credentials",
];

/// Whether a provider of this kind has a token endpoint, so that it can be tried out.
fn asks_an_endpoint(kind: &str) -> bool {
    matches!(kind, "oauth2_authorization_code" | "oauth2_client_credentials")
}

described! {
    /// A provider as answers show it: of its secrets only which there are.
    #[derive(Serialize)]
    pub(crate) struct View<'a> {
        id: &'a ProviderId,
        zone_id: &'a ZoneId,
        name: &'a str,
        identifier: &'a str,
        kind: &'a str,
        config_json: &'a Map<String, Value>,
        secret_config_keys: &'a [String],
        connectivity_failed_at: Option<Timestamp>,
        #[serde(flatten)]
        by: Attributed<'a>,
        archived_at: Option<Timestamp>,
    }
}

impl<'a> From<&'a Provider> for View<'a> {
    fn from(provider: &'a Provider) -> Self {
        Self {
            id: &provider.id,
            zone_id: &provider.zone_id,
            name: &provider.name,
            identifier: &provider.identifier,
            kind: &provider.kind,
            config_json: &provider.config,
            secret_config_keys: &provider.secret_config_keys,
            connectivity_failed_at: provider.connectivity_failed_at,
            by: (&provider.attribution).into(),
            archived_at: provider.archived_at,
        }
    }
}

/// What a body says about a provider. Members nobody knows are ignored here.
struct Draft {
    name: Option<String>,
    identifier: Option<String>,
    kind: Option<&'static str>,
    config: Option<Map<String, Value>>,
    check: bool,
}

impl Draft {
    fn read(body: impl Into<Body>) -> Result<Self, Mismatch> {
        let mut fields = Fields::of(body)?;
        // Blank is absent.
        let present = |text: Option<String>| text.filter(|text| !text.is_empty());
        Ok(Self {
            name: present(fields.text("name", Text::trimmed(0, 200))?),
            identifier: present(fields.text("identifier", Text::trimmed(0, 512))?),
            kind: fields.choice("kind", KINDS)?,
            config: fields.object_like("config_json", config::schema)?,
            check: fields.flag("check")?.unwrap_or(false),
        })
    }
}

/// The provider, if it is there and not archived.
async fn existing(tx: &mut ZoneRead<'_>, id: &ProviderId) -> Result<Provider, Refusal> {
    let found = providers::lookup(tx, id).await?.filter(|provider| provider.archived_at.is_none());
    found.ok_or_else(|| Refusal::missing("provider_not_found"))
}

/// What is sealed for a provider, opened. 502 when it can't be.
pub(crate) async fn secrets(admin: &Admin, zone: &ZoneId, id: &ProviderId) -> Result<SecretDocument, Refusal> {
    let place = provider_secret_ref(zone, id);
    let opened = if admin.sealed.is_external() {
        admin.sealed.fetch(&place).await?
    } else {
        let mut snapshot = admin.store.snapshot().await?;
        admin.sealed.open(&mut snapshot.zone(zone), &place).await?
    };
    SecretDocument::read(opened.as_ref())
        .ok_or_else(|| Refusal::secrets_unavailable("the secret document of a provider is no json object"))
}

fn conflict(error: StoreError) -> Refusal {
    if error.is_conflict_on("providers.identifier") {
        Refusal::conflict("provider_identifier_conflict")
    } else {
        error.into()
    }
}
