//! `POST /zones/{zone}/oauth/2/revocations`: everything of a zone that was taken back and could still be presented, in one
//! signed answer (contract: audit-and-streams.md W14).
//!
//! `docs-api` verifies mandates by itself, with the key set and the revocation topic. It starts at noon. What the topic still
//! holds goes back a day, if that Redis kept it and nobody trimmed it; whether it did can't be told from the topic. So it asks
//! here first, and then follows the topic from before it asked: what is revoked after the facts below were read is published
//! after that, and what is in both is marked twice.
//!
//! Signed by the zone's key, because whoever can leave a line out of such a list lets a revoked mandate through. For the same
//! reason it has an end: an old list is a short one. A list that would be longer than an answer may be is refused, never cut.
//!
//! Asked for by a resource server, which an operator's trait makes of an application: which sessions a zone had is nobody
//! else's business.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use caracal_authority::ZoneId;
use caracal_http::Problem;
use caracal_http::limits::Verdict;
use caracal_store::StoreError;
use caracal_store::revocations::{Anchor, AnchorKind, list_of_zone};
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Request, StatusCode};
use serde::Serialize;

use super::admission::still_proven;
use super::introspection::serves;
use super::{never_kept, refuse};
use crate::client::AuthenticatedClient;
use crate::wire::Ended;
use crate::{ExchangeError, Sts};

/// No mandate lives longer than an hour (contract: sts.md §3.11). What was revoked before has none left to present; the rest
/// is for clocks that differ.
const LOOK_BACK: Duration = Duration::from_secs(2 * 60 * 60);
/// For how long a list can be begun with.
const GOOD_FOR: i64 = 5 * 60;
/// Anchors in a list: some five megabytes.
const MOST: i64 = 100_000;
/// Lists a minute for each application, in each process: whoever has one follows the topic.
const A_MINUTE: u32 = 30;
/// What the list says that it is, so that nobody takes it for a mandate.
const TYPE: &str = "caracal-revocations+jwt";

#[derive(Serialize)]
struct List<'l> {
    iss: &'l str,
    zone_id: &'l ZoneId,
    iat: i64,
    exp: i64,
    /// What was revoked before is not in it.
    since: i64,
    revoked: Revoked<'l>,
}

/// By the claim in which a mandate has it; keys by the header's member.
#[derive(Default, Serialize)]
struct Revoked<'l> {
    sid: Vec<&'l str>,
    agent_session_id: Vec<&'l str>,
    delegation_edge_id: Vec<&'l str>,
    kid: Vec<&'l str>,
}

impl<'l> Revoked<'l> {
    fn of(anchors: &'l [Anchor]) -> Self {
        let mut revoked = Self::default();
        for Anchor { kind, id, .. } in anchors {
            match kind {
                AnchorKind::Record => revoked.sid.push(id),
                AnchorKind::Session => revoked.agent_session_id.push(id),
                AnchorKind::Edge => revoked.delegation_edge_id.push(id),
                AnchorKind::Key => revoked.kid.push(id),
            }
        }
        revoked
    }
}

/// Why there is no list.
enum NoList {
    Ended(Ended),
    Refused(Problem),
}

impl From<Ended> for NoList {
    fn from(ended: Ended) -> Self {
        Self::Ended(ended)
    }
}

impl From<ExchangeError> for NoList {
    fn from(error: ExchangeError) -> Self {
        Self::Ended(error.into())
    }
}

impl From<StoreError> for NoList {
    fn from(error: StoreError) -> Self {
        ExchangeError::from(error).into()
    }
}

pub(crate) async fn list(
    State(sts): State<Arc<Sts>>,
    zone: Result<Path<String>, PathRejection>,
    request: Request<Body>,
) -> Response {
    let zone = zone.map(|Path(zone)| zone).unwrap_or_default();
    let mut response = match sts.revoked(&zone, request).await {
        Ok(list) => ([(CONTENT_TYPE, HeaderValue::from_static("application/jwt"))], list).into_response(),
        Err(NoList::Ended(ended)) => refuse(ended),
        Err(NoList::Refused(problem)) => problem.into_response(),
    };
    never_kept(&mut response);
    response
}

impl Sts {
    async fn revoked(&self, zone: &str, request: Request<Body>) -> Result<String, NoList> {
        let (client, _) = self.admit_client(zone, request).await?;
        if let Verdict::Limited { retry_after } =
            self.snapshots.hit(client.application().as_str(), A_MINUTE, self.store.now())
        {
            let problem = Problem::limited("provider_rate_limited", retry_after);
            return Err(NoList::Refused(problem.describe("follow caracal.sessions.revoke instead of asking so often")));
        }
        let list = self.list_revoked(&client).await?;
        self.metrics.snapshots.up();
        Ok(list)
    }

    async fn list_revoked(&self, client: &AuthenticatedClient) -> Result<String, NoList> {
        // Before the facts are read: a list never says that it knows more than it does.
        let now = self.store.now();
        let since = now.minus(LOOK_BACK);
        let mut snapshot = self.store.snapshot().await?;
        let mut tx = snapshot.zone(client.zone());
        let caller = still_proven(&mut tx, client).await?.map_err(ExchangeError::from)?;
        if !serves(&mut tx, &caller, |_| true).await? {
            return Err(refused(
                StatusCode::FORBIDDEN,
                "access_denied",
                "for resource servers: the application has no trait introspect:{resource id} of a resource in this zone",
            ));
        }
        let anchors = list_of_zone(&mut tx, since, MOST + 1).await?;
        let key = self.keys.signing_key(&mut tx).await.map_err(ExchangeError::from)?;
        drop(snapshot);
        if anchors.len() > usize::try_from(MOST).unwrap_or(usize::MAX) {
            tracing::error!(zone = %client.zone(), most = MOST, "more was revoked in two hours than fits into a list");
            return Err(refused(
                StatusCode::SERVICE_UNAVAILABLE,
                "sts_unavailable",
                "more was revoked than fits into one list; ask after each mandate at the introspection endpoint",
            ));
        }
        let Some(key) = key else {
            return Err(refused(StatusCode::NOT_FOUND, "resource_not_found", "the zone has no signing key"));
        };
        let list = List {
            iss: &self.config.issuer,
            zone_id: client.zone(),
            iat: now.as_seconds(),
            exp: now.as_seconds().saturating_add(GOOD_FOR),
            since: since.as_seconds(),
            revoked: Revoked::of(&anchors),
        };
        key.sign_as(TYPE, &list).map_err(|error| {
            tracing::error!(zone = %client.zone(), %error, "what is revoked could not be signed");
            ExchangeError::Internal.into()
        })
    }
}

fn refused(status: StatusCode, code: &'static str, why: &'static str) -> NoList {
    NoList::Refused(Problem::new(status, code).describe(why))
}
