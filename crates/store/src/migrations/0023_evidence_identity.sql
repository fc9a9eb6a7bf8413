-- One index says when an event was and that it is there once: each row of the hottest table is in one tree less.
DROP INDEX audit_events_identity;
DROP INDEX audit_events_by_time;
CREATE UNIQUE INDEX audit_events_identity ON audit_events (zone_id, occurred_at, id);
