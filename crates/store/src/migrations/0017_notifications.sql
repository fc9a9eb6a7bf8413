-- Where a zone's approval events are sent. `position` is the last event of the zone's chain that was looked at for this
-- sink; `due_at` is when its oldest open delivery is to be tried, and while it is being tried, when that may be taken over.
CREATE TABLE notification_sinks (
  zone_id TEXT NOT NULL,
  id TEXT NOT NULL,
  name TEXT NOT NULL,
  url TEXT NOT NULL,
  event_types TEXT NOT NULL,
  secret {blob} NOT NULL,
  active {int} NOT NULL,
  position {int} NOT NULL,
  due_at {int},
  consecutive_failures {int} NOT NULL,
  last_success_at {int},
  last_failure_at {int},
  last_error TEXT,
  created_at {int} NOT NULL,
  updated_at {int} NOT NULL,
  PRIMARY KEY (zone_id, id)
) {table};
CREATE INDEX notification_sinks_listed ON notification_sinks (zone_id, created_at, id);
CREATE INDEX notification_sinks_due ON notification_sinks (due_at) WHERE due_at IS NOT NULL;

-- One event on its way to one sink. Open ones are tried in the order of the chain.
CREATE TABLE notification_deliveries (
  zone_id TEXT NOT NULL,
  id TEXT NOT NULL,
  sink_id TEXT NOT NULL,
  event_seq {int} NOT NULL,
  event_id TEXT NOT NULL,
  event_type TEXT NOT NULL,
  attempts {int} NOT NULL,
  available_at {int} NOT NULL,
  delivered_at {int},
  abandoned_at {int},
  response_status {int},
  last_error TEXT,
  created_at {int} NOT NULL,
  PRIMARY KEY (zone_id, id)
) {table};
CREATE UNIQUE INDEX notification_deliveries_once ON notification_deliveries (zone_id, sink_id, event_seq);
CREATE INDEX notification_deliveries_open ON notification_deliveries (zone_id, sink_id, event_seq)
  WHERE delivered_at IS NULL AND abandoned_at IS NULL;
CREATE INDEX notification_deliveries_listed ON notification_deliveries (zone_id, sink_id, created_at, id);
CREATE INDEX notification_deliveries_settled ON notification_deliveries ((COALESCE(delivered_at, abandoned_at)));

-- Consents under way at a provider's authorization endpoint. The state itself is kept nowhere, only its digest.
CREATE TABLE oauth_states (
  zone_id TEXT NOT NULL,
  digest TEXT NOT NULL,
  subject_id TEXT NOT NULL,
  provider_id TEXT NOT NULL,
  verifier {blob} NOT NULL,
  expires_at {int} NOT NULL,
  created_at {int} NOT NULL,
  PRIMARY KEY (zone_id, digest)
) {table};
CREATE UNIQUE INDEX oauth_states_by_digest ON oauth_states (digest);
CREATE INDEX oauth_states_expiring ON oauth_states (expires_at);
