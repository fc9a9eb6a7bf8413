//! What the Gateway needs to reach an upstream: address, placement and value of the credential (contract: sts.md §10.1,
//! §10.2). Made before anything is granted, in full or not at all; never shown to a caller that is not a Gateway.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use caracal_authority::Timestamp;
use caracal_authority::resource::{ProviderKind, ResourceIdentifier};
use caracal_broker::{BrokerError, SecretDocument, TokenSettings};
use caracal_crypto::SecretText;
use caracal_store::providers::Provider;
use caracal_store::resources::CallLimits;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::facts::Upstream;

/// Where a call goes and what credential goes with it. Texts are empty where the contract leaves the member out.
pub struct Directive {
    /// The resource, as the Gateway looks it up.
    pub resource: ResourceIdentifier,
    /// `url`.
    pub url: String,
    /// `auth_mode`.
    pub auth_mode: &'static str,
    /// `auth_location`.
    pub auth_location: &'static str,
    /// `auth_header`.
    pub auth_header: String,
    /// `query_param_name`.
    pub query_param_name: String,
    /// `auth_scheme`.
    pub auth_scheme: String,
    /// `allowed_token_hosts`, lower case.
    pub allowed_token_hosts: Vec<String>,
    /// `provider_token`.
    pub provider_token: Option<SecretText>,
    /// `provider_id`.
    pub provider_id: String,
    /// `connection_id`.
    pub connection_id: String,
    /// `forward_caracal_identity`.
    pub forward_caracal_identity: bool,
    /// `expires_at`: when the token runs out, where that is known.
    pub expires_at: Option<Timestamp>,
    /// `limits`: of calls of this resource.
    pub limits: CallLimits,
}

/// A directive that can't be made. The texts are for evidence and logs; a caller reads 502 and nothing of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoDirective {
    #[error("the resource has no upstream")]
    NoUpstream,
    #[error("the provider's configuration is not usable")]
    Config,
    #[error("the provider's secret is not available")]
    Secret,
    #[error("this kind of provider is not served")]
    Kind,
    #[error(transparent)]
    Token(#[from] BrokerError),
}

impl NoDirective {
    /// The reason token of its evidence.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::NoUpstream => "no_upstream",
            Self::Config | Self::Kind => "provider_config_invalid",
            Self::Secret => "provider_secret_unavailable",
            Self::Token(error) => error.reason(),
        }
    }
}

/// What has to be put into a directive before it is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lacks {
    /// Nothing: no credential is injected, or the minted mandate is.
    Nothing,
    /// A member of the sealed document.
    Stored(&'static str),
    /// User name and sealed password.
    Password,
    /// A token that the provider issues to the client itself.
    ServiceToken,
    /// A token of the subject's account.
    AccountToken,
}

/// Whether a directive for `provider` needs its sealed secret.
pub(crate) fn needs_secret(provider: &Provider) -> bool {
    matches!(
        ProviderKind::parse(&provider.kind),
        ProviderKind::ApiKey
            | ProviderKind::BearerToken
            | ProviderKind::HttpBasic
            | ProviderKind::Oauth2ClientCredentials
    )
}

/// Whether it needs an account of the subject.
pub(crate) fn needs_account(provider: &Provider) -> bool {
    ProviderKind::parse(&provider.kind) == ProviderKind::Oauth2AuthorizationCode
}

/// Makes the directive for `upstream`, all but the credential, and says which one it lacks. Asks nobody: what is
/// configured wrongly is known before anything is sent.
pub(crate) fn outline(upstream: &Upstream) -> Result<(Directive, Lacks), NoDirective> {
    let url = upstream.url.clone().ok_or(NoDirective::NoUpstream)?;
    let mut directive = Directive::bare(upstream.resource.identifier.clone(), url);
    directive.limits = upstream.limits;
    let Some(provider) = &upstream.provider else {
        directive.forward_mandate();
        return Ok((directive, Lacks::Nothing));
    };
    directive.provider_id = provider.id.to_string();
    let lacks = directive.place(provider)?;
    Ok((directive, lacks))
}

/// What the credential of `provider` is made of, wherever it goes, if its configuration is one that a credential can be
/// made by.
pub(crate) fn lacks(resource: &ResourceIdentifier, provider: &Provider) -> Result<Lacks, NoDirective> {
    let lacks = Directive::bare(resource.clone(), String::new()).place(provider)?;
    if lacks == Lacks::ServiceToken {
        TokenSettings::read(&provider.config).map_err(|_| NoDirective::Config)?;
    }
    Ok(lacks)
}

/// The credential that lies in the provider's opened secrets under `name`.
pub(crate) fn stored(secrets: &mut SecretDocument, name: &str) -> Result<SecretText, NoDirective> {
    secrets.take(name).ok_or(NoDirective::Secret)
}

/// User name and password as HTTP Basic has them.
pub(crate) fn basic(provider: &Provider, secrets: &mut SecretDocument) -> Result<SecretText, NoDirective> {
    let config = Config(&provider.config);
    let username = config.text("username")?.map(str::trim).filter(|name| !name.is_empty() && !name.contains(':'));
    let username = username.ok_or(NoDirective::Config)?;
    let password = stored(secrets, "password")?;
    let pair = Zeroizing::new(format!("{username}:{}", password.expose()));
    Ok(SecretText::new(STANDARD.encode(pair.as_bytes())))
}

impl Directive {
    /// To an upstream that needs no credential.
    fn bare(resource: ResourceIdentifier, url: String) -> Self {
        Self {
            resource,
            url,
            auth_mode: "none",
            auth_location: "",
            auth_header: String::new(),
            query_param_name: String::new(),
            auth_scheme: String::new(),
            allowed_token_hosts: Vec::new(),
            provider_token: None,
            provider_id: String::new(),
            connection_id: String::new(),
            forward_caracal_identity: false,
            expires_at: None,
            limits: CallLimits::default(),
        }
    }

    /// Says where the credential of `provider` goes, and what it is made of.
    fn place(&mut self, provider: &Provider) -> Result<Lacks, NoDirective> {
        let config = Config(&provider.config);
        let lacks = match ProviderKind::parse(&provider.kind) {
            ProviderKind::None => Lacks::Nothing,
            ProviderKind::CaracalMandate => {
                self.forward_mandate();
                Lacks::Nothing
            }
            ProviderKind::ApiKey => {
                self.auth_mode = "provider_apikey";
                self.place_api_key(&config)?;
                Lacks::Stored("api_key")
            }
            ProviderKind::BearerToken => {
                self.place_token(&config)?;
                Lacks::Stored("bearer_token")
            }
            ProviderKind::HttpBasic => {
                self.auth_mode = "provider_oauth";
                "Authorization".clone_into(&mut self.auth_header);
                "Basic".clone_into(&mut self.auth_scheme);
                Lacks::Password
            }
            ProviderKind::Oauth2ClientCredentials => {
                self.place_token(&config)?;
                Lacks::ServiceToken
            }
            ProviderKind::Oauth2AuthorizationCode => {
                self.place_token(&config)?;
                Lacks::AccountToken
            }
            ProviderKind::Unrecognised => return Err(NoDirective::Kind),
        };
        if matches!(lacks, Lacks::Stored(_) | Lacks::Password) {
            // Of a token that is issued, they are the hosts that may be asked for it, and say nothing of the upstream.
            self.allowed_token_hosts = config.hosts()?;
        }
        if lacks != Lacks::Nothing {
            self.forward_caracal_identity = config.flag("forward_caracal_identity")?;
        }
        Ok(lacks)
    }

    /// The upstream verifies the minted mandate itself.
    fn forward_mandate(&mut self) {
        self.auth_mode = "caracal_jwt";
        "Authorization".clone_into(&mut self.auth_header);
        "Bearer".clone_into(&mut self.auth_scheme);
    }

    /// A token that comes with a scheme, in a header.
    fn place_token(&mut self, config: &Config<'_>) -> Result<(), NoDirective> {
        self.auth_mode = "provider_oauth";
        self.auth_header = config.header("auth_header")?.unwrap_or("Authorization").to_owned();
        self.auth_scheme = config.scheme()?.unwrap_or("Bearer").to_owned();
        Ok(())
    }

    fn place_api_key(&mut self, config: &Config<'_>) -> Result<(), NoDirective> {
        match config.text("auth_location")?.unwrap_or("header") {
            "header" => {
                self.auth_location = "header";
                self.auth_header = config.header("header_name")?.ok_or(NoDirective::Config)?.to_owned();
                self.auth_scheme = config.scheme()?.unwrap_or_default().to_owned();
            }
            "query" => {
                let name = config.text("query_param_name")?.ok_or(NoDirective::Config)?;
                let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'~' | b'-');
                if !name.bytes().all(unreserved) || config.text("auth_scheme")?.is_some() {
                    return Err(NoDirective::Config);
                }
                self.auth_location = "query";
                name.clone_into(&mut self.query_param_name);
            }
            _ => return Err(NoDirective::Config),
        }
        Ok(())
    }
}

/// A provider's public configuration, read strictly: what is there must be of its type.
struct Config<'c>(&'c Map<String, Value>);

impl<'c> Config<'c> {
    /// A text; an empty one is as good as none.
    fn text(&self, name: &str) -> Result<Option<&'c str>, NoDirective> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
            Some(_) => Err(NoDirective::Config),
        }
    }

    fn flag(&self, name: &str) -> Result<bool, NoDirective> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(NoDirective::Config),
        }
    }

    fn header(&self, name: &str) -> Result<Option<&'c str>, NoDirective> {
        let header = self.text(name)?;
        match header.is_none_or(|header| http::HeaderName::from_bytes(header.as_bytes()).is_ok()) {
            true => Ok(header),
            false => Err(NoDirective::Config),
        }
    }

    fn scheme(&self) -> Result<Option<&'c str>, NoDirective> {
        let scheme = self.text("auth_scheme")?;
        let well_formed = |scheme: &str| {
            scheme.starts_with(|first: char| first.is_ascii_alphabetic())
                && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        if scheme.is_none_or(well_formed) { Ok(scheme) } else { Err(NoDirective::Config) }
    }

    /// Hosts the credential may go to. An unusable entry must not leave the list shorter than it was meant.
    fn hosts(&self) -> Result<Vec<String>, NoDirective> {
        let listed = match self.0.get("allowed_token_hosts") {
            None | Some(Value::Null) => return Ok(Vec::new()),
            Some(Value::Array(listed)) if !listed.is_empty() => listed,
            Some(_) => return Err(NoDirective::Config),
        };
        let host = |value: &Value| {
            let host = value.as_str()?.trim().to_ascii_lowercase();
            let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
            let ends = host.starts_with(|first: char| first.is_ascii_alphanumeric())
                && host.ends_with(|last: char| last.is_ascii_alphanumeric());
            (host.len() <= 253 && ends && host.bytes().all(inner) && !host.contains("..")).then_some(host)
        };
        listed.iter().map(|value| host(value).ok_or(NoDirective::Config)).collect()
    }
}
