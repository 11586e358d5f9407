-- How fast a notifier may go: by when, in Unix microseconds, its allowance is whole again.
CREATE TABLE rates (
    notifier TEXT    NOT NULL PRIMARY KEY,
    whole_at INTEGER NOT NULL
) STRICT;

-- Of which scans it was last said, to whoever watches certvigil, that all is well: their ids, in JSON.
CREATE TABLE heartbeats (
    name TEXT NOT NULL PRIMARY KEY,
    said TEXT NOT NULL
) STRICT;

-- For what is claimed next.
CREATE INDEX deliveries_due ON deliveries (notifier, seq) WHERE state = 'pending';
