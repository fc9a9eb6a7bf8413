//! What answers look like: the schema of every type that is serialised into one.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use caracal_authority::{
    AdminTokenId, AgentSessionId, ApplicationId, ApprovalId, AuthorityRecordId, ConnectionId, GrantId,
    NotificationDeliveryId, NotificationSinkId, OutboxId, PolicyId, PolicySetId, PolicySetVersionId, PolicyVersionId,
    ProviderId, ReplicaId, ResourceId, SubjectIssuerId, Timestamp, WorkloadId, ZoneId,
};
use caracal_policy::Template;
use caracal_policy::text::Validation;
use caracal_store::resources::{CallLimits, Operation};
use caracal_store::workloads::Binding;
use serde_json::{Map, Value, json};

use super::notes::{list, nullable};
use crate::page::Listing;

/// Schemas with names, which others refer to.
#[derive(Default)]
pub(crate) struct Definitions(pub(crate) BTreeMap<String, Value>);

impl Definitions {
    /// A reference to the schema `name`, which `make` makes the first time.
    pub(crate) fn refer(&mut self, name: &str, make: impl FnOnce(&mut Self) -> Value) -> Value {
        if !self.0.contains_key(name) {
            // A place is taken first, or a type that holds itself would be made without end.
            self.0.insert(name.to_owned(), Value::Null);
            let schema = make(self);
            self.0.insert(name.to_owned(), schema);
        }
        json!({"$ref": format!("#/components/schemas/{name}")})
    }
}

/// Something that an answer shows.
pub(crate) trait Shape {
    /// The schema of what it is serialised as.
    fn schema(definitions: &mut Definitions) -> Value;

    /// The members it puts into an object that it is flattened into.
    fn members(_definitions: &mut Definitions) -> Members {
        Members::default()
    }
}

/// Members of an object.
#[derive(Default)]
pub(crate) struct Members {
    properties: Map<String, Value>,
    required: Vec<String>,
}

impl Members {
    /// A member that is always there, or may be left out.
    pub(crate) fn add(&mut self, name: &str, schema: Value, is_always_there: bool) {
        self.properties.insert(name.to_owned(), schema);
        if is_always_there {
            self.required.push(name.to_owned());
        }
    }

    /// The members of something that is flattened into this.
    pub(crate) fn flatten(&mut self, other: Self) {
        self.properties.extend(other.properties);
        self.required.extend(other.required);
    }

    /// The schema of the object.
    pub(crate) fn schema(self) -> Value {
        json!({"type": "object", "properties": self.properties, "required": self.required})
    }
}

/// The name of a type in the document: where it is, and what it is called there.
pub(crate) fn name_of(module: &str, name: &str) -> String {
    let place: Vec<&str> = module.split("::").skip(1).collect();
    format!("{}.{name}", place.join("."))
}

/// Defines a struct that answers show, and its [`Shape`] with it. Whatever attribute decides how a member is written has to
/// be known here, so that one that is not fails to compile.
macro_rules! described {
    ($(#[$($meta:tt)*])* $vis:vis struct $name:ident $(<$life:lifetime>)? {
        $( $(#[$($attr:tt)*])* $field_vis:vis $field:ident : $kind:ty ),* $(,)?
    }) => {
        $(#[$($meta)*])*
        $vis struct $name $(<$life>)? {
            $( $(#[$($attr)*])* $field_vis $field: $kind, )*
        }

        impl $(<$life>)? $crate::openapi::shape::Shape for $name $(<$life>)? {
            fn schema(definitions: &mut $crate::openapi::shape::Definitions) -> serde_json::Value {
                let name = $crate::openapi::shape::name_of(module_path!(), stringify!($name));
                definitions.refer(&name, |definitions| Self::members(definitions).schema())
            }

            fn members(definitions: &mut $crate::openapi::shape::Definitions) -> $crate::openapi::shape::Members {
                let mut members = $crate::openapi::shape::Members::default();
                $( described!(@member members definitions $field ($kind) $([$($attr)*])*); )*
                members
            }
        }
    };
    (@member $members:ident $definitions:ident $field:ident ($kind:ty)) => {
        let schema = <$kind as $crate::openapi::shape::Shape>::schema($definitions);
        $members.add(stringify!($field), schema, true);
    };
    (@member $members:ident $definitions:ident $field:ident ($kind:ty) [serde(flatten)]) => {
        $members.flatten(<$kind as $crate::openapi::shape::Shape>::members($definitions));
    };
    (@member $members:ident $definitions:ident $field:ident ($kind:ty) [serde(skip_serializing_if = $how:literal)]) => {
        let schema = <$kind as $crate::openapi::shape::Shape>::schema($definitions);
        $members.add(stringify!($field), schema, false);
    };
    (@member $members:ident $definitions:ident $field:ident ($kind:ty) [doc = $text:literal] $($rest:tt)*) => {
        described!(@member $members $definitions $field ($kind) $($rest)*);
    };
}
pub(crate) use described;

macro_rules! shapes {
    ($($kind:ty => $schema:tt),* $(,)?) => {$(
        impl Shape for $kind {
            fn schema(_: &mut Definitions) -> Value {
                json!($schema)
            }
        }
    )*};
}

shapes! {
    bool => {"type": "boolean"},
    i64 => {"type": "integer"},
    u32 => {"type": "integer", "minimum": 0},
    usize => {"type": "integer", "minimum": 0},
    &str => {"type": "string"},
    String => {"type": "string"},
    () => {"type": "null"},
    Timestamp => {"type": "string", "format": "date-time"},
    // Whatever somebody stored or somebody else said.
    Value => {},
    Map<String, Value> => {"type": "object"},
    Operation => {
        "type": "object",
        "properties": {"method": {"type": "string"}, "path": {"type": "string"}, "scope": {"type": "string"}},
        "required": ["method", "path", "scope"],
    },
    CallLimits => {
        "type": "object",
        "properties": {
            "upstream_timeout_ms": {"type": "integer"},
            "stream_idle_timeout_ms": {"type": "integer"},
            "write_timeout_ms": {"type": "integer"},
            "max_request_bytes": {"type": "integer"},
        },
    },
    Binding => {
        "type": "object",
        "properties": {
            "env": {"type": "string"},
            "resource": {"type": "string"},
            "scopes": {"type": "array", "items": {"type": "string"}},
            "optional": {"type": "boolean"},
            "on_failure": {"enum": ["warn", "error"]},
        },
        "required": ["env", "resource"],
    },
    Template => {
        "type": "object",
        "properties": {
            "id": {"type": "string"},
            "name": {"type": "string"},
            "description": {"type": "string"},
            "content": {"type": "string"},
        },
        "required": ["id", "name", "description", "content"],
    },
    Validation => {
        "type": "object",
        "properties": {
            "valid": {"const": true},
            "schema_version": {"type": "string"},
            "input_schema_version": {"type": "string"},
            "output_contract": {"type": "object"},
            "preview": {"type": "object"},
        },
        "required": ["valid", "schema_version", "input_schema_version", "output_contract", "preview"],
    },
}

macro_rules! ids {
    ($($kind:ty),* $(,)?) => {$(
        impl Shape for $kind {
            fn schema(definitions: &mut Definitions) -> Value {
                definitions.refer("Id", |_| json!({
                    "type": "string",
                    "pattern": "^[A-Za-z0-9._:-]{1,128}$",
                }))
            }
        }
    )*};
}

ids! {
    AdminTokenId, AgentSessionId, ApplicationId, ApprovalId, AuthorityRecordId, ConnectionId, GrantId,
    NotificationDeliveryId, NotificationSinkId, OutboxId, PolicyId, PolicySetId, PolicySetVersionId, PolicyVersionId,
    ProviderId, ReplicaId, ResourceId, SubjectIssuerId, WorkloadId, ZoneId,
}

/// A row of a list whose columns can be chosen: whole, or only what was chosen of it.
pub(crate) struct Chosen<T>(PhantomData<T>);

impl<T: Shape> Shape for Chosen<T> {
    fn schema(definitions: &mut Definitions) -> Value {
        json!({"anyOf": [T::schema(definitions), {"type": "object"}]})
    }
}

impl<T: Shape> Shape for &T {
    fn schema(definitions: &mut Definitions) -> Value {
        T::schema(definitions)
    }
}

impl<T: Shape> Shape for Option<T> {
    fn schema(definitions: &mut Definitions) -> Value {
        nullable(T::schema(definitions))
    }

    /// Of what may not be there no member is always there.
    fn members(definitions: &mut Definitions) -> Members {
        Members { required: Vec::new(), ..T::members(definitions) }
    }
}

impl<T: Shape> Shape for Vec<T> {
    fn schema(definitions: &mut Definitions) -> Value {
        list(T::schema(definitions), (0, usize::MAX))
    }
}

impl<T: Shape> Shape for &[T] {
    fn schema(definitions: &mut Definitions) -> Value {
        Vec::<T>::schema(definitions)
    }
}

impl<T: Shape> Shape for Listing<T> {
    fn schema(definitions: &mut Definitions) -> Value {
        json!({
            "type": "object",
            "properties": {
                "items": {"type": "array", "items": T::schema(definitions)},
                "next_cursor": {"type": ["string", "null"]},
            },
            "required": ["items", "next_cursor"],
        })
    }
}
