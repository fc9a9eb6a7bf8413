//! `POST /v1/zones/{zone}/applications`: a managed application with a fresh secret.
//!
//! The order of refusals is the contract's; the slow hash comes after everything that can be refused without it, and
//! what is refused by what is stored is judged once more inside the commit.

use std::sync::Arc;

use caracal_authority::ApplicationId;
use caracal_store::Attribution;
use caracal_store::applications::{self, Application};
use http::Method;

use super::secret::NewSecret;
use super::{Core, WithSecret, require_free_name, traits};
use crate::Admin;
use crate::admin::fresh;
use crate::answer::Changed;
use crate::evidence::Trace;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::input::{Body, Fields, Mismatch, Text};
use crate::openapi::spec::Spec;
use crate::problem::Refusal;
use crate::reserved;
use crate::zones::require_live_zone;

pub(crate) const ROUTE: Route = Route {
    method: Method::POST,
    path: "/v1/zones/{zone}/applications",
    needs: Needs::Write,
    reach: Reach::Zone(Run::Change(|admin, call| Box::pin(create(admin, call)))),
    spec: Spec::creates::<WithSecret>("applications.create", "Creates a managed application, and shows its secret.")
        .takes("invalid_application", |body| Draft::read(body).map(drop))
        .refuses(&[
            (404, "zone_not_found"),
            (409, "reserved_namespace"),
            (403, "trait_count_exceeded"),
            (403, "trait_invalid"),
            (403, "trait_duplicate"),
            (403, "trait_forbidden"),
            (409, "application_name_taken"),
            (502, "secret_backend_unavailable"),
            (503, "secret_hashing_unavailable"),
        ]),
};

struct Draft {
    name: String,
    traits: Vec<String>,
}

impl Draft {
    fn read(body: impl Into<Body>) -> Result<Self, Mismatch> {
        let mut fields = Fields::of(body)?;
        let name = fields.required_text("name", Text::trimmed(1, 200))?;
        let method = fields.choice("registration_method", &["managed"])?;
        fields.require("registration_method", method)?;
        // What a trait may be is judged later, with another status; here it only has to be a text.
        let traits = fields.texts("traits", (0, usize::MAX), Text::exact(0, usize::MAX))?.unwrap_or_default();
        fields.nothing_else()?;
        Ok(Self { name, traits })
    }
}

struct Change {
    draft: Draft,
    id: ApplicationId,
    by: String,
    secret: Arc<NewSecret>,
    trace: Arc<Trace>,
}

async fn create(admin: Arc<Admin>, mut call: Call<InZone>) -> Result<Changed, Refusal> {
    call.require_live_zone()?;
    let draft = Draft::read(call.body.take()).map_err(|mismatch| mismatch.refuse("invalid_application"))?;
    reserved::guard(call.caller.is_bootstrap(), &draft.name, reserved::NAME)?;
    traits::check(&draft.traits, call.caller.is_global())?;
    let zone = call.place.zone.clone();
    let mut snapshot = admin.store.snapshot().await?;
    require_free_name(&mut snapshot.zone(&zone), &draft.name, None).await?;
    drop(snapshot);
    let secret = Arc::new(NewSecret::draw(&admin).await?);
    let id: ApplicationId = fresh(call.now)?;
    let change = Change { draft, id: id.clone(), by: call.caller.actor(), secret: secret.clone(), trace: call.trace };
    let committing = admin.store.commit(&zone, change, |tx, change| {
        Box::pin(async move {
            require_live_zone(tx).await?;
            require_free_name(tx, &change.draft.name, None).await?;
            let application = Application {
                zone_id: tx.zone().clone(),
                id: change.id.clone(),
                name: change.draft.name.clone(),
                registration_method: "managed".to_owned(),
                traits: change.draft.traits.clone(),
                secret_hash: Some(change.secret.hash.clone()),
                expires_at: None,
                archived_at: None,
                attribution: Attribution { updated_at: None, ..Attribution::created(&change.by, tx.now()) },
            };
            applications::add(tx, &application).await?;
            change.secret.keep(tx, &application.zone_id, &application.id).await?;
            let recorded = change.trace.creation(tx, change.id.as_str(), &Core::from(&application)).await?;
            Ok::<_, Refusal>((application, recorded))
        })
    });
    let (application, recorded) = secret.staged(&zone, &id, true, committing).await?;
    Ok(recorded.answer(&WithSecret::of(&application, secret.value.expose())))
}
