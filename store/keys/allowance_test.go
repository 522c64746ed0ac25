package keys_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/keys"
)

// TestAllowance: what a user may make keys with is what Create does: the restriction
// binds owners too (S29), then the tier (S54), then the cap (S12), and owners set any
// limit (D7).
func TestAllowance(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		actor   keys.Actor
		change  func(b *bundle)
		refusal error
		limit   int64
	}{
		{name: "a plain user", actor: plain, limit: 40},
		{name: "an owner", actor: owner, limit: -1},
		{name: "restricted", actor: plain, limit: 40, refusal: keys.ErrNotPermitted, change: (*bundle).restrict},
		{name: "S29: an owner, restricted", actor: owner, limit: -1, refusal: keys.ErrNotPermitted, change: (*bundle).restrict},
		{name: "D25: an operator is not bound", actor: operator, limit: -1, change: (*bundle).restrict},
		{name: "S54: the tier", actor: plain, limit: 40, refusal: keys.ErrTier, change: func(b *bundle) {
			b.put(store.User{ID: "ada", Tier: "Free"})
		}},
		{name: "D17: suspended", actor: plain, limit: 40, refusal: keys.ErrSuspended, change: func(b *bundle) {
			b.put(store.User{ID: "ada", SuspendedAt: start})
		}},
		{name: "S12: no place", actor: plain, limit: 40, refusal: store.ErrLimit, change: func(b *bundle) {
			b.create()
			b.create()
		}},
		{name: "a place", actor: plain, limit: 40, change: func(b *bundle) { b.create() }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, &keys.Options{MaxPerUser: 2, MaxDailyLimit: 40, Tiers: []string{"Pro"}})
			if test.change != nil {
				test.change(b)
			}
			places, err := b.Places(t.Context(), org, "ada")
			require.NoError(t, err)
			got, err := b.Allowance(t.Context(), test.actor, org, "ada")
			require.NoError(t, err)
			require.Equal(t, "ada", got.User.ID)
			require.Equal(t, org, got.Settings.Org)
			require.Equal(t, places, got.Places)
			require.Equal(t, test.limit, got.MaxDailyLimit)
			p := params("ada")
			p.Actor = test.actor
			_, _, createErr := b.Create(t.Context(), p)
			require.Equal(t, createErr, got.Refusal, "it is what Create says")
			if test.refusal == nil {
				require.NoError(t, got.Refusal)
			} else {
				require.ErrorIs(t, got.Refusal, test.refusal)
			}
		})
	}
}

func (b *bundle) restrict() {
	b.t.Helper()
	_, err := b.UpdateSettings(b.t.Context(), owner, &policy.Settings{Org: org, RestrictUsers: true})
	require.NoError(b.t, err)
}

// Without a cap there is always a place, and nobody is found by an empty name.
func TestAllowanceWithoutCap(t *testing.T) {
	t.Parallel()
	b := setup(t, &keys.Options{MaxPerUser: -1})
	b.create()
	got, err := b.Allowance(t.Context(), plain, org, "ada")
	require.NoError(t, err)
	require.NoError(t, got.Refusal)
	require.Equal(t, -1, got.Places.Limit)
	for _, user := range []string{"", "nobody"} {
		_, err = b.Allowance(t.Context(), plain, org, user)
		require.ErrorIs(t, err, store.ErrNotFound)
	}
}

// TestDays: a count for each of the last 30 days in UTC, the running one last.
func TestDays(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	_, k := b.create()
	b.used(k, "192.0.2.1", start)
	b.used(k, "192.0.2.2", start.Add(-13*time.Hour)) // the day before
	b.used(k, "192.0.2.2", start.Add(-29*day))
	got, days, err := b.Days(t.Context(), ref(k))
	require.NoError(t, err)
	require.Equal(t, k.ID, got.ID)
	require.Len(t, days, store.MaxUseDays)
	midnight := start.Truncate(day)
	for i, d := range days {
		require.Equal(t, midnight.Add(time.Duration(i-29)*day), d.Day)
		want := int64(0)
		if i == 0 || i == 28 || i == 29 {
			want = 1
		}
		require.Equal(t, want, d.Count, i)
	}

	// A day later the oldest is forgotten.
	b.clock.Add(day)
	_, days, err = b.Days(t.Context(), ref(k))
	require.NoError(t, err)
	require.Zero(t, days[0].Count)
	require.Zero(t, days[29].Count)
	require.EqualValues(t, 1, days[28].Count)

	require.NoError(t, b.Revoke(t.Context(), plain, ref(k)))
	_, _, err = b.Days(t.Context(), ref(k))
	require.ErrorIs(t, err, store.ErrNotFound)
}

// Without a store of uses nothing is known of any.
func TestDaysWithoutUses(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	_, k := b.create()
	b.used(k, "192.0.2.1", start)
	mgr, err := keys.New(b.mem, &keys.Options{Now: b.clock.Now})
	require.NoError(t, err)
	_, days, err := mgr.Days(t.Context(), ref(k))
	require.NoError(t, err)
	require.Len(t, days, store.MaxUseDays)
	for _, d := range days {
		require.Zero(t, d.Count)
	}
}
