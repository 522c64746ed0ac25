// Package demo is what the small examples have in common: their flags, the two
// routes behind API keys, and a demo user with a key. What differs is in their
// main.go: where keys are kept, and where requests are counted.
package demo

import (
	"context"
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

	"github.com/keystile/keystile/middleware"
	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/ratelimit"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/keys"
)

const (
	org   = "demo"
	user  = "demo-user"
	email = "demo@example.com"
)

// An Example is a program of which the flags are read.
type Example struct {
	Limit int64 // -limit

	name string
	addr string // -addr
	more bool   // -new
}

// Main reads the flags, beside those that the program has defined, and runs it
// until it is interrupted. It ends the process if run fails.
func Main(name string, run func(context.Context, *Example) error) {
	e := &Example{name: name}
	flag.StringVar(&e.addr, "addr", "127.0.0.1:8080", "`address` to serve on")
	flag.Int64Var(&e.Limit, "limit", 250, "requests a day and key; -1: no limit")
	flag.BoolVar(&e.more, "new", false, "make another key")
	flag.Parse()
	log.SetFlags(0)
	if flag.NArg() > 0 {
		log.Fatalf("%s takes no arguments, only flags: %q", name, flag.Arg(0))
	}
	if e.Limit == 0 || e.Limit < -1 {
		log.Fatal("-limit must be at least 1, or -1 for no limit")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, e); err != nil {
		log.Fatal(name, ": ", err)
	}
}

// Serve prints how to use a key, makes one if there is none, and serves the routes
// behind guard until ctx ends. Then it closes guard, which writes the last uses.
func (e *Example) Serve(ctx context.Context, mgr *keys.Manager, guard *middleware.Guard) error {
	mux := http.NewServeMux()
	mux.Handle("/v1/ping", guard.Wrap(http.HandlerFunc(ping)))
	// Authenticate spends nothing: the usage can be read at the limit, too.
	mux.Handle("GET /v1/usage", guard.Authenticate(usage(guard.Limiter())))

	listener, err := net.Listen("tcp", e.addr)
	if err != nil {
		return err
	}
	if err := e.hello(ctx, os.Stdout, mgr, "http://"+listener.Addr().String()); err != nil {
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
	fmt.Println("stopping")
	ending, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return errors.Join(server.Shutdown(ending), guard.Close(ending))
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

// hello makes the demo user and a key, if there is none or one more is asked for,
// and prints how to use it.
func (e *Example) hello(ctx context.Context, out io.Writer, mgr *keys.Manager, base string) error {
	if err := mgr.PutUser(ctx, &store.User{Org: org, ID: user, Email: email, Tier: "Pro"}); err != nil {
		return err
	}
	existing, err := mgr.List(ctx, store.Query{Org: org, User: user})
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "keystile on %s\n\n", base)
	secret := "YOUR_TOKEN"
	if len(existing) == 0 || e.more {
		t, _, err := mgr.Create(ctx, keys.CreateParams{Org: org, User: user, Name: e.name})
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
	fmt.Fprintf(out, "  curl -i -H 'x-api-user: %s' -H 'x-api-token: %s' %s/v1/usage\n\n", email, secret, base)
	return nil
}
