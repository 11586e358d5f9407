-- For what is shown: when all was read for the last time, and what could not be delivered.
CREATE INDEX scans_by_completeness ON scans (organization, complete, tick);
CREATE INDEX deliveries_by_state ON deliveries (state, seq);
