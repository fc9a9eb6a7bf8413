-- Row-level security holds for whoever migrates, too.
SELECT set_config('caracal.zone', '*', true);
INSERT INTO policy_announcements (zone_id, outbox_id, policy_set_id, version_id, created_at)
  SELECT zone_id, announced_by, policy_set_id, version_id, activated_at FROM active_policy_sets WHERE announced_by IS NOT NULL;
ALTER TABLE active_policy_sets DROP COLUMN announced_by;
