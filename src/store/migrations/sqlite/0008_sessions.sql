-- Random keys of this state. They are worth nothing without the tokens of the configuration.
CREATE TABLE keys (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

-- The sessions that somebody signed out of, until they would have ended by themselves, in Unix milliseconds.
CREATE TABLE ended_sessions (
    id    TEXT    NOT NULL PRIMARY KEY,
    until INTEGER NOT NULL
) STRICT;
