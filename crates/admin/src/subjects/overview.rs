//! `GET /v1/zones/{zone}/subjects/overview?subject_id=`: one subject, and what is done for it.

use std::sync::Arc;

use caracal_authority::{AgentSessionId, ApplicationId, ConnectionId, ProviderId, Timestamp};
use caracal_store::Page;
use caracal_store::subjects::{self, Connected, Governed, SubjectFilter};
use http::Method;
use serde::Serialize;
use serde_json::{Value, json};

use super::{View, missing};
use crate::Admin;
use crate::answer::Answer;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::openapi::shape::described;
use crate::openapi::spec::Spec;
use crate::page::Query;
use crate::problem::Refusal;

pub(crate) const ROUTE: Route = Route {
    method: Method::GET,
    path: "/v1/zones/{zone}/subjects/overview",
    needs: Needs::Read,
    reach: Reach::Zone(Run::Read(|admin, call| Box::pin(overview(admin, call)))),
    spec: Spec::shows::<Overview>("subjects.overview", "Shows what is known of one subject.")
        .asks(|query| subject(query).map(drop))
        .refuses(&[(404, "subject_not_found")]),
};

described! {
    #[derive(Serialize)]
    struct Overview<'a> {
        subject: View<'a>,
        governed: GovernedSessions<'a>,
        approvals: Value,
        connections: Vec<Account<'a>>,
    }
}

described! {
    #[derive(Serialize)]
    struct GovernedSessions<'a> {
        active: i64,
        total: i64,
        recent: Vec<Session<'a>>,
    }
}

described! {
    #[derive(Serialize)]
    struct Session<'a> {
        session_id: &'a AgentSessionId,
        application_id: &'a ApplicationId,
        application_name: Option<&'a str>,
        lifecycle: &'a str,
        status: &'a str,
        started_at: Timestamp,
    }
}

described! {
    #[derive(Serialize)]
    struct Account<'a> {
        id: &'a ConnectionId,
        provider_id: &'a ProviderId,
        provider_name: Option<&'a str>,
        status: &'a str,
        expires_at: Option<Timestamp>,
        created_at: Timestamp,
    }
}

impl<'a> From<&'a Governed> for Session<'a> {
    fn from(row: &'a Governed) -> Self {
        Self {
            session_id: &row.id,
            application_id: &row.application_id,
            application_name: row.application_name.as_deref(),
            lifecycle: &row.lifecycle,
            status: &row.status,
            started_at: row.started_at,
        }
    }
}

impl<'a> From<&'a Connected> for Account<'a> {
    fn from(row: &'a Connected) -> Self {
        Self {
            id: &row.id,
            provider_id: &row.provider_id,
            provider_name: row.provider_name.as_deref(),
            status: &row.status,
            expires_at: row.expires_at,
            created_at: row.created_at,
        }
    }
}

fn subject(query: &Query) -> Result<&str, Refusal> {
    query.required("subject_id", 1, 512)
}

async fn overview(admin: Arc<Admin>, call: Call<InZone>) -> Result<Answer, Refusal> {
    let id = subject(&call.query)?;
    if id.contains('\0') {
        return Err(missing());
    }
    let filter = SubjectFilter { id: Some(id.to_owned()), ..SubjectFilter::default() };
    let mut snapshot = admin.store.snapshot().await?;
    let mut tx = snapshot.zone(&call.place.zone);
    let found = subjects::list(&mut tx, &filter, &Page::first(1)).await?;
    let subject = found.first().ok_or_else(missing)?;
    let around = subjects::surroundings(&mut tx, id).await?;
    Ok(Answer::ok(&Overview {
        subject: subject.into(),
        governed: GovernedSessions {
            active: around.running_sessions,
            total: around.sessions,
            recent: around.recent.iter().map(Session::from).collect(),
        },
        approvals: json!({"pending": around.pending_approvals, "total": around.approvals}),
        connections: around.connections.iter().map(Account::from).collect(),
    }))
}
