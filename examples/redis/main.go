// Redis is the quickstart with its counts in Redis or Valkey: a service with two
// routes behind API keys, which it keeps in one SQLite file. Start it as often as
// you like on one file and one server: the limit of a key is counted for all of
// them together. With its keys in PostgreSQL, as in examples/postgres, it would be a
// service on several machines.
//
// It leases: of a key that is used often it borrows some units of the limit at a
// time, so that most requests cost no trip to the server. While that is away, what
// is not borrowed is answered by 503.
//
// It makes a demo user with a key at its first start, and prints curl lines that
// work when pasted.
package main

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
	_ "modernc.org/sqlite"

	"github.com/keystile/keystile/examples/internal/demo"
	"github.com/keystile/keystile/middleware"
	"github.com/keystile/keystile/ratelimit"
	"github.com/keystile/keystile/ratelimit/rediscounter"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/keys"
	"github.com/keystile/keystile/store/sqlitestore"
)

var (
	file = flag.String("db", "keystile-redis.db", "SQLite `file` of the keys, made if there is none")
	url  = flag.String("redis", "redis://127.0.0.1:6379/0", "`URL` of the server that counts: redis://, rediss:// or unix://")
)

func main() { demo.Main("redis", run) }

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
	client, err := rediscounter.Open(*url)
	if err != nil {
		return err
	}
	defer client.Close()
	if err := reach(ctx, client); err != nil {
		return err
	}
	leased := ratelimit.NewLeased(rediscounter.New(client, nil), nil)
	limiter := ratelimit.NewDaily(leased, &ratelimit.DailyOptions{Limit: example.Limit})
	guard, err := middleware.New(mgr.Verifier(), &middleware.Options{
		Limiter: limiter, Uses: s,
		Observe: demo.Observe, UsesFailed: demo.UsesFailed,
	})
	if err != nil {
		return err
	}
	served := example.Serve(ctx, mgr, guard)
	// What is borrowed is given back when no request can spend it any more.
	ending, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return errors.Join(served, leased.Close(ending))
}

// reach gives up on a server that does not answer. The service would start without
// it as well, and answer 503 until it is there.
func reach(ctx context.Context, client *redis.Client) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return client.Ping(ctx).Err()
}
