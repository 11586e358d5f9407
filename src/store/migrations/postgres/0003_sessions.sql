-- Random keys of this state. They are worth nothing without the tokens of the configuration.
CREATE TABLE keys (
    name  TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);

-- The sessions that somebody signed out of, until they would have ended by themselves, in Unix milliseconds.
CREATE TABLE ended_sessions (
    id    TEXT   COLLATE "C" NOT NULL PRIMARY KEY,
    until BIGINT NOT NULL
);
