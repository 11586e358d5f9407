-- The latest drill of each receiver, and its confirmation.
CREATE TABLE drills (
    notifier        TEXT COLLATE "C" NOT NULL,
    receiver        TEXT COLLATE "C" NOT NULL,
    notification_id TEXT    NOT NULL,
    sent_at         BIGINT  NOT NULL,
    -- The first drill since the latest confirmation, and the time by which it must be confirmed.
    waiting_since   BIGINT,
    confirm_by      BIGINT,
    confirmed_at    BIGINT,
    -- The latest time to close the incident of the drill.
    closes_at       BIGINT,
    PRIMARY KEY (notifier, receiver)
);

-- The schedule of drills: the scheduled time up to which they have started, and the time at which
-- somebody asked for one.
CREATE TABLE drill_schedule (
    id       BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    cron     TEXT NOT NULL,
    tick     BIGINT NOT NULL,
    asked_at BIGINT
);
