//! `GET /v1/admin-tokens`: every token there is or was, newest first.

use std::sync::Arc;

use caracal_authority::Timestamp;
use caracal_store::admin_tokens::{self, AdminToken};
use http::Method;
use serde::Serialize;

use super::{Core, forbid_derived};
use crate::Admin;
use crate::answer::Answer;
use crate::gate::{Anywhere, Call, Needs, Reach, Route, Run};
use crate::openapi::shape::described;
use crate::openapi::spec::Spec;
use crate::page::Listing;
use crate::problem::Refusal;

pub(crate) const ROUTE: Route = Route {
    method: Method::GET,
    path: "/v1/admin-tokens",
    needs: Needs::Read,
    reach: Reach::Deployment(Run::Read(|admin, call| Box::pin(list(admin, call)))),
    spec: Spec::shows::<Listing<View>>("admin_tokens.list", "Lists the admin tokens, newest first.")
        .in_pages()
        .refuses(&[(403, "admin_token_management_forbidden_for_derived_token")]),
};

described! {
    #[derive(Serialize)]
    struct View<'a> {
        #[serde(flatten)]
        core: Core<'a>,
        last_used_at: Option<Timestamp>,
        revoked_at: Option<Timestamp>,
    }
}

impl<'a> From<&'a AdminToken> for View<'a> {
    fn from(token: &'a AdminToken) -> Self {
        Self { core: token.into(), last_used_at: token.last_used_at, revoked_at: token.revoked_at }
    }
}

async fn list(admin: Arc<Admin>, call: Call<Anywhere>) -> Result<Answer, Refusal> {
    forbid_derived(&call.caller)?;
    let page = call.query.page()?;
    let mut snapshot = admin.store.snapshot().await?;
    let rows = admin_tokens::list(&mut snapshot.deployment(), &page).await?;
    let place = |token: &AdminToken| (token.created_at, token.id.to_string());
    Ok(Answer::ok(&Listing::of(&rows, &page, place, View::from)))
}
