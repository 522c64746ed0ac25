package keys_test

import (
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/keys"
	"github.com/keystile/keystile/token"
)

// D39: a new token with the same settings and family; the old one works for the
// grace period.
func TestRotate(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	ctx := t.Context()
	p := params("ada")
	p.Scopes, p.DailyLimit, p.NotAfter = []string{"read"}, 7, start.Add(90*day)
	tok, old, err := b.Create(ctx, p)
	require.NoError(t, err)
	require.Equal(t, old.ID, old.Family, "the family of the first is its own ID")
	require.Equal(t, admitted, b.use(tok.Reveal()))

	b.clock.Add(day)
	tok2, k, err := b.Rotate(ctx, keys.RotateParams{Ref: ref(old), Grace: time.Hour + 999})
	require.NoError(t, err)
	require.NotEqual(t, tok.Reveal(), tok2.Reveal())
	want := *old
	want.ID, want.Digest, want.CreatedAt = tok2.ID(), k.Digest, start.Add(day)
	require.Equal(t, &want, k)
	require.Equal(t, k, b.stored(k.ID), "what is returned is what is stored")
	require.NotEqual(t, old.Digest, k.Digest)
	require.Equal(t, start.Add(day+time.Hour), b.stored(old.ID).RevokedAt)

	require.Equal(t, admitted, b.use(tok.Reveal()))
	require.Equal(t, admitted, b.use(tok2.Reveal()))
	require.Equal(t, keys.Active, b.status(old).State)
	b.clock.Add(time.Hour - time.Microsecond)
	require.Equal(t, admitted, b.use(tok.Reveal()))
	b.clock.Add(time.Microsecond)
	require.Equal(t, policy.InvalidToken, b.use(tok.Reveal()), "revoked once now is not before RevokedAt")
	require.Equal(t, admitted, b.use(tok2.Reveal()))

	_, third, err := b.Rotate(ctx, keys.RotateParams{Ref: ref(k)})
	require.NoError(t, err)
	require.Equal(t, old.ID, third.Family, "the quota stays with the family")
}

// D39: a grace of 0 stops the old token at once.
func TestRotateWithoutGrace(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	secret, k := b.create()
	require.Equal(t, admitted, b.use(secret))
	tok, _, err := b.Rotate(t.Context(), keys.RotateParams{Ref: ref(k)})
	require.NoError(t, err)
	require.Equal(t, policy.InvalidToken, b.use(secret))
	require.Equal(t, admitted, b.use(tok.Reveal()))
	_, _, err = b.Rotate(t.Context(), keys.RotateParams{Ref: ref(k)})
	require.ErrorIs(t, err, store.ErrNotFound)
}

func TestGraceBounds(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	for _, grace := range []time.Duration{-1, math.MinInt64, keys.MaxGrace + 1, math.MaxInt64} {
		_, k := b.create()
		_, _, err := b.Rotate(t.Context(), keys.RotateParams{Ref: ref(k), Grace: grace})
		require.Equal(t, []string{"Grace"}, fields(err))
		require.Equal(t, k, b.stored(k.ID))
	}
	_, k := b.createFor("bob")
	_, _, err := b.Rotate(t.Context(), keys.RotateParams{Ref: ref(k), Grace: keys.MaxGrace})
	require.NoError(t, err)
	require.Equal(t, start.Add(30*day), b.stored(k.ID).RevokedAt)
}

// D39: only active keys rotate.
func TestOnlyActiveKeysRotate(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		prepare func(b *bundle, k *store.Key)
		reason  string
	}{
		{"disabled", func(b *bundle, k *store.Key) {
			_, err := b.Disable(b.t.Context(), owner, ref(k))
			require.NoError(b.t, err)
		}, string(policy.KeyDisabled)},
		{"restricted (D35)", func(b *bundle, _ *store.Key) {
			b.set(func(s *policy.Settings) { s.RestrictUsers = true })
		}, string(policy.UserNotPermitted)},
		{"expired by the policy", func(b *bundle, _ *store.Key) {
			b.set(func(s *policy.Settings) { s.MaxAge = time.Hour })
			b.clock.Add(time.Hour)
		}, string(policy.Expired)},
		{"expired by its own end", func(b *bundle, _ *store.Key) { b.clock.Add(2 * day) }, string(policy.Expired)},
		{"user suspended (D17)", func(b *bundle, _ *store.Key) {
			b.put(store.User{ID: "ada", SuspendedAt: start})
		}, string(policy.InvalidToken)},
		{"rotated already", func(b *bundle, k *store.Key) {
			_, _, err := b.Rotate(b.t.Context(), keys.RotateParams{Ref: ref(k), Grace: time.Hour})
			require.NoError(b.t, err)
		}, "rotated already"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, nil)
			p := params("ada")
			p.NotAfter = start.Add(2 * day)
			_, k, err := b.Create(t.Context(), p)
			require.NoError(t, err)
			tt.prepare(b, k)
			before, n := b.stored(k.ID), b.count("ada", true)
			for _, a := range []keys.Actor{plain, owner, operator} {
				tok, _, err := b.Rotate(t.Context(), keys.RotateParams{Actor: a, Ref: ref(k), Grace: time.Minute})
				require.ErrorIs(t, err, keys.ErrNotActive)
				require.ErrorContains(t, err, tt.reason)
				require.Empty(t, tok.Reveal())
			}
			require.Equal(t, before, b.stored(k.ID))
			require.Equal(t, n, b.count("ada", true))
		})
	}
}

// D39: a key in its grace period does not count toward the cap, and a rotation is
// possible at the cap, and above a cap that was lowered.
func TestRotateAtTheCap(t *testing.T) {
	t.Parallel()
	b := setup(t, &keys.Options{MaxPerUser: 3})
	ctx := t.Context()
	var k *store.Key
	for range 3 {
		_, k = b.create()
	}
	_, k, err := b.Rotate(ctx, keys.RotateParams{Ref: ref(k), Grace: time.Hour})
	require.NoError(t, err)
	_, _, err = b.Create(ctx, params("ada"))
	require.ErrorIs(t, err, store.ErrLimit)
	require.Equal(t, 3, b.count("ada", false))

	lowered, err := keys.New(b.mem, &keys.Options{MaxPerUser: 1, Now: b.clock.Now})
	require.NoError(t, err)
	_, _, err = lowered.Rotate(ctx, keys.RotateParams{Ref: ref(k)})
	require.NoError(t, err)
	require.Equal(t, 3, b.count("ada", false))
}

// S19: a key in its grace period is revoked at once.
func TestRevokeInGrace(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	secret, k := b.create()
	tok, _, err := b.Rotate(t.Context(), keys.RotateParams{Ref: ref(k), Grace: time.Hour})
	require.NoError(t, err)
	require.Equal(t, admitted, b.use(secret))
	require.NoError(t, b.Revoke(t.Context(), plain, ref(k)))
	require.Equal(t, policy.InvalidToken, b.use(secret))
	require.Equal(t, admitted, b.use(tok.Reveal()), "the new key stays")
	require.ErrorIs(t, b.Revoke(t.Context(), plain, ref(k)), store.ErrNotFound)
}

// D39: of concurrent rotations of one key exactly one succeeds, with a grace period
// and without.
func TestParallelRotations(t *testing.T) {
	t.Parallel()
	for _, grace := range []time.Duration{0, time.Hour} {
		b := setup(t, nil)
		_, k := b.create()
		var won, lost atomic.Int32
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				_, _, err := b.Rotate(t.Context(), keys.RotateParams{Ref: ref(k), Grace: grace})
				switch {
				case err == nil:
					won.Add(1)
				case errors.Is(err, keys.ErrNotActive), errors.Is(err, store.ErrNotFound):
					lost.Add(1)
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, 1, won.Load())
		require.EqualValues(t, 19, lost.Load())
		require.Equal(t, 2, b.count("ada", true))
	}
}

// A key that is disabled between the reading and the rotation is not rotated.
func TestRotateSeesTheOtherChange(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	_, k := b.create()
	once := true
	b.hook.on(func(op string) error {
		if op == "InsertKey" && once {
			once = false
			stored := b.stored(k.ID)
			stored.DisabledAt = start
			return b.mem.UpdateKey(t.Context(), stored)
		}
		return nil
	}, nil)
	_, _, err := b.Rotate(t.Context(), keys.RotateParams{Ref: ref(k), Grace: time.Hour})
	require.ErrorIs(t, err, keys.ErrNotActive)
	require.Equal(t, 1, b.count("ada", true))
}

// S35, D39: the organization's period counts from the rotation.
func TestRotationRestartsThePeriod(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	b.set(func(s *policy.Settings) { s.MaxAge = 30 * day })
	_, k := b.create()
	b.clock.Add(29 * day)
	tok, k, err := b.Rotate(t.Context(), keys.RotateParams{Ref: ref(k)})
	require.NoError(t, err)
	require.Equal(t, start.Add(59*day), b.status(k).ExpiresAt)
	b.clock.Add(29 * day)
	require.Equal(t, admitted, b.use(tok.Reveal()))
	b.clock.Add(day)
	require.Equal(t, policy.Expired, b.use(tok.Reveal()))
}

// TestReplacedKeysAreBounded: as many replaced keys as the cap may work beside those
// that a user has, however often they are rotated (S12, D39): a chain of rotations
// with long graces does not make a sixth one.
func TestReplacedKeysAreBounded(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	_, k := b.create()
	var replaced []*store.Key
	for range 5 {
		_, next, err := b.Rotate(t.Context(), keys.RotateParams{Ref: ref(k), Grace: keys.MaxGrace})
		require.NoError(t, err)
		replaced = append(replaced, k)
		k = next
	}
	refused := func() {
		t.Helper()
		before := b.stored(k.ID)
		_, _, err := b.Rotate(t.Context(), keys.RotateParams{Ref: ref(k), Grace: time.Second})
		var limit *keys.LimitError
		require.ErrorAs(t, err, &limit)
		require.Equal(t, keys.LimitError{Limit: 5, Grace: true}, *limit)
		require.ErrorIs(t, err, store.ErrLimit)
		require.Equal(t, before, b.stored(k.ID), "nothing was changed")
	}
	refused()

	// Nor does giving the key up and making another one help.
	require.NoError(t, b.Revoke(t.Context(), owner, ref(k)))
	_, k = b.create()
	refused()

	// Another user's are counted apart.
	_, bobs := b.createFor("bob")
	_, _, err := b.Rotate(t.Context(), keys.RotateParams{Ref: ref(bobs), Grace: time.Hour})
	require.NoError(t, err)

	// Without a grace there is nothing to count.
	_, k, err = b.Rotate(t.Context(), keys.RotateParams{Ref: ref(k)})
	require.NoError(t, err)
	refused()

	// A place is free when one of them is revoked, or when its grace is over.
	require.NoError(t, b.Revoke(t.Context(), owner, ref(replaced[2])))
	_, k, err = b.Rotate(t.Context(), keys.RotateParams{Ref: ref(k), Grace: time.Second})
	require.NoError(t, err)
	refused()
	b.clock.Add(time.Second)
	_, _, err = b.Rotate(t.Context(), keys.RotateParams{Ref: ref(k), Grace: time.Second})
	require.NoError(t, err)
}

// TestReplacedKeysWithoutACap: without a cap there is none on replaced keys either.
func TestReplacedKeysWithoutACap(t *testing.T) {
	t.Parallel()
	b := setup(t, &keys.Options{MaxPerUser: -1})
	_, k := b.create()
	for range 10 {
		_, next, err := b.Rotate(t.Context(), keys.RotateParams{Ref: ref(k), Grace: time.Hour})
		require.NoError(t, err)
		k = next
	}
}

// TestReplacedKeysAtOnce: rotations of different keys at the same time can exceed the
// bound by what the user has, and by no more.
func TestReplacedKeysAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	var wg sync.WaitGroup
	for range 5 {
		_, k := b.create()
		wg.Go(func() {
			for {
				_, next, err := b.Rotate(t.Context(), keys.RotateParams{Ref: ref(k), Grace: time.Hour})
				if err != nil {
					return
				}
				k = next
			}
		})
	}
	wg.Wait()
	page, err := b.List(t.Context(), store.Query{Org: "acme", User: "ada", Revoked: true})
	require.NoError(t, err)
	inGrace := 0
	for _, k := range page {
		if !k.RevokedAt.IsZero() {
			inGrace++
		}
	}
	require.GreaterOrEqual(t, inGrace, 5)
	require.LessOrEqual(t, inGrace, 5+4)
}

// D39: a key that the host inserted without a family hands its quota on all the same.
func TestRotateWithoutFamily(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	_, made := b.create()
	tok := token.Generate()
	d, err := new(token.Format).Digest(tok.Reveal())
	require.NoError(t, err)
	k := *made
	k.ID, k.Digest, k.Family, k.Version = tok.ID(), d, "", 1
	require.NoError(t, b.mem.InsertKey(t.Context(), &k, nil, -1))
	_, next, err := b.Rotate(t.Context(), keys.RotateParams{Ref: ref(&k), Grace: time.Hour})
	require.NoError(t, err)
	require.Equal(t, tok.ID(), store.NewRecord(next, &store.User{}).Principal.Quota)
}
