//! Users whom a zone's identity provider vouches for (contract: sts.md §4).
//!
//! An application has logged Ada in at her company's identity provider, and relays the id_token it got. What the token
//! says of itself is looked at first, because it costs nothing: an algorithm, a key's id, an issuer. Only under an issuer
//! that the zone registered are keys fetched, from the registered address and no other; the signature is verified; and
//! what was found out goes into the decision beside everything else, which is read in one snapshot *afterwards*. A
//! registration that was changed in between has the token judged again, and one that was archived refuses it: neither a
//! snapshot nor a lock is ever held while somebody else's server is asked.
//!
//! The same id_token may be relayed as often as it is valid. Applications do so: two processes of one, or one that was
//! started again, each want the mandate of the user they serve, and the contract has no state in which the second would
//! be refused. What a replay can win is bounded instead: nothing that is minted outlives the token.

mod keys;

use std::sync::Arc;

use caracal_authority::exchange::{Refusal, Request};
use caracal_authority::federation::{FederationFault, IdTokenClaims, PresentedIdToken, Registration, VerifiedIdToken};
use caracal_crypto::jws::{ForeignHeader, ForeignHeaderFault, UnverifiedToken};
use caracal_http::limits::Verdict;
use caracal_store::subject_issuers::{self, SubjectIssuer};
use caracal_store::{StoreError, ZoneRead};
use serde_json::Value;

use crate::exchange::{Asked, Granted};
use crate::guesses::{Guessed, Guesser};
use crate::request::PresentedToken;
use crate::{ExchangeError, Sts};
pub(crate) use keys::IssuerKeys;
use keys::{KeySource, NoKeys};

/// Longest id_token, in bytes: several times what identity providers send with all the groups of a person.
const LONGEST_TOKEN: usize = 16 * 1024;
/// Longest `iss` that is looked for, in bytes: a registered one has at most 2048 UTF-16 units.
const LONGEST_ISSUER: usize = 3 * 2048;

/// A presented id_token as far as it could be judged without the snapshot of the decision.
pub(crate) struct Federated {
    /// `iss`, if a registration could have it.
    issuer: Option<String>,
    /// The registration it was judged under.
    under: Option<Registration>,
    verified: Result<VerifiedIdToken, FederationFault>,
}

impl Federated {
    fn refused(issuer: Option<String>, under: Option<Registration>, fault: FederationFault) -> Self {
        Self { issuer, under, verified: Err(fault) }
    }

    /// The issuer whose registration the decision has to see.
    pub(crate) fn issuer(&self) -> Option<&str> {
        self.issuer.as_deref()
    }

    /// The registration in force in the decision's own snapshot.
    pub(crate) async fn registration(&self, tx: &mut ZoneRead<'_>) -> Result<Option<Registration>, StoreError> {
        match self.issuer() {
            Some(issuer) => Ok(subject_issuers::find_by_issuer(tx, issuer).await?.map(registration)),
            None => Ok(None),
        }
    }

    /// Whether the token has to be judged again, because it was judged under another registration than `in_force`. One
    /// that is gone needs no second look.
    pub(crate) fn is_outdated(&self, in_force: Option<&Registration>) -> bool {
        in_force.is_some_and(|now| self.under.as_ref().is_none_or(|then| !now.has_keys_of(then)))
    }

    pub(crate) fn with(&self, in_force: Option<Registration>) -> PresentedIdToken {
        PresentedIdToken { verified: self.verified.clone(), registration: in_force }
    }
}

fn registration(row: SubjectIssuer) -> Registration {
    Registration { id: row.id, issuer: row.issuer, jwks_url: row.jwks_url, audience: row.audience }
}

impl Sts {
    /// An authenticated client's exchange. Where it relays an id_token, refusals of those are counted like wrong secrets
    /// (difference D17), but on their own: a user who sends nonsense must not keep the application from its other work.
    pub(crate) async fn of_client(
        &self,
        asked: &Asked,
        guesser: &Guesser,
        request_id: &str,
    ) -> Result<Granted, ExchangeError> {
        if !matches!(asked.subject, Some(PresentedToken::Id(_))) {
            return self.carry_out(asked, request_id).await;
        }
        let guesser = &Guesser { at: Guessed::IdToken, ..guesser.clone() };
        if let Verdict::Limited { retry_after } = self.guesses.check(guesser, self.store.now()).await? {
            self.denials.count("sts", "federation_lockout");
            return Err(ExchangeError::Locked { retry_after });
        }
        let ended = self.carry_out(asked, request_id).await;
        if matches!(ended, Err(ExchangeError::Refused(Refusal::FederationRejected { .. })))
            && let Verdict::Limited { retry_after } = self.guesses.failed(guesser, self.store.now()).await?
        {
            return Err(ExchangeError::Locked { retry_after });
        }
        ended
    }

    /// Judges the presented id_token, if one is presented as it has to be: else there is nothing to judge it for.
    pub(crate) async fn federated(&self, asked: &Asked, request: &Request) -> Result<Option<Federated>, ExchangeError> {
        let Some(PresentedToken::Id(text)) = &asked.subject else { return Ok(None) };
        if !request.is_bare_federation() {
            return Ok(None);
        }
        if text.len() > LONGEST_TOKEN {
            return Ok(Some(Federated::refused(None, None, FederationFault::Malformed)));
        }
        let Ok(token) = UnverifiedToken::parse(text) else {
            return Ok(Some(Federated::refused(None, None, FederationFault::Malformed)));
        };
        let federated = self.judge(request, &token).await?;
        if let Err(fault) = &federated.verified {
            let (zone, application) = (&request.zone, &request.application);
            tracing::info!(%zone, %application, reason = fault.reason(), "an id_token is not believed");
        }
        Ok(Some(federated))
    }

    async fn judge(&self, request: &Request, token: &UnverifiedToken<'_>) -> Result<Federated, ExchangeError> {
        let Some(Value::String(issuer)) = token.claims().get("iss") else {
            return Ok(Federated::refused(None, None, FederationFault::ClaimInvalid("iss")));
        };
        // No registered issuer has them, and not every engine could look for one that does.
        if issuer.len() > LONGEST_ISSUER || issuer.chars().any(char::is_control) {
            return Ok(Federated::refused(None, None, FederationFault::IssuerNotRegistered));
        }
        // This service vouches for nobody to itself, whatever somebody registered: a mandate that an application holds
        // must not come back as that of a user, who may approve what the application asks for.
        if *issuer == self.config.issuer {
            return Ok(Federated::refused(None, None, FederationFault::IssuerNotRegistered));
        }
        let under = {
            let mut snapshot = self.store.snapshot().await?;
            subject_issuers::find_by_issuer(&mut snapshot.zone(&request.zone), issuer).await?.map(registration)
        };
        let Some(under) = under else {
            return Ok(Federated::refused(Some(issuer.clone()), None, FederationFault::IssuerNotRegistered));
        };
        let verified = self.verified(request, token, &under).await;
        Ok(Federated { issuer: Some(issuer.clone()), under: Some(under), verified })
    }

    async fn verified(
        &self,
        request: &Request,
        token: &UnverifiedToken<'_>,
        under: &Registration,
    ) -> Result<VerifiedIdToken, FederationFault> {
        let header = ForeignHeader::of(token).map_err(|fault| match fault {
            ForeignHeaderFault::Algorithm => FederationFault::AlgorithmNotAccepted,
            ForeignHeaderFault::NoKeyNamed => FederationFault::KeyNotNamed,
            ForeignHeaderFault::Critical => FederationFault::Malformed,
        })?;
        let source = KeySource::of(&request.zone, under);
        let found = self.issuer_keys.find(&source, header.kid, || self.store.now()).await;
        let keys: Arc<_> = found.map_err(|why| match why {
            NoKeys::Unusable => FederationFault::KeysUnusable,
            NoKeys::Unreachable => FederationFault::KeysUnreachable,
        })?;
        if !keys.contains(header.kid) {
            return Err(FederationFault::KeyUnknown);
        }
        keys.verify(token, &header).map_err(|_| FederationFault::SignatureInvalid)?;
        Ok(VerifiedIdToken { claims: IdTokenClaims::parse(token.claims())?, under: under.clone() })
    }
}
