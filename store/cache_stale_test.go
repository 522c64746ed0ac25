package store_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/token"
)

const (
	staleTTL = 5 * time.Second
	staleMax = time.Minute
)

func newStaleVerifier(t *testing.T, f *fakeReader) (*store.Verifier, *store.Cache) {
	t.Helper()
	return newVerifier(t, f, &store.CacheOptions{TTL: staleTTL, ServeStale: staleMax})
}

// Threat model, "store down": with ServeStale, a decision cached from the store
// may be used up to that long after its TTL, and says so; without, or later, or
// where nothing is known, it is a failure (S76).
func TestServeStale(t *testing.T) {
	t.Parallel()
	change := func(c *store.Cache, kind store.ChangeKind) {
		_, d := number(1)
		c.Invalidate(store.Change{Kind: kind, Digest: d, Org: "org1", User: "user1"})
	}
	for _, tt := range []struct {
		name   string
		opts   store.CacheOptions
		age    time.Duration // at which the store is down
		before func(f *fakeReader, c *store.Cache)
		served bool
		stale  bool
		one    bool // only one of key and settings is not served
	}{
		{name: "within TTL", opts: store.CacheOptions{ServeStale: staleMax}, age: staleTTL, served: true},
		{name: "over TTL", opts: store.CacheOptions{ServeStale: staleMax}, age: staleTTL + 1, served: true, stale: true},
		{name: "at the end", opts: store.CacheOptions{ServeStale: staleMax}, age: staleTTL + staleMax, served: true, stale: true},
		{name: "over the end", opts: store.CacheOptions{ServeStale: staleMax}, age: staleTTL + staleMax + 1},
		{name: "not configured", age: staleTTL + 1},
		{
			name: "key invalidated", opts: store.CacheOptions{ServeStale: staleMax}, age: staleTTL + 1,
			before: func(_ *fakeReader, c *store.Cache) { change(c, store.ChangedKey) }, one: true,
		},
		{
			name: "user invalidated", opts: store.CacheOptions{ServeStale: staleMax}, age: staleTTL + 1,
			before: func(_ *fakeReader, c *store.Cache) { change(c, store.ChangedUser) }, one: true,
		},
		{
			name: "settings invalidated", opts: store.CacheOptions{ServeStale: staleMax}, age: staleTTL + 1,
			before: func(_ *fakeReader, c *store.Cache) { change(c, store.ChangedSettings) }, one: true,
		},
		{
			name: "invalidated within TTL", opts: store.CacheOptions{ServeStale: staleMax}, age: 1,
			before: func(_ *fakeReader, c *store.Cache) { change(c, store.ChangedAll) },
		},
		{
			name: "only settings fail", opts: store.CacheOptions{ServeStale: staleMax}, age: staleTTL + 1,
			before: func(f *fakeReader, _ *store.Cache) { f.setAfter(nil) }, served: true, stale: true,
		},
		{
			name: "only keys fail", opts: store.CacheOptions{ServeStale: staleMax}, age: staleTTL + 1,
			before: func(f *fakeReader, _ *store.Cache) { f.setAfterSettings(nil) }, served: true, stale: true,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFakeReader()
				v, c := newVerifier(t, f, &tt.opts)
				text, d := f.putNumber(1)
				got, err := v.Verify(t.Context(), text, time.Now())
				require.NoError(t, err)
				require.False(t, got.Stale)

				time.Sleep(tt.age)
				f.fail(errDown)
				if tt.before != nil {
					tt.before(f, c)
				}
				for range 3 {
					got, err = v.Verify(t.Context(), text, time.Now())
					_, lookupErr := c.Lookup(t.Context(), d)
					_, settingsErr := c.Settings(t.Context(), "org1")
					if !tt.served {
						require.ErrorIs(t, err, errDown)
						require.Equal(t, store.Verified{}, got)
						require.Equal(t, tt.one, lookupErr == nil || settingsErr == nil)
						continue
					}
					require.NoError(t, err)
					require.NoError(t, lookupErr)
					require.NoError(t, settingsErr)
					require.Equal(t, tt.stale, got.Stale)
					require.Equal(t, "user1", got.Record.User.ID)
				}
				synctest.Wait()
			})
		})
	}
}

// Unknown keys, and organizations of which nothing is known, fail while the store
// does.
func TestServeStaleKnowsNothingOfOthers(t *testing.T) {
	t.Parallel()
	f := newFakeReader()
	v, _ := newStaleVerifier(t, f)
	f.fail(errDown)
	text, _ := f.putNumber(1)
	for range 3 {
		_, err := v.Verify(t.Context(), text, epoch)
		require.ErrorIs(t, err, errDown)
		_, err = v.Settings(t.Context(), "org1", epoch)
		require.ErrorIs(t, err, errDown)
	}
}

// A key that the store does not find any more is not found, and not served.
func TestServeStaleIsNoAnswerToNotFound(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakeReader()
		v, _ := newStaleVerifier(t, f)
		text, d := f.putNumber(1)
		_, err := v.Verify(t.Context(), text, time.Now())
		require.NoError(t, err)
		f.drop(d)
		time.Sleep(staleTTL + 1)
		_, err = v.Verify(t.Context(), text, time.Now())
		require.ErrorIs(t, err, store.ErrNotFound)
		f.fail(errDown)
		_, err = v.Verify(t.Context(), text, time.Now().Add(2*time.Second))
		require.ErrorIs(t, err, errDown, "forgotten")
	})
}

// A caller who gives up on a slow store is not given an old answer: the store did
// not fail.
func TestServeStaleIsNoAnswerToImpatience(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakeReader()
		v, c := newStaleVerifier(t, f)
		text, d := f.putNumber(1)
		_, err := v.Verify(t.Context(), text, time.Now())
		require.NoError(t, err)
		time.Sleep(staleTTL + 1)
		f.setAfter(func(context.Context, token.Digest) error { time.Sleep(time.Second); return nil })
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, err = c.Lookup(ctx, d)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		got, err := v.Verify(t.Context(), text, time.Now())
		require.NoError(t, err)
		require.False(t, got.Stale)
	})
}

// While the store fails, only those wait that came before it was known; then it
// is asked once a second, in the background, and believed when it answers.
func TestServeStaleLeavesAFailingStoreAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakeReader()
		v, _ := newStaleVerifier(t, f)
		const keys = 20
		var texts [keys]string
		verify := func(i int) (stale bool) {
			got, err := v.Verify(t.Context(), texts[i], time.Now())
			require.NoError(t, err)
			return got.Stale
		}
		for i := range keys {
			r := record(i, "org", "user", "key")
			f.put(r)
			texts[i], _ = number(i)
			require.False(t, verify(i))
		}

		hang := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		f.setAfter(func(ctx context.Context, _ token.Digest) error { return hang(ctx) })
		f.setAfterSettings(func(ctx context.Context, _ string) error { return hang(ctx) })
		time.Sleep(staleTTL + 1)
		trips := f.allTrips()
		began := time.Now()
		var wg sync.WaitGroup
		for i := range keys {
			wg.Go(func() {
				got, err := v.Verify(t.Context(), texts[i], time.Now())
				check(t, err == nil && got.Stale, got, err)
			})
		}
		wg.Wait()
		require.Equal(t, 2*time.Second, time.Since(began), "LookupTimeout, once")
		require.Equal(t, keys, f.allTrips()-trips)

		// Ten seconds of requests, a hundred a second.
		trips = f.allTrips()
		for n := range 1000 {
			began := time.Now()
			require.True(t, verify(n%keys))
			require.Zero(t, time.Since(began), "nobody waits")
			time.Sleep(10 * time.Millisecond)
		}
		asked := f.allTrips() - trips
		require.LessOrEqual(t, asked, 11, "once a second")
		require.GreaterOrEqual(t, asked, 3, "and it was asked: a trip takes two")

		// It comes back.
		f.fail(nil)
		f.putSettings(&policy.Settings{Org: "org", RestrictUsers: true})
		time.Sleep(2 * time.Second)
		synctest.Wait()
		verify(0) // asks
		synctest.Wait()
		for i := range keys {
			require.False(t, verify(i))
		}
	})
}

// A clock that was set back does not lengthen the pause.
func TestServeStaleAsksAgainWhenTheClockWasSetBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakeReader()
		clk := newClock()
		v, _ := newVerifier(t, f, &store.CacheOptions{TTL: staleTTL, ServeStale: staleMax, Now: clk.now})
		text, d := f.putNumber(1)
		_, err := v.Verify(t.Context(), text, clk.now())
		require.NoError(t, err)
		f.fail(errDown)
		clk.advance(time.Minute)
		got, err := v.Verify(t.Context(), text, clk.now())
		require.NoError(t, err)
		require.True(t, got.Stale)

		trips := f.tripsOf(d)
		clk.advance(-50 * time.Second)
		got, err = v.Verify(t.Context(), text, clk.now())
		require.NoError(t, err)
		require.True(t, got.Stale)
		synctest.Wait()
		require.Equal(t, trips+1, f.tripsOf(d))
	})
}
