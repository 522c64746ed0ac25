package middleware_test

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/middleware"
	"github.com/keystile/keystile/policy"
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
