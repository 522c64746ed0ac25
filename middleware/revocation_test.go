package middleware_test

import (
	"net/http/httptest"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/middleware"
	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/keys"
)

// TestRevokedKeyIsNeverAdmitted: S19, S33: from when Revoke has returned no
// request with the key is let through on this node, with the cache warm and
// look-ups under way (F46).
func TestRevokedKeyIsNeverAdmitted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h := w.guard(&middleware.Options{Unmetered: true}).Wrap(pong)
	for range 50 {
		secret, key := w.create(keys.CreateParams{Org: testOrg, User: testUser, Name: "short-lived"})
		r := bearer(secret.Reveal())
		var revoked atomic.Bool
		var before, late atomic.Int64
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 200 {
					gone := revoked.Load() // read before the request starts
					switch code := do(h, r.Clone(t.Context())).Code; {
					case code == 200 && gone:
						late.Add(1)
					case code == 200:
						before.Add(1)
					}
				}
			})
		}
		wg.Go(func() {
			for before.Load() == 0 {
				runtime.Gosched()
			}
			if err := w.mgr.Revoke(t.Context(), keys.Actor{}, keys.Ref{Org: testOrg, User: testUser, ID: key.ID}); err != nil {
				t.Error(err)
			}
			revoked.Store(true)
		})
		wg.Wait()
		require.Zero(t, late.Load(), "admitted after Revoke returned")
		require.NotZero(t, before.Load())
		requireRefusal(t, do(h, r), 401, policy.InvalidToken)
	}
}

// TestChangesActAtOnce: S33, S34, S46: what an owner changes holds for the next
// request, with the cache warm.
func TestChangesActAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h := w.guard(nil).Wrap(pong)
	status := func() int { return do(h, bearer(w.token.Reveal())).Code }
	owner := keys.Actor{Role: keys.Owner}
	require.Equal(t, 200, status())
	w.settings(func(s *policy.Settings) { s.RestrictUsers = true })
	require.Equal(t, 403, status())
	require.NoError(t, w.mgr.SetPermitted(t.Context(), owner, testOrg, testUser, true))
	require.Equal(t, 200, status(), "S28")
	require.NoError(t, w.mgr.SetPermitted(t.Context(), owner, testOrg, testUser, false))
	require.Equal(t, 403, status(), "S33")
	w.settings(func(s *policy.Settings) { s.RestrictUsers = false })
	require.Equal(t, 200, status(), "S34")
	w.settings(func(s *policy.Settings) { s.AllowedIPs, _ = policy.ParseIPList("10.0.0.1") })
	require.Equal(t, 403, status(), "S46")
	w.settings(func(s *policy.Settings) { s.AllowedIPs = policy.IPList{} })
	require.Equal(t, 200, status(), "S43")
}

// TestRevokedWhileLookedUp: S19: a request whose look-up is under way while Revoke
// returns is refused, although it began before, and so is one with a clock that is
// behind or was set back. So is the old key of a rotation without grace (D39).
func TestRevokedWhileLookedUp(t *testing.T) {
	t.Parallel()
	acts := map[string]func(*world) error{
		"revoke": func(w *world) error {
			return w.mgr.Revoke(w.tb.Context(), keys.Actor{}, keys.Ref{Org: testOrg, ID: w.key.ID})
		},
		"rotate": func(w *world) error {
			_, _, err := w.mgr.Rotate(w.tb.Context(), keys.RotateParams{Ref: keys.Ref{Org: testOrg, ID: w.key.ID}})
			return err
		},
	}
	for name, act := range acts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			h := w.guard(nil).Wrap(pong)
			reached, proceed := make(chan struct{}), make(chan struct{})
			w.store.block(func() { close(reached); <-proceed })
			answer := make(chan *httptest.ResponseRecorder)
			go func() { answer <- do(h, bearer(w.token.Reveal())) }()
			<-reached // the Guard has read its clock, and its look-up the row
			w.clock.set(w.clock.Now().Add(time.Second))
			require.NoError(t, act(w))
			close(proceed)
			requireRefusal(t, <-answer, 401, policy.InvalidToken)

			w.clock.set(w.clock.Now().Add(-time.Hour))
			requireRefusal(t, do(h, bearer(w.token.Reveal())), 401, policy.InvalidToken)
			require.ErrorIs(t, w.mgr.Revoke(t.Context(), keys.Actor{}, keys.Ref{Org: testOrg, ID: w.key.ID}), store.ErrNotFound, "D28")
		})
	}
}
