//! Who asks: a workload by its secret (contract: sts.md §11 row 3). One answer for everything that is wrong, at one cost: an
//! unknown workload and a wrong secret are told apart by nobody (difference D17).

use caracal_authority::exchange::Refusal;
use caracal_authority::{WorkloadId, ZoneId};
use caracal_http::limits::Verdict;
use caracal_ledger::Evidence;
use caracal_store::workloads::{self, Workload};

use super::evidence::Account;
use super::{LaunchIds, Presented};
use crate::commit::{self, Denial};
use crate::{ExchangeError, Sts};

/// A workload that proved who it is.
pub(super) struct AuthenticatedWorkload {
    row: Workload,
}

impl AuthenticatedWorkload {
    pub(super) fn zone(&self) -> &ZoneId {
        &self.row.zone_id
    }

    pub(super) fn id(&self) -> &WorkloadId {
        &self.row.id
    }

    /// The workload as it was when its secret was looked up.
    pub(super) fn row(&self) -> &Workload {
        &self.row
    }

    /// Whether the proof still holds for the workload as it is now: a secret that was replaced while it was being verified
    /// proves nothing any more.
    pub(super) fn still_holds(&self, now: &Workload) -> bool {
        now.secret_hash == self.row.secret_hash
    }
}

impl Sts {
    /// Verifies a workload's secret.
    pub(super) async fn authenticated(&self, presented: &Presented) -> Result<AuthenticatedWorkload, ExchangeError> {
        let now = self.store.now();
        let found = match WorkloadId::parse(&presented.workload) {
            // Given back before the derivation, which may have to wait for its turn.
            Ok(id) => {
                let mut snapshot = self.store.snapshot().await?;
                workloads::find_in_any_zone(&mut snapshot.deployment(), &id).await?
            }
            Err(_) => None,
        };
        let stored = found.as_ref().map(|row| row.secret_hash.as_str());
        let proven = self.verifier.verify(stored, &presented.secret, now).await?;
        match found {
            Some(row) if proven => Ok(AuthenticatedWorkload { row }),
            found => {
                self.denials.count("sts", "workload_unauthenticated");
                if let Some(row) = found {
                    self.record_failure(row, &presented.launch);
                }
                Err(Refusal::WorkloadUnauthenticated.into())
            }
        }
    }

    /// Leaves evidence with a workload whose secret somebody got wrong: once a minute, so that nobody who knows an id can
    /// fill its zone's chain with it (difference D11); all of them are counted. The answer does not wait for it, or its
    /// time would say that there is such a workload.
    fn record_failure(&self, row: Workload, launch: &LaunchIds) {
        let now = self.store.now();
        if !matches!(self.named_failures.hit(&row.id, 1, now), Verdict::Allowed) {
            return;
        }
        let event = Account::of(&row, launch, now).of_launch(Some(&Refusal::WorkloadUnauthenticated));
        let (store, ledger, request_id) = (self.store.clone(), self.ledger.clone(), launch.request.clone());
        tokio::spawn(async move {
            let evidence: Vec<Evidence> = event.into_iter().collect();
            let denial = Denial { ledger, used: None, evidence, request_id };
            if let Err(error) = commit::deny(&store, &row.zone_id, denial).await {
                tracing::error!(zone = %row.zone_id, workload = %row.id, %error, "a wrong secret left no evidence");
            }
        });
    }
}
