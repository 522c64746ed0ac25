package itest

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keystile/keystile/ratelimit"
)

// The server of the benchmarks keeps nothing on the disk and is on the same
// machine: what is measured is everything else.

// BenchmarkRedisAdd is a request of its own trip.
func BenchmarkRedisAdd(b *testing.B) {
	c := newRedisCounter(b)
	add := func(b *testing.B, i, keys int) {
		if _, ok, err := c.Add(b.Context(), fmt.Sprint("family ", i%keys), testDay, 1, 1<<40); !ok {
			b.Error(err)
		}
	}
	for _, keys := range []int{1, 1000} {
		b.Run(fmt.Sprintf("keys=%d", keys), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				add(b, i, keys)
			}
		})
		b.Run(fmt.Sprintf("keys=%d/parallel", keys), func(b *testing.B) {
			b.ReportAllocs()
			b.SetParallelism(16)
			b.RunParallel(func(pb *testing.PB) {
				for i := 0; pb.Next(); i++ {
					add(b, i, keys)
				}
			})
		})
	}
	b.Run("refused", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, ok, err := c.Add(b.Context(), "family 0", testDay, 1, 1); ok || err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkRedisLend is a renewal, beside other nodes that hold units.
func BenchmarkRedisLend(b *testing.B) {
	for _, nodes := range []int{1, 16, 100} {
		b.Run(fmt.Sprintf("nodes=%d", nodes), func(b *testing.B) {
			c := newRedisCounter(b)
			for node := range nodes {
				if _, err := c.Lend(b.Context(), fmt.Sprint("node ", node), "family", testDay, 0, 100, 1<<50, testDay); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportAllocs()
			for spent := int64(100); b.Loop(); spent += 100 {
				if loan, err := c.Lend(b.Context(), "node 0", "family", testDay, spent, 100, 1<<50, testDay); loan.Lent != spent+100 {
					b.Fatal(loan, err)
				}
			}
		})
	}
}

// loans is a lender of loans of at most so many units.
type loans struct {
	ratelimit.Lender
	size  int64
	trips atomic.Int64
}

func (l *loans) Lend(ctx context.Context, account, key string, end time.Time, spent, want, limit int64, now time.Time) (ratelimit.Loan, error) {
	l.trips.Add(1)
	return l.Lender.Lend(ctx, account, key, end, spent, min(want, l.size), limit, now)
}

// BenchmarkRedisLeased is a Take on one node that leases, with its share of the
// trips, and the same without leases.
func BenchmarkRedisLeased(b *testing.B) {
	noon := testDay.Add(-12 * time.Hour)
	take := func(b *testing.B, d *ratelimit.Daily, n int) {
		for range n {
			var result ratelimit.Result
			if err := d.TakeAt(b.Context(), "family", ratelimit.Unlimited, noon, &result); !result.OK {
				b.Fatal(err)
			}
		}
	}
	b.Run("without", func(b *testing.B) {
		d := ratelimit.NewDaily(newRedisCounter(b), nil)
		b.ReportAllocs()
		b.ResetTimer()
		take(b, d, b.N)
	})
	for _, size := range []int64{10, 100, 1000} {
		bench := func(name string, run func(b *testing.B, d *ratelimit.Daily)) {
			b.Run(fmt.Sprintf("loans of %d%s", size, name), func(b *testing.B) {
				lender := &loans{Lender: newRedisCounter(b), size: size}
				leased := ratelimit.NewLeased(lender, nil)
				defer leased.Close(context.Background())
				d := ratelimit.NewDaily(leased, nil)
				take(b, d, 5000)
				lender.trips.Store(0)
				b.ReportAllocs()
				b.ResetTimer()
				run(b, d)
				b.ReportMetric(float64(lender.trips.Load())/float64(b.N), "trips/op")
			})
		}
		bench("", func(b *testing.B, d *ratelimit.Daily) { take(b, d, b.N) })
		// Who waits for a trip leaves the processors to others: that is what a trip
		// costs a node that is busy.
		bench("/keys=64/parallel", func(b *testing.B, d *ratelimit.Daily) {
			var callers atomic.Int64
			b.SetParallelism(64 / runtime.GOMAXPROCS(0))
			b.RunParallel(func(pb *testing.PB) {
				key := fmt.Sprint("family ", callers.Add(1))
				for pb.Next() {
					var result ratelimit.Result
					if err := d.TakeAt(b.Context(), key, ratelimit.Unlimited, noon, &result); !result.OK {
						b.Error(err)
					}
				}
			})
		})
	}
}
