package ratelimit_test

import (
	"context"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"

	"github.com/keystile/keystile/ratelimit"
)

// So many at once, then none until a token is refilled.
func TestBurst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := ratelimit.NewBurst(2, 5, nil) // a token in half a second
		start := time.Now()
		want := ratelimit.Result{OK: true, Name: "burst", Window: 2500 * time.Millisecond, Limit: 5}
		requireResult := func(r ratelimit.Result) {
			t.Helper()
			require.Equal(t, start.Add(want.Reset.Sub(start)).UnixNano(), r.Reset.UnixNano())
			r.Reset = want.Reset
			require.Equal(t, want, r)
		}
		for i := range int64(5) {
			want.Used, want.Remaining = i+1, 4-i
			want.Reset = start.Add(time.Duration(i+1) * 500 * time.Millisecond)
			if i == 4 {
				want.RetryAfter = 500 * time.Millisecond
			}
			requireResult(take(t, l, "k", 0))
		}
		want.OK = false
		for range 10 { // a refusal spends nothing: the wait is not longer after ten
			requireResult(take(t, l, "k", 0))
		}
		time.Sleep(499 * time.Millisecond)
		want.RetryAfter = time.Millisecond
		requireResult(take(t, l, "k", 0))
		time.Sleep(time.Millisecond)
		want.OK, want.RetryAfter = true, 500*time.Millisecond
		want.Reset = start.Add(3 * time.Second)
		requireResult(take(t, l, "k", 0))

		time.Sleep(time.Hour)
		require.Equal(t, 5, admitted(t, l, "k", 0, 20), "a bucket holds no more than burst")
	})
}

// Waiting for RetryAfter is always enough, whatever the rate, and it is never 0
// when something was refused (F66).
func TestBurstRetryAfterIsEnough(t *testing.T) {
	t.Parallel()
	for _, r := range []rate.Limit{1e-3, 1. / 3, 0.7, 1, math.Pi, 7, 999.9, 1e6, 3e8, 1e9} {
		for _, burst := range []int{1, 3, 50} {
			t.Run(fmt.Sprint(float64(r), "/", burst), func(t *testing.T) {
				t.Parallel()
				c := &clock{noon}
				l := ratelimit.NewBurst(r, burst, &ratelimit.BurstOptions{Now: c.Now})
				require.Equal(t, burst, admitted(t, l, "k", 0, burst))
				for range 100 {
					refused := take(t, l, "k", 0)
					if refused.OK { // a token in a nanosecond
						require.GreaterOrEqual(t, r, rate.Limit(1e8))
						continue
					}
					require.Positive(t, refused.RetryAfter)
					require.Equal(t, refused, peek(t, l, "k", 0))
					if refused.RetryAfter > 1 {
						c.now = c.now.Add(refused.RetryAfter - 1)
						require.LessOrEqual(t, peek(t, l, "k", 0).RetryAfter, time.Duration(1))
						c.now = c.now.Add(1)
					} else {
						c.now = c.now.Add(refused.RetryAfter)
					}
					require.True(t, peek(t, l, "k", 0).OK)
					require.True(t, take(t, l, "k", 0).OK)
				}
			})
		}
	}
}

// Keys have buckets of their own, and Peek spends nothing and makes none.
func TestBurstPeek(t *testing.T) {
	t.Parallel()
	c := &clock{noon}
	l := ratelimit.NewBurst(1, 3, &ratelimit.BurstOptions{Now: c.Now})
	full := ratelimit.Result{OK: true, Name: "burst", Window: 3 * time.Second, Limit: 3, Remaining: 3, Reset: noon}
	for range 10 {
		require.Equal(t, full, peek(t, l, "k", 0))
	}
	require.Equal(t, 3, admitted(t, l, "k", 0, 10))
	for range 10 {
		p := peek(t, l, "k", 0)
		require.False(t, p.OK)
		require.Zero(t, p.Remaining)
		require.EqualValues(t, 3, p.Used)
		require.Equal(t, time.Second, p.RetryAfter)
	}
	require.Equal(t, full, peek(t, l, "other", 0))
	require.Equal(t, 3, admitted(t, l, "other", 0, 10))
	c.now = c.now.Add(1500 * time.Millisecond)
	p := peek(t, l, "k", 0)
	require.True(t, p.OK)
	require.EqualValues(t, 1, p.Remaining)
	require.Zero(t, p.RetryAfter)
	require.Equal(t, 1500*time.Millisecond, p.Reset.Sub(c.now))
}

// The limit of the key does not concern it, if it has a meaning at all (D6).
func TestBurstIgnoresTheLimitOfTheKey(t *testing.T) {
	t.Parallel()
	c := &clock{noon}
	l := ratelimit.NewBurst(1, 3, &ratelimit.BurstOptions{Now: c.Now})
	for _, limit := range []int64{0, 1, 100, ratelimit.Unlimited} {
		key := fmt.Sprint("k", limit)
		require.EqualValues(t, 3, peek(t, l, key, limit).Limit)
		require.Equal(t, 3, admitted(t, l, key, limit, 10))
	}
	for _, limit := range []int64{-2, math.MinInt64} {
		for _, ask := range []func(context.Context, string, int64) (ratelimit.Result, error){l.Take, l.Peek} {
			r, err := ask(t.Context(), "k", limit)
			require.ErrorContains(t, err, "limit of the key")
			require.Equal(t, ratelimit.Result{}, r)
		}
	}
}

// What has no meaning refuses by an error. F62: a bucket that takes more than a
// day to refill is a daily quota in disguise.
func TestBurstOptionsWithoutMeaning(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		rate  rate.Limit
		burst int
		keys  int
		text  string // of the error; none if it is fine
	}{
		{"zero", 0, 0, 0, "positive rate"},
		{"zero rate", 0, 5, 0, "positive rate"},
		{"negative rate", -1, 5, 0, "positive rate"},
		{"no number", rate.Limit(math.NaN()), 5, 0, "positive rate"},
		{"no limit", rate.Inf, 5, 0, "positive rate"},
		{"infinite", rate.Limit(math.Inf(1)), 5, 0, "positive rate"},
		{"zero burst", 1, 0, 0, "positive rate"},
		{"negative burst", 1, -5, 0, "positive rate"},
		{"a day", rate.Every(day), 1, 0, ""},
		{"more than a day", rate.Every(day), 2, 0, "24 hours"},
		{"tiny rate", math.SmallestNonzeroFloat64, 1, 0, "24 hours"},
		{"huge rate", 1e300, math.MaxInt32, 0, ""},
		{"negative keys", 1, 1, -1, "MaxKeys"},
		{"one key", 1, 1, 1, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			l := ratelimit.NewBurst(test.rate, test.burst, &ratelimit.BurstOptions{MaxKeys: test.keys})
			for _, ask := range []func(context.Context, string, int64) (ratelimit.Result, error){l.Peek, l.Take} {
				r, err := ask(t.Context(), "k", 0)
				if test.text != "" {
					require.ErrorContains(t, err, test.text)
					require.Equal(t, ratelimit.Result{}, r)
					continue
				}
				require.NoError(t, err)
				require.True(t, r.OK)
				require.Positive(t, r.Window)
				require.LessOrEqual(t, r.Window, day)
				require.GreaterOrEqual(t, r.Remaining, int64(0))
				require.LessOrEqual(t, r.Remaining, r.Limit)
			}
		})
	}
}

// A context that has ended spends nothing.
func TestBurstEndedContext(t *testing.T) {
	t.Parallel()
	l := ratelimit.NewBurst(1, 3, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, ask := range []func(context.Context, string, int64) (ratelimit.Result, error){l.Take, l.Peek} {
		r, err := ask(ctx, "k", 0)
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, ratelimit.Result{}, r)
	}
	require.EqualValues(t, 3, peek(t, l, "k", 0).Remaining)
}

// F63, F64: when it is full it forgets the key that was idle for longest, and
// refuses nobody for it.
func TestBurstForgetsTheIdlest(t *testing.T) {
	t.Parallel()
	c := &clock{noon}
	l := ratelimit.NewBurst(1, 1, &ratelimit.BurstOptions{MaxKeys: 3, Now: c.Now})
	for _, key := range []string{"a", "b", "c"} {
		require.True(t, take(t, l, key, 0).OK)
	}
	require.False(t, take(t, l, "a", 0).OK) // a refusal is use too
	peek(t, l, "b", 0)                      // looking is not
	require.True(t, take(t, l, "d", 0).OK)
	require.True(t, peek(t, l, "b", 0).OK, "the idlest is b")
	for _, key := range []string{"a", "c", "d"} {
		require.False(t, peek(t, l, key, 0).OK, key)
	}
}

// F63: the bound holds whatever comes, and is used.
func TestBurstIsBounded(t *testing.T) {
	t.Parallel()
	const keys, most = 30_000, 2000
	c := &clock{noon}
	l := ratelimit.NewBurst(1, 1, &ratelimit.BurstOptions{MaxKeys: most, Now: c.Now})
	for i := range keys {
		require.True(t, take(t, l, fmt.Sprint(i), 0).OK)
	}
	remembered := 0
	for i := range keys {
		if !peek(t, l, fmt.Sprint(i), 0).OK {
			remembered++
		}
	}
	require.LessOrEqual(t, remembered, most)
	require.GreaterOrEqual(t, remembered, most*9/10)
}

// F61: times that alternate, or step back again and again, mint no tokens.
func TestBurstAlternatingClock(t *testing.T) {
	t.Parallel()
	for _, step := range []time.Duration{time.Millisecond, time.Second, time.Minute, 100 * day} {
		t.Run(step.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { // real time stands still
				c := &clock{noon}
				l := ratelimit.NewBurst(1, 5, &ratelimit.BurstOptions{Now: c.Now})
				require.Equal(t, 5, admitted(t, l, "k", 0, 10))
				c.now = noon.Add(step) // a step ahead cannot be told from time passing
				once := min(int(step/time.Second), 5)
				require.Equal(t, once, admitted(t, l, "k", 0, 10))
				for range 1000 {
					c.now = noon
					require.False(t, take(t, l, "k", 0).OK)
					c.now = noon.Add(step)
					require.False(t, take(t, l, "k", 0).OK)
				}
				for range 100 {
					c.now = c.now.Add(-step)
					require.False(t, take(t, l, "k", 0).OK)
				}
			})
		})
	}
}

// F60: a clock that is set back withholds no tokens either, not even for the
// length of the step.
func TestBurstClockSetBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		// A wall clock without a monotonic reading, off by offset.
		var offset time.Duration
		wall := func() time.Time { return time.Now().UTC().Add(offset) }
		l := ratelimit.NewBurst(1, 5, &ratelimit.BurstOptions{Now: wall})
		require.Equal(t, 5, admitted(t, l, "k", 0, 10))
		offset = -365 * day
		require.Zero(t, admitted(t, l, "k", 0, 10))
		for range 10 {
			require.Equal(t, time.Second, take(t, l, "k", 0).RetryAfter)
			time.Sleep(time.Second)
			require.Equal(t, 1, admitted(t, l, "k", 0, 10))
		}
		offset = -366 * day // again
		time.Sleep(3 * time.Second)
		require.Equal(t, 3, admitted(t, l, "k", 0, 10))
		offset = 0 // corrected
		require.Zero(t, admitted(t, l, "k", 0, 10))
		time.Sleep(2 * time.Second)
		require.Equal(t, 2, admitted(t, l, "k", 0, 10))
	})
}

// F55: exactly burst of many at once are admitted, of every key, while other
// keys come and go and are looked at.
func TestBurstParallel(t *testing.T) {
	t.Parallel()
	const keys, callers, rounds = 4, 8, 300
	c := &clock{noon}
	l := ratelimit.NewBurst(1, 250, &ratelimit.BurstOptions{Now: c.Now, MaxKeys: 1000})
	var ok [keys]atomic.Int64
	var wg sync.WaitGroup
	for caller := range callers {
		wg.Go(func() {
			for round := range rounds {
				for i := range keys {
					r, err := l.Take(t.Context(), fmt.Sprint("k", i), 0)
					if err != nil {
						t.Error(err)
					}
					if r.OK {
						ok[i].Add(1)
					}
				}
				for _, ask := range []func(context.Context, string, int64) (ratelimit.Result, error){l.Peek, l.Take} {
					if _, err := ask(t.Context(), fmt.Sprint(caller, "/", round), 0); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	for i := range ok {
		require.EqualValues(t, 250, ok[i].Load())
	}
}

// A decision about a known key allocates nothing, whichever it is.
func TestBurstAllocatesNothing(t *testing.T) {
	now := func() time.Time { return noon }
	for _, opts := range []*ratelimit.BurstOptions{nil, {Now: now}} {
		for _, r := range []rate.Limit{1e9, 1e-4} {
			l := ratelimit.NewBurst(r, 1, opts)
			require.Zero(t, testing.AllocsPerRun(1000, func() { l.Take(t.Context(), "k", 0) }))
			require.Zero(t, testing.AllocsPerRun(1000, func() { l.Peek(t.Context(), "k", 0) }))
		}
	}
}
