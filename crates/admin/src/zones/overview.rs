//! `GET /v1/zones/{zone}/overview`: a zone in numbers, and what happened in it last. Of a zone that is not there they are all
//! zero.

use std::sync::Arc;

use caracal_authority::{Timestamp, ZoneId};
use caracal_store::evidence::{self, EvidenceFilter, EvidenceRow};
use caracal_store::{Page, oversight};
use http::Method;
use serde::Serialize;
use serde_json::{Value, json};

use crate::Admin;
use crate::answer::Answer;
use crate::audit;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::openapi::shape::described;
use crate::openapi::spec::Spec;
use crate::problem::Refusal;

pub(crate) const ROUTE: Route = Route {
    method: Method::GET,
    path: "/v1/zones/{zone}/overview",
    needs: Needs::Read,
    reach: Reach::Zone(Run::Read(|admin, call| Box::pin(overview(admin, call)))),
    spec: Spec::shows::<Overview>("zones.overview", "Sums a zone up: its inventory, sessions and decisions."),
};

const RECENT: usize = 10;

described! {
    #[derive(Serialize)]
    struct Event<'a> {
        id: &'a str,
        event_type: &'a str,
        request_id: &'a str,
        decision: &'a str,
        metadata_json: Value,
        occurred_at: Timestamp,
    }
}

impl<'a> From<&'a EvidenceRow> for Event<'a> {
    fn from(row: &'a EvidenceRow) -> Self {
        Self {
            id: &row.id,
            event_type: &row.event_type,
            request_id: &row.request_id,
            decision: &row.decision,
            metadata_json: audit::redacted(row),
            occurred_at: Timestamp::from_micros(row.occurred_at),
        }
    }
}

described! {
    #[derive(Serialize)]
    struct Overview<'a> {
        zone_id: &'a ZoneId,
        generated_at: Timestamp,
        applications: Value,
        resources: Value,
        providers: Value,
        policy_sets: Value,
        sessions: Value,
        decisions_24h: Value,
        recent_events: Vec<Event<'a>>,
    }
}

async fn overview(admin: Arc<Admin>, call: Call<InZone>) -> Result<Answer, Refusal> {
    let mut snapshot = admin.store.snapshot().await?;
    let mut tx = snapshot.zone(&call.place.zone);
    let seen = oversight::overview(&mut tx).await?;
    let recent = evidence::list(&mut tx, &EvidenceFilter::default(), &Page::first(RECENT)).await?;
    Ok(Answer::ok(&Overview {
        zone_id: &call.place.zone,
        generated_at: tx.now(),
        applications: json!({
            "total": seen.applications,
            "expired": seen.expired_applications,
            "expiring_soon": seen.expiring_applications,
        }),
        resources: json!({"total": seen.resources, "unenforced": seen.unenforced_resources}),
        providers: json!({"total": seen.providers}),
        policy_sets: json!({
            "total": seen.policy_sets,
            "enforcing": i64::from(seen.active_policy_set.is_some()),
            "active_name": seen.active_policy_set,
        }),
        sessions: json!({"active": seen.active_records}),
        decisions_24h: json!({"allowed": seen.allowed, "denied": seen.denied}),
        recent_events: recent.iter().map(Event::from).collect(),
    }))
}
