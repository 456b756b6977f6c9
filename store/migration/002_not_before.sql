-- When a dispatch that waits may be started, UTC text; null: at once.
ALTER TABLE dispatches ADD COLUMN not_before TEXT;
