//! `POST /v1/zones`.

use std::sync::Arc;

use caracal_authority::ZoneId;
use caracal_crypto::chance;
use caracal_crypto::encoding;
use caracal_store::zones::{self, Zone};
use caracal_store::{Attribution, DeploymentWrite, StoreError};
use http::{Method, StatusCode};

use super::View;
use crate::Admin;
use crate::admin::fresh;
use crate::answer::Changed;
use crate::evidence::Trace;
use crate::gate::{Anywhere, Call, Needs, Reach, Route, Run};
use crate::input::{Body, Fields, Form, Mismatch, Text};
use crate::openapi::spec::Spec;
use crate::problem::Refusal;
use crate::reserved;
use crate::slug::{first_free, slug};

pub(crate) const ROUTE: Route = Route {
    method: Method::POST,
    path: "/v1/zones",
    needs: Needs::Write,
    reach: Reach::Zones(Run::Change(|admin, call| Box::pin(create(admin, call)))),
    spec: Spec::creates::<View>("zones.create", "Creates a zone.")
        .takes("invalid_zone", |body| Draft::read(body).map(drop))
        .refuses(&[(409, "reserved_namespace"), (409, "zone_slug_conflict")]),
};

struct Draft {
    name: String,
    slug: Option<String>,
    dcr_enabled: bool,
}

impl Draft {
    fn read(body: impl Into<Body>) -> Result<Self, Mismatch> {
        let mut fields = Fields::of(body)?;
        let name = fields.required_text("name", Text::trimmed(1, 120))?;
        let slug = slug_of(&mut fields)?;
        let dcr_enabled = fields.flag("dcr_enabled")?.unwrap_or(false);
        fields.nothing_else()?;
        Ok(Self { name, slug, dcr_enabled })
    }
}

/// Slugs are looked up in an index, and not every engine's takes a row of any length.
const SLUG: Text = Text::exact(1, 2_000).like(Form {
    pattern: "^[a-z0-9-]+$",
    is: |slug| slug.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'),
    what: "expected lower-case letters, digits and hyphens",
});

/// The member `slug`, when it is there.
pub(super) fn slug_of(fields: &mut Fields) -> Result<Option<String>, Mismatch> {
    fields.text("slug", SLUG)
}

struct Change {
    draft: Draft,
    id: ZoneId,
    by: String,
    owner: Option<String>,
    may_reserve: bool,
    /// Ends a generated slug when all numbered ones are taken.
    tail: String,
    trace: Arc<Trace>,
}

async fn create(admin: Arc<Admin>, mut call: Call<Anywhere>) -> Result<Changed, Refusal> {
    let draft = Draft::read(call.body.take()).map_err(|mismatch| mismatch.refuse("invalid_zone"))?;
    let change = Change {
        draft,
        id: fresh(call.now)?,
        by: call.caller.actor(),
        owner: call.caller.account().map(str::to_owned),
        may_reserve: call.caller.is_bootstrap(),
        tail: encoding::hex(&chance::random_bytes::<16>()?),
        trace: call.trace,
    };
    let (zone, recorded) = admin
        .store
        .commit_deployment(change, |tx, change| {
            Box::pin(async move {
                let zone = change.zone(tx).await?;
                zones::add(tx, &zone).await.map_err(conflict)?;
                change.trace.remember_zoneless(tx, zone.id.as_str(), &View::from(&zone)).await?;
                let mut tx = tx.zone_write(&zone.id);
                if let Some(owner) = &change.owner {
                    zones::give_to(&mut tx, owner).await?;
                }
                let recorded = change.trace.change(&mut tx, StatusCode::CREATED, Some(zone.id.as_str())).await?;
                Ok::<_, Refusal>((zone, recorded))
            })
        })
        .await?;
    Ok(recorded.answer(&View::from(&zone)))
}

impl Change {
    /// The slug is chosen inside the commit: nobody can take it in between.
    async fn zone(&self, tx: &mut DeploymentWrite<'_>) -> Result<Zone, Refusal> {
        let slug = match &self.draft.slug {
            Some(slug) => slug.clone(),
            None => {
                let base = slug(&self.draft.name, "zone");
                let taken = zones::list_slugs(tx, &base).await?;
                first_free(&base, &taken).unwrap_or_else(|| format!("{base}-{}", self.tail))
            }
        };
        // A generated slug counts, too: a tenant's zone must not become a system zone by its name.
        if !self.may_reserve && reserved::is_system_zone(&self.draft.name, &slug) {
            return Err(Refusal::conflict("reserved_namespace"));
        }
        Ok(Zone {
            id: self.id.clone(),
            name: self.draft.name.clone(),
            slug,
            dcr_enabled: self.draft.dcr_enabled,
            operator_coauthor_badge: true,
            operator_governed: false,
            attribution: Attribution::created(&self.by, tx.now()),
            archived_at: None,
        })
    }
}

pub(super) fn conflict(error: StoreError) -> Refusal {
    if error.is_conflict_on("zones.slug") { Refusal::conflict("zone_slug_conflict") } else { error.into() }
}
