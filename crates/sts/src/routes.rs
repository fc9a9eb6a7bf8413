//! The HTTP face (contract: sts.md §1–§3, §6, §15).

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use caracal_authority::ZoneId;
use caracal_authority::exchange::Refusal;
use caracal_authority::resource::UpstreamCall;
use caracal_crypto::jws::verifications;
use caracal_crypto::{SecretText, chance, constant_time_eq};
use caracal_http::form::{self, Form, FormError};
use caracal_http::limits::{Source, Verdict};
use caracal_http::{Face, FreshId, PeerAddr, Problem, Profile, RequestId, body, health};
use caracal_store::Store;
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::approvals;
use crate::client::{AuthenticatedClient, Credentials, NotAuthenticated};
use crate::exchange::{Asked, Granted};
use crate::gateway_auth::{Presented, SignedRequest};
use crate::guesses::{Guessed, Guesser};
use crate::launch;
use crate::metrics::{Counted, PolicyAge, Series};
use crate::policy_routes;
use crate::public_reads::{AskedFrom, Public};
use crate::request::{Screened, TokenRequest};
use crate::rotate::rotate;
use crate::standards::credentials::is_basic;
use crate::standards::{self, Door, never_kept};
use crate::wire::Ended;
use crate::{Directive, ExchangeError, Sts};

/// How long readiness waits for the store (§15).
const READY_WITHIN: Duration = Duration::from_secs(2);

/// What a bearer route asks for when it was given nothing it knows (RFC 6750 §3).
pub(crate) const BEARER_CHALLENGE: &str = r#"Bearer realm="caracal-sts""#;

/// Tells a Gateway what became of the mandate it presented; nobody else is told.
pub(crate) const DECISION: HeaderName = HeaderName::from_static("x-caracal-gateway-decision");

impl Sts {
    /// The service's router, with request ids and error bodies around it.
    pub fn router(self: Arc<Self>) -> Router {
        let fresh_ids = fresh_ids(self.store.clone());
        let router = Router::new()
            .route("/oauth/2/token", post(token))
            .route("/.well-known/jwks.json", get(jwks))
            .route("/.well-known/oauth-authorization-server/{*issuer}", get(standards::metadata::of_issuer))
            .route("/zones/{zone_id}/.well-known/oauth-authorization-server", get(standards::metadata::of_zone))
            .route("/zones/{zone_id}/oauth/2/token", post(standards::token::token))
            .route("/zones/{zone_id}/oauth/2/introspect", post(standards::introspection::introspect))
            .route("/zones/{zone_id}/oauth/2/revoke", post(standards::revocation::revoke))
            .route("/zones/{zone_id}/oauth/2/revocations", post(standards::revocations::list))
            .route("/approvals/{id}", get(approvals::status::status))
            .route("/approvals/{id}/decision", post(approvals::decision::decide))
            .route("/v1/run/manifest", post(launch::manifest))
            .route("/v1/run/credential", post(launch::credential))
            .route("/internal/zones/{zone_id}/signing-key/rotate", post(rotate))
            .route("/internal/policy/simulate", post(policy_routes::simulate::simulate))
            .route("/internal/policy/status/{zone_id}", get(policy_routes::status::status))
            .route("/health", get(|| async { health::alive_empty() }))
            .route("/ready", get(ready))
            .route("/metrics", get(metrics))
            .route("/metrics.json", get(metrics_json))
            .fallback(|| async { Problem::new(StatusCode::NOT_FOUND, "resource_not_found") })
            .method_not_allowed_fallback(|| async {
                Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed")
            })
            .with_state(self);
        router.layer(Face::new(Profile::STS, fresh_ids))
    }
}

/// Ids of requests that bring none (§3.1).
fn fresh_ids(store: Store) -> FreshId {
    FreshId::new(move || chance::uuid_v7(store.now()).map(|id| id.to_string()).unwrap_or_default())
}

async fn token(State(sts): State<Arc<Sts>>, id: RequestId, request: Request<Body>) -> Response {
    sts.answer(&id, Door::Contract, request).await
}

impl Sts {
    /// The answer to a token request, by either door.
    pub(crate) async fn answer(&self, id: &RequestId, door: Door<'_>, request: Request<Body>) -> Response {
        let source = self.source(&request);
        let for_gateway = Presented::by(request.headers()).is_some();
        let by_basic = is_basic(request.headers());
        let ended = self.token(id, source, door, request).await;
        match &ended {
            Err(Ended::Form(_) | Ended::Request(_)) => self.metrics.malformed(),
            Err(Ended::Exchange(error)) => self.metrics.ended(&Err::<(), _>(error)),
            Ok(_) => self.metrics.ended(&Ok::<_, &ExchangeError>(())),
        }
        let mut response = match ended {
            Ok((granted, for_gateway)) => {
                Profile::STS.json(StatusCode::OK, &answer(&granted, for_gateway)).into_response()
            }
            Err(ended) => {
                let decision = HeaderValue::from_static(ended.decision().as_str());
                let mut response = door.refuse(ended, by_basic);
                if for_gateway {
                    response.headers_mut().insert(DECISION, decision);
                }
                response
            }
        };
        never_kept(&mut response);
        response
    }

    /// Where a request comes from.
    pub(crate) fn source(&self, request: &Request<Body>) -> Option<Source> {
        let peer = request.extensions().get::<PeerAddr>().map(|peer| peer.ip());
        Source::of(request.headers(), peer, self.config.trust_proxy)
    }
}

/// 200 with `body`, which nobody on the way may keep: RFC 6749 §5.1. The reference does not say so.
pub(crate) fn unkept(body: &impl Serialize) -> Response {
    let mut response = Profile::STS.json(StatusCode::OK, body).into_response();
    never_kept(&mut response);
    response
}

/// The refusal; with a challenge for who has to wait for an approval (§7.3).
pub(crate) fn refused(ended: Ended) -> Response {
    let challenge = ended.waits_for_approval().then_some(HeaderValue::from_static(approvals::CHALLENGE));
    let mut response = Problem::from(ended).into_response();
    if let Some(challenge) = challenge {
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    }
    response
}

impl Sts {
    /// The pre-exchange order of checks, §3.3.
    async fn token(
        &self,
        id: &RequestId,
        source: Option<Source>,
        door: Door<'_>,
        request: Request<Body>,
    ) -> Result<(Granted, bool), Ended> {
        let (parts, body) = request.into_parts();
        // The head is judged before the body is read, and the body is kept as it came: it is what a Gateway signs.
        Form::check_head(parts.uri.query(), &parts.headers)?;
        let bytes = body::read(body, form::MAX_BYTES, self.config.body_deadline).await.map_err(FormError::from)?; // 1
        let screened = Screened::screen(Form::parse_fields(&bytes, &["resource"])?)?; // 2, 3
        let gateway = self.gateway(&parts, &bytes, &screened, door, id).await?; // 4
        let request = screened.parse(door)?; // 5 to 9
        if gateway {
            let granted = self.for_gateway(request, id).await?;
            return Ok((granted, true));
        }
        let request = request.or_by_basic(&parts.headers)?;
        Ok((self.for_client(request, id, source).await?, false))
    }

    /// Step 4: a request that bears any of the three headers is a Gateway's or nothing.
    async fn gateway(
        &self,
        parts: &http::request::Parts,
        body: &[u8],
        screened: &Screened,
        door: Door<'_>,
        id: &RequestId,
    ) -> Result<bool, ExchangeError> {
        let Some(presented) = Presented::by(&parts.headers) else { return Ok(false) };
        // Its signature is of the contract's path.
        let door_is_theirs = matches!(door, Door::Contract);
        let signed = SignedRequest { method: parts.method.as_str(), escaped_path: parts.uri.path(), body };
        let key = self.config.gateway_key.as_deref();
        let verified = if door_is_theirs && screened.gateway_request_id() == Some(id.as_str()) {
            presented.verify(key, &signed, self.store.now(), &self.store).await.map_err(ExchangeError::from)
        } else {
            Err(ExchangeError::NotAGateway)
        };
        if matches!(verified, Err(ExchangeError::NotAGateway)) {
            self.denials.count("sts", "gateway_signature");
        }
        verified.map(|()| true)
    }

    async fn for_gateway(&self, request: TokenRequest, id: &RequestId) -> Result<Granted, ExchangeError> {
        let client = AuthenticatedClient::by_gateway(request.zone.as_deref(), request.application.as_deref())
            .inspect_err(|_| self.denials.count("sts", "client_unauthenticated"))?;
        let call = UpstreamCall {
            method: request.method.clone().unwrap_or_default(),
            path: request.path.clone().unwrap_or_default(),
        };
        self.carry_out(&asked(request, client, Some(call)), id.as_str()).await
    }

    /// Steps 10 and 11, with the count of wrong secrets per application and source (difference D17).
    async fn for_client(
        &self,
        mut request: TokenRequest,
        id: &RequestId,
        source: Option<Source>,
    ) -> Result<Granted, ExchangeError> {
        let guesser =
            Guesser { at: Guessed::Secret, application: request.application.clone().unwrap_or_default(), source };
        self.check_guesses(&guesser).await?;
        let (zone, application, secret) =
            (request.zone.clone(), request.application.clone(), request.client_secret.take());
        let presented = Credentials {
            zone: zone.as_deref(),
            application: application.as_deref(),
            secret: secret.as_ref().map(|secret| secret.as_str()),
        };
        // A presented token is looked at only for who has proven to be the client.
        let recalled = AuthenticatedClient::recalled(&presented, &self.verifier, self.store.now());
        let wants = match recalled.filter(|_| request.subject_token.is_none()) {
            None => Err(request),
            Some(client) => {
                let asked = asked(request, client, None);
                match self.carry_out_if_proven(&asked, id.as_str()).await? {
                    Some(granted) => return Ok(granted),
                    None => Ok(asked),
                }
            }
        };
        let asked_by = |client| match wants {
            Ok(asked) => Asked { client, ..asked },
            Err(request) => asked(request, client, None),
        };
        match AuthenticatedClient::by_secret(&presented, &self.store, &self.verifier).await {
            Ok(client) => self.of_client(&asked_by(client), &guesser, id.as_str()).await,
            Err(NotAuthenticated::Unproven) => {
                self.denials.count("sts", "client_unauthenticated");
                Err(self.guessed_wrong(&guesser).await)
            }
            Err(NotAuthenticated::Zoneless(client)) => {
                let asked = asked_by(client);
                if asked.is_for_control(&self.config.control_audience) {
                    return self.carry_out(&asked, id.as_str()).await;
                }
                self.denials.count("sts", "client_unauthenticated");
                Err(self.guessed_wrong(&guesser).await)
            }
            Err(NotAuthenticated::Misplaced { client, requested }) => {
                let refused = self.refuse_misplaced(asked_by(client), requested, id.as_str()).await;
                match refused {
                    // On the wire a wrong guess, so it has to count like one.
                    ExchangeError::Refused(Refusal::ClientUnauthenticated) => Err(self.guessed_wrong(&guesser).await),
                    other => Err(other),
                }
            }
            Err(NotAuthenticated::Verifier(error)) => Err(error.into()),
            Err(NotAuthenticated::Store(error)) => Err(error.into()),
        }
    }

    /// Step 10.
    pub(crate) async fn check_guesses(&self, guesser: &Guesser) -> Result<(), ExchangeError> {
        match self.guesses.check(guesser, self.store.now()).await? {
            Verdict::Allowed => Ok(()),
            Verdict::Limited { retry_after } => {
                self.denials.count("sts", "credential_lockout");
                Err(ExchangeError::Locked { retry_after })
            }
        }
    }

    /// Counts a wrong secret. The answer to it.
    pub(crate) async fn guessed_wrong(&self, guesser: &Guesser) -> ExchangeError {
        match self.guesses.failed(guesser, self.store.now()).await {
            Ok(Verdict::Allowed) => Refusal::ClientUnauthenticated.into(),
            Ok(Verdict::Limited { retry_after }) => ExchangeError::Locked { retry_after },
            Err(error) => error.into(),
        }
    }
}

fn asked(request: TokenRequest, client: AuthenticatedClient, call: Option<UpstreamCall>) -> Asked {
    Asked {
        client,
        call,
        subject: request.subject_token,
        resources: request.resources,
        scope: request.scope,
        record: request.record,
        session: request.session,
        delegation: request.delegation,
        ttl_seconds: request.ttl_seconds,
        approval: request.approval,
    }
}

/// The success body, §3.12. Upstreams are a Gateway's alone.
#[derive(Serialize)]
struct TokenAnswer<'g> {
    access_token: &'g str,
    token_type: &'static str,
    expires_in: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    scope: &'g str,
    issued_token_type: &'static str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    target_resources: &'g [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    upstreams: Option<Map<String, Value>>,
}

fn answer(granted: &Granted, for_gateway: bool) -> TokenAnswer<'_> {
    TokenAnswer {
        access_token: granted.access_token.expose(),
        token_type: "Bearer",
        expires_in: granted.expires_in,
        scope: &granted.scope,
        issued_token_type: "urn:ietf:params:oauth:token-type:access_token",
        target_resources: &granted.target_resources,
        upstreams: for_gateway
            .then(|| granted.upstreams.iter().map(|made| (made.resource.to_string(), directive(made))).collect()),
    }
}

fn directive(made: &Directive) -> Value {
    let mut members = Map::new();
    let mut put = |name: &str, value: Value| {
        let empty = value.as_str().is_some_and(str::is_empty)
            || value.as_array().is_some_and(Vec::is_empty)
            || value == Value::Bool(false)
            || value.is_null();
        if !empty {
            members.insert(name.to_owned(), value);
        }
    };
    put("url", made.url.as_str().into());
    put("auth_mode", made.auth_mode.into());
    put("auth_location", made.auth_location.into());
    put("auth_header", made.auth_header.as_str().into());
    put("query_param_name", made.query_param_name.as_str().into());
    put("auth_scheme", made.auth_scheme.as_str().into());
    put("allowed_token_hosts", made.allowed_token_hosts.clone().into());
    put("provider_token", made.provider_token.as_ref().map(|token| token.expose().as_str()).into());
    put("provider_id", made.provider_id.as_str().into());
    put("connection_id", made.connection_id.as_str().into());
    put("expires_at", made.expires_at.map(caracal_authority::Timestamp::as_seconds).into());
    put("forward_caracal_identity", made.forward_caracal_identity.into());
    if !made.limits.is_empty() {
        put("limits", serde_json::to_value(made.limits).unwrap_or_default());
    }
    Value::Object(members)
}

#[derive(Deserialize)]
struct JwksQuery {
    zone_id: Option<String>,
}

async fn jwks(
    State(sts): State<Arc<Sts>>,
    from: AskedFrom,
    query: Result<Query<JwksQuery>, axum::extract::rejection::QueryRejection>,
) -> Response {
    if let Err(limited) = sts.admit_public(Public::Keys, &from) {
        return limited.into_response();
    }
    let zone = match query {
        Ok(Query(JwksQuery { zone_id: Some(zone) })) if !zone.is_empty() => zone,
        _ => {
            let problem = Problem::new(StatusCode::BAD_REQUEST, "invalid_token");
            return problem.describe("zone_id is required").into_response();
        }
    };
    let keys = match ZoneId::parse(&zone) {
        Ok(zone) => sts.keys.jwks(&zone).await,
        Err(_) => Ok(None),
    };
    match keys {
        Ok(Some(keys)) if keys.keys.is_empty() => Problem::internal().into_response(),
        Ok(Some(keys)) => {
            let mut response = Profile::STS.json(StatusCode::OK, &keys).into_response();
            let headers = response.headers_mut();
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=300, must-revalidate"));
            headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
            response
        }
        Ok(None) => Problem::new(StatusCode::NOT_FOUND, "resource_not_found")
            .describe("the zone has no signing key")
            .into_response(),
        Err(error) => Problem::from(ExchangeError::from(error)).into_response(),
    }
}

async fn ready(State(sts): State<Arc<Sts>>) -> Response {
    let why = match tokio::time::timeout(READY_WITHIN, sts.check()).await {
        Ok(Ok(())) if sts.probes.objections().await.redis_unreachable => {
            return health::not_ready("redis_unreachable").into_response();
        }
        Ok(Ok(())) => return health::ready(Profile::STS).into_response(),
        Ok(Err(error)) => error.to_string(),
        Err(elapsed) => elapsed.to_string(),
    };
    tracing::warn!(why, "not ready");
    // The contract's name for "the store does not answer", whichever engine it is.
    health::not_ready("postgres_unreachable").into_response()
}

async fn metrics(State(sts): State<Arc<Sts>>, headers: HeaderMap) -> Response {
    if !sts.may_read_metrics(&headers) {
        return unauthorized();
    }
    let text = sts.metrics.text(&sts.policy.metrics, sts.policy_age(), &sts.series_of_others(), &sts.work());
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

async fn metrics_json(State(sts): State<Arc<Sts>>, headers: HeaderMap) -> Response {
    if !sts.may_read_metrics(&headers) {
        return unauthorized();
    }
    Profile::STS
        .json(
            StatusCode::OK,
            &sts.metrics.json(&sts.policy.metrics, sts.policy_age(), &sts.series_of_others(), &sts.work()),
        )
        .into_response()
}

fn unauthorized() -> Response {
    let headers = [(WWW_AUTHENTICATE, BEARER_CHALLENGE), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (StatusCode::UNAUTHORIZED, headers, "unauthorized\n").into_response()
}

impl Sts {
    /// What is counted by what this service works with.
    fn series_of_others(&self) -> Vec<Series> {
        let (reads, errors) = self.secrets.counts();
        let (commits, changes, round_trips) = (self.store.commits(), self.store.changes(), self.store.round_trips());
        let secrets = [
            ("signatures_total", "Mandates signed.", self.keys.signatures()),
            ("signature_verifications_total", "Signatures of mandates that this process worked out.", verifications()),
            ("store_commits_total", "Commits of this process's store.", commits),
            ("store_changes_total", "Changes made durable; several may share a commit.", changes),
            ("store_round_trips_total", "Waits of this process for its database server.", round_trips),
            ("secret_backend_reads_total", "Secrets of providers read.", reads),
            ("secret_backend_errors_total", "Secrets of providers that could not be read.", errors),
        ];
        let damaged = self.keys.damaged();
        let keys = ("jwks_invalid_keys_total", "Signing keys left out of a key set because they do not open.", damaged);
        self.broker.metrics().series().into_iter().chain(secrets).chain([keys]).collect()
    }

    /// What became of requests at the gate, if there is one.
    fn work(&self) -> Vec<Counted> {
        self.gate.get().into_iter().flat_map(|gate| gate.counts().series()).collect()
    }

    fn policy_age(&self) -> PolicyAge {
        let loads = &self.policy.loads;
        PolicyAge { seconds: loads.age(self.store.now()).as_secs(), poll_seconds: loads.poll_seconds() }
    }

    fn may_read_metrics(&self, headers: &HeaderMap) -> bool {
        let Some(bearer) = &self.config.metrics_bearer else { return self.config.open_metrics };
        bears(headers, bearer)
    }
}

/// Whether the request bears `token`, compared in a time that does not hang on how much of it is right.
pub(crate) fn bears(headers: &HeaderMap, token: &SecretText) -> bool {
    let expected = zeroize::Zeroizing::new(format!("Bearer {}", token.expose()));
    let presented = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
    constant_time_eq(presented, expected.as_bytes())
}
