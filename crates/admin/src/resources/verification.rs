//! Whether an upstream that is to verify mandates itself does (contract: admin-api.md §5.6, "Check"; README D18).
//!
//! It is sent one `HEAD` with a mandate that nobody can have issued: right in every claim, signed by a key that is thrown
//! away and that no key set has. Who turns it down guards itself; who answers as if all were well verifies nothing. The
//! probe leaves by the guarded way out, follows no redirect, and nothing of the answer but its status is looked at.

use std::time::Duration;

use bytes::Bytes;
use caracal_authority::{ProviderId, Timestamp, ZoneId};
use caracal_crypto::chance;
use caracal_crypto::jws::SigningKey;
use caracal_http::Problem;
use caracal_http::egress::{SimpleRequest, TargetUrl};
use caracal_store::resources::Resource;
use caracal_store::{ZoneRead, providers};
use http::header::{ACCEPT, AUTHORIZATION};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};

use crate::Admin;
use crate::openapi::shape::described;
use crate::problem::Refusal;

/// The kind of provider whose upstreams get the mandate itself.
const MANDATE: &str = "caracal_mandate";
const SUBJECT: &str = "caracal-verification-probe";
const LIFE_SECONDS: i64 = 60;
const PATIENCE: Duration = Duration::from_secs(10);
/// Of an answer that nobody reads.
const SHORT_ANSWER: usize = 16 * 1024;

described! {
    /// A finding with its time.
    #[derive(Serialize)]
    pub(super) struct Checked {
        status: &'static str,
        detail: String,
        checked_at: Timestamp,
    }
}

impl Checked {
    pub(super) fn is_guarded(&self) -> bool {
        self.status == "guarded"
    }

    /// As a member of a refusal.
    pub(super) fn to_json(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

/// Whether the upstreams of this provider's resources are to verify mandates.
pub(super) async fn is_up_to_the_upstream(
    tx: &mut ZoneRead<'_>,
    provider: Option<&ProviderId>,
) -> Result<bool, Refusal> {
    let Some(id) = provider else { return Ok(false) };
    Ok(providers::lookup(tx, id).await?.is_some_and(|provider| provider.kind == MANDATE))
}

/// Probes the resource's upstream; counted, and refused where nobody issues anything.
pub(super) async fn check(
    admin: &Admin,
    zone: &ZoneId,
    resource: &Resource,
    now: Timestamp,
) -> Result<Checked, Refusal> {
    let Some(upstream) = resource.upstream_url.as_deref() else { return Err(unsupported()) };
    admin.limits.resource_check(zone, now).await?;
    let unconfigured = || Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "service_unconfigured");
    let issuer = admin.config.issuer.as_deref().ok_or_else(unconfigured)?;
    let mandate = forged(issuer, zone, &resource.identifier, now)?;
    let (status, detail) = probe(admin, upstream, &mandate).await;
    tracing::info!(%zone, resource = %resource.id, status, "an upstream was probed");
    Ok(Checked { status, detail, checked_at: admin.store.now() })
}

pub(super) fn unsupported() -> Refusal {
    Refusal::invalid("resource_verification_unsupported")
        .describe("only upstreams of resources with a provider of kind caracal_mandate are sent mandates to verify")
}

/// A mandate as the zone's issuer would write it, by nobody.
fn forged(issuer: &str, zone: &ZoneId, audience: &str, now: Timestamp) -> Result<String, Refusal> {
    let (key, _) = SigningKey::generate()?;
    let issued = now.as_micros() / 1_000_000;
    let claims = json!({
        "iss": issuer,
        "sub": SUBJECT,
        "aud": audience,
        "zone_id": zone,
        "use": "resource",
        "iat": issued,
        "exp": issued + LIFE_SECONDS,
        "jti": chance::uuid_v7(now)?.to_string(),
    });
    let kid = format!("probe-{}", chance::uuid_v4()?);
    key.sign(&kid, &claims).map_err(|_| Problem::internal().into())
}

async fn probe(admin: &Admin, upstream: &str, mandate: &str) -> (&'static str, String) {
    let unreachable = |what: &str| ("unreachable", what.to_owned());
    let Ok(url) = TargetUrl::parse(upstream) else { return unreachable("the upstream url is not usable") };
    let Ok(mut bearer) = HeaderValue::from_str(&format!("Bearer {mandate}")) else {
        return unreachable("the probe could not be written");
    };
    bearer.set_sensitive(true);
    let headers = HeaderMap::from_iter([(AUTHORIZATION, bearer), (ACCEPT, HeaderValue::from_static("*/*"))]);
    let (method, body) = (Method::HEAD, Bytes::new());
    let request = SimpleRequest { method, url, headers, body, deadline: PATIENCE, max_response_bytes: SHORT_ANSWER };
    match admin.outgoing.status(request).await {
        Ok(status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)) => {
            ("guarded", format!("the upstream answered {} to a mandate that nobody issued", status.as_u16()))
        }
        Ok(status) if status.is_success() => {
            ("unverified", format!("the upstream answered {} to a mandate that nobody issued", status.as_u16()))
        }
        Ok(status) => ("endpoint_error", format!("the upstream answered {}", status.as_u16())),
        Err(_) => unreachable("the upstream could not be reached"),
    }
}
