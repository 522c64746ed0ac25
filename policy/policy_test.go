package policy_test

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keystile/keystile/policy"
	"github.com/stretchr/testify/require"
)

// now is the time of the requests of these tests.
var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// kinds are all credentials, with those that are none.
var kinds = []policy.Credential{0, policy.APIKey, policy.JWT, policy.Session, policy.Session + 1, 255}

// keyRequest is a request with an API key that no rule refuses.
func keyRequest() policy.Request {
	return policy.Request{
		Principal: &policy.Principal{Credential: policy.APIKey, Org: "acme", User: "u1", IssuedAt: now.Add(-time.Hour)},
		Settings:  &policy.Settings{Org: "acme"},
		Addr:      netip.MustParseAddr("192.0.2.1"),
		Time:      now,
	}
}

// with returns r with a copy of its principal and settings changed by f.
func with(r policy.Request, f func(r *policy.Request)) policy.Request {
	p, s := *r.Principal, *r.Settings
	r.Principal, r.Settings = &p, &s
	f(&r)
	return r
}

func allow() policy.Policy {
	return policy.Func(func(policy.Request) policy.Decision { return policy.Decision{Allow: true} })
}

func deny(why policy.Reason) policy.Policy {
	return policy.Func(func(policy.Request) policy.Decision { return policy.Decision{Reason: why} })
}

func allowed() policy.Decision { return policy.Decision{Allow: true} }

func refused(why policy.Reason) policy.Decision { return policy.Decision{Reason: why} }

// every is all policies of this package that look at a principal, each so that
// it allows keyRequest.
func every() map[string]policy.Policy {
	r := keyRequest()
	return map[string]policy.Policy{
		"default":         policy.Default(),
		"enabled":         policy.Enabled(),
		"permitted users": policy.PermittedUsers(),
		"expiry":          policy.Expiry(),
		"allowed IPs":     policy.AllowedIPs(),
		"from":            policy.From(must(policy.ParseIPList(r.Addr.String()))),
		"via":             policy.Via(policy.APIKey),
		"scope":           policy.Scope("reports:read"),
		"tier":            policy.Tier("pro"),
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// TestDenyIsTheZeroValue: what is not known, and what was forgotten, refuses
// (F27, F29, F36).
func TestDenyIsTheZeroValue(t *testing.T) {
	t.Parallel()
	require.False(t, policy.Decision{}.Allow)
	require.Equal(t, policy.Decision{}, policy.Func(nil).Evaluate(keyRequest()))
	require.Equal(t, policy.Decision{}, policy.Any().Evaluate(keyRequest()))
	require.Equal(t, policy.Decision{}, policy.Any(nil).Evaluate(keyRequest()))
	require.Equal(t, policy.Decision{}, policy.All(nil).Evaluate(keyRequest()))
	require.Equal(t, policy.Decision{}, policy.All(allow(), nil, allow()).Evaluate(keyRequest()))
	for name, p := range every() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := with(keyRequest(), func(r *policy.Request) {
				r.Principal.Scopes, r.Principal.Tier = []string{"reports:read"}, "Pro"
			})
			require.Equal(t, allowed(), p.Evaluate(r))
			require.Equal(t, refused(policy.NoCredentials), p.Evaluate(policy.Request{}))
			r.Principal = nil
			require.Equal(t, refused(policy.NoCredentials), p.Evaluate(r))
			for _, kind := range kinds {
				r := with(keyRequest(), func(r *policy.Request) { r.Principal.Credential = kind })
				if kind < policy.APIKey || kind > policy.Session {
					require.Equal(t, refused(policy.NoCredentials), p.Evaluate(r), kind)
				} else {
					require.NotEqual(t, policy.NoCredentials, p.Evaluate(r).Reason, kind)
				}
			}
		})
	}
}

// TestKeyWithoutSettings: each rule that comes from settings refuses an API key
// with its own reason when there are none; people are not bound by them (S76,
// D20).
func TestKeyWithoutSettings(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		p    policy.Policy
		want policy.Decision
	}{
		{"enabled", policy.Enabled(), allowed()},
		{"permitted users", policy.PermittedUsers(), refused(policy.UserNotPermitted)},
		{"expiry", policy.Expiry(), refused(policy.Expired)},
		{"allowed IPs", policy.AllowedIPs(), refused(policy.AddressNotAllowed)},
		{"default", policy.Default(), refused(policy.UserNotPermitted)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, permitted := range []bool{false, true} {
				r := keyRequest()
				r.Settings = nil
				r.Principal.Permitted = permitted
				require.Equal(t, tt.want, tt.p.Evaluate(r))
				for _, kind := range []policy.Credential{policy.JWT, policy.Session} {
					r.Principal.Credential = kind
					require.Equal(t, allowed(), tt.p.Evaluate(r))
				}
			}
		})
	}
}

// TestAll: every policy must allow, the first refusal answers, and those after
// it are not asked.
func TestAll(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		p    policy.Policy
		want policy.Decision
	}{
		{"none", policy.All(), allowed()},
		{"one", policy.All(allow()), allowed()},
		{"two", policy.All(allow(), allow()), allowed()},
		{"first refuses", policy.All(deny("a"), allow()), refused("a")},
		{"last refuses", policy.All(allow(), deny("b")), refused("b")},
		{"both refuse", policy.All(deny("a"), deny("b")), refused("a")},
		{"nil first", policy.All(nil, deny("b")), policy.Decision{}},
		{"nil after a refusal", policy.All(deny("a"), nil), refused("a")},
		{"nil Func", policy.All(allow(), policy.Func(nil)), policy.Decision{}},
		{"nested", policy.All(policy.All(allow(), policy.All()), policy.Any(deny("a"), allow())), allowed()},
		{"reason beside allow", policy.All(policy.Func(func(policy.Request) policy.Decision {
			return policy.Decision{Allow: true, Reason: "x"}
		})), allowed()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, tt.want, tt.p.Evaluate(keyRequest()))
		})
	}
	asked := 0
	count := policy.Func(func(policy.Request) policy.Decision { asked++; return allowed() })
	policy.All(count, deny("a"), count).Evaluate(keyRequest())
	require.Equal(t, 1, asked)
}

// TestAny: one policy must allow; the first refusal answers.
func TestAny(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		p    policy.Policy
		want policy.Decision
	}{
		{"none", policy.Any(), policy.Decision{}},
		{"one", policy.Any(allow()), allowed()},
		{"one refuses", policy.Any(deny("a")), refused("a")},
		{"last allows", policy.Any(deny("a"), deny("b"), allow()), allowed()},
		{"first allows", policy.Any(allow(), deny("b")), allowed()},
		{"all refuse", policy.Any(deny("a"), deny("b")), refused("a")},
		{"nil first", policy.Any(nil, deny("b")), policy.Decision{}},
		{"nil last", policy.Any(deny("a"), nil), refused("a")},
		{"nil beside one that allows", policy.Any(nil, allow()), allowed()},
		{"reason beside allow", policy.Any(policy.Func(func(policy.Request) policy.Decision {
			return policy.Decision{Allow: true, Reason: "x"}
		})), allowed()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, tt.want, tt.p.Evaluate(keyRequest()))
		})
	}
}

// TestArgumentsAreCopied: what the caller does with its slices later changes no
// policy.
func TestArgumentsAreCopied(t *testing.T) {
	t.Parallel()
	r := with(keyRequest(), func(r *policy.Request) { r.Principal.Scopes, r.Principal.Tier = []string{"a"}, "pro" })

	policies := []policy.Policy{deny("a")}
	all, anyOf := policy.All(policies...), policy.Any(policies...)
	policies[0] = allow()
	require.Equal(t, refused("a"), all.Evaluate(r))
	require.Equal(t, refused("a"), anyOf.Evaluate(r))

	names := []string{"b"}
	scope, tier := policy.Scope(names...), policy.Tier(names...)
	names[0] = "a"
	require.Equal(t, refused(policy.InsufficientScope), scope.Evaluate(r))
	names[0] = "pro"
	require.Equal(t, refused(policy.TierNotAllowed), tier.Evaluate(r))

	via := []policy.Credential{policy.JWT}
	p := policy.Via(via...)
	via[0] = policy.APIKey
	require.Equal(t, refused(policy.WrongCredentialKind), p.Evaluate(r))
}

// TestFunc: a function is asked with the request as it is.
func TestFunc(t *testing.T) {
	t.Parallel()
	r := keyRequest()
	var got policy.Request
	d := policy.Func(func(r policy.Request) policy.Decision { got = r; return refused("own_reason") }).Evaluate(r)
	require.Equal(t, refused("own_reason"), d)
	require.Equal(t, r, got)
}

// TestReasons_D3: "error.reason is finer and stable", so it is spelled out once
// more here.
func TestReasons_D3(t *testing.T) {
	t.Parallel()
	require.Equal(t, []policy.Reason{
		"no_credentials", "invalid_token", "expired", "multiple_credentials", "user_not_permitted",
		"key_disabled", "address_not_allowed", "insufficient_scope", "wrong_credential_kind",
		"tier_not_allowed", "daily_limit", "burst_limit", "store_unavailable",
	}, []policy.Reason{
		policy.NoCredentials, policy.InvalidToken, policy.Expired, policy.MultipleCredentials, policy.UserNotPermitted,
		policy.KeyDisabled, policy.AddressNotAllowed, policy.InsufficientScope, policy.WrongCredentialKind,
		policy.TierNotAllowed, policy.DailyLimit, policy.BurstLimit, policy.StoreUnavailable,
	})
}

func TestCredentialString(t *testing.T) {
	t.Parallel()
	var got []string
	for _, kind := range kinds {
		got = append(got, kind.String())
	}
	require.Equal(t, []string{"credential(0)", "api_key", "jwt", "session", "credential(4)", "credential(255)"}, got)
}

// TestConcurrentEvaluate: policies are shared by all requests; every answer is
// right, as a count (run it with -race).
func TestConcurrentEvaluate(t *testing.T) {
	t.Parallel()
	const callers, rounds = 32, 500
	p := policy.All(policy.Default(), policy.From(mustList(t, tenPrefixes)), policy.Scope("usage:read"), policy.Tier("pro"), policy.Any(policy.Via(policy.JWT), policy.Via(policy.APIKey)))
	good := warmRequest(t)
	bad := good
	bad.Addr = netip.MustParseAddr("192.0.2.200")
	var admitted, denied atomic.Int64
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for range rounds {
				if p.Evaluate(good).Allow {
					admitted.Add(1)
				}
				if p.Evaluate(bad) == refused(policy.AddressNotAllowed) {
					denied.Add(1)
				}
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, callers*rounds, admitted.Load())
	require.EqualValues(t, callers*rounds, denied.Load())
}

// TestAllocs: no decision allocates, allowed or refused. Not parallel:
// allocations are counted for the whole process.
func TestAllocs(t *testing.T) {
	good := warmRequest(t)
	bad := with(good, func(r *policy.Request) {
		r.Principal.Disabled, r.Principal.Permitted = true, false
		r.Principal.NotAfter = now.Add(-1)
		r.Principal.Scopes, r.Principal.Tier = nil, ""
		r.Addr = netip.MustParseAddr("fe80::1%eth0")
	})
	list := mustList(t, tenPrefixes)
	mapped := netip.MustParseAddr("::ffff:198.51.100.20")
	policies := map[string]policy.Policy{
		"default":         policy.Default(),
		"enabled":         policy.Enabled(),
		"permitted users": policy.PermittedUsers(),
		"expiry":          policy.Expiry(),
		"allowed IPs":     policy.AllowedIPs(),
		"from":            policy.From(list),
		"via":             policy.Via(policy.JWT, policy.APIKey),
		"scope":           policy.Scope("usage:read", "reports:read"),
		"tier":            policy.Tier("team", "pro"),
		"all":             policy.All(policy.Enabled(), policy.Scope("usage:read")),
		"any":             policy.Any(policy.Via(policy.JWT), policy.Scope("usage:read")),
		"nil":             policy.Func(nil),
	}
	for name, p := range policies {
		t.Run(name, func(t *testing.T) {
			require.Zero(t, testing.AllocsPerRun(100, func() { p.Evaluate(good) }))
			require.Zero(t, testing.AllocsPerRun(100, func() { p.Evaluate(bad) }))
			require.Zero(t, testing.AllocsPerRun(100, func() { p.Evaluate(policy.Request{}) }))
		})
	}
	t.Run("contains", func(t *testing.T) {
		require.Zero(t, testing.AllocsPerRun(100, func() { list.Contains(mapped); list.Contains(bad.Addr) }))
	})
	t.Run("expires at", func(t *testing.T) {
		require.Zero(t, testing.AllocsPerRun(100, func() { good.Principal.ExpiresAt(good.Settings) }))
	})
}
