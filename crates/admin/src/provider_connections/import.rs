//! `POST /v1/zones/{zone}/provider-connections`: tokens that were had elsewhere. An active account of the same provider
//! and subject gets them and keeps its id; else a new one does.

use std::sync::Arc;

use caracal_authority::{ConnectionId, ProviderId, Timestamp};
use caracal_crypto::SecretText;
use caracal_custody::{Account, ConnectionToken};
use caracal_store::provider_connections::SealedTokens;
use http::Method;

use super::upsert::upsert;
use super::{View, Whose, provider_with_accounts};
use crate::Admin;
use crate::admin::fresh;
use crate::answer::Changed;
use crate::evidence::Trace;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::input::{Body, Fields, Form, Mismatch, Text};
use crate::openapi::spec::Spec;
use crate::problem::Refusal;
use crate::reserved;
use crate::zones::require_live_zone;

pub(crate) const ROUTE: Route = Route {
    method: Method::POST,
    path: "/v1/zones/{zone}/provider-connections",
    needs: Needs::Write,
    reach: Reach::Zone(Run::Change(|admin, call| Box::pin(import(admin, call)))),
    spec: Spec::creates::<View>(
        "provider_connections.import",
        "Stores an account at a provider, whose tokens were had elsewhere.",
    )
    .takes("invalid_provider_connection", |body| Draft::read(body).map(drop))
    .refuses(&[
        (404, "zone_not_found"),
        (404, "provider_not_found"),
        (400, "provider_connection_unsupported"),
        (409, "reserved_namespace"),
        (502, "secret_backend_unavailable"),
    ]),
};

/// Longest token, in UTF-16 code units.
const LONGEST: usize = 16_384;

const HEADER_VALUE: Form = Form {
    pattern: r"^[ -~]+$",
    is: |text| text.bytes().all(|byte| (0x20..0x7f).contains(&byte)),
    what: "must be printable ASCII",
};

struct Draft {
    whose: Whose,
    access_token: SecretText,
    refresh_token: Option<SecretText>,
    expires_at: Option<Timestamp>,
}

impl Draft {
    fn read(body: impl Into<Body>) -> Result<Self, Mismatch> {
        let mut fields = Fields::of(body)?;
        let whose = Whose::read(&mut fields)?;
        let access_token =
            SecretText::new(fields.required_text("access_token", Text::exact(1, LONGEST).like(HEADER_VALUE))?);
        let refresh_token = fields.text("refresh_token", Text::exact(1, LONGEST))?.map(SecretText::new);
        let expires_at = fields.instant("expires_at")?;
        Ok(Self { whose, access_token, refresh_token, expires_at })
    }
}

struct Change {
    id: ConnectionId,
    whose: Whose,
    tokens: SealedTokens,
    may_reserve: bool,
    trace: Arc<Trace>,
}

async fn import(admin: Arc<Admin>, mut call: Call<InZone>) -> Result<Changed, Refusal> {
    call.require_live_zone()?;
    let draft = Draft::read(call.body.take()).map_err(|mismatch| mismatch.refuse("invalid_provider_connection"))?;
    // What is no id names no provider; the change says the same of one that is not there.
    let provider = ProviderId::parse(&draft.whose.provider).map_err(|_| Refusal::missing("provider_not_found"))?;
    let account = Account { zone: &call.place.zone, provider: &provider, subject: &draft.whose.subject };
    let seal = |which, token| admin.sealed.seal_token(which, account, token).map_err(Refusal::secrets_unavailable);
    let tokens = SealedTokens {
        access_token: seal(ConnectionToken::Access, &draft.access_token)?,
        refresh_token: draft.refresh_token.as_ref().map(|token| seal(ConnectionToken::Refresh, token)).transpose()?,
        expires_at: draft.expires_at,
    };
    let may_reserve = call.caller.is_bootstrap();
    let change = Change { id: fresh(call.now)?, whose: draft.whose, tokens, may_reserve, trace: call.trace };
    let (row, recorded) = admin
        .store
        .commit(&call.place.zone, change, |tx, change| {
            Box::pin(async move {
                require_live_zone(tx).await?;
                let provider = provider_with_accounts(tx, &change.whose.provider).await?;
                reserved::guard(change.may_reserve, &provider.identifier, reserved::PROVIDER)?;
                let row = upsert(tx, &change.id, &provider.id, &change.whose.subject, &change.tokens).await?;
                let recorded = change.trace.creation(tx, row.id.as_str(), &View::from(&row)).await?;
                Ok::<_, Refusal>((row, recorded))
            })
        })
        .await?;
    Ok(recorded.answer(&View::from(&row)))
}
