package itest

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

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
