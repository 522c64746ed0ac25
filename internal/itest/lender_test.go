package itest

import (
	"context"
	"database/sql"
	"fmt"
	"math"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/ratelimit"
	"github.com/keystile/keystile/ratelimit/ratelimittest"
	"github.com/keystile/keystile/store/postgresstore"
	"github.com/keystile/keystile/token"
)

// A pair calls two lenders in turn, as if the callers were on two machines.
type pair struct {
	lenders [2]ratelimit.Lender
	calls   atomic.Int64
}

func (p *pair) next() ratelimit.Lender { return p.lenders[p.calls.Add(1)%2] }

func (p *pair) Add(ctx context.Context, key string, end time.Time, n, max int64) (count int64, ok bool, err error) {
	return p.next().Add(ctx, key, end, n, max)
}

func (p *pair) Lend(ctx context.Context, account, key string, end time.Time, spent, want, limit int64, now time.Time) (ratelimit.Loan, error) {
	return p.next().Lend(ctx, account, key, end, spent, want, limit, now)
}

// newLender returns a lender and its database.
type newLender func(t *testing.T) (ratelimit.Lender, *sql.DB)

func sqliteLender(t *testing.T) (ratelimit.Lender, *sql.DB) {
	t.Helper()
	db := open(t, benchDSNs[1].dsn(newFile(t))) // The disk is not what is tested.
	db.SetMaxOpenConns(8)
	return newStore(t, db, nil), db
}

// postgresLender returns a newLender of connections with other settings.
func postgresLender(settings string) newLender {
	return func(t *testing.T) (ratelimit.Lender, *sql.DB) {
		t.Helper()
		dsn, _ := newSchema(t)
		db, other := openPool(t, dsn+" "+settings), openPool(t, dsn+" "+settings)
		return &pair{lenders: [2]ratelimit.Lender{newPostgres(t, db, nil), newPostgres(t, other, nil)}}, db
	}
}

func pgbouncerLender(t *testing.T) (ratelimit.Lender, *sql.DB) {
	t.Helper()
	opts := &postgresstore.Options{TablePrefix: newPrefix()}
	db, other := openPool(t, pgbouncer(t)), openPool(t, pgbouncer(t))
	return &pair{lenders: [2]ratelimit.Lender{newPostgres(t, db, opts), newPostgres(t, other, opts)}}, db
}

// TestLenders runs the conformance suites of counters and of lenders, on
// PostgreSQL from two machines and in the ways of TestPostgresStore.
func TestLenders(t *testing.T) {
	t.Parallel()
	for name, newLender := range map[string]newLender{
		"sqlite":    sqliteLender,
		"postgres":  postgresLender(""),
		"supported": postgresLender(supportedSettings),
		"pgbouncer": pgbouncerLender,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, _ := newLender(t)
			ratelimittest.Run(t, func(*testing.T) ratelimit.Counter { return l })
			ratelimittest.RunLender(t, func(*testing.T) ratelimit.Lender { return l })
		})
	}
}

// TestAccountsAreBounded shows that accounts are not kept for ever: of those that
// are not live, a hundred with something outstanding, whose units stay in the
// count all the same; and none longer than its window, or than the keys of its
// family.
func TestAccountsAreBounded(t *testing.T) {
	t.Parallel()
	for name, newLender := range map[string]newLender{"sqlite": sqliteLender, "postgres": postgresLender("")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, db := newLender(t)
			rows := func() (n int) {
				t.Helper()
				require.NoError(t, db.QueryRow("SELECT count(*) FROM keystile_loans").Scan(&n))
				return n
			}
			if p, ok := l.(*pair); ok {
				l = p.lenders[0]
			}
			s := l.(backend)
			require.NoError(t, s.PutUser(t.Context(), testUser(1)))
			k := testKey("u1", token.Generate())
			k.RevokedAt = testDay
			require.NoError(t, s.InsertKey(t.Context(), k, nil, -1))

			noon := testDay.Add(-12 * time.Hour)
			lend := func(account string, day int, spent int64, at time.Duration) ratelimit.Loan {
				t.Helper()
				loan, err := l.Lend(t.Context(), account, k.Family, testDay.AddDate(0, 0, day), spent, math.MaxInt64, math.MaxInt64, noon.Add(at))
				require.NoError(t, err)
				return loan
			}
			for n := range 120 {
				lend(fmt.Sprint("node ", n), 0, 0, time.Duration(n)*time.Millisecond)
			}
			_, err := l.Lend(t.Context(), "node 0", k.Family, testDay, 1, 0, 250, noon)
			require.NoError(t, err)
			require.Equal(t, 120, rows(), "while they are live all are kept")
			require.Equal(t, ratelimit.Loan{Lent: 1000, Count: 120_001, Others: 119_000}, lend("live", 0, 0, time.Hour))
			require.Equal(t, 101, rows())
			require.Equal(t, ratelimit.Loan{Lent: 1001, Count: 120_002, Others: 100_000}, lend("live", 0, 1, time.Hour))
			require.Equal(t, ratelimit.Loan{Lent: 1005, Count: 121_002, Others: 101_000}, lend("node 1", 0, 5, time.Hour), "it was forgotten")
			require.EqualValues(t, 101_000, lend("node 119", 0, 0, time.Hour).Others, "it was not")

			for day := 1; day <= 8; day++ {
				lend("live", day, 0, time.Hour)
			}
			require.Equal(t, 8, rows())
			_, err = s.PurgeKeys(t.Context(), testDay.AddDate(0, 0, 1))
			require.NoError(t, err)
			require.Zero(t, rows())
		})
	}
}
