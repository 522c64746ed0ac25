package itest

import (
	"context"
	"database/sql"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite"

	"github.com/keystile/keystile/store/sqlitestore"
)

// open opens a database. It is closed when the test is over.
func open(t testing.TB, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", dsn)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

// openFile opens the database in a file.
func openFile(t testing.TB, file string) *sql.DB {
	t.Helper()
	return open(t, sqlitestore.DSN(file))
}

// newFile returns the name of a file that does not exist, in a directory that
// goes when the test is over.
func newFile(t testing.TB) string { return filepath.Join(t.TempDir(), "keys.db") }

// newStore returns a store in db, with its tables made.
func newStore(t testing.TB, db *sql.DB, opts *sqlitestore.Options) *sqlitestore.Store {
	t.Helper()
	s, err := sqlitestore.New(db, opts)
	require.NoError(t, err)
	require.NoError(t, s.Migrate(t.Context()))
	return s
}

// newStoreFile returns a store in a new file.
func newStoreFile(t testing.TB) *sqlitestore.Store {
	t.Helper()
	return newStore(t, openFile(t, newFile(t)), nil)
}

// openSQLite is [openFile] and sqlitestore.New for a process of its own.
func openSQLite(_ context.Context, file string) (backend, error) {
	db, err := sql.Open("sqlite", sqlitestore.DSN(file))
	if err != nil {
		return nil, err
	}
	return sqlitestore.New(db, nil)
}

func mustExec(t testing.TB, db *sql.DB, statement string, args ...any) {
	t.Helper()
	_, err := db.ExecContext(t.Context(), statement, args...)
	require.NoError(t, err)
}
