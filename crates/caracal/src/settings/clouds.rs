//! What the secret stores of others need (contract: sts.md §10.6, admin-api.md §6).

use std::path::PathBuf;
use std::sync::Arc;

use caracal_broker::backends::{
    AwsCredentials, AwsKeys, AwsSettings, AzureCloud, AzureCredentials, AzureSettings, BackendUrl,
    ContainerAuthorization, GoogleCredentials, GoogleSettings, InfisicalSettings, ServiceAccount, is_google_project,
};
use caracal_crypto::SecretText;

use super::backend::{needed, token, url};
use super::variables::Reader;

pub(super) fn infisical(reader: &mut Reader<'_>) -> Option<InfisicalSettings> {
    let name = "CARACAL_INFISICAL_URL";
    let text = reader.text(name).unwrap_or_else(|| "https://app.infisical.com".to_owned());
    let url = BackendUrl::parse(&text).map_err(|error| reader.mistake(name, error.to_string())).ok();
    let token = token(reader, "CARACAL_INFISICAL_TOKEN");
    let project = needed(reader, "CARACAL_INFISICAL_PROJECT_ID");
    let environment = reader.text("CARACAL_INFISICAL_ENV").unwrap_or_else(|| "prod".to_owned());
    let path = reader.text("CARACAL_INFISICAL_PATH").unwrap_or_else(|| "/".to_owned());
    if !path.starts_with('/') {
        reader.mistake("CARACAL_INFISICAL_PATH", format!("`{path}` is no folder: one starts with a slash"));
    }
    Some(InfisicalSettings { url: url?, token: token?, project: project?, environment, path })
}

/// With a secret it is a client, and everything of it is needed; without, it is the machine.
pub(super) fn azure(reader: &mut Reader<'_>) -> Option<AzureSettings> {
    const SECRET: &str = "CARACAL_AZURE_CLIENT_SECRET";
    let vault = url(reader, "CARACAL_AZURE_VAULT_URL");
    let before = reader.mistakes.len();
    let secret = reader.secret(SECRET);
    if reader.mistakes.len() > before {
        return None;
    }
    let credentials = match secret {
        Some(secret) => {
            let tenant = needed(reader, "CARACAL_AZURE_TENANT_ID");
            let client_id = needed(reader, "CARACAL_AZURE_CLIENT_ID");
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
            if tenant.as_ref().is_some_and(|tenant| !tenant.bytes().all(is_name)) {
                let what = "is neither the id nor a domain of a tenant".to_owned();
                reader.mistake("CARACAL_AZURE_TENANT_ID", what);
            }
            AzureCredentials::Client {
                tenant: tenant?,
                client_id: client_id?,
                secret: Arc::new(SecretText::new(secret)),
            }
        }
        None if reader.text("CARACAL_AZURE_TENANT_ID").is_some() => {
            let what = "is needed with CARACAL_AZURE_TENANT_ID; unset that to use the identity of the machine";
            reader.mistake(SECRET, what.to_owned());
            return None;
        }
        None => AzureCredentials::ManagedIdentity { client_id: reader.text("CARACAL_AZURE_CLIENT_ID") },
    };
    let vault = vault?;
    Some(AzureSettings { cloud: AzureCloud::of(&vault), vault, credentials })
}

pub(super) fn aws(reader: &mut Reader<'_>) -> Option<AwsSettings> {
    let region = reader.text("CARACAL_AWS_REGION").or_else(|| reader.text("AWS_REGION"));
    let given = "AWS_ENDPOINT_URL_SECRETS_MANAGER";
    let endpoint = match (&region, reader.text(given)) {
        (None, _) => {
            reader
                .mistake("CARACAL_AWS_REGION", "is needed, or AWS_REGION, with this CARACAL_SECRET_BACKEND".to_owned());
            None
        }
        (Some(region), endpoint) => match (AwsSettings::endpoint(region), endpoint) {
            (None, _) => {
                reader.mistake("CARACAL_AWS_REGION", format!("`{region}` is no region, such as eu-central-1"));
                None
            }
            (own, None) => own,
            (_, Some(text)) => BackendUrl::parse(&text).map_err(|error| reader.mistake(given, error.to_string())).ok(),
        },
    };
    let credentials = aws_credentials(reader);
    Some(AwsSettings { region: region?, endpoint: endpoint?, credentials: credentials? })
}

pub(super) fn aws_credentials(reader: &mut Reader<'_>) -> Option<AwsCredentials> {
    let (id_name, secret_name) = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY");
    let before = reader.mistakes.len();
    let (id, secret) = (reader.text(id_name), reader.secret(secret_name));
    let session = reader.secret("AWS_SESSION_TOKEN").map(SecretText::new);
    match (id, secret) {
        (Some(id), Some(secret)) => {
            return Some(AwsCredentials::Static(Arc::new(AwsKeys { id, secret: SecretText::new(secret), session })));
        }
        (None, Some(_)) => reader.mistake(id_name, format!("is needed with {secret_name}")),
        (Some(_), None) if reader.mistakes.len() == before => {
            reader.mistake(secret_name, format!("is needed with {id_name}"));
        }
        _ => {}
    }
    if reader.mistakes.len() > before {
        return None;
    }
    let relative = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI";
    let full = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
    let endpoint = match (reader.text(relative), reader.text(full)) {
        (Some(path), _) => {
            AwsCredentials::relative_uri(&path).map_err(|_| reader.mistake(relative, format!("`{path}` is no path")))
        }
        (None, Some(uri)) => AwsCredentials::full_uri(&uri).map_err(|error| {
            reader.mistake(full, format!("{error}, or an address at which AWS lends keys to containers"));
        }),
        (None, None) => {
            let what = "is needed, with AWS_SECRET_ACCESS_KEY; or AWS_CONTAINER_CREDENTIALS_RELATIVE_URI or _FULL_URI, which \
                        ECS and EKS set in a container that has a role";
            reader.mistake(id_name, what.to_owned());
            return None;
        }
    };
    // Not read here: the platform writes the file anew, and what was read at start would run out.
    let token = reader.text("AWS_CONTAINER_AUTHORIZATION_TOKEN");
    let file = reader.text("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
    let authorization = match (token, file) {
        (Some(token), _) => Some(ContainerAuthorization::Token(Arc::new(SecretText::new(token)))),
        (None, Some(file)) => Some(ContainerAuthorization::File(PathBuf::from(file))),
        (None, None) => None,
    };
    Some(AwsCredentials::Container { endpoint: endpoint.ok()?, authorization })
}

pub(super) fn google(reader: &mut Reader<'_>) -> Option<GoogleSettings> {
    let name = "CARACAL_GCP_PROJECT";
    let project = needed(reader, name);
    if project.as_ref().is_some_and(|project| !is_google_project(project)) {
        reader.mistake(name, "is neither the id nor the number of a project".to_owned());
    }
    let files = ["CARACAL_GCP_CREDENTIALS_FILE", "GOOGLE_APPLICATION_CREDENTIALS"];
    let file = files.into_iter().find_map(|name| reader.text(name).map(|path| (name, path)));
    let credentials = match file {
        None => GoogleCredentials::of_machine(),
        Some((name, path)) => {
            let read = std::fs::read_to_string(&path).map(SecretText::new);
            let account = match read {
                Ok(text) => ServiceAccount::from_json(text.expose()).map_err(|error| format!("`{path}` {error}")),
                Err(error) => Err(format!("can't read `{path}`: {error}")),
            };
            let account = account.map_err(|what| reader.mistake(name, what)).ok()?;
            GoogleCredentials::ServiceAccount(Arc::new(account))
        }
    };
    Some(GoogleSettings { project: project?, endpoint: GoogleSettings::endpoint(), credentials })
}
