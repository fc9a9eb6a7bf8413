//! Sealed secrets where the settings say that they lie.

use std::sync::Arc;

use caracal_broker::backends::{
    AwsBackend, AzureBackend, CachedBackend, CustomBackend, GoogleBackend, InfisicalBackend, VaultBackend,
    VaultSettings,
};
use caracal_custody::{SealedSecrets, SecretBackend};
use caracal_http::egress::{OperatorClient, SystemResolver, TlsTrust};
use caracal_store::Store;

use super::copy;
use crate::settings::{SecretBackendSettings, Settings};

/// The same secrets, with their envelopes in the backend of `settings`.
pub(super) fn placed(settings: &Settings, store: &Store, sealed: SealedSecrets) -> SealedSecrets {
    let trust = TlsTrust::load(settings.extra_ca_file.as_deref());
    let client = OperatorClient::new(Arc::new(SystemResolver::new()), trust);
    let backend: Arc<dyn SecretBackend> = match settings.secret_backend.clone() {
        SecretBackendSettings::Builtin => return sealed,
        SecretBackendSettings::Vault { address, token, mount, namespace } => {
            Arc::new(VaultBackend::new(client, VaultSettings { address, token: copy(&token), mount, namespace }))
        }
        SecretBackendSettings::Infisical(infisical) => Arc::new(InfisicalBackend::new(client, infisical)),
        SecretBackendSettings::Azure(azure) => Arc::new(AzureBackend::new(client, store.clone(), azure)),
        SecretBackendSettings::Aws(aws) => Arc::new(AwsBackend::new(client, store.clone(), aws)),
        SecretBackendSettings::Google(google) => Arc::new(GoogleBackend::new(client, store.clone(), google)),
        SecretBackendSettings::Custom { url, token } => Arc::new(CustomBackend::new(client, url, copy(&token))),
    };
    sealed.in_backend(Arc::new(CachedBackend::new(backend, store.clone())))
}
