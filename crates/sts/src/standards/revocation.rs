//! `POST /zones/{zone}/oauth/2/revoke`: an application takes one of its own mandates back (RFC 7009).
//!
//! What is revoked is the authority record of that mandate, with what was minted from it: the record that `sid` names, made
//! by the mandate's own exchange and by no other (a mandate that was issued again for one approval shares it, and goes
//! too). Sessions that an application started with a session mandate do not hang on its record and go on (difference D15);
//! a user's do, and end with the user's record as they would with its expiry.
//!
//! Revocation, its evidence and the word of it are one commit, and the commit looks once more at who asks. Whatever is not
//! the caller's, or not there, or over, is answered with 200 and left as it is (§2.2).

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use caracal_authority::exchange::Refusal;
use caracal_authority::mandate::Claims;
use caracal_authority::record::{RecordFacts, check_live};
use caracal_authority::{AuthorityRecordId, OutboxId};
use caracal_crypto::chance::{self, ChanceUnavailable};
use caracal_http::RequestId;
use caracal_ledger::{Decision, EvaluationStatus, EventType, Evidence, Ledger, Metadata, MetadataKey as Key};
use caracal_store::applications::Application;
use caracal_store::{StoreError, ZoneWrite, outbox, records};
use http::{Request, StatusCode};

use super::admission::{Admitted, still_proven};
use super::{never_kept, refuse};
use crate::client::AuthenticatedClient;
use crate::evidence::event_id;
use crate::wire::Ended;
use crate::{ExchangeError, Sts};

/// Where everybody hears of it who verifies mandates without the store (contract: audit-and-streams.md §6).
const REVOKE_TOPIC: &str = "caracal.sessions.revoke";
/// `reason` of the record and of the message.
const REASON: &str = "client_revoked";

pub(crate) async fn revoke(
    State(sts): State<Arc<Sts>>,
    id: RequestId,
    zone: Result<Path<String>, PathRejection>,
    request: Request<Body>,
) -> Response {
    let zone = zone.map(|Path(zone)| zone).unwrap_or_default();
    let mut response = match sts.take_back(&zone, &id, request).await {
        Ok(()) => StatusCode::OK.into_response(),
        Err(ended) => refuse(ended),
    };
    never_kept(&mut response);
    response
}

/// Why nothing was committed.
enum NotRevoked {
    /// The application lost its proof meanwhile.
    Refused(Refusal),
    Chance(ChanceUnavailable),
    Store(StoreError),
}

impl From<Refusal> for NotRevoked {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<ChanceUnavailable> for NotRevoked {
    fn from(error: ChanceUnavailable) -> Self {
        Self::Chance(error)
    }
}

impl From<StoreError> for NotRevoked {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<NotRevoked> for ExchangeError {
    fn from(error: NotRevoked) -> Self {
        match error {
            NotRevoked::Refused(refusal) => refusal.into(),
            NotRevoked::Chance(error) => error.into(),
            NotRevoked::Store(error) => error.into(),
        }
    }
}

impl Sts {
    async fn take_back(&self, zone: &str, id: &RequestId, request: Request<Body>) -> Result<(), Ended> {
        let Admitted { client, token } = self.admit(zone, request).await?;
        let Some((_, claims)) = self.issued(client.zone(), &token).await? else { return Ok(()) };
        let Some(record) = claims.record.clone() else { return Ok(()) };
        let zone = client.zone().clone();
        let revocation =
            Revocation { client, claims, record, ledger: self.ledger.clone(), request_id: id.as_str().to_owned() };
        let done: Result<bool, NotRevoked> =
            self.store.commit(&zone, revocation, |tx, revocation| Box::pin(revocation.commit(tx))).await;
        if done.map_err(ExchangeError::from)? {
            self.metrics.revocations.up();
        }
        Ok(())
    }
}

/// A genuine mandate of the caller's zone that is to be taken back.
struct Revocation {
    client: AuthenticatedClient,
    claims: Claims,
    record: AuthorityRecordId,
    ledger: Arc<Ledger>,
    request_id: String,
}

impl Revocation {
    /// Whether anything was revoked.
    async fn commit(&self, tx: &mut ZoneWrite<'_>) -> Result<bool, NotRevoked> {
        let caller = still_proven(tx, &self.client).await??;
        let record = records::lookup(tx, &self.record).await?.map(|row| row.facts()).transpose()?;
        let Some(record) = record else { return Ok(false) };
        if !self.is_theirs(&record) {
            let event = self.event(tx, &caller, Decision::Deny, EvaluationStatus::MandateOfAnotherApplication)?;
            self.ledger.record(tx, &[event]).await?;
            return Ok(false);
        }
        if check_live(&record, tx.now()).is_err() {
            return Ok(false);
        }
        let fallen = records::revoke_with_descendants(tx, &self.record, REASON).await?;
        for record in &fallen {
            let message = OutboxId::parse(&chance::uuid_v7(tx.now())?.to_string()).map_err(|_| ChanceUnavailable)?;
            let fields = [("session_id", record.as_str()), ("reason", REASON), ("zone_id", tx.zone().as_str())];
            let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
            outbox::add(tx, message, REVOKE_TOPIC, &format!("record_revoke:{record}"), fields).await?;
        }
        let mut event = self.event(tx, &caller, Decision::Allow, EvaluationStatus::Complete)?;
        event.metadata.set(Key::RevokedRecords, fallen.len());
        self.ledger.record(tx, &[event]).await?;
        Ok(true)
    }

    /// Issued to the caller, and the record is the mandate's.
    fn is_theirs(&self, record: &RecordFacts) -> bool {
        let caller = self.client.application();
        self.claims.client == *caller && record.client == *caller && record.subject == self.claims.subject
    }

    fn event(
        &self,
        tx: &ZoneWrite<'_>,
        caller: &Application,
        decision: Decision,
        status: EvaluationStatus,
    ) -> Result<Evidence, ChanceUnavailable> {
        let kind = EventType::MandateRevoked;
        let event = Evidence::new(event_id(tx.now())?, tx.zone().clone(), kind, decision, status, tx.now());
        let metadata = Metadata::new()
            .with(Key::ApplicationId, caller.id.as_str())
            .with(Key::ApplicationName, caller.name.as_str())
            .with(Key::ApplicationRegistrationMethod, caller.registration_method.as_str())
            .with(Key::AuthorityRecordId, self.record.as_str())
            .with(Key::MandateId, self.claims.jti.as_str())
            .with(Key::MandateApplicationId, self.claims.client.as_str())
            .with(Key::Use, self.claims.r#use.as_str())
            .with(Key::SubjectKind, self.claims.kind.as_str())
            .with_known(Key::AgentSessionId, self.claims.session.as_ref().map(|id| id.as_str()))
            .with_known(Key::DelegationEdgeId, self.claims.delegation.as_ref().map(|id| id.as_str()));
        Ok(event.request(self.request_id.as_str()).with_metadata(metadata))
    }
}
