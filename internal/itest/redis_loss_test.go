package itest

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/internal/itest/servers"
	"github.com/keystile/keystile/ratelimit"
	"github.com/keystile/keystile/ratelimit/rediscounter"
)

// TestRedisLosesCounts shows what package rediscounter warns of. A server that was
// emptied, that was restarted and keeps nothing on the disk, or that may evict
// keys, admits the limit of the day once more: nobody could tell that its counts
// were not always 0.
func TestRedisLosesCounts(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(t *testing.T, r *servers.Redis){
		"FLUSHALL": func(t *testing.T, r *servers.Redis) {
			t.Helper()
			require.NoError(t, openRedis(t, r.URL()).FlushAll(t.Context()).Err())
		},
		"restart": func(t *testing.T, r *servers.Redis) {
			t.Helper()
			require.NoError(t, r.Stop())
			require.NoError(t, r.Start())
		},
		"eviction": func(t *testing.T, r *servers.Redis) {
			t.Helper()
			client := openRedis(t, r.URL())
			require.NoError(t, client.ConfigSet(t.Context(), "maxmemory-policy", "allkeys-lru").Err())
			require.NoError(t, client.ConfigSet(t.Context(), "maxmemory", "1").Err())
			_ = client.Set(t.Context(), "others", "data", 0).Err()
			require.NoError(t, client.ConfigSet(t.Context(), "maxmemory", "0").Err())
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := startRedis(t)
			c := rediscounter.New(openRedis(t, r.URL()), nil)
			loan, err := c.Lend(t.Context(), "account", "k", testDay, 0, 10, 250, testDay)
			require.NoError(t, err)
			require.EqualValues(t, 10, loan.Lent)
			_, ok, err := c.Add(t.Context(), "k", testDay, 240, 250)
			require.NoError(t, err)
			require.True(t, ok)
			lose(t, r)

			var count int64
			require.Eventually(t, func() bool {
				count, ok, err = c.Add(t.Context(), "k", testDay, 1, 250)
				return err == nil
			}, 30*time.Second, time.Millisecond)
			require.True(t, ok)
			require.EqualValues(t, 1, count)
			// Who holds a loan of before goes on with another: the old one is spent.
			loan, err = c.Lend(t.Context(), "account", "k", testDay, 7, 10, 250, testDay)
			require.NoError(t, err)
			require.Equal(t, ratelimit.Loan{Lent: 17, Count: 11}, loan)
		})
	}
}

// TestRedisKeepsCounts shows the settings that prevent it. With appendonly what was
// acknowledged is there when the server was stopped or killed in the middle of
// counting, whenever it syncs the disk; how often it does matters when the machine
// fails. A server that is out of memory and may not evict refuses: TestRedisFull.
func TestRedisKeepsCounts(t *testing.T) {
	t.Parallel()
	for _, sync := range []string{"everysec", "always"} {
		for name, down := range map[string]func(r *servers.Redis) error{
			"stopped": (*servers.Redis).Stop,
			"killed":  (*servers.Redis).Kill,
		} {
			t.Run(sync+"/"+name, func(t *testing.T) {
				t.Parallel()
				r := startRedis(t, "--appendonly", "yes", "--appendfsync", sync, "--maxmemory-policy", "noeviction")
				keepsCounts(t, r, down)
			})
		}
	}
}

func keepsCounts(t *testing.T, r *servers.Redis, down func(r *servers.Redis) error) {
	t.Helper()
	const callers = 8
	c := rediscounter.New(openRedis(t, r.URL()), nil)
	loan, err := c.Lend(t.Context(), "account", "lent", testDay, 0, 10, 250, testDay)
	require.NoError(t, err)
	require.EqualValues(t, 10, loan.Lent)

	var acknowledged atomic.Int64
	enough := make(chan struct{})
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for {
				if _, ok, _ := c.Add(context.Background(), "k", testDay, 1, 1<<40); !ok {
					return
				}
				if acknowledged.Add(1) == 1000 {
					close(enough)
				}
			}
		})
	}
	<-enough
	require.NoError(t, down(r))
	wg.Wait()
	require.NoError(t, r.Start())

	var count int64
	require.Eventually(t, func() bool {
		count, _, err = c.Add(t.Context(), "k", testDay, 0, 0)
		return err == nil
	}, 30*time.Second, time.Millisecond)
	t.Logf("%d were acknowledged, %d are counted", acknowledged.Load(), count)
	require.GreaterOrEqual(t, count, acknowledged.Load())
	require.LessOrEqual(t, count, acknowledged.Load()+callers, "one call each may have been cut off")
	loan, err = c.Lend(t.Context(), "account", "lent", testDay, 4, 10, 250, testDay)
	require.NoError(t, err)
	require.Equal(t, ratelimit.Loan{Lent: 14, Count: 14}, loan)
}

// TestRedisFailover shows what a replica that takes over does not know: what the
// old server acknowledges meanwhile. With min-replicas-to-write that one refuses to
// count when it has lost its replica.
func TestRedisFailover(t *testing.T) {
	t.Parallel()
	port, err := servers.FreePort()
	require.NoError(t, err)
	client := openRedis(t, startRedis(t, "--bind", "127.0.0.1", "--port", port, "--repl-diskless-sync-delay", "0").URL())
	promoted := openRedis(t, startRedis(t, "--replicaof", "127.0.0.1 "+port).URL())
	old, next := rediscounter.New(client, nil), rediscounter.New(promoted, nil)
	add := func(c *rediscounter.Counter, n, want int64) {
		t.Helper()
		count, ok, err := c.Add(t.Context(), "k", testDay, n, 250)
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, want, count)
	}
	add(old, 100, 100)
	require.Eventually(t, func() bool {
		count, _, err := next.Add(t.Context(), "k", testDay, 0, 0)
		return err == nil && count == 100
	}, 30*time.Second, time.Millisecond)

	require.NoError(t, promoted.ReplicaOf(t.Context(), "NO", "ONE").Err())
	add(old, 100, 200)
	add(next, 150, 250) // 350 in all
	require.NoError(t, client.ConfigSet(t.Context(), "min-replicas-to-write", "1").Err())
	requireRedisFailures(t, old, redisWrites[:3], "NOREPLICAS")
}
