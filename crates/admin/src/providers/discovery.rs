//! `POST /v1/zones/{zone}/providers/discovery`: what an identity provider publishes about itself, as far as a provider is
//! configured with it. Nothing is kept.

use std::sync::Arc;

use caracal_broker::ServerMetadata;
use caracal_http::egress::TargetUrl;
use http::{Method, StatusCode};
use serde::Serialize;

use crate::Admin;
use crate::answer::Changed;
use crate::evidence::Trace;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::input::{Body, Fields, Form, Mismatch, Text};
use crate::openapi::shape::described;
use crate::openapi::spec::Spec;
use crate::problem::Refusal;

pub(crate) const ROUTE: Route = Route {
    method: Method::POST,
    path: "/v1/zones/{zone}/providers/discovery",
    needs: Needs::Write,
    reach: Reach::Zone(Run::Change(|admin, call| Box::pin(discover(admin, call)))),
    spec: Spec::shows::<View>("providers.discovery", "Reads the metadata that an issuer publishes.")
        .takes(INVALID, |body| issuer(body).map(drop))
        .refuses(&[
            (404, "zone_not_found"),
            (429, "provider_discovery_rate_limited"),
            (422, "provider_discovery_failed"),
        ]),
};

described! {
    #[derive(Serialize)]
    struct View<'a> {
        issuer: &'a str,
        token_endpoint: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        authorization_endpoint: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        revocation_endpoint: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        scopes_supported: Option<&'a [String]>,
        #[serde(skip_serializing_if = "Option::is_none")]
        token_endpoint_auth_methods_supported: Option<&'a [String]>,
    }
}

impl<'a> From<&'a ServerMetadata> for View<'a> {
    fn from(found: &'a ServerMetadata) -> Self {
        Self {
            issuer: &found.issuer,
            token_endpoint: &found.token_endpoint,
            authorization_endpoint: found.authorization_endpoint.as_deref(),
            revocation_endpoint: found.revocation_endpoint.as_deref(),
            scopes_supported: found.scopes.as_deref(),
            token_endpoint_auth_methods_supported: found.auth_methods.as_deref(),
        }
    }
}

const INVALID: &str = "invalid_issuer";
const MUST_BE: &str = "must be an https url without user information, query or fragment";
/// An `https` address with nothing behind its path.
const ISSUER: Text = Text::trimmed(1, 512).like(Form {
    pattern: r"^\s*[Hh][Tt][Tt][Pp][Ss]://[^?#@]+$",
    is: |text| !text.contains(['?', '#']) && TargetUrl::parse(text).is_ok_and(|url| url.is_https()),
    what: MUST_BE,
});

fn issuer(body: impl Into<Body>) -> Result<String, Mismatch> {
    Fields::of(body)?.required_text("issuer", ISSUER)
}

async fn discover(admin: Arc<Admin>, mut call: Call<InZone>) -> Result<Changed, Refusal> {
    call.require_live_zone()?;
    let issuer = issuer(call.body.take()).map_err(|mismatch| mismatch.refuse(INVALID))?;
    let issuer = TargetUrl::parse(&issuer).map_err(|_| Refusal::invalid(INVALID).describe(MUST_BE))?;
    admin.limits.discovery(&call.place.zone, call.now).await?;
    let found = admin.broker.discover(&issuer).await;
    let found =
        found.map_err(|error| Refusal::unprocessable("provider_discovery_failed").describe(error.to_string()))?;
    let recorded = admin
        .store
        .commit(&call.place.zone, call.trace, |tx, trace: &Arc<Trace>| {
            Box::pin(async move { trace.change(tx, StatusCode::OK, None).await })
        })
        .await?;
    Ok(recorded.answer(&View::from(&found)))
}
