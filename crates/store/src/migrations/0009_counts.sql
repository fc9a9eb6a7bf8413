-- What a process that is alone counts and must still know after it is started again: wrong secrets and requests, by name.
-- Where several count together, they do so on the counter server, and nothing is here.
CREATE TABLE counts (
  name TEXT NOT NULL PRIMARY KEY,
  count {int} NOT NULL,
  began_at {int} NOT NULL,
  blocked {int} NOT NULL
) {table};
CREATE INDEX counts_age ON counts (began_at);
