-- Whether whoever asked named the pause between two attempts. Invocations of before are not held to one that was only assumed.
ALTER TABLE invocations ADD COLUMN backoff_named {int} NOT NULL DEFAULT 0;
-- What nobody has begun, longest waiting first.
CREATE INDEX invocations_waiting ON invocations (zone_id, created_at) WHERE status = 'pending';
