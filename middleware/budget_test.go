//go:build !race

package middleware_test

import (
	"context"
	"encoding/hex"
	"fmt"
	"net/http"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/middleware"
	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/ratelimit"
)

// TestAllocationBudget: what one request may allocate. The race detector
// allocates by itself, so this is built without it only.
func TestAllocationBudget(t *testing.T) {
	g, tokens := benchGuard(t, 100, nil)
	lean, leanTokens := benchGuard(t, 100, &middleware.Options{OmitRateLimitFields: true})
	over, overTokens := benchGuard(t, 100, &middleware.Options{Limiter: refusing{}})
	spent, spentRequest := spentGuard(t)
	fn := func(http.ResponseWriter, *http.Request, *policy.Principal) {}
	tests := []struct {
		name   string
		h      http.Handler
		r      *http.Request
		allocs float64
		bytes  uint64
	}{
		{"Wrap without fields", lean.Wrap(nothing), bearer(leanTokens[50]), 2, 400},
		{"Wrap with fields", g.Wrap(nothing), bearer(tokens[50]), 4, 480},
		{"Wrap of the pair with fields", g.Wrap(nothing), pair("user-10@acme.example", tokens[50]), 4, 480},
		{"Wrap of the pair", lean.Wrap(nothing), pair("user-10@acme.example", leanTokens[50]), 3, 448},
		{"WrapFunc without fields", lean.WrapFunc(fn), bearer(leanTokens[50]), 0, 0},
		{"WrapFunc with fields", g.WrapFunc(fn), bearer(tokens[50]), 2, 80},
		{"unknown key", g.Wrap(nothing), bearer(unknownToken), 0, 0},
		{"malformed key", g.Wrap(nothing), bearer("csk_live_x"), 0, 0},
		{"nothing presented", g.Wrap(nothing), do0(), 0, 0},
		{"over the limit", spent.Wrap(nothing), spentRequest, 0, 0},
		{"over a limit that stands otherwise each time", over.Wrap(nothing), bearer(overTokens[50]), 2, 1024},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := newDiscard()
			test.h.ServeHTTP(w, test.r)
			require.Equal(t, test.allocs, testing.AllocsPerRun(1000, func() { test.h.ServeHTTP(w, test.r) }))
			require.LessOrEqual(t, bytesPerRun(1000, func() { test.h.ServeHTTP(w, test.r) }), test.bytes)
		})
	}
	r := bearer(tokens[50])
	require.Zero(t, testing.AllocsPerRun(1000, func() { _, _, _ = g.Admit(r) }), "a decision")
}

// bytesPerRun is testing.AllocsPerRun for bytes.
func bytesPerRun(runs int, f func()) uint64 {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range runs {
		f()
	}
	runtime.ReadMemStats(&after)
	return (after.TotalAlloc - before.TotalAlloc) / uint64(runs)
}

// TestBudgetOfUnknownTokens: 10^6 distinct unknown tokens leave memory flat and
// known keys cached.
func TestBudgetOfUnknownTokens(t *testing.T) {
	w := newWorld(t)
	g := w.guard(&middleware.Options{Unmetered: true})
	h := g.Wrap(nothing)
	rw := newDiscard()
	h.ServeHTTP(rw, bearer(w.token.Reveal()))
	r := bearer(unknownToken)
	values := r.Header["Authorization"]
	flood := func(from, n int) {
		for i := from; i < from+n; i++ {
			values[0] = fmt.Sprintf("Bearer csk_live_%s%08x", hex.EncodeToString([]byte("keystile"))+"00000000", i)
			rw.status = 0
			if h.ServeHTTP(rw, r); rw.status != http.StatusUnauthorized {
				t.Fatal("an unknown key was answered", rw.status)
			}
		}
	}
	reads := w.store.lookups.Load()
	const n = 1_000_000
	flood(0, n/10)
	before := heap()
	flood(n/10, n-n/10)
	grown := int64(heap()) - int64(before)
	t.Logf("heap grew by %d bytes over %d unknown tokens", grown, n)
	require.Less(t, grown, int64(4<<20))

	require.EqualValues(t, n, w.store.lookups.Load()-reads, "each was asked for")

	reads = w.store.lookups.Load()
	require.Equal(t, 200, do(g.Wrap(pong), bearer(w.token.Reveal())).Code)
	require.Equal(t, reads, w.store.lookups.Load(), "the known key was read again")
}

// TestBudgetOfLimits: what is kept for the RateLimit fields of different limits is
// bounded, and the fields are right beyond that.
func TestBudgetOfLimits(t *testing.T) {
	limits := &hostLimits{}
	h := newWorld(t).guard(&middleware.Options{Limiter: limits, Authenticators: []middleware.Authenticator{&anyKeys{}}}).Wrap(nothing)
	rw, r := newDiscard(), do0()
	ask := func(n int) {
		for range n {
			h.ServeHTTP(rw, r)
			want := fmt.Sprintf(`"host";q=%d;w=60`, limits.n)
			if got := rw.header["Ratelimit-Policy"]; len(got) != 1 || got[0] != want {
				t.Fatal(got, "is not", want)
			}
		}
	}
	ask(100)
	before := heap()
	ask(20_000)
	grown := int64(heap()) - int64(before)
	runtime.KeepAlive(h)
	t.Logf("heap grew by %d bytes over 20 000 limits", grown)
	require.Less(t, grown, int64(256<<10))
}

// hostLimits is a Limiter of a host with another limit for each request.
type hostLimits struct {
	ratelimit.Limiter
	n int64
}

func (l *hostLimits) Take(context.Context, string, int64) (ratelimit.Result, error) {
	l.n++
	return ratelimit.Result{OK: true, Name: "host", Window: time.Minute, Limit: l.n}, nil
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
