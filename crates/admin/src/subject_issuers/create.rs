//! `POST /v1/zones/{zone}/subject-issuers`.

use std::sync::Arc;

use caracal_authority::SubjectIssuerId;
use caracal_store::Attribution;
use caracal_store::subject_issuers::{self, SubjectIssuer};
use http::Method;

use super::{AUDIENCE, INVALID, View, address, conflict};
use crate::Admin;
use crate::admin::fresh;
use crate::answer::Changed;
use crate::evidence::Trace;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::input::{Body, Fields, Mismatch};
use crate::openapi::spec::Spec;
use crate::problem::Refusal;
use crate::zones::require_live_zone;

pub(crate) const ROUTE: Route = Route {
    method: Method::POST,
    path: "/v1/zones/{zone}/subject-issuers",
    needs: Needs::Write,
    reach: Reach::Zone(Run::Change(|admin, call| Box::pin(create(admin, call)))),
    spec: Spec::creates::<View>("subject_issuers.create", "Registers an issuer of users.")
        .takes(INVALID, |body| Draft::read(body).map(drop))
        .refuses(&[(404, "zone_not_found"), (409, "subject_issuer_limit_reached"), (409, "subject_issuer_exists")]),
};

/// Registrations of a zone that are not archived.
const MOST: i64 = 20;

struct Draft {
    issuer: String,
    jwks_url: String,
    audience: String,
}

impl Draft {
    fn read(body: impl Into<Body>) -> Result<Self, Mismatch> {
        let mut fields = Fields::of(body)?;
        let required = |fields: &mut Fields, name: &str| {
            let found = address(fields, name)?;
            fields.require(name, found)
        };
        Ok(Self {
            issuer: required(&mut fields, "issuer")?,
            jwks_url: required(&mut fields, "jwks_url")?,
            audience: fields.required_text("audience", AUDIENCE)?,
        })
    }
}

struct Change {
    id: SubjectIssuerId,
    draft: Draft,
    by: String,
    trace: Arc<Trace>,
}

async fn create(admin: Arc<Admin>, mut call: Call<InZone>) -> Result<Changed, Refusal> {
    call.require_live_zone()?;
    let draft = Draft::read(call.body.take()).map_err(|mismatch| mismatch.refuse(INVALID))?;
    let change = Change { id: fresh(call.now)?, draft, by: call.caller.actor(), trace: call.trace };
    let (row, recorded) = admin
        .store
        .commit(&call.place.zone, change, |tx, change| {
            Box::pin(async move {
                require_live_zone(tx).await?;
                if subject_issuers::count_live(tx).await? >= MOST {
                    let refusal = Refusal::conflict("subject_issuer_limit_reached");
                    return Err(
                        refusal.describe(format!("a zone has at most {MOST} subject issuers; archive one first"))
                    );
                }
                let row = SubjectIssuer {
                    zone_id: tx.zone().clone(),
                    id: change.id.clone(),
                    issuer: change.draft.issuer.clone(),
                    jwks_url: change.draft.jwks_url.clone(),
                    audience: change.draft.audience.clone(),
                    archived_at: None,
                    attribution: Attribution::created(&change.by, tx.now()),
                };
                subject_issuers::add(tx, &row).await.map_err(conflict)?;
                let recorded = change.trace.creation(tx, change.id.as_str(), &View::from(&row)).await?;
                Ok::<_, Refusal>((row, recorded))
            })
        })
        .await?;
    Ok(recorded.answer(&View::from(&row)))
}
