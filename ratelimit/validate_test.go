package ratelimit_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/ratelimit"
)

// TestValidate: everything that is wrong with the arguments of a limiter is told at
// once, of what is inside of it too, and is what each Take and Peek returns.
func TestValidate(t *testing.T) {
	t.Parallel()
	memory := ratelimit.NewMemory()
	badLeased := ratelimit.NewLeased(nil, &ratelimit.LeaseOptions{IdleAfter: -1, Timeout: time.Hour})
	negative := &ratelimit.DailyOptions{Limit: -2}
	for name, test := range map[string]struct {
		limiter  ratelimit.Limiter
		problems []string
	}{
		"daily":                 {ratelimit.NewDaily(memory, nil), nil},
		"daily, leased":         {ratelimit.NewDaily(ratelimit.NewLeased(memory, nil), nil), nil},
		"burst":                 {ratelimit.NewBurst(1, 1, nil), nil},
		"all":                   {ratelimit.All(ratelimit.NewBurst(1, 1, nil), ratelimit.NewDaily(memory, nil)), nil},
		"no counter, limit":     {ratelimit.NewDaily(nil, negative), []string{"without a Counter", "DailyOptions.Limit"}},
		"zero memory":           {ratelimit.NewDaily(&ratelimit.Memory{}, nil), []string{"NewMemory"}},
		"nil memory":            {ratelimit.NewDaily((*ratelimit.Memory)(nil), nil), []string{"NewMemory"}},
		"leased, limit":         {ratelimit.NewDaily(badLeased, negative), []string{"without a Lender", "IdleAfter", "Timeout", "DailyOptions.Limit"}},
		"leased of nothing":     {ratelimit.NewDaily(ratelimit.NewLeased((*ratelimit.Memory)(nil), nil), nil), []string{"NewMemory"}},
		"nil leased":            {ratelimit.NewDaily((*ratelimit.Leased)(nil), nil), []string{"without a Lender"}},
		"zero daily":            {&ratelimit.Daily{}, []string{"without a Counter"}},
		"nil daily":             {(*ratelimit.Daily)(nil), []string{"without a Counter"}},
		"burst and keys":        {ratelimit.NewBurst(0, 1, &ratelimit.BurstOptions{MaxKeys: -1}), []string{"positive rate", "BurstOptions.MaxKeys"}},
		"all of none":           {ratelimit.All(), []string{"All of no limiters"}},
		"all with nil":          {ratelimit.All(nil), []string{"All of no limiters"}},
		"what is inside of all": {ratelimit.All(ratelimit.NewBurst(0, 1, nil), ratelimit.NewDaily(nil, nil)), []string{"positive rate", "without a Counter"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := ratelimit.Validate(test.limiter)
			if test.problems == nil {
				require.NoError(t, err)
				_, err = test.limiter.Take(t.Context(), "k", 0)
				require.NoError(t, err)
				return
			}
			require.Error(t, err)
			lines := strings.Split(err.Error(), "\n")
			require.Len(t, lines, len(test.problems), err)
			for i, problem := range test.problems {
				require.Contains(t, lines[i], problem)
			}
			_, taken := test.limiter.Take(t.Context(), "k", 0)
			require.Error(t, taken)
			_, peeked := test.limiter.Peek(t.Context(), "k", 0)
			require.Error(t, peeked)
			require.Contains(t, err.Error(), taken.Error())
			require.Contains(t, err.Error(), peeked.Error())
		})
	}
	require.NoError(t, ratelimit.Validate(nil))
	require.NoError(t, ratelimit.Validate(asking{}), "of another package")
	require.EqualError(t, ratelimit.Validate(ratelimit.NewDaily(badCounter{}, nil)), "bad counter", "which tells")
}

// badCounter is a counter of another package that tells what is wrong with it.
type badCounter struct{ ratelimit.Counter }

func (badCounter) Validate() error { return errors.New("bad counter") }

// asking is a limiter of another package that must not be asked.
type asking struct{ ratelimit.Limiter }

func (asking) Take(context.Context, string, int64) (ratelimit.Result, error) {
	return ratelimit.Result{}, errors.New("asked")
}
