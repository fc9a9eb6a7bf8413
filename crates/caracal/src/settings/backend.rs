//! Where sealed secrets lie (contract: sts.md §10.6, §17).

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use caracal_broker::backends::{AwsSettings, AzureSettings, BackendUrl, GoogleSettings, InfisicalSettings};
use caracal_crypto::SecretText;

use super::clouds;
use super::variables::Reader;
use super::{Environment, Mistakes, Service};

const KIND: &str = "CARACAL_SECRET_BACKEND";
const KINDS: &str = "builtin, vault, infisical, azurekeyvault, awssecretsmanager, gcpsecretmanager, custom";

/// `CARACAL_SECRET_BACKEND` with what it needs.
#[derive(Clone)]
pub enum SecretBackendSettings {
    /// In the store.
    Builtin,
    /// In a vault.
    Vault {
        /// `CARACAL_VAULT_ADDR`.
        address: BackendUrl,
        /// `CARACAL_VAULT_TOKEN`.
        token: Arc<SecretText>,
        /// `CARACAL_VAULT_MOUNT`.
        mount: String,
        /// `CARACAL_VAULT_NAMESPACE`.
        namespace: Option<String>,
    },
    /// In Infisical.
    Infisical(InfisicalSettings),
    /// In an Azure key vault.
    Azure(AzureSettings),
    /// In AWS Secrets Manager.
    Aws(AwsSettings),
    /// In Google Secret Manager.
    Google(GoogleSettings),
    /// At a server of the operator's own.
    Custom {
        /// `CARACAL_CUSTOM_SECRETS_URL`.
        url: BackendUrl,
        /// `CARACAL_CUSTOM_SECRETS_TOKEN`.
        token: Arc<SecretText>,
    },
}

impl fmt::Debug for SecretBackendSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Builtin => "builtin",
            Self::Vault { .. } => "vault",
            Self::Infisical(_) => "infisical",
            Self::Azure(_) => "azurekeyvault",
            Self::Aws(_) => "awssecretsmanager",
            Self::Google(_) => "gcpsecretmanager",
            Self::Custom { .. } => "custom",
        })
    }
}

/// Where secrets lie, and the file of further certificate authorities, for who needs no other setting.
pub fn secret_backend(environment: &Environment) -> Result<(SecretBackendSettings, Option<PathBuf>), Mistakes> {
    let mut mistakes = Vec::new();
    let mut reader = Reader { environment, roles: &Service::ALL, mistakes: &mut mistakes };
    let settings = SecretBackendSettings::read(&mut reader);
    let extra_ca_file = reader.text("CARACAL_TLS_EXTRA_CA_FILE").map(PathBuf::from);
    if mistakes.is_empty() { Ok((settings, extra_ca_file)) } else { Err(Mistakes(mistakes)) }
}

impl SecretBackendSettings {
    /// Unknown or incomplete is a mistake; there is nothing to fall back to.
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let kind = reader.text(KIND).unwrap_or_default().trim().to_ascii_lowercase();
        let read = match kind.as_str() {
            "" | "builtin" => Some(Self::Builtin),
            "vault" => Self::vault(reader),
            "infisical" => clouds::infisical(reader).map(Self::Infisical),
            "azurekeyvault" => clouds::azure(reader).map(Self::Azure),
            "awssecretsmanager" => clouds::aws(reader).map(Self::Aws),
            "gcpsecretmanager" => clouds::google(reader).map(Self::Google),
            "custom" => Self::custom(reader),
            _ => {
                reader.mistake(KIND, format!("`{kind}` is none of {KINDS}"));
                None
            }
        };
        // What is missing is a mistake already, and nothing starts with one.
        read.unwrap_or(Self::Builtin)
    }

    fn vault(reader: &mut Reader<'_>) -> Option<Self> {
        let address = url(reader, "CARACAL_VAULT_ADDR");
        let token = token(reader, "CARACAL_VAULT_TOKEN");
        let mount = reader.text("CARACAL_VAULT_MOUNT").unwrap_or_else(|| "secret".to_owned());
        let namespace = reader.text("CARACAL_VAULT_NAMESPACE");
        Some(Self::Vault { address: address?, token: token?, mount, namespace })
    }

    fn custom(reader: &mut Reader<'_>) -> Option<Self> {
        let url = url(reader, "CARACAL_CUSTOM_SECRETS_URL");
        let token = token(reader, "CARACAL_CUSTOM_SECRETS_TOKEN");
        Some(Self::Custom { url: url?, token: token? })
    }
}

/// A text without which there is no such backend.
pub(super) fn needed(reader: &mut Reader<'_>, name: &str) -> Option<String> {
    let text = reader.text(name);
    if text.is_none() {
        reader.mistake(name, format!("is needed with this {KIND}"));
    }
    text
}

pub(super) fn url(reader: &mut Reader<'_>, name: &str) -> Option<BackendUrl> {
    let text = needed(reader, name)?;
    BackendUrl::parse(&text).map_err(|error| reader.mistake(name, error.to_string())).ok()
}

pub(super) fn token(reader: &mut Reader<'_>, name: &str) -> Option<Arc<SecretText>> {
    let before = reader.mistakes.len();
    let found = reader.secret(name).map(|text| Arc::new(SecretText::new(text)));
    if found.is_none() && reader.mistakes.len() == before {
        reader.mistake(name, format!("is needed with this {KIND}"));
    }
    found
}
