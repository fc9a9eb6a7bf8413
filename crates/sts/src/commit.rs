//! What an exchange makes durable, and the signature that only something durable can get.
//!
//! A mint's record, its evidence and the use of the mandate that was presented for it are one transaction: none of them
//! is there without the others. It insists on the zone version that the decision was made on, so that a revocation
//! either sees the record or is seen by the decision (difference D4). A denial is the same without the record, and
//! insists on nothing: what was no longer allowed at some instant may stay denied.
//!
//! An approval is spent in the commit of the record it was given for, and only there: whatever ends an exchange before
//! that, a refusal or a crash, leaves it unspent.

use std::sync::Arc;

use caracal_authority::approval::{Binding, Hold, HoldState};
use caracal_authority::{ApprovalId, AuthorityRecordId, Timestamp, ZoneId};
use caracal_crypto::SecretText;
use caracal_custody::ZoneKey;
use caracal_ledger::{Evidence, Ledger};
use caracal_store::approvals::{self, ApprovalRow};
use caracal_store::records::{self, RecordRow};
use caracal_store::{Store, StoreError, ZoneVersion, ZoneWrite, used_mandates};

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
    /// The approval was spent by another exchange since the decision.
    Spent(Box<Hold>),
    /// A hold was to be raised, and one that has been decided already answers for the request.
    Answered(Box<Hold>),
    /// A hold was to be raised, and so many wait already that nobody could look through them.
    Crowded,
    /// Another mandate of the zone has the same `jti`: chance is not what it should be.
    JtiTaken,
    Store(StoreError),
}

impl From<StoreError> for NotCommitted {
    fn from(error: StoreError) -> Self {
        if error.is_conflict_on("authority_records.jti") { Self::JtiTaken } else { Self::Store(error) }
    }
}

/// A presented one-shot mandate.
pub(crate) struct UsedMandate {
    pub(crate) jti: String,
    /// When it is so long expired that its use need not be remembered.
    pub(crate) forget_at: Timestamp,
}

/// The authority that a mandate stands on.
pub(crate) enum Authority {
    /// A new record.
    New(Box<RecordRow>),
    /// One that an earlier commit made, from an approval that was spent a moment ago.
    Again(AuthorityRecordId),
}

/// Everything one mint makes durable.
pub(crate) struct Mint {
    pub(crate) version: ZoneVersion,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) authority: Authority,
    /// The approval that is spent on the record.
    pub(crate) spends: Option<(ApprovalId, Binding)>,
    pub(crate) used: Option<UsedMandate>,
    pub(crate) evidence: Vec<Evidence>,
    pub(crate) request_id: String,
}

/// Makes a record durable with its evidence and, if there are any, the use of the presented mandate and of the approval:
/// all or nothing.
pub(crate) async fn mint(store: &Store, zone: &ZoneId, mint: Mint) -> Result<Committed, NotCommitted> {
    let record = match &mint.authority {
        Authority::New(row) => row.id.clone(),
        Authority::Again(id) => id.clone(),
    };
    store
        .commit(zone, mint, |tx, mint| {
            Box::pin(async move {
                if !tx.is_at(mint.version).await? {
                    return Err(NotCommitted::Stale);
                }
                use_up(tx, mint.used.as_ref(), &mint.request_id).await?;
                if let Authority::New(row) = &mint.authority {
                    if let Some((id, binding)) = &mint.spends {
                        spend(tx, id, binding, Some(&row.id)).await?;
                    }
                    records::add(tx, row).await?;
                }
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
            use_up(tx, denial.used.as_ref(), &denial.request_id).await?;
            denial.ledger.record(tx, &denial.evidence).await?;
            Ok(())
        })
    });
    match done.await {
        Ok(()) => Ok(()),
        Err(NotCommitted::Replayed) => Err(ExchangeError::Replayed),
        Err(NotCommitted::Store(error)) => Err(error.into()),
        Err(
            NotCommitted::Stale
            | NotCommitted::Spent(_)
            | NotCommitted::Answered(_)
            | NotCommitted::Crowded
            | NotCommitted::JtiTaken,
        ) => Err(ExchangeError::Internal),
    }
}

/// Everything that releasing a credential makes durable. The credential itself is kept nowhere.
pub(crate) struct Release {
    pub(crate) version: ZoneVersion,
    pub(crate) ledger: Arc<Ledger>,
    /// The approval that is spent on it.
    pub(crate) spends: Option<(ApprovalId, Binding)>,
    pub(crate) evidence: Vec<Evidence>,
}

/// Makes durable that a credential is released: the evidence of it and, if there is one, the spent approval. Like a mint it
/// insists on the zone version of the decision.
pub(crate) async fn release(store: &Store, zone: &ZoneId, release: Release) -> Result<(), NotCommitted> {
    store
        .commit(zone, release, |tx, release| {
            Box::pin(async move {
                if !tx.is_at(release.version).await? {
                    return Err(NotCommitted::Stale);
                }
                if let Some((id, binding)) = &release.spends {
                    spend(tx, id, binding, None).await?;
                }
                release.ledger.record(tx, &release.evidence).await?;
                Ok(())
            })
        })
        .await
}

async fn use_up(tx: &mut ZoneWrite<'_>, used: Option<&UsedMandate>, request_id: &str) -> Result<(), NotCommitted> {
    let Some(used) = used else { return Ok(()) };
    let first = used_mandates::consume(tx, &used.jti, request_id, used.forget_at).await?;
    if first { Ok(()) } else { Err(NotCommitted::Replayed) }
}

/// Spends an approval, on `record` where one comes of it. If it can't be spent any more, it was spent by somebody else (which the caller is
/// told), or it is over, and the decision has to be made anew.
async fn spend(
    tx: &mut ZoneWrite<'_>,
    id: &ApprovalId,
    binding: &Binding,
    record: Option<&AuthorityRecordId>,
) -> Result<(), NotCommitted> {
    if approvals::consume(tx, id, binding, record).await? {
        return Ok(());
    }
    let now = tx.now();
    let hold = approvals::lookup(tx, id).await?.map(|row| row.facts()).transpose()?;
    match hold.filter(|hold| hold.state(now) == HoldState::Consumed) {
        Some(hold) => Err(NotCommitted::Spent(Box::new(hold))),
        None => Err(NotCommitted::Stale),
    }
}

/// How many requests of one principal may wait or have been decided at the same time. Every name that somebody adds to a
/// request makes another request of it: without an end, one caller could bury what others wait for.
const MOST_LIVE: i64 = 1_000;

/// Everything that raising a hold makes durable.
pub(crate) struct Raise {
    pub(crate) version: ZoneVersion,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) used: Option<UsedMandate>,
    pub(crate) row: ApprovalRow,
    /// What the exchange came to: it is refused until the hold is approved.
    pub(crate) evidence: Vec<Evidence>,
    /// The event of the hold itself, left out where one waits already.
    pub(crate) issued: Evidence,
    pub(crate) request_id: String,
}

/// Raises a hold, unless one answers for the request. Returns the one that waits. Like a mint it insists on the zone
/// version of the decision: nobody is asked to approve what has become impossible.
pub(crate) async fn raise(store: &Store, zone: &ZoneId, raise: Raise) -> Result<Box<Hold>, NotCommitted> {
    store
        .commit(zone, raise, |tx, raise| {
            Box::pin(async move {
                if !tx.is_at(raise.version).await? {
                    return Err(NotCommitted::Stale);
                }
                use_up(tx, raise.used.as_ref(), &raise.request_id).await?;
                let found = approvals::add(tx, &raise.row).await?;
                let is_new = found.is_none();
                if is_new && approvals::count_live(tx, &raise.row.principal_id, MOST_LIVE + 1).await? > MOST_LIVE {
                    return Err(NotCommitted::Crowded);
                }
                let hold = Box::new(found.as_ref().unwrap_or(&raise.row).facts()?);
                if hold.state(tx.now()) != HoldState::Pending {
                    return Err(NotCommitted::Answered(hold));
                }
                raise.ledger.record(tx, &raise.evidence).await?;
                if is_new {
                    raise.ledger.record(tx, std::slice::from_ref(&raise.issued)).await?;
                }
                Ok(hold)
            })
        })
        .await
}

/// Signs what was committed.
pub(crate) fn sign(key: &ZoneKey, committed: &Committed, payload: Vec<u8>) -> Result<SecretText, ExchangeError> {
    let token = key.sign_payload(payload).map_err(|error| {
        tracing::error!(record = %committed.record, %error, "a committed mandate could not be signed");
        ExchangeError::Internal
    })?;
    Ok(SecretText::new(token))
}
