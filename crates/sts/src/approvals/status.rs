//! `GET /approvals/{id}?wait=N`: where a hold stands, at once or as soon as it is decided (contract: sts.md §7.6).

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use caracal_http::Problem;
use http::StatusCode;

use super::waiters::{NotSeen, Seen};
use super::{LONGEST_WAIT, Told, approval_id};
use crate::public_reads::{AskedFrom, Public};
use crate::routes::unkept;
use crate::{ExchangeError, Sts};

pub(crate) async fn status(
    State(sts): State<Arc<Sts>>,
    from: AskedFrom,
    id: Result<Path<String>, PathRejection>,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Response {
    if let Err(limited) = sts.admit_public(Public::Approval, &from) {
        return limited.into_response();
    }
    let Some(id) = id.ok().and_then(|Path(id)| approval_id(&id)) else { return not_found().into_response() };
    let Some(wait) = query.ok().and_then(|Query(pairs)| wait(&pairs)) else {
        let problem = Problem::new(StatusCode::BAD_REQUEST, "invalid_token");
        return problem.describe("wait must be a whole number of seconds").into_response();
    };
    match sts.waiters.state(&id, wait).await {
        Ok(Some(Seen { state, expires_at })) => unkept(&Told::of(&id, state, expires_at)),
        Ok(None) => not_found().into_response(),
        Err(error) => Problem::from(error).into_response(),
    }
}

/// How long to wait: not at all unless the query says so, and never longer than the contract lets anybody.
fn wait(pairs: &[(String, String)]) -> Option<Duration> {
    let mut given = pairs.iter().filter(|(name, _)| name == "wait").map(|(_, value)| value.as_str());
    let text = match (given.next(), given.next()) {
        (None, _) => return Some(Duration::ZERO),
        (Some(text), None) => text,
        (Some(_), Some(_)) => return None,
    };
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // A number that is too long to be read is longer than the longest wait.
    is_number.then(|| Duration::from_secs(text.parse().unwrap_or(u64::MAX)).min(LONGEST_WAIT))
}

pub(super) fn not_found() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "resource_not_found").describe("there is no such approval")
}

impl From<NotSeen> for Problem {
    fn from(error: NotSeen) -> Self {
        match error {
            NotSeen::Store(error) => ExchangeError::from(error).into(),
            NotSeen::Crowded => Self::new(StatusCode::SERVICE_UNAVAILABLE, "sts_unavailable")
                .describe("too many callers wait for approvals; ask again without wait")
                .retry_after(Duration::from_secs(5)),
            NotSeen::CrowdedHold => Self::limited("provider_rate_limited", Duration::from_secs(5))
                .describe("too many callers wait for this approval"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_a_plain_number_of_seconds_and_has_an_end() {
        for (given, expected) in [
            (&[][..], Some(0)),
            (&["0"], Some(0)),
            (&["7"], Some(7)),
            (&["25"], Some(25)),
            (&["99"], Some(25)),
            (&["99999999999999999999999"], Some(25)),
            (&["-1"], None),
            (&["oops"], None),
            (&[""], None),
            (&["1.5"], None),
            (&["+5"], None),
            (&["5", "5"], None),
        ] {
            let pairs: Vec<_> = given.iter().map(|value| ("wait".to_owned(), (*value).to_owned())).collect();
            assert_eq!(wait(&pairs), expected.map(Duration::from_secs), "{given:?}");
        }
    }
}
