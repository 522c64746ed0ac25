package itest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/internal/itest/servers"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/keys"
	"github.com/keystile/keystile/store/postgresstore"
	"github.com/keystile/keystile/store/postgresstore/pgnotify"
)

// A listener is a Listener and what it has reported.
type listener struct {
	*pgnotify.Listener
	failed chan error
}

// listen starts a listener. It is closed when the test is over.
func listen(t *testing.T, dsn, channel string) *listener {
	t.Helper()
	l := &listener{failed: make(chan error, 1000)}
	var err error
	l.Listener, err = pgnotify.New(dsn, channel, &pgnotify.Options{
		Failed: func(err error) { l.failed <- err },
		Ping:   200 * time.Millisecond,
	})
	require.NoError(t, err)
	t.Cleanup(l.Close)
	return l
}

// wakes requires that l wakes, soon.
func (l *listener) wakes(t *testing.T, why string) {
	t.Helper()
	select {
	case <-l.Wake():
	case <-time.After(tooLong):
		require.FailNow(t, "nobody wakes", why)
	}
}

// failure returns what l reports next.
func (l *listener) failure(t *testing.T) error {
	t.Helper()
	select {
	case err := <-l.failed:
		return err
	case <-time.After(tooLong):
		require.FailNow(t, "nothing is reported")
		return nil
	}
}

// TestNotify shows that what changes the feed notifies when it is committed, directly
// and behind a pooler in transaction mode, and that nothing else does: no read, no
// count, and no change that was refused (S19, S46).
func TestNotify(t *testing.T) {
	t.Parallel()
	for name, dsn := range map[string]func(t *testing.T) string{
		"postgres":  func(t *testing.T) string { return postgres(t).DSN() },
		"pgbouncer": pgbouncer,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newPostgres(t, openPool(t, dsn(t)), &postgresstore.Options{TablePrefix: newPrefix()})
			f := newFixture(t, s)
			l := listen(t, postgres(t).DSN(), s.NotifyChannel())
			l.wakes(t, "connected")
			refused := []call{{"UpdateKey, refused", func(ctx context.Context, s backend) error {
				k := *f.key
				k.Version = 1000
				if err := s.UpdateKey(ctx, &k); !errors.Is(err, store.ErrConflict) {
					return errors.Join(errors.New("no conflict"), err)
				}
				return nil
			}}}
			for _, c := range append(append(refused, f.reads()...), f.writes()...) {
				_, before, err := s.Changes(t.Context(), -1)
				require.NoError(t, err)
				require.NoError(t, ignoreConflict(c.run(t.Context(), s)), c.name)
				_, after, err := s.Changes(t.Context(), -1)
				require.NoError(t, err)
				if after > before {
					l.wakes(t, c.name)
				}
				// What was sent would have come before this.
				mustExec(t, openPool(t, postgres(t).DSN()), `NOTIFY "`+s.NotifyChannel()+`"`)
				l.wakes(t, "the end of "+c.name)
				select {
				case <-l.Wake():
					require.FailNow(t, "notified twice", c.name)
				default:
				}
			}
			require.Empty(t, l.failed)
		})
	}
}

// ignoreConflict returns nil for the conflict of a write after another.
func ignoreConflict(err error) error {
	if errors.Is(err, store.ErrConflict) {
		return nil
	}
	return err
}

// TestNotifyLost has the listener's connection ended by an operator, and the server
// stopped, killed and suspended. Each is reported, and the listener is back by itself,
// with a wake-up for what it has missed. The times are printed.
func TestNotifyLost(t *testing.T) {
	t.Parallel()
	p, err := servers.StartPostgres()
	servers.Check(t, err)
	t.Cleanup(func() { require.NoError(t, p.Close()) })
	s := newPostgres(t, openPool(t, p.DSN()), nil)
	l := listen(t, p.DSN("application_name=listener"), s.NotifyChannel())
	l.wakes(t, "connected")
	for _, way := range []struct {
		name     string
		down, up func() error
	}{
		{
			name: "terminated",
			down: func() error {
				_, err := openPool(t, p.DSN()).ExecContext(t.Context(),
					"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'listener'")
				return err
			},
			up: func() error { return nil },
		},
		{name: "stopped", down: p.Stop, up: p.Start},
		{name: "killed", down: p.Kill, up: p.Start},
		{
			name: "suspended",
			down: func() error { p.Pause(); return nil },
			up:   func() error { p.Continue(); return nil },
		},
	} {
		t.Run(way.name, func(t *testing.T) {
			require.NoError(t, way.down())
			require.ErrorContains(t, l.failure(t), "pgnotify: the connection is lost: ")
			require.NoError(t, way.up())
			returned := time.Now()
			l.wakes(t, "connected again")
			t.Logf("back after %v", time.Since(returned).Round(time.Millisecond))
			for len(l.failed) > 0 {
				require.Error(t, l.failure(t))
			}
			// A connection of the store that was lost fails one call.
			require.Eventually(t, func() bool {
				err := s.PutUser(t.Context(), &store.User{Org: "acme", ID: way.name})
				return err == nil || errors.Is(err, store.ErrExists)
			}, tooLong, time.Millisecond)
			l.wakes(t, "a user was made")
		})
	}
	l.Close()
	until(t, openPool(t, p.DSN()), false, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'listener'")
}

// TestNotifyBehindPooler shows the mistake to listen through a pooler in transaction
// mode: it is reported as what it is, and what is revoked elsewhere is known after a
// poll all the same (S19, F47).
func TestNotifyBehindPooler(t *testing.T) {
	t.Parallel()
	opts := &postgresstore.Options{TablePrefix: newPrefix()}
	a := newPostgres(t, openPool(t, postgres(t).DSN()), opts)
	b := newPostgres(t, openPool(t, postgres(t).DSN()), opts)
	l := listen(t, pgbouncer(t), a.NotifyChannel())

	here, err := keys.New(a, nil)
	require.NoError(t, err)
	there, err := keys.New(b, &keys.Options{Cache: &store.CacheOptions{
		Feed: b, FeedInterval: 100 * time.Millisecond, FeedWake: l.Wake(),
		TTL: 5 * time.Minute, // so that nothing but a poll tells before tooLong
	}})
	require.NoError(t, err)
	t.Cleanup(there.Close)
	require.NoError(t, here.PutUser(t.Context(), testUser(1)))
	secret, k, err := here.Create(t.Context(), keys.CreateParams{Org: "acme", User: "u1", Name: "export"})
	require.NoError(t, err)
	revoked := func() bool {
		got, err := there.Verifier().Verify(t.Context(), secret.Reveal(), time.Now())
		require.NoError(t, err)
		return !got.Record.Key.RevokedAt.IsZero()
	}
	require.False(t, revoked())
	require.NoError(t, here.Revoke(t.Context(), keys.Actor{}, keys.Ref{Org: k.Org, User: k.User, ID: k.ID}))
	began := time.Now()
	for !revoked() {
		require.Less(t, time.Since(began), tooLong)
	}
	t.Logf("the revocation is known after %v", time.Since(began).Round(time.Millisecond))
	require.ErrorIs(t, l.failure(t), pgnotify.ErrNotDelivered)
}
