-- When an admin token stops by itself; none: when it is revoked.
ALTER TABLE admin_tokens ADD COLUMN expires_at {int};
CREATE INDEX admin_tokens_listing ON admin_tokens (created_at, id);
CREATE INDEX admin_tokens_by_zone ON admin_tokens (zone_id) WHERE zone_id IS NOT NULL;
-- What operators page through, newest first.
CREATE INDEX authority_records_listing ON authority_records (zone_id, created_at, id);
CREATE INDEX agent_sessions_listing ON agent_sessions (zone_id, started_at, id);
CREATE INDEX admin_audit_events_by_time ON admin_audit_events (chain, occurred_at, id);
-- Self-registered applications whose time is over.
CREATE INDEX applications_expiry ON applications (expires_at) WHERE expires_at IS NOT NULL AND archived_at IS NULL;
