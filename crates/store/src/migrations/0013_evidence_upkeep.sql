-- Where a chain begins once its oldest rows were removed: the last row that is gone, sealed with the audit key.
CREATE TABLE audit_anchors (
  zone_id TEXT NOT NULL,
  chain_seq {int} NOT NULL,
  content_sha256 TEXT NOT NULL,
  older_than {int} NOT NULL,
  created_at {int} NOT NULL,
  seal TEXT NOT NULL,
  PRIMARY KEY (zone_id, chain_seq)
) {table};

-- How far each zone's chain was exported, and how far the object goes that is being written.
CREATE TABLE audit_exports (
  zone_id TEXT NOT NULL PRIMARY KEY,
  exported_seq {int} NOT NULL,
  planned_seq {int} NOT NULL
) {table};
