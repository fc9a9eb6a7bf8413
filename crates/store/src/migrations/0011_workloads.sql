-- What is launched with credentials in its environment: how it proves itself, and which variable gets which credential.
CREATE TABLE workloads (
  zone_id TEXT NOT NULL,
  id TEXT NOT NULL,
  name TEXT NOT NULL,
  secret_hash TEXT NOT NULL,
  bindings TEXT NOT NULL,
  created_by TEXT,
  created_via_operator {int} NOT NULL,
  updated_by TEXT,
  updated_via_operator {int},
  created_at {int} NOT NULL,
  updated_at {int},
  -- The name in lower case, by which two names that differ only in case are one.
  name_key TEXT NOT NULL,
  PRIMARY KEY (zone_id, id)
) {wide};
CREATE UNIQUE INDEX workloads_by_id ON workloads (id);
CREATE UNIQUE INDEX workloads_by_name ON workloads (zone_id, name_key);
CREATE INDEX workloads_listing ON workloads (zone_id, created_at, id);
