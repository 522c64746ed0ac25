package itest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/store/keys"
	"github.com/keystile/keystile/store/postgresstore"
)

// A node starts examples/postgres with a database.
func node(t testing.TB, dsn string, args ...string) *quickstart {
	t.Helper()
	binary, err := buildPostgres()
	require.NoError(t, err)
	return startExample(t, exec.Command(binary, append([]string{"-dsn", dsn}, args...)...))
}

// TestPostgresExample has two nodes on one database: a key works on both (S16), the
// limit is one for both (S61, S63), what they count is kept, and a key that a third
// one revokes is soon refused by both (S19, S46).
func TestPostgresExample(t *testing.T) {
	t.Parallel()
	postgres(t) // skips where there is none
	oneDay(t, time.Now, func(t testing.TB) {
		dsn, _ := newSchema(t)
		a := node(t, dsn, "-limit", "5")
		tok := a.token
		require.NotEmpty(t, tok)
		b := node(t, dsn, "-limit", "5")
		require.Empty(t, b.token, "a token is shown once")
		for range 2 {
			for _, q := range []*quickstart{a, b} {
				status, body := q.get("/v1/ping", tok)
				require.Equal(t, 200, status)
				require.Equal(t, "pong from the protected handler", body)
			}
		}
		require.EqualValues(t, 4, a.used(tok))
		status, _ := a.get("/v1/ping", tok)
		require.Equal(t, 200, status)
		for _, q := range []*quickstart{a, b} {
			status, body := q.get("/v1/ping", tok)
			require.Equal(t, 429, status)
			require.Contains(t, body, `"code":"RateLimitExceeded"`)
		}

		require.Zero(t, a.stop())
		a = node(t, dsn, "-new", "-limit", "5")
		require.EqualValues(t, 5, a.used(tok), "counts are kept")
		status, _ = b.get("/v1/ping", a.token)
		require.Equal(t, 200, status, "a key of another node works at once")

		s, err := postgresstore.New(openPool(t, dsn), nil)
		require.NoError(t, err)
		mgr, err := keys.New(s, nil)
		require.NoError(t, err)
		require.NoError(t, mgr.Revoke(t.Context(), keys.Actor{Role: keys.Operator}, keys.Ref{Org: "demo", ID: a.token[:17]}))
		for _, q := range []*quickstart{a, b} {
			// That the feed tells, and not the end of what is cached, TestPostgresRevocationLatency shows.
			began := time.Now()
			for status = 200; status == 200; status, _ = q.get("/v1/usage", a.token) {
				require.Less(t, time.Since(began), tooLong, "the key still works")
			}
			t.Logf("refused after %v", time.Since(began).Round(time.Millisecond))
			require.Equal(t, 401, status)
		}
		require.Zero(t, a.stop())
		require.Zero(t, b.stop())
	})
}

// TestPostgresExampleEnvironment: without -dsn it connects as the environment says.
func TestPostgresExampleEnvironment(t *testing.T) {
	t.Parallel()
	p := postgres(t)
	name := fmt.Sprintf("example%d", schemas.Add(1))
	mustExec(t, openPool(t, p.DSN()), "CREATE DATABASE "+name)
	binary, err := buildPostgres()
	require.NoError(t, err)
	cmd := exec.Command(binary)
	cmd.Env = append(os.Environ(), "PGHOST="+p.Dir(), "PGUSER=test", "PGDATABASE="+name)
	q := startExample(t, cmd)
	status, _ := q.get("/v1/ping", q.token)
	require.Equal(t, 200, status)
	require.Zero(t, q.stop())
	var keys int
	require.NoError(t, openPool(t, p.DSN("dbname="+name)).QueryRow("SELECT count(*) FROM keystile_keys").Scan(&keys))
	require.Equal(t, 1, keys)
}

// TestPostgresExampleBadFlags: bad input gets a clear error.
func TestPostgresExampleBadFlags(t *testing.T) {
	t.Parallel()
	binary, err := buildPostgres()
	require.NoError(t, err)
	nowhere := "host=" + filepath.Join(t.TempDir(), "missing")
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"-limit", "0"}, "-limit"},
		{[]string{"extra"}, "extra"},
		{[]string{"-dsn", "port=nonsense"}, "port"},
		{[]string{"-dsn", nowhere}, "missing"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		out, err := exec.CommandContext(ctx, binary, test.args...).CombinedOutput()
		cancel()
		require.Error(t, err, test.args)
		require.Contains(t, string(out), test.want)
	}
}
