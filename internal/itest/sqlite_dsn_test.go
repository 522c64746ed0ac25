package itest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/store/sqlitestore"
)

// TestSQLiteDSN shows that the recommended data source name opens the very file
// that it is given, and sets what it promises.
func TestSQLiteDSN(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"keys.db", "a b.db", "a?b.db", "a?_pragma=synchronous(OFF)", "a#b.db", "a%b.db", "a%20b.db", "a%3fb.db", "a%00b.db",
		"a&b=c;d.db", "a+b.db", "ä ж 鍵.db", "a'b\"c.db", "a\\b.db", ":memory:", "file:keys.db", "-x", "a\nb.db", "~", "$HOME",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			requireOpens(t, filepath.Join(t.TempDir(), name))
		})
	}
}

// requireOpens requires that the database in a file is made there and nowhere
// else.
func requireOpens(t *testing.T, file string) {
	t.Helper()
	db := openFile(t, file)
	newStore(t, db, nil)
	for pragma, want := range map[string]string{
		"journal_mode": "wal", "synchronous": "2", "busy_timeout": "5000", "foreign_keys": "1",
	} {
		var got string
		require.NoError(t, db.QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got))
		require.Equal(t, want, got, pragma)
	}
	header, err := os.ReadFile(file)
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(string(header), "SQLite format 3"))
	files, err := os.ReadDir(filepath.Dir(file))
	require.NoError(t, err)
	for _, f := range files {
		require.Contains(t, []string{"", "-wal", "-shm"}, strings.TrimPrefix(f.Name(), filepath.Base(file)))
	}
}

// TestSQLiteDSNRelative is not parallel, since it changes the directory.
func TestSQLiteDSNRelative(t *testing.T) {
	t.Chdir(t.TempDir())
	require.NoError(t, os.Mkdir("dir", 0o700))
	for _, file := range []string{"keys.db", "dir/keys.db", "./a.db", "dir/../b.db", ":memory:", "file:c.db", "%64.db"} {
		db := openFile(t, file)
		newStore(t, db, nil)
		require.FileExists(t, file)
	}
	_, err := sqlitestore.New(openFile(t, ""), nil)
	require.NoError(t, err)
	require.Error(t, openFile(t, "").PingContext(t.Context()), "no path is no database, and not one that is lost")

	abs, err := filepath.Abs("slashes.db")
	require.NoError(t, err)
	newStore(t, openFile(t, "//"+abs), nil)
	require.FileExists(t, abs)
}

// FuzzSQLiteDSN: the file that is made is that of the path, byte for byte.
func FuzzSQLiteDSN(f *testing.F) {
	for _, name := range []string{"a", "?", "#", "%", "%2e", "a?b#c%64", ":memory:", "\x01", "\u00e9", "file:x?mode=memory"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if strings.ContainsAny(name, "/\x00") || name == "." || name == ".." || name == "" || len(name) > 200 || !utf8.ValidString(name) {
			t.Skip("not the name of a file")
		}
		file := filepath.Join(t.TempDir(), name)
		db := openFile(t, file)
		mustExec(t, db, "CREATE TABLE t (x)")
		require.FileExists(t, file)
	})
}
