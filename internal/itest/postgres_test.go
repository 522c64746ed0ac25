package itest

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/internal/itest/servers"
	"github.com/keystile/keystile/store/postgresstore"
)

// sharedPostgres is the server of all tests that do not harm it.
var sharedPostgres = sync.OnceValues(func() (*servers.Postgres, error) {
	p, err := servers.StartPostgres()
	if err == nil {
		whenOver(p.Close)
	}
	return p, err
})

// postgres returns the server that tests share.
func postgres(t testing.TB) *servers.Postgres {
	t.Helper()
	p, err := sharedPostgres()
	servers.Check(t, err)
	return p
}

// sharedPgBouncer is a pooler in transaction mode in front of that server. It has
// few connections, so that one is soon used by another client.
var sharedPgBouncer = sync.OnceValues(func() (*servers.PgBouncer, error) {
	p, err := sharedPostgres()
	if err != nil {
		return nil, err
	}
	b, err := servers.StartPgBouncer(p, 3)
	if err == nil {
		whenOver(b.Close)
	}
	return b, err
})

// until waits until a query for a number has the answer 0 or, if some is set,
// another. It is not for what has to be soon.
func until(t *testing.T, db *sql.DB, some bool, query string, args ...any) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		var n int
		require.NoError(t, db.QueryRowContext(ctx, query, args...).Scan(&n))
		if n > 0 == some {
			return
		}
	}
}

var schemas atomic.Int64

// newSchema makes a schema in the server that tests share, and returns the data
// source name of connections to it and the schema's name.
func newSchema(t testing.TB) (dsn, name string) {
	t.Helper()
	p := postgres(t)
	db, err := makesSchemas()
	require.NoError(t, err)
	return newSchemaIn(t, p, db)
}

// makesSchemas opens the pool that makes them.
var makesSchemas = sync.OnceValues(func() (*sql.DB, error) {
	p, err := sharedPostgres()
	if err != nil {
		return nil, err
	}
	db, err := sql.Open("pgx", p.DSN())
	if err == nil {
		whenOver(db.Close)
	}
	return db, err
})

func newSchemaIn(t testing.TB, p *servers.Postgres, db *sql.DB) (dsn, name string) {
	t.Helper()
	name = fmt.Sprintf("test%d", schemas.Add(1))
	mustExec(t, db, "CREATE SCHEMA "+name)
	return p.DSN("search_path=" + name), name
}

// openPool opens a pool of connections to a PostgreSQL database. It is closed
// when the test is over.
func openPool(t testing.TB, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open("pgx", dsn)
	require.NoError(t, err)
	db.SetMaxOpenConns(16)
	db.SetMaxIdleConns(16)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

// openPostgres is [openPool] and postgresstore.New for a process of its own.
func openPostgres(_ context.Context, dsn string) (backend, error) {
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(16)
	db.SetMaxIdleConns(16)
	return postgresstore.New(db, nil)
}

// newPostgres returns a store in db, with its tables made.
func newPostgres(t testing.TB, db *sql.DB, opts *postgresstore.Options) *postgresstore.Store {
	t.Helper()
	s, err := postgresstore.New(db, opts)
	require.NoError(t, err)
	require.NoError(t, s.Migrate(t.Context()))
	return s
}

// newPostgresStore returns a store in a new schema.
func newPostgresStore(t testing.TB) *postgresstore.Store {
	t.Helper()
	dsn, _ := newSchema(t)
	return newPostgres(t, openPool(t, dsn), nil)
}
