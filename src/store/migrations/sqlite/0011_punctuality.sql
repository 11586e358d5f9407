-- For the share of new alerts that were delivered on time.
CREATE INDEX deliveries_due_at ON deliveries (due_at) WHERE due_at IS NOT NULL;
