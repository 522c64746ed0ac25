package keys_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/keys"
)

// S48, D12: the status is computed from the facts, in this order, with all reasons.
func TestStatusOf(t *testing.T) {
	t.Parallel()
	ago, ahead := start.Add(-time.Hour), start.Add(time.Hour)
	type facts struct {
		key  store.Key
		user store.User
		set  policy.Settings
	}
	tests := []struct {
		name    string
		facts   facts
		state   keys.State
		reasons []policy.Reason
		expires time.Time
	}{
		{"active", facts{}, keys.Active, nil, time.Time{}},
		{
			"active with ends ahead",
			facts{key: store.Key{CreatedAt: ago, NotAfter: ahead}, set: policy.Settings{MaxAge: 3 * time.Hour}},
			keys.Active, nil, ahead,
		},
		{
			"policy ends earlier (D23)",
			facts{key: store.Key{CreatedAt: ago, NotAfter: ahead.Add(day)}, set: policy.Settings{MaxAge: 90 * time.Minute}},
			keys.Active, nil, ago.Add(90 * time.Minute),
		},
		{
			"one microsecond before the end (D22)",
			facts{key: store.Key{NotAfter: start.Add(time.Microsecond)}},
			keys.Active, nil, start.Add(time.Microsecond),
		},
		{"at the end (D22)", facts{key: store.Key{NotAfter: start}}, keys.Expired, []policy.Reason{policy.Expired}, start},
		{
			"expired by the policy (S38)",
			facts{key: store.Key{CreatedAt: start.Add(-60 * day)}, set: policy.Settings{MaxAge: 30 * day}},
			keys.Expired,
			[]policy.Reason{policy.Expired},
			start.Add(-30 * day),
		},
		{"disabled", facts{key: store.Key{DisabledAt: ago}}, keys.DisabledByOwner, []policy.Reason{policy.KeyDisabled}, time.Time{}},
		{
			"restricted (S26)",
			facts{set: policy.Settings{RestrictUsers: true}},
			keys.DisabledByOwner,
			[]policy.Reason{policy.UserNotPermitted},
			time.Time{},
		},
		{
			"restricted with a grant (S28)",
			facts{user: store.User{Permitted: true}, set: policy.Settings{RestrictUsers: true}},
			keys.Active, nil,
			time.Time{},
		},
		{
			"restricted owner (S29)",
			facts{user: store.User{Owner: true}, set: policy.Settings{RestrictUsers: true}},
			keys.DisabledByOwner,
			[]policy.Reason{policy.UserNotPermitted},
			time.Time{},
		},
		{
			"disabled before expired (D12)",
			facts{key: store.Key{DisabledAt: ago, NotAfter: ago}},
			keys.DisabledByOwner,
			[]policy.Reason{policy.KeyDisabled, policy.Expired},
			ago,
		},
		{
			"restricted before expired (D12)",
			facts{key: store.Key{NotAfter: ago}, set: policy.Settings{RestrictUsers: true}},
			keys.DisabledByOwner,
			[]policy.Reason{policy.UserNotPermitted, policy.Expired},
			ago,
		},
		{"revoked", facts{key: store.Key{RevokedAt: ago}}, keys.Revoked, []policy.Reason{policy.InvalidToken}, time.Time{}},
		{"revoked now (D39)", facts{key: store.Key{RevokedAt: start}}, keys.Revoked, []policy.Reason{policy.InvalidToken}, time.Time{}},
		{"in its grace period (D39)", facts{key: store.Key{RevokedAt: ahead}}, keys.Active, nil, time.Time{}},
		{
			"revoked before everything (D12)",
			facts{
				key:  store.Key{RevokedAt: ago, DisabledAt: ago, NotAfter: ago},
				user: store.User{SuspendedAt: ago}, set: policy.Settings{RestrictUsers: true},
			},
			keys.Revoked,
			[]policy.Reason{policy.InvalidToken, policy.KeyDisabled, policy.UserNotPermitted, policy.Expired},
			ago,
		},
		{
			"user suspended (D17)",
			facts{user: store.User{SuspendedAt: ago}},
			keys.DisabledByOwner,
			[]policy.Reason{policy.InvalidToken},
			time.Time{},
		},
		{"address list (S45)", facts{set: policy.Settings{AllowedIPs: ipList(t, "203.0.113.7")}}, keys.Active, nil, time.Time{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			k := tt.facts.key
			if k.CreatedAt.IsZero() {
				k.CreatedAt = ago
			}
			st := keys.StatusOf(store.NewRecord(&k, &tt.facts.user), &tt.facts.set, start)
			require.Equal(t, keys.Status{State: tt.state, Reasons: tt.reasons, ExpiresAt: tt.expires}, st)
		})
	}
}

// The strings are sent to clients.
func TestStates(t *testing.T) {
	t.Parallel()
	require.Equal(t, []keys.State{"revoked", "disabled_by_owner", "expired", "active"},
		[]keys.State{keys.Revoked, keys.DisabledByOwner, keys.Expired, keys.Active})
}

// Property 1: what the lists show is what a request is told. Every combination of
// facts: a key is shown as active exactly if a request with it passes, and the
// first reason is that of its refusal (S72, D13).
func TestStatusIsWhatARequestIsTold(t *testing.T) {
	t.Parallel()
	times := []time.Time{{}, start.Add(-time.Hour), start, start.Add(time.Hour)}
	n := 0
	for _, revokedAt := range times {
		for _, disabledAt := range times[:2] {
			for _, suspendedAt := range times[:2] {
				for _, notAfter := range times {
					for _, maxAge := range []time.Duration{0, time.Second, 2 * time.Hour} {
						for flags := range 8 {
							k := &store.Key{
								CreatedAt: start.Add(-time.Hour), NotAfter: notAfter, DisabledAt: disabledAt, RevokedAt: revokedAt,
							}
							u := &store.User{SuspendedAt: suspendedAt, Permitted: flags&1 != 0, Owner: flags&2 != 0}
							s := &policy.Settings{MaxAge: maxAge, RestrictUsers: flags&4 != 0}
							r := store.NewRecord(k, u)
							st := keys.StatusOf(r, s, start)
							facts := fmt.Sprintf("%+v %+v %+v", *k, *u, *s)
							told := decide(r, s, start)
							require.Equal(t, told == admitted, st.State == keys.Active, facts)
							require.Equal(t, told == admitted, len(st.Reasons) == 0, facts)
							if told != admitted {
								require.Equal(t, told, st.Reasons[0], facts)
							}
							n++
						}
					}
				}
			}
		}
	}
	require.Equal(t, 4*2*2*4*3*8, n)
}

// A restriction or period that could not be read may be there.
func TestStatusWithoutSettings(t *testing.T) {
	t.Parallel()
	r := store.NewRecord(&store.Key{CreatedAt: start}, &store.User{})
	require.NotEqual(t, keys.Active, keys.StatusOf(r, nil, start).State)
}

func ipList(t *testing.T, text string) policy.IPList {
	t.Helper()
	l, err := policy.ParseIPList(text)
	require.NoError(t, err)
	return l
}
