-- Signing keys that an operator withdrew because they may be in other hands. Their rows are gone; this says that nothing
-- they signed is to be believed, to those who know of the key and missed the message.
CREATE TABLE withdrawn_keys (
  zone_id TEXT NOT NULL,
  kid TEXT NOT NULL,
  withdrawn_at {int} NOT NULL,
  PRIMARY KEY (zone_id, kid)
) {table};
CREATE INDEX withdrawn_keys_by_time ON withdrawn_keys (withdrawn_at);
