package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/token"
)

func TestNewVerifierReportsAllProblems(t *testing.T) {
	t.Parallel()
	c := newCache(t, newFakeReader(), nil)
	bad := &token.Format{Prefix: "X"}
	for _, tt := range []struct {
		name   string
		cache  *store.Cache
		format *token.Format
		want   []string
	}{
		{name: "defaults", cache: c},
		{name: "zero format", cache: c, format: new(token.Format)},
		{name: "nil cache", want: []string{"nil Cache"}},
		{name: "zero cache", cache: new(store.Cache), want: []string{"nil Cache"}},
		{name: "format", cache: c, format: bad, want: []string{"Prefix"}},
		{name: "both", format: bad, want: []string{"nil Cache", "Prefix"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			v, err := store.NewVerifier(tt.cache, tt.format)
			if tt.want == nil {
				require.NoError(t, err)
				require.True(t, v.Claims("csk_live_"))
				return
			}
			require.Nil(t, v)
			for _, want := range tt.want {
				require.ErrorContains(t, err, want)
			}
		})
	}
}

// Deny is the zero value.
func TestZeroVerifierFails(t *testing.T) {
	t.Parallel()
	text, _ := number(1)
	for _, v := range []*store.Verifier{nil, new(store.Verifier)} {
		require.True(t, v.Claims(text))
		_, err := v.Verify(t.Context(), text, epoch)
		require.Error(t, err)
		require.NotErrorIs(t, err, store.ErrNotFound)
		require.NotErrorIs(t, err, token.ErrMalformed)
		_, err = v.Settings(t.Context(), "org", epoch)
		require.Error(t, err)
	}
}

// D31: what does not have the shape of a token is malformed, and asks nobody.
func TestVerifyMalformed(t *testing.T) {
	t.Parallel()
	f := newFakeReader()
	v, _ := newVerifier(t, f, nil)
	text, _ := f.putNumber(1)
	for _, s := range []string{"", "csk_live_", text + "0", text[1:], " " + text, "csk_live_" + "A" + text[10:]} {
		_, err := v.Verify(t.Context(), s, epoch)
		require.ErrorIs(t, err, token.ErrMalformed)
	}
	require.Zero(t, f.allTrips())
}

// D33: a prefix claims a string, whatever follows.
func TestVerifierClaims(t *testing.T) {
	t.Parallel()
	c := newCache(t, newFakeReader(), nil)
	v, err := store.NewVerifier(c, &token.Format{Prefix: "acme_"})
	require.NoError(t, err)
	require.True(t, v.Claims("acme_"))
	require.True(t, v.Claims("acme_ is malformed"))
	require.False(t, v.Claims("csk_live_"))
}

// S40: the store's facts are no reason to hide a record: who decides sees revoked,
// expired, disabled and suspended ones.
func TestVerifyDecidesNothing(t *testing.T) {
	t.Parallel()
	f := newFakeReader()
	v, _ := newVerifier(t, f, nil)
	r := record(1, "org", "user", "key")
	k, u := *r.Key, *r.User
	k.RevokedAt, k.NotAfter, k.DisabledAt, u.SuspendedAt = epoch, epoch, epoch, epoch
	f.put(store.NewRecord(&k, &u))
	text, _ := number(1)
	got, err := v.Verify(t.Context(), text, epoch.Add(time.Hour))
	require.NoError(t, err)
	require.True(t, got.Record.Principal.Disabled)
	require.Equal(t, epoch, got.Record.Key.RevokedAt)
	require.Equal(t, epoch, got.Record.User.SuspendedAt)
}

func pepper(b byte) []byte { return bytes.Repeat([]byte{b}, 32) }

// S71: a key keeps its pepper; each further pepper costs one more lookup, until
// the answers are cached.
func TestVerifyUnderEarlierPeppers(t *testing.T) {
	t.Parallel()
	text, plain := number(1)
	under := func(t *testing.T, peppers ...[]byte) token.Digest {
		d, err := (&token.Format{Peppers: peppers}).Digest(text)
		require.NoError(t, err)
		return d
	}
	for _, tt := range []struct {
		name   string
		stored func(t *testing.T) token.Digest
		trips  int // of the first Verify, for keys
		found  bool
	}{
		{name: "current", stored: func(t *testing.T) token.Digest { return under(t, pepper(1)) }, trips: 1, found: true},
		{name: "earlier", stored: func(t *testing.T) token.Digest { return under(t, pepper(2)) }, trips: 2, found: true},
		{name: "earliest", stored: func(t *testing.T) token.Digest { return under(t, pepper(3)) }, trips: 3, found: true},
		{name: "none", stored: func(*testing.T) token.Digest { return plain }, trips: 4, found: true},
		{name: "unknown pepper", stored: func(t *testing.T) token.Digest { return under(t, pepper(4)) }, trips: 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := newFakeReader()
			clk := newClock()
			c := newCache(t, f, &store.CacheOptions{Now: clk.now})
			v, err := store.NewVerifier(c, &token.Format{
				Peppers: [][]byte{pepper(1), pepper(2), pepper(3)}, AcceptUnpeppered: true,
			})
			require.NoError(t, err)
			r := record(1, "org", "user", "key")
			r.Key.Digest = tt.stored(t)
			f.put(r)
			f.afterSettings = nil
			for range 3 {
				got, err := v.Verify(t.Context(), text, clk.now())
				if tt.found {
					require.NoError(t, err)
					require.Equal(t, r.Key.Digest, got.Record.Key.Digest)
					require.Equal(t, tt.trips+1, f.allTrips(), "with one for the settings")
				} else {
					require.ErrorIs(t, err, store.ErrNotFound)
					require.Equal(t, tt.trips, f.allTrips())
				}
			}
		})
	}
}

// A known key under an earlier pepper is known: neither a flood of unknown keys
// nor, with ServeStale, a failing store shuts it out because of its digest under
// the current pepper.
func TestKnownKeysUnderEarlierPeppers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakeReader()
		c := newCache(t, f, &store.CacheOptions{MaxLookups: 1, ServeStale: time.Minute})
		v, err := store.NewVerifier(c, &token.Format{Peppers: [][]byte{pepper(1)}, AcceptUnpeppered: true})
		require.NoError(t, err)
		text, d := f.putNumber(1)
		verify := func() (store.Verified, error) { return v.Verify(t.Context(), text, time.Now()) }
		_, err = verify()
		require.NoError(t, err)
		f.fail(errDown)
		time.Sleep(5*time.Second + 1)
		got, err := verify()
		require.NoError(t, err)
		require.True(t, got.Stale)

		f.fail(nil)
		time.Sleep(2 * time.Second)
		_, err = verify()
		require.NoError(t, err)
		synctest.Wait()
		release := make(chan struct{})
		f.setAfter(func(_ context.Context, asked token.Digest) error {
			if asked != d {
				<-release
			}
			return nil
		})
		go func() { _, _ = c.Lookup(t.Context(), randomDigest(1)) }()
		synctest.Wait()
		time.Sleep(1500 * time.Millisecond)
		_, err = c.Lookup(t.Context(), randomDigest(2))
		require.ErrorIs(t, err, store.ErrBusy, "the flood is on")
		c.Invalidate(store.Change{Kind: store.ChangedKey, Digest: d})
		got, err = verify()
		require.NoError(t, err)
		require.False(t, got.Stale)
		close(release)
		synctest.Wait()

		// Purged, it is not found.
		f.fail(nil)
		f.drop(d)
		c.Invalidate(store.Change{Kind: store.ChangedKey, Digest: d})
		_, err = verify()
		require.ErrorIs(t, err, store.ErrNotFound)
	})
}

// A failure under one pepper is no answer, whatever the others say.
func TestVerifyFailsIfOnePepperDoes(t *testing.T) {
	t.Parallel()
	_, plain := number(1)
	text, _ := number(1)
	for _, failing := range []bool{true, false} {
		f := newFakeReader()
		c := newCache(t, f, nil)
		v, err := store.NewVerifier(c, &token.Format{Peppers: [][]byte{pepper(1)}, AcceptUnpeppered: true})
		require.NoError(t, err)
		f.setAfter(func(_ context.Context, d token.Digest) error {
			if (d == plain) == failing {
				return errDown
			}
			return nil
		})
		_, err = v.Verify(t.Context(), text, epoch.Add(time.Hour))
		require.ErrorIs(t, err, errDown)
		require.NotErrorIs(t, err, store.ErrNotFound)
	}
}

// Section 12 of the properties: nothing on the hot path but one hash and one
// lookup. Neither a known key nor one that was just not found costs an
// allocation.
func TestVerifyAllocations(t *testing.T) {
	if cacheRace {
		t.Skip("the race detector allocates")
	}
	for _, tt := range []struct {
		name   string
		format *token.Format
	}{
		{name: "plain"},
		{name: "two peppers", format: &token.Format{Peppers: [][]byte{pepper(1), pepper(2)}}},
	} {
		f := newFakeReader()
		c := newCache(t, f, &store.CacheOptions{TTL: time.Minute, NegativeTTL: time.Minute})
		v, err := store.NewVerifier(c, tt.format)
		require.NoError(t, err)
		text, d := number(1)
		if tt.format != nil {
			d, err = (&token.Format{Peppers: [][]byte{pepper(2)}}).Digest(text)
			require.NoError(t, err)
		}
		r := record(1, "org", "user", "key")
		r.Key.Digest = d
		f.put(r)
		unknown, _ := number(2)
		now := time.Now()
		ctx := t.Context()
		for _, call := range []struct {
			name string
			f    func() error
		}{
			{name: "known", f: func() error { _, err := v.Verify(ctx, text, now); return err }},
			{name: "unknown", f: func() error {
				if _, err := v.Verify(ctx, unknown, now); !errors.Is(err, store.ErrNotFound) {
					return fmt.Errorf("not ErrNotFound: %w", err)
				}
				return nil
			}},
			{name: "malformed", f: func() error { _, _ = v.Verify(ctx, text[1:], now); return nil }},
			{name: "settings", f: func() error { _, err := v.Settings(ctx, "org", now); return err }},
			{name: "lookup", f: func() error { _, err := c.Lookup(ctx, d); return err }},
			{name: "invalidate", f: func() error {
				c.Invalidate(store.Change{Kind: store.ChangedUser, Org: "another", User: "user"})
				return nil
			}},
		} {
			t.Run(tt.name+"/"+call.name, func(t *testing.T) {
				require.NoError(t, call.f())
				trips := f.allTrips()
				require.Zero(t, testing.AllocsPerRun(100, func() {
					if err := call.f(); err != nil {
						t.Error(err)
					}
				}))
				require.Equal(t, trips, f.allTrips())
			})
		}
	}
}

func ExampleVerifier_Verify() {
	var reader store.Reader = exampleReader{} // a store
	cache, err := store.NewCache(reader, nil)
	if err != nil {
		panic(err)
	}
	verifier, err := store.NewVerifier(cache, nil)
	if err != nil {
		panic(err)
	}
	got, err := verifier.Verify(context.Background(), "csk_live_00000000000000000000000000000001", time.Now())
	fmt.Println(got.Record.User.ID, got.Settings.Org, err)
	_, err = verifier.Verify(context.Background(), "csk_live_00000000000000000000000000000002", time.Now())
	fmt.Println(errors.Is(err, store.ErrNotFound))
	// Output:
	// ann org <nil>
	// true
}

// A write to the store beside the cache stays unknown to it for up to its TTL.
// Whoever writes invalidates afterwards, as the Manager of package keys does.
func ExampleCache_Invalidate_incorrect() {
	store1 := newFakeReader()
	cache, err := store.NewCache(store1, nil)
	if err != nil {
		panic(err)
	}
	_, digest := store1.putNumber(1)
	_, err = cache.Lookup(context.Background(), digest)
	fmt.Println("found:", err == nil)

	store1.drop(digest)
	_, err = cache.Lookup(context.Background(), digest)
	fmt.Println("found after it was deleted:", err == nil)

	cache.Invalidate(store.Change{Kind: store.ChangedKey, Digest: digest})
	_, err = cache.Lookup(context.Background(), digest)
	fmt.Println("found after Invalidate:", err == nil)
	// Output:
	// found: true
	// found after it was deleted: true
	// found after Invalidate: false
}

// An exampleReader knows one key.
type exampleReader struct{}

func (exampleReader) Lookup(_ context.Context, d token.Digest) (*store.Record, error) {
	known, err := new(token.Format).Digest("csk_live_00000000000000000000000000000001")
	if err != nil || !d.Equal(known) {
		return nil, store.ErrNotFound
	}
	k := &store.Key{ID: "csk_live_00000000", Digest: d, Org: "org", User: "ann", CreatedAt: epoch}
	return store.NewRecord(k, &store.User{Org: "org", ID: "ann"}), nil
}

func (exampleReader) Settings(_ context.Context, org string) (*policy.Settings, error) {
	return &policy.Settings{Org: org}, nil
}
