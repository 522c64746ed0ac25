package oidcauth_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/middleware"
	"github.com/keystile/keystile/middleware/oidcauth"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/keys"
	"github.com/keystile/keystile/store/memstore"
)

// S67: what the claims say about a person, by default and by the names of others.
func TestIdentity_Claims_S67(t *testing.T) {
	t.Parallel()
	groups := oidcauth.Options{OwnerClaim: "cognito:groups", OwnerValue: "owners"}
	type identity struct {
		org, team, tier string
		owner           bool
	}
	for _, tt := range []struct {
		name   string
		opts   oidcauth.Options
		claims map[string]any
		want   identity
		err    string
	}{
		{"nothing", oidcauth.Options{}, nil, identity{org: "user:alice"}, ""},
		{"tier", oidcauth.Options{}, map[string]any{"custom:tier": "Pro"}, identity{org: "user:alice", tier: "Pro"}, ""},
		{"team", oidcauth.Options{}, map[string]any{"custom:teamId": "acme"}, identity{org: "acme", team: "acme"}, ""},
		{"team empty", oidcauth.Options{}, map[string]any{"custom:teamId": ""}, identity{org: "user:alice"}, ""},
		{"team null", oidcauth.Options{}, map[string]any{"custom:teamId": json.RawMessage("null")}, identity{org: "user:alice"}, ""},
		{"tier a number", oidcauth.Options{}, map[string]any{"custom:tier": 1}, identity{}, "claim about the person"},
		{"team a list", oidcauth.Options{}, map[string]any{"custom:teamId": []string{"acme"}}, identity{}, "claim about the person"},
		{"team with a line break", oidcauth.Options{}, map[string]any{"custom:teamId": "a\nb"}, identity{}, "claim about the person"},
		{"team too long", oidcauth.Options{}, map[string]any{"custom:teamId": strings.Repeat("x", 513)}, identity{}, "claim about the person"},
		{"somebody's own organization", oidcauth.Options{}, map[string]any{"custom:teamId": "user:bob"}, identity{}, "organization of one person"},
		{
			"other names",
			oidcauth.Options{TierClaim: "plan", TeamClaim: "group", OrgClaim: "tenant"},
			map[string]any{"plan": "Team", "group": "red", "tenant": "acme", "custom:tier": "Pro", "custom:teamId": "globex"},
			identity{org: "acme", team: "red", tier: "Team"},
			"",
		},
		{"team without organization", oidcauth.Options{OrgClaim: "tenant"}, map[string]any{"custom:teamId": "red"}, identity{org: "user:alice", team: "red"}, ""},
		{"groups ignored", oidcauth.Options{}, map[string]any{"cognito:groups": []string{"owners"}}, identity{org: "user:alice"}, ""},
		{"in the group", groups, map[string]any{"cognito:groups": []string{"staff", "owners"}}, identity{org: "user:alice", owner: true}, ""},
		{"not in the group", groups, map[string]any{"cognito:groups": []string{"staff", "Owners"}}, identity{org: "user:alice"}, ""},
		{"in no group", groups, nil, identity{org: "user:alice"}, ""},
		{"role", oidcauth.Options{OwnerClaim: "role", OwnerValue: "owner"}, map[string]any{"role": "owner"}, identity{org: "user:alice", owner: true}, ""},
		{"another role", oidcauth.Options{OwnerClaim: "role", OwnerValue: "owner"}, map[string]any{"role": "user, owner"}, identity{org: "user:alice"}, ""},
		{"role an object", oidcauth.Options{OwnerClaim: "role", OwnerValue: "owner"}, map[string]any{"role": map[string]any{"owner": true}}, identity{org: "user:alice"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a := open(t, shared(), tt.opts)
			token := shared().AccessToken("alice", tt.claims)
			if tt.err != "" {
				refused(t, a, token, tt.err)
				return
			}
			p := accepted(t, a, token)
			require.Equal(t, tt.want, identity{p.Org, p.Team, p.Tier, p.Owner})
			require.Equal(t, "alice", p.User)
		})
	}
}

// The hook completes or replaces what the named claims make, sees all of them, and
// decides by its error between 401 and 503.
func TestIdentity_Map(t *testing.T) {
	t.Parallel()
	broken := errors.New("directory is down")
	a := open(t, shared(), oidcauth.Options{Map: func(ctx context.Context, claims map[string]any, id oidcauth.Identity) (oidcauth.Identity, error) {
		require.NoError(t, ctx.Err())
		require.Equal(t, issuerURL, claims["iss"])
		require.IsType(t, json.Number(""), claims["exp"])
		switch claims["sub"] {
		case "nobody":
			return id, fmt.Errorf("not on the list: %w", middleware.ErrInvalidCredential)
		case "unlucky":
			return id, broken
		}
		require.Equal(t, "acme", id.Org)
		return oidcauth.Identity{Org: "globex", Team: id.Team, Tier: "Enterprise", Owner: new(true)}, nil
	}})
	team := map[string]any{"custom:teamId": "acme"}
	p := accepted(t, a, shared().AccessToken("alice", team))
	require.Equal(t, "globex", p.Org)
	require.Equal(t, "acme", p.Team)
	require.Equal(t, "Enterprise", p.Tier)
	require.True(t, p.Owner)
	refused(t, a, shared().AccessToken("nobody", team), "not on the list")
	unavailable(t, a, shared().AccessToken("unlucky", team), "directory is down")
	_, err := a.Authenticate(bearer(shared().AccessToken("unlucky", team)))
	require.ErrorIs(t, err, broken)
}

// D42: a person who signs in gets a record, which is written again only when the
// token says something else. What the token does not say is left alone, and so are
// the grant and the suspension.
func TestUsers_KeptUpToDate_D42(t *testing.T) {
	t.Parallel()
	var known people
	a := open(t, shared(), oidcauth.Options{
		Users: &known, TokenUses: []oidcauth.TokenUse{oidcauth.Access, oidcauth.ID},
		OwnerClaim: "cognito:groups", OwnerValue: "owners", CacheSize: -1,
	})
	acme := func(more map[string]any) map[string]any {
		claims := map[string]any{"custom:teamId": "acme", "custom:tier": "Pro", "cognito:groups": []string{"owners"}}
		maps.Copy(claims, more)
		return claims
	}
	sign := func(token string, writes int, want store.User) {
		t.Helper()
		before := known.writes
		p := accepted(t, a, token)
		require.Equal(t, writes, known.writes-before)
		require.Equal(t, want, *known.users["acme/alice"])
		require.Equal(t, want.Tier, p.Tier)
		require.Equal(t, want.Owner, p.Owner)
		require.Equal(t, want.Permitted, p.Permitted)
	}
	u := store.User{Org: "acme", ID: "alice", Tier: "Pro", Owner: true}
	sign(shared().AccessToken("alice", acme(nil)), 1, u)
	sign(shared().AccessToken("alice", acme(nil)), 0, u)
	u.Email = "alice@example.com"
	sign(shared().IDToken("alice", acme(nil)), 1, u)
	sign(shared().AccessToken("alice", acme(nil)), 0, u) // which has no e-mail
	sign(shared().IDToken("alice", acme(map[string]any{"email": "mallory@example.com", "email_verified": false})), 0, u)
	sign(shared().IDToken("alice", acme(map[string]any{"email": "mallory@example.com", "email_verified": "false"})), 0, u)
	sign(shared().IDToken("alice", acme(map[string]any{"email": "mallory@example.com", "email_verified": nil})), 0, u)
	sign(shared().IDToken("alice", acme(map[string]any{"custom:tier": nil})), 0, u)
	u.Tier = "Free"
	sign(shared().IDToken("alice", acme(map[string]any{"custom:tier": "Free"})), 1, u)
	u.Owner = false
	sign(shared().AccessToken("alice", acme(map[string]any{"custom:tier": nil, "cognito:groups": nil})), 1, u)
	u.Permitted, u.Version = true, 7 // by an owner
	known.users["acme/alice"] = &u
	sign(shared().AccessToken("alice", acme(map[string]any{"custom:tier": nil, "cognito:groups": nil})), 0, u)
	require.Len(t, known.users, 1)
}

// Without an OwnerClaim the role is the record's.
func TestUsers_RoleOfTheRecord(t *testing.T) {
	t.Parallel()
	known := people{users: map[string]*store.User{"acme/alice": {Org: "acme", ID: "alice", Owner: true, Tier: "Team"}}}
	a := open(t, shared(), oidcauth.Options{Users: &known})
	p := accepted(t, a, shared().AccessToken("alice", map[string]any{"custom:teamId": "acme"}))
	require.True(t, p.Owner)
	require.Equal(t, "Team", p.Tier)
	p = accepted(t, a, shared().AccessToken("alice", map[string]any{"custom:teamId": "globex"}))
	require.False(t, p.Owner, "of another organization")
}

// D17: who is suspended is refused, within a minute, and let in again afterwards;
// signing in lifts no suspension.
func TestUsers_Suspended_D17(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		mgr, err := keys.New(memstore.New(), nil)
		require.NoError(t, err)
		a := open(t, shared(), oidcauth.Options{Users: mgr})
		token := shared().AccessToken("alice", map[string]any{"custom:teamId": "acme", "custom:tier": "Pro"})
		accepted(t, a, token)
		u, err := mgr.User(t.Context(), "acme", "alice")
		require.NoError(t, err)
		require.Equal(t, "Pro", u.Tier)
		v := *u
		v.SuspendedAt = time.Now()
		require.NoError(t, mgr.PutUser(t.Context(), &v))
		time.Sleep(time.Minute)
		refused(t, a, token, "user is suspended")
		refused(t, a, shared().AccessToken("alice", map[string]any{"custom:teamId": "acme", "custom:tier": "Team"}), "user is suspended")
		u, err = mgr.User(t.Context(), "acme", "alice")
		require.NoError(t, err)
		require.False(t, u.SuspendedAt.IsZero())
		v.SuspendedAt = time.Time{}
		require.NoError(t, mgr.PutUser(t.Context(), &v))
		accepted(t, a, token)
	})
}

// S76: while the records cannot be read or written nobody new is let in.
func TestUsers_Failure_S76(t *testing.T) {
	t.Parallel()
	var known people
	a := open(t, shared(), oidcauth.Options{Users: &known})
	known.fail(errors.New("store is down"))
	token := shared().AccessToken("alice", nil)
	unavailable(t, a, token, "store is down")
	known.fail(nil)
	accepted(t, a, token)

	known.writeErr = errors.New("disk is full")
	unavailable(t, a, shared().AccessToken("bob", nil), "disk is full")
	accepted(t, a, token)
}

// A person without an organization has no record.
func TestUsers_NoOrganization(t *testing.T) {
	t.Parallel()
	var known people
	a := open(t, shared(), oidcauth.Options{
		Users: &known,
		Map: func(_ context.Context, _ map[string]any, id oidcauth.Identity) (oidcauth.Identity, error) {
			id.Org = ""
			return id, nil
		},
	})
	require.Empty(t, accepted(t, a, shared().AccessToken("alice", nil)).Org)
	require.Zero(t, known.reads+known.writes)
}

// An e-mail by the name of another claim is the issuer's to vouch for.
func TestIdentity_EmailClaim(t *testing.T) {
	t.Parallel()
	var known people
	a := open(t, shared(), oidcauth.Options{Users: &known, EmailClaim: "mail"})
	accepted(t, a, shared().AccessToken("alice", map[string]any{"mail": "a@example.com", "email": "b@example.com", "email_verified": true}))
	require.Equal(t, "a@example.com", known.users["user:alice/alice"].Email)
}

// A sub that is too long for the name of an organization of one's own is refused, and
// no failure; where the organization is named it is as good as others.
func TestIdentity_LongSubject(t *testing.T) {
	t.Parallel()
	mgr, err := keys.New(memstore.New(), nil)
	require.NoError(t, err)
	a := open(t, shared(), oidcauth.Options{Users: mgr})
	for _, n := range []int{508, 510, 512} {
		sub := strings.Repeat("s", n)
		refused(t, a, shared().AccessToken(sub, nil), "sub")
		accepted(t, a, shared().AccessToken(sub, map[string]any{"custom:teamId": "acme"}))
	}
	accepted(t, a, shared().AccessToken(strings.Repeat("s", 507), nil))
	refused(t, a, shared().AccessToken(strings.Repeat("s", 513), map[string]any{"custom:teamId": "acme"}), "sub")
}
