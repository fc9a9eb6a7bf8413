//! `GET /v1/zones/{zone}/sessions`: what runs and what ran, newest first, as JSON or CSV.

use std::sync::Arc;

use caracal_authority::record::SubjectKind;
use caracal_authority::{AgentSessionId, ApplicationId, AuthorityRecordId, Timestamp};
use caracal_store::Page;
use caracal_store::oversight::{self, SeenSession, SessionFilter};
use http::Method;
use serde::Serialize;
use serde_json::{Value, json};

use crate::Admin;
use crate::answer::Answer;
use crate::audit::csv;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::openapi::shape::described;
use crate::openapi::spec::Spec;
use crate::page::{Listing, Query};
use crate::problem::Refusal;

pub(crate) const ROUTE: Route = Route {
    method: Method::GET,
    path: "/v1/zones/{zone}/sessions",
    needs: Needs::Read,
    reach: Reach::Zone(Run::Read(|admin, call| Box::pin(list(admin, call)))),
    spec: Spec::in_files::<View>(
        "sessions.list",
        "Lists the agent sessions of a zone, newest first, as JSON or as a CSV file.",
    )
    .asks(|query| asked(query).map(drop)),
};

described! {
    /// A session as answers show it.
    #[derive(Serialize)]
    struct View<'a> {
        session_id: &'a AgentSessionId,
        application_id: &'a ApplicationId,
        parent_session_id: Option<&'a AgentSessionId>,
        status: &'a str,
        lifecycle: &'a str,
        labels: &'a [String],
        depth: i64,
        child_count: i64,
        subject_authority_record_id: &'a AuthorityRecordId,
        subject_id: Option<&'a str>,
        #[serde(flatten)]
        federated: Option<Federated<'a>>,
        started_at: Timestamp,
        last_active_at: Timestamp,
        terminated_at: Option<Timestamp>,
        termination_reason: Option<&'a str>,
        ttl_seconds: Option<i64>,
    }
}

described! {
    /// Of a session that acts for a user: which, and who vouched.
    #[derive(Serialize)]
    struct Federated<'a> {
        federated_user_id: Option<&'a str>,
        federated_user_issuer: Option<&'a str>,
    }
}

impl<'a> Federated<'a> {
    fn of(row: &'a SeenSession) -> Option<Self> {
        let is_user = row.subject_kind.as_deref() == Some(SubjectKind::User.as_str());
        is_user.then(|| Self {
            federated_user_id: row.subject_id.as_deref(),
            federated_user_issuer: row.provenance.as_ref().map(|provenance| provenance.iss.as_str()),
        })
    }
}

impl<'a> From<&'a SeenSession> for View<'a> {
    fn from(row: &'a SeenSession) -> Self {
        let session = &row.session;
        Self {
            session_id: &session.id,
            application_id: &session.application_id,
            parent_session_id: session.parent_id.as_ref(),
            status: &session.status,
            lifecycle: &session.lifecycle,
            labels: &session.labels,
            depth: session.depth,
            child_count: row.child_count,
            subject_authority_record_id: &session.subject_record_id,
            subject_id: row.subject_id.as_deref(),
            federated: Federated::of(row),
            started_at: session.started_at,
            last_active_at: session.last_active_at,
            terminated_at: session.terminated_at,
            termination_reason: session.termination_reason.as_deref(),
            ttl_seconds: session.ttl_seconds,
        }
    }
}

const COLUMNS: [&str; 17] = [
    "session_id",
    "application_id",
    "parent_session_id",
    "status",
    "lifecycle",
    "labels",
    "depth",
    "child_count",
    "subject_authority_record_id",
    "subject_id",
    "federated_user_id",
    "federated_user_issuer",
    "started_at",
    "last_active_at",
    "terminated_at",
    "termination_reason",
    "ttl_seconds",
];

/// What is asked for, and whether as a file.
fn asked(query: &Query) -> Result<(SessionFilter, Page, bool), Refusal> {
    let limit = query.limit(100, 1_000)?;
    let filter = SessionFilter {
        status: query.choice("status", &["active", "suspended", "terminated", "expired"])?.map(str::to_owned),
        lifecycle: query.choice("lifecycle", &["task", "service"])?.map(str::to_owned),
        application_id: query.text("application_id", 128)?,
        parent_id: query.text("parent_session_id", 128)?,
        subject_id: query.text("subject_id", 512)?,
        label: query.text("label", 64)?,
    };
    let is_csv = query.is_csv()?;
    Ok((filter, Page { limit, after: query.cursor()? }, is_csv))
}

async fn list(admin: Arc<Admin>, call: Call<InZone>) -> Result<Answer, Refusal> {
    let (filter, page, is_csv) = asked(&call.query)?;
    let mut snapshot = admin.store.snapshot().await?;
    let rows = oversight::list_sessions(&mut snapshot.zone(&call.place.zone), &filter, &page).await?;
    drop(snapshot);
    if is_csv {
        return csv::file(&format!("sessions-{}.csv", call.place.zone), &COLUMNS, rows.iter().map(line));
    }
    let place = |row: &SeenSession| (row.session.started_at, row.session.id.to_string());
    Ok(Answer::ok(&Listing::of(&rows, &page, place, View::from)))
}

fn line(row: &SeenSession) -> Vec<Value> {
    let (session, federated) = (&row.session, Federated::of(row));
    vec![
        json!(session.id),
        json!(session.application_id),
        json!(session.parent_id),
        json!(session.status),
        json!(session.lifecycle),
        json!(session.labels),
        json!(session.depth),
        json!(row.child_count),
        json!(session.subject_record_id),
        json!(row.subject_id),
        json!(federated.as_ref().and_then(|user| user.federated_user_id)),
        json!(federated.as_ref().and_then(|user| user.federated_user_issuer)),
        json!(session.started_at),
        json!(session.last_active_at),
        json!(session.terminated_at),
        json!(session.termination_reason),
        json!(session.ttl_seconds),
    ]
}
