-- A tree only grows: what a checkpoint was signed over is not taken back, not even by this process.
CREATE TRIGGER ledger_trees_only_grow BEFORE UPDATE ON ledger_trees
WHEN NEW.zone_id IS NOT OLD.zone_id OR NEW.size <= OLD.size
BEGIN SELECT RAISE(ABORT, 'the tree of a ledger only grows'); END;
CREATE TRIGGER ledger_trees_are_not_removed BEFORE DELETE ON ledger_trees
BEGIN SELECT RAISE(ABORT, 'the tree of a ledger only grows'); END;
CREATE TRIGGER ledger_tiles_only_grow BEFORE UPDATE ON ledger_tiles
WHEN NEW.zone_id IS NOT OLD.zone_id OR NEW.level <> OLD.level OR NEW.position <> OLD.position
  OR substr(NEW.hashes, 1, length(OLD.hashes)) IS NOT OLD.hashes
BEGIN SELECT RAISE(ABORT, 'the tree of a ledger only grows'); END;
CREATE TRIGGER ledger_tiles_are_not_removed BEFORE DELETE ON ledger_tiles
BEGIN SELECT RAISE(ABORT, 'the tree of a ledger only grows'); END;
