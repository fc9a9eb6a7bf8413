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
