package itest

import (
	"fmt"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/internal/itest/servers"
	"github.com/keystile/keystile/ratelimit"
	"github.com/keystile/keystile/ratelimit/ratelimittest"
	"github.com/keystile/keystile/ratelimit/rediscounter"
)

// TestRedisCluster runs the conformance suites on a cluster of three servers from
// two machines. A script that touched keys of two slots, or one that it did not
// declare, would be an error there.
func TestRedisCluster(t *testing.T) {
	t.Parallel()
	cluster, err := servers.StartRedisCluster(3)
	servers.Check(t, err)
	t.Cleanup(func() { require.NoError(t, cluster.Close()) })
	client := func() redis.UniversalClient {
		c := redis.NewUniversalClient(&redis.UniversalOptions{Addrs: cluster.Addrs(), ContextTimeoutEnabled: true})
		t.Cleanup(func() { require.NoError(t, c.Close()) })
		return c
	}
	require.IsType(t, (*redis.ClusterClient)(nil), client())
	l := redisPair(t, client, "")
	ratelimittest.Run(t, func(*testing.T) ratelimit.Counter { return l })
	ratelimittest.RunLender(t, func(*testing.T) ratelimit.Lender { return l })

	c := rediscounter.New(client(), &rediscounter.Options{Prefix: "spread:"})
	for i := range 300 {
		_, ok, err := c.Add(t.Context(), fmt.Sprintf("csk_live_%08x", i), testDay, 1, 250)
		require.NoError(t, err)
		require.True(t, ok)
	}
	for _, addr := range cluster.Addrs() {
		node := openRedis(t, "redis://"+addr)
		keys, err := node.Keys(t.Context(), "spread:*").Result()
		require.NoError(t, err)
		t.Logf("%s has %d of 300 keys", addr, len(keys))
		require.Greater(t, len(keys), 50, "every node has its part")
	}
}
