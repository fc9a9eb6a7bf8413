//! For how many days evidence is kept, as operators set it for the whole deployment (contract: audit-and-streams.md §5.5).
//! The evidence service removes what is older; its own ceiling is the longest it can be.

pub(crate) mod read;
pub(crate) mod set;

use caracal_authority::Timestamp;
use caracal_store::retention::Retention;
use serde::Serialize;

use crate::openapi::shape::described;

described! {
    /// What answers show. What was set in a time of a higher ceiling counts as the ceiling.
    #[derive(Serialize)]
    pub(crate) struct View<'a> {
        retention_days: u32,
        max_days: u32,
        updated_by: Option<&'a str>,
        updated_at: Option<Timestamp>,
    }
}

impl<'a> View<'a> {
    fn of(set: Option<&'a Retention>, ceiling: u32) -> Self {
        Self {
            retention_days: set.map_or(ceiling, |set| set.days.min(ceiling)),
            max_days: ceiling,
            updated_by: set.map(|set| set.updated_by.as_str()),
            updated_at: set.map(|set| set.updated_at),
        }
    }
}
