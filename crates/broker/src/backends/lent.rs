//! What a cloud's API wants to be shown: an access token, or a key pair for a while. Asked for once, however many need it
//! at once, and kept until shortly before it runs out.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use caracal_authority::Timestamp;
use caracal_custody::BackendError;
use caracal_store::{BoxFuture, Clock};

use crate::flights::Flights;

/// So long before its end another is asked for (contract: audit-and-streams.md §9.3).
const EARLY: Duration = Duration::from_secs(60);

/// A credential and its end, if it has one.
pub(super) struct Lent<T> {
    pub(super) value: T,
    pub(super) expires_at: Option<Timestamp>,
}

impl<T> Lent<T> {
    fn lasts(&self, until: Timestamp) -> bool {
        self.expires_at.is_none_or(|end| until < end)
    }
}

type Outcome<T> = Result<Arc<Lent<T>>, BackendError>;
/// Asks for a credential.
pub(super) type Source<T> = Box<dyn Fn() -> BoxFuture<'static, Result<Lent<T>, BackendError>> + Send + Sync>;

/// The credential at hand, and where the next one is from.
pub(super) struct Credential<T> {
    source: Source<T>,
    clock: Arc<dyn Clock>,
    kept: Arc<Mutex<Option<Arc<Lent<T>>>>>,
    asking: Flights<(), Outcome<T>>,
}

impl<T: Send + Sync + 'static> Credential<T> {
    /// By the time of `clock`.
    pub(super) fn new(clock: Arc<dyn Clock>, source: Source<T>) -> Self {
        Self { source, clock, kept: Arc::default(), asking: Flights::default() }
    }

    /// One that can be used now.
    pub(super) async fn get(&self) -> Outcome<T> {
        let now = self.clock.now();
        let at_hand = lock(&self.kept).clone();
        if let Some(lent) = at_hand.as_ref().filter(|lent| lent.lasts(now.plus(EARLY))) {
            return Ok(lent.clone());
        }
        let (asked, kept) = ((self.source)(), self.kept.clone());
        let asking = self.asking.join((), async move {
            let lent = Arc::new(asked.await?);
            *lock(&kept) = Some(lent.clone());
            Ok(lent)
        });
        let failed = match asking.await {
            Some(Ok(lent)) => return Ok(lent),
            Some(Err(error)) => error,
            None => BackendError { kind: "any", doing: "lend a credential", reason: "given up".to_owned() },
        };
        // It was asked for early, so that a failure may pass.
        let lent = at_hand.filter(|lent| lent.lasts(self.clock.now())).ok_or_else(|| failed.clone())?;
        tracing::warn!(error = %failed, "the credential at hand is used on: no other could be had");
        Ok(lent)
    }

    /// It was not accepted: whoever needs one next asks anew.
    pub(super) fn forget(&self, lent: &Arc<Lent<T>>) {
        let mut kept = lock(&self.kept);
        if kept.as_ref().is_some_and(|kept| Arc::ptr_eq(kept, lent)) {
            *kept = None;
        }
    }
}

/// A panic inside can't have left half a credential.
fn lock<T>(kept: &Mutex<Option<Arc<Lent<T>>>>) -> std::sync::MutexGuard<'_, Option<Arc<Lent<T>>>> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}
