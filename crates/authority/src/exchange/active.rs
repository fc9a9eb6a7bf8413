//! Whether a mandate that was issued is good at this instant: the question of RFC 7662, answered by the checks that an
//! exchange of it would meet.
//!
//! A signature only says that a mandate was good once. Between its issuance and its end the record behind it may be
//! revoked, the session it was minted for may end, an edge of its delegation may be taken back, and a one-shot mandate
//! may have been used. Whoever is told "active" acts on it, so what is not among the facts means no.

use super::standing::{lineage_to, record_of, session_of};
use super::{Facts, Refusal};
use crate::mandate::Claims;
use crate::record::{DeadRecord, check_live};

/// Why a mandate is not active. Nobody but the log is told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Inactive {
    /// The store's clock could not be read.
    #[error("the time is not known")]
    TimeUnknown,
    /// Its `exp` has come, by the store's clock and without leeway.
    #[error("it has expired")]
    Expired,
    /// The application it was issued to is gone.
    #[error("its application is gone")]
    ClientGone,
    /// The record at the root of its authority was taken back, or is not known.
    #[error("the record at its root is revoked")]
    RootRevoked,
    /// A one-shot mandate that was used.
    #[error("it was used")]
    Used,
    /// What it stands on does not carry it any more.
    #[error(transparent)]
    Unsupported(#[from] Refusal),
}

/// Whether the mandate is active. Its signature, issuer and zone are verified where the keys are; `facts` hold what it
/// refers to, as for an exchange, with the record at its root, and as client the application it was issued to. `used` says
/// whether its one use is spent.
pub fn check_active(claims: &Claims, facts: &Facts, used: bool) -> Result<(), Inactive> {
    let now = facts.now.ok_or(Inactive::TimeUnknown)?;
    if claims.expires_at <= now.as_seconds() {
        return Err(Inactive::Expired);
    }
    let client = facts.client.as_ref().filter(|client| client.id == claims.client && client.zone == claims.zone);
    if client.is_none_or(|client| client.expires_at.is_some_and(|end| end <= now)) {
        return Err(Inactive::ClientGone);
    }
    let record = record_of(facts, claims, now)?;
    if let Some(root) = claims.root_record.as_ref().filter(|root| **root != record.facts().id) {
        let root = facts.record(&claims.zone, root).ok_or(Inactive::RootRevoked)?;
        // A root that has merely expired bounded the mandate's life when it was minted.
        if check_live(root, now).is_err_and(|why| why == DeadRecord::Revoked) {
            return Err(Inactive::RootRevoked);
        }
    }
    let session = claims.session.as_ref();
    let session = session.map(|id| session_of(facts, &claims.zone, &claims.client, id, now)).transpose()?;
    match (claims.delegation.as_ref(), session) {
        (None, _) => {}
        (Some(_), None) => return Err(Refusal::DelegationWithoutSession.into()),
        (Some(edge), Some(target)) => drop(lineage_to(facts, edge, target, now)?),
    }
    if used { Err(Inactive::Used) } else { Ok(()) }
}
