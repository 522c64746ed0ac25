-- What keystile keeps, for SQLite 3.37 or later. Times are microseconds since
-- the Unix epoch, in UTC, and NULL for never.

CREATE TABLE keystile_users (
    org          TEXT    NOT NULL,
    id           TEXT    NOT NULL,
    email        TEXT    NOT NULL,
    tier         TEXT    NOT NULL,
    owner        INTEGER NOT NULL CHECK (owner IN (0, 1)),
    permitted    INTEGER NOT NULL CHECK (permitted IN (0, 1)),
    suspended_at INTEGER,
    version      INTEGER NOT NULL,
    PRIMARY KEY (org, id)
) STRICT, WITHOUT ROWID;

-- No reference to the users: a key outlives the row of its user, and is refused
-- without it.
CREATE TABLE keystile_keys (
    id          TEXT    NOT NULL PRIMARY KEY,
    digest      BLOB    NOT NULL UNIQUE CHECK (length(digest) = 32),
    org         TEXT    NOT NULL,
    user_id     TEXT    NOT NULL,
    name        TEXT    NOT NULL,
    scopes      TEXT    NOT NULL, -- a JSON array of strings
    daily_limit INTEGER NOT NULL,
    created_at  INTEGER NOT NULL, -- that of the year 1 if it is not known
    not_after   INTEGER,
    disabled_at INTEGER,
    revoked_at  INTEGER,
    revoked     INTEGER NOT NULL CHECK (revoked IN (0, 1) AND (revoked = 0 OR revoked_at IS NOT NULL)),
    family      TEXT    NOT NULL,
    version     INTEGER NOT NULL
) STRICT;

CREATE INDEX keystile_keys_by_org ON keystile_keys (org, created_at, id);
CREATE INDEX keystile_keys_by_user ON keystile_keys (org, user_id, created_at, id);
CREATE INDEX keystile_keys_by_family ON keystile_keys (family);
CREATE INDEX keystile_keys_revoked ON keystile_keys (revoked_at) WHERE revoked_at IS NOT NULL;

CREATE TABLE keystile_settings (
    org             TEXT    NOT NULL PRIMARY KEY,
    max_age_seconds INTEGER NOT NULL,
    allowed_ips     TEXT, -- one entry a line; NULL is no restriction
    restrict_users  INTEGER NOT NULL CHECK (restrict_users IN (0, 1)),
    version         INTEGER NOT NULL
) STRICT;

-- How much of a quota is spent, by window. A quota has the bytes of the family
-- that it belongs to. made numbers its windows in the order in which they were
-- made.
CREATE TABLE keystile_counts (
    quota      BLOB    NOT NULL,
    window_end INTEGER NOT NULL,
    made       INTEGER NOT NULL,
    spent      INTEGER NOT NULL CHECK (spent >= 0),
    PRIMARY KEY (quota, window_end)
) STRICT, WITHOUT ROWID;

-- addrs and days are JSON arrays, of at most 10 and 30 elements.
CREATE TABLE keystile_uses (
    key_id     TEXT    NOT NULL PRIMARY KEY,
    last_used  INTEGER NOT NULL,
    user_agent TEXT    NOT NULL,
    addrs      TEXT    NOT NULL,
    days       TEXT    NOT NULL
) STRICT;

-- The feed of changes. Its numbers come from the one row of the sequence, which
-- a transaction updates last, so that they are in the order of the commits.
CREATE TABLE keystile_changes (
    seq     INTEGER NOT NULL PRIMARY KEY,
    kind    INTEGER NOT NULL CHECK (kind BETWEEN 1 AND 255),
    digest  BLOB    NOT NULL,
    org     TEXT    NOT NULL,
    user_id TEXT    NOT NULL
) STRICT;

CREATE TABLE keystile_sequence (
    one      INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    last_seq INTEGER NOT NULL
) STRICT;

INSERT INTO keystile_sequence (one, last_seq) VALUES (1, 0);
