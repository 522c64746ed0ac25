package pgnotify_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/store/postgresstore/pgnotify"
)

const (
	dsn     = "host=/server user=test password=first dbname=test sslmode=disable"
	channel = "k_changes"
)

// failures collects what Failed is called with.
type failures struct {
	mu   sync.Mutex
	errs []error
}

func (f *failures) add(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.errs = append(f.errs, err)
}

// all returns the failures since it was called last.
func (f *failures) all() []error {
	f.mu.Lock()
	defer f.mu.Unlock()
	errs := f.errs
	f.errs = nil
	return errs
}

// listen starts a Listener on s, which is closed when the test is over. Every test
// runs in a bubble, which does not end before all goroutines have.
func listen(t *testing.T, s *server, opts pgnotify.Options) (*pgnotify.Listener, *failures) {
	t.Helper()
	f := new(failures)
	opts.Failed = f.add
	if opts.BeforeConnect == nil {
		opts.BeforeConnect = s.configure
	}
	l, err := pgnotify.New(dsn, channel, &opts)
	require.NoError(t, err)
	t.Cleanup(l.Close)
	synctest.Wait()
	return l, f
}

// wakes returns how often l has woken since it was asked last, which is once at most.
func wakes(l *pgnotify.Listener) int {
	synctest.Wait()
	select {
	case <-l.Wake():
		return 1
	default:
		return 0
	}
}

func TestNewReportsAllProblems(t *testing.T) {
	t.Parallel()
	_, err := pgnotify.New("postgres://test:hunter2@server:nonsense/db", "", &pgnotify.Options{Ping: -1})
	require.ErrorContains(t, err, "pgnotify: data source name: ")
	require.ErrorContains(t, err, "pgnotify: the channel is empty")
	require.ErrorContains(t, err, "pgnotify: Options.Ping")
	require.NotContains(t, err.Error(), "hunter2")
	for _, dsn := range []string{"host=h password = hunter2 port=x", `password=hun\ hunter2 port=x`, "PASSWORD=hunter2 port=x", "hunter2"} {
		_, err := pgnotify.New(dsn, "c", nil)
		require.ErrorContains(t, err, "pgnotify: data source name: ", dsn)
		require.NotContains(t, err.Error(), "hun")
	}
	for _, channel := range []string{strings.Repeat("a", 64), "a\x00"} {
		_, err = pgnotify.New(dsn, channel, nil)
		require.ErrorContains(t, err, "channel")
	}
}

// A listener wakes when it has connected, since what was notified before is lost, and
// with every notification of its channel. Those of other channels and the probes of
// other listeners wake nobody. Afterwards it has one connection (S19, S46).
func TestWakes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := new(server)
		l, f := listen(t, s, pgnotify.Options{})
		require.Equal(t, 1, wakes(l), "connected")
		require.Zero(t, wakes(l))
		open, dials := s.connections()
		require.Equal(t, []int{1, 2}, []int{open, dials}, "the second made sure that notifications arrive")
		for range 3 {
			s.notify(`"k_changes"`, "")
			require.Equal(t, 1, wakes(l))
		}
		for range 100 {
			s.notify(`"k_changes"`, "")
		}
		require.Equal(t, 1, wakes(l), "a wake-up stands for all that nobody has taken")
		require.Zero(t, wakes(l))
		s.notify(`"changes"`, "")
		require.Zero(t, wakes(l))
		other, _ := listen(t, s, pgnotify.Options{})
		require.Equal(t, 1, wakes(other))
		require.Zero(t, wakes(l), "the probe of another listener")
		require.Empty(t, f.all())
	})
}

// A connection that is lost is made anew within a tenth of a second, and wakes.
func TestConnectionLost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := new(server)
		l, f := listen(t, s, pgnotify.Options{})
		require.Equal(t, 1, wakes(l))
		for range 5 {
			s.cut()
			synctest.Wait()
			errs := f.all()
			require.Len(t, errs, 1)
			require.ErrorContains(t, errs[0], "pgnotify: the connection is lost: ")
			require.Zero(t, wakes(l))
			time.Sleep(100 * time.Millisecond)
			require.Equal(t, 1, wakes(l))
			s.notify(`"k_changes"`, "")
			require.Equal(t, 1, wakes(l))
		}
		_, dials := s.connections()
		// Each time one to listen, and one by which pgx cancels what the lost one was at.
		require.Equal(t, 2+5*2, dials, "it made sure of the first only")
	})
}

// While the server is away the listener asks for it again and again, once or twice a
// second at last, and is back within a second of the server.
func TestServerAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &server{away: true}
		l, f := listen(t, s, pgnotify.Options{})
		time.Sleep(time.Minute)
		synctest.Wait()
		errs := f.all()
		require.GreaterOrEqual(t, len(errs), 60)
		require.LessOrEqual(t, len(errs), 2*60+5)
		for _, err := range errs {
			require.ErrorContains(t, err, "pgnotify: connecting: ")
			require.ErrorIs(t, err, errAway)
		}
		require.Zero(t, wakes(l))
		s.set(func() { s.away = false })
		time.Sleep(time.Second)
		require.Equal(t, 1, wakes(l))
		require.Empty(t, f.all())
	})
}

// A server that answers nothing any more, or a connection that leads nowhere, is
// noticed after Ping and 5 seconds; so is one that hangs while a connection is made.
// The listener is back within a second after the attempt that was under way.
func TestServerHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := new(server)
		l, f := listen(t, s, pgnotify.Options{Ping: 2 * time.Second})
		require.Equal(t, 1, wakes(l))
		time.Sleep(time.Hour)
		require.Empty(t, f.all(), "silence is no failure")

		s.set(func() { s.hangs = true })
		time.Sleep(2*time.Second + 5*time.Second)
		synctest.Wait()
		errs := f.all()
		require.Len(t, errs, 1)
		require.ErrorContains(t, errs[0], "the connection is lost")
		require.True(t, pgconn.Timeout(errs[0]), "%v", errs[0])

		time.Sleep(time.Minute)
		synctest.Wait()
		errs = f.all()
		require.GreaterOrEqual(t, len(errs), 10)
		require.ErrorContains(t, errs[0], "pgnotify: connecting: ")
		s.set(func() { s.hangs = false })
		s.cut()
		time.Sleep(time.Second)
		require.Equal(t, 1, wakes(l))
	})
}

// A pooler in transaction mode takes the LISTEN, and delivers nothing. The listener
// says so, and goes on trying.
func TestNotDelivered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &server{pools: true}
		l, f := listen(t, s, pgnotify.Options{})
		time.Sleep(5 * time.Second)
		synctest.Wait()
		errs := f.all()
		require.Len(t, errs, 1)
		require.ErrorIs(t, errs[0], pgnotify.ErrNotDelivered)
		open, _ := s.connections()
		require.Zero(t, open)
		s.set(func() { s.pools = false })
		time.Sleep(time.Second)
		require.Equal(t, 1, wakes(l))
		s.notify(`"k_changes"`, "")
		require.Equal(t, 1, wakes(l))
		require.Empty(t, f.all())
	})
}

// What a server says that refuses to listen, such as a replica, is reported.
func TestListenRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &server{standby: true}
		l, f := listen(t, s, pgnotify.Options{})
		errs := f.all()
		require.Len(t, errs, 1)
		require.ErrorContains(t, errs[0], "pgnotify: listening: ")
		require.ErrorContains(t, errs[0], "recovery")
		require.Zero(t, wakes(l))
	})
}

// BeforeConnect is asked for every connection, its changes last for one, and an error
// of it is reported.
func TestBeforeConnect(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := new(server)
		n := 0
		errToken := errors.New("no password today")
		l, f := listen(t, s, pgnotify.Options{BeforeConnect: func(_ context.Context, c *pgx.ConnConfig) error {
			if n++; n == 3 {
				return errToken
			}
			c.DialFunc = s.dial
			c.Password += fmt.Sprint(" ", n)
			return nil
		}})
		require.Equal(t, 1, wakes(l))
		s.set(func() { require.Equal(t, "first 2", s.password) })
		s.cut()
		time.Sleep(time.Second)
		require.Equal(t, 1, wakes(l))
		s.set(func() { require.Equal(t, "first 4", s.password) })
		errs := f.all()
		require.Len(t, errs, 2)
		require.ErrorIs(t, errs[1], errToken)
		require.ErrorContains(t, errs[1], "pgnotify: before connecting: ")
	})
}

// Close ends the goroutine and the connection, whatever they are at, and reports
// nothing; the bubble of synctest shows that nothing is left.
func TestClose(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		server *server
		after  time.Duration
	}{
		{name: "at once", server: new(server)},
		{name: "listening", server: new(server), after: time.Second},
		{name: "pinging", server: new(server), after: 5 * time.Second},
		{name: "away", server: &server{away: true}, after: 3 * time.Second},
		{name: "connecting", server: &server{hangs: true}, after: time.Second},
		{name: "not delivered", server: &server{pools: true}, after: time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := tt.server
				l, f := listen(t, s, pgnotify.Options{})
				time.Sleep(tt.after)
				synctest.Wait()
				f.all()
				began := time.Now()
				l.Close()
				require.LessOrEqual(t, time.Since(began), time.Second)
				l.Close()
				require.Empty(t, f.all())
				time.Sleep(time.Minute)
				open, _ := s.connections()
				require.Zero(t, open)
			})
		})
	}
}

// Without Failed, failures are dropped.
func TestNobodyAsksForFailures(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &server{away: true}
		l, err := pgnotify.New(dsn, channel, &pgnotify.Options{BeforeConnect: s.configure})
		require.NoError(t, err)
		defer l.Close()
		time.Sleep(time.Second)
		_, dials := s.connections()
		require.Greater(t, dials, 1)
	})
}
