package store_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/token"
)

// An outage is what happens to reads that begin while it lasts.
type outage struct {
	over chan struct{}
	read func(ctx context.Context, over <-chan struct{}) error
}

func (o *outage) wait(ctx context.Context) error {
	select {
	case <-o.over:
		return nil
	default:
		return o.read(ctx, o.over)
	}
}

// outages are the failures of a store in the table of the package's
// documentation, with how long after it is back a request can fail, and how long
// one that may be served from what was known is.
var outages = []struct {
	name   string
	read   func(ctx context.Context, over <-chan struct{}) error
	answer bool          // reads are answered, if slowly
	failed time.Duration // the last failed request begins so long after the end at most
	stale  time.Duration // the same for one with a stale answer
}{
	{
		name: "down", stale: time.Second,
		read: func(context.Context, <-chan struct{}) error { return errDown },
	},
	{
		name: "slow", answer: true,
		read: func(ctx context.Context, _ <-chan struct{}) error { return take(ctx, 900*time.Millisecond) },
	},
	{
		name: "paused", stale: time.Second, // what was asked is answered when it goes on
		read: func(ctx context.Context, over <-chan struct{}) error {
			select {
			case <-over:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		},
	},
	{
		name: "restarted", stale: time.Second, // what was asked fails when it is back
		read: func(ctx context.Context, over <-chan struct{}) error {
			select {
			case <-over:
				return errDown
			case <-ctx.Done():
				return ctx.Err()
			}
		},
	},
	{
		name: "half-open", failed: 2 * time.Second, stale: 3 * time.Second, // what was asked is lost
		read: func(ctx context.Context, _ <-chan struct{}) error {
			<-ctx.Done()
			return ctx.Err()
		},
	},
	{
		name: "half-open and deaf", stale: time.Second, // and the Reader does not heed its context
		read: func(_ context.Context, over <-chan struct{}) error {
			<-over
			return errDown
		},
	},
}

// Item 6, S76, D13: the table in the documentation of the package. No request
// waits longer than LookupTimeout, whatever happens to the store; nobody is told
// that there is no such key; what is known is used for its TTL, then not at all or,
// with ServeStale, as stale; and the store is used again within a second of its
// return, or when the lookups that it has lost are given up.
func TestStoreFailures(t *testing.T) {
	t.Parallel()
	for _, o := range outages {
		for _, tt := range []struct {
			name        string
			stale, feed bool
		}{
			{name: "default"},
			{name: "feed", feed: true},
			{name: "stale", stale: true},
			{name: "stale and feed", stale: true, feed: true},
		} {
			t.Run(o.name+"/"+tt.name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					const ttl, timeout, lasts = 5 * time.Second, 2 * time.Second, 20 * time.Second
					f, feed := newFakeReader(), new(fakeFeed)
					opts := store.CacheOptions{}
					if tt.stale {
						opts.ServeStale = time.Minute
					}
					var v *store.Verifier
					if tt.feed {
						v, _ = newFollowing(t, f, feed, opts)
					} else {
						v, _ = newVerifier(t, f, &opts)
					}
					warm, warmDigest := f.putNumber(0)
					_, err := v.Verify(t.Context(), warm, time.Now())
					require.NoError(t, err)

					out := &outage{over: make(chan struct{}), read: o.read}
					f.setAfter(func(ctx context.Context, _ token.Digest) error { return out.wait(ctx) })
					f.setAfterSettings(func(ctx context.Context, _ string) error { return out.wait(ctx) })
					feed.hook(func(ctx context.Context, _ int64) error { return out.wait(ctx) }, nil)
					began := time.Now()
					end := began.Add(lasts)

					var mu sync.Mutex
					var lastFailed, lastStale, lastUnseen time.Duration // when they began, after the end
					served, stale, unseen := 0, 0, 0                    // while it lasts
					var wg sync.WaitGroup
					ask := func(text string, known bool) {
						asked := time.Now()
						got, err := v.Verify(t.Context(), text, asked)
						waited, age, after := time.Since(asked), asked.Sub(began), asked.Sub(end)
						mu.Lock()
						defer mu.Unlock()
						check(t, waited <= timeout, "waited", waited)
						check(t, !errors.Is(err, store.ErrNotFound), err)
						check(t, err == nil || !known || age > ttl-time.Second, "known, and failed at", age, err)
						check(t, !known || age > ttl-time.Second || waited == 0, "known, and waited for", waited)
						check(t, !got.Stale || tt.stale && age > ttl, "stale at", age)
						switch {
						case err != nil && after < 0 && !known:
						case err != nil && !known:
							lastUnseen = max(lastUnseen, after)
						case err != nil:
							lastFailed = max(lastFailed, after)
						case got.Stale:
							stale++
							lastStale = max(lastStale, after)
						case after >= -timeout: // answered when it was over, maybe
						case !known:
							unseen++
						case age > ttl:
							served++
						}
					}
					for i := 1; time.Since(end) < 6*time.Second; i++ {
						text, _ := f.putNumber(7*i + 1) // of an organization that was not seen either
						wg.Go(func() { ask(warm, true) })
						wg.Go(func() { ask(text, false) })
						time.Sleep(100 * time.Millisecond)
						if time.Now().Equal(end) {
							close(out.over)
						}
					}
					wg.Wait()

					require.LessOrEqual(t, lastFailed, o.failed)
					require.LessOrEqual(t, lastUnseen, o.failed)
					require.LessOrEqual(t, lastStale, o.stale+100*time.Millisecond)
					switch {
					case o.answer:
						require.Positive(t, served)
						require.Positive(t, unseen)
						require.Zero(t, stale)
					case tt.stale:
						require.Positive(t, stale)
						require.Zero(t, served)
						require.Zero(t, unseen)
						require.Zero(t, lastFailed)
					default:
						require.Zero(t, served+unseen)
					}
					trips := f.tripsOf(warmDigest)
					time.Sleep(time.Minute)
					synctest.Wait()
					got, err := v.Verify(t.Context(), warm, time.Now())
					require.NoError(t, err)
					require.False(t, got.Stale)
					if tt.feed {
						require.Equal(t, trips, f.tripsOf(warmDigest), "the feed is followed again")
					} else {
						require.Equal(t, trips+1, f.tripsOf(warmDigest))
					}
				})
			})
		}
	}
}

// A request that needs a key and then its settings, or digests under several
// peppers, or is looked up anew because of an invalidation, waits for LookupTimeout
// in all.
func TestOneRequestWaitsForLookupTimeoutInAll(t *testing.T) {
	t.Parallel()
	const timeout, slow = 2 * time.Second, 1500 * time.Millisecond
	for _, tt := range []struct {
		name  string
		opts  store.CacheOptions
		setup func(f *fakeReader, c *store.Cache)
	}{
		{name: "key and settings", setup: func(f *fakeReader, _ *store.Cache) {
			f.setAfterSettings(func(ctx context.Context, _ string) error { return take(ctx, slow) })
		}},
		{name: "settings never", setup: func(f *fakeReader, _ *store.Cache) {
			f.setAfterSettings(func(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() })
		}},
		{name: "invalidated", setup: func(f *fakeReader, c *store.Cache) {
			f.setAfter(func(ctx context.Context, d token.Digest) error {
				c.Invalidate(store.Change{Kind: store.ChangedKey, Digest: d})
				return take(ctx, slow)
			})
		}},
		{name: "nothing is left", setup: func(f *fakeReader, _ *store.Cache) {
			f.setAfter(func(ctx context.Context, _ token.Digest) error { return take(ctx, timeout-1) })
			f.setAfterSettings(func(ctx context.Context, _ string) error { return take(ctx, slow) })
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFakeReader()
				v, c := newVerifier(t, f, nil)
				text, _ := f.putNumber(1)
				f.setAfter(func(ctx context.Context, _ token.Digest) error { return take(ctx, slow) })
				tt.setup(f, c)
				began := time.Now()
				_, err := v.Verify(t.Context(), text, time.Now())
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.NotErrorIs(t, err, store.ErrNotFound)
				require.Equal(t, timeout, time.Since(began))
				f.fail(nil)
				time.Sleep(timeout)
				synctest.Wait()
				_, err = v.Verify(t.Context(), text, time.Now())
				require.NoError(t, err)
			})
		})
	}

	// The trips that it gave up are of use to the next.
	synctest.Test(t, func(t *testing.T) {
		f := newFakeReader()
		v, _ := newVerifier(t, f, nil)
		text, _ := f.putNumber(1)
		f.setAfter(func(ctx context.Context, _ token.Digest) error { return take(ctx, slow) })
		f.setAfterSettings(func(ctx context.Context, _ string) error { return take(ctx, slow) })
		_, err := v.Verify(t.Context(), text, time.Now())
		require.ErrorIs(t, err, context.DeadlineExceeded)
		began := time.Now()
		_, err = v.Verify(t.Context(), text, time.Now())
		require.NoError(t, err)
		require.Equal(t, time.Second, time.Since(began))
		require.Equal(t, 2, f.allTrips())
	})

	// With ServeStale an old answer takes the place of what takes too long.
	synctest.Test(t, func(t *testing.T) {
		f := newFakeReader()
		f.putSettings(&policy.Settings{Org: "org1", RestrictUsers: true})
		v, _ := newVerifier(t, f, &store.CacheOptions{ServeStale: time.Minute})
		text, _ := f.putNumber(1)
		_, err := v.Verify(t.Context(), text, time.Now())
		require.NoError(t, err)
		time.Sleep(6 * time.Second)
		f.setAfter(func(ctx context.Context, _ token.Digest) error { return take(ctx, slow) })
		f.setAfterSettings(func(ctx context.Context, _ string) error { return take(ctx, slow) })
		began := time.Now()
		got, err := v.Verify(t.Context(), text, time.Now())
		require.NoError(t, err)
		require.True(t, got.Stale)
		require.True(t, got.Settings.RestrictUsers)
		require.Equal(t, timeout, time.Since(began))
		synctest.Wait()
		time.Sleep(slow)
	})
}
