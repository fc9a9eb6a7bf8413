//! How many mandates an application may have for a resource in a minute, as operators set it for the whole deployment
//! (contract: admin-api.md §5.11). Each STS takes it up within half a minute; its own ceiling is the highest it can be.

pub(crate) mod read;
pub(crate) mod set;

use caracal_authority::Timestamp;
use caracal_store::mint_limit::MintLimit;
use serde::Serialize;

use crate::openapi::shape::described;

described! {
    /// The limit as answers show it. One above the ceiling, from a time when that was higher, counts as the ceiling.
    #[derive(Serialize)]
    pub(crate) struct View<'a> {
        limit_per_minute: u32,
        max_per_minute: u32,
        updated_by: Option<&'a str>,
        updated_at: Option<Timestamp>,
    }
}

impl<'a> View<'a> {
    fn of(limit: Option<&'a MintLimit>, ceiling: u32) -> Self {
        Self {
            limit_per_minute: limit.map_or(ceiling, |limit| limit.per_minute.min(ceiling)),
            max_per_minute: ceiling,
            updated_by: limit.map(|limit| limit.updated_by.as_str()),
            updated_at: limit.map(|limit| limit.updated_at),
        }
    }
}
