-- Services that applications offer to agents, and what agents ask of them.
CREATE TABLE agent_services (
  zone_id TEXT NOT NULL,
  id TEXT NOT NULL,
  application_id TEXT NOT NULL,
  endpoint_url TEXT NOT NULL,
  protocol_versions TEXT NOT NULL,
  framework_name TEXT,
  framework_version TEXT,
  capabilities TEXT NOT NULL,
  health TEXT NOT NULL,
  metadata TEXT NOT NULL,
  last_heartbeat_at {int},
  created_at {int} NOT NULL,
  updated_at {int} NOT NULL,
  PRIMARY KEY (zone_id, id)
) {table};
CREATE UNIQUE INDEX agent_services_by_endpoint ON agent_services (zone_id, application_id, endpoint_url);

CREATE TABLE invocations (
  zone_id TEXT NOT NULL,
  id TEXT NOT NULL,
  service_id TEXT NOT NULL,
  service_application_id TEXT NOT NULL,
  acting_application_id TEXT NOT NULL,
  source_session_id TEXT,
  target_session_id TEXT,
  method TEXT NOT NULL,
  params TEXT NOT NULL,
  metadata TEXT NOT NULL,
  status TEXT NOT NULL,
  attempts {int} NOT NULL,
  max_attempts {int} NOT NULL,
  backoff_ms {int} NOT NULL,
  timeout_ms {int} NOT NULL,
  deadline_at {int},
  cancel_requested_at {int},
  started_at {int},
  completed_at {int},
  error TEXT,
  created_at {int} NOT NULL,
  updated_at {int} NOT NULL,
  PRIMARY KEY (zone_id, id)
) {wide};
CREATE INDEX invocations_by_service ON invocations (zone_id, service_id, id);
CREATE INDEX invocations_by_owner ON invocations (zone_id, service_application_id, id);
CREATE INDEX invocations_by_actor ON invocations (zone_id, acting_application_id, id);
CREATE INDEX invocations_under_way ON invocations (zone_id, deadline_at) WHERE status IN ('running', 'cancel_requested');
CREATE INDEX invocations_by_status ON invocations (status);

-- What lends now is listed zone by zone, however many delegations have ended.
CREATE INDEX delegation_edges_active ON delegation_edges (zone_id, id) WHERE status = 'active';
