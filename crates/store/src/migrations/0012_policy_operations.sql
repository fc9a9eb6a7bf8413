-- Who may be represented by which application: no decision reads it, and revoking one ends its user's records.
CREATE TABLE delegated_grants (
  zone_id TEXT NOT NULL,
  id TEXT NOT NULL,
  application_id TEXT NOT NULL,
  user_id TEXT NOT NULL,
  resource_id TEXT NOT NULL,
  scopes TEXT NOT NULL,
  status TEXT NOT NULL,
  created_by TEXT,
  created_via_operator {int} NOT NULL,
  updated_by TEXT,
  updated_via_operator {int},
  created_at {int} NOT NULL,
  updated_at {int},
  PRIMARY KEY (zone_id, id)
) {table};
CREATE INDEX delegated_grants_listed ON delegated_grants (zone_id, created_at, id);

-- Which message announced which activation: it may be asked about after it was delivered and its row deleted.
CREATE TABLE policy_announcements (
  zone_id TEXT NOT NULL,
  outbox_id TEXT NOT NULL,
  policy_set_id TEXT NOT NULL,
  version_id TEXT NOT NULL,
  created_at {int} NOT NULL,
  PRIMARY KEY (zone_id, outbox_id)
) {table};
CREATE INDEX policy_announcements_newest ON policy_announcements (zone_id, policy_set_id, version_id, created_at, outbox_id);

-- Processes that decide. One that has not been seen for a while is none any more.
CREATE TABLE sts_replicas (
  id TEXT NOT NULL PRIMARY KEY,
  started_at {int} NOT NULL,
  seen_at {int} NOT NULL
) {table};

-- What each of them has loaded of a zone, as it said last.
CREATE TABLE loaded_policies (
  zone_id TEXT NOT NULL,
  replica_id TEXT NOT NULL,
  policy_set_version_id TEXT,
  manifest_sha256 TEXT NOT NULL,
  loaded_at {int},
  error TEXT,
  checked_at {int} NOT NULL,
  PRIMARY KEY (zone_id, replica_id)
) {table};
