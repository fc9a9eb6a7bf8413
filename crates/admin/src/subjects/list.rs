//! `GET /v1/zones/{zone}/subjects`: whose authority there is or was, seen last first.

use std::sync::Arc;

use caracal_authority::record::SubjectKind;
use caracal_store::Page;
use caracal_store::subjects::{self, Subject, SubjectFilter};
use http::Method;

use super::View;
use crate::Admin;
use crate::answer::Answer;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::page::Listing;
use crate::problem::Refusal;

pub(crate) const ROUTE: Route = Route {
    method: Method::GET,
    path: "/v1/zones/{zone}/subjects",
    needs: Needs::Read,
    reach: Reach::Zone(Run::Read(|admin, call| Box::pin(list(admin, call)))),
};

/// A cursor holds a subject's whole id.
const MAX_CURSOR: usize = 4_096;

async fn list(admin: Arc<Admin>, call: Call<InZone>) -> Result<Answer, Refusal> {
    let query = &call.query;
    let limit = query.limit(100, 200)?;
    let kind = query.choice("kind", &["user", "application"])?.and_then(SubjectKind::parse);
    let search = query.one("search")?.filter(|search| !search.is_empty());
    let search = search.map_or(Ok(None), |_| query.text("search", 512))?;
    let filter = SubjectFilter { id: None, kind, search };
    let page = Page { limit, after: query.cursor_of_text(MAX_CURSOR)? };
    let mut snapshot = admin.store.snapshot().await?;
    let rows = subjects::list(&mut snapshot.zone(&call.place.zone), &filter, &page).await?;
    let place = |subject: &Subject| (subject.last_seen, subject.id.clone());
    Ok(Answer::ok(&Listing::of(&rows, &page, place, View::from)))
}
