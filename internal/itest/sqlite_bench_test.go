package itest

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/sqlitestore"
	"github.com/keystile/keystile/token"
)

// The data source names that benchmarks compare: with a sync of the disk at every
// commit, which is recommended, and without.
var benchDSNs = []struct {
	name string
	dsn  func(file string) string
}{
	{"sync=full", sqlitestore.DSN},
	{"sync=normal", func(file string) string {
		return "file:" + file + "?_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)&_txlock=immediate"
	}},
}

// benchKeys makes a user for each key, and returns the keys.
func benchKeys(b *testing.B, s backend, n int) []*store.Key {
	b.Helper()
	keys := make([]*store.Key, n)
	for i := range keys {
		require.NoError(b, s.PutUser(b.Context(), testUser(i)))
		keys[i] = testKey(fmt.Sprintf("u%d", i), token.Generate())
		require.NoError(b, s.InsertKey(b.Context(), keys[i], nil, 5))
	}
	return keys
}

func BenchmarkSQLiteLookup(b *testing.B) {
	s := newStore(b, open(b, benchDSNs[1].dsn(newFile(b))), nil)
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
}

func BenchmarkSQLiteAdd(b *testing.B) {
	for _, dsn := range benchDSNs {
		for _, keys := range []int{1, 1000} {
			b.Run(fmt.Sprintf("%s/keys=%d", dsn.name, keys), func(b *testing.B) {
				s := newStore(b, open(b, dsn.dsn(newFile(b))), nil)
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					if _, ok, err := s.Add(b.Context(), fmt.Sprint("family ", i%keys), testDay, 1, 1<<40); !ok {
						b.Fatal(err)
					}
				}
			})
		}
		b.Run(dsn.name+"/parallel", func(b *testing.B) {
			s := newStore(b, open(b, dsn.dsn(newFile(b))), nil)
			b.ReportAllocs()
			b.SetParallelism(16)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, ok, err := s.Add(b.Context(), "family", testDay, 1, 1<<40); !ok {
						b.Error(err)
					}
				}
			})
		})
	}
	b.Run("refused", func(b *testing.B) {
		s := newStoreFile(b)
		_, _, err := s.Add(b.Context(), "family", testDay, 1, 1)
		require.NoError(b, err)
		b.ReportAllocs()
		for b.Loop() {
			if _, ok, err := s.Add(b.Context(), "family", testDay, 1, 1); ok || err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkSQLiteInsertKey(b *testing.B) {
	for _, dsn := range benchDSNs {
		b.Run(dsn.name, func(b *testing.B) {
			s := newStore(b, open(b, dsn.dsn(newFile(b))), nil)
			require.NoError(b, s.PutUser(b.Context(), testUser(1)))
			b.ReportAllocs()
			for b.Loop() {
				if err := s.InsertKey(b.Context(), testKey("u1", token.Generate()), nil, -1); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkSQLiteRecordUses records a batch of 1000 uses: of as many keys, and of
// ten keys with a hundred addresses each.
func BenchmarkSQLiteRecordUses(b *testing.B) {
	for _, distinct := range []int{1000, 10} {
		b.Run(fmt.Sprintf("keys=%d", distinct), func(b *testing.B) {
			s := newStoreFile(b)
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

func BenchmarkSQLitePurgeKeys(b *testing.B) {
	s := newStoreFile(b)
	require.NoError(b, s.PutUser(b.Context(), testUser(1)))
	for b.Loop() {
		b.StopTimer()
		for range 1000 {
			k := testKey("u1", token.Generate())
			k.RevokedAt = testDay
			require.NoError(b, s.InsertKey(b.Context(), k, nil, -1))
		}
		b.StartTimer()
		n, err := s.PurgeKeys(b.Context(), testDay.AddDate(0, 0, 1))
		require.NoError(b, err)
		require.Equal(b, 1000, n)
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/1000, "us/key")
}

// testAddr returns the n-th of 2^16 addresses.
func testAddr(n int) netip.Addr { return netip.AddrFrom4([4]byte{198, 51, byte(n >> 8), byte(n)}) }
