//! What a client expects that knows OAuth and nothing of us.
//!
//! `docs-bot` is configured with one URL, a client id and a secret. Its library reads `metadata` (RFC 8414), authenticates
//! with HTTP Basic at the token endpoint it found there (`credentials`, `token`), and gets what it would have got from the
//! contract's route: [`Door::Zone`] leads into the same exchange, and only the words of refusals differ (`refusals`). It may
//! ask whether a mandate is still good (`introspection`, RFC 7662) and take one back (`revocation`, RFC 7009);
//! `admission` is how it gets in there. What resource servers that verify by themselves begin with is in `revocations`.
//!
//! All of it lies below `/zones/{zone}`, because a generic client has no field for a zone. Nothing here decides: a mandate
//! is minted by the exchange, its standing is judged by `caracal_authority`, and no route tells a caller more about a
//! mandate that is not its own than about one that never was.

pub(crate) mod admission;
pub(crate) mod credentials;
pub(crate) mod introspection;
pub(crate) mod metadata;
mod refusals;
pub(crate) mod revocation;
pub(crate) mod revocations;
pub(crate) mod token;

use axum::response::{IntoResponse, Response};
use caracal_http::Problem;
use caracal_http::form::Form;
use http::HeaderValue;
use http::header::{CACHE_CONTROL, PRAGMA, WWW_AUTHENTICATE};

use crate::approvals;
use crate::request::RequestFault;
use crate::wire::Ended;

/// What a client is asked for that proved nothing (RFC 7617).
const BASIC_CHALLENGE: &str = r#"Basic realm="caracal-sts", charset="UTF-8""#;

/// By which route somebody asks for a token.
#[derive(Clone, Copy)]
pub(crate) enum Door<'r> {
    /// The contract's: the form names the zone, refusals are the contract's.
    Contract,
    /// A zone's own: refusals are those of the RFCs.
    Zone(&'r str),
}

impl Door<'_> {
    /// The zone that is asked.
    pub(crate) fn zone(self, form: &Form) -> Result<Option<String>, RequestFault> {
        let named = form.get("zone_id").map(str::trim).filter(|zone| !zone.is_empty());
        match self {
            Self::Contract => Ok(named.map(str::to_owned)),
            Self::Zone(zone) if named.is_none_or(|named| named == zone) => Ok(Some(zone.to_owned())),
            Self::Zone(_) => Err(RequestFault::AnotherZone),
        }
    }

    /// The refusal as this door words it. By the contract's, only a client that tried Basic is told of Basic.
    pub(crate) fn refuse(self, ended: Ended, by_basic: bool) -> Response {
        match self {
            Self::Contract => {
                let challenge = challenge(&ended, by_basic && ended.proves_nobody());
                challenged(ended.into(), challenge)
            }
            Self::Zone(_) => refuse(ended),
        }
    }
}

/// The refusal of a zone's own endpoint.
pub(crate) fn refuse(ended: Ended) -> Response {
    let challenge = challenge(&ended, refusals::is_about_the_client(&ended));
    challenged(refusals::worded(ended), challenge)
}

fn challenge(ended: &Ended, asks_for_basic: bool) -> Option<HeaderValue> {
    let challenge = ended.waits_for_approval().then_some(approvals::CHALLENGE);
    challenge.or(asks_for_basic.then_some(BASIC_CHALLENGE)).map(HeaderValue::from_static)
}

fn challenged(problem: Problem, challenge: Option<HeaderValue>) -> Response {
    let mut response = problem.into_response();
    if let Some(challenge) = challenge {
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    }
    response
}

/// Nobody may keep what this answer holds (RFC 6749 §5.1; the reference sends neither header).
pub(crate) fn never_kept(response: &mut Response) {
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
}
