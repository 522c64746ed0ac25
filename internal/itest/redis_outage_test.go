package itest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/internal/itest/servers"
	"github.com/keystile/keystile/middleware"
	"github.com/keystile/keystile/ratelimit"
	"github.com/keystile/keystile/ratelimit/rediscounter"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/keys"
	"github.com/keystile/keystile/store/memstore"
)

// notRedisFailure returns what err is, unless that is a failure of the counter.
func notRedisFailure(err error) error {
	switch {
	case err == nil:
		return errors.New("no error at all")
	case errors.Is(err, errAdmitted):
		return err
	case !strings.HasPrefix(err.Error(), "rediscounter: "):
		return fmt.Errorf("from elsewhere: %w", err)
	}
	return nil
}

// A redisCall is a call of a counter.
type redisCall struct {
	name string
	run  func(ctx context.Context, l ratelimit.Lender) error
}

// redisWrites are calls that change something, redisReads those that do not.
var (
	redisWrites = []redisCall{
		{"Add", func(ctx context.Context, l ratelimit.Lender) error {
			_, ok, err := l.Add(ctx, "k", testDay, 1, 1<<40)
			return counted(ok, err)
		}},
		{"Add, new", func(ctx context.Context, l ratelimit.Lender) error {
			_, ok, err := l.Add(ctx, "new", testDay, 1, 1<<40)
			return counted(ok, err)
		}},
		{"Lend", func(ctx context.Context, l ratelimit.Lender) error {
			loan, err := l.Lend(ctx, "account", "k", testDay, 0, 10, 1<<40, testDay)
			return counted(loan.Lent > 0, err)
		}},
		{"Lend, back", func(ctx context.Context, l ratelimit.Lender) error {
			loan, err := l.Lend(ctx, "other account", "k", testDay, 0, 0, 1<<40, testDay)
			return counted(loan.Lent > 0, err)
		}},
	}
	redisReads = []redisCall{
		{"Add of 0", func(ctx context.Context, l ratelimit.Lender) error {
			_, ok, err := l.Add(ctx, "k", testDay, 0, 1<<40)
			return counted(ok, err)
		}},
		{"Add, no room", func(ctx context.Context, l ratelimit.Lender) error {
			_, ok, err := l.Add(ctx, "k", testDay, 1, 0)
			return counted(ok, err)
		}},
		{"Lend, nothing", func(ctx context.Context, l ratelimit.Lender) error {
			loan, err := l.Lend(ctx, "account", "nothing", testDay, 0, 0, 1<<40, testDay)
			return counted(loan.Lent > 0, err)
		}},
	}
)

func redisCalls() []redisCall {
	return slices.Concat(redisWrites, redisReads)
}

// An outage is a way in which a server goes and comes back.
type redisOutage struct {
	name     string
	down, up func() error
}

func redisOutages(r *servers.Redis) []redisOutage {
	return []redisOutage{
		{"stopped", r.Stop, r.Start},
		{"killed", r.Kill, r.Start},
		{"suspended", func() error { r.Pause(); return nil }, func() error { r.Continue(); return nil }},
	}
}

// TestRedisOutages has a server of its own stopped, killed and suspended under
// load, for clients as the package recommends and as go-redis makes them. While it
// is away every call is a failure, which is told while it is away (S76). When it is
// back, all calls work again: soon, or without Open after the second that go-redis
// takes to look for a server that it could not reach a number of times. The times are
// printed.
func TestRedisOutages(t *testing.T) {
	t.Parallel()
	r := startRedis(t, "--appendonly", "yes")
	unset := redis.NewClient(&redis.Options{Network: "unix", Addr: r.Socket()})
	t.Cleanup(func() { require.NoError(t, unset.Close()) })
	for name, client := range map[string]*redis.Client{"recommended": openRedis(t, r.URL()), "default": unset} {
		for _, o := range redisOutages(r) {
			t.Run(name+"/"+o.name, func(t *testing.T) { redisAway(t, client, o) })
		}
	}
}

func redisAway(t *testing.T, client *redis.Client, o redisOutage) {
	t.Helper()
	const timeout = 200 * time.Millisecond
	c := rediscounter.New(client, &rediscounter.Options{Timeout: timeout})
	before, ok, err := c.Add(t.Context(), "k", testDay, 1, 1<<40)
	require.NoError(t, err)
	require.True(t, ok)

	require.NoError(t, o.down())
	var failed, slowest atomic.Int64
	until := time.Now().Add(2 * time.Second)
	var wg sync.WaitGroup
	for range 5 {
		for _, call := range redisCalls() {
			wg.Go(func() {
				for time.Now().Before(until) {
					began := time.Now()
					err := call.run(t.Context(), c) // which has no deadline
					took := time.Since(began)
					if took > tooLong {
						t.Errorf("%s took %s", call.name, took)
					}
					if err := notRedisFailure(err); err != nil {
						t.Errorf("%s: %v", call.name, err)
					}
					for s := slowest.Load(); s < int64(took) && !slowest.CompareAndSwap(s, int64(took)); s = slowest.Load() {
					}
					failed.Add(1)
				}
			})
		}
	}
	wg.Wait()
	require.NoError(t, o.up())

	returned := time.Now()
	for _, call := range redisCalls() {
		for err := call.run(t.Context(), c); err != nil; err = call.run(t.Context(), c) {
			require.Less(t, time.Since(returned), tooLong, "%s: %v", call.name, err)
		}
	}
	t.Logf("%d calls failed, the slowest after %s; all work %s after the return",
		failed.Load(), time.Duration(slowest.Load()).Round(time.Millisecond), time.Since(returned).Round(time.Millisecond))
	after, _, err := c.Add(t.Context(), "k", testDay, 0, 0)
	require.NoError(t, err)
	require.GreaterOrEqual(t, after, before, "nothing that was counted is forgotten")
	require.LessOrEqual(t, after, before+20*failed.Load(), "and nothing counted that was not asked for")
}

// A redisGuard is a Guard with a key.
type redisGuard struct {
	handler http.Handler
	token   string
}

func newRedisGuard(t *testing.T, c ratelimit.Counter, failOpen bool) *redisGuard {
	t.Helper()
	mgr, err := keys.New(memstore.New(), nil)
	require.NoError(t, err)
	t.Cleanup(mgr.Close)
	require.NoError(t, mgr.PutUser(t.Context(), &store.User{Org: "acme", ID: "u1", Email: "ann@acme.example"}))
	token, _, err := mgr.Create(t.Context(), keys.CreateParams{Org: "acme", User: "u1", Name: "CI"})
	require.NoError(t, err)
	guard, err := middleware.New(mgr.Verifier(), &middleware.Options{
		Limiter:         ratelimit.NewDaily(c, &ratelimit.DailyOptions{Limit: 1000}),
		LimiterFailOpen: failOpen,
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, guard.Close(context.Background())) })
	pong := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	return &redisGuard{guard.Wrap(pong), token.Reveal()}
}

// get sends a request, which has no deadline, and returns the status and how long
// it took.
func (g *redisGuard) get() (status int, took time.Duration) {
	r := httptest.NewRequest(http.MethodGet, "/v1/ping", nil)
	r.Header.Set("Authorization", "Bearer "+g.token)
	w := httptest.NewRecorder()
	began := time.Now()
	g.handler.ServeHTTP(w, r)
	return w.Code, time.Since(began)
}

// TestRedisAwayFromGuard shows what a client sees of a server that is away: 503
// (S76), or with LimiterFailOpen what the handler says, and either while it is away. A
// node that leases serves what it has borrowed, and then does the same.
func TestRedisAwayFromGuard(t *testing.T) {
	t.Parallel()
	r := startRedis(t, "--appendonly", "yes")
	const timeout = 500 * time.Millisecond
	c := rediscounter.New(openRedis(t, r.URL()), &rediscounter.Options{Timeout: timeout})
	leased := func() ratelimit.Counter {
		l := ratelimit.NewLeased(c, nil)
		t.Cleanup(func() { require.NoError(t, l.Close(context.Background())) })
		return l
	}
	for _, o := range redisOutages(r) {
		for _, test := range []struct {
			name     string
			c        ratelimit.Counter
			failOpen bool
			away     int
		}{
			{"counted", c, false, 503},
			{"counted, fail open", c, true, 200},
			{"leased", leased(), false, 503},
			{"leased, fail open", leased(), true, 200},
		} {
			t.Run(o.name+"/"+test.name, func(t *testing.T) {
				g := newRedisGuard(t, test.c, test.failOpen)
				began := time.Now()
				for n := 0; n < 20; {
					if status, _ := g.get(); status == 200 {
						n++
					}
					require.Less(t, time.Since(began), tooLong)
				}
				require.NoError(t, o.down())
				served := 0
				status, took := g.get()
				for ; status == 200 && served < 12; served++ {
					require.Less(t, took, tooLong)
					status, took = g.get()
				}
				for range 3 {
					require.Equal(t, test.away, status)
					require.Less(t, took, tooLong)
					status, took = g.get()
				}
				if !test.failOpen {
					require.LessOrEqual(t, served, 10, "at most what was borrowed")
				}
				require.NoError(t, o.up())
				returned := time.Now()
				for _, _, err := c.Add(t.Context(), "k", testDay, 0, 0); err != nil; _, _, err = c.Add(t.Context(), "k", testDay, 0, 0) {
					require.Less(t, time.Since(returned), tooLong)
				}
				back := time.Since(returned)
				for status, _ = g.get(); status != 200; status, _ = g.get() {
					require.Less(t, time.Since(returned), tooLong)
				}
				t.Logf("%d served while away, the last answer after %s; counts %s after the return",
					served, took.Round(time.Millisecond), back.Round(time.Millisecond))
			})
		}
	}
}
