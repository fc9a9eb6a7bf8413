//! What an operation says of itself, beside its handler.

use http::StatusCode;
use serde_json::Value;

use super::notes::Notes;
use super::shape::{Definitions, Shape};
use crate::input::Mismatch;
use crate::page::{Listing, Query};
use crate::problem::Refusal;

/// The description of one operation. There is no default for what it answers: an operation says it.
#[derive(Clone, Copy)]
pub(crate) struct Spec {
    /// Its name for generated clients.
    pub(crate) name: &'static str,
    /// One line on what it does.
    pub(crate) does: &'static str,
    /// Reads the query, as the handler does.
    pub(crate) query: fn(&Query) -> Result<(), Refusal>,
    /// What it takes as a body.
    pub(crate) body: Takes,
    /// Status of a success.
    pub(crate) status: StatusCode,
    /// What a success says.
    pub(crate) content: Content,
    /// What it refuses with beside what every operation may refuse with.
    pub(crate) refuses: &'static [(u16, &'static str)],
}

/// What an operation takes as a body.
#[derive(Clone, Copy)]
pub(crate) enum Takes {
    /// Nothing. What is sent is read and ignored.
    Nothing,
    /// An object, else 400 with the code. The function is the handler's own reader.
    Object { code: &'static str, read: fn(Notes) -> Result<(), Mismatch>, may_be_absent: bool },
}

/// What a success says.
#[derive(Clone, Copy)]
pub(crate) enum Content {
    /// Nothing.
    Nothing,
    /// JSON of this schema.
    Json(fn(&mut Definitions) -> Value),
    /// JSON of this schema, or a file of this media type.
    JsonOrFile(fn(&mut Definitions) -> Value, &'static str),
    /// A file of this media type.
    File(&'static str),
}

impl Spec {
    /// An operation that answers 200 with `T`, takes nothing and asks nothing.
    pub(crate) const fn shows<T: Shape>(name: &'static str, does: &'static str) -> Self {
        Self::of(name, does, StatusCode::OK, Content::Json(T::schema))
    }

    /// An operation that answers 201 with `T`.
    pub(crate) const fn creates<T: Shape>(name: &'static str, does: &'static str) -> Self {
        Self::of(name, does, StatusCode::CREATED, Content::Json(T::schema))
    }

    /// An operation that answers 204.
    pub(crate) const fn removes(name: &'static str, does: &'static str) -> Self {
        Self::of(name, does, StatusCode::NO_CONTENT, Content::Nothing)
    }

    /// An operation that answers with a list, as JSON or as a CSV file.
    pub(crate) const fn in_files<T: Shape>(name: &'static str, does: &'static str) -> Self {
        Self::of(name, does, StatusCode::OK, Content::JsonOrFile(Listing::<T>::schema, "text/csv"))
    }

    /// An operation that answers with something else.
    pub(crate) const fn of(name: &'static str, does: &'static str, status: StatusCode, content: Content) -> Self {
        Self { name, does, query: |_| Ok(()), body: Takes::Nothing, status, content, refuses: &[] }
    }

    /// With the handler's reader of the query.
    pub(crate) const fn asks(mut self, query: fn(&Query) -> Result<(), Refusal>) -> Self {
        self.query = query;
        self
    }

    /// With a page of an ordinary list.
    pub(crate) const fn in_pages(self) -> Self {
        self.asks(|query| query.page().map(drop))
    }

    /// With the handler's reader of the body, and the code when there is none that it can read.
    pub(crate) const fn takes(mut self, code: &'static str, read: fn(Notes) -> Result<(), Mismatch>) -> Self {
        self.body = Takes::Object { code, read, may_be_absent: false };
        self
    }

    /// As [`takes`](Self::takes), of a body that may be left out.
    pub(crate) const fn may_take(mut self, code: &'static str, read: fn(Notes) -> Result<(), Mismatch>) -> Self {
        self.body = Takes::Object { code, read, may_be_absent: true };
        self
    }

    /// With what it refuses.
    pub(crate) const fn refuses(mut self, refuses: &'static [(u16, &'static str)]) -> Self {
        self.refuses = refuses;
        self
    }
}
