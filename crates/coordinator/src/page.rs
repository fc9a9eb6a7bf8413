//! Pages of lists (contract: coordinator.md §1): newest first, by id. A cursor is the id of the last row that was shown,
//! whole, so no row is skipped or shown twice however many were made in one instant (difference D20). It has to be a row
//! that the caller may see in this very list; whether filters would show it makes no difference.

use axum::http::StatusCode;
use caracal_http::Problem;
use serde_json::{Value, json};

use crate::wire::{invalid_query, query_value, refusal};

const DEFAULT_LIMIT: i64 = 100;
const MAX_LIMIT: i64 = 500;

/// Which part of a list is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Page {
    /// Rows at most, 1 to 500.
    pub(crate) limit: i64,
    /// As it was sent; whose id it is has to be looked up.
    pub(crate) cursor: Option<String>,
}

impl Page {
    /// From a query. `limit` is written in decimal digits.
    pub(crate) fn read(query: Option<&str>) -> Result<Self, Problem> {
        let limit = match query_value(query, "limit")? {
            None => DEFAULT_LIMIT,
            Some(text) => {
                let digits = text.bytes().all(|byte| byte.is_ascii_digit());
                let limit = text.parse().ok().filter(|limit| digits && (1..=MAX_LIMIT).contains(limit));
                limit.ok_or_else(invalid_query)?
            }
        };
        let cursor = query_value(query, "cursor")?;
        if cursor.as_ref().is_some_and(String::is_empty) { Err(invalid_query()) } else { Ok(Self { limit, cursor }) }
    }

    /// The body of a page of `rows`. A page that is not full is the last one.
    pub(crate) fn body<R>(&self, rows: &[R], id: impl Fn(&R) -> &str, show: impl Fn(&R) -> Value) -> Value {
        let full = i64::try_from(rows.len()).is_ok_and(|count| count == self.limit);
        let next = rows.last().filter(|_| full).map(id);
        json!({"items": rows.iter().map(show).collect::<Vec<_>>(), "next_cursor": next})
    }
}

/// 400 `invalid_cursor`.
pub(crate) fn invalid_cursor() -> Problem {
    refusal(StatusCode::BAD_REQUEST, "invalid_cursor").describe("the cursor names no row of the list")
}
