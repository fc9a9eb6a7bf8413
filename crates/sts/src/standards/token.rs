//! `POST /zones/{zone}/oauth/2/token`: the contract's token route for clients that have no field for a zone.
//!
//! The zone is that of the path; a `zone_id` beside it must agree. Beside token exchange it takes `client_credentials`,
//! which is the same exchange for an application itself, without subject token, session or delegation: a bootstrap, or a
//! control key's request. Gateways sign the contract's path, and are not heard here.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use caracal_http::RequestId;
use http::Request;

use super::Door;
use crate::Sts;

pub(crate) async fn token(
    State(sts): State<Arc<Sts>>,
    id: RequestId,
    zone: Result<Path<String>, PathRejection>,
    request: Request<Body>,
) -> Response {
    // A path that does not decode names no zone, and is refused like any other that has no such application.
    let zone = zone.map(|Path(zone)| zone).unwrap_or_default();
    sts.answer(&id, Door::Zone(&zone), request).await
}
