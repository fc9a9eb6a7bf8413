//! An account as it is stored, however its tokens were had: an active one of the same provider and subject gets them and
//! keeps its id; else a new one does.

use caracal_authority::{ConnectionId, ProviderId};
use caracal_http::Problem;
use caracal_store::ZoneWrite;
use caracal_store::provider_connections::{self, Connection, SealedTokens};

use crate::problem::Refusal;

/// Stores the tokens of the account of `subject`; `id` is for one that is new.
pub(super) async fn upsert(
    tx: &mut ZoneWrite<'_>,
    id: &ConnectionId,
    provider: &ProviderId,
    subject: &str,
    tokens: &SealedTokens,
) -> Result<Connection, Refusal> {
    let id = match provider_connections::find_active(tx, provider, subject).await? {
        Some(active) => {
            provider_connections::replace_tokens(tx, &active.id, tokens).await?;
            active.id
        }
        None => {
            let SealedTokens { access_token, refresh_token, expires_at } = tokens.clone();
            let row = Connection {
                zone_id: tx.zone().clone(),
                id: id.clone(),
                subject_id: subject.to_owned(),
                provider_id: provider.clone(),
                status: "active".to_owned(),
                access_token,
                refresh_token,
                expires_at,
                refreshed_at: None,
                version: 0,
                lease_until: None,
                refresh_failed_at: None,
                created_at: tx.now(),
                updated_at: tx.now(),
            };
            provider_connections::add(tx, &row).await?;
            id.clone()
        }
    };
    provider_connections::lookup(tx, &id).await?.ok_or_else(|| Problem::internal().into())
}
