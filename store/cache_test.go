package store_test

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/token"
)

var (
	errDown = errors.New("fake: the store is down")
	epoch   = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
)

// A fakeReader is a Reader whose answers, delays and failures a test sets. It
// counts the trips that reach it.
type fakeReader struct {
	mu       sync.Mutex
	records  map[token.Digest]*store.Record
	settings map[string]*policy.Settings
	trips    map[token.Digest]int
	orgTrips map[string]int
	total    int

	// after, if not nil, is called when a lookup has read its answer, before it
	// returns it; an error takes the place of the answer. afterSettings likewise.
	after         func(ctx context.Context, d token.Digest) error
	afterSettings func(ctx context.Context, org string) error
}

func newFakeReader() *fakeReader {
	return &fakeReader{
		records:  make(map[token.Digest]*store.Record),
		settings: make(map[string]*policy.Settings),
		trips:    make(map[token.Digest]int),
		orgTrips: make(map[string]int),
	}
}

func (f *fakeReader) Lookup(ctx context.Context, d token.Digest) (*store.Record, error) {
	f.mu.Lock()
	f.trips[d]++
	f.total++
	r, after := f.records[d], f.after
	f.mu.Unlock()
	if after != nil {
		if err := after(ctx, d); err != nil {
			return nil, err
		}
	}
	if r == nil {
		return nil, fmt.Errorf("fake: %w", store.ErrNotFound)
	}
	return r, nil
}

func (f *fakeReader) Settings(ctx context.Context, org string) (*policy.Settings, error) {
	f.mu.Lock()
	f.orgTrips[org]++
	f.total++
	s, after := f.settings[org], f.afterSettings
	f.mu.Unlock()
	if after != nil {
		if err := after(ctx, org); err != nil {
			return nil, err
		}
	}
	if s == nil {
		s = &policy.Settings{Org: org}
	}
	return s, nil
}

func (f *fakeReader) setAfter(after func(context.Context, token.Digest) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.after = after
}

func (f *fakeReader) setAfterSettings(after func(context.Context, string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.afterSettings = after
}

// fail makes every read fail with err; nil ends that.
func (f *fakeReader) fail(err error) {
	if err == nil {
		f.setAfter(nil)
		f.setAfterSettings(nil)
		return
	}
	f.setAfter(func(context.Context, token.Digest) error { return err })
	f.setAfterSettings(func(context.Context, string) error { return err })
}

func (f *fakeReader) put(r *store.Record) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.records[r.Key.Digest] = r
}

func (f *fakeReader) drop(d token.Digest) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.records, d)
}

func (f *fakeReader) putSettings(s *policy.Settings) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.settings[s.Org] = s
}

func (f *fakeReader) tripsOf(d token.Digest) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.trips[d]
}

func (f *fakeReader) tripsOfOrg(org string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.orgTrips[org]
}

func (f *fakeReader) allTrips() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.total
}

// number returns the text and the digest of a token that depends on i alone.
func number(i int) (string, token.Digest) {
	text := tokenText(i)
	var f token.Format
	d, err := f.Digest(text)
	if err != nil {
		panic(err)
	}
	return text, d
}

// record returns a record of key number i of a user with that name.
func record(i int, org, user, name string) *store.Record {
	text, d := number(i)
	return store.NewRecord(&store.Key{
		ID: text[:17], Digest: d, Org: org, User: user, Name: name,
		Scopes: []string{"read"}, CreatedAt: epoch, Family: text[:17], Version: 1,
	}, &store.User{Org: org, ID: user, Email: user, Tier: "Pro", Version: 1})
}

// putNumber puts key number i, of a user of its own, into the reader.
func (f *fakeReader) putNumber(i int) (text string, d token.Digest) {
	r := record(i, fmt.Sprintf("org%d", i%7), fmt.Sprintf("user%d", i), "key")
	f.put(r)
	text, d = number(i)
	return text, d
}

// A clock is set by hand.
type clock struct{ at atomic.Pointer[time.Time] }

func newClock() *clock {
	c := new(clock)
	c.set(epoch)
	return c
}

func (c *clock) now() time.Time          { return *c.at.Load() }
func (c *clock) set(t time.Time)         { c.at.Store(&t) }
func (c *clock) advance(d time.Duration) { c.set(c.now().Add(d)) }

// check is for goroutines other than that of the test, which must not end it.
func check(t testing.TB, ok bool, what ...any) {
	t.Helper()
	if !ok {
		t.Error(what...)
	}
}

func newCache(t testing.TB, r store.Reader, opts *store.CacheOptions) *store.Cache {
	t.Helper()
	c, err := store.NewCache(r, opts)
	require.NoError(t, err)
	return c
}

func newVerifier(t testing.TB, r store.Reader, opts *store.CacheOptions) (*store.Verifier, *store.Cache) {
	t.Helper()
	c := newCache(t, r, opts)
	v, err := store.NewVerifier(c, nil)
	require.NoError(t, err)
	return v, c
}

func keyChange(r *store.Record) store.Change {
	return store.Change{Kind: store.ChangedKey, Digest: r.Key.Digest, Org: r.Key.Org, User: r.Key.User}
}

func TestNewCacheReportsAllProblems(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		opts   *store.CacheOptions
		fields []string // named in the error; none: no error
	}{
		{name: "nil"},
		{name: "zero", opts: &store.CacheOptions{}},
		{name: "largest", opts: &store.CacheOptions{TTL: 5 * time.Minute, NegativeTTL: 5 * time.Minute, LookupTimeout: 5 * time.Minute, ServeStale: 24 * time.Hour}},
		{name: "not caching", opts: &store.CacheOptions{TTL: -1}},
		{name: "not caching at all", opts: &store.CacheOptions{TTL: math.MinInt64, NegativeTTL: math.MinInt64}},
		{name: "no negative cache", opts: &store.CacheOptions{NegativeTTL: -1}},
		{name: "TTL below the default NegativeTTL", opts: &store.CacheOptions{TTL: time.Millisecond}},
		{name: "TTL too long", opts: &store.CacheOptions{TTL: 5*time.Minute + 1}, fields: []string{"TTL"}},
		{name: "TTL overflow", opts: &store.CacheOptions{TTL: math.MaxInt64}, fields: []string{"TTL"}},
		{name: "NegativeTTL above TTL", opts: &store.CacheOptions{TTL: time.Second, NegativeTTL: time.Second + 1}, fields: []string{"NegativeTTL"}},
		{name: "NegativeTTL above the default TTL", opts: &store.CacheOptions{NegativeTTL: 6 * time.Second}, fields: []string{"NegativeTTL"}},
		{name: "NegativeTTL without TTL", opts: &store.CacheOptions{TTL: -1, NegativeTTL: 1}, fields: []string{"NegativeTTL"}},
		{name: "ServeStale without TTL", opts: &store.CacheOptions{TTL: -1, ServeStale: 1}, fields: []string{"ServeStale"}},
		{
			name:   "all negative",
			opts:   &store.CacheOptions{MaxKeys: -1, MaxLookups: -1, LookupTimeout: -1, ServeStale: -1},
			fields: []string{"MaxKeys", "MaxLookups", "LookupTimeout", "ServeStale"},
		},
		{
			name:   "all too large",
			opts:   &store.CacheOptions{TTL: time.Hour, NegativeTTL: 2 * time.Hour, LookupTimeout: time.Hour, ServeStale: 25 * time.Hour},
			fields: []string{"TTL", "NegativeTTL", "LookupTimeout", "ServeStale"},
		},
		{
			name:   "two of one field",
			opts:   &store.CacheOptions{TTL: -1, ServeStale: 25 * time.Hour},
			fields: []string{"ServeStale: more than 24 hours", "ServeStale: set while"},
		},
		{
			name:   "a feed without TTL",
			opts:   &store.CacheOptions{TTL: -1, Feed: new(fakeFeed), FeedInterval: 1},
			fields: []string{"Feed: set while", "FeedInterval: less than"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, err := store.NewCache(newFakeReader(), tt.opts)
			if len(tt.fields) == 0 {
				require.NoError(t, err)
				require.NotNil(t, c)
				return
			}
			require.Nil(t, c)
			for _, field := range tt.fields {
				require.ErrorContains(t, err, "CacheOptions."+field)
			}
			_, err = store.NewCache(nil, tt.opts)
			require.ErrorContains(t, err, "nil Reader", "with the others")
			require.ErrorContains(t, err, tt.fields[0])
		})
	}
	_, err := store.NewCache(nil, nil)
	require.ErrorContains(t, err, "nil Reader")
}

func TestZeroCacheFails(t *testing.T) {
	t.Parallel()
	for _, c := range []*store.Cache{nil, new(store.Cache)} {
		_, err := c.Lookup(t.Context(), token.Digest{})
		require.Error(t, err)
		require.NotErrorIs(t, err, store.ErrNotFound, "nothing is known")
		_, err = c.Settings(t.Context(), "org")
		require.Error(t, err)
		c.Invalidate(store.Change{Kind: store.ChangedAll})
		_, err = store.NewVerifier(c, nil)
		require.Error(t, err)
	}
}

// The record that a cache returns equals that of its Reader, whatever is shared.
func TestCacheReturnsEqualRecords(t *testing.T) {
	t.Parallel()
	f := newFakeReader()
	c := newCache(t, f, nil)

	full := record(1, "org", "user@example.com", "a name")
	full.Key.DisabledAt, full.Key.RevokedAt, full.Key.NotAfter = epoch, epoch.Add(1), epoch.Add(2)
	full.Key.Scopes = []string{"read", "write"}
	full.Key.DailyLimit = -1
	full.User.SuspendedAt = epoch
	full.User.Owner = true
	full = store.NewRecord(full.Key, full.User)

	rotated := record(2, "org", "user@example.com", "a name")
	rotated.Key.Family = full.Key.ID
	rotated.Key.Scopes = nil
	rotated = store.NewRecord(rotated.Key, rotated.User)

	own := record(3, "org", "user@example.com", "")
	own.Principal.Team, own.Principal.Tier, own.Principal.KeyID = "team", "another", "id"
	own.Principal.Scopes, own.Key.Scopes = []string{"else"}, []string{}

	renamed := record(4, "org", "user@example.com", "a name")
	renamed.User.Email = "new@example.com"
	renamed.User.Version = 2

	for i, r := range []*store.Record{full, rotated, own, renamed, full} {
		f.put(r)
		for range 2 {
			got, err := c.Lookup(t.Context(), r.Key.Digest)
			require.NoError(t, err, i)
			require.Equal(t, r, got, i)
		}
	}
	require.Equal(t, 4, f.allTrips())
}

func TestCacheKeepsAnswersForItsTTL(t *testing.T) {
	t.Parallel()
	const ttl, negativeTTL = 10 * time.Second, 3 * time.Second
	for _, tt := range []struct {
		name     string
		age      time.Duration
		found    bool // answered from the cache
		notFound bool
	}{
		{name: "at once", age: 0, found: true, notFound: true},
		{name: "NegativeTTL", age: negativeTTL, found: true, notFound: true},
		{name: "over NegativeTTL", age: negativeTTL + 1, found: true},
		{name: "TTL", age: ttl, found: true},
		{name: "over TTL", age: ttl + 1},
		{name: "long over TTL", age: math.MaxInt64},
		{name: "clocks read in another order", age: -time.Second, found: true, notFound: true},
		{name: "clock set back", age: -time.Second - 1},
		{name: "clock set far back", age: math.MinInt64},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := newFakeReader()
			clk := newClock()
			v, _ := newVerifier(t, f, &store.CacheOptions{TTL: ttl, NegativeTTL: negativeTTL, Now: clk.now})
			text, d := f.putNumber(1)
			unknown, noDigest := number(2)
			began := epoch.Add(time.Minute)
			verify := func(now time.Time) {
				_, err := v.Verify(t.Context(), text, now)
				require.NoError(t, err)
				_, err = v.Verify(t.Context(), unknown, now)
				require.ErrorIs(t, err, store.ErrNotFound)
			}
			trips := func(cached bool) int {
				if cached {
					return 1
				}
				return 2
			}
			verify(began)
			verify(began.Add(tt.age))
			require.Equal(t, trips(tt.found), f.tripsOf(d))
			require.Equal(t, trips(tt.found), f.tripsOfOrg("org1"))
			require.Equal(t, trips(tt.notFound), f.tripsOf(noDigest))
		})
	}
}

// F69: no instant is so far away that its age overflows.
func TestCacheTimesDoNotOverflow(t *testing.T) {
	t.Parallel()
	far := []time.Time{{}, time.Unix(math.MinInt64, 0), time.Unix(1<<62, 0), time.Unix(0, math.MaxInt64), epoch}
	for _, a := range far {
		for _, b := range far {
			f := newFakeReader()
			clk := newClock()
			v, _ := newVerifier(t, f, &store.CacheOptions{Now: clk.now, ServeStale: 24 * time.Hour})
			text, d := f.putNumber(1)
			_, err := v.Verify(t.Context(), text, a)
			require.NoError(t, err)
			_, err = v.Verify(t.Context(), text, b)
			require.NoError(t, err)
			cut := func(t time.Time) time.Duration {
				return min(max(t.Sub(epoch), -1<<62), 1<<62)
			}
			want := 2
			if cut(a) == cut(b) {
				want = 1
			}
			require.Equal(t, want, f.tripsOf(d), "%v, then %v", a, b)
		}
	}
}

// The TTL counts from the beginning of the read, since the answer may be as old
// as that.
func TestTTLCountsFromTheBeginningOfTheRead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakeReader()
		c := newCache(t, f, nil)
		_, d := f.putNumber(1)
		f.setAfter(func(context.Context, token.Digest) error { time.Sleep(1500 * time.Millisecond); return nil })
		f.setAfterSettings(func(context.Context, string) error { time.Sleep(1500 * time.Millisecond); return nil })
		began := time.Now()
		var wg sync.WaitGroup
		wg.Go(func() { _, err := c.Lookup(t.Context(), d); check(t, err == nil, err) })
		wg.Go(func() { _, err := c.Settings(t.Context(), "org1"); check(t, err == nil, err) })
		wg.Wait()

		time.Sleep(time.Until(began.Add(5 * time.Second)))
		_, err := c.Lookup(t.Context(), d)
		require.NoError(t, err)
		_, err = c.Settings(t.Context(), "org1")
		require.NoError(t, err)
		require.Equal(t, 2, f.allTrips())

		time.Sleep(time.Nanosecond)
		_, err = c.Lookup(t.Context(), d)
		require.NoError(t, err)
		_, err = c.Settings(t.Context(), "org1")
		require.NoError(t, err)
		require.Equal(t, 4, f.allTrips())
	})
}

func TestNegativeTTLCachesNothing(t *testing.T) {
	t.Parallel()
	f := newFakeReader()
	clk := newClock()
	v, c := newVerifier(t, f, &store.CacheOptions{TTL: -1, Now: clk.now})
	text, _ := f.putNumber(1)
	_, unknown := number(2)
	for i := range 3 {
		_, err := v.Verify(t.Context(), text, clk.now())
		require.NoError(t, err)
		_, err = c.Lookup(t.Context(), unknown)
		require.ErrorIs(t, err, store.ErrNotFound)
		require.Equal(t, 3*(i+1), f.allTrips())
		clk.advance(-time.Millisecond) // an answer from the future is none either
	}

	f = newFakeReader()
	c = newCache(t, f, &store.CacheOptions{NegativeTTL: -1})
	for i := range 3 {
		_, err := c.Lookup(t.Context(), unknown)
		require.ErrorIs(t, err, store.ErrNotFound)
		require.Equal(t, i+1, f.tripsOf(unknown))
	}
}

// S46, S33: what Invalidate names is asked for again, and nothing else.
func TestInvalidate(t *testing.T) {
	t.Parallel()
	r := record(1, "org", "user", "key")
	const key, settings, notFound = 1, 2, 4
	_, unknown := number(2)
	for _, tt := range []struct {
		name    string
		changes []store.Change
		renewed int
	}{
		{name: "nothing"},
		{name: "key", changes: []store.Change{keyChange(r)}, renewed: key},
		{name: "another key of the user", changes: []store.Change{keyChange(record(3, "org", "user", "key"))}},
		{name: "user", changes: []store.Change{{Kind: store.ChangedUser, Org: "org", User: "user"}}, renewed: key},
		{name: "another user", changes: []store.Change{{Kind: store.ChangedUser, Org: "org", User: "user2"}}},
		{name: "user of another organization", changes: []store.Change{{Kind: store.ChangedUser, Org: "org2", User: "user"}}},
		{name: "names that join to the same", changes: []store.Change{{Kind: store.ChangedUser, Org: "orgu", User: "ser"}}},
		{name: "settings", changes: []store.Change{{Kind: store.ChangedSettings, Org: "org"}}, renewed: settings},
		{name: "other settings", changes: []store.Change{{Kind: store.ChangedSettings, Org: "org2"}}},
		{name: "new key", changes: []store.Change{{Kind: store.ChangedKey, Digest: unknown}}, renewed: notFound},
		{name: "all", changes: []store.Change{{Kind: store.ChangedAll}}, renewed: key | settings | notFound},
		{name: "zero kind", changes: []store.Change{{}}, renewed: key | settings | notFound},
		{name: "unknown kind", changes: []store.Change{{Kind: 200, Org: "org2"}}, renewed: key | settings | notFound},
		{
			name:    "several",
			changes: []store.Change{{Kind: store.ChangedSettings, Org: "org"}, keyChange(r)},
			renewed: key | settings,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			// By a chance of one in thousands another user or organization has the same
			// slot, which is allowed; but not three times, since the hash has a seed.
			for attempt := 1; ; attempt++ {
				f := newFakeReader()
				c := newCache(t, f, nil)
				f.put(r)
				for range 2 {
					_, err := c.Lookup(t.Context(), r.Key.Digest)
					require.NoError(t, err)
					_, err = c.Settings(t.Context(), "org")
					require.NoError(t, err)
					_, err = c.Lookup(t.Context(), unknown)
					require.ErrorIs(t, err, store.ErrNotFound)
					if f.allTrips() == 3 {
						c.Invalidate(tt.changes...)
					}
				}
				got := (f.tripsOf(r.Key.Digest)-1)*key + (f.tripsOfOrg("org")-1)*settings + (f.tripsOf(unknown)-1)*notFound
				if got != tt.renewed && got&tt.renewed == tt.renewed && attempt < 3 {
					continue
				}
				require.Equal(t, tt.renewed, got)
				return
			}
		})
	}
}

// S33, F46: a revocation takes effect with the next lookup, also for the settings
// and the user that a verifier reads.
func TestInvalidateTakesEffectAtOnce(t *testing.T) {
	t.Parallel()
	f := newFakeReader()
	clk := newClock()
	v, c := newVerifier(t, f, &store.CacheOptions{Now: clk.now})
	r := record(1, "org", "user", "key")
	text, _ := number(1)
	f.put(r)
	verify := func() store.Verified {
		got, err := v.Verify(t.Context(), text, clk.now())
		require.NoError(t, err)
		require.False(t, got.Stale)
		return got
	}
	require.True(t, verify().Record.Key.RevokedAt.IsZero())

	k := *r.Key
	k.RevokedAt = epoch
	f.put(store.NewRecord(&k, r.User))
	require.True(t, verify().Record.Key.RevokedAt.IsZero(), "nobody was told")
	c.Invalidate(keyChange(r))
	require.False(t, verify().Record.Key.RevokedAt.IsZero())

	u := *r.User
	u.SuspendedAt = epoch
	f.put(store.NewRecord(&k, &u))
	c.Invalidate(store.Change{Kind: store.ChangedUser, Org: "org", User: "user"})
	require.False(t, verify().Record.User.SuspendedAt.IsZero())

	f.putSettings(&policy.Settings{Org: "org", RestrictUsers: true})
	c.Invalidate(store.Change{Kind: store.ChangedSettings, Org: "org"})
	require.True(t, verify().Settings.RestrictUsers)
}

// S19: an answer that was read before an invalidation, and comes after it, is
// given to nobody and not kept. Properties of section 10: a read that began before
// a revocation can never fill the cache after it.
func TestLookupsInFlightDoNotOutliveInvalidate(t *testing.T) {
	t.Parallel()
	r := record(1, "org", "user", "old")
	text, d := number(1)
	renamed := record(1, "org", "user", "new")
	for _, tt := range []struct {
		name   string
		before *store.Record // in the store before the change; nil: none
		after  *store.Record
		change store.Change
	}{
		{name: "key", before: r, after: renamed, change: keyChange(r)},
		{name: "user", before: r, after: renamed, change: store.Change{Kind: store.ChangedUser, Org: "org", User: "user"}},
		{name: "all", before: r, after: renamed, change: store.Change{Kind: store.ChangedAll}},
		{name: "inserted", after: renamed, change: keyChange(r)},
		{name: "purged", before: r, change: keyChange(r)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFakeReader()
				v, c := newVerifier(t, f, nil)
				if tt.before != nil {
					f.put(tt.before)
				}
				release := make(chan struct{})
				f.setAfter(func(context.Context, token.Digest) error { <-release; return nil })
				verify := func() {
					got, err := v.Verify(t.Context(), text, time.Now())
					if tt.after == nil {
						check(t, errors.Is(err, store.ErrNotFound), got, err)
						return
					}
					check(t, err == nil && got.Record.Key.Name == "new", got, err)
				}
				var wg sync.WaitGroup
				for range 10 {
					wg.Go(verify)
				}
				synctest.Wait() // all wait for an answer that was read
				f.setAfter(nil)
				if tt.after != nil {
					f.put(tt.after)
				} else {
					f.drop(d)
				}
				c.Invalidate(tt.change)

				if tt.change.Kind == store.ChangedUser {
					wg.Go(verify) // whose key it is will turn out when the answer comes
				} else {
					verify() // does not wait for an answer that will not hold
				}
				synctest.Wait()
				close(release)
				wg.Wait()
				trips := f.tripsOf(d)
				verify()
				require.Equal(t, trips, f.tripsOf(d), "the new answer was kept")
			})
		})
	}
}

// The same for settings: the new rule binds those who wait.
func TestSettingsInFlightDoNotOutliveInvalidate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakeReader()
		v, c := newVerifier(t, f, nil)
		text, _ := f.putNumber(1)
		release := make(chan struct{})
		f.setAfterSettings(func(context.Context, string) error { <-release; return nil })
		verify := func() {
			got, err := v.Verify(t.Context(), text, time.Now())
			check(t, err == nil && got.Settings.RestrictUsers, got, err)
		}
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(verify)
		}
		synctest.Wait()
		f.setAfterSettings(nil)
		f.putSettings(&policy.Settings{Org: "org1", RestrictUsers: true})
		c.Invalidate(store.Change{Kind: store.ChangedSettings, Org: "org1"})
		verify()
		close(release)
		wg.Wait()
		require.Equal(t, 2, f.tripsOfOrg("org1"))
		verify()
		require.Equal(t, 2, f.tripsOfOrg("org1"), "the new answer was kept")
	})
}

// A revocation while a verifier waits for the settings counts too.
func TestRevocationWhileSettingsAreRead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakeReader()
		v, c := newVerifier(t, f, nil)
		text, d := f.putNumber(1)
		f.setAfterSettings(func(context.Context, string) error {
			f.setAfterSettings(nil)
			f.drop(d)
			c.Invalidate(store.Change{Kind: store.ChangedKey, Digest: d})
			return nil
		})
		_, err := v.Verify(t.Context(), text, time.Now())
		require.ErrorIs(t, err, store.ErrNotFound)

		f.putNumber(1)
		f.setAfterSettings(func(context.Context, string) error {
			c.Invalidate(store.Change{Kind: store.ChangedAll})
			return nil
		})
		_, err = v.Verify(t.Context(), text, time.Now().Add(time.Minute))
		require.ErrorContains(t, err, "invalidated during every lookup")

		// With settings that take a trip each time.
		v, c = newVerifier(t, f, &store.CacheOptions{TTL: -1})
		f.setAfterSettings(func(context.Context, string) error {
			c.Invalidate(store.Change{Kind: store.ChangedKey, Digest: d})
			return nil
		})
		_, err = v.Verify(t.Context(), text, time.Now())
		require.ErrorContains(t, err, "invalidated during every lookup")
	})
}

// What changes during every lookup has no answer: a failure, and not an old one.
func TestLookupGivesUpOnWhatDoesNotSettle(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		change store.Change
	}{
		{name: "all", change: store.Change{Kind: store.ChangedAll}},
		{name: "user", change: store.Change{Kind: store.ChangedUser, Org: "org1", User: "user1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := newFakeReader()
			c := newCache(t, f, nil)
			_, d := f.putNumber(1)
			f.setAfter(func(context.Context, token.Digest) error { c.Invalidate(tt.change); return nil })
			_, err := c.Lookup(t.Context(), d)
			require.ErrorContains(t, err, "invalidated during every lookup")
			require.NotErrorIs(t, err, store.ErrNotFound)
			require.Equal(t, 3, f.tripsOf(d))
		})
	}
}

// A revoked key is never admitted after Revoke has returned: counted, with
// lookups in flight and a warm cache.
func TestNeverAdmittedAfterInvalidateReturned(t *testing.T) {
	t.Parallel()
	const keys = 4
	rounds := 2_000
	if cacheRace {
		rounds = 300
	}
	f := newFakeReader()
	v, c := newVerifier(t, f, nil)
	// Readers read, and are overtaken.
	f.setAfter(func(context.Context, token.Digest) error { runtime.Gosched(); return nil })

	var revoked [keys]atomic.Int64 // the version that the last invalidation that has returned was of
	var records [keys]*store.Record
	var texts [keys]string
	for i := range keys {
		texts[i], _ = number(i)
		records[i] = record(i, "org", "user", "key")
		f.put(records[i])
		revoked[i].Store(1)
	}
	var stop atomic.Bool
	var late, answers atomic.Int64
	var readers, writers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			for n := 0; !stop.Load(); n++ {
				i := n % keys
				atLeast := revoked[i].Load()
				got, err := v.Verify(context.Background(), texts[i], time.Now())
				switch {
				case err != nil:
				case got.Record.Key.Version < atLeast:
					late.Add(1)
				default:
					answers.Add(1)
				}
			}
		})
	}
	// Two at once revoke each key, so that their invalidations overtake each other.
	var mu sync.Mutex
	version := int64(1)
	for range 2 {
		writers.Go(func() {
			for n := range rounds {
				i := n % keys
				mu.Lock()
				version++
				k := *records[i].Key
				k.Version = version
				f.put(store.NewRecord(&k, records[i].User))
				mu.Unlock()
				switch n % 3 {
				case 0:
					c.Invalidate(keyChange(records[i]))
				case 1:
					c.Invalidate(store.Change{Kind: store.ChangedUser, Org: "org", User: "user"})
				default:
					c.Invalidate(store.Change{Kind: store.ChangedAll})
				}
				for old := revoked[i].Load(); old < k.Version && !revoked[i].CompareAndSwap(old, k.Version); {
					old = revoked[i].Load()
				}
				for range n % 5 {
					runtime.Gosched()
				}
			}
		})
	}
	writers.Wait()
	stop.Store(true)
	readers.Wait()
	require.Zero(t, late.Load(), "answers older than an invalidation that had returned")
	require.Positive(t, answers.Load())
}

// An invalidation that is overtaken by a later one does not undo it.
func TestInvalidationsOvertakeEachOther(t *testing.T) {
	t.Parallel()
	var slot atomic.Uint64
	for _, n := range []uint64{5, 3, 5, 6, 1} {
		store.Raise(&slot, n)
	}
	require.EqualValues(t, 6, slot.Load())

	var wg sync.WaitGroup
	for n := range uint64(100) {
		wg.Go(func() { store.Raise(&slot, n) })
	}
	wg.Wait()
	require.EqualValues(t, 99, slot.Load())
}

// F52: a negative answer is no authority. A key that was just made is found.
func TestInsertedKeyIsFoundAtOnce(t *testing.T) {
	t.Parallel()
	f := newFakeReader()
	clk := newClock()
	c := newCache(t, f, &store.CacheOptions{Now: clk.now})
	_, d := number(1)
	for range 3 {
		_, err := c.Lookup(t.Context(), d)
		require.ErrorIs(t, err, store.ErrNotFound)
	}
	require.Equal(t, 1, f.tripsOf(d))
	f.putNumber(1)
	_, err := c.Lookup(t.Context(), d)
	require.ErrorIs(t, err, store.ErrNotFound, "nobody was told")
	c.Invalidate(store.Change{Kind: store.ChangedKey, Digest: d, Org: "org1", User: "user1"})
	_, err = c.Lookup(t.Context(), d)
	require.NoError(t, err)

	// Purged: not found, and remembered as such.
	f.drop(d)
	c.Invalidate(store.Change{Kind: store.ChangedKey, Digest: d, Org: "org1", User: "user1"})
	for range 3 {
		_, err := c.Lookup(t.Context(), d)
		require.ErrorIs(t, err, store.ErrNotFound)
	}
	require.Equal(t, 3, f.tripsOf(d))
}

// A floodReader does not count unknown digests one by one.
type floodReader struct {
	*fakeReader
	known   map[token.Digest]bool
	unknown atomic.Int64
}

func (f *floodReader) Lookup(ctx context.Context, d token.Digest) (*store.Record, error) {
	if !f.known[d] {
		f.unknown.Add(1)
		return nil, store.ErrNotFound
	}
	return f.fakeReader.Lookup(ctx, d)
}

// randomDigest returns a digest that depends on i alone.
func randomDigest(i int) token.Digest {
	return sha256.Sum256(binary.LittleEndian.AppendUint64(nil, uint64(i)))
}

// heapInUse returns how many bytes are reachable.
func heapInUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// S9, threat model "key flood": "Memory stays flat under 10^6 distinct unknown
// tokens, and known keys stay cached." Not parallel: it measures the heap.
func TestFloodOfUnknownKeys(t *testing.T) {
	unknown := 1_000_000
	if cacheRace {
		unknown = 50_000
	}
	const known = 1000
	f := &floodReader{fakeReader: newFakeReader(), known: make(map[token.Digest]bool)}
	clk := newClock()
	c := newCache(t, f, &store.CacheOptions{Now: clk.now, MaxKeys: known})
	for i := range known {
		_, d := f.putNumber(i)
		f.known[d] = true
	}
	lookupKnown := func() {
		for d := range f.known {
			_, err := c.Lookup(t.Context(), d)
			require.NoError(t, err)
		}
	}
	flood := func(from, to int) {
		var wg sync.WaitGroup
		for p := range 4 {
			wg.Go(func() {
				for i := from + p; i < to; i += 4 {
					if _, err := c.Lookup(context.Background(), randomDigest(i)); !errors.Is(err, store.ErrNotFound) {
						t.Error("unknown digest:", err)
						return
					}
				}
			})
		}
		wg.Wait()
	}
	lookupKnown()
	flood(0, unknown/10)
	before := heapInUse()
	flood(unknown/10, unknown)
	after := heapInUse()
	t.Logf("heap: %d KiB after a tenth of the flood, %d KiB after all", before>>10, after>>10)
	require.Less(t, after-before, int64(1<<20))

	trips := f.allTrips()
	lookupKnown()
	require.Equal(t, trips, f.allTrips(), "all known keys are cached still")
	require.EqualValues(t, unknown, f.unknown.Load())
	runtime.KeepAlive(c)
}

// The store is not asked again for a digest that was just not found, whatever
// else is asked for, as long as the table has room for it.
func TestUnknownDigestsAreRemembered(t *testing.T) {
	t.Parallel()
	f := newFakeReader()
	clk := newClock()
	c := newCache(t, f, &store.CacheOptions{Now: clk.now})
	const n = 1000
	for range 3 {
		for i := range n {
			_, err := c.Lookup(t.Context(), randomDigest(i))
			require.ErrorIs(t, err, store.ErrNotFound)
		}
	}
	require.Equal(t, n, f.allTrips())
}

// MaxKeys is a bound, and what was used lately stays (F64: a full cache still
// takes new keys).
func TestMaxKeys(t *testing.T) {
	t.Parallel()
	for _, maxKeys := range []int{1, 2, 100, 1000, 5000} {
		t.Run(fmt.Sprintf("Lookup of %d", maxKeys), func(t *testing.T) {
			t.Parallel()
			f, clk := newFakeReader(), newClock()
			c := newCache(t, f, &store.CacheOptions{Now: clk.now, MaxKeys: maxKeys})
			testMaxKeys(t, f, maxKeys, func(i int) error {
				_, d := number(i)
				_, err := c.Lookup(t.Context(), d)
				return err
			})
		})
		t.Run(fmt.Sprintf("Verify of %d", maxKeys), func(t *testing.T) {
			t.Parallel()
			f, clk := newFakeReader(), newClock()
			v, _ := newVerifier(t, f, &store.CacheOptions{Now: clk.now, MaxKeys: maxKeys})
			testMaxKeys(t, f, maxKeys, func(i int) error {
				text, _ := number(i)
				_, err := v.Verify(t.Context(), text, clk.now())
				return err
			})
		})
	}
}

func testMaxKeys(t *testing.T, f *fakeReader, maxKeys int, ask func(i int) error) {
	t.Helper()
	lookup := func(i int) (trips int) {
		t.Helper()
		_, d := number(i)
		before := f.tripsOf(d)
		require.NoError(t, ask(i))
		return f.tripsOf(d) - before
	}
	for i := range 3 * maxKeys {
		f.putNumber(i)
	}
	// All fit.
	trips := 0
	for range 2 {
		for i := range maxKeys {
			trips += lookup(i)
		}
	}
	require.Equal(t, maxKeys, trips)

	// Three times as many came by, of which a few are used all the time.
	hot := maxKeys / 50
	hotTrips := 0
	for i := maxKeys; i < 3*maxKeys; i++ {
		require.Equal(t, 1, lookup(i), "new")
		require.Zero(t, lookup(i), "a new key is cached")
		if hot > 0 {
			hotTrips += lookup(i % hot)
		}
	}
	require.LessOrEqual(t, hotTrips, hot, "used keys are seldom thrown out")

	cached := 0
	for i := range 3 * maxKeys {
		_, d := number(i)
		f.drop(d) // so that looking makes no room for itself
		if ask(i) == nil {
			cached++
		}
	}
	require.LessOrEqual(t, cached, maxKeys)
	require.GreaterOrEqual(t, cached, maxKeys*9/10)
}

// invalidationSlot tells digests apart that are invalidated together: the cache
// may take one for the other there.
func invalidationSlot(d token.Digest) uint32 { return binary.LittleEndian.Uint32(d[16:20]) % (1 << 14) }

// Making room happens within a shard. One that has no keys, as no honest digests
// will bring about, takes a new key all the same.
func TestNewKeysAreCachedWhateverTheDigests(t *testing.T) {
	t.Parallel()
	const maxKeys = 512 // two shards
	f := newFakeReader()
	clk := newClock()
	c := newCache(t, f, &store.CacheOptions{Now: clk.now, MaxKeys: maxKeys})
	lookup := func(i int, last byte) {
		r := record(i, "org", "user", "key")
		r.Key.Digest[31] = last
		f.put(r)
		for range 2 {
			_, err := c.Lookup(t.Context(), r.Key.Digest)
			require.NoError(t, err)
		}
		require.Equal(t, 1, f.tripsOf(r.Key.Digest))
	}
	for i := range maxKeys {
		lookup(i, 0)
	}
	for i := range 10 {
		lookup(maxKeys+i, 1)
	}
}

// Purged keys leave neither themselves nor a trace: the table works as before
// after any number of them came and went.
func TestKeysComeAndGo(t *testing.T) {
	t.Parallel()
	f := newFakeReader()
	clk := newClock()
	c := newCache(t, f, &store.CacheOptions{Now: clk.now, MaxKeys: 400, NegativeTTL: -1})
	rnd := rand.New(rand.NewPCG(1, 2))
	const n = 300
	cached := make(map[int]bool)
	together := make(map[uint32][]int)
	for i := range n {
		_, d := number(i)
		together[invalidationSlot(d)] = append(together[invalidationSlot(d)], i)
	}
	rounds := 20_000
	if cacheRace {
		rounds = 4_000
	}
	for range rounds {
		i := rnd.IntN(n)
		_, d := number(i)
		trips := f.tripsOf(d)
		if rnd.IntN(2) == 0 {
			f.putNumber(i)
			_, err := c.Lookup(t.Context(), d)
			require.NoError(t, err)
			if cached[i] {
				require.Equal(t, trips, f.tripsOf(d))
			}
			cached[i] = true
			continue
		}
		f.drop(d)
		c.Invalidate(store.Change{Kind: store.ChangedKey, Digest: d})
		_, err := c.Lookup(t.Context(), d)
		require.ErrorIs(t, err, store.ErrNotFound)
		for _, j := range together[invalidationSlot(d)] {
			cached[j] = false
		}
	}
}

// Readers go on finding what they look for while others come, go and make the
// table grow: nobody is taken for another, and no trip is made for a key that is
// cached.
func TestLookupsWhileTheTableChanges(t *testing.T) {
	t.Parallel()
	newcomers := 10_000
	if cacheRace {
		newcomers = 3_000
	}
	const steady = 100
	f := newFakeReader()
	clk := newClock()
	c := newCache(t, f, &store.CacheOptions{Now: clk.now, NegativeTTL: -1})
	var digests [steady]token.Digest
	touched := make(map[uint32]bool)
	for i := range steady {
		_, digests[i] = f.putNumber(i)
		_, err := c.Lookup(t.Context(), digests[i])
		require.NoError(t, err)
	}
	var stop atomic.Bool
	var wg sync.WaitGroup
	for p := range 2 {
		wg.Go(func() {
			for i := p; !stop.Load(); i = (i + 1) % steady {
				r, err := c.Lookup(context.Background(), digests[i])
				if err != nil || r.Key.Digest != digests[i] || r.Principal.KeyID != r.Key.ID {
					t.Error("found", r, err)
					return
				}
			}
		})
	}
	for i := steady; i < steady+newcomers; i++ {
		_, d := f.putNumber(i)
		_, err := c.Lookup(t.Context(), d)
		require.NoError(t, err)
		if i%3 == 0 {
			f.drop(d)
			c.Invalidate(store.Change{Kind: store.ChangedKey, Digest: d})
			touched[invalidationSlot(d)] = true
			_, err := c.Lookup(t.Context(), d)
			require.ErrorIs(t, err, store.ErrNotFound)
		}
	}
	stop.Store(true)
	wg.Wait()
	for _, d := range digests {
		if !touched[invalidationSlot(d)] {
			require.Equal(t, 1, f.tripsOf(d))
		}
	}
}
