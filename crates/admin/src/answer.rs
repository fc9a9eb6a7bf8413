//! Answers, and the proof that a change is on record.
//!
//! A route that changes something can only answer with a [`Changed`], which is made from a [`Recorded`], which only
//! [`crate::evidence`] makes inside the transaction of the change. So a success that left no evidence can't be written
//! (contract: admin-api.md property 10; threat T12).

use axum::body::Body;
use axum::response::Response;
use caracal_http::Profile;
use http::StatusCode;
use serde::Serialize;

/// A 200 of a route that only reads.
pub(crate) struct Answer(pub(crate) Response);

impl Answer {
    /// 200 with `body` as JSON.
    pub(crate) fn ok(body: &impl Serialize) -> Self {
        Self(json(StatusCode::OK, body))
    }

    /// Any finished response; for exports.
    pub(crate) fn raw(response: Response) -> Self {
        Self(response)
    }
}

/// The proof that the record of a change commits with it. Its status is the one on record.
#[must_use]
#[derive(Debug)]
pub(crate) struct Recorded(StatusCode);

impl Recorded {
    /// Only for [`crate::evidence`].
    pub(crate) fn with(status: StatusCode) -> Self {
        Self(status)
    }

    /// The success, with `body` as JSON.
    pub(crate) fn answer(self, body: &impl Serialize) -> Changed {
        Changed(json(self.0, body))
    }

    /// The success, without a body.
    pub(crate) fn empty(self) -> Changed {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.0;
        Changed(response)
    }
}

/// A success of a route that changes something.
pub(crate) struct Changed(pub(crate) Response);

fn json(status: StatusCode, body: &impl Serialize) -> Response {
    Profile::ADMIN.json(status, body).map(Body::new)
}
