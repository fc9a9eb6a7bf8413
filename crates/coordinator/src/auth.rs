//! Who is asking (contract: coordinator.md §2).
//!
//! A caller shows a session mandate, signed by the very zone it acts in, whose application and authority record are
//! looked up at this request: what was revoked a moment ago is refused now. A change looks once more, in its own
//! transaction: it may have waited for its turn, and a revocation that was acknowledged meanwhile comes before it. Or the
//! caller shows the operator's token, which opens a short list of routes and lends no application's authority.

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, Method, StatusCode};
use caracal_authority::mandate::{Expected, MAX_TOKEN_BYTES, Use};
use caracal_authority::record::check_live;
use caracal_authority::scope::Scopes;
use caracal_authority::{ApplicationId, AuthorityRecordId, Timestamp, ZoneId};
use caracal_crypto::constant_time_eq;
use caracal_custody::mandate::{VerifyError, verify};
use caracal_custody::{CustodyError, VerificationKeys};
use caracal_http::Problem;
use caracal_store::{Store, StoreError, ZoneRead, applications, records};

use crate::config::CoordinatorConfig;
use crate::route::ZoneRoute;
use crate::wire::refusal;

/// What the operator is called in evidence.
const OPERATOR: &str = "caracal-operator";
/// Stands for ownership when ending sessions and revoking delegations, and for the zone-wide view.
const ADMIN: &str = "coordinator.admin";

/// An authenticated caller and what it may do. Only [`authenticate`] makes one.
#[derive(Debug, Clone)]
pub(crate) struct Principal {
    zone: ZoneId,
    scopes: Scopes,
    actor: Actor,
}

#[derive(Debug, Clone)]
enum Actor {
    Application(Application),
    Operator,
}

/// An application, as its mandate names it.
#[derive(Debug, Clone)]
pub(crate) struct Application {
    /// `client_id`.
    pub(crate) id: ApplicationId,
    /// `sub`.
    pub(crate) subject: String,
    /// `sid`.
    pub(crate) record: AuthorityRecordId,
}

impl Principal {
    /// The one zone it may act in.
    pub(crate) fn zone(&self) -> &ZoneId {
        &self.zone
    }

    /// The application; none for the operator, who can never stand in for one.
    pub(crate) fn application(&self) -> Option<&Application> {
        match &self.actor {
            Actor::Application(application) => Some(application),
            Actor::Operator => None,
        }
    }

    /// Whether it has `coordinator.admin`.
    pub(crate) fn is_admin(&self) -> bool {
        self.scopes.contains(ADMIN)
    }

    /// 403 `coordinator_admin_required` unless it has `coordinator.admin`; `why` says what is kept for those who have.
    pub(crate) fn require_admin(&self, why: &'static str) -> Result<(), Problem> {
        if self.is_admin() {
            return Ok(());
        }
        Err(refusal(StatusCode::FORBIDDEN, "coordinator_admin_required").describe(why))
    }

    /// Whether it is `application`.
    pub(crate) fn is(&self, application: &str) -> bool {
        self.application().is_some_and(|own| own.id.as_str() == application)
    }

    /// The application whose sessions and services it sees; none when it sees all of the zone (difference D26).
    pub(crate) fn visible_application(&self) -> Option<&ApplicationId> {
        self.application().filter(|_| !self.is_admin()).map(|own| &own.id)
    }

    /// Whether it is `application`, or holds `<scope>:<application>` (the table of §2).
    pub(crate) fn may_for(&self, scope: &str, application: &str) -> bool {
        self.is(application) || self.scopes.contains(&format!("{scope}:{application}"))
    }

    /// Whether it holds the scope itself.
    pub(crate) fn holds(&self, scope: &str) -> bool {
        self.scopes.contains(scope)
    }

    /// `sub`, for evidence.
    pub(crate) fn subject(&self) -> &str {
        self.application().map_or(OPERATOR, |application| &application.subject)
    }

    /// `client_id`, for evidence.
    pub(crate) fn name(&self) -> &str {
        self.application().map_or(OPERATOR, |application| application.id.as_str())
    }

    /// Its scopes, for evidence.
    pub(crate) fn scope_text(&self) -> String {
        self.scopes.text().into_owned()
    }
}

/// The application or the authority record behind a mandate is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the identity behind the mandate is gone")]
pub(crate) struct IdentityRevoked;

impl From<IdentityRevoked> for Problem {
    fn from(_: IdentityRevoked) -> Self {
        refusal(StatusCode::UNAUTHORIZED, "identity_revoked")
    }
}

/// Why a request is not heard.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unauthenticated {
    /// No bearer, or one of an impossible length.
    #[error("no usable bearer token")]
    MissingToken,
    /// A bearer that is no session mandate of ours, or the operator's token where it opens nothing.
    #[error("the bearer token is not accepted")]
    InvalidToken,
    /// A mandate without the lifecycle scope.
    #[error("the lifecycle scope is missing")]
    MissingScope,
    /// A mandate of another zone than the path's.
    #[error("the mandate is of another zone")]
    ZoneMismatch,
    /// The application or the authority record behind the mandate is gone.
    #[error(transparent)]
    IdentityRevoked(#[from] IdentityRevoked),
    /// Nobody can say whether the bearer is good. Never 401: clients would burn it for our outage.
    #[error("keys or identities can't be read")]
    Unavailable(#[source] CustodyError),
}

impl From<StoreError> for Unauthenticated {
    fn from(error: StoreError) -> Self {
        Self::Unavailable(error.into())
    }
}

impl From<Unauthenticated> for Problem {
    fn from(error: Unauthenticated) -> Self {
        match error {
            Unauthenticated::MissingToken => refusal(StatusCode::UNAUTHORIZED, "missing_token"),
            Unauthenticated::InvalidToken => refusal(StatusCode::UNAUTHORIZED, "invalid_token"),
            Unauthenticated::MissingScope => refusal(StatusCode::FORBIDDEN, "missing_scope"),
            Unauthenticated::ZoneMismatch => refusal(StatusCode::FORBIDDEN, "zone_mismatch"),
            Unauthenticated::IdentityRevoked(revoked) => revoked.into(),
            Unauthenticated::Unavailable(cause) => {
                tracing::error!(error = %cause, "a caller could not be authenticated");
                refusal(StatusCode::SERVICE_UNAVAILABLE, "sts_unavailable").describe("authentication is unavailable")
            }
        }
    }
}

/// Where authentication looks things up.
pub(crate) struct Sources<'a> {
    pub(crate) config: &'a CoordinatorConfig,
    pub(crate) store: &'a Store,
    pub(crate) keys: &'a dyn VerificationKeys,
}

/// Authenticates a request for `route` (none when there is no such route) in the zone its path names.
pub(crate) async fn authenticate(
    sources: &Sources<'_>,
    headers: &HeaderMap,
    method: &Method,
    route: Option<&ZoneRoute>,
    zone: Option<&str>,
) -> Result<Principal, Unauthenticated> {
    let token = bearer(headers).ok_or(Unauthenticated::MissingToken)?;
    if is_operator(sources.config, token) {
        // On a HEAD the reference compares the method and finds it missing from its list; so do we.
        let opens = *method != Method::HEAD && route.is_some_and(ZoneRoute::admits_operator);
        let zone = zone.filter(|_| opens).and_then(|zone| ZoneId::parse(zone).ok());
        return zone.map(|zone| operator(sources.config, zone)).ok_or(Unauthenticated::InvalidToken);
    }
    let now = sources.store.now();
    let principal = from_mandate(sources, token, zone, now).await?;
    alive(sources.store, &principal).await?;
    Ok(principal)
}

/// The bearer of exactly one `Authorization` header.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut lines = headers.get_all(AUTHORIZATION).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return None };
    let token = line.to_str().ok()?.strip_prefix("Bearer ")?.trim();
    (1..=MAX_TOKEN_BYTES).contains(&token.len()).then_some(token)
}

/// Whether `token` is the operator's, where there is one.
pub(crate) fn is_operator(config: &CoordinatorConfig, token: &str) -> bool {
    let expected = config.operator_token.as_ref().filter(|expected| !expected.expose().is_empty());
    expected.is_some_and(|expected| constant_time_eq(expected.expose().as_bytes(), token.as_bytes()))
}

fn operator(config: &CoordinatorConfig, zone: ZoneId) -> Principal {
    let scopes = Scopes::from_text(&format!("{} {ADMIN}", config.lifecycle_scope));
    Principal { zone, scopes, actor: Actor::Operator }
}

async fn from_mandate(
    sources: &Sources<'_>,
    token: &str,
    zone: Option<&str>,
    now: Timestamp,
) -> Result<Principal, Unauthenticated> {
    let signed = verify(sources.keys, token).await.map_err(|error| match error {
        VerifyError::Unavailable(cause) => Unauthenticated::Unavailable(cause),
        VerifyError::Malformed | VerifyError::UnknownKey | VerifyError::BadSignature => Unauthenticated::InvalidToken,
    })?;
    let issuer = sources.config.issuer.as_str();
    let expected = Expected { issuer, audience: issuer, zone: signed.zone(), r#use: Use::Session };
    let claims = signed.accept(&expected, now).map_err(|_| Unauthenticated::InvalidToken)?;
    // The reference hears mandates without `sid`, behind which nothing could be revoked (W13).
    let record = claims.record.ok_or(Unauthenticated::InvalidToken)?;
    if !claims.scope.contains(&sources.config.lifecycle_scope) {
        return Err(Unauthenticated::MissingScope);
    }
    if zone.is_some_and(|zone| zone != claims.zone.as_str()) {
        return Err(Unauthenticated::ZoneMismatch);
    }
    let application = Application { id: claims.client, subject: claims.subject, record };
    Ok(Principal { zone: claims.zone, scopes: claims.scope, actor: Actor::Application(application) })
}

/// The application and the record, both at one instant of the store.
async fn alive(store: &Store, principal: &Principal) -> Result<(), Unauthenticated> {
    let mut snapshot = store.snapshot().await?;
    Ok(principal.check_alive(&mut snapshot.zone(&principal.zone)).await??)
}

impl Principal {
    /// Whether application and record behind the mandate live in this transaction. The operator has neither.
    pub(crate) async fn check_alive(&self, tx: &mut ZoneRead<'_>) -> Result<Result<(), IdentityRevoked>, StoreError> {
        let Actor::Application(caller) = &self.actor else { return Ok(Ok(())) };
        let now = tx.now();
        let application = applications::lookup(tx, &caller.id).await?;
        let record = records::lookup(tx, &caller.record).await?;
        let application_lives = application.is_some_and(|application| application.is_live(now));
        let record = record.map(|record| record.facts()).transpose()?;
        let record_lives = record.is_some_and(|record| check_live(&record, now).is_ok());
        Ok(if application_lives && record_lives { Ok(()) } else { Err(IdentityRevoked) })
    }
}
