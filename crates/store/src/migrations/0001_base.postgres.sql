-- What a change of authority moves: see version.rs. The deployment's version is in the row without a zone.
CREATE TABLE zone_versions (
  zone_id TEXT NOT NULL PRIMARY KEY,
  version BIGINT NOT NULL
);
-- Evidence can be added and read, never changed or removed, not even by the tables' owner in passing
-- (audit-and-streams.md, property 4). Published versions are immutable for ever (policy.md §10.6).
CREATE FUNCTION caracal_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% can only be added to', TG_TABLE_NAME;
END
$$;
CREATE TRIGGER is_not_changed BEFORE UPDATE OR DELETE ON audit_events
  FOR EACH ROW EXECUTE FUNCTION caracal_refuse_change();
CREATE TRIGGER is_not_emptied BEFORE TRUNCATE ON audit_events
  FOR EACH STATEMENT EXECUTE FUNCTION caracal_refuse_change();
CREATE TRIGGER is_not_changed BEFORE UPDATE OR DELETE ON admin_audit_events
  FOR EACH ROW EXECUTE FUNCTION caracal_refuse_change();
CREATE TRIGGER is_not_emptied BEFORE TRUNCATE ON admin_audit_events
  FOR EACH STATEMENT EXECUTE FUNCTION caracal_refuse_change();
CREATE TRIGGER is_not_changed BEFORE UPDATE OR DELETE ON policy_versions
  FOR EACH ROW EXECUTE FUNCTION caracal_refuse_change();
CREATE TRIGGER is_not_changed BEFORE UPDATE OR DELETE ON policy_set_versions
  FOR EACH ROW EXECUTE FUNCTION caracal_refuse_change();
