//! The fields of each kind of provider, and what each holds (contract: admin-api.md §5.4, tables "Config per kind").

use caracal_broker::RESERVED_PARAMETERS;
use serde_json::{Value, json};

/// What a field holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    Secret,
    /// A secret of several lines.
    PrivateKey,
    Certificate,
    /// An absolute `https` URL.
    Endpoint,
    /// An absolute URI of any scheme.
    RedirectUri,
    Text,
    Texts,
    OneOf(&'static [&'static str]),
    /// Parameters by name, none of them one of these.
    Parameters(&'static [&'static str]),
    /// Hosts of token endpoints, as the operator wrote them.
    EndpointHosts,
    HeaderName,
    ParameterName,
    Scheme,
    Flag,
    Hosts,
    Username,
    Placement,
}

impl Holds {
    /// What such a field may hold, as far as a schema can tell.
    pub(super) fn schema(self) -> Value {
        match self {
            Self::Secret | Self::PrivateKey => json!({"type": "string", "minLength": 1, "writeOnly": true}),
            Self::OneOf(choices) => json!({"type": "string", "enum": choices}),
            Self::Placement => json!({"type": "string", "enum": ["header", "query"]}),
            Self::Flag => json!({"type": "boolean"}),
            Self::Texts | Self::EndpointHosts | Self::Hosts => {
                json!({"type": "array", "minItems": 1, "items": {"type": "string", "minLength": 1}})
            }
            Self::Parameters(_) => json!({"type": "object", "additionalProperties": {"type": "string"}}),
            Self::Endpoint => json!({"type": "string", "pattern": "^\\s*[Hh][Tt][Tt][Pp][Ss]://"}),
            Self::ParameterName => json!({"type": "string", "pattern": "^\\s*[A-Za-z0-9._~-]+\\s*$"}),
            Self::Scheme => json!({"type": "string", "pattern": "^\\s*[A-Za-z][A-Za-z0-9-]*\\s*$"}),
            Self::Certificate | Self::RedirectUri | Self::Text | Self::HeaderName | Self::Username => {
                json!({"type": "string", "minLength": 1})
            }
        }
    }
}

pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) holds: Holds,
    pub(super) required: bool,
}

const fn field(name: &'static str, holds: Holds) -> Field {
    Field { name, holds, required: false }
}

const fn required(name: &'static str, holds: Holds) -> Field {
    Field { name, holds, required: true }
}

/// The fields of a kind; none if it is no kind of a provider.
pub(super) fn of_kind(kind: &str) -> Option<&'static [Field]> {
    match kind {
        "none" | "caracal_mandate" => Some(&[]),
        "api_key" => Some(API_KEY),
        "bearer_token" => Some(BEARER_TOKEN),
        "http_basic" => Some(HTTP_BASIC),
        "oauth2_authorization_code" => Some(AUTHORIZATION_CODE),
        "oauth2_client_credentials" => Some(CLIENT_CREDENTIALS),
        _ => None,
    }
}

const API_KEY: &[Field] = &[
    field("auth_location", Holds::Placement),
    field("header_name", Holds::HeaderName),
    field("query_param_name", Holds::ParameterName),
    required("api_key", Holds::Secret),
    field("allowed_token_hosts", Holds::Hosts),
    field("auth_scheme", Holds::Scheme),
    field("forward_caracal_identity", Holds::Flag),
    field("allow_runtime_injection", Holds::Flag),
];
const BEARER_TOKEN: &[Field] = &[
    required("bearer_token", Holds::Secret),
    field("allowed_token_hosts", Holds::Hosts),
    field("auth_header", Holds::HeaderName),
    field("auth_scheme", Holds::Scheme),
    field("forward_caracal_identity", Holds::Flag),
    field("allow_runtime_injection", Holds::Flag),
];
const HTTP_BASIC: &[Field] = &[
    required("username", Holds::Username),
    required("password", Holds::Secret),
    field("allowed_token_hosts", Holds::Hosts),
    field("forward_caracal_identity", Holds::Flag),
];

/// What the authorization request sets itself.
const RESERVED_AUTHORIZATION_PARAMETERS: &[&str] =
    &["client_id", "code_challenge", "code_challenge_method", "redirect_uri", "response_type", "scope", "state"];
const AUTH_METHODS: Holds = Holds::OneOf(&["client_secret_basic", "client_secret_post", "private_key_jwt", "none"]);

const AUTHORIZATION_CODE: &[Field] = &[
    required("authorization_endpoint", Holds::Endpoint),
    required("token_endpoint", Holds::Endpoint),
    required("redirect_uri", Holds::RedirectUri),
    required("client_id", Holds::Text),
    field("client_secret", Holds::Secret),
    field("scopes", Holds::Texts),
    field("client_auth_method", AUTH_METHODS),
    field("revocation_endpoint", Holds::Endpoint),
    field("allowed_token_hosts", Holds::EndpointHosts),
    field("authorization_params", Holds::Parameters(RESERVED_AUTHORIZATION_PARAMETERS)),
    field("token_params", Holds::Parameters(RESERVED_PARAMETERS)),
    field("auth_header", Holds::HeaderName),
    field("auth_scheme", Holds::Scheme),
    field("forward_caracal_identity", Holds::Flag),
];
const CLIENT_CREDENTIALS: &[Field] = &[
    required("token_endpoint", Holds::Endpoint),
    required("client_id", Holds::Text),
    field("client_secret", Holds::Secret),
    field("private_key", Holds::PrivateKey),
    field("scopes", Holds::Texts),
    field("client_auth_method", AUTH_METHODS),
    field("grant_type", Holds::OneOf(&["client_credentials", "jwt_bearer"])),
    field("assertion_subject", Holds::Text),
    field("assertion_audience", Holds::Text),
    field("audience", Holds::Text),
    field("resource", Holds::Text),
    field("allowed_token_hosts", Holds::EndpointHosts),
    field("token_params", Holds::Parameters(RESERVED_PARAMETERS)),
    field("key_id", Holds::Text),
    field("certificate", Holds::Certificate),
    field("auth_header", Holds::HeaderName),
    field("auth_scheme", Holds::Scheme),
    field("forward_caracal_identity", Holds::Flag),
    field("allow_runtime_injection", Holds::Flag),
];
