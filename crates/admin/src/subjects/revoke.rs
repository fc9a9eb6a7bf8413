//! `POST /v1/zones/{zone}/subjects/revoke`: the kill switch (contract: admin-api.md §5.8, property 14). When it has answered,
//! the subject holds nothing in the zone, whatever ran at the same time. Asked again, it finds nothing more to end.

use std::sync::Arc;

use caracal_store::holdings::Holder;
use caracal_store::{ZoneWrite, provider_connections, subjects};
use http::{Method, StatusCode};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{ID, missing};
use crate::Admin;
use crate::answer::{Changed, Recorded};
use crate::endings::{self, Ended, Why};
use crate::evidence::Trace;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::input::{Body, Fields, Mismatch, ONE_LINE, Text};
use crate::openapi::shape::described;
use crate::openapi::spec::Spec;
use crate::problem::Refusal;

pub(crate) const ROUTE: Route = Route {
    method: Method::POST,
    path: "/v1/zones/{zone}/subjects/revoke",
    needs: Needs::Write,
    reach: Reach::Zone(Run::Change(|admin, call| Box::pin(revoke(admin, call)))),
    spec: Spec::shows::<Revoked>("subjects.revoke", "The kill switch: ends everything that acts for a subject.")
        .takes("invalid_subject_revoke", |body| Switch::read(body).map(drop))
        .refuses(&[(404, "subject_not_found")]),
};

/// Kept with every record, whatever reason is given.
const REASON: &str = "subject_revoked";

struct Switch {
    subject: String,
    reason: String,
}

impl Switch {
    fn read(body: impl Into<Body>) -> Result<Self, Mismatch> {
        let mut fields = Fields::of(body)?;
        let subject = fields.required_text("subject_id", ID)?;
        let reason = fields.text("reason", Text::exact(0, 512).like(ONE_LINE))?.filter(|reason| !reason.is_empty());
        let reason = reason.unwrap_or_else(|| REASON.to_owned());
        Ok(Self { subject, reason })
    }
}

struct Change {
    switch: Switch,
    trace: Arc<Trace>,
}

described! {
    #[derive(Serialize)]
    struct Revoked<'a> {
        subject_id: &'a str,
        authority_records: usize,
        sessions: usize,
        delegations: usize,
        connections: usize,
    }
}

async fn revoke(admin: Arc<Admin>, mut call: Call<InZone>) -> Result<Changed, Refusal> {
    let switch = Switch::read(call.body.take()).map_err(|mismatch| mismatch.refuse("invalid_subject_revoke"))?;
    let subject = switch.subject.clone();
    let change = Change { switch, trace: call.trace };
    let (ended, connections, recorded) = admin
        .store
        .commit(&call.place.zone, change, |tx, change| Box::pin(async move { change.commit(tx).await }))
        .await?;
    Ok(recorded.answer(&Revoked {
        subject_id: &subject,
        authority_records: ended.records,
        sessions: ended.sessions,
        delegations: ended.delegations,
        connections,
    }))
}

impl Change {
    async fn commit(&self, tx: &mut ZoneWrite<'_>) -> Result<(Ended, usize, Recorded), Refusal> {
        let Switch { subject, reason } = &self.switch;
        if !subjects::is_known(tx, subject).await? {
            return Err(missing());
        }
        let ended = endings::of_holder(tx, Holder::Subject(subject), Why { kept: REASON, told: reason }).await?;
        let mut connections = 0;
        for connection in subjects::list_active_connections(tx, Some(subject)).await? {
            connections += usize::from(provider_connections::end(tx, &connection, "revoked").await?);
        }
        let payload = json!({
            "subject_id": subject,
            "reason": reason,
            "revoked_authority_records": ended.records,
            "terminated_sessions": ended.sessions,
            "revoked_delegations": ended.delegations,
            "revoked_connections": connections,
        });
        let payload = if let Value::Object(members) = payload { members } else { Map::new() };
        self.trace.consequence(tx, "Subject authority revoked", ("subjects", subject), payload).await?;
        let recorded = self.trace.telling(ended).change(tx, StatusCode::OK, None).await?;
        Ok((ended, connections, recorded))
    }
}
