package middleware_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go4.org/netipx"

	"github.com/keystile/keystile/middleware"
	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/ratelimit"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/keys"
	"github.com/keystile/keystile/store/memstore"
)

// The floor is the work that no guard can leave out: index the three header fields
// of which only one may carry a credential (D34), parse the token, one SHA-256, one
// look-up in a plain map, one reading of the clock, parse the address, ask a list of
// ten prefixes, and one atomic subtraction. Guards are compared with it within one
// run.
type floor struct {
	keys map[[32]byte]*floorKey
	list *netipx.IPSet
}

type floorKey struct {
	remaining atomic.Int64
	expires   time.Time
}

func newFloor(b testing.TB, tokens []string) *floor {
	f := &floor{keys: make(map[[32]byte]*floorKey)}
	for _, t := range tokens {
		k := &floorKey{expires: time.Now().Add(time.Hour)}
		k.remaining.Store(1 << 40)
		f.keys[sha256.Sum256([]byte(t))] = k
	}
	var builder netipx.IPSetBuilder
	for line := range strings.SplitSeq(tenPrefixes, "\n") {
		builder.AddPrefix(netip.MustParsePrefix(line))
	}
	var err error
	f.list, err = builder.IPSet()
	require.NoError(b, err)
	return f
}

func (f *floor) decide(r *http.Request) *floorKey {
	values, users, tokens := r.Header["Authorization"], r.Header["X-Api-User"], r.Header["X-Api-Token"]
	if len(values) != 1 || len(users)+len(tokens) > 0 || len(values[0]) != len("Bearer ")+41 || values[0][:7] != "Bearer " {
		return nil
	}
	token := values[0][7:]
	if token[:9] != "csk_live_" {
		return nil
	}
	for i := 9; i < len(token); i++ {
		if c := token[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return nil
		}
	}
	var buf [41]byte
	copy(buf[:], token)
	k := f.keys[sha256.Sum256(buf[:])]
	if k == nil {
		return nil
	}
	now := time.Now()
	addr, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !now.Before(k.expires) || !f.list.Contains(addr.Addr()) || k.remaining.Add(-1) < 0 {
		return nil
	}
	return k
}

type floorContextKey struct{}

func (f *floor) wrap(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		k := f.decide(r)
		if k == nil {
			panic("the floor refused")
		}
		h.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), floorContextKey{}, k)))
	})
}

// benchGuard is a guard with every rule of the seed at work, as many keys as
// asked for, and an unlimited quota that is counted all the same.
func benchGuard(b testing.TB, n int, opts *middleware.Options) (*middleware.Guard, []string) {
	mgr, err := keys.New(memstore.New(), &keys.Options{MaxPerUser: -1, Cache: &store.CacheOptions{TTL: 5 * time.Minute}})
	require.NoError(b, err)
	owner := keys.Actor{Role: keys.Operator}
	list, err := policy.ParseIPList(tenPrefixes)
	require.NoError(b, err)
	_, err = mgr.UpdateSettings(b.Context(), owner, &policy.Settings{
		Org: testOrg, MaxAge: 30 * 24 * time.Hour, AllowedIPs: list, RestrictUsers: true,
	})
	require.NoError(b, err)
	var tokens []string
	for i := range n {
		user := fmt.Sprintf("user-%d", i/5)
		if i%5 == 0 {
			err := mgr.PutUser(b.Context(), &store.User{Org: testOrg, ID: user, Email: user + "@acme.example", Permitted: true})
			require.NoError(b, err)
		}
		t, _, err := mgr.Create(b.Context(), keys.CreateParams{Actor: owner, Org: testOrg, User: user, Name: "bench", DailyLimit: 1 << 40})
		require.NoError(b, err)
		tokens = append(tokens, t.Reveal())
	}
	g, err := middleware.New(mgr.Verifier(), opts)
	require.NoError(b, err)
	for _, t := range tokens {
		_, err := g.Check(bearer(t)) // warms the cache
		require.NoError(b, err)
	}
	return g, tokens
}

// A discard is a ResponseWriter that a server would have: its header map is
// there, and its body goes nowhere.
type discard struct {
	header http.Header
	status int // the last one written
}

func newDiscard() *discard                           { return &discard{header: make(http.Header, 8)} }
func (d *discard) Header() http.Header               { return d.header }
func (d *discard) Write(p []byte) (int, error)       { return len(p), nil }
func (d *discard) WriteHeader(status int)            { d.status = status }
func (d *discard) ReadFrom(io.Reader) (int64, error) { return 0, nil }

var nothing = http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})

// compare runs floor and guarded in turn, in small portions, and reports the
// median of the ratios of the processor time that they took, so that a busy
// machine touches both alike. Each portion pays for the collection of its own
// garbage and begins without any: of some ten collections in one with a context none
// is left for the next.
func compare(b *testing.B, floor, guarded func(n int)) {
	const portion = 100_000
	floor(portion)
	guarded(portion)
	var ratios, costs []float64
	var before, after runtime.MemStats
	var mallocs, bytes uint64
	for b.Loop() {
		f := processorTime(func() { floor(portion) })
		runtime.ReadMemStats(&before)
		g := processorTime(func() { guarded(portion) })
		runtime.ReadMemStats(&after)
		mallocs += after.Mallocs - before.Mallocs
		bytes += after.TotalAlloc - before.TotalAlloc
		ratios = append(ratios, float64(g)/float64(f))
		costs = append(costs, float64(g)/portion)
	}
	slices.Sort(ratios)
	slices.Sort(costs)
	requests := uint64(len(costs) * portion)
	b.ReportMetric(ratios[len(ratios)/2], "x-floor")
	b.ReportMetric(costs[len(costs)/2], "cpu-ns/request")
	// What the testing package counts is of a portion of both.
	b.ReportAllocs()
	b.ReportMetric(float64(mallocs/requests), "allocs/op")
	b.ReportMetric(float64(bytes/requests), "B/op")
	b.ReportMetric(0, "ns/op")
}

func processorTime(f func()) time.Duration {
	runtime.GC()
	before := usage()
	f()
	return usage() - before
}

func usage() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func repeat(f func()) func(int) {
	return func(n int) {
		for range n {
			f()
		}
	}
}

// BenchmarkDecision compares a warm decision, counted, without a context.
func BenchmarkDecision(b *testing.B) {
	g, tokens := benchGuard(b, 1000, nil)
	f := newFloor(b, tokens)
	r := bearer(tokens[500])
	compare(b, repeat(func() {
		if f.decide(r) == nil {
			panic("refused")
		}
	}), repeat(func() {
		if _, _, err := g.Admit(r); err != nil {
			panic(err)
		}
	}))
}

// BenchmarkDecisionManyKeys asks for another key each time, of a hundred thousand.
func BenchmarkDecisionManyKeys(b *testing.B) {
	g, tokens := benchGuard(b, 100_000, nil)
	f := newFloor(b, tokens)
	values := make([][]string, len(tokens))
	for i, t := range tokens {
		values[i] = []string{"Bearer " + t}
	}
	r := bearer(tokens[0])
	i := 0
	next := func() *http.Request {
		i = (i + 7919) % len(values)
		r.Header["Authorization"] = values[i]
		return r
	}
	compare(b, repeat(func() {
		if f.decide(next()) == nil {
			panic("refused")
		}
	}), repeat(func() {
		if _, _, err := g.Admit(next()); err != nil {
			panic(err)
		}
	}))
}

// BenchmarkDecisionParallelOneKey has all processors on one key.
func BenchmarkDecisionParallelOneKey(b *testing.B) {
	g, tokens := benchGuard(b, 1000, nil)
	f := newFloor(b, tokens)
	r := bearer(tokens[500])
	parallel := func(do func()) func(int) {
		return func(n int) {
			var wg sync.WaitGroup
			processors := runtime.GOMAXPROCS(0)
			for range processors {
				wg.Go(func() { repeat(do)(n / processors) })
			}
			wg.Wait()
		}
	}
	compare(b, parallel(func() {
		if f.decide(r) == nil {
			panic("refused")
		}
	}), parallel(func() {
		if _, _, err := g.Admit(r); err != nil {
			panic(err)
		}
	}))
}

// BenchmarkWrap compares a whole Wrap of an admitted request, without and with
// the RateLimit fields, with the floor and a context.
func BenchmarkWrap(b *testing.B) {
	for _, omit := range []bool{true, false} {
		b.Run(fmt.Sprintf("fields=%t", !omit), func(b *testing.B) {
			g, tokens := benchGuard(b, 1000, &middleware.Options{OmitRateLimitFields: omit})
			benchHandlers(b, newFloor(b, tokens).wrap(nothing), g.Wrap(nothing), bearer(tokens[500]), bearer(tokens[500]))
		})
	}
}

// BenchmarkWrapFunc compares WrapFunc with the floor and a context.
func BenchmarkWrapFunc(b *testing.B) {
	g, tokens := benchGuard(b, 1000, &middleware.Options{OmitRateLimitFields: true})
	h := g.WrapFunc(func(http.ResponseWriter, *http.Request, *policy.Principal) {})
	benchHandlers(b, newFloor(b, tokens).wrap(nothing), h, bearer(tokens[500]), bearer(tokens[500]))
}

// BenchmarkRefuseUnknown compares the refusal of an unknown key, headers and
// body included, with the floor of a decision. It is one key, which the cache knows
// to be unknown after the first time.
func BenchmarkRefuseUnknown(b *testing.B) {
	g, tokens := benchGuard(b, 1000, nil)
	f := newFloor(b, tokens)
	h := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { f.decide(r) })
	benchHandlers(b, h, g.Wrap(nothing), bearer(tokens[500]), bearer("csk_live_00000000000000000000000000000000"))
}

// BenchmarkRefuseUnseen compares the refusal of an unknown key that was never seen
// before: each is asked for in the store, which is in memory here.
func BenchmarkRefuseUnseen(b *testing.B) {
	g, tokens := benchGuard(b, 1000, nil)
	f, h, w := newFloor(b, tokens), g.Wrap(nothing), newDiscard()
	r := bearer(tokens[0])
	seen := 0
	next := func() *http.Request {
		seen++
		r.Header["Authorization"][0] = fmt.Sprintf("Bearer csk_live_%032x", seen)
		return r
	}
	compare(b, repeat(func() {
		if f.decide(next()) != nil {
			panic("admitted")
		}
	}), repeat(func() { h.ServeHTTP(w, next()) }))
	require.Equal(b, http.StatusUnauthorized, w.status)
}

// BenchmarkRefuseMalformed compares the refusal of what is no token.
func BenchmarkRefuseMalformed(b *testing.B) {
	g, tokens := benchGuard(b, 1000, nil)
	f := newFloor(b, tokens)
	h := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { f.decide(r) })
	benchHandlers(b, h, g.Wrap(nothing), bearer(tokens[500]), bearer("csk_live_0000000000000000000000000000000G"))
}

// BenchmarkRefuseOverQuota compares a 429 of a key that has spent its day with
// the floor of a decision.
func BenchmarkRefuseOverQuota(b *testing.B) {
	g, r := spentGuard(b)
	_, tokens := benchGuard(b, 1000, nil)
	f := newFloor(b, tokens)
	h := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { f.decide(r) })
	benchHandlers(b, h, g.Wrap(nothing), bearer(tokens[500]), r)
}

// spentGuard is a benchGuard, and a request with a key that has spent its day.
func spentGuard(b testing.TB) (*middleware.Guard, *http.Request) {
	counter := ratelimit.NewMemory()
	g, tokens := benchGuard(b, 1000, &middleware.Options{Limiter: ratelimit.NewDaily(counter, nil)})
	r := bearer(tokens[500])
	p, quota, err := g.Admit(r)
	require.NoError(b, err)
	_, ok, err := counter.Add(b.Context(), p.Quota, quota.Reset, quota.Remaining, quota.Limit)
	require.True(b, ok && err == nil)
	_, _, err = g.Admit(r)
	require.ErrorContains(b, err, string(policy.DailyLimit))
	return g, r
}

// BenchmarkUses is Wrap with the facts about use taken (S77).
func BenchmarkUses(b *testing.B) {
	g, tokens := benchGuard(b, 1000, &middleware.Options{OmitRateLimitFields: true, Uses: memstore.New()})
	defer func() { require.NoError(b, g.Close(context.Background())) }()
	benchHandlers(b, newFloor(b, tokens).wrap(nothing), g.Wrap(nothing), bearer(tokens[500]), bearer(tokens[500]))
}

func benchHandlers(b *testing.B, floor, guarded http.Handler, fr, gr *http.Request) {
	fw, gw := newDiscard(), newDiscard()
	compare(b, repeat(func() { floor.ServeHTTP(fw, fr) }), repeat(func() { guarded.ServeHTTP(gw, gr) }))
}

// BenchmarkFloor is the floor alone, for orientation.
func BenchmarkFloor(b *testing.B) {
	_, tokens := benchGuard(b, 1000, nil)
	f := newFloor(b, tokens)
	r := bearer(tokens[500])
	b.Run("decision", func(b *testing.B) {
		for b.Loop() {
			f.decide(r)
		}
	})
	b.Run("context", func(b *testing.B) {
		h, w := f.wrap(nothing), newDiscard()
		for b.Loop() {
			h.ServeHTTP(w, r)
		}
	})
}
