package rediscounter_test

import (
	"bufio"
	"context"
	"io"
	"math"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/ratelimit"
	"github.com/keystile/keystile/ratelimit/rediscounter"
)

// The tests here need no server. The rest is in internal/itest.

var end = time.Date(2026, time.March, 10, 0, 0, 0, 0, time.UTC)

// requireFails requires that nothing can be counted or lent.
func requireFails(ctx context.Context, t *testing.T, c *rediscounter.Counter, want string) {
	t.Helper()
	count, ok, err := c.Add(ctx, "k", end, 1, 250)
	require.ErrorContains(t, err, want)
	require.Zero(t, count)
	require.False(t, ok)
	loan, err := c.Lend(ctx, "account", "k", end, 0, 10, 250, end)
	require.ErrorContains(t, err, want)
	require.Zero(t, loan)
}

// TestUnusable: what was not made by New, or from options that have no meaning,
// counts nothing and refuses (S76).
func TestUnusable(t *testing.T) {
	t.Parallel()
	client := newFake(t, "").client(&redis.Options{})
	for name, test := range map[string]struct {
		c    *rediscounter.Counter
		want string
	}{
		"nil":              {nil, "rediscounter: no client"},
		"zero":             {new(rediscounter.Counter), "rediscounter: no client"},
		"no client":        {rediscounter.New(nil, nil), "rediscounter: no client"},
		"ring":             {rediscounter.New(redis.NewRing(&redis.RingOptions{}), nil), "rediscounter: a redis.Ring forgets counts"},
		"negative timeout": {rediscounter.New(client, &rediscounter.Options{Timeout: -1}), "rediscounter: Options.Timeout is negative"},
		"both":             {rediscounter.New(nil, &rediscounter.Options{Timeout: -1}), "rediscounter: no client\nrediscounter: Options.Timeout is negative"},
	} {
		t.Run(name, func(t *testing.T) {
			requireFails(t.Context(), t, test.c, test.want)
			require.ErrorContains(t, ratelimit.Validate(ratelimit.NewDaily(test.c, nil)), test.want)
		})
	}
	require.NoError(t, ratelimit.Validate(ratelimit.NewDaily(rediscounter.New(client, nil), nil)))
}

// TestArguments: what the contracts refuse, and a context that has ended, reach no
// server.
func TestArguments(t *testing.T) {
	t.Parallel()
	f := newFake(t, "")
	c := rediscounter.New(f.client(&redis.Options{}), nil)
	for _, n := range []int64{-1, math.MinInt64} {
		_, ok, err := c.Add(t.Context(), "k", end, n, 250)
		require.ErrorContains(t, err, "rediscounter: Add of a negative number")
		require.False(t, ok)
	}
	for _, spent := range []int64{-1, math.MinInt64, 1<<53 + 1, math.MaxInt64} {
		_, err := c.Lend(t.Context(), "account", "k", end, spent, 10, 250, end)
		require.ErrorContains(t, err, "rediscounter: Lend with a spent below 0 or above 2^53")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	requireFails(ctx, t, c, "rediscounter: context canceled")
	require.Empty(t, f.seen())
}

// TestAnswers: an answer that the scripts cannot have given is a failure, and is not
// repeated (S76, F51).
func TestAnswers(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{
		"none":         "*-1\r\n",
		"nil":          "$-1\r\n",
		"text":         "+secret\r\n",
		"number":       ":1\r\n",
		"empty":        "*0\r\n",
		"short":        "*1\r\n:1\r\n",
		"long":         "*5\r\n:1\r\n:1\r\n:1\r\n:1\r\n:1\r\n",
		"no number":    "*2\r\n$6\r\nsecret\r\n:1\r\n",
		"nil in it":    "*2\r\n$-1\r\n:1\r\n",
		"list in it":   "*2\r\n*1\r\n$6\r\nsecret\r\n:1\r\n",
		"large number": "*2\r\n$20\r\n99999999999999999999\r\n:1\r\n",
		"four of them": "*4\r\n:1\r\n$6\r\nsecret\r\n:1\r\n:1\r\n",
		"error":        "-ERR for no reason\r\n",
		"not Redis":    "HTTP/1.1 400 Bad Request\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := rediscounter.New(newFake(t, answer).client(&redis.Options{}), nil)
			_, ok, err := c.Add(t.Context(), "k", end, 1, 250)
			require.ErrorContains(t, err, "rediscounter: ")
			require.False(t, ok)
			loan, err := c.Lend(t.Context(), "account", "k", end, 0, 10, 250, end)
			require.ErrorContains(t, err, "rediscounter: ")
			require.Zero(t, loan)
			require.NotContains(t, err.Error(), "secret")
		})
	}
	c := rediscounter.New(newFake(t, "*2\r\n$19\r\n9223372036854775807\r\n:1\r\n").client(&redis.Options{}), nil)
	count, ok, err := c.Add(t.Context(), "k", end, 1, 250)
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, int64(math.MaxInt64), count)
	c = rediscounter.New(newFake(t, "*4\r\n$16\r\n9007199254740992\r\n:7\r\n$2\r\n30\r\n:5\r\n").client(&redis.Options{}), nil)
	loan, err := c.Lend(t.Context(), "account", "k", end, 0, 10, 250, end)
	require.NoError(t, err)
	require.Equal(t, ratelimit.Loan{Lent: 1<<53 + 7, Count: 30, Others: 5}, loan)
}

// TestTimeout: a server that says nothing is given up after the timeout, by default
// a second, whatever the client's own is.
func TestTimeout(t *testing.T) {
	t.Parallel()
	for _, timeout := range []time.Duration{0, 30 * time.Millisecond} {
		c := rediscounter.New(newFake(t, "").client(&redis.Options{}), &rediscounter.Options{Timeout: timeout})
		began := time.Now()
		_, ok, err := c.Add(context.Background(), "k", end, 1, 250)
		took := time.Since(began)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.False(t, ok)
		want := timeout
		if want == 0 {
			want = time.Second
		}
		require.GreaterOrEqual(t, took, want)
		t.Logf("given up after %s", took)
	}
}

// TestOpen: every form of URL is understood, and the settings are those that suit a
// Counter.
func TestOpen(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]struct{ network, addr string }{
		"redis://host":                                  {"tcp", "host:6379"},
		"redis://user:secret@host:1234/3":               {"tcp", "host:1234"},
		"rediss://:secret@host?read_timeout=1s":         {"tcp", "host:6379"},
		"unix:///run/redis.sock?db=1":                   {"unix", "/run/redis.sock"},
		"redis://user:secret@[2001:db8::1]:6379/0":      {"tcp", "[2001:db8::1]:6379"},
		"redis://user:p%40ss@host:6379/0?max_retries=1": {"tcp", "host:6379"},
	} {
		client, err := rediscounter.Open(url)
		require.NoError(t, err, url)
		o := client.Options()
		require.Equal(t, want.network, o.Network, url)
		require.Equal(t, want.addr, o.Addr, url)
		require.True(t, o.ContextTimeoutEnabled, url)
		require.Zero(t, o.MaxRetries, url)
		require.NoError(t, client.Close())
	}
	for _, url := range []string{
		"", "host", "host:6379", "http://secret@host", "redis://user:secret@host:port", "redis://user:secret@host/secret",
		"redis://user:secret@host?secret=1", "://secret", "redis://%zz:secret@host", "redis://user:secret@ho st", "redis://secret\x00",
	} {
		client, err := rediscounter.Open(url)
		require.ErrorContains(t, err, "rediscounter: not the URL of a server", url)
		require.NotContains(t, strings.ReplaceAll(err.Error(), "user:password", ""), "secret", url)
		require.Nil(t, client)
	}
}

// TestOpenAsksForNothingNew: a client of Open sends no command that Valkey does not
// know, such as that for notices of maintenance, which would be an error for each
// connection.
func TestOpenAsksForNothingNew(t *testing.T) {
	t.Parallel()
	f := newFake(t, "*2\r\n:1\r\n:1\r\n")
	client, err := rediscounter.Open("redis://user:password@" + f.listener.Addr().String() + "/2")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	_, ok, err := rediscounter.New(client, nil).Add(t.Context(), "k", end, 1, 250)
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, []string{"hello", "auth", "select", "evalsha"}, f.seen())
}

// TestOpenReaches: a client of Open that has failed to connect more often than its
// pool has places names the address, and is connected as soon as somebody listens.
func TestOpenReaches(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "socket")
	client, err := rediscounter.Open("unix://" + path)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	c := rediscounter.New(client, &rediscounter.Options{Timeout: time.Minute})
	for range 3 * client.Options().PoolSize {
		requireFails(t.Context(), t, c, path)
	}
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", path)
	require.NoError(t, err)
	listen(t, l, "*2\r\n:1\r\n:1\r\n")
	_, ok, err := c.Add(t.Context(), "k", end, 1, 250)
	require.NoError(t, err)
	require.True(t, ok)
}

// A fake is a server that gives one answer to every script, and agrees with what
// else it is told but the newer protocol.
type fake struct {
	listener net.Listener
	answer   string // none if empty
	tb       testing.TB

	mu       sync.Mutex
	commands []string
}

func newFake(tb testing.TB, answer string) *fake {
	tb.Helper()
	l, err := new(net.ListenConfig).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	require.NoError(tb, err)
	return listen(tb, l, answer)
}

// listen returns a fake at l.
func listen(tb testing.TB, l net.Listener, answer string) *fake {
	tb.Helper()
	f := &fake{listener: l, answer: answer, tb: tb}
	tb.Cleanup(func() { require.NoError(tb, l.Close()) })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go f.serve(conn)
		}
	}()
	return f
}

// client returns a client of f.
func (f *fake) client(o *redis.Options) *redis.Client {
	o.Addr = f.listener.Addr().String()
	client := redis.NewClient(o)
	f.tb.Cleanup(func() { require.NoError(f.tb, client.Close()) })
	return client
}

// seen returns the names of the commands that were sent to f.
func (f *fake) seen() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.commands
}

func (f *fake) serve(conn net.Conn) {
	defer conn.Close()
	for r := bufio.NewReader(conn); ; {
		words := 0
		if line, err := r.ReadString('\n'); err != nil {
			return
		} else if words, err = strconv.Atoi(strings.Trim(line, "*\r\n")); err != nil {
			return
		}
		name := ""
		for i := range words {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			length, _ := strconv.Atoi(strings.Trim(line, "$\r\n"))
			word := make([]byte, length+2)
			if _, err := io.ReadFull(r, word); err != nil {
				return
			}
			if i == 0 {
				name = strings.ToLower(strings.TrimSpace(string(word)))
			}
		}
		f.mu.Lock()
		f.commands = append(f.commands, name)
		f.mu.Unlock()
		answer := "+OK\r\n"
		switch name {
		case "hello":
			answer = "-ERR unknown command\r\n"
		case "evalsha", "eval":
			answer = f.answer
		}
		if _, err := io.WriteString(conn, answer); err != nil {
			return
		}
	}
}
