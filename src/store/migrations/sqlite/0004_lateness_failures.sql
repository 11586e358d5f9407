-- How far the API's clock was ahead of ours, in milliseconds, where that was too much.
ALTER TABLE scans ADD COLUMN clock_skew INTEGER;

-- Since when there was something to tell, of what is told for the first time; settled_at, where it is
-- delivered, less this is how late it was.
ALTER TABLE deliveries ADD COLUMN due_at INTEGER;

-- The receivers whose attempts fail: since when, and the latest error. One that takes something has none, but for
-- a refusal, which is kept until the next failure or the next day.
CREATE TABLE failures (
    notifier TEXT    NOT NULL,
    receiver TEXT    NOT NULL,
    since    INTEGER NOT NULL,
    last_at  INTEGER NOT NULL,
    outcome  TEXT    NOT NULL,
    detail   TEXT    NOT NULL,
    -- Whether it refused something for good.
    refused  INTEGER NOT NULL,
    -- When it has taken something since.
    taken_at INTEGER,
    PRIMARY KEY (notifier, receiver)
) STRICT;
