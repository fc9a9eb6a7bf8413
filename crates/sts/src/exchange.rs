//! The exchange: from a typed request to a mandate, or to a refusal with evidence (contract: sts.md §3.6–§3.12, §10).
//!
//! `docs-bot` asks for a mandate. Its secret is verified; everything the request refers to is read in one snapshot;
//! [`caracal_authority::exchange::decide`] goes through the contract's checks and asks the zone's policy; the record,
//! its evidence and, for a presented one-shot mandate, its use are committed in one transaction; only then is
//! anything signed. Signing takes a [`Committed`], and only that commit makes one: no evidence, no mandate.
//!
//! Between the snapshot and the commit a revocation may have been committed. The commit therefore insists on the zone
//! version the decision was made on, and a decision that has become old is made anew (difference D4). Denials are
//! committed too, with their evidence, and use up a presented one-shot mandate like an allow does (difference D35).

use std::sync::Arc;

use caracal_authority::exchange::{Asserted, Caller, Context, Outcome, Refusal, Request, ResourceNames, SubjectToken};
use caracal_authority::mandate::{Claims, Expected, Use};
use caracal_authority::resource::UpstreamCall;
use caracal_authority::scope::{Requested, Scopes};
use caracal_authority::{ApplicationId, AuthorityRecordId, MandateId, Timestamp, ZoneId};
use caracal_crypto::chance;
use caracal_crypto::{SecretBytes, SecretText};
use caracal_custody::mandate::{SignedClaims, VerifyError, verify};
use caracal_custody::{ZoneKey, provider_secret_ref};
use caracal_ledger::{Evidence, Ledger};
use caracal_store::records::{self, RecordRow};
use caracal_store::{StoreError, ZoneVersion, used_mandates};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::client::AuthenticatedClient;
use crate::directive::{self, Directive, NoDirective};
use crate::evidence::{Account, Minted};
use crate::facts::{Loaded, Sources};
use crate::policy::Advice;
use crate::{ExchangeError, Sts};

/// How often a decision is made anew because its zone moved on before it was committed. Changes that move a zone are
/// rare beside mints; a zone that never holds still is answered with 503.
const ATTEMPTS: usize = 16;

/// What was granted.
pub struct Granted {
    /// The signed mandate.
    pub access_token: SecretText,
    /// Whole seconds.
    pub expires_in: u64,
    /// The scope text; may be empty.
    pub scope: String,
    /// Identifiers of the granted resources.
    pub target_resources: Vec<String>,
    /// For a Gateway only: how to reach each granted resource.
    pub upstreams: Vec<Directive>,
}

/// What an authenticated client asks for.
pub(crate) struct Asked {
    pub(crate) client: AuthenticatedClient,
    /// Present only when a Gateway's signature, or this process's own Gateway, vouches for it.
    pub(crate) call: Option<UpstreamCall>,
    pub(crate) subject: Subject,
    pub(crate) resources: ResourceNames,
    /// As sent.
    pub(crate) scope: String,
    pub(crate) record: Option<String>,
    pub(crate) session: Option<String>,
    pub(crate) delegation: Option<String>,
    pub(crate) ttl_seconds: Option<i64>,
    pub(crate) approval: Option<String>,
}

/// What is presented as subject token.
pub(crate) enum Subject {
    None,
    Bearer(Zeroizing<String>),
    /// The Gateway of this process has verified the signature already; the type proves it.
    Signed(SignedClaims),
    IdToken,
}

/// Accepted claims with all their members.
struct Presented {
    claims: Claims,
    raw: Map<String, Value>,
}

/// A record that is durable together with its evidence. Made by [`commit`] alone.
struct Committed {
    record: AuthorityRecordId,
}

/// Why nothing was committed.
enum NotCommitted {
    /// The zone has moved since the decision.
    Stale,
    /// The presented mandate had been used.
    Replayed,
    Store(StoreError),
}

impl From<StoreError> for NotCommitted {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Sts {
    /// Carries one request through.
    pub(crate) async fn carry_out(&self, asked: Asked, request_id: &str) -> Result<Granted, ExchangeError> {
        let request = request(&asked);
        let presented = match self.presented(&asked, &request).await {
            Ok(presented) => presented,
            Err(refused) => return Err(self.refuse_presented(&request, request_id, refused).await),
        };
        let sources = Sources {
            store: &self.store,
            keys: &self.keys,
            policy: &self.policy,
            control_audience: &self.config.control_audience,
        };
        for attempt in 0..ATTEMPTS {
            let claims = presented.as_ref().map(|presented| presented.claims.clone());
            let loaded = sources.load(&request, claims).await?;
            let mut advice = Advice {
                zone: &request.zone,
                application: &request.application,
                bundle: &loaded.governing.bundle,
                registration_method: loaded.application.as_ref().map(|row| row.registration_method.as_str()),
                request_id,
                raw_claims: presented.as_ref().map(|presented| &presented.raw),
                rate: &self.mint_rate,
                rate_limit: self.config.mint_rate_limit_per_min,
                now: loaded.facts.now.unwrap_or(Timestamp::EPOCH),
                counted: attempt > 0,
            };
            let outcome = caracal_authority::exchange::decide(&request, &loaded.facts, &mut advice);
            let case =
                Case { sts: self, request: &request, request_id, loaded: &loaded, presented: presented.as_ref() };
            match case.conclude(&outcome).await {
                Err(Unsettled::Stale) => continue,
                Err(Unsettled::Failed(error)) => return Err(error),
                Ok(granted) => return Ok(granted),
            }
        }
        tracing::warn!(zone = %request.zone, "an exchange was overtaken by changes of its zone {ATTEMPTS} times");
        Err(ExchangeError::Busy)
    }

    /// Step 5 of §3.7: the subject token verifies, is of this zone and class, and is in force.
    async fn presented(&self, asked: &Asked, request: &Request) -> Result<Option<Presented>, PresentedRefused> {
        let signed = match &asked.subject {
            Subject::None | Subject::IdToken => return Ok(None),
            Subject::Signed(signed) => signed.clone(),
            Subject::Bearer(bearer) => verify(&self.keys, bearer).await.map_err(|error| match error {
                VerifyError::Unavailable(error) => PresentedRefused::Failed(error.into()),
                _ => PresentedRefused::Invalid,
            })?,
        };
        let expected = Expected {
            issuer: &self.config.issuer,
            audience: &self.config.issuer,
            zone: &request.zone,
            r#use: if request.is_gateway() { Use::Gateway } else { Use::Session },
        };
        let claims = signed.accept(&expected, self.store.now()).map_err(|_| PresentedRefused::Invalid)?;
        Ok(Some(Presented { claims, raw: signed.raw().clone() }))
    }

    /// An authenticated client presented a token that is none: refused, with evidence.
    async fn refuse_presented(&self, request: &Request, request_id: &str, refused: PresentedRefused) -> ExchangeError {
        let refusal = match refused {
            PresentedRefused::Invalid => Refusal::SubjectTokenInvalid,
            PresentedRefused::Failed(error) => return error,
        };
        let account = Account {
            request,
            request_id,
            application: None,
            session: None,
            delegation_scopes: Vec::new(),
            active: None,
            manifest: None,
            occurred_at: self.store.now(),
        };
        let event = account.of_refusal(refusal.evaluation_status(), None, refusal.name(), &Context::default());
        let events = match event {
            Ok(event) => vec![event],
            Err(error) => return error.into(),
        };
        match deny(self, request, request_id, None, events).await {
            Ok(()) => refusal.into(),
            Err(NotCommitted::Store(error)) => error.into(),
            Err(NotCommitted::Stale | NotCommitted::Replayed) => ExchangeError::Replayed,
        }
    }
}

enum PresentedRefused {
    Invalid,
    Failed(ExchangeError),
}

/// A decision that was not settled.
enum Unsettled {
    /// It has to be made anew.
    Stale,
    Failed(ExchangeError),
}

impl<E: Into<ExchangeError>> From<E> for Unsettled {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// One decided exchange on its way to durability.
struct Case<'c> {
    sts: &'c Sts,
    request: &'c Request,
    request_id: &'c str,
    loaded: &'c Loaded,
    presented: Option<&'c Presented>,
}

impl Case<'_> {
    async fn conclude(&self, outcome: &Outcome) -> Result<Granted, Unsettled> {
        match &outcome.decision {
            Ok(grant) => match self.directives(grant).await? {
                Ok(upstreams) => self.grant(outcome, grant, upstreams).await,
                Err((resource, why)) => Err(self.refuse_undirected(outcome, &resource, why).await),
            },
            Err(refusal) => {
                // Nothing but a count for a client that is not there: that it is not, is all we know of it.
                if *refusal == Refusal::ClientUnauthenticated {
                    self.sts.denials.count("sts", "client_unauthenticated");
                } else {
                    self.deny(self.account().of_outcome(outcome, None)?).await?;
                }
                Err(refusal.clone().into())
            }
        }
    }

    /// Steps 16 and 17, and 18 already done: commit the record with its evidence, then sign.
    async fn grant(
        &self,
        outcome: &Outcome,
        grant: &caracal_authority::exchange::Grant,
        upstreams: Vec<Directive>,
    ) -> Result<Granted, Unsettled> {
        let key = match &self.loaded.key {
            Some(key) => key.clone(),
            None => self.sts.keys.create(&self.request.zone).await?,
        };
        let now = self.account().occurred_at;
        let record =
            AuthorityRecordId::parse(&chance::uuid_v7(now)?.to_string()).map_err(|_| ExchangeError::Internal)?;
        let jti = MandateId::parse(&chance::uuid_v7(now)?.to_string()).map_err(|_| ExchangeError::Internal)?;
        // Too large is known before anything is recorded.
        let claims = grant.claims(&self.sts.config.issuer, &record, &jti);
        let payload = claims.to_payload(key.header_bytes()).map_err(|_| Refusal::MandateTooLarge)?;
        let minted = Minted { grant, record: &record, jti: jti.as_str() };
        let mint = Mint {
            version: self.loaded.version,
            ledger: self.sts.ledger.clone(),
            evidence: self.account().of_outcome(outcome, Some(&minted))?,
            used: self.used(),
            record: self.record_row(grant, &record, &jti, now),
            request_id: self.request_id.to_owned(),
        };
        let committed = match commit(self.sts, &self.request.zone, mint).await {
            Ok(committed) => committed,
            Err(NotCommitted::Stale) => return Err(Unsettled::Stale),
            Err(NotCommitted::Replayed) => return Err(ExchangeError::Replayed.into()),
            Err(NotCommitted::Store(error)) => return Err(error.into()),
        };
        let access_token = sign(&key, &committed, payload)?;
        Ok(Granted {
            access_token,
            expires_in: grant.lifetime().expires_in(),
            scope: grant.scopes().get().text().into_owned(),
            target_resources: grant.targets().iter().map(|target| target.identifier.to_string()).collect(),
            upstreams,
        })
    }

    fn record_row(
        &self,
        grant: &caracal_authority::exchange::Grant,
        id: &AuthorityRecordId,
        jti: &MandateId,
        now: Timestamp,
    ) -> RecordRow {
        let new = grant.record();
        let subject = self.presented.map(|presented| &presented.claims);
        RecordRow {
            zone_id: new.zone.clone(),
            id: id.clone(),
            kind: new.kind.as_str().to_owned(),
            subject_id: new.subject.clone(),
            client_id: new.client.clone(),
            use_class: grant.r#use().as_str().to_owned(),
            jti: jti.as_str().to_owned(),
            status: "active".to_owned(),
            parent_id: new.parent.clone(),
            agent_session_id: self
                .request
                .session
                .id()
                .cloned()
                .or_else(|| subject.and_then(|claims| claims.session.clone())),
            delegation_edge_id: self
                .request
                .delegation
                .id()
                .cloned()
                .or_else(|| subject.and_then(|claims| claims.delegation.clone())),
            expires_at: new.expires_at,
            created_at: now,
            revoked_at: None,
            revoked_reason: None,
        }
    }

    /// The one-shot mandate that this exchange uses up, whatever becomes of it.
    fn used(&self) -> Option<UsedMandate> {
        let presented = self.presented.filter(|_| self.request.is_gateway())?;
        Some(UsedMandate {
            jti: presented.claims.jti.as_str().to_owned(),
            expires_at: Timestamp::from_seconds(presented.claims.expires_at),
        })
    }

    /// Step 18, for a Gateway: how to reach each granted resource, or the one that can't be reached.
    async fn directives(
        &self,
        grant: &caracal_authority::exchange::Grant,
    ) -> Result<Result<Vec<Directive>, (String, NoDirective)>, ExchangeError> {
        if !self.request.is_gateway() {
            return Ok(Ok(Vec::new()));
        }
        let mut made = Vec::new();
        for target in grant.targets() {
            let Some(upstream) = self.loaded.upstreams.iter().find(|upstream| upstream.resource == *target) else {
                return Err(ExchangeError::Internal);
            };
            let secret = match upstream.provider.as_ref().filter(|provider| directive::needs_secret(provider)) {
                Some(provider) => self.secret(&provider.id).await?,
                None => None,
            };
            match directive::make(upstream, secret.as_ref()) {
                Ok(directive) => made.push(directive),
                Err(why) => return Ok(Err((target.identifier.to_string(), why))),
            }
        }
        Ok(Ok(made))
    }

    async fn secret(&self, provider: &caracal_authority::ProviderId) -> Result<Option<SecretBytes>, ExchangeError> {
        let reference = provider_secret_ref(&self.request.zone, provider);
        let mut snapshot = self.sts.store.snapshot().await?;
        Ok(self.sts.secrets.open(&mut snapshot.zone(&self.request.zone), &reference).await?)
    }

    async fn refuse_undirected(&self, outcome: &Outcome, resource: &str, why: NoDirective) -> Unsettled {
        let refusal = Refusal::DirectiveUnavailable;
        let status = refusal.evaluation_status();
        let event = self.account().of_refusal(status, Some(resource), why.reason(), &outcome.context);
        tracing::warn!(zone = %self.request.zone, resource, %why, "no directive for an upstream");
        match event {
            Ok(event) => match self.deny(vec![event]).await {
                Ok(()) => refusal.into(),
                Err(unsettled) => unsettled,
            },
            Err(error) => error.into(),
        }
    }

    async fn deny(&self, events: Vec<Evidence>) -> Result<(), Unsettled> {
        match deny(self.sts, self.request, self.request_id, self.used(), events).await {
            Ok(()) => Ok(()),
            Err(NotCommitted::Replayed | NotCommitted::Stale) => Err(ExchangeError::Replayed.into()),
            Err(NotCommitted::Store(error)) => Err(error.into()),
        }
    }

    fn account(&self) -> Account<'_> {
        let lends = self.loaded.facts.lineage.last().map(|leaf| leaf.scopes.listed()).unwrap_or_default();
        Account {
            request: self.request,
            request_id: self.request_id,
            application: self.loaded.application.as_ref(),
            session: self.loaded.session.as_ref(),
            delegation_scopes: lends.iter().map(|scope| scope.as_str()).collect(),
            active: self.loaded.governing.active.as_ref(),
            manifest: self.loaded.governing.bundle.as_ref().ok().map(|bundle| bundle.manifest()),
            occurred_at: self.loaded.facts.now.unwrap_or_else(|| self.sts.store.now()),
        }
    }
}

/// Everything one mint makes durable.
struct Mint {
    version: ZoneVersion,
    ledger: Arc<Ledger>,
    record: RecordRow,
    used: Option<UsedMandate>,
    evidence: Vec<Evidence>,
    request_id: String,
}

struct UsedMandate {
    jti: String,
    expires_at: Timestamp,
}

/// Makes a record durable with its evidence and, if there is one, the use of the presented mandate: all or nothing.
async fn commit(sts: &Sts, zone: &ZoneId, mint: Mint) -> Result<Committed, NotCommitted> {
    let record = mint.record.id.clone();
    sts.store
        .commit(zone, mint, |tx, mint| {
            Box::pin(async move {
                if !tx.is_at(mint.version) {
                    return Err(NotCommitted::Stale);
                }
                if let Some(used) = &mint.used
                    && !used_mandates::consume(tx, &used.jti, &mint.request_id, used.expires_at).await?
                {
                    return Err(NotCommitted::Replayed);
                }
                records::add(tx, &mint.record).await?;
                mint.ledger.record(tx, &mint.evidence).await?;
                Ok(())
            })
        })
        .await?;
    Ok(Committed { record })
}

/// Makes a denial durable, and the use of the presented mandate with it.
async fn deny(
    sts: &Sts,
    request: &Request,
    request_id: &str,
    used: Option<UsedMandate>,
    evidence: Vec<Evidence>,
) -> Result<(), NotCommitted> {
    let input = (sts.ledger.clone(), used, request_id.to_owned(), evidence);
    sts.store
        .commit(&request.zone, input, |tx, (ledger, used, request_id, evidence)| {
            Box::pin(async move {
                if let Some(used) = used
                    && !used_mandates::consume(tx, &used.jti, request_id, used.expires_at).await?
                {
                    return Err(NotCommitted::Replayed);
                }
                ledger.record(tx, evidence).await?;
                Ok(())
            })
        })
        .await
}

/// Signs what was committed.
fn sign(key: &ZoneKey, committed: &Committed, payload: Vec<u8>) -> Result<SecretText, ExchangeError> {
    let token = key.sign_payload(payload).map_err(|error| {
        tracing::error!(record = %committed.record, %error, "a committed mandate could not be signed");
        ExchangeError::Internal
    })?;
    Ok(SecretText::new(token))
}

fn request(asked: &Asked) -> Request {
    Request {
        zone: asked.client.zone().clone(),
        application: asked.client.application().clone(),
        caller: match &asked.call {
            Some(call) => Caller::Gateway(call.clone()),
            None => Caller::Application,
        },
        subject_token: match asked.subject {
            Subject::None => SubjectToken::None,
            Subject::Bearer(_) | Subject::Signed(_) => SubjectToken::AccessToken,
            Subject::IdToken => SubjectToken::IdToken,
        },
        resources: asked.resources.clone(),
        scope: Requested::new(Scopes::from_text(&asked.scope)),
        record: Asserted::parse(asked.record.as_deref()),
        session: Asserted::parse(asked.session.as_deref()),
        delegation: Asserted::parse(asked.delegation.as_deref()),
        ttl_seconds: asked.ttl_seconds,
        approval_id: asked.approval.clone(),
    }
}

/// A call that the Gateway of this process wants authority for.
pub struct GatewayCall {
    /// The zone whose key signed the mandate.
    pub zone: ZoneId,
    /// `client_id` of the mandate.
    pub application: ApplicationId,
    /// The mandate.
    pub mandate: SecretText,
    /// The resource's identifier, as the caller named it.
    pub resource: String,
    /// What goes upstream.
    pub call: UpstreamCall,
    /// Correlates the evidence of both.
    pub request_id: String,
}

impl Sts {
    /// The Gateway exchange as a function, for a Gateway in the same process: what the signed route does, without
    /// signature and nonce, because nobody stands between.
    pub async fn exchange_for_gateway(&self, call: GatewayCall) -> Result<Granted, ExchangeError> {
        let resources = ResourceNames::parse([call.resource.as_str()]).map_err(|_| ExchangeError::Malformed)?;
        let client = AuthenticatedClient::by_gateway(Some(call.zone.as_str()), Some(call.application.as_str()))?;
        let asked = Asked {
            client,
            call: Some(call.call),
            subject: Subject::Bearer(Zeroizing::new(call.mandate.expose().clone())),
            resources,
            scope: String::new(),
            record: None,
            session: None,
            delegation: None,
            ttl_seconds: None,
            approval: None,
        };
        self.carry_out(asked, &call.request_id).await
    }
}
