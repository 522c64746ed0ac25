package postgresstore_test

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"database/sql/driver"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/postgresstore"
	"github.com/keystile/keystile/token"
)

// What needs a database is tested in internal/itest, since this module requires
// no driver.

// A fake is a database that writes down what it is asked, and does nothing.
type fake struct {
	asked []string
	// fail, if not nil, returns the error of a statement.
	fail  func(statement string) error
	hangs bool // until the context of a query ends
}

func (f *fake) Connect(context.Context) (driver.Conn, error) {
	return f, f.ask("connect")
}
func (f *fake) Driver() driver.Driver               { return nil }
func (f *fake) Close() error                        { return nil }
func (f *fake) Prepare(string) (driver.Stmt, error) { return nil, errors.New("nothing is prepared") }

func (f *fake) Begin() (driver.Tx, error) { return nil, errors.New("the level is missing") }
func (f *fake) Commit() error             { return f.ask("COMMIT") }
func (f *fake) Rollback() error           { return f.ask("ROLLBACK") }

func (f *fake) BeginTx(_ context.Context, opts driver.TxOptions) (driver.Tx, error) {
	return f, f.ask("BEGIN " + sql.IsolationLevel(opts.Isolation).String())
}

func (f *fake) ExecContext(_ context.Context, statement string, _ []driver.NamedValue) (driver.Result, error) {
	return driver.RowsAffected(1), f.ask(statement)
}

func (f *fake) QueryContext(ctx context.Context, statement string, _ []driver.NamedValue) (driver.Rows, error) {
	if f.hangs {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return new(oneRow), f.ask(statement)
}

func (f *fake) ask(statement string) error {
	f.asked = append(f.asked, statement)
	if f.fail == nil {
		return nil
	}
	return f.fail(statement)
}

// begun returns how many transactions were begun.
func (f *fake) begun() (n int) {
	for _, statement := range f.asked {
		if strings.HasPrefix(statement, "BEGIN") {
			n++
		}
	}
	return n
}

// oneRow is an answer of one row with the number 1.
type oneRow struct{ read bool }

func (*oneRow) Columns() []string { return []string{"n"} }
func (*oneRow) Close() error      { return nil }

func (r *oneRow) Next(dest []driver.Value) error {
	if r.read {
		return io.EOF
	}
	r.read, dest[0] = true, int64(1)
	return nil
}

// A stateError is what drivers of PostgreSQL return for what the server refused.
type stateError string

func (e stateError) Error() string    { return "SQLSTATE " + string(e) }
func (e stateError) SQLState() string { return string(e) }

var errOutage = errors.New("outage")

func newStore(t *testing.T, f *fake, opts *postgresstore.Options) *postgresstore.Store {
	t.Helper()
	db := sql.OpenDB(f)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	s, err := postgresstore.New(db, opts)
	require.NoError(t, err)
	return s
}

func TestNewReportsAllProblems(t *testing.T) {
	t.Parallel()
	_, err := postgresstore.New(nil, &postgresstore.Options{TablePrefix: "pg_k", CountTimeout: -1, UseRetention: store.UseRetention{Addrs: -2, Age: 30}})
	require.ErrorContains(t, err, "postgresstore: db is nil")
	require.ErrorContains(t, err, "postgresstore: TablePrefix ")
	require.ErrorContains(t, err, "postgresstore: CountTimeout ")
	require.ErrorContains(t, err, "postgresstore: UseRetention.Addrs is below -1")
	require.ErrorContains(t, err, "postgresstore: UseRetention.Age is below 1h0m0s")
	_, err = postgresstore.New(nil, nil)
	require.ErrorContains(t, err, "db is nil")
	newStore(t, new(fake), &postgresstore.Options{TablePrefix: "k"})
}

func TestMigrations(t *testing.T) {
	t.Parallel()
	for _, prefix := range []string{"", "k_", "keystile_keystile_"} {
		t.Run("prefix "+prefix, func(t *testing.T) {
			t.Parallel()
			files := newStore(t, new(fake), &postgresstore.Options{TablePrefix: prefix}).Migrations()
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
				for word := range strings.FieldsSeq("BEGIN COMMIT ROLLBACK CONCURRENTLY") {
					require.NotContains(t, statements, word, "each is run in a transaction, which is the caller's")
				}
			}
		})
	}
}

// TestMigrationsStay holds the released migrations to what they were: databases
// have been made by them.
func TestMigrationsStay(t *testing.T) {
	t.Parallel()
	files := newStore(t, new(fake), nil).Migrations()
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
		"0001_init.sql":  "ca8fce58643ffe38",
		"0002_loans.sql": "c5c1ca7d6376f872",
	}, sums)
}

// TestOutage shows that a database that cannot be reached is a failure of every
// method, and no answer of any (S76).
func TestOutage(t *testing.T) {
	t.Parallel()
	k := &store.Key{ID: "id", Digest: token.Digest{1}, Org: "org", User: "user", Family: "id"}
	day := time.Date(2026, time.March, 10, 0, 0, 0, 0, time.UTC)
	for name, run := range map[string]func(ctx context.Context, s *postgresstore.Store) error{
		"Migrate":   func(ctx context.Context, s *postgresstore.Store) error { return s.Migrate(ctx) },
		"Validate":  func(ctx context.Context, s *postgresstore.Store) error { return s.Validate(ctx) },
		"Lookup":    func(ctx context.Context, s *postgresstore.Store) error { _, err := s.Lookup(ctx, k.Digest); return err },
		"Settings":  func(ctx context.Context, s *postgresstore.Store) error { _, err := s.Settings(ctx, "org"); return err },
		"InsertKey": func(ctx context.Context, s *postgresstore.Store) error { return s.InsertKey(ctx, k, nil, 5) },
		"UpdateKey": func(ctx context.Context, s *postgresstore.Store) error { return s.UpdateKey(ctx, k) },
		"PurgeKeys": func(ctx context.Context, s *postgresstore.Store) error { _, err := s.PurgeKeys(ctx, day); return err },
		"Keys": func(ctx context.Context, s *postgresstore.Store) error {
			_, err := s.Keys(ctx, store.Query{})
			return err
		},
		"Users": func(ctx context.Context, s *postgresstore.Store) error {
			_, err := s.Users(ctx, store.UserQuery{})
			return err
		},
		"PutUser": func(ctx context.Context, s *postgresstore.Store) error {
			return s.PutUser(ctx, &store.User{Org: "org", ID: "user"})
		},
		"UpdateSettings": func(ctx context.Context, s *postgresstore.Store) error {
			return s.UpdateSettings(ctx, &policy.Settings{Org: "org"})
		},
		"RecordUses": func(ctx context.Context, s *postgresstore.Store) error {
			return s.RecordUses(ctx, []store.Use{{KeyID: "id", First: day, Last: day, Count: 1}})
		},
		"Uses": func(ctx context.Context, s *postgresstore.Store) error {
			_, err := s.Uses(ctx, "org", []string{"id"})
			return err
		},
		"Changes": func(ctx context.Context, s *postgresstore.Store) error { _, _, err := s.Changes(ctx, 0); return err },
		"Add": func(ctx context.Context, s *postgresstore.Store) error {
			_, ok, err := s.Add(ctx, "id", day, 1, 250)
			require.False(t, ok)
			return err
		},
		"Lend": func(ctx context.Context, s *postgresstore.Store) error {
			loan, err := s.Lend(ctx, "account", "id", day, 0, 250, 250, day)
			require.Zero(t, loan)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStore(t, &fake{fail: func(string) error { return errOutage }}, nil)
			err := run(t.Context(), s)
			require.ErrorIs(t, err, errOutage)
			require.True(t, strings.HasPrefix(err.Error(), "postgresstore: "), err)
			for _, answer := range []error{store.ErrNotFound, store.ErrExists, store.ErrConflict, store.ErrLimit} {
				require.NotErrorIs(t, err, answer)
			}
		})
	}
}

// TestTransaction shows what every transaction that writes begins with, whatever
// the host made the default, and that the feed's number is taken after all else.
func TestTransaction(t *testing.T) {
	t.Parallel()
	f := new(fake)
	require.NoError(t, newStore(t, f, nil).PutUser(t.Context(), &store.User{Org: "org", ID: "user"}))
	var first []string
	for _, statement := range f.asked {
		words := strings.Fields(statement)
		first = append(first, strings.Join(words[:min(3, len(words))], " "))
	}
	require.Equal(t, []string{
		"connect", "BEGIN Read Committed", "SET LOCAL idle_in_transaction_session_timeout",
		"INSERT INTO keystile_users", "SELECT pg_notify('keystile_changes', '')", "UPDATE keystile_sequence SET", "INSERT INTO keystile_changes", "DELETE FROM keystile_changes", "COMMIT",
	}, first)
}

// TestNotifyChannel shows that stores with other tables have another channel, and
// notify it.
func TestNotifyChannel(t *testing.T) {
	t.Parallel()
	f := new(fake)
	s := newStore(t, f, &postgresstore.Options{TablePrefix: "k_"})
	require.Equal(t, "k_changes", s.NotifyChannel())
	require.Equal(t, "keystile_changes", newStore(t, f, nil).NotifyChannel())
	require.NoError(t, s.UpdateSettings(t.Context(), &policy.Settings{Org: "org"}))
	require.Contains(t, f.asked, "SELECT pg_notify('"+s.NotifyChannel()+"', '')")
}

// TestAborted shows what is done again: a transaction of which the server says
// that it has undone it because of another, three times at most, wherever it says
// so. What came of a statement whose answer was lost is not known, so that it is
// not done again.
func TestAborted(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name      string
		statement string // fails
		err       error
		times     int
		begun     int // transactions
		ok        bool
	}{
		{"deadlock", "INSERT", stateError("40P01"), 1, 2, true},
		{"wrapped", "INSERT", fmt.Errorf("driver: %w", stateError("40P01")), 1, 2, true},
		{"at the beginning", "SET LOCAL", stateError("40001"), 2, 3, true},
		{"at the commit", "COMMIT", stateError("40001"), 3, 4, true},
		{"for ever", "UPDATE", stateError("40001"), 100, 4, false},
		{"connection lost", "INSERT", errOutage, 1, 1, false},
		{"connection lost at the commit", "COMMIT", errOutage, 1, 1, false},
		{"completion unknown", "COMMIT", stateError("40003"), 1, 1, false},
		{"timeout", "INSERT", stateError("57014"), 1, 1, false},
		{"read only", "INSERT", stateError("25006"), 1, 1, false},
		{"shutdown", "COMMIT", stateError("57P01"), 1, 1, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			left := tt.times
			f := &fake{fail: func(statement string) error {
				if !strings.HasPrefix(statement, tt.statement) || left == 0 {
					return nil
				}
				left--
				return tt.err
			}}
			err := newStore(t, f, nil).PutUser(t.Context(), &store.User{Org: "org", ID: "user"})
			require.Equal(t, tt.ok, err == nil, "%v", err)
			if !tt.ok {
				require.ErrorIs(t, err, tt.err)
			}
			require.Equal(t, tt.begun, f.begun())
		})
	}
}

// TestSpendAborted shows that an addition which the server undoes, since the host
// made another isolation level the default, is done in a transaction with ours.
func TestSpendAborted(t *testing.T) {
	t.Parallel()
	f := new(fake)
	f.fail = func(statement string) error {
		if strings.HasPrefix(statement, "UPDATE") && f.begun() == 0 {
			return stateError("40001")
		}
		return nil
	}
	count, ok, err := newStore(t, f, nil).Add(t.Context(), "family", time.Unix(0, 0), 1, 250)
	require.NoError(t, err)
	require.True(t, ok)
	require.EqualValues(t, 1, count)
	require.Equal(t, "BEGIN Read Committed", f.asked[2])
	require.Equal(t, f.asked[1], f.asked[4], "the same statement")
	require.Equal(t, "COMMIT", f.asked[5])
}

// TestCountTimeout shows that a request whose context has no end does not wait for a
// server that hangs for longer than CountTimeout, and not for that if it has (S76).
func TestCountTimeout(t *testing.T) {
	t.Parallel()
	day := time.Date(2026, time.March, 10, 0, 0, 0, 0, time.UTC)
	for _, tt := range []struct{ set, request, want time.Duration }{
		{set: 0, request: time.Hour, want: 2 * time.Second},
		{set: 300 * time.Millisecond, request: time.Hour, want: 300 * time.Millisecond},
		{set: 0, request: 100 * time.Millisecond, want: 100 * time.Millisecond},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newStore(t, &fake{hangs: true}, &postgresstore.Options{CountTimeout: tt.set})
			for _, count := range []func(ctx context.Context) error{
				func(ctx context.Context) error { _, _, err := s.Add(ctx, "family", day, 1, 250); return err },
				func(ctx context.Context) error { _, err := s.Lend(ctx, "a", "family", day, 0, 1, 250, day); return err },
			} {
				ctx, cancel := context.WithTimeout(t.Context(), tt.request)
				began := time.Now()
				require.ErrorIs(t, count(ctx), context.DeadlineExceeded)
				require.Equal(t, tt.want, time.Since(began))
				cancel()
			}
		})
	}
}

// TestAddIsOneStatement: to count costs one round trip while there is room.
func TestAddIsOneStatement(t *testing.T) {
	t.Parallel()
	f := new(fake)
	_, ok, err := newStore(t, f, nil).Add(t.Context(), "family", time.Unix(0, 0), 1, 250)
	require.NoError(t, err)
	require.True(t, ok)
	require.Len(t, f.asked, 2, "connect, and the statement")
}
