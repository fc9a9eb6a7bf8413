//! What a route refuses, and why (contract: admin-api.md §1.3).
//!
//! A refusal has two audiences. The caller gets the problem: status, stable code, prose. The operator gets the cause,
//! in the log and nowhere else: the engine's words may quote what a caller must not see.

use caracal_cascade::CascadeError;
use caracal_crypto::chance::ChanceUnavailable;
use caracal_crypto::client_secret::VerifierUnavailable;
use caracal_custody::CustodyError;
use caracal_http::Problem;
use caracal_store::StoreError;
use http::StatusCode;
use serde_json::Value;

/// Why a request ends without success.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// What the caller is told.
    pub(crate) problem: Problem,
    /// What the operator is told.
    pub(crate) cause: Option<Box<str>>,
    /// What would have been done, where that was all the caller wanted to know: no refusal to anybody, but like one it
    /// takes everything back.
    pub(crate) rehearsal: Option<Box<Value>>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, code: &'static str) -> Self {
        Self { problem: Problem::new(status, code), cause: None, rehearsal: None }
    }

    /// 400: the request is not one this route understands.
    pub(crate) fn invalid(code: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code)
    }

    /// 401: nobody we know.
    pub(crate) fn unauthenticated(code: &'static str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, code)
    }

    /// 403: known, and not allowed.
    pub(crate) fn forbidden(code: &'static str) -> Self {
        Self::new(StatusCode::FORBIDDEN, code)
    }

    /// 404: not there, or not for this caller.
    pub(crate) fn missing(code: &'static str) -> Self {
        Self::new(StatusCode::NOT_FOUND, code)
    }

    /// 409: contradicts what is there.
    pub(crate) fn conflict(code: &'static str) -> Self {
        Self::new(StatusCode::CONFLICT, code)
    }

    /// 422: understood, and wrong.
    pub(crate) fn unprocessable(code: &'static str) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code)
    }

    /// 502: the secret could not be sealed or opened. Nothing was changed.
    pub(crate) fn secrets_unavailable(cause: impl ToString) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, "secret_backend_unavailable").because(cause)
    }

    /// The end of a change that was only rehearsed. Made where its record was written, so all before it was possible.
    pub(crate) fn rehearsed(told: Value) -> Self {
        Self { rehearsal: Some(Box::new(told)), ..Self::from(Problem::internal()) }
    }

    /// Adds prose for people.
    pub(crate) fn describe(mut self, description: impl Into<String>) -> Self {
        self.problem = self.problem.describe(description);
        self
    }

    /// Adds a member that the contract gives this code.
    pub(crate) fn member(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.problem = self.problem.member(name, value);
        self
    }

    /// Adds the member `details`.
    pub(crate) fn details(mut self, details: Value) -> Self {
        self.problem = self.problem.member("details", details);
        self
    }

    fn because(mut self, cause: impl ToString) -> Self {
        self.cause = Some(cause.to_string().into());
        self
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self { problem, cause: None, rehearsal: None }
    }
}

/// A full disk or a closing store passes: 503, come back. Anything else is our defect: 500.
impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        let refusal = match &error {
            StoreError::Unavailable { .. } => Self::new(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable"),
            StoreError::Conflict { .. } | StoreError::Corrupt { .. } | StoreError::Statement { .. } => {
                Self::from(Problem::internal())
            }
        };
        refusal.because(error)
    }
}

impl From<ChanceUnavailable> for Refusal {
    fn from(error: ChanceUnavailable) -> Self {
        Self::from(Problem::internal()).because(error)
    }
}

/// A hash that could not be made now can be made later.
impl From<VerifierUnavailable> for Refusal {
    fn from(error: VerifierUnavailable) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "secret_hashing_unavailable").because(error)
    }
}

/// What falls with something could not be written down, so none of it fell.
impl From<CascadeError> for Refusal {
    fn from(error: CascadeError) -> Self {
        match error {
            CascadeError::Store(error) => error.into(),
            CascadeError::Chance(error) => error.into(),
            CascadeError::ImpossibleId => Self::from(Problem::internal()).because("a new id has an impossible form"),
        }
    }
}

impl From<CustodyError> for Refusal {
    fn from(error: CustodyError) -> Self {
        Self::secrets_unavailable(error)
    }
}
