//! The gate: the one way from the network to a handler (contract: admin-api.md §1.1 and §2.2; README D1).
//!
//! A read token of zone A asks for `DELETE /v1/zones/B/policies/p`. The router has matched one [`Route`] of the table;
//! from here on the request target is never looked at again to decide anything. The route says what it needs and whom it
//! is for, the token says what it may, and [`judge`] compares the two in the contract's order. Only then does a
//! [`Caller`] exist, and a handler can't be called without one.
//!
//! What would go wrong otherwise: a gate that reads the target sees `/%761/zones`, `http://h/v1/zones` or
//! `/v1/zones/z/approvals/a/%61pprove` as something else than the router does, and lets it through.
//!
//! A handler can't be registered without saying what it needs: [`Route`] has no default, and [`Reach`] holds the handler
//! itself, typed by the place it works in.

use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequestParts, RawPathParams, Request};
use axum::response::{IntoResponse, Response};
use caracal_authority::{Timestamp, ZoneId, ids};
use caracal_crypto::fast_hash::token_digest;
use caracal_http::limits::Source;
use caracal_http::rate::Kind;
use caracal_http::{PeerAddr, Problem, RequestId, body, json};
use caracal_store::admin_tokens::{self, AdminToken};
use caracal_store::receipts::Keyed;
use caracal_store::{BoxFuture, zones};
use http::header::{AUTHORIZATION, CACHE_CONTROL, REFERRER_POLICY, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde_json::Value;

use crate::Admin;
use crate::answer::{Answer, Changed};
use crate::evidence::Trace;
use crate::openapi::spec::Spec;
use crate::page::Query;
use crate::problem::Refusal;
use crate::provider_connections::page;
use crate::{account, idempotency, reserved, seed};

/// One operation of the management API: where it is, what it takes to be let in, and who does the work.
pub(crate) struct Route {
    /// The method. `HEAD` comes with `GET`.
    pub(crate) method: Method,
    /// The path; `{zone}` is the zone everything below is confined to.
    pub(crate) path: &'static str,
    /// What the token must be able to do.
    pub(crate) needs: Needs,
    /// Whom it is for, and the handler.
    pub(crate) reach: Reach,
    /// What the description says of it.
    pub(crate) spec: Spec,
}

impl Route {
    /// Whether the request can do nothing but take authority away: then it is let through where requests can't be
    /// counted. Decided on the route that matched, like every gate.
    fn kind(&self) -> Kind {
        let ends = |action: &str| self.path.ends_with(action);
        let takes_away = self.method == Method::DELETE
            || (self.method == Method::POST && ["/revoke", "/reject"].into_iter().any(ends));
        if takes_away { Kind::TakesAway } else { Kind::Other }
    }
}

impl Route {
    /// Whether it changes anything; that somebody asked is no change.
    pub(crate) fn changes(&self) -> bool {
        if self.needs == Needs::Read || self.path.ends_with("/simulate") {
            return false;
        }
        self.is_recorded() && !matches!(self.reach, Reach::Public(_))
    }

    /// Whether a success is on record.
    pub(crate) fn is_recorded(&self) -> bool {
        match &self.reach {
            Reach::Zone(run) => matches!(run, Run::Change(_)),
            Reach::Zones(run) | Reach::Deployment(run) | Reach::Catalogue(run) => matches!(run, Run::Change(_)),
            Reach::Public(_) => true,
        }
    }

    /// Whether all that it does is taken back with its commit. Secrets that lie elsewhere are not, for a moment.
    pub(crate) fn can_be_rehearsed(&self, keeps_secrets_elsewhere: bool) -> bool {
        let speaks_to_others = self.path.contains("/provider-connections")
            || ["/test", "/discovery"].iter().any(|end| self.path.ends_with(end));
        let has_secrets = ["/applications", "/providers", "/workloads"].iter().any(|part| self.path.contains(part));
        !(speaks_to_others || keeps_secrets_elsewhere && has_secrets)
    }
}

/// What a token must be able to do. Deciding approvals is never implied by writing, nor the other way round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Nobody has to be known.
    Nothing,
    /// Any capability will do.
    Read,
    /// Capability `write`.
    Write,
    /// Capability `approve`, or the bootstrap token.
    Approve,
}

/// Whom a route is for.
pub(crate) enum Reach {
    /// What is in one zone: tokens and accounts that may act there.
    Zone(Run<InZone>),
    /// The zones themselves: global tokens, and accounts for their own.
    Zones(Run<Anywhere>),
    /// What the deployment has for itself, like the admin tokens: global tokens, and no account.
    Deployment(Run<Anywhere>),
    /// What is the same for everybody.
    Catalogue(Run<Anywhere>),
    /// Whoever brings a proof of its own, which the handler judges.
    Public(fn(Arc<Admin>, Visitor) -> Reply<Changed>),
}

/// The work. Only what a change returns proves that it is on record.
pub(crate) enum Run<P: 'static> {
    /// Changes nothing.
    Read(fn(Arc<Admin>, Call<P>) -> Reply<Answer>),
    /// Changes something, and records it in the same commit.
    Change(fn(Arc<Admin>, Call<P>) -> Reply<Changed>),
}

/// What a handler comes to.
pub(crate) type Reply<T> = BoxFuture<'static, Result<T, Refusal>>;

/// Everything a handler may know of its request.
pub(crate) struct Call<P> {
    /// Who asks.
    pub(crate) caller: Caller,
    /// Where.
    pub(crate) place: P,
    /// The query.
    pub(crate) query: Query,
    /// The JSON body, taken by the handler.
    pub(crate) body: Option<Value>,
    /// When the request was let in, by the store's clock.
    pub(crate) now: Timestamp,
    /// What its evidence will say.
    pub(crate) trace: Arc<Trace>,
    ids: Vec<(String, String)>,
}

/// Someone of whom nothing is known yet, at the door of one zone.
pub(crate) struct Visitor {
    /// The zone, as the path names it.
    pub(crate) zone: ZoneId,
    /// The query.
    pub(crate) query: Query,
    /// When the request came, by the store's clock.
    pub(crate) now: Timestamp,
    /// What the evidence of a success will say.
    pub(crate) trace: Arc<Trace>,
}

/// One zone.
pub(crate) struct InZone {
    /// Its id, as the path names it.
    pub(crate) zone: ZoneId,
    is_live: bool,
}

/// No zone.
pub(crate) struct Anywhere;

/// Someone who passed every gate of a route. Only [`judge`] makes one.
#[derive(Debug)]
pub(crate) struct Caller {
    token: AdminToken,
    account: Option<String>,
}

impl Caller {
    /// Whether the token is bound to no zone.
    pub(crate) fn is_global(&self) -> bool {
        self.token.zone_id.is_none() && self.token.scope == "global"
    }

    /// Whether this is the bootstrap token, which alone may touch the reserved namespace.
    pub(crate) fn is_bootstrap(&self) -> bool {
        self.token.created_by == seed::BOOTSTRAP
    }

    /// The token itself: what it may, and until when.
    pub(crate) fn token(&self) -> &AdminToken {
        &self.token
    }

    /// The console account that acts through the token.
    pub(crate) fn account(&self) -> Option<&str> {
        self.account.as_deref()
    }

    /// Who decides an approval, as it is kept: verbatim, whatever the approval's privacy (contract: admin-api.md §5.9).
    pub(crate) fn approver(&self) -> String {
        self.account.as_ref().map_or_else(|| format!("admin:{}", self.token.id), |account| format!("console:{account}"))
    }

    /// Who makes the change: the account, else the token. Headers that claim somebody else are never looked at.
    pub(crate) fn actor(&self) -> String {
        self.account.clone().unwrap_or_else(|| format!("admin:{}", self.token.id))
    }
}

impl<P> Call<P> {
    /// An id of the path. Every id of a route has the shape of one by now.
    pub(crate) fn id<T: std::str::FromStr>(&self, name: &str) -> Result<T, Refusal> {
        let text = self.ids.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        text.and_then(|text| text.parse().ok()).ok_or_else(|| Refusal::invalid("invalid_params"))
    }
}

impl Call<InZone> {
    /// For everything that is created in a zone: 404 unless the zone is there and not archived.
    pub(crate) fn require_live_zone(&self) -> Result<(), Refusal> {
        if self.place.is_live { Ok(()) } else { Err(Refusal::missing("zone_not_found")) }
    }
}

/// Serves a request that the router matched to `route`.
pub(crate) async fn serve(admin: Arc<Admin>, route: &'static Route, request: Request) -> Response {
    let mut visit = Visit::of(&admin, &request);
    let in_a_browser = matches!(route.reach, Reach::Public(_)) && page::is_wanted(request.headers());
    let outcome = pass(&admin, route, request, &mut visit).await;
    let shown = in_a_browser.then(|| page::of(outcome.as_ref().err().map(|refusal| &refusal.problem)));
    let response = visit.finish(&admin, outcome);
    match shown {
        Some(shown) => page::dress(response, shown),
        None => response,
    }
}

/// Answers what no route matches: 404, but under `/v1` only to those who may know (401 first).
pub(crate) async fn unmatched(admin: Arc<Admin>, request: Request) -> Response {
    if !looks_like_management(request.uri().path()) {
        return Refusal::missing("not_found").problem.into_response();
    }
    let mut visit = Visit::of(&admin, &request);
    let outcome = turn_away(&admin, request, &mut visit).await;
    visit.finish(&admin, outcome)
}

async fn pass(
    admin: &Arc<Admin>,
    route: &'static Route,
    request: Request,
    visit: &mut Visit,
) -> Result<Response, Refusal> {
    let (mut parts, body) = request.into_parts();
    let ids = path_ids(&mut parts).await?;
    let body = enter(admin, &parts, body, route.kind(), visit).await?;
    if let Reach::Public(run) = &route.reach {
        return receive(admin, route, *run, &parts, &ids, visit).await;
    }
    let zone = match &route.reach {
        Reach::Zone(_) => Some(ids.iter().find(|(name, _)| name == "zone").map_or("", |(_, zone)| zone)),
        Reach::Zones(_) | Reach::Deployment(_) | Reach::Catalogue(_) | Reach::Public(_) => None,
    };
    let Admitted { caller, zone } = admit(admin, route, &parts, zone, body.as_ref(), &ids, visit).await?;
    if let Some((name, _)) = ids.iter().find(|(name, id)| !is_well_formed(name, id)) {
        return Err(Refusal::invalid(if name == "admin_token" { "invalid_admin_token_id" } else { "invalid_params" }));
    }
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    let rehearsed = route.changes() && query.choice("dry_run", &["true", "false"])? == Some("true");
    if rehearsed {
        if !route.can_be_rehearsed(admin.sealed.is_external()) {
            return Err(Refusal::invalid("dry_run_unsupported")
                .describe("this reaches beyond the store, where it can't be taken back without a trace"));
        }
        visit.rehearse();
    }
    // A rehearsal leaves nothing that could be found again. Its key is none all the same if it would be none later.
    let keyed = idempotency::keyed(admin, route, &parts, &caller, body.as_ref())?.filter(|_| !rehearsed);
    let asked = keyed.map(|keyed| (zone.as_ref().map(|place| place.zone.clone()), keyed));
    if let Some((place, keyed)) = &asked {
        if let Some(replayed) = idempotency::replay(admin, place.as_ref(), keyed, &visit.trace()?).await? {
            return Ok(replayed.0);
        }
        visit.remember_under(keyed);
    }
    let (now, trace) = (visit.now, visit.trace()?);
    let done = match &route.reach {
        Reach::Zone(run) => {
            let Some(place) = zone else { return Err(Refusal::invalid("invalid_params")) };
            execute(run, admin, Call { caller, place, query, body, now, trace, ids }).await
        }
        Reach::Zones(run) | Reach::Deployment(run) | Reach::Catalogue(run) => {
            execute(run, admin, Call { caller, place: Anywhere, query, body, now, trace, ids }).await
        }
        // Received above.
        Reach::Public(_) => return Err(Problem::internal().into()),
    };
    match (done, asked) {
        // Someone with the same key may have been faster, and then this is what was refused.
        (Err(refusal), Some((place, keyed))) => {
            let replayed = idempotency::replay(admin, place.as_ref(), &keyed, &visit.trace()?).await?;
            replayed.map(|replayed| replayed.0).ok_or(refusal)
        }
        (done, _) => done,
    }
}

/// A visitor's refusals are counted like those of everybody who proved nothing, and only a success is on record: else the
/// chain of a zone could be written by whoever names it.
async fn receive(
    admin: &Arc<Admin>,
    route: &'static Route,
    run: fn(Arc<Admin>, Visitor) -> Reply<Changed>,
    parts: &Parts,
    ids: &[(String, String)],
    visit: &Visit,
) -> Result<Response, Refusal> {
    let zone = ids.iter().find(|(name, _)| name == "zone").and_then(|(_, zone)| ZoneId::parse(zone).ok());
    let zone = zone.ok_or_else(|| Refusal::invalid("invalid_params"))?;
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    let trace = Arc::new(Trace::of_visitor(&admin.ledger, visit, route, parts, &zone, ids)?);
    let visitor = Visitor { zone, query, now: visit.now, trace };
    // As for every change: what was begun is brought to its end.
    match tokio::spawn(run(admin.clone(), visitor)).await {
        Ok(changed) => Ok(changed?.0),
        Err(_) => Err(Problem::internal().into()),
    }
}

async fn execute<P>(run: &Run<P>, admin: &Arc<Admin>, call: Call<P>) -> Result<Response, Refusal> {
    match run {
        Run::Read(read) => Ok(read(admin.clone(), call).await?.0),
        // Whoever asked may go away meanwhile, and what was begun is brought to its end: a secret may lie in its backend
        // already, and then its row has to follow, or the secret to go back.
        Run::Change(change) => match tokio::spawn(change(admin.clone(), call)).await {
            Ok(Ok(changed)) => Ok(changed.0),
            Ok(Err(Refusal { rehearsal: Some(told), .. })) => Ok(Answer::ok(&*told).0),
            Ok(Err(refusal)) => Err(refusal),
            Err(_) => Err(Problem::internal().into()),
        },
    }
}

async fn turn_away(admin: &Arc<Admin>, request: Request, visit: &mut Visit) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    enter(admin, &parts, body, Kind::Other, visit).await?;
    let mut snapshot = admin.store.snapshot().await?;
    let token = authenticate(admin, &mut snapshot, &parts.headers).await?;
    drop(snapshot);
    let Some(token) = token else { return Err(unauthenticated(admin, Kind::Other, visit).await) };
    let actor = token.id.clone();
    visit.know(Trace::of_unmatched(&admin.ledger, visit, &parts, &token)?);
    admin.limits.by_actor(&actor, Kind::Other, visit.now).await?;
    Err(Refusal::missing("not_found"))
}

/// What comes before anybody is asked who they are: the address's limit, then the body.
async fn enter(
    admin: &Admin,
    parts: &Parts,
    body: Body,
    request: Kind,
    visit: &Visit,
) -> Result<Option<Value>, Refusal> {
    admin.limits.by_source(visit.source, request, visit.now).await?;
    let bytes = body::read(body, admin.config.body_limit, admin.config.body_deadline).await.map_err(Problem::from)?;
    if matches!(parts.method, Method::GET | Method::HEAD) {
        // Clients send content types on reads, too. Their bodies mean nothing.
        return Ok(None);
    }
    let document = json::document(&parts.headers, &bytes).map_err(Problem::from)?;
    Ok(document.filter(|value| !value.is_null()))
}

struct Admitted {
    caller: Caller,
    zone: Option<InZone>,
}

async fn admit(
    admin: &Admin,
    route: &'static Route,
    parts: &Parts,
    zone: Option<&str>,
    body: Option<&Value>,
    ids: &[(String, String)],
    visit: &mut Visit,
) -> Result<Admitted, Refusal> {
    let mut snapshot = admin.store.snapshot().await?;
    let Some(token) = authenticate(admin, &mut snapshot, &parts.headers).await? else {
        // Counting may ask another server, and nobody keeps a snapshot meanwhile.
        drop(snapshot);
        return Err(unauthenticated(admin, route.kind(), visit).await);
    };
    let zone_id = zone.and_then(|zone| ZoneId::parse(zone).ok());
    let (mut row, mut owner) = (None, None);
    if let Some(zone) = &zone_id {
        row = zones::lookup(&mut snapshot.zone(zone)).await?;
        owner = zones::find_owner(&mut snapshot.zone(zone)).await?;
    }
    drop(snapshot);
    let chain = token.zone_id.clone().or_else(|| row.as_ref().map(|row| row.id.clone()));
    visit.know(Trace::of(&admin.ledger, visit, route, parts, &token, chain, body, ids)?);
    let facts = Facts {
        zone,
        is_system_zone: row.as_ref().is_some_and(|row| reserved::is_system_zone(&row.name, &row.slug)),
        zone_owner: owner.as_deref(),
        account: account::claimed(admin, &parts.headers, &token, visit.now),
    };
    let caller = judge(route, token, facts)?;
    if let Some(account) = caller.account() {
        visit.name_operator(account);
    }
    admin.limits.by_actor(&caller.token.id, route.kind(), visit.now).await?;
    let is_live = row.is_some_and(|row| row.archived_at.is_none());
    Ok(Admitted { caller, zone: zone_id.map(|zone| InZone { zone, is_live }) })
}

/// Gate 1. A token is known by its digest alone: it is 256 random bits, or the operator's own (difference D22).
async fn authenticate(
    admin: &Admin,
    snapshot: &mut caracal_store::Snapshot,
    headers: &HeaderMap,
) -> Result<Option<AdminToken>, Refusal> {
    let found = match bearer(headers) {
        None => None,
        Some(token) => {
            let digest = token_digest(&admin.token_key, token);
            admin_tokens::find_by_digest(&mut snapshot.deployment(), &digest).await?
        }
    };
    let now = snapshot.deployment().now();
    let found = found.filter(|token| is_live(token, now) && is_known_kind(token));
    if let Some(token) = &found {
        admin.token_uses.note(token, now);
    }
    Ok(found)
}

async fn unauthenticated(admin: &Admin, request: Kind, visit: &Visit) -> Refusal {
    match admin.limits.failed(visit.source, request, visit.now).await {
        Ok(()) => Refusal::unauthenticated("invalid_admin_token"),
        Err(limited) => limited,
    }
}

fn is_live(token: &AdminToken, now: Timestamp) -> bool {
    token.revoked_at.is_none() && token.expires_at.is_none_or(|end| now < end)
}

/// Whether a stored token is of a kind that the contract knows. A newer build, or a damaged store, may hold others; what
/// they may do is unknown here, so they may do nothing.
fn is_known_kind(token: &AdminToken) -> bool {
    let has_scope = match token.scope.as_str() {
        "global" => token.zone_id.is_none(),
        "zone" => token.zone_id.is_some(),
        _ => false,
    };
    has_scope && matches!(token.capability.as_str(), "read" | "write" | "approve")
}

/// What [`judge`] compares a token with.
struct Facts<'f> {
    /// The zone of the path, for routes that have one; text, because it may be no id at all.
    zone: Option<&'f str>,
    /// Whether that zone is there and a system zone.
    is_system_zone: bool,
    /// The account that owns it.
    zone_owner: Option<&'f str>,
    /// The console account behind the token.
    account: account::Claim,
}

/// Gates 2 to 7, in the contract's order.
fn judge(route: &Route, token: AdminToken, facts: Facts<'_>) -> Result<Caller, Refusal> {
    let is_bootstrap = token.created_by == seed::BOOTSTRAP;
    match (route.needs, token.capability.as_str()) {
        (Needs::Nothing | Needs::Read, _) | (Needs::Write, "write") | (Needs::Approve, "approve") => {}
        (_, "read") => return Err(Refusal::forbidden("admin_token_read_only")),
        (Needs::Approve, "write") if is_bootstrap => {}
        (Needs::Approve, "write") => return Err(Refusal::forbidden("approve_capability_required")),
        _ => return Err(Refusal::forbidden("admin_token_approve_only")),
    }
    let is_global = token.scope == "global" && token.zone_id.is_none();
    let is_own = facts.zone.is_some() && token.zone_id.as_ref().map(ZoneId::as_str) == facts.zone;
    if !is_global && !is_own && !matches!(route.reach, Reach::Catalogue(_)) {
        return Err(Refusal::forbidden("admin_token_zone_mismatch"));
    }
    if route.needs != Needs::Read && facts.is_system_zone && !is_bootstrap {
        return Err(Refusal::forbidden("system_zone_read_only"));
    }
    let account = match facts.account {
        account::Claim::NotNeeded => None,
        account::Claim::Invalid => return Err(Refusal::unauthenticated("invalid_account_assertion")),
        account::Claim::Proven(account) => Some(account),
    };
    if account.is_some() && matches!(route.reach, Reach::Deployment(_)) {
        return Err(Refusal::forbidden("account_scope_required")
            .describe("console accounts manage their zones; this needs a global admin token of one's own"));
    }
    if let (Some(account), Some(_)) = (&account, facts.zone) {
        let owns = facts.zone_owner == Some(account.as_str());
        let reads_system_zone = facts.is_system_zone && route.needs == Needs::Read;
        if !owns && !reads_system_zone {
            return Err(Refusal::forbidden("zone_forbidden"));
        }
    }
    Ok(Caller { token, account })
}

/// One request as far as limits and evidence are concerned.
pub(crate) struct Visit {
    pub(crate) now: Timestamp,
    pub(crate) request_id: RequestId,
    source: Source,
    trace: Option<Arc<Trace>>,
}

impl Visit {
    fn of(admin: &Admin, request: &Request) -> Self {
        let fresh = || admin.fresh_id.next();
        Self {
            now: admin.store.now(),
            request_id: request.extensions().get::<RequestId>().cloned().unwrap_or_else(fresh),
            source: source(admin, request),
            trace: None,
        }
    }

    fn know(&mut self, trace: Trace) {
        self.trace = Some(Arc::new(trace));
    }

    fn name_operator(&mut self, account: &str) {
        if let Some(trace) = self.trace.take() {
            self.trace = Some(Arc::new(trace.by_operator(account)));
        }
    }

    fn rehearse(&mut self) {
        if let Some(trace) = self.trace.take() {
            self.trace = Some(Arc::new(trace.rehearsed()));
        }
    }

    fn remember_under(&mut self, keyed: &Keyed) {
        if let Some(trace) = self.trace.take() {
            self.trace = Some(Arc::new(trace.under(keyed.clone())));
        }
    }

    fn trace(&self) -> Result<Arc<Trace>, Refusal> {
        self.trace.clone().ok_or_else(|| Problem::internal().into())
    }

    /// Every answer of the management API leaves here.
    fn finish(self, admin: &Admin, outcome: Result<Response, Refusal>) -> Response {
        let mut response = match outcome {
            Ok(response) => response,
            Err(refusal) => self.refuse(admin, refusal),
        };
        let headers = response.headers_mut();
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }

    /// Someone we know leaves a record of their own; who proved nothing is counted (difference D11), and so is who goes on
    /// asking past their limit: else being refused would be a way to write into a chain as fast as one can ask.
    fn refuse(self, admin: &Admin, refusal: Refusal) -> Response {
        let status = refusal.problem.status();
        if let Some(cause) = refusal.cause.as_deref() {
            tracing::error!(request_id = %self.request_id, %status, cause, "a management request failed");
        }
        let is_limited = status == StatusCode::TOO_MANY_REQUESTS;
        match self.trace {
            Some(trace) if !is_limited || admin.limits.leaves_a_record(trace.actor(), self.now) => {
                admin.recorder.note(trace, status);
            }
            _ => admin.denials.count("admin", anonymous_reason(status)),
        }
        let mut response = refusal.problem.into_response();
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

fn anonymous_reason(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "invalid_admin_token",
        StatusCode::TOO_MANY_REQUESTS => "rate_limited",
        status if status.is_server_error() => "failed",
        _ => "invalid_request",
    }
}

/// The token of `Authorization: Bearer <token>`: the prefix as it is, one header, 1 to 4096 characters.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut lines = headers.get_all(AUTHORIZATION).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return None };
    let token = std::str::from_utf8(line.as_bytes()).ok()?.strip_prefix("Bearer ")?.trim();
    (1..=4096).contains(&token.encode_utf16().count()).then_some(token)
}

/// Decoded path parameters. An escape that is none is 400 and an endless parameter 414, before anything else.
async fn path_ids(parts: &mut Parts) -> Result<Vec<(String, String)>, Refusal> {
    if !escapes_are_whole(parts.uri.path()) {
        return Err(Refusal::invalid("bad_request"));
    }
    let raw = RawPathParams::from_request_parts(parts, &()).await.map_err(|_| Refusal::invalid("bad_request"))?;
    let ids: Vec<(String, String)> = raw.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    if ids.iter().any(|(_, id)| id.len() > ids::MAX_ID_BYTES) {
        return Err(Refusal::new(StatusCode::URI_TOO_LONG, "uri_too_long"));
    }
    Ok(ids)
}

/// Whether a path parameter is an id. A request's id was chosen by whoever made the request, from a wider set than our
/// own ids (difference D16); if only ours could be looked up, a caller could keep its requests from being explained.
fn is_well_formed(name: &str, id: &str) -> bool {
    match name {
        "request" => RequestId::parse(id.as_bytes()).is_some(),
        // A path and no id; its handler reads it and nothing else does.
        "tile" => true,
        _ => ids::is_id(id),
    }
}

fn escapes_are_whole(path: &str) -> bool {
    let is_hex = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_hexdigit);
    let bytes = path.as_bytes();
    bytes
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'%')
        .all(|(at, _)| is_hex(bytes.get(at + 1)) && is_hex(bytes.get(at + 2)))
}

/// Whether an unmatched path is, in some spelling, one of the management API. Decides between 401 and 404 only.
fn looks_like_management(path: &str) -> bool {
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    percent_encoding::percent_decode_str(first).decode_utf8_lossy().eq_ignore_ascii_case("v1")
}

/// Where a request comes from. Those of whom nobody can say it share one budget.
pub(crate) fn source(admin: &Admin, request: &Request) -> Source {
    let peer = request.extensions().get::<PeerAddr>().map(|peer| peer.ip());
    Source::of(request.headers(), peer, admin.config.trust_proxy).unwrap_or(Source::from(IpAddr::from([0, 0, 0, 0])))
}

#[cfg(test)]
mod tests {
    use super::*;

    mod t01_control_plane_bearer {
        use super::*;

        fn token_of(values: &[&str]) -> Option<String> {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, HeaderValue::from_bytes(value.as_bytes()).unwrap());
            }
            bearer(&headers).map(str::to_owned)
        }

        #[test]
        fn only_one_exact_bearer_header_is_a_token() {
            assert_eq!(token_of(&["Bearer abc"]).as_deref(), Some("abc"));
            assert_eq!(token_of(&["Bearer   abc  "]).as_deref(), Some("abc"));
            for refused in [&[][..], &["bearer abc"], &["Basic abc"], &["Bearer    "], &["Bearer"], &["abc"]] {
                assert_eq!(token_of(refused), None, "{refused:?}");
            }
            assert_eq!(token_of(&["Bearer abc", "Bearer abc"]), None);
            assert!(token_of(&[&format!("Bearer {}", "a".repeat(4096))]).is_some());
            assert!(token_of(&[&format!("Bearer {}", "a".repeat(4097))]).is_none());
        }

        #[test]
        fn every_spelling_of_the_management_prefix_is_met_with_401() {
            for path in ["/v1", "/v1/x", "/%761/zones", "/v%31/zones", "//v1/zones", "/V1/zones"] {
                assert!(looks_like_management(path), "{path}");
            }
            for path in ["/", "/docs", "/v2/zones", "/v1x", "/health/x"] {
                assert!(!looks_like_management(path), "{path}");
            }
        }
    }

    #[test]
    fn an_escape_is_percent_and_two_digits() {
        for (path, whole) in [("/a%20b", true), ("/a%2", false), ("/a%", false), ("/%zz", false), ("/%E0%A4%A", false)]
        {
            assert_eq!(escapes_are_whole(path), whole, "{path}");
        }
    }
}
