package keys_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/keys"
	"github.com/keystile/keystile/store/memstore"
	"github.com/keystile/keystile/token"
)

// newNode returns the Manager of one of several processes that share a store.
func newNode(t *testing.T, s *memstore.Store, cache store.CacheOptions) *keys.Manager {
	t.Helper()
	m, err := keys.New(s, &keys.Options{Cache: &cache})
	require.NoError(t, err)
	t.Cleanup(m.Close)
	return m
}

// useAt decides about a request with secret at m.
func useAt(t *testing.T, m *keys.Manager, secret token.Token) policy.Reason {
	t.Helper()
	now := time.Now()
	v, err := m.Verifier().Verify(t.Context(), secret.Reveal(), now)
	require.NoError(t, err)
	return decide(v.Record, v.Settings, now)
}

// Item 10 of the properties, S19, S33, S46: what one process writes is known at
// the others after a poll of the feed, in any TTL, and after the TTL without one.
func TestWritesElsewhereAreKnownAfterAPoll(t *testing.T) {
	t.Parallel()
	acts := []struct {
		name string
		act  func(ctx context.Context, m *keys.Manager, k *store.Key) error
		want policy.Reason
	}{
		{"Revoke", func(ctx context.Context, m *keys.Manager, k *store.Key) error {
			return m.Revoke(ctx, owner, ref(k))
		}, policy.InvalidToken},
		{"Disable", func(ctx context.Context, m *keys.Manager, k *store.Key) error {
			_, err := m.Disable(ctx, owner, ref(k))
			return err
		}, policy.KeyDisabled},
		{"UpdateSettings", func(ctx context.Context, m *keys.Manager, _ *store.Key) error {
			_, err := m.UpdateSettings(ctx, owner, &policy.Settings{Org: org, RestrictUsers: true})
			return err
		}, policy.UserNotPermitted},
		{"Rotate", func(ctx context.Context, m *keys.Manager, k *store.Key) error {
			_, _, err := m.Rotate(ctx, keys.RotateParams{Ref: ref(k)})
			return err
		}, policy.InvalidToken},
	}
	for _, tt := range acts {
		for _, polls := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/polls=%t", tt.name, polls), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					const ttl = time.Minute
					s := memstore.New()
					cache, known := store.CacheOptions{TTL: ttl}, ttl+1
					if polls {
						cache.Feed, known = s, time.Second
					}
					a, b := newNode(t, s, cache), newNode(t, s, cache)
					synctest.Wait()
					require.NoError(t, a.PutUser(t.Context(), &store.User{Org: org, ID: "ada"}))
					secret, k, err := a.Create(t.Context(), params("ada"))
					require.NoError(t, err)
					for range 10 {
						require.Equal(t, admitted, useAt(t, a, secret))
						require.Equal(t, admitted, useAt(t, b, secret), "made on one node, known on another")
						time.Sleep(time.Second)
					}
					synctest.Wait()
					require.NoError(t, tt.act(t.Context(), a, k))
					require.Equal(t, tt.want, useAt(t, a, secret), "at once")
					require.Equal(t, admitted, useAt(t, b, secret), "the test would show nothing otherwise")
					time.Sleep(known)
					synctest.Wait()
					require.Equal(t, tt.want, useAt(t, b, secret))
				})
			})
		}
	}
}

// Close ends the polls and nothing else, and New leaves none behind when it fails.
func TestClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := memstore.New()
		feed := &countedFeed{Feed: s}
		m := newNode(t, s, store.CacheOptions{Feed: feed})
		time.Sleep(10 * time.Second)
		require.Greater(t, feed.calls.Load(), int64(9))
		m.Close()
		m.Close()
		calls := feed.calls.Load()
		time.Sleep(10 * time.Second)
		require.Equal(t, calls, feed.calls.Load())
		require.NoError(t, m.PutUser(t.Context(), &store.User{Org: org, ID: "ada"}))
		secret, _, err := m.Create(t.Context(), params("ada"))
		require.NoError(t, err)
		require.Equal(t, admitted, useAt(t, m, secret))

		_, err = keys.New(s, &keys.Options{MaxPerUser: -2, Cache: &store.CacheOptions{Feed: feed}})
		require.ErrorContains(t, err, "MaxPerUser")
		_, err = keys.New(s, &keys.Options{Cache: &store.CacheOptions{Feed: feed, FeedInterval: -1}})
		require.ErrorContains(t, err, "FeedInterval")
		time.Sleep(10 * time.Second) // a goroutine that is left would keep the bubble from ending
		require.LessOrEqual(t, feed.calls.Load(), calls+1)
	})
	b := setup(t, nil)
	b.Close()
}

// A countedFeed counts its calls.
type countedFeed struct {
	store.Feed
	calls atomic.Int64
}

func (f *countedFeed) Changes(ctx context.Context, after int64) ([]store.Change, int64, error) {
	f.calls.Add(1)
	return f.Feed.Changes(ctx, after)
}
