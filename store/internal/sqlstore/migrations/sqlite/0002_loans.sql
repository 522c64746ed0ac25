-- What nodes have borrowed of a window, which lasts as long as the window. The
-- count of the window has all that was lent.
CREATE TABLE keystile_loans (
    quota      BLOB    NOT NULL,
    window_end INTEGER NOT NULL,
    account    BLOB    NOT NULL,
    lent       INTEGER NOT NULL,
    spent      INTEGER NOT NULL CHECK (spent BETWEEN 0 AND lent),
    live_until INTEGER NOT NULL,
    ended      INTEGER NOT NULL CHECK (ended IN (0, 1)),
    PRIMARY KEY (quota, window_end, account)
) STRICT, WITHOUT ROWID;
