//! `POST /v1/admin-tokens`: the one answer that shows the token.

use std::sync::Arc;

use caracal_authority::{AdminTokenId, Timestamp, ZoneId};
use caracal_crypto::chance;
use caracal_crypto::fast_hash::token_digest;
use caracal_store::admin_tokens::{self, AdminToken};
use caracal_store::zones;
use http::Method;
use serde::Serialize;

use super::{Core, forbid_derived};
use crate::Admin;
use crate::admin::fresh;
use crate::answer::Changed;
use crate::evidence::Trace;
use crate::gate::{Anywhere, Call, Caller, Needs, Reach, Route, Run};
use crate::input::{Body, Fields, Mismatch, Text};
use crate::openapi::shape::described;
use crate::openapi::spec::Spec;
use crate::problem::Refusal;

pub(crate) const ROUTE: Route = Route {
    method: Method::POST,
    path: "/v1/admin-tokens",
    needs: Needs::Write,
    reach: Reach::Deployment(Run::Change(|admin, call| Box::pin(create(admin, call)))),
    spec: Spec::creates::<Minted>("admin_tokens.create", "Makes an admin token, and shows it.")
        .takes("invalid_admin_token_request", |body| Draft::read(body).map(drop))
        .refuses(&[
            (403, "admin_token_management_forbidden_for_derived_token"),
            (400, "zone_id_required"),
            (404, "zone_not_found"),
            (400, "zone_id_not_allowed_for_global"),
            (403, "approve_capability_required"),
            (403, "admin_token_expiry_exceeded"),
        ]),
};

struct Draft {
    name: String,
    scope: &'static str,
    zone_id: Option<String>,
    capability: &'static str,
    expires_at: Option<Timestamp>,
}

impl Draft {
    fn read(body: impl Into<Body>) -> Result<Self, Mismatch> {
        let mut fields = Fields::of(body)?;
        let name = fields.required_text("name", Text::exact(1, 120))?;
        let scope = fields.choice("scope", &["global", "zone"])?;
        let scope = fields.require("scope", scope)?;
        let zone_id = fields.text("zone_id", Text::exact(1, 128))?;
        let capability = fields.choice("capability", &["read", "write", "approve"])?.unwrap_or("write");
        let expires_at = fields.instant("expires_at")?;
        fields.nothing_else()?;
        Ok(Self { name, scope, zone_id, capability, expires_at })
    }

    /// The zone that the token is bound to, as the body says it.
    fn zone(&self) -> Result<Option<ZoneId>, Refusal> {
        match (self.scope, &self.zone_id) {
            ("zone", Some(zone)) => zone.parse().map(Some).map_err(|_| Refusal::missing("zone_not_found")),
            ("zone", None) => Err(Refusal::invalid("zone_id_required")),
            (_, Some(_)) => Err(Refusal::invalid("zone_id_not_allowed_for_global")),
            (_, None) => Ok(None),
        }
    }
}

described! {
    #[derive(Serialize)]
    struct Minted<'a> {
        #[serde(flatten)]
        core: Core<'a>,
        token: &'a str,
    }
}

struct Change {
    row: AdminToken,
    digest: String,
    trace: Arc<Trace>,
}

async fn create(admin: Arc<Admin>, mut call: Call<Anywhere>) -> Result<Changed, Refusal> {
    forbid_derived(&call.caller)?;
    let draft = Draft::read(call.body.take()).map_err(|mismatch| mismatch.refuse("invalid_admin_token_request"))?;
    let zone_id = draft.zone()?;
    check_bounds(&call.caller, &draft, call.now)?;
    let token = chance::token("cat_")?;
    let row = AdminToken {
        id: fresh::<AdminTokenId>(call.now)?,
        name: draft.name,
        scope: draft.scope.to_owned(),
        capability: draft.capability.to_owned(),
        zone_id,
        created_by: call.caller.actor(),
        created_at: call.now,
        last_used_at: None,
        revoked_at: None,
        expires_at: draft.expires_at,
    };
    let digest = token_digest(&admin.token_key, token.expose());
    let change = Change { row, digest, trace: call.trace };
    let (row, recorded) = admin
        .store
        .commit_deployment(change, |tx, change| {
            Box::pin(async move {
                if let Some(zone) = &change.row.zone_id {
                    let found = zones::lookup(&mut tx.zone(zone)).await?;
                    found
                        .filter(|zone| zone.archived_at.is_none())
                        .ok_or_else(|| Refusal::missing("zone_not_found"))?;
                }
                let row = AdminToken { created_at: tx.now(), ..change.row.clone() };
                admin_tokens::add(tx, &row, &change.digest).await?;
                let recorded = change.trace.zoneless_creation(tx, row.id.as_str(), &Core::from(&row)).await?;
                Ok::<_, Refusal>((row, recorded))
            })
        })
        .await?;
    Ok(recorded.answer(&Minted { core: Core::from(&row), token: token.expose() }))
}

/// A token makes none that can do more than itself, and none that outlives it.
fn check_bounds(caller: &Caller, draft: &Draft, now: Timestamp) -> Result<(), Refusal> {
    if draft.capability == "approve" && !caller.is_bootstrap() {
        return Err(Refusal::forbidden("approve_capability_required")
            .describe("a token that may not decide approvals can't make one that may; use the bootstrap token"));
    }
    if draft.expires_at.is_some_and(|end| end <= now) {
        return Err(Refusal::invalid("invalid_admin_token_request").describe("expires_at: must lie ahead"));
    }
    let Some(end) = caller.token().expires_at else { return Ok(()) };
    if draft.expires_at.is_none_or(|asked| asked > end) {
        return Err(Refusal::forbidden("admin_token_expiry_exceeded").describe(format!(
            "this token ends at {}, and so must what it makes: give expires_at no later than that",
            end.to_millis_text()
        )));
    }
    Ok(())
}
