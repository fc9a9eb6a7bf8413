//! The evidence service (contract: audit-and-streams.md §7): evidence in chain order for those who archive it, and the
//! sweep that verifies every chain while the system runs.
//!
//! Absent on purpose: writing evidence (every service does that itself, in its own commits), and anything that could
//! change a chain.

mod routes;
mod search;
mod sweep;

use std::sync::Arc;

use caracal_crypto::SecretText;
use caracal_ledger::LedgerReport;
use caracal_store::Store;

use sweep::Sweeps;

/// Settings of the evidence service.
#[derive(Default)]
pub struct AuditConfig {
    /// `AUDIT_ADMIN_TOKEN`: opens the search; without it the route does not exist.
    pub admin_token: Option<SecretText>,
    /// `METRICS_BEARER`.
    pub metrics_bearer: Option<SecretText>,
    /// Whether metrics are open without a bearer: in dev only.
    pub open_metrics: bool,
}

/// Verifies every chain of the store against the heads kept outside it. Blocks for as long as that takes; the sweep
/// gives it a thread of its own.
pub trait Verifier: Send + Sync + 'static {
    /// The verdict, or why there is none.
    fn verify(&self) -> Result<LedgerReport, String>;
}

/// The evidence service.
pub struct Audit {
    config: AuditConfig,
    store: Store,
    verifier: Arc<dyn Verifier>,
    sweeps: Sweeps,
}

impl Audit {
    /// Over the store's evidence. `verifier` is what the sweep runs.
    pub fn new(config: AuditConfig, store: Store, verifier: Arc<dyn Verifier>) -> Self {
        Self { config, store, verifier, sweeps: Sweeps::default() }
    }
}
