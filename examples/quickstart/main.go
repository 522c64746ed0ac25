// Quickstart is a service with two routes behind API keys. It keeps everything
// in one SQLite file, makes a demo user with a key at its first start, and
// prints curl lines that work when pasted. Started more than once on one file, it
// is one service: a key that is made in one process works in the others at once,
// and one that is revoked is refused by all within about a second.
package main

import (
	"context"
	"database/sql"
	"flag"
	"fmt"

	_ "modernc.org/sqlite"

	"github.com/keystile/keystile/examples/internal/demo"
	"github.com/keystile/keystile/middleware"
	"github.com/keystile/keystile/ratelimit"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/keys"
	"github.com/keystile/keystile/store/sqlitestore"
)

var file = flag.String("db", "keystile-quickstart.db", "SQLite `file`, made if there is none")

func main() { demo.Main("quickstart", run) }

// run serves until ctx ends.
func run(ctx context.Context, example *demo.Example) error {
	if err := demo.CheckFile("-db", *file); err != nil {
		return err
	}
	db, err := sql.Open("sqlite", sqlitestore.DSN(*file))
	if err != nil {
		return err
	}
	defer db.Close()
	db.SetMaxOpenConns(8)
	s, err := sqlitestore.New(db, nil)
	if err != nil {
		return err
	}
	if err := s.Migrate(ctx); err != nil {
		return fmt.Errorf("-db %s: %w", *file, err)
	}
	// The feed tells the cache what other processes on the file have changed.
	mgr, err := keys.New(s, &keys.Options{Cache: &store.CacheOptions{Feed: s}})
	if err != nil {
		return err
	}
	defer mgr.Close()
	// The store counts too, so that the counts outlive the process and are exact
	// for all processes on the file.
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
