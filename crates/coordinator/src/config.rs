//! Settings of the Coordinator. The binary reads them from wherever it likes; nothing here looks at the environment.

use std::time::Duration;

use caracal_crypto::SecretText;
use caracal_crypto::hmac::HmacKey;

/// All settings, with the contract's defaults (coordinator.md §15, README D30).
pub struct CoordinatorConfig {
    /// `ISSUER_URL`, verbatim: what mandates say in `iss`, and the audience that session mandates are addressed to.
    pub issuer: String,
    /// `AGENT_COORDINATOR_SCOPE`: what a mandate must carry to be heard at all. `agent:lifecycle`.
    pub lifecycle_scope: String,
    /// `CARACAL_COORDINATOR_TOKEN`. Without one there is no operator access.
    pub operator_token: Option<SecretText>,
    /// `METRICS_BEARER`: what opens the metrics. Without one, the operator's token does.
    pub metrics_bearer: Option<SecretText>,
    /// `IDEMPOTENCY_HMAC_KEY`: under which keys are digested. Keys are never stored in clear.
    pub idempotency_hmac_key: HmacKey,
    /// `IDEMPOTENCY_HMAC_KEY_PREVIOUS`: receipts written under it are still found, so a rotation loses none.
    pub idempotency_hmac_key_previous: Option<HmacKey>,
    /// `IDEMPOTENCY_RETENTION_SECONDS`: how long an explicit key counts. 7 days, at least an hour.
    pub idempotency_retention: Duration,
    /// `GENERATED_IDEMPOTENCY_RETENTION_SECONDS`: how long a key counts that a client library made up. 24 hours.
    pub generated_idempotency_retention: Duration,
    /// `IDEMPOTENCY_MAX_RECEIPTS_PER_SCOPE`: live receipts of explicit keys per operation, zone and application. 10,000.
    pub idempotency_max_receipts: u32,
    /// `MAX_AGENTS_PER_ZONE`: sessions that hold a slot at a time. 10,000.
    pub max_sessions_per_zone: u32,
    /// `MAX_AGENTS_PER_APP`: likewise, of one application. 1,000.
    pub max_sessions_per_application: u32,
    /// `SERVICE_AGENT_LEASE_SECONDS`: how long a service lives without renewal. 120 s.
    pub service_lease: Duration,
    /// `COORDINATOR_BODY_LIMIT_BYTES`: largest body. 262,144.
    pub body_limit: usize,
    /// `REQUEST_TIMEOUT_MS`: how long a body may take to arrive. 30 s.
    pub body_deadline: Duration,
    /// `COORDINATOR_RATE_LIMIT_PER_MIN`: requests per caller's address; 0 switches the limit off. 600.
    pub rate_limit_per_minute: u32,
    /// `READY_RATE_LIMIT_PER_MIN`: readiness probes per caller's address; 0 switches the limit off. 120.
    pub ready_rate_limit_per_minute: u32,
    /// `VERIFY_RATE_LIMIT_PER_MIN`: verifications per caller's address; 0 switches the limit off. 60.
    pub verify_rate_limit_per_minute: u32,
    /// `INVOCATION_RATE_LIMIT_PER_MIN`: requests that make or move invocations, per zone and application; 0 switches the
    /// limit off. 120.
    pub invocation_rate_limit_per_minute: u32,
    /// `TRUST_PROXY`: whether the last address of `X-Forwarded-For` is the caller's. Only behind a proxy that sets it:
    /// otherwise any caller chooses the address it is counted under. Off.
    pub trust_proxy: bool,
    /// `TTL_SWEEP_INTERVAL_MS`: how often tasks whose time is up are ended. They stop counting at once, the sweep only
    /// writes it down and takes their descendants along. 60 s.
    pub ttl_sweep_interval: Duration,
    /// `DEADLINE_SWEEP_INTERVAL_MS`: how often attempts are ended whose deadline has passed. 5 s.
    pub deadline_sweep_interval: Duration,
    /// `INVOCATION_PENDING_TIMEOUT_SECONDS`: how long an invocation waits for a worker to begin. 24 hours.
    pub pending_invocations: Duration,
    /// `SWEEPER_BATCH_SIZE`: tasks ended, or services suspended, in one commit. 500.
    pub sweep_batch: u32,
    /// `SERVICE_LEASE_SWEEP_INTERVAL_MS`: how often services whose lease was missed are suspended. 30 s.
    pub lease_sweep_interval: Duration,
    /// `RETENTION_CLEANUP_INTERVAL_MS`: how often lapsed delegations are marked and what is over is removed. 15 min.
    pub retention_interval: Duration,
    /// `RETENTION_CLEANUP_BATCH_SIZE`: rows of each kind in one commit. 500.
    pub retention_batch: u32,
    /// `SESSION_RETENTION_DAYS`: how long a session is kept after its end. 90 days.
    pub session_retention: Duration,
    /// `DELEGATION_RETENTION_DAYS`: how long a delegation is kept after its end. 90 days.
    pub delegation_retention: Duration,
    /// How long the record of a heartbeat may wait for its place in the chain. 1 s.
    pub record_interval: Duration,
}

impl CoordinatorConfig {
    /// The defaults, for what has one.
    pub fn new(issuer: impl Into<String>, idempotency_hmac_key: HmacKey) -> Self {
        Self {
            issuer: issuer.into(),
            lifecycle_scope: "agent:lifecycle".to_owned(),
            operator_token: None,
            metrics_bearer: None,
            idempotency_hmac_key,
            idempotency_hmac_key_previous: None,
            idempotency_retention: Duration::from_secs(7 * 86_400),
            generated_idempotency_retention: Duration::from_secs(86_400),
            idempotency_max_receipts: 10_000,
            max_sessions_per_zone: 10_000,
            max_sessions_per_application: 1_000,
            service_lease: Duration::from_secs(120),
            body_limit: 262_144,
            body_deadline: Duration::from_secs(30),
            rate_limit_per_minute: 600,
            ready_rate_limit_per_minute: 120,
            verify_rate_limit_per_minute: 60,
            invocation_rate_limit_per_minute: 120,
            trust_proxy: false,
            ttl_sweep_interval: Duration::from_secs(60),
            deadline_sweep_interval: Duration::from_secs(5),
            pending_invocations: Duration::from_secs(86_400),
            sweep_batch: 500,
            lease_sweep_interval: Duration::from_secs(30),
            retention_interval: Duration::from_secs(15 * 60),
            retention_batch: 500,
            session_retention: Duration::from_secs(90 * 86_400),
            delegation_retention: Duration::from_secs(90 * 86_400),
            record_interval: Duration::from_secs(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t04_state_limits_and_all_else_default_to_what_the_contract_says() {
        let key: Vec<u8> = (0..32).collect();
        let config = CoordinatorConfig::new("https://issuer.test", HmacKey::from_bytes(&key).unwrap());
        assert_eq!((config.max_sessions_per_zone, config.max_sessions_per_application), (10_000, 1_000));
        assert_eq!((config.rate_limit_per_minute, config.ready_rate_limit_per_minute), (600, 120));
        assert_eq!((config.verify_rate_limit_per_minute, config.invocation_rate_limit_per_minute), (60, 120));
        assert_eq!((config.body_limit, config.idempotency_max_receipts, config.sweep_batch), (262_144, 10_000, 500));
        let seconds = [
            (config.idempotency_retention, 7 * 86_400),
            (config.generated_idempotency_retention, 86_400),
            (config.service_lease, 120),
            (config.body_deadline, 30),
            (config.ttl_sweep_interval, 60),
            (config.lease_sweep_interval, 30),
            (config.retention_interval, 900),
            (config.session_retention, 90 * 86_400),
            (config.delegation_retention, 90 * 86_400),
            (config.deadline_sweep_interval, 5),
            (config.pending_invocations, 86_400),
        ];
        assert!(seconds.iter().all(|(found, expected)| *found == Duration::from_secs(*expected)), "{seconds:?}");
        assert_eq!(config.lifecycle_scope, "agent:lifecycle");
        assert!(config.operator_token.is_none() && config.idempotency_hmac_key_previous.is_none());
        assert!(!config.trust_proxy);
    }
}
