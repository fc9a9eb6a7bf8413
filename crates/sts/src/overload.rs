//! What is turned away when more is asked of the process than it can do, and how it is told (sts.md §1; README D7, D11).

use std::sync::Arc;

use axum::Router;
use caracal_http::admission::{Class, Gate, Guarded, Manners, Sorry};
use caracal_http::{Problem, Profile, RequestId};
use http::header::CACHE_CONTROL;
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use crate::Sts;
use crate::gateway_auth::Presented;
use crate::routes::DECISION;
use crate::wire::Decision;

impl Sts {
    /// The service's router behind `gate`, which its metrics speak of from then on. Of several gates the first stays.
    pub fn guarded(self: Arc<Self>, gate: &Arc<Gate>) -> Guarded<Router> {
        let _ = self.gate.set(gate.clone());
        gate.guard(Manners { class, refusal }, self.router())
    }
}

/// What is not named is spared: unknown paths are answered at no cost, operators are few, and who waits for an approval is
/// not worked on.
fn class(method: &Method, path: &str, headers: &HeaderMap) -> Class {
    if *method == Method::GET {
        let is_public = path.contains("/.well-known/");
        return if is_public { Class::Completes } else { Class::Spared };
    }
    match path {
        // Whether it is a Gateway's shows later. Who only says so has gained a quick refusal.
        "/oauth/2/token" if Presented::by(headers).is_some() => Class::Completes,
        "/oauth/2/token" | "/v1/run/manifest" | "/v1/run/credential" => Class::Begins,
        _ if path.starts_with("/zones/") && path.ends_with("/oauth/2/token") => Class::Begins,
        _ if path.starts_with("/zones/") && path.ends_with("/oauth/2/introspect") => Class::Completes,
        _ if path.starts_with("/zones/") && path.ends_with("/oauth/2/revocations") => Class::Completes,
        _ => Class::Spared,
    }
}

/// The same by every door: the standard knows no error for it at a token endpoint.
fn refusal(id: &RequestId, headers: &HeaderMap) -> Sorry {
    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "sts_unavailable")
        .describe("more is asked than can be done; nothing was used up, try again");
    let mut response = problem.render(id, Profile::STS);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if Presented::by(headers).is_some() {
        response.headers_mut().insert(DECISION, HeaderValue::from_static(Decision::None.as_str()));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: &str, path: &str, gateway: bool) -> Class {
        let mut headers = HeaderMap::new();
        if gateway {
            headers.insert("x-caracal-gateway-signature", HeaderValue::from_static("any"));
        }
        class(&method.parse().unwrap(), path, &headers)
    }

    #[test]
    fn what_takes_authority_away_and_what_operators_do_is_spared() {
        for (method, path) in [
            ("POST", "/zones/z-1/oauth/2/revoke"),
            ("POST", "/approvals/a-1/decision"),
            ("GET", "/approvals/a-1"),
            ("POST", "/internal/zones/z-1/signing-key/rotate"),
            ("POST", "/internal/policy/simulate"),
            ("GET", "/internal/policy/status/z-1"),
            ("GET", "/health"),
            ("GET", "/ready"),
            ("GET", "/metrics"),
            ("GET", "/metrics.json"),
            ("GET", "/oauth/2/token"),
            ("POST", "/nowhere"),
        ] {
            assert_eq!(check(method, path, false), Class::Spared, "{method} {path}");
        }
    }

    #[test]
    fn mints_come_after_what_was_begun() {
        for path in ["/oauth/2/token", "/zones/z-1/oauth/2/token", "/v1/run/manifest", "/v1/run/credential"] {
            assert_eq!(check("POST", path, false), Class::Begins, "{path}");
        }
        assert_eq!(check("POST", "/oauth/2/token", true), Class::Completes);
        // The signature is of the contract's path alone.
        assert_eq!(check("POST", "/zones/z-1/oauth/2/token", true), Class::Begins);
        assert_eq!(check("POST", "/zones/z-1/oauth/2/introspect", false), Class::Completes);
        assert_eq!(check("POST", "/zones/z-1/oauth/2/revocations", false), Class::Completes);
        assert_eq!(check("GET", "/.well-known/jwks.json", false), Class::Completes);
        assert_eq!(check("GET", "/zones/z-1/.well-known/oauth-authorization-server", false), Class::Completes);
    }

    #[test]
    fn a_gateway_is_told_that_nothing_was_decided() {
        let id = RequestId::parse(b"r-1").unwrap();
        let mut headers = HeaderMap::new();
        assert!(!refusal(&id, &headers).headers().contains_key(DECISION));
        headers.insert("x-caracal-gateway-request", HeaderValue::from_static("r-1"));
        let response = refusal(&id, &headers);
        let of = |name: &str| response.headers().get(name).unwrap().to_str().unwrap();
        assert_eq!((response.status().as_u16(), of("x-caracal-gateway-decision")), (503, "none"));
        assert_eq!((of("retry-after"), of("x-request-id"), of("cache-control")), ("1", "r-1", "no-store"));
    }
}
