-- Evidence leaves at its old end only, and only behind an anchor that says what was there.
CREATE FUNCTION caracal_refuse_removal() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT 1 FROM audit_anchors a WHERE a.zone_id = OLD.zone_id AND a.chain_seq >= OLD.chain_seq) THEN
    RETURN OLD;
  END IF;
  RAISE EXCEPTION '% can only be added to', TG_TABLE_NAME;
END
$$;
DROP TRIGGER is_not_changed ON audit_events;
CREATE TRIGGER is_not_changed BEFORE UPDATE ON audit_events
  FOR EACH ROW EXECUTE FUNCTION caracal_refuse_change();
CREATE TRIGGER is_not_removed BEFORE DELETE ON audit_events
  FOR EACH ROW EXECUTE FUNCTION caracal_refuse_removal();
CREATE TRIGGER is_not_changed BEFORE UPDATE OR DELETE ON audit_anchors
  FOR EACH ROW EXECUTE FUNCTION caracal_refuse_change();
CREATE TRIGGER is_not_emptied BEFORE TRUNCATE ON audit_anchors
  FOR EACH STATEMENT EXECUTE FUNCTION caracal_refuse_change();
-- The role of a running system may remove nothing itself. This does so for it, as the owner, within what the trigger
-- and the zone of the caller's statement allow.
CREATE FUNCTION caracal_remove_anchored(of_zone text, most bigint) RETURNS bigint LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
  removed bigint;
BEGIN
  DELETE FROM audit_events WHERE zone_id = of_zone AND chain_seq IN (
    SELECT chain_seq FROM audit_events WHERE zone_id = of_zone
      AND chain_seq <= (SELECT max(chain_seq) FROM audit_anchors WHERE zone_id = of_zone)
    ORDER BY chain_seq LIMIT most);
  GET DIAGNOSTICS removed = ROW_COUNT;
  RETURN removed;
END
$$;
