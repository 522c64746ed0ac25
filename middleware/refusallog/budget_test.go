//go:build !race

package refusallog_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/middleware"
	"github.com/keystile/keystile/middleware/refusallog"
	"github.com/keystile/keystile/policy"
)

// TestAllocBudget: a request that is let through, and one that is left out, cost no
// allocation.
func TestAllocBudget(t *testing.T) {
	l := newLog(t, new(memory), &refusallog.Options{PerMinute: 1})
	for _, test := range []struct {
		name  string
		event middleware.Event
	}{
		{"let through", middleware.Event{}},
		{"over a quota", refusal(429, policy.DailyLimit)},
		{"left out", refusal(401, policy.InvalidToken)},
	} {
		l.Observe(request, test.event)
		require.Zero(t, testing.AllocsPerRun(100, func() { l.Observe(request, test.event) }), test.name)
	}
	require.NoError(t, l.Close(t.Context()))
}
