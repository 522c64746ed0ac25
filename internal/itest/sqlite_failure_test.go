package itest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/sqlitestore"
	"github.com/keystile/keystile/token"
)

// requireFailure requires that err is a failure and none of the answers of a
// store, which would be believed (S76, D13).
func requireFailure(t *testing.T, err error, what string) {
	t.Helper()
	require.Error(t, err, what)
	for _, answer := range []error{store.ErrNotFound, store.ErrExists, store.ErrConflict, store.ErrLimit} {
		require.NotErrorIs(t, err, answer, what)
	}
	require.True(t, strings.HasPrefix(err.Error(), "sqlitestore: "), "%s: %v", what, err)
}

// A fixture is a store with a user and a key that was used once and counted once.
type fixture struct {
	file string
	db   *sql.DB
	*sqlitestore.Store
	key *store.Key
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{file: newFile(t)}
	f.db = openFile(t, f.file)
	f.Store = newStore(t, f.db, nil)
	f.key = testKey("u1", token.Generate())
	require.NoError(t, f.PutUser(t.Context(), testUser(1)))
	require.NoError(t, f.InsertKey(t.Context(), f.key, nil, 5))
	f.key.Version = 1
	require.NoError(t, f.RecordUses(t.Context(), []store.Use{f.use()}))
	require.NoError(t, f.UpdateSettings(t.Context(), &policy.Settings{Org: "acme", MaxAge: time.Hour}))
	_, ok, err := f.Add(t.Context(), f.key.Family, testDay, 1, 250)
	require.NoError(t, err)
	require.True(t, ok)
	return f
}

func (f *fixture) use() store.Use {
	return store.Use{KeyID: f.key.ID, UserAgent: "curl", First: testDay, Last: testDay, Count: 1}
}

// reopen returns another store in the file of f, by another data source name.
func (f *fixture) reopen(t *testing.T, dsn string) *sqlitestore.Store {
	t.Helper()
	s, err := sqlitestore.New(open(t, dsn), nil)
	require.NoError(t, err)
	return s
}

// A call is a call of a method, for tests of what they have in common.
type call struct {
	name string
	run  func(ctx context.Context, s *sqlitestore.Store) error
}

// writes calls every method that writes, so that each would change something.
func (f *fixture) writes() []call {
	return []call{
		{"InsertKey", func(ctx context.Context, s *sqlitestore.Store) error {
			return s.InsertKey(ctx, testKey("u1", token.Generate()), nil, 5)
		}},
		{"InsertKey, rotation", func(ctx context.Context, s *sqlitestore.Store) error {
			old := *f.key
			old.RevokedAt = testDay
			return s.InsertKey(ctx, testKey("u1", token.Generate()), &old, 5)
		}},
		{"UpdateKey", func(ctx context.Context, s *sqlitestore.Store) error { return s.UpdateKey(ctx, f.key) }},
		{"PutUser, new", func(ctx context.Context, s *sqlitestore.Store) error { return s.PutUser(ctx, testUser(2)) }},
		{"PutUser", func(ctx context.Context, s *sqlitestore.Store) error {
			u := testUser(1)
			u.Version = 1
			return s.PutUser(ctx, u)
		}},
		{"UpdateSettings", func(ctx context.Context, s *sqlitestore.Store) error {
			return s.UpdateSettings(ctx, &policy.Settings{Org: "acme", Version: 1})
		}},
		{"PurgeKeys", func(ctx context.Context, s *sqlitestore.Store) error {
			_, err := s.PurgeKeys(ctx, testDay.AddDate(1, 0, 0))
			return err
		}},
		{"RecordUses", func(ctx context.Context, s *sqlitestore.Store) error {
			return s.RecordUses(ctx, []store.Use{f.use()})
		}},
		{"Add", func(ctx context.Context, s *sqlitestore.Store) error {
			_, ok, err := s.Add(ctx, f.key.Family, testDay, 1, 250)
			return counted(ok, err)
		}},
		{"Add, new", func(ctx context.Context, s *sqlitestore.Store) error {
			_, ok, err := s.Add(ctx, "new", testDay, 1, 250)
			return counted(ok, err)
		}},
	}
}

// errAdmitted is returned for an Add that is ok beside its error.
var errAdmitted = errors.New("admitted")

func counted(ok bool, err error) error {
	if ok && err != nil {
		return errors.Join(errAdmitted, err)
	}
	return err
}

// reads calls every method that only reads.
func (f *fixture) reads() []call {
	return []call{
		{"Lookup", func(ctx context.Context, s *sqlitestore.Store) error {
			_, err := s.Lookup(ctx, f.key.Digest)
			return err
		}},
		{"Settings", func(ctx context.Context, s *sqlitestore.Store) error {
			_, err := s.Settings(ctx, "acme")
			return err
		}},
		{"Keys", func(ctx context.Context, s *sqlitestore.Store) error {
			_, err := s.Keys(ctx, store.Query{})
			return err
		}},
		{"Users", func(ctx context.Context, s *sqlitestore.Store) error {
			_, err := s.Users(ctx, store.UserQuery{Org: "acme"})
			return err
		}},
		{"Uses", func(ctx context.Context, s *sqlitestore.Store) error {
			_, err := s.Uses(ctx, "acme", []string{f.key.ID})
			return err
		}},
		{"Changes", func(ctx context.Context, s *sqlitestore.Store) error {
			_, _, err := s.Changes(ctx, 0)
			return err
		}},
		{"Changes, end", func(ctx context.Context, s *sqlitestore.Store) error {
			_, _, err := s.Changes(ctx, -1)
			return err
		}},
		{"Add of 0", func(ctx context.Context, s *sqlitestore.Store) error {
			_, ok, err := s.Add(ctx, f.key.Family, testDay, 0, 250)
			return counted(ok, err)
		}},
		{"Add, refused", func(ctx context.Context, s *sqlitestore.Store) error {
			_, ok, err := s.Add(ctx, f.key.Family, testDay, 1, 1)
			return counted(ok, err)
		}},
	}
}

// state returns what can be seen of a store, to compare.
func (f *fixture) state(t *testing.T) []any {
	t.Helper()
	ctx := t.Context()
	keys, err := f.Keys(ctx, store.Query{Revoked: true})
	require.NoError(t, err)
	users, err := f.Users(ctx, store.UserQuery{Org: "acme"})
	require.NoError(t, err)
	set, err := f.Settings(ctx, "acme")
	require.NoError(t, err)
	uses, err := f.Uses(ctx, "acme", []string{f.key.ID})
	require.NoError(t, err)
	changes, last, err := f.Changes(ctx, 0)
	require.NoError(t, err)
	count, _, err := f.Add(ctx, f.key.Family, testDay, 0, 0)
	require.NoError(t, err)
	fresh, _, err := f.Add(ctx, "new", testDay, 0, 0)
	require.NoError(t, err)
	return []any{keys, users, set, uses, changes, last, count, fresh}
}

// holdLock takes the lock of writers, as a foreign program could, until release
// is called.
func holdLock(t *testing.T, file string) (release func()) {
	t.Helper()
	tx, err := openFile(t, file).BeginTx(t.Context(), nil)
	require.NoError(t, err)
	_, err = tx.ExecContext(t.Context(), "CREATE TABLE IF NOT EXISTS foreign_table (x)")
	require.NoError(t, err)
	return func() { require.NoError(t, tx.Rollback()) }
}

// TestSQLiteLocked shows what happens while a foreign program holds the lock of
// writers for longer than the busy timeout: every write is a failure, soon, and
// changes nothing; every read gives its answer (S76).
func TestSQLiteLocked(t *testing.T) {
	t.Parallel()
	for _, txlock := range []string{"", "&_txlock=immediate"} {
		t.Run("txlock"+txlock, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			s := f.reopen(t, "file:"+f.file+"?_pragma=busy_timeout(20)"+txlock)
			before := f.state(t)
			release := holdLock(t, f.file)
			for _, c := range f.writes() {
				err := c.run(t.Context(), s)
				requireFailure(t, err, c.name)
				require.NotErrorIs(t, err, errAdmitted, c.name)
				require.NoError(t, t.Context().Err())
			}
			for _, c := range f.reads() {
				require.NoError(t, c.run(t.Context(), s), c.name)
			}
			require.Equal(t, before, f.state(t))
			release()
			_, ok, err := s.Add(t.Context(), f.key.Family, testDay, 1, 250)
			require.NoError(t, err, "it recovers by itself")
			require.True(t, ok)
		})
	}
}

// TestSQLiteDeadline shows that a context ends a wait for the lock, which would
// last for 5 seconds otherwise, and also a wait for a writer of the same store.
func TestSQLiteDeadline(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	before := f.state(t)
	release := holdLock(t, f.file)
	// The first takes the turn of writers, and waits for the lock in the database.
	first := make(chan error)
	held, give := context.WithCancel(t.Context())
	go func() { first <- f.PutUser(held, testUser(3)) }()
	for _, c := range f.writes() {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		err := c.run(ctx, f.Store)
		cancel()
		requireFailure(t, err, c.name)
		require.ErrorIs(t, err, context.DeadlineExceeded, c.name)
	}
	give()
	err := <-first
	requireFailure(t, err, "first")
	require.ErrorIs(t, err, context.Canceled)
	release()
	require.Equal(t, before, f.state(t))
}

// TestSQLiteEndedContext shows that nothing is begun under a context that has
// ended, and that the error says so.
func TestSQLiteEndedContext(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	before := f.state(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	calls := append(append(f.writes(), f.reads()...),
		call{"Migrate", func(ctx context.Context, s *sqlitestore.Store) error { return s.Migrate(ctx) }},
		call{"Validate", func(ctx context.Context, s *sqlitestore.Store) error { return s.Validate(ctx) }},
		call{"Keys of none", func(ctx context.Context, s *sqlitestore.Store) error {
			_, err := s.Keys(ctx, store.Query{ID: "\x00"})
			return err
		}},
		call{"Users of none", func(ctx context.Context, s *sqlitestore.Store) error {
			_, err := s.Users(ctx, store.UserQuery{ID: "\x00"})
			return err
		}},
		call{"Settings of none", func(ctx context.Context, s *sqlitestore.Store) error {
			_, err := s.Settings(ctx, "\x00")
			return err
		}},
		call{"Uses of none", func(ctx context.Context, s *sqlitestore.Store) error {
			_, err := s.Uses(ctx, "acme", []string{"\x00"})
			return err
		}})
	for _, c := range calls {
		err := c.run(ctx, f.Store)
		requireFailure(t, err, c.name)
		require.ErrorIs(t, err, context.Canceled, c.name)
	}
	require.Equal(t, before, f.state(t))
}

// TestSQLiteReadOnly: a database that cannot be written answers reads, and fails
// every write.
func TestSQLiteReadOnly(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	before := f.state(t)
	s := f.reopen(t, "file:"+f.file+"?mode=ro&_pragma=busy_timeout(5000)")
	require.NoError(t, s.Migrate(t.Context()), "nothing is missing")
	require.NoError(t, s.Validate(t.Context()))
	for _, c := range f.reads() {
		require.NoError(t, c.run(t.Context(), s), c.name)
	}
	for _, c := range f.writes() {
		err := c.run(t.Context(), s)
		requireFailure(t, err, c.name)
		require.NotErrorIs(t, err, errAdmitted, c.name)
	}
	require.Equal(t, before, f.state(t))
}

// TestSQLiteFull: a database that is full keeps what it has and fails what needs
// room, whole.
func TestSQLiteFull(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var pages int
	require.NoError(t, f.db.QueryRow("PRAGMA page_count").Scan(&pages))
	s := f.reopen(t, sqlitestore.DSN(f.file)+fmt.Sprintf("&_pragma=max_page_count(%d)", pages+2))
	inserted := 1
	var err error
	for err == nil {
		k := testKey("u1", token.Generate())
		k.Name = strings.Repeat("x", 1000)
		if err = s.InsertKey(t.Context(), k, nil, -1); err == nil {
			inserted++
		}
	}
	requireFailure(t, err, "InsertKey")
	keys, err := s.Keys(t.Context(), store.Query{Limit: 1000})
	require.NoError(t, err)
	require.Len(t, keys, inserted)
	changes, _, err := s.Changes(t.Context(), 0)
	require.NoError(t, err)
	require.Len(t, changes, inserted+2, "no change of what failed")
	_, err = s.Lookup(t.Context(), f.key.Digest)
	require.NoError(t, err)
}

// TestSQLiteCommitFails has the commit of a statement fail that had returned its
// row already: what was not committed must not be answered (D8).
func TestSQLiteCommitFails(t *testing.T) {
	t.Parallel()
	file := newFile(t)
	dsn := "file:" + file + "?_pragma=busy_timeout(20)" // a rollback journal: the commit waits for readers
	s := newStore(t, open(t, dsn), nil)
	_, ok, err := s.Add(t.Context(), "family", testDay, 1, 250)
	require.NoError(t, err)
	require.True(t, ok)

	reader, err := open(t, dsn).BeginTx(t.Context(), nil)
	require.NoError(t, err)
	var n int
	require.NoError(t, reader.QueryRow("SELECT count(*) FROM keystile_counts").Scan(&n))
	count, ok, err := s.Add(t.Context(), "family", testDay, 1, 250)
	require.False(t, ok, "count %d", count)
	requireFailure(t, err, "Add")
	require.NoError(t, reader.Rollback())

	count, _, err = s.Add(t.Context(), "family", testDay, 0, 0)
	require.NoError(t, err)
	require.EqualValues(t, 1, count)
}

// TestSQLiteNotMigrated: a store without its tables fails everything. Nothing is
// not found, and no organization is unrestricted.
func TestSQLiteNotMigrated(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.reopen(t, sqlitestore.DSN(newFile(t)))
	for _, c := range append(f.writes(), f.reads()...) {
		err := c.run(t.Context(), s)
		requireFailure(t, err, c.name)
		require.NotErrorIs(t, err, errAdmitted, c.name)
	}
}

// TestSQLiteDamagedRows: a row that keystile cannot have written is a failure of
// whatever reads it, above all settings, which must never be taken for settings
// that restrict less (F14, F16).
func TestSQLiteDamagedRows(t *testing.T) {
	t.Parallel()
	settings := func(ctx context.Context, f *fixture) error {
		_, err := f.Settings(ctx, "acme")
		return err
	}
	lookup := func(ctx context.Context, f *fixture) error {
		_, err := f.Lookup(ctx, f.key.Digest)
		return err
	}
	keys := func(ctx context.Context, f *fixture) error {
		_, err := f.Keys(ctx, store.Query{})
		return err
	}
	uses := func(ctx context.Context, f *fixture) error {
		_, err := f.Uses(ctx, "acme", []string{f.key.ID})
		return err
	}
	record := func(ctx context.Context, f *fixture) error { return f.RecordUses(ctx, []store.Use{f.use()}) }
	changes := func(ctx context.Context, f *fixture) error {
		_, _, err := f.Changes(ctx, 0)
		return err
	}
	put := func(ctx context.Context, f *fixture) error {
		return f.PutUser(ctx, &store.User{Org: "acme", ID: token.Generate().ID()})
	}
	for _, tt := range []struct {
		name, damage string
		read         func(ctx context.Context, f *fixture) error
	}{
		{"address", "UPDATE keystile_settings SET allowed_ips = '192.0.2.1\nsecret'", settings},
		{"no text", "UPDATE keystile_settings SET allowed_ips = ''", settings},
		{"blank text", "UPDATE keystile_settings SET allowed_ips = '\n\n'", settings},
		{"bytes for a text", "UPDATE keystile_settings SET allowed_ips = x'00'", settings},
		{"negative age", "UPDATE keystile_settings SET max_age_seconds = -1", settings},
		{"age that overflows", "UPDATE keystile_settings SET max_age_seconds = 9223372036854775807", settings},
		{"flag", "UPDATE keystile_settings SET restrict_users = 2", settings},
		{"scopes", "UPDATE keystile_keys SET scopes = 'secret'", lookup},
		{"scopes of a list", "UPDATE keystile_keys SET scopes = '{}'", keys},
		{"time", "UPDATE keystile_keys SET not_after = 'secret'", lookup},
		{"digest", "UPDATE keystile_keys SET digest = x'01'", keys},
		{"user", "UPDATE keystile_users SET owner = 7", lookup},
		{"addresses used", "UPDATE keystile_uses SET addrs = 'secret'", uses},
		{"address used", `UPDATE keystile_uses SET addrs = '[{"addr":"secret"}]'`, uses},
		{"days used", "UPDATE keystile_uses SET days = 'secret'", record},
		{"change", "UPDATE keystile_changes SET digest = x'01'", changes},
		{"sequence", "DELETE FROM keystile_sequence", put},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			require.NoError(t, tt.read(t.Context(), f))
			conn, err := f.db.Conn(t.Context())
			require.NoError(t, err)
			defer conn.Close()
			// What the schema refuses by itself is refused; the rest is read.
			_, err = conn.ExecContext(t.Context(), "PRAGMA ignore_check_constraints = 1")
			require.NoError(t, err)
			if _, err := conn.ExecContext(t.Context(), tt.damage); err != nil {
				require.ErrorContains(t, err, "cannot store")
				return
			}
			err = tt.read(t.Context(), f)
			requireFailure(t, err, tt.name)
			require.NotContains(t, err.Error(), "secret")
		})
	}
}
