-- A tree only grows: what a checkpoint was signed over is not taken back, not even by the tables' owner in passing.
CREATE FUNCTION caracal_tree_grows() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'UPDATE' AND TG_TABLE_NAME = 'ledger_trees' THEN
    IF NEW.zone_id = OLD.zone_id AND NEW.size > OLD.size THEN
      RETURN NEW;
    END IF;
  ELSIF TG_OP = 'UPDATE' THEN
    IF NEW.zone_id = OLD.zone_id AND NEW.level = OLD.level AND NEW.position = OLD.position
      AND substr(NEW.hashes, 1, length(OLD.hashes)) = OLD.hashes THEN
      RETURN NEW;
    END IF;
  END IF;
  RAISE EXCEPTION '% only grows', TG_TABLE_NAME;
END
$$;
CREATE TRIGGER only_grows BEFORE UPDATE OR DELETE ON ledger_trees
  FOR EACH ROW EXECUTE FUNCTION caracal_tree_grows();
CREATE TRIGGER is_not_emptied BEFORE TRUNCATE ON ledger_trees
  FOR EACH STATEMENT EXECUTE FUNCTION caracal_refuse_change();
CREATE TRIGGER only_grows BEFORE UPDATE OR DELETE ON ledger_tiles
  FOR EACH ROW EXECUTE FUNCTION caracal_tree_grows();
CREATE TRIGGER is_not_emptied BEFORE TRUNCATE ON ledger_tiles
  FOR EACH STATEMENT EXECUTE FUNCTION caracal_refuse_change();
