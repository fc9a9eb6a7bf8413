//! Telling a provider that a token is to be good for nothing any more (RFC 7009; contract: admin-api.md §5.5).

use caracal_custody::ConnectionToken;
use caracal_http::egress::TargetUrl;
use caracal_store::provider_connections::Connection;

use crate::Broker;
use crate::settings::TokenSettings;

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamRevocation {
    /// The provider has no place for it.
    Unsupported,
    /// It said yes.
    Revoked,
    /// It said something else, or could not be asked.
    Failed,
}

impl UpstreamRevocation {
    /// The wire name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unsupported => "unsupported",
            Self::Revoked => "revoked",
            Self::Failed => "failed",
        }
    }
}

impl Broker {
    /// Revokes the tokens of `row` where they come from: the refresh token, with which the others fall, else the access
    /// token. Asked once; nothing depends on the answer.
    pub async fn revoke_upstream(&self, row: &Connection) -> UpstreamRevocation {
        let Ok((Some(provider), secrets)) = self.provider(row).await else { return UpstreamRevocation::Failed };
        let Some(url) = provider.config.get("revocation_endpoint").and_then(|url| url.as_str()) else {
            return UpstreamRevocation::Unsupported;
        };
        let told = async {
            let settings = TokenSettings::read(&provider.config).ok()?;
            let url = TargetUrl::parse(url).ok().filter(|url| url.is_https() && settings.allows(url))?;
            let (which, sealed, hint) = match &row.refresh_token {
                Some(sealed) => (ConnectionToken::Refresh, sealed, "refresh_token"),
                None => (ConnectionToken::Access, &row.access_token, "access_token"),
            };
            let token = self.sealed.open_token(which, row.into(), sealed).ok()?;
            self.endpoints.revoke(&settings, url, &secrets?, &token, hint).await.ok()
        };
        match told.await {
            Some(true) => UpstreamRevocation::Revoked,
            _ => {
                tracing::warn!(zone = %row.zone_id, connection = %row.id, "a provider was not told of a revocation");
                UpstreamRevocation::Failed
            }
        }
    }
}
