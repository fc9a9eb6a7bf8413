-- A key is published before it signs. Those that there are have no successor: they have always signed.
ALTER TABLE signing_keys ADD COLUMN signs_from {int} NOT NULL DEFAULT 0;
