package policy_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/keystile/keystile/policy"
)

// tenPrefixes is a list as organizations have it.
const tenPrefixes = `192.0.2.0/28
192.0.2.64/28
198.51.100.0/26
198.51.100.128/26
203.0.113.0/27
203.0.113.64/27
10.0.0.0/8
172.16.0.0/12
2001:db8:1::/48
2001:db8:2::/48`

func mustList(tb testing.TB, text string) policy.IPList {
	tb.Helper()
	l, err := policy.ParseIPList(text)
	if err != nil {
		tb.Fatal(err)
	}
	return l
}

// warmRequest is a request of a key to which every rule of Default applies.
func warmRequest(tb testing.TB) policy.Request {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	return policy.Request{
		Principal: &policy.Principal{
			Credential: policy.APIKey, Org: "acme", User: "u1", Permitted: true,
			Scopes: []string{"reports:read", "usage:read"}, Tier: "Pro",
			IssuedAt: now.AddDate(0, 0, -10), NotAfter: now.AddDate(0, 0, 10),
		},
		Settings: &policy.Settings{
			Org: "acme", MaxAge: 30 * 24 * time.Hour, RestrictUsers: true,
			AllowedIPs: mustList(tb, tenPrefixes),
		},
		Addr: netip.MustParseAddr("198.51.100.20"),
		Time: now,
	}
}

// BenchmarkDefault is the decision about a warm key with a list of ten prefixes,
// beside the same rules by All.
func BenchmarkDefault(b *testing.B) {
	for _, bc := range []struct {
		name string
		p    policy.Policy
	}{
		{"default", policy.Default()},
		{"all", policy.All(policy.Enabled(), policy.PermittedUsers(), policy.Expiry(), policy.AllowedIPs())},
	} {
		b.Run(bc.name, func(b *testing.B) {
			r := warmRequest(b)
			b.ReportAllocs()
			for b.Loop() {
				if d := bc.p.Evaluate(r); !d.Allow {
					b.Fatal(d)
				}
			}
		})
	}
}

// BenchmarkContains is the address in a list of ten prefixes, for both families
// and for IPv4 written as IPv6.
func BenchmarkContains(b *testing.B) {
	l := mustList(b, tenPrefixes)
	for _, a := range []string{"198.51.100.20", "2001:db8:2::1", "::ffff:198.51.100.20", "fe80::1%eth0"} {
		b.Run(a, func(b *testing.B) {
			addr := netip.MustParseAddr(a)
			b.ReportAllocs()
			for b.Loop() {
				l.Contains(addr)
			}
		})
	}
}

// BenchmarkParseIPList is the list of ten prefixes as it is read with the
// settings of an organization.
func BenchmarkParseIPList(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		mustList(b, tenPrefixes)
	}
}
