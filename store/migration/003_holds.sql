-- A hold that was set beside the others (POST /holds) is lifted alone: a pause does not go on with it.
ALTER TABLE holds ADD COLUMN own INTEGER DEFAULT 0;
