//! Which operation a request is for. Gates decide on the operation found here and on the ids it carries, never on the
//! raw target (difference D1).

use std::borrow::Cow;

use axum::http::Method;
use percent_encoding::percent_decode_str;

/// An operation of the Coordinator. Ids are decoded path segments, not yet judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    /// `GET /health`.
    Health,
    /// `GET /ready`.
    Ready,
    /// `GET /stats`.
    Stats,
    /// `GET /metrics`.
    Metrics,
    /// `POST /v1/verify`.
    Verify,
    /// An operation within a zone.
    InZone(ZoneRoute),
    /// Anything else.
    Unknown,
}

/// An operation within a zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ZoneRoute {
    /// `POST /zones/:zoneId/agents`.
    StartSession,
    /// `GET /zones/:zoneId/agents`.
    ListSessions,
    /// `GET /zones/:zoneId/agents/:id/children`.
    ListChildren(String),
    /// `PATCH /zones/:zoneId/agents/:id/suspend`.
    SuspendSession(String),
    /// `PATCH /zones/:zoneId/agents/:id/resume`.
    ResumeSession(String),
    /// `POST /zones/:zoneId/agents/:id/lease`.
    TakeOverLease(String),
    /// `POST /zones/:zoneId/agents/:id/heartbeat`.
    Heartbeat(String),
    /// `GET /zones/:zoneId/agents/:id`.
    ReadSession(String),
    /// `DELETE /zones/:zoneId/agents/:id`.
    TerminateSession(String),
    /// `POST /zones/:zoneId/delegations`.
    CreateDelegation,
    /// `PATCH /zones/:zoneId/delegations/:id/revoke`.
    RevokeDelegation(String),
    /// `GET /zones/:zoneId/delegations/inbound/:sessionId`.
    ListInbound(String),
    /// `GET /zones/:zoneId/delegations/inbound/:sessionId/:id`.
    ReadInbound(String, String),
    /// `GET /zones/:zoneId/delegations/outbound/:sessionId`.
    ListOutbound(String),
    /// `GET /zones/:zoneId/delegations/active`.
    ListActive,
    /// `GET /zones/:zoneId/delegations/epoch`.
    ReadEpoch,
    /// `GET /zones/:zoneId/delegations/:id/traverse`.
    Traverse(String),
    /// `GET /zones/:zoneId/delegations/:id/impact`.
    Impact(String),
    /// `GET /zones/:zoneId/agents/:sessionId/effective-authority`.
    EffectiveAuthority(String),
    /// `POST /zones/:zoneId/agent-services`.
    RegisterService,
    /// `GET /zones/:zoneId/agent-services`.
    ListServices,
    /// `POST /zones/:zoneId/invocations`.
    CreateInvocation,
    /// `GET /zones/:zoneId/invocations`.
    ListInvocations,
    /// `GET /zones/:zoneId/invocations/:id`.
    ReadInvocation(String),
    /// `PATCH /zones/:zoneId/invocations/:id/start`.
    StartInvocation(String),
    /// `PATCH /zones/:zoneId/invocations/:id/cancel`.
    CancelInvocation(String),
    /// `PATCH /zones/:zoneId/invocations/:id/complete`.
    CompleteInvocation(String),
    /// `GET /zones/:zoneId/outbox`.
    ListDeadMessages,
    /// `POST /zones/:zoneId/outbox/requeue`.
    RequeueMessages,
    /// `POST /zones/:zoneId/outbox/:id/requeue`.
    RequeueMessage(String),
}

/// A recognised request line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recognised {
    /// The operation.
    pub(crate) route: Route,
    /// The zone the path names, decoded, whatever else the path is.
    pub(crate) zone: Option<String>,
}

/// Every route, for the tests that walk all of them: method and path with placeholders.
pub const ROUTES: &[(&str, &str)] = &[
    ("GET", "/health"),
    ("GET", "/ready"),
    ("GET", "/stats"),
    ("GET", "/metrics"),
    ("POST", "/v1/verify"),
    ("POST", "/zones/:zoneId/agents"),
    ("GET", "/zones/:zoneId/agents"),
    ("GET", "/zones/:zoneId/agents/:id"),
    ("GET", "/zones/:zoneId/agents/:id/children"),
    ("PATCH", "/zones/:zoneId/agents/:id/suspend"),
    ("PATCH", "/zones/:zoneId/agents/:id/resume"),
    ("POST", "/zones/:zoneId/agents/:id/lease"),
    ("POST", "/zones/:zoneId/agents/:id/heartbeat"),
    ("DELETE", "/zones/:zoneId/agents/:id"),
    ("POST", "/zones/:zoneId/delegations"),
    ("PATCH", "/zones/:zoneId/delegations/:id/revoke"),
    ("GET", "/zones/:zoneId/delegations/inbound/:sessionId"),
    ("GET", "/zones/:zoneId/delegations/inbound/:sessionId/:id"),
    ("GET", "/zones/:zoneId/delegations/outbound/:sessionId"),
    ("GET", "/zones/:zoneId/delegations/active"),
    ("GET", "/zones/:zoneId/delegations/epoch"),
    ("GET", "/zones/:zoneId/delegations/:id/traverse"),
    ("GET", "/zones/:zoneId/delegations/:id/impact"),
    ("GET", "/zones/:zoneId/agents/:sessionId/effective-authority"),
    ("POST", "/zones/:zoneId/agent-services"),
    ("GET", "/zones/:zoneId/agent-services"),
    ("POST", "/zones/:zoneId/invocations"),
    ("GET", "/zones/:zoneId/invocations"),
    ("GET", "/zones/:zoneId/invocations/:id"),
    ("PATCH", "/zones/:zoneId/invocations/:id/start"),
    ("PATCH", "/zones/:zoneId/invocations/:id/cancel"),
    ("PATCH", "/zones/:zoneId/invocations/:id/complete"),
    ("GET", "/zones/:zoneId/outbox"),
    ("POST", "/zones/:zoneId/outbox/requeue"),
    ("POST", "/zones/:zoneId/outbox/:id/requeue"),
];

/// Recognises a request. Slashes are significant, and a fixed segment is only itself, never an encoding of itself.
/// `HEAD` is recognised as the `GET` it stands for.
pub(crate) fn recognise(method: &Method, path: &str) -> Recognised {
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let reading = *method == Method::GET || *method == Method::HEAD;
    let route = match segments.as_slice() {
        ["health"] if reading => Route::Health,
        ["ready"] if reading => Route::Ready,
        ["stats"] if reading => Route::Stats,
        ["metrics"] if reading => Route::Metrics,
        ["v1", "verify"] if *method == Method::POST => Route::Verify,
        ["zones", _, below @ ..] => in_zone(method, reading, below).map_or(Route::Unknown, Route::InZone),
        _ => Route::Unknown,
    };
    let zone = match segments.as_slice() {
        ["zones", zone, ..] => Some(decoded(zone)),
        _ => None,
    };
    Recognised { route, zone }
}

fn in_zone(method: &Method, reading: bool, below: &[&str]) -> Option<ZoneRoute> {
    match below {
        ["agents"] if *method == Method::POST => Some(ZoneRoute::StartSession),
        ["agents"] if reading => Some(ZoneRoute::ListSessions),
        ["agents", id, "children"] if reading => Some(ZoneRoute::ListChildren(decoded(id))),
        ["agents", id, "suspend"] if *method == Method::PATCH => Some(ZoneRoute::SuspendSession(decoded(id))),
        ["agents", id, "resume"] if *method == Method::PATCH => Some(ZoneRoute::ResumeSession(decoded(id))),
        ["agents", id, "lease"] if *method == Method::POST => Some(ZoneRoute::TakeOverLease(decoded(id))),
        ["agents", id, "heartbeat"] if *method == Method::POST => Some(ZoneRoute::Heartbeat(decoded(id))),
        ["agents", id] if reading => Some(ZoneRoute::ReadSession(decoded(id))),
        ["agents", id] if *method == Method::DELETE => Some(ZoneRoute::TerminateSession(decoded(id))),
        ["delegations"] if *method == Method::POST => Some(ZoneRoute::CreateDelegation),
        ["delegations", id, "revoke"] if *method == Method::PATCH => Some(ZoneRoute::RevokeDelegation(decoded(id))),
        ["delegations", "inbound", session] if reading => Some(ZoneRoute::ListInbound(decoded(session))),
        ["delegations", "inbound", session, id] if reading => {
            Some(ZoneRoute::ReadInbound(decoded(session), decoded(id)))
        }
        ["delegations", "outbound", session] if reading => Some(ZoneRoute::ListOutbound(decoded(session))),
        ["delegations", "active"] if reading => Some(ZoneRoute::ListActive),
        ["delegations", "epoch"] if reading => Some(ZoneRoute::ReadEpoch),
        ["delegations", id, "traverse"] if reading => Some(ZoneRoute::Traverse(decoded(id))),
        ["delegations", id, "impact"] if reading => Some(ZoneRoute::Impact(decoded(id))),
        ["agents", session, "effective-authority"] if reading => Some(ZoneRoute::EffectiveAuthority(decoded(session))),
        ["agent-services"] if *method == Method::POST => Some(ZoneRoute::RegisterService),
        ["agent-services"] if reading => Some(ZoneRoute::ListServices),
        ["invocations"] if *method == Method::POST => Some(ZoneRoute::CreateInvocation),
        ["invocations"] if reading => Some(ZoneRoute::ListInvocations),
        ["invocations", id] if reading => Some(ZoneRoute::ReadInvocation(decoded(id))),
        ["invocations", id, asked] if *method == Method::PATCH => match *asked {
            "start" => Some(ZoneRoute::StartInvocation(decoded(id))),
            "cancel" => Some(ZoneRoute::CancelInvocation(decoded(id))),
            "complete" => Some(ZoneRoute::CompleteInvocation(decoded(id))),
            _ => None,
        },
        ["outbox"] if reading => Some(ZoneRoute::ListDeadMessages),
        ["outbox", "requeue"] if *method == Method::POST => Some(ZoneRoute::RequeueMessages),
        ["outbox", id, "requeue"] if *method == Method::POST => Some(ZoneRoute::RequeueMessage(decoded(id))),
        _ => None,
    }
}

impl ZoneRoute {
    /// Whether the operator's token opens it (contract: coordinator.md §2). Starting sessions, holding leases and making
    /// delegations are never among these: an operator takes authority away, it does not act with any.
    pub(crate) fn admits_operator(&self) -> bool {
        match self {
            Self::ListSessions
            | Self::ReadSession(_)
            | Self::ListChildren(_)
            | Self::SuspendSession(_)
            | Self::ResumeSession(_)
            | Self::TerminateSession(_)
            | Self::RevokeDelegation(_)
            | Self::ListInbound(_)
            | Self::ReadInbound(..)
            | Self::ListOutbound(_)
            | Self::ListActive
            | Self::ReadEpoch
            | Self::Traverse(_)
            | Self::Impact(_)
            | Self::EffectiveAuthority(_)
            | Self::ListServices
            | Self::ListInvocations
            | Self::ListDeadMessages
            | Self::RequeueMessages
            | Self::RequeueMessage(_) => true,
            Self::StartSession
            | Self::TakeOverLease(_)
            | Self::Heartbeat(_)
            | Self::CreateDelegation
            | Self::RegisterService
            | Self::CreateInvocation
            | Self::ReadInvocation(_)
            | Self::StartInvocation(_)
            | Self::CancelInvocation(_)
            | Self::CompleteInvocation(_) => false,
        }
    }
}

/// A segment that is no encoding of anything stays as it is: its `%` keeps it from being an id.
fn decoded(segment: &str) -> String {
    percent_decode_str(segment).decode_utf8().unwrap_or(Cow::Borrowed(segment)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: &str, path: &str) -> (Route, Option<String>) {
        let recognised = recognise(&method.parse().unwrap(), path);
        (recognised.route, recognised.zone)
    }

    #[test]
    fn every_published_route_is_recognised_and_only_by_its_method() {
        for (method, path) in ROUTES {
            assert_ne!(check(method, path).0, Route::Unknown, "{method} {path}");
            for other in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
                let published = |method: &str| ROUTES.contains(&(method, path));
                let known = published(other) || (other == "HEAD" && published("GET"));
                assert_eq!(check(other, path).0 != Route::Unknown, known, "{other} {path}");
            }
        }
    }

    #[test]
    fn slashes_are_significant() {
        let zone = || Some("z1".to_owned());
        let read = |id: &str| Route::InZone(ZoneRoute::ReadSession(id.to_owned()));
        assert_eq!(check("GET", "/zones/z1/agents/"), (read(""), zone()));
        assert_eq!(check("GET", "/zones//z1/agents/s"), (Route::Unknown, Some(String::new())));
        assert_eq!(check("GET", "/zones/z1/agents/s/"), (Route::Unknown, zone()));
        assert_eq!(check("POST", "/zones/z1/agents/"), (Route::Unknown, zone()));
        assert_eq!(check("GET", "/health/").0, Route::Unknown);
        assert_eq!(check("GET", "//health").0, Route::Unknown);
        assert_eq!(check("OPTIONS", "*").0, Route::Unknown);
    }

    #[test]
    fn ids_are_decoded_once_and_fixed_segments_not_at_all() {
        let read = |id: &str| Route::InZone(ZoneRoute::ReadSession(id.to_owned()));
        assert_eq!(check("GET", "/zones/%7a/agents/%2e%2E").0, read(".."));
        assert_eq!(check("GET", "/zones/%7a/agents/%2e%2E").1.as_deref(), Some("z"));
        assert_eq!(check("GET", "/zones/z/agents/a%2Fb").0, read("a/b"));
        assert_eq!(check("GET", "/zones/z/agents/%252e").0, read("%2e"));
        assert_eq!(check("GET", "/zones/z/agents/%ff").0, read("%ff"));
        assert_eq!(check("GET", "/zones/z/%61gents/s").0, Route::Unknown);
        assert_eq!(check("GET", "/%68ealth").0, Route::Unknown);
    }
}
