package itest

import (
	"context"
	"net/http"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/internal/itest/servers"
)

var buildRedis = sync.OnceValues(func() (string, error) { return buildExample("redis") })

// redisNode starts examples/redis with a file and a server.
func redisNode(t testing.TB, file string, r *servers.Redis, args ...string) *quickstart {
	t.Helper()
	binary, err := buildRedis()
	require.NoError(t, err)
	return startExample(t, exec.Command(binary, append([]string{"-db", file, "-redis", r.URL()}, args...)...))
}

// TestRedisExample has two processes with one file and one server: the limit is one
// for both (S61, S63) and is used up whole, although they lease; what they count is
// kept when both have ended; and while the server is away, the answer is 503 (S76).
func TestRedisExample(t *testing.T) {
	t.Parallel()
	const limit = 40
	r := startRedis(t, "--appendonly", "yes")
	oneDay(t, time.Now, func(t testing.TB) {
		file := filepath.Join(t.TempDir(), "keys.db")
		a := redisNode(t, file, r, "-limit", "40")
		tok := a.token
		require.NotEmpty(t, tok)
		b := redisNode(t, file, r, "-limit", "40")
		require.Empty(t, b.token, "a token is shown once")
		admitted := 0
		deadline := time.Now().Add(30 * time.Second)
		for refusals := 0; refusals < 10; {
			for _, q := range []*quickstart{a, b} {
				switch status, body := q.get("/v1/ping", tok); status {
				case http.StatusOK:
					admitted++
					refusals = 0
				case http.StatusTooManyRequests:
					require.Contains(t, body, `"code":"RateLimitExceeded"`)
					// Early ones are those while the other has units that it does not use.
					if admitted == limit {
						refusals++
					}
				default:
					require.FailNow(t, body, status)
				}
			}
			require.True(t, time.Now().Before(deadline), "%d of %d were admitted", admitted, limit)
		}
		require.Equal(t, limit, admitted)
		require.Zero(t, a.stop())
		require.Zero(t, b.stop())

		a = redisNode(t, file, r, "-new", "-limit", "40")
		require.EqualValues(t, limit, a.used(tok), "counts are kept")
		status, _ := a.get("/v1/ping", tok)
		require.Equal(t, http.StatusTooManyRequests, status)
		require.Zero(t, a.used(a.token), "another key has a limit of its own")
		require.NoError(t, r.Stop())
		status, _ = a.get("/v1/ping", a.token)
		require.Equal(t, http.StatusServiceUnavailable, status)
		require.NoError(t, r.Start())
		require.Eventually(t, func() bool {
			status, _ := a.get("/v1/ping", a.token)
			return status == http.StatusOK
		}, 30*time.Second, time.Millisecond)
		require.EqualValues(t, limit, a.used(tok), "still")
		require.Zero(t, a.stop())
	})
}

// TestRedisExampleBadFlags: bad input gets a clear error, without the password that
// may be in it.
func TestRedisExampleBadFlags(t *testing.T) {
	t.Parallel()
	binary, err := buildRedis()
	require.NoError(t, err)
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"-limit", "0"}, "-limit"},
		{[]string{"extra"}, "extra"},
		{[]string{"-redis", "redis://user:secret@host:port"}, "not the URL of a server"},
		{[]string{"-redis", "unix://" + filepath.Join(t.TempDir(), "missing")}, "missing"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		cmd := exec.CommandContext(ctx, binary, test.args...)
		cmd.Dir = t.TempDir()
		out, err := cmd.CombinedOutput()
		cancel()
		require.Error(t, err, test.args)
		require.Contains(t, string(out), test.want)
		require.NotContains(t, string(out), "secret")
	}
}
