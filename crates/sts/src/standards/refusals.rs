//! Refusals in the words of the RFCs (RFC 6749 §5.2, RFC 8693 §2.2.2, RFC 8707 §2): what a generic library can act on.
//! Statuses and codes that they have no word for stay the contract's, and so do the texts for people.

use caracal_authority::exchange::Refusal;
use caracal_http::Problem;
use http::StatusCode;

use crate::ExchangeError;
use crate::request::RequestFault;
use crate::wire::Ended;

/// The refusal, reworded.
pub(super) fn worded(ended: Ended) -> Problem {
    match ended {
        Ended::Form(fault) => Problem::new(fault.status(), "invalid_request").describe(fault.to_string()),
        Ended::Request(fault) => {
            let code = match fault {
                RequestFault::GrantType => "unsupported_grant_type",
                RequestFault::EmptyResource | RequestFault::TooManyResources => "invalid_target",
                RequestFault::ScopeTooLong => "invalid_scope",
                _ => "invalid_request",
            };
            Problem::new(StatusCode::BAD_REQUEST, code).describe(text(&fault))
        }
        Ended::Exchange(error) => match word(&error) {
            Some((status, code)) => Problem::new(status, code).describe(error.to_string()),
            None => error.into(),
        },
    }
}

/// Whether it is refused who asks: nobody else is asked for credentials.
pub(super) fn is_about_the_client(ended: &Ended) -> bool {
    matches!(ended, Ended::Exchange(error) if word(error).is_some_and(|(status, _)| status == StatusCode::UNAUTHORIZED))
}

/// The fault of the contract's door names its one grant.
fn text(fault: &RequestFault) -> String {
    match fault {
        RequestFault::GrantType => "grant_type must be client_credentials or that of token exchange".to_owned(),
        other => other.to_string(),
    }
}

fn word(error: &ExchangeError) -> Option<(StatusCode, &'static str)> {
    let refusal = match error {
        ExchangeError::Refused(refusal) => refusal,
        ExchangeError::NotAGateway => return Some((StatusCode::UNAUTHORIZED, "invalid_client")),
        ExchangeError::Malformed | ExchangeError::Replayed => {
            return Some((StatusCode::BAD_REQUEST, "invalid_request"));
        }
        ExchangeError::Locked { .. }
        | ExchangeError::TooManyLaunches
        | ExchangeError::Unavailable
        | ExchangeError::Busy
        | ExchangeError::Internal => {
            return None;
        }
    };
    match refusal {
        Refusal::ClientUnauthenticated | Refusal::ClientOfAnotherZone { .. } => {
            Some((StatusCode::UNAUTHORIZED, "invalid_client"))
        }
        Refusal::NoResource => Some((StatusCode::BAD_REQUEST, "invalid_target")),
        Refusal::ApprovalUnknown | Refusal::ApprovalExpired => Some((StatusCode::BAD_REQUEST, "invalid_grant")),
        // Malformed, or a subject token that is not believed: RFC 8693 has one word for both.
        other if other.code() == "invalid_token" => Some((StatusCode::BAD_REQUEST, "invalid_request")),
        _ => None,
    }
}
