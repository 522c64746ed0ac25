package ratelimit_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/ratelimit"
	"github.com/keystile/keystile/ratelimit/ratelimittest"
)

// day is the length of an ordinary day, midnight the end of noon's.
const day = 24 * time.Hour

var midnight = noon.Add(12 * time.Hour)

// add adds n without a ceiling and returns the count.
func add(t testing.TB, c ratelimit.Counter, key string, end time.Time, n int64) int64 {
	t.Helper()
	count, ok, err := c.Add(t.Context(), key, end, n, math.MaxInt64)
	require.NoError(t, err)
	require.True(t, ok)
	return count
}

// D8, F55: the memory counter keeps the contract of Counter.
func TestMemoryKeepsTheContract(t *testing.T) {
	t.Parallel()
	ratelimittest.Run(t, func(*testing.T) ratelimit.Counter { return ratelimit.NewMemory() })
}

// The zero Memory and a nil one fail instead of counting nothing (fail closed).
func TestMemoryZeroIsAnError(t *testing.T) {
	t.Parallel()
	for _, m := range []*ratelimit.Memory{nil, new(ratelimit.Memory)} {
		_, ok, err := m.Add(t.Context(), "k", midnight, 1, 250)
		require.ErrorContains(t, err, "NewMemory")
		require.False(t, ok)
	}
}

// D8: it is per process, and even per Memory.
func TestMemoriesCountApart(t *testing.T) {
	t.Parallel()
	a, b := ratelimit.NewMemory(), ratelimit.NewMemory()
	require.EqualValues(t, 5, add(t, a, "k", midnight, 5))
	require.EqualValues(t, 0, add(t, b, "k", midnight, 0))
}

// A key is copied: it may be a piece of a buffer that is used again.
func TestMemoryCopiesKeys(t *testing.T) {
	t.Parallel()
	const first, second = "csk_live_00000001", "csk_live_00000002"
	m := ratelimit.NewMemory()
	for i := range 100 { // whichever is found by chance
		request := fmt.Sprintf("Authorization: Bearer %s%d", first, i)
		add(t, m, request[len("Authorization: Bearer "):], midnight, int64(i+1))
	}
	for i := range 100 {
		require.EqualValues(t, i+1, add(t, m, fmt.Sprint(first, i), midnight, 0))
		require.EqualValues(t, 0, add(t, m, fmt.Sprint(second, i), midnight, 0))
	}
}

// Growing loses nothing: many callers make the same keys and count them while
// the tables grow. Many times, because most of it is over in a millisecond.
func TestMemoryGrowsWithoutLoss(t *testing.T) {
	t.Parallel()
	const rounds, callers, keys = 30, 8, 400
	for range rounds {
		m := ratelimit.NewMemory()
		var wg sync.WaitGroup
		start := make(chan struct{})
		for range callers {
			wg.Go(func() {
				<-start
				for k := range keys {
					_, ok, err := m.Add(t.Context(), fmt.Sprint("key", k), midnight, 1, math.MaxInt64)
					if !ok || err != nil {
						t.Errorf("Add = %t, %v", ok, err)
						return
					}
				}
			})
		}
		close(start)
		wg.Wait()
		for k := range keys {
			require.EqualValues(t, callers, add(t, m, fmt.Sprint("key", k), midnight, 0))
		}
		require.Equal(t, keys, m.Keys())
	}
}

// A reader beside a writer sees counts that never go down, whatever tables and
// windows come and go.
func TestMemoryCountsNeverFall(t *testing.T) {
	t.Parallel()
	m := ratelimit.NewMemory()
	var done atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		defer done.Store(true)
		for i := range 2000 {
			add(t, m, "k", midnight, 1)
			add(t, m, fmt.Sprint("other", i), midnight, 1)
			if i%300 == 299 { // six windows of later days
				add(t, m, "k", midnight.Add(time.Duration(i)*day), 1)
			}
		}
	})
	wg.Go(func() {
		for last := int64(0); !done.Load(); {
			count := add(t, m, "k", midnight, 0)
			if count < last {
				t.Errorf("the count fell from %d to %d", last, count)
				return
			}
			last = count
		}
	})
	wg.Wait()
	require.EqualValues(t, 2000, add(t, m, "k", midnight, 0))
}

// Nobody is refused for the sake of an addition that is refused itself, however
// close they come.
func TestMemoryRefusalsAreInvisible(t *testing.T) {
	t.Parallel()
	const callers, each, limit = 4, 20_000, 4 * 20_000
	m := ratelimit.NewMemory()
	var wg sync.WaitGroup
	for caller := range 2 * callers {
		n := int64(1)
		if caller%2 == 0 {
			n = limit + 1
		}
		wg.Go(func() {
			for range each {
				if count, ok, _ := m.Add(t.Context(), "k", midnight, n, limit); ok != (n == 1) {
					t.Errorf("Add of %d = %d, %t", n, count, ok)
					return
				}
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, limit, add(t, m, "k", midnight, 0))
}

// The ninth window pushes out the one made first, and only that.
func TestMemoryKeepsEightWindows(t *testing.T) {
	t.Parallel()
	m := ratelimit.NewMemory()
	for d := range 9 {
		add(t, m, "k", midnight.Add(time.Duration(d)*day), 1)
	}
	require.EqualValues(t, 0, add(t, m, "k", midnight, 0))
	for d := 1; d < 9; d++ {
		require.EqualValues(t, 1, add(t, m, "k", midnight.Add(time.Duration(d)*day), 0))
	}
}

// newKeys adds n keys that were not there, so that every part of m looks for
// keys to forget.
func newKeys(t testing.TB, m *ratelimit.Memory, n int) {
	for range n {
		add(t, m, fmt.Sprint("new", rand.Uint64()), midnight, 1)
	}
}

// A key that was touched within two days of monotonic time is kept, however
// many new keys come, whenever in an epoch that was, and also if none came for
// long: adding, being refused and reading touch.
func TestMemoryKeepsKeysForTwoDays(t *testing.T) {
	t.Parallel()
	touches := []struct {
		name string
		n    int64
		max  int64
	}{
		{"added to", 1, math.MaxInt64},
		{"refused", 1, 0},
		{"read", 0, 0},
	}
	for _, touch := range touches {
		t.Run(touch.name, func(t *testing.T) {
			t.Parallel()
			for phase := time.Duration(0); phase < 27*time.Hour; phase += 6 * time.Hour {
				synctest.Test(t, func(t *testing.T) {
					m := ratelimit.NewMemory()
					want := add(t, m, "k", midnight, 7)
					for _, idle := range []time.Duration{phase, 100*day + phase} {
						time.Sleep(idle) // no keys come
						count, _, err := m.Add(t.Context(), "k", midnight, touch.n, touch.max)
						require.NoError(t, err)
						if touch.max > 0 {
							want++
						}
						require.Equal(t, want, count)
						for range 24 { // keys come until k is two days old
							time.Sleep(2 * time.Hour)
							newKeys(t, m, 100)
						}
						require.Equal(t, want, add(t, m, "k", midnight, 0))
					}
				})
			}
		})
	}
}

// Whoever found a key before it was forgotten notices, and does not count in
// what nobody will find again. Whoever touched it first keeps it.
func TestMemoryForgottenKeysAreDead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := ratelimit.NewMemory()
		add(t, m, "idle", midnight, 1)
		add(t, m, "used", midnight, 1)
		idle, used := m.Hold("idle"), m.Hold("used")
		for range 3 {
			time.Sleep(26 * time.Hour)
			require.True(t, used())
			newKeys(t, m, 1000)
		}
		require.False(t, idle())
		require.True(t, used())
		require.EqualValues(t, 0, add(t, m, "idle", midnight, 0))
		require.EqualValues(t, 1, add(t, m, "used", midnight, 0))
	})
}

// Keys whose hashes are equal are different keys: otherwise one could spend the
// quota of another.
func TestMemoryEqualHashes(t *testing.T) {
	t.Parallel()
	keys := []string{"a", "b", "c"}
	for _, key := range keys {
		require.Equal(t, key, ratelimit.FindAmong(keys, key))
	}
	require.Empty(t, ratelimit.FindAmong(keys, "d"))
}

// F55: one key, as many callers at once as there can be: no addition is lost,
// and exactly as many are admitted as there is room for.
func TestMemoryOneKey(t *testing.T) {
	t.Parallel()
	const callers, each, limit = 8, 20_000, 100_000
	m := ratelimit.NewMemory()
	var admitted atomic.Int64
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for range each {
				add(t, m, "unlimited", midnight, 1)
				if _, ok, _ := m.Add(t.Context(), "limited", midnight, 1, limit); ok {
					admitted.Add(1)
				}
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, callers*each, add(t, m, "unlimited", midnight, 0))
	require.EqualValues(t, limit, admitted.Load())
	require.EqualValues(t, limit, add(t, m, "limited", midnight, 0))
}

// F63: keys that nobody uses go, whatever windows they have, so that the memory
// follows the keys in use. Keys in use stay, and nothing of theirs is lost.
func TestMemoryForgetsIdleKeys(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := ratelimit.NewMemory()
		for i := range 1000 {
			add(t, m, fmt.Sprint("idle", i), midnight, 1)
		}
		const hours = 240
		for range hours / 5 {
			time.Sleep(5 * time.Hour)
			add(t, m, "used", midnight, 1)
			newKeys(t, m, 400)
		}
		for i := range 1000 {
			require.EqualValues(t, 0, add(t, m, fmt.Sprint("idle", i), midnight, 0))
		}
		require.EqualValues(t, hours/5, add(t, m, "used", midnight, 0))
		// The keys of the last two days at least and of little more than three at
		// most, not of ten.
		require.GreaterOrEqual(t, m.Keys(), 48/5*400)
		require.LessOrEqual(t, m.Keys(), 85/5*400)
		// What comes back starts anew.
		require.EqualValues(t, 1, add(t, m, "idle1", midnight, 1))
	})
}

// Nothing is lost while idle keys are forgotten: a key is counted on or begins
// anew, but what is added to it stays.
func TestMemoryForgetsBesideCallers(t *testing.T) {
	t.Parallel()
	for range 8 {
		synctest.Test(t, func(t *testing.T) {
			const keys, callers = 200, 4
			m := ratelimit.NewMemory()
			for k := range keys {
				add(t, m, fmt.Sprint("key", k), midnight, 100)
			}
			for range 3 { // all are old enough to go at the next new key
				time.Sleep(26 * time.Hour)
				newKeys(t, m, 1)
			}
			var wg sync.WaitGroup
			wg.Go(func() { newKeys(t, m, 1000) })
			for range callers {
				wg.Go(func() {
					for _, k := range rand.Perm(keys) {
						add(t, m, fmt.Sprint("key", k), midnight, 1)
					}
				})
			}
			wg.Wait()
			for k := range keys {
				count := add(t, m, fmt.Sprint("key", k), midnight, 0)
				require.Contains(t, []int64{callers, 100 + callers}, count)
			}
		})
	}
}

// The warm path allocates nothing, whatever context comes.
func TestMemoryAddAllocatesNothing(t *testing.T) {
	m := ratelimit.NewMemory()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	key := strings.Repeat("k", 100)
	for _, max := range []int64{math.MaxInt64, 0} {
		require.Zero(t, testing.AllocsPerRun(1000, func() { m.Add(ctx, key, midnight, 1, max) }))
		require.Zero(t, testing.AllocsPerRun(1000, func() { m.Add(ctx, "unknown", midnight, 0, max) }))
	}
}

// The Counter of the example is right, since it is there to be copied.
func TestExampleCounterKeepsTheContract(t *testing.T) {
	t.Parallel()
	ratelimittest.Run(t, func(*testing.T) ratelimit.Counter { return &tally{counts: make(map[window]int64)} })
}
