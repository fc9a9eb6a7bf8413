-- Given out under the zone's lock, so within a zone it is the order of commits.
ALTER TABLE outbox ADD COLUMN position BIGINT GENERATED ALWAYS AS IDENTITY;
CREATE INDEX outbox_waiting ON outbox (urgency, position, created_at, id) WHERE dispatched_at IS NULL AND dead_at IS NULL;
