//! Limits and times of the single services, under the contract's names (admin-api.md §13, coordinator.md §15,
//! gateway.md §21). What a variable does stands with the field of the service's own configuration that it fills.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::variables::Reader;

/// What the Admin API is tuned by.
#[derive(Debug, Clone)]
pub struct ApiTuning {
    /// `API_BODY_LIMIT_BYTES`.
    pub body_limit: usize,
    /// `API_V1_RATE_LIMIT_PER_MIN`.
    pub requests_per_minute: u32,
    /// `ADMIN_AUTH_FAIL_LIMIT_PER_MIN`.
    pub auth_failures_per_minute: u32,
    /// `API_MAX_RESOURCES_PER_ZONE`.
    pub max_resources_per_zone: u32,
    /// `ADMIN_TOKEN_LAST_USED_DEBOUNCE_SEC`.
    pub last_used_debounce: Duration,
    /// `API_ENABLE_DOCS`: heard in dev only.
    pub docs: bool,
}

/// What the Coordinator is tuned by.
#[derive(Debug, Clone)]
pub struct CoordinatorTuning {
    /// `COORDINATOR_BODY_LIMIT_BYTES`.
    pub body_limit: usize,
    /// `COORDINATOR_RATE_LIMIT_PER_MIN`.
    pub requests_per_minute: u32,
    /// `VERIFY_RATE_LIMIT_PER_MIN`.
    pub verifications_per_minute: u32,
    /// `INVOCATION_RATE_LIMIT_PER_MIN`.
    pub invocations_per_minute: u32,
    /// `MAX_AGENTS_PER_ZONE`.
    pub max_sessions_per_zone: u32,
    /// `MAX_AGENTS_PER_APP`.
    pub max_sessions_per_application: u32,
    /// `IDEMPOTENCY_RETENTION_SECONDS`.
    pub idempotency_retention: Duration,
    /// `GENERATED_IDEMPOTENCY_RETENTION_SECONDS`.
    pub generated_idempotency_retention: Duration,
    /// `IDEMPOTENCY_MAX_RECEIPTS_PER_SCOPE`.
    pub idempotency_max_receipts: u32,
    /// `TTL_SWEEP_INTERVAL_MS`.
    pub ttl_sweep_interval: Duration,
    /// `DEADLINE_SWEEP_INTERVAL_MS`.
    pub deadline_sweep_interval: Duration,
    /// `INVOCATION_PENDING_TIMEOUT_SECONDS`.
    pub pending_invocations: Duration,
    /// `SWEEPER_BATCH_SIZE`.
    pub sweep_batch: u32,
    /// `SERVICE_AGENT_LEASE_SECONDS`.
    pub service_lease: Duration,
    /// `SERVICE_LEASE_SWEEP_INTERVAL_MS`.
    pub lease_sweep_interval: Duration,
    /// `RETENTION_CLEANUP_INTERVAL_MS`.
    pub retention_interval: Duration,
    /// `RETENTION_CLEANUP_BATCH_SIZE`.
    pub retention_batch: u32,
    /// `SESSION_RETENTION_DAYS`.
    pub session_retention: Duration,
    /// `DELEGATION_RETENTION_DAYS`.
    pub delegation_retention: Duration,
}

/// What the Gateway is tuned by.
#[derive(Debug, Clone)]
pub struct GatewayTuning {
    /// `MAX_REQUEST_BYTES`.
    pub max_request_bytes: u64,
    /// `UPSTREAM_MAX_CONNECTIONS`.
    pub max_upstream_connections: usize,
    /// `STS_TIMEOUT`.
    pub sts_timeout: Duration,
    /// `UPSTREAM_TIMEOUT`.
    pub upstream_timeout: Duration,
    /// `READ_HEADER_TIMEOUT`.
    pub read_header_timeout: Duration,
    /// `READ_TIMEOUT`.
    pub read_timeout: Duration,
    /// `WRITE_TIMEOUT`.
    pub write_timeout: Duration,
    /// `STREAM_IDLE_TIMEOUT`.
    pub stream_idle_timeout: Duration,
    /// `IDLE_TIMEOUT`.
    pub idle_timeout: Duration,
    /// `TLS_CERT_FILE` and `TLS_KEY_FILE`.
    pub tls: Option<TlsFiles>,
    /// `GATEWAY_CLEARTEXT_HTTP2`.
    pub cleartext_http2: bool,
    /// `GATEWAY_OPERATOR_ADDRESS`.
    pub operator_address: Option<SocketAddr>,
    /// `AUDIT_REPLAY_DIR`.
    pub replay_dir: Option<PathBuf>,
}

/// Where a certificate and its key lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain in PEM form, leaf first.
    pub certificate: PathBuf,
    /// The leaf's key in PEM form.
    pub key: PathBuf,
}

impl ApiTuning {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        Self {
            body_limit: reader.number("API_BODY_LIMIT_BYTES", 1_048_576, 1),
            requests_per_minute: reader.number("API_V1_RATE_LIMIT_PER_MIN", 600, 0),
            auth_failures_per_minute: reader.number("ADMIN_AUTH_FAIL_LIMIT_PER_MIN", 60, 0),
            max_resources_per_zone: reader.number("API_MAX_RESOURCES_PER_ZONE", 100_000, 0),
            last_used_debounce: Duration::from_secs(u64::from(reader.number::<u32>(
                "ADMIN_TOKEN_LAST_USED_DEBOUNCE_SEC",
                60,
                0,
            ))),
            docs: reader.flag("API_ENABLE_DOCS", true),
        }
    }
}

impl CoordinatorTuning {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let seconds = |reader: &mut Reader<'_>, name, default, least| {
            Duration::from_secs(u64::from(reader.number::<u32>(name, default, least)))
        };
        let days = |reader: &mut Reader<'_>, name, default, least| seconds(reader, name, default, least) * 86_400;
        Self {
            body_limit: reader.number("COORDINATOR_BODY_LIMIT_BYTES", 262_144, 1_024),
            requests_per_minute: reader.number("COORDINATOR_RATE_LIMIT_PER_MIN", 600, 0),
            verifications_per_minute: reader.number("VERIFY_RATE_LIMIT_PER_MIN", 60, 0),
            invocations_per_minute: reader.number("INVOCATION_RATE_LIMIT_PER_MIN", 120, 0),
            max_sessions_per_zone: reader.number("MAX_AGENTS_PER_ZONE", 10_000, 0),
            max_sessions_per_application: reader.number("MAX_AGENTS_PER_APP", 1_000, 0),
            idempotency_retention: seconds(reader, "IDEMPOTENCY_RETENTION_SECONDS", 604_800, 3_600),
            generated_idempotency_retention: seconds(reader, "GENERATED_IDEMPOTENCY_RETENTION_SECONDS", 86_400, 3_600),
            idempotency_max_receipts: reader.number("IDEMPOTENCY_MAX_RECEIPTS_PER_SCOPE", 10_000, 100),
            ttl_sweep_interval: reader.milliseconds("TTL_SWEEP_INTERVAL_MS", 60_000, 1_000),
            deadline_sweep_interval: reader.milliseconds("DEADLINE_SWEEP_INTERVAL_MS", 5_000, 100),
            pending_invocations: seconds(reader, "INVOCATION_PENDING_TIMEOUT_SECONDS", 86_400, 1),
            sweep_batch: reader.number("SWEEPER_BATCH_SIZE", 500, 1),
            service_lease: seconds(reader, "SERVICE_AGENT_LEASE_SECONDS", 120, 1),
            lease_sweep_interval: reader.milliseconds("SERVICE_LEASE_SWEEP_INTERVAL_MS", 30_000, 1_000),
            retention_interval: reader.milliseconds("RETENTION_CLEANUP_INTERVAL_MS", 900_000, 1_000),
            retention_batch: reader.number("RETENTION_CLEANUP_BATCH_SIZE", 500, 1),
            session_retention: days(reader, "SESSION_RETENTION_DAYS", 90, 1),
            delegation_retention: days(reader, "DELEGATION_RETENTION_DAYS", 90, 1),
        }
    }
}

impl GatewayTuning {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let tuning = Self {
            max_request_bytes: reader.number("MAX_REQUEST_BYTES", 10_485_760, 1),
            max_upstream_connections: reader.number("UPSTREAM_MAX_CONNECTIONS", 1_000, 1),
            sts_timeout: reader.duration("STS_TIMEOUT", 5),
            upstream_timeout: reader.duration("UPSTREAM_TIMEOUT", 30),
            read_header_timeout: reader.duration("READ_HEADER_TIMEOUT", 5),
            read_timeout: reader.duration("READ_TIMEOUT", 45),
            write_timeout: reader.duration("WRITE_TIMEOUT", 60),
            stream_idle_timeout: reader.duration("STREAM_IDLE_TIMEOUT", 60),
            idle_timeout: reader.duration("IDLE_TIMEOUT", 120),
            tls: tls(reader),
            cleartext_http2: reader.flag("GATEWAY_CLEARTEXT_HTTP2", false),
            operator_address: operator_address(reader),
            replay_dir: reader.text("AUDIT_REPLAY_DIR").map(PathBuf::from),
        };
        // A request would time out while its exchange or its upstream is still in time.
        if tuning.read_timeout <= tuning.sts_timeout.saturating_add(tuning.upstream_timeout) {
            reader.mistake("READ_TIMEOUT", "must be longer than STS_TIMEOUT and UPSTREAM_TIMEOUT together".to_owned());
        }
        tuning
    }
}

/// Both files or none: with one of the two, somebody believes that calls are sealed, and they would not be.
fn tls(reader: &mut Reader<'_>) -> Option<TlsFiles> {
    let (certificate, key) = ("TLS_CERT_FILE", "TLS_KEY_FILE");
    match (reader.text(certificate), reader.text(key)) {
        (Some(certificate), Some(key)) => Some(TlsFiles { certificate: certificate.into(), key: key.into() }),
        (None, None) => None,
        (Some(_), None) => {
            reader.mistake(key, format!("is needed with {certificate}"));
            None
        }
        (None, Some(_)) => {
            reader.mistake(certificate, format!("is needed with {key}"));
            None
        }
    }
}

fn operator_address(reader: &mut Reader<'_>) -> Option<SocketAddr> {
    let name = "GATEWAY_OPERATOR_ADDRESS";
    let text = reader.text(name)?;
    let address = text.trim().parse().ok().filter(|address: &SocketAddr| address.port() > 0);
    if address.is_none() {
        reader.mistake(name, format!("`{text}` is no address with a port, such as 127.0.0.1:9081"));
    }
    address
}
