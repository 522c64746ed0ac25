package keys_test

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/keys"
)

// S21-S34: the life of a restriction, told by requests with the same secrets.
func TestRestrictionLifeCycle(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	ada, adaKey := b.createFor("ada")
	bob, _ := b.createFor("bob")
	olga, _ := b.createFor("olga")
	told := func(wantAda, wantBob, wantOlga policy.Reason) {
		t.Helper()
		require.Equal(t, []policy.Reason{wantAda, wantBob, wantOlga}, []policy.Reason{b.use(ada), b.use(bob), b.use(olga)})
	}
	const not = policy.UserNotPermitted
	s, err := b.Settings(t.Context(), org)
	require.NoError(t, err)
	require.False(t, s.RestrictUsers, "S21: the default is unrestricted")
	told(admitted, admitted, admitted)

	b.set(func(s *policy.Settings) { s.RestrictUsers = true })
	told(not, not, not) // S26, S29
	require.Equal(t, keys.DisabledByOwner, b.status(adaKey).State)
	require.Equal(t, 3, b.count("", true), "S27: restricting deletes nothing")

	b.permit("ada", true)
	told(admitted, not, not) // S28
	require.Equal(t, keys.Active, b.status(adaKey).State)
	b.permit("olga", true)
	told(admitted, not, admitted) // S29

	b.permit("ada", false)
	told(not, not, admitted) // S33
	b.permit("ada", true)

	b.set(func(s *policy.Settings) { s.RestrictUsers = false })
	told(admitted, admitted, admitted) // S34
	b.permit("bob", true)              // S31: at any time
	b.permit("olga", false)
	told(admitted, admitted, admitted)

	b.set(func(s *policy.Settings) { s.RestrictUsers = true })
	told(admitted, admitted, not) // S32: remembered, the withdrawn too
}

// S35-S42: the life of a period, told by requests with the same secrets.
func TestExpirationLifeCycle(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	old, oldKey := b.create()
	b.clock.Add(45 * day)
	mid, midKey := b.create()
	b.clock.Add(15 * day) // one is 60 days old, the other 15
	period := func(d time.Duration) { b.set(func(s *policy.Settings) { s.MaxAge = d }) }
	told := func(wantOld, wantMid policy.Reason) {
		t.Helper()
		require.Equal(t, []policy.Reason{wantOld, wantMid}, []policy.Reason{b.use(old), b.use(mid)})
	}
	told(admitted, admitted) // S35: the default is never
	require.Zero(t, b.status(oldKey).ExpiresAt, "S49: empty without policy")

	period(30 * day)
	told(policy.Expired, admitted) // S37, S38: at once, counted from creation
	require.Equal(t, keys.Expired, b.status(oldKey).State)
	require.Equal(t, start.Add(30*day), b.status(oldKey).ExpiresAt, "S49: created + policy")
	require.Equal(t, keys.Active, b.status(midKey).State)

	period(90 * day)
	told(admitted, admitted) // S39
	require.Equal(t, oldKey, b.stored(oldKey.ID), "S40: nothing was stored")

	period(10 * day)
	told(policy.Expired, policy.Expired) // S42
	n, err := b.Purge(t.Context(), 0)
	require.NoError(t, err)
	require.Zero(t, n, "S40: no clean-up job touches it")

	period(0)
	told(admitted, admitted) // S41

	period(60 * day)
	told(policy.Expired, admitted) // D22: expired when now >= created + max age
	b.clock.Add(-time.Microsecond)
	told(admitted, admitted)
}

// S24, S46: settings are saved at once, whole or not at all, by who has seen the
// last ones; the next request is told.
func TestUpdateSettings(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	ctx := t.Context()
	secret, k := b.create()
	require.Equal(t, admitted, b.use(secret))

	s := &policy.Settings{Org: org, MaxAge: day, AllowedIPs: ipList(t, "203.0.113.0/24"), RestrictUsers: true}
	got, err := b.UpdateSettings(ctx, owner, s)
	require.NoError(t, err)
	require.Zero(t, s.Version, "the argument is not changed")
	require.EqualValues(t, 1, got.Version)
	read, err := b.Settings(ctx, org)
	require.NoError(t, err)
	require.Equal(t, got.MaxAge, read.MaxAge)
	require.Equal(t, got.AllowedIPs.String(), read.AllowedIPs.String())
	require.Equal(t, got.RestrictUsers, read.RestrictUsers)
	require.Equal(t, got.Version, read.Version)
	require.Equal(t, policy.UserNotPermitted, b.use(secret))

	next := *got
	next.RestrictUsers = false
	_, err = b.UpdateSettings(ctx, owner, &next)
	require.NoError(t, err)
	require.Equal(t, policy.AddressNotAllowed, b.use(secret)) // S43
	require.Equal(t, keys.Active, b.status(k).State)          // S45

	_, err = b.UpdateSettings(ctx, owner, got)
	require.ErrorIs(t, err, store.ErrConflict)
	require.Equal(t, policy.AddressNotAllowed, b.use(secret))
}

// S22: only owners change the settings.
func TestOnlyOwnersChangeSettings(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	for _, a := range []keys.Actor{{}, plain, {Role: 99}} {
		_, err := b.UpdateSettings(t.Context(), a, &policy.Settings{Org: org, RestrictUsers: true})
		require.ErrorIs(t, err, keys.ErrForbidden)
	}
	_, err := b.UpdateSettings(t.Context(), operator, &policy.Settings{Org: org})
	require.NoError(t, err)
}

// D21: a bad period changes nothing.
func TestBadSettings(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	b.hook.on(func(op string) error {
		if op == "UpdateSettings" {
			t.Error("bad settings reach the store")
		}
		return nil
	}, nil)
	for _, s := range []policy.Settings{
		{},
		{Org: "\x00"},
		{Org: org, MaxAge: -time.Second},
		{Org: org, MaxAge: time.Second + 1},
		{Org: org, MaxAge: policy.MaxAgeLimit + time.Second, RestrictUsers: true},
	} {
		_, err := b.UpdateSettings(t.Context(), owner, &s)
		_, ours := errors.AsType[*keys.FieldError](err)
		_, policys := errors.AsType[*policy.FieldError](err)
		require.True(t, ours || policys, err)
	}
	s, err := b.Settings(t.Context(), org)
	require.NoError(t, err)
	require.Equal(t, &policy.Settings{Org: org}, s)
}

// D37: only revoked rows are deleted, after the retention time.
func TestPurge(t *testing.T) {
	t.Parallel()
	b := setup(t, &keys.Options{MaxPerUser: -1})
	ctx := t.Context()
	purge := func(retention time.Duration) int {
		t.Helper()
		n, err := b.Purge(ctx, retention)
		require.NoError(t, err)
		return n
	}
	p := params("ada")
	p.NotAfter = start.Add(time.Hour)
	_, expired, err := b.Create(ctx, p)
	require.NoError(t, err)
	_, disabled := b.create()
	_, err = b.Disable(ctx, owner, ref(disabled))
	require.NoError(t, err)
	secret, gone := b.create()
	require.NoError(t, b.Revoke(ctx, plain, ref(gone)))
	_, rotated := b.create()
	_, _, err = b.Rotate(ctx, keys.RotateParams{Ref: ref(rotated), Grace: 20 * day})
	require.NoError(t, err)

	b.clock.Add(10 * day)
	require.Zero(t, purge(10*day), "not yet longer than that")
	require.Equal(t, 5, b.count("ada", true))
	b.clock.Add(time.Microsecond)
	require.Equal(t, 1, purge(10*day))
	require.Zero(t, purge(10*day))
	require.Equal(t, policy.InvalidToken, b.use(secret))
	b.stored(expired.ID)
	b.stored(disabled.ID)
	b.stored(rotated.ID) // its RevokedAt lies ahead
	require.Zero(t, purge(0))
	b.clock.Add(11 * day)
	require.Equal(t, 1, purge(0))

	_, err = b.Purge(ctx, -1)
	require.Equal(t, []string{"Retention"}, fields(err))
	require.Zero(t, purge(1<<63-1))
}
