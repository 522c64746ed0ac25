package itest

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/internal/itest/servers"
	"github.com/keystile/keystile/middleware"
	"github.com/keystile/keystile/ratelimit"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/keys"
	"github.com/keystile/keystile/store/postgresstore"
)

// TestPostgresOutages has a server of its own stopped, killed and suspended. While
// it is away every call is a failure, which is told while it is away (S76), and
// nothing that was answered with one is half done. When it is back, everything
// works again, without a restart. What was acknowledged before it was killed is
// there (D8). The times are printed.
func TestPostgresOutages(t *testing.T) {
	t.Parallel()
	p, err := servers.StartPostgres()
	servers.Check(t, err)
	t.Cleanup(func() { require.NoError(t, p.Close()) })
	// A call that has hung and is done when the server is back may find it away
	// again; so one after the other.
	t.Run("killed while written to", func(t *testing.T) { killedWhileWrittenTo(t, p) })
	for _, way := range []struct {
		name     string
		down, up func() error
		hangs    bool
	}{
		{name: "stopped", down: p.Stop, up: p.Start},
		{name: "killed", down: p.Kill, up: p.Start},
		{
			name:  "suspended",
			down:  func() error { p.Pause(); return nil },
			up:    func() error { p.Continue(); return nil },
			hangs: true,
		},
	} {
		t.Run(way.name, func(t *testing.T) {
			dsn, _ := newSchemaIn(t, p, openPool(t, p.DSN()))
			f := newFixture(t, newPostgres(t, openPool(t, dsn), nil))
			before := f.state(t)
			calls := append(f.writes(), f.reads()...)
			atOnce(f.reads(), func(c call) { _ = c.run(t.Context(), f.backend) }) // has more than one connection made

			require.NoError(t, way.down())
			const deadline = 200 * time.Millisecond
			down := time.Now()
			atOnce(calls, func(c call) {
				ctx, cancel := context.WithTimeout(t.Context(), deadline)
				defer cancel()
				began := time.Now()
				err := c.run(ctx, f.backend)
				if took := time.Since(began); took > tooLong {
					t.Errorf("%s took %s", c.name, took)
				}
				if err := notFailure(err); err != nil {
					t.Errorf("%s: %v", c.name, err)
				}
				if way.hangs && ctx.Err() == nil {
					t.Errorf("%s did not wait: %v", c.name, err)
				}
			})
			failed := time.Since(down)
			require.NoError(t, way.up())

			returned := time.Now()
			for works := false; !works; {
				works = true
				for _, c := range f.reads() {
					works = c.run(t.Context(), f.backend) == nil && works
				}
				require.Less(t, time.Since(returned), tooLong)
			}
			t.Logf("all calls failed within %v; all work %v after the return",
				failed.Round(time.Millisecond), time.Since(returned).Round(time.Millisecond))
			f.requireUnchanged(t, before)
			_, ok, err := f.Add(t.Context(), f.key.Family, testDay, 1, 250)
			require.NoError(t, err)
			require.True(t, ok)
		})
	}
}

// atOnce calls f with each of the calls at once.
func atOnce(calls []call, f func(c call)) {
	var wg sync.WaitGroup
	for _, c := range calls {
		wg.Go(func() { f(c) })
	}
	wg.Wait()
}

// killedWhileWrittenTo kills the server, and not its client.
func killedWhileWrittenTo(t *testing.T, p *servers.Postgres) {
	t.Helper()
	dsn, _ := newSchemaIn(t, p, openPool(t, p.DSN()))
	s := newPostgres(t, openPool(t, dsn), nil)
	require.NoError(t, s.PutUser(t.Context(), testUser(1)))
	client := start(t, "postgres write", dsn)
	var acknowledged []string
	for len(acknowledged) < 300 {
		line, ok := client.line()
		require.True(t, ok, "stderr: %s", &client.stderr)
		acknowledged = append(acknowledged, line)
	}
	require.NoError(t, p.Kill())
	for line, ok := client.line(); ok; line, ok = client.line() {
		acknowledged = append(acknowledged, line)
	}
	require.Error(t, client.cmd.Wait(), "its calls must have failed")
	require.Contains(t, client.stderr.String(), "postgresstore: ")

	require.NoError(t, p.Start())
	s, err := postgresstore.New(openPool(t, dsn), nil)
	require.NoError(t, err)
	require.NoError(t, s.Validate(t.Context()))
	requireKept(t, s, acknowledged)
}

// tooLong is what bounds a wait that must end, so that a test of it fails and does not
// hang. It is far more than a busy machine needs, and says nothing about how long the
// wait should be: that is printed.
const tooLong = time.Minute

// What guards of these tests are told: how long to wait for the server, and how long an
// answer is used.
const (
	outageTimeout = 300 * time.Millisecond
	outageTTL     = time.Second
)

// A postgresGuard is a Guard on PostgreSQL with a key, and what it has observed.
type postgresGuard struct {
	mgr     *keys.Manager
	polls   *atomic.Int64
	handler http.Handler
	token   string
	ref     keys.Ref

	feedFailed, stale, uncounted atomic.Int64
	slowest                      atomic.Int64 // of the requests, in nanoseconds
}

// newPostgresGuard makes a Guard with a pool of its own. Failing it serves what it knows
// if open is set.
func newPostgresGuard(t *testing.T, dsn string, leased, open bool) *postgresGuard {
	t.Helper()
	s, err := postgresstore.New(openPool(t, dsn), &postgresstore.Options{CountTimeout: outageTimeout})
	require.NoError(t, err)
	require.NoError(t, s.Migrate(t.Context()))
	counting := &countedStore{Store: s, feed: s}
	g := &postgresGuard{polls: &counting.polls}
	cache := &store.CacheOptions{
		TTL: outageTTL, LookupTimeout: outageTimeout, Feed: counting, FeedInterval: 100 * time.Millisecond,
		FeedFailed: func(error) { g.feedFailed.Add(1) },
	}
	if open {
		cache.ServeStale = time.Minute
	}
	g.mgr, err = keys.New(counting, &keys.Options{Cache: cache})
	require.NoError(t, err)
	t.Cleanup(g.mgr.Close)
	user := testUser(int(schemas.Add(1)))
	require.NoError(t, g.mgr.PutUser(t.Context(), user))
	token, k, err := g.mgr.Create(t.Context(), keys.CreateParams{Org: user.Org, User: user.ID, Name: "CI"})
	require.NoError(t, err)
	g.token, g.ref = token.Reveal(), keys.Ref{Org: k.Org, User: k.User, ID: k.ID}

	var counter ratelimit.Counter = s
	if leased {
		l := ratelimit.NewLeased(s, &ratelimit.LeaseOptions{Timeout: outageTimeout})
		t.Cleanup(func() {
			// A server that is slow, being back, may not take what is left in time.
			if err := l.Close(context.Background()); err != nil {
				t.Log(err)
			}
		})
		counter = l
	}
	guard, err := middleware.New(g.mgr.Verifier(), &middleware.Options{
		Limiter:         ratelimit.NewDaily(counter, &ratelimit.DailyOptions{Limit: 1 << 40}),
		LimiterFailOpen: open,
		Observe: func(_ *http.Request, e middleware.Event) {
			if e.Stale {
				g.stale.Add(1)
			}
			if e.Refusal == nil && e.Err != nil {
				g.uncounted.Add(1)
			}
		},
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, guard.Close(context.Background())) })
	g.handler = guard.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	return g
}

// get sends a request, which has no deadline, and returns the status. Where the server
// is away it is answered all the same.
func (g *postgresGuard) get(t *testing.T) (status int) {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "/v1/ping", http.NoBody)
	r.Header.Set("Authorization", "Bearer "+g.token)
	w := httptest.NewRecorder()
	began := time.Now()
	g.handler.ServeHTTP(w, r)
	took := time.Since(began)
	for slowest := g.slowest.Load(); int64(took) > slowest && !g.slowest.CompareAndSwap(slowest, int64(took)); slowest = g.slowest.Load() {
	}
	require.Less(t, took, tooLong)
	return w.Code
}

// until sends requests until one has the status, and returns how long that took.
func (g *postgresGuard) until(t *testing.T, status int) time.Duration {
	t.Helper()
	began := time.Now()
	for got := g.get(t); got != status; got = g.get(t) {
		require.Less(t, time.Since(began), tooLong, "it still answers %d", got)
	}
	return time.Since(began)
}

// TestPostgresAwayFromGuard shows what a client sees of a server that is stopped,
// killed, suspended or keeps everybody waiting (S76): 503, once what the node knows has
// expired; or, with ServeStale and LimiterFailOpen, what the handler says, with an
// Event that tells. Every request is answered while the server is away, and none that
// begins later than outageTTL after it went is admitted by what is known from before,
// unless that is asked for. When the server is back, all works again, and the feed
// tells of what is revoked elsewhere. The times are printed; a busy machine is late. One
// whose server was suspended is late by more: the server takes up all the connections
// that were given up meanwhile, some sixty, in their order, and starts a process for
// each, and what asks it again during that is given up too.
func TestPostgresAwayFromGuard(t *testing.T) {
	t.Parallel()
	p, err := servers.StartPostgres()
	servers.Check(t, err)
	t.Cleanup(func() { require.NoError(t, p.Close()) })
	var release func() error
	for _, way := range []struct {
		name     string
		down, up func() error
	}{
		{name: "stopped", down: p.Stop, up: p.Start},
		{name: "killed", down: p.Kill, up: p.Start},
		{
			name: "suspended",
			down: func() error { p.Pause(); return nil },
			up:   func() error { p.Continue(); return nil },
		},
		{
			name: "slow",
			down: func() error {
				tx, err := openPool(t, p.DSN()).BeginTx(t.Context(), nil)
				if err != nil {
					return err
				}
				release = tx.Rollback
				_, err = tx.ExecContext(t.Context(), "LOCK TABLE keystile_keys, keystile_counts, keystile_loans, keystile_sequence, keystile_settings")
				return err
			},
			up: func() error { return release() },
		},
	} {
		t.Run(way.name, func(t *testing.T) {
			elsewhere := newPostgresGuard(t, p.DSN(), false, false)
			guards := []struct {
				name   string
				leased bool
				open   bool
				*postgresGuard
			}{
				{name: "counted"},
				{name: "leased", leased: true},
				{name: "counted, open", open: true},
				{name: "leased, open", leased: true, open: true},
			}
			for i := range guards {
				g := &guards[i]
				g.postgresGuard = newPostgresGuard(t, p.DSN(), g.leased, g.open)
			}
			for _, g := range guards {
				// What the feed tells of is not served stale, and it tells of these keys.
				polls := g.polls.Load()
				require.Eventually(t, func() bool { return g.polls.Load() >= polls+3 }, tooLong, time.Millisecond)
				for range 30 {
					g.until(t, 200)
				}
				g.slowest.Store(0) // of a busy machine, as is what was stale
				g.stale.Store(0)
				g.uncounted.Store(0)
			}
			require.NoError(t, way.down())
			down := time.Now()
			for _, g := range guards {
				switch {
				case g.open:
					require.Equal(t, 200, g.get(t), g.name)
				case g.leased:
					// It serves what it has borrowed, for as long as it knows the key.
					for late := false; g.get(t) == 200; late = time.Since(down) > outageTTL {
						require.False(t, late, "what was known longer than outageTTL ago is no answer")
					}
					require.Equal(t, 503, g.get(t), g.name)
					t.Logf("%s: refuses after %v", g.name, time.Since(down).Round(time.Millisecond))
				default:
					require.Equal(t, 503, g.get(t), g.name)
				}
			}
			for time.Since(down) < outageTTL+100*time.Millisecond {
				for _, g := range guards {
					if g.open {
						require.Equal(t, 200, g.get(t), g.name)
					}
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), outageTimeout)
			err := elsewhere.mgr.Revoke(ctx, keys.Actor{}, guards[0].ref)
			cancel()
			require.Error(t, err, "nothing can be changed")
			require.NotErrorIs(t, err, store.ErrNotFound)
			for _, g := range guards {
				want := 503
				if g.open {
					want = 200
				}
				require.Equal(t, want, g.get(t), g.name)
				require.Eventually(t, func() bool { return g.feedFailed.Load() > 0 }, tooLong, time.Millisecond, g.name)
				require.Equal(t, g.open, g.stale.Load() > 0, g.name)
				require.Equal(t, g.open, g.uncounted.Load() > 0, g.name)
				t.Logf("%s: the slowest answer came after %v", g.name, time.Duration(g.slowest.Load()).Round(time.Millisecond))
			}

			require.NoError(t, way.up())
			returned := time.Now()
			for _, g := range guards {
				g.until(t, 200)
			}
			t.Logf("all serve %v after the return", time.Since(returned).Round(time.Millisecond))
			for _, g := range guards {
				// Whether it was done while the server was away nobody was told.
				require.Eventually(t, func() bool {
					return elsewhere.mgr.Revoke(t.Context(), keys.Actor{}, g.ref) == nil
				}, tooLong, time.Millisecond)
				took := g.until(t, 401)
				t.Logf("%s: a revocation is known after %v", g.name, took.Round(time.Millisecond))
			}
		})
	}
}

// TestPostgresHalfOpen cuts every connection of a pool, as a firewall does that has
// forgotten them. Each fails one call, whose context ends, and is replaced; then all
// works (S76).
func TestPostgresHalfOpen(t *testing.T) {
	t.Parallel()
	f := newPostgresFixture(t)
	var (
		cut  atomic.Pointer[atomic.Bool]
		made atomic.Int64
	)
	cut.Store(new(atomic.Bool))
	s := f.through(t, "", func(conn net.Conn) net.Conn {
		made.Add(1)
		return &cutConn{conn, cut.Load()}
	})
	atOnce(f.reads(), func(c call) { _ = c.run(t.Context(), s) })
	open := int(made.Load()) // at most: a pool closes what it has too many of
	cut.Swap(new(atomic.Bool)).Store(true)

	const deadline = time.Second // for a call that works, on a busy machine
	failed, worked := 0, 0
	for worked < 3*open {
		for _, c := range f.reads() {
			ctx, cancel := context.WithTimeout(t.Context(), deadline)
			began := time.Now()
			err := c.run(ctx, s)
			cancel()
			require.Less(t, time.Since(began), tooLong, c.name)
			if err == nil {
				worked++
				continue
			}
			require.NoError(t, notFailure(err), c.name)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			failed++
			worked = 0
			require.LessOrEqual(t, failed, open, "each connection fails one call")
		}
	}
	require.Positive(t, failed)
	t.Logf("of at most %d connections, %d failed a call", open, failed)
}
