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
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
	_ "modernc.org/sqlite"

	"github.com/keystile/keystile/middleware"
	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/ratelimit"
	"github.com/keystile/keystile/ratelimit/rediscounter"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/keys"
	"github.com/keystile/keystile/store/sqlitestore"
)

const (
	demoOrg   = "demo"
	demoUser  = "demo-user"
	demoEmail = "demo@example.com"
)

func main() {
	var (
		addr  = flag.String("addr", "127.0.0.1:8080", "`address` to serve on")
		file  = flag.String("db", "keystile-redis.db", "SQLite `file` of the keys, made if there is none")
		url   = flag.String("redis", "redis://127.0.0.1:6379/0", "`URL` of the server that counts: redis://, rediss:// or unix://")
		limit = flag.Int64("limit", 250, "requests a day and key; -1: no limit")
		more  = flag.Bool("new", false, "make another key")
	)
	flag.Parse()
	log.SetFlags(0)
	if flag.NArg() > 0 {
		log.Fatalf("redis takes no arguments, only flags: %q", flag.Arg(0))
	}
	if *limit == 0 || *limit < -1 {
		log.Fatal("-limit must be at least 1, or -1 for no limit")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdout, *addr, *file, *url, *limit, *more); err != nil {
		log.Fatal("redis: ", err)
	}
}

// run serves until ctx ends.
func run(ctx context.Context, out io.Writer, addr, file, url string, limit int64, more bool) error {
	db, err := sql.Open("sqlite", sqlitestore.DSN(file))
	if err != nil {
		return err
	}
	defer db.Close()
	s, err := sqlitestore.New(db, nil)
	if err != nil {
		return err
	}
	if err := s.Migrate(ctx); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	// The feed tells the cache what other processes on the file have changed.
	mgr, err := keys.New(s, &keys.Options{Cache: &store.CacheOptions{Feed: s}})
	if err != nil {
		return err
	}
	defer mgr.Close()
	client, err := rediscounter.Open(url)
	if err != nil {
		return err
	}
	defer client.Close()
	if err := reach(ctx, client); err != nil {
		return err
	}
	leased := ratelimit.NewLeased(rediscounter.New(client, nil), nil)
	limiter := ratelimit.NewDaily(leased, &ratelimit.DailyOptions{Limit: limit})
	guard, err := middleware.New(mgr.Verifier(), &middleware.Options{Limiter: limiter, Uses: s})
	if err != nil {
		return err
	}

	mux := http.NewServeMux()
	mux.Handle("/v1/ping", guard.Wrap(http.HandlerFunc(ping)))
	// Authenticate spends nothing: the usage can be read at the limit, too.
	mux.Handle("GET /v1/usage", guard.Authenticate(usage(limiter)))

	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	if err := demo(ctx, out, mgr, more, "http://"+listener.Addr().String()); err != nil {
		return errors.Join(err, listener.Close())
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	fmt.Fprintln(out, "stopping")
	ending, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	// What is borrowed is given back when no request can spend it any more.
	return errors.Join(server.Shutdown(ending), guard.Close(ending), leased.Close(ending))
}

// reach gives up on a server that does not answer. The service would start without
// it as well, and answer 503 until it is there.
func reach(ctx context.Context, client *redis.Client) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return client.Ping(ctx).Err()
}

func ping(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, "pong from the protected handler")
}

// usage answers how much of its quota the calling key has used today.
func usage(limiter ratelimit.Limiter) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, ok := middleware.PrincipalFrom(r.Context())
		if !ok || p.Credential != policy.APIKey {
			http.Error(w, "only API keys are counted", http.StatusForbidden)
			return
		}
		q, err := limiter.Peek(r.Context(), p.Quota, p.DailyLimit)
		if err != nil {
			http.Error(w, "the counter gives no answer", http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		_ = json.NewEncoder(w).Encode(map[string]any{"success": true, "data": map[string]any{
			"used": q.Used, "limit": q.Limit, "periodStart": q.Start.UTC(), "resetAt": q.Reset.UTC(),
		}})
	})
}

// demo makes the demo user and a key, if there is none or more is set, and
// prints how to use it.
func demo(ctx context.Context, out io.Writer, mgr *keys.Manager, more bool, base string) error {
	if err := mgr.PutUser(ctx, &store.User{Org: demoOrg, ID: demoUser, Email: demoEmail, Tier: "Pro"}); err != nil {
		return err
	}
	existing, err := mgr.List(ctx, store.Query{Org: demoOrg, User: demoUser})
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "keystile on %s\n\n", base)
	secret := "YOUR_TOKEN"
	if len(existing) == 0 || more {
		t, _, err := mgr.Create(ctx, keys.CreateParams{Org: demoOrg, User: demoUser, Name: "redis"})
		if err != nil {
			return err
		}
		secret = t.Reveal()
		fmt.Fprintf(out, "Your token, shown only now:\n\n  %s\n\n", secret)
	} else {
		fmt.Fprintln(out, "There are keys already (a token is shown once; -new makes another key):")
		fmt.Fprintln(out)
		for _, k := range existing {
			fmt.Fprintf(out, "  %s…  %s\n", k.ID, k.Name)
		}
		fmt.Fprintln(out)
	}
	fmt.Fprintf(out, "Try it:\n\n")
	fmt.Fprintf(out, "  curl -i -H 'Authorization: Bearer %s' %s/v1/ping\n", secret, base)
	fmt.Fprintf(out, "  curl -i -H 'x-api-user: %s' -H 'x-api-token: %s' %s/v1/usage\n\n", demoEmail, secret, base)
	return nil
}
