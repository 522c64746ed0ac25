package itest

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/ratelimit"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/postgresstore"
	"github.com/keystile/keystile/token"
)

// TestPostgresCountsAreBounded shows that nothing is kept for ever: of a key, the
// eight windows that were made last; of a family, nothing once its last key was
// purged (D37).
func TestPostgresCountsAreBounded(t *testing.T) {
	t.Parallel()
	dsn, _ := newSchema(t)
	db := openPool(t, dsn)
	s := newPostgres(t, db, nil)
	rows := func() (n int) {
		t.Helper()
		require.NoError(t, db.QueryRow("SELECT count(*) FROM keystile_counts").Scan(&n))
		return n
	}
	require.NoError(t, s.PutUser(t.Context(), testUser(1)))
	for range 3 {
		k := testKey("u1", token.Generate())
		k.RevokedAt = testDay
		require.NoError(t, s.InsertKey(t.Context(), k, nil, -1))
		for day := range 20 {
			_, ok, err := s.Add(t.Context(), k.Family, testDay.AddDate(0, 0, day), 1, 250)
			require.NoError(t, err)
			require.True(t, ok)
		}
	}
	require.Equal(t, 3*8, rows())
	n, err := s.PurgeKeys(t.Context(), testDay.AddDate(0, 0, 1))
	require.NoError(t, err)
	require.Equal(t, 3, n)
	require.Zero(t, rows())
}

// TestPostgresWindowsMadeAtOnce makes eight windows of one key at once on two
// machines. None has eight others that were made after it, so none may be
// forgotten, and no addition be lost (D4).
func TestPostgresWindowsMadeAtOnce(t *testing.T) {
	t.Parallel()
	const callers, windows = 6, 8
	dsn, _ := newSchema(t)
	handles := []*postgresstore.Store{newPostgres(t, openPool(t, dsn), nil), newPostgres(t, openPool(t, dsn), nil)}
	var wg sync.WaitGroup
	for c := range callers {
		for w := range windows {
			wg.Go(func() {
				if _, ok, err := handles[c%2].Add(t.Context(), "family", testDay.AddDate(0, 0, w), 1, 250); !ok {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	for w := range windows {
		count, _, err := handles[0].Add(t.Context(), "family", testDay.AddDate(0, 0, w), 0, 0)
		require.NoError(t, err)
		require.EqualValues(t, callers, count)
	}
}

// TestLongQuotas shows that a quota has any length, although an index has not, and
// that two which differ anywhere are two.
func TestLongQuotas(t *testing.T) {
	t.Parallel()
	for name, newStore := range map[string]func(t *testing.T) ratelimit.Counter{
		"sqlite":   func(t *testing.T) ratelimit.Counter { t.Helper(); return newStoreFile(t) },
		"postgres": func(t *testing.T) ratelimit.Counter { t.Helper(); return newPostgresStore(t) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStore(t)
			long := make([]byte, 100_000)
			for i := range long {
				long[i] = byte(i * i >> 3) // does not compress to nothing
			}
			var quotas []string
			for _, length := range []int{1023, 1024, 1025, 1026, 2700, 100_000} {
				q := string(long[:length])
				quotas = append(quotas, q, q[:length-1]+"x", "x"+q[1:])
			}
			for i, q := range quotas {
				count, ok, err := s.Add(t.Context(), q, testDay, int64(i+1), 250)
				require.NoError(t, err)
				require.True(t, ok)
				require.EqualValues(t, i+1, count, "quota %d", i)
			}
		})
	}
}

// TestPostgresRefusedReads shows that a flood of requests over their limit keeps
// nobody from spending: a refusal waits for no row, and holds none.
func TestPostgresRefusedReads(t *testing.T) {
	t.Parallel()
	dsn, _ := newSchema(t)
	db := openPool(t, dsn)
	f := newFixture(t, newPostgres(t, db, nil))
	tx, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	_, err = tx.Exec("SELECT * FROM keystile_counts FOR UPDATE")
	require.NoError(t, err)
	count, ok, err := f.Add(t.Context(), f.key.Family, testDay, 1, 1)
	require.NoError(t, err)
	require.False(t, ok)
	require.EqualValues(t, 1, count)
	require.NoError(t, tx.Rollback())
}

// TestPostgresChangesAreBounded shows that the feed keeps its last 10 000 changes.
func TestPostgresChangesAreBounded(t *testing.T) {
	t.Parallel()
	dsn, _ := newSchema(t)
	db := openPool(t, dsn)
	s := newPostgres(t, db, nil)
	require.NoError(t, s.PutUser(t.Context(), testUser(1)))
	// As if many had been made before.
	mustExec(t, db, "UPDATE keystile_sequence SET last_seq = 30000")
	mustExec(t, db, `INSERT INTO keystile_changes
		SELECT i, 3, decode(repeat('00', 32), 'hex'), '', '' FROM generate_series(2, 30000) AS i`)
	require.NoError(t, s.PutUser(t.Context(), testUser(2)))
	var n, first int
	require.NoError(t, db.QueryRow("SELECT count(*), min(seq) FROM keystile_changes").Scan(&n, &first))
	require.Equal(t, 10_000, n)
	require.Equal(t, 20_002, first)

	changes, last, err := s.Changes(t.Context(), 20_001)
	require.NoError(t, err)
	require.Len(t, changes, 1000)
	require.EqualValues(t, 21_001, last)
	changes, last, err = s.Changes(t.Context(), 20_000)
	require.NoError(t, err)
	require.Equal(t, []store.Change{{Kind: store.ChangedAll}}, changes)
	require.EqualValues(t, 30_001, last)
}

// TestPostgresPlans shows that what is asked on the path of a request, and every
// second by every machine, reads by an index, however many rows there are.
func TestPostgresPlans(t *testing.T) {
	t.Parallel()
	dsn, _ := newSchema(t)
	db := openPool(t, dsn)
	db.SetMaxOpenConns(1)
	newPostgres(t, db, nil)
	mustExec(t, db, `INSERT INTO keystile_users SELECT 'o' || i % 100, 'u' || i, '', '', false, false, NULL, 1 FROM generate_series(1, 5000) i`)
	mustExec(t, db, `INSERT INTO keystile_keys SELECT 'k' || i, sha256(int4send(i)), 'o' || i % 100, 'u' || i, '', '[]', 0, i, NULL, NULL, NULL, false, 'k' || i, 1
		FROM generate_series(1, 5000) i`)
	mustExec(t, db, `INSERT INTO keystile_counts SELECT int4send(i), 0, 1, 1 FROM generate_series(1, 5000) i`)
	mustExec(t, db, `INSERT INTO keystile_changes SELECT i, 2, '', '', '' FROM generate_series(1, 5000) i`)
	mustExec(t, db, `ANALYZE keystile_users, keystile_keys, keystile_counts, keystile_changes, keystile_sequence`)
	ctx := context.Background()
	for name, query := range map[string]string{
		"lookup":  `SELECT * FROM keystile_keys k JOIN keystile_users u ON u.org = k.org AND u.id = k.user_id WHERE k.digest = sha256(int4send(7))`,
		"spend":   `UPDATE keystile_counts SET spent = spent + 1 WHERE quota = int4send(7) AND window_end = 0 AND spent <= 250 RETURNING spent`,
		"changes": `SELECT s.last_seq, c.seq FROM keystile_sequence s LEFT JOIN keystile_changes c ON c.seq > 4990 WHERE s.one = 1 ORDER BY c.seq LIMIT 1000`,
		"keys":    `SELECT * FROM keystile_keys k WHERE k.org = 'o7' AND k.user_id = 'u7' AND k.revoked_at IS NULL ORDER BY k.created_at DESC, k.id DESC LIMIT 100`,
		"cap":     `SELECT count(*) FROM keystile_keys WHERE org = 'o7' AND user_id = 'u7' AND revoked_at IS NULL AND id <> 'k7'`,
	} {
		rows, err := db.QueryContext(ctx, "EXPLAIN "+query)
		require.NoError(t, err)
		var plan []string
		for rows.Next() {
			var line string
			require.NoError(t, rows.Scan(&line))
			plan = append(plan, line)
		}
		require.NoError(t, rows.Err())
		require.NoError(t, rows.Close())
		text := strings.ReplaceAll(strings.Join(plan, "\n"), "Seq Scan on keystile_sequence", "") // has one row
		require.NotContains(t, text, "Seq Scan", name)
	}
}
