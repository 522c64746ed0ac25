package itest

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/internal/itest/servers"
	"github.com/keystile/keystile/store/postgresstore"
)

// TestPostgresOutages has a server of its own stopped, killed and suspended. While
// it is away every call is a failure, no later than its context ends (S76), and
// nothing that was answered with one is half done. When it is back, everything
// works again within a second, without a restart. What was acknowledged before it
// was killed is there (D8).
func TestPostgresOutages(t *testing.T) {
	t.Parallel()
	p, err := servers.StartPostgres()
	servers.Check(t, err)
	t.Cleanup(func() { require.NoError(t, p.Close()) })
	// A call that has hung and is done when the server is back may find it away
	// again; so one after the other.
	t.Run("killed while written to", func(t *testing.T) { killedWhileWrittenTo(t, p) })
	for _, way := range []struct {
		name     string
		down, up func() error
		hangs    bool
	}{
		{name: "stopped", down: p.Stop, up: p.Start},
		{name: "killed", down: p.Kill, up: p.Start},
		{
			name:  "suspended",
			down:  func() error { p.Pause(); return nil },
			up:    func() error { p.Continue(); return nil },
			hangs: true,
		},
	} {
		t.Run(way.name, func(t *testing.T) {
			dsn, _ := newSchemaIn(t, p, openPool(t, p.DSN()))
			f := newFixture(t, newPostgres(t, openPool(t, dsn), nil))
			before := f.state(t)
			calls := append(f.writes(), f.reads()...)
			atOnce(f.reads(), func(c call) { _ = c.run(t.Context(), f.backend) }) // has more than one connection made

			require.NoError(t, way.down())
			const deadline = 200 * time.Millisecond
			atOnce(calls, func(c call) {
				ctx, cancel := context.WithTimeout(t.Context(), deadline)
				defer cancel()
				began := time.Now()
				err := c.run(ctx, f.backend)
				if took := time.Since(began); took > deadline+time.Second {
					t.Errorf("%s took %s", c.name, took)
				}
				if err := notFailure(err); err != nil {
					t.Errorf("%s: %v", c.name, err)
				}
				if way.hangs && ctx.Err() == nil {
					t.Errorf("%s did not wait: %v", c.name, err)
				}
			})
			require.NoError(t, way.up())

			returned := time.Now()
			for works := false; !works; {
				works = true
				for _, c := range f.reads() {
					works = c.run(t.Context(), f.backend) == nil && works
				}
				require.Less(t, time.Since(returned), time.Second)
			}
			f.requireUnchanged(t, before)
			_, ok, err := f.Add(t.Context(), f.key.Family, testDay, 1, 250)
			require.NoError(t, err)
			require.True(t, ok)
		})
	}
}

// atOnce calls f with each of the calls at once.
func atOnce(calls []call, f func(c call)) {
	var wg sync.WaitGroup
	for _, c := range calls {
		wg.Go(func() { f(c) })
	}
	wg.Wait()
}

// killedWhileWrittenTo kills the server, and not its client.
func killedWhileWrittenTo(t *testing.T, p *servers.Postgres) {
	t.Helper()
	dsn, _ := newSchemaIn(t, p, openPool(t, p.DSN()))
	s := newPostgres(t, openPool(t, dsn), nil)
	require.NoError(t, s.PutUser(t.Context(), testUser(1)))
	client := start(t, "postgres write", dsn)
	var acknowledged []string
	for len(acknowledged) < 300 {
		line, ok := client.line()
		require.True(t, ok, "stderr: %s", &client.stderr)
		acknowledged = append(acknowledged, line)
	}
	require.NoError(t, p.Kill())
	for line, ok := client.line(); ok; line, ok = client.line() {
		acknowledged = append(acknowledged, line)
	}
	require.Error(t, client.cmd.Wait(), "its calls must have failed")
	require.Contains(t, client.stderr.String(), "postgresstore: ")

	require.NoError(t, p.Start())
	s, err := postgresstore.New(openPool(t, dsn), nil)
	require.NoError(t, err)
	require.NoError(t, s.Validate(t.Context()))
	requireKept(t, s, acknowledged)
}
