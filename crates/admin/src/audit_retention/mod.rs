//! For how many days evidence is kept, as operators set it for the whole deployment (contract: admin-api.md §5.11). Never
//! for longer than the ceiling of the process that removes what is older.

pub(crate) mod read;
pub(crate) mod set;

use caracal_authority::Timestamp;
use caracal_store::audit_retention::AuditRetention;
use serde::Serialize;

/// The retention as answers show it. One above the ceiling, from a time when that was higher, counts as the ceiling.
#[derive(Serialize)]
pub(crate) struct View<'a> {
    retention_days: u32,
    max_days: u32,
    updated_by: Option<&'a str>,
    updated_at: Option<Timestamp>,
}

impl<'a> View<'a> {
    fn of(retention: Option<&'a AuditRetention>, ceiling: u32) -> Self {
        Self {
            retention_days: retention.map_or(ceiling, |retention| retention.days.min(ceiling)),
            max_days: ceiling,
            updated_by: retention.map(|retention| retention.updated_by.as_str()),
            updated_at: retention.map(|retention| retention.updated_at),
        }
    }
}
