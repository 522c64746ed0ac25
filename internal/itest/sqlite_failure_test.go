package itest

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/sqlitestore"
	"github.com/keystile/keystile/token"
)

// A sqliteFixture is a fixture in a file.
type sqliteFixture struct {
	*fixture
	file string
	db   *sql.DB
}

func newSQLiteFixture(t *testing.T) *sqliteFixture {
	t.Helper()
	file := newFile(t)
	db := openFile(t, file)
	return &sqliteFixture{newFixture(t, newStore(t, db, nil)), file, db}
}

// reads also has a refusal, which only reads here.
func (f *sqliteFixture) reads() []call {
	return append(f.fixture.reads(), call{"Add, refused", func(ctx context.Context, s backend) error {
		_, ok, err := s.Add(ctx, f.key.Family, testDay, 1, 1)
		return counted(ok, err)
	}})
}

// reopen returns another store in the file of f, by another data source name.
func (f *sqliteFixture) reopen(t *testing.T, dsn string) *sqlitestore.Store {
	t.Helper()
	s, err := sqlitestore.New(open(t, dsn), nil)
	require.NoError(t, err)
	return s
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
			f := newSQLiteFixture(t)
			s := f.reopen(t, "file:"+f.file+"?_pragma=busy_timeout(20)"+txlock)
			before := f.state(t)
			release := holdLock(t, f.file)
			for _, c := range f.writes() {
				err := c.run(t.Context(), s)
				requireFailure(t, err, c.name)
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
	f := newSQLiteFixture(t)
	before := f.state(t)
	release := holdLock(t, f.file)
	// The first takes the turn of writers, and waits for the lock in the database.
	first := make(chan error)
	held, give := context.WithCancel(t.Context())
	go func() { first <- f.PutUser(held, testUser(3)) }()
	for _, c := range f.writes() {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		err := c.run(ctx, f.backend)
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
	f := newSQLiteFixture(t)
	before := f.state(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	calls := append(append(append(f.writes(), f.reads()...), withoutAsking()...),
		call{"Migrate", func(ctx context.Context, s backend) error { return s.Migrate(ctx) }},
		call{"Validate", func(ctx context.Context, s backend) error { return s.Validate(ctx) }})
	for _, c := range calls {
		err := c.run(ctx, f.backend)
		requireFailure(t, err, c.name)
		require.ErrorIs(t, err, context.Canceled, c.name)
	}
	require.Equal(t, before, f.state(t))
}

// TestSQLiteReadOnly: a database that cannot be written answers reads, and fails
// every write.
func TestSQLiteReadOnly(t *testing.T) {
	t.Parallel()
	f := newSQLiteFixture(t)
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
	}
	require.Equal(t, before, f.state(t))
}

// TestSQLiteFull: a database that is full keeps what it has and fails what needs
// room, whole.
func TestSQLiteFull(t *testing.T) {
	t.Parallel()
	f := newSQLiteFixture(t)
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
	f := newSQLiteFixture(t)
	s := f.reopen(t, sqlitestore.DSN(newFile(t)))
	for _, c := range append(f.writes(), f.reads()...) {
		err := c.run(t.Context(), s)
		requireFailure(t, err, c.name)
	}
}

// TestSQLiteDamagedRows: a row that keystile cannot have written is a failure of
// whatever reads it, above all settings, which must never be taken for settings
// that restrict less (F14, F16).
func TestSQLiteDamagedRows(t *testing.T) {
	t.Parallel()
	for _, d := range []damage{
		{"address", "UPDATE keystile_settings SET allowed_ips = '192.0.2.1\nsecret'", readSettings},
		{"no text", "UPDATE keystile_settings SET allowed_ips = ''", readSettings},
		{"blank text", "UPDATE keystile_settings SET allowed_ips = '\n\n'", readSettings},
		{"bytes for a text", "UPDATE keystile_settings SET allowed_ips = x'00'", readSettings},
		{"negative age", "UPDATE keystile_settings SET max_age_seconds = -1", readSettings},
		{"age that overflows", "UPDATE keystile_settings SET max_age_seconds = 9223372036854775807", readSettings},
		{"flag", "UPDATE keystile_settings SET restrict_users = 2", readSettings},
		{"scopes", "UPDATE keystile_keys SET scopes = 'secret'", readRecord},
		{"scopes of a list", "UPDATE keystile_keys SET scopes = '{}'", readKeys},
		{"time", "UPDATE keystile_keys SET not_after = 'secret'", readRecord},
		{"digest", "UPDATE keystile_keys SET digest = x'01'", readKeys},
		{"user", "UPDATE keystile_users SET owner = 7", readRecord},
		{"addresses used", "UPDATE keystile_uses SET addrs = 'secret'", readUses},
		{"address used", `UPDATE keystile_uses SET addrs = '[{"addr":"secret"}]'`, readUses},
		{"days used", "UPDATE keystile_uses SET days = 'secret'", addUse},
		{"change", "UPDATE keystile_changes SET digest = x'01'", readChanges},
		{"sequence", "DELETE FROM keystile_sequence", putUser},
		{"sequence, read", "DELETE FROM keystile_sequence", readChanges},
	} {
		t.Run(d.name, func(t *testing.T) {
			t.Parallel()
			f := newSQLiteFixture(t)
			require.NoError(t, d.read(t.Context(), f.fixture))
			conn, err := f.db.Conn(t.Context())
			require.NoError(t, err)
			defer conn.Close()
			// What the schema refuses by itself is refused; the rest is read.
			_, err = conn.ExecContext(t.Context(), "PRAGMA ignore_check_constraints = 1")
			require.NoError(t, err)
			if _, err := conn.ExecContext(t.Context(), d.change); err != nil {
				require.ErrorContains(t, err, "cannot store")
				return
			}
			f.requireDamageFails(t, d)
		})
	}
}
