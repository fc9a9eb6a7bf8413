//! `PATCH /v1/zones/{zone}`: names and settings, and how self-registration ends (contract: admin-api.md §5.1).
//!
//! Switching registration off while applications that registered themselves are alive needs a word on what becomes of
//! them: they live to their end, or they and all the authority they hold end with this commit.

use std::sync::Arc;

use caracal_authority::ApplicationId;
use caracal_store::holdings::Holder;
use caracal_store::zones::{self, Zone};
use caracal_store::{ZoneWrite, applications, oversight};
use http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::create::{conflict, slug_of};
use super::{View, live};
use crate::Admin;
use crate::answer::Changed;
use crate::attribution::changed;
use crate::endings::{self, Ended};
use crate::evidence::Trace;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::input::{Body, Fields, Mismatch, Text};
use crate::openapi::spec::Spec;
use crate::problem::Refusal;
use crate::reserved;

pub(crate) const ROUTE: Route = Route {
    method: Method::PATCH,
    path: "/v1/zones/{zone}",
    needs: Needs::Write,
    reach: Reach::Zone(Run::Change(|admin, call| Box::pin(update(admin, call)))),
    spec: Spec::shows::<View>("zones.update", "Changes a zone, or ends registration in it.")
        .takes("invalid_zone", |body| Patch::read(body).map(drop))
        .refuses(&[
            (409, "reserved_namespace"),
            (409, "zone_slug_conflict"),
            (400, "dcr_shutdown_not_applicable"),
            (400, "no_fields"),
            (404, "zone_not_found"),
            (409, "dcr_shutdown_required"),
        ]),
};

/// Why what registered itself ends.
const SHUTDOWN: &str = "dcr_shutdown";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shutdown {
    KeepLive,
    RevokeLive,
}

struct Patch {
    name: Option<String>,
    slug: Option<String>,
    dcr_enabled: Option<bool>,
    dcr_shutdown: Option<Shutdown>,
    operator_coauthor_badge: Option<bool>,
    operator_governed: Option<bool>,
}

impl Patch {
    fn read(body: impl Into<Body>) -> Result<Self, Mismatch> {
        let mut fields = Fields::of(body)?;
        let name = fields.text("name", Text::trimmed(1, 120))?;
        let slug = slug_of(&mut fields)?;
        let dcr_enabled = fields.flag("dcr_enabled")?;
        let dcr_shutdown = fields.choice("dcr_shutdown", &["keep_live", "revoke_live"])?;
        let operator_coauthor_badge = fields.flag("operator_coauthor_badge")?;
        let operator_governed = fields.flag("operator_governed")?;
        fields.nothing_else()?;
        let dcr_shutdown = dcr_shutdown.map(|mode| match mode {
            "revoke_live" => Shutdown::RevokeLive,
            _ => Shutdown::KeepLive,
        });
        Ok(Self { name, slug, dcr_enabled, dcr_shutdown, operator_coauthor_badge, operator_governed })
    }

    fn is_empty(&self) -> bool {
        self.name.is_none()
            && self.slug.is_none()
            && self.dcr_enabled.is_none()
            && self.operator_coauthor_badge.is_none()
            && self.operator_governed.is_none()
    }
}

struct Change {
    patch: Patch,
    by: String,
    trace: Arc<Trace>,
}

async fn update(admin: Arc<Admin>, mut call: Call<InZone>) -> Result<Changed, Refusal> {
    let patch = Patch::read(call.body.take()).map_err(|mismatch| mismatch.refuse("invalid_zone"))?;
    let (name, slug) = (patch.name.as_deref().unwrap_or_default(), patch.slug.as_deref().unwrap_or_default());
    reserved::guard(call.caller.is_bootstrap(), name, reserved::NAME)?;
    reserved::guard(call.caller.is_bootstrap(), slug, reserved::SLUG)?;
    if patch.dcr_shutdown.is_some() && patch.dcr_enabled != Some(false) {
        return Err(Refusal::invalid("dcr_shutdown_not_applicable")
            .describe("dcr_shutdown says what becomes of registered applications when dcr_enabled turns false"));
    }
    if patch.is_empty() {
        return Err(Refusal::invalid("no_fields"));
    }
    let change = Change { patch, by: call.caller.actor(), trace: call.trace };
    let (zone, recorded) = admin
        .store
        .commit(&call.place.zone, change, |tx, change| {
            Box::pin(async move {
                let was = live(tx).await?;
                let zone = change.zone(&was, tx);
                if change.patch.dcr_enabled == Some(false) && (was.dcr_enabled || change.patch.dcr_shutdown.is_some()) {
                    change.shut_registration(tx).await?;
                }
                zones::update(tx, &zone).await.map_err(conflict)?;
                let recorded = change.trace.change(tx, StatusCode::OK, None).await?;
                Ok::<_, Refusal>((zone, recorded))
            })
        })
        .await?;
    Ok(recorded.answer(&View::from(&zone)))
}

impl Change {
    fn zone(&self, was: &Zone, tx: &ZoneWrite<'_>) -> Zone {
        let (patch, mut zone) = (&self.patch, was.clone());
        if let Some(name) = &patch.name {
            zone.name.clone_from(name);
        }
        if let Some(slug) = &patch.slug {
            zone.slug.clone_from(slug);
        }
        zone.dcr_enabled = patch.dcr_enabled.unwrap_or(zone.dcr_enabled);
        zone.operator_coauthor_badge = patch.operator_coauthor_badge.unwrap_or(zone.operator_coauthor_badge);
        zone.operator_governed = patch.operator_governed.unwrap_or(zone.operator_governed);
        changed(&mut zone.attribution, &self.by, tx.now());
        zone
    }

    async fn shut_registration(&self, tx: &mut ZoneWrite<'_>) -> Result<(), Refusal> {
        let registered = oversight::list_live_registrations(tx).await?;
        let (mode, archived) = match self.patch.dcr_shutdown {
            _ if registered.is_empty() => ("no_live", &[][..]),
            None => {
                return Err(Refusal::conflict("dcr_shutdown_required")
                    .describe("applications that registered themselves are alive: say keep_live or revoke_live")
                    .details(json!({"live_dcr_applications": registered.len()})));
            }
            Some(Shutdown::KeepLive) => ("keep_live", &[][..]),
            Some(Shutdown::RevokeLive) => ("revoke_live", &registered[..]),
        };
        let mut ended = Ended::default();
        for application in archived {
            ended = ended.and(self.end(tx, application).await?);
        }
        let payload = json!({
            "dcr_registration_disabled": true,
            "dcr_shutdown_mode": mode,
            "live_dcr_applications": registered.len(),
            "revoked_applications": archived.len(),
            "revoked_authority_records": ended.records,
            "terminated_sessions": ended.sessions,
            "revoked_delegations": ended.delegations,
        });
        let payload = if let Value::Object(members) = payload { members } else { Map::new() };
        let zone = tx.zone().to_string();
        self.trace.consequence(tx, &format!("DCR shutdown {mode}"), ("zones", &zone), payload).await
    }

    async fn end(&self, tx: &mut ZoneWrite<'_>, application: &ApplicationId) -> Result<Ended, Refusal> {
        applications::archive(tx, application, &self.by).await?;
        endings::of_holder(tx, Holder::Client(application), SHUTDOWN.into()).await
    }
}
