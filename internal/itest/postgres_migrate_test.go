package itest

import (
	"database/sql"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/postgresstore"
	"github.com/keystile/keystile/token"
)

// postgresSchema returns everything that was made in a schema, and the migrations
// that it had.
func postgresSchema(t *testing.T, db *sql.DB, name string) []string {
	t.Helper()
	var all []string
	for _, query := range []string{
		`SELECT format('%s %s %s %s %s', table_name, column_name, data_type, is_nullable, collation_name)
			FROM information_schema.columns WHERE table_schema = '` + name + `' ORDER BY table_name, ordinal_position`,
		`SELECT replace(indexdef, '` + name + `', '') FROM pg_indexes WHERE schemaname = '` + name + `' ORDER BY indexname`,
		`SELECT format('%s %s', conname, pg_get_constraintdef(oid)) FROM pg_constraint WHERE connamespace = '` + name + `'::regnamespace ORDER BY conname`,
		"SELECT version || ' ' || checksum FROM " + name + ".keystile_migrations ORDER BY version",
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

func TestPostgresMigrate(t *testing.T) {
	t.Parallel()
	dsn, name := newSchema(t)
	db := openPool(t, dsn)
	s, err := postgresstore.New(db, nil)
	require.NoError(t, err)

	require.ErrorContains(t, s.Validate(t.Context()), "migration 1 (0001_init.sql) is not applied")
	require.NoError(t, s.Migrate(t.Context()))
	require.NoError(t, s.Validate(t.Context()))
	made := postgresSchema(t, db, name)

	require.NoError(t, s.PutUser(t.Context(), testUser(1)))
	require.NoError(t, s.Migrate(t.Context()), "Migrate is idempotent")
	require.Equal(t, made, postgresSchema(t, db, name))
	users, err := s.Users(t.Context(), store.UserQuery{Org: "acme"})
	require.NoError(t, err)
	require.Len(t, users, 1, "and keeps what is there")

	// Every text is compared byte for byte, whatever the database does.
	var texts, other int
	require.NoError(t, db.QueryRow(`SELECT count(*), count(*) FILTER (WHERE collation_name IS DISTINCT FROM 'C') FROM information_schema.columns
		WHERE table_schema = $1 AND data_type = 'text' AND table_name <> 'keystile_migrations'`, name).Scan(&texts, &other))
	require.NotZero(t, texts)
	require.Zero(t, other)
}

// TestPostgresMigrateParallel has four goroutines on each of two machines migrate
// a new schema, as processes do that start together.
func TestPostgresMigrateParallel(t *testing.T) {
	t.Parallel()
	for range 3 {
		dsn, _ := newSchema(t)
		errs := make(chan error)
		for range 2 {
			db := openPool(t, dsn)
			s, err := postgresstore.New(db, nil)
			require.NoError(t, err)
			for range 4 {
				go func() { errs <- s.Migrate(t.Context()) }()
			}
		}
		for range 8 {
			require.NoError(t, <-errs)
		}
		s, err := postgresstore.New(openPool(t, dsn), nil)
		require.NoError(t, err)
		require.NoError(t, s.Validate(t.Context()))
		require.NoError(t, s.PutUser(t.Context(), testUser(1)))
	}
}

// TestPostgresForeignSchema shows that neither Migrate nor Validate accepts a
// schema that is not this program's, and that Migrate leaves it alone.
func TestPostgresForeignSchema(t *testing.T) {
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
			dsn, name := newSchema(t)
			db := openPool(t, dsn)
			s := newPostgres(t, db, nil)
			mustExec(t, db, tt.change)
			before := postgresSchema(t, db, name)
			require.ErrorContains(t, s.Validate(t.Context()), tt.want)
			require.ErrorContains(t, s.Migrate(t.Context()), tt.want)
			require.Equal(t, before, postgresSchema(t, db, name))
		})
	}
}

// TestPostgresMigrateFails shows that a step that fails leaves nothing behind.
func TestPostgresMigrateFails(t *testing.T) {
	t.Parallel()
	dsn, _ := newSchema(t)
	db := openPool(t, dsn)
	mustExec(t, db, "CREATE TABLE keystile_sequence (mine INTEGER)") // the last one of the step
	s, err := postgresstore.New(db, nil)
	require.NoError(t, err)
	require.ErrorContains(t, s.Migrate(t.Context()), "postgresstore: migrate: 0001_init.sql: ")
	var tables int
	require.NoError(t, db.QueryRow("SELECT count(to_regclass('keystile_keys'))").Scan(&tables))
	require.Zero(t, tables)
	require.ErrorContains(t, s.Validate(t.Context()), "is not applied")

	mustExec(t, db, "DROP TABLE keystile_sequence")
	require.NoError(t, s.Migrate(t.Context()), "and can be repeated")
	require.NoError(t, s.Validate(t.Context()))
}

// TestPostgresMigrationsByHand runs the exported SQL as a tool of the host would.
func TestPostgresMigrationsByHand(t *testing.T) {
	t.Parallel()
	migratedDSN, migrated := newSchema(t)
	newPostgres(t, openPool(t, migratedDSN), nil)

	dsn, name := newSchema(t)
	db := openPool(t, dsn)
	s, err := postgresstore.New(db, nil)
	require.NoError(t, err)
	files := s.Migrations()
	names, err := fs.Glob(files, "*.sql")
	require.NoError(t, err)
	require.True(t, slices.IsSorted(names))
	for _, file := range names {
		require.Error(t, s.Validate(t.Context()))
		text, err := fs.ReadFile(files, file)
		require.NoError(t, err)
		// As psql does it, statement by statement in a transaction.
		cmd := postgres(t).Program("psql", "-X", "-q", "-1", "-v", "ON_ERROR_STOP=1")
		cmd.Env = append(cmd.Env, "PGOPTIONS=-c search_path="+name)
		cmd.Stdin = strings.NewReader(string(text))
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	require.NoError(t, s.Validate(t.Context()))
	require.Equal(t, postgresSchema(t, db, migrated), postgresSchema(t, db, name))
	require.NoError(t, s.Migrate(t.Context()), "nothing is left to do")
	require.NoError(t, s.PutUser(t.Context(), testUser(1)))
}

// TestPostgresPrefixes shows that stores with different prefixes in one schema
// have nothing in common, even if one prefix begins with the other.
func TestPostgresPrefixes(t *testing.T) {
	t.Parallel()
	dsn, name := newSchema(t)
	db := openPool(t, dsn)
	stores := make(map[string]*postgresstore.Store)
	for _, prefix := range []string{"keystile_", "keystile_keystile_", "k", strings.Repeat("k", 32)} {
		s, err := postgresstore.New(db, &postgresstore.Options{TablePrefix: prefix})
		require.NoError(t, err)
		require.ErrorContains(t, s.Validate(t.Context()), "is not applied", "before %s", prefix)
		stores[prefix] = newPostgres(t, db, &postgresstore.Options{TablePrefix: prefix})
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
		require.NoError(t, s.RecordUses(t.Context(), []store.Use{{KeyID: tok.ID(), First: testDay, Last: testDay, Count: 1}}))
	}
	for prefix, s := range stores {
		r, err := s.Lookup(t.Context(), testKey("u1", tok).Digest)
		require.NoError(t, err)
		require.Equal(t, prefix, r.User.Tier)
		_, last, err := s.Changes(t.Context(), -1)
		require.NoError(t, err)
		require.EqualValues(t, 2, last)
	}
	rows, err := db.QueryContext(t.Context(), "SELECT relname FROM pg_class WHERE relnamespace = $1::regnamespace", name)
	require.NoError(t, err)
	defer rows.Close()
	for rows.Next() {
		var relation string
		require.NoError(t, rows.Scan(&relation))
		require.True(t, strings.HasPrefix(relation, "k") || strings.HasPrefix(relation, "pg_toast"), relation)
		require.Less(t, len(relation), 63, relation)
	}
	require.NoError(t, rows.Err())
}

// TestPostgresWithoutRights runs a store as a role that may not change tables, as
// the package documents it: it validates, and does everything else.
func TestPostgresWithoutRights(t *testing.T) {
	t.Parallel()
	dsn, name := newSchema(t)
	db := openPool(t, dsn)
	role := name + "_service"
	mustExec(t, db, "CREATE ROLE "+role+" LOGIN")
	mustExec(t, db, "GRANT USAGE ON SCHEMA "+name+" TO "+role)
	service, err := postgresstore.New(openPool(t, dsn+" user="+role), nil)
	require.NoError(t, err)

	require.ErrorContains(t, service.Validate(t.Context()), "migration 1 (0001_init.sql) is not applied")
	requireFailure(t, service.Migrate(t.Context()), "Migrate")

	f := newFixture(t, newPostgres(t, db, nil))
	require.Error(t, service.Validate(t.Context()), "it must not read the migrations yet")
	mustExec(t, db, "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA "+name+" TO "+role)
	require.NoError(t, service.Validate(t.Context()))
	require.NoError(t, service.Migrate(t.Context()), "nothing is missing")
	for _, c := range append(f.reads(), f.writes()...) {
		// UpdateKey comes after the rotation of the same key.
		if err := c.run(t.Context(), service); !errors.Is(err, store.ErrConflict) {
			require.NoError(t, err, c.name)
		}
	}
}
