-- What is known of an organization, in parts: its certificates, its lists and its projects, each in rows of JSON. What is
-- in `organizations.inventory` is the rest. A part that has not changed is not written again.
CREATE TABLE inventory_parts (
    organization TEXT   COLLATE "C" NOT NULL REFERENCES organizations (name) ON DELETE CASCADE,
    kind         TEXT   COLLATE "C" NOT NULL,
    part         BIGINT NOT NULL,
    content      TEXT   NOT NULL,
    PRIMARY KEY (organization, kind, part)
);

-- Who does not know the parts does not know what is known.
UPDATE compatibility SET version = 2;
