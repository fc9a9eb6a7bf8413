ALTER TABLE outbox ADD COLUMN position INTEGER NOT NULL DEFAULT 0;
CREATE INDEX outbox_waiting ON outbox (urgency, position, created_at, id) WHERE dispatched_at IS NULL AND dead_at IS NULL;
