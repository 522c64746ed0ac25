package oidcauth_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/middleware/oidcauth"
	"github.com/keystile/keystile/policy"
)

// Section 5.3: a verified token is remembered until the earlier of exp and a minute.
// How often Users is asked shows how often it was verified.
func TestCache_UntilExpOrMinute(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		lifetime time.Duration
		until    time.Duration
	}{
		{"a minute", time.Hour, time.Minute},
		{"exp", 20 * time.Second, 20 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var known people
				a := open(t, shared(), oidcauth.Options{Users: &known})
				token := shared().AccessToken("alice", map[string]any{"exp": time.Now().Add(tt.lifetime).Unix()})
				first := accepted(t, a, token)
				require.Equal(t, 1, known.reads)
				time.Sleep(tt.until - 1)
				require.Same(t, first, accepted(t, a, token))
				require.Equal(t, 1, known.reads)
				time.Sleep(time.Nanosecond)
				require.NotSame(t, first, accepted(t, a, token))
				require.Equal(t, 2, known.reads)
			})
		})
	}
}

// Within the leeway a token is accepted, but not remembered; then it is refused, S65.
func TestCache_NotPastExp_S65(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var known people
		a := open(t, shared(), oidcauth.Options{Users: &known, CacheSize: 1})
		token := shared().AccessToken("alice", nil)
		time.Sleep(time.Hour)
		other := shared().AccessToken("bob", nil)
		accepted(t, a, other)
		accepted(t, a, token)
		accepted(t, a, token)
		require.Equal(t, 3, known.reads)
		accepted(t, a, other)
		require.Equal(t, 3, known.reads, "nor does it push another out")
		time.Sleep(30 * time.Second)
		refused(t, a, token, "token has expired")
	})
}

// Tokens that differ in anything are different tokens, and a refusal is never
// remembered.
func TestCache_WholeToken(t *testing.T) {
	t.Parallel()
	a := open(t, shared(), oidcauth.Options{})
	good, other := shared().AccessToken("alice", nil), shared().AccessToken("alice", nil)
	accepted(t, a, good)
	refused(t, a, good[:len(good)-342]+other[len(other)-342:], "signature is wrong")
	accepted(t, a, good)
	accepted(t, a, other)
}

// The cache is bounded: it drops what has ended first, and something otherwise.
func TestCache_Bounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var known people
		a := open(t, shared(), oidcauth.Options{Users: &known, CacheSize: 4})
		verified := func(tokens ...string) int {
			before := known.reads
			for _, token := range tokens {
				accepted(t, a, token)
			}
			return known.reads - before
		}
		short := make([]string, 4)
		for i := range short {
			short[i] = shared().AccessToken(fmt.Sprint("short", i), map[string]any{"exp": time.Now().Add(10 * time.Second).Unix()})
		}
		require.Equal(t, 4, verified(short...))
		require.Zero(t, verified(short...))
		time.Sleep(10 * time.Second)
		long := make([]string, 5)
		for i := range long {
			long[i] = shared().AccessToken(fmt.Sprint("long", i), nil)
		}
		require.Equal(t, 4, verified(long[:4]...))
		require.Zero(t, verified(long[:4]...), "the ended ones made room")
		require.Equal(t, 1, verified(long[4]))
		require.Zero(t, verified(long[4]), "the newest is in")
		require.GreaterOrEqual(t, verified(long...), 1, "one of five is not")
	})
}

// With -1 nothing is remembered.
func TestCache_None(t *testing.T) {
	t.Parallel()
	var known people
	a := open(t, shared(), oidcauth.Options{Users: &known, CacheSize: -1})
	token := shared().AccessToken("alice", nil)
	for range 3 {
		accepted(t, a, token)
	}
	require.Equal(t, 3, known.reads)
}

// 100 callers with 10 tokens, good and bad, while the keys are fetched: each gets the
// answer that its token deserves, and there is one fetch.
func TestAuthenticate_Concurrent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := open(t, shared(), oidcauth.Options{HTTPClient: slow(shared(), time.Second), CacheSize: 3})
		tokens := make([]string, 10)
		for i := range tokens {
			tokens[i] = shared().AccessToken(fmt.Sprint("user", i), nil)
			if i%2 == 1 {
				tokens[i] = tokens[i][:len(tokens[i])-342] + tokens[i-1][len(tokens[i-1])-342:]
			}
		}
		var good, bad atomic.Int64
		var wg sync.WaitGroup
		for n := range 100 {
			wg.Go(func() {
				i := n % len(tokens)
				for range 10 {
					p, err := a.Authenticate(bearer(tokens[i]))
					switch {
					case err != nil:
						bad.Add(1)
					case p.User == fmt.Sprint("user", i) && p.Credential == policy.JWT:
						good.Add(1)
					}
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, 500, good.Load())
		require.EqualValues(t, 500, bad.Load())
	})
}
