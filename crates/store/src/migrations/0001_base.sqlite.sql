-- Evidence can be added and read, never changed or removed, not even by this process (audit-and-streams.md, property 4).
CREATE TRIGGER audit_events_are_not_changed BEFORE UPDATE ON audit_events
BEGIN SELECT RAISE(ABORT, 'evidence is append-only'); END;
CREATE TRIGGER audit_events_are_not_removed BEFORE DELETE ON audit_events
BEGIN SELECT RAISE(ABORT, 'evidence is append-only'); END;
CREATE TRIGGER admin_audit_events_are_not_changed BEFORE UPDATE ON admin_audit_events
BEGIN SELECT RAISE(ABORT, 'evidence is append-only'); END;
CREATE TRIGGER admin_audit_events_are_not_removed BEFORE DELETE ON admin_audit_events
BEGIN SELECT RAISE(ABORT, 'evidence is append-only'); END;
-- Published versions are immutable for ever (policy.md §10.6).
CREATE TRIGGER policy_versions_are_not_changed BEFORE UPDATE ON policy_versions
BEGIN SELECT RAISE(ABORT, 'policy versions are immutable'); END;
CREATE TRIGGER policy_versions_are_not_removed BEFORE DELETE ON policy_versions
BEGIN SELECT RAISE(ABORT, 'policy versions are immutable'); END;
CREATE TRIGGER policy_set_versions_are_not_changed BEFORE UPDATE ON policy_set_versions
BEGIN SELECT RAISE(ABORT, 'policy set versions are immutable'); END;
CREATE TRIGGER policy_set_versions_are_not_removed BEFORE DELETE ON policy_set_versions
BEGIN SELECT RAISE(ABORT, 'policy set versions are immutable'); END;
