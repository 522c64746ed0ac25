package policy_test

import (
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keystile/keystile/policy"
	"github.com/stretchr/testify/require"
)

// FuzzParseIPList: no text panics; an error has no place for input; the normal
// form is a fixed point, and the list that it gives contains the same addresses,
// which are those that its lines name, judged one by one by net/netip.
func FuzzParseIPList(f *testing.F) {
	v4, v6 := netip.MustParseAddr("10.1.2.3").AsSlice(), netip.MustParseAddr("2001:db8::1").AsSlice()
	for _, tt := range goodLists {
		f.Add(tt.text, v4)
	}
	for _, tt := range badLines {
		f.Add("10.0.0.0/8\n"+tt.line, v6)
	}
	f.Add(tenPrefixes, v6)
	f.Add("10.0.0.1\r", v4)
	f.Add("#\r\n#", []byte(nil))
	f.Fuzz(func(t *testing.T, text string, b []byte) {
		l, err := policy.ParseIPList(text)
		if err != nil {
			require.Equal(t, policy.IPList{}, l)
			if len(text) < 128<<10 { // else it may be too long
				lines := badLineNumbers(t, err)
				require.True(t, slices.IsSorted(lines))
				require.LessOrEqual(t, lines[len(lines)-1], strings.Count(text, "\n")+1)
				for line := range strings.SplitSeq(err.Error(), "\n") {
					_, problem, ok := strings.Cut(strings.TrimPrefix(line, "policy: line "), ": ")
					require.True(t, ok)
					require.Contains(t, fixedProblems, problem)
				}
			}
			return
		}
		normal := l.String()
		again := mustList(t, normal)
		require.Equal(t, normal, again.String())
		require.Equal(t, l.Lines(), again.Lines())
		require.Equal(t, l.Restricts(), again.Restricts())
		require.Equal(t, strings.Trim(text, " \t\r\n") != "", l.Restricts())

		addrs := []netip.Addr{{}, netip.IPv4Unspecified(), netip.IPv6Unspecified()}
		if a, ok := netip.AddrFromSlice(b); ok {
			addrs = append(addrs, a)
		}
		for _, line := range l.Lines()[:min(len(l.Lines()), 20)] {
			first, last := ends(t, line)
			for _, a := range []netip.Addr{first, last} {
				if a.IsValid() {
					require.True(t, l.Contains(a))
					require.True(t, l.Contains(netip.AddrFrom16(a.As16())))
					addrs = append(addrs, a.Prev(), a, a.Next())
				}
			}
		}
		for _, a := range addrs {
			require.Equal(t, named(t, l, a), l.Contains(a), a)
			require.Equal(t, l.Contains(a), again.Contains(a), a)
			if a.Is6() {
				require.Equal(t, l.Contains(a), l.Contains(a.WithZone("eth0")), a)
			}
		}
	})
}

// named reports whether a line of l names a.
func named(tb testing.TB, l policy.IPList, a netip.Addr) bool {
	tb.Helper()
	a = a.Unmap()
	return slices.ContainsFunc(l.Lines(), func(line string) bool {
		first, last := ends(tb, line)
		return a.IsValid() && a.BitLen() == first.BitLen() && first.Compare(a) <= 0 && a.Compare(last) <= 0
	})
}

// ends returns the first and the last address of a line in normal form; the zero
// ones of a comment.
func ends(tb testing.TB, line string) (first, last netip.Addr) {
	tb.Helper()
	entry, _, _ := strings.Cut(line, "#")
	entry = strings.TrimSuffix(entry, " ")
	if entry == "" {
		return first, last
	}
	if a, b, ok := strings.Cut(entry, "-"); ok {
		return netip.MustParseAddr(a), netip.MustParseAddr(b)
	}
	if p, err := netip.ParsePrefix(entry); err == nil {
		require.Equal(tb, p.Masked(), p)
		b := p.Addr().AsSlice()
		for i := p.Bits(); i < len(b)*8; i++ {
			b[i/8] |= 0x80 >> (i % 8)
		}
		last, _ = netip.AddrFromSlice(b)
		return p.Addr(), last
	}
	a := netip.MustParseAddr(entry)
	return a, a
}

// FuzzExpiry: a credential is refused exactly from the instant on that ExpiresAt
// gives, and always where the time is unknown and there is such an instant (D22,
// D23).
func FuzzExpiry(f *testing.F) {
	for _, now := range edgeInstants {
		f.Add(int64(0), int64(5), edgeInstants[0], int64(0), now, int64(5), int64(policy.MaxAgeLimit), uint8(policy.APIKey))
	}
	f.Fuzz(func(t *testing.T, issued, issuedNano, notAfter, notAfterNano, now, nowNano, maxAge int64, kind uint8) {
		requireExpiry(t, &policy.Principal{
			Credential: policy.Credential(kind),
			IssuedAt:   time.Unix(issued, issuedNano%1e9),
			NotAfter:   time.Unix(notAfter, notAfterNano%1e9),
		}, &policy.Settings{MaxAge: time.Duration(maxAge)}, time.Unix(now, nowNano%1e9))
	})
}

// edgeInstants are Unix times about which arithmetic may go wrong: among them the
// zero Time, and the first and the last that a Time holds.
var edgeInstants = []int64{
	year1, year1 - 1, year1 + 1, 0, 1_800_000_000, math.MinInt64, math.MaxInt64, math.MaxInt64 + year1,
}

const year1 = -62135596800 // the zero Time

// TestExpiryAtEdges is FuzzExpiry with all combinations of those (F69, D22).
func TestExpiryAtEdges(t *testing.T) {
	t.Parallel()
	ages := []time.Duration{0, 1, -1, policy.MaxAgeLimit, math.MinInt64, math.MaxInt64}
	for _, issued := range edgeInstants {
		for _, notAfter := range edgeInstants {
			p := &policy.Principal{Credential: policy.APIKey, IssuedAt: time.Unix(issued, 5), NotAfter: time.Unix(notAfter, 0)}
			for _, now := range edgeInstants {
				for _, maxAge := range ages {
					requireExpiry(t, p, &policy.Settings{MaxAge: maxAge}, time.Unix(now, 5))
					requireExpiry(t, p, &policy.Settings{MaxAge: maxAge}, time.Unix(now, 0))
				}
			}
		}
	}
}

// TestExpiryCountsFractions is FuzzExpiry with all combinations of fractions around
// the end of a period (D22).
func TestExpiryCountsFractions(t *testing.T) {
	t.Parallel()
	const issued, age = 1_800_000_000, 100
	fractions := []int64{0, 1, 500_000_000, 999_999_999}
	for _, ofIssued := range fractions {
		for _, ofAge := range fractions {
			p := &policy.Principal{Credential: policy.APIKey, IssuedAt: time.Unix(issued, ofIssued)}
			s := &policy.Settings{MaxAge: age*time.Second + time.Duration(ofAge)}
			for _, ofNow := range fractions {
				for now := int64(issued + age - 2); now <= issued+age+3; now++ {
					requireExpiry(t, p, s, time.Unix(now, ofNow))
				}
			}
		}
	}
}

// requireExpiry requires that Expiry decides by what ExpiresAt gives.
func requireExpiry(t *testing.T, p *policy.Principal, s *policy.Settings, now time.Time) {
	t.Helper()
	got := policy.Expiry().Evaluate(policy.Request{Principal: p, Settings: s, Time: now})
	if p.Credential < policy.APIKey || p.Credential > policy.Session {
		require.Equal(t, policy.NoCredentials, got.Reason)
		return
	}
	end := p.ExpiresAt(s)
	want := !end.IsZero() && (!now.Before(end) || !now.After(time.Time{}))
	require.Equal(t, want, got.Reason == policy.Expired, "issued %v, not after %v, at most %v old, at %v", p.IssuedAt, p.NotAfter, s.MaxAge, now)
}
