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
use crate::openapi::spec::Spec;
use crate::page::{Listing, Query};
use crate::problem::Refusal;

pub(crate) const ROUTE: Route = Route {
    method: Method::GET,
    path: "/v1/zones/{zone}/subjects",
    needs: Needs::Read,
    reach: Reach::Zone(Run::Read(|admin, call| Box::pin(list(admin, call)))),
    spec: Spec::shows::<Listing<View>>(
        "subjects.list",
        "Lists those for whom somebody acts or acted, the last seen first.",
    )
    .asks(|query| asked(query).map(drop)),
};

/// A cursor holds a subject's whole id.
const MAX_CURSOR: usize = 4_096;

fn asked(query: &Query) -> Result<(SubjectFilter, Page), Refusal> {
    let limit = query.limit(100, 200)?;
    let kind = query.choice("kind", &["user", "application"])?.and_then(SubjectKind::parse);
    let search = query.text_or_empty("search", 512)?.filter(|search| !search.is_empty());
    let filter = SubjectFilter { id: None, kind, search };
    Ok((filter, Page { limit, after: query.cursor_of_text(MAX_CURSOR)? }))
}

async fn list(admin: Arc<Admin>, call: Call<InZone>) -> Result<Answer, Refusal> {
    let (filter, page) = asked(&call.query)?;
    let mut snapshot = admin.store.snapshot().await?;
    let rows = subjects::list(&mut snapshot.zone(&call.place.zone), &filter, &page).await?;
    let place = |subject: &Subject| (subject.last_seen, subject.id.clone());
    Ok(Answer::ok(&Listing::of(&rows, &page, place, View::from)))
}
