//! `POST /v1/zones/{zone}/applications/dcr`: an application that registers itself, for an hour at most (contract: admin-api.md
//! §5.2). Its secret is in this answer and nowhere else: no copy is kept.

use std::sync::Arc;
use std::time::Duration;

use caracal_authority::ApplicationId;
use caracal_store::applications::{self, Application};
use caracal_store::{Attribution, oversight};
use http::{Method, StatusCode};

use super::secret::NewSecret;
use super::{Core, WithSecret};
use crate::Admin;
use crate::admin::fresh;
use crate::answer::Changed;
use crate::evidence::Trace;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::input::{Body, Fields, Mismatch, Text};
use crate::openapi::spec::Spec;
use crate::problem::Refusal;
use crate::reserved;
use crate::zones;

pub(crate) const ROUTE: Route = Route {
    method: Method::POST,
    path: "/v1/zones/{zone}/applications/dcr",
    needs: Needs::Write,
    reach: Reach::Zone(Run::Change(|admin, call| Box::pin(register(admin, call)))),
    spec: Spec::creates::<WithSecret>(
        "applications.register",
        "Lets an application register itself, for an hour at most.",
    )
    .takes("invalid_application", |body| Draft::read(body).map(drop))
    .refuses(&[
        (409, "reserved_namespace"),
        (429, "dcr_rate_limit_exceeded"),
        (404, "zone_not_found"),
        (403, "dcr_disabled"),
        (429, "dcr_limit_exceeded"),
        (503, "secret_hashing_unavailable"),
    ]),
};

/// The longest, and the default, in seconds.
const MAX_LIFE: u64 = 3_600;
/// So many may be alive in one zone.
const MAX_LIVE: i64 = 1_000;

struct Draft {
    name: String,
    life: Duration,
}

impl Draft {
    fn read(body: impl Into<Body>) -> Result<Self, Mismatch> {
        let mut fields = Fields::of(body)?;
        let name = fields.required_text("name", Text::trimmed(1, 200))?;
        let seconds = fields.count("expires_in", MAX_LIFE)?.unwrap_or(MAX_LIFE);
        fields.nothing_else()?;
        Ok(Self { name, life: Duration::from_secs(seconds) })
    }
}

struct Change {
    draft: Draft,
    id: ApplicationId,
    by: String,
    secret: Arc<NewSecret>,
    trace: Arc<Trace>,
}

async fn register(admin: Arc<Admin>, mut call: Call<InZone>) -> Result<Changed, Refusal> {
    let draft = Draft::read(call.body.take()).map_err(|mismatch| mismatch.refuse("invalid_application"))?;
    reserved::guard(call.caller.is_bootstrap(), &draft.name, reserved::NAME)?;
    let zone = call.place.zone.clone();
    admin.limits.registration(&zone, call.caller.token().id.as_str(), call.now).await?;
    let mut snapshot = admin.store.snapshot().await?;
    let mut tx = snapshot.zone(&zone);
    admits_another(&mut tx).await?;
    drop(snapshot);
    let secret = Arc::new(NewSecret::draw(&admin).await?);
    let change =
        Change { draft, id: fresh(call.now)?, by: call.caller.actor(), secret: secret.clone(), trace: call.trace };
    let (application, recorded) = admin
        .store
        .commit(&zone, change, |tx, change| {
            Box::pin(async move {
                admits_another(tx).await?;
                let application = Application {
                    zone_id: tx.zone().clone(),
                    id: change.id.clone(),
                    name: change.draft.name.clone(),
                    registration_method: "dcr".to_owned(),
                    traits: Vec::new(),
                    secret_hash: Some(change.secret.hash.clone()),
                    expires_at: Some(tx.now().plus(change.draft.life)),
                    archived_at: None,
                    attribution: Attribution { updated_at: None, ..Attribution::created(&change.by, tx.now()) },
                };
                applications::add(tx, &application).await?;
                let recorded = change.trace.creation(tx, change.id.as_str(), &Core::from(&application)).await?;
                Ok::<_, Refusal>((application, recorded))
            })
        })
        .await?;
    Ok(recorded.answer(&WithSecret::of(&application, secret.value.expose())))
}

/// Whether the zone takes one more.
async fn admits_another(tx: &mut caracal_store::ZoneRead<'_>) -> Result<(), Refusal> {
    if !zones::live(tx).await?.dcr_enabled {
        return Err(Refusal::forbidden("dcr_disabled").describe("applications can't register themselves in this zone"));
    }
    if oversight::count_live_registrations(tx).await? >= MAX_LIVE {
        return Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, "dcr_limit_exceeded").describe(format!(
            "{MAX_LIVE} applications that registered themselves are alive; try again when one has ended"
        )));
    }
    Ok(())
}
