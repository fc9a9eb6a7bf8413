//! `POST /v1/zones/{zone}/applications`: a managed application with a fresh secret.
//!
//! The order of refusals is the contract's; the slow hash comes after everything that can be refused without it, and
//! what is refused by what is stored is judged once more inside the commit.

use std::sync::Arc;

use caracal_authority::ApplicationId;
use caracal_store::Attribution;
use caracal_store::applications::{self, Application};
use http::Method;
use serde_json::Value;

use super::secret::NewSecret;
use super::{Core, WithSecret, require_free_name, traits};
use crate::Admin;
use crate::admin::fresh;
use crate::answer::Changed;
use crate::evidence::Trace;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::input::{Fields, Mismatch, Text};
use crate::problem::Refusal;
use crate::reserved;
use crate::zones::require_live_zone;

pub(crate) const ROUTE: Route = Route {
    method: Method::POST,
    path: "/v1/zones/{zone}/applications",
    needs: Needs::Write,
    reach: Reach::Zone(Run::Change(|admin, call| Box::pin(create(admin, call)))),
};

struct Draft {
    name: String,
    traits: Vec<String>,
}

impl Draft {
    fn read(body: Option<Value>) -> Result<Self, Mismatch> {
        let mut fields = Fields::of(body)?;
        let name = fields.required_text("name", Text::trimmed(1, 200))?;
        if fields.choice("registration_method", &["managed"])?.is_none() {
            return Err(fields.mismatch("registration_method", "required"));
        }
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
