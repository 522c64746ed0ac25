// Postgres is the quickstart on several machines: a service with two routes
// behind API keys that keeps everything in PostgreSQL. Start it as often as you
// like on one database. The limit of a key is counted for all of them together, a
// key that is made at one works at the others at once, and one that is revoked is
// refused by all within about a second.
//
// Without -dsn it connects as psql does: by PGHOST, PGPORT, PGUSER, PGPASSWORD,
// PGDATABASE and the like in the environment. It makes a demo user with a key if
// there is none, and prints curl lines that work when pasted.
package main

import (
	"context"
	"database/sql"
	"flag"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/keystile/keystile/examples/internal/demo"
	"github.com/keystile/keystile/middleware"
	"github.com/keystile/keystile/ratelimit"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/keys"
	"github.com/keystile/keystile/store/postgresstore"
)

var dsn = flag.String("dsn", "", "PostgreSQL data source `name`; as the environment says (PGHOST, ...) if empty")

func main() { demo.Main("postgres", run) }

// run serves until ctx ends.
func run(ctx context.Context, example *demo.Example) error {
	db, err := sql.Open("pgx", *dsn)
	if err != nil {
		return err
	}
	defer db.Close()
	db.SetMaxOpenConns(8)
	db.SetMaxIdleConns(8)
	s, err := postgresstore.New(db, nil)
	if err != nil {
		return err
	}
	if err := migrate(ctx, s); err != nil {
		return err
	}
	// The feed tells the cache what other machines have changed.
	mgr, err := keys.New(s, &keys.Options{Cache: &store.CacheOptions{Feed: s}})
	if err != nil {
		return err
	}
	defer mgr.Close()
	// The store counts too, so that the counts outlive the process and are exact
	// for all processes on the database.
	limiter := ratelimit.NewDaily(s, &ratelimit.DailyOptions{Limit: example.Limit})
	guard, err := middleware.New(mgr.Verifier(), &middleware.Options{
		Limiter: limiter, Uses: s,
		Observe: demo.Observe, UsesFailed: demo.UsesFailed,
	})
	if err != nil {
		return err
	}
	return example.Serve(ctx, mgr, guard)
}

// migrate makes the tables, and gives up on a database that does not answer.
func migrate(ctx context.Context, s *postgresstore.Store) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return s.Migrate(ctx)
}
