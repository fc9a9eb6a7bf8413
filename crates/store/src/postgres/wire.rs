//! Values and errors between the seam and the server.

use std::collections::HashMap;
use std::error::Error as _;

use tokio_postgres::error::SqlState;
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Error, Row as WireRow};

use crate::error::StoreError;
use crate::value::{Param, Row, Value};

type Refused = Box<dyn std::error::Error + Sync + Send>;

/// Names of unique indexes and the columns they are about, as `table.column, table.column`.
pub(super) type Constraints = HashMap<String, String>;

impl ToSql for Param<'_> {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Refused> {
        match self {
            Self::Null => Ok(IsNull::Yes),
            Self::Int(number) if *ty == Type::INT8 => number.to_sql(ty, out),
            Self::Int(number) if *ty == Type::INT4 => i32::try_from(*number)?.to_sql(ty, out),
            Self::Int(number) if *ty == Type::BOOL => (*number != 0).to_sql(ty, out),
            Self::Int(_) => Err(format!("an integer where {ty} is expected").into()),
            Self::Text(text) => text.to_sql(ty, out),
            Self::Blob(bytes) => bytes.to_sql(ty, out),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// An owned row of the columns selected.
pub(super) fn read(row: &WireRow) -> Result<Row, StoreError> {
    let mut values = Vec::with_capacity(row.len());
    for (index, column) in row.columns().iter().enumerate() {
        values.push(value(row, index, column.type_()).map_err(|error| StoreError::Statement {
            reason: format!("column {} can't be read: {error}", index + 1),
        })?);
    }
    Ok(Row { values })
}

fn value(row: &WireRow, index: usize, ty: &Type) -> Result<Value, Error> {
    let found = match *ty {
        Type::INT8 => row.try_get::<_, Option<i64>>(index)?.map(Value::Int),
        Type::INT4 => row.try_get::<_, Option<i32>>(index)?.map(|number| Value::Int(i64::from(number))),
        Type::BOOL => row.try_get::<_, Option<bool>>(index)?.map(|truth| Value::Int(i64::from(truth))),
        Type::BYTEA => row.try_get::<_, Option<Vec<u8>>>(index)?.map(Value::Blob),
        _ => row.try_get::<_, Option<String>>(index)?.map(Value::Text),
    };
    Ok(found.unwrap_or(Value::Null))
}

/// What a failed statement means.
pub(super) struct Failure {
    pub(super) error: StoreError,
    /// Whether running the whole transaction again can help: nothing of it was committed.
    pub(super) again: bool,
    /// Whether the connection can be used no further.
    pub(super) lost: bool,
}

impl Failure {
    /// A statement, or connecting, took longer than it may.
    pub(super) fn late() -> Self {
        let reason = "the database server did not answer in time".to_owned();
        Self { error: StoreError::Unavailable { reason }, again: false, lost: true }
    }

    pub(super) fn of(error: &Error, constraints: &Constraints) -> Self {
        let Some(database) = error.as_db_error() else {
            let lost = error.is_closed() || error.source().is_some_and(|source| source.is::<std::io::Error>());
            let error = if lost {
                StoreError::Unavailable {
                    reason: format!("the connection to the database server was lost: {}", whole(error)),
                }
            } else {
                StoreError::Statement { reason: whole(error) }
            };
            return Self { error, again: lost, lost };
        };
        let (code, message) = (database.code(), database.message().to_owned());
        if *code == SqlState::UNIQUE_VIOLATION {
            let index = database.constraint().unwrap_or_default();
            let constraint = constraints.get(index).cloned().unwrap_or_else(|| index.to_owned());
            return Self { error: StoreError::Conflict { constraint }, again: false, lost: false };
        }
        let class = &code.code()[..2.min(code.code().len())];
        let again = matches!(*code, SqlState::T_R_SERIALIZATION_FAILURE | SqlState::T_R_DEADLOCK_DETECTED);
        // 08 connection, 53 resources, 57 operator intervention, 58 system error, 25 the transaction's state: a standby,
        // or one that the server ended.
        let unavailable = again || matches!(class, "08" | "53" | "57" | "58" | "25" | "55");
        let lost = matches!(
            *code,
            SqlState::ADMIN_SHUTDOWN
                | SqlState::CRASH_SHUTDOWN
                | SqlState::CANNOT_CONNECT_NOW
                | SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT
        );
        let reason = format!("{message} ({})", code.code());
        let error = if unavailable { StoreError::Unavailable { reason } } else { StoreError::Statement { reason } };
        Self { error, again: again || lost, lost }
    }
}

/// An error with what caused it: the client's own message alone is only a heading.
pub(super) fn whole(error: &Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// `?1` of the shared statements is `$1` here. No statement of this crate has a question mark in a literal.
pub(super) fn placeholders(sql: &str) -> String {
    sql.replace('?', "$")
}
