//! The credential of a provider, once it was granted: the same for a Gateway's directive and for a workload's launch.
//!
//! May wait for a provider's token endpoint, or for the backend where secrets lie. Nothing is held meanwhile: the snapshot is
//! over, and should the zone move on, the commit notices and the decision is made anew, with the token at hand.

use caracal_authority::Timestamp;
use caracal_broker::SecretDocument;
use caracal_crypto::{SecretBytes, SecretText};
use caracal_custody::provider_secret_ref;
use caracal_store::providers::Provider;

use crate::Sts;
use crate::directive::{self, Lacks, NoDirective};

/// A credential, as the upstream wants it but for its place.
pub(crate) struct Credential {
    pub(crate) token: SecretText,
    /// When it runs out, where that is known.
    pub(crate) expires_at: Option<Timestamp>,
}

impl Sts {
    /// Makes the credential that `provider` `lacks`; `kept` is its secret document where that lies in the store. One that
    /// is nobody's, or a person's, is not made here.
    pub(crate) async fn provider_credential(
        &self,
        provider: &Provider,
        kept: Option<&SecretBytes>,
        lacks: Lacks,
    ) -> Result<Credential, NoDirective> {
        let fetched;
        let secret = if self.secrets.is_external() {
            fetched = self.fetched(provider).await?;
            fetched.as_ref()
        } else {
            kept
        };
        let mut secrets = SecretDocument::read(secret).ok_or(NoDirective::Secret)?;
        let endless = |token| Credential { token, expires_at: None };
        match lacks {
            Lacks::Nothing | Lacks::AccountToken => Err(NoDirective::Kind),
            Lacks::Stored(name) => directive::stored(&mut secrets, name).map(endless),
            Lacks::Password => directive::basic(provider, &mut secrets).map(endless),
            Lacks::ServiceToken => {
                let issued = self.broker.service_token(provider, secrets).await.map_err(NoDirective::from)?;
                let token = SecretText::new(issued.access_token.expose().clone());
                Ok(Credential { token, expires_at: Some(issued.expires_at) })
            }
        }
    }

    /// A provider's secrets, where they lie outside the store.
    async fn fetched(&self, provider: &Provider) -> Result<Option<SecretBytes>, NoDirective> {
        let place = provider_secret_ref(&provider.zone_id, &provider.id);
        self.secrets.fetch(&place).await.map_err(|error| {
            tracing::error!(zone = %provider.zone_id, provider = %provider.id, %error, "a provider's secret is not had");
            NoDirective::Secret
        })
    }
}
