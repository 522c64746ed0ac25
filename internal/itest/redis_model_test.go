package itest

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/ratelimit"
)

// TestRedisIsLikeMemory makes the same calls, at random, of a counter in Redis and
// of one in memory, which must give the same answers: the arithmetic of the scripts,
// on strings of digits and numbers that are exact to 2^53, is that of int64.
func TestRedisIsLikeMemory(t *testing.T) {
	t.Parallel()
	c := newRedisCounter(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	m := ratelimit.NewMemory()
	// Numbers around those where arithmetic goes wrong, up to max.
	number := func(max int64) int64 {
		edges := []int64{0, 1, 10, 1000, 99_999, 1e15 - 1, 1e15, 1e15 + 1, 9e15, 1 << 53, 1<<53 + 1, 1e16, 1e18, math.MaxInt64}
		n := edges[r.IntN(len(edges))]
		switch r.IntN(4) {
		case 0:
			n -= r.Int64N(2000)
		case 1:
			n -= -r.Int64N(2000) // wraps around
		case 2:
			n = r.Int64N(5000)
		}
		return min(max, n)
	}
	pick := func(of string) string { i := r.IntN(len(of)); return of[i : i+1] }
	for i := range 4000 {
		key, end := pick("kl"), testDay.AddDate(0, 0, r.IntN(10))
		if r.IntN(2) == 0 {
			n, limit := max(number(math.MaxInt64), 0), number(math.MaxInt64)
			count, ok, err := m.Add(t.Context(), key, end, n, limit)
			require.NoError(t, err)
			got, gotOK, err := c.Add(t.Context(), key, end, n, limit)
			require.NoError(t, err)
			require.Equal(t, []any{count, ok}, []any{got, gotOK}, "call %d: Add(%s, %v, %d, %d)", i, key, end, n, limit)
			continue
		}
		account, now := pick("abcdefgh"), testDay.Add(time.Duration(r.IntN(60_000))*time.Millisecond)
		spent, want, limit := max(number(1<<53), 0), number(math.MaxInt64), number(math.MaxInt64)
		if r.IntN(3) > 0 {
			spent = r.Int64N(3000)
		}
		if r.IntN(3) > 0 {
			account += pick("0123456789") // Accounts that have ended lend nothing.
		}
		loan, err := m.Lend(t.Context(), account, key, end, spent, want, limit, now)
		require.NoError(t, err)
		got, err := c.Lend(t.Context(), account, key, end, spent, want, limit, now)
		require.NoError(t, err)
		require.Equal(t, loan, got, "call %d: Lend(%s, %s, %v, %d, %d, %d, %v)", i, account, key, end, spent, want, limit, now)
	}
}
