//! The input document of schema `2026-05-20` (contract: policy.md §3), as a type.
//!
//! This is the only way to put a question to the ladder, and its JSON is what documents, evidence and
//! simulation see. On the wire an optional member that is empty, zero or null is left out, so within this type
//! an empty optional member means the same as none: [`Input`] and its JSON can never decide differently.

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

/// Version of the input schema; also that of data documents.
pub const INPUT_SCHEMA_VERSION: &str = "2026-05-20";

/// The scope that bootstraps a session; policy never mints it.
pub const LIFECYCLE_SCOPE: &str = "agent:lifecycle";

/// One question: may this principal do this on this resource?
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Input {
    /// Always [`INPUT_SCHEMA_VERSION`].
    pub schema_version: SchemaVersion,
    /// Who asks.
    #[serde(deserialize_with = "object")]
    pub principal: Principal,
    /// What is asked for.
    #[serde(deserialize_with = "object")]
    pub resource: Resource,
    /// In which way.
    #[serde(deserialize_with = "object")]
    pub action: Action,
    /// The authority record, if one is named.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "optional_object")]
    pub session: Option<Session>,
    /// The verified delegation, if there is one.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "optional_object")]
    pub delegation_edge: Option<DelegationEdge>,
    /// What accompanies the request.
    #[serde(deserialize_with = "object")]
    pub context: Context,
}

/// The only supported schema version, as a value. Reads an empty or missing version as this one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SchemaVersion;

/// The calling application or launching workload; never the subject.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Principal {
    /// `Application` or `Workload`.
    #[serde(rename = "type", deserialize_with = "null_is_default")]
    pub kind: PrincipalKind,
    /// Id of the authenticated application or of the workload.
    #[serde(deserialize_with = "null_is_default")]
    pub id: String,
    /// Zone.
    #[serde(deserialize_with = "null_is_default")]
    pub zone_id: String,
    /// `managed` or `dcr`.
    #[serde(skip_serializing_if = "is_absent", deserialize_with = "empty_is_none")]
    pub registration_method: Option<String>,
    /// Governed session.
    #[serde(skip_serializing_if = "is_absent", deserialize_with = "empty_is_none")]
    pub agent_session_id: Option<String>,
    /// `task` or `service`.
    #[serde(skip_serializing_if = "is_absent", deserialize_with = "empty_is_none")]
    pub lifecycle: Option<String>,
    /// Labels of the session; with a delegation those of its target.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub labels: Vec<String>,
}

macro_rules! open_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
            /// Any other text, as a simulation may send it; no row of the ladder takes it for one of the above.
            Other(String),
        }

        impl Default for $name {
            fn default() -> Self {
                Self::Other(String::new())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(match self {
                    $(Self::$variant => stringify!($variant),)+
                    Self::Other(text) => text,
                })
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Ok(match text.as_str() {
                    $(stringify!($variant) => Self::$variant,)+
                    _ => Self::Other(text),
                })
            }
        }
    };
}

open_enum! {
    /// What kind of principal asks.
    PrincipalKind {
        /// An application exchanging a token.
        Application,
        /// A workload that receives a credential at launch.
        Workload,
    }
}

open_enum! {
    /// What is being done.
    ActionId {
        /// A token exchange.
        TokenExchange,
        /// A credential injected into a workload.
        CredentialInjection,
    }
}

/// The resource asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resource {
    /// Always `Resource`; empty only in a simulation that leaves it out.
    #[serde(rename = "type", deserialize_with = "null_is_default")]
    pub kind: String,
    /// Row id.
    #[serde(deserialize_with = "null_is_default")]
    pub id: String,
    /// Identifier, exact and case-sensitive.
    #[serde(deserialize_with = "null_is_default")]
    pub identifier: String,
    /// Declared scopes, without the implicit lifecycle scope.
    #[serde(deserialize_with = "null_is_default")]
    pub scopes: Vec<String>,
}

impl Resource {
    /// The value of `resource.type`.
    pub const KIND: &'static str = "Resource";
}

/// The operation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Action {
    /// Exchange or injection.
    #[serde(deserialize_with = "null_is_default")]
    pub id: ActionId,
    /// Upstream method, trimmed and upper-cased; only for exchanges the Gateway authenticates.
    #[serde(skip_serializing_if = "is_absent", deserialize_with = "empty_is_none")]
    pub method: Option<String>,
    /// Upstream path, trimmed.
    #[serde(skip_serializing_if = "is_absent", deserialize_with = "empty_is_none")]
    pub path: Option<String>,
}

/// The authority record the request names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Session {
    /// Record id.
    #[serde(deserialize_with = "null_is_default")]
    pub id: String,
}

/// A verified delegation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DelegationEdge {
    /// Delegation id. An empty one makes no mint.
    #[serde(deserialize_with = "null_is_default")]
    pub id: String,
    /// Session that delegates.
    #[serde(skip_serializing_if = "is_absent", deserialize_with = "empty_is_none")]
    pub source_session_id: Option<String>,
    /// Session that receives.
    #[serde(skip_serializing_if = "is_absent", deserialize_with = "empty_is_none")]
    pub target_session_id: Option<String>,
    /// Application that delegates.
    #[serde(skip_serializing_if = "is_absent", deserialize_with = "empty_is_none")]
    pub issuer_application_id: Option<String>,
    /// Application that receives.
    #[serde(skip_serializing_if = "is_absent", deserialize_with = "empty_is_none")]
    pub receiver_application_id: Option<String>,
    /// Resource the delegation is for.
    #[serde(skip_serializing_if = "is_absent", deserialize_with = "empty_is_none")]
    pub resource_id: Option<String>,
    /// Scopes of the edge; none means nothing may be minted over it.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub scopes: Vec<String>,
    /// Version of the edge; 0 is left out.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "null_is_default")]
    pub edge_version: i64,
    /// Epoch of the delegation graph; 0 is left out.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "null_is_default")]
    pub graph_epoch: i64,
    /// Edge ids of the lineage.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub path: Vec<String>,
    /// Constraints as stored. The ladder ignores them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub constraints_json: Option<Value>,
}

/// What accompanies the request.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Context {
    /// `{"caracal_client_id": <application or workload id>}`.
    #[serde(deserialize_with = "null_is_default")]
    pub actor_claims: Map<String, Value>,
    /// All claims of the verified subject token; an empty object counts as none.
    #[serde(skip_serializing_if = "no_claims", deserialize_with = "empty_is_no_claims")]
    pub subject_claims: Option<Map<String, Value>>,
    /// Request id.
    #[serde(skip_serializing_if = "is_absent", deserialize_with = "empty_is_none")]
    pub trace_id: Option<String>,
    /// Authority record id.
    #[serde(skip_serializing_if = "is_absent", deserialize_with = "empty_is_none")]
    pub session_id: Option<String>,
    /// Governed session.
    #[serde(skip_serializing_if = "is_absent", deserialize_with = "empty_is_none")]
    pub agent_session_id: Option<String>,
    /// Delegation id.
    #[serde(skip_serializing_if = "is_absent", deserialize_with = "empty_is_none")]
    pub delegation_edge_id: Option<String>,
    /// An approval was presented and stands. The ladder does not read it.
    #[serde(deserialize_with = "null_is_default")]
    pub challenge_resolved: bool,
    /// Requested scopes, duplicates kept. Null on the wire reads as none.
    #[serde(deserialize_with = "null_is_default")]
    pub requested_scopes: Vec<String>,
}

/// Why a simulation's input cannot be evaluated (contract: policy.md §10.5).
#[derive(Debug, thiserror::Error)]
pub enum SimulationInputError {
    /// A member has the wrong type: `sts_simulation_failed:invalid_token`.
    #[error("the input has a member of the wrong type")]
    WrongType(#[source] serde_json::Error),
    /// A schema version other than the supported one: `sts_simulation_failed:policy_eval_failed`.
    #[error("the input names schema version `{0}`, supported is `{INPUT_SCHEMA_VERSION}`")]
    UnsupportedSchema(String),
}

impl Input {
    /// Normalises a simulation's input: unknown members are dropped, optional ones with empty values vanish,
    /// missing objects become objects with empty strings, a missing schema version is filled in.
    pub fn for_simulation(mut value: Map<String, Value>) -> Result<Self, SimulationInputError> {
        let read = |members| serde_json::from_value(Value::Object(members)).map_err(SimulationInputError::WrongType);
        match value.remove("schema_version") {
            Some(Value::String(version)) if !version.is_empty() && version != INPUT_SCHEMA_VERSION => {
                // A wrong type anywhere is found before the version is looked at.
                read(value).and(Err(SimulationInputError::UnsupportedSchema(version)))
            }
            None | Some(Value::String(_) | Value::Null) => read(value),
            Some(other) => {
                value.insert("schema_version".to_owned(), other);
                read(value)
            }
        }
    }
}

impl Serialize for SchemaVersion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(INPUT_SCHEMA_VERSION)
    }
}

impl<'de> Deserialize<'de> for SchemaVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Option::<String>::deserialize(deserializer)?.as_deref() {
            None | Some("" | INPUT_SCHEMA_VERSION) => Ok(SchemaVersion),
            Some(other) => Err(D::Error::custom(format_args!("unsupported input schema version `{other}`"))),
        }
    }
}

/// Whether an optional member is absent for the decision: none, or empty.
pub(crate) fn is_absent(text: &Option<String>) -> bool {
    text.as_deref().is_none_or(str::is_empty)
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

fn no_claims(claims: &Option<Map<String, Value>>) -> bool {
    claims.as_ref().is_none_or(Map::is_empty)
}

/// An object, nothing else: a derived struct would also take an array of its members' values.
fn object<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(optional_object(deserializer)?.unwrap_or_default())
}

fn optional_object<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Option<T>, D::Error> {
    Option::<Map<String, Value>>::deserialize(deserializer)?
        .map(|members| T::deserialize(Value::Object(members)).map_err(D::Error::custom))
        .transpose()
}

fn null_is_default<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

fn empty_is_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.filter(|text| !text.is_empty()))
}

fn empty_is_no_claims<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Map<String, Value>>, D::Error> {
    Ok(Option::<Map<String, Value>>::deserialize(deserializer)?.filter(|claims| !claims.is_empty()))
}
