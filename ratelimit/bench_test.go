package ratelimit_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keystile/keystile/ratelimit"
)

// noon is a time of the tests and benchmarks, midday of an ordinary day in UTC.
var noon = time.Date(2026, time.March, 10, 12, 0, 0, 0, time.UTC)

// manyKeys returns n keys of the length of a key's ID, in random order.
func manyKeys(n int) []string {
	keys := make([]string, n)
	for i, j := range rand.Perm(n) {
		keys[i] = fmt.Sprintf("csk_live_%08x", j)
	}
	return keys
}

// sizes are the numbers of keys that benchmarks run with: what fits a
// processor's cache and what does not.
var sizes = []int{1_000, 1_000_000}

func BenchmarkMemoryAdd(b *testing.B) {
	end := midnight
	for _, size := range sizes {
		m := ratelimit.NewMemory()
		keys := manyKeys(size)
		for _, key := range keys {
			m.Add(b.Context(), key, end, 1, math.MaxInt64)
		}
		b.Run("keys="+strconv.Itoa(size), func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				m.Add(b.Context(), keys[i], end, 1, math.MaxInt64)
				if i++; i == len(keys) {
					i = 0
				}
			}
		})
		b.Run("parallel/keys="+strconv.Itoa(size), func(b *testing.B) {
			b.ReportAllocs()
			var start atomic.Int64
			b.RunParallel(func(pb *testing.PB) {
				ctx, i := b.Context(), int(start.Add(1))*len(keys)/7%len(keys)
				for pb.Next() {
					m.Add(ctx, keys[i], end, 1, math.MaxInt64)
					if i++; i == len(keys) {
						i = 0
					}
				}
			})
		})
	}
	b.Run("parallel/keys=1", func(b *testing.B) {
		b.ReportAllocs()
		m := ratelimit.NewMemory()
		b.RunParallel(func(pb *testing.PB) {
			ctx := b.Context()
			for pb.Next() {
				m.Add(ctx, "csk_live_00000001", end, 1, math.MaxInt64)
			}
		})
	})
	b.Run("request context", func(b *testing.B) {
		b.ReportAllocs()
		m := ratelimit.NewMemory()
		type name struct{}
		ctx, cancel := context.WithCancel(b.Context())
		defer cancel()
		ctx = context.WithValue(context.WithValue(ctx, name{}, 1), name{}, 2)
		for b.Loop() {
			m.Add(ctx, "csk_live_00000001", end, 1, math.MaxInt64)
		}
	})
}

// BenchmarkNewKey is about keys that were not there before: their time, and what
// each costs in memory.
func BenchmarkNewKey(b *testing.B) {
	keys := manyKeys(1_000_000)
	benchmark := func(name string, fill func(b *testing.B) (filled any)) {
		b.Run(name, func(b *testing.B) {
			var before, after runtime.MemStats
			for b.Loop() {
				b.StopTimer()
				runtime.GC()
				runtime.ReadMemStats(&before)
				b.StartTimer()
				filled := fill(b)
				b.StopTimer()
				runtime.GC()
				runtime.ReadMemStats(&after)
				runtime.KeepAlive(filled)
				b.StartTimer()
			}
			b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(len(keys)), "B/key")
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(keys)), "ns/key")
		})
	}
	benchmark("Memory", func(b *testing.B) any {
		m := ratelimit.NewMemory()
		for _, key := range keys {
			m.Add(b.Context(), key, midnight, 1, 250)
		}
		return m
	})
	benchmark("Burst", func(b *testing.B) any {
		l := ratelimit.NewBurst(10, 10, &ratelimit.BurstOptions{MaxKeys: 2 * len(keys)})
		for _, key := range keys {
			l.Take(b.Context(), key, 0)
		}
		return l
	})
	benchmark("Burst/full", func(b *testing.B) any {
		l := ratelimit.NewBurst(10, 10, nil)
		for _, key := range keys {
			l.Take(b.Context(), key, 0)
		}
		return l
	})
}

func BenchmarkDailyTakeAt(b *testing.B) {
	for _, size := range sizes {
		d := ratelimit.NewDaily(ratelimit.NewMemory(), nil)
		keys := manyKeys(size)
		for _, key := range keys {
			d.TakeAt(b.Context(), key, ratelimit.Unlimited, noon, new(ratelimit.Result))
		}
		b.Run("keys="+strconv.Itoa(size), func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				d.TakeAt(b.Context(), keys[i], ratelimit.Unlimited, noon, new(ratelimit.Result))
				if i++; i == len(keys) {
					i = 0
				}
			}
		})
	}
	b.Run("refused", func(b *testing.B) {
		b.ReportAllocs()
		d := ratelimit.NewDaily(ratelimit.NewMemory(), nil)
		for b.Loop() {
			d.TakeAt(b.Context(), "csk_live_00000001", 1, noon, new(ratelimit.Result))
		}
	})
	b.Run("parallel/keys=1", func(b *testing.B) {
		b.ReportAllocs()
		d := ratelimit.NewDaily(ratelimit.NewMemory(), nil)
		b.RunParallel(func(pb *testing.PB) {
			ctx := b.Context()
			for pb.Next() {
				d.TakeAt(ctx, "csk_live_00000001", ratelimit.Unlimited, noon, new(ratelimit.Result))
			}
		})
	})
}

func BenchmarkBurstTake(b *testing.B) {
	for _, size := range sizes {
		l := ratelimit.NewBurst(1e6, 1e6, &ratelimit.BurstOptions{MaxKeys: 2 * size})
		keys := manyKeys(size)
		for _, key := range keys {
			l.Take(b.Context(), key, 0)
		}
		b.Run("keys="+strconv.Itoa(size), func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				l.Take(b.Context(), keys[i], 0)
				if i++; i == len(keys) {
					i = 0
				}
			}
		})
	}
	b.Run("refused", func(b *testing.B) {
		b.ReportAllocs()
		l := ratelimit.NewBurst(1e-4, 1, nil)
		for b.Loop() {
			l.Take(b.Context(), "csk_live_00000001", 0)
		}
	})
}
