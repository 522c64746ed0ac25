package itest

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/internal/itest/servers"
	"github.com/keystile/keystile/token"
)

// TestPostgresLimitAcrossProcesses shows S61, S62 and D8: of 300 requests at
// once, 150 in each of two processes, a limit of 250 admits exactly 250.
func TestPostgresLimitAcrossProcesses(t *testing.T) {
	t.Parallel()
	dsn, _ := newSchema(t)
	newPostgres(t, openPool(t, dsn), nil)
	requireLimit(t, together(t, 2, "postgres add", dsn))
}

// TestPostgresCapAcrossProcesses shows S12, S13 and F54: of 50 creations at once,
// 25 in each of two processes, a cap of 5 leaves exactly 5 keys.
func TestPostgresCapAcrossProcesses(t *testing.T) {
	t.Parallel()
	dsn, _ := newSchema(t)
	s := newPostgres(t, openPool(t, dsn), nil)
	require.NoError(t, s.PutUser(t.Context(), testUser(1)))
	requireCap(t, s, together(t, 2, "postgres insert", dsn))
}

// TestPostgresKill kills a process, without a warning, in the middle of creating
// keys, revoking them and counting. What it had acknowledged must be there, and
// the count must be at least what was acknowledged and at most the limit.
func TestPostgresKill(t *testing.T) {
	t.Parallel()
	for _, after := range []int{1, 50, 400} {
		t.Run(fmt.Sprintf("after %d writes", after), func(t *testing.T) {
			t.Parallel()
			dsn, _ := newSchema(t)
			s := newPostgres(t, openPool(t, dsn), nil)
			require.NoError(t, s.PutUser(t.Context(), testUser(1)))
			acknowledged := killed(t, start(t, "postgres write", dsn), after)
			requireKept(t, s, acknowledged)
			require.NoError(t, s.InsertKey(t.Context(), testKey("u1", token.Generate()), nil, -1), "no lock is left")
		})
	}
}

// TestPostgresServerEnds shows of the helper of these tests that a server ends
// with the test binary, even if that is killed.
func TestPostgresServerEnds(t *testing.T) {
	t.Parallel()
	postgres(t)
	p := start(t, "postgres server")
	dsn, ok := p.line()
	require.True(t, ok, "stderr: %s", &p.stderr)
	db := openPool(t, dsn)
	require.NoError(t, db.Ping())
	require.NoError(t, p.cmd.Process.Kill())
	require.Error(t, p.cmd.Wait())
	for db.PingContext(t.Context()) == nil {
		require.NoError(t, t.Context().Err())
	}
}

// serverProgram starts a server of its own and waits to be killed.
func serverProgram(context.Context, []string) error {
	p, err := servers.StartPostgres()
	if err != nil {
		return err
	}
	fmt.Println(p.DSN())
	select {}
}
