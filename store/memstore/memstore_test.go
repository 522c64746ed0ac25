package memstore_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/ratelimit"
	"github.com/keystile/keystile/ratelimit/ratelimittest"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/memstore"
	"github.com/keystile/keystile/store/storetest"
	"github.com/keystile/keystile/token"
)

func TestStore(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) storetest.Harness {
		t.Parallel()
		s := memstore.New()
		return storetest.Harness{
			Store: s, Uses: s, Feed: s,
			ForgetChanges: func(ctx context.Context) error {
				return putUser(ctx, s, "forget", 20_001)
			},
			Retaining: func(r store.UseRetention, now func() time.Time) (storetest.Harness, error) {
				s, err := memstore.NewWithOptions(&memstore.Options{UseRetention: r, Now: now})
				return storetest.Harness{Store: s, Uses: s}, err
			},
			Without: []string{"Break"}, // nothing can be wrong with memory
		}
	})
}

func TestCounter(t *testing.T) {
	t.Parallel()
	ratelimittest.Run(t, func(t *testing.T) ratelimit.Counter { return memstore.New() })
}

// putUser writes a user of "acme" that many times.
func putUser(ctx context.Context, s *memstore.Store, id string, times int64) error {
	for version := range times {
		if err := s.PutUser(ctx, &store.User{Org: "acme", ID: id, Version: version}); err != nil {
			return err
		}
	}
	return nil
}

func newKey(n int) *store.Key {
	return &store.Key{
		ID:     fmt.Sprintf("csk_live_%08x", n),
		Digest: sha256.Sum256(fmt.Append(nil, n)),
		Org:    "acme",
		User:   "ada",
	}
}

// TestFeedKeeps shows that the feed keeps as many changes as its documentation
// says, whenever it is that it forgets some.
func TestFeedKeeps(t *testing.T) {
	t.Parallel()
	s := memstore.New()
	require.NoError(t, putUser(t.Context(), s, "ada", 20_000))
	_, _, all := feed(t, s, 0)
	require.False(t, all, "nothing is forgotten yet")

	require.NoError(t, putUser(t.Context(), s, "bob", 1))
	n, last, all := feed(t, s, 10_001)
	require.Equal(t, 10_000, n, "at least the last 10 000")
	require.Equal(t, int64(20_001), last)
	require.False(t, all)

	n, last, all = feed(t, s, 9_999)
	require.Equal(t, 1, n)
	require.Equal(t, int64(20_001), last)
	require.True(t, all, "what is forgotten is said to be")
}

// feed follows the feed of s from a place on. It returns how many changes there
// are, where they end, and whether one is of ChangedAll.
func feed(t *testing.T, s *memstore.Store, after int64) (n int, last int64, all bool) {
	t.Helper()
	for {
		changes, next, err := s.Changes(t.Context(), after)
		require.NoError(t, err)
		if len(changes) == 0 {
			return n, next, all
		}
		n, after = n+len(changes), next
		all = all || changes[0].Kind == store.ChangedAll
	}
}

// TestErrorsSayWhat shows that errors name the thing and not what is in it.
func TestErrorsSayWhat(t *testing.T) {
	t.Parallel()
	s := memstore.New()
	ctx := t.Context()
	k := newKey(1)
	k.Name = "csk_live_0123456789abcdef0123456789abcdef"
	require.EqualError(t, s.InsertKey(ctx, k, nil, 1), "memstore: user of the new key: store: not found")
	require.NoError(t, putUser(ctx, s, "ada", 1))
	require.NoError(t, s.InsertKey(ctx, k, nil, 1))
	other := newKey(2)
	require.EqualError(t, s.InsertKey(ctx, other, nil, 1), "memstore: keys of the user: store: limit reached")
	other.ID = k.ID
	require.EqualError(t, s.InsertKey(ctx, other, nil, -1), "memstore: ID of the new key: store: exists already")
	other = newKey(3)
	other.Digest = k.Digest
	require.EqualError(t, s.InsertKey(ctx, other, nil, -1), "memstore: digest of the new key: store: exists already")
	k.Name += "\x00"
	err := s.UpdateKey(ctx, k)
	require.EqualError(t, err, "store: key: Name has a NUL or is not valid UTF-8")

	ctx, cancel := context.WithCancel(ctx)
	cancel()
	_, err = s.Lookup(ctx, k.Digest)
	require.EqualError(t, err, "memstore: lookup: context canceled")
}

// TestLookupAllocates: a record is built when it is written, not when it is read.
func TestLookupAllocates(t *testing.T) {
	s := memstore.New()
	require.NoError(t, putUser(t.Context(), s, "ada", 1))
	k := newKey(1)
	require.NoError(t, s.InsertKey(t.Context(), k, nil, 1))
	ctx := t.Context()
	require.Zero(t, testing.AllocsPerRun(100, func() {
		if _, err := s.Lookup(ctx, k.Digest); err != nil {
			t.Error(err)
		}
		if _, err := s.Lookup(ctx, token.Digest{}); !errors.Is(err, store.ErrNotFound) {
			t.Error(err)
		}
	}))
	a, err := s.Lookup(ctx, k.Digest)
	require.NoError(t, err)
	b, err := s.Lookup(ctx, k.Digest)
	require.NoError(t, err)
	require.Same(t, a, b)
}

func BenchmarkLookup(b *testing.B) {
	for _, n := range []int{1, 10_000} {
		b.Run(fmt.Sprintf("keys=%d", n), func(b *testing.B) {
			s := memstore.New()
			require.NoError(b, putUser(b.Context(), s, "ada", 1))
			digests := make([]token.Digest, n)
			for i := range n {
				k := newKey(i)
				digests[i] = k.Digest
				require.NoError(b, s.InsertKey(b.Context(), k, nil, -1))
			}
			ctx := context.Background()
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if _, err := s.Lookup(ctx, digests[i%n]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestNewReportsAllProblems(t *testing.T) {
	t.Parallel()
	s, err := memstore.NewWithOptions(&memstore.Options{UseRetention: store.UseRetention{Addrs: 11, Age: -time.Hour}})
	require.EqualError(t, err, "memstore: UseRetention.Addrs is above 10\nmemstore: UseRetention.Age is negative")
	require.Nil(t, s)
	s, err = memstore.NewWithOptions(nil)
	require.NoError(t, err)
	require.NoError(t, putUser(t.Context(), s, "ada", 1))
}

// What is known of where keys are used is kept for 90 days.
func ExampleNewWithOptions() {
	s, err := memstore.NewWithOptions(&memstore.Options{
		UseRetention: store.UseRetention{Age: 90 * 24 * time.Hour},
	})
	if err != nil {
		panic(err)
	}
	_ = s

	_, err = memstore.NewWithOptions(&memstore.Options{
		UseRetention: store.UseRetention{Age: 90}, // nanoseconds
	})
	fmt.Println(err)
	// Output: memstore: UseRetention.Age is below 1h0m0s
}

func ExampleNew() {
	ctx := context.Background()
	s := memstore.New()

	// A key needs its user.
	if err := s.PutUser(ctx, &store.User{Org: "acme", ID: "ada@example.com", Tier: "Pro"}); err != nil {
		panic(err)
	}
	t := token.Generate()
	digest, err := new(token.Format).Digest(t.Reveal())
	if err != nil {
		panic(err)
	}
	err = s.InsertKey(ctx, &store.Key{
		ID:        t.ID(),
		Digest:    digest,
		Org:       "acme",
		User:      "ada@example.com",
		Name:      "Export to the SIEM",
		CreatedAt: time.Now(),
		Family:    t.ID(),
	}, nil, 5)
	if err != nil {
		panic(err)
	}

	r, err := s.Lookup(ctx, digest)
	if err != nil {
		panic(err)
	}
	fmt.Println(r.Key.Name, "of", r.User.ID)
	// Output: Export to the SIEM of ada@example.com
}

// What Keys returns is a copy: to change a key takes UpdateKey.
func ExampleStore_Keys_incorrect() {
	ctx := context.Background()
	s := memstore.New()
	if err := putUser(ctx, s, "ada", 1); err != nil {
		panic(err)
	}
	if err := s.InsertKey(ctx, newKey(1), nil, 5); err != nil {
		panic(err)
	}

	keys, err := s.Keys(ctx, store.Query{Org: "acme"})
	if err != nil {
		panic(err)
	}
	keys[0].RevokedAt = time.Now() // revokes nothing

	r, err := s.Lookup(ctx, keys[0].Digest)
	if err != nil {
		panic(err)
	}
	fmt.Println("revoked:", !r.Key.RevokedAt.IsZero())
	// Output: revoked: false
}

// TestRounds_D24: the use facts of all keys are gone through once in an hour, and not
// with each batch, in a step of its own of which everybody else waits for the end.
func TestRounds_D24(t *testing.T) {
	t.Parallel()
	used := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	now := used
	s, err := memstore.NewWithOptions(&memstore.Options{
		UseRetention: store.UseRetention{Age: 24 * time.Hour}, Now: func() time.Time { return now },
	})
	require.NoError(t, err)
	require.NoError(t, putUser(t.Context(), s, "ada", 1))
	k := newKey(1)
	require.NoError(t, s.InsertKey(t.Context(), k, nil, -1))
	require.NoError(t, s.RecordUses(t.Context(), []store.Use{{KeyID: k.ID, Addr: netip.MustParseAddr("192.0.2.1"), First: used, Last: used, Count: 1}}))
	// kept reports whether the address is still there: whether a clock set back shows it.
	kept := func() bool {
		before := now
		now = used
		sums, err := s.Uses(t.Context(), "acme", []string{k.ID})
		now = before
		require.NoError(t, err)
		return len(sums[0].Addrs) > 0
	}
	for _, step := range []struct {
		after time.Duration
		kept  bool
	}{
		{24 * time.Hour, true},                 // a round, and nothing is too old
		{25*time.Hour - time.Nanosecond, true}, // too old, and no round
		{25 * time.Hour, false},
	} {
		now = used.Add(step.after)
		require.NoError(t, s.RecordUses(t.Context(), nil))
		require.Equal(t, step.kept, kept(), step.after)
	}
}
