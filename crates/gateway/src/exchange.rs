//! What the Gateway asks the STS, in its own words.
//!
//! The Gateway never decides what a caller may do. It hands the presented mandate to whoever implements [`Exchange`]:
//! in one process the STS itself, between processes a client that speaks signed HTTP. Either answers with final
//! authority and where to go with it, or with a refusal that the caller is to see.
//!
//! # One use
//!
//! A mandate is used up by the implementation, in the very commit that records its decision, allow or deny, with a
//! uniqueness that the store enforces (README D35). An exchange that answers [`Permitted`] has therefore consumed
//! `jti` durably, and of any number of concurrent exchanges with the same `jti` at most one does; the others answer
//! [`RefusalKind::Replayed`]. An exchange that could not decide ([`RefusalKind::Unavailable`]) consumed nothing; of one
//! whose answer was lost ([`RefusalKind::Unknown`]) nobody here knows, and it is not tried again.
//!
//! # The path
//!
//! [`ExchangeRequest::path`] holds the request path byte for byte as it will be sent upstream: still percent-encoded,
//! without query, without the upstream's own base path (README D18, D21). An operation is compared with exactly these
//! bytes, and `forward` sends exactly these bytes, so there is no second reading under which another path was
//! authorised. The contract's percent-decoded comparison (gateway.md §13) is the case in which nothing is encoded.
//!
//! The method is in the same spirit the one that will be sent: operations are declared in upper case and compared
//! without case, so a caller's `get` is settled as `GET` before it is asked about and before it is sent.

use std::time::Duration;

use caracal_authority::{ApplicationId, MandateId, Timestamp, ZoneId};
use caracal_crypto::SecretText;
use caracal_http::RequestId;
use caracal_store::BoxFuture;
use caracal_store::resources::CallLimits;
use http::StatusCode;

/// Asks for the final authority of one call.
pub trait Exchange: Send + Sync + 'static {
    /// Decides one call; see the module for what consuming means. The Gateway bounds the time and drops the future
    /// when it runs out or the caller goes away.
    fn exchange(&self, request: ExchangeRequest) -> BoxFuture<'_, Result<Permitted, ExchangeRefusal>>;

    /// Whether exchanges can be expected to succeed, for readiness (gateway.md §20.1).
    fn check(&self) -> BoxFuture<'_, Result<(), StsUnreachable>>;
}

/// The STS does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the sts is unreachable")]
pub struct StsUnreachable;

/// One call that needs authority. The mandate's signature, by the zone it names, has been verified; nothing else about
/// it has (gateway.md §5).
pub struct ExchangeRequest {
    /// The zone whose key signed the mandate.
    pub zone: ZoneId,
    /// `client_id` of the mandate.
    pub client: ApplicationId,
    /// The mandate itself.
    pub bearer: SecretText,
    /// `jti` of the mandate: what is used up.
    pub jti: MandateId,
    /// `exp` of the mandate: how long its use has to be remembered.
    pub expires_at: Timestamp,
    /// The resource's identifier, as the caller named it.
    pub resource: String,
    /// The method as it will be sent upstream, in upper case.
    pub method: String,
    /// The path as it will be sent upstream; see the module.
    pub path: String,
    /// Correlates the decision's evidence with the Gateway's.
    pub request_id: RequestId,
}

/// Final authority for one call.
pub struct Permitted {
    /// The mandate minted for the resource.
    pub access_token: SecretText,
    /// Where the call goes; `None` when the STS has no upstream under that name, which refuses the call.
    pub upstream: Option<Directive>,
}

/// Where a call goes and what credential goes with it (sts.md §10.1). Members are taken as the STS names them; the
/// Gateway judges them before it follows.
#[derive(Default)]
pub struct Directive {
    /// `url`.
    pub url: String,
    /// `auth_mode`.
    pub auth_mode: String,
    /// `auth_location`, empty when absent, as all that follow.
    pub auth_location: String,
    /// `auth_header`.
    pub auth_header: String,
    /// `query_param_name`.
    pub query_param_name: String,
    /// `auth_scheme`.
    pub auth_scheme: String,
    /// `allowed_token_hosts`: when not empty, the only hosts the credential may be sent to.
    pub allowed_token_hosts: Vec<String>,
    /// `provider_token`.
    pub provider_token: Option<SecretText>,
    /// `provider_id`.
    pub provider_id: String,
    /// `connection_id`.
    pub connection_id: String,
    /// `forward_caracal_identity`.
    pub forward_caracal_identity: bool,
    /// `expires_at` of the credential, Unix seconds.
    pub expires_at: Option<i64>,
    /// `limits`: what calls of this resource may take, where that differs from the Gateway's own.
    pub limits: CallLimits,
}

/// Why a call got no authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExchangeRefusal {
    /// Status for the caller.
    pub status: StatusCode,
    /// Stable code for the caller.
    pub code: String,
    /// Free prose for the caller, empty when there is none.
    pub description: String,
    /// What became of the decision and the mandate.
    pub kind: RefusalKind,
    /// When trying again can succeed, where that is known (README D7).
    pub retry_after: Option<Duration>,
}

/// What stands behind a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// Decided, with evidence of the STS's own.
    Denied,
    /// The mandate was used before.
    Replayed,
    /// Not decided: nothing was consumed and nothing recorded.
    Unavailable,
    /// Perhaps decided, perhaps not: no answer, or none that says so. The mandate may be used up.
    Unknown,
}

impl ExchangeRefusal {
    /// A decision against the call.
    pub fn denied(status: StatusCode, code: impl Into<String>, description: impl Into<String>) -> Self {
        Self {
            status,
            code: code.into(),
            description: description.into(),
            kind: RefusalKind::Denied,
            retry_after: None,
        }
    }

    /// The mandate was used before.
    pub fn replayed() -> Self {
        Self {
            kind: RefusalKind::Replayed,
            ..Self::denied(StatusCode::UNAUTHORIZED, "invalid_token", "token replay detected")
        }
    }

    /// No decision: 503 `sts_unavailable`.
    pub fn unavailable() -> Self {
        Self::undecided(StatusCode::SERVICE_UNAVAILABLE, "sts unavailable")
    }

    /// No decision within `STS_TIMEOUT`: 504 `sts_unavailable`. Whether one came about afterwards is not known.
    pub fn timed_out() -> Self {
        Self::unknown(StatusCode::GATEWAY_TIMEOUT, "sts timeout")
    }

    /// The question was sent, and the connection broke before the answer was complete: 503 `sts_unavailable`.
    pub fn answer_lost() -> Self {
        Self::unknown(StatusCode::SERVICE_UNAVAILABLE, "sts answer lost, the mandate may be used up")
    }

    /// No decision, told in the contract's words for a remote STS (gateway.md §11.2).
    pub fn undecided(status: StatusCode, description: impl Into<String>) -> Self {
        Self { kind: RefusalKind::Unavailable, ..Self::denied(status, "sts_unavailable", description) }
    }

    /// The same, of a question that was sent.
    pub fn unknown(status: StatusCode, description: impl Into<String>) -> Self {
        Self { kind: RefusalKind::Unknown, ..Self::denied(status, "sts_unavailable", description) }
    }

    /// Whether this counts against the STS: its own trouble, never a decision (gateway.md §12).
    pub(crate) fn is_outage(&self) -> bool {
        self.code == "sts_unavailable" && self.status.is_server_error()
    }
}
