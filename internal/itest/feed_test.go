package itest

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/keys"
	"github.com/keystile/keystile/token"
)

// Item 10 of the properties, S19, F46, F47: how long a revocation made at one node
// is unknown at another, over one SQLite file that each has opened for itself. The
// times are printed; what is asserted is only the bound that holds whatever fails.
func TestSQLiteRevocationLatency(t *testing.T) {
	file := newFile(t)
	a := newStore(t, openFile(t, file), nil)
	b := newStore(t, openFile(t, file), nil)
	revocationLatencies(t, a, b)
}

// The same over one PostgreSQL database.
func TestPostgresRevocationLatency(t *testing.T) {
	dsn, _ := newSchema(t)
	a := newPostgres(t, openPool(t, dsn), nil)
	b := newPostgres(t, openPool(t, dsn), nil)
	revocationLatencies(t, a, b)
}

// A deadFeed is a Feed that loses everything.
type deadFeed struct{}

func (deadFeed) Changes(context.Context, int64) ([]store.Change, int64, error) {
	return nil, 0, errors.New("the feed is lost")
}

// revocationLatencies revokes keys at a node over a and watches them at a node
// over b.
func revocationLatencies(t *testing.T, a, b backend) {
	const revocations = 200
	wake := make(chan struct{}, 1)
	for _, tt := range []struct {
		name  string
		cache store.CacheOptions // of the node that watches
		wake  chan<- struct{}
	}{
		{name: "polls every second", cache: store.CacheOptions{Feed: b}},
		{name: "polls every 100 ms", cache: store.CacheOptions{Feed: b, FeedInterval: 100 * time.Millisecond}},
		{name: "wake-ups", cache: store.CacheOptions{Feed: b, FeedWake: wake}, wake: wake},
		{name: "no poll succeeds", cache: store.CacheOptions{Feed: deadFeed{}, TTL: 2 * time.Second}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			here, err := keys.New(a, &keys.Options{MaxPerUser: -1, Cache: &store.CacheOptions{Feed: a}})
			require.NoError(t, err)
			t.Cleanup(here.Close)
			there, err := keys.New(b, &keys.Options{Cache: &tt.cache})
			require.NoError(t, err)
			t.Cleanup(there.Close)
			require.NoError(t, here.PutUser(t.Context(), &store.User{Org: "acme", ID: t.Name()}))

			var secrets [revocations]token.Token
			var refs [revocations]keys.Ref
			for i := range secrets {
				secret, k, err := here.Create(t.Context(), keys.CreateParams{Org: "acme", User: t.Name(), Name: "export"})
				require.NoError(t, err)
				secrets[i], refs[i] = secret, keys.Ref{Org: k.Org, User: k.User, ID: k.ID}
			}

			// One goroutine asks for every key in every millisecond, another revokes one
			// in every ten.
			var revoked [revocations]atomic.Int64 // when Revoke had returned
			var latencies []time.Duration
			began := time.Now()
			watched := make(chan error, 1)
			go func() {
				ticks := time.NewTicker(time.Millisecond)
				defer ticks.Stop()
				seen := make([]bool, revocations)
				for len(latencies) < revocations {
					<-ticks.C
					for i := range secrets {
						if seen[i] {
							continue
						}
						got, err := there.Verifier().Verify(context.Background(), secrets[i].Reveal(), time.Now())
						if err != nil {
							watched <- err
							return
						}
						at := revoked[i].Load()
						if got.Record.Key.RevokedAt.IsZero() {
							if age := time.Since(began) - time.Duration(at); at != 0 && age > time.Minute {
								watched <- errors.New("a revocation is unknown after a minute")
								return
							}
							continue
						}
						seen[i] = true
						var latency time.Duration // seen before Revoke returned, maybe
						if at != 0 {
							latency = time.Since(began) - time.Duration(at)
						}
						latencies = append(latencies, latency)
					}
				}
				watched <- nil
			}()
			pace := time.NewTicker(10 * time.Millisecond)
			defer pace.Stop()
			for i := range refs {
				<-pace.C
				require.NoError(t, here.Revoke(t.Context(), keys.Actor{}, refs[i]))
				revoked[i].Store(int64(time.Since(began)))
				if tt.wake != nil {
					select {
					case tt.wake <- struct{}{}:
					default:
					}
				}
			}
			require.NoError(t, <-watched)

			slices.Sort(latencies)
			t.Logf("%d revocations: p50 %v, p99 %v, max %v", revocations,
				latencies[revocations/2].Round(time.Millisecond/10),
				latencies[revocations*99/100].Round(time.Millisecond/10),
				latencies[revocations-1].Round(time.Millisecond/10))
			ttl := tt.cache.TTL
			if ttl == 0 {
				ttl = 5 * time.Second
			}
			// A busy machine may be late by so much, and is not wrong for it.
			const margin = time.Second
			require.LessOrEqual(t, latencies[revocations-1], ttl+margin)
		})
	}
}
