//! `POST /v1/zones/{zone}/providers/{id}/test`: asks the token endpoint as the STS would, and keeps whether that went well.

use std::sync::Arc;

use caracal_authority::ProviderId;
use caracal_store::providers;
use http::{Method, StatusCode};

use super::check::Checked;
use super::{check, existing, secrets};
use crate::Admin;
use crate::answer::Changed;
use crate::evidence::Trace;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::openapi::spec::Spec;
use crate::problem::Refusal;

pub(crate) const ROUTE: Route = Route {
    method: Method::POST,
    path: "/v1/zones/{zone}/providers/{id}/test",
    needs: Needs::Write,
    reach: Reach::Zone(Run::Change(|admin, call| Box::pin(test(admin, call)))),
    spec: Spec::shows::<Checked>("providers.test", "Tries out whether a provider accepts what is configured.").refuses(
        &[
            (404, "provider_not_found"),
            (400, "provider_check_unsupported"),
            (429, "provider_test_rate_limited"),
            (502, "secret_backend_unavailable"),
            (409, "reserved_namespace"),
        ],
    ),
};

struct Change {
    id: ProviderId,
    checked: providers::Provider,
    is_ok: bool,
    trace: Arc<Trace>,
}

async fn test(admin: Arc<Admin>, call: Call<InZone>) -> Result<Changed, Refusal> {
    let (id, zone): (ProviderId, _) = (call.id("id")?, call.place.zone.clone());
    let mut snapshot = admin.store.snapshot().await?;
    let provider = existing(&mut snapshot.zone(&zone), &id).await?;
    drop(snapshot);
    check::require_endpoint(&provider.kind)?;
    admin.limits.check(&zone, call.now).await?;
    let document = secrets(&admin, &zone, &id).await?;
    let checked = check::run(&admin, &zone, &provider.kind, &provider.config, &document).await;
    let change = Change { id, checked: provider, is_ok: checked.is_ok(), trace: call.trace };
    let recorded = admin
        .store
        .commit(&zone, change, |tx, change| {
            Box::pin(async move {
                let mut provider = existing(tx, &change.id).await?;
                // Of one that was configured anew meanwhile nothing is known yet.
                let is_same = provider.kind == change.checked.kind
                    && provider.config == change.checked.config
                    && provider.attribution.updated_at == change.checked.attribution.updated_at;
                if is_same {
                    provider.connectivity_failed_at = (!change.is_ok).then(|| tx.now());
                    providers::update(tx, &provider).await?;
                }
                change.trace.change(tx, StatusCode::OK, None).await
            })
        })
        .await?;
    Ok(recorded.answer(&checked))
}
