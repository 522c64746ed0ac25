-- What keystile keeps, for PostgreSQL 12 or later, in a database whose encoding
-- is UTF8. Times are microseconds since the Unix epoch, in UTC, and NULL for
-- never. Texts are compared byte for byte, whatever the collation of the database.

CREATE TABLE keystile_users (
    org          TEXT    NOT NULL COLLATE "C",
    id           TEXT    NOT NULL COLLATE "C",
    email        TEXT    NOT NULL COLLATE "C",
    tier         TEXT    NOT NULL COLLATE "C",
    owner        BOOLEAN NOT NULL,
    permitted    BOOLEAN NOT NULL,
    suspended_at BIGINT,
    version      BIGINT  NOT NULL,
    PRIMARY KEY (org, id)
);

-- No reference to the users: a key outlives the row of its user, and is refused
-- without it.
CREATE TABLE keystile_keys (
    id          TEXT    NOT NULL COLLATE "C" PRIMARY KEY,
    digest      BYTEA   NOT NULL UNIQUE CHECK (octet_length(digest) = 32),
    org         TEXT    NOT NULL COLLATE "C",
    user_id     TEXT    NOT NULL COLLATE "C",
    name        TEXT    NOT NULL COLLATE "C",
    scopes      TEXT    NOT NULL COLLATE "C", -- a JSON array of strings
    daily_limit BIGINT  NOT NULL,
    created_at  BIGINT  NOT NULL, -- that of the year 1 if it is not known
    not_after   BIGINT,
    disabled_at BIGINT,
    revoked_at  BIGINT,
    revoked     BOOLEAN NOT NULL CHECK (NOT revoked OR revoked_at IS NOT NULL),
    family      TEXT    NOT NULL COLLATE "C",
    version     BIGINT  NOT NULL
);

CREATE INDEX keystile_keys_by_org ON keystile_keys (org, created_at, id);
CREATE INDEX keystile_keys_by_user ON keystile_keys (org, user_id, created_at, id);
CREATE INDEX keystile_keys_by_family ON keystile_keys (family);
CREATE INDEX keystile_keys_revoked ON keystile_keys (revoked_at) WHERE revoked_at IS NOT NULL;

CREATE TABLE keystile_settings (
    org             TEXT    NOT NULL COLLATE "C" PRIMARY KEY,
    max_age_seconds BIGINT  NOT NULL,
    allowed_ips     TEXT    COLLATE "C", -- one entry a line; NULL is no restriction
    restrict_users  BOOLEAN NOT NULL,
    version         BIGINT  NOT NULL
);

-- How much of a quota is spent, by window. A quota has the bytes of the family
-- that it belongs to. made numbers its windows in the order in which they were
-- made; those made at one moment can have the same number. Pages keep room for
-- the next version of a row, so that spending need not touch the index.
CREATE TABLE keystile_counts (
    quota      BYTEA  NOT NULL,
    window_end BIGINT NOT NULL,
    made       BIGINT NOT NULL,
    spent      BIGINT NOT NULL CHECK (spent >= 0),
    PRIMARY KEY (quota, window_end)
) WITH (fillfactor = 70);

-- addrs and days are JSON arrays, of at most 10 and 30 elements.
CREATE TABLE keystile_uses (
    key_id     TEXT   NOT NULL COLLATE "C" PRIMARY KEY,
    last_used  BIGINT NOT NULL,
    user_agent TEXT   NOT NULL COLLATE "C",
    addrs      TEXT   NOT NULL COLLATE "C",
    days       TEXT   NOT NULL COLLATE "C"
);

-- The feed of changes. Its numbers come from the one row of the sequence, which
-- a transaction updates last, so that they are in the order of the commits.
CREATE TABLE keystile_changes (
    seq     BIGINT  NOT NULL PRIMARY KEY,
    kind    INTEGER NOT NULL CHECK (kind BETWEEN 1 AND 255),
    digest  BYTEA   NOT NULL,
    org     TEXT    NOT NULL COLLATE "C",
    user_id TEXT    NOT NULL COLLATE "C"
);

CREATE TABLE keystile_sequence (
    one      INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    last_seq BIGINT  NOT NULL
);

INSERT INTO keystile_sequence (one, last_seq) VALUES (1, 0);
