//! Values on their way into and out of statements. Two types carry a value so that both engines can share one
//! statement text: [`Param`] borrows what is bound, [`Columns`] hands out owned results in the order selected.

use caracal_authority::{
    AdminTokenId, AgentSessionId, ApplicationId, ApprovalId, AuthorityRecordId, ConnectionId, EdgeId, EventId, GrantId,
    InvocationId, KeyId, NotificationDeliveryId, NotificationSinkId, OutboxId, PolicyId, PolicySetId,
    PolicySetVersionId, PolicyVersionId, ProviderId, ReplicaId, ResourceId, ServiceId, SubjectIssuerId, Timestamp,
    WorkloadId, ZoneId,
};
use serde::de::DeserializeOwned;

use crate::error::StoreError;

/// A bound value.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Param<'a> {
    /// SQL `NULL`.
    Null,
    /// A 64-bit integer, an instant in microseconds, or a boolean as 0 or 1.
    Int(i64),
    /// Text.
    Text(&'a str),
    /// Bytes.
    Blob(&'a [u8]),
}

/// A type that can be bound to a statement.
pub(crate) trait Bind {
    fn bind(&self) -> Param<'_>;
}

impl<T: Bind + ?Sized> Bind for &T {
    fn bind(&self) -> Param<'_> {
        T::bind(self)
    }
}

impl<T: Bind> Bind for Option<T> {
    fn bind(&self) -> Param<'_> {
        self.as_ref().map_or(Param::Null, T::bind)
    }
}

impl Bind for i64 {
    fn bind(&self) -> Param<'_> {
        Param::Int(*self)
    }
}

impl Bind for bool {
    fn bind(&self) -> Param<'_> {
        Param::Int(i64::from(*self))
    }
}

impl Bind for Timestamp {
    fn bind(&self) -> Param<'_> {
        Param::Int(self.as_micros())
    }
}

impl Bind for str {
    fn bind(&self) -> Param<'_> {
        Param::Text(self)
    }
}

impl Bind for String {
    fn bind(&self) -> Param<'_> {
        Param::Text(self)
    }
}

impl Bind for [u8] {
    fn bind(&self) -> Param<'_> {
        Param::Blob(self)
    }
}

impl Bind for Vec<u8> {
    fn bind(&self) -> Param<'_> {
        Param::Blob(self)
    }
}

/// Builds the parameter array of a statement: `params![zone, id, now]`. Needs [`Bind`] in scope.
macro_rules! params {
    ($($value:expr),* $(,)?) => { &[$($value.bind()),*] };
}
pub(crate) use params;

/// An owned value: of a result row, or to be bound.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Value {
    Null,
    Int(i64),
    Text(String),
    Blob(Vec<u8>),
}

impl Value {
    pub(crate) fn from_param(param: Param<'_>) -> Self {
        match param {
            Param::Null => Self::Null,
            Param::Int(number) => Self::Int(number),
            Param::Text(text) => Self::Text(text.to_owned()),
            Param::Blob(bytes) => Self::Blob(bytes.to_owned()),
        }
    }

    pub(crate) fn is_bound_as(&self, param: Param<'_>) -> bool {
        match (self, param) {
            (Self::Null, Param::Null) => true,
            (Self::Int(own), Param::Int(other)) => *own == other,
            (Self::Text(own), Param::Text(other)) => own == other,
            (Self::Blob(own), Param::Blob(other)) => own == other,
            _ => false,
        }
    }
}

impl Bind for Value {
    fn bind(&self) -> Param<'_> {
        match self {
            Self::Null => Param::Null,
            Self::Int(number) => Param::Int(*number),
            Self::Text(text) => Param::Text(text),
            Self::Blob(bytes) => Param::Blob(bytes),
        }
    }
}

/// One result row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    pub(crate) values: Vec<Value>,
}

impl Row {
    /// Reads the row's columns in the order selected; `table` names the row in errors.
    pub(crate) fn columns(self, table: &'static str) -> Columns {
        Columns { table, position: 0, values: self.values.into_iter() }
    }
}

/// The columns of a row, taken one after the other.
pub(crate) struct Columns {
    table: &'static str,
    position: usize,
    values: std::vec::IntoIter<Value>,
}

impl Columns {
    /// The next column.
    pub(crate) fn next<T: FromColumn>(&mut self) -> Result<T, StoreError> {
        self.position += 1;
        let value = self.values.next().ok_or_else(|| self.corrupt("the column is missing"))?;
        T::from_column(value).map_err(|what| self.corrupt(what))
    }

    /// The next column, which holds JSON text.
    pub(crate) fn json<T: DeserializeOwned>(&mut self) -> Result<T, StoreError> {
        let text: String = self.next()?;
        serde_json::from_str(&text).map_err(|error| self.corrupt(&error.to_string()))
    }

    /// The next column, which holds JSON text or nothing.
    pub(crate) fn json_or_null<T: DeserializeOwned>(&mut self) -> Result<Option<T>, StoreError> {
        let Some(text) = self.next::<Option<String>>()? else { return Ok(None) };
        serde_json::from_str(&text).map(Some).map_err(|error| self.corrupt(&error.to_string()))
    }

    fn corrupt(&self, what: &str) -> StoreError {
        StoreError::Corrupt { table: self.table, what: format!("column {}: {what}", self.position) }
    }
}

/// A type that a column can hold.
pub(crate) trait FromColumn: Sized {
    fn from_column(value: Value) -> Result<Self, &'static str>;
}

impl FromColumn for i64 {
    fn from_column(value: Value) -> Result<Self, &'static str> {
        match value {
            Value::Int(number) => Ok(number),
            _ => Err("expected an integer"),
        }
    }
}

impl FromColumn for bool {
    fn from_column(value: Value) -> Result<Self, &'static str> {
        match value {
            Value::Int(0) => Ok(false),
            Value::Int(1) => Ok(true),
            _ => Err("expected 0 or 1"),
        }
    }
}

impl FromColumn for Timestamp {
    fn from_column(value: Value) -> Result<Self, &'static str> {
        match value {
            Value::Int(micros) if Timestamp::from_micros(micros).as_micros() == micros => {
                Ok(Timestamp::from_micros(micros))
            }
            _ => Err("expected an instant"),
        }
    }
}

impl FromColumn for String {
    fn from_column(value: Value) -> Result<Self, &'static str> {
        match value {
            Value::Text(text) => Ok(text),
            _ => Err("expected text"),
        }
    }
}

impl FromColumn for Vec<u8> {
    fn from_column(value: Value) -> Result<Self, &'static str> {
        match value {
            Value::Blob(bytes) => Ok(bytes),
            _ => Err("expected bytes"),
        }
    }
}

impl<T: FromColumn> FromColumn for Option<T> {
    fn from_column(value: Value) -> Result<Self, &'static str> {
        match value {
            Value::Null => Ok(None),
            other => T::from_column(other).map(Some),
        }
    }
}

macro_rules! id_values {
    ($($name:ident),+) => {$(
        impl Bind for $name {
            fn bind(&self) -> Param<'_> {
                Param::Text(self.as_str())
            }
        }

        impl FromColumn for $name {
            fn from_column(value: Value) -> Result<Self, &'static str> {
                match value {
                    Value::Text(text) => Self::parse(&text).map_err(|_| "expected an id"),
                    _ => Err("expected an id"),
                }
            }
        }
    )+};
}

id_values!(
    AdminTokenId,
    AgentSessionId,
    ApplicationId,
    ApprovalId,
    AuthorityRecordId,
    ConnectionId,
    EdgeId,
    EventId,
    GrantId,
    InvocationId,
    KeyId,
    NotificationDeliveryId,
    NotificationSinkId,
    OutboxId,
    PolicyId,
    PolicySetId,
    PolicySetVersionId,
    PolicyVersionId,
    ProviderId,
    ReplicaId,
    ResourceId,
    ServiceId,
    SubjectIssuerId,
    WorkloadId,
    ZoneId
);
