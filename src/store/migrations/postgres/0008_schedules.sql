-- The cron schedules other than that of scans: the scheduled time up to which each job has run, the
-- time of its latest run, and the time at which somebody asked for it.
CREATE TABLE schedules (
    job      TEXT NOT NULL PRIMARY KEY,
    cron     TEXT NOT NULL,
    tick     BIGINT NOT NULL,
    asked_at BIGINT,
    ran_at   BIGINT
);

INSERT INTO schedules (job, cron, tick, asked_at)
SELECT 'drill', cron, tick, asked_at FROM drill_schedule;

DROP TABLE drill_schedule;
UPDATE compatibility SET version = 8;
