//! What a check of a provider's token endpoint comes to, and how it is told.

use caracal_authority::{Timestamp, ZoneId};
use caracal_broker::{Check, CheckStatus, SecretDocument};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::Admin;
use crate::openapi::shape::described;
use crate::problem::Refusal;

/// The kind whose tokens are those of accounts.
const WITH_ACCOUNTS: &str = "oauth2_authorization_code";

described! {
    /// A finding with its time.
    #[derive(Serialize)]
    pub(super) struct Checked {
        status: &'static str,
        detail: String,
        checked_at: Timestamp,
    }
}

impl Checked {
    pub(super) fn is_ok(&self) -> bool {
        self.status == CheckStatus::Ok.as_str()
    }

    /// As a member of a refusal.
    pub(super) fn to_json(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

/// 400 unless the kind has something to check.
pub(super) fn require_endpoint(kind: &str) -> Result<(), Refusal> {
    if super::asks_an_endpoint(kind) {
        return Ok(());
    }
    let refusal = Refusal::invalid("provider_check_unsupported");
    Err(refusal.describe(format!("a provider of kind {kind} has no token endpoint to ask")))
}

/// Tries the endpoint out; the caller has counted it.
pub(super) async fn run(
    admin: &Admin,
    zone: &ZoneId,
    kind: &str,
    config: &Map<String, Value>,
    secrets: &SecretDocument,
) -> Checked {
    let Check { status, detail } = admin.broker.check(kind == WITH_ACCOUNTS, config, secrets).await;
    tracing::info!(%zone, kind, status = status.as_str(), "a provider was checked");
    Checked { status: status.as_str(), detail, checked_at: admin.store.now() }
}
