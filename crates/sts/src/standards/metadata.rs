//! Where a zone's endpoints lie (RFC 8414), for clients that know one URL.
//!
//! The issuer of the document is `{ISSUER_URL}/zones/{zone}`: one name per zone, because a client that starts from it has to
//! end in that zone. It is not the `iss` of a mandate, which is `ISSUER_URL` for all zones and what every verifier of the
//! contract compares; `mandate_issuer` says so to whoever verifies mandates. See the decision on the issuer of a zone.
//!
//! The document is made from the zone's id and nothing else. It says where, never whether: a zone that does not exist has
//! one as well, so nobody learns from it which do, and a zone has one before its first key.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use caracal_authority::ZoneId;
use caracal_http::{Problem, Profile};
use http::header::{CACHE_CONTROL, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, StatusCode, Uri};
use serde::Serialize;

use crate::Sts;
use crate::request::{CLIENT_CREDENTIALS, TOKEN_EXCHANGE};

const AUTH_METHODS: [&str; 2] = ["client_secret_basic", "client_secret_post"];

/// RFC 8414 §2, in its order.
#[derive(Serialize)]
struct Metadata {
    issuer: String,
    token_endpoint: String,
    jwks_uri: String,
    /// Required, and an empty list must not be sent (§3.2). There is no authorization endpoint to send a type to; `none`
    /// is the registered one that asks for nothing.
    response_types_supported: [&'static str; 1],
    grant_types_supported: [&'static str; 2],
    token_endpoint_auth_methods_supported: [&'static str; 2],
    revocation_endpoint: String,
    revocation_endpoint_auth_methods_supported: [&'static str; 2],
    introspection_endpoint: String,
    introspection_endpoint_auth_methods_supported: [&'static str; 2],
    /// Ours: `iss` of the zone's mandates.
    mandate_issuer: String,
}

impl Metadata {
    fn of(mandate_issuer: &str, zone: &ZoneId) -> Self {
        let base = mandate_issuer.trim_end_matches('/');
        // Nothing in an id needs an escape, in a path or in a query.
        let issuer = format!("{base}/zones/{zone}");
        Self {
            token_endpoint: format!("{issuer}/oauth/2/token"),
            jwks_uri: format!("{base}/.well-known/jwks.json?zone_id={zone}"),
            response_types_supported: ["none"],
            grant_types_supported: [CLIENT_CREDENTIALS, TOKEN_EXCHANGE],
            token_endpoint_auth_methods_supported: AUTH_METHODS,
            revocation_endpoint: format!("{issuer}/oauth/2/revoke"),
            revocation_endpoint_auth_methods_supported: AUTH_METHODS,
            introspection_endpoint: format!("{issuer}/oauth/2/introspect"),
            introspection_endpoint_auth_methods_supported: AUTH_METHODS,
            mandate_issuer: mandate_issuer.to_owned(),
            issuer,
        }
    }
}

/// `GET /.well-known/oauth-authorization-server/{path of the issuer}`: the well-known name before the path (§3.1).
pub(crate) async fn of_issuer(State(sts): State<Arc<Sts>>, path: Result<Path<String>, PathRejection>) -> Response {
    let zone = path.ok().and_then(|Path(path)| zone_of(&sts.config.issuer, &path));
    answer(&sts, zone)
}

/// `GET /zones/{zone}/.well-known/oauth-authorization-server`: behind it, where many libraries look.
pub(crate) async fn of_zone(State(sts): State<Arc<Sts>>, zone: Result<Path<String>, PathRejection>) -> Response {
    answer(&sts, zone.ok().and_then(|Path(zone)| ZoneId::parse(&zone).ok()))
}

/// The zone of an issuer's path. A proxy may have taken the path of `ISSUER_URL` itself off it.
fn zone_of(mandate_issuer: &str, path: &str) -> Option<ZoneId> {
    let own = mandate_issuer.parse::<Uri>().ok()?;
    let own = own.path().trim_matches('/');
    let below =
        path.strip_prefix(own).and_then(|below| if own.is_empty() { Some(below) } else { below.strip_prefix('/') });
    let zone = below.and_then(|below| below.strip_prefix("zones/")).or_else(|| path.strip_prefix("zones/"))?;
    ZoneId::parse(zone).ok()
}

fn answer(sts: &Sts, zone: Option<ZoneId>) -> Response {
    let Some(zone) = zone else {
        let problem = Problem::new(StatusCode::NOT_FOUND, "resource_not_found");
        return problem.describe("no issuer has this path; that of a zone ends in /zones/ and its id").into_response();
    };
    let mut response = Profile::STS.json(StatusCode::OK, &Metadata::of(&sts.config.issuer, &zone)).into_response();
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=300, must-revalidate"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_issuer_of_a_document_is_the_url_it_was_found_by() {
        for (mandate_issuer, path, issuer) in [
            ("https://sts.example", "zones/z-1", Some("https://sts.example/zones/z-1")),
            ("https://sts.example/", "zones/z-1", Some("https://sts.example/zones/z-1")),
            ("https://sts.example/auth", "auth/zones/z-1", Some("https://sts.example/auth/zones/z-1")),
            ("https://sts.example/auth/", "auth/zones/z:1", Some("https://sts.example/auth/zones/z:1")),
            ("https://sts.example/auth", "zones/z-1", Some("https://sts.example/auth/zones/z-1")),
            ("https://sts.example/auth", "authzones/z-1", None),
            ("https://sts.example/auth", "other/zones/z-1", None),
            ("https://sts.example", "auth/zones/z-1", None),
            ("https://sts.example", "zones/", None),
            ("https://sts.example", "zones/a/b", None),
            ("https://sts.example", "zones/a b", None),
            ("https://sts.example", "", None),
        ] {
            let found = zone_of(mandate_issuer, path).map(|zone| Metadata::of(mandate_issuer, &zone).issuer);
            assert_eq!(found.as_deref(), issuer, "{mandate_issuer} {path}");
        }
    }
}
