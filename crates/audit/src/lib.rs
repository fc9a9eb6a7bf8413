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
use caracal_http::health::{Probe, Probes};
use caracal_http::limits::Backoff;
use caracal_ledger::{AnonymousDenials, LedgerReport};
use caracal_store::Store;

use sweep::Sweeps;

/// Settings of the evidence service.
#[derive(Default)]
pub struct AuditConfig {
    /// `AUDIT_ADMIN_TOKEN`: opens the search; without it, or when it is empty, the route does not exist.
    pub admin_token: Option<SecretText>,
    /// `METRICS_BEARER`; empty is none.
    pub metrics_bearer: Option<SecretText>,
    /// Whether metrics are open without a bearer: in dev only.
    pub open_metrics: bool,
    /// `TRUST_PROXY`: whether callers are told apart by what the proxy before us wrote into `X-Forwarded-For`.
    pub trust_proxy: bool,
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
    denials: Arc<AnonymousDenials>,
    verifier: Arc<dyn Verifier>,
    /// Who guesses the token is made to wait: it opens every zone's evidence, and the Admin API's limits do not cover
    /// this port.
    guesses: Backoff,
    sweeps: Sweeps,
    probes: Probes,
}

impl Audit {
    /// Over the store's evidence. `denials` counts callers without credential, `verifier` is what the sweep runs.
    pub fn new(
        mut config: AuditConfig,
        store: Store,
        denials: Arc<AnonymousDenials>,
        verifier: Arc<dyn Verifier>,
    ) -> Self {
        // Compared with nothing, an empty secret would be right.
        config.admin_token = config.admin_token.filter(|token| !token.expose().is_empty());
        config.metrics_bearer = config.metrics_bearer.filter(|bearer| !bearer.expose().is_empty());
        Self {
            config,
            store,
            denials,
            verifier,
            guesses: Backoff::for_credentials(),
            sweeps: Sweeps::default(),
            probes: Probes::default(),
        }
    }

    /// What readiness looks at beside the store.
    pub fn probe_with(&self, probe: Arc<dyn Probe>) {
        self.probes.set(probe);
    }
}
