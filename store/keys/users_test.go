package keys_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/audit"
	"github.com/keystile/keystile/store/keys"
)

// D42: the host pushes what it knows. D15: blanks around an e-mail are cut, and
// nothing else of it is changed.
func TestPutUser(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	ctx := t.Context()
	u := store.User{
		Org: org, ID: "carol", Email: " Carol@Acme.example\t", Tier: "Team",
		Owner: true, Permitted: true, SuspendedAt: start.Add(999), Version: 99,
	}
	given := u
	require.NoError(t, b.PutUser(ctx, &u))
	require.Equal(t, given, u, "the argument is not changed")
	want := &store.User{
		Org: org, ID: "carol", Email: "Carol@Acme.example", Tier: "Team",
		Owner: true, Permitted: true, SuspendedAt: start, Version: 1,
	}
	got, err := b.User(ctx, org, "carol")
	require.NoError(t, err)
	require.Equal(t, want, got)

	require.NoError(t, b.PutUser(ctx, &u))
	got, err = b.User(ctx, org, "carol")
	require.NoError(t, err)
	require.Equal(t, want, got, "a push of the same writes nothing")

	require.NoError(t, b.PutUser(ctx, &store.User{Org: org, ID: "carol"}))
	got, err = b.User(ctx, org, "carol")
	require.NoError(t, err)
	require.Equal(t, &store.User{Org: org, ID: "carol", Permitted: true, Version: 2}, got)
}

func TestPutUserProblems(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	long := strings.Repeat("x", 513)
	tests := []struct {
		name string
		u    store.User
		want []string
	}{
		{"zero", store.User{}, []string{"Org", "ID"}},
		{"NUL (F80)", store.User{Org: "\x00", ID: "a\x00", Email: "a\x00b", Tier: "\x00"}, []string{"Org", "ID", "Email", "Tier"}},
		{"line feed", store.User{Org: org, ID: "a", Email: "a\nb"}, []string{"Email"}},
		{"invalid UTF-8", store.User{Org: org, ID: "\xff", Email: "\xff"}, []string{"ID", "Email"}},
		{"long", store.User{Org: long, ID: long, Email: long, Tier: long}, []string{"Org", "ID", "Email", "Tier"}},
		{"suspended too early to be kept", store.User{Org: org, ID: "a", SuspendedAt: time.Time{}.Add(999)}, []string{"SuspendedAt"}},
		{"suspended before the year 1", store.User{Org: org, ID: "a", SuspendedAt: time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC)}, []string{"SuspendedAt"}},
		{"suspended after the year 9999", store.User{Org: org, ID: "a", SuspendedAt: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)}, []string{"SuspendedAt"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, tt.want, fields(b.PutUser(t.Context(), &tt.u)))
		})
	}
}

// S31, S32, D42: the grant is the owners': a push neither takes nor gives it.
func TestPutUserKeepsTheGrant(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	b.set(func(s *policy.Settings) { s.RestrictUsers = true })
	b.permit("ada", true)
	secret, _ := b.create()
	b.put(store.User{ID: "ada", Email: "new@acme.example", Permitted: false})
	require.Equal(t, admitted, b.use(secret))
	b.permit("ada", false)
	b.put(store.User{ID: "ada", Permitted: true})
	require.Equal(t, policy.UserNotPermitted, b.use(secret))
}

// A grant that an owner gives between the reading and the writing of a push is kept
// too, as is a user that somebody else adds meanwhile.
func TestPutUserRaces(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	ctx := t.Context()
	n := 3
	b.hook.on(func(op string) error {
		if op != "PutUser" || n == 0 {
			return nil
		}
		n--
		us, err := b.mem.Users(ctx, store.UserQuery{Org: org, ID: "dan"})
		if err != nil || len(us) == 0 {
			return b.mem.PutUser(ctx, &store.User{Org: org, ID: "dan"})
		}
		us[0].Permitted = true
		return b.mem.PutUser(ctx, us[0])
	}, nil)
	require.NoError(t, b.PutUser(ctx, &store.User{Org: org, ID: "dan", Tier: "Team"}))
	u, err := b.User(ctx, org, "dan")
	require.NoError(t, err)
	require.Equal(t, &store.User{Org: org, ID: "dan", Tier: "Team", Permitted: true, Version: 4}, u)

	b.hook.on(func(op string) error {
		if op == "PutUser" {
			return store.ErrConflict
		}
		return nil
	}, nil)
	require.ErrorIs(t, b.PutUser(ctx, &store.User{Org: org, ID: "dan"}), store.ErrConflict)
	require.ErrorIs(t, b.SetPermitted(ctx, owner, org, "dan", false), store.ErrConflict)
}

// Pushes and grants at the same time: none is lost.
func TestParallelPushesAndGrants(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	ctx := t.Context()
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() {
			if err := b.PutUser(ctx, &store.User{Org: org, ID: "eve", Tier: fmt.Sprint("tier", i)}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Go(func() {
		for b.SetPermitted(ctx, owner, org, "eve", true) != nil { // until she is there
		}
	})
	wg.Wait()
	u, err := b.User(ctx, org, "eve")
	require.NoError(t, err)
	require.True(t, u.Permitted)
	require.Regexp(t, `^tier\d$`, u.Tier)
}

// S30: only owners grant.
func TestOnlyOwnersGrant(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	ctx := t.Context()
	for _, a := range []keys.Actor{{}, plain, {Role: 99}} {
		require.ErrorIs(t, b.SetPermitted(ctx, a, org, "ada", true), keys.ErrForbidden)
	}
	u, err := b.User(ctx, org, "ada")
	require.NoError(t, err)
	require.False(t, u.Permitted)
	require.NoError(t, b.SetPermitted(ctx, owner, org, "ada", true))
	require.NoError(t, b.SetPermitted(ctx, operator, org, "ada", true))
	require.ErrorIs(t, b.SetPermitted(ctx, owner, org, "nobody", true), store.ErrNotFound)
	require.ErrorIs(t, b.SetPermitted(ctx, owner, org, "", true), store.ErrNotFound)
	require.ErrorIs(t, b.SetPermitted(ctx, owner, "elsewhere", "ada", true), store.ErrNotFound)
}

func TestUsers(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	ctx := t.Context()
	b.put(store.User{Org: "elsewhere", ID: "zoe"})
	us, err := b.Users(ctx, store.UserQuery{Org: org})
	require.NoError(t, err)
	require.Len(t, us, 3)
	require.Equal(t, []string{"ada", "bob", "olga"}, []string{us[0].ID, us[1].ID, us[2].ID})
	us, err = b.Users(ctx, store.UserQuery{Org: org, After: "ada", Limit: 1})
	require.NoError(t, err)
	require.Len(t, us, 1)
	require.Equal(t, "bob", us[0].ID)
	for _, id := range []string{"", "nobody", "a\x00"} {
		_, err = b.User(ctx, org, id)
		require.ErrorIs(t, err, store.ErrNotFound)
	}
	_, err = b.User(ctx, "", "ada")
	require.ErrorIs(t, err, store.ErrNotFound)
}

// D16: the e-mail of the next request is the new one. D17: suspending stops the
// keys at once and keeps the rows; un-suspending restores them. The cache is warm.
func TestUserChangesAreSeenAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	secret, k := b.create()
	require.Equal(t, admitted, b.use(secret))
	email := func() string {
		v, err := b.Verifier().Verify(t.Context(), secret, b.clock.Now())
		require.NoError(t, err)
		return v.Record.User.Email
	}
	require.Equal(t, "ada@acme.example", email())
	b.put(store.User{ID: "ada", Email: "ada.lovelace@acme.example"})
	require.Equal(t, "ada.lovelace@acme.example", email())

	b.put(store.User{ID: "ada", SuspendedAt: start})
	require.Equal(t, policy.InvalidToken, b.use(secret))
	require.Equal(t, keys.Status{State: keys.DisabledByOwner, Reasons: []policy.Reason{policy.InvalidToken}}, b.status(k))
	require.Equal(t, 1, b.count("ada", false))
	b.put(store.User{ID: "ada"})
	require.Equal(t, admitted, b.use(secret))
}

// D42: signing in brings the record up to date, and nothing but what the sign-in says;
// once it says the same again nothing is written.
func TestSignIn(t *testing.T) {
	t.Parallel()
	b, sink := audited(t, true)
	ctx := t.Context()
	enters := func(email, tier string) func(u *store.User) error {
		return func(u *store.User) error {
			u.Email, u.Tier = email, tier
			u.Permitted, u.Org, u.ID, u.Version = true, "other", "olga", 99 // not its to change
			return nil
		}
	}
	sink.take()
	u, err := b.SignIn(ctx, org, "eve", enters(" eve@acme.example ", "Pro"))
	require.NoError(t, err)
	require.Equal(t, &store.User{Org: org, ID: "eve", Email: "eve@acme.example", Tier: "Pro", Version: 1}, u)
	events := sink.take()
	require.Len(t, events, 2, "an intent and an outcome")
	require.Equal(t, audit.UserPut, events[1].Action)
	require.Equal(t, audit.Success, events[1].Outcome)
	require.Equal(t, "eve", events[1].Actor.ID, "who did it: the user")
	require.Equal(t, "eve", events[1].User)

	require.NoError(t, b.SetPermitted(ctx, owner, org, "eve", true))
	sink.take()
	again, err := b.SignIn(ctx, org, "eve", enters("eve@acme.example", "Pro"))
	require.NoError(t, err)
	require.True(t, again.Permitted, "S32: the grant stays")
	require.EqualValues(t, 2, again.Version)
	require.Empty(t, sink.take(), "nothing was changed")

	u, err = b.SignIn(ctx, org, "eve", enters("eve@acme.example", "Team"))
	require.NoError(t, err)
	require.Equal(t, "Team", u.Tier)
	require.True(t, u.Permitted)
	sink.take()

	refused := errors.New("suspended")
	for _, user := range []string{"eve", "unknown"} {
		_, err = b.SignIn(ctx, org, user, func(u *store.User) error { u.Tier = "x"; return refused })
		require.ErrorIs(t, err, refused)
	}
	_, err = b.SignIn(ctx, org, "eve", enters("a\x00b", ""))
	require.Equal(t, []string{"Email"}, fields(err))
	require.Empty(t, sink.take())
	_, err = b.User(ctx, org, "unknown")
	require.ErrorIs(t, err, store.ErrNotFound)
	u, err = b.User(ctx, org, "eve")
	require.NoError(t, err)
	require.Equal(t, "Team", u.Tier)
}

// A user who is suspended between the look at the record and its change stays so, and
// is told to the function, which can refuse.
func TestSignInLosesNoSuspension(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	refused := errors.New("suspended")
	calls := 0
	_, err := b.SignIn(t.Context(), org, "ada", func(u *store.User) error {
		if calls++; calls == 2 { // the record is read, and about to be written
			b.put(store.User{ID: "ada", SuspendedAt: start})
		}
		if !u.SuspendedAt.IsZero() {
			return refused
		}
		u.Tier = "Team"
		return nil
	})
	require.ErrorIs(t, err, refused)
	require.Equal(t, 3, calls)
	u, err := b.User(t.Context(), org, "ada")
	require.NoError(t, err)
	require.Equal(t, start, u.SuspendedAt)
	require.Equal(t, "Pro", u.Tier)
}

// A store that fails lets nobody sign in (S76).
func TestSignInFails(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	down := errors.New("connection refused")
	same := func(*store.User) error { return nil }
	failing := func(name string) func(op string) error {
		return func(op string) error {
			if op == name {
				return down
			}
			return nil
		}
	}
	b.hook.on(failing("Users"), nil)
	_, err := b.SignIn(t.Context(), org, "ada", same)
	require.ErrorIs(t, err, down)
	b.hook.on(failing("PutUser"), nil)
	_, err = b.SignIn(t.Context(), org, "ada", same)
	require.NoError(t, err, "nothing to write")
	_, err = b.SignIn(t.Context(), org, "new", same)
	require.ErrorIs(t, err, down)
}
