-- An acknowledgement may be of a project, too.
ALTER TABLE acknowledgements RENAME COLUMN certificate TO subject;
UPDATE acknowledgements SET subject = 'certificate:' || subject;
DROP INDEX acknowledgements_by_certificate;
CREATE INDEX acknowledgements_by_subject ON acknowledgements (organization, subject, seq);
UPDATE compatibility SET version = 4;
