-- A management record whose commit was not answered is tried again under its id, and must not be there twice.
CREATE UNIQUE INDEX admin_audit_events_identity ON admin_audit_events (chain, id);
