package itest

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/postgresstore"
	"github.com/keystile/keystile/token"
)

// A postgresFixture is a fixture in a schema of its own.
type postgresFixture struct {
	*fixture
	dsn string
	db  *sql.DB
}

func newPostgresFixture(t *testing.T) *postgresFixture {
	t.Helper()
	dsn, _ := newSchema(t)
	db := openPool(t, dsn)
	return &postgresFixture{newFixture(t, newPostgres(t, db, nil)), dsn, db}
}

// reopen returns another store with the tables of f, through connections with
// other settings.
func (f *postgresFixture) reopen(t *testing.T, settings string) *postgresstore.Store {
	t.Helper()
	s, err := postgresstore.New(openPool(t, f.dsn+" "+settings), nil)
	require.NoError(t, err)
	return s
}

// holdTables takes a lock that keeps everybody from every table, as a foreign
// program or a migration of the host's could, until release is called.
func (f *postgresFixture) holdTables(t *testing.T) (release func()) {
	t.Helper()
	tx, err := f.db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	for _, table := range []string{"users", "keys", "settings", "counts", "loans", "uses", "changes", "sequence"} {
		_, err = tx.ExecContext(t.Context(), "LOCK TABLE keystile_"+table)
		require.NoError(t, err)
	}
	return func() { require.NoError(t, tx.Rollback()) }
}

// TestPostgresLocked shows what happens while a foreign program holds the tables,
// with each of the timeouts that a server can be set to: every call is a failure,
// soon, and changes nothing (S76).
func TestPostgresLocked(t *testing.T) {
	t.Parallel()
	for _, setting := range []string{"statement_timeout=20", "lock_timeout=20"} {
		t.Run(setting, func(t *testing.T) {
			t.Parallel()
			f := newPostgresFixture(t)
			s := f.reopen(t, setting)
			before := f.state(t)
			release := f.holdTables(t)
			for _, c := range append(f.writes(), f.reads()...) {
				requireFailure(t, c.run(t.Context(), s), c.name)
				require.NoError(t, t.Context().Err())
			}
			release()
			require.Equal(t, before, f.state(t))
			_, ok, err := s.Add(t.Context(), f.key.Family, testDay, 1, 250)
			require.NoError(t, err, "it recovers by itself")
			require.True(t, ok)
		})
	}
}

// TestPostgresDeadline shows that a context ends every wait for a lock, and that
// no transaction that it ended is committed later.
func TestPostgresDeadline(t *testing.T) {
	t.Parallel()
	f := newPostgresFixture(t)
	before := f.state(t)
	release := f.holdTables(t)
	for _, c := range append(f.writes(), f.reads()...) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		err := c.run(ctx, f.backend)
		cancel()
		requireFailure(t, err, c.name)
		require.ErrorIs(t, err, context.DeadlineExceeded, c.name)
	}
	release()
	until(t, f.db, false, `SELECT count(*) FROM pg_locks WHERE NOT granted AND relation IN (`+ownTables+`)`)
	f.requireUnchanged(t, before)
}

// requireUnchanged requires that calls of all methods which failed, nobody knows
// when, have changed nothing of the state before them. An addition to a count is
// one statement, which the server may find when nobody waits for it any more.
func (f *fixture) requireUnchanged(t *testing.T, before []any) {
	t.Helper()
	after := f.state(t)
	require.LessOrEqual(t, after[6].(int64)-before[6].(int64), int64(1))
	before[6] = after[6]
	require.Equal(t, before, after)
}

// TestPostgresEndedContext shows that nothing is begun under a context that has
// ended, and that the error says so.
func TestPostgresEndedContext(t *testing.T) {
	t.Parallel()
	f := newPostgresFixture(t)
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

// TestPostgresReadOnly: a server that only reads, such as a replica, answers
// reads, and fails every write.
func TestPostgresReadOnly(t *testing.T) {
	t.Parallel()
	f := newPostgresFixture(t)
	before := f.state(t)
	s := f.reopen(t, "default_transaction_read_only=on")
	require.NoError(t, s.Migrate(t.Context()), "nothing is missing")
	require.NoError(t, s.Validate(t.Context()))
	for _, c := range f.reads() {
		require.NoError(t, c.run(t.Context(), s), c.name)
	}
	for _, c := range f.writes() {
		requireFailure(t, c.run(t.Context(), s), c.name)
	}
	require.Equal(t, before, f.state(t))
}

// TestPostgresNotMigrated: a store without its tables fails everything. Nothing
// is not found, and no organization is unrestricted.
func TestPostgresNotMigrated(t *testing.T) {
	t.Parallel()
	f := newPostgresFixture(t)
	dsn, _ := newSchema(t)
	s, err := postgresstore.New(openPool(t, dsn), nil)
	require.NoError(t, err)
	for _, c := range append(f.writes(), f.reads()...) {
		requireFailure(t, c.run(t.Context(), s), c.name)
	}
}

// TestPostgresDamagedRows: a row that keystile cannot have written is a failure
// of whatever reads it, above all settings, which must never be taken for settings
// that restrict less (F14, F16).
func TestPostgresDamagedRows(t *testing.T) {
	t.Parallel()
	for _, d := range []damage{
		{"address", "UPDATE keystile_settings SET allowed_ips = '192.0.2.1\nsecret'", readSettings},
		{"no text", "UPDATE keystile_settings SET allowed_ips = ''", readSettings},
		{"blank text", "UPDATE keystile_settings SET allowed_ips = '\n\n'", readSettings},
		{"negative age", "UPDATE keystile_settings SET max_age_seconds = -1", readSettings},
		{"age that overflows", "UPDATE keystile_settings SET max_age_seconds = 9223372036854775807", readSettings},
		{"scopes", "UPDATE keystile_keys SET scopes = 'secret'", readRecord},
		{"scopes of a list", "UPDATE keystile_keys SET scopes = '{}'", readKeys},
		{"digest", `UPDATE keystile_changes SET digest = '\x01'`, readChanges},
		{"addresses used", "UPDATE keystile_uses SET addrs = 'secret'", readUses},
		{"address used", `UPDATE keystile_uses SET addrs = '[{"addr":"secret"}]'`, readUses},
		{"days used", "UPDATE keystile_uses SET days = 'secret'", addUse},
		{"sequence", "DELETE FROM keystile_sequence", putUser},
		{"sequence, read", "DELETE FROM keystile_sequence", readChanges},
	} {
		t.Run(d.name, func(t *testing.T) {
			t.Parallel()
			f := newPostgresFixture(t)
			require.NoError(t, d.read(t.Context(), f.fixture))
			mustExec(t, f.db, d.change)
			f.requireDamageFails(t, d)
		})
	}
}

// TestPostgresConstraints: what the schema can refuse by itself, it does.
func TestPostgresConstraints(t *testing.T) {
	t.Parallel()
	f := newPostgresFixture(t)
	for _, statement := range []string{
		`UPDATE keystile_keys SET digest = '\x01'`,
		"UPDATE keystile_keys SET revoked = true, revoked_at = NULL",
		"UPDATE keystile_counts SET spent = -1",
		"UPDATE keystile_changes SET kind = 0",
		"INSERT INTO keystile_sequence VALUES (2, 0)",
		"UPDATE keystile_users SET owner = NULL",
	} {
		_, err := f.db.ExecContext(t.Context(), statement)
		require.ErrorContains(t, err, "violates", statement)
	}
}

// TestPostgresTerminated: a connection that the server ends in the middle of a
// transaction, as an operator may have it do, is a failure of that call and of no
// other, and leaves nothing behind.
func TestPostgresTerminated(t *testing.T) {
	t.Parallel()
	f := newPostgresFixture(t)
	before := f.state(t)
	tx, err := f.db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	_, err = tx.Exec("SELECT * FROM keystile_sequence FOR UPDATE")
	require.NoError(t, err)
	for _, c := range f.writes()[:6] { // those that change the feed
		failed := make(chan error)
		go func() { failed <- c.run(t.Context(), f.backend) }()
		waitsForLock(t, f.db, "UPDATE keystile_sequence")
		var n int
		require.NoError(t, f.db.QueryRow(`SELECT count(pg_terminate_backend(pid)) FROM pg_locks
			WHERE NOT granted AND pid IN (SELECT pid FROM pg_locks WHERE relation IN (`+ownTables+`))`).Scan(&n))
		require.Equal(t, 1, n)
		requireFailure(t, <-failed, c.name)
	}
	require.NoError(t, tx.Rollback())
	require.Equal(t, before, f.state(t))
	require.NoError(t, f.PutUser(t.Context(), testUser(2)))
}

// TestPostgresDeadlock has a transaction of the host's wait for a row that ours
// has, while ours waits for a row of the host's. The server undoes ours, and it is
// done again: once, and without an error.
func TestPostgresDeadlock(t *testing.T) {
	t.Parallel()
	f := newPostgresFixture(t)
	_, last, err := f.Changes(t.Context(), -1)
	require.NoError(t, err)
	s, suspended, resume := f.suspending(t, "UPDATE keystile_keys", "deadlock_timeout=10ms")
	host, err := openPool(t, f.dsn+" deadlock_timeout=60s").BeginTx(t.Context(), nil)
	require.NoError(t, err)
	_, err = host.Exec("SELECT * FROM keystile_keys FOR UPDATE")
	require.NoError(t, err)

	old := *f.key
	old.RevokedAt = testDay
	k := testKey("u1", token.Generate())
	done, hosts := make(chan error), make(chan error)
	go func() { done <- s.InsertKey(t.Context(), k, &old, 1) }()
	<-suspended // It has the user's row.
	go func() {
		_, err := host.Exec("SELECT * FROM keystile_users FOR UPDATE")
		hosts <- errors.Join(err, host.Commit())
	}()
	waitsForLock(t, f.db, "SELECT * FROM keystile_users")
	close(resume)
	require.NoError(t, <-hosts, "ours was undone")
	require.NoError(t, <-done)
	changes, _, err := f.Changes(t.Context(), last)
	require.NoError(t, err)
	require.Len(t, changes, 2)
	keys, err := f.Keys(t.Context(), store.Query{})
	require.NoError(t, err)
	require.Len(t, keys, 1)
	require.Equal(t, k.ID, keys[0].ID)
}

// TestPostgresSuspended suspends a machine in the middle of a write, when it has
// the row that orders all writes. The server ends its transaction after five
// seconds, so that keys can be revoked elsewhere; its own call fails.
func TestPostgresSuspended(t *testing.T) {
	t.Parallel()
	f := newPostgresFixture(t)
	s, suspended, resume := f.suspending(t, "INSERT INTO keystile_changes", "")
	failed := make(chan error)
	go func() { failed <- s.PutUser(t.Context(), testUser(2)) }()
	<-suspended

	revoked := *f.key
	revoked.RevokedAt, revoked.Revoked = testDay, true
	require.NoError(t, f.UpdateKey(t.Context(), &revoked))
	close(resume)
	requireFailure(t, <-failed, "PutUser")
	users, err := f.Users(t.Context(), store.UserQuery{Org: "acme"})
	require.NoError(t, err)
	require.Len(t, users, 1)
}

// suspending returns another store with the tables of f, which is suspended when
// it is about to send a statement for the first time, until resume is closed.
func (f *postgresFixture) suspending(t *testing.T, statement, settings string) (s *postgresstore.Store, suspended, resume chan struct{}) {
	t.Helper()
	suspended, resume = make(chan struct{}), make(chan struct{})
	var once sync.Once
	return f.through(t, settings, func(conn net.Conn) net.Conn {
		return &suspendedConn{conn, statement, func() {
			once.Do(func() {
				close(suspended)
				<-resume
			})
		}}
	}), suspended, resume
}

// through returns another store with the tables of f, whose connections go
// through what wrap returns.
func (f *postgresFixture) through(t *testing.T, settings string, wrap func(net.Conn) net.Conn) *postgresstore.Store {
	t.Helper()
	config, err := pgx.ParseConfig(f.dsn + " default_query_exec_mode=exec " + settings)
	require.NoError(t, err)
	config.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return wrap(conn), nil
	}
	db := stdlib.OpenDB(*config)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	s, err := postgresstore.New(db, nil)
	require.NoError(t, err)
	return s
}

// A suspendedConn calls suspend before it sends a statement.
type suspendedConn struct {
	net.Conn
	statement string
	suspend   func()
}

func (c *suspendedConn) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte(c.statement)) {
		c.suspend()
	}
	return c.Conn.Write(b)
}

// TestPostgresLostAnswer loses the connection when the server has committed and
// before it could say so. Whether the write was done is not known then: it is a
// failure, and is not done a second time.
func TestPostgresLostAnswer(t *testing.T) {
	t.Parallel()
	f := newPostgresFixture(t)
	var statement atomic.Pointer[string] // whose answer is lost
	s := f.through(t, "", func(conn net.Conn) net.Conn { return &deafConn{Conn: conn, statement: &statement} })

	statement.Store(new("UPDATE keystile_counts"))
	for n := range 5 {
		_, ok, err := s.Add(t.Context(), f.key.Family, testDay, 1, 250)
		require.False(t, ok)
		requireFailure(t, err, "Add")
		count, _, err := f.Add(t.Context(), f.key.Family, testDay, 0, 0)
		require.NoError(t, err)
		require.EqualValues(t, n+2, count, "it was done once")
	}
	statement.Store(new("commit\x00"))
	_, last, err := f.Changes(t.Context(), -1)
	require.NoError(t, err)
	requireFailure(t, s.UpdateKey(t.Context(), f.key), "UpdateKey")
	changes, _, err := f.Changes(t.Context(), last)
	require.NoError(t, err)
	require.Len(t, changes, 1)
}

// A deafConn ends instead of hearing what the server answers to a statement.
type deafConn struct {
	net.Conn
	statement *atomic.Pointer[string]
	deaf      atomic.Bool
}

var errDeaf = errors.New("connection reset")

func (c *deafConn) Write(b []byte) (int, error) {
	s := c.statement.Load()
	c.deaf.Store(s != nil && bytes.Contains(b, []byte(*s)))
	return c.Conn.Write(b)
}

func (c *deafConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.deaf.Load() {
		return 0, errors.Join(errDeaf, c.Close())
	}
	return n, err
}
