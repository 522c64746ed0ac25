package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/redis/go-redis/v9"
	_ "modernc.org/sqlite"

	"github.com/keystile/keystile/examples/internal/demo"
	"github.com/keystile/keystile/ratelimit"
	"github.com/keystile/keystile/ratelimit/rediscounter"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/memstore"
	"github.com/keystile/keystile/store/postgresstore"
	"github.com/keystile/keystile/store/sqlitestore"
)

// A backend is a store with all that stands beside it.
type backend interface {
	store.Store
	store.Uses
	store.Feed
	ratelimit.Counter
}

// openStore opens what -store names. The function it returns closes it.
func openStore(ctx context.Context, name string) (backend, func() error, error) {
	kind, file, _ := strings.Cut(name, ":")
	switch {
	case name == "memory":
		return memstore.New(), func() error { return nil }, nil
	case kind == "sqlite" && file != "":
		if err := demo.CheckFile("-store", file); err != nil {
			return nil, nil, err
		}
		db, err := sql.Open("sqlite", sqlitestore.DSN(file))
		if err != nil {
			return nil, nil, err
		}
		db.SetMaxOpenConns(8)
		s, err := sqlitestore.New(db, nil)
		return migrated(ctx, s, db, err)
	case kind == "postgres" || kind == "postgresql":
		db, err := sql.Open("pgx", name)
		if err != nil {
			// The name has a password, which the error may repeat.
			return nil, nil, errors.New("-store is no data source name of PostgreSQL")
		}
		db.SetMaxOpenConns(8)
		db.SetMaxIdleConns(8)
		s, err := postgresstore.New(db, nil)
		return migrated(ctx, s, db, err)
	}
	return nil, nil, errors.New("-store is none of memory, sqlite:FILE and a postgres:// address")
}

// migrated brings the tables of a store that was opened up to date.
func migrated[S interface {
	backend
	Migrate(context.Context) error
}](ctx context.Context, s S, db *sql.DB, err error) (backend, func() error, error) {
	if err == nil {
		err = s.Migrate(ctx)
	}
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("-store: %w", err), db.Close())
	}
	return s, db.Close, nil
}

// openRedis connects to the server of -redis. What goes wrong later is a 503 for
// the request, but a mistake in the flag is better noticed now.
func openRedis(ctx context.Context, address string) (*redis.Client, error) {
	client, err := rediscounter.Open(address)
	if err != nil {
		return nil, fmt.Errorf("-redis: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := client.Ping(ctx).Err(); err != nil {
		return nil, errors.Join(fmt.Errorf("-redis: %w", err), client.Close())
	}
	return client, nil
}
