//! `DELETE /v1/zones/{zone}/grants/{id}`: the grant is revoked, and with it, in the same commit, every record that its user
//! holds in the zone, through whatever application (contract: policy.md §11).
//!
//! A page of records after the other is read inside the change that holds the zone, so none is passed over because somebody
//! else has it: a mint that comes later finds the zone moved, and what was minted before is in the page. Records that
//! applications hold for themselves are shared by all their sessions and are none of a user's, even where an id happens to
//! read the same (README D15).

use std::sync::Arc;
use std::time::Duration;

use caracal_authority::{AuthorityRecordId, GrantId, OutboxId};
use caracal_store::{ZoneWrite, grants, outbox, records};
use http::{Method, StatusCode};

use crate::Admin;
use crate::admin::fresh;
use crate::answer::Changed;
use crate::evidence::Trace;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::openapi::spec::Spec;
use crate::problem::Refusal;

pub(crate) const ROUTE: Route = Route {
    method: Method::DELETE,
    path: "/v1/zones/{zone}/grants/{id}",
    needs: Needs::Write,
    reach: Reach::Zone(Run::Change(|admin, call| Box::pin(revoke(admin, call)))),
    spec: Spec::removes("grants.revoke", "Takes a grant away.").refuses(&[(404, "grant_not_found")]),
};

/// Tells everybody who holds something of a record.
const REVOKED: &str = "caracal.sessions.revoke";
const REASON: &str = "grant_revoked";
const PAGE: i64 = 1_000;
/// A mandate is looked at for so long past its end, for the skew of clocks. A record beyond it can do nothing any more.
const LEEWAY: Duration = Duration::from_secs(120);

struct Change {
    id: GrantId,
    by: String,
    trace: Arc<Trace>,
}

async fn revoke(admin: Arc<Admin>, call: Call<InZone>) -> Result<Changed, Refusal> {
    let change = Change { id: call.id("id")?, by: call.caller.actor(), trace: call.trace };
    let recorded = admin
        .store
        .commit(&call.place.zone, change, |tx, change| {
            Box::pin(async move {
                let found = grants::lookup(tx, &change.id).await?;
                let grant = found.ok_or_else(|| Refusal::missing("grant_not_found"))?;
                grants::revoke(tx, &grant.id, &change.by).await?;
                let after = tx.now().minus(LEEWAY);
                loop {
                    let page = records::list_active_of_user(tx, &grant.user_id, after, PAGE).await?;
                    if page.is_empty() {
                        break;
                    }
                    records::revoke_each(tx, &page, REASON).await?;
                    for record in &page {
                        announce(tx, record, &grant.id).await?;
                    }
                }
                change.trace.change(tx, StatusCode::NO_CONTENT, None).await
            })
        })
        .await?;
    Ok(recorded.empty())
}

async fn announce(tx: &mut ZoneWrite<'_>, record: &AuthorityRecordId, grant: &GrantId) -> Result<(), Refusal> {
    let fields = [
        ("zone_id", tx.zone().to_string()),
        ("session_id", record.to_string()),
        ("reason", REASON.to_owned()),
        ("grant_id", grant.to_string()),
    ];
    let id: OutboxId = fresh(tx.now())?;
    let fields = fields.map(|(name, value)| (name.to_owned(), value)).to_vec();
    outbox::add(tx, id, REVOKED, &format!("record_revoke:{record}"), fields).await?;
    Ok(())
}
