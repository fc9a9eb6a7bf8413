//! `GET /v1/zones/{zone}/provider-connections/oauth/callback`: somebody's browser comes back from a provider.
//!
//! Nobody has to be known here; the state is the proof. It is taken away before anything else is looked at, so that it is good for one
//! presentation, whatever comes of it: whoever presents it a second time, or in another zone, gets nothing, and neither does
//! the one who comes after them. The code goes to the provider's token endpoint once, with the verifier that only we have.

use std::sync::Arc;
use std::time::Duration;

use caracal_authority::{ConnectionId, ProviderId};
use caracal_broker::{Issued, NoTokens};
use caracal_crypto::SecretText;
use caracal_custody::{Account, ConnectionToken, RowSecret};
use caracal_store::StoreError;
use caracal_store::oauth_states::{self, OauthState};
use caracal_store::provider_connections::SealedTokens;
use caracal_store::providers::Provider;
use http::{Method, StatusCode};
use serde_json::Value;

use super::authorize::digest_of;
use super::upsert::upsert;
use super::{View, provider_with_accounts};
use crate::Admin;
use crate::admin::fresh;
use crate::answer::Changed;
use crate::evidence::Trace;
use crate::gate::{Needs, Reach, Route, Visitor};
use crate::openapi::shape::Shape;
use crate::openapi::spec::{Content, Spec};
use crate::page::Query;
use crate::problem::Refusal;
use crate::providers::secrets;
use crate::zones::require_live_zone;

pub(crate) const ROUTE: Route = Route {
    method: Method::GET,
    path: "/v1/zones/{zone}/provider-connections/oauth/callback",
    needs: Needs::Nothing,
    reach: Reach::Public(|admin, visitor| Box::pin(finish(admin, visitor))),
    spec: Spec::of(
        "provider_connections.callback",
        "Takes a browser that comes back from a provider with a consent.",
        StatusCode::CREATED,
        Content::JsonOrFile(View::schema, "text/html"),
    )
    .asks(|query| Presented::read(query).map(drop))
    .refuses(&[
        (400, "invalid_oauth_callback"),
        (400, "oauth_state_expired"),
        (400, "oauth_state_invalid"),
        (400, "oauth_state_mismatch"),
        (400, "provider_oauth_denied"),
        (400, "authorization_code_required"),
        (404, "zone_not_found"),
        (404, "provider_not_found"),
        (400, "provider_connection_unsupported"),
        (502, "secret_backend_unavailable"),
        (400, "invalid_provider_config"),
        (400, "provider_token_endpoint_not_allowed"),
        (502, "provider_token_exchange_failed"),
        (502, "provider_token_response_invalid"),
        (502, "provider_token_type_unsupported"),
    ]),
};

/// Of a provider's explanation not more is repeated.
pub(crate) const LONGEST_EXPLANATION: usize = 500;

/// What a provider sends a browser back with.
pub(crate) struct Presented {
    pub(crate) state: SecretText,
    pub(crate) code: Option<SecretText>,
    /// `error`, with its description if there is one.
    pub(crate) denied: Option<String>,
}

impl Presented {
    pub(crate) fn read(query: &Query) -> Result<Self, Refusal> {
        let refuse = |refusal: Refusal| {
            let why = refusal.problem.description().unwrap_or_default().to_owned();
            Refusal::invalid("invalid_oauth_callback").describe(why)
        };
        let one = |name, min, max| query.bounded(name, min, max).map_err(refuse);
        let state = query.required("state", 32, 256).map_err(refuse)?.to_owned();
        let code = one("code", 0, 8_192)?.filter(|code| !code.is_empty()).map(str::to_owned);
        let (error, explanation) = (one("error", 0, 512)?, one("error_description", 0, 8_192)?);
        let said = explanation.filter(|text| !text.trim().is_empty());
        let denied = error.map(|error| {
            let printable = said.unwrap_or(error).chars().filter(|character| !character.is_control());
            printable.take(LONGEST_EXPLANATION).collect()
        });
        Ok(Self { state: SecretText::new(state), code: code.map(SecretText::new), denied })
    }
}

struct Change {
    id: ConnectionId,
    provider: ProviderId,
    subject: String,
    tokens: SealedTokens,
    trace: Arc<Trace>,
}

async fn finish(admin: Arc<Admin>, visitor: Visitor) -> Result<Changed, Refusal> {
    let presented = Presented::read(&visitor.query)?;
    let begun = take(&admin, presented.state.expose()).await?;
    let place = RowSecret::Verifier { zone: &begun.zone_id, digest: &begun.digest };
    let verifier = admin.sealed.open_of_row(place, &begun.verifier).map_err(|error| {
        tracing::error!(zone = %begun.zone_id, %error, "the verifier of a consent does not open");
        Refusal::invalid("oauth_state_invalid").describe("begin again")
    })?;
    if begun.zone_id != visitor.zone {
        return Err(Refusal::invalid("oauth_state_mismatch").describe("the consent was begun in another zone"));
    }
    if let Some(explanation) = presented.denied {
        return Err(Refusal::invalid("provider_oauth_denied").describe(explanation));
    }
    let code = presented.code.ok_or_else(|| Refusal::invalid("authorization_code_required"))?;
    let mut snapshot = admin.store.snapshot().await?;
    let provider = provider_with_accounts(&mut snapshot.zone(&visitor.zone), begun.provider_id.as_str()).await?;
    drop(snapshot);
    let issued = exchange(&admin, &provider, &code, &verifier).await?;
    let account = Account { zone: &visitor.zone, provider: &provider.id, subject: &begun.subject_id };
    let tokens = sealed(&admin, account, &issued)?;
    let change = Change {
        id: fresh(visitor.now)?,
        provider: provider.id.clone(),
        subject: begun.subject_id,
        tokens,
        trace: visitor.trace,
    };
    let (row, recorded) = admin
        .store
        .commit(&visitor.zone, change, |tx, change| {
            Box::pin(async move {
                // It may have been archived while its token endpoint was asked.
                require_live_zone(tx).await?;
                provider_with_accounts(tx, change.provider.as_str()).await?;
                let row = upsert(tx, &change.id, &change.provider, &change.subject, &change.tokens).await?;
                let recorded = change.trace.change(tx, StatusCode::CREATED, Some(row.id.as_str())).await?;
                Ok::<_, Refusal>((row, recorded))
            })
        })
        .await?;
    Ok(recorded.answer(&View::from(&row)))
}

/// Takes the consent of `state` away; 400 unless it is there, in time, and this is the one who takes it.
async fn take(admin: &Admin, state: &str) -> Result<OauthState, Refusal> {
    let gone = || {
        Refusal::invalid("oauth_state_expired")
            .describe("no consent waits for this: it took longer than ten minutes, or was finished before; begin again")
    };
    let mut snapshot = admin.store.snapshot().await?;
    // Whoever guesses costs a read.
    let found = oauth_states::find_in_any_zone(&mut snapshot.deployment(), &digest_of(state)).await?;
    drop(snapshot);
    let begun = found.ok_or_else(gone)?;
    let taken: Result<bool, StoreError> = admin
        .store
        .commit_upkeep(begun.clone(), |tx, begun| Box::pin(async move { oauth_states::consume(tx, begun).await }))
        .await;
    let in_time = admin.store.now() < begun.expires_at;
    if taken? && in_time { Ok(begun) } else { Err(gone()) }
}

async fn exchange(
    admin: &Admin,
    provider: &Provider,
    code: &SecretText,
    verifier: &SecretText,
) -> Result<Issued, Refusal> {
    let document = secrets(admin, &provider.zone_id, &provider.id).await?;
    // Before the endpoint is looked at: whoever has to be told of both is told of this first.
    let text = |name: &str| provider.config.get(name).and_then(Value::as_str).unwrap_or_default();
    let needs_secret = text("client_auth_method") != "none";
    if text("client_id").trim().is_empty() || (needs_secret && document.get("client_secret").is_none()) {
        return Err(Refusal::invalid("invalid_provider_config").describe("client_id or client_secret is missing"));
    }
    admin.broker.exchange_code(provider, &document, code, verifier).await.map_err(|error| {
        let (zone, id) = (&provider.zone_id, &provider.id);
        tracing::warn!(%zone, provider = %id, %error, "a code was not turned into tokens");
        let failed = |code| Refusal::new(StatusCode::BAD_GATEWAY, code);
        match error {
            NoTokens::Settings(error) => Refusal::invalid("invalid_provider_config").describe(error.to_string()),
            NoTokens::NotAllowed(error) => {
                Refusal::invalid("provider_token_endpoint_not_allowed").describe(error.to_string())
            }
            NoTokens::NotExchanged(_) => failed("provider_token_exchange_failed")
                .describe("the provider did not turn the code into tokens; an operator can test the provider"),
            NoTokens::NoToken(_) => {
                failed("provider_token_response_invalid").describe("the provider's answer holds no usable token")
            }
            NoTokens::TokenType(_) => failed("provider_token_type_unsupported").describe(
                "the provider's tokens are not of type bearer; configure auth_scheme to say how they are sent",
            ),
        }
    })
}

fn sealed(admin: &Admin, account: Account<'_>, issued: &Issued) -> Result<SealedTokens, Refusal> {
    let seal = |which, token| admin.sealed.seal_token(which, account, token).map_err(Refusal::secrets_unavailable);
    let life = issued.expires_in.filter(|seconds| *seconds > 0).map(Duration::from_secs);
    Ok(SealedTokens {
        access_token: seal(ConnectionToken::Access, &issued.access_token)?,
        refresh_token: issued.refresh_token.as_ref().map(|token| seal(ConnectionToken::Refresh, token)).transpose()?,
        expires_at: life.map(|life| admin.store.now().plus(life)),
    })
}
