-- What a message is: news, a catch_up of receivers that join, or a refresh of what was told before.
ALTER TABLE notifications ADD COLUMN kind TEXT NOT NULL DEFAULT 'news';
UPDATE notifications SET kind = 'catch_up' WHERE catch_up = 1;
ALTER TABLE notifications DROP COLUMN catch_up;
