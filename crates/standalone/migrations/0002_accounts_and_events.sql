-- Seats and evaluation of a key. Without seats any number of installations may use it.
ALTER TABLE api_key ADD COLUMN seats INTEGER;
ALTER TABLE api_key ADD COLUMN evaluation_started_at INTEGER;
ALTER TABLE api_key ADD COLUMN evaluation_ended_at INTEGER;
ALTER TABLE api_key ADD COLUMN convert_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE api_key ADD COLUMN convert_limit_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE api_key ADD COLUMN convert_warned INTEGER NOT NULL DEFAULT 0;
ALTER TABLE api_key ADD COLUMN cdc_seconds INTEGER NOT NULL DEFAULT 0;
ALTER TABLE api_key ADD COLUMN cdc_limit_seconds INTEGER NOT NULL DEFAULT 0;
ALTER TABLE api_key ADD COLUMN cdc_warned INTEGER NOT NULL DEFAULT 0;

-- Installations that have used a key for stream operations.
CREATE TABLE install (
    key TEXT NOT NULL REFERENCES api_key (id) ON DELETE CASCADE,
    id TEXT NOT NULL,
    first_seen INTEGER NOT NULL,
    last_seen INTEGER NOT NULL,
    active INTEGER NOT NULL,
    PRIMARY KEY (key, id)
) STRICT;

-- What runs have said, so that it can be read after a restart.
CREATE TABLE run_event (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    stream TEXT NOT NULL,
    level INTEGER NOT NULL,
    document TEXT NOT NULL
) STRICT;
CREATE INDEX run_event_by_stream ON run_event (stream, sequence);
