package ratelimit_test

import (
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/ratelimit"
	"github.com/keystile/keystile/ratelimit/ratelimittest"
)

func TestMemoryIsALender(t *testing.T) {
	t.Parallel()
	ratelimittest.RunLender(t, func(*testing.T) ratelimit.Lender { return ratelimit.NewMemory() })
}

// all is a want that nothing limits.
const all = math.MaxInt64

func lend(t testing.TB, l ratelimit.Lender, account, key string, end time.Time, spent, want, limit int64, now time.Time) ratelimit.Loan {
	t.Helper()
	loan, err := l.Lend(t.Context(), account, key, end, spent, want, limit, now)
	require.NoError(t, err)
	return loan
}

// The zero Memory answers Lend with an error, as it does Add.
func TestZeroMemoryDoesNotLend(t *testing.T) {
	t.Parallel()
	for _, m := range []*ratelimit.Memory{nil, new(ratelimit.Memory)} {
		_, err := m.Lend(t.Context(), "a", "k", midnight, 0, all, 250, noon)
		require.Error(t, err)
	}
}

// F63: accounts go with their window, those of a key with the key, and those with
// nothing outstanding when they are not live any more. Those of a dead node stay.
func TestMemoryForgetsAccounts(t *testing.T) {
	t.Parallel()
	t.Run("with the window", func(t *testing.T) {
		t.Parallel()
		m := ratelimit.NewMemory()
		for d := range 20 {
			for node := range 3 {
				lend(t, m, fmt.Sprint(node), "k", midnight.Add(time.Duration(d)*day), 0, all, 250, noon)
			}
		}
		require.Equal(t, 8*3, m.Accounts())
	})
	t.Run("with the key", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			m := ratelimit.NewMemory()
			for d := range 3 {
				lend(t, m, "node", "idle", midnight.Add(time.Duration(d)*day), 0, all, 250, noon)
			}
			lend(t, m, "node", "used", midnight, 0, all, 250, noon)
			for range 5 {
				time.Sleep(26 * time.Hour)
				newKeys(t, m, 1000)
				// Also a Lend that lends nothing is a touch.
				lend(t, m, "node", "used", midnight, 0, all, 1, noon)
			}
			require.Equal(t, 1, m.Accounts())
			require.EqualValues(t, 10, add(t, m, "used", midnight, 0))
		})
	})
	t.Run("with nothing outstanding", func(t *testing.T) {
		t.Parallel()
		m := ratelimit.NewMemory()
		for i := range 100 {
			lend(t, m, fmt.Sprint("done ", i), "k", midnight, 0, all, 100_000, noon)
			lend(t, m, fmt.Sprint("done ", i), "k", midnight, 1, 0, 250, noon)
		}
		lend(t, m, "dead", "k", midnight, 0, all, 100_000, noon)
		require.Equal(t, 101, m.Accounts())
		lend(t, m, "live", "k", midnight, 0, all, 100_000, noon.Add(ratelimit.LoanTime))
		require.Equal(t, 2, m.Accounts())
		require.EqualValues(t, 2100, add(t, m, "k", midnight, 0))
	})
}

// A loan is sized by what is left, among so many nodes.
func TestLoanSize(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name        string
		limit, left int64
		nodes       int
		size        int64
	}{
		{"default limit", 250, 250, 1, 10},
		{"default limit, 16 nodes", 250, 250, 16, 7},
		{"1 %", 10_000, 10_000, 16, 100},
		{"half of what is left", 10_000, 100, 1, 50},
		{"a share of half of what is left", 10_000, 100, 4, 12},
		{"at least one", 10_000, 3, 16, 1},
		{"the last", 10_000, 1, 1, 1},
		{"none", 10_000, 0, 1, 0},
		{"beyond the limit", 10_000, -5, 1, 0},
		{"large", 1e6, 1e6, 1, 1000},
		{"unlimited", math.MaxInt64, math.MaxInt64, 1, 1000},
		{"many nodes", math.MaxInt64, math.MaxInt64, math.MaxInt32, 1000},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, test.size, ratelimit.LoanSize(test.limit, test.left, test.nodes))
		})
	}
}
