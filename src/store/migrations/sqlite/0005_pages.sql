-- The scan that what is known comes from: by no clock, which may have been wrong.
ALTER TABLE organizations ADD COLUMN scan_id TEXT;

-- For what is shown: when all was read for the last time, and what could not be delivered.
CREATE INDEX scans_by_completeness ON scans (organization, complete, finished_at);
CREATE INDEX deliveries_by_state ON deliveries (state, seq);
