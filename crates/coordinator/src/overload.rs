//! What is turned away when more is asked of the process than it can do (coordinator.md §1; README D7, D11).

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderMap, Method, StatusCode};
use caracal_http::admission::{Class, Gate, Guarded, Manners, Sorry};
use caracal_http::{Problem, Profile, RequestId};

use crate::Coordinator;
use crate::route::{Route, ZoneRoute, recognise};

impl Coordinator {
    /// The service's router behind `gate`, which its metrics speak of from then on. Of several gates the first stays.
    pub fn guarded(self: Arc<Self>, gate: &Arc<Gate>) -> Guarded<Router> {
        let _ = self.gate.set(gate.clone());
        gate.guard(Manners { class, refusal }, self.router())
    }
}

fn class(method: &Method, path: &str, _: &HeaderMap) -> Class {
    match recognise(method, path).route {
        Route::Health | Route::Ready | Route::Stats | Route::Metrics | Route::Unknown => Class::Spared,
        Route::Verify => Class::Completes,
        Route::InZone(route) => route.class(),
    }
}

impl ZoneRoute {
    fn class(&self) -> Class {
        match self {
            Self::StartSession
            | Self::ResumeSession(_)
            | Self::CreateDelegation
            | Self::RegisterService
            | Self::CreateInvocation
            | Self::StartInvocation(_)
            | Self::TakeOverLease(_) => Class::Begins,
            // A heartbeat that is turned away ends what lives by it.
            Self::SuspendSession(_)
            | Self::TerminateSession(_)
            | Self::RevokeDelegation(_)
            | Self::CancelInvocation(_)
            | Self::Heartbeat(_)
            | Self::ListDeadMessages
            | Self::RequeueMessages
            | Self::RequeueMessage(_) => Class::Spared,
            Self::CompleteInvocation(_)
            | Self::ListSessions
            | Self::ListChildren(_)
            | Self::ReadSession(_)
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
            | Self::ReadInvocation(_) => Class::Completes,
        }
    }
}

fn refusal(id: &RequestId, _: &HeaderMap) -> Sorry {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "internal_error")
        .describe("more is asked than can be done; nothing was changed, try again")
        .render(id, Profile::COORDINATOR)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ROUTES;

    #[test]
    fn what_takes_authority_away_keeps_it_alive_or_says_how_we_are_is_spared() {
        let spared: Vec<_> = ROUTES
            .iter()
            .filter(|(method, path)| class(&method.parse().unwrap(), path, &HeaderMap::new()) == Class::Spared)
            .collect();
        let expected = [
            ("GET", "/health"),
            ("GET", "/ready"),
            ("GET", "/stats"),
            ("GET", "/metrics"),
            ("PATCH", "/zones/:zoneId/agents/:id/suspend"),
            ("POST", "/zones/:zoneId/agents/:id/heartbeat"),
            ("DELETE", "/zones/:zoneId/agents/:id"),
            ("PATCH", "/zones/:zoneId/delegations/:id/revoke"),
            ("PATCH", "/zones/:zoneId/invocations/:id/cancel"),
            ("GET", "/zones/:zoneId/outbox"),
            ("POST", "/zones/:zoneId/outbox/requeue"),
            ("POST", "/zones/:zoneId/outbox/:id/requeue"),
        ];
        assert_eq!(spared, expected.iter().collect::<Vec<_>>());
    }

    #[test]
    fn who_is_turned_away_may_come_again_in_a_second() {
        let response = refusal(&RequestId::parse(b"r-1").unwrap(), &HeaderMap::new());
        let of = |name: &str| response.headers().get(name).unwrap().to_str().unwrap();
        assert_eq!((response.status().as_u16(), of("retry-after"), of("x-request-id")), (503, "1", "r-1"));
    }
}
