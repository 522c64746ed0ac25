package sqlitestore_test

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"database/sql/driver"
	"encoding/hex"
	"errors"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/ratelimit"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/sqlitestore"
	"github.com/keystile/keystile/token"
)

// What needs a database is tested in internal/itest, since this module requires
// no driver.

// An outage is a database that no connection can be made to.
type outage struct{}

var errOutage = errors.New("outage")

func (outage) Connect(context.Context) (driver.Conn, error) { return nil, errOutage }
func (outage) Driver() driver.Driver                        { return nil }

func newOutage(t *testing.T, opts *sqlitestore.Options) *sqlitestore.Store {
	t.Helper()
	db := sql.OpenDB(outage{})
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	s, err := sqlitestore.New(db, opts)
	require.NoError(t, err)
	return s
}

func TestNewPrefix(t *testing.T) {
	t.Parallel()
	db := sql.OpenDB(outage{})
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	for _, tt := range []struct {
		name, prefix, want string
	}{
		{name: "default", prefix: ""},
		{name: "shortest", prefix: "k"},
		{name: "all kinds", prefix: "az_09_"},
		{name: "longest", prefix: strings.Repeat("k", 32)},
		{name: "too long", prefix: strings.Repeat("k", 33), want: "does not match"},
		{name: "digit first", prefix: "1k", want: "does not match"},
		{name: "underscore first", prefix: "_k", want: "does not match"},
		{name: "upper case", prefix: "kEys_", want: "does not match"},
		{name: "blank", prefix: "keys ", want: "does not match"},
		{name: "quote", prefix: `k"`, want: "does not match"},
		{name: "statement", prefix: "k;DROP TABLE users;--", want: "does not match"},
		{name: "schema", prefix: "main.k", want: "does not match"},
		{name: "placeholder", prefix: "k$", want: "does not match"},
		{name: "not ASCII", prefix: "kä", want: "does not match"},
		{name: "line after it", prefix: "k\n", want: "does not match"},
		{name: "NUL", prefix: "k\x00", want: "does not match"},
		{name: "SQLite's own", prefix: "sqlite_k", want: "keeps for itself"},
		{name: "PostgreSQL's own", prefix: "pg_k", want: "keeps for itself"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s, err := sqlitestore.New(db, &sqlitestore.Options{TablePrefix: tt.prefix})
			if tt.want != "" {
				require.ErrorContains(t, err, "sqlitestore: TablePrefix ")
				require.ErrorContains(t, err, tt.want)
				require.Nil(t, s)
				return
			}
			require.NoError(t, err)
			require.NotNil(t, s)
		})
	}
}

func TestNewReportsAllProblems(t *testing.T) {
	t.Parallel()
	_, err := sqlitestore.New(nil, &sqlitestore.Options{TablePrefix: "K", UseRetention: store.UseRetention{Addrs: -2, Age: 30}})
	require.ErrorContains(t, err, "db is nil")
	require.ErrorContains(t, err, "TablePrefix")
	require.ErrorContains(t, err, "sqlitestore: UseRetention.Addrs is below -1")
	require.ErrorContains(t, err, "sqlitestore: UseRetention.Age is below 1h0m0s")
	_, err = sqlitestore.New(nil, nil)
	require.ErrorContains(t, err, "db is nil")
}

// FuzzNewPrefix: what is accepted as a prefix needs no quotes in SQL.
func FuzzNewPrefix(f *testing.F) {
	for _, prefix := range []string{"keystile_", "k", "", "K", "k-", "sqlite_", "k k", "kä", "k\x00"} {
		f.Add(prefix)
	}
	db := sql.OpenDB(outage{})
	f.Fuzz(func(t *testing.T, prefix string) {
		_, err := sqlitestore.New(db, &sqlitestore.Options{TablePrefix: prefix})
		plain := prefix == strings.ToLower(prefix) && strings.Trim(prefix, "abcdefghijklmnopqrstuvwxyz0123456789_") == "" &&
			strings.TrimLeft(prefix, "0123456789_") == prefix && len(prefix) <= 32
		if err == nil && !plain {
			t.Fatalf("the prefix %q was accepted", prefix)
		}
	})
}

func TestMigrations(t *testing.T) {
	t.Parallel()
	for _, prefix := range []string{"", "k_", "keystile_keystile_"} {
		t.Run("prefix "+prefix, func(t *testing.T) {
			t.Parallel()
			files := newOutage(t, &sqlitestore.Options{TablePrefix: prefix}).Migrations()
			require.NoError(t, fstest.TestFS(files, "0001_init.sql", "0002_loans.sql"))
			names, err := fs.Glob(files, "*")
			require.NoError(t, err)
			if prefix == "" {
				prefix = "keystile_"
			}
			for _, name := range names {
				text, err := fs.ReadFile(files, name)
				require.NoError(t, err)
				statements := string(text)
				require.True(t, strings.HasPrefix(statements, "CREATE TABLE IF NOT EXISTS "+prefix+"migrations ("), statements)
				require.Contains(t, statements, "\nINSERT INTO "+prefix+"migrations (version, checksum)\nVALUES (")
				require.NotContains(t, strings.ReplaceAll(statements, prefix, ""), "keystile_")
				for word := range strings.FieldsSeq("BEGIN COMMIT ROLLBACK") {
					require.NotContains(t, statements, word, "a transaction is the caller's")
				}
			}
		})
	}
}

// TestMigrationsStay holds the released migrations to what they were: databases
// have been made by them.
func TestMigrationsStay(t *testing.T) {
	t.Parallel()
	files := newOutage(t, nil).Migrations()
	sums := make(map[string]string)
	names, err := fs.Glob(files, "*")
	require.NoError(t, err)
	for _, name := range names {
		text, err := fs.ReadFile(files, name)
		require.NoError(t, err)
		sum := sha256.Sum256(text)
		sums[name] = hex.EncodeToString(sum[:8])
	}
	require.Equal(t, map[string]string{
		"0001_init.sql":  "540385ba26d5d2b9",
		"0002_loans.sql": "d4ea2766c3c3aaf9",
	}, sums)
}

// TestOutage shows that a database that cannot be reached is a failure of every
// method, and no answer of any (S76).
func TestOutage(t *testing.T) {
	t.Parallel()
	s := newOutage(t, nil)
	k := &store.Key{ID: "id", Digest: token.Digest{1}, Org: "org", User: "user", Family: "id"}
	day := time.Date(2026, time.March, 10, 0, 0, 0, 0, time.UTC)
	for name, run := range map[string]func(ctx context.Context) error{
		"Validate":  s.Validate,
		"Lookup":    func(ctx context.Context) error { _, err := s.Lookup(ctx, k.Digest); return err },
		"Settings":  func(ctx context.Context) error { _, err := s.Settings(ctx, "org"); return err },
		"InsertKey": func(ctx context.Context) error { return s.InsertKey(ctx, k, nil, 5) },
		"UpdateKey": func(ctx context.Context) error { return s.UpdateKey(ctx, k) },
		"PurgeKeys": func(ctx context.Context) error { _, err := s.PurgeKeys(ctx, day); return err },
		"Keys":      func(ctx context.Context) error { _, err := s.Keys(ctx, store.Query{}); return err },
		"Users":     func(ctx context.Context) error { _, err := s.Users(ctx, store.UserQuery{}); return err },
		"PutUser":   func(ctx context.Context) error { return s.PutUser(ctx, &store.User{Org: "org", ID: "user"}) },
		"UpdateSettings": func(ctx context.Context) error {
			return s.UpdateSettings(ctx, &policy.Settings{Org: "org"})
		},
		"RecordUses": func(ctx context.Context) error {
			return s.RecordUses(ctx, []store.Use{{KeyID: "id", First: day, Last: day, Count: 1}})
		},
		"Uses":    func(ctx context.Context) error { _, err := s.Uses(ctx, "org", []string{"id"}); return err },
		"Changes": func(ctx context.Context) error { _, _, err := s.Changes(ctx, 0); return err },
		"Add": func(ctx context.Context) error {
			_, ok, err := s.Add(ctx, "id", day, 1, 250)
			require.False(t, ok)
			return err
		},
		"Lend": func(ctx context.Context) error { return lend(ctx, s, day, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			requireOutage(t, run(t.Context()))
		})
	}
}

func requireOutage(t *testing.T, err error) {
	t.Helper()
	require.ErrorIs(t, err, errOutage)
	require.True(t, strings.HasPrefix(err.Error(), "sqlitestore: "), err)
	for _, answer := range []error{store.ErrNotFound, store.ErrExists, store.ErrConflict, store.ErrLimit} {
		require.NotErrorIs(t, err, answer)
	}
}

// TestMigrateOutage shows that Migrate tries for two seconds to connect, and not
// beyond the end of its context.
func TestMigrateOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newOutage(t, nil)
		began := time.Now()
		requireOutage(t, s.Migrate(t.Context()))
		require.GreaterOrEqual(t, time.Since(began), 2*time.Second)
		require.Less(t, time.Since(began), 5*time.Second)

		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		began = time.Now()
		require.ErrorIs(t, s.Migrate(ctx), context.DeadlineExceeded)
		require.Equal(t, 100*time.Millisecond, time.Since(began))
	})
}

// lend borrows, and requires that nothing was lent if that failed.
func lend(ctx context.Context, s *sqlitestore.Store, end time.Time, spent int64) error {
	loan, err := s.Lend(ctx, "account", "id", end, spent, 250, 250, end.Add(-time.Hour))
	if err != nil && loan != (ratelimit.Loan{}) {
		return errors.New("a loan beside an error")
	}
	return err
}

// A late database is one whose driver returns an error of its own when the
// context ends.
type late struct {
	outage
	cancel context.CancelFunc
}

func (l late) Connect(context.Context) (driver.Conn, error) {
	l.cancel()
	return nil, store.ErrNotFound
}

// TestEndedContext shows that what comes after the end of a context is a failure
// that wraps the context's error, whatever the driver says.
func TestEndedContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	db := sql.OpenDB(late{cancel: cancel})
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	s, err := sqlitestore.New(db, nil)
	require.NoError(t, err)
	_, err = s.Lookup(ctx, token.Digest{1})
	require.ErrorIs(t, err, context.Canceled)
	require.NotErrorIs(t, err, store.ErrNotFound)
}

// TestAddRefusesBadWindows: two ends that could not be told apart must not become
// one window.
func TestAddRefusesBadWindows(t *testing.T) {
	t.Parallel()
	s := newOutage(t, nil)
	for _, end := range []time.Time{
		time.Unix(0, 1),
		time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC),
		time.Date(0, 12, 31, 0, 0, 0, 0, time.UTC),
	} {
		_, ok, err := s.Add(t.Context(), "id", end, 1, 250)
		require.ErrorContains(t, err, "sqlitestore: count: end is ")
		require.False(t, ok)
		require.ErrorContains(t, lend(t.Context(), s, end, 0), "sqlitestore: lend: end is ")
	}
	require.ErrorContains(t, lend(t.Context(), s, time.Unix(0, 0), -1), "spent is below 0")
}
