package itest

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/internal/itest/servers"
	"github.com/keystile/keystile/ratelimit"
	"github.com/keystile/keystile/ratelimit/ratelimittest"
	"github.com/keystile/keystile/ratelimit/rediscounter"
)

// What go-redis logs of servers that are away is not worth reading here.
func init() { redis.SetLogger(silent{}) }

type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}

// sharedRedis is the server of all tests that do not harm it.
var sharedRedis = sync.OnceValues(func() (*servers.Redis, error) {
	r, err := servers.StartRedis()
	if err == nil {
		whenOver(r.Close)
	}
	return r, err
})

// redisServer returns the server that tests share.
func redisServer(t testing.TB) *servers.Redis {
	t.Helper()
	r, err := sharedRedis()
	servers.Check(t, err)
	return r
}

// startRedis starts a server for one test.
func startRedis(t testing.TB, settings ...string) *servers.Redis {
	t.Helper()
	r, err := servers.StartRedis(settings...)
	servers.Check(t, err)
	t.Cleanup(func() { require.NoError(t, r.Close()) })
	return r
}

// openRedis opens a client as the package recommends. It is closed when the test
// is over.
func openRedis(t testing.TB, url string) *redis.Client {
	t.Helper()
	client, err := rediscounter.Open(url)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	return client
}

var redisPrefixes atomic.Int64

// newRedisPrefix returns the prefix of a test in the server that tests share.
func newRedisPrefix() string { return fmt.Sprintf("test%d:", redisPrefixes.Add(1)) }

// newRedisCounter returns a counter in the server that tests share, with a prefix
// of its own.
func newRedisCounter(t testing.TB) *rediscounter.Counter {
	t.Helper()
	return rediscounter.New(openRedis(t, redisServer(t).URL()), &rediscounter.Options{Prefix: newRedisPrefix()})
}

// redisPair returns a lender that is two, each with a client of its own.
func redisPair(t testing.TB, client func() redis.UniversalClient, prefix string) ratelimit.Lender {
	t.Helper()
	opts := &rediscounter.Options{Prefix: prefix}
	return &pair{lenders: [2]ratelimit.Lender{
		rediscounter.New(client(), opts),
		rediscounter.New(client(), opts),
	}}
}

// leastRights are what a server has to allow, as package rediscounter says.
var leastRights = []string{
	"on", ">secret", "resetkeys", "~keystile:*", "nocommands",
	"+evalsha", "+eval", "+hget", "+hmget", "+hset", "+hdel", "+hincrby", "+pttl", "+pexpire",
}

// TestRedisCounter runs the conformance suites on a real server from two machines:
// with the clients that the package recommends, with those of a host who set
// nothing, with the older protocol, and with no more rights than needed.
func TestRedisCounter(t *testing.T) {
	t.Parallel()
	url := redisServer(t).URL()
	socket := redisServer(t).Socket()
	own := func(o redis.Options) func(t *testing.T) redis.UniversalClient {
		return func(t *testing.T) redis.UniversalClient {
			t.Helper()
			o.Network, o.Addr = "unix", socket
			client := redis.NewClient(&o)
			t.Cleanup(func() { require.NoError(t, client.Close()) })
			return client
		}
	}
	admin := openRedis(t, url)
	require.NoError(t, admin.ACLSetUser(t.Context(), "least", leastRights...).Err())
	for name, client := range map[string]func(t *testing.T) redis.UniversalClient{
		"recommended":  func(t *testing.T) redis.UniversalClient { t.Helper(); return openRedis(t, url) },
		"default":      own(redis.Options{}),
		"protocol 2":   own(redis.Options{Protocol: 2}),
		"least rights": own(redis.Options{Username: "least", Password: "secret"}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := redisPair(t, func() redis.UniversalClient { return client(t) }, "keystile:"+name)
			ratelimittest.Run(t, func(*testing.T) ratelimit.Counter { return l })
			ratelimittest.RunLender(t, func(*testing.T) ratelimit.Lender { return l })
		})
	}
}

// TestRedisLeased runs the suite of counters on a node that leases from a server.
func TestRedisLeased(t *testing.T) {
	t.Parallel()
	c := newRedisCounter(t)
	ratelimittest.Run(t, func(t *testing.T) ratelimit.Counter {
		t.Helper()
		l := ratelimit.NewLeased(c, nil)
		t.Cleanup(func() { require.NoError(t, l.Close(context.Background())) })
		return l
	})
}
