package itest

import (
	"database/sql"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/postgresstore"
	"github.com/keystile/keystile/store/sqlitestore"
	"github.com/keystile/keystile/token"
)

const testMonth = 30 * 24 * time.Hour

// A retainer is a database in which stores with several retentions are opened.
type retainer struct {
	db   *sql.DB
	open func(r store.UseRetention, now func() time.Time) backend
}

// eachRetainer runs a test on a new database of either kind.
func eachRetainer(t *testing.T, test func(t *testing.T, r retainer)) {
	t.Run("SQLite", func(t *testing.T) {
		t.Parallel()
		db := openFile(t, newFile(t))
		test(t, retainer{db, func(r store.UseRetention, now func() time.Time) backend {
			return newStore(t, db, &sqlitestore.Options{UseRetention: r, Now: now})
		}})
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		t.Parallel()
		dsn, _ := newSchema(t)
		db := openPool(t, dsn)
		test(t, retainer{db, func(r store.UseRetention, now func() time.Time) backend {
			return newPostgres(t, db, &postgresstore.Options{UseRetention: r, Now: now})
		}})
	})
}

// kept counts the keys of which an address or a user agent is in the database.
func (r retainer) kept(t *testing.T) int { return r.count(t, "addrs <> '[]' OR user_agent <> ''") }

func (r retainer) count(t *testing.T, where string) (n int) {
	t.Helper()
	require.NoError(t, r.db.QueryRowContext(t.Context(), "SELECT count(*) FROM keystile_uses WHERE "+where).Scan(&n))
	return n
}

// newUsedKeys makes so many keys, each used from one address on testDay.
func newUsedKeys(t *testing.T, s backend, n int) (ids []string) {
	t.Helper()
	require.NoError(t, s.PutUser(t.Context(), testUser(1)))
	var batch []store.Use
	for i := range n {
		k := testKey("u1", token.Generate())
		require.NoError(t, s.InsertKey(t.Context(), k, nil, -1))
		ids = append(ids, k.ID)
		batch = append(batch, store.Use{KeyID: k.ID, Addr: testAddr(i), UserAgent: "curl", First: testDay, Last: testDay, Count: 1})
	}
	require.NoError(t, s.RecordUses(t.Context(), batch))
	return ids
}

// at returns a clock that stands still.
func at(t time.Time) func() time.Time { return func() time.Time { return t } }

// TestRetentionDeletesIdle_D24 shows that what is too old is gone from the
// database, of keys too that nobody uses any more, by a bounded amount of work for
// each batch; that the uses themselves stay; and that nothing is done until the
// next round.
func TestRetentionDeletesIdle_D24(t *testing.T) {
	t.Parallel()
	eachRetainer(t, func(t *testing.T, r retainer) {
		const keys = 250
		ids := newUsedKeys(t, r.open(store.UseRetention{}, nil), keys)
		require.Equal(t, keys, r.kept(t))
		var now atomic.Pointer[time.Time]
		set := func(at time.Time) { now.Store(&at) }
		s := r.open(store.UseRetention{Age: testMonth}, func() time.Time { return *now.Load() })

		set(testDay.Add(testMonth))
		for range 3 {
			require.NoError(t, s.RecordUses(t.Context(), nil))
		}
		require.Equal(t, keys, r.kept(t), "a round, and nothing was too old")
		set(testDay.Add(testMonth + time.Hour - 1))
		require.NoError(t, s.RecordUses(t.Context(), nil))
		require.Equal(t, keys, r.kept(t), "no round within an hour")
		sums, err := s.Uses(t.Context(), "acme", ids)
		require.NoError(t, err)
		for _, sum := range sums {
			require.Empty(t, sum.Addrs, "and what is too old is not told all the same")
			require.Empty(t, sum.UserAgent)
		}

		set(testDay.Add(testMonth + time.Hour))
		for _, left := range []int{150, 50, 0, 0} {
			require.NoError(t, s.RecordUses(t.Context(), nil))
			require.Equal(t, left, r.kept(t))
		}
		all := r.open(store.UseRetention{}, nil)
		sums, err = all.Uses(t.Context(), "acme", ids)
		require.NoError(t, err)
		for i, sum := range sums {
			require.Equal(t, store.UseSummary{
				KeyID: ids[i], LastUsed: testDay, Days: []store.DayUse{{Day: testDay, Count: 1}},
			}, sum)
		}
	})
}

// TestRetentionOfRestarts_D24: processes that end before a round has been made look at
// other keys each time.
func TestRetentionOfRestarts_D24(t *testing.T) {
	t.Parallel()
	eachRetainer(t, func(t *testing.T, r retainer) {
		const keys = 600
		ids := newUsedKeys(t, r.open(store.UseRetention{}, nil), keys)
		now := testDay.Add(2 * testMonth)
		for range 60 { // of which each does half
			s := r.open(store.UseRetention{Age: testMonth}, at(now))
			for range 3 {
				require.NoError(t, s.RecordUses(t.Context(), []store.Use{{KeyID: ids[0], First: now, Last: now, Count: 1}}))
			}
		}
		require.Zero(t, r.kept(t))
	})
}

// TestRetentionDefault_D24: without a retention nothing is forgotten, however old
// it is, and no clock is asked.
func TestRetentionDefault_D24(t *testing.T) {
	t.Parallel()
	eachRetainer(t, func(t *testing.T, r retainer) {
		s := r.open(store.UseRetention{}, func() time.Time { panic("the clock is read") })
		ids := newUsedKeys(t, s, 3)
		require.NoError(t, s.RecordUses(t.Context(), []store.Use{{KeyID: ids[0], First: testDay, Last: testDay.AddDate(500, 0, 0), Count: 1}}))
		sums, err := s.Uses(t.Context(), "acme", ids)
		require.NoError(t, err)
		for i, sum := range sums {
			require.Len(t, sum.Addrs, 1)
			require.Equal(t, testAddr(i), sum.Addrs[0].Addr)
		}
	})
}

// TestRetentionLowered_D24: a number of addresses that is lowered holds for what
// is in the database already, also of keys that nobody uses.
func TestRetentionLowered_D24(t *testing.T) {
	t.Parallel()
	eachRetainer(t, func(t *testing.T, r retainer) {
		before := r.open(store.UseRetention{}, nil)
		id := newUsedKeys(t, before, 1)[0]
		for n := range store.MaxUseAddrs {
			used := testDay.Add(time.Duration(n) * time.Second)
			require.NoError(t, before.RecordUses(t.Context(), []store.Use{{KeyID: id, Addr: testAddr(n), First: used, Last: used, Count: 1}}))
		}
		addrs := func(s backend) int {
			sums, err := s.Uses(t.Context(), "acme", []string{id})
			require.NoError(t, err)
			return len(sums[0].Addrs)
		}
		require.Equal(t, 10, addrs(before))
		for _, want := range []int{4, -1} {
			s := r.open(store.UseRetention{Addrs: want}, at(testDay))
			require.Equal(t, max(want, 0), addrs(s), "at once")
			require.NoError(t, s.RecordUses(t.Context(), nil))
			require.Equal(t, max(want, 0), addrs(before), "and for good")
		}
		require.Equal(t, 1, r.count(t, "addrs = '[]'"))
	})
}

// TestRetentionUnreadable_D24: facts that cannot be read fail who asks for them,
// and not the batches of others; they are not overwritten, and what comes after
// them is forgotten.
func TestRetentionUnreadable_D24(t *testing.T) {
	t.Parallel()
	eachRetainer(t, func(t *testing.T, r retainer) {
		ids := newUsedKeys(t, r.open(store.UseRetention{}, nil), 210)
		mustExec(t, r.db, `UPDATE keystile_uses SET addrs = 'nonsense' WHERE key_id IN (SELECT min(key_id) FROM keystile_uses)`)
		mustExec(t, r.db, `UPDATE keystile_uses SET addrs = 'nonsense' WHERE key_id = (SELECT key_id FROM keystile_uses ORDER BY key_id LIMIT 1 OFFSET 99)`)
		s := r.open(store.UseRetention{Age: testMonth}, at(testDay.Add(2*testMonth)))
		for range 3 {
			require.NoError(t, s.RecordUses(t.Context(), nil))
		}
		require.Equal(t, 2, r.kept(t))
		require.Equal(t, 2, r.count(t, "addrs = 'nonsense'"))
		_, err := s.Uses(t.Context(), "acme", ids)
		requireFailure(t, err, "Uses of what cannot be read")
	})
}

// TestRetentionFailure_D24: a call that fails leaves everything as it was, and
// the next one goes on where the one before it had come to.
func TestRetentionFailure_D24(t *testing.T) {
	t.Parallel()
	eachRetainer(t, func(t *testing.T, r retainer) {
		newUsedKeys(t, r.open(store.UseRetention{}, nil), 150)
		s := r.open(store.UseRetention{Age: testMonth}, at(testDay.Add(2*testMonth)))
		require.NoError(t, s.RecordUses(t.Context(), nil))
		require.Equal(t, 50, r.kept(t))
		mustExec(t, r.db, "ALTER TABLE keystile_uses RENAME COLUMN addrs TO hidden")
		requireFailure(t, s.RecordUses(t.Context(), nil), "RecordUses")
		mustExec(t, r.db, "ALTER TABLE keystile_uses RENAME COLUMN hidden TO addrs")
		require.NoError(t, s.RecordUses(t.Context(), nil))
		require.Zero(t, r.kept(t))
	})
}

// TestRetentionParallel_D24 has machines record uses of the same keys in different
// orders, each going through rounds all the time, while keys are purged: nobody
// waits for another in a circle, no use is lost, what is old is gone and what is
// not is there.
func TestRetentionParallel_D24(t *testing.T) {
	t.Parallel()
	eachRetainer(t, func(t *testing.T, r retainer) {
		const idle, busy, batches = 150, 40, 24
		all := r.open(store.UseRetention{}, nil)
		old := newUsedKeys(t, all, idle)
		var ids []string
		for n := range busy {
			ids = append(ids, newFixtureKey(t, all, 1000+n).ID)
		}
		recent := testDay.Add(2 * testMonth)
		var hours atomic.Int64
		nodes := make([]backend, 3)
		for i := range nodes {
			nodes[i] = r.open(store.UseRetention{Age: testMonth}, func() time.Time {
				return recent.Add(time.Duration(hours.Add(1)) * time.Hour)
			})
		}
		var wg sync.WaitGroup
		for b := range batches {
			wg.Go(func() {
				var batch []store.Use
				for n := range busy {
					id := ids[n]
					if b%2 == 1 {
						id = ids[busy-1-n]
					}
					batch = append(batch, store.Use{KeyID: id, Addr: testAddr(b % 4), UserAgent: "curl", First: recent, Last: recent, Count: 1})
				}
				if err := nodes[b%3].RecordUses(t.Context(), batch); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Go(func() {
			if _, err := nodes[0].PurgeKeys(t.Context(), testDay.AddDate(1, 0, 0)); err != nil {
				t.Error(err)
			}
		})
		wg.Wait()
		for range 3 { // The rest of a round, and whatever of it was looked at before.
			require.NoError(t, nodes[0].RecordUses(t.Context(), nil))
		}
		sums, err := all.Uses(t.Context(), "acme", ids)
		require.NoError(t, err)
		for i, sum := range sums {
			if i%5 == 0 {
				require.Empty(t, sum.Days, "the key was purged")
				continue
			}
			require.EqualValues(t, batches, sum.Days[0].Count)
			require.Len(t, sum.Addrs, 4)
			for _, a := range sum.Addrs {
				require.EqualValues(t, batches/4, a.Count)
			}
		}
		require.Zero(t, r.count(t, fmt.Sprintf("last_used = %d AND (addrs <> '[]' OR user_agent <> '')", testDay.UnixMicro())))
		require.Equal(t, len(old), r.count(t, fmt.Sprintf("last_used = %d", testDay.UnixMicro())))
	})
}
