package keys_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/keys"
)

// ownScopes lets users give the scopes that begin with their name.
var ownScopes = &keys.Options{MayGiveScope: func(u *store.User, scope string) bool {
	return strings.HasPrefix(scope, u.ID+":")
}}

// TestMayGiveScope: the scopes of a new key are those that the host lets its user
// give, whoever makes it, an operator excepted.
func TestMayGiveScope(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		actor   keys.Actor
		scopes  []string
		problem string
	}{
		{"none", plain, nil, ""},
		{"allowed", plain, []string{"ada:read", "ada:write"}, ""},
		{"denied", plain, []string{"admin"}, "scope 1 is not one that the user may give"},
		{"one denied", plain, []string{"ada:read", "olga:read"}, "scope 2 is not one that the user may give"},
		{"bad form comes first", plain, []string{"admin", "a b"}, `scope 2 must be printable ASCII without blanks, " and \`},
		{"owner for another", owner, []string{"olga:read"}, "scope 1 is not one that the user may give"},
		{"unknown role", keys.Actor{Role: 99}, []string{"admin"}, "scope 1 is not one that the user may give"},
		{"operator", operator, []string{"admin"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, ownScopes)
			p := params("ada")
			p.Actor, p.Scopes = tt.actor, tt.scopes
			_, k, err := b.Create(t.Context(), p)
			if tt.problem != "" {
				var fe *keys.FieldError
				require.ErrorAs(t, err, &fe)
				require.Equal(t, keys.FieldError{Field: "Scopes", Problem: tt.problem}, *fe)
				listed, err := b.List(t.Context(), store.Query{Org: org})
				require.NoError(t, err)
				require.Empty(t, listed)
				return
			}
			require.NoError(t, err)
			require.Equal(t, tt.scopes, b.stored(k.ID).Scopes)
		})
	}

	b := setup(t, nil)
	p := params("ada")
	p.Scopes = []string{"admin"}
	_, _, err := b.Create(t.Context(), p)
	require.NoError(t, err, "without the option anybody gives any")
}

// TestMayGiveScopeOnUpdate: an existing key gets no scope either that its user may
// not give. It keeps those that it has, and can lose them but not get them back.
func TestMayGiveScopeOnUpdate(t *testing.T) {
	t.Parallel()
	b := setup(t, ownScopes)
	p := params("ada")
	p.Actor, p.Scopes = operator, []string{"admin", "ada:read"}
	_, k, err := b.Create(t.Context(), p)
	require.NoError(t, err)
	update := func(a keys.Actor, scopes ...string) error {
		_, err := b.Update(t.Context(), keys.UpdateParams{Actor: a, Ref: ref(k), Scopes: &scopes})
		return err
	}
	require.NoError(t, update(plain, "ada:write", "admin"), "what it has it keeps")
	for _, a := range []keys.Actor{plain, owner} {
		name := "lost"
		scopes := []string{"admin", "root"}
		_, err := b.Update(t.Context(), keys.UpdateParams{Actor: a, Ref: ref(k), Name: &name, Scopes: &scopes})
		var fe *keys.FieldError
		require.ErrorAs(t, err, &fe)
		require.Equal(t, keys.FieldError{Field: "Scopes", Problem: "scope 2 is not one that the user may give"}, *fe)
	}
	require.Equal(t, k.Name, b.stored(k.ID).Name, "all or nothing")
	require.Equal(t, []string{"ada:write", "admin"}, b.stored(k.ID).Scopes)

	_, k2, err := b.Rotate(t.Context(), keys.RotateParams{Actor: plain, Ref: ref(k)})
	require.NoError(t, err)
	require.Equal(t, []string{"ada:write", "admin"}, k2.Scopes, "a rotation gives nothing")

	k = k2
	require.NoError(t, update(plain))
	require.Error(t, update(plain, "admin"))
	require.NoError(t, update(operator, "admin"))

	// The scopes that count are those of the key as it is when it is written.
	n := 1
	b.hook.on(func(op string) error {
		if op != "UpdateKey" || n == 0 {
			return nil
		}
		n--
		s := b.stored(k.ID)
		s.Scopes = nil
		return b.mem.UpdateKey(t.Context(), s)
	}, nil)
	require.Error(t, update(plain, "admin", "ada:read"))
	require.Zero(t, n)
	require.Empty(t, b.stored(k.ID).Scopes)
}
