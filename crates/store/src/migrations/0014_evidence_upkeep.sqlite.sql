-- Evidence leaves at its old end only, and only behind an anchor that says what was there.
DROP TRIGGER audit_events_are_not_removed;
CREATE TRIGGER audit_events_are_not_removed BEFORE DELETE ON audit_events
WHEN NOT EXISTS (SELECT 1 FROM audit_anchors a WHERE a.zone_id = OLD.zone_id AND a.chain_seq >= OLD.chain_seq)
BEGIN SELECT RAISE(ABORT, 'evidence is append-only'); END;
CREATE TRIGGER audit_anchors_are_not_changed BEFORE UPDATE ON audit_anchors
BEGIN SELECT RAISE(ABORT, 'anchors are append-only'); END;
CREATE TRIGGER audit_anchors_are_not_removed BEFORE DELETE ON audit_anchors
BEGIN SELECT RAISE(ABORT, 'anchors are append-only'); END;
