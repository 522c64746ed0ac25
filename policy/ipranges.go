package policy

import (
	"encoding/binary"
	"net/netip"
	"sort"

	"go4.org/netipx"
)

// ipRanges are the addresses of a list, as ranges in ascending order that have no
// address in common. They are netipx.IPSet's, with the two families apart and the
// addresses as plain numbers: a list is searched for each request, and comparing
// values of type netip.Addr takes several times as long (BenchmarkContains).
type ipRanges struct {
	v4 []ipv4Range
	v6 []ipv6Range
}

type ipv4Range struct{ first, last uint32 }

type ipv6Range struct{ first, last ipv6 }

// An ipv6 is an IPv6 address as a number.
type ipv6 struct{ high, low uint64 }

func (a ipv6) less(b ipv6) bool { return a.high < b.high || a.high == b.high && a.low < b.low }

// newIPRanges returns the ranges of set, which has no IPv4 address written as
// IPv6.
func newIPRanges(set *netipx.IPSet) *ipRanges {
	rs := new(ipRanges)
	for _, r := range set.Ranges() {
		if r.From().Is4() {
			rs.v4 = append(rs.v4, ipv4Range{numberOf4(r.From()), numberOf4(r.To())})
		} else {
			rs.v6 = append(rs.v6, ipv6Range{numberOf6(r.From()), numberOf6(r.To())})
		}
	}
	return rs
}

// contains reports whether a, without its zone, is in one of the ranges. IPv4
// written as IPv6 is IPv4.
func (rs *ipRanges) contains(a netip.Addr) bool {
	switch {
	case a.Is4() || a.Is4In6():
		n := numberOf4(a)
		i := sort.Search(len(rs.v4), func(i int) bool { return rs.v4[i].last >= n })
		return i < len(rs.v4) && rs.v4[i].first <= n
	case a.IsValid():
		n := numberOf6(a)
		i := sort.Search(len(rs.v6), func(i int) bool { return !rs.v6[i].last.less(n) })
		return i < len(rs.v6) && !n.less(rs.v6[i].first)
	}
	return false
}

func numberOf4(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

func numberOf6(a netip.Addr) ipv6 {
	b := a.As16()
	return ipv6{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}
