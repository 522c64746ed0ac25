package itest

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/internal/itest/servers"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/postgresstore"
	"github.com/keystile/keystile/store/storetest"
	"github.com/keystile/keystile/token"
)

// TestPostgresStore runs the conformance suite of stores, each time through two
// pools that stand for two machines: as the package recommends; with the simple
// protocol, another prefix and an isolation level that the package does not want;
// and behind PgBouncer in transaction mode, with a single connection to it, where
// a method that asked for a second one would wait for ever.
func TestPostgresStore(t *testing.T) {
	t.Parallel()
	t.Run("recommended", func(t *testing.T) {
		t.Parallel()
		storetest.Run(t, func(t *testing.T) storetest.Harness {
			t.Parallel()
			dsn, _ := newSchema(t)
			return newPostgresHarness(t, dsn, "keystile_", 8)
		})
	})
	t.Run("supported", func(t *testing.T) {
		t.Parallel()
		storetest.Run(t, func(t *testing.T) storetest.Harness {
			t.Parallel()
			dsn, _ := newSchema(t)
			return newPostgresHarness(t, dsn+" "+supportedSettings, "k", 8)
		})
	})
	t.Run("pgbouncer", func(t *testing.T) {
		t.Parallel()
		storetest.Run(t, func(t *testing.T) storetest.Harness {
			t.Parallel()
			return newPostgresHarness(t, pgbouncer(t), newPrefix(), 1)
		})
	})
}

// supportedSettings are as far from what is recommended as is supported.
const supportedSettings = "default_query_exec_mode=simple_protocol default_transaction_isolation=serializable"

// pgbouncer returns the data source name of the pooler that tests share, as the
// package recommends it.
func pgbouncer(t *testing.T) string {
	t.Helper()
	b, err := sharedPgBouncer()
	servers.Check(t, err)
	return b.DSN() + " default_query_exec_mode=exec"
}

// newPrefix returns a prefix that no other test has, for those that cannot have a
// schema of their own.
func newPrefix() string { return fmt.Sprintf("p%d_", schemas.Add(1)) }

func newPostgresHarness(t *testing.T, dsn, prefix string, connections int) storetest.Harness {
	t.Helper()
	db, other := openPool(t, dsn), openPool(t, dsn)
	db.SetMaxOpenConns(connections)
	other.SetMaxOpenConns(connections)
	opts := &postgresstore.Options{TablePrefix: prefix}
	s := newPostgres(t, db, opts)
	return storetest.Harness{
		Store: s, Other: newPostgres(t, other, opts), Uses: s, Feed: s,
		ForgetChanges: func(ctx context.Context) error {
			_, err := db.ExecContext(ctx, "DELETE FROM "+prefix+"changes")
			return err
		},
		Break: db.Close,
		Retaining: func(r store.UseRetention, now func() time.Time) (storetest.Harness, error) {
			s, err := postgresstore.New(db, &postgresstore.Options{TablePrefix: newPrefix(), UseRetention: r, Now: now})
			if err != nil {
				return storetest.Harness{}, err
			}
			return storetest.Harness{Store: s, Uses: s}, s.Migrate(t.Context())
		},
	}
}

// TestPostgresFeed has two followers read the feed while 16 writers on two
// machines write to it, some of whose writes are refused: each follower sees every
// change once, and those of one writer in their order (F46, F47).
func TestPostgresFeed(t *testing.T) {
	t.Parallel()
	const writers, rounds = 16, 30
	dsn, _ := newSchema(t)
	handles := []*postgresstore.Store{newPostgres(t, openPool(t, dsn), nil), newPostgres(t, openPool(t, dsn), nil)}

	var writing, following sync.WaitGroup
	var over atomic.Bool
	seen := make([][]store.Change, 2)
	for i := range seen {
		following.Go(func() {
			var after int64
			for done := false; ; {
				changes, last, err := handles[i].Changes(t.Context(), after)
				if err != nil {
					t.Error(err)
					return
				}
				seen[i] = append(seen[i], changes...)
				if after = last; done && len(changes) == 0 {
					return
				}
				done = over.Load()
			}
		})
	}
	for w := range writers {
		writing.Go(func() {
			s := handles[w%2]
			for n := range rounds {
				u := &store.User{Org: fmt.Sprint(w), ID: fmt.Sprint(n)}
				if err := s.PutUser(t.Context(), u); err != nil {
					t.Error(err)
				}
				if err := s.PutUser(t.Context(), u); err == nil {
					t.Error("a user was made twice")
				}
			}
		})
	}
	writing.Wait()
	over.Store(true)
	following.Wait()
	for _, changes := range seen {
		require.Len(t, changes, writers*rounds)
		next := make(map[string]int)
		for _, c := range changes {
			require.Equal(t, fmt.Sprint(next[c.Org]), c.User, "writer %s", c.Org)
			next[c.Org]++
		}
	}
	require.Equal(t, seen[0], seen[1])
}

// TestPostgresFeedOrder stops a writer between its number in the feed and its
// commit, where a number that did not order the commits would be skipped by
// whoever follows the feed: no other write is done meanwhile, and nothing is
// missing after it. Lookups and counts do not wait.
func TestPostgresFeedOrder(t *testing.T) {
	t.Parallel()
	dsn, _ := newSchema(t)
	db := openPool(t, dsn)
	f := newFixture(t, newPostgres(t, db, nil))
	_, last, err := f.Changes(t.Context(), -1)
	require.NoError(t, err)

	// The first writer has its number, and cannot write what it has changed.
	tx, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	defer func() { _ = tx.Rollback() }()
	_, err = tx.Exec("LOCK TABLE keystile_changes IN SHARE MODE")
	require.NoError(t, err)
	first := make(chan error)
	go func() { first <- f.PutUser(t.Context(), testUser(3)) }()
	waitsForLock(t, db, "INSERT INTO keystile_changes")

	second := make(chan error)
	go func() { second <- f.PutUser(t.Context(), testUser(2)) }()
	waitsForLock(t, db, "UPDATE keystile_sequence")
	changes, at, err := f.Changes(t.Context(), last)
	require.NoError(t, err)
	require.Empty(t, changes)
	require.Equal(t, last, at)
	_, err = f.Lookup(t.Context(), f.key.Digest)
	require.NoError(t, err)
	for _, quota := range []string{f.key.Family, "new"} {
		_, ok, err := f.Add(t.Context(), quota, testDay, 1, 250)
		require.NoError(t, err)
		require.True(t, ok)
	}
	require.NoError(t, f.RecordUses(t.Context(), []store.Use{f.use()}))

	require.NoError(t, tx.Commit())
	require.NoError(t, <-first)
	require.NoError(t, <-second)
	changes, at, err = f.Changes(t.Context(), last)
	require.NoError(t, err)
	require.Equal(t, last+2, at)
	require.Equal(t, []string{"u3", "u2"}, []string{changes[0].User, changes[1].User})
}

// waitsForLock waits until a statement that begins so waits for the commit of
// another, in the schema of db.
func waitsForLock(t *testing.T, db *sql.DB, statement string) {
	t.Helper()
	until(t, db, true, `SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
		WHERE NOT l.granted AND starts_with(a.query, $1)
		AND pid IN (SELECT pid FROM pg_locks WHERE relation IN (`+ownTables+`))`, statement)
}

// ownTables asks for the tables of the schema.
const ownTables = "SELECT oid FROM pg_class WHERE relnamespace = current_schema::regnamespace"

// TestPostgresRecordUsesParallel has many machines record uses of the same keys at
// once, in different orders: nothing is lost, and nobody waits for another in a
// circle (S49).
func TestPostgresRecordUsesParallel(t *testing.T) {
	t.Parallel()
	const keys, batches = 20, 16
	dsn, _ := newSchema(t)
	handles := []*postgresstore.Store{newPostgres(t, openPool(t, dsn), nil), newPostgres(t, openPool(t, dsn), nil)}
	var batch []store.Use
	var ids []string
	for n := range keys {
		f := newFixtureKey(t, handles[0], n)
		ids = append(ids, f.ID)
		batch = append(batch, store.Use{KeyID: f.ID, Addr: testAddr(n), UserAgent: "curl", First: testDay, Last: testDay, Count: 1})
	}
	var wg sync.WaitGroup
	for b := range batches {
		wg.Go(func() {
			mine := slices.Clone(batch)
			if b%2 == 1 {
				slices.Reverse(mine)
			}
			if err := handles[b%2].RecordUses(t.Context(), mine); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Go(func() {
		// It deletes what others record meanwhile.
		if _, err := handles[0].PurgeKeys(t.Context(), testDay.AddDate(1, 0, 0)); err != nil {
			t.Error(err)
		}
	})
	wg.Wait()
	sums, err := handles[1].Uses(t.Context(), "acme", ids)
	require.NoError(t, err)
	for i, sum := range sums {
		if i%5 == 0 {
			require.Empty(t, sum.Days, "the key was purged")
			continue
		}
		require.EqualValues(t, batches, sum.Days[0].Count)
		require.EqualValues(t, batches, sum.Addrs[0].Count)
	}
	var orphans int
	require.NoError(t, openPool(t, dsn).QueryRow(`SELECT count(*) FROM keystile_uses
		WHERE key_id NOT IN (SELECT id FROM keystile_keys)`).Scan(&orphans))
	require.Zero(t, orphans, "a key that is made later with the ID of a purged one was not used yet")
}

// newFixtureKey makes a user with a key. Every fifth key is revoked.
func newFixtureKey(t *testing.T, s backend, n int) *store.Key {
	t.Helper()
	require.NoError(t, s.PutUser(t.Context(), testUser(n)))
	k := testKey(testUser(n).ID, token.Generate())
	if n%5 == 0 {
		k.RevokedAt = testDay
	}
	require.NoError(t, s.InsertKey(t.Context(), k, nil, -1))
	return k
}
