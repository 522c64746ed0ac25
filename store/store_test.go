package store_test

import (
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/token"
)

// TestNewRecord shows where each field of a principal comes from.
func TestNewRecord(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	k := &store.Key{
		ID: "csk_live_a1b2c3d4", Digest: token.Digest{1}, Org: "acme", User: "ada", Name: "export", Scopes: []string{"events:read"},
		DailyLimit: 1000, CreatedAt: at, NotAfter: at.Add(time.Hour), DisabledAt: at.Add(time.Minute), RevokedAt: at.Add(time.Second),
		Family: "csk_live_00000000", Version: 3,
	}
	u := &store.User{Org: "acme", ID: "ada", Email: "ada@example.com", Tier: "Pro", Owner: true, Permitted: true, SuspendedAt: at, Version: 2}
	r := store.NewRecord(k, u)
	require.Same(t, k, r.Key)
	require.Same(t, u, r.User)
	want := &policy.Principal{
		Credential: policy.APIKey, // never JWT or Session: keys cannot manage keys (S60)
		Org:        "acme", User: "ada", Owner: true,
		Permitted: true, // the user's, not the key's (S31)
		Disabled:  true,
		KeyID:     "csk_live_a1b2c3d4",
		Quota:     "csk_live_00000000", // the family's (D39)
		Scopes:    []string{"events:read"}, Tier: "Pro",
		IssuedAt: at, // creation: what a period counts from (S37)
		NotAfter: at.Add(time.Hour), DailyLimit: 1000,
	}
	require.Equal(t, want, r.Principal)

	alone := *k
	alone.Family = ""
	require.Equal(t, k.ID, store.NewRecord(&alone, u).Principal.Quota)

	// A field that is added to Principal has to be decided on here.
	v := reflect.ValueOf(*r.Principal)
	for i := range v.NumField() {
		name := v.Type().Field(i).Name
		require.Equal(t, name == "Team", v.Field(i).IsZero(), name)
	}

	plain := store.NewRecord(&store.Key{}, &store.User{}).Principal
	require.Equal(t, &policy.Principal{Credential: policy.APIKey}, plain)

	// A key that is disabled from some day on is disabled: NewRecord has no clock.
	later := store.NewRecord(&store.Key{DisabledAt: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)}, &store.User{})
	require.True(t, later.Principal.Disabled)
}

// TestAnswersDiffer: not-found, exists, conflict and limit are four things.
func TestAnswersDiffer(t *testing.T) {
	t.Parallel()
	answers := []error{store.ErrNotFound, store.ErrExists, store.ErrConflict, store.ErrLimit}
	for i, a := range answers {
		for j, b := range answers {
			require.Equal(t, i == j, errors.Is(a, b))
		}
	}
}

// TestZeroChangeKind: the zero ChangeKind is none of those that are named, so
// that a change which somebody forgot to fill in is not taken for a small one.
func TestZeroChangeKind(t *testing.T) {
	t.Parallel()
	require.NotContains(t, []store.ChangeKind{store.ChangedAll, store.ChangedKey, store.ChangedUser, store.ChangedSettings}, store.Change{}.Kind)
}

func ExampleNewRecord() {
	r := store.NewRecord(
		&store.Key{ID: "csk_live_a1b2c3d4", Org: "acme", User: "ada", Scopes: []string{"events:read"}},
		&store.User{Org: "acme", ID: "ada", Tier: "Pro"},
	)
	fmt.Println(r.Principal.User, r.Principal.Tier, r.Principal.Scopes)
	// Output: ada Pro [events:read]
}
