//! Keyset pages: newest first, by creation time and id, with the full precision of the row (difference D20).
//!
//! A listing asks for `(time, id) < (?, ?)`, which engines answer from an index that begins where the page does. Written with
//! `OR` it is the same rows, and each page costs as much as all that come before it.

use caracal_authority::Timestamp;

/// Which part of a listing to read.
#[derive(Debug, Clone)]
pub struct Page {
    /// Rows at most; 1 or more.
    pub limit: usize,
    /// Only rows that come after this position.
    pub after: Option<Position>,
}

/// A row's place in a listing that is ordered by time and id, both descending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// The row's time.
    pub at: Timestamp,
    /// The row's id.
    pub id: String,
}

impl Page {
    /// The first `limit` rows.
    pub fn first(limit: usize) -> Self {
        Self { limit, after: None }
    }

    pub(crate) fn limit(&self) -> i64 {
        i64::try_from(self.limit).unwrap_or(i64::MAX)
    }

    /// The position's time, or one past every row's.
    pub(crate) fn at(&self) -> i64 {
        self.after.as_ref().map_or(i64::MAX, |position| position.at.as_micros())
    }

    /// The position's id. Unused when there is none: no row has the time of [`Page::at`].
    pub(crate) fn id(&self) -> &str {
        self.after.as_ref().map_or("", |position| &position.id)
    }
}

/// The condition that a row is archived, or that it is not. A constant, so that engines see which index has just these rows:
/// what is archived costs nothing to a page of what is not.
pub(crate) fn archival(archived: bool) -> &'static str {
    if archived { "archived_at IS NOT NULL" } else { "archived_at IS NULL" }
}
