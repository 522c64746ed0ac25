package itest

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/sqlitestore"
	"github.com/keystile/keystile/store/storetest"
	"github.com/keystile/keystile/token"
)

// TestSQLiteStore runs the conformance suite of stores, each time through two
// handles that stand for two processes: on a file as the package recommends, and
// on one that is as far from it as is supported. There transactions take no lock
// when they begin, readers keep the writer waiting, the prefix is another, and
// with its only connection a method that asked for a second one would wait for
// ever.
func TestSQLiteStore(t *testing.T) {
	t.Parallel()
	t.Run("recommended", func(t *testing.T) {
		t.Parallel()
		storetest.Run(t, func(t *testing.T) storetest.Harness {
			t.Parallel()
			return newHarness(t, sqlitestore.DSN(newFile(t)), "keystile_", 0)
		})
	})
	t.Run("supported", func(t *testing.T) {
		t.Parallel()
		storetest.Run(t, func(t *testing.T) storetest.Harness {
			t.Parallel()
			dsn := "file:" + newFile(t) + "?_pragma=busy_timeout(5000)&_pragma=synchronous(OFF)"
			return newHarness(t, dsn, "k_", 1)
		})
	})
}

// TestSQLiteMemory shows that a database in memory is one as long as it has one
// connection.
func TestSQLiteMemory(t *testing.T) {
	t.Parallel()
	db := open(t, ":memory:")
	db.SetMaxOpenConns(1)
	s := newStore(t, db, nil)
	require.NoError(t, s.PutUser(t.Context(), testUser(1)))
	var wg sync.WaitGroup
	var inserted atomic.Int64
	for range 50 {
		wg.Go(func() {
			switch err := s.InsertKey(t.Context(), testKey("u1", token.Generate()), nil, 5); {
			case err == nil:
				inserted.Add(1)
			case !errors.Is(err, store.ErrLimit):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 5, inserted.Load())
	keys, err := s.Keys(t.Context(), store.Query{Org: "acme"})
	require.NoError(t, err)
	require.Len(t, keys, 5)
}

func newHarness(t *testing.T, dsn, prefix string, connections int) storetest.Harness {
	t.Helper()
	db, other := open(t, dsn), open(t, dsn)
	db.SetMaxOpenConns(connections)
	other.SetMaxOpenConns(connections)
	opts := &sqlitestore.Options{TablePrefix: prefix}
	s := newStore(t, db, opts)
	return storetest.Harness{
		Store: s, Other: newStore(t, other, opts), Uses: s, Feed: s,
		ForgetChanges: func(ctx context.Context) error {
			_, err := db.ExecContext(ctx, "DELETE FROM "+prefix+"changes")
			return err
		},
		Break: db.Close,
		Retaining: func(r store.UseRetention, now func() time.Time) (storetest.Harness, error) {
			s, err := sqlitestore.New(db, &sqlitestore.Options{TablePrefix: newPrefix(), UseRetention: r, Now: now})
			if err != nil {
				return storetest.Harness{}, err
			}
			return storetest.Harness{Store: s, Uses: s}, s.Migrate(t.Context())
		},
	}
}
