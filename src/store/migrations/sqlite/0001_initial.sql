-- Instants are Unix milliseconds (UTC). Texts in JSON are the domain's own models.

-- What is known of each organization after its latest scan.
CREATE TABLE organizations (
    name       TEXT    NOT NULL PRIMARY KEY,
    inventory  TEXT    NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

CREATE TABLE scans (
    id                  TEXT    NOT NULL PRIMARY KEY,
    organization        TEXT    NOT NULL,
    tick                INTEGER NOT NULL,
    started_at          INTEGER NOT NULL,
    finished_at         INTEGER NOT NULL,
    complete            INTEGER NOT NULL,
    projects_read       INTEGER NOT NULL,
    projects_unreadable INTEGER NOT NULL,
    certificates        INTEGER NOT NULL,
    requests            INTEGER NOT NULL,
    faults              TEXT    NOT NULL
) STRICT;
CREATE INDEX scans_by_organization ON scans (organization, tick);

-- The outbox: one row for each message to one notifier.
CREATE TABLE notifications (
    id           TEXT    NOT NULL PRIMARY KEY,
    organization TEXT    NOT NULL,
    notifier     TEXT    NOT NULL,
    created_at   INTEGER NOT NULL,
    -- Whether it tells a new receiver all that is open, and so makes it up to date.
    catch_up     INTEGER NOT NULL,
    summary      TEXT    NOT NULL,
    model        TEXT    NOT NULL
) STRICT;

-- What a notification tells of, so that nothing later of the same subject overtakes it.
CREATE TABLE notification_subjects (
    notification_id TEXT NOT NULL REFERENCES notifications (id) ON DELETE CASCADE,
    organization    TEXT NOT NULL,
    subject         TEXT NOT NULL,
    PRIMARY KEY (notification_id, subject)
) STRICT;

-- One row for each receiver of a notification.
CREATE TABLE deliveries (
    seq             INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    id              TEXT    NOT NULL UNIQUE,
    notification_id TEXT    NOT NULL REFERENCES notifications (id) ON DELETE CASCADE,
    notifier        TEXT    NOT NULL,
    receiver        TEXT    NOT NULL,
    state           TEXT    NOT NULL,
    created_at      INTEGER NOT NULL,
    give_up_at      INTEGER NOT NULL,
    attempts        INTEGER NOT NULL DEFAULT 0,
    next_attempt_at INTEGER NOT NULL,
    lease_until     INTEGER,
    settled_at      INTEGER
) STRICT;
CREATE INDEX deliveries_by_notification ON deliveries (notification_id);
CREATE INDEX deliveries_pending ON deliveries (notifier, receiver, seq) WHERE state = 'pending';

CREATE TABLE attempts (
    delivery_id TEXT    NOT NULL REFERENCES deliveries (id) ON DELETE CASCADE,
    number      INTEGER NOT NULL,
    at          INTEGER NOT NULL,
    outcome     TEXT    NOT NULL,
    detail      TEXT    NOT NULL,
    PRIMARY KEY (delivery_id, number)
) STRICT;

-- What each notifier was told. The latest row of a subject that was not withdrawn counts; one without
-- `told` says that it is over. A message that reached nobody is withdrawn: then it was not told.
CREATE TABLE ledger (
    seq             INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    organization    TEXT    NOT NULL,
    notifier        TEXT    NOT NULL,
    subject         TEXT    NOT NULL,
    told            TEXT,
    at              INTEGER NOT NULL,
    notification_id TEXT,
    withdrawn       INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX ledger_by_subject ON ledger (organization, notifier, subject, seq);
CREATE INDEX ledger_by_notification ON ledger (notification_id);

-- The receivers of a notifier that are up to date with an organization; any other is told of all that
-- is open.
CREATE TABLE receivers (
    organization TEXT    NOT NULL,
    notifier     TEXT    NOT NULL,
    receiver     TEXT    NOT NULL,
    since        INTEGER NOT NULL,
    PRIMARY KEY (organization, notifier, receiver)
) STRICT;
