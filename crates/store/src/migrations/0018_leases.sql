-- Management records of changes that run beside all others of their zone, until their chain has taken them.
CREATE TABLE waiting_changes (
  zone_id TEXT NOT NULL,
  id TEXT NOT NULL,
  record TEXT NOT NULL,
  PRIMARY KEY (zone_id, id)
) {table};

-- Lists are read newest first; sweeps look for what is past its time.
CREATE INDEX agent_sessions_listed_by_application ON agent_sessions (zone_id, application_id, id);
CREATE INDEX agent_sessions_listed_by_parent ON agent_sessions (zone_id, parent_id, id) WHERE parent_id IS NOT NULL;
CREATE INDEX delegation_edges_lapsing ON delegation_edges (zone_id, expires_at) WHERE status = 'active';
CREATE INDEX delegation_edges_expired ON delegation_edges (zone_id, expires_at) WHERE status = 'expired';
CREATE INDEX delegation_edges_ended ON delegation_edges (zone_id, revoked_at) WHERE revoked_at IS NOT NULL;
CREATE INDEX agent_sessions_ended_by_zone ON agent_sessions (zone_id, terminated_at) WHERE terminated_at IS NOT NULL;
