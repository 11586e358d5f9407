-- The word for deliveries whose notifier or receiver was removed.
UPDATE deliveries SET state = 'cancelled' WHERE state = 'abandoned';
UPDATE compatibility SET version = 5;
