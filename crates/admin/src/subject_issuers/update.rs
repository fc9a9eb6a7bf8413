//! `PATCH /v1/zones/{zone}/subject-issuers/{id}`: where the keys are, and for whom tokens have to be meant. The issuer
//! stays what it is. A patch without either is a change, too: it says who looked after the registration, and when.

use std::sync::Arc;

use caracal_authority::SubjectIssuerId;
use caracal_store::subject_issuers;
use http::{Method, StatusCode};

use super::{AUDIENCE, INVALID, View, address, existing, missing};
use crate::Admin;
use crate::answer::Changed;
use crate::attribution::changed;
use crate::evidence::Trace;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::input::{Body, Fields, Mismatch};
use crate::openapi::spec::Spec;
use crate::problem::Refusal;

pub(crate) const ROUTE: Route = Route {
    method: Method::PATCH,
    path: "/v1/zones/{zone}/subject-issuers/{id}",
    needs: Needs::Write,
    reach: Reach::Zone(Run::Change(|admin, call| Box::pin(update(admin, call)))),
    spec: Spec::shows::<View>("subject_issuers.update", "Changes where the keys of an issuer are, or its audience.")
        .takes(INVALID, |body| Patch::read(body).map(drop))
        .refuses(&[(404, "subject_issuer_not_found")]),
};

struct Patch {
    jwks_url: Option<String>,
    audience: Option<String>,
}

impl Patch {
    fn read(body: impl Into<Body>) -> Result<Self, Mismatch> {
        let mut fields = Fields::of(body)?;
        Ok(Self { jwks_url: address(&mut fields, "jwks_url")?, audience: fields.text("audience", AUDIENCE)? })
    }
}

struct Change {
    id: SubjectIssuerId,
    patch: Patch,
    by: String,
    trace: Arc<Trace>,
}

async fn update(admin: Arc<Admin>, mut call: Call<InZone>) -> Result<Changed, Refusal> {
    let patch = Patch::read(call.body.take()).map_err(|mismatch| mismatch.refuse(INVALID))?;
    let change = Change { id: call.id("id")?, patch, by: call.caller.actor(), trace: call.trace };
    let (row, recorded) = admin
        .store
        .commit(&call.place.zone, change, |tx, change| {
            Box::pin(async move {
                let mut row = existing(tx, &change.id).await?;
                if let Some(jwks_url) = &change.patch.jwks_url {
                    row.jwks_url.clone_from(jwks_url);
                }
                if let Some(audience) = &change.patch.audience {
                    row.audience.clone_from(audience);
                }
                changed(&mut row.attribution, &change.by, tx.now());
                if !subject_issuers::update(tx, &row).await? {
                    return Err(missing());
                }
                let recorded = change.trace.change(tx, StatusCode::OK, None).await?;
                Ok::<_, Refusal>((row, recorded))
            })
        })
        .await?;
    Ok(recorded.answer(&View::from(&row)))
}
