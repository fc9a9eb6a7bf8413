//! Reading the management chain: who changed what, and who was refused (contract: admin-api.md §5.12, §9). What belongs to no
//! zone, like the minting of tokens, has a list of its own.

pub(crate) mod list;
pub(crate) mod list_zoneless;

use caracal_authority::Timestamp;
use caracal_http::redact;
use caracal_store::Page;
use caracal_store::admin_evidence::{AdminEvidenceFilter, AdminEvidenceRow};
use serde::Serialize;
use serde_json::Value;

use crate::answer::Answer;
use crate::audit::csv;
use crate::export::{Columns, Exported};
use crate::openapi::shape::described;
use crate::page::{Listing, Query};
use crate::problem::Refusal;

described! {
    /// A record as answers show it.
    #[derive(Serialize)]
    struct View<'a> {
        id: &'a str,
        request_id: &'a str,
        actor_id: Option<&'a str>,
        actor_name: Option<&'a str>,
        actor_scope: Option<&'a str>,
        action: &'a str,
        method: &'a str,
        path: &'a str,
        entity_type: Option<&'a str>,
        entity_id: Option<&'a str>,
        status_code: i64,
        payload_json: Value,
        occurred_at: Timestamp,
        chain_seq: i64,
        signed: bool,
    }
}

impl<'a> From<&'a AdminEvidenceRow> for View<'a> {
    fn from(row: &'a AdminEvidenceRow) -> Self {
        Self {
            id: &row.id,
            request_id: &row.request_id,
            actor_id: row.actor_id.as_deref(),
            actor_name: row.actor_name.as_deref(),
            actor_scope: row.actor_scope.as_deref(),
            action: &row.action,
            method: &row.method,
            path: &row.path,
            entity_type: row.entity_type.as_deref(),
            entity_id: row.entity_id.as_deref(),
            status_code: row.status_code,
            payload_json: payload(row),
            occurred_at: Timestamp::from_micros(row.occurred_at),
            chain_seq: row.chain_seq,
            signed: is_signed(row),
        }
    }
}

fn payload(row: &AdminEvidenceRow) -> Value {
    let mut payload = row.payload.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or(Value::Null);
    redact::evidence(&mut payload);
    payload
}

fn is_signed(row: &AdminEvidenceRow) -> bool {
    !row.chain_hmac.is_empty()
}

impl Exported for AdminEvidenceRow {
    const FIELDS: &'static [&'static str] = &[
        "id",
        "occurred_at",
        "action",
        "method",
        "path",
        "entity_type",
        "entity_id",
        "status_code",
        "actor_id",
        "actor_name",
        "actor_scope",
        "request_id",
        "chain_seq",
        "signed",
        "change_kind",
        "changed_fields",
    ];

    fn shown(&self) -> Value {
        payload(self)
    }

    fn value(&self, shown: &Value, name: &str) -> Option<Value> {
        Some(match name {
            "id" => Value::from(self.id.as_str()),
            "occurred_at" => Value::from(Timestamp::from_micros(self.occurred_at).to_millis_text()),
            "action" => Value::from(self.action.as_str()),
            "method" => Value::from(self.method.as_str()),
            "path" => Value::from(self.path.as_str()),
            "entity_type" => Value::from(self.entity_type.as_deref()),
            "entity_id" => Value::from(self.entity_id.as_deref()),
            "status_code" => Value::from(self.status_code),
            "actor_id" => Value::from(self.actor_id.as_deref()),
            "actor_name" => Value::from(self.actor_name.as_deref()),
            "actor_scope" => Value::from(self.actor_scope.as_deref()),
            "request_id" => Value::from(self.request_id.as_str()),
            "chain_seq" => Value::from(self.chain_seq),
            "signed" => Value::from(is_signed(self)),
            other => return shown.get(other).cloned(),
        })
    }
}

/// What a query asks of either list.
struct Asked {
    filter: AdminEvidenceFilter,
    page: Page,
    is_csv: bool,
    columns: Option<Columns<AdminEvidenceRow>>,
}

impl Asked {
    fn of(query: &Query) -> Result<Self, Refusal> {
        let limit = query.limit(100, 1_000)?;
        let filter = AdminEvidenceFilter {
            since: query.instant("since")?,
            until: query.instant("until")?,
            actor_id: query.text("actor_id", 128)?,
            entity_type: query.text("entity_type", 64)?,
            entity_id: query.text("entity_id", 512)?,
            method: query.choice("method", &["POST", "PUT", "PATCH", "DELETE"])?.map(str::to_owned),
        };
        let is_csv = query.is_csv()?;
        let fields = query.fields(AdminEvidenceRow::FIELDS)?;
        query.bounded("cursor", 1, 512)?;
        let columns = fields.map(Columns::parse).transpose()?;
        Ok(Self { filter, page: Page { limit, after: query.cursor()? }, is_csv, columns })
    }

    /// The answer; `chain` names the file.
    fn answer(self, rows: &[AdminEvidenceRow], chain: &str) -> Result<Answer, Refusal> {
        let place = |row: &AdminEvidenceRow| (Timestamp::from_micros(row.occurred_at), row.id.clone());
        if self.is_csv {
            let columns = self.columns.unwrap_or_else(Columns::all);
            let lines = rows.iter().map(|row| columns.values(row));
            return csv::file(&format!("admin-audit-{chain}.csv"), columns.names(), lines);
        }
        Ok(match self.columns {
            None => Answer::ok(&Listing::of(rows, &self.page, place, View::from)),
            Some(columns) => {
                Answer::ok(&Listing::of(rows, &self.page, place, |row: &AdminEvidenceRow| columns.object(row)))
            }
        })
    }
}
