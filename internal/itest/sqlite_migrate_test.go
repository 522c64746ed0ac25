package itest

import (
	"database/sql"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/sqlitestore"
	"github.com/keystile/keystile/token"
)

// schema returns everything that a database has made, and the migrations it had.
func schema(t *testing.T, db *sql.DB) []string {
	t.Helper()
	var all []string
	for _, query := range []string{
		"SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name",
		"SELECT version || ' ' || checksum FROM keystile_migrations ORDER BY version",
	} {
		rows, err := db.QueryContext(t.Context(), query)
		require.NoError(t, err)
		for rows.Next() {
			var s string
			require.NoError(t, rows.Scan(&s))
			all = append(all, s)
		}
		require.NoError(t, rows.Err())
		require.NoError(t, rows.Close())
	}
	return all
}

func TestSQLiteMigrate(t *testing.T) {
	t.Parallel()
	db := openFile(t, newFile(t))
	s, err := sqlitestore.New(db, nil)
	require.NoError(t, err)

	require.ErrorContains(t, s.Validate(t.Context()), "migration 1 (0001_init.sql) is not applied")
	require.NoError(t, s.Migrate(t.Context()))
	require.NoError(t, s.Validate(t.Context()))
	made := schema(t, db)

	require.NoError(t, s.PutUser(t.Context(), testUser(1)))
	require.NoError(t, s.Migrate(t.Context()), "Migrate is idempotent")
	require.Equal(t, made, schema(t, db))
	users, err := s.Users(t.Context(), store.UserQuery{Org: "acme"})
	require.NoError(t, err)
	require.Len(t, users, 1, "and keeps what is there")
}

// TestSQLiteMigrateParallel has four goroutines on each of two handles migrate a
// new file, as processes do that start together.
func TestSQLiteMigrateParallel(t *testing.T) {
	t.Parallel()
	file := newFile(t)
	errs := make(chan error)
	for range 2 {
		db := openFile(t, file)
		s, err := sqlitestore.New(db, nil)
		require.NoError(t, err)
		for range 4 {
			go func() { errs <- s.Migrate(t.Context()) }()
		}
	}
	for range 8 {
		require.NoError(t, <-errs)
	}
	db := openFile(t, file)
	s, err := sqlitestore.New(db, nil)
	require.NoError(t, err)
	require.NoError(t, s.Validate(t.Context()))
	require.NoError(t, s.PutUser(t.Context(), testUser(1)))
}

// TestSQLiteForeignSchema shows that neither Migrate nor Validate accepts a
// schema that is not this program's, and that Migrate leaves it alone.
func TestSQLiteForeignSchema(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, change, want string
	}{
		{
			name:   "altered",
			change: "UPDATE keystile_migrations SET checksum = 'other' WHERE version = 1",
			want:   "migration 1 was applied with another text than 0001_init.sql",
		},
		{
			name:   "newer",
			change: "INSERT INTO keystile_migrations (version, checksum) VALUES (9999, 'later')",
			want:   "the database has 1 later migrations than this program knows of",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			db := openFile(t, newFile(t))
			s := newStore(t, db, nil)
			mustExec(t, db, tt.change)
			before := schema(t, db)
			require.ErrorContains(t, s.Validate(t.Context()), tt.want)
			require.ErrorContains(t, s.Migrate(t.Context()), tt.want)
			require.Equal(t, before, schema(t, db))
		})
	}
}

// TestSQLiteMigrateFails shows that a step that fails leaves nothing behind.
func TestSQLiteMigrateFails(t *testing.T) {
	t.Parallel()
	db := openFile(t, newFile(t))
	mustExec(t, db, "CREATE TABLE keystile_sequence (mine INTEGER)") // the last one of the step
	s, err := sqlitestore.New(db, nil)
	require.NoError(t, err)
	require.ErrorContains(t, s.Migrate(t.Context()), "sqlitestore: migrate: 0001_init.sql: ")
	var tables int
	require.NoError(t, db.QueryRow("SELECT count(*) FROM sqlite_master WHERE name = 'keystile_keys'").Scan(&tables))
	require.Zero(t, tables)
	require.ErrorContains(t, s.Validate(t.Context()), "is not applied")

	mustExec(t, db, "DROP TABLE keystile_sequence")
	require.NoError(t, s.Migrate(t.Context()), "and can be repeated")
	require.NoError(t, s.Validate(t.Context()))
}

// TestSQLiteMigrationsByHand runs the exported SQL as a tool of the host would.
func TestSQLiteMigrationsByHand(t *testing.T) {
	t.Parallel()
	migrated := openFile(t, newFile(t))
	newStore(t, migrated, nil)

	db := openFile(t, newFile(t))
	s, err := sqlitestore.New(db, nil)
	require.NoError(t, err)
	files := s.Migrations()
	names, err := fs.Glob(files, "*.sql")
	require.NoError(t, err)
	require.True(t, slices.IsSorted(names))
	for _, name := range names {
		require.Error(t, s.Validate(t.Context()))
		text, err := fs.ReadFile(files, name)
		require.NoError(t, err)
		mustExec(t, db, string(text))
	}
	require.NoError(t, s.Validate(t.Context()))
	require.Equal(t, schema(t, migrated), schema(t, db))
	require.NoError(t, s.Migrate(t.Context()), "nothing is left to do")
	require.NoError(t, s.PutUser(t.Context(), testUser(1)))
}

// TestSQLitePrefixes shows that stores with different prefixes in one file have
// nothing in common, even if one prefix begins with the other.
func TestSQLitePrefixes(t *testing.T) {
	t.Parallel()
	db := openFile(t, newFile(t))
	stores := make(map[string]*sqlitestore.Store)
	for _, prefix := range []string{"keystile_", "keystile_keystile_", "k"} {
		s, err := sqlitestore.New(db, &sqlitestore.Options{TablePrefix: prefix})
		require.NoError(t, err)
		require.ErrorContains(t, s.Validate(t.Context()), "is not applied", "before %s", prefix)
		stores[prefix] = newStore(t, db, &sqlitestore.Options{TablePrefix: prefix})
	}
	tok := token.Generate()
	for prefix, s := range stores {
		require.NoError(t, s.Validate(t.Context()))
		u := testUser(1)
		u.Tier = prefix
		require.NoError(t, s.PutUser(t.Context(), u))
		require.NoError(t, s.InsertKey(t.Context(), testKey("u1", tok), nil, 1))
		_, ok, err := s.Add(t.Context(), "family", testDay, 1, 1)
		require.NoError(t, err)
		require.True(t, ok)
	}
	for prefix, s := range stores {
		r, err := s.Lookup(t.Context(), testKey("u1", tok).Digest)
		require.NoError(t, err)
		require.Equal(t, prefix, r.User.Tier)
		_, last, err := s.Changes(t.Context(), -1)
		require.NoError(t, err)
		require.EqualValues(t, 2, last)
	}
	rows, err := db.QueryContext(t.Context(), "SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'")
	require.NoError(t, err)
	defer rows.Close()
	for rows.Next() {
		var name string
		require.NoError(t, rows.Scan(&name))
		require.True(t, strings.HasPrefix(name, "k"), name)
	}
	require.NoError(t, rows.Err())
}
