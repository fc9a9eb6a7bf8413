//! `POST /v1/verify`: what a mandate is worth, for resource servers that can't verify one themselves (contract:
//! coordinator.md §8).
//!
//! Whoever asks shows the mandate and learns nothing that is not written in it, so nobody has to sign in. Two things go
//! beyond the contract (W21). `audience` names whom the mandate has to be addressed to, the issuer when it is left out;
//! without it no resource mandate could ever be verified here. And what a mandate hangs on is looked up at this instant:
//! a record, session or delegation that was ended a moment ago makes it worthless, although its signature is good and its
//! time is not over. Why a mandate is worthless is not told.

mod shown;
mod standing;

use axum::http::StatusCode;
use caracal_authority::ZoneId;
use caracal_authority::mandate::{Claims, Expected, MAX_TOKEN_BYTES, Use};
use caracal_custody::CustodyError;
use caracal_custody::mandate::{SignedClaims, VerifyError, verify as verify_signature};
use caracal_http::Problem;
use caracal_store::StoreError;
use serde_json::{Map, Value, json};

use crate::Coordinator;
use crate::outage::Outage;
use crate::wire::{Answer, refusal};

/// Most delegations that a mandate may come through.
const MAX_HOPS: u64 = 10;

/// A request body that matches the schema.
#[derive(Debug, PartialEq, Eq)]
struct Wanted<'b> {
    zone: &'b str,
    token: Option<&'b str>,
    audience: Option<&'b str>,
    scope: Option<&'b str>,
    session: bool,
    delegation: bool,
}

/// Why there is no verdict, or this one.
#[derive(Debug, thiserror::Error)]
enum NotValid {
    #[error("the body does not match the schema")]
    Request,
    #[error("no mandate is given")]
    MissingToken,
    #[error("the mandate is worth nothing here and now")]
    Token,
    #[error("keys can't be read right now")]
    Keys(#[source] CustodyError),
    #[error(transparent)]
    Outage(#[from] Outage),
}

impl From<StoreError> for NotValid {
    fn from(error: StoreError) -> Self {
        Self::Outage(error.into())
    }
}

impl From<NotValid> for Problem {
    fn from(error: NotValid) -> Self {
        let message = error.to_string();
        let answer = match error {
            NotValid::Request => refusal(StatusCode::BAD_REQUEST, "invalid_request").describe(message),
            NotValid::MissingToken => refusal(StatusCode::BAD_REQUEST, "missing_token").describe(message),
            NotValid::Token => refusal(StatusCode::UNAUTHORIZED, "token_invalid").describe(message),
            // Never 401: a mandate that nobody could judge is not a bad one.
            NotValid::Keys(cause) => {
                tracing::error!(error = %cause, "a mandate could not be verified");
                refusal(StatusCode::SERVICE_UNAVAILABLE, "sts_unavailable").describe(message)
            }
            NotValid::Outage(outage) => outage.problem(),
        };
        answer.member("valid", false)
    }
}

/// Verifies a mandate.
pub(crate) async fn verify(coordinator: &Coordinator, body: Option<&Value>) -> Result<Answer, Problem> {
    let claims = judge(coordinator, body).await?;
    Ok(Answer::ok(json!({"valid": true, "claims": shown::claims_json(claims.raw())})))
}

async fn judge(coordinator: &Coordinator, body: Option<&Value>) -> Result<SignedClaims, NotValid> {
    let wanted = read(body).ok_or(NotValid::Request)?;
    let token = wanted.token.ok_or(NotValid::MissingToken)?;
    let zone = ZoneId::parse(wanted.zone).map_err(|_| NotValid::Token)?;
    if token.len() > MAX_TOKEN_BYTES {
        return Err(NotValid::Token);
    }
    let signed = verify_signature(coordinator.keys.as_ref(), token).await.map_err(|error| match error {
        VerifyError::Unavailable(cause) => NotValid::Keys(cause),
        VerifyError::Malformed | VerifyError::UnknownKey | VerifyError::BadSignature => NotValid::Token,
    })?;
    let claims = signed.claims().map_err(|_| NotValid::Token)?;
    let issuer = coordinator.config.issuer.as_str();
    let audience = wanted.audience.unwrap_or(issuer);
    let expected = Expected { issuer, audience, zone: &zone, r#use: claims.r#use };
    claims.accept(&expected, coordinator.store.now().as_seconds()).map_err(|_| NotValid::Token)?;
    if *signed.zone() != zone || !carries(&claims, &wanted) {
        return Err(NotValid::Token);
    }
    let mut snapshot = coordinator.store.snapshot().await?;
    let stands = standing::stands(&mut snapshot.zone(&zone), &claims).await?;
    if stands { Ok(signed) } else { Err(NotValid::Token) }
}

/// The schema is strict: a member that nobody knows might be a condition that nobody checked.
fn read(body: Option<&Value>) -> Option<Wanted<'_>> {
    const KNOWN: [&str; 7] =
        ["zone_id", "token", "authorization", "audience", "required_scope", "require_session", "require_delegation"];
    let members = body?.as_object()?;
    if members.keys().any(|name| !KNOWN.contains(&name.as_str())) {
        return None;
    }
    let authorization = text(members, "authorization")?;
    // Without the scheme it is taken as it is.
    let shown = authorization.map(|line| line.strip_prefix("Bearer ").map_or(line, str::trim));
    let shown = shown.map(|line| if line == "Bearer" { "" } else { line });
    Some(Wanted {
        zone: text(members, "zone_id")??,
        token: text(members, "token")?.or(shown).filter(|token| !token.is_empty()),
        audience: text(members, "audience")?,
        scope: text(members, "required_scope")?,
        session: flag(members, "require_session")?,
        delegation: flag(members, "require_delegation")?,
    })
}

/// Text that is not empty, or nothing where the member is absent; `None` for anything else.
fn text<'b>(members: &'b Map<String, Value>, name: &str) -> Option<Option<&'b str>> {
    match members.get(name) {
        None => Some(None),
        Some(Value::String(text)) if !text.is_empty() => Some(Some(text)),
        Some(_) => None,
    }
}

fn flag(members: &Map<String, Value>, name: &str) -> Option<bool> {
    match members.get(name) {
        None => Some(false),
        Some(Value::Bool(flag)) => Some(*flag),
        Some(_) => None,
    }
}

/// Whether the mandate says what every mandate here has to, and what was asked for. A mandate for the Gateway is worth
/// something to the Gateway only.
fn carries(claims: &Claims, wanted: &Wanted<'_>) -> bool {
    matches!(claims.r#use, Use::Session | Use::Resource)
        && claims.record.is_some()
        && claims.root_record.is_some()
        && claims.hop_count <= MAX_HOPS
        && wanted.scope.is_none_or(|scope| claims.scope.contains(scope))
        && (!wanted.session || claims.session.is_some())
        && (!wanted.delegation || claims.delegation.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_strictly() {
        let with = |name: &str, value: Value| {
            let mut body = json!({"zone_id": "z-1"});
            body[name] = value;
            body
        };
        for (body, token) in [
            (with("token", json!("t")), Some(Some("t"))),
            (with("authorization", json!("Bearer  t ")), Some(Some("t"))),
            (with("authorization", json!("t")), Some(Some("t"))),
            (with("authorization", json!("Bearer ")), Some(None)),
            (with("authorization", json!("Bearer")), Some(None)),
            (json!({"zone_id": "z-1", "token": "a", "authorization": "Bearer b"}), Some(Some("a"))),
            (with("require_session", json!(true)), Some(None)),
            (with("require_session", json!("true")), None),
            (with("required_scope", json!("")), None),
            (with("audience", json!(1)), None),
            (with("token", json!(null)), None),
            (with("other", json!(1)), None),
            (json!({"token": "t"}), None),
            (json!({"zone_id": ""}), None),
            (json!([]), None),
        ] {
            assert_eq!(read(Some(&body)).map(|wanted| wanted.token), token, "{body}");
        }
        assert_eq!(read(None), None);
    }
}
