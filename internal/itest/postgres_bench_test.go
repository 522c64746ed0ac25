package itest

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/ratelimit"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/token"
)

// The server of the benchmarks does not sync the disk: what is measured is
// everything else.

func BenchmarkPostgresLookup(b *testing.B) {
	s := newPostgresStore(b)
	keys := benchKeys(b, s, 1000)
	b.Run("hit", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if _, err := s.Lookup(b.Context(), keys[i%len(keys)].Digest); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("miss", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := s.Lookup(b.Context(), token.Digest{}); err == nil {
				b.Fatal("found")
			}
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.SetParallelism(16)
		b.RunParallel(func(pb *testing.PB) {
			for i := 0; pb.Next(); i++ {
				if _, err := s.Lookup(b.Context(), keys[i%len(keys)].Digest); err != nil {
					b.Error(err)
				}
			}
		})
	})
}

func BenchmarkPostgresAdd(b *testing.B) {
	s := newPostgresStore(b)
	add := func(b *testing.B, i, keys int) {
		if _, ok, err := s.Add(b.Context(), fmt.Sprint("family ", i%keys), testDay, 1, 1<<40); !ok {
			b.Error(err)
		}
	}
	for _, keys := range []int{1, 1000} {
		for i := range keys {
			add(b, i, keys)
		}
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
	b.Run("new", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if _, ok, err := s.Add(b.Context(), fmt.Sprint("new ", b.N, i), testDay, 1, 1<<40); !ok {
				b.Fatal(err)
			}
		}
	})
	b.Run("refused", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, ok, err := s.Add(b.Context(), "family 0", testDay, 1, 1); ok || err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkPostgresHotKey has several nodes, each with a pool of its own, spend the
// quota of one key: by one statement for each request, which all take their turns at
// one row, and from what they have borrowed.
func BenchmarkPostgresHotKey(b *testing.B) {
	for _, nodes := range []int{1, 4, 16} {
		for _, leased := range []bool{false, true} {
			name := "counted"
			if leased {
				name = "leased"
			}
			b.Run(fmt.Sprintf("nodes=%d/%s", nodes, name), func(b *testing.B) {
				dsn, _ := newSchema(b)
				fleet := make([]ratelimit.Counter, nodes)
				lenders := make([]*countedLender, nodes)
				for i := range fleet {
					lenders[i] = &countedLender{Lender: newPostgres(b, openPool(b, dsn), nil)}
					fleet[i] = lenders[i]
					if leased {
						l := ratelimit.NewLeased(lenders[i], nil)
						b.Cleanup(func() { require.NoError(b, l.Close(context.Background())) })
						fleet[i] = l
					}
				}
				var next atomic.Int64
				b.SetParallelism(16)
				b.ResetTimer()
				b.RunParallel(func(pb *testing.PB) {
					node := fleet[next.Add(1)%int64(nodes)]
					for pb.Next() {
						if _, ok, err := node.Add(b.Context(), "family", testDay, 1, 1<<40); !ok {
							b.Error(err)
						}
					}
				})
				var trips int64
				for _, l := range lenders {
					trips += l.adds.Load() + l.borrows.Load()
				}
				b.ReportMetric(float64(trips)/float64(b.N), "trips/op")
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
			})
		}
	}
}

// BenchmarkFleetDecision compares a warm decision of a node that is alone with that of
// one among sixteen on a database, which all poll the feed. They decide in turn, and
// what is reported is the median of a hundred decisions each, so that what else the
// machine does concerns both.
func BenchmarkFleetDecision(b *testing.B) {
	const turn = 100
	alone, among := newBenchNode(b, 1), newBenchNode(b, 16)
	var times [2][]time.Duration
	for b.Loop() {
		for i, decide := range []func(){alone, among} {
			began := time.Now()
			for range turn {
				decide()
			}
			times[i] = append(times[i], time.Since(began)/turn)
		}
	}
	median := func(d []time.Duration) float64 {
		slices.Sort(d)
		return float64(d[len(d)/2])
	}
	b.ReportMetric(median(times[0]), "ns/alone")
	b.ReportMetric(median(times[1]), "ns/among16")
	b.ReportMetric(median(times[1])/median(times[0]), "ratio")
}

// newBenchNode returns what has a node decide that is one of some on a database.
func newBenchNode(b *testing.B, nodes int) (decide func()) {
	b.Helper()
	c := newFleet(b, false, 1<<40)
	fleet := make([]*fleetNode, nodes)
	for i := range fleet {
		var err error
		fleet[i], err = newFleetNode(c)
		require.NoError(b, err)
		b.Cleanup(func() { require.NoError(b, fleet[i].end()) })
		ok, err := fleet[i].request(b.Context())
		require.NoError(b, err)
		require.True(b, ok)
	}
	r, err := http.NewRequestWithContext(b.Context(), http.MethodGet, "/", http.NoBody)
	require.NoError(b, err)
	r.RemoteAddr = "192.0.2.1:1"
	r.Header.Set("Authorization", "Bearer "+c.Token)
	return func() {
		if _, _, err := fleet[0].guard.Admit(r); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPostgresLend borrows a hundred units and spends them, again and again.
func BenchmarkPostgresLend(b *testing.B) {
	s := newPostgresStore(b)
	b.ReportAllocs()
	for spent := int64(0); b.Loop(); {
		loan, err := s.Lend(b.Context(), "account", "family", testDay, spent, 100, 1<<40, testDay)
		require.NoError(b, err)
		spent = loan.Lent
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/100, "ns/unit")
}

func BenchmarkPostgresInsertKey(b *testing.B) {
	s := newPostgresStore(b)
	require.NoError(b, s.PutUser(b.Context(), testUser(1)))
	b.ReportAllocs()
	for b.Loop() {
		if err := s.InsertKey(b.Context(), testKey("u1", token.Generate()), nil, -1); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPostgresRecordUses records a batch of 1000 uses: of as many keys, and
// of ten keys with a hundred addresses each.
func BenchmarkPostgresRecordUses(b *testing.B) {
	for _, distinct := range []int{1000, 10} {
		b.Run(fmt.Sprintf("keys=%d", distinct), func(b *testing.B) {
			s := newPostgresStore(b)
			keys := benchKeys(b, s, distinct)
			batch := make([]store.Use, 1000)
			now := testDay
			b.ReportAllocs()
			for b.Loop() {
				now = now.Add(time.Second)
				for i := range batch {
					batch[i] = store.Use{KeyID: keys[i%distinct].ID, Addr: testAddr(i), UserAgent: "curl/8", First: now, Last: now, Count: 1}
				}
				if err := s.RecordUses(b.Context(), batch); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkPostgresChanges polls a feed that has nothing new, as a cache does
// every second.
func BenchmarkPostgresChanges(b *testing.B) {
	s := newPostgresStore(b)
	benchKeys(b, s, 1000)
	_, end, err := s.Changes(b.Context(), -1)
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		if changes, _, err := s.Changes(b.Context(), end); err != nil || len(changes) > 0 {
			b.Fatal(changes, err)
		}
	}
}
