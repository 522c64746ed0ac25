package store_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/token"
)

// A sqlReader makes records as an SQL store does: every call allocates its own
// key, user, principal and strings. Token number i belongs to user i/5.
type sqlReader struct {
	index map[token.Digest]int
}

func tokenText(i int) string { return fmt.Sprintf("csk_live_%032x", uint64(i)*0x9e3779b97f4a7c15) }

func newSQLReader(tb testing.TB, n int) *sqlReader {
	r := &sqlReader{index: make(map[token.Digest]int, n)}
	var f token.Format
	for i := range n {
		d, err := f.Digest(tokenText(i))
		require.NoError(tb, err)
		r.index[d] = i
	}
	return r
}

var benchTime = time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)

func (r *sqlReader) Lookup(_ context.Context, d token.Digest) (*store.Record, error) {
	i, ok := r.index[d]
	if !ok {
		return nil, store.ErrNotFound
	}
	user := i / 5
	u := &store.User{
		Org:     fmt.Sprintf("org-%05d", user/50),
		ID:      fmt.Sprintf("user%07d@example.com", user),
		Tier:    strings.Clone("Enterprise"),
		Owner:   user%50 == 0,
		Version: 1,
	}
	k := &store.Key{
		ID:        strings.Clone(tokenText(i)[:17]),
		Digest:    d,
		Org:       strings.Clone(u.Org),
		User:      strings.Clone(u.ID),
		Name:      fmt.Sprintf("ci pipeline %d", i%5),
		Scopes:    []string{strings.Clone("reports:read"), strings.Clone("reports:write")},
		CreatedAt: benchTime,
		Family:    strings.Clone(tokenText(i)[:17]),
		Version:   1,
	}
	return store.NewRecord(k, u), nil
}

func (r *sqlReader) Settings(_ context.Context, org string) (*policy.Settings, error) {
	return &policy.Settings{Org: strings.Clone(org), MaxAge: 24 * time.Hour, Version: 1}, nil
}

func benchVerifier(tb testing.TB, n int, opts *store.CacheOptions) *store.Verifier {
	c, err := store.NewCache(newSQLReader(tb, n), opts)
	require.NoError(tb, err)
	v, err := store.NewVerifier(c, nil)
	require.NoError(tb, err)
	return v
}

func BenchmarkVerifyWarm(b *testing.B) {
	for _, n := range []int{1, 1000, 1_000_000} {
		b.Run(fmt.Sprintf("keys=%d", n), func(b *testing.B) {
			v := benchVerifier(b, n, &store.CacheOptions{TTL: 5 * time.Minute})
			now := time.Now()
			texts := make([]string, min(n, 1<<17))
			for i := range texts {
				texts[i] = tokenText(i * (n / len(texts)))
			}
			for i := range n {
				if _, err := v.Verify(b.Context(), tokenText(i), now); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if _, err := v.Verify(b.Context(), texts[i], now); err != nil {
					b.Fatal(err)
				}
				if i++; i == len(texts) {
					i = 0
				}
			}
		})
	}
}

func BenchmarkVerifyWarmParallelOneKey(b *testing.B) {
	v := benchVerifier(b, 1, &store.CacheOptions{TTL: 5 * time.Minute})
	now := time.Now()
	text := tokenText(0)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		ctx := context.Background()
		for pb.Next() {
			if _, err := v.Verify(ctx, text, now); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// BenchmarkVerifyUnknown refuses a key that was just not found.
func BenchmarkVerifyUnknown(b *testing.B) {
	v := benchVerifier(b, 1000, &store.CacheOptions{TTL: 5 * time.Minute, NegativeTTL: 5 * time.Minute})
	now := time.Now()
	text := tokenText(-1)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Verify(b.Context(), text, now); err == nil {
			b.Fatal("found")
		}
	}
}

// BenchmarkVerifyMiss refuses keys of which nothing is known: each takes a trip to
// a store that answers at once.
func BenchmarkVerifyMiss(b *testing.B) {
	v := benchVerifier(b, 0, nil)
	now := time.Now()
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		if _, err := v.Verify(b.Context(), tokenText(i), now); err == nil {
			b.Fatal("found")
		}
	}
}

// BenchmarkVerifyFloor is what cannot be saved: the digest, and one look into a
// map that nobody writes.
func BenchmarkVerifyFloor(b *testing.B) {
	r := newSQLReader(b, 1000)
	var f token.Format
	text := tokenText(1)
	b.ReportAllocs()
	for b.Loop() {
		d, err := f.Digest(text)
		if _, ok := r.index[d]; !ok || err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCacheMillion prints what a cached key takes, all included, and how long
// a collection takes with a million of them.
func BenchmarkCacheMillion(b *testing.B) {
	const n = 1_000_000
	r := newSQLReader(b, n)
	for b.Loop() {
		now := time.Now()
		before := heapInUse()
		c, err := store.NewCache(r, &store.CacheOptions{TTL: 5 * time.Minute})
		require.NoError(b, err)
		v, err := store.NewVerifier(c, nil)
		require.NoError(b, err)
		for i := range n {
			if _, err := v.Verify(b.Context(), tokenText(i), now); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(heapInUse()-before)/n, "B/key")
		start := time.Now()
		runtime.GC()
		b.ReportMetric(float64(time.Since(start).Milliseconds()), "gc-ms")
		runtime.KeepAlive(v)
	}
}
