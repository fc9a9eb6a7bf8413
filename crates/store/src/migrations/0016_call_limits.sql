-- What calls of a resource may take, where that is less or other than the Gateway's own limits; nothing where they hold.
ALTER TABLE resources ADD COLUMN limits TEXT;
