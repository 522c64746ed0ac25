package store_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/token"
)

// block makes every lookup of keys wait until the channel is closed, or until its
// context ends.
func (f *fakeReader) block() (release chan struct{}) {
	release = make(chan struct{})
	f.setAfter(func(ctx context.Context, _ token.Digest) error {
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	return release
}

func TestLookupsOfOneKeyAreJoined(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakeReader()
		v, _ := newVerifier(t, f, nil)
		text, d := f.putNumber(1)
		unknown, noDigest := number(2)
		release := f.block()
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				_, err := v.Verify(t.Context(), text, time.Now())
				check(t, err == nil, err)
			})
			wg.Go(func() {
				_, err := v.Verify(t.Context(), unknown, time.Now())
				check(t, errors.Is(err, store.ErrNotFound), err)
			})
		}
		synctest.Wait()
		close(release)
		wg.Wait()
		require.Equal(t, 1, f.tripsOf(d))
		require.Equal(t, 1, f.tripsOf(noDigest))
		require.Equal(t, 1, f.tripsOfOrg("org1"))
	})
}

// F50: the first caller's context fails the first caller, and nobody else.
func TestCallersGiveUpAlone(t *testing.T) {
	t.Parallel()
	type ctxKey struct{}
	for _, what := range []string{"key", "settings"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFakeReader()
				c := newCache(t, f, nil)
				_, d := f.putNumber(1)
				release := f.block()
				f.setAfterSettings(func(ctx context.Context, _ string) error { return f.after(ctx, d) })
				began := time.Now()
				var deadline time.Time
				var value any
				inner := f.after
				f.setAfter(func(ctx context.Context, d token.Digest) error {
					deadline, _ = ctx.Deadline()
					value = ctx.Value(ctxKey{})
					return inner(ctx, d)
				})
				ask := func(ctx context.Context) error {
					if what == "key" {
						_, err := c.Lookup(ctx, d)
						return err
					}
					_, err := c.Settings(ctx, "org1")
					return err
				}

				first, cancel := context.WithTimeout(context.WithValue(t.Context(), ctxKey{}, "trace"), time.Second)
				defer cancel()
				var wg sync.WaitGroup
				wg.Go(func() {
					err := ask(first)
					check(t, errors.Is(err, context.DeadlineExceeded), err)
					check(t, time.Since(began) == time.Second, "not at once")
				})
				synctest.Wait()
				for range 10 {
					wg.Go(func() { err := ask(t.Context()); check(t, err == nil, err) })
				}
				time.Sleep(1500 * time.Millisecond)
				require.ErrorIs(t, ask(first), context.DeadlineExceeded, "who has given up starts nothing")
				close(release)
				wg.Wait()
				require.Equal(t, 1, f.allTrips())
				require.Equal(t, began.Add(2*time.Second), deadline, "a context of its own, of LookupTimeout")
				require.Equal(t, "trace", value, "with the values of the first caller's")
				require.NoError(t, ask(first), "what is cached needs no context")
			})
		})
	}
}

func TestLookupTimeout(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		block func(ctx context.Context, release chan struct{}) error
	}{
		{name: "heeded", block: func(ctx context.Context, _ chan struct{}) error {
			<-ctx.Done()
			return ctx.Err()
		}},
		{name: "not heeded", block: func(_ context.Context, release chan struct{}) error {
			<-release
			return nil
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFakeReader()
				c := newCache(t, f, &store.CacheOptions{LookupTimeout: 300 * time.Millisecond})
				_, d := f.putNumber(1)
				release := make(chan struct{})
				f.setAfter(func(ctx context.Context, _ token.Digest) error { return tt.block(ctx, release) })
				f.setAfterSettings(func(ctx context.Context, _ string) error { return tt.block(ctx, release) })
				began := time.Now()
				var wg sync.WaitGroup
				for range 10 {
					wg.Go(func() {
						_, err := c.Lookup(t.Context(), d)
						check(t, errors.Is(err, context.DeadlineExceeded), err)
						check(t, !errors.Is(err, store.ErrNotFound), err)
						_, err = c.Settings(t.Context(), "org")
						check(t, errors.Is(err, context.DeadlineExceeded), err)
						check(t, time.Since(began) == 600*time.Millisecond, time.Since(began))
					})
				}
				wg.Wait()
				close(release)
				synctest.Wait()
				f.fail(nil)
				_, err := c.Lookup(t.Context(), d)
				require.NoError(t, err)
			})
		})
	}
}

// A Reader that panics, or ends its goroutine, is a failure for all who wait.
func TestReaderThatDoesNotReturn(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		stop func()
		want string
	}{
		{name: "panic", stop: func() { panic("out of order") }, want: "out of order"},
		{name: "nil panic", stop: func() { panic(nil) }, want: "panicked"},
		{name: "goexit", stop: runtime.Goexit, want: "did not return"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFakeReader()
				c := newCache(t, f, &store.CacheOptions{MaxLookups: 1})
				_, d := f.putNumber(1)
				release := make(chan struct{})
				f.setAfter(func(context.Context, token.Digest) error { <-release; tt.stop(); return nil })
				f.setAfterSettings(func(context.Context, string) error { <-release; tt.stop(); return nil })
				var wg sync.WaitGroup
				for range 5 {
					wg.Go(func() {
						_, err := c.Lookup(t.Context(), d)
						check(t, err != nil && strings.Contains(err.Error(), tt.want), err)
						check(t, !errors.Is(err, store.ErrNotFound), err)
					})
					wg.Go(func() {
						_, err := c.Settings(t.Context(), "org")
						check(t, err != nil && strings.Contains(err.Error(), tt.want), err)
					})
				}
				synctest.Wait()
				close(release)
				wg.Wait()
				f.fail(nil)
				_, err := c.Lookup(t.Context(), d)
				require.NoError(t, err, "its place is free again")
				_, err = c.Settings(t.Context(), "org")
				require.NoError(t, err, "its place is free again")
			})
		})
	}
}

// Section 9 of the properties: at most MaxLookups lookups of unseen digests are
// under way; beyond it they fail at once, and what is cached is unaffected.
func TestMaxLookups(t *testing.T) {
	t.Parallel()
	for _, places := range []int{0, 1, 7} {
		synctest.Test(t, func(t *testing.T) {
			f := newFakeReader()
			v, c := newVerifier(t, f, &store.CacheOptions{MaxLookups: places, LookupTimeout: time.Minute})
			if places == 0 {
				places = 64
			}
			warm, warmDigest := f.putNumber(0)
			_, err := v.Verify(t.Context(), warm, time.Now())
			require.NoError(t, err)
			trips := f.allTrips()

			release := f.block()
			var wg sync.WaitGroup
			for i := range places {
				for range 3 { // joined lookups need no places
					wg.Go(func() {
						_, err := c.Lookup(t.Context(), randomDigest(i))
						check(t, errors.Is(err, store.ErrNotFound), err)
					})
				}
			}
			synctest.Wait()
			require.Equal(t, places, f.allTrips()-trips)

			began := time.Now()
			for i := places; i < 200; i++ {
				_, err := c.Lookup(t.Context(), randomDigest(i))
				require.ErrorIs(t, err, store.ErrBusy)
				require.NotErrorIs(t, err, store.ErrNotFound, "nothing is known")
			}
			_, err = v.Verify(t.Context(), warm, time.Now())
			require.NoError(t, err, "cached")
			require.Equal(t, places, f.allTrips()-trips)

			// Known keys are renewed, and settings read, beside them.
			c.Invalidate(store.Change{Kind: store.ChangedAll})
			inner := f.after
			f.setAfter(func(ctx context.Context, d token.Digest) error {
				if d == warmDigest {
					return nil
				}
				return inner(ctx, d)
			})
			_, err = v.Verify(t.Context(), warm, time.Now())
			require.NoError(t, err, "known")
			require.Zero(t, time.Since(began))

			close(release)
			wg.Wait()
			_, err = c.Lookup(t.Context(), randomDigest(999))
			require.ErrorIs(t, err, store.ErrNotFound, "places are free again")
		})
	}
}

// Lookups that renew known keys wait for one of MaxLookups places of their own.
func TestKnownKeysWaitForPlaces(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const places, keys = 4, 10
		f := newFakeReader()
		v, c := newVerifier(t, f, &store.CacheOptions{MaxLookups: places, LookupTimeout: 2 * time.Second})
		var texts [keys]string
		for i := range keys {
			texts[i], _ = f.putNumber(i)
			_, err := v.Verify(t.Context(), texts[i], time.Now())
			require.NoError(t, err)
		}
		var mu sync.Mutex
		under, most := 0, 0
		f.setAfter(func(ctx context.Context, _ token.Digest) error {
			mu.Lock()
			under++
			most = max(most, under)
			mu.Unlock()
			defer func() { mu.Lock(); under--; mu.Unlock() }()
			select {
			case <-time.After(900 * time.Millisecond):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		for d := range f.trips {
			c.Invalidate(store.Change{Kind: store.ChangedKey, Digest: d})
		}
		began := time.Now()
		var served, late int
		var wg sync.WaitGroup
		for _, text := range texts {
			wg.Go(func() {
				_, err := v.Verify(t.Context(), text, began)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					served++
				case errors.Is(err, context.DeadlineExceeded):
					late++
				}
			})
		}
		wg.Wait()
		require.Equal(t, places, most)
		require.Equal(t, 2*places, served, "at 0.9 s and 1.8 s")
		require.Equal(t, keys-2*places, late, "over at 2 s")
		require.Equal(t, 2*time.Second, time.Since(began))
	})
}

// A place that never comes free is a failure after LookupTimeout.
func TestNoPlaceForAKnownKey(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakeReader()
		c := newCache(t, f, &store.CacheOptions{MaxLookups: 1})
		_, d := f.putNumber(1)
		_, err := c.Lookup(t.Context(), d)
		require.NoError(t, err)
		release := make(chan struct{})
		f.setAfterSettings(func(context.Context, string) error { <-release; return nil })
		go func() { _, _ = c.Settings(t.Context(), "org") }()
		synctest.Wait()

		c.Invalidate(store.Change{Kind: store.ChangedKey, Digest: d})
		began := time.Now()
		_, err = c.Lookup(t.Context(), d)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NotErrorIs(t, err, store.ErrNotFound)
		require.Equal(t, 2*time.Second, time.Since(began))
		require.Equal(t, 1, f.tripsOf(d), "the store was not asked")
		close(release)
		synctest.Wait()
		_, err = c.Lookup(t.Context(), d)
		require.NoError(t, err)
	})
}

// A brokenReader answers with what it is told to.
type brokenReader struct {
	record   *store.Record
	settings *policy.Settings
	err      error
	trips    int
}

func (b *brokenReader) Lookup(context.Context, token.Digest) (*store.Record, error) {
	b.trips++
	return b.record, b.err
}

func (b *brokenReader) Settings(context.Context, string) (*policy.Settings, error) {
	b.trips++
	return b.settings, b.err
}

// F51: an answer to another question is a failure, and is not kept. So is one
// that is not whole.
func TestWrongAnswersAreFailures(t *testing.T) {
	t.Parallel()
	_, d := number(1)
	_, other := number(2)
	change := func(f func(k *store.Key, u *store.User, p *policy.Principal)) *store.Record {
		r := record(1, "org", "user", "key")
		f(r.Key, r.User, r.Principal)
		return r
	}
	whole := record(1, "org", "user", "key")
	for _, tt := range []struct {
		name   string
		record *store.Record
		want   string
	}{
		{name: "nil", record: nil, want: "incomplete"},
		{name: "no key", record: &store.Record{User: whole.User, Principal: whole.Principal}, want: "incomplete"},
		{name: "no user", record: &store.Record{Key: whole.Key, Principal: whole.Principal}, want: "incomplete"},
		{name: "no principal", record: &store.Record{Key: whole.Key, User: whole.User}, want: "incomplete"},
		{name: "another key", record: record(2, "org", "user", "key"), want: "another digest"},
		{
			name: "one bit", want: "another digest",
			record: change(func(k *store.Key, _ *store.User, _ *policy.Principal) { k.Digest[31] ^= 1 }),
		},
		{
			name: "user of another organization", want: "more than one user",
			record: change(func(_ *store.Key, u *store.User, _ *policy.Principal) { u.Org = "org2" }),
		},
		{
			name: "another user", want: "more than one user",
			record: change(func(_ *store.Key, u *store.User, _ *policy.Principal) { u.ID = "user2" }),
		},
		{
			name: "principal of another organization", want: "more than one user",
			record: change(func(_ *store.Key, _ *store.User, p *policy.Principal) { p.Org = "org2" }),
		},
		{
			name: "principal of another user", want: "more than one user",
			record: change(func(_ *store.Key, _ *store.User, p *policy.Principal) { p.User = "user2" }),
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := &brokenReader{record: tt.record}
			c := newCache(t, b, nil)
			for range 2 {
				r, err := c.Lookup(t.Context(), d)
				require.Nil(t, r)
				require.ErrorContains(t, err, tt.want)
				require.NotErrorIs(t, err, store.ErrNotFound)
			}
			require.Equal(t, 2, b.trips, "nothing was kept")
			if tt.record != nil && tt.record.Key != nil && tt.record.Key.Digest == other {
				_, err := c.Lookup(t.Context(), other)
				require.NoError(t, err)
				require.Equal(t, 3, b.trips, "nothing was kept for that key either")
			}
		})
	}
	for _, tt := range []struct {
		name     string
		settings *policy.Settings
		err      error
		want     string
	}{
		{name: "nil settings", want: "none and no error"},
		{name: "settings of another organization", settings: &policy.Settings{Org: "org2"}, want: "another organization"},
		{name: "settings of none", settings: &policy.Settings{}, want: "another organization"},
		{name: "settings not found", err: store.ErrNotFound, want: "found none"},
		{name: "settings failed", err: errDown, want: "the store is down"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := &brokenReader{settings: tt.settings, err: tt.err}
			c := newCache(t, b, nil)
			for range 2 {
				s, err := c.Settings(t.Context(), "org")
				require.Nil(t, s)
				require.ErrorContains(t, err, tt.want)
				require.NotErrorIs(t, err, store.ErrNotFound, "settings are always found")
			}
			require.Equal(t, 2, b.trips, "nothing was kept")
		})
	}
}

// S76: a store that fails lets nobody in, and is no reason to forget that it
// failed: the next caller asks again.
func TestFailuresAreNotCached(t *testing.T) {
	t.Parallel()
	f := newFakeReader()
	clk := newClock()
	v, c := newVerifier(t, f, &store.CacheOptions{Now: clk.now})
	text, d := f.putNumber(1)
	f.fail(errDown)
	for i := range 3 {
		_, err := v.Verify(t.Context(), text, clk.now())
		require.ErrorIs(t, err, errDown)
		require.NotErrorIs(t, err, store.ErrNotFound)
		require.Equal(t, i+1, f.tripsOf(d))
	}
	f.setAfter(nil)
	_, err := v.Verify(t.Context(), text, clk.now())
	require.ErrorIs(t, err, errDown, "the settings are unknown")
	f.fail(nil)
	_, err = v.Verify(t.Context(), text, clk.now())
	require.NoError(t, err)

	// A known key whose time is over, or that was invalidated, is not let in either.
	f.fail(errDown)
	clk.advance(5*time.Second + 1)
	_, err = v.Verify(t.Context(), text, clk.now())
	require.ErrorIs(t, err, errDown)
	f.fail(nil)
	_, err = v.Verify(t.Context(), text, clk.now())
	require.NoError(t, err)
	f.fail(errDown)
	c.Invalidate(store.Change{Kind: store.ChangedAll})
	_, err = v.Verify(t.Context(), text, clk.now())
	require.ErrorIs(t, err, errDown)
}

// Errors contain neither a token nor a digest.
func TestCacheErrorsShowNoSecrets(t *testing.T) {
	t.Parallel()
	f := newFakeReader()
	v, _ := newVerifier(t, f, nil)
	text, d := number(1)
	for _, after := range []error{nil, errDown} {
		f.fail(after)
		_, err := v.Verify(t.Context(), text, time.Now())
		require.Error(t, err)
		require.False(t, strings.Contains(err.Error(), text[17:]) || strings.Contains(err.Error(), string(d[:4])))
	}
}
