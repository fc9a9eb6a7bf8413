-- The last transaction that each connection committed, by which a commit whose answer was lost is found again. Numbers of
-- transactions alone do not do: a server that crashed gives some of them out twice. Rewritten in place by every change.
CREATE TABLE last_commits (
  connection TEXT NOT NULL PRIMARY KEY,
  transaction BIGINT NOT NULL,
  at BIGINT NOT NULL
) WITH (fillfactor = 40);
