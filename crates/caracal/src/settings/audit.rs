//! What the evidence service is tuned by, under the contract's names (audit-and-streams.md §10).

use std::time::Duration;

use caracal_audit::Thresholds;

use super::export::ExportSettings;
use super::variables::Reader;

/// What the evidence service is tuned by. What a variable does stands with the field of the service's own configuration.
#[derive(Debug, Clone)]
pub struct AuditTuning {
    /// `AUDIT_RETENTION_DAYS`.
    pub retention_days: u32,
    /// `HOSTNAME`.
    pub consumer_name: String,
    /// `AUDIT_MAX_DELIVERIES`.
    pub max_deliveries: u64,
    /// `AUDIT_CLAIM_IDLE_SECS`.
    pub claim_idle: Duration,
    /// `AUDIT_READY_DLQ_MAX`, `AUDIT_READY_LAG_MAX`, `AUDIT_READY_PEL_OLDEST_SECS_MAX`.
    pub thresholds: Thresholds,
    /// `AUDIT_EXPORT_S3_BUCKET` or `AUDIT_EXPORT_DIR`, and what belongs to it.
    pub export: ExportSettings,
}

impl AuditTuning {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        // Off is said by leaving it out: a threshold of 0 would be a service that is never ready.
        let threshold = |reader: &mut Reader<'_>, name| reader.text(name).map(|_| reader.number(name, 1, 1));
        Self {
            retention_days: reader.number("AUDIT_RETENTION_DAYS", 365, 1),
            consumer_name: reader
                .text("HOSTNAME")
                .filter(|name| !name.trim().is_empty())
                .unwrap_or_else(|| "audit-worker-0".to_owned()),
            max_deliveries: reader.number("AUDIT_MAX_DELIVERIES", 8, 1),
            claim_idle: Duration::from_secs(u64::from(reader.number::<u32>("AUDIT_CLAIM_IDLE_SECS", 30, 1))),
            thresholds: Thresholds {
                dead: threshold(reader, "AUDIT_READY_DLQ_MAX"),
                lag: threshold(reader, "AUDIT_READY_LAG_MAX"),
                oldest_pending_secs: threshold(reader, "AUDIT_READY_PEL_OLDEST_SECS_MAX"),
            },
            export: ExportSettings::read(reader),
        }
    }
}
