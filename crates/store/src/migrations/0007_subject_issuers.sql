-- Identity providers whose users a zone takes in, and where a user's record says which of them vouched.
CREATE TABLE subject_issuers (
  zone_id TEXT NOT NULL,
  id TEXT NOT NULL,
  issuer TEXT NOT NULL,
  jwks_url TEXT NOT NULL,
  audience TEXT NOT NULL,
  created_by TEXT,
  created_via_operator {int} NOT NULL,
  updated_by TEXT,
  updated_via_operator {int},
  created_at {int} NOT NULL,
  updated_at {int} NOT NULL,
  archived_at {int},
  PRIMARY KEY (zone_id, id)
) {table};
CREATE UNIQUE INDEX subject_issuers_by_issuer ON subject_issuers (zone_id, issuer) WHERE archived_at IS NULL;

ALTER TABLE authority_records ADD COLUMN provenance TEXT;
