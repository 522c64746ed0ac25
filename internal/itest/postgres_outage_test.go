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
// it is away every call is a failure, no later than its context ends (S76), and
// nothing that was answered with one is half done. When it is back, everything
// works again within a second, without a restart. What was acknowledged before it
// was killed is there (D8).
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
			atOnce(calls, func(c call) {
				ctx, cancel := context.WithTimeout(t.Context(), deadline)
				defer cancel()
				began := time.Now()
				err := c.run(ctx, f.backend)
				if took := time.Since(began); took > deadline+time.Second {
					t.Errorf("%s took %s", c.name, took)
				}
				if err := notFailure(err); err != nil {
					t.Errorf("%s: %v", c.name, err)
				}
				if way.hangs && ctx.Err() == nil {
					t.Errorf("%s did not wait: %v", c.name, err)
				}
			})
			require.NoError(t, way.up())

			returned := time.Now()
			for works := false; !works; {
				works = true
				for _, c := range f.reads() {
					works = c.run(t.Context(), f.backend) == nil && works
				}
				require.Less(t, time.Since(returned), time.Second)
			}
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
		t.Cleanup(func() { require.NoError(t, l.Close(context.Background())) })
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

// get sends a request, which has no deadline, and returns the status. It must not take
// longer than a look-up and a count are told to wait.
func (g *postgresGuard) get(t *testing.T) (status int) {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "/v1/ping", http.NoBody)
	r.Header.Set("Authorization", "Bearer "+g.token)
	w := httptest.NewRecorder()
	began := time.Now()
	g.handler.ServeHTTP(w, r)
	require.Less(t, time.Since(began), 3*outageTimeout+time.Second)
	return w.Code
}

// until sends requests until one has the status, and returns how long that took.
func (g *postgresGuard) until(t *testing.T, status int, patience time.Duration) time.Duration {
	t.Helper()
	began := time.Now()
	for got := g.get(t); got != status; got = g.get(t) {
		require.Less(t, time.Since(began), patience, "it still answers %d", got)
	}
	return time.Since(began)
}

// TestPostgresAwayFromGuard shows what a client sees of a server that is stopped,
// killed, suspended or keeps everybody waiting (S76): 503, once what the node knows has
// expired; or, with ServeStale and LimiterFailOpen, what the handler says, with an
// Event that tells. No request takes longer than the node was told to wait. When the
// server is back, all works again, and the feed tells of what is revoked elsewhere.
// The times are printed; a busy machine is late.
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
				require.Eventually(t, func() bool { return g.polls.Load() >= polls+3 }, 10*time.Second, time.Millisecond)
				for range 30 {
					require.Equal(t, 200, g.get(t))
				}
			}
			require.NoError(t, way.down())
			down := time.Now()
			for _, g := range guards {
				switch {
				case g.open:
					require.Equal(t, 200, g.get(t), g.name)
				case g.leased:
					// It serves what it has borrowed, for as long as it knows the key.
					took := g.until(t, 503, outageTTL+outageTimeout+time.Second)
					t.Logf("%s: refuses after %v", g.name, took.Round(time.Millisecond))
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
				require.Positive(t, g.feedFailed.Load(), g.name)
				require.Equal(t, g.open, g.stale.Load() > 0, g.name)
				require.Equal(t, g.open, g.uncounted.Load() > 0, g.name)
			}

			require.NoError(t, way.up())
			returned := time.Now()
			for _, g := range guards {
				g.until(t, 200, 3*time.Second)
			}
			t.Logf("all serve %v after the return", time.Since(returned).Round(time.Millisecond))
			for _, g := range guards {
				// Whether it was done while the server was away nobody was told.
				require.Eventually(t, func() bool {
					return elsewhere.mgr.Revoke(t.Context(), keys.Actor{}, g.ref) == nil
				}, 3*time.Second, time.Millisecond)
				took := g.until(t, 401, outageTTL+outageTimeout+time.Second)
				t.Logf("%s: a revocation is known after %v", g.name, took.Round(time.Millisecond))
			}
		})
	}
}

// TestPostgresHalfOpen cuts every connection of a pool, as a firewall does that has
// forgotten them. Each fails one call when its context ends, and is replaced; then all
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

	const deadline = 100 * time.Millisecond
	failed, worked := 0, 0
	for worked < 3*open {
		for _, c := range f.reads() {
			ctx, cancel := context.WithTimeout(t.Context(), deadline)
			began := time.Now()
			err := c.run(ctx, s)
			cancel()
			require.Less(t, time.Since(began), deadline+time.Second, c.name)
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
