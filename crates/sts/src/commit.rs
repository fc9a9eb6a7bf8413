//! What an exchange makes durable, and the signature that only something durable can get.
//!
//! A mint's record, its evidence and the use of the mandate that was presented for it are one transaction: none of them
//! is there without the others. It insists on the zone version that the decision was made on, so that a revocation
//! either sees the record or is seen by the decision (difference D4). A denial is the same without the record, and
//! insists on nothing: what was no longer allowed at some instant may stay denied.

use std::sync::Arc;

use caracal_authority::{AuthorityRecordId, Timestamp, ZoneId};
use caracal_crypto::SecretText;
use caracal_custody::ZoneKey;
use caracal_ledger::{Evidence, Ledger};
use caracal_store::records::{self, RecordRow};
use caracal_store::{Store, StoreError, ZoneVersion, used_mandates};

use crate::ExchangeError;

/// A record that is durable together with its evidence. Made by [`mint`] alone.
pub(crate) struct Committed {
    record: AuthorityRecordId,
}

/// Why nothing was committed.
pub(crate) enum NotCommitted {
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

/// A presented one-shot mandate.
pub(crate) struct UsedMandate {
    pub(crate) jti: String,
    /// When it is so long expired that its use need not be remembered.
    pub(crate) forget_at: Timestamp,
}

/// Everything one mint makes durable.
pub(crate) struct Mint {
    pub(crate) version: ZoneVersion,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) record: RecordRow,
    pub(crate) used: Option<UsedMandate>,
    pub(crate) evidence: Vec<Evidence>,
    pub(crate) request_id: String,
}

/// Makes a record durable with its evidence and, if there is one, the use of the presented mandate: all or nothing.
pub(crate) async fn mint(store: &Store, zone: &ZoneId, mint: Mint) -> Result<Committed, NotCommitted> {
    let record = mint.record.id.clone();
    store
        .commit(zone, mint, |tx, mint| {
            Box::pin(async move {
                if !tx.is_at(mint.version).await? {
                    return Err(NotCommitted::Stale);
                }
                if let Some(used) = &mint.used
                    && !used_mandates::consume(tx, &used.jti, &mint.request_id, used.forget_at).await?
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

/// Everything one denial makes durable.
pub(crate) struct Denial {
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) used: Option<UsedMandate>,
    pub(crate) evidence: Vec<Evidence>,
    pub(crate) request_id: String,
}

/// Why a denial left nothing: another exchange of the same mandate was first, or the store failed.
pub(crate) async fn deny(store: &Store, zone: &ZoneId, denial: Denial) -> Result<(), ExchangeError> {
    let done = store.commit(zone, denial, |tx, denial| {
        Box::pin(async move {
            if let Some(used) = &denial.used
                && !used_mandates::consume(tx, &used.jti, &denial.request_id, used.forget_at).await?
            {
                return Err(NotCommitted::Replayed);
            }
            denial.ledger.record(tx, &denial.evidence).await?;
            Ok(())
        })
    });
    match done.await {
        Ok(()) => Ok(()),
        Err(NotCommitted::Replayed) => Err(ExchangeError::Replayed),
        Err(NotCommitted::Store(error)) => Err(error.into()),
        Err(NotCommitted::Stale) => Err(ExchangeError::Internal),
    }
}

/// Signs what was committed.
pub(crate) fn sign(key: &ZoneKey, committed: &Committed, payload: Vec<u8>) -> Result<SecretText, ExchangeError> {
    let token = key.sign_payload(payload).map_err(|error| {
        tracing::error!(record = %committed.record, %error, "a committed mandate could not be signed");
        ExchangeError::Internal
    })?;
    Ok(SecretText::new(token))
}
