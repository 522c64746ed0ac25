package store_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/memstore"
	"github.com/keystile/keystile/token"
)

// A fakeFeed is a Feed whose changes, delays and failures a test sets. Its place
// is the number of changes before it.
type fakeFeed struct {
	mu      sync.Mutex
	changes []store.Change
	afters  []int64     // of the calls
	times   []time.Time // of the calls
	under   int         // calls under way
	most    int         // under way at once

	// before and after, if not nil, are called before and after a call has read its
	// answer; an error takes the place of the answer.
	before, after func(ctx context.Context, after int64) error
	// answer, if not nil, takes the place of the changes.
	answer func(after int64) ([]store.Change, int64)
}

func (f *fakeFeed) Changes(ctx context.Context, after int64) ([]store.Change, int64, error) {
	f.mu.Lock()
	f.afters = append(f.afters, after)
	f.times = append(f.times, time.Now())
	f.under++
	f.most = max(f.most, f.under)
	beforeHook, afterHook := f.before, f.after
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		f.under--
		f.mu.Unlock()
	}()
	if beforeHook != nil {
		if err := beforeHook(ctx, after); err != nil {
			return nil, 0, err
		}
	}
	changes, last := f.read(after)
	if afterHook != nil {
		if err := afterHook(ctx, after); err != nil {
			return nil, 0, err
		}
	}
	return changes, last, nil
}

func (f *fakeFeed) read(after int64) ([]store.Change, int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.answer != nil {
		return f.answer(after)
	}
	if after < 0 {
		return nil, int64(len(f.changes))
	}
	changes := f.changes[after:]
	changes = append([]store.Change(nil), changes[:min(len(changes), 1000)]...)
	return changes, after + int64(len(changes))
}

func (f *fakeFeed) add(changes ...store.Change) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.changes = append(f.changes, changes...)
}

// hook sets what is called before and after a call reads its answer.
func (f *fakeFeed) hook(before, after func(ctx context.Context, after int64) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.before, f.after = before, after
}

// fail makes every call fail with err; nil ends that.
func (f *fakeFeed) fail(err error) {
	if err == nil {
		f.hook(nil, nil)
		return
	}
	f.hook(func(context.Context, int64) error { return err }, nil)
}

func (f *fakeFeed) answers(answer func(after int64) ([]store.Change, int64)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer = answer
}

func (f *fakeFeed) calls() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.afters)
}

// lastAfter is the place that the last call asked for.
func (f *fakeFeed) lastAfter() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.afters[len(f.afters)-1]
}

// take returns after some time, or when ctx ends.
func take(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// errorList collects what a cache reports.
type errorList struct {
	mu   sync.Mutex
	errs []error
}

func (l *errorList) add(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.errs = append(l.errs, err)
}

func (l *errorList) all() []error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]error(nil), l.errs...)
}

// newFollowing returns a verifier whose cache follows feed until the test is over.
// It has polled for the first time.
func newFollowing(t *testing.T, r store.Reader, feed store.Feed, opts store.CacheOptions) (*store.Verifier, *store.Cache) {
	t.Helper()
	opts.Feed = feed
	v, c := newVerifier(t, r, &opts)
	t.Cleanup(c.Close)
	synctest.Wait()
	return v, c
}

// The rules of Feed's options.
func TestFeedOptions(t *testing.T) {
	t.Parallel()
	feed := new(fakeFeed)
	for _, tt := range []struct {
		name     string
		opts     store.CacheOptions
		fields   []string      // named in the error; none: no error
		interval time.Duration // between polls, at most
	}{
		{name: "defaults", opts: store.CacheOptions{Feed: feed}, interval: time.Second},
		{name: "short TTL", opts: store.CacheOptions{Feed: feed, TTL: time.Second}, interval: 500 * time.Millisecond},
		{name: "very short TTL", opts: store.CacheOptions{Feed: feed, TTL: time.Millisecond}, interval: time.Millisecond},
		{name: "shortest", opts: store.CacheOptions{Feed: feed, FeedInterval: time.Millisecond}, interval: time.Millisecond},
		{name: "longest", opts: store.CacheOptions{Feed: feed, FeedInterval: 5 * time.Second}, interval: 5 * time.Second},
		{name: "without TTL", opts: store.CacheOptions{Feed: feed, TTL: -1}, fields: []string{"Feed"}},
		{name: "a number without a unit", opts: store.CacheOptions{Feed: feed, FeedInterval: 1000}, fields: []string{"FeedInterval"}},
		{name: "negative", opts: store.CacheOptions{Feed: feed, FeedInterval: -1}, fields: []string{"FeedInterval"}},
		{name: "more than TTL", opts: store.CacheOptions{Feed: feed, FeedInterval: 6 * time.Second}, fields: []string{"FeedInterval"}},
		{name: "TTL below the least interval", opts: store.CacheOptions{Feed: feed, TTL: 1}, fields: []string{"FeedInterval"}},
		{
			name: "no feed", fields: []string{"FeedInterval", "FeedWake", "FeedFailed"},
			opts: store.CacheOptions{FeedInterval: time.Second, FeedWake: make(chan struct{}), FeedFailed: func(error) {}},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				if len(tt.fields) > 0 {
					_, err := store.NewCache(newFakeReader(), &tt.opts)
					for _, field := range tt.fields {
						require.ErrorContains(t, err, "CacheOptions."+field+":")
					}
					synctest.Wait() // no goroutine is left: the bubble would not end
					return
				}
				feed := new(fakeFeed)
				newFollowing(t, newFakeReader(), feed, tt.opts)
				time.Sleep(10 * tt.interval)
				synctest.Wait()
				// The least pause between polls is that of wake-ups.
				pause := max(tt.interval, 5*time.Millisecond)
				if tt.interval < 5*time.Millisecond {
					pause = tt.interval
				}
				require.GreaterOrEqual(t, feed.calls(), int(10*tt.interval/pause))
				require.LessOrEqual(t, feed.calls(), 13)
			})
		})
	}
}

// Item 10 of the properties, S9: while polls succeed a node pays one trip in each
// interval however many keys it holds, and none for them.
func TestPollsRenewTheWholeCache(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const keys = 1000
		f, feed := newFakeReader(), new(fakeFeed)
		v, c := newFollowing(t, f, feed, store.CacheOptions{})
		var texts [keys]string
		for i := range texts {
			texts[i], _ = f.putNumber(i)
		}
		for range 60 {
			for _, text := range texts {
				got, err := v.Verify(t.Context(), text, time.Now())
				require.NoError(t, err)
				require.False(t, got.Stale)
			}
			_, err := v.Settings(t.Context(), "org of a JWT", time.Now())
			require.NoError(t, err)
			time.Sleep(time.Second)
		}
		require.Equal(t, keys+7+1, f.allTrips(), "each key and organization was read once")
		require.GreaterOrEqual(t, feed.calls(), 60)
		require.LessOrEqual(t, feed.calls(), 67, "a tenth earlier by chance")
		require.Equal(t, int64(0), feed.lastAfter())

		// Without polls it is a cache with a TTL, from the last poll on.
		c.Close()
		calls := feed.calls()
		feed.mu.Lock()
		renewed := feed.times[len(feed.times)-1]
		feed.mu.Unlock()
		_, err := v.Verify(t.Context(), texts[0], renewed.Add(5*time.Second))
		require.NoError(t, err)
		require.Equal(t, keys+8, f.allTrips())
		_, err = v.Verify(t.Context(), texts[0], renewed.Add(5*time.Second+1))
		require.NoError(t, err)
		require.Equal(t, keys+8+2, f.allTrips(), "the key and its settings")
		time.Sleep(time.Minute)
		require.Equal(t, calls, feed.calls())
	})
}

// S19, S33, S46: what a change names is looked up again after the next poll, and
// nothing else. A kind that is not known is everything.
func TestChangesInTheFeedInvalidate(t *testing.T) {
	t.Parallel()
	r := record(1, "org", "user", "key")
	const key, settings, notFound = 1, 2, 4
	_, unknown := number(2)
	for _, tt := range []struct {
		name    string
		changes []store.Change
		read    int // again
	}{
		{name: "nothing"},
		{name: "key", changes: []store.Change{keyChange(r)}, read: key},
		{name: "user", changes: []store.Change{{Kind: store.ChangedUser, Org: "org", User: "user"}}, read: key},
		{name: "settings", changes: []store.Change{{Kind: store.ChangedSettings, Org: "org"}}, read: settings},
		{name: "new key", changes: []store.Change{{Kind: store.ChangedKey, Digest: unknown}}, read: notFound},
		{name: "all", changes: []store.Change{{Kind: store.ChangedAll}}, read: key | settings | notFound},
		{name: "zero kind", changes: []store.Change{{}}, read: key | settings | notFound},
		{name: "unknown kind", changes: []store.Change{{Kind: 200, Org: "org"}}, read: key | settings | notFound},
		{
			name: "several", read: key | settings,
			changes: []store.Change{{Kind: store.ChangedSettings, Org: "org"}, keyChange(r)},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f, feed := newFakeReader(), new(fakeFeed)
				_, c := newFollowing(t, f, feed, store.CacheOptions{NegativeTTL: 5 * time.Second})
				f.put(r)
				look := func() {
					_, err := c.Lookup(t.Context(), r.Key.Digest)
					require.NoError(t, err)
					_, err = c.Settings(t.Context(), "org")
					require.NoError(t, err)
					_, err = c.Lookup(t.Context(), unknown)
					require.ErrorIs(t, err, store.ErrNotFound)
				}
				look()
				feed.add(tt.changes...)
				time.Sleep(time.Second)
				synctest.Wait()
				look()
				got := (f.tripsOf(r.Key.Digest)-1)*key + (f.tripsOfOrg("org")-1)*settings + (f.tripsOf(unknown)-1)*notFound
				require.Equal(t, tt.read, got)
				require.EqualValues(t, 0, feed.lastAfter())
				for range 4 { // the same change does not act again
					time.Sleep(time.Second)
					synctest.Wait()
				}
				require.EqualValues(t, len(tt.changes), feed.lastAfter())
				_, err := c.Lookup(t.Context(), r.Key.Digest)
				require.NoError(t, err)
				_, err = c.Settings(t.Context(), "org")
				require.NoError(t, err)
				again := (f.tripsOf(r.Key.Digest)-1)*key + (f.tripsOfOrg("org")-1)*settings
				require.Equal(t, tt.read&^notFound, again)
			})
		})
	}
}

// Item 3: of what was read before the first place was there nobody tells whether
// it had changed before that place. It is never renewed, but looked up again after
// its TTL. What was read from then on is renewed.
func TestAnswersFromBeforeTheFirstPlaceAreNotRenewed(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		read    bool // the call has read its place when the answer is read
		late    bool // the answer is read before the place is returned, and comes after it
		renewed bool // the answer is read when the place has been returned
	}{
		{name: "read before the place"},
		{name: "read before the place was returned", read: true},
		{name: "read before the place and kept after it", late: true},
		{name: "read before the place was returned and kept after it", read: true, late: true},
		{name: "read when the place had been returned", renewed: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				const ttl = 5 * time.Second
				f, feed := newFakeReader(), new(fakeFeed)
				_, d := f.putNumber(1)
				release := make(chan struct{})
				wait := func(context.Context, int64) error { <-release; return nil }
				if tt.read {
					feed.hook(nil, wait)
				} else {
					feed.hook(wait, nil)
				}
				_, c := newFollowing(t, f, feed, store.CacheOptions{TTL: ttl})
				if tt.renewed {
					close(release)
					synctest.Wait()
				}

				// The key and the settings are read...
				answer := make(chan struct{})
				if tt.late {
					f.setAfter(func(context.Context, token.Digest) error { <-answer; return nil })
					f.setAfterSettings(func(context.Context, string) error { <-answer; return nil })
				}
				began := time.Now()
				var wg sync.WaitGroup
				wg.Go(func() {
					r, err := c.Lookup(t.Context(), d)
					check(t, err == nil && r.Key.RevokedAt.IsZero(), r, err)
				})
				wg.Go(func() {
					s, err := c.Settings(t.Context(), "org1")
					check(t, err == nil && !s.RestrictUsers, s, err)
				})
				synctest.Wait()

				// ... then changed, and a place is returned that may lie after the change.
				if !tt.renewed {
					revoked := record(1, "org1", "user1", "key")
					revoked.Key.RevokedAt = epoch
					f.put(revoked)
					f.putSettings(&policy.Settings{Org: "org1", RestrictUsers: true})
					if !tt.read {
						feed.add(keyChange(revoked), store.Change{Kind: store.ChangedSettings, Org: "org1"})
					}
					close(release)
					synctest.Wait()
				}
				feed.hook(nil, nil)
				close(answer)
				wg.Wait()
				f.fail(nil)
				require.Equal(t, 2, f.allTrips())

				// Polls succeed. At the end of its time the answer is as it was.
				time.Sleep(time.Until(began.Add(ttl)))
				_, err := c.Lookup(t.Context(), d)
				require.NoError(t, err)
				_, err = c.Settings(t.Context(), "org1")
				require.NoError(t, err)
				require.Equal(t, 2, f.allTrips())
				require.GreaterOrEqual(t, feed.calls(), 5)

				// Then it is looked up again, once.
				time.Sleep(time.Nanosecond)
				for range 10 {
					r, err := c.Lookup(t.Context(), d)
					require.NoError(t, err)
					require.Equal(t, tt.renewed, r.Key.RevokedAt.IsZero())
					s, err := c.Settings(t.Context(), "org1")
					require.NoError(t, err)
					require.Equal(t, tt.renewed, !s.RestrictUsers)
					time.Sleep(time.Second)
				}
				want := 4
				if tt.renewed {
					want = 2
				}
				require.Equal(t, want, f.allTrips())
			})
		})
	}
}

// A node is a cache with a feed over a store that it shares with others. What it
// has read can be held back.
type node struct {
	*memstore.Store
	v *store.Verifier
	c *store.Cache

	mu         sync.Mutex
	read, poll chan struct{} // not nil: answers wait, until it is closed
}

func (n *node) hold(gate *chan struct{}) (release func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	ch := make(chan struct{})
	*gate = ch
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		*gate = nil
		close(ch)
	}
}

func (n *node) wait(gate *chan struct{}) {
	n.mu.Lock()
	ch := *gate
	n.mu.Unlock()
	if ch != nil {
		<-ch
	}
}

func (n *node) Lookup(ctx context.Context, d token.Digest) (*store.Record, error) {
	defer n.wait(&n.read)
	return n.Store.Lookup(ctx, d)
}

func (n *node) Settings(ctx context.Context, org string) (*policy.Settings, error) {
	defer n.wait(&n.read)
	return n.Store.Settings(ctx, org)
}

func (n *node) Changes(ctx context.Context, after int64) ([]store.Change, int64, error) {
	defer n.wait(&n.poll)
	return n.Store.Changes(ctx, after)
}

func newNode(t *testing.T, s *memstore.Store) *node {
	n := &node{Store: s}
	n.v, n.c = newFollowing(t, n, n, store.CacheOptions{})
	return n
}

// Item 3, S19, S33, S46, F46, F47: "read before the revocation, cached after it",
// across nodes. Whatever the order of a node's read, its answer and a poll around
// a write of another node: once a poll that began after the write has returned,
// and so within the interval, nobody is given what was before.
func TestReadBeforeAWriteElsewhereAndCachedAfterIt(t *testing.T) {
	t.Parallel()
	const interval = time.Second
	writes := []struct {
		name   string
		write  func(ctx context.Context, s *memstore.Store, k store.Key, u store.User) (store.Change, error)
		before func(store.Verified) bool
	}{
		{
			name: "key revoked",
			write: func(ctx context.Context, s *memstore.Store, k store.Key, _ store.User) (store.Change, error) {
				k.RevokedAt = epoch
				return store.Change{Kind: store.ChangedKey, Digest: k.Digest, Org: k.Org, User: k.User}, s.UpdateKey(ctx, &k)
			},
			before: func(v store.Verified) bool { return v.Record.Key.RevokedAt.IsZero() },
		},
		{
			name: "user suspended",
			write: func(ctx context.Context, s *memstore.Store, _ store.Key, u store.User) (store.Change, error) {
				u.SuspendedAt = epoch
				return store.Change{Kind: store.ChangedUser, Org: u.Org, User: u.ID}, s.PutUser(ctx, &u)
			},
			before: func(v store.Verified) bool { return v.Record.User.SuspendedAt.IsZero() },
		},
		{
			name: "users restricted",
			write: func(ctx context.Context, s *memstore.Store, k store.Key, _ store.User) (store.Change, error) {
				set := &policy.Settings{Org: k.Org, RestrictUsers: true}
				return store.Change{Kind: store.ChangedSettings, Org: k.Org}, s.UpdateSettings(ctx, set)
			},
			before: func(v store.Verified) bool { return !v.Settings.RestrictUsers },
		},
	}
	orders := []struct {
		name string
		run  func(b *node, write, verify, poll func())
	}{
		{"read, write, poll, answer", func(b *node, write, verify, poll func()) {
			release := b.hold(&b.read)
			go verify()
			synctest.Wait()
			write()
			poll()
			release()
		}},
		{"read, write, answer, poll", func(b *node, write, verify, _ func()) {
			release := b.hold(&b.read)
			go verify()
			synctest.Wait()
			write()
			release()
			synctest.Wait()
			verify()
		}},
		{"read, answer, write, poll", func(_ *node, write, verify, _ func()) {
			verify()
			write()
		}},
		{"read, poll reads, write, answer, poll answers", func(b *node, write, verify, poll func()) {
			releaseRead := b.hold(&b.read)
			go verify()
			releasePoll := b.hold(&b.poll)
			poll() // the poll has read that there is nothing
			write()
			releaseRead()
			synctest.Wait()
			releasePoll()
			synctest.Wait()
			verify()
		}},
		{"poll reads, read, write, poll answers, answer", func(b *node, write, verify, poll func()) {
			releasePoll := b.hold(&b.poll)
			poll()
			releaseRead := b.hold(&b.read)
			go verify()
			synctest.Wait()
			write()
			releasePoll()
			synctest.Wait()
			releaseRead()
		}},
		{"write, poll reads, read, poll answers, answer", func(b *node, write, verify, poll func()) {
			write()
			releasePoll := b.hold(&b.poll)
			poll()
			releaseRead := b.hold(&b.read)
			go verify()
			synctest.Wait()
			releasePoll()
			synctest.Wait()
			releaseRead()
		}},
		{"read, write, poll reads, answer, poll answers", func(b *node, write, verify, poll func()) {
			releaseRead := b.hold(&b.read)
			go verify()
			synctest.Wait()
			write()
			releasePoll := b.hold(&b.poll)
			poll()
			releaseRead()
			synctest.Wait()
			releasePoll()
		}},
	}
	for _, w := range writes {
		for _, o := range orders {
			t.Run(w.name+"/"+o.name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					s := memstore.New()
					r := record(1, "org", "user", "key")
					text, _ := number(1)
					u := *r.User
					u.Version = 0
					require.NoError(t, s.PutUser(t.Context(), &u))
					u.Version = 1
					require.NoError(t, s.InsertKey(t.Context(), r.Key, nil, -1))
					a, b := newNode(t, s), newNode(t, s)
					verify := func() {
						_, err := b.v.Verify(t.Context(), text, time.Now())
						check(t, err == nil, err)
					}
					var written time.Time
					o.run(b, func() {
						_, err := a.v.Verify(t.Context(), text, time.Now())
						require.NoError(t, err)
						change, err := w.write(t.Context(), s, *r.Key, u)
						require.NoError(t, err)
						a.c.Invalidate(change)
						got, err := a.v.Verify(t.Context(), text, time.Now())
						require.NoError(t, err)
						require.False(t, w.before(got), "at once where it is written")
						written = time.Now()
					}, verify, func() { time.Sleep(interval); synctest.Wait() })
					// Unless the poll was held back there is one within the interval.
					time.Sleep(max(0, time.Until(written.Add(interval))))
					synctest.Wait()
					for range 20 {
						got, err := b.v.Verify(t.Context(), text, time.Now())
						require.NoError(t, err)
						require.False(t, w.before(got), "elsewhere within the interval")
						time.Sleep(interval / 2)
					}
				})
			})
		}
	}
}

// A poll renews only after it has invalidated: nobody is given an answer that is
// over its TTL and was revoked, however closely he looks.
func TestRenewalComesAfterInvalidation(t *testing.T) {
	t.Parallel()
	const rounds = 100
	const ttl = 5 * time.Second
	f, feed := newFakeReader(), new(fakeFeed)
	clk := newClock()
	c := newCache(t, f, &store.CacheOptions{TTL: ttl, Now: clk.now, Feed: feed, FeedInterval: time.Millisecond})
	t.Cleanup(c.Close)
	// polled returns when a poll has begun and ended from now on.
	polled := func() {
		for n := feed.calls(); feed.calls() < n+2; {
			runtime.Gosched()
		}
	}
	polled()
	others := make([]store.Change, 998)
	for i := range others {
		others[i] = store.Change{Kind: store.ChangedUser, Org: "elsewhere", User: fmt.Sprint(i)}
	}
	var late atomic.Int64
	for i := range rounds {
		f.fail(nil)
		_, d := f.putNumber(i)
		_, err := c.Lookup(t.Context(), d)
		require.NoError(t, err)

		feed.hook(func(context.Context, int64) error { return errDown }, nil)
		polled()
		clk.advance(time.Minute) // an outage, in which the key is revoked
		f.fail(errDown)          // so that only a poll can make the answer good again
		var stop atomic.Bool
		var wg sync.WaitGroup
		wg.Go(func() {
			for !stop.Load() {
				if _, err := c.Lookup(context.Background(), d); err == nil {
					late.Add(1)
				}
			}
		})
		feed.add(others...)
		feed.add(keyChange(record(i, fmt.Sprintf("org%d", i%7), fmt.Sprintf("user%d", i), "key")))
		feed.hook(nil, nil)
		polled()
		stop.Store(true)
		wg.Wait()
	}
	require.Zero(t, late.Load())
}

// Only the page that reaches the end of the feed renews; those before it
// invalidate.
func TestPollsRenewOnlyAtTheEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const ttl = 5 * time.Second
		f, feed := newFakeReader(), new(fakeFeed)
		var errs errorList
		_, c := newFollowing(t, f, feed, store.CacheOptions{TTL: ttl, LookupTimeout: time.Minute, FeedFailed: errs.add})
		first, second := record(1, "org", "user1", "key"), record(2, "org", "user2", "key")
		f.put(first)
		f.put(second)
		look := func(r *store.Record) (trips int) {
			before := f.tripsOf(r.Key.Digest)
			_, err := c.Lookup(t.Context(), r.Key.Digest)
			require.NoError(t, err)
			return f.tripsOf(r.Key.Digest) - before
		}
		require.Equal(t, 1, look(first))
		require.Equal(t, 1, look(second))

		// Three pages: the first key is in the first, the second key in the last, which
		// takes longer than the TTL.
		feed.add(keyChange(first))
		for i := range 2300 {
			feed.add(store.Change{Kind: store.ChangedSettings, Org: fmt.Sprint(i)})
		}
		feed.add(keyChange(second))
		release := make(chan struct{})
		feed.hook(nil, func(_ context.Context, after int64) error {
			if after == 2000 {
				<-release
			}
			return nil
		})
		time.Sleep(time.Second)
		synctest.Wait()
		require.EqualValues(t, 2000, feed.lastAfter(), "the pages follow each other at once")
		require.Equal(t, 1, look(first), "invalidated by the first page")
		require.Zero(t, look(second))
		time.Sleep(ttl)
		require.Equal(t, 1, look(second), "not renewed by pages before the last")
		close(release)
		synctest.Wait()
		require.Equal(t, 1, look(second), "invalidated by the last page")
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Zero(t, look(first)+look(second), "renewed")
		require.Empty(t, errs.all())

		// A full page that is the last is followed by an empty one.
		feed.hook(nil, nil)
		for i := range 1000 {
			feed.add(store.Change{Kind: store.ChangedSettings, Org: fmt.Sprint(i)})
		}
		time.Sleep(time.Second)
		synctest.Wait()
		i := slices.Index(feed.afters, 3302)
		require.Positive(t, i)
		require.EqualValues(t, 2302, feed.afters[i-1])
		require.Equal(t, feed.times[i-1], feed.times[i], "at once")
	})
}

// The TTL is counted from the beginning of the call that found the end, and not of
// an earlier one or from when it returned.
func TestRenewalCountsFromTheBeginningOfTheLastCall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const ttl = 10 * time.Second
		f, feed := newFakeReader(), new(fakeFeed)
		_, c := newFollowing(t, f, feed, store.CacheOptions{TTL: ttl, LookupTimeout: time.Minute})
		_, d := f.putNumber(1)
		_, err := c.Lookup(t.Context(), d)
		require.NoError(t, err)
		for i := range 1001 {
			feed.add(store.Change{Kind: store.ChangedSettings, Org: fmt.Sprint(i)})
		}
		feed.hook(func(_ context.Context, after int64) error {
			if after == 1001 {
				return errDown
			}
			return nil
		}, func(context.Context, int64) error { time.Sleep(3 * time.Second); return nil })
		time.Sleep(8 * time.Second) // the second call has ended, and those after it fail
		synctest.Wait()
		feed.mu.Lock()
		began := feed.times[2]
		require.Equal(t, []int64{-1, 0, 1000, 1001}, feed.afters[:4])
		feed.mu.Unlock()

		time.Sleep(time.Until(began.Add(ttl)))
		_, err = c.Lookup(t.Context(), d)
		require.NoError(t, err)
		require.Equal(t, 1, f.allTrips())
		time.Sleep(time.Nanosecond)
		_, err = c.Lookup(t.Context(), d)
		require.NoError(t, err)
		require.Equal(t, 2, f.allTrips())
	})
}

// F47: the bound is the TTL even if no poll ever succeeds: nothing is renewed by an
// error, by a gap, or by a Feed that does not keep to its contract, and each of
// them is reported but for the gap. When it is over the cache goes on from its
// place, with everything that happened meanwhile.
func TestFailedPollsRenewNothing(t *testing.T) {
	t.Parallel()
	const ttl = 5 * time.Second
	other := store.Change{Kind: store.ChangedSettings, Org: "elsewhere"}
	fullPage := make([]store.Change, 1000)
	for i := range fullPage {
		fullPage[i] = other
	}
	errFeed := "place to go on from"
	for _, tt := range []struct {
		name   string
		hook   func(ctx context.Context, after int64) error
		answer func(after int64) ([]store.Change, int64)
		all    bool   // everything is invalidated by each poll
		err    string // reported; empty: nothing is
	}{
		{name: "error", hook: func(context.Context, int64) error { return errDown }, err: errDown.Error()},
		{name: "hang", hook: func(ctx context.Context, _ int64) error { <-ctx.Done(); return ctx.Err() }, err: "deadline exceeded"},
		{name: "panic", hook: func(context.Context, int64) error { panic("out of order") }, err: "out of order"},
		{name: "goexit", hook: func(context.Context, int64) error { runtime.Goexit(); return nil }, err: "did not return"},
		{
			name: "error after a page", err: errDown.Error(),
			answer: func(after int64) ([]store.Change, int64) { return fullPage, after + 1000 },
			hook: func(_ context.Context, after int64) error {
				if after%2000 != 0 {
					return errDown
				}
				return nil
			},
		},
		{
			name: "gap", all: true,
			answer: func(after int64) ([]store.Change, int64) { return []store.Change{{Kind: store.ChangedAll}}, after },
		},
		{
			name: "gap with more", all: true,
			answer: func(after int64) ([]store.Change, int64) {
				return []store.Change{{Kind: store.ChangedAll}, other}, after + 1
			},
		},
		{
			name: "gap in a full page", all: true,
			answer: func(after int64) ([]store.Change, int64) {
				return append([]store.Change{{Kind: store.ChangedAll}}, fullPage...), after + 1000
			},
		},
		{
			name: "gap to before the beginning", all: true, err: errFeed,
			answer: func(int64) ([]store.Change, int64) { return []store.Change{{Kind: store.ChangedAll}}, -1 },
		},
		{
			name: "unknown kind", all: true,
			answer: func(after int64) ([]store.Change, int64) { return []store.Change{{Kind: 77}}, after + 1 },
		},
		{
			name: "place goes back", err: errFeed,
			answer: func(after int64) ([]store.Change, int64) { return nil, after - 1 },
		},
		{
			name: "place goes back with changes", err: errFeed,
			answer: func(after int64) ([]store.Change, int64) { return []store.Change{other}, after - 1 },
		},
		{
			name: "place goes on without changes", err: errFeed,
			answer: func(after int64) ([]store.Change, int64) { return nil, after + 1 },
		},
		{
			name: "place stays with changes", err: errFeed,
			answer: func(after int64) ([]store.Change, int64) { return []store.Change{other}, after },
		},
		{
			name: "place stays with a full page", err: errFeed,
			answer: func(after int64) ([]store.Change, int64) { return fullPage, after },
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f, feed := newFakeReader(), new(fakeFeed)
				for range 5000 {
					feed.add(other)
				}
				var errs errorList
				_, c := newFollowing(t, f, feed, store.CacheOptions{TTL: ttl, FeedFailed: errs.add})
				_, d := f.putNumber(1)
				r := f.records[d]
				look := func() (trips int) {
					before := f.tripsOf(d)
					_, err := c.Lookup(t.Context(), d)
					require.NoError(t, err)
					return f.tripsOf(d) - before
				}
				require.Equal(t, 1, look())

				feed.hook(nil, tt.hook)
				feed.answers(tt.answer)
				trips, calls := 0, feed.calls()
				for range 300 { // a minute
					time.Sleep(200 * time.Millisecond)
					synctest.Wait()
					trips += look()
				}
				calls = feed.calls() - calls
				if tt.all {
					require.GreaterOrEqual(t, trips, 60, "at every poll")
					require.LessOrEqual(t, trips, 67)
				} else {
					require.Equal(t, 60/5-1, trips, "at every TTL")
				}
				require.LessOrEqual(t, calls, 2*67, "no loop")
				require.GreaterOrEqual(t, calls, 19, "polls go on")
				reported := errs.all()
				if tt.err == "" {
					require.Empty(t, reported)
				} else {
					require.GreaterOrEqual(t, len(reported), 19)
					for _, err := range reported {
						require.ErrorContains(t, err, "store: ")
						require.ErrorContains(t, err, tt.err)
					}
				}

				// The place is the one before, and everything since is seen.
				feed.hook(nil, nil)
				feed.answers(nil)
				feed.mu.Lock()
				for int64(len(feed.changes)) < feed.afters[len(feed.afters)-1]+1000 {
					feed.changes = append(feed.changes, other)
				}
				feed.mu.Unlock()
				feed.add(keyChange(r))
				time.Sleep(4 * time.Second)
				synctest.Wait()
				require.Equal(t, 1, look())
				time.Sleep(time.Minute)
				synctest.Wait()
				require.Zero(t, look(), "renewed again")
				require.Equal(t, reported, errs.all()[:len(reported)])
				require.LessOrEqual(t, len(errs.all()), len(reported)+2, "no error since")
			})
		})
	}
}

// After an outage of the feed, longer than any TTL, the place is known still: what
// has changed meanwhile is looked up, and what has not is renewed without a trip.
func TestChangesDuringAnOutageAreSeenAfterIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, feed := newFakeReader(), new(fakeFeed)
		v, _ := newFollowing(t, f, feed, store.CacheOptions{})
		text, _ := f.putNumber(1)
		other, _ := f.putNumber(2)
		verify := func(text string) {
			_, err := v.Verify(t.Context(), text, time.Now())
			require.NoError(t, err)
		}
		verify(text)
		verify(other)
		require.Equal(t, 4, f.allTrips())
		feed.fail(errDown)
		time.Sleep(time.Second)
		synctest.Wait()
		feed.add(keyChange(record(1, "org1", "user1", "key")))
		time.Sleep(time.Hour)
		feed.fail(nil)
		time.Sleep(time.Second)
		synctest.Wait()
		verify(other)
		require.Equal(t, 4, f.allTrips(), "found unchanged by the feed")
		verify(text)
		require.Equal(t, 5, f.allTrips())
	})
}

// The first poll, which finds the end of the feed, is made until it succeeds.
func TestFirstPollIsRepeated(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		fail func(feed *fakeFeed)
	}{
		{name: "error", fail: func(feed *fakeFeed) { feed.fail(errDown) }},
		{name: "no place", fail: func(feed *fakeFeed) {
			feed.answers(func(int64) ([]store.Change, int64) { return nil, -1 })
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f, feed := newFakeReader(), new(fakeFeed)
				feed.add(store.Change{Kind: store.ChangedAll})
				tt.fail(feed)
				var errs errorList
				_, c := newFollowing(t, f, feed, store.CacheOptions{FeedFailed: errs.add})
				_, d := f.putNumber(1)
				time.Sleep(10 * time.Second)
				synctest.Wait()
				require.GreaterOrEqual(t, len(errs.all()), 10)
				require.EqualValues(t, -1, feed.lastAfter())
				feed.fail(nil)
				feed.answers(nil)
				time.Sleep(time.Second)
				synctest.Wait()
				for range 100 {
					_, err := c.Lookup(t.Context(), d)
					require.NoError(t, err)
					time.Sleep(time.Second)
				}
				require.Equal(t, 1, f.allTrips())
				require.EqualValues(t, 1, feed.lastAfter())
			})
		})
	}
}

// Section 9 of the properties: a Feed that does not heed its context keeps one
// call, and neither the cache nor Close waits for it. When it returns polls go on.
func TestFeedThatDoesNotHeedItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, feed := newFakeReader(), new(fakeFeed)
		var errs errorList
		_, c := newFollowing(t, f, feed, store.CacheOptions{FeedFailed: errs.add})
		_, d := f.putNumber(1)
		release := make(chan struct{})
		feed.hook(func(context.Context, int64) error { <-release; return nil }, nil)
		for range 60 {
			began := time.Now()
			_, err := c.Lookup(t.Context(), d)
			require.NoError(t, err)
			require.Zero(t, time.Since(began))
			time.Sleep(time.Second)
		}
		require.Equal(t, 10, f.allTrips(), "at every sixth second")
		require.Equal(t, 2, feed.calls(), "the first, and the one that hangs")
		require.GreaterOrEqual(t, len(errs.all()), 19, "one in LookupTimeout and the interval")
		require.LessOrEqual(t, len(errs.all()), 22)
		for _, err := range errs.all() {
			require.ErrorIs(t, err, context.DeadlineExceeded)
		}
		feed.hook(nil, nil)
		close(release)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		trips, reported := f.allTrips(), len(errs.all())
		for range 60 {
			_, err := c.Lookup(t.Context(), d)
			require.NoError(t, err)
			time.Sleep(time.Second)
		}
		require.LessOrEqual(t, f.allTrips(), trips+1)
		require.Len(t, errs.all(), reported)

		release = make(chan struct{})
		feed.hook(func(context.Context, int64) error { <-release; return nil }, nil)
		time.Sleep(time.Second)
		synctest.Wait()
		began := time.Now()
		c.Close()
		require.Zero(t, time.Since(began))
		close(release)
		require.Equal(t, 1, feed.most, "never two calls at once")
	})
}

// Close ends the polls at once, whatever they wait for; nothing is reported or
// renewed from then on. It can be called again, by several, and without a feed.
func TestClose(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		hook func(ctx context.Context, after int64) error
		wait time.Duration
	}{
		{name: "in the first call", hook: func(ctx context.Context, _ int64) error { <-ctx.Done(); return ctx.Err() }},
		{name: "after a poll", wait: time.Millisecond},
		{name: "between polls", wait: 500 * time.Millisecond},
		{
			name: "in a call", wait: time.Second,
			hook: func(ctx context.Context, after int64) error {
				if after < 0 {
					return nil
				}
				<-ctx.Done()
				return ctx.Err()
			},
		},
		{name: "after a failure", hook: func(context.Context, int64) error { return errDown }, wait: 500 * time.Millisecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f, feed := newFakeReader(), new(fakeFeed)
				feed.hook(tt.hook, nil)
				var errs errorList
				_, c := newFollowing(t, f, feed, store.CacheOptions{FeedFailed: errs.add})
				time.Sleep(tt.wait)
				synctest.Wait()
				calls, reported := feed.calls(), len(errs.all())
				began := time.Now()
				var wg sync.WaitGroup
				for range 3 {
					wg.Go(c.Close)
				}
				wg.Wait()
				c.Close()
				require.Zero(t, time.Since(began))
				time.Sleep(time.Minute)
				require.Equal(t, calls, feed.calls())
				require.Len(t, errs.all(), reported, "to be closed is no failure")
				_, d := f.putNumber(1)
				_, err := c.Lookup(t.Context(), d)
				require.NoError(t, err)
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		feed := new(fakeFeed)
		feed.fail(errDown)
		release := make(chan struct{})
		_, c := newFollowing(t, newFakeReader(), feed, store.CacheOptions{FeedFailed: func(error) { <-release }})
		closed := make(chan struct{})
		go func() { c.Close(); close(closed) }()
		synctest.Wait()
		select {
		case <-closed:
			require.Fail(t, "FeedFailed is running still")
		default:
		}
		close(release)
		<-closed
	})
	var c *store.Cache
	c.Close()
	new(store.Cache).Close()
	newCache(t, newFakeReader(), nil).Close()
}

// Item 3: a wake-up makes the cache poll at once; many share polls; one that comes
// during a poll is not lost; one that is lost costs the interval; a closed channel
// wakes nobody.
func TestFeedWake(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, feed := newFakeReader(), new(fakeFeed)
		wake := make(chan struct{}, 1)
		_, c := newFollowing(t, f, feed, store.CacheOptions{FeedWake: wake})
		r := record(1, "org", "user", "key")
		f.put(r)
		look := func() (trips int) {
			before := f.allTrips()
			_, err := c.Lookup(t.Context(), r.Key.Digest)
			require.NoError(t, err)
			return f.allTrips() - before
		}
		look()
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()

		feed.add(keyChange(r))
		wake <- struct{}{}
		synctest.Wait()
		require.Equal(t, 1, look(), "at once")

		// During the pause after a poll: at its end.
		feed.add(keyChange(r))
		wake <- struct{}{}
		synctest.Wait()
		require.Zero(t, look())
		time.Sleep(5 * time.Millisecond)
		synctest.Wait()
		require.Equal(t, 1, look(), "within 5 ms")

		// During a poll that has read already.
		time.Sleep(10 * time.Millisecond)
		release := make(chan struct{})
		feed.hook(nil, func(context.Context, int64) error { <-release; return nil })
		wake <- struct{}{}
		synctest.Wait()
		feed.hook(nil, nil)
		feed.add(keyChange(r))
		wake <- struct{}{}
		close(release)
		synctest.Wait()
		require.Zero(t, look())
		time.Sleep(5 * time.Millisecond)
		synctest.Wait()
		require.Equal(t, 1, look(), "not lost")

		// Ten seconds of changes, one in each millisecond.
		calls := feed.calls()
		for range 10_000 {
			select {
			case wake <- struct{}{}:
			default:
			}
			time.Sleep(time.Millisecond)
		}
		require.LessOrEqual(t, feed.calls()-calls, 2001)
		require.GreaterOrEqual(t, feed.calls()-calls, 1600)

		// Lost.
		time.Sleep(10 * time.Millisecond)
		synctest.Wait()
		look()
		feed.add(keyChange(r))
		time.Sleep(time.Second)
		synctest.Wait()
		require.Equal(t, 1, look())

		close(wake)
		calls = feed.calls()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		require.LessOrEqual(t, feed.calls()-calls, 12)
		require.GreaterOrEqual(t, feed.calls()-calls, 10)
	})
}

// Nodes that start, or fail, at the same time do not go on polling at the same
// time; and none waits longer than the interval.
func TestNodesDoNotPollInStep(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var feeds [3]*fakeFeed
		for i := range feeds {
			feeds[i] = new(fakeFeed)
			newFollowing(t, newFakeReader(), feeds[i], store.CacheOptions{})
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		together := make(map[time.Time]int)
		for _, feed := range feeds {
			for i, at := range feed.times {
				if i == 0 {
					continue
				}
				together[at]++
				gap := at.Sub(feed.times[i-1])
				require.LessOrEqual(t, gap, time.Second)
				require.Greater(t, gap, 900*time.Millisecond)
			}
		}
		require.Greater(t, len(together), 150, "of some 190 polls")
	})
}

// Absences are not renewed: that a digest was not found may be for the lack of
// its user's row, which no change of the key will tell of.
func TestAbsencesAreNotRenewed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, feed := newFakeReader(), new(fakeFeed)
		_, c := newFollowing(t, f, feed, store.CacheOptions{NegativeTTL: 3 * time.Second})
		_, d := number(1)
		for range 60 {
			_, err := c.Lookup(t.Context(), d)
			require.ErrorIs(t, err, store.ErrNotFound)
			time.Sleep(time.Second)
		}
		require.Equal(t, 15, f.allTrips(), "at 0, 4, 8 seconds and so on")

		// A key that is made elsewhere is found after a poll.
		_, err := c.Lookup(t.Context(), d)
		require.ErrorIs(t, err, store.ErrNotFound)
		f.putNumber(1)
		feed.add(keyChange(record(1, "org1", "user1", "key")))
		time.Sleep(time.Second)
		synctest.Wait()
		_, err = c.Lookup(t.Context(), d)
		require.NoError(t, err)
	})
}

// ServeStale begins where the TTL of what was renewed ends, not that of what was
// read long ago; and ends for what the feed tells of.
func TestServeStaleCountsFromTheLastRenewal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, feed := newFakeReader(), new(fakeFeed)
		v, c := newFollowing(t, f, feed, store.CacheOptions{TTL: staleTTL, ServeStale: staleMax})
		text, _ := f.putNumber(1)
		_, err := v.Verify(t.Context(), text, time.Now())
		require.NoError(t, err)
		time.Sleep(time.Hour)
		synctest.Wait()

		f.fail(errDown)
		feed.fail(errDown)
		feed.mu.Lock()
		renewed := feed.times[len(feed.times)-1]
		feed.mu.Unlock()
		at := func(age time.Duration) (store.Verified, error) {
			time.Sleep(time.Until(renewed.Add(age)))
			defer synctest.Wait()
			return v.Verify(t.Context(), text, time.Now())
		}
		got, err := at(staleTTL)
		require.NoError(t, err)
		require.False(t, got.Stale)
		require.Equal(t, 2, f.allTrips())
		for _, age := range []time.Duration{staleTTL + 1, staleTTL + staleMax} {
			got, err = at(age)
			require.NoError(t, err)
			require.True(t, got.Stale)
		}
		_, err = at(staleTTL + staleMax + 1)
		require.ErrorIs(t, err, errDown)

		// The feed can be read again, and lookups cannot: what has not changed is good,
		// what has is not.
		other, _ := f.putNumber(2)
		f.fail(nil)
		_, err = v.Verify(t.Context(), other, time.Now())
		require.NoError(t, err)
		f.fail(errDown)
		feed.add(keyChange(record(2, "org2", "user2", "key")))
		feed.fail(nil)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		got, err = v.Verify(t.Context(), text, time.Now())
		require.NoError(t, err)
		require.False(t, got.Stale)
		_, err = v.Verify(t.Context(), other, time.Now())
		require.ErrorIs(t, err, errDown)
		c.Close()
	})
}

// A poll that fails says nothing of lookups: with ServeStale they are made, and
// their answers are not stale.
func TestFailedPollsAreNoFailedLookups(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, feed := newFakeReader(), new(fakeFeed)
		v, _ := newFollowing(t, f, feed, store.CacheOptions{TTL: staleTTL, ServeStale: staleMax})
		text, _ := f.putNumber(1)
		feed.fail(errDown)
		for range 60 {
			got, err := v.Verify(t.Context(), text, time.Now())
			require.NoError(t, err)
			require.False(t, got.Stale)
			time.Sleep(time.Second)
		}
	})
}

// A clock that is set back or ahead costs lookups until the next poll, and nothing
// is used for longer.
func TestRenewalByAClockThatIsSet(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		step time.Duration
	}{
		{name: "back", step: -time.Hour},
		{name: "ahead", step: time.Hour},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f, feed := newFakeReader(), new(fakeFeed)
				clk := newClock()
				v, _ := newFollowing(t, f, feed, store.CacheOptions{Now: clk.now})
				text, d := f.putNumber(1)
				other, otherDigest := f.putNumber(2)
				_, err := v.Verify(t.Context(), text, clk.now())
				require.NoError(t, err)
				_, err = v.Verify(t.Context(), other, clk.now())
				require.NoError(t, err)
				time.Sleep(time.Second)
				synctest.Wait()

				clk.advance(tt.step)
				_, err = v.Verify(t.Context(), text, clk.now())
				require.NoError(t, err)
				require.Equal(t, 2, f.tripsOf(d), "nobody knows how old it is")
				time.Sleep(time.Second)
				synctest.Wait()
				for _, text := range []string{text, other} {
					_, err = v.Verify(t.Context(), text, clk.now())
					require.NoError(t, err)
				}
				require.Equal(t, 2, f.tripsOf(d))
				require.Equal(t, 1, f.tripsOf(otherDigest), "renewed")
			})
		})
	}
}

// What this node has written comes back in the feed: it costs one lookup more, and
// no polls.
func TestOwnWritesInTheFeed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, feed := newFakeReader(), new(fakeFeed)
		v, c := newFollowing(t, f, feed, store.CacheOptions{})
		r := record(1, "org", "user", "key")
		text, d := number(1)
		f.put(r)
		verify := func() {
			_, err := v.Verify(t.Context(), text, time.Now())
			require.NoError(t, err)
		}
		verify()
		feed.add(keyChange(r))
		c.Invalidate(keyChange(r))
		calls := feed.calls()
		for range 3000 {
			verify()
			time.Sleep(10 * time.Millisecond)
		}
		require.Equal(t, 3, f.tripsOf(d))
		require.LessOrEqual(t, feed.calls()-calls, 34)
	})
}

// S33, F47: with random writes elsewhere, polls and lookups that take their time
// and, with odd seeds, fail at random, nobody is given what is out of date for
// longer than the TTL, nor, if polls succeed, for longer than the interval and a
// poll.
func TestRandomWritesElsewhere(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				failing := seed%2 == 1
				const (
					keys    = 5
					ttl     = 5 * time.Second
					slowest = 300 * time.Millisecond // half of a call of the feed
				)
				bound := time.Second + 2*slowest
				if failing {
					bound = ttl
				}
				rnd := rand.New(rand.NewPCG(seed, 1))
				var rndMu sync.Mutex
				chance := func(n int) bool { rndMu.Lock(); defer rndMu.Unlock(); return rnd.IntN(n) == 0 }
				upTo := func(d time.Duration) time.Duration {
					rndMu.Lock()
					defer rndMu.Unlock()
					return time.Duration(rnd.Int64N(int64(d)))
				}
				f, feed := newFakeReader(), new(fakeFeed)
				var down atomic.Bool // of the feed
				delay := func(ctx context.Context) error { return take(ctx, upTo(slowest)) }
				feed.hook(
					func(ctx context.Context, _ int64) error {
						if down.Load() || failing && chance(20) {
							return errDown
						}
						return delay(ctx)
					},
					func(ctx context.Context, _ int64) error { return delay(ctx) })
				var texts [keys]string
				var records [keys]*store.Record
				for i := range keys {
					texts[i], _ = number(i)
					records[i] = record(i, "org", fmt.Sprintf("user%d", i), "key")
					f.put(records[i])
				}
				f.setAfter(func(ctx context.Context, _ token.Digest) error {
					if failing && chance(20) {
						return errDown
					}
					return delay(ctx)
				})
				v, c := newFollowing(t, f, feed, store.CacheOptions{TTL: ttl})
				time.Sleep(2 * slowest) // the first poll has ended

				// written[i][n] is when version n+1 of key i took effect.
				var mu sync.Mutex
				var written [keys][]time.Time
				for i := range keys {
					written[i] = []time.Time{time.Now()}
				}
				ctx, stop := context.WithTimeout(t.Context(), 2*time.Minute)
				defer stop()
				var wg sync.WaitGroup
				wg.Go(func() { // another node, and outages of the feed
					for ctx.Err() == nil {
						time.Sleep(upTo(2 * time.Second))
						i := int(upTo(keys))
						mu.Lock()
						k := *records[i].Key
						k.Version++
						records[i] = store.NewRecord(&k, records[i].User)
						f.put(records[i])
						feed.add(keyChange(records[i]))
						written[i] = append(written[i], time.Now())
						mu.Unlock()
						if failing && chance(10) {
							down.Store(!down.Load())
						}
					}
				})
				var answers, outdated, beyond atomic.Int64
				for i := range keys {
					wg.Go(func() {
						for ctx.Err() == nil {
							time.Sleep(upTo(50 * time.Millisecond))
							asked := time.Now()
							got, err := v.Verify(context.Background(), texts[i], asked)
							if err != nil {
								continue
							}
							answers.Add(1)
							mu.Lock()
							if n := got.Record.Key.Version; int(n) < len(written[i]) {
								outdated.Add(1)
								if asked.Sub(written[i][n]) > bound {
									beyond.Add(1)
								}
							}
							mu.Unlock()
						}
					})
				}
				wg.Wait()
				c.Close()
				require.Zero(t, beyond.Load(), "out of date for longer than %v", bound)
				require.Positive(t, outdated.Load(), "the test would show nothing otherwise")
				require.Less(t, outdated.Load(), answers.Load())
			})
		})
	}
}

// The warm path reads one instant more for what was renewed, and allocates
// nothing.
func TestVerifyRenewedAllocations(t *testing.T) {
	if cacheRace {
		t.Skip("the race detector allocates")
	}
	v, text, now := renewedVerifier(t)
	allocs := testing.AllocsPerRun(1000, func() {
		if _, err := v.Verify(t.Context(), text, now); err != nil {
			t.Error(err)
		}
	})
	require.Zero(t, allocs)
}

// renewedVerifier returns a verifier, a token and a time at which the answer is
// good only because a poll has renewed it.
func renewedVerifier(tb testing.TB) (*store.Verifier, string, time.Time) {
	f, feed := newFakeReader(), new(fakeFeed)
	clk := newClock()
	v, c := newVerifier(tb, f, &store.CacheOptions{Now: clk.now, Feed: feed, FeedInterval: time.Millisecond})
	polled := func() {
		for n := feed.calls(); feed.calls() < n+2; {
			runtime.Gosched()
		}
	}
	polled()
	text, _ := f.putNumber(1)
	_, err := v.Verify(tb.Context(), text, clk.now())
	require.NoError(tb, err)
	clk.advance(time.Hour)
	polled()
	c.Close()
	_, err = v.Verify(tb.Context(), text, clk.now())
	require.NoError(tb, err)
	require.Equal(tb, 2, f.allTrips())
	return v, text, clk.now()
}

func BenchmarkVerifyRenewed(b *testing.B) {
	v, text, now := renewedVerifier(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Verify(b.Context(), text, now); err != nil {
			b.Fatal(err)
		}
	}
}
