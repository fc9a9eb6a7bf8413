//! `GET /v1/zones/{zone}/authority-records`: what was granted, newest first, as JSON or CSV.

use std::sync::Arc;

use caracal_authority::record::{RecordStatus, SubjectKind};
use caracal_authority::{AuthorityRecordId, Timestamp, ZoneId};
use caracal_store::Page;
use caracal_store::oversight::{self, RecordFilter, record_status};
use caracal_store::records::RecordRow;
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
    path: "/v1/zones/{zone}/authority-records",
    needs: Needs::Read,
    reach: Reach::Zone(Run::Read(|admin, call| Box::pin(list(admin, call)))),
    spec: Spec::in_files::<View>(
        "authority_records.list",
        "Lists the authority records of a zone, newest first, as JSON or as a CSV file.",
    )
    .asks(|query| asked(query).map(drop)),
};

described! {
    /// A record as answers show it. It was authenticated for when it was made.
    #[derive(Serialize)]
    struct View<'a> {
        authority_record_id: &'a AuthorityRecordId,
        zone_id: &'a ZoneId,
        authority_record_type: &'a str,
        subject_id: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        federated_user_issuer: Option<Option<&'a str>>,
        parent_authority_record_id: Option<&'a AuthorityRecordId>,
        status: &'static str,
        expires_at: Timestamp,
        authenticated_at: Timestamp,
        created_at: Timestamp,
        revoked_at: Option<Timestamp>,
        revoked_reason: Option<&'a str>,
    }
}

impl<'a> View<'a> {
    fn of(row: &'a RecordRow, now: Timestamp) -> Self {
        Self {
            authority_record_id: &row.id,
            zone_id: &row.zone_id,
            authority_record_type: &row.kind,
            subject_id: &row.subject_id,
            federated_user_issuer: (row.kind == SubjectKind::User.as_str()).then(|| issuer(row)),
            parent_authority_record_id: row.parent_id.as_ref(),
            status: record_status(row, now).as_str(),
            expires_at: row.expires_at,
            authenticated_at: row.created_at,
            created_at: row.created_at,
            revoked_at: row.revoked_at,
            revoked_reason: row.revoked_reason.as_deref(),
        }
    }
}

fn issuer(row: &RecordRow) -> Option<&str> {
    row.provenance.as_ref().map(|provenance| provenance.iss.as_str())
}

const COLUMNS: [&str; 11] = [
    "authority_record_id",
    "authority_record_type",
    "subject_id",
    "federated_user_issuer",
    "parent_authority_record_id",
    "status",
    "authenticated_at",
    "created_at",
    "expires_at",
    "revoked_at",
    "revoked_reason",
];

/// What is asked for, and whether as a file.
fn asked(query: &Query) -> Result<(RecordFilter, Page, bool), Refusal> {
    let limit = query.limit(100, 1_000)?;
    let filter = RecordFilter {
        id: query.text("authority_record_id", 128)?,
        status: query.choice("status", &["active", "revoked", "expired"])?.and_then(RecordStatus::parse),
        subject_id: query.text("subject_id", 512)?,
        kind: query.choice("kind", &["user", "application"])?.and_then(SubjectKind::parse),
    };
    let is_csv = query.is_csv()?;
    Ok((filter, Page { limit, after: query.cursor()? }, is_csv))
}

async fn list(admin: Arc<Admin>, call: Call<InZone>) -> Result<Answer, Refusal> {
    let (filter, page, is_csv) = asked(&call.query)?;
    let mut snapshot = admin.store.snapshot().await?;
    let mut tx = snapshot.zone(&call.place.zone);
    let rows = oversight::list_records(&mut tx, &filter, &page).await?;
    let now = tx.now();
    drop(snapshot);
    if is_csv {
        let name = format!("authority-records-{}.csv", call.place.zone);
        return csv::file(&name, &COLUMNS, rows.iter().map(|row| line(row, now)));
    }
    let place = |row: &RecordRow| (row.created_at, row.id.to_string());
    Ok(Answer::ok(&Listing::of(&rows, &page, place, |row| View::of(row, now))))
}

fn line(row: &RecordRow, now: Timestamp) -> Vec<Value> {
    vec![
        json!(row.id),
        json!(row.kind),
        json!(row.subject_id),
        json!(issuer(row)),
        json!(row.parent_id),
        json!(record_status(row, now).as_str()),
        json!(row.created_at),
        json!(row.created_at),
        json!(row.expires_at),
        json!(row.revoked_at),
        json!(row.revoked_reason),
    ]
}
