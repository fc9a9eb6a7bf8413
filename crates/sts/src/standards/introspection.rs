//! `POST /zones/{zone}/oauth/2/introspect`: whether a mandate is good at this instant (RFC 7662).
//!
//! An application may ask after its own mandates. A resource server that has an application may ask after resource mandates
//! that are addressed to its resource, if that application has the trait `introspect:{resource id}`, which an operator
//! gives it. Everything else is answered as if it had never been: `{"active":false}` and nothing more. What is told beside
//! `active` are the mandate's own claims, which whoever holds it can read.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use caracal_authority::ResourceId;
use caracal_authority::exchange::check_active;
use caracal_authority::mandate::{Claims, Use};
use caracal_http::Profile;
use caracal_store::applications::Application;
use caracal_store::resources::Resource;
use caracal_store::{Named, StoreError, ZoneRead, resources, signing_keys, used_mandates};
use http::{Request, StatusCode};
use serde_json::{Map, Value};

use super::admission::{Admitted, still_proven};
use super::{never_kept, refuse};
use crate::facts::of_issued;
use crate::wire::Ended;
use crate::{ExchangeError, Sts};

/// What a trait starts with that lets an application ask after mandates for a resource.
const TRAIT: &str = "introspect:";

pub(crate) async fn introspect(
    State(sts): State<Arc<Sts>>,
    zone: Result<Path<String>, PathRejection>,
    request: Request<Body>,
) -> Response {
    let zone = zone.map(|Path(zone)| zone).unwrap_or_default();
    let mut response = match sts.introspect(&zone, request).await {
        Ok(told) => Profile::STS.json(StatusCode::OK, &told).into_response(),
        Err(ended) => refuse(ended),
    };
    never_kept(&mut response);
    response
}

impl Sts {
    async fn introspect(&self, zone: &str, request: Request<Body>) -> Result<Map<String, Value>, Ended> {
        let admitted = self.admit(zone, request).await?;
        let active = self.active(&admitted).await?;
        self.metrics.introspections.up();
        if let Some(mut told) = active {
            told.insert("active".to_owned(), true.into());
            told.insert("token_type".to_owned(), "Bearer".into());
            return Ok(told);
        }
        self.metrics.introspections_inactive.up();
        Ok(Map::from_iter([("active".to_owned(), false.into())]))
    }

    /// The claims of the mandate that was brought, if it is active and the caller may know.
    async fn active(&self, admitted: &Admitted) -> Result<Option<Map<String, Value>>, ExchangeError> {
        let client = &admitted.client;
        let Some((signed, claims)) = self.issued(client.zone(), &admitted.token).await? else { return Ok(None) };
        let named = Named {
            application: Some(client.application()),
            record: claims.record.as_ref(),
            session: claims.session.as_ref(),
            delegation: claims.delegation.as_ref(),
            ..Named::default()
        };
        let (_, mut snapshot) = self.store.decision_snapshot(client.zone(), &named).await?;
        let mut tx = snapshot.zone(client.zone());
        let caller = still_proven(&mut tx, client).await??;
        // It may have been withdrawn since it was looked up, in whichever process that was.
        if !signing_keys::exists(&mut tx, signed.kid()).await? {
            return Ok(None);
        }
        if !may_ask(&mut tx, &caller, &claims).await? {
            return Ok(None);
        }
        let facts = of_issued(&mut tx, &claims, &self.metrics).await?;
        let used = used_mandates::is_used(&mut tx, claims.jti.as_str()).await?;
        drop(snapshot);
        match check_active(&claims, &facts, used) {
            Ok(()) => Ok(Some(signed.raw().clone())),
            Err(why) => {
                tracing::debug!(zone = %claims.zone, mandate = %claims.jti, %why, "a mandate is not active");
                Ok(None)
            }
        }
    }
}

/// Whether the application may know of the mandate.
async fn may_ask(tx: &mut ZoneRead<'_>, caller: &Application, claims: &Claims) -> Result<bool, StoreError> {
    if claims.client == caller.id {
        return Ok(true);
    }
    if claims.r#use != Use::Resource {
        return Ok(false);
    }
    serves(tx, caller, |resource| claims.audience.contains(&resource.identifier)).await
}

/// Whether the application is the server of such a resource, as an operator's trait has it.
pub(super) async fn serves(
    tx: &mut ZoneRead<'_>,
    caller: &Application,
    such: impl Fn(&Resource) -> bool,
) -> Result<bool, StoreError> {
    for id in caller.traits.iter().filter_map(|text| ResourceId::parse(text.strip_prefix(TRAIT)?).ok()) {
        let resource = resources::lookup(tx, &id).await?.filter(|row| row.archived_at.is_none());
        if resource.is_some_and(|row| such(&row)) {
            return Ok(true);
        }
    }
    Ok(false)
}
