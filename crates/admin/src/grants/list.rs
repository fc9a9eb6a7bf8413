//! `GET /v1/zones/{zone}/grants`, with the names of what they speak of.

use std::sync::Arc;

use caracal_authority::ProviderId;
use caracal_store::grants::{self, GrantFilter, ListedGrant};
use http::Method;
use serde::Serialize;

use super::{MAX_SCOPES, View};
use crate::Admin;
use crate::answer::Answer;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::openapi::shape::described;
use crate::openapi::spec::Spec;
use crate::page::{Listing, Query, invalid};
use crate::problem::Refusal;

pub(crate) const ROUTE: Route = Route {
    method: Method::GET,
    path: "/v1/zones/{zone}/grants",
    needs: Needs::Read,
    reach: Reach::Zone(Run::Read(|admin, call| Box::pin(list(admin, call)))),
    spec: Spec::shows::<Listing<Item>>("grants.list", "Lists the grants of a zone, newest first.")
        .asks(|query| query.page().and(filter(query)).map(drop)),
};

described! {
    #[derive(Serialize)]
    struct Item<'a> {
        #[serde(flatten)]
        grant: View<'a>,
        provider_id: Option<&'a ProviderId>,
        application_name: Option<&'a str>,
        resource_name: Option<&'a str>,
        provider_name: Option<&'a str>,
        provider_kind: Option<&'a str>,
    }
}

impl<'a> From<&'a ListedGrant> for Item<'a> {
    fn from(row: &'a ListedGrant) -> Self {
        Self {
            grant: (&row.grant).into(),
            provider_id: row.provider_id.as_ref(),
            application_name: row.application_name.as_deref(),
            resource_name: row.resource_name.as_deref(),
            provider_name: row.provider_name.as_deref(),
            provider_kind: row.provider_kind.as_deref(),
        }
    }
}

async fn list(admin: Arc<Admin>, call: Call<InZone>) -> Result<Answer, Refusal> {
    let (page, filter) = (call.query.page()?, filter(&call.query)?);
    let mut snapshot = admin.store.snapshot().await?;
    let rows = grants::list(&mut snapshot.zone(&call.place.zone), &filter, &page).await?;
    let place = |row: &ListedGrant| (row.grant.attribution.created_at, row.grant.id.to_string());
    Ok(Answer::ok(&Listing::of(&rows, &page, place, Item::from)))
}

/// `user_id` wins over its other name.
fn filter(query: &Query) -> Result<GrantFilter, Refusal> {
    let text = |name| Ok::<_, Refusal>(query.bounded(name, 1, 512)?.map(str::to_owned));
    let (user, subject) = (text("user_id")?, text("subject_id")?);
    Ok(GrantFilter {
        application_id: text("application_id")?,
        user_id: user.or(subject),
        resource_id: text("resource_id")?,
        provider_id: text("provider_id")?,
        status: text("status")?,
        scopes: match query.one("scopes")? {
            None => Vec::new(),
            Some(list) => scopes(list)?,
        },
    })
}

fn scopes(list: &str) -> Result<Vec<String>, Refusal> {
    let scopes: Vec<String> = list.split(',').map(|scope| scope.trim().to_owned()).collect();
    if scopes.len() > MAX_SCOPES || scopes.iter().any(String::is_empty) {
        return Err(invalid("scopes", &format!("must be 1 to {MAX_SCOPES} scopes, separated by commas")));
    }
    Ok(scopes)
}
