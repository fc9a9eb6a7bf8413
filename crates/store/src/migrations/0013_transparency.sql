-- The key that signs checkpoints of a zone's tree: one for ever, as what it signed is held by others.
CREATE TABLE ledger_log_keys (
  zone_id TEXT NOT NULL PRIMARY KEY,
  key_id TEXT NOT NULL,
  verifier_key TEXT NOT NULL,
  sealed_private {blob} NOT NULL,
  created_at {int} NOT NULL
) {table};
-- How far the tree of a zone's evidence reaches, and the newest checkpoint over exactly that.
CREATE TABLE ledger_trees (
  zone_id TEXT NOT NULL PRIMARY KEY,
  size {int} NOT NULL,
  checkpoint TEXT NOT NULL,
  signed_at {int} NOT NULL
) {table};
-- Its hashes, 256 to a tile; the last tile of each level grows until it has so many.
CREATE TABLE ledger_tiles (
  zone_id TEXT NOT NULL,
  level {int} NOT NULL,
  position {int} NOT NULL,
  hashes {blob} NOT NULL,
  PRIMARY KEY (zone_id, level, position)
) {table};
