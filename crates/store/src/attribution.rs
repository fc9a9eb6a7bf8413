//! Who made and who last changed a row (contract: admin-api.md §1.7).

use caracal_authority::Timestamp;

use crate::error::StoreError;
use crate::tx::ZoneWrite;
use crate::value::{Bind, Columns, params};

/// Creation and last change of a management object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribution {
    /// Who created it.
    pub created_by: Option<String>,
    /// Whether that was the assistant on someone's behalf.
    pub created_via_operator: bool,
    /// Who changed it last.
    pub updated_by: Option<String>,
    /// Whether that was the assistant on someone's behalf.
    pub updated_via_operator: Option<bool>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was changed last; some kinds of rows start without.
    pub updated_at: Option<Timestamp>,
}

impl Attribution {
    /// Columns `created_by, created_via_operator, updated_by, updated_via_operator, created_at, updated_at`.
    pub(crate) fn read(columns: &mut Columns) -> Result<Self, StoreError> {
        Ok(Self {
            created_by: columns.next()?,
            created_via_operator: columns.next()?,
            updated_by: columns.next()?,
            updated_via_operator: columns.next()?,
            created_at: columns.next()?,
            updated_at: columns.next()?,
        })
    }

    /// A fresh row's.
    pub fn created(by: &str, at: Timestamp) -> Self {
        Self {
            created_by: Some(by.to_owned()),
            created_via_operator: false,
            updated_by: None,
            updated_via_operator: None,
            created_at: at,
            updated_at: Some(at),
        }
    }
}

/// Archives the row `id` of `table`, whose columns are those of any archived kind; `false` when it is not there or
/// archived already.
pub(crate) async fn archive_row(
    tx: &mut ZoneWrite<'_>,
    table: &'static str,
    id: &str,
    by: &str,
) -> Result<bool, StoreError> {
    let (zone, now) = (tx.zone.clone(), tx.now());
    let sql = format!(
        "UPDATE {table} SET archived_at = ?3, updated_by = ?4, updated_via_operator = 0, updated_at = ?3
         WHERE zone_id = ?1 AND id = ?2 AND archived_at IS NULL"
    );
    Ok(tx.tx.execute(&sql, params![zone, id, now, by]).await? == 1)
}
