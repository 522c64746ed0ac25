-- What nodes have borrowed of a window, which lasts as long as the window. The
-- count of the window has all that was lent.
CREATE TABLE keystile_loans (
    quota      BYTEA   NOT NULL,
    window_end BIGINT  NOT NULL,
    account    BYTEA   NOT NULL,
    lent       BIGINT  NOT NULL,
    spent      BIGINT  NOT NULL CHECK (spent BETWEEN 0 AND lent),
    live_until BIGINT  NOT NULL,
    ended      BOOLEAN NOT NULL,
    PRIMARY KEY (quota, window_end, account)
) WITH (fillfactor = 70);
