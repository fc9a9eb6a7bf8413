-- A page of a listing is found by where it begins. What is archived and what is not are listed apart, and neither pays for the other.
DROP INDEX applications_listing;
CREATE INDEX applications_listed ON applications (zone_id, created_at, id) WHERE archived_at IS NULL;
CREATE INDEX applications_archived ON applications (zone_id, created_at, id) WHERE archived_at IS NOT NULL;
CREATE INDEX providers_listed ON providers (zone_id, created_at, id) WHERE archived_at IS NULL;
CREATE INDEX providers_archived ON providers (zone_id, created_at, id) WHERE archived_at IS NOT NULL;
CREATE INDEX resources_listed ON resources (zone_id, created_at, id) WHERE archived_at IS NULL;
CREATE INDEX resources_archived ON resources (zone_id, created_at, id) WHERE archived_at IS NOT NULL;
CREATE INDEX policies_listed ON policies (zone_id, created_at, id) WHERE archived_at IS NULL;
CREATE INDEX policy_sets_listed ON policy_sets (zone_id, created_at, id) WHERE archived_at IS NULL;
CREATE INDEX policy_set_versions_listed ON policy_set_versions (zone_id, policy_set_id, created_at, id);
CREATE INDEX subject_issuers_listed ON subject_issuers (zone_id, created_at, id) WHERE archived_at IS NULL;
DROP INDEX zones_listing;
CREATE INDEX zones_listed ON zones (created_at, id) WHERE archived_at IS NULL;
