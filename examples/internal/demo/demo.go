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
	"strings"
	"syscall"
	"time"

	"github.com/keystile/keystile/middleware"
	"github.com/keystile/keystile/policy"
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

	name     string
	more     bool         // -new
	listener net.Listener // on -addr
}

// Main reads the flags, beside those that the program has defined, and runs it
// until it is interrupted. It ends the process if run fails.
func Main(name string, run func(context.Context, *Example) error) {
	e := &Example{name: name}
	addr := flag.String("addr", "127.0.0.1:8080", "`address` to serve on")
	flag.Int64Var(&e.Limit, "limit", 250, "requests a day and key; -1: no limit")
	flag.BoolVar(&e.more, "new", false, "make another key")
	flag.Parse()
	log.SetFlags(0)
	log.SetPrefix(name + ": ")
	if flag.NArg() > 0 {
		log.Fatalf("there are no arguments, only flags: %q", flag.Arg(0))
	}
	if e.Limit == 0 || e.Limit < -1 {
		log.Fatal("-limit must be at least 1, or -1 for no limit")
	}
	// In "quickstart | tee log" Ctrl-C ends tee as well. What is printed then must not
	// end the program by SIGPIPE, before the last uses are written.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program at once
	// The address comes first, so that one in use leaves no new database behind.
	var err error
	if e.listener, err = net.Listen("tcp", *addr); err != nil {
		log.Fatalf("-addr %s: %v", *addr, err)
	}
	// Canceled is what was under way before Serve, if anything: no failure either.
	if err := run(ctx, e); err != nil && !errors.Is(err, context.Canceled) {
		log.Fatal(err)
	}
}

// CheckFile makes the SQLite file that a flag names if there is none. SQLite would do
// so, too, but let others read it, not say why it cannot, and notice one that is
// read-only when a request is counted.
func CheckFile(flag, name string) error {
	if name == "" {
		return fmt.Errorf("%s must name a file", flag)
	}
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("%s: %w", flag, err)
	}
	return f.Close()
}

// Observe prints why a store or counter gave no answer. The client is told 503 only.
func Observe(_ *http.Request, e middleware.Event) {
	if e.Refusal != nil && e.Refusal.Status == http.StatusServiceUnavailable {
		log.Print("unavailable: ", e.Err)
	}
}

// UsesFailed prints why uses could not be written. They are tried again.
func UsesFailed(err error) { log.Print("uses: ", err) }

// Serve makes a key if there is none, prints how to use it, and serves the routes
// behind guard until ctx ends. Then it closes guard, which writes the last uses.
func (e *Example) Serve(ctx context.Context, mgr *keys.Manager, guard *middleware.Guard) error {
	mux := http.NewServeMux()
	mux.Handle("/v1/ping", guard.Wrap(http.HandlerFunc(ping)))
	// Authenticate spends nothing: the usage can be read at the limit, too.
	mux.Handle("GET /v1/usage", guard.With(policy.Via(policy.APIKey)).Authenticate(usage(guard)))

	if err := e.hello(ctx, os.Stdout, mgr); err != nil {
		return err
	}
	server := newServer(mux)
	served := make(chan error, 1)
	go func() { served <- server.Serve(e.listener) }()
	var failed error
	select {
	case failed = <-served:
	case <-ctx.Done():
		fmt.Println("stopping")
		failed = shutDown(server)
	}
	// It has a time of its own, of which slow clients take nothing.
	ending, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := guard.Close(ending); err != nil {
		return errors.Join(failed, fmt.Errorf("writing the last uses: %w", err))
	}
	return failed
}

// newServer returns a server that waits for no client forever.
func newServer(h http.Handler) *http.Server {
	return &http.Server{Handler: h, ReadTimeout: 10 * time.Second, WriteTimeout: 20 * time.Second, IdleTimeout: time.Minute}
}

// shutDown lets the requests under way come to their end. Clients that take too long
// are cut off, which is no failure: they must not decide how the program ends.
func shutDown(server *http.Server) error {
	grace, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	err := server.Shutdown(grace)
	if errors.Is(err, context.DeadlineExceeded) {
		log.Print("cutting off connections that take too long")
		err = server.Close()
	}
	return err
}

func ping(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, "pong from the protected handler")
}

// usage answers how much of its quota the calling key has used today.
func usage(guard *middleware.Guard) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, _ := middleware.PrincipalFrom(r.Context()) // the guard lets nobody by without one
		q, err := guard.Limiter().Peek(r.Context(), p.Quota, p.DailyLimit)
		if err != nil {
			log.Print("usage: ", err)
			guard.Refuse(w, r, &middleware.Refusal{
				Status: http.StatusServiceUnavailable, Code: "Unavailable", Reason: policy.StoreUnavailable,
				Message: "The usage cannot be told now. Try again.",
			})
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
func (e *Example) hello(ctx context.Context, out io.Writer, mgr *keys.Manager) error {
	if err := mgr.PutUser(ctx, &store.User{Org: org, ID: user, Email: email, Tier: "Pro"}); err != nil {
		return err
	}
	existing, err := mgr.List(ctx, store.Query{Org: org, User: user})
	if err != nil {
		return err
	}
	var prefixes []string
	for _, k := range existing {
		prefixes = append(prefixes, k.ID+"…")
	}
	secret := ""
	if len(existing) == 0 || e.more {
		t, _, err := mgr.Create(ctx, keys.CreateParams{Org: org, User: user, Name: e.name})
		if errors.Is(err, store.ErrLimit) {
			return fmt.Errorf("-new: %w: use one of %s without -new, or another database (-help says how)",
				err, strings.Join(prefixes, ", "))
		}
		if err != nil {
			return err
		}
		secret = t.Reveal()
	}

	base := baseURL(e.listener.Addr())
	fmt.Fprintf(out, "keystile on %s\n\n", base)
	if secret != "" {
		fmt.Fprintf(out, "Your token, shown only now:\n\n  %s\n\n", secret)
	} else {
		secret = "YOUR_TOKEN"
		fmt.Fprintln(out, "There are keys already (a token is shown once; -new makes another key):")
		fmt.Fprintln(out)
		for _, k := range existing {
			fmt.Fprintf(out, "  %s…  %s\n", k.ID, k.Name)
		}
		fmt.Fprintln(out)
	}
	fmt.Fprintf(out, "Try it:\n\n")
	fmt.Fprintf(out, "  curl -i -H 'Authorization: Bearer %s' %s\n", secret, quoted(base+"/v1/ping"))
	fmt.Fprintf(out, "  curl -i -H 'x-api-user: %s' -H 'x-api-token: %s' %s\n\n", email, secret, quoted(base+"/v1/usage"))
	return nil
}

// baseURL returns the URL of an address that is listened on, for clients on this
// machine. Not every client can connect to "every address".
func baseURL(addr net.Addr) string {
	host, port, _ := net.SplitHostPort(addr.String()) // a listener has both
	if net.ParseIP(host).IsUnspecified() {
		host = "localhost"
	}
	return "http://" + net.JoinHostPort(host, port)
}

// quoted quotes a URL that a shell would take for a pattern of file names.
func quoted(url string) string {
	if strings.Contains(url, "[") {
		return "'" + url + "'"
	}
	return url
}
