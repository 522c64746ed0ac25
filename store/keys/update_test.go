package keys_test

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/keys"
)

func TestUpdate(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	ctx := t.Context()
	_, k := b.create()
	name, scopes, limit, end := "  nightly export ", []string{"read"}, int64(7), start.Add(time.Hour+999)

	got, err := b.Update(ctx, keys.UpdateParams{Ref: ref(k), Name: &name, Scopes: &scopes, DailyLimit: &limit, NotAfter: &end})
	require.NoError(t, err)
	want := *k
	want.Name, want.Scopes, want.DailyLimit, want.NotAfter, want.Version = "nightly export", []string{"read"}, 7, start.Add(time.Hour), 2
	require.Equal(t, &want, got)
	require.Equal(t, &want, b.stored(k.ID), "what is returned is what is stored")
	scopes[0] = "admin"
	require.Equal(t, []string{"read"}, got.Scopes, "nothing is shared with the caller")
	got.Scopes[0] = "admin"
	require.Equal(t, []string{"read"}, b.stored(k.ID).Scopes)

	name = "other"
	got, err = b.Update(ctx, keys.UpdateParams{Ref: ref(k), Name: &name})
	require.NoError(t, err)
	want.Name, want.Version = "other", 3
	require.Equal(t, &want, got, "what is nil stays as it is")

	scopes, end = nil, time.Time{}
	got, err = b.Update(ctx, keys.UpdateParams{Ref: ref(k), Scopes: &scopes, NotAfter: &end})
	require.NoError(t, err)
	require.Empty(t, got.Scopes)
	require.Zero(t, got.NotAfter, "the end is taken away")
}

// One bad field: nothing is changed, all problems are named.
func TestUpdateIsAllOrNothing(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	_, k := b.create()
	name, scopes, limit, end := "fine", []string{"a b"}, int64(251), start
	_, err := b.Update(t.Context(), keys.UpdateParams{Ref: ref(k), Name: &name, Scopes: &scopes, DailyLimit: &limit, NotAfter: &end})
	require.Equal(t, []string{"Scopes", "DailyLimit", "NotAfter"}, fields(err))
	name = "\x00"
	_, err = b.Update(t.Context(), keys.UpdateParams{Ref: ref(k), Name: &name})
	require.Equal(t, []string{"Name"}, fields(err))
	require.Equal(t, k, b.stored(k.ID))
}

// An update of what the caller has not seen is refused; one without a version
// starts over by itself.
func TestUpdateVersions(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	ctx := t.Context()
	_, k := b.create()
	name := "second"
	k2, err := b.Update(ctx, keys.UpdateParams{Ref: ref(k), Version: 1, Name: &name})
	require.NoError(t, err)
	require.EqualValues(t, 2, k2.Version)
	for _, v := range []int64{1, 3, -1} {
		name = "lost"
		_, err = b.Update(ctx, keys.UpdateParams{Ref: ref(k), Version: v, Name: &name})
		require.ErrorIs(t, err, store.ErrConflict)
	}
	require.Equal(t, k2, b.stored(k.ID))

	// Between reading and writing somebody disables the key, once.
	b.interfere(k.ID, 1)
	name = "third"
	_, err = b.Update(ctx, keys.UpdateParams{Ref: ref(k), Version: 2, Name: &name})
	require.ErrorIs(t, err, store.ErrConflict)
	b.interfere(k.ID, 1)
	k4, err := b.Update(ctx, keys.UpdateParams{Ref: ref(k), Name: &name})
	require.NoError(t, err)
	require.Equal(t, "third", k4.Name)
	require.EqualValues(t, 2, k4.DailyLimit, "the other change is kept")
}

// interfere lets somebody else raise the daily limit of a key just before each of
// the next n updates of the Manager.
func (b *bundle) interfere(id string, n int) {
	b.hook.on(func(op string) error {
		if op != "UpdateKey" && op != "InsertKey" || n == 0 {
			return nil
		}
		n--
		k := b.stored(id)
		k.DailyLimit++
		return b.mem.UpdateKey(b.t.Context(), k)
	}, nil)
}

// D23: only the policy's part can be un-expired: a key's own end is final.
func TestOwnEndIsFinal(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	ctx := t.Context()
	p := params("ada")
	p.NotAfter = start.Add(time.Hour)
	tok, k, err := b.Create(ctx, p)
	require.NoError(t, err)

	later := start.Add(2 * time.Hour)
	b.clock.Add(time.Hour - time.Microsecond)
	require.Equal(t, admitted, b.use(tok.Reveal()))
	_, err = b.Update(ctx, keys.UpdateParams{Ref: ref(k), NotAfter: &later})
	require.NoError(t, err)

	b.clock.Set(later)
	require.Equal(t, policy.Expired, b.use(tok.Reveal()))
	for _, end := range []time.Time{later.Add(day), {}} {
		_, err = b.Update(ctx, keys.UpdateParams{Actor: operator, Ref: ref(k), NotAfter: &end})
		require.ErrorIs(t, err, keys.ErrNotActive)
	}
	require.Equal(t, policy.Expired, b.use(tok.Reveal()))
	name := "the rest can be changed"
	_, err = b.Update(ctx, keys.UpdateParams{Ref: ref(k), Name: &name})
	require.NoError(t, err)
}

// D12: owners disable, and the status says so; enabling brings the key back. The
// next request is told, although the cache is warm.
func TestDisableAndEnable(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	ctx := t.Context()
	secret, k := b.create()
	require.Equal(t, admitted, b.use(secret))

	for _, a := range []keys.Actor{plain, {}, {Role: 99}} {
		_, err := b.Disable(ctx, a, ref(k))
		require.ErrorIs(t, err, keys.ErrForbidden)
		_, err = b.Enable(ctx, a, ref(k))
		require.ErrorIs(t, err, keys.ErrForbidden)
	}
	got, err := b.Disable(ctx, owner, ref(k))
	require.NoError(t, err)
	require.Equal(t, start, got.DisabledAt)
	require.Equal(t, policy.KeyDisabled, b.use(secret))
	require.Equal(t, keys.DisabledByOwner, b.status(k).State)

	b.clock.Add(time.Hour)
	again, err := b.Disable(ctx, operator, ref(k))
	require.NoError(t, err)
	require.Equal(t, got, again, "disabling twice changes nothing")

	got, err = b.Enable(ctx, owner, ref(k))
	require.NoError(t, err)
	require.Zero(t, got.DisabledAt)
	require.Equal(t, admitted, b.use(secret))
	again, err = b.Enable(ctx, operator, ref(k))
	require.NoError(t, err)
	require.Equal(t, got, again)
}

// S18: a user deletes own tokens. S19: deletion is final and at once. S59, D28: deleting again: not found.
func TestRevoke(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	ctx := t.Context()
	secret, k := b.create()
	require.Equal(t, admitted, b.use(secret))
	require.NoError(t, b.Revoke(ctx, plain, ref(k)))
	require.Equal(t, policy.InvalidToken, b.use(secret))
	require.Equal(t, start, b.stored(k.ID).RevokedAt)
	require.Equal(t, keys.Revoked, b.status(k).State)

	b.clock.Add(time.Hour)
	name, end := "x", time.Time{}
	_, updateErr := b.Update(ctx, keys.UpdateParams{Actor: operator, Ref: ref(k), Name: &name, NotAfter: &end})
	_, disableErr := b.Disable(ctx, owner, ref(k))
	_, enableErr := b.Enable(ctx, owner, ref(k))
	_, _, rotateErr := b.Rotate(ctx, keys.RotateParams{Actor: operator, Ref: ref(k)})
	for _, err := range []error{b.Revoke(ctx, owner, ref(k)), updateErr, disableErr, enableErr, rotateErr} {
		require.ErrorIs(t, err, store.ErrNotFound)
	}
	require.Equal(t, start, b.stored(k.ID).RevokedAt)
	require.EqualValues(t, 2, b.stored(k.ID).Version)
	require.Equal(t, policy.InvalidToken, b.use(secret))
}

// S20: owners delete any token of the organization; a plain user's Ref finds only
// own ones.
func TestOwnersRevokeAnyKey(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	secret, k := b.create()
	require.ErrorIs(t, b.Revoke(t.Context(), keys.Actor{ID: "bob"}, keys.Ref{Org: org, User: "bob", ID: k.ID}), store.ErrNotFound)
	require.Equal(t, admitted, b.use(secret))
	require.NoError(t, b.Revoke(t.Context(), owner, keys.Ref{Org: org, ID: k.ID}))
	require.Equal(t, policy.InvalidToken, b.use(secret))
}

// D35: users without permission may still list and delete their own keys.
func TestRestrictedUsersListAndRevoke(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	ctx := t.Context()
	_, k := b.create()
	b.set(func(s *policy.Settings) { s.RestrictUsers = true })
	ks, err := b.List(ctx, store.Query{Org: org, User: "ada"})
	require.NoError(t, err)
	require.Len(t, ks, 1)
	_, _, err = b.Rotate(ctx, keys.RotateParams{Ref: ref(k)})
	require.ErrorIs(t, err, keys.ErrNotActive)
	require.ErrorContains(t, err, string(policy.UserNotPermitted))
	require.NoError(t, b.Revoke(ctx, plain, ref(k)))
}

// Revoke, Disable and Enable start over when somebody else changes the key, and
// keep what that changed.
func TestConflictsAreRetried(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		is   policy.Reason // of the key before it
		act  func(b *bundle, k *store.Key) error
		told policy.Reason
	}{
		{"Revoke", admitted, func(b *bundle, k *store.Key) error { return b.Revoke(b.t.Context(), plain, ref(k)) }, policy.InvalidToken},
		{"Enable", policy.KeyDisabled, func(b *bundle, k *store.Key) error {
			_, err := b.Enable(b.t.Context(), owner, ref(k))
			return err
		}, admitted},
		{"Disable", admitted, func(b *bundle, k *store.Key) error {
			_, err := b.Disable(b.t.Context(), owner, ref(k))
			return err
		}, policy.KeyDisabled},
		{"Rotate", admitted, func(b *bundle, k *store.Key) error {
			_, k2, err := b.Rotate(b.t.Context(), keys.RotateParams{Ref: ref(k)})
			if err == nil && k2.DailyLimit != 20 {
				return errors.New("a change was lost")
			}
			return err
		}, policy.InvalidToken},
	}
	begin := func(b *bundle, is policy.Reason) (string, *store.Key) {
		secret, k := b.create()
		if is == policy.KeyDisabled {
			_, err := b.Disable(b.t.Context(), owner, ref(k))
			require.NoError(b.t, err)
		}
		return secret, k
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, nil)
			secret, k := begin(b, tt.is)
			require.Equal(t, tt.is, b.use(secret))
			b.interfere(k.ID, 20)
			require.NoError(t, tt.act(b, k))
			require.Equal(t, tt.told, b.use(secret))
			require.EqualValues(t, 20, b.stored(k.ID).DailyLimit)
		})
		t.Run(tt.name+" without end", func(t *testing.T) {
			t.Parallel()
			b := setup(t, nil)
			secret, k := begin(b, tt.is)
			n := 0
			b.hook.on(func(op string) error {
				if op == "UpdateKey" || op == "InsertKey" {
					n++
					return fmt.Errorf("somestore: %w", store.ErrConflict)
				}
				return nil
			}, nil)
			require.ErrorIs(t, tt.act(b, k), store.ErrConflict)
			require.Equal(t, 100, n)
			require.Equal(t, tt.is, b.use(secret))
		})
	}
}

// Revoke gets through while others change the key as fast as they can.
func TestRevokeUnderLoad(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	ctx := t.Context()
	secret, k := b.create()
	var stop atomic.Bool
	var updates atomic.Int32
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop.Store(true)
	for range 4 {
		wg.Go(func() {
			name := "busy"
			for !stop.Load() {
				if _, err := b.Update(ctx, keys.UpdateParams{Ref: ref(k), Name: &name}); err == nil {
					updates.Add(1)
				}
			}
		})
	}
	use := func() policy.Reason {
		for {
			// A lookup that was invalidated all the time is a failure: ask again.
			if r, err := b.tryUse(ctx, secret); err == nil {
				return r
			}
		}
	}
	for updates.Load() < 10 {
		require.Equal(t, admitted, use())
	}
	require.NoError(t, b.Revoke(ctx, owner, ref(k)))
	n := updates.Load()
	for range 100 {
		require.Equal(t, policy.InvalidToken, use())
	}
	require.LessOrEqual(t, updates.Load(), n+4, "only updates that had begun can still end")
	require.Equal(t, start, b.stored(k.ID).RevokedAt)
}

// Of concurrent revocations exactly one is told that it did it.
func TestParallelRevocations(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	_, k := b.create()
	var won, lost atomic.Int32
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			switch err := b.Revoke(t.Context(), plain, ref(k)); {
			case err == nil:
				won.Add(1)
			case errors.Is(err, store.ErrNotFound):
				lost.Add(1)
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 1, won.Load())
	require.EqualValues(t, 19, lost.Load())
}

// A key that was stored with a larger limit than can be set is listed as it is, and
// the rest of it can be changed.
func TestStoredLimitIsTooLarge(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	_, k := b.create()
	k.DailyLimit = math.MaxInt64
	require.NoError(t, b.mem.UpdateKey(t.Context(), k))
	rows, _, err := b.Table(t.Context(), keys.TableQuery{Org: org})
	require.NoError(t, err)
	require.Len(t, rows, 1)
	require.Equal(t, int64(math.MaxInt64), rows[0].Key.DailyLimit)
	got, err := b.Update(t.Context(), keys.UpdateParams{Ref: ref(k), Name: new("renamed")})
	require.NoError(t, err)
	require.Equal(t, int64(math.MaxInt64), got.DailyLimit)
}
