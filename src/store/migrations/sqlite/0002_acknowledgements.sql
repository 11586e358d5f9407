-- Who asked for quiet about which certificate, why, and until when. The newest row of a certificate counts.
CREATE TABLE acknowledgements (
    seq          INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    id           TEXT    NOT NULL UNIQUE,
    organization TEXT    NOT NULL,
    certificate  TEXT    NOT NULL,
    reason       TEXT    NOT NULL,
    by_whom      TEXT,
    created_at   INTEGER NOT NULL,
    until        INTEGER NOT NULL,
    -- When the certificate was to expire then.
    expires_at   INTEGER,
    -- Where it ended before its date: when, and why.
    ended_at     INTEGER,
    ending       TEXT
) STRICT;
CREATE INDEX acknowledgements_by_certificate ON acknowledgements (organization, certificate, seq);

-- What was told of one certificate.
CREATE INDEX notification_subjects_by_subject ON notification_subjects (organization, subject);
