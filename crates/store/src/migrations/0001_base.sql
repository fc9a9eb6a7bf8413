-- {int} is a 64-bit integer, {blob} raw bytes, {table} and {wide} the engine's table options for narrow and wide rows. Times are microseconds since 1970 UTC,
-- booleans 0 or 1, JSON is text. Every table of a tenant carries its zone first in its key.

CREATE TABLE deployment (
  name TEXT NOT NULL PRIMARY KEY,
  value TEXT NOT NULL
) {table};

CREATE TABLE zones (
  id TEXT NOT NULL PRIMARY KEY,
  name TEXT NOT NULL,
  slug TEXT NOT NULL UNIQUE,
  dcr_enabled {int} NOT NULL,
  operator_coauthor_badge {int} NOT NULL,
  operator_governed {int} NOT NULL,
  created_by TEXT,
  created_via_operator {int} NOT NULL,
  updated_by TEXT,
  updated_via_operator {int},
  created_at {int} NOT NULL,
  updated_at {int} NOT NULL,
  archived_at {int}
) {table};
CREATE INDEX zones_listing ON zones (created_at, id);

-- Which console account a zone belongs to; most zones belong to none.
CREATE TABLE zone_owners (
  zone_id TEXT NOT NULL PRIMARY KEY,
  account TEXT NOT NULL
) {table};
CREATE INDEX zone_owners_by_account ON zone_owners (account, zone_id);

CREATE TABLE admin_tokens (
  id TEXT NOT NULL PRIMARY KEY,
  name TEXT NOT NULL,
  scope TEXT NOT NULL,
  capability TEXT NOT NULL,
  zone_id TEXT,
  token_digest TEXT NOT NULL UNIQUE,
  created_by TEXT NOT NULL,
  created_at {int} NOT NULL,
  last_used_at {int},
  revoked_at {int}
) {table};

CREATE TABLE applications (
  zone_id TEXT NOT NULL,
  id TEXT NOT NULL,
  name TEXT NOT NULL,
  registration_method TEXT NOT NULL,
  traits TEXT NOT NULL,
  secret_hash TEXT,
  expires_at {int},
  archived_at {int},
  created_by TEXT,
  created_via_operator {int} NOT NULL,
  updated_by TEXT,
  updated_via_operator {int},
  created_at {int} NOT NULL,
  updated_at {int},
  -- The name in lower case, by which two names that differ only in case are one.
  name_key TEXT NOT NULL,
  PRIMARY KEY (zone_id, id)
) {table};
CREATE UNIQUE INDEX applications_by_id ON applications (id);
CREATE INDEX applications_by_name ON applications (zone_id, name_key);
CREATE INDEX applications_listing ON applications (zone_id, created_at, id);

CREATE TABLE sealed_secrets (
  zone_id TEXT NOT NULL,
  reference TEXT NOT NULL,
  envelope {blob} NOT NULL,
  updated_at {int} NOT NULL,
  PRIMARY KEY (zone_id, reference)
) {wide};

CREATE TABLE providers (
  zone_id TEXT NOT NULL,
  id TEXT NOT NULL,
  name TEXT NOT NULL,
  identifier TEXT NOT NULL,
  kind TEXT NOT NULL,
  config_json TEXT NOT NULL,
  secret_config_keys TEXT NOT NULL,
  connectivity_failed_at {int},
  created_by TEXT,
  created_via_operator {int} NOT NULL,
  updated_by TEXT,
  updated_via_operator {int},
  created_at {int} NOT NULL,
  updated_at {int} NOT NULL,
  archived_at {int},
  PRIMARY KEY (zone_id, id)
) {table};
CREATE UNIQUE INDEX providers_by_identifier ON providers (zone_id, identifier) WHERE archived_at IS NULL;

CREATE TABLE resources (
  zone_id TEXT NOT NULL,
  id TEXT NOT NULL,
  name TEXT NOT NULL,
  identifier TEXT NOT NULL,
  upstream_url TEXT,
  scopes TEXT NOT NULL,
  credential_provider_id TEXT,
  operations TEXT NOT NULL,
  operation_enforcement TEXT NOT NULL,
  created_by TEXT,
  created_via_operator {int} NOT NULL,
  updated_by TEXT,
  updated_via_operator {int},
  created_at {int} NOT NULL,
  updated_at {int} NOT NULL,
  archived_at {int},
  PRIMARY KEY (zone_id, id)
) {table};
CREATE UNIQUE INDEX resources_by_identifier ON resources (zone_id, identifier) WHERE archived_at IS NULL;
CREATE INDEX resources_any_identifier ON resources (zone_id, identifier);

CREATE TABLE policies (
  zone_id TEXT NOT NULL,
  id TEXT NOT NULL,
  name TEXT NOT NULL,
  description TEXT,
  created_by TEXT,
  created_via_operator {int} NOT NULL,
  updated_by TEXT,
  updated_via_operator {int},
  created_at {int} NOT NULL,
  updated_at {int} NOT NULL,
  archived_at {int},
  PRIMARY KEY (zone_id, id)
) {table};
CREATE UNIQUE INDEX policies_by_name ON policies (zone_id, name) WHERE archived_at IS NULL;

CREATE TABLE policy_versions (
  zone_id TEXT NOT NULL,
  id TEXT NOT NULL,
  policy_id TEXT NOT NULL,
  version {int} NOT NULL,
  content TEXT NOT NULL,
  content_sha256 TEXT NOT NULL,
  schema_version TEXT NOT NULL,
  created_by TEXT,
  created_via_operator {int} NOT NULL,
  created_at {int} NOT NULL,
  PRIMARY KEY (zone_id, id)
) {wide};
CREATE UNIQUE INDEX policy_versions_by_number ON policy_versions (zone_id, policy_id, version);

CREATE TABLE policy_sets (
  zone_id TEXT NOT NULL,
  id TEXT NOT NULL,
  name TEXT NOT NULL,
  description TEXT,
  created_by TEXT,
  created_via_operator {int} NOT NULL,
  updated_by TEXT,
  updated_via_operator {int},
  created_at {int} NOT NULL,
  updated_at {int} NOT NULL,
  archived_at {int},
  PRIMARY KEY (zone_id, id)
) {table};
CREATE UNIQUE INDEX policy_sets_by_name ON policy_sets (zone_id, name) WHERE archived_at IS NULL;

CREATE TABLE policy_set_versions (
  zone_id TEXT NOT NULL,
  id TEXT NOT NULL,
  policy_set_id TEXT NOT NULL,
  version {int} NOT NULL,
  manifest_json TEXT NOT NULL,
  manifest_sha256 TEXT NOT NULL,
  schema_version TEXT NOT NULL,
  created_by TEXT,
  created_via_operator {int} NOT NULL,
  created_at {int} NOT NULL,
  PRIMARY KEY (zone_id, id)
) {wide};
CREATE UNIQUE INDEX policy_set_versions_by_number ON policy_set_versions (zone_id, policy_set_id, version);

-- The key makes a second active set in one zone impossible (policy.md, security property 10).
CREATE TABLE active_policy_sets (
  zone_id TEXT NOT NULL PRIMARY KEY,
  policy_set_id TEXT NOT NULL,
  version_id TEXT NOT NULL,
  activated_at {int} NOT NULL,
  announced_by TEXT
) {table};

CREATE TABLE signing_keys (
  zone_id TEXT NOT NULL,
  kid TEXT NOT NULL,
  version {int} NOT NULL,
  public_x TEXT NOT NULL,
  public_y TEXT NOT NULL,
  sealed_private {blob} NOT NULL,
  created_at {int} NOT NULL,
  PRIMARY KEY (zone_id, kid)
) {table};
CREATE UNIQUE INDEX signing_keys_by_version ON signing_keys (zone_id, version);

CREATE TABLE authority_records (
  zone_id TEXT NOT NULL,
  id TEXT NOT NULL,
  kind TEXT NOT NULL,
  subject_id TEXT NOT NULL,
  client_id TEXT NOT NULL,
  use_class TEXT NOT NULL,
  jti TEXT NOT NULL,
  status TEXT NOT NULL,
  parent_id TEXT,
  agent_session_id TEXT,
  delegation_edge_id TEXT,
  expires_at {int} NOT NULL,
  created_at {int} NOT NULL,
  revoked_at {int},
  revoked_reason TEXT,
  PRIMARY KEY (zone_id, id)
) {table};
CREATE UNIQUE INDEX authority_records_by_jti ON authority_records (zone_id, jti);
CREATE INDEX authority_records_by_parent ON authority_records (zone_id, parent_id) WHERE parent_id IS NOT NULL;
CREATE INDEX authority_records_by_client ON authority_records (zone_id, client_id, status, expires_at);
CREATE INDEX authority_records_by_subject ON authority_records (zone_id, subject_id, status);
CREATE INDEX authority_records_revoked ON authority_records (revoked_at) WHERE revoked_at IS NOT NULL;

-- One row per consumed one-shot mandate. The key is what makes use single (difference D35).
CREATE TABLE used_mandates (
  zone_id TEXT NOT NULL,
  jti TEXT NOT NULL,
  request_id TEXT NOT NULL,
  used_at {int} NOT NULL,
  expires_at {int} NOT NULL,
  PRIMARY KEY (zone_id, jti)
) {table};
CREATE INDEX used_mandates_expiry ON used_mandates (expires_at);

CREATE TABLE gateway_nonces (
  nonce TEXT NOT NULL PRIMARY KEY,
  expires_at {int} NOT NULL
) {table};
CREATE INDEX gateway_nonces_expiry ON gateway_nonces (expires_at);

CREATE TABLE agent_sessions (
  zone_id TEXT NOT NULL,
  id TEXT NOT NULL,
  application_id TEXT NOT NULL,
  parent_id TEXT,
  subject_record_id TEXT NOT NULL,
  lifecycle TEXT NOT NULL,
  labels TEXT NOT NULL,
  metadata TEXT NOT NULL,
  status TEXT NOT NULL,
  depth {int} NOT NULL,
  ttl_seconds {int},
  started_at {int} NOT NULL,
  last_active_at {int} NOT NULL,
  last_heartbeat_at {int},
  heartbeat_deadline_at {int},
  lease_generation {int} NOT NULL,
  terminated_at {int},
  termination_reason TEXT,
  updated_at {int} NOT NULL,
  -- Until when it counts against the limits; none once it has ended. The greatest instant while a service is suspended.
  capacity_until {int},
  PRIMARY KEY (zone_id, id)
) {table};
CREATE INDEX agent_sessions_running ON agent_sessions (zone_id, capacity_until) WHERE capacity_until IS NOT NULL;
CREATE INDEX agent_sessions_running_by_application ON agent_sessions (zone_id, application_id, capacity_until)
  WHERE capacity_until IS NOT NULL;
CREATE INDEX agent_sessions_running_by_parent ON agent_sessions (zone_id, parent_id, capacity_until)
  WHERE capacity_until IS NOT NULL;
CREATE INDEX agent_sessions_running_by_record ON agent_sessions (zone_id, subject_record_id)
  WHERE capacity_until IS NOT NULL;
CREATE INDEX agent_sessions_by_application ON agent_sessions (zone_id, application_id, status);
CREATE INDEX agent_sessions_by_parent ON agent_sessions (zone_id, parent_id) WHERE parent_id IS NOT NULL;
CREATE INDEX agent_sessions_by_record ON agent_sessions (zone_id, subject_record_id);
CREATE INDEX agent_sessions_by_status ON agent_sessions (zone_id, status);
CREATE INDEX agent_sessions_ended ON agent_sessions (terminated_at) WHERE terminated_at IS NOT NULL;

-- Running sessions per application, and of the zone in the row whose application is empty. Lapsed ones are among them until
-- they are ended, so this is the most that can hold a slot: below a limit nobody has to count.
CREATE TABLE session_counts (
  zone_id TEXT NOT NULL,
  application_id TEXT NOT NULL,
  running {int} NOT NULL,
  PRIMARY KEY (zone_id, application_id)
) {table};

CREATE TABLE delegation_edges (
  zone_id TEXT NOT NULL,
  id TEXT NOT NULL,
  source_session_id TEXT NOT NULL,
  target_session_id TEXT NOT NULL,
  issuer_application_id TEXT NOT NULL,
  receiver_application_id TEXT NOT NULL,
  parent_edge_id TEXT,
  mirrored {int} NOT NULL,
  resource_id TEXT,
  scopes TEXT NOT NULL,
  constraints_json TEXT NOT NULL,
  status TEXT NOT NULL,
  expires_at {int} NOT NULL,
  edge_version {int} NOT NULL,
  broad_reason TEXT,
  revoked_at {int},
  created_at {int} NOT NULL,
  PRIMARY KEY (zone_id, id)
) {table};
CREATE INDEX delegation_edges_by_source ON delegation_edges (zone_id, source_session_id, status);
CREATE INDEX delegation_edges_by_target ON delegation_edges (zone_id, target_session_id, status);
CREATE INDEX delegation_edges_by_parent ON delegation_edges (zone_id, parent_edge_id) WHERE parent_edge_id IS NOT NULL;
CREATE INDEX delegation_edges_active_by_parent ON delegation_edges (zone_id, parent_edge_id) WHERE status = 'active';
CREATE INDEX delegation_edges_revoked ON delegation_edges (revoked_at) WHERE revoked_at IS NOT NULL;

CREATE TABLE delegation_epochs (
  zone_id TEXT NOT NULL PRIMARY KEY,
  epoch {int} NOT NULL
) {table};

CREATE TABLE idempotency_receipts (
  zone_id TEXT NOT NULL,
  operation TEXT NOT NULL,
  application_id TEXT NOT NULL,
  key_digest TEXT NOT NULL,
  request_digest TEXT NOT NULL,
  entity_id TEXT NOT NULL,
  generated {int} NOT NULL,
  status {int} NOT NULL,
  response TEXT NOT NULL,
  created_at {int} NOT NULL,
  expires_at {int} NOT NULL,
  PRIMARY KEY (zone_id, operation, application_id, key_digest)
) {wide};
CREATE INDEX idempotency_receipts_expiry ON idempotency_receipts (expires_at);
CREATE INDEX idempotency_receipts_explicit ON idempotency_receipts (zone_id, operation, application_id, expires_at)
  WHERE generated = 0;

-- The evidence ledger: append-only, one chain per zone. Only the ledger writes the four chain columns.
CREATE TABLE audit_events (
  zone_id TEXT NOT NULL,
  chain_seq {int} NOT NULL,
  id TEXT NOT NULL,
  event_type TEXT NOT NULL,
  request_id TEXT NOT NULL,
  decision TEXT NOT NULL,
  policy_set_id TEXT NOT NULL,
  policy_set_version_id TEXT NOT NULL,
  manifest_sha TEXT NOT NULL,
  evaluation_status TEXT NOT NULL,
  determining_policies TEXT NOT NULL,
  diagnostics TEXT NOT NULL,
  metadata TEXT NOT NULL,
  occurred_at {int} NOT NULL,
  ingested_at {int} NOT NULL,
  content_sha256 TEXT NOT NULL,
  prev_content_sha256 TEXT,
  chain_hmac TEXT NOT NULL,
  PRIMARY KEY (zone_id, chain_seq)
) {wide};
CREATE UNIQUE INDEX audit_events_identity ON audit_events (zone_id, id, occurred_at);
CREATE INDEX audit_events_by_request ON audit_events (zone_id, request_id);
CREATE INDEX audit_events_by_time ON audit_events (zone_id, occurred_at, id);

CREATE TABLE audit_heads (
  zone_id TEXT NOT NULL PRIMARY KEY,
  chain_seq {int} NOT NULL,
  content_sha256 TEXT NOT NULL
) {table};

-- Management evidence: its own chain per zone; `chain` is the zone id, or `(none)` for records without a zone.
CREATE TABLE admin_audit_events (
  chain TEXT NOT NULL,
  chain_seq {int} NOT NULL,
  id TEXT NOT NULL,
  request_id TEXT NOT NULL,
  actor_id TEXT,
  actor_name TEXT,
  actor_scope TEXT,
  action TEXT NOT NULL,
  method TEXT NOT NULL,
  path TEXT NOT NULL,
  zone_id TEXT,
  entity_type TEXT,
  entity_id TEXT,
  status_code {int} NOT NULL,
  payload TEXT,
  occurred_at {int} NOT NULL,
  content_sha256 TEXT NOT NULL,
  prev_content_sha256 TEXT,
  chain_hmac TEXT NOT NULL,
  PRIMARY KEY (chain, chain_seq)
) {wide};

CREATE TABLE admin_audit_heads (
  chain TEXT NOT NULL PRIMARY KEY,
  chain_seq {int} NOT NULL,
  content_sha256 TEXT NOT NULL
) {table};

CREATE TABLE outbox (
  id TEXT NOT NULL PRIMARY KEY,
  zone_id TEXT NOT NULL,
  topic TEXT NOT NULL,
  dedupe_key TEXT NOT NULL,
  payload TEXT NOT NULL,
  attempts {int} NOT NULL,
  last_error TEXT,
  created_at {int} NOT NULL,
  dispatched_at {int}
) {wide};
CREATE UNIQUE INDEX outbox_dedupe ON outbox (topic, dedupe_key);
CREATE INDEX outbox_pending ON outbox (created_at, id) WHERE dispatched_at IS NULL;
CREATE INDEX outbox_by_zone ON outbox (zone_id, topic, created_at);
