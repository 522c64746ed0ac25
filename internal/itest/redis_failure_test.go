package itest

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/ratelimit"
	"github.com/keystile/keystile/ratelimit/rediscounter"
)

// requireRedisFailures requires of every call that it is a failure that the error
// names, and not one by the timeout.
func requireRedisFailures(t *testing.T, l ratelimit.Lender, calls []redisCall, want string) {
	t.Helper()
	for _, c := range calls {
		err := c.run(t.Context(), l)
		require.NoError(t, notRedisFailure(err), c.name)
		require.ErrorContains(t, err, want, c.name)
		require.NotErrorIs(t, err, context.DeadlineExceeded, c.name)
	}
}

func requireRedisWorks(t *testing.T, l ratelimit.Lender, calls []redisCall) {
	t.Helper()
	for _, c := range calls {
		require.NoError(t, c.run(t.Context(), l), c.name)
	}
}

// TestRedisFull: a server that has no memory left, and evicts nothing, answers
// reads and fails every write (S76).
func TestRedisFull(t *testing.T) {
	t.Parallel()
	client := openRedis(t, startRedis(t, "--maxmemory-policy", "noeviction").URL())
	c := rediscounter.New(client, nil)
	requireRedisWorks(t, c, redisCalls())
	require.NoError(t, client.ConfigSet(t.Context(), "maxmemory", "1").Err())
	requireRedisWorks(t, c, redisReads)
	writes := redisWrites[:3] // Who gives back nothing of a window that is there writes a little.
	requireRedisFailures(t, c, writes, "OOM")
	require.NoError(t, client.ConfigSet(t.Context(), "maxmemory", "0").Err())
	requireRedisWorks(t, c, redisCalls())
}

// TestRedisReplica: a replica fails every write, and every call once it does not
// serve what may be old, so that nothing is admitted by what it knows (S76).
func TestRedisReplica(t *testing.T) {
	t.Parallel()
	client := openRedis(t, startRedis(t).URL())
	c := rediscounter.New(client, nil)
	requireRedisWorks(t, c, redisCalls())
	require.NoError(t, client.ReplicaOf(t.Context(), "127.0.0.1", "1").Err())
	requireRedisFailures(t, c, redisWrites[:3], "READONLY")
	requireRedisWorks(t, c, redisReads)
	require.NoError(t, client.ConfigSet(t.Context(), "replica-serve-stale-data", "no").Err())
	requireRedisFailures(t, c, redisCalls(), "MASTERDOWN")
	require.NoError(t, client.ReplicaOf(t.Context(), "NO", "ONE").Err())
	requireRedisWorks(t, c, redisCalls())
}

// TestRedisCannotSave: a server that is to keep snapshots and cannot write one
// fails every write (S76).
func TestRedisCannotSave(t *testing.T) {
	t.Parallel()
	r := startRedis(t, "--save", "3600 1", "--dbfilename", "dump")
	client := openRedis(t, r.URL())
	c := rediscounter.New(client, nil)
	requireRedisWorks(t, c, redisCalls())
	dump := filepath.Join(filepath.Dir(r.Socket()), "dump")
	require.NoError(t, os.MkdirAll(filepath.Join(dump, "in the way"), 0o700))
	require.NoError(t, client.BgSave(t.Context()).Err())
	require.Eventually(t, func() bool {
		info, err := client.Info(t.Context(), "persistence").Result()
		return err == nil && strings.Contains(info, "rdb_last_bgsave_status:err")
	}, 30*time.Second, time.Millisecond)
	requireRedisFailures(t, c, redisWrites[:3], "MISCONF")
	requireRedisWorks(t, c, redisReads)
}

// TestRedisLoading: a server that is still reading what it has kept fails every
// call (S76).
func TestRedisLoading(t *testing.T) {
	t.Parallel()
	r := startRedis(t, "--save", "3600 1", "--key-load-delay", "2000", "--loading-process-events-interval-bytes", "1024")
	// A client with fewer places would not try all the time.
	client := redis.NewClient(&redis.Options{Network: "unix", Addr: r.Socket(), DialerRetries: 1, PoolSize: 100_000})
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	c := rediscounter.New(client, nil)
	for i := range 200 {
		_, _, err := c.Add(t.Context(), fmt.Sprint(i), testDay, 1, 250)
		require.NoError(t, err)
	}
	require.NoError(t, r.Stop())
	started := make(chan error)
	go func() { started <- r.Start() }()
	loading := 0
	for {
		_, ok, err := c.Add(t.Context(), "7", testDay, 1, 250)
		if ok {
			break
		}
		require.NoError(t, notRedisFailure(err))
		if strings.Contains(err.Error(), "LOADING") {
			loading++
		}
	}
	require.NoError(t, <-started)
	require.Positive(t, loading)
	count, _, err := c.Add(t.Context(), "7", testDay, 0, 0)
	require.NoError(t, err)
	require.EqualValues(t, 2, count)
}

// TestRedisRefuses: who may not connect, or may not run scripts, has no answer
// (S76), and no password is repeated.
func TestRedisRefuses(t *testing.T) {
	t.Parallel()
	r := startRedis(t, "--requirepass", "secret")
	requireRedisFailures(t, rediscounter.New(openRedis(t, r.URL()), nil), redisCalls(), "uthentica")
	wrong := &redis.Options{Network: "unix", Addr: r.Socket(), Password: "wrong secret"}
	client := redis.NewClient(wrong)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	for _, call := range redisCalls() {
		err := call.run(t.Context(), rediscounter.New(client, nil))
		require.NoError(t, notRedisFailure(err))
		require.NotContains(t, err.Error(), "secret")
	}

	right := *wrong
	right.Password = "secret"
	admin := redis.NewClient(&right)
	t.Cleanup(func() { require.NoError(t, admin.Close()) })
	require.NoError(t, admin.ACLSetUser(t.Context(), "other", "on", ">other", "~other:*", "+@all").Err())
	requireRedisWorks(t, rediscounter.New(admin, nil), redisCalls())
	right.Username, right.Password = "other", "other"
	other := redis.NewClient(&right)
	t.Cleanup(func() { require.NoError(t, other.Close()) })
	requireRedisFailures(t, rediscounter.New(other, nil), redisCalls(), "NOPERM")
}

// TestRedisMissingRight: a right that is missing cuts a script off in the middle.
// Nothing is admitted beyond the limit by that, however often it is tried.
func TestRedisMissingRight(t *testing.T) {
	t.Parallel()
	r := startRedis(t)
	admin := openRedis(t, r.URL())
	for _, right := range leastRights[5:] {
		require.NoError(t, admin.ACLSetUser(t.Context(), "less", append(slices.Clone(leastRights), "-"+right[1:])...).Err())
		client := redis.NewClient(&redis.Options{Network: "unix", Addr: r.Socket(), Username: "less", Password: "secret"})
		t.Cleanup(func() { require.NoError(t, client.Close()) })
		full, less := rediscounter.New(admin, nil), rediscounter.New(client, nil)
		loan, err := full.Lend(t.Context(), "account", right, testDay, 0, 10, 250, testDay)
		require.NoError(t, err)
		require.EqualValues(t, 10, loan.Lent)
		var admitted int64
		for range 5 {
			if _, ok, _ := less.Add(t.Context(), right, testDay, 1, 250); ok {
				admitted++
			}
			_, _ = less.Lend(t.Context(), "account", right, testDay, 4, 0, 250, testDay)
			_, _ = less.Lend(t.Context(), "account", "other "+right, testDay, 0, 10, 250, testDay)
		}
		loan, err = full.Lend(t.Context(), "account", right, testDay, 4, 0, 250, testDay)
		require.NoError(t, err)
		require.EqualValues(t, 4, loan.Lent, right)
		require.GreaterOrEqual(t, loan.Count, loan.Lent+admitted, right)
		loan, err = full.Lend(t.Context(), "account", "other "+right, testDay, 0, 10, 250, testDay)
		require.NoError(t, err)
		require.GreaterOrEqual(t, loan.Count, loan.Lent, right)
	}
}

// TestRedisClosed: a client that was closed is a failure.
func TestRedisClosed(t *testing.T) {
	t.Parallel()
	client, err := rediscounter.Open(redisServer(t).URL())
	require.NoError(t, err)
	c := rediscounter.New(client, nil)
	requireRedisWorks(t, c, redisCalls())
	require.NoError(t, client.Close())
	requireRedisFailures(t, c, redisCalls(), "closed")
}

// TestRedisDamaged: what the package cannot have written is a failure of what
// reads it, and is not repeated (S76).
func TestRedisDamaged(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(ctx context.Context, f *redisFixture, count, accounts string) error{
		"other type": func(ctx context.Context, f *redisFixture, _, _ string) error {
			return f.client.Set(ctx, f.prefix+"k", "secret", 0).Err()
		},
		"count": func(ctx context.Context, f *redisFixture, count, _ string) error {
			return f.client.HSet(ctx, f.prefix+"k", count, "secret").Err()
		},
		"empty count": func(ctx context.Context, f *redisFixture, count, _ string) error {
			return f.client.HSet(ctx, f.prefix+"k", count, "").Err()
		},
		"accounts": func(ctx context.Context, f *redisFixture, _, accounts string) error {
			return f.client.HSet(ctx, f.prefix+"k", accounts, "secret").Err()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newRedisFixture(t)
			_, err := f.Lend(t.Context(), "account", "k", testDay, 0, 10, 1000, testDay)
			require.NoError(t, err)
			window := fmt.Sprint(testDay.Unix(), ".0")
			exists, err := f.client.HExists(t.Context(), f.prefix+"k", window+" accounts").Result()
			require.NoError(t, err)
			require.True(t, exists)
			require.NoError(t, damage(t.Context(), f, window, window+" accounts"))
			for _, call := range redisCalls() {
				if strings.Contains(call.name, "new") || strings.Contains(call.name, "nothing") {
					continue
				}
				if name == "accounts" && !strings.HasPrefix(call.name, "Lend") {
					continue
				}
				err := call.run(t.Context(), f.Counter)
				require.NoError(t, notRedisFailure(err), call.name)
				require.NotContains(t, err.Error(), "secret", call.name)
			}
		})
	}
}

// redisPlaces is how many connections a client of redisThrough has.
const redisPlaces = 8

// redisThrough returns a client whose connections go through what wrap returns, with
// the settings that go-redis has by itself: it would send commands up to four times.
func redisThrough(t *testing.T, wrap func(net.Conn) net.Conn) *redis.Client {
	t.Helper()
	socket := redisServer(t).Socket()
	client := redis.NewClient(&redis.Options{PoolSize: redisPlaces, Dialer: func(ctx context.Context, _, _ string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
		if err != nil {
			return nil, err
		}
		return wrap(conn), nil
	}})
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	return client
}

// TestRedisLostAnswer loses the connection when the server has counted and before
// it could say so. Whether it was done is not known then: it is a failure, and is
// not done a second time, whatever the client would do. A loan is not lent twice
// when it is asked for again.
func TestRedisLostAnswer(t *testing.T) {
	t.Parallel()
	f := newRedisFixture(t)
	requireRedisWorks(t, f.Counter, redisCalls()) // The server has the scripts.
	var statement atomic.Pointer[string]
	statement.Store(new("evalsha"))
	deaf := rediscounter.New(redisThrough(t, func(conn net.Conn) net.Conn {
		return &deafConn{Conn: conn, statement: &statement}
	}), &rediscounter.Options{Prefix: f.prefix})
	for n := range 5 {
		_, ok, err := deaf.Add(t.Context(), "lost", testDay, 1, 250)
		require.NoError(t, notRedisFailure(counted(ok, err)))
		count, _, err := f.Add(t.Context(), "lost", testDay, 0, 0)
		require.NoError(t, err)
		require.EqualValues(t, n+1, count, "it was done once")
	}
	for range 3 {
		_, err := deaf.Lend(t.Context(), "account", "lent", testDay, 0, 10, 250, testDay)
		require.NoError(t, notRedisFailure(err))
	}
	loan, err := f.Lend(t.Context(), "account", "lent", testDay, 0, 10, 250, testDay)
	require.NoError(t, err)
	require.Equal(t, ratelimit.Loan{Lent: 10, Count: 10}, loan)
}

// TestRedisLateAnswers has a hundred calls given up while the server is suspended.
// When it goes on, their answers must not be taken for those of other calls (F51).
func TestRedisLateAnswers(t *testing.T) {
	t.Parallel()
	r := startRedis(t)
	unset := redis.NewClient(&redis.Options{Network: "unix", Addr: r.Socket(), PoolSize: 4})
	t.Cleanup(func() { require.NoError(t, unset.Close()) })
	for name, client := range map[string]*redis.Client{"recommended": openRedis(t, r.URL()), "default": unset} {
		c := rediscounter.New(client, &rediscounter.Options{Prefix: name})
		for i := range 100 {
			_, ok, err := c.Add(t.Context(), fmt.Sprint(i), testDay, int64(1000*i+1), 1<<40)
			require.NoError(t, err)
			require.True(t, ok)
		}
		each := func(timeout time.Duration, f func(i int, count int64, err error)) {
			var wg sync.WaitGroup
			for i := range 100 {
				wg.Go(func() {
					ctx, cancel := context.WithTimeout(t.Context(), timeout)
					defer cancel()
					count, _, err := c.Add(ctx, fmt.Sprint(i), testDay, 0, 0)
					f(i, count, err)
				})
			}
			wg.Wait()
		}
		r.Pause()
		each(50*time.Millisecond, func(_ int, _ int64, err error) {
			if err := notRedisFailure(err); err != nil {
				t.Error(err)
			}
		})
		r.Continue()
		for range 5 {
			each(time.Minute, func(i int, count int64, err error) {
				if err == nil && count != int64(1000*i+1) {
					t.Errorf("%s: the answer to %d is %d", name, i, count)
				}
			})
		}
	}
}

// TestRedisEndedContext: a context ends a call, also one that is canceled while the
// server hangs, and whatever the client makes of contexts.
func TestRedisEndedContext(t *testing.T) {
	t.Parallel()
	r := startRedis(t)
	client := redis.NewClient(&redis.Options{Network: "unix", Addr: r.Socket()})
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	c := rediscounter.New(client, &rediscounter.Options{Timeout: time.Hour})
	requireRedisWorks(t, c, redisCalls())
	r.Pause()
	for _, call := range redisCalls() {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(20*time.Millisecond, cancel)
		err := call.run(ctx, c)
		require.NoError(t, notRedisFailure(err), call.name)
		require.ErrorIs(t, err, context.Canceled, call.name)
	}
	c = rediscounter.New(client, &rediscounter.Options{Timeout: 20 * time.Millisecond})
	for _, call := range redisCalls() {
		err := call.run(t.Context(), c)
		require.NoError(t, notRedisFailure(err), call.name)
		require.ErrorIs(t, err, context.DeadlineExceeded, call.name)
	}
	r.Continue()
}

// A cutConn is a connection that leads nowhere when it is cut: nothing arrives, and
// nobody says so.
type cutConn struct {
	net.Conn
	cut *atomic.Bool
}

func (c *cutConn) Write(b []byte) (int, error) {
	if c.cut.Load() {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

// TestRedisHalfOpen has the connections of a client lead nowhere, while new ones
// work: a call for each of them fails by the timeout, and then all is well.
func TestRedisHalfOpen(t *testing.T) {
	t.Parallel()
	const timeout = time.Second // for a call that works, on a busy machine
	f := newRedisFixture(t)
	var now atomic.Pointer[atomic.Bool]
	now.Store(new(atomic.Bool))
	client := redisThrough(t, func(conn net.Conn) net.Conn { return &cutConn{conn, now.Load()} })
	client.Options().ContextTimeoutEnabled = true // as Open does
	c := rediscounter.New(client, &rediscounter.Options{Prefix: f.prefix, Timeout: timeout})
	for client.PoolStats().IdleConns < redisPlaces {
		var wg sync.WaitGroup
		for range 4 * redisPlaces {
			wg.Go(func() { _, _, _ = c.Add(t.Context(), "k", testDay, 1, 250) })
		}
		wg.Wait()
	}
	before, _, err := f.Add(t.Context(), "k", testDay, 0, 0)
	require.NoError(t, err)

	now.Swap(new(atomic.Bool)).Store(true)
	began, failed := time.Now(), 0
	for {
		_, ok, err := c.Add(t.Context(), "k", testDay, 1, 1<<40)
		if ok {
			break
		}
		require.NoError(t, notRedisFailure(err))
		failed++
	}
	t.Logf("%d calls failed with %d connections, within %s", failed, redisPlaces, time.Since(began).Round(time.Millisecond))
	require.LessOrEqual(t, failed, redisPlaces)
	after, _, err := f.Add(t.Context(), "k", testDay, 0, 0)
	require.NoError(t, err)
	require.Equal(t, before+1, after)
}
