-- Run after every migration, in its transaction: what the role of a running system may do with what there is now.
DO $$
BEGIN
  IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'caracal_runtime') THEN
    CREATE ROLE caracal_runtime NOLOGIN;
  END IF;
EXCEPTION
  -- Roles belong to the whole server: another database of it may be set up at this moment.
  WHEN duplicate_object OR unique_violation THEN NULL;
END
$$;
DO $$
BEGIN
  EXECUTE format('GRANT USAGE ON SCHEMA %I TO caracal_runtime', current_schema());
  IF NOT pg_has_role(session_user, 'caracal_runtime', 'MEMBER') THEN
    EXECUTE format('GRANT caracal_runtime TO %I', session_user);
  END IF;
EXCEPTION
  -- Whoever migrates need not be the one that runs.
  WHEN insufficient_privilege THEN NULL;
END
$$;
DO $$
DECLARE
  place record;
BEGIN
  FOR place IN
    SELECT t.relname AS name FROM pg_class t JOIN pg_namespace n ON n.oid = t.relnamespace
    WHERE n.nspname = current_schema() AND t.relkind = 'r'
      AND pg_has_role(session_user, t.relowner, 'MEMBER')
  LOOP
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO caracal_runtime', place.name);
    -- Trees of the ledger grow, and nothing of them goes.
    IF place.name IN ('ledger_log_keys', 'ledger_tiles', 'ledger_trees') THEN
      EXECUTE format('REVOKE DELETE, TRUNCATE ON %I FROM caracal_runtime', place.name);
    END IF;
  END LOOP;
  REVOKE UPDATE, DELETE, TRUNCATE ON audit_events, admin_audit_events, policy_versions, policy_set_versions
    FROM caracal_runtime;
  IF to_regclass('audit_anchors') IS NOT NULL THEN
    REVOKE UPDATE, DELETE, TRUNCATE ON audit_anchors FROM caracal_runtime;
  END IF;
  REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON schema_migrations FROM caracal_runtime;
  -- A statement that speaks for no zone sees nothing and writes nothing; `*` speaks for the deployment.
  FOR place IN
    SELECT t.relname AS name, a.attname AS zone
    FROM pg_class t JOIN pg_namespace n ON n.oid = t.relnamespace JOIN pg_attribute a ON a.attrelid = t.oid
    WHERE n.nspname = current_schema() AND t.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
      AND ((a.attname = 'zone_id' AND t.relname NOT IN ('zone_versions', 'admin_audit_events'))
        OR (a.attname = 'id' AND t.relname = 'zones')
        OR (a.attname = 'chain' AND t.relname IN ('admin_audit_events', 'admin_audit_heads')))
  LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', place.name);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', place.name);
    EXECUTE format('DROP POLICY IF EXISTS of_one_zone ON %I', place.name);
    EXECUTE format(
      'CREATE POLICY of_one_zone ON %I USING (current_setting(''caracal.zone'', true) = ''*''
         OR %I = current_setting(''caracal.zone'', true))', place.name, place.zone);
  END LOOP;
END
$$;
