-- Messages on their way to the streams. `position` is the order in which a zone's changes were made; `urgency` 0 overtakes 1.
-- A message is due from `due_at` on; a dead one waits for somebody to look.
ALTER TABLE outbox ADD COLUMN urgency {int} NOT NULL DEFAULT 1;
ALTER TABLE outbox ADD COLUMN due_at {int} NOT NULL DEFAULT 0;
ALTER TABLE outbox ADD COLUMN dead_at {int};
DROP INDEX outbox_pending;
CREATE INDEX outbox_dead ON outbox (zone_id, dead_at) WHERE dead_at IS NOT NULL;
