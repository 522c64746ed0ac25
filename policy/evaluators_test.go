package policy_test

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/keystile/keystile/policy"
	"github.com/stretchr/testify/require"
)

// TestEnabled_D12: a key that an owner disabled is refused; the flag says
// nothing of other credentials.
func TestEnabled_D12(t *testing.T) {
	t.Parallel()
	for _, disabled := range []bool{false, true} {
		for _, kind := range []policy.Credential{policy.APIKey, policy.JWT, policy.Session} {
			r := with(keyRequest(), func(r *policy.Request) {
				r.Principal.Credential, r.Principal.Disabled = kind, disabled
			})
			want := allowed()
			if disabled && kind == policy.APIKey {
				want = refused(policy.KeyDisabled)
			}
			require.Equal(t, want, policy.Enabled().Evaluate(r), "%v %v", kind, disabled)
		}
	}
}

// TestPermittedUsers is the section "Restriction by user" as far as use goes.
func TestPermittedUsers(t *testing.T) {
	t.Parallel()
	key, jwt, session := policy.APIKey, policy.JWT, policy.Session
	for _, tt := range []struct {
		name                       string
		kind                       policy.Credential
		restrict, owner, permitted bool
		want                       policy.Decision
	}{
		{"S11: by default every user may use tokens", key, false, false, false, allowed()},
		{"S26: while restricted, users without permission cannot use existing ones", key, true, false, false, refused(policy.UserNotPermitted)},
		{"S28: granting makes the same tokens work again", key, true, false, true, allowed()},
		{"S29: owners are not exempt", key, true, true, false, refused(policy.UserNotPermitted)},
		{"S29: until granted", key, true, true, true, allowed()},
		{"S29: the owner's console session still works", session, true, true, false, allowed()},
		{"D20: restriction binds keys, not people", jwt, true, false, false, allowed()},
		{"S32: a grant counts for nothing while unrestricted", key, false, false, true, allowed()},
		{"S34: lifting the restriction re-enables all tokens", key, false, true, false, allowed()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := with(keyRequest(), func(r *policy.Request) {
				r.Principal.Credential, r.Principal.Owner, r.Principal.Permitted = tt.kind, tt.owner, tt.permitted
				r.Settings.RestrictUsers = tt.restrict
			})
			require.Equal(t, tt.want, policy.PermittedUsers().Evaluate(r))
			require.Equal(t, tt.want, policy.Default().Evaluate(r))
		})
	}
}

// TestAllowedIPs is the section "Address restriction".
func TestAllowedIPs(t *testing.T) {
	t.Parallel()
	const list = "192.0.2.0/28\n2001:db8::/32 # office"
	for _, tt := range []struct {
		name, list, addr string
		kind             policy.Credential
		want             policy.Decision
	}{
		{"S43: empty list, all pass", "", "203.0.113.1", policy.APIKey, allowed()},
		{"S43: empty list, no address known", "", "", policy.APIKey, allowed()},
		{"S43: inside", list, "192.0.2.15", policy.APIKey, allowed()},
		{"S43: inside, IPv6", list, "2001:db8::1", policy.APIKey, allowed()},
		{"S45: use from elsewhere is refused", list, "192.0.2.16", policy.APIKey, refused(policy.AddressNotAllowed)},
		{"S45: of the other family", list, "2001:db9::1", policy.APIKey, refused(policy.AddressNotAllowed)},
		{"D18: no address fails every list", list, "", policy.APIKey, refused(policy.AddressNotAllowed)},
		{"D18: no address fails every list, also of everything", "0.0.0.0/0\n::/0", "", policy.APIKey, refused(policy.AddressNotAllowed)},
		{"D19: comments only, nobody", "# nobody", "192.0.2.1", policy.APIKey, refused(policy.AddressNotAllowed)},
		{"D20: the list binds API tokens only, JWT", list, "203.0.113.1", policy.JWT, allowed()},
		{"D20: the list binds API tokens only, session", list, "203.0.113.1", policy.Session, allowed()},
		{"D20: also one that restricts to nobody", "#", "", policy.Session, allowed()},
		{"F10: IPv4 as IPv6", list, "::ffff:192.0.2.1", policy.APIKey, allowed()},
		{"F10: IPv4 as IPv6, outside", list, "::ffff:192.0.2.16", policy.APIKey, refused(policy.AddressNotAllowed)},
		{"F12: with a zone", list, "2001:db8::1%eth0", policy.APIKey, allowed()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := with(keyRequest(), func(r *policy.Request) {
				r.Principal.Credential = tt.kind
				r.Settings.AllowedIPs = mustList(t, tt.list)
				r.Addr = netip.Addr{}
				if tt.addr != "" {
					r.Addr = netip.MustParseAddr(tt.addr)
				}
			})
			require.Equal(t, tt.want, policy.AllowedIPs().Evaluate(r))
			require.Equal(t, tt.want, policy.Default().Evaluate(r))
		})
	}
}

// TestFrom: a list of a route binds every kind of credential, and one that does
// not restrict contains nobody.
func TestFrom(t *testing.T) {
	t.Parallel()
	for _, kind := range []policy.Credential{policy.APIKey, policy.JWT, policy.Session} {
		for _, tt := range []struct {
			name, list, addr string
			want             policy.Decision
		}{
			{"inside", "192.0.2.0/28", "192.0.2.3", allowed()},
			{"inside, F10", "192.0.2.0/28", "::ffff:192.0.2.3", allowed()},
			{"outside", "192.0.2.0/28", "192.0.2.16", refused(policy.AddressNotAllowed)},
			{"no address", "0.0.0.0/0", "", refused(policy.AddressNotAllowed)},
			{"comments only", "# none", "192.0.2.3", refused(policy.AddressNotAllowed)},
			{"zero list", "", "192.0.2.3", refused(policy.AddressNotAllowed)},
		} {
			t.Run(kind.String()+" "+tt.name, func(t *testing.T) {
				t.Parallel()
				r := with(keyRequest(), func(r *policy.Request) {
					r.Principal.Credential = kind
					r.Addr = netip.Addr{}
					if tt.addr != "" {
						r.Addr = netip.MustParseAddr(tt.addr)
					}
				})
				require.Equal(t, tt.want, policy.From(mustList(t, tt.list)).Evaluate(r))
			})
		}
	}
}

// TestVia_D25: "asked as was it a JWT or session, never as was it not a key"
// (S60, F34).
func TestVia_D25(t *testing.T) {
	t.Parallel()
	key, jwt, session := policy.APIKey, policy.JWT, policy.Session
	for _, tt := range []struct {
		name  string
		kinds []policy.Credential
		ok    []policy.Credential
	}{
		{"person", []policy.Credential{jwt, session}, []policy.Credential{jwt, session}},
		{"key", []policy.Credential{key}, []policy.Credential{key}},
		{"all", []policy.Credential{key, jwt, session}, []policy.Credential{key, jwt, session}},
		{"none", nil, nil},
		{"the zero one", []policy.Credential{0}, nil},
		{"an unknown one", []policy.Credential{session + 1}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, kind := range []policy.Credential{key, jwt, session} {
				r := with(keyRequest(), func(r *policy.Request) { r.Principal.Credential = kind })
				want := refused(policy.WrongCredentialKind)
				for _, ok := range tt.ok {
					if ok == kind {
						want = allowed()
					}
				}
				require.Equal(t, want, policy.Via(tt.kinds...).Evaluate(r), kind)
			}
			for _, kind := range []policy.Credential{0, session + 1} {
				r := with(keyRequest(), func(r *policy.Request) { r.Principal.Credential = kind })
				require.Equal(t, refused(policy.NoCredentials), policy.Via(tt.kinds...).Evaluate(r), kind)
			}
		})
	}
}

// TestScope_F33: "scope enforced for Basic, not for Bearer of the same token":
// here for every credential; all names are needed, byte for byte.
func TestScope_F33(t *testing.T) {
	t.Parallel()
	for _, kind := range []policy.Credential{policy.APIKey, policy.JWT, policy.Session} {
		for _, tt := range []struct {
			name      string
			has, need []string
			want      bool
		}{
			{"has it", []string{"a"}, []string{"a"}, true},
			{"has more", []string{"a", "b", "c"}, []string{"c", "a"}, true},
			{"has one of two", []string{"a"}, []string{"a", "b"}, false},
			{"has none", nil, []string{"a"}, false},
			{"case", []string{"Reports:read"}, []string{"reports:read"}, false},
			{"prefix", []string{"reports"}, []string{"reports:read"}, false},
			{"longer", []string{"reports:read"}, []string{"reports"}, false},
			{"star means nothing", []string{"*", "reports:*"}, []string{"reports:read"}, false},
			{"blank", []string{"a b"}, []string{"a"}, false},
			{"no names", []string{"a"}, nil, false},
			{"empty name", []string{"", "a"}, []string{""}, false},
			{"empty name among others", []string{"", "a"}, []string{"a", ""}, false},
		} {
			t.Run(kind.String()+" "+tt.name, func(t *testing.T) {
				t.Parallel()
				r := with(keyRequest(), func(r *policy.Request) {
					r.Principal.Credential, r.Principal.Scopes = kind, tt.has
				})
				want := refused(policy.InsufficientScope)
				if tt.want {
					want = allowed()
				}
				require.Equal(t, want, policy.Scope(tt.need...).Evaluate(r))
			})
		}
	}
}

// TestTier_D26: "Pro, Team, Enterprise, compared without case; optionally also
// at use, then 403" (S54).
func TestTier_D26(t *testing.T) {
	t.Parallel()
	paid := []string{"Pro", "Team", "Enterprise"}
	for _, tt := range []struct {
		name, tier string
		names      []string
		want       bool
	}{
		{"exact", "Pro", paid, true},
		{"lower", "enterprise", paid, true},
		{"upper", "TEAM", paid, true},
		{"free", "Free", paid, false},
		{"none", "", paid, false},
		{"longer", "Pro2", paid, false},
		{"shorter", "Pr", paid, false},
		{"blank", "Pro ", paid, false},
		{"no names", "Pro", nil, false},
		{"empty name, no tier", "", []string{""}, false},
		{"long s of Unicode folds to s", "ba\u017fic", []string{"basic"}, false},
		{"Kelvin sign folds to k", "\u212ael", []string{"kel"}, false},
		{"same bytes, other script", "П", []string{"п"}, false},
		{"same script, same bytes", "Про", []string{"Про"}, true},
		{"next to letters", "[`", []string{"{@"}, false},
		{"bit 5 of @", "@", []string{"`"}, false},
		{"bit 5 of [", "[", []string{"{"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, kind := range []policy.Credential{policy.APIKey, policy.JWT, policy.Session} {
				r := with(keyRequest(), func(r *policy.Request) {
					r.Principal.Credential, r.Principal.Tier = kind, tt.tier
				})
				want := refused(policy.TierNotAllowed)
				if tt.want {
					want = allowed()
				}
				require.Equal(t, want, policy.Tier(tt.names...).Evaluate(r))
			}
		})
	}
}

// TestDefaultOrder_S72: "owner/user state, restriction, expiration, address";
// when several apply, the first in that order answers (D13).
func TestDefaultOrder_S72(t *testing.T) {
	t.Parallel()
	faults := []struct {
		why  policy.Reason
		make func(r *policy.Request)
	}{
		{policy.KeyDisabled, func(r *policy.Request) { r.Principal.Disabled = true }},
		{policy.UserNotPermitted, func(r *policy.Request) { r.Settings.RestrictUsers = true }},
		{policy.Expired, func(r *policy.Request) { r.Settings.MaxAge = time.Minute }},
		{policy.AddressNotAllowed, func(r *policy.Request) { r.Settings.AllowedIPs = must(policy.ParseIPList("#")) }},
	}
	for set := range 1 << len(faults) {
		want := allowed()
		r := with(keyRequest(), func(r *policy.Request) {
			for i, fault := range slices.Backward(faults) {
				if set>>i&1 == 1 {
					fault.make(r)
					want = refused(fault.why)
				}
			}
		})
		require.Equal(t, want, policy.Default().Evaluate(r), "%04b", set)
	}
}

// TestDefaultIsAll: Default is All(Enabled(), PermittedUsers(), Expiry(),
// AllowedIPs()), for random requests of which each answer is frequent; and
// Expiry agrees with ExpiresAt (D23).
func TestDefaultIsAll(t *testing.T) {
	t.Parallel()
	const rounds = 200_000
	rnd := rand.New(rand.NewPCG(1, 2))
	all := policy.All(policy.Enabled(), policy.PermittedUsers(), policy.Expiry(), policy.AllowedIPs())
	lists := []policy.IPList{{}, {}, {}, mustList(t, "#"), mustList(t, tenPrefixes), mustList(t, "0.0.0.0/0\n::/0")}
	addrs := []netip.Addr{{}, netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("::ffff:10.0.0.1"), netip.MustParseAddr("192.0.2.200"), netip.MustParseAddr("2001:db8:1::1%x")}
	flip := func() bool { return rnd.IntN(4) == 0 }
	instant := func() time.Time {
		switch rnd.IntN(12) {
		case 0:
			return time.Time{}
		case 1:
			return time.Unix(0, 0)
		case 2:
			return time.Unix(rnd.Int64()-rnd.Int64(), rnd.Int64N(1e9)) // any year at all
		}
		return now.Add(time.Duration(rnd.Int64N(41)-20) * time.Minute)
	}
	counts := map[policy.Reason]int{}
	for range rounds {
		p := &policy.Principal{
			Credential: policy.Credential(rnd.IntN(8)),
			Owner:      flip(), Permitted: flip(), Disabled: flip(),
			IssuedAt: instant(),
		}
		if p.Credential > policy.Session {
			p.Credential = policy.APIKey // most of them
		}
		if flip() {
			p.NotAfter = instant()
		}
		s := &policy.Settings{
			MaxAge:        []time.Duration{0, 0, -1, -time.Hour, time.Second, 20 * time.Minute, policy.MaxAgeLimit}[rnd.IntN(7)],
			RestrictUsers: flip(),
			AllowedIPs:    lists[rnd.IntN(len(lists))],
		}
		r := policy.Request{Principal: p, Settings: s, Addr: addrs[rnd.IntN(len(addrs))], Time: instant()}
		if rnd.IntN(50) == 0 {
			r.Settings = nil
		}
		if rnd.IntN(50) == 0 {
			r.Principal = nil
		}
		got := policy.Default().Evaluate(r)
		if want := all.Evaluate(r); got != want {
			require.Equal(t, want, got)
		}
		counts[got.Reason]++

		if r.Principal == nil || r.Settings == nil || p.Credential == 0 {
			continue
		}
		end := p.ExpiresAt(s)
		want := allowed()
		if !end.IsZero() && (!r.Time.Before(end) || !r.Time.After(time.Time{})) {
			want = refused(policy.Expired)
		}
		if got := policy.Expiry().Evaluate(r); got != want {
			require.Equal(t, want, got, "%+v %+v", p, s)
		}
	}
	for _, why := range []policy.Reason{"", policy.NoCredentials, policy.KeyDisabled, policy.UserNotPermitted, policy.Expired, policy.AddressNotAllowed} {
		require.Greater(t, counts[why], rounds/50, "%q is too rare to show anything", why)
	}
	require.Len(t, counts, 6)
}

// TestEvaluateIsPure: evaluating changes nothing that is shared between
// requests.
func TestEvaluateIsPure(t *testing.T) {
	t.Parallel()
	r := warmRequest(t)
	before := with(r, func(r *policy.Request) { r.Principal.Scopes = append([]string(nil), r.Principal.Scopes...) })
	for _, p := range every() {
		require.Equal(t, p.Evaluate(r), p.Evaluate(r))
	}
	require.Equal(t, before, r)
}
