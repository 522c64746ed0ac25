package store_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
)

func TestSettingsAreCachedByOrganization(t *testing.T) {
	t.Parallel()
	f := newFakeReader()
	clk := newClock()
	v, c := newVerifier(t, f, &store.CacheOptions{Now: clk.now})
	f.putSettings(&policy.Settings{Org: "org1", RestrictUsers: true, Version: 3})
	for i := range 70 {
		text, _ := f.putNumber(i)
		got, err := v.Verify(t.Context(), text, clk.now())
		require.NoError(t, err)
		require.Equal(t, got.Record.Key.Org, got.Settings.Org)
		require.Equal(t, i%7 == 1, got.Settings.RestrictUsers)
	}
	for i := range 7 {
		org := fmt.Sprintf("org%d", i)
		s, err := v.Settings(t.Context(), org, clk.now())
		require.NoError(t, err)
		require.Equal(t, org, s.Org)
		s2, err := c.Settings(t.Context(), org)
		require.NoError(t, err)
		require.Same(t, s, s2, "one value is shared")
		require.Equal(t, 1, f.tripsOfOrg(org))
	}
	s, err := c.Settings(t.Context(), "never written")
	require.NoError(t, err)
	require.Equal(t, &policy.Settings{Org: "never written"}, s)
}

// An orgReader has zero settings for every organization, and counts the trips for
// one.
type orgReader struct{ *fakeReader }

func (o orgReader) Settings(ctx context.Context, org string) (*policy.Settings, error) {
	if org == "org1" {
		return o.fakeReader.Settings(ctx, org)
	}
	return &policy.Settings{Org: org}, nil
}

// Organizations that are named by other credentials than keys take a bounded
// memory, and the settings of a cached key stay with it. Not parallel: it measures
// the heap.
func TestFloodOfOrganizations(t *testing.T) {
	orgs := 400_000
	if cacheRace {
		orgs = 20_000
	}
	f := newFakeReader()
	clk := newClock()
	v, c := newVerifier(t, orgReader{f}, &store.CacheOptions{Now: clk.now})
	text, _ := f.putNumber(1)
	_, err := v.Verify(t.Context(), text, clk.now())
	require.NoError(t, err)
	flood := func(from, to int) {
		for i := from; i < to; i++ {
			_, err := c.Settings(t.Context(), fmt.Sprintf("organization %d", i))
			require.NoError(t, err)
		}
	}
	flood(0, orgs/2)
	before := heapInUse()
	flood(orgs/2, orgs)
	after := heapInUse()
	t.Logf("heap: %d KiB after half of the flood, %d KiB after all", before>>10, after>>10)
	if !cacheRace {
		require.Less(t, after-before, int64(1<<20))
	}
	_, err = v.Verify(t.Context(), text, clk.now())
	require.NoError(t, err)
	require.Equal(t, 1, f.tripsOfOrg("org1"))
}
