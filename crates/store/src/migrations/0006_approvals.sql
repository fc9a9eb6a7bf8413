-- Holds: requests that wait for a human. `record_id` is empty, not absent, where none was asked with, so that two such
-- requests meet under the index that makes the live hold of a request single. A hold is live until it was spent, or until
-- it has expired and another one takes its place.
CREATE TABLE approvals (
  zone_id TEXT NOT NULL,
  id TEXT NOT NULL,
  principal_id TEXT NOT NULL,
  principal_kind TEXT NOT NULL,
  record_id TEXT NOT NULL,
  application_id TEXT,
  agent_session_id TEXT,
  delegation_edge_id TEXT,
  requesting TEXT NOT NULL,
  tier TEXT NOT NULL,
  approver_class TEXT NOT NULL,
  privacy_mode TEXT NOT NULL,
  subject_anchor TEXT,
  binding TEXT NOT NULL,
  metadata TEXT NOT NULL,
  created_at {int} NOT NULL,
  expires_at {int} NOT NULL,
  approved_at {int},
  rejected_at {int},
  approver_id TEXT,
  approver_record_id TEXT,
  decision_reason TEXT,
  consumed_at {int},
  consumed_record_id TEXT,
  is_live {int} NOT NULL,
  PRIMARY KEY (zone_id, id)
) {table};
CREATE UNIQUE INDEX approvals_live ON approvals (zone_id, principal_id, record_id, binding) WHERE is_live = 1;
-- Whoever polls knows the id and nothing else.
CREATE UNIQUE INDEX approvals_by_id ON approvals (id);
CREATE INDEX approvals_by_time ON approvals (zone_id, created_at, id);
CREATE INDEX approvals_by_binding ON approvals (zone_id, binding);
CREATE INDEX approvals_end ON approvals (expires_at);
