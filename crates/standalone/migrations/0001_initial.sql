-- What users define, and the history of runs. Documents are JSON in the form of `millrace-core`; what is searched or guarded has a column.
CREATE TABLE connection (
    id TEXT PRIMARY KEY,
    created INTEGER NOT NULL,
    document TEXT NOT NULL
) STRICT;

-- Secrets stand apart from their connection, sealed with the key file of the data directory.
CREATE TABLE connection_secret (
    connection TEXT NOT NULL REFERENCES connection (id) ON DELETE CASCADE,
    path TEXT NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (connection, path)
) STRICT;

CREATE TABLE config (
    id TEXT PRIMARY KEY,
    created INTEGER NOT NULL,
    document TEXT NOT NULL
) STRICT;

-- Which connections a config uses; the foreign key keeps a used connection from being deleted.
CREATE TABLE config_connection (
    config TEXT NOT NULL REFERENCES config (id) ON DELETE CASCADE,
    connection TEXT NOT NULL REFERENCES connection (id),
    PRIMARY KEY (config, connection)
) STRICT;

CREATE TABLE stream (
    id TEXT PRIMARY KEY,
    config TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    unfinished INTEGER NOT NULL,
    document TEXT NOT NULL
) STRICT;
CREATE INDEX stream_by_config ON stream (config, started_at);

-- The gate: at most one stream is unfinished.
CREATE UNIQUE INDEX stream_gate ON stream (unfinished) WHERE unfinished = 1;

CREATE TABLE api_key (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    hash BLOB NOT NULL UNIQUE,
    subscription TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    revoked_at INTEGER
) STRICT;

CREATE TABLE setting (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;
