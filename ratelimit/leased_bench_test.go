package ratelimit_test

import (
	"context"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keystile/keystile/ratelimit"
)

// blocks is a lender of loans of at most so many units.
type blocks struct {
	ratelimit.Lender
	size  int64
	trips atomic.Int64
}

func (l *blocks) Lend(ctx context.Context, account, key string, end time.Time, spent, want, limit int64, now time.Time) (ratelimit.Loan, error) {
	l.trips.Add(1)
	return l.Lender.Lend(ctx, account, key, end, spent, min(want, l.size), limit, now)
}

// BenchmarkLeasedTake is about one node whose keys are not used up. The trips are
// to memory: what they cost over a network comes on top, by trips/op.
func BenchmarkLeasedTake(b *testing.B) {
	benchmark := func(name string, size int64, keys int, parallel bool) {
		b.Run(name, func(b *testing.B) {
			lender := &blocks{Lender: ratelimit.NewMemory(), size: size}
			leased := ratelimit.NewLeased(lender, nil)
			defer leased.Close(context.Background())
			d := ratelimit.NewDaily(leased, nil)
			ids := manyKeys(keys)
			for range 2000 / keys {
				for _, id := range ids {
					d.TakeAt(b.Context(), id, ratelimit.Unlimited, noon, new(ratelimit.Result))
				}
			}
			lender.trips.Store(0)
			b.ReportAllocs()
			b.ResetTimer()
			if parallel {
				b.RunParallel(func(pb *testing.PB) {
					ctx := b.Context()
					for pb.Next() {
						d.TakeAt(ctx, ids[0], ratelimit.Unlimited, noon, new(ratelimit.Result))
					}
				})
			} else {
				for i := range b.N {
					d.TakeAt(b.Context(), ids[i%keys], ratelimit.Unlimited, noon, new(ratelimit.Result))
				}
			}
			b.StopTimer()
			b.ReportMetric(float64(lender.trips.Load())/float64(b.N), "trips/op")
		})
	}
	for _, size := range []int64{100, 1000} {
		benchmark("loans of "+strconv.FormatInt(size, 10), size, 1, false)
		benchmark("loans of "+strconv.FormatInt(size, 10)+"/parallel", size, 1, true)
	}
	benchmark("keys=100", 1000, 100, false)
}

// BenchmarkLeasedSpend is what a request costs that a loan settles, which nearly
// all do.
func BenchmarkLeasedSpend(b *testing.B) {
	for _, parallel := range []bool{false, true} {
		name := map[bool]string{false: "one caller", true: "all processors, one key"}[parallel]
		b.Run(name, func(b *testing.B) {
			leased := ratelimit.NewLeased(endless{}, nil)
			defer leased.Close(context.Background())
			d := ratelimit.NewDaily(leased, nil)
			d.TakeAt(b.Context(), "csk_live_00000001", ratelimit.Unlimited, noon, new(ratelimit.Result))
			d.TakeAt(b.Context(), "csk_live_00000001", ratelimit.Unlimited, noon, new(ratelimit.Result))
			b.ReportAllocs()
			b.ResetTimer()
			if !parallel {
				for range b.N {
					d.TakeAt(b.Context(), "csk_live_00000001", ratelimit.Unlimited, noon, new(ratelimit.Result))
				}
				return
			}
			b.RunParallel(func(pb *testing.PB) {
				ctx := b.Context()
				for pb.Next() {
					d.TakeAt(ctx, "csk_live_00000001", ratelimit.Unlimited, noon, new(ratelimit.Result))
				}
			})
		})
	}
}

// endless is a lender of loans that no benchmark uses up.
type endless struct{}

func (endless) Add(_ context.Context, _ string, _ time.Time, n, _ int64) (int64, bool, error) {
	return n, true, nil
}

func (endless) Lend(_ context.Context, _, _ string, _ time.Time, spent, _, _ int64, _ time.Time) (ratelimit.Loan, error) {
	return ratelimit.Loan{Lent: spent + 1<<40, Count: spent + 1<<40}, nil
}

func BenchmarkLeasedRefused(b *testing.B) {
	b.ReportAllocs()
	m := ratelimit.NewMemory()
	m.Add(b.Context(), "csk_live_00000001", midnight, 250, 250)
	leased := ratelimit.NewLeased(m, nil)
	defer leased.Close(context.Background())
	for b.Loop() {
		leased.Add(b.Context(), "csk_live_00000001", midnight, 1, 250)
	}
}
