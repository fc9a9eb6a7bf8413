//! The exchange: from a typed request to a mandate, or to a refusal with evidence (contract: sts.md §3.6–§3.12, §10).
//!
//! `docs-bot` asks for a mandate. Its secret is verified; everything the request refers to is read in one snapshot;
//! [`caracal_authority::exchange::decide`] goes through the contract's checks and asks the zone's policy; the record,
//! its evidence and, for a presented one-shot mandate, its use are committed in one transaction; only then is
//! anything signed. Signing takes a [`commit::Committed`], and only that commit makes one: no evidence, no mandate.
//!
//! Between the snapshot and the commit a revocation may have been committed. The commit therefore insists on the zone
//! version the decision was made on, and a decision that has become old is made anew (difference D4). Denials are
//! committed too, with their evidence, and use up a presented one-shot mandate like an allow does (difference D35).
//!
//! What it costs, when nobody interferes and the client's secret was right within the last hour:
//!
//! | | snapshots | commits | ES256 |
//! |---|---|---|---|
//! | bootstrap, delegated mint | 1, the client among all facts | 1 | 1 signature |
//! | federation, with the issuer's keys at hand | 3: the client, the registration, then all facts | 1 | 1 verification, 1 signature |
//! | Gateway exchange in this process | 1 | 1 | 1 verification, 1 signature |
//! | Gateway exchange over signed HTTP | 1 | 2: the nonce, then the exchange | 1 verification, 1 signature |
//! | refusal of a caller who is known | as if granted | as if granted | no signature |
//! | refusal of anybody else | 1 at most | none | none |
//!
//! On a database server the snapshot of all facts costs one round trip, because what the decision names is asked together
//! with its opening; one of the client alone costs two, the commit six, or seven where it uses a mandate up.
//!
//! A request that policy holds for a human costs a commit more than a refusal does not: the hold is raised with the
//! evidence of the refusal, and one that was approved meanwhile is spent by deciding once more with it.
//!
//! Documents of policy that must be evaluated are, for each resource, between the snapshot and the commit, on threads of
//! their own: nothing is held while that takes its time.
//!
//! A credential that has to be asked for costs what its token endpoint takes, once for all who want it. A provider with
//! accounts costs two more statements in the snapshot.
//!
//! Any other secret costs one Argon2id derivation and a snapshot of the client before it, which is given back: one that
//! waited for the derivation would keep a reader from everybody else. A zone's very first mint costs a commit for its key. A
//! decision made anew costs one more snapshot and one more commit.
//! Concurrent commits share one sync.

use std::collections::HashMap;
use std::time::Duration;

use caracal_authority::approval::{Hold, NewHold};
use caracal_authority::exchange::{
    Asserted, Caller, Grant, Outcome, Rate, RefreshFailure, Refusal, Request, ResourceNames, Spending, SubjectToken,
    Wanted,
};
use caracal_authority::mandate::{Claims, Expected, MAX_TOKEN_BYTES, Use};
use caracal_authority::resource::UpstreamCall;
use caracal_authority::scope::{Requested, Scopes};
use caracal_authority::{ApplicationId, AuthorityRecordId, MandateId, ProviderId, ResourceId, Timestamp, ZoneId};
use caracal_broker::NoAccountToken;
use caracal_crypto::{SecretText, chance};
use caracal_custody::mandate::{SignedClaims, VerifyError, verify};
use caracal_http::{Profile, trace};
use caracal_ledger::{Decision, EventType, Evidence, MetadataKey};
use caracal_store::applications;
use caracal_store::records::{Provenance, RecordRow};
use tracing::Instrument;
use zeroize::Zeroizing;

use crate::approvals::holds;
use crate::client::{AuthenticatedClient, misplaced};
use crate::commit::{self, Authority, Denial, Mint, NotCommitted, Raise, UsedMandate};
use crate::directive::{self, Directive, Lacks, NoDirective};
use crate::evidence::{Account, Minted, held};
use crate::facts::{Loaded, Sources, Upstream};
use crate::policy::{Advice, Questions};
use crate::rate::MintKey;
use crate::request::PresentedToken;
use crate::{ExchangeError, Sts};

/// How often a decision is made anew because its zone moved on before it was committed. Changes that move a zone are
/// rare beside mints; a zone that never holds still is answered with 503.
pub(crate) const ATTEMPTS: usize = 16;

/// How long past its `exp` a use is remembered: longer than the leeway within which the mandate is still looked at.
const USE_KEPT: Duration = Duration::from_secs(120);

/// Bytes of the header of a mandate: its key's id is a UUID.
const HEADER_BYTES: usize = r#"{"alg":"ES256","kid":"01234567-0123-0123-0123-0123456789ab","typ":"JWT"}"#.len();

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
    pub(crate) subject: Option<PresentedToken>,
    pub(crate) resources: ResourceNames,
    /// As sent.
    pub(crate) scope: String,
    pub(crate) record: Option<String>,
    pub(crate) session: Option<String>,
    pub(crate) delegation: Option<String>,
    pub(crate) ttl_seconds: Option<i64>,
    pub(crate) approval: Option<String>,
}

impl Asked {
    /// Whether it is what a control key may ask for without naming its zone (§3.5).
    pub(crate) fn is_for_control(&self, control_audience: &str) -> bool {
        request(self).is_for_control(control_audience)
    }
}

/// A presented mandate that was accepted: its claims, typed and with all their members.
struct Presented {
    claims: Claims,
    signed: SignedClaims,
}

impl Sts {
    /// Carries one request through, as one step of whichever service's trace asked for it.
    pub(crate) async fn carry_out(&self, asked: &Asked, request_id: &str) -> Result<Granted, ExchangeError> {
        let ended = self.carry_out_if_proven(asked, request_id).await?;
        ended.ok_or(Refusal::ClientUnauthenticated.into())
    }

    /// The same, for a client whose secret may be recalled only. `None`: it is not that application's, so nobody has proven
    /// anything, and nothing was decided.
    pub(crate) async fn carry_out_if_proven(
        &self,
        asked: &Asked,
        request_id: &str,
    ) -> Result<Option<Granted>, ExchangeError> {
        let step = trace::step(Profile::STS.service(), "exchange");
        Box::pin(self.exchange(asked, request_id)).instrument(step).await
    }

    async fn exchange(&self, asked: &Asked, request_id: &str) -> Result<Option<Granted>, ExchangeError> {
        let request = request(asked);
        let presented = self.presented(asked, &request).await?;
        let mut federated = self.federated(asked, &request).await?;
        let sources = Sources {
            store: &self.store,
            keys: &self.keys,
            secrets: &self.secrets,
            policy: &self.policy,
            metrics: &self.metrics,
            control_audience: &self.config.control_audience,
        };
        let (mut rated, mut unusable) = (HashMap::new(), HashMap::new());
        let mut answering: Option<Box<Hold>> = None;
        // Who was proven once and is not any more, because the secret was replaced meanwhile, is refused with evidence.
        let mut is_proven = !asked.client.is_recalled();
        for _ in 0..ATTEMPTS {
            let claims = presented.as_ref().map(|presented| (presented.claims.clone(), presented.signed.kid()));
            let mut loaded = sources.load(&request, &asked.client, claims, federated.as_ref(), &unusable).await?;
            if !is_proven && loaded.facts.client.is_none() {
                return Ok(None);
            }
            is_proven = true;
            let in_force = loaded.facts.federation.as_ref().and_then(|presented| presented.registration.as_ref());
            if federated.as_ref().is_some_and(|federated| federated.is_outdated(in_force)) {
                drop(loaded);
                self.metrics.redecided.up();
                federated = self.federated(asked, &request).await?;
                continue;
            }
            loaded.facts.holds.extend(answering.take().map(|hold| *hold));
            let mut answered = Vec::new();
            let (outcome, denied) = loop {
                let mut advice = Advice {
                    zone: &request.zone,
                    registration_method: loaded.application.as_ref().map(|row| row.registration_method.as_str()),
                    request_id,
                    raw_claims: presented.as_ref().map(|presented| presented.signed.raw()),
                    rated: &rated,
                    uncounted: Vec::new(),
                    questions: Questions {
                        bundle: &loaded.governing.bundle,
                        answered: &answered,
                        unanswered: Vec::new(),
                        denied: HashMap::new(),
                        metrics: &self.policy.metrics,
                    },
                };
                let outcome = caracal_authority::exchange::decide(&request, &loaded.facts, &mut advice);
                let Advice { uncounted, questions: Questions { unanswered, denied, .. }, .. } = advice;
                if !uncounted.is_empty() {
                    let now = loaded.facts.now.unwrap_or(Timestamp::EPOCH);
                    if !self.count_mints(&request, uncounted, now, &mut rated).await? {
                        continue;
                    }
                }
                match &loaded.governing.bundle {
                    Ok(bundle) if !unanswered.is_empty() => {
                        let evaluation = self.policy.evaluate(&request.zone, bundle, unanswered);
                        answered.extend(evaluation.instrument(trace::step(Profile::STS.service(), "evaluate")).await);
                    }
                    _ => break (outcome, denied),
                }
            };
            let (sts, request, presented) = (self, &request, presented.as_ref());
            let case = Case { sts, request, request_id, loaded: &loaded, presented, denied };
            match case.conclude(&outcome).await {
                Err(Unsettled::Stale) => self.metrics.redecided.up(),
                Err(Unsettled::Answered(hold)) => answering = Some(hold),
                // Decided anew with what is known now: the account's resource is refused, others may still be granted.
                Err(Unsettled::NotRenewed(provider, failure)) => drop(unusable.insert(provider, failure)),
                Err(Unsettled::Failed(error)) => return Err(error),
                Ok(granted) => return Ok(Some(granted)),
            }
        }
        tracing::warn!(zone = %request.zone, "an exchange was overtaken by changes of its zone {ATTEMPTS} times");
        Err(ExchangeError::Busy)
    }

    /// Counts mints of these resources. Whether all of them are within their limit. When nobody can say, nothing was
    /// decided, so nothing is recorded and no mandate is used up.
    async fn count_mints(
        &self,
        request: &Request,
        resources: Vec<ResourceId>,
        now: Timestamp,
        rated: &mut HashMap<ResourceId, Rate>,
    ) -> Result<bool, ExchangeError> {
        let key = |resource: &ResourceId| MintKey {
            zone: request.zone.clone(),
            resource: resource.clone(),
            application: request.application.clone(),
        };
        let keys: Vec<MintKey> = resources.iter().map(key).collect();
        let limit = self.mint_limit.at(now, &self.store).await;
        let counted = self.mint_rate.count(&keys, limit, now).await;
        if counted.len() != resources.len() || counted.contains(&Rate::Unavailable) {
            return Err(ExchangeError::Unavailable);
        }
        rated.extend(resources.into_iter().zip(counted));
        Ok(rated.values().all(|rate| *rate == Rate::Within))
    }

    /// What step 5 of §3.7 needs: the subject token, if it verifies, is of this zone and class, and in force. One that
    /// is not accepted is absent from the facts, and refused when the decision comes to it: in the contract's order,
    /// and with evidence.
    async fn presented(&self, asked: &Asked, request: &Request) -> Result<Option<Presented>, ExchangeError> {
        let Some(PresentedToken::Access(bearer)) = &asked.subject else { return Ok(None) };
        let not_accepted = |why: &dyn std::fmt::Display| {
            tracing::info!(zone = %request.zone, application = %request.application, %why, "a subject token is refused");
            Ok(None)
        };
        // No mandate is longer, so nothing that is needs to be taken apart.
        if bearer.len() > MAX_TOKEN_BYTES {
            return not_accepted(&"longer than any mandate");
        }
        let signed = match verify(self.keys.as_ref(), bearer).await {
            Ok(signed) => signed,
            Err(VerifyError::Unavailable(error)) => return Err(error.into()),
            Err(error) => return not_accepted(&error),
        };
        let expected = Expected {
            issuer: &self.config.issuer,
            audience: &self.config.issuer,
            zone: &request.zone,
            r#use: if request.is_gateway() { Use::Gateway } else { Use::Session },
        };
        match signed.accept(&expected, self.store.now()) {
            Ok(claims) => Ok(Some(Presented { claims, signed })),
            Err(error) => not_accepted(&error),
        }
    }

    /// A client that proved itself, but not to the zone it named: refused, with evidence in its own zone. It was
    /// `asked` there as far as evidence is concerned; nothing was looked at.
    pub(crate) async fn refuse_misplaced(
        &self,
        asked: Asked,
        requested: Option<ZoneId>,
        request_id: &str,
    ) -> ExchangeError {
        let request = request(&asked);
        let refusal = misplaced(&request.zone, requested);
        match self.record_misplaced(&request, &refusal, request_id).await {
            Ok(()) => refusal.into(),
            Err(error) => error,
        }
    }

    async fn record_misplaced(
        &self,
        request: &Request,
        refusal: &Refusal,
        request_id: &str,
    ) -> Result<(), ExchangeError> {
        let mut snapshot = self.store.snapshot().await?;
        let occurred_at = snapshot.now();
        let application = applications::lookup(&mut snapshot.zone(&request.zone), &request.application).await?;
        drop(snapshot);
        let account = Account {
            request,
            request_id,
            application: application.as_ref(),
            session: None,
            delegation_scopes: Vec::new(),
            presented: None,
            denied: None,
            active: None,
            manifest: None,
            occurred_at,
        };
        let event = account.of_refusal(refusal, None, None, &Default::default())?;
        let denial = Denial {
            ledger: self.ledger.clone(),
            used: None,
            evidence: vec![event],
            request_id: request_id.to_owned(),
        };
        commit::deny(&self.store, &request.zone, denial).await
    }
}

/// A decision that was not settled.
pub(crate) enum Unsettled {
    /// It has to be made anew.
    Stale,
    /// It has to be made anew with this hold, which was decided before the request came.
    Answered(Box<Hold>),
    /// It granted a token of an account at this provider, which turned out not to be renewable.
    NotRenewed(ProviderId, RefreshFailure),
    Failed(ExchangeError),
}

impl<E: Into<ExchangeError>> From<E> for Unsettled {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl Unsettled {
    /// What is left to do when a commit did not happen.
    pub(crate) fn by(failed: NotCommitted) -> Self {
        match failed {
            NotCommitted::Stale => Self::Stale,
            NotCommitted::Answered(hold) => Self::Answered(hold),
            NotCommitted::Crowded => Self::Failed(Refusal::TooManyApprovals.into()),
            NotCommitted::Spent(hold) => Self::Failed(Refusal::ApprovalConsumed { lost_to: Some(hold) }.into()),
            NotCommitted::Replayed => Self::Failed(ExchangeError::Replayed),
            NotCommitted::JtiTaken => Self::Failed(ExchangeError::Internal),
            NotCommitted::Store(error) => Self::Failed(error.into()),
        }
    }
}

/// A grant for which no directives can be made.
enum Undirected {
    /// The resource that can't be reached, and why: nothing is granted.
    Withheld(String, NoDirective),
    Unsettled(Unsettled),
}

/// The same of one resource.
enum NotDirected {
    Not(NoDirective),
    Yet(Unsettled),
}

impl From<NoDirective> for NotDirected {
    fn from(why: NoDirective) -> Self {
        Self::Not(why)
    }
}

/// One decided exchange on its way to durability.
struct Case<'c> {
    sts: &'c Sts,
    request: &'c Request,
    request_id: &'c str,
    loaded: &'c Loaded,
    presented: Option<&'c Presented>,
    /// What policy was asked about resources that it did not allow, by their identifiers.
    denied: HashMap<String, serde_json::Value>,
}

impl Case<'_> {
    async fn conclude(&self, outcome: &Outcome) -> Result<Granted, Unsettled> {
        match &outcome.decision {
            Ok(grant) => match Box::pin(self.directives(grant)).await {
                Ok(upstreams) => self.grant(outcome, grant, upstreams).await,
                Err(Undirected::Unsettled(why)) => Err(why),
                Err(Undirected::Withheld(resource, why)) => {
                    tracing::warn!(zone = %self.request.zone, resource, %why, "no directive for an upstream");
                    let reason = Some(why.reason());
                    Err(self.withhold(outcome, Refusal::DirectiveUnavailable, Some(&resource), reason).await)
                }
            },
            // Nothing but a count where nothing is known of the caller, and perhaps nothing of the zone.
            Err(refusal) if *refusal == Refusal::ClientUnauthenticated && !self.caller_is_known() => {
                self.sts.denials.count("sts", "client_unauthenticated");
                Err(refusal.clone().into())
            }
            Err(Refusal::ApprovalRequired { wanted: Wanted::New(new) }) => {
                // Nobody is asked to approve what no mandate could carry.
                if self.exceeds_a_mandate(outcome)? {
                    return Err(self.withhold(outcome, Refusal::MandateTooLarge, None, None).await);
                }
                Err(self.raise(outcome, new).await)
            }
            Err(refusal) => {
                self.deny(self.account().of_outcome(outcome, None, held(refusal))?).await?;
                Err(refusal.clone().into())
            }
        }
    }

    /// Whether this zone has the application, alive or not, or has signed what was presented.
    fn caller_is_known(&self) -> bool {
        self.loaded.application.is_some() || self.presented.is_some()
    }

    /// Steps 16 and 17, and 18 already done: commit the record with its evidence, then sign.
    async fn grant(&self, outcome: &Outcome, grant: &Grant, upstreams: Vec<Directive>) -> Result<Granted, Unsettled> {
        let key = match &self.loaded.key {
            Some(key) => key.clone(),
            None => self.sts.keys.create(&self.request.zone).await?,
        };
        let now = self.account().occurred_at;
        let record = match grant.spending() {
            Some(Spending::Reissue { record, .. }) => record.clone(),
            Some(Spending::Spend(_)) | None => fresh_record(now)?,
        };
        let jti = fresh_mandate(now)?;
        let claims = grant.claims(&self.sts.config.issuer, &record, &jti);
        // Too large is known before anything is recorded.
        let Ok(payload) = claims.to_payload(key.header_bytes()) else {
            return Err(self.withhold(outcome, Refusal::MandateTooLarge, None, None).await);
        };
        let minted = Minted { grant, record: &record, jti: jti.as_str() };
        let mut evidence = self.account().of_outcome(outcome, Some(&minted), None)?;
        evidence.extend(self.consumed(outcome, &minted)?);
        let (authority, spends) = match grant.spending() {
            Some(Spending::Reissue { .. }) => (Authority::Again(record.clone()), None),
            Some(Spending::Spend(hold)) => {
                let row = record_row(outcome, grant, &record, &jti, now);
                (Authority::New(Box::new(row)), Some((hold.id.clone(), hold.binding.clone())))
            }
            None => (Authority::New(Box::new(record_row(outcome, grant, &record, &jti, now))), None),
        };
        let mint = Mint {
            version: self.loaded.version,
            ledger: self.sts.ledger.clone(),
            evidence,
            used: self.used(),
            authority,
            spends,
            request_id: self.request_id.to_owned(),
        };
        let commit = commit::mint(&self.sts.store, &self.request.zone, mint);
        let committed = match commit.instrument(trace::step(Profile::STS.service(), "commit")).await {
            Ok(committed) => committed,
            Err(NotCommitted::Spent(hold)) => {
                let refusal = Refusal::ApprovalConsumed { lost_to: Some(hold) };
                return Err(self.withhold(outcome, refusal, None, None).await);
            }
            // §12: two mandates of one name could not be told apart by whoever takes each of them once.
            Err(NotCommitted::JtiTaken) => {
                tracing::error!(zone = %self.request.zone, jti = jti.as_str(), "the id of a new mandate is taken");
                self.deny(vec![self.account().of_collision(jti.as_str(), &outcome.context)?]).await?;
                return Err(ExchangeError::Internal.into());
            }
            Err(other) => return Err(Unsettled::by(other)),
        };
        self.count_use();
        match grant.spending() {
            Some(Spending::Spend(_)) => self.sts.metrics.consumed.up(),
            Some(Spending::Reissue { .. }) => self.sts.metrics.reissued.up(),
            None => {}
        }
        let access_token = commit::sign(&key, &committed, payload)?;
        Ok(Granted {
            access_token,
            expires_in: grant.lifetime().expires_in(),
            scope: grant.scopes().get().text().into_owned(),
            target_resources: grant.targets().iter().map(|target| target.identifier.to_string()).collect(),
            upstreams,
        })
    }

    /// Whether what is waited for would be too large to be signed. A zone's first key has as long a header as any other.
    fn exceeds_a_mandate(&self, outcome: &Outcome) -> Result<bool, ExchangeError> {
        let Some(awaited) = &outcome.awaited else { return Ok(false) };
        let now = self.account().occurred_at;
        let record = fresh_record(now)?;
        let jti = fresh_mandate(now)?;
        let header = self.loaded.key.as_ref().map_or(HEADER_BYTES, |key| key.header_bytes());
        Ok(awaited.claims(&self.sts.config.issuer, &record, &jti).to_payload(header).is_err())
    }

    /// Step 11: raises the hold, and refuses until it is approved.
    async fn raise(&self, outcome: &Outcome, new: &NewHold) -> Unsettled {
        let account = self.account();
        let raise = match holds::raise(self.loaded.version, &self.sts.ledger, new, &account, outcome) {
            Ok(raise) => Raise { used: self.used(), ..raise },
            Err(error) => return error.into(),
        };
        let raised = raise.row.id.clone();
        match commit::raise(&self.sts.store, &self.request.zone, raise).await {
            Ok(hold) => {
                self.count_use();
                if hold.id == raised {
                    self.sts.metrics.issued.up();
                }
                Refusal::ApprovalRequired { wanted: Wanted::Known(hold) }.into()
            }
            Err(NotCommitted::Crowded) => self.withhold(outcome, Refusal::TooManyApprovals, None, None).await,
            Err(other) => Unsettled::by(other),
        }
    }

    /// The event of an approval that is spent, or was a moment ago.
    fn consumed(&self, outcome: &Outcome, minted: &Minted<'_>) -> Result<Option<Evidence>, ExchangeError> {
        let (hold, again) = match minted.grant.spending() {
            None => return Ok(None),
            Some(Spending::Spend(hold)) => (hold, false),
            Some(Spending::Reissue { hold, .. }) => (hold, true),
        };
        let consumed = EventType::StepUpConsumed;
        let mut event = self.account().of_hold(consumed, Decision::Consumed, hold, &outcome.context)?;
        event.metadata.set(MetadataKey::AuthorityRecordId, minted.record.as_str());
        event.metadata.set(MetadataKey::MandateId, minted.jti);
        if again {
            event.metadata.set(MetadataKey::Reissued, true);
        }
        Ok(Some(event))
    }

    /// Takes note that it is used up, which is durable.
    fn count_use(&self) {
        if self.used().is_some() {
            self.sts.metrics.used_up.up();
        }
    }

    /// The one-shot mandate that this exchange uses up, whatever becomes of it.
    fn used(&self) -> Option<UsedMandate> {
        let presented = self.presented.filter(|_| self.request.is_gateway())?;
        Some(UsedMandate {
            jti: presented.claims.jti.as_str().to_owned(),
            forget_at: Timestamp::from_seconds(presented.claims.expires_at).plus(USE_KEPT),
        })
    }

    /// Step 18, for a Gateway: how to reach each granted resource, or the one that can't be reached. May wait for a
    /// provider's token endpoint. Nothing is held meanwhile: the snapshot is over, and should the zone move on, the commit
    /// notices and the decision is made anew, with the token at hand.
    async fn directives(&self, grant: &Grant) -> Result<Vec<Directive>, Undirected> {
        let mut made = Vec::new();
        if !self.request.is_gateway() {
            return Ok(made);
        }
        for target in grant.targets() {
            let Some(upstream) = self.loaded.upstreams.iter().find(|upstream| upstream.resource == *target) else {
                return Err(Undirected::Unsettled(ExchangeError::Internal.into()));
            };
            made.push(self.directive(upstream).await.map_err(|why| match why {
                NotDirected::Not(why) => Undirected::Withheld(target.identifier.to_string(), why),
                NotDirected::Yet(why) => Undirected::Unsettled(why),
            })?);
        }
        Ok(made)
    }

    async fn directive(&self, upstream: &Upstream) -> Result<Directive, NotDirected> {
        let (mut directive, lacks) = directive::outline(upstream)?;
        let (Some(provider), false) = (&upstream.provider, lacks == Lacks::Nothing) else { return Ok(directive) };
        if lacks == Lacks::AccountToken {
            let account = upstream.account.as_ref().ok_or(NoDirective::Kind)?;
            let token = self.sts.broker.account_token(account).await.map_err(|why| match why {
                NoAccountToken::Gone => NotDirected::Yet(Unsettled::Stale),
                NoAccountToken::Failed(why) => NotDirected::Yet(Unsettled::NotRenewed(provider.id.clone(), why)),
                NoAccountToken::Sealed => NotDirected::Not(NoDirective::Secret),
            })?;
            directive.provider_token = Some(SecretText::new(token.access_token.expose().clone()));
            directive.connection_id = account.id.to_string();
            directive.expires_at = token.expires_at;
            return Ok(directive);
        }
        let credential = self.sts.provider_credential(provider, upstream.secret.as_ref(), lacks).await?;
        directive.provider_token = Some(credential.token);
        Ok(directive)
    }

    /// Refuses what had been granted but can't be carried out.
    async fn withhold(
        &self,
        outcome: &Outcome,
        refusal: Refusal,
        resource: Option<&str>,
        reason: Option<&'static str>,
    ) -> Unsettled {
        let event = match self.account().of_refusal(&refusal, resource, reason, &outcome.context) {
            Ok(event) => event,
            Err(error) => return error.into(),
        };
        match self.deny(vec![event]).await {
            Ok(()) => refusal.into(),
            Err(error) => error.into(),
        }
    }

    async fn deny(&self, evidence: Vec<Evidence>) -> Result<(), ExchangeError> {
        let denial = Denial {
            ledger: self.sts.ledger.clone(),
            used: self.used(),
            evidence,
            request_id: self.request_id.to_owned(),
        };
        commit::deny(&self.sts.store, &self.request.zone, denial).await?;
        self.count_use();
        Ok(())
    }

    fn account(&self) -> Account<'_> {
        let governing = &self.loaded.governing;
        let lends = self.loaded.facts.lineage.last().map(|leaf| leaf.scopes.listed()).unwrap_or_default();
        Account {
            request: self.request,
            request_id: self.request_id,
            application: self.loaded.application.as_ref(),
            session: self.loaded.session.as_ref(),
            delegation_scopes: lends.iter().map(|scope| scope.as_str()).collect(),
            presented: self.presented.map(|presented| &presented.claims),
            denied: Some(&self.denied),
            active: governing.active.as_ref(),
            // The version that could not be loaded is the one that failed the decision.
            manifest: governing.manifest(),
            occurred_at: self.loaded.facts.now.unwrap_or_else(|| self.sts.store.now()),
        }
    }
}

fn fresh_record(now: Timestamp) -> Result<AuthorityRecordId, ExchangeError> {
    AuthorityRecordId::parse(&chance::uuid_v7(now)?.to_string()).map_err(|_| ExchangeError::Internal)
}

fn fresh_mandate(now: Timestamp) -> Result<MandateId, ExchangeError> {
    MandateId::parse(&chance::uuid_v7(now)?.to_string()).map_err(|_| ExchangeError::Internal)
}

/// The record behind the mandate, with what it was minted for.
fn record_row(outcome: &Outcome, grant: &Grant, id: &AuthorityRecordId, jti: &MandateId, now: Timestamp) -> RecordRow {
    let new = grant.record();
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
        agent_session_id: outcome.context.session.clone(),
        delegation_edge_id: outcome.context.delegation.as_ref().map(|delegation| delegation.edge.clone()),
        expires_at: new.expires_at,
        created_at: now,
        revoked_at: None,
        revoked_reason: None,
        provenance: new.issuer.clone().map(|iss| Provenance { iss }),
    }
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
            None => SubjectToken::None,
            Some(PresentedToken::Access(_)) => SubjectToken::AccessToken,
            Some(PresentedToken::Id(_)) => SubjectToken::IdToken,
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
            subject: Some(PresentedToken::Access(Zeroizing::new(call.mandate.expose().clone()))),
            resources,
            scope: String::new(),
            record: None,
            session: None,
            delegation: None,
            ttl_seconds: None,
            approval: None,
        };
        let ended = self.carry_out(&asked, &call.request_id).await;
        self.metrics.ended(&ended);
        ended
    }
}
