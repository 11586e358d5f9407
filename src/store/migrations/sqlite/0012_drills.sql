-- The latest drill of each receiver, and its confirmation.
CREATE TABLE drills (
    notifier        TEXT    NOT NULL,
    receiver        TEXT    NOT NULL,
    notification_id TEXT    NOT NULL,
    sent_at         INTEGER NOT NULL,
    -- The first drill since the latest confirmation, and the time by which it must be confirmed.
    waiting_since   INTEGER,
    confirm_by      INTEGER,
    confirmed_at    INTEGER,
    -- The latest time to close the incident of the drill.
    closes_at       INTEGER,
    PRIMARY KEY (notifier, receiver)
) STRICT;

-- The schedule of drills: the scheduled time up to which they have started, and the time at which
-- somebody asked for one.
CREATE TABLE drill_schedule (
    id       INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    cron     TEXT NOT NULL,
    tick     INTEGER NOT NULL,
    asked_at INTEGER
) STRICT;
