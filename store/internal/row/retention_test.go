package row_test

import (
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/internal/row"
)

const day = 24 * time.Hour

// from returns one use, from an address with that last byte.
func from(n byte, last time.Time) store.Use {
	return store.Use{Addr: netip.AddrFrom4([4]byte{192, 0, 2, n}), UserAgent: "curl", First: last, Last: last, Count: 1}
}

// TestNewRetention: what has no meaning is refused, and all of it is named (D24).
func TestNewRetention(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		r    store.UseRetention
		want string
	}{
		{name: "default"},
		{name: "all of it", r: store.UseRetention{Addrs: 10, Age: math.MaxInt64}},
		{name: "least of it", r: store.UseRetention{Addrs: -1, Age: time.Hour}},
		{name: "fewer than none", r: store.UseRetention{Addrs: -2}, want: "x: UseRetention.Addrs is below -1"},
		{name: "more than are listed", r: store.UseRetention{Addrs: 11}, want: "x: UseRetention.Addrs is above 10"},
		{name: "negative", r: store.UseRetention{Age: -1}, want: "x: UseRetention.Age is negative"},
		{name: "least", r: store.UseRetention{Age: math.MinInt64}, want: "x: UseRetention.Age is negative"},
		{name: "without a unit", r: store.UseRetention{Age: 90}, want: "x: UseRetention.Age is below 1h0m0s"},
		{name: "below an hour", r: store.UseRetention{Age: time.Hour - 1}, want: "x: UseRetention.Age is below 1h0m0s"},
		{name: "both", r: store.UseRetention{Addrs: math.MinInt, Age: 1}, want: "x: UseRetention.Addrs is below -1\nx: UseRetention.Age is below 1h0m0s"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := row.NewRetention("x", tt.r, nil)
			if tt.want != "" {
				require.EqualError(t, err, tt.want)
				return
			}
			require.NoError(t, err)
		})
	}
}

// TestRetentionApplies shows what is forgotten, and that it is gone from the
// memory too (D24).
func TestRetentionApplies(t *testing.T) {
	t.Parallel()
	var all store.UseSummary
	row.Add(&all, from(1, at.Add(-3*day)), from(2, at.Add(-2*day)), from(3, at.Add(-2*day)), from(4, at.Add(-day)))
	for _, tt := range []struct {
		name  string
		r     store.UseRetention
		now   time.Time
		addrs int
		agent string
	}{
		{name: "default", now: at.Add(36500 * day), addrs: 4, agent: "curl"},
		{name: "age, not yet", r: store.UseRetention{Age: 3 * day}, now: at, addrs: 4, agent: "curl"},
		{name: "age, one", r: store.UseRetention{Age: 3 * day}, now: at.Add(1), addrs: 3, agent: "curl"},
		{name: "age, three", r: store.UseRetention{Age: 2 * day}, now: at.Add(day - 1), addrs: 1, agent: "curl"},
		{name: "age, all", r: store.UseRetention{Age: 2 * day}, now: at.Add(day + 1), addrs: 0},
		{name: "age, longest", r: store.UseRetention{Age: math.MaxInt64}, now: at, addrs: 4, agent: "curl"},
		{name: "clock at its beginning", r: store.UseRetention{Age: day}, addrs: 4, agent: "curl"},
		{name: "addresses", r: store.UseRetention{Addrs: 2}, now: at.Add(36500 * day), addrs: 2, agent: "curl"},
		{name: "none", r: store.UseRetention{Addrs: -1}, now: at, addrs: 0, agent: "curl"},
		{name: "both, fewer by age", r: store.UseRetention{Addrs: 3, Age: 2 * day}, now: at.Add(1), addrs: 1, agent: "curl"},
		{name: "both, fewer by number", r: store.UseRetention{Addrs: 1, Age: 2 * day}, now: at, addrs: 1, agent: "curl"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			keep, err := row.NewRetention("x", tt.r, func() time.Time { return tt.now })
			require.NoError(t, err)
			sum := all
			sum.Addrs = slices.Clone(all.Addrs)
			memory := sum.Addrs
			require.Equal(t, tt.addrs < 4, keep.Bounds().Apply(&sum))
			require.Equal(t, tt.agent, sum.UserAgent)
			require.Equal(t, all.Addrs[:tt.addrs], sum.Addrs)
			for _, a := range memory[tt.addrs:] {
				require.Zero(t, a)
			}
			require.Equal(t, all.LastUsed, sum.LastUsed)
			require.Equal(t, all.Days, sum.Days)
			require.False(t, keep.Bounds().Apply(&sum), "nothing is left to forget")
		})
	}
}

// TestRetentionForgetsAgentAlone: the user agent of a use without an address is
// forgotten, and that is said (D24).
func TestRetentionForgetsAgentAlone(t *testing.T) {
	t.Parallel()
	keep, err := row.NewRetention("x", store.UseRetention{Age: day}, func() time.Time { return at.Add(day + 1) })
	require.NoError(t, err)
	sum := store.UseSummary{LastUsed: at, UserAgent: "curl"}
	require.True(t, keep.Bounds().Apply(&sum))
	require.Equal(t, store.UseSummary{LastUsed: at}, sum)
}

// TestRetentionHidesWhatItDeletes: a store that deletes early and one that
// deletes late, which forget when they write and hide when they read, tell the
// same at any time (D24).
func TestRetentionHidesWhatItDeletes(t *testing.T) {
	t.Parallel()
	for seed := range uint64(50) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		now := at
		keep, err := row.NewRetention("x", store.UseRetention{Addrs: rnd.IntN(12) - 1, Age: 20 * day}, func() time.Time { return now })
		require.NoError(t, err)
		var early, late store.UseSummary
		for range 200 {
			now = now.Add(time.Duration(rnd.IntN(48)) * time.Hour)
			keep.Bounds().Apply(&early)
			if rnd.IntN(3) > 0 {
				u := from(byte(rnd.IntN(20)), now.Add(-time.Duration(rnd.IntN(100))*time.Hour))
				keep.Bounds().Add(&early, u)
				keep.Bounds().Add(&late, u)
			}
			told := late
			told.Addrs = slices.Clone(late.Addrs)
			keep.Bounds().Apply(&told)
			require.Equal(t, early.UserAgent, told.UserAgent, "seed %d", seed)
			require.Len(t, told.Addrs, len(early.Addrs), "seed %d", seed)
			for i := range told.Addrs {
				require.Equal(t, early.Addrs[i], told.Addrs[i], "seed %d", seed)
			}
			require.Equal(t, early.Days, told.Days)
		}
	}
}

// TestRounds shows when a round begins, goes on and ends.
func TestRounds(t *testing.T) {
	t.Parallel()
	now := at
	keep, err := row.NewRetention("x", store.UseRetention{Age: day}, func() time.Time { return now })
	require.NoError(t, err)
	var r row.Rounds
	require.Equal(t, next{"", true}, nextOf(&r, keep), "the first one")
	require.Equal(t, next{"", true}, nextOf(&r, keep), "which was not told to have come anywhere")
	r.Reached(keep.Bounds(), "", "k100")
	require.Equal(t, next{"k100", true}, nextOf(&r, keep))
	r.Reached(keep.Bounds(), "", "")
	require.Equal(t, next{"k100", true}, nextOf(&r, keep), "another call was further")
	now = at.Add(2 * time.Hour)
	r.Reached(keep.Bounds(), "k100", "k200")
	require.Equal(t, next{"k200", true}, nextOf(&r, keep), "however long it takes")
	r.Reached(keep.Bounds(), "k200", "")
	require.Equal(t, next{}, nextOf(&r, keep), "the end")
	now = at.Add(3*time.Hour - 1)
	require.Equal(t, next{}, nextOf(&r, keep))
	now = at.Add(3 * time.Hour)
	require.Equal(t, next{"", true}, nextOf(&r, keep), "an hour after the end")
	now = at.Add(-36500 * day)
	require.Equal(t, next{"", true}, nextOf(&r, keep), "the clock was set back")

	// The first round begins somewhere among such IDs, and a whole one follows at once.
	starts := make(map[string]bool)
	for range 10 {
		var r row.Rounds
		start, ok := r.Next(keep.Bounds(), "csk_live_0a1b2c3d")
		require.True(t, ok)
		require.Regexp(t, "^csk_live_[0-9a-f]{8}$", start)
		starts[start] = true
		again, ok := r.Next(keep.Bounds(), "csk_live_ffffffff")
		require.True(t, ok)
		require.Equal(t, start, again)
		r.Reached(keep.Bounds(), start, "csk_live_ffffffff")
		require.Equal(t, next{"csk_live_ffffffff", true}, nextOf(&r, keep))
		r.Reached(keep.Bounds(), "csk_live_ffffffff", "")
		r.Reached(keep.Bounds(), "csk_live_ffffffff", "") // of two at once
		require.Equal(t, next{"", true}, nextOf(&r, keep), "the whole one")
		r.Reached(keep.Bounds(), "", "k100")
		r.Reached(keep.Bounds(), "k100", "")
		require.Equal(t, next{}, nextOf(&r, keep), "the end of it")
	}
	require.Len(t, starts, 10)

	off, err := row.NewRetention("x", store.UseRetention{Addrs: store.MaxUseAddrs}, func() time.Time { panic("the clock is read for nothing") })
	require.NoError(t, err)
	require.Equal(t, next{}, nextOf(new(row.Rounds), off))
	require.Equal(t, next{}, nextOf(new(row.Rounds), row.Retention{}))
}

type next struct {
	after string
	ok    bool
}

func nextOf(r *row.Rounds, keep row.Retention) next {
	after, ok := r.Next(keep.Bounds(), "")
	return next{after, ok}
}
