//! Sealed secrets where the settings say that they lie.

use std::path::Path;
use std::sync::Arc;

use caracal_broker::backends::{
    AwsBackend, AzureBackend, CachedBackend, CustomBackend, GoogleBackend, InfisicalBackend, VaultBackend,
    VaultSettings,
};
use caracal_custody::{SealedSecrets, SecretBackend};
use caracal_http::egress::{OperatorClient, SystemResolver, TlsTrust};
use caracal_store::{Clock, Store};

use super::copy;
use crate::adapters::StoreTime;
use crate::settings::{SecretBackendSettings, Settings};

/// The same secrets, with their envelopes in the backend of `settings`.
pub(super) fn placed(settings: &Settings, store: &Store, sealed: SealedSecrets) -> SealedSecrets {
    let clock = Arc::new(StoreTime(store.clone()));
    match backend(settings.secret_backend.clone(), settings.extra_ca_file.as_deref(), clock) {
        None => sealed,
        Some(backend) => sealed.in_backend(Arc::new(CachedBackend::new(backend, store.clone())), store.clone()),
    }
}

/// The backend outside the store, if there is one.
pub(super) fn backend(
    settings: SecretBackendSettings,
    extra_ca_file: Option<&Path>,
    clock: Arc<dyn Clock>,
) -> Option<Arc<dyn SecretBackend>> {
    let trust = TlsTrust::load(extra_ca_file);
    let client = OperatorClient::new(Arc::new(SystemResolver::new()), trust);
    Some(match settings {
        SecretBackendSettings::Builtin => return None,
        SecretBackendSettings::Vault { address, token, mount, namespace } => {
            Arc::new(VaultBackend::new(client, VaultSettings { address, token: copy(&token), mount, namespace }))
        }
        SecretBackendSettings::Infisical(infisical) => Arc::new(InfisicalBackend::new(client, infisical)),
        SecretBackendSettings::Azure(azure) => Arc::new(AzureBackend::new(client, clock, azure)),
        SecretBackendSettings::Aws(aws) => Arc::new(AwsBackend::new(client, clock, aws)),
        SecretBackendSettings::Google(google) => Arc::new(GoogleBackend::new(client, clock, google)),
        SecretBackendSettings::Custom { url, token } => Arc::new(CustomBackend::new(client, url, copy(&token))),
    })
}
