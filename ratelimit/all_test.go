package ratelimit_test

import (
	"context"
	"errors"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/ratelimit"
)

// A fixed Limiter gives one answer and counts how often it was asked.
type fixed struct {
	result       ratelimit.Result
	err          error
	takes, peeks int
	limit        int64
}

func (f *fixed) Take(_ context.Context, _ string, limit int64) (ratelimit.Result, error) {
	f.takes++
	f.limit = limit
	return f.result, f.err
}

func (f *fixed) Peek(_ context.Context, _ string, limit int64) (ratelimit.Result, error) {
	f.peeks++
	f.limit = limit
	return f.result, f.err
}

// In order, up to the first that refuses or fails; the last one's Result if
// none does. Peek asks the same, and spends nothing.
func TestAllOrder(t *testing.T) {
	t.Parallel()
	answer := func(ok bool, name string) *fixed { return &fixed{result: ratelimit.Result{OK: ok, Name: name}} }
	down := errors.New("down")
	tests := []struct {
		name     string
		limiters []*fixed
		asked    int
		want     ratelimit.Result
		err      error
	}{
		{"one", []*fixed{answer(true, "a")}, 1, ratelimit.Result{OK: true, Name: "a"}, nil},
		{"one refuses", []*fixed{answer(false, "a")}, 1, ratelimit.Result{Name: "a"}, nil},
		{"all admit", []*fixed{answer(true, "a"), answer(true, "b"), answer(true, "c")}, 3, ratelimit.Result{OK: true, Name: "c"}, nil},
		{"the first refuses", []*fixed{answer(false, "a"), answer(true, "b")}, 1, ratelimit.Result{Name: "a"}, nil},
		{"one between refuses", []*fixed{answer(true, "a"), answer(false, "b"), answer(false, "c")}, 2, ratelimit.Result{Name: "b"}, nil},
		{"the last refuses", []*fixed{answer(true, "a"), answer(false, "b")}, 2, ratelimit.Result{Name: "b"}, nil},
		{"the first fails", []*fixed{{err: down}, answer(true, "b")}, 1, ratelimit.Result{}, down},
		{"the last fails", []*fixed{answer(true, "a"), {result: ratelimit.Result{OK: true}, err: down}}, 2, ratelimit.Result{}, down},
		{"one refuses before another fails", []*fixed{answer(false, "a"), {err: down}}, 1, ratelimit.Result{Name: "a"}, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var limiters []ratelimit.Limiter
			for _, l := range test.limiters {
				limiters = append(limiters, l)
			}
			l := ratelimit.All(limiters...)
			clear(limiters) // the list was copied

			r, err := l.Take(t.Context(), "k", 7)
			require.ErrorIs(t, err, test.err)
			require.Equal(t, test.want, r)
			r, err = l.Peek(t.Context(), "k", 7)
			require.ErrorIs(t, err, test.err)
			require.Equal(t, test.want, r)

			for i, l := range test.limiters {
				asked, limit := 0, int64(0)
				if i < test.asked {
					asked, limit = 1, 7
				}
				require.Equal(t, []int{asked, asked}, []int{l.takes, l.peeks})
				require.Equal(t, limit, l.limit)
			}
		})
	}
}

// Nothing to ask is an error, and so is a nil among them, before anything is
// spent.
func TestAllOfNone(t *testing.T) {
	t.Parallel()
	first := &fixed{result: ratelimit.Result{OK: true}}
	for _, l := range []ratelimit.Limiter{
		ratelimit.All(),
		ratelimit.All(nil),
		ratelimit.All(first, nil),
		ratelimit.All(first, ratelimit.All()),
		ratelimit.All(first, (*ratelimit.Daily)(nil)),
	} {
		for _, ask := range []func(context.Context, string, int64) (ratelimit.Result, error){l.Take, l.Peek} {
			r, err := ask(t.Context(), "k", 0)
			require.Error(t, err)
			require.Equal(t, ratelimit.Result{}, r)
		}
	}
	require.Equal(t, 2, first.takes, "asked by the last two only")
}

// F58: burst first, daily last: who is too fast spends nothing of the day, and
// is told about the day when admitted.
func TestAllBurstBeforeDaily(t *testing.T) {
	t.Parallel()
	c := &clock{noon}
	daily := ratelimit.NewDaily(ratelimit.NewMemory(), &ratelimit.DailyOptions{Limit: 8, Now: c.Now})
	l := ratelimit.All(ratelimit.NewBurst(1, 5, &ratelimit.BurstOptions{Now: c.Now}), daily)

	for i := range int64(5) {
		r := take(t, l, "k", 0)
		require.True(t, r.OK)
		require.Equal(t, "daily", r.Name)
		require.Equal(t, 7-i, r.Remaining)
	}
	for range 20 {
		r := take(t, l, "k", 0)
		require.False(t, r.OK)
		require.Equal(t, "burst", r.Name)
		require.Equal(t, time.Second, r.RetryAfter)
	}
	require.EqualValues(t, 5, peek(t, daily, "k", 0).Used)

	c.now = c.now.Add(time.Minute)
	require.Equal(t, 3, admitted(t, l, "k", 0, 3))
	r := take(t, l, "k", 0)
	require.False(t, r.OK)
	require.Equal(t, "daily", r.Name)
}

// All adds no allocation of its own.
func TestAllAllocatesNothing(t *testing.T) {
	l := ratelimit.All(ratelimit.NewBurst(1e9, 1e9, nil), ratelimit.NewDaily(ratelimit.NewMemory(), nil))
	require.Zero(t, testing.AllocsPerRun(1000, func() { l.Take(t.Context(), "k", math.MaxInt64) }))
	require.Zero(t, testing.AllocsPerRun(1000, func() { l.Peek(t.Context(), "k", math.MaxInt64) }))
}
