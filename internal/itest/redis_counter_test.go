package itest

import (
	"context"
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/internal/itest/servers"
	"github.com/keystile/keystile/ratelimit"
	"github.com/keystile/keystile/ratelimit/rediscounter"
)

// A redisBackend is a counter for programs that only count.
type redisBackend struct {
	backend
	c *rediscounter.Counter
}

func (b redisBackend) Add(ctx context.Context, key string, end time.Time, n, max int64) (count int64, ok bool, err error) {
	return b.c.Add(ctx, key, end, n, max)
}

// redisProgram is on for a counter in the server that the first argument names,
// under the prefix that the second one is.
func redisProgram(run func(ctx context.Context, s backend) error) program {
	return func(ctx context.Context, args []string) error {
		client, err := rediscounter.Open(args[0])
		if err != nil {
			return err
		}
		return run(ctx, redisBackend{c: rediscounter.New(client, &rediscounter.Options{Prefix: args[1]})})
	}
}

// TestRedisTwoProcesses: a limit of 250 admits 250 of 300 requests that two
// processes make at once (S61, S62, D8).
func TestRedisTwoProcesses(t *testing.T) {
	t.Parallel()
	requireLimit(t, together(t, 2, "redis add", redisServer(t).URL(), newRedisPrefix()))
}

// redisServerProgram starts a server of its own, suspends it if it is told to, and
// waits to be killed.
func redisServerProgram(_ context.Context, args []string) error {
	r, err := servers.StartRedis()
	if err != nil {
		return err
	}
	fmt.Println(r.URL())
	if args[0] == "suspended" {
		r.Pause()
	}
	select {}
}

// TestRedisServerEnds shows of the helper of these tests that a server ends with
// the test binary, even if that is killed, and even if the server is suspended.
func TestRedisServerEnds(t *testing.T) {
	t.Parallel()
	redisServer(t)
	for _, state := range []string{"running", "suspended"} {
		p := start(t, "redis server", state)
		url, ok := p.line()
		require.True(t, ok, "stderr: %s", &p.stderr)
		client := openRedis(t, url)
		if state == "running" {
			require.NoError(t, client.Ping(t.Context()).Err())
		}
		require.NoError(t, p.cmd.Process.Kill())
		require.Error(t, p.cmd.Wait())
		require.Eventually(t, func() bool {
			conn, err := new(net.Dialer).DialContext(t.Context(), "unix", client.Options().Addr)
			if err == nil {
				_ = conn.Close()
			}
			return err != nil
		}, 30*time.Second, time.Millisecond)
		require.NoError(t, os.RemoveAll(filepath.Dir(client.Options().Addr)))
	}
}

// A redisFixture is a counter under a prefix of its own, and another client of its
// server.
type redisFixture struct {
	*rediscounter.Counter
	client *redis.Client
	prefix string
}

func newRedisFixture(t *testing.T) *redisFixture {
	t.Helper()
	f := &redisFixture{client: openRedis(t, redisServer(t).URL()), prefix: newRedisPrefix()}
	f.Counter = rediscounter.New(f.client, &rediscounter.Options{Prefix: f.prefix})
	return f
}

// keys returns the names of all keys in the server.
func (f *redisFixture) keys(t *testing.T) []string {
	t.Helper()
	keys, err := f.client.Keys(t.Context(), f.prefix+"*").Result()
	require.NoError(t, err)
	return keys
}

// TestRedisKeysExpire shows that a key in the server lives for three days, which
// every call for it renews when less than 50 hours are left, whatever the clocks
// of the callers say: longer than the two days that a counter has to keep a window
// which nobody touches (D4). Who reads what is not there makes nothing.
func TestRedisKeysExpire(t *testing.T) {
	t.Parallel()
	f := newRedisFixture(t)
	left := func() time.Duration {
		t.Helper()
		d, err := f.client.PTTL(t.Context(), f.prefix+"k").Result()
		require.NoError(t, err)
		return d
	}
	add := func(end time.Time, n, max int64) {
		t.Helper()
		_, _, err := f.Add(t.Context(), "k", end, n, max)
		require.NoError(t, err)
	}
	lend := func(end time.Time, want, limit int64, now time.Time) {
		t.Helper()
		_, err := f.Lend(t.Context(), "account", "k", end, 0, want, limit, now)
		require.NoError(t, err)
	}
	add(testDay, 0, 250)
	add(testDay, 5, 4)
	lend(testDay, 0, 250, testDay)
	lend(testDay, 10, 0, testDay)
	require.Empty(t, f.keys(t))

	add(testDay, 1, 250)
	require.Equal(t, []string{f.prefix + "k"}, f.keys(t))
	for name, call := range map[string]func(){
		"add":           func() { add(testDay, 1, math.MaxInt64) },
		"refused":       func() { add(testDay, 1, 0) },
		"read":          func() { add(testDay, 0, 0) },
		"other window":  func() { add(testDay.AddDate(0, 0, 9), 0, 0) },
		"year 1":        func() { add(time.Time{}, 1, 250) },
		"year 9999":     func() { add(time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), 1, 250) },
		"lend":          func() { lend(testDay, 10, 250, time.Time{}) },
		"lend nothing":  func() { lend(testDay, 10, 0, testDay.AddDate(5000, 0, 0)) },
		"lend no count": func() { lend(testDay.AddDate(0, 0, 9), 10, 0, testDay) },
		"give back":     func() { lend(testDay, 0, 0, testDay) },
	} {
		require.NoError(t, f.client.PExpire(t.Context(), f.prefix+"k", 50*time.Hour-time.Second).Err())
		call()
		require.InDelta(t, 72*time.Hour, left(), float64(time.Minute), name)
		require.NoError(t, f.client.PExpire(t.Context(), f.prefix+"k", 50*time.Hour+time.Minute).Err())
		call()
		require.InDelta(t, 50*time.Hour, left(), float64(2*time.Minute), "%s: writes no more than needed", name)
	}
}

// TestRedisKeysAreBounded shows that a quota is one key whatever is counted and
// lent, and keeps the eight windows that were made last and no others.
func TestRedisKeysAreBounded(t *testing.T) {
	t.Parallel()
	f := newRedisFixture(t)
	for day := range 20 {
		_, err := f.Lend(t.Context(), "account", "csk_live_a1b2c3d4", testDay.AddDate(0, 0, day), 0, 10, 250, testDay)
		require.NoError(t, err)
		_, ok, err := f.Add(t.Context(), "csk_live_a1b2c3d4", testDay.AddDate(0, 0, day), 1, 250)
		require.NoError(t, err)
		require.True(t, ok)
	}
	require.Equal(t, []string{f.prefix + "csk_live_a1b2c3d4"}, f.keys(t))
	fields, err := f.client.HGetAll(t.Context(), f.keys(t)[0]).Result()
	require.NoError(t, err)
	require.Len(t, fields, 8+8+1)
	for name, value := range fields {
		if name == "windows" {
			require.Len(t, strings.Fields(value), 8)
		} else if !strings.HasSuffix(name, " accounts") {
			require.Equal(t, "11", value)
		}
	}
}

// TestRedisAccountsAreBounded shows that of the accounts which are not live a
// hundred with something outstanding are kept, and that the units of the others
// stay in the count all the same.
func TestRedisAccountsAreBounded(t *testing.T) {
	t.Parallel()
	f := newRedisFixture(t)
	rows := func() int64 {
		t.Helper()
		n, err := f.client.Eval(t.Context(), `local n = 0
			for _, f in ipairs(redis.call('HKEYS', KEYS[1])) do
				if string.find(f, ' accounts') then
					for _ in pairs(cmsgpack.unpack(redis.call('HGET', KEYS[1], f))) do n = n + 1 end
				end
			end
			return n`, []string{f.prefix + "k"}).Int64()
		require.NoError(t, err)
		return n
	}
	noon := testDay.Add(-12 * time.Hour)
	lend := func(account string, spent int64, at time.Duration) ratelimit.Loan {
		t.Helper()
		loan, err := f.Lend(t.Context(), account, "k", testDay, spent, math.MaxInt64, math.MaxInt64, noon.Add(at))
		require.NoError(t, err)
		return loan
	}
	for n := range 120 {
		lend(fmt.Sprint("node ", n), 0, time.Duration(n)*time.Millisecond)
	}
	_, err := f.Lend(t.Context(), "node 0", "k", testDay, 1, 0, 250, noon)
	require.NoError(t, err)
	require.EqualValues(t, 120, rows(), "while they are live all are kept")
	require.Equal(t, ratelimit.Loan{Lent: 1000, Count: 120_001, Others: 119_000}, lend("live", 0, time.Hour))
	require.EqualValues(t, 101, rows())
	require.Equal(t, ratelimit.Loan{Lent: 1001, Count: 120_002, Others: 100_000}, lend("live", 1, time.Hour))
	require.Equal(t, ratelimit.Loan{Lent: 1005, Count: 121_002, Others: 101_000}, lend("node 1", 5, time.Hour), "it was forgotten")
	require.EqualValues(t, 101_000, lend("node 119", 0, time.Hour).Others, "it was not")
}

// TestRedisForgetsScripts has the server forget its scripts all the time, as it
// does when it is restarted, while many callers count.
func TestRedisForgetsScripts(t *testing.T) {
	t.Parallel()
	r := startRedis(t)
	client := openRedis(t, r.URL())
	var wg, callers sync.WaitGroup
	stop := make(chan struct{})
	flushes := 0
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := client.ScriptFlush(context.Background()).Err(); err != nil {
				t.Error(err)
			}
			flushes++
		}
	})
	for i := range 8 {
		c := rediscounter.New(openRedis(t, r.URL()), nil)
		callers.Go(func() {
			for range 100 {
				if _, ok, err := c.Add(context.Background(), "k", testDay, 1, 10_000); !ok {
					t.Error(err)
				}
			}
			if loan, err := c.Lend(context.Background(), fmt.Sprint(i), "k", testDay, 0, 10, 10_000, testDay); loan.Lent != 10 {
				t.Error(loan, err)
			}
		})
	}
	callers.Wait()
	close(stop)
	wg.Wait()
	c := rediscounter.New(client, nil)
	count, _, err := c.Add(t.Context(), "k", testDay, 0, 0)
	require.NoError(t, err)
	require.EqualValues(t, 8*110, count, "after %d flushes", flushes)
}

// TestRedisAnyQuota: whatever bytes a quota has, and however many, it has a count
// of its own, and is at its place in a cluster (S63).
func TestRedisAnyQuota(t *testing.T) {
	t.Parallel()
	f := newRedisFixture(t)
	for i, q := range []string{"", "{", "}", "{}", "{}a", "{a}", "{a}b", "*", "\x00", "\r\n", strings.Repeat("x", 1<<20), strings.Repeat("x", 1<<20+1)} {
		count, ok, err := f.Add(t.Context(), q, testDay, int64(i+1), 250)
		require.NoError(t, err)
		require.True(t, ok)
		require.EqualValues(t, i+1, count)
	}
}
