-- Accounts at providers, with their sealed tokens. `version` moves with every change of the tokens; whoever has the lease
-- is the one that asks for new ones, and what became of the last asking is told to those who waited.
CREATE TABLE provider_connections (
  zone_id TEXT NOT NULL,
  id TEXT NOT NULL,
  subject_id TEXT NOT NULL,
  provider_id TEXT NOT NULL,
  status TEXT NOT NULL,
  access_token {blob} NOT NULL,
  refresh_token {blob},
  expires_at {int},
  refreshed_at {int},
  version {int} NOT NULL,
  lease_holder TEXT,
  lease_until {int},
  refresh_failed_at {int},
  created_at {int} NOT NULL,
  updated_at {int} NOT NULL,
  PRIMARY KEY (zone_id, id)
) {table};
CREATE UNIQUE INDEX provider_connections_active ON provider_connections (zone_id, provider_id, subject_id) WHERE status = 'active';
CREATE INDEX provider_connections_listed ON provider_connections (zone_id, created_at, id);
