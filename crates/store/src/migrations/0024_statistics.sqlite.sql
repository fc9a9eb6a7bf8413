-- What the planner is to take for granted, instead of what it would guess without: that a zone has many records, sessions and edges, and a
-- subject, a session or an edge has few of them. Guessing, it takes a zone's rows for ten, and would rather walk a zone than go by
-- an index. Each line is an index (a table of rows within their key goes by its own name), how many rows there are, and how many have the
-- same first column, the same first two, and so on. Of orders of magnitude, not of any system: plans must not depend on what is in the store.
-- There are more rows than a recursion is taken to look up, or the engine would read all of them into a filter first.
ANALYZE deployment;
DELETE FROM sqlite_stat1;
INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES
  ('authority_records', 'authority_records', '16000000 100000 1'),
  ('authority_records', 'authority_records_by_client', '16000000 100000 10000 5000 1'),
  ('authority_records', 'authority_records_by_jti', '16000000 100000 1'),
  ('authority_records', 'authority_records_by_parent', '8000000 50000 4'),
  ('authority_records', 'authority_records_by_subject', '16000000 100000 100 50'),
  ('authority_records', 'authority_records_listing', '16000000 100000 1 1'),
  ('authority_records', 'authority_records_revoked', '10000 2'),
  ('agent_sessions', 'agent_sessions', '16000000 100000 1'),
  ('agent_sessions', 'agent_sessions_by_application', '16000000 100000 10000 5000'),
  ('agent_sessions', 'agent_sessions_by_parent', '8000000 50000 8'),
  ('agent_sessions', 'agent_sessions_by_record', '16000000 100000 2'),
  ('agent_sessions', 'agent_sessions_by_status', '16000000 100000 30000'),
  ('agent_sessions', 'agent_sessions_ended', '16000 2'),
  ('agent_sessions', 'agent_sessions_ended_by_zone', '16000 1000 2'),
  ('agent_sessions', 'agent_sessions_listed_by_application', '16000000 100000 10000 1'),
  ('agent_sessions', 'agent_sessions_listed_by_parent', '8000000 50000 8 1'),
  ('agent_sessions', 'agent_sessions_listing', '16000000 100000 1 1'),
  ('agent_sessions', 'agent_sessions_running', '50000 5000 1'),
  ('agent_sessions', 'agent_sessions_running_by_application', '50000 5000 500 1'),
  ('agent_sessions', 'agent_sessions_running_by_parent', '25000 2500 8 1'),
  ('agent_sessions', 'agent_sessions_running_by_record', '50000 5000 2'),
  ('delegation_edges', 'delegation_edges', '16000000 100000 1'),
  ('delegation_edges', 'delegation_edges_active', '1600000 10000 1'),
  ('delegation_edges', 'delegation_edges_active_by_parent', '1600000 10000 4'),
  ('delegation_edges', 'delegation_edges_by_parent', '8000000 50000 4'),
  ('delegation_edges', 'delegation_edges_by_source', '16000000 100000 8 4'),
  ('delegation_edges', 'delegation_edges_by_target', '16000000 100000 8 4'),
  ('delegation_edges', 'delegation_edges_ended', '16000 1000 2'),
  ('delegation_edges', 'delegation_edges_expired', '16000 1000 2'),
  ('delegation_edges', 'delegation_edges_lapsing', '1600000 10000 2'),
  ('delegation_edges', 'delegation_edges_revoked', '16000 2'),
  ('approvals', 'approvals', '16000000 10000 1'),
  ('approvals', 'approvals_by_binding', '16000000 10000 1'),
  ('approvals', 'approvals_by_id', '16000000 1'),
  ('approvals', 'approvals_by_time', '16000000 10000 1 1'),
  ('approvals', 'approvals_end', '16000000 2'),
  ('approvals', 'approvals_live', '1000 100 10 2 1'),
  ('provider_connections', 'provider_connections', '16000000 10000 1'),
  ('provider_connections', 'provider_connections_active', '1600000 10000 1000 1'),
  ('provider_connections', 'provider_connections_listed', '16000000 10000 1 1'),
  ('notification_deliveries', 'notification_deliveries', '16000000 100000 1'),
  ('notification_deliveries', 'notification_deliveries_listed', '16000000 100000 20000 1 1'),
  ('notification_deliveries', 'notification_deliveries_once', '16000000 100000 20000 1'),
  ('notification_deliveries', 'notification_deliveries_open', '1000 100 50 1'),
  ('notification_deliveries', 'notification_deliveries_settled', '16000000 2');
ANALYZE sqlite_schema;
