-- Which audit key a seal was made with, so that the key can be replaced: its public name, not the key. None where the seal
-- is older than this column.
ALTER TABLE audit_events ADD COLUMN key_id TEXT;
ALTER TABLE audit_heads ADD COLUMN key_id TEXT;
ALTER TABLE admin_audit_events ADD COLUMN key_id TEXT;
ALTER TABLE admin_audit_heads ADD COLUMN key_id TEXT;
ALTER TABLE audit_anchors ADD COLUMN key_id TEXT;
